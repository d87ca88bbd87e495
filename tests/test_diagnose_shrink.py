"""Shrinking: to the smallest difference, and to a test that shows it."""

import subprocess
import sys

import numpy as np
import pytest

from refquant import numerics
from refquant.errors import ArgumentError
from refquant.verify import Status, build, compare, load_case, oracle, shrink

LINES = (
    "linear/onnx/m40k48n24/neartie/seed=0/per_channel",
    "linear/onnx/m3k9n4/random/seed=0/float",
    "conv2d/onnx/n2c16h9w9-oc32k3s2p1g16/neartie/seed=0/per_channel/channels_last",
    "conv1d/onnx/n2c8w33-oc16k3p1/neartie/seed=0",
    "matmul_integer/onnx/m5k64n17/pairs/seed=0/asymmetric/per_channel",
    "add/onnx/n4097/neartie/seed=0",
    "cat/onnx/n2h5w5-c3x8/neartie/seed=0",
    "quantize/onnx/n2c16h9w9/edges/seed=0/per_channel",
    "dequantize/onnx/n2c5/random/seed=0",
    "avg_pool2d/onnx/n2c5h8w8-k2s2/neartie/seed=0",
    "max_pool2d/onnx/n2c5h8w8-k3s2p1/random/seed=0",
)


def sloppy(problem):
    """Half away from zero; where nothing rounds, one bit of the largest output is wrong."""
    y = oracle(problem, numerics.get("onnx").replace(rounding="half_away"))
    if problem.op in ("matmul_integer", "dequantize", "max_pool2d") or problem.get("out", 0) is None:
        y = y.copy()
        y.reshape(-1).view(f"u{y.itemsize}")[int(np.argmax(y))] ^= 1
    return y


def shown(line):
    for seed in range(60):
        problem = build(line.replace("seed=0", f"seed={seed}"))
        if not compare(sloppy(problem), oracle(problem, "onnx"), nan_equal=True).exact:
            return problem
    raise AssertionError(line)


@pytest.mark.parametrize("line", LINES)
def test_one_output_is_left(line):
    problem = shown(line)
    small = shrink(sloppy, problem, numerics="onnx", seconds=20)
    assert small.comparison.status is Status.DIFFERENT and small.complete
    assert small.expected.size <= 2 and small.steps > 5
    np.testing.assert_array_equal(small.actual, sloppy(small.problem))
    np.testing.assert_array_equal(small.expected, oracle(small.problem, "onnx"))
    codes = [t.values for t in small.problem.quantized() if hasattr(t, "values")]
    assert all(v.size <= 4 for v in codes)
    assert small.problem.op in str(small) and "actual" in str(small)


def test_simple_parameters_are_found():
    small = shrink(lambda p: oracle(p, numerics.get("onnx").replace(rounding="truncate")), build("linear/onnx/m40k48n24/random/seed=3/per_channel/relu"), numerics="onnx")
    p = small.problem
    assert p["x"].shape == p["w"].shape == (1, 1) and p["activation"] is None
    assert not p["w"].qparams.per_channel


@pytest.mark.parametrize("line", ("linear/onnx/m33k65n18/neartie/seed=0/intbias", "conv2d/onnx/n1c64h6w6-oc17k1s2/neartie/seed=0", "conv2d/onnx/n1c16h14w14-oc32k3p1/neartie/seed=0"))
def test_a_tie_of_many_products_becomes_one_of_few(line):
    small = shrink(sloppy, shown(line), numerics="onnx", seconds=20)
    assert small.problem["w"].size <= 2 and small.comparison.status is Status.DIFFERENT


def test_the_written_test_fails_until_the_engine_is_mended(tmp_path):
    small = shrink(sloppy, shown(LINES[0]), numerics="onnx")
    path = small.write(tmp_path)
    assert path.name == "test_sloppy_linear.py" and (tmp_path / "sloppy_linear.npz").exists()
    np.testing.assert_array_equal(load_case(tmp_path / "sloppy_linear.npz").actual, small.actual)
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)], capture_output=True, text=True)
    assert run.returncode == 1 and "1 of 1 outputs differ" in run.stdout
    path.write_text(path.read_text().replace("return CASE.actual", 'return oracle(problem, "onnx")'))
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


class Picky:
    """A runner that computes nothing smaller than eight outputs."""

    name, profile = "picky engine", "onnx"

    def describe(self):
        return {}

    def supports(self, problem):
        return None if oracle(problem, "onnx").size >= 8 else "too small"

    def run(self, problem):
        return sloppy(problem)


def test_runners_and_what_they_do_not_support():
    small = shrink(Picky(), shown(LINES[5]))
    assert small.expected.size == 8 and small.engine == "pickyengine" and small.profile == "onnx"


def test_what_engines_raise_is_not_the_difference():
    def fragile(problem):
        if problem["a"].size < 5:
            raise RuntimeError("too small for me")
        return sloppy(problem)

    assert shrink(fragile, shown(LINES[5]), numerics="onnx").expected.size == 5


def test_the_clock_and_wrong_calls():
    small = shrink(sloppy, shown(LINES[0]), numerics="onnx", seconds=0.0)
    assert not small.complete and small.comparison.status is Status.DIFFERENT
    with pytest.raises(ArgumentError, match="agree on this problem"):
        shrink(lambda p: oracle(p, "onnx"), build(LINES[0]), numerics="onnx")
    with pytest.raises(ArgumentError, match="name the profile"):
        shrink(sloppy, build(LINES[0]))
