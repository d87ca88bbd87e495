"""matmul: the product of two quantized tensors, matrix by matrix."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, ShapeError, UnsupportedError
from refquant.numerics.dispatch import resolve
from refquant.numerics.range_forms import RangeProductForm
from refquant.ops.arguments import check_eight_bit, check_product_out, check_qtensor
from refquant.ops.broadcast import broadcast_shape
from refquant.ops.linear import linear, linear_reference
from refquant.ops.output_stage import check_bias

__all__ = ["matmul", "matmul_reference", "product_of_stacks", "check_factors", "columns_as_channels"]


def check_factors(a, b, place):
    """Refuse two tensors that are no factors of a product: `a` per tensor, `b` per tensor or by its columns."""
    for name, q in (("a", a), ("b", b)):
        check_eight_bit(check_qtensor(q, name, place, per_channel=name == "b"), name, place)
    if b.qparams.per_channel and b.qparams.axis != b.ndim - 1:
        raise ArgumentError(f"{place}: b is quantized along axis {b.qparams.axis} but its columns are axis {b.ndim - 1}; quantize it along the last axis")
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ShapeError(f"{place}: a {a.shape} and b {b.shape} do not share K; a must be (..., M, K) and b (..., K, N)")


def columns_as_channels(q):
    """Return the parameters of columns as those of a layer's output channels."""
    return QParams(q.scale, q.zero_point, q.dtype, axis=0, quant_min=q.qmin, quant_max=q.qmax, unchecked=True) if q.per_channel else q


def product_of_stacks(a, b, bias=None, *, out=None, numerics, isa=None, layer=linear):
    """Same as `matmul`, by the forms of any profile, whether its engine has such an operator or not."""
    profile = profiles.get(numerics)
    place = f"matmul[{profile.name}]"
    check_factors(a, b, place)
    if out is not None:
        check_product_out(out, place)
    bias, qb = check_bias(bias, b.shape[-1], place), columns_as_channels(b.qparams)

    def product(u, v):
        y = layer(QTensor(np.ascontiguousarray(u), a.qparams), QTensor(np.ascontiguousarray(v.T), qb), bias, out=out, numerics=profile, isa=isa)
        return y if out is None else y.values

    if b.ndim == 2:
        y = product(a.values, b.values)
        return y if out is None else QTensor(y, out)
    shape = broadcast_shape(place, a=a.shape[:-2], b=b.shape[:-2])
    wide = [np.broadcast_to(q.values, (*shape, *q.shape[-2:])) for q in (a, b)]
    y = np.empty((*shape, a.shape[-2], b.shape[-1]), np.float32 if out is None else out.storage)
    for i in np.ndindex(*shape):
        y[i] = product(wide[0][i], wide[1][i])
    return y if out is None else QTensor(y, out)


def _matmul(a, b, bias, out, numerics, isa, layer):
    profile = profiles.get(numerics)
    profile.check_offered("matmul")
    if profile.matmul is None:
        return product_of_stacks(a, b, bias, out=out, numerics=profile, isa=isa, layer=layer)
    place = f"matmul[{profile.name}]"
    check_factors(a, b, place)
    if bias is not None or b.qparams.per_channel:
        what = "a bias" if bias is not None else "parameters of columns"
        raise UnsupportedError(f"{place}: {profile.engine} multiplies two activations without {what}; leave it out, or take linear where b is a layer's weight")
    if isinstance(profile.matmul, RangeProductForm) and (a.qparams.zero_point or b.qparams.zero_point or b.dtype != "int8"):
        zeros = a.qparams.zero_point, b.qparams.zero_point
        raise UnsupportedError(f"{place}: zero points {zeros} and b of {b.dtype}, with which {profile.engine} dequantizes and sums in float32; use zero points of 0 and int8 for b")
    profile = profile.on(isa, place)
    form = resolve(profile.matmul, x_shape=a.shape, w_shape=b.shape, groups=1, zero_points=(b.qparams.zero_point,))
    profile = profile.replace(linear=form, linear_int8=None, name=profile.name)
    return product_of_stacks(a, b, out=out, numerics=profile, layer=layer)


def matmul(a, b, bias=None, *, out=None, numerics="onnxruntime", isa=None):
    """Multiply two quantized tensors: ``y = a @ b + bias``; ``QLinearMatMul``, and ``MatMulIntegerToFloat`` where `out` is left out; TFLite's ``BATCH_MATMUL``.

    ``acc[m, n] = Σ_k (a[m, k] − za) · (b[k, n] − zb[n])`` in int32, then the profile's output stage, as for `refquant.ops.linear`.

    Parameters
    ----------
    a : QTensor, (..., M, K)
        uint8 or int8, per tensor.
    b : QTensor, (..., K, N)
        uint8 or int8, per tensor or per column (along its last axis). The axes before the last two broadcast.
    bias : array_like, (N,), optional
        As for `refquant.ops.linear`; this and columns' parameters for profiles without a section ``matmul`` alone.
    out : QParams, optional
        None asks for float32.
    numerics : str or Numerics
    isa : str, optional
        The processor level of the engine, as for `refquant.ops.linear`.

    Returns
    -------
    QTensor, or ndarray of float32, (..., M, N)

    Raises
    ------
    ArgumentError, ShapeError
        Parameters of rows, factors that do not share K, axes that do not broadcast.
    UnsupportedError
        The engine has no such operator, or dequantizes the factors first.

    Exactness
    ---------
    As `refquant.ops.linear`, matrix by matrix; bit-exact.

    Source
    ------
    ONNX Runtime 1.32, core/providers/cpu/quantization/quantize_linear_matmul.cc, contrib_ops/cpu/quantization/dynamic_quantize_matmul.cc;
    LiteRT 2.3.0, tensorflow/lite/kernels/batch_matmul.cc; OpenVINO 2026.4, low_precision_transformations/src/mat_mul.cpp.

    Examples
    --------
    >>> import refquant as rq
    >>> a = rq.QTensor(np.array([[[131, 128]]], np.uint8), rq.QParams(0.5, 128, "uint8"))
    >>> b = rq.QTensor(np.array([[[2, -1], [1, 4]]], np.int8), rq.QParams([0.25, 0.5], [0, 0], "int8", axis=2))
    >>> matmul(a, b).tolist(), matmul(a, b, out=rq.QParams(0.5, 3, "uint8")).values.tolist()
    ([[[0.75, -0.75]]], [[[5, 1]]])
    """
    return _matmul(a, b, bias, out, numerics, isa, linear)


def matmul_reference(a, b, bias=None, *, out=None, numerics="onnxruntime", isa=None):
    """Same result as `matmul`, in NumPy."""
    return _matmul(a, b, bias, out, numerics, isa, linear_reference)
