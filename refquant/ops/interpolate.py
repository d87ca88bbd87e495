"""interpolate: larger and smaller images, by the nearest point or by lines between points."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.arguments import as_real, check_room
from refquant.core.epilogue import to_int32
from refquant.core.fma import fma32
from refquant.core.layout import is_packed_channels_last, to_channels_last
from refquant.core.qtensor import QTensor
from refquant.core.rounding import Round, round_real
from refquant.core.wrap import saturate
from refquant.errors import ArgumentError, RangeError, ShapeError, UnsupportedError, choose
from refquant.numerics.range_forms import RangeForm
from refquant.numerics.special_forms import CodeBilinearForm, RealsForm
from refquant.ops.arguments import check_eight_bit, check_qtensor, sides
from refquant.ops.by_reals import through_reals
from refquant.ops.code_bilinear import code_bilinear
from refquant.ops.range_elementwise import range_bilinear
from refquant.ops.real.bilinear import bilinear
from refquant.ops.real.line import Line, ratio_of

__all__ = ["interpolate"]

_F = np.float32
_MODES = ("nearest", "nearest-exact", "bilinear")


def _nearest(n, size, factor, exact, quotients, whole):
    """Indices of the nearest points; `whole`: the same size and twice the size go without the factor, as in PyTorch's float32 kernels."""
    if whole and not exact and size in (n, 2 * n):
        return np.arange(size) * n // size
    places = np.arange(size).astype(_F)
    if quotients:
        source = places / (_F(factor) if factor else _F(size) / _F(n))
    else:
        ratio = ratio_of(n, size, factor)
        source = (places + _F(0.5)) * ratio if exact else places * ratio
    return np.minimum(round_real(source, Round.FLOOR).astype(np.int64), n - 1)


def _points(n, size, factor, align_corners):
    """OpenVINO's points of a line: (left, right, weight of the left, of the right); at the edges both are one and weigh a half each."""
    places = np.arange(size).astype(_F)
    if align_corners:
        at = places * (_F(n - 1) / _F(size - 1)) if size > 1 else places
    else:
        at = (places + _F(0.5)) / (_F(factor) if factor else _F(size) / _F(n)) - _F(0.5)
    at = np.minimum(np.maximum(at, _F(0)), _F(n - 1))
    left = round_real(at, Round.FLOOR).astype(np.int64)
    right = np.minimum(left + 1, n - 1)
    share = np.where(left == right, _F(0.5), at - left.astype(_F)).astype(_F)
    return left, right, np.where(left == right, _F(0.5), _F(1) - share).astype(_F), share


def _pair(contraction, w0, a, w1, b):
    """``w0·a + w1·b``."""
    if contraction == "none":
        return w0 * a + w1 * b
    return fma32(w0, a, w1 * b) if contraction == "first" else fma32(w1, b, w0 * a)


def _bilinear(codes, q, rows, columns, contraction):
    x = codes.astype(_F)
    near, far = (_pair(contraction, columns.w0, x[:, :, r][..., columns.low], columns.w1, x[:, :, r][..., columns.high]) for r in (rows.low, rows.high))
    v = _pair(contraction, rows.w0[:, None], near, rows.w1[:, None], far) - _F(q.zero_point)
    return saturate(to_int32(v + _F(q.zero_point), "half_even"), q._type.qmin, q._type.qmax).astype(q.storage)


def interpolate(x, size=None, scale_factor=None, mode="nearest", align_corners=False, *, numerics="fbgemm"):
    """Resize images: ``torch.nn.functional.interpolate`` on quantized tensors.

    Parameters
    ----------
    x : QTensor, (N, C, H, W)
        uint8 or int8, per tensor. PyTorch has two formulas of lines, for contiguous and for channels-last tensors.
    size : int or pair of int, optional
    scale_factor : float or pair of float, optional
        One of `size` and `scale_factor`; the output's side is ``floor(side · factor)``.
    mode : {"nearest", "nearest-exact", "bilinear"}
    align_corners : bool
        Of ``bilinear``: the corners of input and output are one.
    numerics : str or Numerics

    Returns
    -------
    QTensor
        With the parameters and the memory format of `x`.

    Exactness
    ---------
    Bit-exact. ``nearest`` moves codes; the source index is a float32 product, rounded down. ``bilinear`` interpolates codes in float32 and
    rounds the result to a code, see `refquant.numerics.special_forms.BilinearForm`; or it interpolates dequantized numbers, see `RealsForm` there.

    Source
    ------
    ONNX Resize (onnx/reference/ops/op_resize.py); PyTorch 2.13 UpSampleNearest2d.cpp, UpSampleBilinear2d.cpp and QuantizedOpKernels.cpp, ``qupsample_bilinear2d_nhwc_kernel``.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.array([[[[0, 10]]]], np.uint8), rq.QParams(1.0, 0, "uint8"))
    >>> interpolate(x, (1, 4)).values.ravel(), interpolate(x, (1, 4), mode="bilinear").values.ravel()
    (array([ 0,  0, 10, 10], dtype=uint8), array([ 0,  2,  8, 10], dtype=uint8))
    """
    profile = profiles.get(numerics)
    place = f"interpolate[{profile.name}]"
    choose(place, "mode", mode, _MODES)
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    size, factors = _sizes(x, size, scale_factor, place)
    form = profile.section("bilinear", "interpolate")
    if align_corners and mode != "bilinear":
        raise ArgumentError(f"{place}: align_corners goes with mode='bilinear' but mode is {mode!r}; leave it out")
    _check_offered(form, mode, factors, profile, place)
    last = is_packed_channels_last(x.values)
    if isinstance(form, RealsForm) and form.order == "float64":
        y = _by_doubles(x, size, mode, align_corners, profile)
    elif size == x.shape[2:] and _copies(form, mode, last):
        y = x.values
    elif mode != "bilinear":
        quotients = isinstance(form, RangeForm) or (isinstance(form, CodeBilinearForm) and form.style == "truncated")
        rows, columns = (_nearest(n, o, f, mode == "nearest-exact", quotients, isinstance(form, RealsForm)) for n, o, f in zip(x.shape[2:], size, factors))
        y = x.values[:, :, rows][:, :, :, columns]
    elif isinstance(form, RangeForm):
        lines = [_points(n, o, f, align_corners) for n, o, f in zip(x.shape[2:], size, factors)]
        y = range_bilinear(form, x.qparams, x.values, *lines).astype(x.values.dtype)
    elif isinstance(form, CodeBilinearForm):
        y = code_bilinear(form.style, x.values, size, factors, align_corners).astype(x.values.dtype)
    elif isinstance(form, RealsForm):
        return QTensor(_through_reals(x, size, factors, align_corners, profile, place), x.qparams)
    else:
        lines = [Line(n, o, f, align_corners, form.index if last else "none") for n, o, f in zip(x.shape[2:], size, factors)]
        split = x.shape[1] // max(form.vector, 1) * form.vector if last else 0
        parts = ((x.values[:, :split], form.body), (x.values[:, split:], form.tail if last else form.contiguous))
        y = np.concatenate([_bilinear(codes, x.qparams, *lines, contraction) for codes, contraction in parts], axis=1)
    return QTensor(to_channels_last(y) if last else np.ascontiguousarray(y), x.qparams)


def _copies(form, mode, last):
    """Whether an image of the same size is copied, whatever factor was asked for."""
    if isinstance(form, RealsForm):
        return mode != "nearest-exact"
    return mode != "bilinear" or not last or isinstance(form, (RangeForm, CodeBilinearForm))


def _check_offered(form, mode, factors, profile, place):
    double = isinstance(form, RealsForm) and form.order == "float64"
    if double and factors != (None, None):
        raise UnsupportedError(f"{place}: {profile.engine} is described for sizes; give size, not scale_factor")
    if (double or isinstance(form, RangeForm)) and mode == "nearest-exact":
        raise UnsupportedError(f"{place}: {profile.engine} has no mode that takes the nearest centre as PyTorch does; use mode='nearest'")
    if not isinstance(form, CodeBilinearForm):
        return
    if form.style == "truncated" and mode == "nearest-exact":
        raise UnsupportedError(f"{place}: {profile.engine} has no mode that takes the nearest centre as PyTorch does; use mode='nearest'")
    if form.style != "truncated" and factors != (None, None):
        raise UnsupportedError(f"{place}: {profile.engine} resizes to a size, not by a factor; give size")


def _by_doubles(x, size, mode, align_corners, profile):
    """ONNX's Resize by its formulas in float64: codes of the nearest points, or lines between real numbers, columns first, rounded once to float32."""

    def places(n, o):
        at, scale = np.arange(o, dtype=np.float64), o / n
        if mode == "nearest":
            return at / scale
        if align_corners:
            return at * (n - 1) / (scale * n - 1) if scale * n != 1 else at * 0
        return (at + 0.5) / scale - 0.5

    sides = [(n, at, round_real(at, Round.FLOOR).astype(np.int64)) for n, at in ((n, places(n, o)) for n, o in zip(x.shape[2:], size))]
    (rows, columns), shares = ([(np.clip(low, 0, n - 1), np.clip(low + 1, 0, n - 1)) for n, _, low in sides], [at - low for _, at, low in sides])
    if mode == "nearest":
        return x.values[:, :, rows[0]][..., columns[0]]

    def lines(real):
        wide = real.astype(np.float64)
        wide = wide[..., columns[0]] * (1 - shares[1]) + wide[..., columns[1]] * shares[1]
        return wide[:, :, rows[0]] * (1 - shares[0])[:, None] + wide[:, :, rows[1]] * shares[0][:, None]

    return through_reals(x, x.qparams, profile, lines).values


def _through_reals(x, size, factors, align_corners, profile, place):
    dense = is_packed_channels_last(x.values) and x.shape[1] > 3
    if sum(size) > 128 and not dense:
        raise UnsupportedError(
            f"{place}: size={size} of x {x.shape}, but the kernel that PyTorch takes for contiguous images of more than 128 rows and columns together is not described;"
            " make smaller images, or channels-last ones of four channels and more"
        )
    # A side that keeps its length is copied, whatever factor was asked for.
    lines = [Line(n, o, None if n == o else f, align_corners, "fma") for n, o, f in zip(x.shape[2:], size, factors)]
    y = through_reals(x, x.qparams, profile, lambda real: bilinear(real, *lines)).values
    return to_channels_last(y) if is_packed_channels_last(x.values) else np.ascontiguousarray(y)


def _sizes(x, size, scale_factor, place):
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise ShapeError(f"{place}: x has shape {x.shape} but must be (N, C, H, W) with points")
    if (size is None) == (scale_factor is None):
        raise ArgumentError(f"{place}: size={size} and scale_factor={scale_factor}; give one of them")
    if size is not None:
        wanted = sides(size, "size", 2, place, least=1)
        check_room((*x.shape[:2], *wanted), "the output", place)
        return wanted, (None, None)
    given = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * 2
    if len(given) != 2:
        raise ArgumentError(f"{place}: scale_factor={scale_factor!r} must be one number or two of them")
    factors = tuple(as_real(f, "scale_factor", place) for f in given)
    wanted = tuple(int(round_real(np.float64(n * f), Round.FLOOR)) for n, f in zip(x.shape[2:], factors))
    if min(wanted) < 1:
        raise RangeError(f"{place}: scale_factor={scale_factor} makes {wanted} of {x.shape[2:]}; no side may vanish")
    check_room((*x.shape[:2], *wanted), "the output", place)
    return wanted, factors
