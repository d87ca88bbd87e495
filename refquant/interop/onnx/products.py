"""Matrix products on real numbers."""

import numpy as np

from refquant.interop.onnx.call import broadcast_size, check_size, need

__all__ = ["matmul", "gemm", "einsum", "det"]


def _wide(x):
    return x.astype(np.float32) if x.dtype.name in ("float16", "bfloat16") else x


def matmul(call, a, b):
    """``MatMul``, as ``numpy.matmul``."""
    need(call, a.dtype == b.dtype, f"factors are {a.dtype} and {b.dtype} but must be of one type")
    need(call, a.ndim >= 1 and b.ndim >= 1, f"factors have shapes {a.shape} and {b.shape}")
    inner = b.shape[-2] if b.ndim > 1 else b.shape[0]
    need(call, a.shape[-1] == inner, f"factors {a.shape} and {b.shape} do not share K ({a.shape[-1]} and {inner})")
    lead = broadcast_size(call.place, np.empty(a.shape[:-2], np.bool_), np.empty(b.shape[:-2], np.bool_))
    check_size((*lead, *a.shape[-2:-1], *(b.shape[-1:] if b.ndim > 1 else ())), a.dtype.itemsize, call.place)
    return np.matmul(_wide(a), _wide(b)).astype(a.dtype, copy=False)


def gemm(call, a, b, c=None):
    """``Gemm``: ``alpha * a @ b + beta * c``, either factor transposed if asked for."""
    need(call, a.ndim == 2 and b.ndim == 2, f"factors have shapes {a.shape} and {b.shape} but must be matrices")
    need(call, a.dtype == b.dtype, f"factors are {a.dtype} and {b.dtype} but must be of one type")
    a = a.T if call.get("transA", 0) else a
    b = b.T if call.get("transB", 0) else b
    need(call, a.shape[1] == b.shape[0], f"factors {a.shape} and {b.shape} do not share K")
    check_size((a.shape[0], b.shape[1]), a.dtype.itemsize, call.place)
    y = np.matmul(_wide(a), _wide(b))
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    y = y if alpha == 1 else (y * y.dtype.type(alpha)).astype(y.dtype)
    if c is not None and beta != 0:
        need(call, broadcast_size(call.place, y, c) == y.shape, f"c {c.shape} does not broadcast to {y.shape}")
        y = y + (c if beta == 1 else c * c.dtype.type(beta))
    return y.astype(a.dtype, copy=False)


def einsum(call, *xs):
    """``Einsum`` with its equation."""
    return np.asarray(np.einsum(call.require("equation").replace(" ", ""), *(_wide(x) for x in xs), optimize=True)).astype(xs[0].dtype)


def det(call, x):
    """``Det``: determinants of a stack of matrices."""
    return np.asarray(np.linalg.det(x)).astype(x.dtype)
