"""What a planted fault is, and the sloppy engine told to be wrong on a problem of each operator."""

from typing import Callable, NamedTuple

import numpy as np

from refquant.core.qparams import QParams
from refquant.verify.planted.sloppy_engine import (
    F, accumulate, add_spec, as_codes, average, fma, maximum, mul_codes, quantize, real_output, requantize, terms_conv, terms_linear, wrap,
)  # fmt: skip
from refquant.verify.problem import Problem

__all__ = [
    "Fault", "add", "copied", "depthwise_pairs", "fbgemm", "flattened_nhwc", "float_output", "grid", "halved", "integer", "joined", "largest", "late_bias", "mul", "narrowed",
    "nchw_as_nhwc", "neighbour", "nhwc_as_nchw", "ohwi", "ort", "pool", "product", "quant", "relu_six", "rounded_trip", "several", "torch_add", "torch_cat", "torch_pool", "whole_mean",
]  # fmt: skip

_SAME = object()


class Fault(NamedTuple):
    """A planted fault: a case, the profile to hold it against, the engine that is wrong, the names that the diagnosis may give; of several faults all but each; and what
    is done to the case's problem first."""

    name: str
    line: str
    profile: str
    plant: Callable
    causes: tuple
    parts: tuple = ()
    prepare: Callable = staticmethod(lambda problem: problem)


# The sloppy engine on a problem


def product(p, style, *, x=_SAME, w=_SAME, zx=_SAME, zw=_SAME, sx=_SAME, sw=_SAME, sy=_SAME, zy=_SAME, bias=_SAME, pad=None, acc=None, **out):
    """Compute linear, conv2d or matmul_integer with changes; callables get the right value."""

    def change(given, right):
        return right if given is _SAME else given(right) if callable(given) else given

    if p.op == "matmul_integer":
        a, b = change(x, p["a"]), change(w, p["b"].T)
        xs, ws = terms_linear(a, b)
        return wrap(accumulate(xs, ws, change(zx, p.get("a_zero_point", 0)), change(zw, p.get("b_zero_point", 0)), **(acc or {})), 32).astype(np.int32)
    qx, qw, qy = p["x"].qparams, p["w"].qparams, p["out"]
    xv, wv = change(x, p["x"].values), change(w, p["w"].values)
    zx = change(zx, qx.zero_point)
    if p.op == "linear":
        xs, ws = terms_linear(xv, wv)
    else:
        xs, ws = terms_conv(xv, wv, stride=p["stride"], padding=p["padding"], groups=p["groups"], pad=zx if pad is None else pad)
    total = wrap(accumulate(xs, ws, zx, change(zw, qw.zero_point), **(acc or {})), 32)
    relu = out.pop("relu", "zero point" if p["activation"] == "relu" else None)
    y = requantize(
        total, change(sx, qx.scale), change(sw, qw.scale), change(sy, qy.scale), change(zy, qy.zero_point), change(bias, p["bias"]), qy.storage.type,
        style=style, relu=relu, **out,
    )  # fmt: skip
    return y if p.op == "linear" else np.moveaxis(y, -1, 1)


def ort(**changes):
    return lambda p: product(p, "ort", **changes)


def fbgemm(**changes):
    return lambda p: product(p, "fbgemm", **changes)


def integer(how):
    """Bias to int32 in units of the accumulator."""

    def plant(p):
        unit = F(p["x"].qparams.scale) * F(p["w"].qparams.scale)
        return product(p, "ort", bias=how(np.float64(p["bias"]) / np.float64(unit)).astype(np.int64))

    return plant


def float_output(**how):
    """Plant faults into a linear layer with a float32 output."""

    def plant(p):
        acc = accumulate(*terms_linear(p["x"].values, p["w"].values), p["x"].qparams.zero_point, p["w"].qparams.zero_point)
        return real_output(acc, p["x"].qparams.scale, p["w"].qparams.scale, p["bias"], **how)

    return plant


def late_bias(p):
    """Requantize the product and the bias apart, and add codes."""
    qx, qw, qy = p["x"].qparams, p["w"].qparams, p["out"]
    acc = accumulate(*terms_linear(p["x"].values, p["w"].values), qx.zero_point, qw.zero_point)
    m = (F(qx.scale) * F(qw.scale)) / F(qy.scale)
    steps = np.rint(np.float64(p["bias"]) * qx.scale * qw.scale / qy.scale)
    return as_codes(np.rint(F(acc) * m).astype(np.int64) + qy.zero_point + steps.astype(np.int64), np.uint8)


def depthwise_pairs(p):
    """Taps in raster order, two by two, each pair saturated."""
    return product(p, "ort", acc={"how": "pairs"})


def neighbour(step):
    return lambda v: np.roll(v, step)


def nhwc_as_nchw(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(x.shape)


def nchw_as_nhwc(x):
    return np.moveaxis(np.ascontiguousarray(x).reshape(x.shape[0], *x.shape[2:], x.shape[1]), -1, 1)


def flattened_nhwc(channels):
    def flatten(x):
        fitting = channels if x.shape[1] % channels == 0 else next(c for c in range(2, x.shape[1]) if x.shape[1] % c == 0)
        return np.ascontiguousarray(x.reshape(len(x), fitting, -1).transpose(0, 2, 1)).reshape(x.shape)

    return flatten


def halved(w):
    return (2 * np.rint(w / 2)).astype(np.int64)


def ohwi(w):
    return np.moveaxis(w.reshape(w.shape[0], *w.shape[2:], w.shape[1]), -1, 1)


def add(**changes):
    def plant(p):
        change = dict(changes)
        sides = [(q.values, (q.qparams.scale, q.qparams.zero_point)) for q in (p["a"], p["b"])]
        pick = change.pop("sides", lambda s: s)
        (a, qa), (b, qb) = pick(sides)
        s, z = p["out"].scale, p["out"].zero_point
        relu = change.pop("relu", "real" if p["activation"] == "relu" else None)
        scale = change.pop("scale", lambda v: v)
        out = change.pop("out", lambda s, z: (s, z))(s, z)
        return add_spec(a, b, (scale(qa[0]), qa[1]), (scale(qb[0]), qb[1]), scale(out[0]), out[1], p["out"].storage.type, relu=relu, **change)

    return plant


def torch_add(vector, threads=1):
    """ATen's sum: in each thread's range a vector body (fma dequantize) and a tail that adds the zero point before rounding."""

    def plant(p):
        (a, qa), (b, qb) = [(q.values.reshape(-1), (F(q.qparams.scale), q.qparams.zero_point)) for q in (p["a"], p["b"])]
        inverse, z = F(1) / F(p["out"].scale), p["out"].zero_point
        body = sum(fma(F(v), s, s * F(-zero)) for v, (s, zero) in ((a, qa), (b, qb)))
        tail = sum(F(v.astype(np.int64) - zero) * s for v, (s, zero) in ((a, qa), (b, qb)))
        r = np.rint(body * inverse).astype(np.int64) + z
        last = np.rint(tail * inverse + F(z)).astype(np.int64)
        chunk = -(-a.size // threads)
        for start in range(0, a.size, chunk):
            stop = min(start + chunk, a.size)
            cut = start + (stop - start) // vector * vector
            r[cut:stop] = last[cut:stop]
        return as_codes(r, np.uint8).reshape(p["a"].shape)

    return plant


def mul(**changes):
    """Plant faults into MLAS's product of two tensors."""

    def plant(p):
        change = dict(changes)
        sides = [(q.values, (q.qparams.scale, q.qparams.zero_point)) for q in (p["a"], p["b"])]
        (a, qa), (b, qb) = change.pop("sides", lambda s: s)(sides)
        s, z = change.pop("out", lambda s, z: (s, z))(p["out"].scale, p["out"].zero_point)
        relu = change.pop("relu", "zero point" if p["activation"] == "relu" else None)
        return mul_codes(a, b, qa, qb, s, z, p["out"].storage.type, relu=relu, **change)

    return plant


def quant(x=lambda v: v, s=lambda v: v, z=lambda v: v, axis=None, **how):
    def plant(p):
        q = p["qparams"]
        scale, zero = s(q.scale), z(q.zero_point)
        if q.per_channel:
            shape = [1] * p["x"].ndim
            shape[q.axis if axis is None else axis] = -1
            scale, zero = np.reshape(scale, shape), np.reshape(zero, shape)
        return quantize(x(p["x"]), scale, zero, q.storage.type, **how)

    return plant


def narrowed(p):
    q = p["qparams"]
    return Problem(p.op, {**p.arguments, "qparams": QParams(q.scale, q.zero_point, q.dtype, quant_min=20, quant_max=90)})


def rounded_trip(clip=None):
    """Quantize and dequantize; `clip` limits the codes."""

    def plant(p):
        q = p["qparams"]
        if q.per_channel:
            raise ValueError("scales of channels are not done here")
        codes = quantize(p["x"], q.scale, q.zero_point, q.storage.type, clip=clip and clip(q))
        return F(codes.astype(int) - q.zero_point) * F(q.scale)

    return plant


def relu_six(p):
    y = product(p, "ort").astype(int)
    return np.minimum(y, p["out"].zero_point + int(np.rint(6 / p["out"].scale))).astype(np.uint8)


def torch_pool(p):
    """ATen's average of contiguous tensors: the zero point inside of the rounding."""
    x, k = p["x"], p["kernel_size"]
    n, c, h, w = x.shape
    z = x.qparams.zero_point
    total = sum(x.values[:, :, i : h - k + 1 + i, j : w - k + 1 + j].astype(np.int64) for i in range(k) for j in range(k)) - k * k * z
    return as_codes(np.rint(F(total) * (F(1) / F(k * k)) + F(z)).astype(np.int64), np.uint8)


def pool(**how):
    def plant(p):
        x, pair = p["x"], lambda v: v if isinstance(v, tuple) else (v, v)
        kernel, padding = pair(p["kernel_size"]), pair(p["padding"])
        swap = (lambda v: v[::-1]) if how.get("swap") else (lambda v: v)
        rest = {k: v for k, v in how.items() if k != "swap"}
        rest.setdefault("counted", p["count_include_pad"])
        rest.setdefault("divisor", p.get("divisor_override"))
        out = rest.pop("out", lambda own, asked: asked or own)(x.qparams, p.get("out"))
        return average(
            x.values, x.qparams.zero_point, x.qparams.scale, swap(kernel), swap(pair(p["stride"] or kernel)), swap(padding), x.qparams.storage.type, out=(out.scale, out.zero_point), **rest
        )  # fmt: skip

    return plant


def largest(pad=None, bytes_of=None):
    """The maximum over windows; `pad`: a code for the padding; `bytes_of`: the dtype that bytes are compared as."""

    def plant(p):
        if p["dilation"] not in (1, (1, 1)) or p["ceil_mode"]:
            raise ValueError("dilation and ceil_mode are not done here")
        values, kernel = p["x"].values, p["kernel_size"]
        return maximum(np.ascontiguousarray(values), kernel, p["stride"] or kernel, p["padding"], values.dtype.type, pad=pad, bytes_of=bytes_of)

    return plant


def whole_mean(**how):
    """The mean over the whole image, as dequantize, average, quantize."""

    def plant(p):
        x = p["x"]
        return average(x.values, x.qparams.zero_point, x.qparams.scale, x.shape[2:], (1, 1), (0, 0), x.qparams.storage.type, **how)

    return plant


def joined(change=lambda qs: qs, order=lambda ts: ts, **how):
    """ONNX's cat: each input dequantized and quantized."""

    def plant(p):
        tensors, out = order(list(p["tensors"])), p["out"]
        params = change([(t.qparams.scale, t.qparams.zero_point) for t in tensors])
        parts = []
        for t, (s, z) in zip(tensors, params):
            real = F(t.values.astype(np.int64) - z) * F(s)
            if p["activation"] == "relu" and not how.get("norelu"):
                real = np.maximum(real, F(0))
            parts.append(quantize(real, out.scale, out.zero_point, out.storage.type, **{k: v for k, v in how.items() if k != "norelu"}))
        return np.concatenate(parts, 1)

    return plant


def torch_cat(block=8, tail="before"):
    """ATen's channels-last cat: whole blocks of channels through fma and a reciprocal, the rest of each input with the zero point inside of the rounding."""

    def plant(p):
        out, parts = p["out"], []
        inverse, z = F(1) / F(out.scale), out.zero_point
        for t in p["tensors"]:
            q, s, zero = t.values, F(t.qparams.scale), t.qparams.zero_point
            body = np.rint(fma(F(q), s, s * F(-zero)) * F(1 / np.float64(out.scale))).astype(np.int64) + z
            plain = F(q.astype(np.int64) - zero) * s * inverse
            last = np.rint(plain + F(z)).astype(np.int64) if tail == "before" else np.rint(plain).astype(np.int64) + z
            cut = q.shape[1] // block * block
            codes = np.concatenate([body[:, :cut], last[:, cut:]], 1)
            same = (t.qparams.scale, zero) == (out.scale, z)
            parts.append(q if same else as_codes(codes, out.storage.type))
        return np.concatenate(parts, 1)

    return plant


def copied(p):
    return np.concatenate([t.values for t in p["tensors"]], 1)


def grid(formula):
    def plant(p):
        q = p["q"].qparams
        return formula(p["q"].values, F(q.scale), q.zero_point).astype(F)

    return plant


def several(name, line, profile, maker, faults, causes):
    """Plant several faults at once, on data that show each of them."""
    together = {k: v for fault in faults for k, v in fault.items()}
    fewer = [{k: v for other in faults if other is not fault for k, v in other.items()} for fault in faults]
    return Fault(name, line, profile, maker(**together), causes, tuple(maker(**part) for part in fewer))
