"""Linear layers that quantize each row of their input by itself, to int8, as TensorFlow Lite's hybrid kernels and XNNPACK's do."""

import numpy as np

from refquant.core.fma import fma32
from refquant.core.rounding import Round, round_real

__all__ = ["LEAST", "row_dynamic"]

_F = np.float32
#: Rows whose numbers are all smaller have scales that kernels flush to zero, or inverses that overflow.
LEAST = 2.0**-100
# Numbers that NEON_2_SSE takes at a step.
_STEP = 8


def _in_steps(v):
    """Round half away as vectors of eight do, by adding a half in float32 and cutting off; the rest of a row exactly."""
    whole = v.shape[1] // _STEP * _STEP
    body = np.trunc(v[:, :whole] + np.copysign(_F(0.5), v[:, :whole]))
    return np.concatenate([body, round_real(v[:, whole:], Round.HALF_AWAY)], axis=1)


def _symmetric(x):
    """Return (codes, zero points, scales): tensor_utils, SymmetricQuantizeFloats."""
    most = np.abs(x).max(1)
    scale = np.where(most == 0, _F(1), most / _F(127))
    inverse = np.where(most == 0, _F(0), _F(127) / most)
    return np.clip(_in_steps(x * inverse[:, None]), -127, 127), np.zeros(len(x)), scale


def _asymmetric(x):
    """Return (codes, zero points, scales): tensor_utils, AsymmetricQuantizeFloats."""
    low, high = np.minimum(x.min(1), _F(0)), np.maximum(x.max(1), _F(0))
    flat = low == high
    wide = np.where(flat, 1.0, (high - low).astype(np.float64) / 255.0)
    below, above = low.astype(np.float64) / wide, high.astype(np.float64) / wide
    zero = np.where(128 + np.abs(below) < 127 + np.abs(above), -128 - below, 127 - above)
    zero = np.where(flat, 0.0, round_real(np.clip(zero, -128, 127), Round.HALF_AWAY))
    scale = wide.astype(_F)
    codes = np.clip(zero[:, None] + _in_steps(x * (_F(1) / scale)[:, None]), -128, 127)
    return np.where(flat[:, None], 0.0, codes), zero, scale


def _by_xnnpack(x):
    """Return (codes, zero points, scales): XNNPACK src/xnnpack/quantization.h, xnn_f32_qd8_asymmetric_quantization_params."""
    low, high = np.minimum(x.min(1), _F(0)), np.maximum(x.max(1), _F(0))
    inverse = np.where(low == high, _F(1), _F(255) / (high - low))
    below, above = low * inverse, high * inverse
    zero = np.where((_F(-128) + below) + (_F(127) + above) > 0, _F(-128) - below, _F(127) - above)
    zero = round_real(np.clip(zero, -128, 127), Round.HALF_EVEN)
    codes = np.clip(round_real(x * inverse[:, None], Round.HALF_EVEN) + zero[:, None], -128, 127)
    return codes, zero, _F(1) / inverse


def row_dynamic(form, x, w, bias, symmetric):
    """Return float32 (M, OC) of float32 rows (M, K) and int8 weights (OC, K) with zero point 0.

    Exactness
    ---------
    Sums are exact. TensorFlow Lite: ``f(acc · f(s · sw)) + bias``; XNNPACK: ``fma(f(acc · s), sw, bias)``; s the scale of the row.
    """
    with np.errstate(all="ignore"):
        codes, zero, scale = _by_xnnpack(x) if form.style == "xnnpack" else (_symmetric if symmetric else _asymmetric)(x)
        acc = ((codes - zero[:, None]).astype(np.int64) @ w.values.astype(np.int64).T).astype(_F)
        factors = np.asarray(w.qparams.scale).astype(_F)
        bias = np.zeros(w.shape[0], _F) if bias is None else bias
        if form.style == "xnnpack":
            return fma32(acc * scale[:, None], np.broadcast_to(factors, acc.shape), np.broadcast_to(bias, acc.shape))
        return acc * (scale[:, None] * factors) + bias
