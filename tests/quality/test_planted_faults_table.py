"""The planted faults: what the sloppy engine is told to do wrong, on which data, and what the diagnosis may call it."""

from typing import Callable, NamedTuple

import numpy as np
from test_planted_faults_engine import (
    F, accumulate, add_spec, as_codes, average, bf16, f16, maximum, quantize, requantize, sat, terms_conv, terms_linear, wrap,
)  # fmt: skip

from refquant import QParams
from refquant.verify.problem import Problem

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
    return lambda x: np.ascontiguousarray(x.reshape(len(x), channels, -1).transpose(0, 2, 1)).reshape(x.shape)


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

    def fma(q, s, c):
        exact = np.float64(q) * np.float64(s)
        return F(exact + np.float64(c))

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


def whole_range(p):
    q = p["qparams"]
    return F(quantize(p["x"], q.scale, q.zero_point, q.storage.type).astype(int) - q.zero_point) * F(q.scale)


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
        return average(x.values, x.qparams.zero_point, x.qparams.scale, swap(kernel), swap(pair(p["stride"] or kernel)), swap(padding), x.qparams.storage.type, **rest)

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


LIN, LINF = "linear/any/m40k48n24/neartie/seed=0/per_channel/intbias", "linear/any/m40k48n24/neartie/seed=0/per_channel"
FINE = "linear/any/m600k12n24/neartie/seed=0/per_channel/intbias"
ASYM, PAIRS = "linear/any/m40k48n24/random/seed=0/asymmetric/intbias", "linear/any/m40k48n24/pairs/seed=0/per_channel/intbias"
S8, RELU = "linear/any/m40k48n24/neartie/seed=0/per_channel/int8/intbias/relu", "linear/any/m40k48n24/neartie/seed=0/per_channel/intbias/relu"
CONV, CONV8 = "conv2d/any/n1c12h9w9-oc16k3p1/neartie/seed=0/per_channel/intbias", "conv2d/any/n1c12h9w9-oc16k3p1/neartie/seed=0/per_channel/int8/intbias"
DW = "conv2d/any/n2c12h9w9-oc12k3p1g12/pairs/seed=0/per_channel/intbias"
DWF = "conv2d/any/n1c16h9w9-oc16k3p1g16/pairs/seed=0/per_channel"
ADD, QUA, CAT = "add/any/n4097/neartie/seed=0", "quantize/any/n2c16h9w9/edges/seed=0", "cat/any/n2h5w5-c3x8/neartie/seed=0"
POOL = "avg_pool2d/any/n2c5h9w9-k3s2p1/neartie/seed=0"
PER = "quantize/any/n2c16h16w9/edges/seed=0/per_channel"

LINEAR = (
    Fault("half away", LIN, "onnxruntime", ort(rounding="away"), ("rounding[half_away]",)),
    Fault("half up", LIN, "onnxruntime", ort(rounding="up"), ("rounding[half_up]",)),
    Fault("half added in float32", FINE, "onnxruntime", ort(rounding="add a half"), ("half_added",)),
    Fault("truncation", LIN, "onnxruntime", ort(rounding="truncate"), ("rounding[truncate]",)),
    Fault("floor", LIN, "onnxruntime", ort(rounding="floor"), ("rounding[floor]",)),
    Fault("ceiling", LIN, "onnxruntime", ort(rounding="ceil"), ("rounding[ceil]",)),
    Fault("zero point before rounding", LIN, "onnxruntime", ort(zero="before"), ("zero_point[before]",)),
    Fault("float64 arithmetic", FINE, "onnxruntime", ort(arithmetic="float64"), ("profile[tflite_ref]", "arithmetic[float64]")),
    Fault("fixed-point multiplier", FINE.replace("600", "200"), "onnxruntime", ort(arithmetic="fixed"), ("arithmetic[fixed_gemmlowp]",)),
    Fault("product of reciprocals", FINE, "onnxruntime", ort(reverse=True), ("multiplier[(xw)*(1/y)]",)),
    Fault("int16 pairs", PAIRS, "onnxruntime", ort(acc={"how": "pairs"}), ("int16_pairs",)),
    Fault("int16 pairs, s8 activations", PAIRS + "/int8", "onnxruntime", ort(acc={"how": "pairs", "u8": 128}), ("int16_pairs",)),
    Fault("groups of four", PAIRS, "onnxruntime", ort(acc={"how": "fours"}), ("int16_pairs",)),
    Fault("accumulator wraps at 16 bits", LIN, "onnxruntime", ort(acc={"how": (wrap, 16)}), ("narrow_accumulator",)),
    Fault("accumulator saturates at 16 bits", PAIRS, "onnxruntime", ort(acc={"how": (sat, 16)}), ("narrow_accumulator",)),
    Fault("accumulator wraps at 24 bits", "linear/any/m9k700n8/wrap/seed=0/per_channel/intbias", "onnxruntime", ort(acc={"how": (wrap, 24)}), ("narrow_accumulator",)),
    Fault("saturates at every step", PAIRS, "onnxruntime", ort(acc={"how": "steps16"}), ("saturating_sum",)),
    Fault("float32 accumulation", "matmul_integer/any/m9k900n8/pairs/seed=0", "onnxruntime", ort(acc={"how": "float32"}), ("float32_sum",)),
    Fault("output wraps", LIN.replace("neartie", "saturate"), "onnxruntime", ort(limits="wrap"), ("output_wraps",)),
    Fault("input compensation missing", LIN, "onnxruntime", ort(acc={"compensate_x": 0}), ("compensation_missing[x]",)),
    Fault("weight compensation missing", ASYM, "onnxruntime", ort(zw=0), ("compensation_missing[w]",)),
    Fault("constant of the compensation missing", ASYM, "onnxruntime", ort(acc={"cross": 0}), ("compensation_missing[c]",)),
    Fault("compensation twice", LIN, "onnxruntime", ort(acc={"compensate_x": 2}), ("compensation_wrong[twice]",)),
    Fault("first channel's scale", LIN, "onnxruntime", ort(sw=lambda s: s * 0 + s[0]), ("per_tensor_scale",)),
    Fault("largest scale", LIN, "onnxruntime", ort(sw=lambda s: s * 0 + s.max()), ("per_tensor_scale",)),
    Fault("neighbour's scale", LIN, "onnxruntime", ort(sw=neighbour(1)), ("neighbours_scale",)),
    Fault("output's zero point ignored", LIN, "onnxruntime", ort(zy=0), ("zero_point_ignored",)),
    Fault("weights transposed", LIN, "onnxruntime", ort(w=lambda w: w.reshape(w.shape[1], w.shape[0]).T), ("weights_transposed",)),
    Fault("NHWC flattening", LIN, "onnxruntime", ort(x=flattened_nhwc(12)), ("channels_regrouped",)),
    Fault("neighbour's weights", LIN, "onnxruntime", ort(w=lambda w: np.roll(w, 1, 0)), ("neighbours_weights",)),
    Fault("bytes of the other sign", LIN, "onnxruntime", ort(x=lambda x: x.view(np.int8)), ("input_signedness",)),
    Fault("clamped before the zero point", LIN.replace("neartie", "saturate"), "onnxruntime", ort(clamp="before zero"), ("early_clamp",)),
    Fault("narrow output range", LIN, "onnxruntime", ort(clamp=(0, 127)), ("narrow_range",)),
    Fault("ReLU missing", RELU, "onnxruntime", ort(relu=None), ("relu_missing",)),
    Fault("ReLU at code 0", S8, "onnxruntime", ort(relu="code 0"), ("relu_at_zero",)),
    Fault("ReLU added", LIN, "onnxruntime", ort(relu="zero point"), ("relu_added",)),
    Fault("ReLU before the bias", RELU, "onnxruntime", ort(relu=None, relu_first=True), ("early_relu",)),
    Fault("result in bfloat16", LIN, "onnx", lambda p: product(p, "spec", real=bf16), ("coarse_real",)),
    Fault("result in float16", LIN.replace("neartie", "random"), "onnx", lambda p: product(p, "spec", real=f16), ("coarse_real",)),
    Fault("bias missing", LIN, "onnxruntime", ort(bias=None), ("bias_missing",)),
    Fault("bias twice", LIN, "onnxruntime", ort(bias=lambda b: 2 * b), ("bias_changed",)),
    Fault("neighbour's bias", LIN, "onnxruntime", ort(bias=neighbour(-1)), ("neighbours_bias",)),
    Fault("bias added late", LIN, "onnxruntime", late_bias, ("late_bias",)),
    Fault("bias as int32", LINF, "fbgemm", integer(np.rint), ("bias[int32]", "integer_bias")),
    Fault("bias truncated to int32", LINF, "fbgemm", integer(np.trunc), ("integer_bias",)),
    Fault("bias in bfloat16", LINF.replace("neartie", "random"), "fbgemm", fbgemm(bias=bf16), ("coarse_bias",)),
    Fault("tail of 16", LIN.replace("k48", "k57"), "onnxruntime", ort(acc={"drop": 16}), ("tail_of_k",)),
    Fault("tail of 4", LIN.replace("k48", "k51"), "onnxruntime", ort(acc={"drop": 4}), ("tail_of_k",)),
    Fault("tail of 64", LIN.replace("k48", "k101"), "onnxruntime", ort(acc={"drop": 64}), ("tail_of_k",)),
    Fault("stale output scale", LIN, "onnxruntime", ort(sy=lambda s: s * 1.17), ("other_output_scale", "other_x_scale", "other_w_scale")),
    Fault("stale output zero point", LIN, "onnxruntime", ort(zy=lambda z: z + 11), ("other_output_zero_point",)),
    Fault("stale input zero point", LIN, "onnxruntime", ort(zx=lambda z: z - 3), ("other_x_zero_point",)),
    Fault("stale weight zero point", ASYM, "onnxruntime", ort(zw=lambda z: z + 5), ("other_w_zero_point",)),
    Fault("stale input scale", LINF, "fbgemm", fbgemm(sx=lambda s: s * 0.83), ("other_x_scale",)),
    Fault("stale output parameters", LIN, "onnxruntime", ort(sy=lambda s: s * 0.9, zy=lambda z: z - 2), ("other_output_parameters",)),
    Fault("scales in bfloat16", LIN, "onnxruntime", ort(scale=bf16), ("coarse_scale",)),
    Fault("weight scales in float16", LIN.replace("neartie", "random"), "onnxruntime", ort(sw=lambda s: np.float64(f16(F(s)))), ("coarse_scale",)),
    Fault("weights clipped", LIN.replace("neartie", "saturate"), "onnxruntime", ort(w=lambda w: np.maximum(w, -127)), ("weights_clipped",)),
    Fault("weights halved", LIN, "onnxruntime", ort(w=halved), ("weights_halved",)),
    Fault("weights' bytes of the other sign", LIN, "onnxruntime", ort(w=lambda w: w.view(np.uint8)), ("weight_signedness",)),
    Fault("all but the constant of the compensation missing", ASYM, "onnxruntime", ort(acc={"compensate_x": 0}), ("compensation_term_missing",)),
    Fault("ReLU6", RELU, "onnxruntime", relu_six, ("relu6",)),
    Fault("multiplier in bfloat16", LIN, "onnxruntime", ort(multiplier=bf16), ("coarse_multiplier",)),
    Fault("output transposed", LIN, "onnxruntime", lambda p: np.ascontiguousarray(ort()(p).T).reshape(40, 24), ("output_order",)),
)  # fmt: skip

CONVOLUTION = (
    Fault("padding with 0", CONV, "onnxruntime", ort(pad=0), ("padding_code",)),
    Fault("padding without the shift of s8", CONV8, "onnxruntime", lambda p: product(p, "ort", pad=p["x"].qparams.zero_point - 128), ("padding_code",)),
    Fault("kernel flipped", CONV, "onnxruntime", ort(w=lambda w: w[:, :, ::-1, ::-1]), ("kernel_flipped",)),
    Fault("kernel transposed", CONV, "onnxruntime", ort(w=lambda w: w.swapaxes(2, 3)), ("kernel_transposed",)),
    Fault("OIHW read as OHWI", CONV, "onnxruntime", ort(w=ohwi), ("weights_read_as",)),
    Fault("OHWI stored, OIHW read", CONV, "onnxruntime", ort(w=lambda w: np.ascontiguousarray(np.moveaxis(w, 1, -1)).reshape(w.shape)), ("weights_stored_as",)),
    Fault("no saturation where there should be", DWF, "fbgemm", fbgemm(), ("exact_sum", "accumulator[exact]", "profile[")),
    Fault("NHWC read as NCHW", CONV, "onnxruntime", ort(x=nhwc_as_nchw), ("input_order",)),
    Fault("NCHW read as NHWC", CONV, "onnxruntime", ort(x=nchw_as_nhwc), ("input_order",)),
    Fault("BGR for RGB", CONV.replace("c12", "c3"), "onnxruntime", ort(x=lambda x: x[:, ::-1]), ("input_channels_reversed",)),
    Fault("pairs of channels", CONV.replace("neartie", "pairs"), "onnxruntime", ort(acc={"how": "pairs", "inner": True}), ("int16_pairs",)),
    Fault("tail of channels", CONV.replace("c12", "c13"), "onnxruntime", ort(x=lambda x: x[:, :12], w=lambda w: w[:, :12]), ("tail_of_k",)),
    Fault("output NHWC", CONV, "onnxruntime", lambda p: nhwc_as_nchw(ort()(p)), ("output_order",)),
    Fault("zero point ignored", CONV, "onnxruntime", ort(zx=0), ("zero_point_ignored",)),
    Fault("smallest scale", CONV, "onnxruntime", ort(sw=lambda s: s * 0 + s.min()), ("per_tensor_scale",)),
    Fault("pairs of depthwise taps", DW, "onnxruntime", depthwise_pairs, ("int16_pairs", "accumulator[fbgemm_depthwise]")),
    Fault("depthwise neighbour's weights", DW.replace("pairs", "neartie"), "onnxruntime", ort(w=lambda w: np.roll(w, -1, 0)), ("neighbours_weights",)),
    Fault("depthwise padding with 0", DW.replace("pairs", "neartie"), "onnxruntime", ort(pad=0), ("padding_code",)),
    Fault("depthwise kernel flipped in width", DW.replace("pairs", "neartie"), "onnxruntime", ort(w=lambda w: w[..., ::-1]), ("kernel_flipped",)),
)  # fmt: skip

ELEMENTWISE = (
    Fault("add: zero point before rounding", ADD, "onnx", add(zero="before"), ("zero_point[before]",)),
    Fault("add: half away", ADD, "onnx", add(rounding="away"), ("rounding[half_away]",)),
    Fault("add: reciprocal", ADD, "onnx", add(divide=False), ("scaling[reciprocal",)),
    Fault("add: wraps", ADD, "onnx", add(limits="wrap"), ("output_wraps",)),
    Fault("add: ReLU missing", ADD + "/relu", "onnx", add(relu=None), ("relu_missing",)),
    Fault("add: parameters swapped", ADD, "onnx", add(sides=lambda s: [(s[0][0], s[1][1]), (s[1][0], s[0][1])]), ("swapped_parameters",)),
    Fault("add: b's zero point ignored", ADD, "onnx", add(sides=lambda s: [s[0], (s[1][0], (s[1][1][0], 0))]), ("zero_point_ignored", "other_b_zero_point", "other_output_zero_point")),
    Fault("add: b read with a's parameters", ADD, "onnx", add(sides=lambda s: [s[0], (s[1][0], s[0][1])]), ("borrowed_parameters",)),
    Fault("add: scales in bfloat16", ADD.replace("neartie", "random"), "onnx", add(scale=bf16), ("coarse_scale",)),
    Fault("add: stale output scale", ADD, "onnx", add(out=lambda s, z: (s * 1.3, z)), ("other_output_scale",)),
    Fault("add: stale zero point", ADD, "onnx", add(out=lambda s, z: (s, z + 7)), ("other_output_zero_point",)),
    Fault("add: b in another order", "add/any/n2c5h7w9/neartie/seed=0", "onnx", add(sides=lambda s: [s[0], (nchw_as_nhwc(s[1][0]), s[1][1])]), ("operand_order",)),
    Fault("add: b left out", ADD, "onnx", add(sides=lambda s: [s[0], (s[1][0] * 0, (s[1][1][0], 0))]), ("operand_missing",)),
    Fault("add: stale scale of a", ADD, "onnx", add(sides=lambda s: [(s[0][0], (s[0][1][0] * 0.7, s[0][1][1])), s[1]]), ("other_a_scale",)),
    Fault("add: stale scale of b", ADD, "onnx", add(sides=lambda s: [s[0], (s[1][0], (s[1][1][0] * 1.6, s[1][1][1]))]), ("other_b_scale",)),
    Fault("add: stale zero point of a", ADD, "onnx", add(sides=lambda s: [(s[0][0], (s[0][1][0], s[0][1][1] + 5)), s[1]]), ("other_a_zero_point", "other_b_zero_point")),
    Fault("add: three threads", "add/any/n100003/neartie/seed=0", "fbgemm", torch_add(64, 3), ("threads[3]",)),
    Fault("add: vector body of 32", "add/any/n127/neartie/seed=0", "fbgemm", torch_add(32), ("vector[32]", "vector[")),
    Fault("quantize: zero point before rounding", QUA, "onnx", quant(zero="before"), ("zero_point[before]",)),
    Fault("quantize: truncation", QUA, "onnx", quant(rounding="truncate"), ("rounding[truncate]",)),
    Fault("quantize: reciprocal", QUA, "onnx", quant(divide=False), ("scaling[reciprocal",)),
    Fault("quantize: wraps", QUA.replace("edges", "random"), "onnx", quant(limits="wrap"), ("output_wraps",)),
    Fault("quantize: NaN to the top", QUA, "onnx", quant(nan="high"), ("nan[qmax]",)),
    Fault("quantize: lower half of the codes", QUA, "onnx", quant(clip=(0, 127)), ("narrow_range",)),
    Fault("quantize: float16 input", QUA.replace("edges", "random"), "onnx", quant(x=f16), ("coarse_input",)),
    Fault("quantize: stale scale", QUA.replace("edges", "random"), "onnx", quant(s=lambda s: s * 1.07), ("other_output_scale",)),
    Fault("quantize: zero point ignored", QUA, "onnx", quant(z=lambda z: 0), ("zero_point_ignored",)),
    Fault("quantize: neighbour's scale", PER, "onnx", quant(s=neighbour(1)), ("neighbours_scale",)),
    Fault("quantize: first channel's scale", PER, "onnx", quant(s=lambda s: s * 0 + s[0]), ("per_tensor_scale",)),
    Fault("quantize: first channel's parameters", PER, "onnx", quant(s=lambda s: s * 0 + s[0], z=lambda z: z * 0 + z[0]), ("per_tensor_parameters",)),
    Fault("quantize: along the wrong axis", PER, "onnx", quant(axis=2), ("wrong_axis[2]",)),
    Fault("quantize: the range of its own", QUA.replace("edges", "random"), "onnx", quant(clip=(20, 90)), ("own_limits",), prepare=narrowed),
    Fault("fake quantize: the whole dtype", "fake_quantize/any/n2000/random/seed=0/narrow", "onnx", whole_range, ("whole_range",)),
    Fault("dequantize: fused", "dequantize/any/n2000/random/seed=0", "onnx", grid(lambda q, s, z: q.astype(F) * s + F(-z) * s), ("formula[mul_add]",)),
    Fault("dequantize: zero point ignored", "dequantize/any/n2000/random/seed=0", "onnx", grid(lambda q, s, z: q.astype(F) * s), ("zero_point_ignored",)),
    Fault("dequantize: float16 result", "dequantize/any/n2000/random/seed=0", "onnx", grid(lambda q, s, z: f16(F(q.astype(int) - z) * s)), ("coarse_result",)),
    Fault("dequantize: stale scale", "dequantize/any/n2000/random/seed=0", "onnx", grid(lambda q, s, z: F(q.astype(int) - z) * F(1.25 * s)), ("other_grid",)),
    Fault("pool: truncation", POOL, "onnx", pool(rounding="truncate"), ("rounding[truncate]",)),
    Fault("pool: padding counted", POOL + "/nopad", "onnx", pool(counted=True), ("padding_counted",)),
    Fault("pool: divisor ignored", POOL + "/divisor", "onnx", pool(), ("divisor_ignored",)),
    Fault("pool: the contiguous path", "avg_pool2d/any/n2c17h9w9-k2s1/neartie/seed=0/channels_last", "fbgemm", torch_pool, ("memory_format", "channels_last[scaled]")),
    Fault("pool: padding of code 0", POOL, "onnx", pool(pad=0), ("pool_padding",)),
    Fault("pool: half away", POOL.replace("k3s2p1", "k2s1"), "onnx", pool(rounding="away"), ("rounding[half_away]",)),
    Fault("pool: window swapped", "avg_pool2d/any/n2c5h9w9-k2x3s2/neartie/seed=0", "onnx", lambda p: np.ascontiguousarray(pool(swap=True)(p)), ("kernel_swapped",)),
    Fault("max pool: padding of code 0", "max_pool2d/any/n2c5h9w9-k3s2p1/saturate/seed=0/int8", "onnx", lambda p: maximum(p["x"].values, 3, 2, 1, np.int8, pad=0), ("pool_padding",)),
    Fault("max pool: other sign", "max_pool2d/any/n2c5h9w9-k3s2/random/seed=0", "onnx", lambda p: maximum(p["x"].values, 3, 2, 0, np.uint8, bytes_of=np.int8), ("maximum_of_bytes",)),
    Fault("cat: codes copied", CAT, "onnx", copied, ("cat_parameters",)),
    Fault("cat: first parameters", CAT, "onnx", joined(lambda qs: [qs[0]] * len(qs)), ("cat_parameters",)),
    Fault("cat: zero points ignored", CAT, "onnx", joined(lambda qs: [(s, 0) for s, z in qs]), ("cat_parameters",)),
    Fault("cat: half away", CAT, "onnx", joined(rounding="away"), ("quantize.rounding[half_away]",)),
    Fault("cat: ReLU missing", CAT + "/relu", "onnx", joined(norelu=True), ("relu_missing",)),
    Fault("matmul: pairs", "matmul_integer/any/m20k40n16/pairs/seed=0", "onnx", ort(acc={"how": "pairs"}), ("int16_pairs",)),
    Fault("matmul: zero point missing", "matmul_integer/any/m20k40n16/random/seed=0/asymmetric", "onnx", ort(zx=0), ("compensation", "zero_point_ignored")),
    Fault("matmul: tail of 8", "matmul_integer/any/m20k43n16/random/seed=0", "onnx", ort(acc={"drop": 8}), ("tail_of_k",)),
)  # fmt: skip

TRANSPOSED, FLIPPED = {"w": lambda w: w.reshape(w.shape[1], -1).T}, {"w": lambda w: w[:, :, ::-1, ::-1]}
AWAY, UP, CUT, DOWN, BEFORE = ({"rounding": "away"}, {"rounding": "up"}, {"rounding": "truncate"}, {"rounding": "floor"}, {"zero": "before"})
NO_BIAS, TWICE, IN_PAIRS, PAD_0, WRAPS = {"bias": None}, {"bias": lambda b: 2 * b}, {"acc": {"how": "pairs"}}, {"pad": 0}, {"limits": "wrap"}
SWAPPED = {"sides": lambda s: [(s[0][0], s[1][1]), (s[1][0], s[0][1])]}
SATURATED = LIN.replace("neartie", "saturate")
T, B0, RA = "weights_transposed", "bias_missing", "rounding[half_away]"

PAIRED = (
    several("bias missing + half away", LIN, "onnxruntime", ort, (NO_BIAS, AWAY), (B0, RA)),
    several("transposed + zero point before", LIN, "onnxruntime", ort, (TRANSPOSED, BEFORE), (T, "zero_point[before]")),
    several("NHWC flattening + truncation", LIN, "onnxruntime", ort, ({"x": flattened_nhwc(8)}, CUT), ("channels_regrouped", "rounding[truncate]")),
    several("neighbour's scale + bias twice", LIN, "onnxruntime", ort, ({"sw": neighbour(1)}, TWICE), ("neighbours_scale", "bias_changed")),
    several("int16 pairs + bias missing", PAIRS, "onnxruntime", ort, (IN_PAIRS, NO_BIAS), ("int16_pairs", B0)),
    several("tail of 16 + half up", LIN.replace("k48", "k57"), "onnxruntime", ort, ({"acc": {"drop": 16}}, UP), ("tail_of_k", "rounding[half_up]")),
    several("stale zero point + truncation", LIN, "onnxruntime", ort, ({"zy": lambda z: z + 9}, CUT), ("other_output_zero_point", "rounding[truncate]")),
    several("stale scale + bias missing", LIN, "onnxruntime", ort, ({"sy": lambda s: s * 1.21}, NO_BIAS), ("other_", B0)),
    several("weights halved + neighbour's bias", LIN, "onnxruntime", ort, ({"w": halved}, {"bias": neighbour(1)}), ("weights_halved", "neighbours_bias")),
    several("zero point ignored + output wraps", SATURATED, "onnxruntime", ort, ({"acc": {"compensate_x": 0}}, WRAPS), ("", "output_wraps")),
    several("weights clipped + half away", FINE.replace("neartie", "saturate"), "onnxruntime", ort, ({"w": lambda w: np.maximum(w, -127)}, AWAY), ("weights_clipped", RA)),
    several("ReLU missing + floor", RELU, "onnxruntime", ort, ({"relu": None}, DOWN), ("relu_missing", "rounding[floor]")),
    several("padding with 0 + truncation", CONV, "onnxruntime", ort, (PAD_0, CUT), ("padding_code", "rounding[truncate]")),
    several("kernel flipped + bias missing", CONV, "onnxruntime", ort, (FLIPPED, NO_BIAS), ("kernel_flipped", B0)),
    several("OHWI + neighbour's scale", CONV, "onnxruntime", ort, ({"w": ohwi}, {"sw": neighbour(-1)}), ("weights_read_as", "neighbours_scale")),
    several("NHWC input + zero point before", CONV, "onnxruntime", ort, ({"x": nhwc_as_nchw}, BEFORE), ("input_order", "zero_point[before]")),
    several("depthwise taps + padding with 0", DW, "onnxruntime", ort, (PAD_0, IN_PAIRS), ("", "padding_code")),
    several("neighbour's bias as float + half away", LINF, "fbgemm", fbgemm, ({"rounding": "away"}, {"bias": neighbour(1)}), (RA, "neighbours_bias")),
    several("add: swapped + half away", ADD, "onnx", add, (SWAPPED, AWAY), ("swapped_parameters", RA)),
    several("add: wraps + zero point before", ADD, "onnx", add, (WRAPS, BEFORE), ("output_wraps", "zero_point[before]")),
    several("quantize: reciprocal + zero point before", QUA, "onnx", quant, ({"divide": False}, BEFORE), ("scaling[reciprocal", "zero_point[before]")),
    several("quantize: neighbour's scale + truncation", PER, "onnx", quant, ({"s": neighbour(1)}, CUT), ("neighbours_scale", "rounding[truncate]")),
    several("pool: padding counted + floor", POOL + "/nopad", "onnx", pool, ({"counted": True}, DOWN), ("padding_counted", "rounding[floor]")),
    several("cat: first parameters + half away", CAT, "onnx", joined, ({"change": lambda qs: [qs[0]] * len(qs)}, AWAY), ("cat_parameters", RA)),
)  # fmt: skip

TRIPLES = (
    several("transposed + bias missing + half away", LIN, "onnxruntime", ort, (TRANSPOSED, NO_BIAS, AWAY), (T, B0, RA)),
    several("padding 0 + neighbour's scale + truncation", CONV, "onnxruntime", ort, (PAD_0, {"sw": neighbour(1)}, CUT), ("padding_code", "neighbours_scale", "rounding[truncate]")),
    several("flipped + bias twice + zero point before", CONV, "onnxruntime", ort, (FLIPPED, TWICE, BEFORE), ("kernel_flipped", "bias_changed", "zero_point[before]")),
    several("swapped + half up + wraps", ADD, "onnx", add, (SWAPPED, UP, WRAPS), ("swapped_parameters", "rounding[half_up]", "output_wraps")),
    several("halved + neighbour's bias + clamp", LIN, "onnxruntime", ort, ({"w": halved}, {"bias": neighbour(1)}, {"clamp": (0, 127)}), ("weights_halved", "neighbours_bias", "narrow_range")),
)  # fmt: skip



def shuffled(values):
    return values[np.random.default_rng(7).permutation(len(values))]


def lottery(p):
    """Stochastic rounding."""
    exact = product(p, "ort", rounding="floor").astype(int)
    return as_codes(exact + np.random.default_rng(1).integers(0, 2, exact.shape), np.uint8)


def one_weight_wrong(w):
    w = w.copy()
    w[3, 5] += 9
    return w


def stuck(p):
    """A code that the output's table maps wrongly."""
    y = ort()(p)
    return np.where(y == np.bincount(y.reshape(-1)).argmax(), y ^ 64, y).astype(np.uint8)


def gelu_like(p):
    real = (ort()(p).astype(np.float64) - p["out"].zero_point) * p["out"].scale
    return as_codes(np.rint(real / (1 + np.exp(-1.702 * real)) / p["out"].scale) + p["out"].zero_point, np.uint8)


# What no cause of the table is: the diagnosis must not find one.
UNKNOWN = (
    Fault("stochastic rounding", LIN, "onnxruntime", lottery, ()),
    Fault("channels of the bias shuffled", LIN, "onnxruntime", ort(bias=shuffled), ()),
    Fault("scales of the channels shuffled", LIN, "onnxruntime", ort(sw=shuffled), ()),
    Fault("one weight is wrong", LIN, "onnxruntime", ort(w=one_weight_wrong), ()),
    Fault("accumulator wraps at 20 bits", PAIRS, "onnxruntime", ort(acc={"how": (wrap, 20)}), ()),
    Fault("a table of outputs with one wrong entry", LIN, "onnxruntime", stuck, ()),
    Fault("another activation", LIN, "onnxruntime", gelu_like, ()),
    Fault("two thirds of the bias", LIN, "onnxruntime", ort(bias=lambda b: b * 2 // 3), ()),
)  # fmt: skip

FAULTS = (*LINEAR, *CONVOLUTION, *ELEMENTWISE, *PAIRED, *TRIPLES)
