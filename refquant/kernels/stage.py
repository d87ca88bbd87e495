"""An output stage as kernels read it: one block of memory with all numbers, and the vectors that the form uses.

    word     0 …           whole numbers: what is written, the kind, the flags, the limits, …   (`WORDS`)
             …             where each vector begins, in bytes from the start of the block, or 0   (`VECTORS`)
    float32  …             the scalars of the form   (`REALS`)
    vectors                those that the form uses, one behind the other

Rewriting a form
----------------
Most forms that end in bytes, round half to even and have no unusual step are rewritten, exactly, to one of two straight lines of instructions
(`refquant.kernels.finish_bytes`). Rounding, addition and multiplication by a positive number never reverse an order, and the limits
are whole numbers, so limits commute with them:

* CLAMP, then the limits of the code: one pair of limits of the code, and ``min(v, hi)`` against overflow. What lies below `lo`, and NaN,
  becomes at least ``-2**31``, and then the lower limit.
* RELU: a lower limit, the code of 0.
* A step that the form does not have: its neutral element, ``v * 1``, ``v + -0.0``, ``min(v, inf)``.
"""

from struct import Struct

import numpy as np

from refquant.core import epilogue as form

__all__ = [
    "RAW", "BYTES", "CODES32", "REALS32", "LINE_NONE", "LINE_SHORT", "LINE_LONG", "WORDS", "VECTORS", "REALS",
    "make_stage", "HEADER_WORDS", "RAW_STAGE", "output_kind",
]  # fmt: skip

RAW, BYTES, CODES32, REALS32 = range(4)
WORDS = "start_bias out_kind kind flags rounding low zi high line zi16 low8 high8 flip".split()
VECTORS = "bias_i pre_b s2 b mult shift m64".split()
REALS = "pre_k s1 d zf lo hi line_s1 line_d line_zf line_hi".split()
LINE_NONE, LINE_SHORT, LINE_LONG = range(3)
_HEADER = Struct(f"{len(WORDS) + len(VECTORS)}q{len(REALS)}f")
_FIELDS = tuple(form.Epilogue._fields.index(name) for name in VECTORS)
_FLOAT32_VECTORS = ((2,), (2, 1), (2, 3), (2, 1, 3))
_SHORT = form.PRE_BIAS | form.CLAMP | form.RELU
_LONG = form.SCALE1 | form.BIAS | form.RELU | form.DST_MUL | form.ZERO_FLOAT | form.CLAMP
_NO_LINE = (LINE_NONE, 0, 0, 1.0, 1.0, 0.0, 0.0)
_KINDS = {np.dtype(np.int32): CODES32, np.dtype(np.float32): REALS32}
HEADER_WORDS = len(WORDS)
RAW_STAGE = np.zeros(_HEADER.size // 4, np.float32)
"""The stage of `RAW`: int32 accumulators leave as they are."""


def output_kind(dtype):
    """How kernels write an output of `dtype`: codes of 8 or 32 bits, or float32."""
    return _KINDS.get(np.dtype(dtype), BYTES)


def _straight_line(ep):
    """Rewrite a form: ``(line, lowest code, highest code, s1, d, zf, hi)``; the line is `LINE_NONE` where that is not possible."""
    if ep.kind != form.FLOAT32 or ep.rounding != 0 or not -1000 < ep.zi < 1000:
        return _NO_LINE
    flags = ep.flags
    line = LINE_SHORT if flags | _SHORT == _SHORT else LINE_LONG if flags | _LONG == _LONG else LINE_NONE
    low, high, hi = ep.qlo, ep.qhi, np.inf
    if flags & form.CLAMP:
        lo, hi = float(ep.lo), float(ep.hi)
        if not (-1e6 < lo <= hi < 1e6 and lo.is_integer() and hi.is_integer()):
            return _NO_LINE
        low, high = (min(max(int(v) + ep.zi, ep.qlo), ep.qhi) for v in (lo, hi))
    zf = float(ep.zf) if flags & form.ZERO_FLOAT else -0.0
    d = float(ep.d) if flags & form.DST_MUL else 1.0
    if flags & form.RELU:
        if not (0 < d < np.inf and zf.is_integer() and abs(zf) < 1e6):
            return _NO_LINE
        code_of_0 = min(max(int(zf) + ep.zi, low), high)
        if code_of_0 > low and not flags & form.CLAMP:
            return _NO_LINE  # a positive overflow must still become the lowest code
        low = code_of_0
    if not (-128 <= low <= high <= 255) or (low < 0 and high > 127):
        return _NO_LINE
    return line, low, high, ep.s1 if flags & form.SCALE1 else 1.0, d, zf, hi


def make_stage(ep, out_kind, fused):
    """Lay an output stage out for kernels.

    Parameters
    ----------
    ep : Epilogue
    out_kind : int
        `BYTES`, `CODES32`: codes of 8 or 32 bits; `REALS32`: float32.
    fused : bool
        Whether a product adds ``bias_i``, as what its accumulators begin with. Else `finish_tile` does.

    Returns
    -------
    ndarray of float32
        Whose bytes are the block.
    """
    vectors, offsets, at = [], [0] * len(VECTORS), _HEADER.size
    for i in (0, *_used_vectors(ep)):
        vectors.append(ep[_FIELDS[i]].view(np.float32))
        offsets[i] = at
        at += vectors[-1].nbytes
    start_bias = offsets[0]
    if fused:
        offsets[0] = 0
    line, low8, high8, *line_reals = _straight_line(ep) if out_kind == BYTES and fused else _NO_LINE
    flip = 128 if low8 < 0 else 0
    header = _HEADER.pack(
        start_bias, out_kind, ep.kind, ep.flags, ep.rounding, max(ep.qlo - ep.zi, -(2**31)), ep.zi, min(ep.qhi - ep.zi, 2**31 - 1),
        line, ep.zi + flip, low8 + flip, high8 + flip, flip, *offsets,
        ep.pre_k if ep.flags & form.PRE_BIAS else 1.0, ep.s1, ep.d, ep.zf, ep.lo, ep.hi, *line_reals,
    )  # fmt: skip
    return np.concatenate([np.frombuffer(header, np.float32), *vectors])


def _used_vectors(ep):
    """Which vectors, but ``bias_i``, a form uses: their positions in `VECTORS`."""
    if ep.kind == form.FLOAT64:
        return (6,)
    if ep.kind != form.FLOAT32:
        return (4, 5)
    return _FLOAT32_VECTORS[(ep.flags & form.PRE_BIAS > 0) + 2 * (ep.flags & (form.BIAS | form.SCALE_FMA) > 0)]
