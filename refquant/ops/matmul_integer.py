"""matmul_integer: the integer product alone."""

import math

import numpy as np

from refquant.core.arguments import as_array, as_integers
from refquant.core.levels import check_level
from refquant.core.wrap import saturate_int16, wrap_int32
from refquant.errors import ArgumentError, RangeError, ShapeError
from refquant.isa.cpu import level
from refquant.kernels.gemm import bind_gemm
from refquant.ops.pack_weights import PackedWeights, pack_weights

__all__ = ["matmul_integer", "matmul_integer_reference"]


def _plan(a, b, a_zero_point, b_zero_point, isa):
    place = "matmul_integer"
    check_level(isa, place)
    a = as_array(a, "a", place)
    packed = b if isinstance(b, PackedWeights) else None
    values = b.values if packed is not None else as_array(b, "b", place)
    for name, v in (("a", a), ("b", values)):
        if v.dtype not in (np.uint8, np.int8):
            raise ArgumentError(f"{place}: {name} has dtype {v.dtype} but must be uint8 or int8; convert the codes")
    if values.ndim != 2 or a.ndim < 1 or a.shape[-1] != values.shape[0]:
        raise ShapeError(f"{place}: a has shape {a.shape} and b {values.shape}; a must be (..., K) and b (K, N)")
    a_zero, b_zero = as_integers(a_zero_point, "a_zero_point", place), as_integers(b_zero_point, "b_zero_point", place)
    if a_zero.ndim or b_zero.ndim > 1 or (b_zero.ndim and b_zero.shape != (values.shape[1],)):
        raise ShapeError(f"{place}: a_zero_point must be a scalar and b_zero_point a scalar or ({values.shape[1]},), not {a_zero.shape} and {b_zero.shape}")
    for name, zero, v in (("a_zero_point", a_zero, a), ("b_zero_point", b_zero, values)):
        info = np.iinfo(v.dtype)
        if zero.size and (zero.min() < info.min or zero.max() > info.max):
            raise RangeError(f"{place}: {name} spans [{zero.min()}, {zero.max()}] outside of {v.dtype} [{info.min}, {info.max}]; clamp it")
    pairs = isa is not None and not level(isa).vnni and a.dtype == np.uint8 and values.dtype == np.int8
    return a, values, packed, int(a_zero), b_zero, pairs


def matmul_integer(a, b, *, a_zero_point=0, b_zero_point=0, isa=None, out=None):
    """Multiply matrices of codes into int32: ``Σ_k (a[m, k] − za) · (b[k, n] − zb[n])``.

    Parameters
    ----------
    a : array_like of uint8 or int8, (..., K)
    b : array_like of uint8 or int8, (K, N), or PackedWeights
    a_zero_point : int
    b_zero_point : int or array_like of int, (N,)
    isa : str, optional
        A processor level of `refquant.core.levels.LEVEL_NAMES`. None, or a level with VNNI or dot products, gives the exact product modulo
        2**32. One without, such as ``"avx2"``, gives what ``vpmaddubsw`` does with unsigned `a` and signed `b`: products of neighbouring k are
        added in int16 with saturation. Other sign combinations are computed on 16 bits by engines, and are exact.
    out : ndarray of int32, (..., N), optional
        Where the result is written: C-contiguous, and not the memory of `a` or `b`. A new array unless given.

    Returns
    -------
    ndarray of int32, (..., N)

    Exactness
    ---------
    Exact modulo 2**32: overflow wraps, as in ONNX's MatMulInteger and on hardware.

    Examples
    --------
    >>> import numpy as np
    >>> a, b = np.full((1, 4), 255, np.uint8), np.full((4, 1), 127, np.int8)
    >>> int(matmul_integer(a, b)[0, 0]), int(matmul_integer(a, b, isa="avx2")[0, 0])
    (129540, 65534)
    """
    run = _bound(a, b, a_zero_point, b_zero_point, isa)
    a, columns = np.asarray(a), np.shape(b.values if isinstance(b, PackedWeights) else b)[1]
    shape = (*a.shape[:-1], columns)
    if out is None:
        return run(_rows(a), None).reshape(shape)
    _check_out(out, shape, (a, b.values if isinstance(b, PackedWeights) else b))
    run(_rows(a), out.reshape(math.prod(shape[:-1]), columns))
    return out


def _bound(a, b, a_zero_point, b_zero_point, isa):
    """The product as a function of the rows and of where to write it, remembered by packed weights."""
    make = lambda: _bind(*_plan(a, b, a_zero_point, b_zero_point, isa))  # noqa: E731
    if isinstance(b, PackedWeights) and isinstance(a, np.ndarray) and type(a_zero_point) is type(b_zero_point) is int:
        return b.memo.get((), (a.dtype, a.shape[-1:], a_zero_point, b_zero_point, isa), make)
    return make()


def _bind(a, values, packed, za, zb, pairs):
    if not pairs:
        packed = packed or pack_weights(values)
        return bind_gemm(packed.packed, None, np.dtype(np.int32), signed=a.dtype == np.int8, a_zero=za, b_zero=zb[()])
    from refquant.kernels.pairs import pack_pairs
    from refquant.kernels.tile import PLAIN

    paired = pack_pairs(values)
    if paired.rung != PLAIN:
        return bind_gemm(paired, None, np.dtype(np.int32), a_zero=za, b_zero=zb[()])

    def run(rows, out):
        out = np.empty((len(rows), values.shape[1]), np.int32) if out is None else out
        out[...] = _saturating(rows, values, za, zb)
        return out

    return run


def _check_out(out, shape, inputs):
    place = "matmul_integer"
    if not isinstance(out, np.ndarray) or out.dtype != np.int32 or out.shape != shape:
        what = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ArgumentError(f"{place}: out is {what} but must be an int32 array of shape {shape}; use np.empty({shape}, np.int32)")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ArgumentError(f"{place}: out must be C-contiguous and writeable; use np.empty({shape}, np.int32)")
    if any(np.may_share_memory(out, x) for x in inputs):
        raise ArgumentError(f"{place}: out shares memory with a or b, which are read while it is written; give memory of its own")


def _rows(a):
    return a.reshape(math.prod(a.shape[:-1]), a.shape[-1])


def _saturating(a, b, za, zb):
    from refquant.kernels.pairs import gemm_s16pair_s32

    return wrap_int32(gemm_s16pair_s32(a, b).astype(np.int64) + _zero_terms(a, b, za, zb))


def _zero_terms(a, b, za, zb):
    a, b = a.astype(np.int64), b.astype(np.int64)
    return -za * b.sum(0) - a.sum(-1, keepdims=True) * zb + a.shape[-1] * za * zb


def matmul_integer_reference(a, b, *, a_zero_point=0, b_zero_point=0, isa=None):
    """Same result as `matmul_integer`, in NumPy."""
    a, b, _, za, zb, pairs = _plan(a, b, a_zero_point, b_zero_point, isa)
    wide_a, wide_b = a.astype(np.int64), b.astype(np.int64)
    if not pairs:
        return wrap_int32((wide_a - za) @ (wide_b - zb))
    products = wide_a[..., None] * wide_b
    even = products.shape[-2] // 2 * 2
    acc = saturate_int16(products[..., 0:even:2, :] + products[..., 1:even:2, :]).sum(-2) + products[..., even:, :].sum(-2)
    return wrap_int32(acc + _zero_terms(a, b, za, zb))
