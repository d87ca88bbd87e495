"""Causes with a number that is solved from the data: a stale scale or zero point, from an earlier calibration, say."""

import math

import numpy as np

from refquant.core.rounding import round_real
from refquant.verify.diagnosis.call import CONVOLUTIONS
from refquant.verify.diagnosis.cause import Cause

__all__ = ["SOLVED_CAUSES", "simplest_between"]

_LAYERS = ("linear", *CONVOLUTIONS)
# Outputs from which a scale is solved; a zero point alone takes fewer.
_LEAST, _LEAST_FOR_ONE = 6, 3
# What float32 arithmetic may move a real value by, relative to its parts.
_SLACK = 3e-7
_TRIED = 33
_MOST_BESIDE = 8


def _text(value):
    """Return a float32 in its shortest form."""
    return str(np.float32(value))


def simplest_between(low, high):
    """Return the number with the fewest decimal digits in [low, high].

    Examples
    --------
    >>> simplest_between(0.0499, 0.0523)
    0.05
    """
    middle = (low + high) / 2
    for digits in range(1, 18):
        value = float(f"{middle:.{digits - 1}e}")
        if low <= value <= high:
            return value
    return middle


def _role(call):
    return "qparams" if call.op == "quantize" else "out"


def _observed(call, bench, least=_LEAST):
    """Return (real values, codes) of the sampled outputs that no limit has cut, or None."""
    q = call.qparams(_role(call))
    if q is None or q.per_channel:
        return None
    index = bench.levels["sample"]
    codes = bench.actual[index].astype(np.int64)
    real = bench.real(call, "sample")
    free = (codes > q._type.qmin) & (codes < q._type.qmax) & np.isfinite(real) & (np.abs(real) < 1e30)
    if call.arguments.get("activation") == "relu" and codes.size:
        free &= codes > codes.min()
    return (real[free], codes[free], index[free]) if np.count_nonzero(free) >= least else None


def _factor_between(part, low, high, slack):
    """Return the interval of f with ``low - slack <= f * part <= high + slack`` everywhere, or None."""
    used = np.abs(part) > 0
    if not used.any():
        return None
    a, b = (low - slack)[used] / part[used], (high + slack)[used] / part[used]
    least, most = float(np.minimum(a, b).max()), float(np.maximum(a, b).min())
    return (least, most) if 0 < least <= most else None


def _factors(interval, scale):
    """Return factors that lead from `scale` into the interval: to a number of few digits, and to float32 numbers all over it."""
    if interval is None:
        return ()
    low, high = interval
    if np.ndim(scale):
        return (simplest_between(low, high), (low + high) / 2)
    first, last = (np.float32(scale * end).view(np.int32) for end in (low, high))
    steps = np.unique(np.linspace(first, last, _TRIED).astype(np.int32)).view(np.float32)
    targets = [simplest_between(scale * low, scale * high), *sorted(steps.astype(float), key=lambda v: abs(v - scale * (low + high) / 2))]
    return tuple(dict.fromkeys(float(t) / scale for t in targets if t != scale))


def _best(call, bench, apply, keys, count=2):
    """Return those keys that fit the sample best; of equals the first."""
    scored = [(bench.score(apply(call, key), "sample"), i, key) for i, key in enumerate(keys)]
    return tuple(key for _, _, key in sorted((s[1], i, key) for s, i, key in scored if s is not None)[:count])


# The output's scale and zero point


def _output_factors(real, codes, scale, zero):
    slack = _SLACK * np.abs(real)
    interval = _factor_between(real, (codes - zero - 0.5) * scale, (codes - zero + 0.5) * scale, slack)
    return _factors(None if interval is None else (1 / interval[1], 1 / interval[0]), scale)


def _scale_keys(call, bench):
    seen = _observed(call, bench)
    if seen is None:
        return ()
    q = call.qparams(_role(call))
    return _best(call, bench, _other_scale, _output_factors(*seen[:2], q.scale, q.zero_point))


def _other_scale(call, key):
    q = call.qparams(_role(call))
    return call.with_qparams(_role(call), scale=q.scale * key)


def _scale_words(key, call):
    scale = call.qparams(_role(call)).scale
    return f"uses the output scale {_text(scale * key)} in place of {_text(scale)}"


def _shift_of(real, codes, scale, zero):
    """Return the plausible differences of the zero point."""
    rest = codes - zero - real / scale
    middle = int(round_real(np.float64(np.median(rest)), "half_even"))
    return tuple(d for d in (middle, middle - 1, middle + 1) if d)


def _zero_keys(call, bench):
    seen = _observed(call, bench, _LEAST_FOR_ONE)
    if seen is None:
        return ()
    q = call.qparams(_role(call))
    return _shift_of(*seen[:2], q.scale, q.zero_point)


def _other_zero(call, key):
    return call.with_zero(_role(call), int(call.zero(_role(call))) + key)


def _zero_words(key, call):
    zero = int(call.zero(_role(call)))
    return f"uses the output zero point {zero + key} in place of {zero}"


def _both_keys(call, bench):
    seen = _observed(call, bench)
    if seen is None:
        return ()
    q = call.qparams(_role(call))
    slope, offset = _line(*seen[:2])
    if not slope > 0:
        return ()
    keys = []
    for zero in range(math.floor(offset) - 1, math.floor(offset) + 3):
        if zero != q.zero_point:
            keys += [(f, zero - q.zero_point) for f in _output_factors(*seen[:2], q.scale, zero)]
    return _best(call, bench, _other_both, keys)


def _line(real, codes):
    centred = real - real.mean()
    square = float(centred @ centred)
    if not square > 0:
        return 0.0, 0.0
    slope = float(centred @ (codes - codes.mean())) / square
    return slope, float(codes.mean() - slope * real.mean())


def _other_both(call, key):
    factor, shift = key
    return _other_zero(_other_scale(call, factor), shift)


def _both_words(key, call):
    return f"{_scale_words(key[0], call)} and {_zero_words(key[1], call).removeprefix('uses ')}"


# The inputs' scales


def _part_keys(role):
    def keys(call, bench):
        seen = _observed(call, bench)
        if seen is None:
            return ()
        real, codes, index = seen
        part, rest = _split(call, bench, role, real, index)
        q = call["out"]
        low, high = ((codes - q.zero_point + h) * q.scale - rest for h in (-0.5, 0.5))
        slack = _SLACK * (np.abs(part) + np.abs(rest))
        keys = _factors(_factor_between(part, low, high, slack), call.qparams(role).scale)
        return _best(call, bench, _part_scaled(role), keys)

    return keys


def _split(call, bench, role, real, index):
    """Return the share of the real value that a role's scale multiplies, and the rest."""
    if call.op == "add":
        part = bench.evaluator.dequantized(call, role, index)
        return part, real - part
    bias = call["bias"]
    if bias is None or np.asarray(bias).dtype.kind != "f":
        return real, np.zeros_like(real)
    rest = np.asarray(bias, np.float64)[bench.evaluator.products.channel(index)]
    return real - rest, rest


def _part_scaled(role):
    return lambda call, key: call.with_qparams(role, scale=np.asarray(call.qparams(role).scale * key)[()])


_NAMES = {"x": "the input", "w": "the weights", "a": "a", "b": "b"}


def _part_words(role):
    def words(key, call):
        scale = call.qparams(role).scale
        if np.ndim(scale):
            return f"scales {_NAMES[role]} {key:.7g} times as much"
        return f"uses the scale {_text(scale * key)} for {_NAMES[role]} in place of {_text(scale)}"

    return words


# The inputs' zero points


def _input_zero_keys(role):
    def keys(call, bench):
        seen = _observed(call, bench, _LEAST_FOR_ONE)
        if seen is None or np.ndim(call.zero(role)):
            return ()
        real, codes, index = seen
        q = call["out"]
        slope = _slope_of_zero(call, bench, role, index)
        square = float(slope @ slope)
        if not square > 0:
            return ()
        error = (codes - q.zero_point) * q.scale - real
        best = int(round_real(np.float64(-(error @ slope) / square), "half_even"))
        if call.op in _LAYERS:
            return tuple(d for d in (best, best - 1, best + 1) if d)
        # Where a step of the input is less than one of the output, several zero points are as good but for a few ties.
        width = min(_MOST_BESIDE, 1 + math.ceil(float(q.scale) / math.sqrt(square / slope.size)))
        return _best(call, bench, _input_zero(role), [d for d in range(best - width, best + width + 1) if d], 3)

    return keys


def _slope_of_zero(call, bench, role, index):
    """Return by how much the real value falls when the role's zero point rises by one."""
    if call.op == "add":
        return np.full(index.size, call.qparams(role).scale)
    if call.op == "mul":
        return bench.evaluator.dequantized(call, "b" if role == "a" else "a", index) * call.qparams(role).scale
    products = bench.evaluator.products
    up = products.real(call.with_zero(role, int(call.zero(role)) + 1), index)[0]
    return products.real(call, index)[0] - up


def _input_zero(role):
    return lambda call, key: None if np.ndim(call.zero(role)) else call.with_zero(role, int(call.zero(role)) + key)


def _input_zero_words(role):
    return lambda key, call: f"uses the zero point {int(call.zero(role)) + key} for {_NAMES[role]} in place of {int(call.zero(role))}"


# Dequantization


def _grid_keys(call, bench):
    q = call.qparams("x")
    if q.per_channel:
        return ()
    index = bench.levels["sample"]
    codes, real = call["q"].values.reshape(-1)[index].astype(np.float64), bench.actual[index].astype(np.float64)
    slope, offset = _line(codes, real) if np.ptp(codes) else (0.0, 0.0)
    if not slope > 0 or not np.isfinite(slope):
        return ()
    zero = int(round_real(np.float64(-offset / slope), "half_even"))
    far = np.argmax(np.abs(codes - zero))
    scale = float(np.float32(real[far] / (codes[far] - zero)))
    shift = zero - int(q.zero_point)
    same = abs(scale / q.scale - 1) < 1e-6
    factors = (1.0,) if same else _factors((scale / q.scale * (1 - _SLACK), scale / q.scale * (1 + _SLACK)), q.scale)
    return _best(call, bench, _grid, [(f, shift) for f in factors]) if shift or not same else ()


def _grid(call, key):
    q = call.qparams("x")
    return call.with_qparams("x", scale=q.scale * key[0], zero_point=int(q.zero_point) + key[1])


def _grid_words(key, call):
    q = call.qparams("x")
    parts = [f"the scale {_text(q.scale * key[0])} in place of {_text(q.scale)}"] if key[0] != 1 else []
    parts += [f"the zero point {q.zero_point + key[1]} in place of {q.zero_point}"] if key[1] else []
    return "uses " + " and ".join(parts)


SOLVED_CAUSES = (
    Cause("other_output_scale", _scale_words, "scale", (*_LAYERS, "add", "mul", "quantize"), _other_scale, _scale_keys, 0.3),
    Cause("other_output_zero_point", _zero_words, "zero point of out", (*_LAYERS, "add", "mul", "quantize"), _other_zero, _zero_keys, 0.2),
    Cause("other_output_parameters", _both_words, "scale", (*_LAYERS, "add", "mul", "quantize"), _other_both, _both_keys, 0.4),
    *(Cause(f"other_{r}_scale", _part_words(r), f"scale of {r}", _LAYERS, _part_scaled(r), _part_keys(r), 0.35) for r in "xw"),
    *(Cause(f"other_{r}_zero_point", _input_zero_words(r), f"zero point of {r}", _LAYERS, _input_zero(r), _input_zero_keys(r), 0.25) for r in "xw"),
    *(Cause(f"other_{r}_scale", _part_words(r), f"scale of {r}", ("add",), _part_scaled(r), _part_keys(r), 0.35) for r in "ab"),
    *(Cause(f"other_{r}_zero_point", _input_zero_words(r), f"zero point of {r}", ("add", "mul"), _input_zero(r), _input_zero_keys(r), 0.25) for r in "ab"),
    Cause("other_grid", _grid_words, "scale", ("dequantize",), _grid, _grid_keys, 0.3),
)  # fmt: skip
