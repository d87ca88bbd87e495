"""The command: exit codes, one-line errors, suggestions, tables, and repeating a failure."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from refquant import backends
from refquant.cli import main as entry
from refquant.cli.main import COMMANDS, main, parser_of
from refquant.errors import BackendMissing
from refquant.verify import Case, build, oracle, vectors_folder
from refquant.version import VERSION


def call(capsys, *arguments):
    status = main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


class Perfect:
    """An engine that is the oracle."""

    name = profile = "fbgemm"

    def describe(self):
        return {}

    def supports(self, problem):
        return None

    def run(self, problem):
        return oracle(problem, self.profile, reference=True)


class OneBitOff(Perfect):
    """An engine with one wrong bit in every conv2d."""

    def run(self, problem):
        y = super().run(problem).copy()
        if problem.op == "conv2d" and y.dtype.itemsize == 1:
            y.flat[0] ^= 1
        return y


@pytest.fixture
def engine_is(monkeypatch):
    def install(runner):
        def load(name):
            if runner is None or name != runner.name:
                raise BackendMissing(f"engine {name}: not here; pip install 'refquant[torch]'")
            return runner

        monkeypatch.setattr(backends, "load", load)
        monkeypatch.setattr(backends, "installed", lambda name: runner is not None and name == runner.name)

    return install


def one_line(text):
    return text.startswith("refquant: ") and text.count("\n") == 1 and "Traceback" not in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["verfy"], "did you mean 'verify'"),
        (["verify", "--engin", "fbgemm"], "did you mean --engine"),
        (["verify", "--engine", "fbgem"], "did you mean 'fbgemm'"),
        (["verify", "--op", "conv2"], "did you mean 'conv2d'"),
        (["verify", "--outputs", "0"], "'0' must be a whole number of at least 1"),
        (["verify", "--outputs", "many"], "'many' must be a whole number of at least 1"),
        (["verify", "--seed", "-1"], "--seed"),
        (["verify", "--engine"], "expected one argument"),
        (["verify", "stray"], "'stray' is not an option or argument here"),
        (["verify", "--case", "linear/fbgemm"], "must read operator/profile/shape"),
        (["verify", "--model", "digits_resnt"], "did you mean 'digits_resnet'"),
        (["verify", "--model", "digits_resnet", "--engine", "onnxruntime"], "is no engine of PyTorch"),
        (["verify", "--vectors", "nowhere"], "nowhere/index.json must be a readable file"),
        (["verify", "--case", "linear/fbgemm/m0k3n1/random/seed=0"], "m=0 in the shape leaves nothing to compare"),
        (["calibrators", "--seed", "-1"], "must be a whole number of at least 0"),
        (["drift", "digits_resnet", "--reduce-range", "--no-reduce-range"], "not allowed with"),
        (["audit", "digits_resnet", "--limit", "x"], "'x' must be a whole number of at least 1"),
        (["verify", "--matrix", "--power"], "--matrix and --power are two runs"),
        (["verify", "--matrix", "--qat"], "--qat belongs to --models, not to --matrix"),
        (["verify", "--qat"], "--qat belongs to --models, which is not asked for"),
        (["verify", "--power", "--recorded"], "--recorded belongs to a run of cases"),
        (["profiles", "fbgem"], "did you mean 'fbgemm'"),
        (["profiles", "fbgemm", "onednn", "x86"], "two are compared at most"),
        (["--versio"], "did you mean --version"),
    ],
)
def test_mistakes_give_one_line_and_status_2(capsys, arguments, message):
    status, out, err = call(capsys, *arguments)
    assert status == 2 and one_line(err) and message in err and not out


def test_help_and_version(capsys):
    for arguments in (["--help"], ["--version"], *([command.name, "--help"] for command in COMMANDS)):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        text = capsys.readouterr().out
        assert stopped.value.code == 0 and (VERSION in text if "--version" in arguments else "examples:" in text)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_help_fits_a_narrow_terminal_and_its_examples_are_understood(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    module, parser = parser_of(command)
    # What is to be copied stays on one line.
    wide = [line for line in parser.format_help().splitlines() if len(line) > 80]
    assert all(re.match("  (refquant|rq[.]) ?", line) and "  " not in line.strip() for line in wide), wide
    found = re.findall(rf"^  refquant {command.name}\b(.*?)(?:  .*| \|.*)?$", module.EXAMPLES, re.M)
    assert found
    for example in found:
        parser.parse(shlex.split(example))


def test_without_a_command_there_is_help(capsys):
    status, out, err = call(capsys)
    assert status == 2 and not out and all(command.name in err for command in COMMANDS)


def test_exact_bits_give_status_0(capsys, engine_is):
    engine_is(Perfect())
    status, out, err = call(capsys, "verify", "--engine", "fbgemm", "--op", "conv2d", "--op", "add", "--outputs", "4000")
    assert status == 0 and out.count("EXACT") == 2 and ", 0 differ" in out and not err
    assert all(len(line) <= 100 for line in out.splitlines())


def test_an_unexplained_bit_gives_status_1_and_the_line_that_repeats_it(capsys, engine_is):
    engine_is(OneBitOff())
    status, out, err = call(capsys, "verify", "--engine", "fbgemm", "--op", "conv2d", "--op", "linear", "--outputs", "4000")
    assert status == 1 and "DIFFERENT" in out and not err
    line = next(row for row in out.splitlines() if "refquant verify --case" in row).split("--case ")[1]
    assert str(Case.parse(line)) == line
    status, out, _ = call(capsys, "verify", "--case", line)
    assert status == 1 and "1 of " in out and "first [0, 0, 0, 0]" in out
    engine_is(Perfect())
    assert call(capsys, "verify", "--case", line)[0] == 0


def test_an_engine_that_raises_fails_the_case_alone(capsys, engine_is):
    class Raising(Perfect):
        def run(self, problem):
            raise RuntimeError("out of luck")

    engine_is(Raising())
    status, out, _ = call(capsys, "verify", "--engine", "fbgemm", "--op", "relu", "--outputs", "1000")
    assert status == 1 and "the engine raised RuntimeError: out of luck" in out


def test_without_an_engine_recorded_bits_are_checked(capsys, engine_is):
    engine_is(None)
    status, out, err = call(capsys, "verify", "--op", "linear", "--op", "add")
    assert status == 0 and not err and "live" not in out
    assert out.count("recorded ") >= 10 and ", 0 differ" in out
    assert "not installed: fbgemm, onednn, x86, qnnpack" in out and "pip install 'refquant[torch]'" in out
    assert "pip install 'refquant[onnxruntime]'" in out and "torch 2." in out


def test_an_engine_that_was_named_must_be_there(capsys, engine_is):
    engine_is(None)
    status, out, err = call(capsys, "verify", "--engine", "onednn")
    assert status == 2 and one_line(err) and "pip install" in err
    status, out, _ = call(capsys, "verify", "--engine", "onednn", "--op", "add", "--recorded")
    assert status == 0 and out.count("EXACT") == 1


def test_to_compare_nothing_is_an_error(capsys, engine_is):
    class Nothing(Perfect):
        def supports(self, problem):
            return "not today"

    engine_is(Nothing())
    status, out, err = call(capsys, "verify", "--engine", "fbgemm", "--op", "add", "--reasons")
    assert status == 2 and "UNSUPPORTED" in out and "not today" in out and "nothing was compared" in err


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(vectors_folder(), tmp_path / "vectors")


def test_damaged_vectors_give_one_line(capsys, copied):
    path = copied / "add-x86.npz"
    path.write_bytes(path.read_bytes()[:-7])
    status, _, err = call(capsys, "verify", "--recorded", "--op", "add", "--vectors", str(copied))
    assert status == 2 and one_line(err) and "SHA-256" in err and "record" in err


def test_missing_vectors_give_one_line(capsys, tmp_path):
    status, _, err = call(capsys, "verify", "--recorded", "--vectors", str(tmp_path))
    assert status == 2 and one_line(err) and "must be a readable file" in err


def test_a_wrong_recorded_bit_gives_status_1(capsys, copied):
    from refquant.verify import read_index, read_vectors, write_vectors

    vectors = read_vectors("add-x86.npz")
    bits = vectors[0].bits.copy()
    bits.flat[0] ^= 1
    write_vectors({("add", "x86"): (read_index()["engines"]["x86"], [vectors[0]._replace(bits=bits)])}, copied)
    status, out, _ = call(capsys, "verify", "--recorded", "--op", "add", "--vectors", str(copied))
    assert status == 1 and "DIFFERENT" in out and vectors[0].case in out


def test_the_list(capsys, engine_is):
    engine_is(None)
    status, out, _ = call(capsys, "verify", "--list")
    assert status == 0 and "not installed: pip install" in out and "conv2d" in out and " operators; torch 2." in out


def test_profiles(capsys):
    status, out, _ = call(capsys, "profiles")
    assert status == 0 and "onnxruntime" in out
    status, out, _ = call(capsys, "profiles", "x86")
    assert status == 0 and "yes.multiplier" in out and "half_even" in out
    status, out, _ = call(capsys, "profiles", "fbgemm", "onednn")
    assert status == 0 and "x,w,1/y" in out and "half_even" not in out
    assert call(capsys, "profiles", "x86", "x86")[1] == "x86 and x86 do not differ.\n"
    assert "not offered" in call(capsys, "profiles", "xnnpack")[1]


def test_colours_on_a_terminal_alone(monkeypatch):
    from refquant.cli.console import paint

    class Terminal:
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert paint("x", "red", Terminal()) == "\033[31mx\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("x", "red", Terminal()) == "x"
    assert "\033" not in paint("x", "red")


def test_as_a_process():
    run = lambda *a: subprocess.run([sys.executable, "-m", "refquant.cli.main", *a], capture_output=True, text=True)  # noqa: E731
    good, bad = run("verify", "--recorded", "--engine", "x86"), run("verify", "--engine", "x68")
    assert good.returncode == 0 and "\033" not in good.stdout and good.stderr == ""
    assert bad.returncode == 2 and one_line(bad.stderr)
    piped = subprocess.run(f"{sys.executable} -m refquant.cli.main verify --list | head -1", shell=True, capture_output=True, text=True)
    assert piped.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a full device")
def test_a_full_disk_is_no_traceback():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "refquant.cli.main", "profiles", "fbgemm"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and one_line(done.stderr) and "no space is left" in done.stderr


def test_an_interrupt_is_no_traceback(capsys, monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "_dispatch", interrupted)
    status, _, err = call(capsys, "verify")
    assert status == 130 and one_line(err)


def test_commands_are_listed_once():
    names = [command.name for command in COMMANDS]
    assert len(set(names)) == len(names)
    assert json.dumps(names)


@pytest.mark.engine
@pytest.mark.parametrize("name", ("digits_resnet", "digits_mobilenet"))
def test_a_network_layer_by_layer(capsys, name):
    pytest.importorskip("torch")
    status, out, _ = call(capsys, "verify", "--model", name, "--engine", "x86")
    assert status == 0, out
    assert "0 layers differ" in out and "zero point" in out


def test_a_case_line_builds_what_the_failure_was():
    assert build("add/fbgemm/n2c5/neartie/seed=3")["a"].shape == (2, 5)


def test_pt2e_on_both_sides(capsys):
    pytest.importorskip("torchao")
    from refquant.cli import pt2e_networks

    status, out, _ = call(capsys, "pt2e", "--networks", "2", "--lowered", "0")
    assert status == 0 and "2 of 2 comparisons agree; 0 of 172,416 numbers differ" in out
    names = [n.name for n in pt2e_networks.networks(40, 0)]
    assert len(set(names)) == 40 and "densenet121" in names and "random-0" in names
