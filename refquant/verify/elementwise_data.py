"""The data of operators that work element by element: quantize, dequantize, fake_quantize, add, mul, cat and functions of one code."""

import numpy as np

from refquant.core.dtypes import int_type
from refquant.core.layout import to_channels_last
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.verify.draws import draw_codes, draw_scale, draw_zero, pick, solve_scales, tie_ratio
from refquant.verify.function_ties import SOLVED, scale_beside_a_tie
from refquant.verify.powers import power_of_two
from refquant.verify.problem import Problem

__all__ = ["build_quantize", "build_dequantize", "build_fake_quantize", "build_add", "build_mul", "build_squared_difference", "build_unary", "build_root", "build_cat", "shape_of", "laid_out", "dtype_of", "solved_input", "output_of"]

_SPECIAL = np.array(
    [0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, -1e-45, 1.1754942e-38, -1e-38, 3.4028235e38, -3.4028235e38, 2.0**31, -(2.0**31), 2.0**63, -(2.0**63), 1e30, -1e30],
    np.float32,
)  # fmt: skip
# Parameters are drawn one by one for so many channels; further ones take them again.
_DRAWN = 1024


def shape_of(case):
    """Return the shape that the letters of a case give."""
    return tuple(size for letter, size in case.shape if letter in "ncthw" and size)


def laid_out(case, x):
    """Return `x` with the strides that a case asks for."""
    return to_channels_last(x) if case.has("channels_last") and x.ndim > 3 else x


def dtype_of(case):
    """Return the dtype of codes that a case asks for."""
    return next((t for t in ("int32", "int8") if case.has(t)), "uint8")


def _qparams(case, rng, shape, dtype, **limits):
    """Draw parameters; now and then with a scale at the edge of float32."""
    wild = case.strategy == "edges" and rng.random() < 0.15
    draw = (lambda: float(np.float32(power_of_two(rng.uniform(-126, 100))))) if wild else (lambda: draw_scale(rng))
    if not case.has("per_channel"):
        return QParams(draw(), _inside(draw_zero(rng, dtype, case.strategy), limits), dtype, **limits)
    axis = min(1, len(shape) - 1)
    scales = [draw() for _ in range(min(shape[axis], _DRAWN))]
    zeros = [_inside(draw_zero(rng, dtype, case.strategy), limits) for _ in scales]
    return QParams(np.resize(scales, shape[axis]), np.resize(zeros, shape[axis]), dtype, axis=axis, **limits)


def _inside(zero, limits):
    return min(max(zero, limits["quant_min"]), limits["quant_max"]) if limits else zero


def _real(case, rng, shape, qparams):
    """Draw real numbers; for ``edges``: exact ties of the code, their neighbours, and the numbers that are special to float32."""
    scale, zero = qparams.along(len(shape))
    kind = qparams._type
    low, high = (kind.qmin, kind.qmax) if kind.storage.itemsize < 4 else (-3000, 3000)
    if case.strategy == "random":
        return (rng.uniform(low - 9, high + 10, shape) - zero).astype(np.float32) * np.float32(scale)
    steps = rng.integers(low - 4, high + 5, shape) - zero + rng.choice([0.5, 0.5, 0.5, 0.5, 0.0, 0.25], shape)
    with np.errstate(over="ignore", under="ignore"):
        x = (steps * scale.astype(np.float32).astype(np.float64)).astype(np.float32)
    ulps = rng.choice([0, 0, 0, 1, -1, 2, -2, 5], shape).astype(np.int32)
    x = np.where(np.isfinite(x) & (x != 0), (x.view(np.int32) + ulps).view(np.float32), x)
    special = rng.random(shape) < 0.03
    return np.where(special, rng.choice(_SPECIAL, shape), x).astype(np.float32)


def build_quantize(case, rng):
    """Return the problem of a case of ``quantize``."""
    shape = shape_of(case)
    qparams = _qparams(case, rng, shape, dtype_of(case))
    return Problem("quantize", {"x": laid_out(case, _real(case, rng, shape, qparams)), "qparams": qparams})


def build_fake_quantize(case, rng):
    """Return the problem of a case of ``fake_quantize``."""
    shape, dtype = shape_of(case), dtype_of(case)
    limits = {}
    if case.has("narrow"):
        limits = {"quant_min": 0, "quant_max": 127} if dtype == "uint8" else {"quant_min": -127, "quant_max": 127}
    qparams = _qparams(case, rng, shape, dtype, **limits)
    return Problem("fake_quantize", {"x": laid_out(case, _real(case, rng, shape, qparams)), "qparams": qparams})


def build_dequantize(case, rng):
    """Return the problem of a case of ``dequantize``."""
    shape, dtype = shape_of(case), dtype_of(case)
    qparams = _qparams(case, rng, shape, dtype)
    kind = int_type(dtype)
    ends = [kind.qmin, kind.qmin + 1, kind.qmax - 1, kind.qmax]
    codes = (rng.choice(ends, shape) if case.strategy == "saturate" else rng.integers(kind.qmin, kind.qmax + 1, shape)).astype(kind.storage)
    return Problem("dequantize", {"q": QTensor(laid_out(case, codes), qparams)})


def solved_input(case, rng, shape, dtype, sy, first=False):
    """Draw a tensor whose scale stands to `sy` in a `tie_ratio`, or beside."""
    zero = draw_zero(rng, dtype, case.strategy)
    codes = rng.integers(int_type(dtype).qmin, int_type(dtype).qmax + 1, shape).astype(dtype)
    if case.strategy == "saturate":
        codes = draw_codes(rng, shape, dtype, zero, "saturate")
    ratio = {"random": float(power_of_two(rng.uniform(-3, 1))), "saturate": pick(rng, (1.0, 2.0, 4.5))}.get(case.strategy)
    if ratio is None:
        ratio = tie_ratio(rng, rng.integers(1, 5))
    scale = solve_scales(rng, ratio, sy) if case.strategy != "random" else ratio * sy
    if case.has("mixed") and first and codes.ndim > 3:
        codes = to_channels_last(codes)
    return QTensor(laid_out(case, codes), QParams(scale, zero, dtype))


def output_of(case, rng, dtype):
    """Draw output parameters."""
    zero = draw_zero(rng, dtype, case.strategy)
    if case.has("relu") and rng.random() < 0.5:
        zero = int_type(dtype).qmin
    return QParams(draw_scale(rng), zero, dtype)


def _order_matters(rng, a, b, out):
    """Give two tensors of one element the codes, of all pairs, whose sum in float32 rounds otherwise from the right than from the left; any on a tie without such."""
    f = np.float32
    codes = np.arange(a.qparams.qmin, a.qparams.qmax + 1).astype(f)
    ra, rb = f(a.qparams.scale) / f(out.scale), f(b.qparams.scale) / f(out.scale)
    constant = f(out.zero_point) - (ra * f(a.qparams.zero_point) + rb * f(b.qparams.zero_point))
    left, right = (codes[:, None] * ra + constant) + codes * rb, codes[:, None] * ra + (codes * rb + constant)
    inside = (left > out.qmin) & (left < out.qmax)
    found = np.argwhere(inside & (np.floor(left + f(0.5)) != np.floor(right + f(0.5))))
    if not len(found):
        found = np.argwhere(inside & (left - np.floor(left) == f(0.5)))
    if not len(found):
        return a, b
    chosen = codes[found[rng.integers(len(found))]].astype(a.values.dtype).reshape(2, *a.shape)
    return QTensor(chosen[0], a.qparams), QTensor(chosen[1], b.qparams)


def _narrowed(case, rng, a, b):
    """Give one operand length one along some axes, or take its first axes away, where a case asks for it."""
    if not case.has("broadcast"):
        return a, b
    keep = rng.random(a.ndim) < 0.5
    values = b.values[tuple(slice(None) if k else slice(None, 1) for k in keep)]
    while values.ndim and values.shape[0] == 1 and rng.random() < 0.5:
        values = values[0]
    narrow = QTensor(np.ascontiguousarray(values), b.qparams)
    return (narrow, a) if rng.random() < 0.5 else (a, narrow)


def build_add(case, rng):
    """Return the problem of a case of ``add`` or ``sub``."""
    shape, dtype = shape_of(case), dtype_of(case)
    out = output_of(case, rng, dtype)
    a, b = (solved_input(case, rng, shape, dtype, out.scale, first=name == "a") for name in "ab")
    if a.size == 1 and case.op == "add" and case.strategy == "neartie":
        a, b = _order_matters(rng, a, b, out)
    a, b = _narrowed(case, rng, a, b)
    threads = {"threads": 3} if case.has("threads") else {}
    return Problem(case.op, {"a": a, "b": b, "out": out, "activation": "relu" if case.has("relu") else None, **threads})


def build_cat(case, rng):
    """Return the problem of a case of ``cat``: tensors of the given channel counts, the last often with the output's own parameters."""
    counts = case["c"] if isinstance(case["c"], tuple) else (case["c"],)
    dtype = dtype_of(case)
    out = output_of(case, rng, dtype)
    sides = tuple(case[letter] for letter in "hw" if case[letter])
    tensors = [solved_input(case, rng, (case["n"], c, *sides), dtype, out.scale, first=not i) for i, c in enumerate(counts)]
    if case.has("equal"):
        tensors = [QTensor(x.values, out) for x in tensors]
    if len(counts) > 1 and rng.random() < 0.5:
        tensors[-1] = QTensor(tensors[-1].values, out)
    return Problem("cat", {"tensors": tuple(tensors), "dim": 1, "out": out, "activation": "relu" if case.has("relu") else None})


def build_mul(case, rng):
    """Return the problem of a case of ``mul``, with ``sa * sb / sy`` on a `tie_ratio`, or beside."""
    shape, dtype = shape_of(case), dtype_of(case)
    out = output_of(case, rng, dtype)
    strategy = "neartie" if case.strategy == "telling" else case.strategy
    zeros = [draw_zero(rng, dtype, strategy) for _ in "ab"]
    a, b = (draw_codes(rng, shape, dtype, zero, strategy) for zero in zeros)
    shift = {"neartie": int(rng.integers(3, 9)), "saturate": int(rng.integers(0, 6))}.get(strategy)
    ratio = float(power_of_two(rng.uniform(-9, -5))) if shift is None else tie_ratio(rng, shift)
    scale = draw_scale(rng)
    other = solve_scales(rng, ratio, out.scale / scale)
    if case.strategy == "telling":
        other = _telling_scale(other, scale, out.scale, ratio)
    if case.has("mixed") and a.ndim > 3:
        a = to_channels_last(a)
    a, b = (QTensor(laid_out(case, v), QParams(s, z, dtype)) for v, s, z in zip((a, b), (scale, other), zeros))
    a, b = _narrowed(case, rng, a, b)
    return Problem("mul", {"a": a, "b": b, "out": out, "activation": "relu" if case.has("relu") else None})


def build_squared_difference(case, rng):
    """Return the problem of a case of ``squared_difference``, with ``max(sa, sb)² / sy`` on a `tie_ratio`, or beside."""
    shape, dtype = shape_of(case), dtype_of(case)
    zeros = [draw_zero(rng, dtype, case.strategy) for _ in "ab"]
    a, b = (draw_codes(rng, shape, dtype, zero, case.strategy) for zero in zeros)
    scale, ratio = draw_scale(rng), tie_ratio(rng, int(rng.integers(1, 11)))
    if case.strategy == "random":
        ratio = float(power_of_two(rng.uniform(-10, -1)))
    scales = scale, scale * pick(rng, (1.0, 0.5, 0.25, float(power_of_two(rng.uniform(-4, 0)))))
    if rng.random() < 0.5:
        scales = scales[::-1]
    step = np.float32(np.float64(np.float32(scale)) ** 2 / ratio)
    out = QParams(float(step + np.float32(rng.integers(-1, 2)) * np.spacing(step)), draw_zero(rng, dtype, case.strategy), dtype)
    a, b = (QTensor(laid_out(case, v), QParams(s, z, dtype)) for v, s, z in zip((a, b), scales, zeros))
    a, b = _narrowed(case, rng, a, b)
    return Problem("squared_difference", {"a": a, "b": b, "out": out})


def _telling_scale(other, scale, out, ratio):
    """Return a scale beside `other` for which division and reciprocal give two multipliers, one of them on the tie's; `other` where there is none."""
    single = np.float32
    beside = np.float32(other) + np.arange(-8, 9, dtype=np.float32) * np.spacing(np.float32(other))
    product = single(scale) * beside
    quotient, inverse = product / single(out), product * (single(1) / single(out))
    telling = beside[(quotient != inverse) & ((quotient == single(ratio)) | (inverse == single(ratio)))]
    return float(telling[0]) if telling.size else other


def _ties(scale, step, zero, dtype):
    """Return the number of codes that lie within a few ulp of a tie of hardsigmoid's output, but not on it."""
    kind, single = int_type(dtype), np.float32(scale)
    real = np.clip((np.arange(kind.qmin, kind.qmax + 1) - zero).astype(np.float32) * single + np.float32(3), 0, 6).astype(np.float64) / step
    distance = np.abs(real - np.floor(real) - 0.5)
    return int(np.count_nonzero((distance < 2.0**-14) & (distance > 0)))


#: Output scales that functions have where none is asked for.
_FIXED_STEP = {"sigmoid": 1 / 256, "tanh": 1 / 128, "hardsigmoid": 1 / 256}


def build_unary(case, rng):
    """Return the problem of a case of a function of one code: every code comes up where there is room."""
    shape, dtype = shape_of(case), dtype_of(case)
    zero = draw_zero(rng, dtype, "neartie")
    codes = rng.permutation(np.arange(int(np.prod(shape))) % 256).reshape(shape).astype(np.uint8).view(dtype)
    # The middle of hardswish is no line; with larger scales most codes lie beyond it.
    out = QParams(draw_scale(rng, 2.0**-8, 2.0**-4) * (32 if case.op == "hardswish" else 1), draw_zero(rng, dtype, "random"), dtype)
    scale = draw_scale(rng)
    if case.strategy in ("neartie", "telling"):
        # Where the function is the identity (or, of hardsigmoid, x / 6) ties of the output are multiples of the input's scale.
        step = 6 / 256 if case.op == "hardsigmoid" else out.scale
        scale = solve_scales(rng, tie_ratio(rng, rng.integers(1, 4)), step)
    if case.strategy == "telling" and case.op == "hardsigmoid":
        step = 6 * out.scale if case.has("rescale") else step
        scale = max((solve_scales(rng, tie_ratio(rng, rng.integers(1, 4)), step) for _ in range(16)), key=lambda s: _ties(s, step, zero, dtype))
    arguments = {"x": QTensor(laid_out(case, codes), QParams(scale, zero, dtype))}
    if case.has("rescale"):
        arguments["out"] = out
    if case.op in ("elu", "celu", "leaky_relu"):
        arguments["negative_slope" if case.op == "leaky_relu" else "alpha"] = float(np.float32(rng.uniform(0.01, 1.5)))
        if case.op == "elu" and rng.random() < 0.4:
            arguments["alpha"] = 1.0
    if case.has("threads"):
        arguments["threads"] = 3
    # The telling cases of hardsigmoid are other ties.
    if case.op in SOLVED and case.strategy == ("edges" if case.op == "hardsigmoid" else "telling"):
        arguments["x"] = _on_a_tie(case, rng, arguments)
    return Problem(case.op, arguments)


def build_root(case, rng):
    """Return the problem of a case of ``sqrt`` or ``rsqrt``, of codes from the zero point on; for ``neartie`` one of them ends within some ulp of where codes part."""
    shape, dtype = shape_of(case), dtype_of(case)
    kind, zero = int_type(dtype), draw_zero(rng, dtype, "neartie")
    codes = zero + rng.permutation(np.arange(int(np.prod(shape))) % (kind.qmax - zero + 1)).reshape(shape)
    scale, out = draw_scale(rng), draw_scale(rng, 2.0**-6, 2.0**-2)
    difference = int(rng.integers(1, max(kind.qmax - zero, 1) + 1))
    if case.strategy == "neartie":
        # What is cut off parts at whole steps, what is rounded between them.
        real = out * (int(rng.integers(1, 120)) + (0.5 if case.op == "rsqrt" or rng.random() < 0.2 else 0.0))
        solved = np.float32(real * real / difference if case.op == "sqrt" else 1 / (real * real * difference))
        scale = float(solved + np.float32(rng.integers(-2, 3)) * np.spacing(solved))
        codes[(-1,) * codes.ndim] = min(zero + difference, kind.qmax)
    elif case.strategy == "saturate":
        scale = float(power_of_two(int(rng.integers(-8, 3))))
        out = float(power_of_two(int(rng.integers(-6, 1))))
    x = QTensor(laid_out(case, codes.astype(dtype)), QParams(scale, zero, dtype))
    return Problem(case.op, {"x": x, "out": QParams(out, draw_zero(rng, dtype, "random"), dtype)})


def _on_a_tie(case, rng, arguments):
    """Return the input with one code in the vector and in the tail, and a scale for which the function of that code is all but on a tie."""
    x, out = arguments["x"], arguments.get("out")
    codes, zero = x.values.copy(order="K"), x.qparams.zero_point
    below = codes[codes < zero] if case.op in ("elu", "celu") else codes[codes > zero] if case.op == "log" else codes[codes != zero]
    if not below.size:
        return x
    chosen = below[rng.integers(below.size)]
    codes[(0,) * codes.ndim] = codes[(-1,) * codes.ndim] = chosen
    step = _FIXED_STEP.get(case.op) if out is None else out.scale
    return QTensor(codes, QParams(scale_beside_a_tie(rng, case.op, int(chosen) - int(zero), step, arguments.get("alpha", 1.0)), zero, x.dtype))
