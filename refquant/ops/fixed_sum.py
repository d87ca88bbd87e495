"""Sums and differences of codes by integer multipliers, see `refquant.numerics.add_forms`."""

import numpy as np

from refquant.core.epilogue import gemmlowp_multiply, to_int32
from refquant.core.rounding import Round, round_shift
from refquant.core.wrap import saturate
from refquant.numerics.add_forms import FixedAddForm
from refquant.ops.output_stage import quantized_multiplier

__all__ = ["fixed_sum"]


def fixed_sum(form, qa, qb, out, codes_a, codes_b, activation, tail=False, sign=1):
    """Return the codes of ``a + sign · b``.

    Parameters
    ----------
    form : FixedAddForm or GemmlowpAddForm
    qa, qb, out : QParams
    codes_a, codes_b : ndarray of int8 or uint8
    activation : {None, "relu"}
    tail : bool
        Whether these are the elements that fill no step of the form's body.
    sign : {1, -1}
        Of the second multiplier.

    Returns
    -------
    ndarray of int64

    Source
    ------
    TensorFlow Lite: kernels/add.cc, sub.cc, internal/reference/integer_ops/add.h, optimized/integer_ops/add.h; XNNPACK: src/microparams-init.c.
    """
    if isinstance(form, FixedAddForm):
        return _clamped(_two_multipliers(form, qa, qb, out, codes_a, codes_b, sign), out, activation)
    neon = form.body == "neon" and not tail
    return _clamped(_three_multipliers(neon, qa, qb, out, codes_a, codes_b, sign), out, activation)


def _two_multipliers(form, qa, qb, out, codes_a, codes_b, sign):
    f = np.float32
    ra, rb = f(qa.scale) / f(out.scale), f(qb.scale) / f(out.scale)
    shift = form.bits + 1 - int(np.frexp(max(ra, rb))[1])
    ma, mb = (int(to_int32(np.ldexp(np.float64(r), shift))) for r in (ra, rb))
    total = (codes_a.astype(np.int64) - qa.zero_point) * ma + (codes_b.astype(np.int64) - qb.zero_point) * (sign * mb)
    return round_shift(total, shift, form.rounding)


def _three_multipliers(neon, qa, qb, out, codes_a, codes_b, sign):
    sa, sb, so = (np.float64(np.float32(q.scale)) for q in (qa, qb, out))
    twice = 2 * max(sa, sb)
    terms = []
    for q, s, codes, signed in ((qa, sa, codes_a, 1), (qb, sb, codes_b, sign)):
        mult, exponent = quantized_multiplier(s / twice)
        centred = codes.astype(np.int64) - q.zero_point
        if neon:
            terms.append(round_shift((centred << (20 + exponent)) * (signed * np.int64(mult)), 31, Round.HALF_UP))
        else:
            terms.append(gemmlowp_multiply(centred << 20, mult, exponent) * signed)
    mult, exponent = quantized_multiplier(twice / (2.0**20 * so))
    if not neon:
        return gemmlowp_multiply(terms[0] + terms[1], mult, exponent)
    high = round_shift((terms[0] + terms[1]) * np.int64(mult), 31, Round.HALF_UP)
    # vmovn_s32 and vaddq_s16 keep the low 16 bits.
    codes = (round_shift(high, -exponent, Round.HALF_AWAY) + out.zero_point).astype(np.int16)
    return codes.astype(np.int64) - out.zero_point


def _clamped(centred, out, activation):
    kind = out._type
    low = max(kind.qmin, out.zero_point) if activation == "relu" else kind.qmin
    return saturate(centred + out.zero_point, low, kind.qmax)
