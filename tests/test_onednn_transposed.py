"""oneDNN's kernels of transposed convolutions below AVX-512: which takes what, what it computes, and what it takes from unwritten memory."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from refquant import QParams, QTensor
from refquant.backends.findings import find, reproduce
from refquant.numerics.onednn_transposed import LEVELS, Transposed, reads_unwritten, transposed_kernel
from refquant.ops import conv_transpose
from refquant.verify.build import build
from refquant.verify.compare import compare
from refquant.verify.held import level_here
from refquant.verify.problem import Problem, oracle

# Each with the kernel that takes it on AVX2.
LINES = {
    "conv_transpose2d/onednn@avx2/n1c7h16w16-oc16k2x11p1x2/pairs/seed=1000067/far": "reference",
    "conv_transpose2d/onednn@avx2/n1c2h21w21-oc31k9s1x2p4x6d2/pairs/seed=2/nobias": "reference",
    "conv_transpose3d/onednn@avx2/n2c4t3h4w5-oc64k3s3p4/pairs/seed=5": "reference",
    "conv_transpose2d/onednn@avx2/n1c513h3w3-oc8k2x3d3x2s1x2/pairs/seed=3": "matrix",
    "conv_transpose1d/onednn@avx2/n2c257w8-oc15k2p2/pairs/seed=5": "matrix",
    "conv_transpose2d/onednn@avx2/n1c6h7w9-oc6k3s2g2/neartie/seed=97": "matrix",
    "conv_transpose2d/onednn@avx2/n1c16h9w7-oc16k3/pairs/seed=1": "direct",
    "conv_transpose3d/onednn@avx2/n1c25t1h9w2-oc25k3x3x5s4x4x1p1/neartie/seed=4": "direct",
    "conv_transpose1d/onednn@avx2/n2c8w50-oc8d3/pairs/seed=4": "direct",
}
_TRANSPOSED = re.compile(r"exec,cpu,deconvolution,([^,]*),")
_ASK = """
import sys
from refquant.backends.torch_runner import TorchRunner
from refquant.verify.build import build
for line in sys.argv[1:]:
    TorchRunner("onednn").run(build(line))
"""
_NAMES = {"direct": ("jit_uni_int8:avx2", "jit_uni_int8:sse41", ""), "matrix": ("conv:any+x64:gemm_s8u8s32:jit",), "reference": ("conv:any+ref:any",)}


def needs_avx2():
    if level_here() != "avx2":
        pytest.skip("this processor has no AVX2 as its highest level, where oneDNN has these kernels")


def kernel_seen(line, monkeypatch):
    """The kernel by which the oracle computes a line."""
    seen = []
    monkeypatch.setattr(conv_transpose, "transposed_kernel", lambda *shape: seen.append(transposed_kernel(*shape)) or seen[-1])
    oracle(build(line), "onednn@avx2")
    return seen[0]


@pytest.mark.parametrize("line", LINES)
def test_the_rule_chooses_and_every_kernel_gives_other_bits(line, monkeypatch):
    assert kernel_seen(line, monkeypatch) == LINES[line]
    problem, name = build(line), "onednn+shuffled_transpose@avx2"
    comp = oracle(problem, name)
    assert compare(comp, oracle(problem, name, reference=True)).exact
    others = set()
    for kernel in set(_NAMES) - {LINES[line]}:
        monkeypatch.setattr(conv_transpose, "transposed_kernel", lambda shape, level: kernel)  # noqa: B023
        others.add(compare(oracle(problem, name), comp).exact)
    assert False in others, "the data could not show another kernel"


@pytest.mark.engine
@pytest.mark.parametrize("engine", ("onednn",), indirect=True)
@pytest.mark.parametrize("line", LINES)
def test_the_engine_gives_these_bits(engine, line):
    needs_avx2()
    problem = build(line)
    assert engine.supports(problem) is None
    assert compare(engine.run(problem), oracle(problem, "onednn+shuffled_transpose@avx2")).exact


@pytest.mark.engine
@pytest.mark.parametrize("engine", ("onednn",), indirect=True)
def test_the_engine_names_the_kernel(engine):
    needs_avx2()
    done = subprocess.run([sys.executable, "-c", _ASK, *LINES], capture_output=True, text=True, check=True, env={**os.environ, "ONEDNN_VERBOSE": "1", "OMP_NUM_THREADS": "1"})
    names = _TRANSPOSED.findall(done.stdout)
    assert len(names) == len(LINES)
    assert [name in _NAMES[kernel] for name, kernel in zip(names, LINES.values())] == [True] * len(LINES), names
    assert len(set(names)) == 5


def _of_zeros(channels, size, kernel, stride, zero_point=128, **more):
    x, w = QTensor(np.full((1, channels, *size), 128, np.uint8), QParams(1.0, zero_point, "uint8")), QTensor(np.ones((channels, channels, *kernel), np.int8), QParams(1.0, 0, "int8"))
    return Problem(f"conv_transpose{len(size)}d", {"x": x, "w": w, "out": QParams(1.0, 100, "uint8"), "stride": stride, **more})


@pytest.mark.engine
@pytest.mark.parametrize("engine", ("onednn",), indirect=True)
def test_what_reads_unwritten_memory_is_refused_and_its_neighbours_are_exact(engine):
    needs_avx2()
    for size, kernel, stride in (((2, 4), (1, 1), (7, 1)), ((2, 4), (3, 2), (5, 1)), ((2, 3, 3), (2, 1, 1), (4, 1, 1))):
        assert "behind a buffer" in engine.supports(_of_zeros(256, size, kernel, stride))
        assert engine.supports(_of_zeros(256, size, kernel, stride, zero_point=0)) is None
        one_less = (stride[0] - (stride[0] - kernel[0] - 1), *stride[1:])
        problem = _of_zeros(256, size, kernel, one_less)
        assert engine.supports(problem) is None and compare(engine.run(problem), oracle(problem, engine.profile)).exact
    assert engine.supports(_of_zeros(8, (9,), (1,), 7)) is None, "lines are computed by another rule"
    assert reproduce(find("gaps-of-unwritten-memory"), engine).shows


def test_rows_that_are_not_there_read_nothing():
    shape = Transposed(1, 1, 8, 8, (2, 4), (1, 1), (7, 1), (0, 0), (1, 1), (8, 4))
    for level in LEVELS:
        assert reads_unwritten(shape, level, 1) and not reads_unwritten(shape, level, 0)
        assert not reads_unwritten(shape._replace(size=(1, 4), out=(1, 4)), level, 1)
        assert not reads_unwritten(shape._replace(groups=2, ic=3, oc=3), level, 1), "the matrix product has no such buffer"
