"""The audit: counts against a slow witness, proofs of safety, live engines held to AVX2, the command."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import refquant as rq
from refquant import backends, zoo
from refquant.backends.machine import profile_here
from refquant.cli.main import main
from refquant.data import load_split
from refquant.drift.audit import audit
from refquant.drift.audit_network import GraphNetwork
from refquant.drift.ties import on_tie, undecided
from refquant.errors import BackendMissing
from refquant.numerics.forms import Pairing
from refquant.verify import build, oracle
from refquant.verify.problem import Problem
from refquant.verify.saturation import channels_at_risk, product_of, saturated
from refquant.workflow import convert_fx, get_default_qconfig_mapping, prepare_fx


def network(name="digits_resnet", backend="onednn"):
    seen, _ = load_split(name, "calibration")
    prepared = prepare_fx(zoo.load(name), get_default_qconfig_mapping(backend), example_inputs=(seen[:1],))
    prepared(seen[:100])
    return convert_fx(prepared)


@pytest.fixture(scope="module")
def resnet():
    return network()


@pytest.fixture(scope="module")
def images():
    x, labels = load_split("digits", "test")
    return x[:48], labels[:48]


def slow_saturation(x, w):
    """Whether any pair of neighbouring products of a row leaves int16, or rather changes the sum: in Python integers."""
    def total(row, weights, clip):
        pairs = [sum(int(a) * int(b) for a, b in zip(row[i : i + 2], weights[i : i + 2])) for i in range(0, len(row), 2)]
        return sum(min(max(p, -32768), 32767) if clip else p for p in pairs)

    return np.array([[total(row, weights, True) != total(row, weights, False) for weights in w] for row in x])


@pytest.mark.parametrize("seed", range(4))
def test_saturation_is_counted_as_python_counts_it(seed):
    problem = build(f"linear/onednn/m9k{7 + seed}n6/{['pairs', 'saturate', 'random', 'pairs'][seed]}/seed={seed}")
    ref = slow_saturation(problem["x"].values, problem["w"].values)
    np.testing.assert_array_equal(saturated(problem, "onednn@avx2"), ref)
    assert ref.any() or seed == 2
    assert not saturated(problem, "onednn").any() and not saturated(problem, "onednn@avx512_vnni").any()


def test_a_convolution_is_counted_by_channel():
    x = np.zeros((2, 4, 5, 5), np.uint8)
    x[1, :, 2, 2] = 255
    w = np.full((3, 4, 1, 1), 10, np.int8)
    w[2] = 127
    problem = Problem("conv2d", {"x": rq.QTensor(x, rq.QParams(1.0, 0, "uint8")), "w": rq.QTensor(w, rq.QParams(1.0, 0, "int8")), "out": rq.QParams(600.0, 0, "uint8")})
    for profile in ("onednn@avx2", "fbgemm@avx2", "x86@avx2"):
        assert np.argwhere(saturated(problem, profile)).tolist() == [[1, 2, 2, 2]]
        assert channels_at_risk(problem["w"], product_of(problem, profile)).tolist() == [False, False, True]


@pytest.mark.parametrize("groups", [1, 2])
def test_channels_at_risk_are_those_that_some_data_saturate(groups):
    rng = np.random.default_rng(groups)
    w = rng.integers(-90, 91, (12, 6, 3, 3)).astype(np.int8)
    w[::2] //= 2
    weights = rq.QTensor(w, rq.QParams(1.0, 0, "int8"))
    make = lambda x: Problem("conv2d", {"x": rq.QTensor(x, rq.QParams(1.0, 0, "uint8")), "w": weights, "groups": groups, "out": rq.QParams(9e4, 99, "uint8")})  # noqa: E731
    risky = channels_at_risk(weights, product_of(make(np.zeros((1, 6 * groups, 3, 3), np.uint8)), "fbgemm@avx2"))
    assert 0 < risky.sum() < 12
    hit = np.zeros(12, bool)
    for o in range(12):
        for sign in (1, -1):  # the codes that are hardest on one channel
            x = np.tile(np.where(np.sign(w[o]) == sign, 255, 0).astype(np.uint8), (groups, 1, 1))[None]
            hit |= saturated(make(x), "fbgemm@avx2").any((0, 2, 3))
    np.testing.assert_array_equal(hit, risky)


def test_ties_are_found_in_exact_arithmetic():
    values = np.array([0.5, -2.5, 2.5 + 2**-22, 2.5 - 2**-23, 2.5 + 2**-20, 3.0, 1e-9, 1000.5, 1000.5001])
    assert on_tie(values).tolist() == [True, True, True, True, False, False, False, True, False]


def test_a_layer_of_ties_is_seen_and_engines_disagree_on_it():
    x, w = rq.QTensor(np.arange(256, dtype=np.uint8).reshape(-1, 1), rq.QParams(0.5, 0, "uint8")), rq.QTensor(np.int8([[1]]), rq.QParams(1.0, 0, "int8"))
    problem = Problem("linear", {"x": x, "w": w, "out": rq.QParams(1.0, 1, "uint8")})
    codes = oracle(problem, "fbgemm")
    differ = undecided(problem, codes)
    assert differ.sum() == 128 and not differ[::2].any(), "odd codes lie on ties, and an odd zero point sends them both ways"
    assert not undecided(problem, codes, ("fbgemm", "onnxruntime")).any()


def test_a_network(resnet, images):
    x, labels = images
    report = audit(resnet, x, labels, reference=lambda b: zoo.load("digits_resnet")(b)[0], layer_images=24)
    own = report.networks[0]
    y, there = resnet(x)[0], resnet.run(x, numerics="onednn@avx2")[0]
    assert own.outputs == np.count_nonzero(y != there) > 0 and own.right == (y.argmax(1) == labels).sum()
    layers = [layer for layer in report.layers if layer.weights]
    assert own.saturated == sum(layer.saturated for layer in layers) > 0 and own.accumulators == sum(layer.outputs for layer in layers)
    for layer in layers:
        assert len(layer.by_channel) <= layer.at_risk <= layer.channels and sum(layer.by_channel.values()) == layer.saturated
        assert (layer.most > 0) == (layer.codes > 0) and layer.codes <= layer.saturated and layer.images <= 24
    assert json.loads(report.to_json())["networks"][0]["saturated"] == own.saturated
    page = report.to_html()
    assert page.count("<table") == 2 and "<script>" in page and "http" not in page.replace("http://www.w3.org", "")
    assert max(map(len, report.to_text(80).splitlines())) <= 120 and "accumulators saturate on avx2" in report.to_text()


def test_seven_bits_of_weights_are_a_proof_and_of_activations_a_remedy(images):
    x, _ = images
    seen, _ = load_split("digits", "calibration")
    from refquant.cli.drift import Recipe

    recipe = Recipe("onednn", False, "histogram", False)
    for changed, proven in ((recipe._replace(narrow_weights=True), True), (recipe._replace(reduce_range=True), False)):
        prepared = prepare_fx(zoo.load("digits_resnet"), changed.mapping(), example_inputs=(seen[:1],))
        prepared(seen[:100])
        report = audit(convert_fx(prepared), x, layer_images=16)
        assert report.networks[0].saturated == 0 and report.networks[0].changed == 0
        assert (sum(layer.at_risk for layer in report.layers) == 0) is proven
        assert ("whatever the data" in report.to_text()) is proven


def test_with_vnni_nothing_changes(resnet, images):
    report = audit(resnet, images[0][:8], level="avx512_vnni", layer_images=4)
    own = report.networks[0]
    assert (own.outputs, own.saturated, own.changed) == (0, 0, 0)


@pytest.mark.parametrize("arguments, wrong", [
    ({"level": "avx3"}, "avx2"), ({"x": np.zeros((0, 1, 8, 8), np.float32)}, "at least one image"), ({"labels": [1, 2]}, "one label an image"),
    ({"network": zoo.load("digits_resnet")}, "not quantized"), ({"layer_images": 0}, "at least 1"),
])  # fmt: skip
def test_bad_input_is_refused(resnet, images, arguments, wrong):
    given = {"network": resnet, "x": images[0][:4], "labels": images[1][:4], **arguments}
    with pytest.raises(ValueError, match=wrong):
        audit(given.pop("network"), given.pop("x"), given.pop("labels"), **given)


def test_a_profile_whose_sums_are_not_known_says_so(resnet, images):
    unknown = resnet.with_nodes(resnet.nodes, numerics=rq.numerics.get("onednn").replace(pairing=Pairing.by("unknown")))
    with pytest.raises(NotImplementedError, match="not known"):
        audit(unknown, images[0][:4])


_HELD = """
import pickle, sys, numpy as np
from refquant import backends
runner = backends.load(sys.argv[1])
problems = pickle.load(open(sys.argv[2], "rb"))
np.savez(sys.argv[3], *[runner.run(p) for p in problems])
"""
SWITCHES = {"onednn": "ONEDNN_MAX_CPU_ISA", "fbgemm": "FBGEMM_ENABLE_INSTRUCTIONS"}


def ignores_the_switch(problem):
    """FBGEMM's kernels for 3 x 3 convolutions of 2, 4, 8 or 16 channels onto as many, also of a single group, look at the processor itself."""
    w = problem["w"].shape
    return problem.op == "conv2d" and w[2:] == (3, 3) and w[1] in (2, 4, 8, 16) and w[0] // problem.get("groups", 1) == w[1]


@pytest.mark.engine
@pytest.mark.parametrize("engine", SWITCHES)
def test_torch_held_to_avx2_gives_the_audited_codes(engine, tmp_path, images):
    """The very layers of a network, on the very codes: PyTorch's kernels for AVX2 against what the audit compares with."""
    try:
        backends.load(engine)
    except BackendMissing as error:
        pytest.skip(str(error))
    mapping = get_default_qconfig_mapping("onednn")  # 8 bits of activations for both
    seen, _ = load_split("digits", "calibration")
    prepared = prepare_fx(zoo.load("digits_resnet"), mapping, example_inputs=(seen[:1],))
    prepared(seen[:100])
    int8 = convert_fx(prepared, numerics=engine)
    layers = [layer for layer in GraphNetwork(int8).layers(images[0]) if layer.weights]
    (tmp_path / "problems.pkl").write_bytes(pickle.dumps([layer.problem for layer in layers]))
    command = [sys.executable, "-c", _HELD, engine, str(tmp_path / "problems.pkl"), str(tmp_path / "bits.npz")]
    subprocess.run(command, check=True, env={**os.environ, SWITCHES[engine]: "AVX2"})
    changed = 0
    with np.load(tmp_path / "bits.npz") as bits:
        for i, layer in enumerate(layers):
            held = not (engine == "fbgemm" and ignores_the_switch(layer.problem))
            np.testing.assert_array_equal(oracle(layer.problem, f"{engine}@avx2" if held else profile_here(engine)), bits[f"arr_{i}"], err_msg=layer.name)
            changed += np.count_nonzero(bits[f"arr_{i}"] != layer.codes)
    assert changed > 0, "the engine did not obey its switch"


def test_an_engine_of_exact_products_is_safe(capsys):
    """QNNPACK multiplies in 16 bits."""
    assert main("audit digits_resnet --backend qnnpack --limit 4 --layer-images 2".split()) == 0
    assert "Nothing can saturate on avx2, whatever the data" in capsys.readouterr().out


def test_the_command(tmp_path, capsys):
    page, numbers = tmp_path / "a.html", tmp_path / "a.json"
    command = f"audit digits_resnet --backend onednn --limit 40 --layer-images 8 --html {page} --json {numbers}"
    assert main(command.split()) == 0
    out = capsys.readouterr().out
    assert "SATURATION" in out and "TIES" in out and "weights of 7 bits" in out and f"written: {page}" in out
    assert "<svg" in page.read_text() and json.loads(numbers.read_text())["level"] == "avx2"


@pytest.mark.parametrize("command, wrong", [
    ("audit digits_resnet --isa avx3", "avx2"), ("audit digits_resne", "digits_resnet"), ("audit digits_resnet --limit 0", "at least 1"),
    ("audit digits_resnet --html nowhere/a.html", "folder"), 
])  # fmt: skip
def test_wrong_usage(command, wrong, capsys):
    assert main(command.split()) == 2
    assert wrong in capsys.readouterr().err


@pytest.mark.parametrize("asked", [("digits_resnt",), ("nosuch.onnx",), ("digits_resnet", "--data", "nosuch.npz")])
def test_errors_name_the_command(capsys, asked):
    assert main(["audit", *asked]) == 2
    assert capsys.readouterr().err.startswith("refquant: audit: ")
