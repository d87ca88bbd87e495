"""The data of operators that few engines have: dynamic quantization, requantization, numbers and limits, embeddings."""

import numpy as np

from refquant.core.dtypes import int_type
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.verify.draws import draw_codes, draw_scale, draw_weights, draw_zero, pick, solve_scales, tie_ratio
from refquant.verify.elementwise_data import dtype_of, laid_out, output_of, shape_of, solved_input
from refquant.verify.powers import power_of_two
from refquant.verify.problem import Problem
from refquant.verify.product_data import build_conv, build_linear

__all__ = [
    "build_quantize_dynamic", "build_linear_dynamic", "build_conv_dynamic", "build_conv_integer", "build_requantize", "build_scalar", "build_limits",
    "build_prelu", "build_quantize_embedding", "build_embedding_bag",
]  # fmt: skip


def _nudged(rng, x):
    """Move float32 numbers by up to two ulp, most by none."""
    x = np.asarray(x, np.float32)
    ulps = rng.choice([0, 0, 0, 0, 1, -1, 2, -2], x.shape).astype(np.int32)
    return np.where(x != 0, (x.view(np.int32) + ulps).view(np.float32), x).astype(np.float32)


def _ranged(case, rng, shape, low_codes=0, high_codes=255):
    """Draw real numbers whose range puts the zero point on a tie, or beside; whose codes lie on ties too; or a range at the edge of what there is."""
    kind = rng.integers(7) if case.strategy == "edges" else 0
    scale = draw_scale(rng)
    if kind == 1:
        return (rng.random(shape) * power_of_two(rng.uniform(-150, -118)) * rng.choice([1, -1])).astype(np.float32)
    if kind == 2:
        return (rng.standard_normal(shape) * power_of_two(rng.uniform(-24, -6)) * 6.1e-5).astype(np.float32)
    if kind == 3:
        return np.zeros(shape, np.float32) if rng.random() < 0.75 else np.full(shape, rng.choice([1, -1]) * scale, np.float32)
    if case.strategy == "random":
        return (rng.standard_normal(shape) * scale * 50 + rng.normal() * scale * 60).astype(np.float32)
    zero = rng.integers(-20, 276) + 0.5
    codes = rng.integers(low_codes, high_codes + 1, shape) + rng.choice([0.0, 0.0, 0.5], shape)
    x = ((np.minimum(codes, high_codes) - zero) * scale).astype(np.float32)
    flat = x.reshape(-1)
    flat[: flat.size // 7] = np.float32(0.5 * scale)
    flat[-1], flat[0] = (low_codes - zero) * scale, (high_codes - zero) * scale
    return _nudged(rng, x)


def _reduced(case):
    return {"reduce_range": True} if case.has("narrow") else {}


def build_quantize_dynamic(case, rng):
    """Return the problem of a case of ``quantize_dynamic``."""
    x = _ranged(case, rng, shape_of(case), 0, 127 if case.has("narrow") else 255)
    dtype = {"dtype": "int8"} if case.has("int8") else {}
    return Problem("quantize_dynamic", {"x": laid_out(case, x), **dtype, **_reduced(case)})


def _usual(case):
    """Return the case with a strategy that integer products know."""
    return case.replace(strategy="random") if case.strategy in ("edges", "telling") else case


def build_linear_dynamic(case, rng):
    """Return the problem of a case of ``linear_dynamic``: the weights of ``linear``, and an input of its own range."""
    made = build_linear(_usual(case), rng)
    bias = made["bias"]
    if case.has("int8"):  # engines that quantize each row by itself
        draw = _symmetric_row if case.has("symmetric") and case.strategy != "edges" else lambda rng, k: _ranged(case, rng, (1, k))
        x = np.concatenate([draw(rng, case["k"]) for _ in range(case["m"])])
        bias = None if bias is None else (bias * made["x"].qparams.scale * np.asarray(made["w"].qparams.scale)).astype(np.float32)
    else:
        x = _ranged(case, rng, (case["m"], case["k"]))
    more, w = {"symmetric": True} if case.has("symmetric") else {}, made["w"]
    if case.has("int8") and w.dtype == "int8" and rng.random() < 0.9:
        w = QTensor(np.maximum(w.values, np.int8(-127)), w.qparams)
    return Problem("linear_dynamic", {"x": x, "w": w, "bias": bias, "activation": made["activation"], **more, **_reduced(case)})


def _symmetric_row(rng, k):
    """Draw a row whose codes around zero lie on ties, or beside."""
    scale = draw_scale(rng)
    x = (rng.integers(-254, 255, (1, k)) / 2 * scale).astype(np.float32)
    x[0, int(rng.integers(k))] = rng.choice([-127, 127]) * scale
    return _nudged(rng, x)


def build_conv_dynamic(case, rng):
    """Return the problem of a case of a dynamic convolution; weights are scaled so that outputs stay in the range of the input."""
    base = build_conv(_usual(case).replace(op=case.op.removesuffix("_dynamic")), rng)
    x, w = _ranged(case, rng, base["x"].shape), base["w"]
    spread = np.sqrt(np.prod(w.shape[1:])) * 60.0
    scales = power_of_two(rng.uniform(-1, 1, np.shape(w.qparams.scale))) / spread
    if case.strategy == "telling":
        # Every sum is then a multiple of a power of two, and many lie on a tie.
        scales = power_of_two(np.rint(np.log2(scales)))
    w = QTensor(w.values, QParams(scales if w.qparams.per_channel else float(scales), w.qparams.zero_point, w.dtype, w.qparams.axis))
    bias = None if base["bias"] is None or case.strategy == "telling" else (rng.standard_normal(w.shape[0]) * 20 * draw_scale(rng)).astype(np.float32)
    geometry = {name: base[name] for name in ("stride", "padding", "dilation", "groups")}
    return Problem(case.op, {"x": x, "w": w, "bias": bias, **geometry, **_reduced(case)})


def build_conv_integer(case, rng):
    """Return the problem of a case of ``conv_integer``."""
    sides = tuple(size for size in (case["t"], case["h"], case["w"]) if size)
    kernel = case["k"] if isinstance(case["k"], tuple) else (case["k"],) * len(sides)
    x_type, w_type = "int8" if case.has("int8") else "uint8", "uint8" if case.has("uint8") else "int8"
    zero = draw_zero(rng, x_type, case.strategy)
    arguments = {
        "x": draw_codes(rng, (case["n"], case["c"], *sides), x_type, zero, case.strategy),
        "w": draw_weights(rng, (case["oc"], case["c"] // case["g"], *kernel), w_type, case.strategy),
        "x_zero_point": zero, "stride": case["s"], "padding": case["p"], "dilation": case["d"], "groups": case["g"],
    }  # fmt: skip
    if case.has("asymmetric"):
        zeros = draw_codes(rng, case["oc"], w_type, 0, "random").astype(np.int64)
        arguments["w_zero_point"] = zeros if case.has("per_channel") else int(zeros[0])
    return Problem("conv_integer", arguments)


def build_requantize(case, rng):
    """Return the problem of a case of ``requantize``."""
    dtype = dtype_of(case)
    out = output_of(case, rng, dtype)
    return Problem("requantize", {"x": solved_input(case, rng, shape_of(case), dtype, out.scale), "out": out})


def build_scalar(case, rng):
    """Return the problem of a case of ``add_scalar`` or ``mul_scalar``: numbers on ties of the scale, near and far."""
    dtype = dtype_of(case)
    codes = rng.integers(0, 256, shape_of(case)).astype(np.uint8).view(dtype)
    scale = draw_scale(rng)
    x = QTensor(laid_out(case, codes), QParams(scale, draw_zero(rng, dtype, "random"), dtype))
    if case.op == "mul_scalar":
        number = pick(rng, (0.0, 1.0, -1.0, 0.1, -3.7, float(rng.normal()), float(-power_of_two(rng.uniform(-20, 20)))))
    else:
        number = float((rng.integers(-900, 900) + pick(rng, (0.5, 0.0, 0.25))) * scale)
    return Problem(case.op, {"x": x, "number": number, "activation": "relu" if case.has("relu") else None})


def _telling_limit(limit, scale):
    """Return a number beside a limit whose code is another one by a quotient than by a reciprocal; the limit where there is none."""
    f = np.float32
    beside = f(limit) + np.arange(-40, 41, dtype=f) * np.spacing(f(limit))
    apart = beside[np.rint(beside / f(scale)) != np.rint(beside * (f(1) / f(scale)))]
    return float(apart[0]) if apart.size else limit


def build_limits(case, rng):
    """Return the problem of a case of ``relu6``, ``clamp``, ``hardtanh`` or ``threshold``: limits on ties of the grid, and infinite ones."""
    dtype = dtype_of(case)
    kind = int_type(dtype)
    codes = rng.integers(kind.qmin, kind.qmax + 1, shape_of(case)).astype(dtype)
    zero = draw_zero(rng, dtype, "neartie")
    scale = draw_scale(rng)
    if case.op == "relu6" and case.strategy != "random":
        scale = solve_scales(rng, 1 / (rng.integers(2, 200) + 0.5), 6.0)
    if case.op == "hardtanh" and case.strategy != "random":
        scale = solve_scales(rng, 1 / (rng.integers(2, 100) + 0.5), 1.0)
    x = QTensor(laid_out(case, codes), QParams(scale, zero, dtype))
    steps = np.sort(rng.integers(kind.qmin - 20, kind.qmax + 21, 2)) - zero + rng.choice([0.5, 0.5, 0.0, 0.25], 2)
    limits = [float(v) for v in _nudged(rng, (steps * np.float64(np.float32(scale))).astype(np.float32))]
    if case.strategy == "telling":
        limits = [_telling_limit(limit, scale) for limit in limits]
    elif rng.random() < 0.2:
        limits[int(rng.integers(2))] = pick(rng, (np.inf, -np.inf, 3e38, -3e38, 2.5e9 * scale))
    if case.op == "relu6":
        return Problem("relu6", {"x": x})
    if case.op == "threshold":
        finite = [float(np.clip(v, -1e30, 1e30)) for v in limits]
        threads = {"threads": 3} if case.has("threads") else {}
        return Problem("threshold", {"x": x, "threshold": finite[0], "value": pick(rng, finite), **threads})
    if case.op == "hardtanh":
        given = {} if rng.random() < 0.4 and case.strategy != "telling" else {"min_val": min(limits), "max_val": max(limits)}
        return Problem("hardtanh", {"x": x, **given})
    given = {"min": limits[0], "max": limits[1]}
    if rng.random() < 0.3:
        given.pop(pick(rng, ("min", "max")))
    return Problem("clamp", {"x": x, **given})


def build_prelu(case, rng):
    """Return the problem of a case of ``prelu``, with ``sx * sw / sy`` on a `tie_ratio`, or beside."""
    dtype, shape = dtype_of(case), shape_of(case)
    kind = int_type(dtype)
    out = output_of(case, rng, dtype)
    zeros = [draw_zero(rng, dtype, "random") for _ in "xw"]
    x = rng.integers(kind.qmin, kind.qmax + 1, shape).astype(dtype)
    slopes = rng.integers(kind.qmin, kind.qmax + 1, 1 if case.has("alone") or len(shape) < 2 else shape[1]).astype(dtype)
    shift = int(rng.integers(2, 9))
    ratio = tie_ratio(rng, shift) if case.strategy != "random" else float(power_of_two(rng.uniform(-9, -3)))
    scale = draw_scale(rng)
    other = solve_scales(rng, ratio, out.scale / scale)
    return Problem("prelu", {"x": QTensor(laid_out(case, x), QParams(scale, zeros[0], dtype)), "weight": QTensor(slopes, QParams(other, zeros[1], dtype)), "out": out})


def _bits(case):
    return 4 if case.has("bits4") else 2 if case.has("bits2") else 8


def _table(case, rng):
    """Draw rows: on ties of their own grid, constant, tiny, huge, at random."""
    rows, columns = case["m"], case["n"]
    top = (1 << _bits(case)) - 1
    scale, low = power_of_two(rng.uniform(-8, 4, (rows, 1))), rng.normal(0, 4, (rows, 1))
    codes = rng.integers(0, top + 1, (rows, columns)) + rng.choice([0.0, 0.5], (rows, columns))
    x = low + np.minimum(codes, top) * scale
    x[:, 0], x[:, -1] = low[:, 0], (low + top * scale)[:, 0]
    if case.strategy == "random":
        x = rng.standard_normal((rows, columns)) * scale
    wild = rng.random(rows)
    x = np.where((wild < 0.04)[:, None], low, x)
    x = np.where(((wild > 0.04) & (wild < 0.08))[:, None], x * 1e-9, x)
    x = np.where(((wild > 0.08) & (wild < 0.1))[:, None], x * 1e-5, x)
    return _nudged(rng, x.astype(np.float32))


def build_quantize_embedding(case, rng):
    """Return the problem of a case of ``quantize_embedding``."""
    return Problem("quantize_embedding", {"weight": _table(case, rng), "bits": _bits(case)})


def build_embedding_bag(case, rng):
    """Return the problem of a case of ``embedding_bag``: bags of every length, empty ones too."""
    from refquant.ops import quantize_embedding

    table = quantize_embedding(_table(case, rng), _bits(case))
    indices = rng.integers(0, case["m"], case["l"])
    arguments = {"table": tuple(table), "indices": indices}
    if not case.has("alone"):
        offsets = np.sort(np.append(rng.integers(0, case["l"] + 1, case["b"] - 1), 0))
        if case.has("lastoffset"):
            offsets = np.append(offsets, case["l"])
            arguments["include_last_offset"] = True
        arguments["offsets"] = offsets
    if case.has("weighted"):
        arguments["per_sample_weights"] = rng.standard_normal(case["l"]).astype(np.float32)
    return Problem("embedding_bag", arguments)
