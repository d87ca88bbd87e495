"""``refquant convert``: there and back, quantized each way, and errors that teach."""

import numpy as np
import pytest

import refquant as rq
from refquant.cli.main import main
from refquant.data import load_split

X = load_split("digits", "calibration")[0]


@pytest.mark.parametrize("way", ["x86", "qnnpack", "pt2e", "ort"])
def test_quantized_and_saved(way, tmp_path, capsys):
    assert main(["convert", "digits_resnet", str(tmp_path / "a.npz"), "--quantize", way]) == 0
    assert "nodes" in capsys.readouterr().out
    model = rq.load(tmp_path / "a.npz")
    images, labels = load_split("digits", "test")
    assert model.quantized and (model(images)[0].argmax(1) == labels).mean() > 0.9


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_through_onnx_and_back(form, tmp_path, capsys):
    pytest.importorskip("onnx")
    np.savez(tmp_path / "data.npz", x=X[:64])
    first, second, third = (str(tmp_path / name) for name in ("a.onnx", "b.npz", "c.onnx"))
    assert main(["convert", "digits_mobilenet", str(tmp_path / "f.onnx")]) == 0
    assert main(["convert", str(tmp_path / "f.onnx"), first, "--quantize", "onednn", "--data", str(tmp_path / "data.npz"), "--format", form]) == 0
    assert "biases became int32" in capsys.readouterr().out
    assert main(["convert", first, second]) == 0 and main(["convert", second, third, "--format", form]) == 0
    a, b = (rq.interop.from_onnx(path, numerics="onnxruntime", as_graph=True)(X[:50])[0] for path in (first, third))
    assert a.std() > 0 and np.array_equal(a, b) and np.array_equal(rq.load(second).run(X[:50], numerics="onnxruntime")[0], a)


BAD = {
    "no model": (["digits_resnt", "a.npz"], "did you mean 'digits_resnet'"), "no ending": (["digits_resnet", "a"], "ending of OUT=''"), "pickle": (["digits_resnet", "a.pt"], ".onnx"),
    "no folder": (["digits_resnet", "no/where/a.npz"], "folder must exist"), "no way": (["digits_resnet", "a.npz", "--quantize", "x68"], "did you mean 'x86'"),
    "data for nothing": (["digits_resnet", "a.npz", "--data", "b.npz"], "add --quantize"), "format for nothing": (["digits_resnet", "a.npz", "--format", "qdq"], "let OUT end in .onnx"),
    "no file": (["b.onnx", "a.npz"], "must be a readable file"), "no own file": (["b.npz", "a.npz"], "must be a readable file"), "no data": (["digits_resnet", "a.npz", "--quantize", "x86", "--data", "b.npz"], "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_wrong_usage_is_refused_in_one_line_and_writes_nothing(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, wrong = BAD[name]
    assert main(["convert", *words]) == 2
    said = capsys.readouterr()
    assert wrong in said.err and said.err.startswith("refquant: ") and said.err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_form_of_a_float_file(tmp_path, capsys):
    pytest.importorskip("onnx")
    assert main(["convert", "digits_resnet", str(tmp_path / "a.onnx"), "--format", "qdq"]) == 2
    assert "quantize it first" in capsys.readouterr().err and not list(tmp_path.iterdir())
