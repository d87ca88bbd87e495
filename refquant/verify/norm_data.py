"""The data of normalizations and of softmax: biases are solved, so that results lie on ties or beside."""

import numpy as np

from refquant.core.dtypes import int_type
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.verify.draws import draw_codes, draw_scale, draw_zero, pick, solve_scales, tie_ratio
from refquant.verify.elementwise_data import dtype_of, laid_out, output_of, shape_of
from refquant.verify.powers import power_of_two
from refquant.verify.function_ties import softmax_beside_a_tie
from refquant.verify.problem import Problem

__all__ = ["build_batch_norm", "build_layer_norm", "build_channel_norm", "build_softmax"]


def _input(case, rng, shape, strategy):
    dtype = dtype_of(case)
    zero = draw_zero(rng, dtype, strategy)
    codes = draw_codes(rng, shape, dtype, zero, "saturate" if strategy == "saturate" else "random")
    if rng.random() < 0.1:
        codes[:1] = codes.reshape(-1)[0]
    return QTensor(laid_out(case, codes), QParams(draw_scale(rng), zero, dtype))


def build_batch_norm(case, rng):
    """Return the problem of a case of ``batch_norm``; for ``neartie`` alpha is a `tie_ratio`, or beside."""
    x = _input(case, rng, shape_of(case), case.strategy)
    channels = x.shape[1]
    out = output_of(case, rng, x.dtype)
    mean = (rng.normal(0, 40, channels) * x.qparams.scale).astype(np.float32)
    var = power_of_two(rng.uniform(-6, 6, channels)).astype(np.float32)
    arguments = {"x": x, "mean": mean, "var": var, "out": out, "eps": pick(rng, (1e-5, 1e-3, 0.0)), "activation": "relu" if case.has("relu") else None}
    gain = 1 / np.sqrt(var.astype(np.float64) + arguments["eps"])
    ratio = tie_ratio(rng, rng.integers(0, 5, channels), channels) if case.strategy == "neartie" else rng.normal(0, 1, channels)
    weight = solve_scales(rng, ratio / gain * out.scale / x.qparams.scale, 1.0, channels).astype(np.float32)
    half = (rng.integers(-60, 61, channels) + rng.choice([0, 0.5], channels)) * out.scale
    return Problem("batch_norm", {**arguments, "weight": weight, "bias": (mean * gain * weight + half).astype(np.float32)})


def _normalized(rows, q, eps):
    """Return the normalized rows (last axis), in float64."""
    real = (rows.astype(np.float64) - q.zero_point) * np.float64(np.float32(q.scale))
    return (real - real.mean(-1, keepdims=True)) / np.sqrt(real.var(-1, keepdims=True) + eps)


def _line(rng, targets, out):
    """Return (weight, bias) that take `targets` to ties of the output, or a few ulp beside."""
    weight = (rng.normal(0, 1, targets.shape) * 20 * out.scale).astype(np.float32)
    tie = (rng.integers(-50, 50, targets.shape) + 0.5) * np.float64(np.float32(out.scale))
    bias = (tie - targets * weight).astype(np.float32)
    ulps = rng.integers(-2, 3, bias.shape).astype(np.int32)
    return weight, (bias.view(np.int32) + ulps).view(np.float32)


def build_layer_norm(case, rng):
    """Return the problem of a case of ``layer_norm``."""
    x = _input(case, rng, (case["m"], case["n"]), case.strategy)
    out = output_of(case, rng, x.dtype)
    arguments = {"x": x, "normalized_shape": (case["n"],), "out": out, "eps": pick(rng, (1e-5, 1e-3, 1e-12))}
    if case.has("affine"):
        target = _normalized(x.values, x.qparams, arguments["eps"])[int(rng.integers(case["m"]))]
        arguments |= dict(zip(("weight", "bias"), _line(rng, target, out)))
    return Problem("layer_norm", arguments)


def build_channel_norm(case, rng):
    """Return the problem of a case of ``group_norm`` or ``instance_norm``: of each channel one point is put on a tie."""
    shape = shape_of(case)
    x = _input(case, rng, shape, case.strategy)
    out = output_of(case, rng, x.dtype)
    groups = case["g"] if case.op == "group_norm" else shape[1]
    arguments = {"x": x, "out": out, "eps": pick(rng, (1e-5, 1e-3, 1e-12))}
    if case.op == "group_norm":
        arguments["num_groups"] = groups
    if case.has("affine"):
        rows = np.ascontiguousarray(x.values)[int(rng.integers(shape[0]))].reshape(groups, -1)
        points = _normalized(rows, x.qparams, arguments["eps"]).reshape(shape[1], -1)
        target = points[np.arange(shape[1]), rng.integers(0, points.shape[1], shape[1])]
        arguments |= dict(zip(("weight", "bias"), _line(rng, target, out)))
    return Problem(case.op, arguments)


def build_softmax(case, rng):
    """Return the problem of a case of ``softmax``."""
    x = _input(case, rng, shape_of(case), "random")
    scale = draw_scale(rng, 2.0**-8, 2.0**-3)
    x = QTensor(x.values, QParams(scale, x.qparams.zero_point, x.dtype))
    arguments = {"x": x, "dim": 1 if case.has("first") else -1}
    if case.has("rescale"):
        kind = int_type(x.dtype)
        arguments["out"] = QParams(draw_scale(rng, 2.0**-9, 2.0**-6), int(rng.integers(kind.qmin, kind.qmax + 1)), x.dtype)
    if case.strategy == "telling":
        arguments["x"] = _on_a_tie(rng, x, arguments)
    return Problem("softmax", arguments)


def _on_a_tie(rng, x, arguments):
    """Return the input with two codes in each row, the larger one once, and a scale for which its softmax is all but on a tie."""
    kind, dim = int_type(x.dtype), arguments["dim"] % x.ndim
    high, low = sorted((int(code) for code in rng.choice(np.arange(kind.qmin, kind.qmax + 1), 2, replace=False)), reverse=True)
    codes = np.full(x.shape, low, x.values.dtype)
    np.moveaxis(codes, dim, 0)[rng.integers(x.shape[dim])] = high
    step = arguments["out"].scale if "out" in arguments else 1 / 256
    return QTensor(codes, QParams(softmax_beside_a_tie(rng, high - low, x.shape[dim] - 1, step), x.qparams.zero_point, x.dtype))
