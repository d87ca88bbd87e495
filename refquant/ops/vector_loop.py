"""Where ATen's vectorized loops leave int32: their bodies add the zero point in 32 bits, the scalar loops behind them in 64."""

import numpy as np

from refquant.core.affine import quantize_real
from refquant.core.rounding import Round
from refquant.core.wrap import saturate

__all__ = ["leaves_int32", "loop_codes"]

# Below, no rounded number and no zero point leave int32 together.
_NEAR = 2.0**30


def leaves_int32(acc, stage):
    """Whether a scaled accumulator is so large that its sum with the zero point can leave int32.

    Parameters
    ----------
    acc : ndarray of int32
    stage : Epilogue
        With one multiplier.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return acc.size > 0 and not np.abs(acc.astype(np.float32)).max() * stage.s2[0] < _NEAR


def loop_codes(acc, stage, dtype, tail):
    """Return the codes of accumulators of an elementwise loop.

    Parameters
    ----------
    acc : ndarray of int32
    stage : Epilogue
        With one multiplier, and the zero point behind the rounding.
    dtype : numpy.dtype
    tail : ndarray of bool, broadcastable
        What the scalar loop takes.

    Returns
    -------
    ndarray of `dtype`

    Source
    ------
    PyTorch 2.13 aten/src/ATen/cpu/vec: ``Vectorized<c10::quint8>::requantize_from_int``; ATen/native/quantized/AffineQuantizer.cpp, ``requantize_from_int``.

    Examples
    --------
    >>> from refquant.core.epilogue import make_epilogue
    >>> stage = make_epilogue(1, s2=1e9, zi=-3, qlo=-128, qhi=127)
    >>> loop_codes(np.array([-9, -9, 9, 9], np.int32), stage, np.int8, np.array([False, True, False, True]))
    array([ 127, -128,  127,  127], dtype=int8)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        v = acc.astype(np.float32) * stage.s2[0]
    how = {"scaling": "reciprocal", "add": "after", "rounding": list(Round)[stage.rounding], "nan": "overflow"}
    body, scalar = (quantize_real(v, 1.0, stage.zi, stage.qlo, stage.qhi, overflow=overflow, **how) for overflow in ("indefinite", "long"))
    return saturate(np.where(tail, scalar, body), stage.qlo, stage.qhi).astype(dtype)
