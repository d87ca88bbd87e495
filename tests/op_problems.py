"""Operands on and beside rounding ties, and comparison to the bit, for tests of operators."""

import numpy as np

import refquant as rq

PROFILES = ("fbgemm", "onednn", "x86", "onnx", "onnxruntime")


def bits(q):
    return q.values if isinstance(q, rq.QTensor) else q.view(np.int32)


def same(comp, ref):
    """Raise unless dtype, shape and every bit agree."""
    comp, ref = bits(comp), bits(ref)
    assert comp.dtype == ref.dtype and comp.shape == ref.shape
    np.testing.assert_array_equal(comp, ref)


def near_tie_scales(rng, channels=None):
    """Scales for which (sx·sw)/sy is 2**-5 or a few ulp beside it: odd multiples of 16 sit on or beside a tie."""
    sx, sy = (float(v) for v in np.float32(rng.uniform(0.01, 0.1, 2)))
    if rng.random() < 0.5:
        sx = 0.03125
    sw = np.float32(sy / 32 / sx) * np.ones(channels or 1, np.float32)
    step = rng.integers(-2, 3, sw.shape)
    sw = (sw.view(np.int32) + step.astype(np.int32)).view(np.float32)
    return sx, (sw.astype(np.float64) if channels else float(sw[0])), sy


def codes(rng, shape, dtype):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def linear_problem(seed, *, per_channel, bias, k=9, m=13, oc=7, symmetric=True, zero=None):
    rng = np.random.default_rng(seed)
    sx, sw, sy = near_tie_scales(rng, oc if per_channel else None)
    zx = int(rng.integers(0, 256)) if zero is None else zero
    zw = 0 if symmetric else int(rng.integers(-128, 128))
    x = rq.QTensor(codes(rng, (m, k), np.uint8), rq.QParams(sx, zx, "uint8"))
    w = rq.QTensor(codes(rng, (oc, k), np.int8), rq.QParams(sw, np.full(oc, zw) if per_channel else zw, "int8", axis=0 if per_channel else None))
    b = (rng.standard_normal(oc) * sy * 20).astype(np.float32) if bias else None
    out = rq.QParams(sy, int(rng.choice([0, 1, 77, 128, 255])), "uint8")
    return x, w, b, out
