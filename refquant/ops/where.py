"""where: a choice between two quantized tensors, element by element."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.arguments import as_array
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError
from refquant.numerics.range_forms import RangeForm
from refquant.ops.arguments import check_eight_bit, check_out, check_qtensor
from refquant.ops.broadcast import broadcast_shape
from refquant.ops.range_elementwise import range_choice
from refquant.ops.requantize import requantize, requantize_reference

__all__ = ["where", "where_reference", "chosen_codes"]


def chosen_codes(condition, x, y, *, out, numerics, convert=requantize):
    """Same as `where`, by the forms of any profile, whether its engine has such an operator or not."""
    profile = profiles.get(numerics)
    place = f"where[{profile.name}]"
    condition = as_array(condition, "condition", place)
    if condition.dtype != np.bool_:
        raise ArgumentError(f"{place}: condition has dtype {condition.dtype} but must be bool; compare, or convert it with condition.astype(bool)")
    for name, q in (("x", x), ("y", y)):
        check_eight_bit(check_qtensor(q, name, place), name, place)
    if x.dtype != y.dtype or x.dtype != check_out(out, place).dtype:
        raise ArgumentError(f"{place}: x is {x.dtype}, y {y.dtype} and out {out.dtype}; all three must be of one dtype")
    broadcast_shape(place, condition=condition, x=x, y=y)
    if isinstance(profile.quantize, RangeForm):
        return QTensor(range_choice(profile.quantize, condition, x.qparams, y.qparams, out, x.values, y.values).astype(out.storage), out)
    x, y = (convert(q, out=out, numerics=profile).values for q in (x, y))
    return QTensor(np.ascontiguousarray(np.where(condition, x, y)), out)


def where(condition, x, y, *, out, numerics="onnxruntime"):
    """Choose codes of `x` where a condition holds, else of `y`, each taken to the parameters of the output: ``QLinearWhere``.

    ``z = condition ? requantize(x) : requantize(y)``, see `refquant.ops.requantize`.

    Parameters
    ----------
    condition : array_like of bool
    x, y : QTensor
        uint8 or int8, both alike, per tensor; the three shapes broadcast.
    out : QParams
        Of the same dtype.
    numerics : str or Numerics

    Returns
    -------
    QTensor
        Contiguous.

    Raises
    ------
    ArgumentError, ShapeError
        A condition that is not bool, dtypes that differ, shapes that do not broadcast.
    UnsupportedError
        The engine has no such operator.

    Exactness
    ---------
    Bit-exact: dequantize, then quantize, by a table of 256 entries. OpenVINO dequantizes by a difference and a product and chooses between real numbers.

    Source
    ------
    ONNX Runtime 1.32, contrib_ops/cpu/quantization/qlinear_where.cc; OpenVINO 2026.4, ``Select`` between FakeQuantize.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.array([2, 3], np.uint8), rq.QParams(0.5, 0, "uint8"))
    >>> y = rq.QTensor(np.array([7], np.uint8), rq.QParams(1.0, 5, "uint8"))
    >>> where([True, False], x, y, out=rq.QParams(0.25, 1, "uint8")).values
    array([5, 9], dtype=uint8)
    """
    profiles.get(numerics).check_offered("where")
    return chosen_codes(condition, x, y, out=out, numerics=numerics)


def where_reference(condition, x, y, *, out, numerics="onnxruntime"):
    """Same result as `where`, without tables."""
    profiles.get(numerics).check_offered("where")
    return chosen_codes(condition, x, y, out=out, numerics=numerics, convert=requantize_reference)
