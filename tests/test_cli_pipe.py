"""refquant gen | an engine in C | refquant check: its bits, its faults by name, its rate; and the same through files."""

import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

from refquant.cli.main import main
from refquant.verify import load_case, oracle

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "notebooks" / "c_engine" / "engine.c"
REFQUANT = [sys.executable, "-m", "refquant.cli.main"]
MIX = ("--op", "linear", "--op", "conv2d", "--numerics", "fbgemm")

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, cc")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    path = tmp_path_factory.mktemp("engine") / "engine"
    subprocess.run(["cc", "-O3", "-march=native", "-ffp-contract=off", "-fwrapv", "-Wall", "-Wextra", "-Werror", str(SOURCE), "-lm", "-o", str(path)], check=True)
    return str(path)


def pipe(generator, program, checker=()):
    """Run the three programs; return the statuses, and what the last one wrote."""
    first = subprocess.Popen([*REFQUANT, "gen", *generator], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    middle = subprocess.Popen(program, stdin=first.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first.stdout.close()
    last = subprocess.run([*REFQUANT, "check", *checker], stdin=middle.stdout, capture_output=True, text=True)
    middle.stdout.close()
    first.stderr.close(), middle.stderr.close()
    return (first.wait(), middle.wait(), last.returncode), last.stdout, last.stderr


@needs_cc
def test_the_engine_in_c_is_exact(engine):
    status, out, err = pipe((*MIX, "--cases", "200"), [engine])
    assert status == (0, 0, 0), (out, err)
    assert "linear: EXACT" in out and "conv2d: EXACT" in out and "the engine does not compute it" in out
    compared = [int(number.replace(",", "")) for number in re.findall(r"EXACT, ([\d,]+) outputs compared, 0 differ", out)]
    assert len(compared) == 2 and sum(compared) > 50_000


@needs_cc
@pytest.mark.parametrize(
    "fault, words",
    [
        ("half-away", "rounds half away from zero"),
        ("truncate", "truncates in place of rounding"),
        ("zero-before", "adds the zero point before rounding"),
        ("bias-after", "adds the bias as a float, after scaling"),
        ("no-zero", "ignores the zero point of the input"),
        ("pairs", "*neighbouring products*to int16"),
        ("tail", "drops the last 15 of K (the tail beyond whole blocks of 16)"),
        ("neighbour", "takes the scale of the neighbouring channel"),
    ],
)
def test_its_faults_are_named(engine, fault, words, tmp_path):
    status, out, err = pipe((*MIX, "--cases", "100"), [engine, "--fault", fault], ("--save", str(tmp_path)))
    assert status == (0, 0, 1) and "DIFFERENT" in out and fnmatch(out, f"*EXPLAINED: {words}*"), out + err
    assert load_case(tmp_path / "0000.npz").actual is not None and "refquant diagnose" in out


@needs_cc
def test_the_rate_is_told(engine):
    status, out, err = pipe(("--op", "linear", "--numerics", "fbgemm", "--shape", "m1024k1024n32", "--cases", "60"), [engine])
    found = re.fullmatch(r"([\d.]+) MB of problems and results in ([\d.]+) s after the first: ([\d,]+) MB/s\n", err)
    assert status == (0, 0, 0) and found, err
    size, seconds, rate = (float(text.replace(",", "")) for text in found.groups())
    assert 59 * (1024 * 1024 + 1024 * 32 * 2) / 1e6 < size < 80 and abs(rate - size / seconds) < 0.02 * rate + 1
    # A hundred and more on an idle machine; this is for machines that do other things too.
    assert rate > 5


@needs_cc
def test_an_engine_that_stops_early(engine):
    status, out, err = pipe((*MIX, "--cases", "20"), ["sh", "-c", f"head -c 5000 | {engine}"])
    assert status[2] == 2 and not out and "ends in the middle of" in err and err.count("\n") == 1
    status, out, err = pipe((*MIX, "--cases", "2"), ["sh", "-c", f"{engine}; echo done"])
    assert status[2] == 2 and not out and "bytes follow its end" in err


@needs_cc
def test_the_engine_refuses_what_is_no_stream(engine):
    assert subprocess.run([engine], input=b"nonsense, and more of it", capture_output=True).returncode == 2
    assert subprocess.run([engine, "--fault", "nobody"], input=b"", capture_output=True).returncode == 2


def test_cat_is_no_engine():
    status, out, err = pipe((*MIX, "--cases", "2"), ["cat"])
    assert status[2] == 2 and "it holds problems; results are expected here" in err


def call(capsys, *arguments):
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def answered(folder, profile, capsys, *, inside=False):
    """Write cases as files, and results beside or into them."""
    assert call(capsys, "gen", "--op", "linear", "--op", "add", "--numerics", "onnx", "--cases", 12, "--folder", folder)[0] == 0
    for path in folder.glob("*.npz"):
        y = oracle(load_case(path).problem, profile)
        if inside:
            with np.load(path) as archive:
                np.savez(path, **archive, actual=y)
        else:
            np.save(path.with_suffix(".y.npy"), y)
    return folder


@pytest.mark.parametrize("inside", (False, True))
def test_files_in_place_of_the_pipe(tmp_path, capsys, inside):
    folder = answered(tmp_path / "cases", "onnx", capsys, inside=inside)
    status, out, _ = call(capsys, "check", "--folder", folder)
    assert status == 0 and "linear: EXACT" in out and "add: EXACT" in out
    status, out, _ = call(capsys, "check", "--folder", folder, "--numerics", "onednn", "--seconds", 2)
    assert status == 1 and "DIFFERENT" in out


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda path: path.with_suffix(".y.npy").unlink(), "has no result; write it as 0000.y.npy"),
        (lambda path: np.save(path.with_suffix(".y.npy"), np.zeros(3, np.float32)), "y has dtype float32"),
        (lambda path: np.save(path.with_suffix(".y.npy"), np.zeros(3, np.uint8)), "y has shape (3,)"),
        (lambda path: np.save(path.with_suffix(".y.npy"), np.array([{}]), allow_pickle=True), "has dtype object"),
        (lambda path: path.with_suffix(".y.npy").write_bytes(b"\x93NUMPY"), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "must be an .npz archive"),
    ],
)
def test_damaged_files(tmp_path, capsys, damage, message):
    folder = answered(tmp_path / "cases", "onnx", capsys)
    damage(folder / "0000.npz")
    status, out, err = call(capsys, "check", "--folder", folder)
    assert status == 2 and not out and message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["gen"], "--op and --numerics are needed"),
        (["gen", "--op", "linaer", "--numerics", "onnx"], "did you mean 'linear'"),
        (["gen", "--op", "linear", "--numerics", "onxn"], "did you mean 'onnx'"),
        (["gen", "--op", "linear", "--numerics", "onnx", "--cases", "0"], "'0' must be a whole number of at least 1"),
        (["gen", "--op", "linear", "--numerics", "onnx", "--shape", "m9"], "the shape lacks"),
        (["gen", "--op", "linear", "--numerics", "onnx", "--shape", "m999999k999999n1"], "choose a smaller shape"),
        (["gen", "--case", "linear/onnx"], "must read operator/profile/shape"),
        (["check", "--folder", "nowhere"], "holds no .npz files"),
        (["check", "--seconds", "-1"], "'-1' must be a number of at least 0"),
        (["check", "--sceonds", "1"], "did you mean --seconds"),
    ],
)
def test_mistakes_give_one_line_and_status_2(capsys, arguments, message):
    status, out, err = call(capsys, *arguments)
    assert status == 2 and message in err and err.count("\n") == 1 and not out


def test_gen_does_not_mix_with_older_files(tmp_path, capsys):
    (tmp_path / "0007.npz").write_bytes(b"")
    assert "choose an empty folder" in call(capsys, "gen", "--op", "relu", "--numerics", "onnx", "--folder", tmp_path)[2]
