"""mean: averages over axes."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.arguments import as_integers
from refquant.core.epilogue import to_int32
from refquant.core.layout import in_suggested_format
from refquant.core.qtensor import QTensor
from refquant.core.wrap import saturate
from refquant.errors import ShapeError, UnsupportedError
from refquant.numerics.fixed_forms import FixedMeanForm
from refquant.numerics.range_forms import RangeForm
from refquant.numerics.special_forms import RealsForm
from refquant.ops.arguments import axis_of, check_eight_bit, check_out, check_qtensor
from refquant.ops.by_reals import mean_of_reals, through_reals
from refquant.ops.fixed_mean import mean_centred, mean_float, mean_raw
from refquant.ops.range_elementwise import range_mean, range_reduced

__all__ = ["mean"]

_F = np.float32
_ATEN = RealsForm(order="aten")


def mean(x, dim, keepdim=False, *, out=None, numerics="fbgemm"):
    """Average over axes.

    Parameters
    ----------
    x : QTensor
        uint8 or int8, per tensor.
    dim : int or tuple of int
        Axes that lie side by side in memory once gaps are taken out.
    keepdim : bool
    out : QParams, optional
        Those of `x` unless given; PyTorch has no others.
    numerics : str or Numerics

    Returns
    -------
    QTensor

    Raises
    ------
    UnsupportedError
        Other axes, which an engine sums in float32 in an order that refquant does not define.

    Exactness
    ---------
    Bit-exact: over the last axes of a contiguous tensor an exact integer sum, one float32 division, one rounding; zero points stay in, as
    the mean of codes is the code of the mean. Over others real numbers, summed as ATen does on one thread, see `refquant.ops.real.outer_sum`; so are those of a view, which is never contiguous.
    TensorFlow Lite: an exact sum and integer or float32 multipliers, see `refquant.ops.fixed_mean`, over any axes.

    Source
    ------
    PyTorch 2.13 QuantizedOpKernels.cpp ``qmean_inner_dim_kernel``; ReduceOps.cpp ``qnnpack_mean``; TensorFlow Lite kernels/reduce.cc; XNNPACK src/operators/reduce-nd.c; ONNX Runtime core/providers/cpu/reduction/reduction_ops.cc.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.array([[1, 2], [4, 5]], np.uint8), rq.QParams(1.0, 3, "uint8"))
    >>> mean(x, 1).values
    array([2, 4], dtype=uint8)
    """
    profile = profiles.get(numerics)
    place = f"mean[{profile.name}]"
    form = profile.section("mean", "mean")
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    axes = sorted({axis_of(d, x.ndim, place) for d in (dim if isinstance(dim, (tuple, list)) else np.ravel(as_integers(dim, "dim", place)))})
    count = int(np.prod([x.shape[d] for d in axes]))
    if not axes or not count:
        raise ShapeError(f"{place}: dim={dim} of x {x.shape} holds no elements; a mean needs one at least")
    q = x.qparams
    own, out = out is not None and check_out(out, place) != q, q if out is None else out
    if isinstance(form, RealsForm):
        y = through_reals(x, out, profile, lambda real: mean_of_reals(form, real, axes, place)).values
        return QTensor(_shaped(y, x, axes, keepdim), out)
    if isinstance(form, FixedMeanForm):
        return QTensor(_shaped(_fixed(form, x, out, axes, count), x, axes, keepdim), out)
    if isinstance(form, RangeForm):
        total = x.values.sum(tuple(axes), keepdims=True, dtype=np.int64)
        # With what comes out as a list of numbers no quantization is fused: such a mean stands between a subtraction and a quantization.
        fused = keepdim and x.ndim > 1 or x.ndim - len(axes) > 1
        y = range_mean(form, q, out, total, np.array(count)) if fused else range_reduced(profile.quantize, q, out, total, np.array(count))
        return QTensor(_shaped(y, x, axes, keepdim).astype(out.storage), out)
    if own:
        raise UnsupportedError(f"{place}: {profile.engine} averages into the parameters of its input; leave out=None and requantize afterwards")
    total = x.values.sum(tuple(axes), keepdims=keepdim, dtype=np.int64)
    if form.images == "global" and x.ndim == 4 and np.ravel(dim).tolist() == [2, 3] and x.dtype == "uint8":
        s = _F(q.scale)
        codes = to_int32((total - count * q.zero_point).astype(_F) * (s / (s * _F(count))), "half_even") + q.zero_point
    elif axes == list(range(x.ndim - len(axes), x.ndim)) and x.values.flags.c_contiguous:
        offset = q.zero_point if form.inner == "centred" else 0
        codes = to_int32((total - count * offset).astype(_F) / _F(count), "half_even") + offset
    else:
        return _by_reals(x, axes, keepdim, profile, place)
    return QTensor(np.asarray(saturate(codes, q._type.qmin, q._type.qmax).astype(q.storage), order="C"), q)


def _by_reals(x, axes, keepdim, profile, place):
    """Dequantize, which leaves no gaps, sum in the order of ATen's float kernel, divide, quantize."""
    if not x.size:
        return QTensor(_shaped(np.empty([1 if d in axes else n for d, n in enumerate(x.shape)], x.values.dtype), x, axes, keepdim), x.qparams)
    y = through_reals(QTensor(in_suggested_format(x.values), x.qparams), x.qparams, profile, lambda real: mean_of_reals(_ATEN, real, axes, place)).values
    return QTensor(_shaped(y, x, axes, keepdim), x.qparams)


def _shaped(y, x, axes, keepdim):
    """Return means, whose averaged axes have length one, in the shape that is asked for."""
    y = y if keepdim else y.reshape([n for d, n in enumerate(x.shape) if d not in axes])
    return np.asarray(y, order="C")


def _fixed(form, x, out, axes, count):
    """TensorFlow Lite's MEAN, as integers with averaged axes of length one."""
    total = x.values.sum(tuple(axes), keepdims=True, dtype=np.int64)
    formula = form.images if x.ndim == 4 and axes == [1, 2] else form.general
    if formula == "raw":
        # Steps are taken along the last axis, which stands second there.
        codes = np.moveaxis(mean_raw(x.qparams, out, np.moveaxis(total, -1, 1), np.array([count]), form.vector), 1, -1)
    else:
        codes = {"centred": mean_centred, "float": mean_float}[formula](x.qparams, out, total, np.array([count]))
    return saturate(codes, out._type.qmin, out._type.qmax).astype(out.storage)
