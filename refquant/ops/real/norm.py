"""batch_norm with running statistics, and its folding into the weights of the layer before."""

import math

import numpy as np

from refquant.core.fma import fma32
from refquant.errors import ShapeError, UnsupportedError
from refquant.kernels.chains import scale_shift
from refquant.ops.real import inductor
from refquant.ops.real.order import activate, check_order, in_format_of, real_input

__all__ = ["batch_norm", "fold_conv_bn", "fold_conv_transpose_bn", "fold_linear_bn"]

_ONE = np.float32(1)


def _inverse_deviation(var, eps):
    return _ONE / np.sqrt(var + np.float32(eps))


def batch_norm(x, mean, var, weight, bias, *, eps=1e-5, order="torch_avx512", activation=None):
    """Normalise channels: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Parameters
    ----------
    x : array_like of float32, (N, C, ...)
    mean, var, weight, bias : array_like of float32, (C,)
    eps : float
    order : str
        ``torch_avx512``: ``a = weight · (1 / sqrt(var + eps)); fma(x, a, fma(-mean, a, bias))``, `eps` rounded to float32
        first; ``float64``: all in float64, rounded once; ``inductor``: step by step in float32.
    activation : {None, "relu"}

    Returns
    -------
    ndarray of float32

    Examples
    --------
    >>> one = np.ones(1, np.float32)
    >>> batch_norm(np.float32([[3.0]]), one, one * 4, one, one, eps=0.0)
    array([[2.]], dtype=float32)
    """
    place = "batch_norm"
    check_order(order, place, generated=True)
    given, x = x, real_input(x, "x", place)
    mean, var, weight, bias = (real_input(v, name, place) for v, name in zip((mean, var, weight, bias), ("mean", "var", "weight", "bias")))
    if x.ndim < 2 or any(v.shape != (x.shape[1],) for v in (mean, var, weight, bias)):
        raise ShapeError(f"{place}: x has shape {x.shape} and the parameters {weight.shape}; they must be ({x.shape[1] if x.ndim > 1 else 'C'},)")
    if order == "float64":
        column = [v.astype(np.float64).reshape(-1, *[1] * (x.ndim - 2)) for v in (mean, var, weight, bias)]
        mean64, var64, weight64, bias64 = column
        y = ((x - mean64) / np.sqrt(var64 + eps) * weight64 + bias64).astype(np.float32)
    elif order == "inductor":
        y = inductor.batch_norm(x, mean, var, weight, bias, eps)
    else:
        scale = weight * _inverse_deviation(var, eps)
        shift = np.asarray(fma32(-mean, scale, bias)).reshape(scale.shape)
        y = scale_shift(x.reshape(*x.shape[:2], math.prod(x.shape[2:])), scale, shift).reshape(x.shape)
    return in_format_of(activate(y, activation, place), given)


def fold_conv_bn(weight, bias, mean, var, bn_weight, bn_bias, eps):
    """Fold a batch norm into the convolution before it, with PyTorch's roundings.

    Returns
    -------
    weight, bias : ndarray of float32
        ``w · (γ · r)`` and ``((b - mean) · r) · γ + β``, ``r = 1 / sqrt(var + eps)``, each step rounded to float32.

    Source
    ------
    PyTorch 2.13, torch/nn/utils/fusion.py, ``fuse_conv_bn_weights``.
    """
    inverse = _inverse_deviation(var, eps)
    bias = np.zeros_like(mean) if bias is None else bias
    return weight * (bn_weight * inverse).reshape(-1, *[1] * (weight.ndim - 1)), (bias - mean) * inverse * bn_weight + bn_bias


def fold_conv_transpose_bn(weight, bias, mean, var, bn_weight, bn_bias, eps):
    """Fold a batch norm into the transposed convolution before it: as `fold_conv_bn`, along axis 1 of the weight.

    Source
    ------
    PyTorch 2.13, torch/nn/utils/fusion.py, ``fuse_conv_bn_weights`` with ``transpose=True``; it has no formula for groups.
    """
    if weight.shape[1] != len(mean):
        raise UnsupportedError(f"fold_conv_transpose_bn: weight {weight.shape} has {weight.shape[1]} output channels a group but the norm {len(mean)}; PyTorch folds ungrouped layers alone, keep the norm apart")
    _, folded = fold_conv_bn(weight[:1, :1], bias, mean, var, bn_weight, bn_bias, eps)
    return weight * (bn_weight * _inverse_deviation(var, eps)).reshape(1, -1, *[1] * (weight.ndim - 2)), folded


def fold_linear_bn(weight, bias, mean, var, bn_weight, bn_bias, eps):
    """Fold a batch norm into the linear layer before it: as `fold_conv_bn`, but the bias is ``(b - mean) · (γ · r) + β``.

    Source
    ------
    PyTorch 2.13, torch/nn/utils/fusion.py, ``fuse_linear_bn_weights``.
    """
    scale = bn_weight * _inverse_deviation(var, eps)
    bias = np.zeros_like(mean) if bias is None else bias
    return weight * scale[:, None], (bias - mean) * scale + bn_bias
