"""TensorFlow Lite's MEAN over whole images, in its three readings."""

import numpy as np

from refquant.core.epilogue import gemmlowp_multiply, half_up_multiply, to_int32
from refquant.ops.output_stage import quantized_multiplier

__all__ = ["mean_centred", "mean_raw", "mean_float"]

_F = np.float32


def mean_centred(q, out, total, count):
    """The sum less its zero points, by a multiplier of 31 bits that is divided by the count as an integer.

    Source: reference/reduce.h, QuantizedMeanOrSum; kernels/reduce.cc.
    """
    n = int(count.reshape(-1)[0])
    mult, exponent = (int(v) for v in quantized_multiplier(np.float64(_F(q.scale)) / np.float64(_F(out.scale))))
    shift = min(n.bit_length() - 1, 32, 31 + exponent)
    return gemmlowp_multiply(total - n * int(q.zero_point), (mult << shift) // n, exponent - shift) + out.zero_point


def mean_raw(q, out, total, count, vector):
    """The sum of raw codes by a multiplier with two roundings: half up in whole blocks of `vector` channels, half away in the rest; both zero points as one integer.

    Source: optimized/integer_ops/mean.h.
    """
    n = _F(count.reshape(-1)[0])
    mult, exponent = quantized_multiplier(np.float64(_F(q.scale) / (n * _F(out.scale))))
    offset = _F(q.zero_point) * _F(q.scale) / _F(out.scale)
    # Just below a half the sum rounds up to the next integer.
    bias = int(offset + _F(0.5) if offset > 0 else offset - _F(0.5))
    whole = total.shape[1] // vector * vector if vector else total.shape[1]
    scaled = np.concatenate([half_up_multiply(total[:, :whole], mult, exponent), gemmlowp_multiply(total[:, whole:], mult, exponent)], axis=1)
    return scaled + out.zero_point - bias


def mean_float(q, out, total, count):
    """The sum of raw codes in float32, with both zero points inside of the rounding.

    Source: XNNPACK src/operators/reduce-nd.c, src/qs8-rdsum.
    """
    n = _F(count.reshape(-1)[0])
    factor = (_F(q.scale) / _F(out.scale)) * (_F(1) / n)
    return to_int32(total.astype(_F) * factor + (_F(out.zero_point) - _F(n * _F(q.zero_point)) * factor))
