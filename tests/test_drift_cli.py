"""`refquant drift`: exit codes, outputs, and what it says about bad input."""

import json
import os

import numpy as np
import pytest

from refquant import data
from refquant.cli.drift import Recipe
from refquant.cli.main import main
from refquant.workflow import get_default_qconfig_mapping

QUICK = ["--limit", "24", "--layer-images", "8", "--no-alternatives"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    x, labels = data.load_split("digits", "test")
    seen, _ = data.load_split("digits", "calibration")
    x, labels, seen = x[:24], labels[:24], seen[:50]
    save = {
        "good": dict(x=x, labels=labels, calibration=seen),
        "uncalibrated": dict(x=x, labels=labels),
        "no_labels": dict(x=x),
        "no_x": dict(images=x, labels=labels),
        "shape": dict(x=x[:, :, 1:], labels=labels),
        "flat": dict(x=x[0, 0, 0], labels=labels),
        "empty": dict(x=x[:0], labels=labels[:0]),
        "few": dict(x=x, labels=labels[:3]),
        "real": dict(x=x, labels=labels.astype(np.float32)),
        "double": dict(x=x.astype(np.float64), labels=labels),
        "nan": dict(x=np.where(x > 0.9, np.nan, x).astype(np.float32), labels=labels),
        "objects": dict(x=np.array([None, 1], object), labels=labels),
    }
    for name, arrays in save.items():
        np.savez(folder / f"{name}.npz", **arrays)
    (folder / "text.npz").write_text("no archive")
    (folder / "cut.npz").write_bytes((folder / "good.npz").read_bytes()[:3000])
    (folder / "nothing.npz").write_bytes(b"")
    np.save(folder / "array.npy", x)
    (folder / "broken.onnx").write_bytes(b"\x08\x07nonsense")
    return folder


def test_a_bundled_network(capsys, tmp_path):
    out = {k: str(tmp_path / f"d.{k}") for k in ("html", "json", "png")}
    status = main(["drift", "digits_mobilenet", "--limit", "32", "--layer-images", "8", "--html", out["html"], "--json", out["json"], "--plot", out["png"]])
    printed = capsys.readouterr()
    assert status == 0 and printed.err == ""
    assert "VERDICT" in printed.out and "OTHER CHOICES" in printed.out and f"written: {out['html']}" in printed.out
    assert sorted(os.listdir(tmp_path)) == ["d.html", "d.json", "d.png"]
    comp = json.loads((tmp_path / "d.json").read_text())
    assert comp["accuracy"]["images"] == 32 and "HistogramObserver" in comp["settings"]


def test_own_data_give_what_bundled_data_give(capsys, files):
    assert main(["drift", "digits_resnet", "--data", str(files / "good.npz"), "--no-alternatives"]) == 0
    assert "24 images" in capsys.readouterr().out


def test_calibration_on_the_test_images_is_noted(capsys, files):
    assert main(["drift", "digits_resnet", "--data", str(files / "uncalibrated.npz"), *QUICK]) == 0
    assert "calibrated on the test images" in capsys.readouterr().out


def test_predictions_alone_need_no_labels(capsys, files):
    assert main(["drift", "digits_resnet", "--data", str(files / "no_labels.npz"), "--no-labels", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "accuracy " not in out and "of 24 changed" in out


@pytest.mark.parametrize(
    "options, settings",
    [
        ([], "numerics x86, weights per channel, activations of 128 codes, HistogramObserver"),
        (["--per-tensor", "--no-reduce-range"], "weights per tensor, activations of 256 codes"),
        (["--backend", "onednn", "--reduce-range", "--observer", "minmax"], "numerics onednn, weights per channel, activations of 128 codes, MinMaxObserver"),
        (["--backend", "qnnpack", "--observer", "moving-average"], "numerics qnnpack, weights per tensor, activations of 256 codes, MovingAverageMinMaxObserver"),
    ],
)
def test_options_choose_the_quantization(capsys, options, settings):
    assert main(["drift", "digits_resnet", *QUICK, *options]) == 0
    assert settings in capsys.readouterr().out


@pytest.mark.parametrize("backend", ["x86", "fbgemm", "onednn", "qnnpack"])
def test_the_default_recipe_is_the_backends_own(backend):
    recipe = Recipe(backend, backend == "qnnpack", "histogram", backend in ("x86", "fbgemm"))
    assert recipe.mapping().global_qconfig == get_default_qconfig_mapping(backend).global_qconfig
    assert len({m.global_qconfig for m in recipe.neighbours().values()} | {recipe.mapping().global_qconfig}) == 4


BAD = {
    "unknown model": (["digits_resnt"], "did you mean 'digits_resnet'"),
    "missing model file": (["no.onnx"], "must be a readable file"),
    "broken model file": (["{broken.onnx}", "--data", "{good.npz}"], "broken.onnx"),
    "no model": ([], "MODEL"),
    "unknown backend": (["digits_resnet", "--backend", "x68"], "did you mean 'x86'"),
    "unknown observer": (["digits_resnet", "--observer", "minmx"], "did you mean 'minmax'"),
    "unknown option": (["digits_resnet", "--per-tensors"], "did you mean --per-tensor"),
    "limit 0": (["digits_resnet", "--limit", "0"], "--limit: '0' must be"),
    "layer images 0": (["digits_resnet", "--limit", "2", "--layer-images", "0"], "--layer-images: '0' must be"),
    "missing data": (["digits_resnet", "--data", "{gone.npz}"], "cannot be read (No such file"),
    "text as data": (["digits_resnet", "--data", "{text.npz}"], "must be an .npz archive"),
    "a torn file": (["digits_resnet", "--data", "{cut.npz}"], "must be an .npz archive"),
    "an empty file": (["digits_resnet", "--data", "{nothing.npz}"], "must be an .npz archive"),
    "one array": (["digits_resnet", "--data", "{array.npy}"], "must be an .npz archive"),
    "objects": (["digits_resnet", "--data", "{objects.npz}"], "dtype object"),
    "a folder as data": (["digits_resnet", "--data", "{.}"], "cannot be read"),
    "no labels": (["digits_resnet", "--data", "{no_labels.npz}"], "has no array 'labels' (it holds x); add it with numpy.savez; or pass --no-labels"),
    "no x": (["digits_resnet", "--data", "{no_x.npz}"], "has no array 'x' (it holds images, labels)"),
    "wrong shape": (["digits_resnet", "--data", "{shape.npz}"], "must be (N, 1, 8, 8)"),
    "flat": (["digits_resnet", "--data", "{flat.npz}"], "must hold at least one image"),
    "empty": (["digits_resnet", "--data", "{empty.npz}"], "must hold at least one image"),
    "few labels": (["digits_resnet", "--data", "{few.npz}"], "labels have shape (3,) but there are 24 images"),
    "real labels": (["digits_resnet", "--data", "{real.npz}"], "must be integers"),
    "float64": (["digits_resnet", "--data", "{double.npz}"], "must be float32"),
    "nan": (["digits_resnet", "--data", "{nan.npz}"], "must be finite"),
    "html into nowhere": (["digits_resnet", "--html", "{no/where.html}"], "folder must exist"),
    "plot as gif": (["digits_resnet", "--plot", "{a.gif}"], "'gif' is not known"),
    "one file twice": (["digits_resnet", "--html", "{a.svg}", "--plot", "{a.svg}"], "name one file twice"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line(capsys, files, case):
    arguments, message = BAD[case]
    if any(a.endswith(".onnx") or "onnx" in a for a in arguments):
        pytest.importorskip("onnx")
    arguments = [str(files / a[1:-1]) if a.startswith("{") else a for a in arguments]
    before = sorted(os.listdir(files))
    html = [] if "--html" in arguments else ["--html", str(files / "report.html")]
    assert main(["drift", *arguments, *html]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and "Traceback" not in printed.err
    assert printed.out == "" and sorted(os.listdir(files)) == before
