"""linear_dynamic, conv1d_dynamic, conv2d_dynamic, conv3d_dynamic: layers that quantize their input at run time."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import quantize_real
from refquant.core.arguments import as_array
from refquant.core.choose_qparams import check_range
from refquant.core.qtensor import QTensor
from refquant.errors import ShapeError, UnsupportedError, choose
from refquant.numerics.special_forms import RowDynamicForm
from refquant.ops.arguments import check_eight_bit, check_qtensor, check_weight
from refquant.ops.choose_qparams import choose_qparams
from refquant.ops.conv import conv1d, conv2d, conv3d, conv_reference
from refquant.ops.dequantize import dequantize
from refquant.ops.linear import linear, linear_reference
from refquant.ops.output_stage import check_bias
from refquant.ops.pack_weights import as_qtensor
from refquant.ops.quantize import quantize, real_array
from refquant.ops.row_dynamic import LEAST, row_dynamic

__all__ = ["linear_dynamic", "linear_dynamic_reference", "conv1d_dynamic", "conv2d_dynamic", "conv3d_dynamic", "conv_dynamic_reference"]


def _quantized(x, numerics, reduce_range, place):
    profile = profiles.get(numerics)
    form = profile.section("dynamic", place)
    x = real_array(x, f"{place}[{profile.name}]")
    qparams = choose_qparams(x, numerics=profile, reduce_range=reduce_range)
    if form.linear_input == "quantize":
        return quantize(x, qparams, numerics=profile)
    kind = qparams._type
    with np.errstate(over="ignore", divide="ignore"):
        inverse = np.float32(1) / np.float32(1.0 / np.float64(qparams.scale))
    codes = quantize_real(x, inverse, qparams.zero_point, kind.qmin, kind.qmax, scaling="reciprocal", add="before", rounding="half_even")
    return QTensor(codes.astype(qparams.storage), qparams)


def linear_dynamic(x, w, bias=None, *, numerics="fbgemm", activation=None, reduce_range=False, symmetric=False, isa=None):
    """Compute a fully connected layer whose input is quantized at run time: ``torch.ops.quantized.linear_dynamic``.

    Parameters
    ----------
    x : array_like of float, (..., K)
        Finite, not empty.
    w : QTensor or PackedWeights, (OC, K)
    bias : array_like, (OC,), optional
        float32.
    numerics : str or Numerics
    activation : {None, "relu"}
    reduce_range : bool
        Use the codes 0 … 127.
    symmetric : bool
        Of TensorFlow Lite: without zero points, ``asymmetric_quantize_inputs=False``.
    isa : str, optional
        The processor level of the engine, as for `refquant.ops.linear`.

    Returns
    -------
    ndarray of float32, (..., OC)

    Exactness
    ---------
    Bit-exact: `choose_qparams`, the form's quantization, and `linear` with ``out=None``; TensorFlow Lite and XNNPACK quantize row by row, see `refquant.ops.row_dynamic`.

    Examples
    --------
    >>> import refquant as rq
    >>> w = rq.QTensor(np.array([[2, 1], [-1, 4]], np.int8), rq.QParams(0.25, 0, "int8"))
    >>> linear_dynamic(np.float32([[1.0, -0.5]]), w).tolist()
    [[0.375, -0.75]]
    """
    return _linear_dynamic(linear, x, w, bias, numerics, activation, reduce_range, symmetric, isa)


def _linear_dynamic(layer, x, w, bias, numerics, activation, reduce_range, symmetric, isa):
    profile = profiles.get(numerics)
    place = f"linear_dynamic[{profile.name}]"
    form = profile.section("dynamic", "linear_dynamic")
    if isinstance(form, RowDynamicForm):
        return _by_rows(form, profile, x, w, bias, activation, reduce_range, symmetric, place)
    if symmetric:
        raise UnsupportedError(f"{place}: symmetric=True, but {profile.engine} always has a zero point; leave it out")
    return layer(_quantized(x, numerics, reduce_range, "linear_dynamic"), w, bias, numerics=numerics, activation=activation, isa=isa)


def _by_rows(form, profile, x, w, bias, activation, reduce_range, symmetric, place):
    choose(place, "activation", activation, [None, "relu"])
    w, _ = as_qtensor(w, "w", place)
    check_weight(check_eight_bit(check_qtensor(w, "w", place, per_channel=True), "w", place), place, 2)
    if reduce_range or w.dtype != "int8" or np.any(w.qparams.zero_point):
        raise UnsupportedError(f"{place}: reduce_range={reduce_range} and weights of {w.dtype}, but {profile.engine} has the whole range and int8 weights with zero point 0 alone")
    x, bias = real_array(x, place), check_bias(bias, w.shape[0], place)
    if x.ndim < 1 or x.shape[-1] != w.shape[1] or not x.size:
        raise ShapeError(f"{place}: w has K={w.shape[1]} but x has shape {x.shape}; x must be (..., K), and not empty")
    check_range(x.min(), x.max(), place)
    most = np.abs(x).max(-1)
    if np.any((most > 0) & (most < LEAST)):
        raise UnsupportedError(f"{place}: x has a row whose greatest number is {most[most > 0].min():.3g}, where {profile.engine} loses its scale; scale the data to 2**-100 and more")
    y = row_dynamic(form, x.reshape(-1, x.shape[-1]), w, bias, symmetric).reshape(*x.shape[:-1], w.shape[0])
    return np.maximum(y, np.float32(0)) if activation == "relu" else y


def linear_dynamic_reference(x, w, bias=None, *, numerics="fbgemm", activation=None, reduce_range=False, symmetric=False, isa=None):
    """Same result as `linear_dynamic`, in NumPy."""
    return _linear_dynamic(linear_reference, x, w, bias, numerics, activation, reduce_range, symmetric, isa)


def _conv_dynamic(conv, x, w, bias, numerics, reduce_range, isa, geometry):
    x = as_array(x, "x", "conv_dynamic")
    if not 3 <= x.ndim <= 5:
        raise ShapeError(f"conv_dynamic: x has shape {x.shape} but must be (N, C, W), (N, C, H, W) or (N, C, D, H, W)")
    op = f"conv{x.ndim - 2}d_dynamic"
    profile = profiles.get(numerics)
    profile = profile.on(isa, f"{op}[{profile.name}]")
    profile.section("dynamic", op)
    x = real_array(x, f"{op}[{profile.name}]")
    q = quantize(x, choose_qparams(x, numerics=profile, reduce_range=reduce_range), numerics=profile)
    return dequantize(conv(q, w, bias, out=q.qparams, numerics=profile, **geometry), numerics=profile)


def conv2d_dynamic(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1, *, numerics="fbgemm", reduce_range=False, isa=None):
    """Compute a convolution whose input is quantized at run time: ``torch.ops.quantized.conv2d_dynamic``.

    PyTorch takes the parameters of the *input* for the output too, so sums beyond the input's range saturate, and returns it dequantized.

    Parameters
    ----------
    x : array_like of float, (N, C, H, W)
    w : QTensor or PackedWeights, (OC, C / groups, KH, KW)
    bias : array_like, (OC,), optional
    stride, padding, dilation, groups : int or tuple of int
    numerics : str or Numerics
    reduce_range : bool
    isa : str, optional
        The processor level of the engine, as for `refquant.ops.conv2d`.

    Returns
    -------
    ndarray of float32, (N, OC, OH, OW)

    Exactness
    ---------
    Bit-exact: `choose_qparams`, `quantize`, `conv2d`, `dequantize`.

    Examples
    --------
    >>> import refquant as rq
    >>> w = rq.QTensor(np.array([[[[4]]]], np.int8), rq.QParams(0.5, 0, "int8"))
    >>> conv2d_dynamic(np.float32([[[[0.5, 1.0]]]]), w).ravel().tolist()
    [0.9960784912109375, 1.0]
    """
    return _conv_dynamic(conv2d, x, w, bias, numerics, reduce_range, isa, dict(stride=stride, padding=padding, dilation=dilation, groups=groups))


def conv1d_dynamic(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1, *, numerics="fbgemm", reduce_range=False, isa=None):
    """Compute a convolution of sequences (N, C, W), quantized at run time; see `conv2d_dynamic`."""
    return _conv_dynamic(conv1d, x, w, bias, numerics, reduce_range, isa, dict(stride=stride, padding=padding, dilation=dilation, groups=groups))


def conv3d_dynamic(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1, *, numerics="fbgemm", reduce_range=False, isa=None):
    """Compute a convolution of volumes (N, C, D, H, W), quantized at run time; see `conv2d_dynamic`."""
    return _conv_dynamic(conv3d, x, w, bias, numerics, reduce_range, isa, dict(stride=stride, padding=padding, dilation=dilation, groups=groups))


def conv_dynamic_reference(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1, *, numerics="fbgemm", reduce_range=False, isa=None):
    """Same result as the dynamic convolutions, in NumPy."""
    return _conv_dynamic(conv_reference, x, w, bias, numerics, reduce_range, isa, dict(stride=stride, padding=padding, dilation=dilation, groups=groups))
