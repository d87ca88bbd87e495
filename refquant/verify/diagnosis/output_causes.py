"""Causes at the output: limits, ReLU, when the bias comes in, precision of results; and the windows of pooling."""

import numpy as np

from refquant.core import epilogue as E
from refquant.core.layout import is_channels_last, to_channels_last
from refquant.core.qtensor import QTensor
from refquant.core.rounding import round_real, rounding_code
from refquant.core.wrap import saturate
from refquant.verify.diagnosis.call import CONVOLUTIONS, FUNCTIONS
from refquant.verify.diagnosis.cause import Cause
from refquant.verify.diagnosis.parameter_causes import to_bfloat16, to_float16

__all__ = ["OUTPUT_CAUSES"]

_LAYERS = ("linear", *CONVOLUTIONS)
_CODED = (*_LAYERS, "add", "mul", "quantize", "cat")
_ACTIVATED = (*_LAYERS, "add", "mul", "cat")
_POOLS = ("avg_pool2d", "adaptive_avg_pool2d")
_IMAGES = ("max_pool2d", *_POOLS)


def _out(call):
    return call.arguments.get("out", call.arguments.get("qparams"))


def _stepped(call, *steps):
    if _out(call) is None:
        return None
    return call.but(quirks={"steps": (*call.quirks.get("steps", ()), *steps)})


def _zero(call, channel):
    q = _out(call)
    return q.zero_point if not q.per_channel else q.zero_point.reshape(-1) if channel is None else q.zero_point[channel]


# Limits


def _wraps(call, key):
    return None if _out(call) is None else call.but(quirks={"wrap": True})


def _clamp_before_zero(codes, call, channel):
    q, z = _out(call), _zero(call, channel)
    return saturate(codes - z, q._type.qmin, q._type.qmax) + z


def _early_clamp(call, key):
    changed = _stepped(call, _clamp_before_zero)
    if changed is None or not np.any(_out(call).zero_point):
        return None
    return changed.but(quirks={"wrap": True}) if key.endswith("wraps") else changed


_RANGES = {"[qmin + 1, qmax]": (1, 255), "the lower half of the codes (7 bits)": (0, 127), "[-64, 63]": (64, 191)}


def _range_step(key):
    low, high = _RANGES[key]
    return lambda codes, call, channel: saturate(codes, _out(call)._type.qmin + low, _out(call)._type.qmin + high)


_RANGE_STEPS = {key: _range_step(key) for key in _RANGES}


def _narrow(call, key):
    return _stepped(call, _RANGE_STEPS[key]) if _out(call) is not None and _out(call).storage.itemsize == 1 else None


def _own_limits_step(codes, call, channel):
    return saturate(codes, _out(call).qmin, _out(call).qmax)


def _limits_kept(call, key):
    q = _out(call)
    return None if q is None or (q.qmin, q.qmax) == (q._type.qmin, q._type.qmax) else _stepped(call, _own_limits_step)


def _whole_range(call, key):
    q = call["qparams"]
    if (q.qmin, q.qmax) == (q._type.qmin, q._type.qmax):
        return None
    return call.but(qparams=type(q)(q.scale, q.zero_point, q.dtype, q.axis, unchecked=True))


# ReLU


def _relu_missing(call, key):
    return call.but(activation=None) if call["activation"] == "relu" else None


def _relu_added(call, key):
    return call.but(activation="relu") if call["activation"] is None else None


def _code_zero(codes, call, channel):
    return np.maximum(codes, 0)


def _relu_at_zero(call, key):
    return _stepped(call.but(activation=None), _code_zero) if call["activation"] == "relu" and _out(call) is not None else None


def _six_step(codes, call, channel):
    q = _out(call)
    return np.minimum(codes, q.zero_point + round_real(np.float64(6) / q.scale, "half_even").astype(np.int64))


def _relu_six(call, key):
    return _stepped(call, _six_step) if call["activation"] == "relu" else None


def _early_relu(call, key):
    bias = call["bias"]
    if call["activation"] != "relu" or bias is None or not np.any(bias):
        return None
    return call.but(activation=None, quirks={"early_relu": True})


# Bias and requantization apart


def _bias_codes(codes, call, channel):
    bias = np.asarray(call.quirks["late_bias"])
    if bias.dtype == np.int32:
        bias = bias * call.qparams("x").scale * call.qparams("w").scale
    steps = round_real(bias.astype(np.float64) / call["out"].scale, "half_even").astype(np.int64)
    return codes + steps[channel]


def _limit_step(codes, call, channel):
    return saturate(codes, _out(call)._type.qmin, _out(call)._type.qmax)


def _late_bias(call, key):
    if call["bias"] is None or call["out"] is None or call["activation"] is not None:
        return None
    steps = (_limit_step, _bias_codes) if key.endswith("saturated") else (_bias_codes,)
    return _stepped(call.but(bias=None, quirks={"late_bias": call["bias"]}), *steps)


def _half_step(ep, call):
    before = ep.zf if ep.flags & E.ZERO_FLOAT else np.float32(0)
    return ep._replace(flags=ep.flags | E.ZERO_FLOAT, zf=before + np.float32(0.5), rounding=rounding_code("floor"))


def _half_added(call, key):
    return call.but(quirks={"epilogue": (*call.quirks.get("epilogue", ()), _half_step)}) if call["out"] is not None else None


def _multiplier_step(precision):
    def step(ep, call):
        return ep._replace(s2=precision(ep.s2), m64=precision(ep.m64.astype(np.float32)).astype(np.float64))

    return step


_MULTIPLIERS = {"bfloat16": _multiplier_step(to_bfloat16), "float16": _multiplier_step(to_float16)}


def _coarse_multiplier(call, key):
    return call.but(quirks={"epilogue": (*call.quirks.get("epilogue", ()), _MULTIPLIERS[key])})


def _fixed_once(call, key):
    if call["out"] is None or getattr(call.form, "arithmetic", None) is None:
        return None
    return call.with_field(next(iter(call.forms)), "arithmetic", "fixed_gemmlowp").but(quirks={"rounded_once": True})


# Real results

_RESULTS = {"bfloat16": lambda y, call: to_bfloat16(y), "float16": lambda y, call: to_float16(y)}


def _coarse_result(call, key):
    if call.op in _LAYERS and call["out"] is not None:
        return None
    return call.but(quirks={"real": (_RESULTS[key],)})


_BETWEEN = {"bfloat16": to_bfloat16, "float16": to_float16}


def _coarse_real(call, key):
    return None if call["out"] is None else call.but(quirks={"between": (_BETWEEN[key],)})


_INPUTS = {"bfloat16": to_bfloat16, "float16": to_float16}


def _coarse_input(call, key):
    return call.but(x=call.once(("input", key), call["x"], lambda x: _INPUTS[key](np.asarray(x, np.float32))))


# Sums


def _without(role):
    def apply(call, key):
        q = call[role]
        still = call.once("still", q.values, lambda v: np.full_like(v, q.qparams.zero_point))
        return call.but(**{role: QTensor(still, q.qparams)})

    return apply


_OPERANDS = {"a": _without("a"), "b": _without("b")}


def _operand_missing(call, key):
    return _OPERANDS[key](call, key)


def _threads(call, key):
    return None if key == call["threads"] else call.but(threads=key)


# Windows


def _format_keys(call, bench):
    tensors = call["tensors"] if call.op == "cat" else [call["a"], call["b"]] if call.op in ("add", "mul") else [call["x"]]
    if any(t.ndim not in (4, 5) for t in tensors):
        return ()
    return ("contiguous",) if all(is_channels_last(t.values) for t in tensors) else ("channels-last",)


def _formatted(call, key):
    move = np.ascontiguousarray if key == "contiguous" else to_channels_last
    moved = lambda q: QTensor(call.once(("format", key), q.values, lambda v: move(v)), q.qparams)  # noqa: E731
    if call.op == "cat":
        return call.but(tensors=tuple(moved(t) for t in call["tensors"]))
    names = ("a", "b") if call.op in ("add", "mul") else ("x",)
    return call.but(**{name: moved(call[name]) for name in names})


def _pad_counted(call, key):
    return call.but(count_include_pad=not call["count_include_pad"]) if np.any(call["padding"]) else None


def _divisor_ignored(call, key):
    return call.but(divisor_override=None) if call["divisor_override"] is not None else None


def _pool_pad_keys(call, bench):
    if not np.any(call["padding"]) or call["ceil_mode"]:
        return ()
    q = call["x"].qparams
    codes = {int(q.zero_point): "the zero point", 0: "code 0", q.qmin: f"code {q.qmin}"} if call.op == "max_pool2d" else {0: "code 0", q.qmin: f"code {q.qmin}"}
    return tuple(codes.items())


def _pool_padded(call, key):
    p = call["padding"] if isinstance(call["padding"], (tuple, list)) else (call["padding"],) * 2
    q = call["x"]
    edges = ((0, 0), (0, 0), (p[0], p[0]), (p[1], p[1]))

    def pad(values):
        wide = np.pad(values, edges, constant_values=values.dtype.type(key[0]))
        return to_channels_last(wide) if is_channels_last(values) else wide

    return call.but(x=QTensor(call.once(("pool pad", key), q.values, pad), q.qparams), padding=0)


def _maximum_of_bytes(call, key):
    q = call["x"]
    flip = lambda v: (v ^ v.dtype.type(-128 if v.dtype == np.int8 else 128)).astype(v.dtype)  # noqa: E731
    return call.but(x=QTensor(call.once("flip", q.values, flip), q.qparams), quirks={"after": flip})


def _kernel_swapped(call, key):
    def swap(value):
        return tuple(value)[::-1] if isinstance(value, (tuple, list)) else value

    names = [n for n in ("kernel_size", "stride", "padding", "dilation", "output_size") if n in call.arguments]
    changed = {n: swap(call[n]) for n in names}
    return None if all(changed[n] == call[n] for n in names) else call.but(**changed)


OUTPUT_CAUSES = (
    Cause("output_wraps", "wraps at the output where it should saturate", "limits", _CODED, _wraps),
    Cause("early_clamp", "clamps before it adds the zero point{}", "limits", _CODED, _early_clamp, (", and after", ", and then wraps"), 0.05),
    Cause("narrow_range", "clamps the output to {}", "range", _CODED, _narrow, tuple(_RANGES), 0.05),
    Cause("own_limits", "clamps the output to quant_min … quant_max in place of the whole dtype", "range", _CODED, _limits_kept),
    Cause("whole_range", "clamps to the whole dtype in place of quant_min … quant_max", "range", ("fake_quantize",), _whole_range),
    Cause("relu_missing", "leaves out the ReLU", "relu", _ACTIVATED, _relu_missing),
    Cause("relu_added", "applies a ReLU that was not asked for", "relu", _ACTIVATED, _relu_added),
    Cause("relu_at_zero", "clamps at code 0 in place of the zero point (ReLU on codes)", "relu", _ACTIVATED, _relu_at_zero),
    Cause("early_relu", "applies the ReLU before it adds the bias", "relu", _LAYERS, _early_relu),
    Cause("relu6", "applies a ReLU6 in place of a ReLU", "relu", _ACTIVATED, _relu_six, surprise=0.1),
    Cause("late_bias", "adds the bias to the output codes, rounded apart{}", "bias", _LAYERS, _late_bias, ("", ", after they were saturated")),
    Cause("half_added", "rounds by adding 0.5 and rounding down, where the addition itself rounds", "rounding", _LAYERS, _half_added, surprise=0.05),
    Cause("coarse_multiplier", "rounds the multiplier to {}", "multiplier", _LAYERS, _coarse_multiplier, tuple(_MULTIPLIERS), 0.2),
    Cause("fixed_once", "scales by an integer multiplier, rounding once, half up (TFLite's single rounding)", "multiplier", _LAYERS, _fixed_once, surprise=0.15),
    Cause("coarse_result", "rounds its result to {}", "result", ("dequantize", "fake_quantize", *_LAYERS), _coarse_result, tuple(_RESULTS)),
    Cause("coarse_real", "rounds its real result to {} before it quantizes it", "result", _LAYERS, _coarse_real, tuple(_BETWEEN), 0.22),
    Cause("coarse_input", "rounds the input to {} first", "x values", ("quantize", "fake_quantize"), _coarse_input, tuple(_INPUTS), 0.2),
    Cause("operand_missing", "leaves out {}", "operand", ("add",), _operand_missing, tuple(_OPERANDS)),
    Cause("threads", "cuts the tensor among {} threads", "threads", ("add", *FUNCTIONS), _threads, (1, 2, 3, 4, 6, 8, 12, 16)),
    Cause("memory_format", "takes the path of {} tensors", "format", (*_POOLS, "cat", "add", "mul", *FUNCTIONS), _formatted, _format_keys),
    Cause("padding_counted", "counts the padding otherwise than asked (count_include_pad)", "divisor", ("avg_pool2d",), _pad_counted),
    Cause("divisor_ignored", "divides by the window's size, not by divisor_override", "divisor", ("avg_pool2d",), _divisor_ignored),
    Cause("pool_padding", lambda key, call: f"pads with {key[1]}, which counts", "padding", ("avg_pool2d", "max_pool2d"), _pool_padded, _pool_pad_keys),
    Cause("kernel_swapped", "swaps height and width of the window", "window", _IMAGES, _kernel_swapped),
    Cause("maximum_of_bytes", "compares codes as if of the other signedness", "compare", ("max_pool2d",), _maximum_of_bytes),
)  # fmt: skip
