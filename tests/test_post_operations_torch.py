"""What follows oneDNN's products, beside the engine: functions to the last bit of float32, by vectorized and by reference kernels; sums beyond int32."""

import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]

import torch.ao.quantization.fx._decomposed  # noqa: E402, F401

import refquant as rq  # noqa: E402
from refquant.core.glibc import glibc_tanh  # noqa: E402
from refquant.core.onednn_eltwise import onednn_gelu, onednn_gelu_reference, onednn_swish, onednn_swish_reference  # noqa: E402
from refquant.core.onednn_tanh import onednn_tanh  # noqa: E402
from refquant.verify import Problem, oracle  # noqa: E402

UNFUSED = """
import numpy as np, refquant as rq
from refquant import backends
from refquant.verify import Problem, oracle
runner, rng = backends.load("inductor"), np.random.default_rng(0)
x = rq.QTensor(np.arange(256, dtype=np.uint8)[:, None], rq.QParams(0.03, 131, "uint8"))
w = rq.QTensor(rng.integers(-127, 128, (60, 1)).astype(np.int8), rq.QParams(0.02, 0, "int8"))
for name in ("tanh", "gelu", "swish"):
    problem = Problem("linear", {"x": x, "w": w, "bias": None, "out": None, "activation": name})
    theirs = runner.run(problem)
    print(name, *[int((theirs != oracle(problem, f"inductor@{level}")).sum()) for level in ("sse41", "avx2")])
"""


@pytest.fixture(scope="module")
def runner():
    from refquant import backends

    return backends.load("inductor")


def numbers(dtype="uint8", seed=0, groups=None):
    """x and w whose products spread over the whole of each function, one number each; with groups, as a convolution that no kernel but the reference takes."""
    rng = np.random.default_rng(seed)
    codes = np.arange(256).astype(np.uint8).view(dtype)
    x = rq.QParams(float(np.float32(rng.uniform(0.02, 0.05))), int(np.median(codes)), dtype)
    scale = float(np.float32(rng.uniform(0.01, 0.05)))
    if groups is None:
        w = rng.integers(-127, 128, (90, 1)).astype(np.int8)
        return rq.QTensor(codes[:, None], x), rq.QTensor(w, rq.QParams(scale, 0, "int8"))
    w = rng.integers(-127, 128, (groups * 3, 3, 1, 1)).astype(np.int8)
    return rq.QTensor(np.broadcast_to(codes.reshape(1, 1, 16, 16), (1, groups * 3, 16, 16)).copy(), x), rq.QTensor(w, rq.QParams(scale, 0, "int8"))


def differing(runner, op, x, w, activation, **others):
    problem = Problem(op, {"x": x, "w": w, "bias": None, "out": None, "activation": activation, **others})
    theirs, ours = runner.run(problem), oracle(problem, runner.profile)
    assert theirs.dtype == ours.dtype == np.float32
    return int((theirs.view(np.uint32) != ours.view(np.uint32)).sum())


@pytest.mark.parametrize("dtype", ("uint8", "int8"))
@pytest.mark.parametrize("activation", ("tanh", "gelu", "swish", "hardswish", "relu", ("leaky_relu", 0.3)))
def test_float32_outputs_of_linear_layers(runner, activation, dtype):
    x, w = numbers(dtype)
    assert differing(runner, "linear", x, w, activation) == 0


@pytest.mark.parametrize("activation", ("swish", "hardswish", "relu", ("hardtanh", -0.3, 0.7)))
@pytest.mark.parametrize("groups", (1, 2, 5))
def test_float32_outputs_of_convolutions(runner, activation, groups):
    x, w = numbers(groups=groups)
    assert differing(runner, "conv2d", x, w, activation, groups=groups) == 0
    other = np.random.default_rng(1).normal(0, 1, (1, groups * 3, 16, 16)).astype(np.float32)
    if activation == "relu":
        assert differing(runner, "conv2d", x, w, activation, groups=groups, other=other) == 0


def test_the_kernel_matters(runner):
    if not runner.profile.endswith("@avx2"):
        pytest.skip("this processor has no need of reference kernels")
    x, w = numbers(groups=2)
    rows = rq.numerics.get(runner.profile)
    other = rows.replace(conv_real=rows.conv_real.replace(yes=rows.conv_real.yes.replace(post="vectorized")))
    for activation in ("relu", "swish"):
        problem = Problem("conv2d", {"x": x, "w": w, "bias": None, "out": None, "activation": activation, "groups": 2})
        assert (oracle(problem, other).view(np.uint32) != oracle(problem, rows).view(np.uint32)).any()


@pytest.mark.parametrize("activation, reference, vectorized", [("tanh", glibc_tanh, onednn_tanh), ("gelu", onednn_gelu_reference, onednn_gelu), ("swish", onednn_swish_reference, onednn_swish)])
def test_the_reference_product_by_its_bfloat16_outputs(activation, reference, vectorized):
    """Below AVX-512 outputs of bfloat16 end in the kernel that int8 activations end in on AVX-512."""
    if torch.cpu._is_avx512_supported():
        pytest.skip("this processor has no such way into the reference kernel")
    rng, missed, told = np.random.default_rng(2), 0, 0
    for _ in range(20):
        x = rng.integers(-64, 64, (2000, 2)).astype(np.int8)
        w = rng.integers(-64, 64, (64, 2)).astype(np.int8)
        sx, sw = np.float32(2.0 ** rng.uniform(-10, -6)), (2.0 ** rng.uniform(-7, -2, 64)).astype(np.float32)
        packed = torch.ops.onednn.qlinear_prepack(torch.from_numpy(w), None)
        given = torch.from_numpy(x), float(sx), 3, packed, torch.from_numpy(sw), torch.zeros(64, dtype=torch.int64), None, 1.0, 0, torch.bfloat16
        theirs = torch.ops.onednn.qlinear_pointwise(*given, activation, [], "none" if activation == "gelu" else "")
        real = ((x.astype(np.int32) - 3) @ w.T.astype(np.int32)).astype(np.float32) * sx * sw
        rounded = [torch.from_numpy(np.asarray(f(real), np.float32)).to(torch.bfloat16) for f in (reference, vectorized)]
        missed, told = (n + int((theirs != r).sum()) for n, r in zip((missed, told), rounded))
    assert missed == 0 and told > 0


def test_without_fused_steps():
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "SSE41"}
    lines = subprocess.run([sys.executable, "-c", UNFUSED], env=environment, capture_output=True, text=True, check=True).stdout.split("\n")
    for name, line in zip(("tanh", "gelu", "swish"), lines):
        missed, told = map(int, line.removeprefix(name).split())
        assert missed == 0 and told > 0, line


@pytest.mark.parametrize("short", (0, 1, 63, 64, 65, 129))
def test_sums_beyond_int32(runner, short):
    """Sums around 2**31, with and without a zero point; beside it float32 knows every 128th number alone."""
    units, rest = divmod(2**31 - short, 127)
    x, w = np.full((1, 66_400), -128, np.int8), np.full((2, 66_400), 127, np.int8)
    x[0, : units // 255] = 127
    x[0, -2:] = units % 255 - 128, rest - 128
    w[0, -1], w[1] = 1, -w[0]
    assert int((x[0].astype(np.int64) + 128) @ w[0].astype(np.int64)) == 2**31 - short
    for zero in (-128, 0, 5):
        problem = Problem("linear", {"x": rq.QTensor(x, rq.QParams(1.0, zero, "int8")), "w": rq.QTensor(w, rq.QParams(1.0, 0, "int8")), "bias": None, "out": None, "activation": None})
        assert np.array_equal(runner.run(problem), oracle(problem, runner.profile)), zero
        assert np.array_equal(oracle(problem, runner.profile), oracle(problem, runner.profile, reference=True)), zero
