"""group_norm, instance_norm and local_response_norm on float32 arrays.

The sums of a group are NumPy's float32 under ``"torch_avx512"``, close to PyTorch's numbers; ``"float64"`` rounds once, at the end.
"""

import numpy as np

from refquant.errors import ShapeError
from refquant.ops.real.order import check_order, in_format_of, real_input

__all__ = ["group_norm", "instance_norm", "local_response_norm"]


def group_norm(x, num_groups, weight=None, bias=None, *, eps=1e-5, order="torch_avx512"):
    """Normalise groups of channels of (N, C, ...): ``(x - mean) / sqrt(var + eps) * weight[c] + bias[c]``.

    Examples
    --------
    >>> group_norm(np.float32([[[1], [3]]]), 1, eps=0.0).ravel()
    array([-1.,  1.], dtype=float32)
    """
    return _normalised("group_norm", x, num_groups, weight, bias, eps, order)


def instance_norm(x, weight=None, bias=None, *, eps=1e-5, order="torch_avx512"):
    """Normalise each channel of each image: `group_norm` with as many groups as channels."""
    return _normalised("instance_norm", x, np.shape(x)[1] if np.ndim(x) > 1 else 1, weight, bias, eps, order)


def _normalised(place, x, groups, weight, bias, eps, order):
    kind = np.float64 if check_order(order, place) == "float64" else np.float32
    given, x = x, real_input(x, "x", place)
    if x.ndim < 2 or groups < 1 or x.shape[1] % groups:
        raise ShapeError(f"{place}: x has shape {x.shape} but must be (N, C, ...) with C a multiple of {groups} groups")
    for name, v in (("weight", weight), ("bias", bias)):
        if v is not None and np.shape(v) != (x.shape[1],):
            raise ShapeError(f"{place}: {name} has shape {np.shape(v)} but must be ({x.shape[1]},), one number a channel")
    rows = x.astype(kind).reshape(x.shape[0], groups, int(np.prod(x.shape[1:])) // groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        centred = rows - rows.mean(-1, keepdims=True)
        y = (centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + kind(eps))).reshape(x.shape)
    along = (-1, *[1] * (x.ndim - 2))
    y = y if weight is None else y * np.reshape(weight, along)
    y = y if bias is None else y + np.reshape(bias, along)
    return in_format_of(y.astype(np.float32), given)


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0, *, order="torch_avx512"):
    """Divide (N, C, ...) by ``(k + alpha * mean of squares over size neighbouring channels) ** beta``; the power is libm's.

    Examples
    --------
    >>> local_response_norm(np.float32([[[2], [4]]]), 1, alpha=1.0, beta=1.0, k=0.0).ravel()
    array([0.5 , 0.25], dtype=float32)
    """
    place = "local_response_norm"
    kind = np.float64 if check_order(order, place) == "float64" else np.float32
    given, x = x, real_input(x, "x", place)
    if x.ndim < 3 or size < 1:
        raise ShapeError(f"{place}: x has shape {x.shape} and size={size}; x must be (N, C, ...) with 3 axes at least and size at least 1")
    squares = np.pad((x * x).astype(kind), [(0, 0), (size // 2, (size - 1) // 2), *[(0, 0)] * (x.ndim - 2)])
    total = sum(squares[:, i : i + x.shape[1]] for i in range(size))
    return in_format_of((x / (total / kind(size) * kind(alpha) + kind(k)) ** kind(beta)).astype(np.float32), given)
