"""Case files: bit for bit there and back; damaged and hostile ones are refused; the command."""

import json
import pickle
import zipfile

import numpy as np
import pytest
from npz_members import members, npy, write_members

import refquant as rq
from refquant.errors import ArgumentError
from refquant.verify import build, case_stream, load_case, oracle, save_case

OPS = ("quantize", "dequantize", "fake_quantize", "linear", "conv2d", "matmul_integer", "add", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "cat", "relu")


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "case.npz"
    problem = build("linear/onnx/m20k48n24/neartie/seed=0/per_channel/intbias")
    bits = oracle(problem, rq.numerics.get("onnx").replace(linear={"rounding": "truncate"}))
    save_case(path, problem.op, actual=bits, numerics="onnx", **problem.arguments)
    return path


def rewritten(path, **entries):
    """Return the file with entries replaced (bytes), or taken away (None)."""
    content = members(path)
    content.update({f"{name}.npy": value for name, value in entries.items()})
    out = path.with_name("bad.npz")
    write_members(out, content)
    return out


@pytest.mark.parametrize("op", OPS)
def test_there_and_back(op, tmp_path):
    for case, _ in zip(case_stream(op, "fbgemm", seed=2), range(5)):
        problem = build(case)
        path = tmp_path / f"{case.seed}.npz"
        bits = oracle(problem, "fbgemm")
        save_case(path, op, actual=bits, numerics="fbgemm", **problem.arguments)
        again = load_case(path)
        assert again.profile == "fbgemm" and again.problem.op == op
        ref, comp = oracle(problem, "fbgemm"), oracle(again.problem, "fbgemm")
        assert comp.dtype == ref.dtype and again.actual.tobytes() == np.ascontiguousarray(bits).tobytes()
        np.testing.assert_array_equal(comp, ref)


def test_bits_may_be_left_out(tmp_path):
    problem = build("add/onnx/n10/random/seed=0")
    save_case(tmp_path / "a.npz", "add", **problem.arguments)
    assert load_case(tmp_path / "a.npz").actual is None
    with pytest.raises(ArgumentError, match="changed onnx|not known"):
        save_case(tmp_path / "b.npz", "add", numerics=rq.numerics.get("onnx").replace(rounding="floor"), **problem.arguments)


def described(good, **changes):
    with np.load(good) as archive:
        text = json.loads(str(archive["problem"]))
    return npy(np.array(json.dumps({**text, **changes})))


def test_no_archive_at_all(tmp_path):
    path = tmp_path / "x.npz"
    for content in (b"", b"no zip", pickle.dumps([1]), npy([1, 2])):
        path.write_bytes(content)
        with pytest.raises(ArgumentError, match="must be an .npz archive"):
            load_case(path)
    with pytest.raises(ArgumentError, match="cannot be read"):
        load_case(tmp_path / "nowhere.npz")
    with pytest.raises(ArgumentError, match="cannot be read"):
        load_case(tmp_path)


def test_pickles_are_not_opened(good):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("a pickle was opened",)

    objects = npy(np.array([Bomb()], dtype=object), allow_pickle=True)
    for name in ("actual", "a0", "problem"):
        with pytest.raises(ArgumentError, match="dtype object|must be a JSON text"):
            load_case(rewritten(good, **{name: objects}))


def test_strange_entries(good):
    for name in ("../evil", "b0", "a100", "problem.npy.txt"):
        with pytest.raises(ArgumentError, match="it is no case file"):
            load_case(rewritten(good, **{name: npy([1])}))
    with pytest.raises(ArgumentError, match="must be a JSON text"):
        load_case(rewritten(good, problem=None))


def test_headers_that_lie(good):
    honest = npy(np.zeros(4, np.uint8))
    for shape in (b"(4000000000000,)", b"(5,)", b"(-4,)"):
        header = honest[:10] + honest[10:].replace(b"(4,)", shape)
        header = header[:8] + (len(header) - 4 - 10).to_bytes(2, "little") + header[10:]
        with pytest.raises(ArgumentError, match="says shape|damaged"):
            load_case(rewritten(good, actual=header))
    for content in (b"", b"\x93NUMPY", honest[:20], b"x" * 200):
        with pytest.raises(ArgumentError, match="damaged"):
            load_case(rewritten(good, actual=content))


def test_cut_off_or_changed_anywhere(good):
    content = good.read_bytes()
    for size in range(0, len(content), max(len(content) // 60, 1)):
        good.write_bytes(content[:size])
        with pytest.raises(ArgumentError, match="must be an .npz archive"):
            load_case(good)
    for at in range(0, len(content), max(len(content) // 200, 1)):
        good.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            load_case(good)
        except ArgumentError:
            continue


def test_zip_bombs(good, tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a0.npy", "w", force_zip64=True) as entry:
        for _ in range(1030):
            entry.write(bytes(1 << 20))
    with pytest.raises(ArgumentError, match="at most"):
        load_case(path)


def test_descriptions_that_are_none(good):
    for text in ("", "{", "[]", "3", "{}", '{"format": 1}', '{"format": 2}', "[" * 100000):
        with pytest.raises(ArgumentError, match="case file"):
            load_case(rewritten(good, problem=npy(np.array(text))))
    for changes in ({"profile": "nobody"}, {"arguments": []}, {"arguments": {"x": {"array": 99}}}, {"arguments": {"x": {"array": "a"}}}, {"arguments": {"x": {"scale": 1, "evil": 2}}}):
        with pytest.raises(ArgumentError):
            load_case(rewritten(good, problem=described(good, **changes)))


def test_geometry_that_would_take_all_memory(tmp_path):
    x = rq.QTensor(np.zeros((1, 8, 9, 9), np.uint8), rq.QParams(1.0, 0, "uint8"))
    w = rq.QTensor(np.zeros((8, 8, 3, 3), np.int8), rq.QParams(1.0, 0, "int8"))
    for op, arguments in (("conv2d", {"x": x, "w": w, "padding": 60000}), ("conv2d", {"x": x, "w": w, "padding": [10**12, 1]}), ("adaptive_avg_pool2d", {"x": x, "output_size": 50000})):
        path = tmp_path / f"{op}.npz"
        save_case(path, op, **arguments)
        with pytest.raises(ArgumentError, match="no sensible call"):
            load_case(path)


def command(*arguments):
    from refquant.cli import diagnose
    from refquant.cli.main import _Parser

    parser = _Parser(prog="refquant diagnose")
    diagnose.add_arguments(parser)
    return diagnose.run(parser.parse([str(a) for a in arguments]))


def test_the_command_explains(good, capsys):
    assert command(good) == 0
    text = capsys.readouterr().out
    assert "EXPLAINED: truncates in place of rounding" in text and "\033" not in text
    assert command(good, "--all") == 0
    assert "ruled out, by outputs left wrong" in capsys.readouterr().out


def test_the_command_gives_up_honestly(good, capsys):
    with np.load(good) as archive:
        noise = archive["actual"] ^ np.random.default_rng(0).integers(0, 2, archive["actual"].shape).astype(np.uint8)
    assert command(rewritten(good, actual=npy(noise)), "--seconds", "1", "--most", "2") == 1
    assert "UNEXPLAINED" in capsys.readouterr().out


def test_the_command_writes_what_tells_apart(tmp_path, capsys):
    x = (np.arange(40, dtype=np.float32) + np.float32(0.5)) * np.float32(0.25)
    qp = rq.QParams(0.25, 0, "uint8")
    bits = rq.quantize(x, qp, numerics=rq.numerics.get("onnx").replace(rounding="half_up"))
    save_case(tmp_path / "a.npz", "quantize", actual=bits, numerics="onnx", x=x, qparams=qp)
    assert command(tmp_path / "a.npz", "--separate", tmp_path / "b.npz") == 0
    assert load_case(tmp_path / "b.npz").problem.op == "quantize"
    with pytest.raises(ArgumentError, match="has no bits to explain"):
        command(tmp_path / "b.npz")
    assert "run your engine on it" in capsys.readouterr().out
