"""The data of means, of resized images, and of pools of volumes and sequences."""

import numpy as np

from refquant.core.layout import to_channels_last
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.verify.draws import draw_codes, draw_scale, draw_zero, pick, solve_scales
from refquant.verify.elementwise_data import dtype_of, shape_of
from refquant.verify.problem import Problem

__all__ = ["build_mean", "build_interpolate", "build_pool3d"]


def _input(case, rng, shape):
    dtype = dtype_of(case)
    zero = draw_zero(rng, dtype, case.strategy)
    low = np.iinfo(dtype).min
    if case.strategy == "neartie" and rng.random() < 0.4:
        x = (low + rng.integers(0, 5, shape)).astype(dtype)
    else:
        x = draw_codes(rng, shape, dtype, zero, "saturate" if case.strategy == "saturate" else "random")
    if case.has("channels_last"):
        x = to_channels_last(x)
    return QTensor(x, QParams(draw_scale(rng), zero, dtype))


def build_mean(case, rng):
    """Return the problem of a case of ``mean`` over the last axes."""
    shape = shape_of(case)
    count = min(case["r"], len(shape))
    dim = (1, 2) if case.has("middle") and len(shape) > 3 else tuple(range(2, len(shape))) if case.has("channels_last") and len(shape) > 3 else (0,) if case.has("first") else tuple(range(len(shape) - count, len(shape)))
    dim = tuple(d - len(shape) for d in reversed(dim)) if case.has("fromend") else dim
    arguments = {"x": _input(case, rng, shape), "dim": dim, "keepdim": case.has("keepdim")}
    if case.has("rescale"):
        q = arguments["x"].qparams
        ratio = pick(rng, (1, 2, 4, 0.5, 3, 1.5)) if case.strategy == "neartie" else float(np.exp2(rng.uniform(-1, 2)))
        arguments["out"] = QParams(solve_scales(rng, 1 / ratio, q.scale), draw_zero(rng, q.dtype, case.strategy), q.dtype)
    return Problem("mean", arguments)


def build_interpolate(case, rng):
    """Return the problem of a case of ``interpolate``."""
    x = _input(case, rng, tuple(case[letter] for letter in "nchw"))
    arguments = {"x": x, "mode": "bilinear" if case.has("bilinear") else "nearest-exact" if case.has("exact") else "nearest"}
    size = case["o"] if isinstance(case["o"], tuple) else (case["o"],) * 2
    if case.has("factor"):
        # A third of a side more or less, which float32 cannot hold.
        arguments["scale_factor"] = tuple(float((o + pick(rng, (0.1, 0.3, 0.7))) / n) for o, n in zip(size, x.shape[2:]))
    else:
        arguments["size"] = size
    if case.has("bilinear"):
        arguments["align_corners"] = case.has("corners")
    return Problem("interpolate", arguments)


def build_pool3d(case, rng):
    """Return the problem of a case of ``max_pool1d``, ``max_pool3d``, ``avg_pool3d`` or ``adaptive_avg_pool3d``."""
    sides = "w" if case.op == "max_pool1d" else "thw"
    x = _input(case, rng, tuple(case[letter] for letter in ("n", "c", *sides)))
    if case.op == "adaptive_avg_pool3d":
        return Problem(case.op, {"x": x, "output_size": case["o"]})
    arguments = {"x": x, "kernel_size": case["k"], "stride": case["s"] or None, "padding": case["p"], "ceil_mode": case.has("ceil")}
    if case.op != "avg_pool3d":
        return Problem(case.op, {**arguments, "dilation": case["d"]})
    divisor = pick(rng, (3, 5, 8)) if case.has("divisor") else None
    return Problem(case.op, {**arguments, "count_include_pad": not case.has("nopad"), "divisor_override": divisor})
