"""What TorchInductor's generated C++ computes in float32, where that differs from the operators of the graph it was given.

Sums run in loops over memory, functions are taken apart to additions, products and an exponential, and no product is fused with a sum.
Images lie channels last there. The numbers are those of a CPU with AVX2; only sums over the densest axis depend on the length of a vector.
"""

import numpy as np

from refquant.core.sleef import aten_erf, sleef_exp
from refquant.errors import UnsupportedError

__all__ = ["inductor_sum", "inductor_mean", "batch_norm", "sigmoid", "silu", "elu", "gelu", "softmax"]

_F = np.float32
_UNROLLED = 8
_CHUNK = 4096


def inductor_sum(x, place, lanes=8):
    """Add a float32 array (B, R, C) over its middle axis, as the generated C++ does on one thread.

    One element after the other; over the densest axis (C = 1) and more than 8 elements in the lanes of a vector, which are added crosswise at
    the end. From 4,097 elements on, chunks of 4,096 are added pairwise.

    Parameters
    ----------
    x : ndarray of float32, (B, R, C)
    place : str
        For messages.
    lanes : int
        Float32 lanes of a vector.

    Returns
    -------
    ndarray of float32, (B, C)

    Raises
    ------
    UnsupportedError
        More than 4,096 elements of the densest axis.

    Source
    ------
    PyTorch 2.13 torch/_inductor/codegen/cpp.py, ``CppVecKernel.reduction``; torch/csrc/inductor/cpp_prefix.h, ``cascade_sum_combine``;
    ATen/cpu/vec/functional_base.h, ``VecReduceAllSIMD``.

    Examples
    --------
    >>> inductor_sum(np.float32([[[2**24], [1], [1]]]), "mean")
    array([[1.6777216e+07]], dtype=float32)
    """
    rows = x.shape[1]
    if x.shape[2] != 1 or rows <= _UNROLLED:
        return _cascade(x)
    if rows > _CHUNK:
        raise UnsupportedError(f"{place}: {rows} numbers side by side in memory, but in which order TorchInductor adds more than {_CHUNK} of them is not described; take order='float64'")
    total = _cascade(np.pad(x, ((0, 0), (0, -rows % lanes), (0, 0))).reshape(len(x), -1, lanes))
    while total.shape[1] > 1:
        half = total.shape[1] // 2
        total = total[:, :half] + total[:, half:]
    return total


def _cascade(x):
    """Add (B, R, C) over R one by one, in chunks that are added pairwise."""
    rows = x.shape[1]
    depth = (-(-rows // _CHUNK) - 1).bit_length()
    levels = [np.zeros((x.shape[0], x.shape[2]), _F) for _ in range(max(depth, 1))]
    for i in range(rows):
        levels[0] = levels[0] + x[:, i]
        chunks = 0 if (i + 1) % _CHUNK else (i + 1) // _CHUNK
        for j in range(1, depth):
            if not chunks or chunks >> (j - 1) & 1:
                break
            levels[j], levels[j - 1] = levels[j] + levels[j - 1], np.zeros_like(levels[0])
    for level in levels[1:]:
        levels[0] = levels[0] + level
    return levels[0]


def inductor_mean(x, axes, place):
    """Average a contiguous array over axes, which stay with length one; what has four or five axes lies channels last.

    Raises
    ------
    UnsupportedError
        Axes that do not lie side by side in memory.
    """
    order = [0, *range(2, x.ndim), 1] if x.ndim in (4, 5) else list(range(x.ndim))
    dense = np.ascontiguousarray(x.transpose(order))
    at = [order.index(d) for d in axes if x.shape[d] > 1]
    first, last = (min(at), max(at)) if at else (0, -1)
    if any(dense.shape[i] > 1 and i not in at for i in range(first, last + 1)):
        raise UnsupportedError(f"{place}: dim={tuple(axes)} of {x.shape}, but in which order TorchInductor adds over axes apart is not described; choose axes side by side in memory")
    count = int(np.prod([x.shape[d] for d in axes]))
    block = dense.reshape(int(np.prod(dense.shape[:first])), count, int(np.prod(dense.shape[last + 1 :])))
    shape = [1 if d in axes else x.shape[d] for d in order]
    return np.ascontiguousarray((inductor_sum(block, place) / _F(count)).reshape(shape).transpose(np.argsort(order)))


def batch_norm(x, mean, var, weight, bias, eps):
    """``(x - mean) · (1 / sqrt(var + eps)) · weight + bias``, each step rounded; parameters one a channel (axis 1)."""
    mean, var, weight, bias = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (mean, var, weight, bias))
    return (x - mean) * (_F(1) / np.sqrt(var + _F(eps))) * weight + bias


def sigmoid(x):
    """``1 / (1 + exp(-x))`` with SLEEF's exponential."""
    return _F(1) / (_F(1) + sleef_exp(-x))


def silu(x):
    """``x / (1 + exp(-x))`` with SLEEF's exponential."""
    return x / (_F(1) + sleef_exp(-x))


def elu(x, alpha):
    """``x`` where it is positive, else ``(exp(x) - 1) · alpha`` with SLEEF's exponential: small numbers lose what the subtraction cancels."""
    return np.where(x > 0, x, (sleef_exp(x) - _F(1)) * _F(alpha))


def gelu(x):
    """``x · 0.5 · (1 + erf(x · sqrt(0.5)))`` with ATen's erf."""
    return x * _F(0.5) * (aten_erf(x * _F(0.7071067811865476)) + _F(1))


def softmax(x, dim, place):
    """``exp(x - max)`` with SLEEF's exponential, divided by its sum; the last axis is the densest, and that of the channels of images."""
    if x.ndim in (4, 5) and dim == 1:
        return np.ascontiguousarray(np.moveaxis(softmax(np.moveaxis(x, 1, -1), x.ndim - 1, place), -1, 1))
    y = np.ascontiguousarray(sleef_exp(x - x.max(dim, keepdims=True, initial=-np.inf)))
    block = y.reshape(int(np.prod(y.shape[:dim])), y.shape[dim], int(np.prod(y.shape[dim + 1 :])))
    return (block / inductor_sum(block, place)[:, None]).reshape(y.shape)
