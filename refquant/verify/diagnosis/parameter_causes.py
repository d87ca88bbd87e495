"""Causes in scales, zero points and biases: the wrong one, a coarser one, none, twice."""

import numpy as np

from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.core.rounding import round_real
from refquant.verify.diagnosis.call import CONVOLUTIONS, FUNCTIONS
from refquant.verify.diagnosis.cause import Cause

__all__ = ["PARAMETER_CAUSES", "to_bfloat16", "to_float16"]

_LAYERS = ("linear", *CONVOLUTIONS)
_REAL = ("quantize", "fake_quantize")
_POOLS = ("avg_pool2d", "adaptive_avg_pool2d")
_ROLES = {
    "x": "the input", "w": "the weights", "out": "the output", "a": "a", "b": "b", "qparams": "the tensor",
}  # fmt: skip
_ROLES_OF = {
    **dict.fromkeys(_LAYERS, ("x", "w", "out")), "matmul_integer": ("x", "w"), "add": ("a", "b", "out"), "mul": ("a", "b", "out"), **dict.fromkeys(FUNCTIONS, ("x", "out")),
    "quantize": ("qparams",), "fake_quantize": ("qparams",), "dequantize": ("x",), "cat": ("out",),
    "avg_pool2d": ("x", "out"), "adaptive_avg_pool2d": ("x", "out"),
}  # fmt: skip


def to_bfloat16(values):
    """Round float32 numbers to bfloat16, ties to even; still float32.

    Examples
    --------
    >>> float(to_bfloat16(np.float32(0.1)))
    0.10009765625
    """
    bits = np.asarray(values, np.float32).view(np.uint32)
    kept = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return kept.view(np.float32)


def to_float16(values):
    """Round float32 numbers to float16, ties to even; still float32."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32).astype(np.float16).astype(np.float32)


def _roles(call):
    return tuple(role for role in _ROLES_OF[call.op] if call.op == "matmul_integer" or call.qparams(role) is not None)


# Zero points


def _zero_keys(call, bench):
    return tuple(role for role in _roles(call) if np.any(call.zero(role)))


def _zero_ignored(call, key):
    return call.with_zero(key, np.zeros_like(call.zero(key))[()])


# Scales

_PRECISIONS = {"bfloat16": to_bfloat16, "float16": to_float16}


def _coarse_keys(call, bench):
    roles = _roles(call)
    names = (*roles, "all") if len(roles) > 1 else roles
    return tuple((role, precision) for precision in _PRECISIONS for role in names)


def _coarse(call, key):
    role, precision = key
    changed, before = call, call
    for name in _roles(call) if role == "all" else (role,):
        old = np.asarray(call.qparams(name).scale)
        new = _PRECISIONS[precision](old.astype(np.float32)).astype(np.float64)
        if not np.all(np.isfinite(new) & (new > 0)):
            return None
        if not np.array_equal(new, old):
            changed = changed.with_qparams(name, scale=new[()] if old.ndim else float(new))
    return None if changed is before else changed


def _coarse_words(key, call):
    whose = "every scale" if key[0] == "all" else f"the scale of {_ROLES[key[0]]}"
    return f"rounds {whose} to {key[1]}"


_PICKS = {
    "the first channel's": lambda s: s[0], "the last channel's": lambda s: s[-1], "the largest": lambda s: s.max(), "the smallest": lambda s: s.min(),
}  # fmt: skip


def _channel_role(call):
    role = {"quantize": "qparams", "fake_quantize": "qparams", "dequantize": "x"}.get(call.op, "w")
    return role if call.qparams(role).per_channel and len(call.qparams(role).scale) > 1 else None


def _pick_keys(call, bench):
    return tuple(_PICKS) if _channel_role(call) else ()


def _per_tensor(call, key):
    role = _channel_role(call)
    if role is None:
        return None
    old = call.qparams(role).scale
    return call.with_qparams(role, scale=np.full(old.shape, _PICKS[key](old)))


def _first_pair(call, key):
    role = _channel_role(call)
    if role is None:
        return None
    q = call.qparams(role)
    return call.with_qparams(role, scale=np.full(q.scale.shape, q.scale[0]), zero_point=np.full(q.scale.shape, q.zero_point[0])) if np.ptp(q.zero_point) else None


def _shifted(values, key):
    step, edge = key.split(", ")
    rolled = np.roll(values, 1 if step == "previous" else -1)
    if edge == "the end repeated":
        rolled[0 if step == "previous" else -1] = values[0 if step == "previous" else -1]
    return rolled


_STEPS = tuple(f"{step}, {edge}" for step in ("previous", "next") for edge in ("round the end", "the end repeated"))


def _neighbour_scale(call, key):
    role = _channel_role(call)
    return None if role is None else call.with_qparams(role, scale=_shifted(call.qparams(role).scale, key))


def _step_keys(call, bench):
    return _STEPS if _channel_role(call) else ()


def _axis_keys(call, bench):
    role = _channel_role(call)
    if role not in ("qparams", "x"):
        return ()
    q = call.qparams(role)
    return tuple(axis for axis, n in enumerate(bench.shape) if n == len(q.scale) and axis != q.axis)


def _axis_words(key, call):
    return f"takes the scales along axis {key} in place of axis {call.qparams(_channel_role(call)).axis}"


def _other_axis(call, key):
    return call.with_qparams(_channel_role(call), axis=key)


_OTHERS = {
    **dict.fromkeys(_LAYERS, (("out", "x"), ("x", "out"))), **dict.fromkeys(("add", "mul"), (("a", "b"), ("b", "a"), ("out", "a"), ("out", "b"))), "avg_pool2d": (("out", "x"),),
    "adaptive_avg_pool2d": (("out", "x"),),
}  # fmt: skip


def _borrowed_keys(call, bench):
    return tuple(pair for pair in _OTHERS[call.op] if None not in (a := tuple(map(call.qparams, pair))) and a[0] != a[1])


def _borrowed(call, key):
    to, source = key
    return call.with_qparams(to, scale=call.qparams(source).scale, zero_point=call.qparams(source).zero_point)


def _swapped(call, key):
    a, b = call.qparams("a"), call.qparams("b")
    return None if a == b else _borrowed(call, ("a", "b")).with_qparams("b", scale=a.scale, zero_point=a.zero_point)


# Biases

_BIAS_CHANGES = {"twice": lambda b: b + b, "with the wrong sign": lambda b: -b}


def _bias(call):
    return None if call["bias"] is None else np.asarray(call["bias"])


def _with_bias(call, key, function):
    bias = _bias(call)
    if bias is None or not bias.any():
        return None
    new = call.once(("bias", key), call["bias"], lambda b: None if b is None else function(np.asarray(b)))
    return None if new is not None and np.array_equal(new, bias) else call.but(bias=new)


def _bias_missing(call, key):
    return call.but(bias=None) if _bias(call) is not None and _bias(call).any() else None


def _bias_changed(call, key):
    return _with_bias(call, key, _BIAS_CHANGES[key])


def _bias_neighbour(call, key):
    return _with_bias(call, key, lambda b: _shifted(b, key)) if _bias(call) is not None and len(_bias(call)) > 1 else None


def _bias_coarse(call, key):
    return _with_bias(call, key, lambda b: _PRECISIONS[key](b)) if _bias(call) is not None and _bias(call).dtype.kind == "f" else None


_BIAS_ROUNDINGS = {"by truncation": "truncate", "down": "floor", "half away from zero": "half_away", "half to even": "half_even"}


def _bias_integer_keys(call, bench):
    if _bias(call) is None or _bias(call).dtype.kind != "f":
        return ()
    scales = ("its own", "the first channel's") if call.qparams("w").per_channel else ("its own",)
    # Only where whole numbers must be hit exactly does it matter in what precision the unit is computed.
    return tuple((how, whose, unit) for how in _BIAS_ROUNDINGS for whose in scales for unit in (tuple(_UNITS) if how in ("by truncation", "down") else ("float64",)))


_UNITS = {
    "float64": lambda b, x, w: b.astype(np.float64) / (x * w),
    "float32": lambda b, x, w: b / (np.float32(x) * w.astype(np.float32)),
    "the product in float32": lambda b, x, w: b.astype(np.float64) / (np.float32(x) * w.astype(np.float32)).astype(np.float64),
}


def _bias_integer(call, key):
    how, whose, unit = key
    if _bias(call) is None or _bias(call).dtype.kind != "f":
        return None
    sw = np.asarray(call.qparams("w").scale, np.float64)
    real = _UNITS[unit](_bias(call).astype(np.float32), call.qparams("x").scale, sw if whose == "its own" or not sw.ndim else sw[:1])
    codes = round_real(real, _BIAS_ROUNDINGS[how])
    return call.but(bias=np.clip(codes.astype(np.float64), -(2.0**31), 2.0**31 - 1).astype(np.int32))


def _bias_integer_words(key, call):
    whose = "" if key[1] == "its own" else ", in units of the first channel's scale"
    return f"rounds the bias to int32 {key[0]}{whose}{'' if key[2] == 'float64' else f' (unit in {key[2]})'}"


# Inputs of cat


def _with_tensors(call, change):
    old = call["tensors"]
    new = tuple(change(list(old)))
    return None if all(n is o for n, o in zip(new, old)) else call.but(tensors=new)


def _retagged(q, like, scale=True, zero=True):
    return QTensor(q.values, QParams(like.scale if scale else q.qparams.scale, like.zero_point if zero else q.qparams.zero_point, q.dtype, unchecked=True))


_CAT_CHANGES = {
    "copies the inputs' codes as they are": lambda ts, out: [_retagged(t, out) for t in ts],
    "reads every input with the first one's scale and zero point": lambda ts, out: [ts[0], *(_retagged(t, ts[0].qparams) for t in ts[1:])],
    "reads every input with the last one's scale and zero point": lambda ts, out: [*(_retagged(t, ts[-1].qparams) for t in ts[:-1]), ts[-1]],
    "reads each input with the scale and zero point of the one before": lambda ts, out: [_retagged(t, s.qparams) for t, s in zip(ts, [ts[-1], *ts[:-1]])],
    "reads each input with the scale and zero point of the one after": lambda ts, out: [_retagged(t, s.qparams) for t, s in zip(ts, [*ts[1:], ts[0]])],
    "ignores the zero points of the inputs": lambda ts, out: [_retagged(t, QParams(1.0, 0, t.dtype), scale=False) for t in ts],
    "rescales the codes and leaves the zero points of the inputs as they are": lambda ts, out: [_retagged(t, out, scale=False) for t in ts],
}


def _cat_changed(call, key):
    return _with_tensors(call, lambda ts: _CAT_CHANGES[key](ts, call["out"]))


PARAMETER_CAUSES = (
    Cause(
        "zero_point_ignored", lambda key, call: f"ignores the zero point of {_ROLES[key]} (symmetric in place of affine)", "zero point of {}",
        tuple(_ROLES_OF), _zero_ignored, _zero_keys, 0.02,
    ),
    Cause("coarse_scale", _coarse_words, "scale precision", tuple(op for op in _ROLES_OF if op != "matmul_integer"), _coarse, _coarse_keys, 0.2),
    Cause("per_tensor_scale", "takes {} scale for all channels", "channel scales", (*_LAYERS, *_REAL, "dequantize"), _per_tensor, _pick_keys),
    Cause("per_tensor_parameters", "takes the first channel's scale and zero point for all channels", "channel scales", (*_LAYERS, *_REAL, "dequantize"), _first_pair),
    Cause("neighbours_scale", "takes the scale of the neighbouring channel ({})", "channel scales", (*_LAYERS, *_REAL, "dequantize"), _neighbour_scale, _step_keys),
    Cause("wrong_axis", _axis_words, "channel scales", (*_REAL, "dequantize"), _other_axis, _axis_keys),
    Cause(
        "borrowed_parameters", lambda key, call: f"uses scale and zero point of {_ROLES[key[1]]} for {_ROLES[key[0]]}", "scale", tuple(_OTHERS), _borrowed, _borrowed_keys,
    ),
    Cause("swapped_parameters", "swaps the scales and zero points of a and b", "scale", ("add", "mul"), _swapped),
    Cause("cat_parameters", "{}", "scale", ("cat",), _cat_changed, tuple(_CAT_CHANGES)),
    Cause("bias_missing", "leaves out the bias", "bias", _LAYERS, _bias_missing),
    Cause("bias_changed", "adds the bias {}", "bias", _LAYERS, _bias_changed, tuple(_BIAS_CHANGES)),
    Cause("neighbours_bias", "takes the bias of the neighbouring channel ({})", "bias", _LAYERS, _bias_neighbour, _STEPS),
    Cause("coarse_bias", "rounds the bias to {}", "bias", _LAYERS, _bias_coarse, tuple(_PRECISIONS), 0.2),
    Cause("integer_bias", _bias_integer_words, "bias", _LAYERS, _bias_integer, _bias_integer_keys, 0.02),
)  # fmt: skip
