"""layer_norm, softmax, gelu, matmul and permute on float32 arrays: what stands between the linear layers of a transformer.

Exponentials, and sums by a library of linear algebra, come out otherwise in every library and on every processor. So the order
``"torch_avx512"`` means no more here than NumPy's float32, close to PyTorch's numbers and as fast; ``"float64"`` rounds once, at the end;
``"inductor"`` is there for softmax and gelu.
"""

import numpy as np

from refquant.errors import ArgumentError, ShapeError, choose
from refquant.ops.real import inductor
from refquant.ops.real.few_values import few_values
from refquant.ops.real.order import check_order, real_input

__all__ = ["layer_norm", "softmax", "gelu", "matmul", "permute"]


def _wide(x, name, place, order, generated=False):
    kind = np.float64 if check_order(order, place, generated) == "float64" else np.float32
    return real_input(x, name, place).astype(kind, copy=False)


def layer_norm(x, weight, bias, *, eps=1e-5, order="torch_avx512"):
    """Normalise the last axes, those of `weight`: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Examples
    --------
    >>> layer_norm(np.float32([[1, 3]]), np.ones(2, np.float32), np.float32([0, 2]), eps=0.0)
    array([[-1.,  3.]], dtype=float32)
    """
    x = _wide(x, "x", "layer_norm", order)
    last = np.shape(weight)
    if not last or x.shape[max(x.ndim - len(last), 0) :] != last or last != np.shape(bias):
        raise ShapeError(f"layer_norm: x has shape {x.shape}, weight {last} and bias {np.shape(bias)}; one entry for each of the last axis or axes")
    rows = x.reshape(*x.shape[: x.ndim - len(last)], int(np.prod(last)))
    centred = rows - rows.mean(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        y = centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + x.dtype.type(eps))
    return (y * np.reshape(weight, -1) + np.reshape(bias, -1)).astype(np.float32, copy=False).reshape(x.shape)


def softmax(x, dim=-1, *, order="torch_avx512"):
    """Exponentials along an axis, divided by their sum.

    Examples
    --------
    >>> softmax(np.float32([0, 0]))
    array([0.5, 0.5], dtype=float32)
    """
    x = _wide(x, "x", "softmax", order, generated=True)
    if not -x.ndim <= dim < x.ndim:
        raise ArgumentError(f"softmax: dim={dim} but x has shape {x.shape}; choose {-x.ndim} … {x.ndim - 1}")
    with np.errstate(invalid="ignore"):
        if order == "inductor":
            return inductor.softmax(x, dim % x.ndim, "softmax")
        y = np.exp(x - x.max(dim, keepdims=True, initial=-np.inf))
        return (y / y.sum(dim, keepdims=True)).astype(np.float32, copy=False)


def gelu(x, approximate="none", *, order="torch_avx512"):
    """``x * (1 + erf(x / sqrt(2))) / 2``, or with ``approximate="tanh"`` ``x * (1 + tanh(sqrt(2/π) * (x + 0.044715 x³))) / 2``.

    Examples
    --------
    >>> gelu(np.float32([-10, 0, 10]))
    array([-0.,  0., 10.], dtype=float32)
    >>> gelu(np.float32([1]), "tanh")
    array([0.841192], dtype=float32)
    """
    x = _wide(x, "x", "gelu", order, generated=approximate == "none")
    half = x.dtype.type(0.5)
    if choose("gelu", "approximate", approximate, ("none", "tanh")) == "tanh":
        with np.errstate(invalid="ignore", over="ignore"):
            inner = x.dtype.type(np.sqrt(2 / np.pi)) * (x + x.dtype.type(0.044715) * x * x * x)
            return (x * half * (1 + np.tanh(inner))).astype(np.float32, copy=False)
    if order == "inductor":
        return inductor.gelu(x)
    from scipy.special import erf  # takes longer to import than all of refquant

    with np.errstate(invalid="ignore"):
        return few_values(lambda x: (x * half * (1 + erf(x * np.sqrt(half)))).astype(np.float32, copy=False), x)


def matmul(a, b, *, order="torch_avx512"):
    """Multiply the matrices of the last two axes; axes before those broadcast.

    Examples
    --------
    >>> matmul(np.float32([[1, 2]]), np.float32([[3], [4]]))
    array([[11.]], dtype=float32)
    """
    a, b = _wide(a, "a", "matmul", order), _wide(b, "b", "matmul", order)
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2] or not _broadcast(a.shape[:-2], b.shape[:-2]):
        raise ShapeError(f"matmul: a has shape {a.shape} and b {b.shape}; they must be (..., M, K) and (..., K, N)")
    return (a @ b).astype(np.float32, copy=False)


def _broadcast(a, b):
    return all(n == m or 1 in (n, m) for n, m in zip(a[::-1], b[::-1]))


def permute(x, dims):
    """Reorder axes.

    Examples
    --------
    >>> permute(np.zeros((2, 3, 4), np.float32), (0, 2, 1)).shape
    (2, 4, 3)
    """
    x = np.asarray(x)
    if sorted(d % max(x.ndim, 1) for d in dims) != list(range(x.ndim)):
        raise ArgumentError(f"permute: dims={tuple(dims)} but x has shape {x.shape}; name each of its {x.ndim} axes once")
    return np.ascontiguousarray(x.transpose(dims))
