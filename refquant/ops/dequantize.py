"""dequantize: codes to real numbers, as each engine does it."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import dequantize_codes
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError
from refquant.kernels import affine as kernels
from refquant.numerics.forms import VectorDequantizeForm
from refquant.ops.memory_order import around_axis, memory_order, restored

__all__ = ["dequantize", "dequantize_reference"]


def _plan(q, numerics):
    profile = profiles.get(numerics)
    place = f"dequantize[{profile.name}]"
    if not isinstance(q, QTensor):
        raise ArgumentError(f"{place}: q must be a QTensor, not {type(q).__name__}; wrap the codes: refquant.QTensor(values, qparams)")
    return profile.section("dequantize_channel" if q.qparams.per_channel else "dequantize", "dequantize")


def dequantize(q, *, numerics="fbgemm"):
    """Dequantize codes: ``(code - zero_point) * scale`` as the engine computes it.

    Parameters
    ----------
    q : QTensor
    numerics : str or Numerics
        Whose arithmetic: which profile's ``dequantize`` (or ``dequantize_channel``) form.

    Returns
    -------
    ndarray of float32
        The shape and memory format of `q`.

    Exactness
    ---------
    One or two float32 roundings, see `refquant.numerics.forms.DequantizeForm`; bit-exact.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> q = rq.QTensor(np.array([0, 130], np.uint8), rq.QParams(0.5, 128, "uint8"))
    >>> dequantize(q, numerics="onnx")
    array([-64.,   1.], dtype=float32)
    """
    form = _plan(q, numerics)
    axes, source = memory_order(q.values)
    out = np.empty(source.shape, np.float32)
    if isinstance(form, VectorDequantizeForm):
        flat, target = source.reshape(-1), out.reshape(-1)
        for start, stop, formula in _parts(form, flat.size):
            target[start:stop] = dequantize_codes(flat[start:stop], q.qparams.scale, q.qparams.zero_point, formula)
        return restored(out, axes)
    # Copies, for parameters of channels are read-only, and the loops would be compiled for such arrays once more.
    scale, zero = np.array(q.qparams.scale, np.float64, ndmin=1), np.array(q.qparams.zero_point, np.int64, ndmin=1)
    kernels.dequantize_reals(source, out, _FORMULAS[form.formula], scale, zero, around_axis(q.shape, axes, q.qparams.axis))
    return restored(out, axes)


_FORMULAS = {"sub_mul": kernels.SUB_MUL, "sub_mul_wide": kernels.SUB_MUL_WIDE, "sub_mul32": kernels.SUB_MUL32, "sub_mul64": kernels.SUB_MUL64, "mul_add": kernels.MUL_ADD, "fma": kernels.FMA}


def dequantize_reference(q, *, numerics="fbgemm"):
    """Same result as `dequantize`, in NumPy."""
    form = _plan(q, numerics)
    if isinstance(form, VectorDequantizeForm):
        return dequantize(q, numerics=numerics)
    scale, zero = q.qparams.along(q.ndim)
    return dequantize_codes(q.values, scale, zero, form.formula)


def _parts(form, n):
    body = n // form.vector * form.vector
    return (0, body, form.formula), (body, n, form.tail)
