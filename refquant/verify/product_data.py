"""The data of linear layers, convolutions and integer products."""

import numpy as np

from refquant.core.layout import to_channels_last
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.core.rounding import Round, round_real
from refquant.verify.case_outputs import windows_of
from refquant.verify.draws import draw_codes, draw_scale, draw_weights, draw_zero, pick, solve_scales, tie_ratio
from refquant.verify.powers import exponent_of, power_of_two
from refquant.verify.problem import Problem

__all__ = ["build_linear", "build_conv", "build_conv_transpose", "build_matmul_integer"]

# Root mean square of the outputs, in codes, that the output scale is solved for.
_SPREAD = {"neartie": 48, "random": 40, "pairs": 90, "wrap": 100, "saturate": 600, "edges": 90}
# Accumulators between two codes for "offset", as powers of two.
_OFFSET_SHIFT = (19, 22)


def _pairs(value, dims):
    return value if isinstance(value, tuple) else (value,) * dims


def build_linear(case, rng):
    """Return the problem of a case of ``linear``."""
    arguments = _product(case, rng, (case["m"], case["k"]), (case["n"], case["k"]))
    _other(rng, case, arguments, (case["m"], case["n"]))
    return Problem("linear", arguments)


def build_conv(case, rng):
    """Return the problem of a case of ``conv1d``, ``conv2d`` or ``conv3d``."""
    dims = int(case.op[4])
    groups = case["g"]
    sides = tuple(case[letter] for letter in "thw"[3 - dims :])
    x_shape = (case["n"], case["c"], *sides)
    w_shape = (case["oc"], case["c"] // groups, *_pairs(case["k"], dims))
    arguments = _product(case, rng, x_shape, w_shape)
    for name, letter in (("stride", "s"), ("padding", "p"), ("dilation", "d")):
        arguments[name] = case[letter]
    arguments["groups"] = groups
    _other(rng, case, arguments, (case["n"], case["oc"], *windows_of(case)))
    if case.has("other"):
        arguments["other"] = _channels_last(arguments["other"])
    return Problem(case.op, arguments)


def _channels_last(other):
    return QTensor(to_channels_last(other.values), other.qparams) if isinstance(other, QTensor) else to_channels_last(other)


def build_conv_transpose(case, rng):
    """Return the problem of a case of ``conv_transpose1d``, ``conv_transpose2d`` or ``conv_transpose3d``.

    Weights are drawn output channels first, as those of a convolution with as many terms in a sum, and then turned round.
    """
    dims, groups = int(case.op[-2]), case["g"]
    x_shape = (case["n"], case["c"], *(case[letter] for letter in "thw"[3 - dims :]))
    arguments = _product(case, rng, x_shape, (case["oc"] // groups, case["c"], *_pairs(case["k"], dims)), groups)
    w = arguments["w"]
    p = w.qparams if not w.qparams.per_channel else QParams(w.qparams.scale, w.qparams.zero_point, w.dtype, axis=1)
    arguments["w"] = QTensor(np.ascontiguousarray(np.swapaxes(w.values, 0, 1)), p)
    for name, letter in (("stride", "s"), ("padding", "p"), ("output_padding", "op"), ("dilation", "d")):
        arguments[name] = case[letter]
    arguments["groups"] = groups
    return Problem(case.op, arguments)


def _product(case, rng, x_shape, w_shape, repeat=1):
    """Return the arguments of a product; there are `repeat` times as many output channels as `w` has, each time with the same weights' scales."""
    strategy = "neartie" if case.strategy == "telling" else case.strategy
    x_type, w_type = "int8" if case.has("int8") else "uint8", "uint8" if case.has("uint8") else "int8"
    xz, yz = draw_zero(rng, x_type, strategy), draw_zero(rng, x_type, strategy)
    if strategy == "wrap" or (strategy == "pairs" and rng.random() < 0.7):
        xz = pick(rng, (0, 1, -128 if x_type == "int8" else 0))
    if case.has("symmetric"):
        xz = 0
    if case.has("relu") and rng.random() < 0.5:
        yz = 0 if x_type == "uint8" else -128
    channels = w_shape[0]
    x = draw_codes(rng, x_shape, x_type, xz, strategy)
    w = draw_weights(rng, w_shape, w_type, strategy)
    count = channels if case.has("per_channel") else None
    wz = _weight_zeros(rng, case, w_type, count)
    rms = _accumulator_spread(rng, x.astype(np.int64) - xz, w.astype(np.int64) - np.reshape(wz, (-1, *[1] * (w.ndim - 1))))
    if case.has("float"):
        sx, sw, out = *_float_scales(rng, x, count), None
    else:
        sx, sw, sy = _scales(rng, strategy, rms, count)
        out = QParams(sy, yz, x_type)
    if case.has("channels_last") and x.ndim > 3:
        x = to_channels_last(x)
    return {
        "x": QTensor(x, QParams(sx, xz, x_type)),
        "w": QTensor(w, QParams(sw, wz, w_type, axis=None if count is None else 0)),
        "bias": _bias(rng, case, channels * repeat, sx, np.tile(sw, repeat) if count else sw, out, rms),
        "out": out,
        "activation": _activation(rng, case),
    }


def _activation(rng, case):
    if case.has("leaky_relu"):
        return "leaky_relu", float(np.float32(pick(rng, (0.01, 0.125, 0.3, 1.5))))
    if case.has("hardtanh"):
        return "hardtanh", float(np.float32(-rng.random())), float(np.float32(rng.random() * 4))
    return next((name for name in ("hardswish", "tanh", "gelu", "swish", "relu") if case.has(name)), None)


def _other(rng, case, arguments, shape):
    """Put a second tensor of the output's shape into the arguments: codes on a scale like the output's, or for a float output real numbers."""
    if not case.has("other"):
        return
    out = arguments["out"]
    if out is None:
        arguments["other"] = rng.normal(0, 3, shape).astype(np.float32)
        return
    scales = solve_scales(rng, tie_ratio(rng, np.zeros(64), 64), out.scale, 64)
    single = scales.astype(np.float32)
    # Of scales on and beside a tie, one that is not the inverse of its inverse, if there is any.
    telling = scales[np.float32(1) / (np.float32(1) / single) != single]
    p = QParams(float([*telling, *scales][0]), draw_zero(rng, out.dtype, case.strategy), out.dtype)
    arguments["other"] = QTensor(draw_codes(rng, shape, out.dtype, p.zero_point, "random"), p)


def _weight_zeros(rng, case, w_type, count):
    if not case.has("asymmetric"):
        return (128 if w_type == "uint8" else 0) if count is None else np.full(count, 128 if w_type == "uint8" else 0)
    low = 0 if w_type == "uint8" else -128
    drawn = rng.integers(low, low + 256, count or 1)
    return int(drawn[0]) if count is None else drawn


def _accumulator_spread(rng, x, w):
    """Return the root mean square of accumulators, from a sample of the inputs' codes."""
    rows = w.reshape(w.shape[0], -1)
    sample = rng.choice(x.reshape(-1), (8, rows.shape[1]))
    acc = sample.astype(np.float64) @ rows.T
    return max(float(np.sqrt(np.mean(acc * acc))), 1.0)


def _scales(rng, strategy, rms, count):
    """Return the scales of x, w and y, with ``sx * sw / sy`` on or beside a `tie_ratio`."""
    sx, sy = draw_scale(rng), draw_scale(rng, 2.0**-7, 2.0**-1)
    if rng.random() < 0.25:
        sx = sy * 2.0 ** int(rng.integers(-4, 4))
    size = count or 1
    if strategy == "offset":
        return sx, solve_scales(rng, 2.0 ** -int(rng.integers(*_OFFSET_SHIFT)), sy / sx, count), sy
    if strategy == "random":
        ratio = _SPREAD[strategy] / rms * power_of_two(rng.uniform(-1, 1, size))
        sw = ratio * sy / sx
        return sx, float(sw[0]) if count is None else sw, sy
    if strategy == "saturate" and rng.random() < 0.25:
        # So small an output scale that scaled sums leave int32.
        rms *= 2.0 ** -int(rng.integers(18, 30))
    shift = np.clip(exponent_of(rms / _SPREAD[strategy]), -26, 40) + rng.integers(0, 2, size)
    return sx, solve_scales(rng, tie_ratio(rng, shift, size), sy / sx, count), sy


def _float_scales(rng, x, count):
    """Return scales for a float output: of x a short fraction, and put both of its end codes in, so that a range [min, max] gives both exactly."""
    sx = int(rng.integers(1025, 4096)) * 2.0 ** -int(rng.integers(12, 20))
    flat = x.reshape(-1)
    flat[0], flat[-1] = np.iinfo(x.dtype).min, np.iinfo(x.dtype).max
    sw = power_of_two(rng.uniform(-9, -2, count or 1))
    return sx, float(sw[0]) if count is None else sw


def _bias(rng, case, channels, sx, sw, out, rms):
    if case.has("nobias"):
        return None
    steps = round_real(rng.normal(0, rms, channels), Round.HALF_EVEN)
    if case.strategy == "offset" and out is not None:
        apart = 2.0 ** exponent_of(2**0.5 * out.scale / (np.asarray(sw) * sx))
        steps = (rng.integers(30, 110, channels) + 0.5) * apart + rng.integers(-9, 10, channels)
    if case.has("intbias"):
        if case.strategy == "wrap":
            steps[::2] = 2.0**31 - 1
        return np.clip(steps, -(2.0**31), 2.0**31 - 1).astype(np.int32)
    real = (steps * sx * sw).astype(np.float32)
    loose = rng.random(channels) < 0.3
    return np.where(loose, real * np.float32(1.1), real)


def build_matmul_integer(case, rng):
    """Return the problem of a case of ``matmul_integer``."""
    a_type, b_type = "int8" if case.has("int8") else "uint8", "uint8" if case.has("uint8") else "int8"
    a_zero = draw_zero(rng, a_type, case.strategy)
    arguments = {
        "a": draw_codes(rng, (case["m"], case["k"]), a_type, a_zero, case.strategy),
        "b": np.ascontiguousarray(draw_weights(rng, (case["n"], case["k"]), b_type, case.strategy).T),
    }
    if case.has("asymmetric"):
        arguments["a_zero_point"] = a_zero
        zeros = draw_codes(rng, case["n"] if case.has("per_channel") else 1, b_type, 0, "random").astype(np.int64)
        arguments["b_zero_point"] = zeros if case.has("per_channel") else int(zeros[0])
    return Problem("matmul_integer", arguments)
