"""An output stage as kernels read it: one block of memory with all numbers, and the vectors that the form uses.

    word     0 …           whole numbers: what is written, the kind, the flags, the limits, …   (`WORDS`)
             …             where each vector begins, in bytes from the start of the block, or 0   (`VECTORS`)
    float32  …             the scalars of the form   (`REALS`)
    vectors                those that the form uses, one behind the other; 64 elements behind the last may be read

Rewriting a form
----------------
Most forms that end in bytes, round half to even and have no unusual step are rewritten, exactly, to one of two straight lines of
instructions (`refquant.kernels.finish_bytes`). Rounding, addition and multiplication by a positive number never reverse an
order, and the limits are whole numbers, so limits commute with them:

* CLAMP, then the limits of the code: one pair of limits of the code, and ``min(v, hi)`` against overflow. NaN becomes ``-2**31``,
  and that the lower limit.
* RELU: a lower limit, the code of 0. Without CLAMP only where that limit is there already, for a positive overflow becomes
  ``-2**31`` too.
* A step that the form does not have: its neutral element, ``v * 1``, ``v + -0.0``, ``min(v, inf)``.

A fixed-point form whose multipliers are not ``-2**31`` and whose exponents are -31 to 31 has a kind `NARROW` higher: all that it needs
but the product fits into 32 bits.

The other lines are for AVX2 and tiles in memory (`refquant.kernels.finish_lines`): both biases, a division, multipliers in float64, and
the two narrow fixed-point kinds.
"""

import numpy as np

from refquant.core import epilogue as form
from refquant.core.rounding import Round
from refquant.kernels.jit import kernel
from refquant.kernels.wide import halves_run_here

__all__ = [
    "RAW", "BYTES", "CODES32", "REALS32", "NARROW", "LINE_NONE", "LINE_SHORT", "LINE_LONG",
    "LINE_BIASED", "LINE_DIVIDED", "LINE_REAL64", "LINE_REAL64_AWAY", "LINE_GEMMLOWP", "LINE_HALF_UP", "WORDS", "VECTORS", "REALS",
    "make_stage", "read_header", "tiles_finish", "RAW_STAGE", "output_kind",
]  # fmt: skip

RAW, BYTES, CODES32, REALS32 = range(4)
NARROW = 2
LINE_NONE, LINE_SHORT, LINE_LONG, LINE_BIASED, LINE_DIVIDED, LINE_REAL64, LINE_REAL64_AWAY, LINE_GEMMLOWP, LINE_HALF_UP = range(9)
WORDS = "start_bias out_kind kind flags rounding low zi high line zi16 low8 high8 flip".split()
VECTORS = "bias_i pre_b s2 b mult shift m64".split()
REALS = "pre_k s1 d zf lo hi line_s1 line_d line_zf line_hi".split()

_WHOLE = len(WORDS) + len(VECTORS)
_HEADER = 8 * _WHOLE + 4 * len(REALS)
_BLANK, _SLACK = np.zeros(_HEADER // 4, np.float32), np.zeros(64, np.float32)
RAW_STAGE = np.zeros(_HEADER // 4, np.float32)
"""The stage of `RAW`: int32 accumulators leave as they are."""

_KINDS = {np.dtype(np.int32): CODES32, np.dtype(np.float32): REALS32}
_FLOAT32, _FLOAT64 = form.FLOAT32, form.FLOAT64
_PRE_BIAS, _SCALE1, _SCALE_FMA, _BIAS, _RELU = form.PRE_BIAS, form.SCALE1, form.SCALE_FMA, form.BIAS, form.RELU
_DST_MUL, _DST_DIV, _ZERO_FLOAT, _CLAMP = form.DST_MUL, form.DST_DIV, form.ZERO_FLOAT, form.CLAMP
_EVEN, _AWAY = list(Round).index(Round.HALF_EVEN), list(Round).index(Round.HALF_AWAY)
_SHORT = _PRE_BIAS | _CLAMP | _RELU
_LONG = _SCALE1 | _BIAS | _RELU | _DST_MUL | _ZERO_FLOAT | _CLAMP
_BIASED, _REAL64 = _LONG | _PRE_BIAS, _ZERO_FLOAT | _CLAMP
_DIVIDED = _PRE_BIAS | _SCALE1 | _BIAS | _RELU | _DST_DIV | _ZERO_FLOAT | _CLAMP
_BIAS_USERS = _BIAS | _SCALE_FMA


def output_kind(dtype):
    """How kernels write an output of `dtype`: codes of 8 or 32 bits, or float32."""
    return _KINDS.get(np.dtype(dtype), BYTES)


@kernel
def _is_whole(x, low, high):
    return low < x < high and x == np.floor(x)


@kernel
def _clip(x, low, high):
    return min(max(x, low), high)


@kernel
def _name_line(kind, flags, rounding, more):
    """The line whose steps are those of a form, if its numbers allow it; `more` than the first two where those run."""
    if kind == _FLOAT32 and rounding == _EVEN:
        if flags | _SHORT == _SHORT:
            return LINE_SHORT
        if flags | _LONG == _LONG:
            return LINE_LONG
        if more and flags | _BIASED == _BIASED:
            return LINE_BIASED
        if more and flags | _DIVIDED == _DIVIDED:
            return LINE_DIVIDED
    if more and kind == _FLOAT64 and flags | _REAL64 == _REAL64:
        if rounding == _EVEN:
            return LINE_REAL64
        if rounding == _AWAY:
            return LINE_REAL64_AWAY
    if more and kind == form.FIXED_GEMMLOWP + NARROW:
        return LINE_GEMMLOWP
    if more and kind == form.FIXED_HALF_UP + NARROW:
        return LINE_HALF_UP
    return LINE_NONE


@kernel
def _straight_line(line, flags, zi, qlo, qhi, d, zf, lo, hi):
    """The line of a form that rounds to codes of 8 bits, or none after all, and its lowest and highest code."""
    low, high = qlo, qhi
    if line >= LINE_GEMMLOWP:
        flags = 0
    if flags & _CLAMP:
        if not (_is_whole(lo, -1e6, 1e6) and _is_whole(hi, -1e6, 1e6) and lo <= hi):
            return LINE_NONE, 0, 0
        low, high = _clip(np.int64(lo) + zi, qlo, qhi), _clip(np.int64(hi) + zi, qlo, qhi)
    if flags & _RELU:
        zero = zf if flags & _ZERO_FLOAT else np.float32(0)
        if flags & (_DST_MUL | _DST_DIV) and not 0 < d < np.inf or not _is_whole(zero, -1e6, 1e6):
            return LINE_NONE, 0, 0
        code_of_0 = _clip(np.int64(zero) + zi, low, high)
        if code_of_0 > low and not flags & _CLAMP:
            return LINE_NONE, 0, 0  # a positive overflow must still become the lowest code
        low = code_of_0
    if not (-1000 < zi < 1000 and -128 <= low <= high <= 255) or (low < 0 and high > 127):
        return LINE_NONE, 0, 0
    return line, low, high


@kernel
def _fill_header(stage, channels, numbers, out_kind, fused, more):
    kind, flags, rounding, pre_k, s1, d, zf, lo, hi, zi, qlo, qhi = numbers
    line, low8, high8 = LINE_NONE, 0, 0
    if out_kind == BYTES and fused:
        line = _name_line(kind, flags, rounding, more)
    if line != LINE_NONE:
        line, low8, high8 = _straight_line(line, flags, zi, qlo, qhi, d, zf, lo, hi)
    flip = 128 if low8 < 0 else 0
    words = stage[: 2 * _WHOLE].view(np.int64)
    words[0] = _HEADER
    words[1], words[2], words[3], words[4] = out_kind, kind, flags, rounding
    words[5], words[6], words[7] = max(qlo - zi, -(2**31)), zi, min(qhi - zi, 2**31 - 1)
    words[8], words[9], words[10], words[11], words[12] = line, zi + flip, low8 + flip, high8 + flip, flip
    words[13] = 0 if fused else _HEADER
    at = _HEADER + 4 * channels
    for i in range(1, 7):
        if i == 1:
            used = kind == _FLOAT32 and flags & _PRE_BIAS > 0
        elif i == 2:
            used = kind == _FLOAT32
        elif i == 3:
            used = kind == _FLOAT32 and flags & _BIAS_USERS > 0
        elif i == 6:
            used = kind == _FLOAT64
        else:
            used = kind > _FLOAT64
        words[13 + i] = at if used else 0
        at += 4 * channels if used else 0
    reals = stage[2 * _WHOLE :]
    reals[0] = pre_k if flags & _PRE_BIAS else np.float32(1)
    reals[1], reals[2], reals[3], reals[4], reals[5] = s1, d, zf, lo, hi
    reals[6] = s1 if flags & _SCALE1 else np.float32(1)
    reals[7] = d if flags & (_DST_MUL | _DST_DIV) else np.float32(1)
    reals[8] = zf if flags & _ZERO_FLOAT else np.float32(-0.0)
    reals[9] = hi if flags & _CLAMP else np.float32(np.inf)


@kernel
def read_header(stage):
    """What is written, the straight line that registers can take, and ``bias_i`` of a fused stage (empty for `RAW`)."""
    words = stage[: 2 * _WHOLE].view(np.int64)
    first = words[0] // 4
    bias_i = stage.view(np.int32)[first : first if first == 0 else stage.shape[0]]
    return words[1], words[8] if words[8] <= LINE_LONG else LINE_NONE, bias_i


def tiles_finish(stage):
    """Whether `read_header` gives a straight line, which tiles finish in registers."""
    return LINE_NONE < stage[: 2 * _WHOLE].view(np.int64)[8] <= LINE_LONG


def make_stage(ep, out_kind, fused, repeat=1):
    """Lay an output stage out for kernels.

    Parameters
    ----------
    ep : Epilogue
    out_kind : int
        `BYTES`, `CODES32`: codes of 8 or 32 bits; `REALS32`: float32.
    fused : bool
        Whether a product adds ``bias_i``, as what its accumulators begin with. Else `finish_tile` does.
    repeat : int
        How many pixels lie side by side: each vector is there so many times.

    Returns
    -------
    ndarray of float32
        Whose bytes are the block.
    """
    (
        kind, flags, rounding, bias_i, pre_b, pre_k, s1, s2, b, d, zf, lo, hi, zi, qlo, qhi, m64, mult, shift,
    ) = ep  # fmt: skip
    vectors = [bias_i.view(np.float32)]
    if kind == form.FLOAT32:
        if flags & form.PRE_BIAS:
            vectors.append(pre_b)
        vectors.append(s2)
        if flags & _BIAS_USERS:
            vectors.append(b)
    elif kind == form.FLOAT64:
        vectors.append(m64.view(np.float32))
    else:
        vectors += [mult.view(np.float32), shift.view(np.float32)]
    if repeat > 1:
        vectors = [vector for vector in vectors for _ in range(repeat)]
    stage = np.concatenate([_BLANK, *vectors, _SLACK])
    if kind > _FLOAT64 and not np.any(mult == -(2**31)) and not np.any(np.abs(shift.astype(np.int64)) > 31):
        kind += NARROW
    numbers = (kind, flags, rounding, pre_k, s1, d, zf, lo, hi, zi, qlo, qhi)
    _fill_header(stage, bias_i.shape[0] * repeat, numbers, out_kind, fused, halves_run_here())
    return stage
