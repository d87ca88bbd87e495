"""layer_norm, group_norm, instance_norm: normalization by the mean and variance of the codes at hand."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import quantize_real
from refquant.core.arguments import as_integers, as_real, as_reals
from refquant.core.fma import fma32
from refquant.core.layout import is_packed_channels_last, to_channels_last
from refquant.core.qtensor import QTensor
from refquant.errors import ShapeError, UnsupportedError
from refquant.ops.arguments import check_eight_bit, check_out, check_qtensor, sides
from refquant.ops.batch_norm import vector_of

__all__ = ["layer_norm", "group_norm", "instance_norm"]

_F = np.float32
# Channels-last images of this many points and more are summed in float32, channel by channel.
_LARGE_IMAGE = 512


def _plan(x, out, numerics, op):
    profile = profiles.get(numerics)
    place = f"{op}[{profile.name}]"
    form = profile.section("layer_norm" if op == "layer_norm" else "group_norm", op)
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    if check_out(out, place).dtype != x.dtype:
        raise UnsupportedError(f"{place}: {profile.engine} keeps the dtype {x.dtype} of its input, but out is {out.dtype}; give out the same dtype")
    return form, place


def _moments(form, total, squares, count, q, eps):
    """Return (mean of q − z, scale over standard deviation), float32, from the sums of codes and of their squares."""
    n = _F(count)
    raw = total.astype(_F) / n
    mean = raw - _F(q.zero_point)
    square = squares.astype(_F) / n
    variance = np.maximum(fma32(-raw, raw, square) if form.variance == "fma" else square - raw * raw, _F(0))
    scale = _F(q.scale)
    deviation = np.sqrt((variance * scale * scale).astype(np.float64) + np.float64(eps))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return mean, (np.float64(scale) / deviation).astype(_F)


def _line(contraction, t, gamma, beta):
    return fma32(t, gamma, beta) if contraction == "fma" else t * gamma + beta


def _codes(v, out, add):
    kind, overflow = out._type, "wrap" if add == "after" else "saturate"
    return quantize_real(v, out.scale, out.zero_point, kind.qmin, kind.qmax, scaling="reciprocal", add=add, rounding="half_even", overflow=overflow)


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5, *, out, numerics="fbgemm"):
    """Normalize over the last axes.

    Parameters
    ----------
    x : QTensor
        uint8 or int8, per tensor.
    normalized_shape : tuple of int
        The last axes' lengths.
    weight, bias : array_like of float32, `normalized_shape`, optional
    eps : float
    out : QParams
        Of the dtype of `x`.
    numerics : str or Numerics

    Returns
    -------
    QTensor

    Exactness
    ---------
    Bit-exact. The sums of codes and of their squares are exact integers; mean, variance and the line are float32, the square root double.
    The last elements that fill no vector are quantized with the zero point inside of the rounding.

    Source
    ------
    PyTorch 2.13 QuantizedOpKernels.cpp, ``quantized_normalize_kernel``.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.array([[1, 2, 3, 4]], np.uint8), rq.QParams(1.0, 0, "uint8"))
    >>> layer_norm(x, (4,), out=rq.QParams(0.1, 128, "uint8")).values
    array([[115, 124, 132, 141]], dtype=uint8)
    """
    form, place = _plan(x, out, numerics, "layer_norm")
    wanted, eps = tuple(np.ravel(as_integers(normalized_shape, "normalized_shape", place)).tolist()), as_real(eps, "eps", place)
    if not wanted or x.shape[x.ndim - len(wanted) :] != wanted:
        raise ShapeError(f"{place}: x has shape {x.shape} but normalized_shape is {wanted}; it must be the last axes of x")
    count = int(np.prod(wanted))
    weight, bias = (None if v is None else as_reals(v, name, place).reshape(-1) for name, v in (("weight", weight), ("bias", bias)))
    gamma, beta = vector_of(weight, "weight", count, place, 1), vector_of(bias, "bias", count, place, 0)
    if not x.size:
        return QTensor(np.empty(x.shape, out.storage), out)
    rows = np.ascontiguousarray(x.values).reshape(-1, count).astype(np.int64)
    mean, gain = _moments(form, rows.sum(1), (rows * rows).sum(1), count, x.qparams, eps)
    t = ((rows - x.qparams.zero_point).astype(_F) - mean[:, None]) * gain[:, None]
    split = count // form.vector * form.vector if form.vector else count
    y = np.empty(rows.shape, out.storage)
    y[:, :split] = _codes(_line(form.contraction, t[:, :split], gamma[:split], beta[:split]), out, "after")
    y[:, split:] = _codes(_line(form.tail_contraction, t[:, split:], gamma[split:], beta[split:]), out, "before")
    return QTensor(y.reshape(x.shape), out)


def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5, *, out, numerics="fbgemm"):
    """Normalize over groups of channels and all their points.

    Parameters
    ----------
    x : QTensor, (N, C, …)
        uint8 or int8, per tensor. Contiguous and channels-last tensors are rounded in two different ways.
    num_groups : int
        Divides C.
    weight, bias : array_like of float32, (C,), optional
    eps : float
    out : QParams
        Of the dtype of `x`.
    numerics : str or Numerics

    Returns
    -------
    QTensor
        Channels last where `x` is an image that lies so, without gaps (as no slice of channels or columns does), else contiguous.

    Exactness
    ---------
    Bit-exact on one thread; see `layer_norm`. Contiguous: ``fma((q − z) − mean, gain · gamma, beta)``, all by vectors. Channels last:
    ``fma(q − z, gain · gamma, fma(−gain · gamma, mean, beta))``, by vectors and a scalar tail; images of 512 points and more are summed in
    float32, point after point, for each channel, and then channel after channel.

    Source
    ------
    PyTorch 2.13 QuantizedOpKernels.cpp, ``quantized_normalize_kernel`` and ``quantized_groupnorm_nhwc_kernel``.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.array([[[1, 2], [3, 4]]], np.uint8), rq.QParams(1.0, 0, "uint8"))
    >>> group_norm(x, 1, out=rq.QParams(0.1, 128, "uint8")).values.ravel()
    array([115, 124, 132, 141], dtype=uint8)
    """
    return _group_norm(x, num_groups, weight, bias, eps, out, numerics, "group_norm")


def _group_norm(x, num_groups, weight, bias, eps, out, numerics, op):
    form, place = _plan(x, out, numerics, op)
    if x.ndim < 3:
        raise ShapeError(f"{place}: x has shape {x.shape} but must be (N, C, …) with at least 3 axes")
    size = x.shape[1]
    (groups,), eps = sides(num_groups, "num_groups", 1, place, least=1), as_real(eps, "eps", place)
    if size % groups:
        raise ShapeError(f"{place}: x has {size} channels but num_groups={groups}, which must divide them")
    gamma, beta = vector_of(weight, "weight", size, place, 1), vector_of(bias, "bias", size, place, 0)
    if not x.size:
        return QTensor(np.empty(x.shape, out.storage), out)
    if is_packed_channels_last(x.values):
        return QTensor(to_channels_last(_by_points(form, x, groups, gamma, beta, eps, out)), out)
    rows = np.ascontiguousarray(x.values).reshape(x.shape[0], groups, size // groups, -1).astype(np.int64)
    count = rows.shape[2] * rows.shape[3]
    mean, gain = _moments(form, rows.sum((2, 3)), (rows * rows).sum((2, 3)), count, x.qparams, eps)
    t = (rows - x.qparams.zero_point).astype(_F) - mean[:, :, None, None]
    gamma, beta = (v.reshape(1, groups, -1, 1) for v in (gamma, beta))
    v = _line(form.contraction, t, gain[:, :, None, None] * gamma, beta)
    return QTensor(_codes(v, out, "after").astype(out.storage).reshape(x.shape), out)


def _by_points(form, x, groups, gamma, beta, eps, out):
    n, size = x.shape[:2]
    rows = np.ascontiguousarray(np.moveaxis(x.values, 1, -1)).reshape(n, -1, size).astype(np.int64)
    points, width = rows.shape[1], size // groups
    sums = []
    for terms in (rows, rows * rows):
        if points < _LARGE_IMAGE:
            sums.append(terms.reshape(n, points, groups, width).sum((1, 3)))
        else:
            channel = np.add.accumulate(terms.astype(_F), axis=1, dtype=_F)[:, -1].reshape(n, groups, width)
            sums.append(np.add.accumulate(channel, axis=2, dtype=_F)[:, :, -1])
    mean, gain = _moments(form, *sums, points * width, x.qparams, eps)
    scale = (gain[:, :, None] * gamma.reshape(1, groups, width)).reshape(n, 1, size)
    shift = _line(form.contraction, -scale, np.repeat(mean, width, axis=1).reshape(n, 1, size), beta)
    v = (rows - x.qparams.zero_point).astype(_F)
    block = width if points < _LARGE_IMAGE else size
    split = block // form.vector * form.vector if form.vector else block
    body = np.arange(size) % block < split
    body_codes = _codes(_line(form.contraction, v, scale, shift), out, "after")
    y = np.where(body, body_codes, _codes(_line(form.tail_contraction, v, scale, shift), out, "before"))
    return np.moveaxis(y.astype(out.storage).reshape(n, *x.shape[2:], size), -1, 1)


def instance_norm(x, weight=None, bias=None, eps=1e-5, *, out, numerics="fbgemm"):
    """Normalize over the points of each channel: `group_norm` with as many groups as channels."""
    check_qtensor(x, "x", "instance_norm")
    return _group_norm(x, x.shape[1] if x.ndim > 1 else 1, weight, bias, eps, out, numerics, "instance_norm")
