"""gemm: a scaled matrix product with an addend of any shape."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.arguments import as_array, as_real
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, RangeError, ShapeError
from refquant.ops.arguments import check_product_out
from refquant.ops.broadcast import broadcast_shape
from refquant.ops.linear import linear, linear_reference
from refquant.ops.matmul import check_factors, columns_as_channels

__all__ = ["gemm", "gemm_reference", "scaled_product"]


def _turned(q, name, place):
    """Return a matrix with its axes, and the axis of its parameters, exchanged."""
    if not isinstance(q, QTensor) or q.ndim != 2:
        raise ShapeError(f"{place}: {name} must be a QTensor with two axes, not {getattr(q, 'shape', type(q).__name__)}")
    p = q.qparams
    if p.per_channel:
        p = QParams(p.scale, p.zero_point, p.dtype, axis=1 - p.axis, quant_min=p.qmin, quant_max=p.qmax, unchecked=True)
    return QTensor(q.values.T, p)


def _addend(c, shape, place):
    if c is None:
        return None
    c = as_array(c, "c", place)
    if c.dtype != np.int32:
        raise ArgumentError(f"{place}: c has dtype {c.dtype} but must be int32, in units of alpha * a.scale * b.scale")
    if broadcast_shape(place, c=c, product=shape) != shape:
        raise ShapeError(f"{place}: c {c.shape} does not fit the product {shape}; give (N,), (1, N), (M, 1), (M, N) or one number")
    return c


def scaled_product(a, b, c=None, *, alpha=1.0, transpose_a=False, transpose_b=False, out=None, numerics, isa=None, layer=linear):
    """Same as `gemm`, by the forms of any profile, whether its engine has such an operator or not."""
    profile = profiles.get(numerics)
    place = f"gemm[{profile.name}]"
    a = _turned(a, "a", place) if transpose_a else a
    b = _turned(b, "b", place) if transpose_b else b
    check_factors(a, b, place)
    if a.ndim != 2 or b.ndim != 2:
        raise ShapeError(f"{place}: a {a.shape} and b {b.shape} must be matrices; of stacks of them take matmul")
    alpha = as_real(alpha, "alpha", place)
    if abs(alpha) > np.finfo(np.float32).max:
        raise RangeError(f"{place}: alpha={alpha!r} must be finite as a float32; choose a smaller one")
    if out is not None:
        check_product_out(out, place)
    shape = (a.shape[0], b.shape[1])
    c = _addend(c, shape, place)
    scale = np.float32(alpha) * np.float32(a.qparams.scale)
    a = QTensor(np.ascontiguousarray(a.values), QParams(float(scale), a.qparams.zero_point, a.dtype, unchecked=True))
    w = QTensor(np.ascontiguousarray(b.values.T), columns_as_channels(b.qparams))

    def product(rows, bias):
        y = layer(QTensor(rows, a.qparams), w, bias, out=out, numerics=profile, isa=isa)
        return y if out is None else y.values

    if c is None or c.ndim < 2 or c.shape[0] == 1:
        y = product(a.values, None if c is None else np.broadcast_to(c.reshape(-1), shape[1:]))
    else:
        wide = np.broadcast_to(c, shape)
        y = np.concatenate([product(a.values[i : i + 1], wide[i]) for i in range(shape[0])])
    return y if out is None else QTensor(y, out)


def gemm(a, b, c=None, *, alpha=1.0, transpose_a=False, transpose_b=False, out=None, numerics="onnxruntime", isa=None):
    """Multiply two quantized matrices, scale the product and add to it: ``y = alpha · a @ b + c``, ``QGemm``.

    ``acc[m, n] = Σ_k (a[m, k] − za) · (b[k, n] − zb[n]) + c[m, n]`` in int32, then the profile's output stage with ``f(alpha · sa)`` for the scale of `a`.

    Parameters
    ----------
    a : QTensor, (M, K), or (K, M) with `transpose_a`
        uint8 or int8, per tensor.
    b : QTensor, (K, N), or (N, K) with `transpose_b`
        Per tensor, or with one scale a column of the product.
    c : array_like of int32, optional
        (M, N) or what broadcasts to it, in units of ``alpha · a.scale · b.scale``.
    alpha : float
    transpose_a, transpose_b : bool
    out : QParams, optional
        None asks for float32.
    numerics : str or Numerics
    isa : str, optional
        The processor level of the engine, as for `refquant.ops.linear`.

    Returns
    -------
    QTensor, or ndarray of float32, (M, N)

    Raises
    ------
    ArgumentError, RangeError, ShapeError
        An addend that is not int32 or does not fit, factors that do not share K, a scale factor that is not finite.
    UnsupportedError
        The engine has no such operator.

    Exactness
    ---------
    As `refquant.ops.linear`; bit-exact for K of 1 and more. (With K = 0 ONNX Runtime 1.32 leaves most of a float32 output as it lay in memory.)

    Source
    ------
    ONNX Runtime 1.32, contrib_ops/cpu/quantization/quant_gemm.cc.

    Examples
    --------
    >>> import refquant as rq
    >>> a = rq.QTensor(np.array([[131, 128], [0, 129]], np.uint8), rq.QParams(0.5, 128, "uint8"))
    >>> b = rq.QTensor(np.array([[2, 1], [-1, 4]], np.int8), rq.QParams(0.25, 0, "int8"))
    >>> gemm(a, b, np.int32([[10], [300]]), alpha=0.5, transpose_b=True).tolist()
    [[1.0, 0.4375], [2.8125, 27.0]]
    """
    profiles.get(numerics).check_offered("gemm")
    return scaled_product(a, b, c, alpha=alpha, transpose_a=transpose_a, transpose_b=transpose_b, out=out, numerics=numerics, isa=isa)


def gemm_reference(a, b, c=None, *, alpha=1.0, transpose_a=False, transpose_b=False, out=None, numerics="onnxruntime", isa=None):
    """Same result as `gemm`, in NumPy."""
    profiles.get(numerics).check_offered("gemm")
    return scaled_product(a, b, c, alpha=alpha, transpose_a=transpose_a, transpose_b=transpose_b, out=out, numerics=numerics, isa=isa, layer=linear_reference)
