"""clamp, hardtanh, relu6: codes between two codes."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import quantize_real
from refquant.core.arguments import as_real
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError
from refquant.numerics.range_forms import RangeForm
from refquant.ops.arguments import check_eight_bit, check_qtensor
from refquant.ops.range_elementwise import range_limit

__all__ = ["clamp", "hardtanh", "relu6"]


def _limit(value, name, form, qparams, place):
    """Return the code of a limit, None for none."""
    if value is None:
        return None
    with np.errstate(over="ignore"):
        value = np.float32(as_real(value, name, place, finite=False))
    kind = qparams._type
    if isinstance(form, RangeForm):
        return kind.storage.type(range_limit(value, qparams))
    return kind.storage.type(
        quantize_real(
            value, qparams.scale, qparams.zero_point, kind.qmin, kind.qmax,
            scaling=form.scaling, add=form.zero_point, rounding=form.rounding, overflow=form.overflow, nan=form.nan,
        )  # fmt: skip
    )


def _clamp(x, low, high, numerics, op):
    profile = profiles.get(numerics)
    place = f"{op}[{profile.name}]"
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    form = profile.section("clamp", op)
    if low is None and high is None:
        raise ArgumentError(f"{place}: min and max are both None; give one of them at least")
    low, high = (_limit(v, name, form, x.qparams, place) for name, v in (("min", low), ("max", high)))
    y = x.values if low is None else np.maximum(x.values, low)
    return QTensor(y if high is None else np.minimum(y, high), x.qparams)


def clamp(x, min=None, max=None, *, numerics="fbgemm"):
    """Limit the numbers behind codes: ``min(max(code, code of min), code of max)``.

    Parameters
    ----------
    x : QTensor
        uint8 or int8, per tensor.
    min, max : float, optional
        One of them at least; where `min` exceeds `max`, all become `max`.
    numerics : str or Numerics
        Whose ``clamp`` form makes codes of the limits.

    Returns
    -------
    QTensor
        With the parameters and the memory format of `x`.

    Raises
    ------
    RangeError
        A limit that is NaN.

    Exactness
    ---------
    Bit-exact. PyTorch takes a limit through ``quantize_val``, which rounds product and zero point apart, other than ``quantize_per_tensor``;
    OpenVINO cuts a limit between two codes off towards 0.

    Source
    ------
    PyTorch 2.13 QuantizedOpKernels.cpp, ``qclamp_kernel``; OpenVINO low_precision_transformations/src/clamp.cpp.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> x = rq.QTensor(np.array([0, 130, 255], np.uint8), rq.QParams(0.5, 128, "uint8"))
    >>> clamp(x, -1.0, 6.0).values
    array([126, 130, 140], dtype=uint8)
    """
    return _clamp(x, min, max, numerics, "clamp")


def hardtanh(x, min_val=-1.0, max_val=1.0, *, numerics="fbgemm"):
    """Limit the numbers behind codes to −1 … 1 unless told otherwise: `clamp`."""
    return _clamp(x, min_val, max_val, numerics, "hardtanh")


def relu6(x, *, numerics="fbgemm"):
    """Limit the numbers behind codes to 0 … 6: `clamp`."""
    return _clamp(x, 0.0, 6.0, numerics, "relu6")
