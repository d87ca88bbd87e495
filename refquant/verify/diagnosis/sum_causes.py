"""Causes in the accumulator: weights that lost bits, narrow registers, zero-point terms, padding, tails of K."""

import numpy as np

from refquant.core.rounding import round_real
from refquant.verify.diagnosis.call import CONVOLUTIONS, PRODUCTS
from refquant.verify.diagnosis.cause import Cause
from refquant.verify.diagnosis.sums import Drop, saturated, wrapped

__all__ = ["SUM_CAUSES"]

# Weights


def _clipped(call, key):
    old = call.codes("w")
    low, high = {"[-127, 127]": (-127, 127), "[-64, 63]": (-64, 63)}[key]
    if old.dtype != np.int8 or (old.min(initial=0) >= low and old.max(initial=0) <= high):
        return None
    return call.with_codes("w", call.once(("clip", key), old, lambda w: np.clip(w, low, high).astype(w.dtype)))


_HALVES = {"to the nearest, ties to even": "half_even", "away from zero at ties": "half_away", "toward zero": "truncate", "down": "floor"}


def _halved(call, key):
    halve = lambda w: (2 * round_real(w.astype(np.float64) / 2, _HALVES[key])).astype(np.int16)  # noqa: E731
    return call.with_codes("w", call.once(("halve", key), call.codes("w"), halve))


# Registers

_PAIR_WORDS = {
    "pairs": "saturates the sum of neighbouring products (k, k+1) to int16, as vpmaddubsw does",
    "pairs_inner": "saturates the sum of products of neighbouring input channels to int16 (vpmaddubsw on NHWC)",
    "pairs_taps": "saturates the sum of products of neighbouring input channels to int16, an odd last channel alone (vpmaddubsw on NHWC, each tap padded)",
    "fours": "saturates pairs of products, and the sum of two pairs, to int16 (groups of four)",
    "fours_inner": "saturates pairs of products of neighbouring input channels, and the sum of two pairs, to int16 (groups of four)",
    "distant": "saturates sums of products two apart in groups of four to int16",
    "distant_inner": "saturates sums of products of input channels two apart in groups of four to int16",
}
_SKIPPING = ", skipping the padding"


def _pair_keys(call, bench):
    channels = call.codes("w").shape[1] if call.op in CONVOLUTIONS else 1
    names = [n for n in _PAIR_WORDS if "_" not in n or (channels > 1 and n.endswith("_inner")) or (channels > 1 and channels % 2 and n == "pairs_taps")]
    padded = call.op in CONVOLUTIONS and np.any(call["padding"])
    return (*names, *(n + _SKIPPING for n in names if padded))


def _pair_words(key, call):
    name, comma, skipping = key.partition(",")
    words = _PAIR_WORDS[name]
    if name == "pairs" and call.op in CONVOLUTIONS and call.codes("w").shape[1] == 1:
        words = "saturates the sum of neighbouring taps of the depthwise kernel to int16, as vpmaddubsw does"
    return words + comma + skipping


def _in_pairs(call, key):
    shifts = {"skip_pad": True} if key.endswith(_SKIPPING) else {}
    if call.codes("x").dtype == np.int8:
        shifts["x_shift"] = 128
    if call.codes("w").dtype == np.uint8:
        shifts["w_shift"] = -128
    return call.but(quirks={"sum": key.partition(",")[0], **shifts})


def _exactly(call, key):
    if getattr(call.form, "accumulator", "exact") == "exact":
        return None
    return call.but(quirks={"sum": "exact"})


_STEPS = {"16": "steps16", "24": "steps24", "32": "steps32", "16, a pair at a time,": "pair_steps16"}


def _stepwise(call, key):
    return call.but(quirks={"sum": _STEPS[key]})


def _float_sum(call, key):
    return call.but(quirks={"sum": "float32"})


_REDUCTIONS = {(bits, how): make(bits) for bits in (16, 24) for how, make in (("wraps", wrapped), ("saturates", saturated))}
_REDUCTIONS[32, "saturates"] = saturated(32)


def _narrow_keys(call, bench):
    return tuple((*key, when) for key in _REDUCTIONS for when in ("centred", "raw"))


def _narrow(call, key):
    bits, how, when = key
    return call.but(quirks={"reduce": _REDUCTIONS[bits, how], "reduce_raw": when == "raw"})


def _narrow_words(key, call):
    bits, how, when = key
    tail = "" if when == "centred" else " before the zero-point terms are subtracted"
    verb = "wraps at" if how == "wraps" else "saturates to"
    return f"{verb} {bits} bits in the accumulator{tail}"


# Zero-point terms


def _has_zero(call, role):
    return bool(np.any(call.zero(role)))


_MISSING = {
    "x": "leaves out the compensation of the input's zero point (zx times the sums of weights)",
    "w": "leaves out the compensation of the weights' zero point (zw times the sums of inputs)",
    "c": "leaves out the constant K·zx·zw of the zero-point compensation",
}


def _missing_keys(call, bench):
    both = _has_zero(call, "x") and _has_zero(call, "w")
    return tuple(k for k, there in (("x", _has_zero(call, "x")), ("w", _has_zero(call, "w")), ("c", both)) if there)


def _missing(call, key):
    # The cross term is part of either compensation: an engine that folds it into one of them loses both.
    return call.but(quirks={"without": key + "c" if key != "c" else "c"})


def _missing_alone(call, key):
    return call.but(quirks={"without": key}) if _has_zero(call, "x") and _has_zero(call, "w") else None


_FACTORS = {"twice": 2, "with the wrong sign": -1}


def _compensated(call, key):
    return call.but(quirks={"compensation": _FACTORS[key]}) if _has_zero(call, "x") else None


# Padding


def _pad_keys(call, bench):
    if call.op not in CONVOLUTIONS or not np.any(call["padding"]):
        return ()
    zx, low = int(call.zero("x")), call.qparams("x")._type.qmin
    words = {0: "code 0", zx - 128: "the zero point less 128 (the shift of s8 to u8 is missing)", zx + 128: "the zero point plus 128 (the shift of s8 to u8 is counted twice)"}
    words[low] = words.get(low, f"the lowest code, {low}")
    words[low + 255] = words.get(low + 255, f"the highest code, {low + 255}")
    words[low + 128] = words.get(low + 128, f"the middle code, {low + 128}")
    return tuple((code, text) for code, text in words.items() if code != zx)


def _padded(call, key):
    return call.but(quirks={"pad": key[0]})


def _pad_words(key, call):
    return f"pads with {key[1]} in place of the input's zero point"


# Tails

_ORDER_WORDS = {"k": "of K", "inner": "of K (channels innermost)", "channels": "of the input channels"}


def _tail_keys(call, bench):
    w = call.codes("w")
    taps = int(np.prod(w.shape[2:]))
    sizes = {"k": w.shape[1] * taps}
    if taps > 1 and w.shape[1] > 1:
        sizes.update(inner=w.shape[1] * taps, channels=w.shape[1])
    keys = []
    for order, size in sizes.items():
        seen = set()
        for block in (2, 4, 8, 16, 32, 64, 128):
            kept = size // block * block
            if kept not in seen and 0 < kept < size:
                seen.add(kept)
                keys += [Drop(block, order, sums) for sums in (True, False)]
    return tuple(keys)


def _dropped(call, key):
    return call.but(quirks={"drop": key})


def _drop_words(key, call):
    size = call.codes("w")[0].size if key.order != "channels" else call.codes("w").shape[1]
    terms = "" if key.sums else ", but not from the zero-point terms"
    return f"drops the last {size % key.block} {_ORDER_WORDS[key.order]} (the tail beyond whole blocks of {key.block}){terms}"


SUM_CAUSES = (
    Cause("weights_clipped", "clips the weights to {}", "w values", PRODUCTS, _clipped, ("[-127, 127]", "[-64, 63]")),
    Cause("weights_halved", "halves the weights to stay clear of saturation, rounding {}, and doubles the result", "w values", PRODUCTS, _halved, tuple(_HALVES)),
    Cause("int16_pairs", _pair_words, "sum", PRODUCTS, _in_pairs, _pair_keys),
    Cause("exact_sum", "adds up exactly, without the saturation that the profile has", "sum", CONVOLUTIONS, _exactly),
    Cause("saturating_sum", "saturates its accumulator at {} bits after every step", "sum", PRODUCTS, _stepwise, tuple(_STEPS)),
    Cause("float32_sum", "accumulates in float32", "sum", PRODUCTS, _float_sum),
    Cause("narrow_accumulator", _narrow_words, "accumulator", PRODUCTS, _narrow, _narrow_keys),
    Cause("compensation_missing", lambda key, call: _MISSING[key], "compensation", PRODUCTS, _missing, _missing_keys),
    Cause(
        "compensation_term_missing", lambda key, call: _MISSING[key] + ", all but its constant", "compensation", PRODUCTS, _missing_alone, ("x", "w"), 0.1,
    ),
    Cause("compensation_wrong", "subtracts the compensation of the input's zero point {}", "compensation", PRODUCTS, _compensated, tuple(_FACTORS)),
    Cause("padding_code", _pad_words, "padding", CONVOLUTIONS, _padded, _pad_keys),
    Cause("tail_of_k", _drop_words, "tail", PRODUCTS, _dropped, _tail_keys, 0.1),
)  # fmt: skip
