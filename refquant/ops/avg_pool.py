"""avg_pool2d, adaptive_avg_pool2d, global_avg_pool2d: means over windows, of which every engine has its own."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import dequantize_codes, quantize_real
from refquant.core.arguments import check_room
from refquant.core.epilogue import to_int32
from refquant.core.fma import fma32
from refquant.core.layout import is_channels_last, is_dense_channels_last, to_channels_last
from refquant.core.qtensor import QTensor
from refquant.core.wrap import saturate
from refquant.errors import ShapeError, UnsupportedError
from refquant.kernels.pool import sum_windows
from refquant.numerics.dispatch import resolve_call
from refquant.numerics.forms import GLOBAL_ALONE
from refquant.numerics.range_forms import RangeForm
from refquant.numerics.special_forms import RealsForm
from refquant.ops.arguments import check_eight_bit, check_out, check_qtensor, divisor_of, sides
from refquant.ops.by_reals import adaptive_pool_of_reals, in_format_of, pool_of_reals, through_reals
from refquant.ops.fixed_mean import mean_centred, mean_float, mean_raw
from refquant.ops.range_elementwise import range_mean
from refquant.ops.windows import adaptive_bounds, pool_geometry, window_bounds

__all__ = ["avg_pool2d", "adaptive_avg_pool2d", "global_avg_pool2d", "bind_global_avg_pool2d"]

_F = np.float32
# A code depends on the sum of its window alone, but for the last channels, fewer than a vector.
_OF_THE_SUM = ("scaled", "vector", "adaptive_vector", "raw_mean", "global", "global_area", "raw_integer")
_MOST_PIXELS = 64
_OWN_OUTPUT = ("global", "sequential", "spec", "range", "mean_centred", "mean_raw", "mean_float")


class _Windows:
    """The windows of one call: codes, bounds, sizes, divisors and parameters, as the formulas want them."""

    def __init__(self, x, out, form, profile, rows, columns, divisor, geometry=None, include_pad=False):
        self.x, self.out, self.form, self.profile = x, out, form, profile
        self.geometry, self.include_pad = geometry, include_pad
        self.rows, self.columns = rows, columns
        self.count = (rows[1] - rows[0])[:, None] * (columns[1] - columns[0])
        self.divisor = divisor.astype(np.int64)
        self.zero = int(x.qparams.zero_point)

    def raw_sum(self):
        return sum_windows(self.x.values, self.rows, self.columns)

    def centred_sum(self):
        return (self.raw_sum() - self.count * self.zero).astype(_F)

    def multiplier(self):
        return (_F(self.x.qparams.scale) / _F(self.out.scale)) / self.divisor.astype(_F)

    def area(self):
        """The kernel's whole area, None where there is no kernel."""
        return self.geometry and self.geometry.kernel[0] * self.geometry.kernel[1]

    def whole_image(self):
        """Whether there is one window, the image itself without padding."""
        return self.geometry is not None and self.geometry.kernel == self.x.shape[2:] and self.geometry.padding == (0, 0)

    def rounded(self, v, offset=0):
        return to_int32(v, self.form.rounding) + offset


def _scaled(win):
    return win.rounded(win.centred_sum() * win.multiplier() + _F(win.out.zero_point))


def _by_channels(win, body, total):
    """Take whole vectors of channels from `body`, the last channels from the tail's formula."""
    channels, vector = win.x.shape[1], max(win.form.vector, 1)
    whole = channels // vector * vector
    if whole == channels:
        return body
    inverse = _F(1) / (_F(1) / win.multiplier())
    tail = win.rounded(total * inverse + _F(win.out.zero_point))
    return np.where((np.arange(channels) < whole)[:, None, None], body, tail)


def _vector(win):
    total = win.centred_sum()
    return _by_channels(win, win.rounded(total * win.multiplier(), win.out.zero_point), total)


def _adaptive_vector(win):
    total = win.centred_sum()
    inverse = _F(1) / (_F(1) / win.multiplier())
    return _by_channels(win, win.rounded(fma32(total, inverse, _F(win.out.zero_point))), total)


def _raw_mean(win):
    rows, columns = (win.rows[1] - win.rows[0]).astype(_F), (win.columns[1] - win.columns[0]).astype(_F)
    factor = (_F(1) / rows)[:, None] / columns
    return win.rounded(win.raw_sum().astype(_F) * factor)


def _global(win, divisor=None):
    divisor = win.divisor.astype(_F) if divisor is None else _F(divisor)
    factor = _F(win.x.qparams.scale) / (_F(win.out.scale) * divisor)
    return win.rounded(win.centred_sum() * factor, win.out.zero_point)


def _global_area(win):
    return _global(win, win.area())


def _sequential(win):
    """Add dequantized codes one after the other in float32, row by row of the window."""
    if win.whole_image():
        return _global(win)
    q = win.x.qparams
    real = _F(q.scale) * (win.x.values.astype(np.int64) - win.zero).astype(_F)
    total = np.zeros((*win.x.shape[:2], len(win.rows[0]), len(win.columns[0])), _F)
    heights, widths = win.rows[1] - win.rows[0], win.columns[1] - win.columns[0]
    for i in range(int(heights.max(initial=0))):
        for j in range(int(widths.max(initial=0))):
            r, c = np.minimum(win.rows[0] + i, win.x.shape[2] - 1), np.minimum(win.columns[0] + j, win.x.shape[3] - 1)
            inside = (i < heights)[:, None] & (j < widths)
            total = np.where(inside, total + real[:, :, r][:, :, :, c], total)
    divisor = _F(win.area()) if win.include_pad else win.divisor.astype(_F)
    return win.rounded(total / divisor / _F(win.out.scale) + _F(win.out.zero_point))


def _spec(win):
    form, q, out = win.profile.quantize, win.x.qparams, win.out
    real = dequantize_codes(win.x.values, q.scale, q.zero_point, win.profile.dequantize.formula).astype(np.float64)
    total = np.zeros((*win.x.shape[:2], len(win.rows[0]), len(win.columns[0])))
    for i, (r0, r1) in enumerate(zip(*win.rows)):
        for j, (c0, c1) in enumerate(zip(*win.columns)):
            total[:, :, i, j] = real[:, :, r0:r1, c0:c1].sum((2, 3))
    mean = (total / win.divisor).astype(_F)
    return quantize_real(
        mean, out.scale, out.zero_point, out._type.qmin, out._type.qmax, scaling=form.scaling, add=form.zero_point, rounding=form.rounding
    )


def _range(win):
    return range_mean(win.form, win.x.qparams, win.out, win.raw_sum(), win.divisor, windows=win.geometry is not None)


def _raw_integer(win):
    total = win.raw_sum()
    half = win.count // 2
    return np.sign(total) * ((np.abs(total) + half) // win.count)


_FORMULAS = {
    "raw_integer": _raw_integer,
    "scaled": _scaled,
    "vector": _vector,
    "adaptive_vector": _adaptive_vector,
    "raw_mean": _raw_mean,
    "global": _global,
    "global_area": _global_area,
    "sequential": _sequential,
    "spec": _spec,
    "range": _range,
    "mean_centred": lambda win: mean_centred(win.x.qparams, win.out, win.raw_sum(), win.divisor),
    "mean_raw": lambda win: mean_raw(win.x.qparams, win.out, win.raw_sum(), win.divisor, win.form.vector),
    "mean_float": lambda win: mean_float(win.x.qparams, win.out, win.raw_sum(), win.divisor),
}


def _pool(x, out, numerics, section, op, bounds, ceil_mode=False):
    """Pool over the windows that `bounds` returns; adaptive ones are parts of one size where none overlaps the next."""
    profile = profiles.get(numerics)
    place = f"{op}[{profile.name}]"
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    form, windows = profile.section(section, op), bounds(place)
    even = not ceil_mode if section == "avg_pool" else all(np.array_equal(first[1:], last[:-1]) for first, last in windows[:2])
    form = resolve_call(form, dtype=x.dtype, even=even)
    # Where the format decides nothing but the output's own, it is that which a view with gaps has, too.
    alike = getattr(form, "contiguous", None) == getattr(form, "channels_last", None)
    last = (is_channels_last if alike else is_dense_channels_last)(x.values)
    if isinstance(form, RealsForm):
        return _through_reals(form, x, check_out(x.qparams if out is None else out, place), profile, windows, section, place)
    formula = "range" if isinstance(form, RangeForm) else form.channels_last if last else form.contiguous
    if section == "adaptive_avg_pool" and formula in (*GLOBAL_ALONE, "range") and windows[2].size != 1:
        raise UnsupportedError(f"{place}: output_size={windows[2].shape} but this engine pools globally only; use output_size=1")
    if out is None:
        out = x.qparams
    elif formula not in _OWN_OUTPUT and check_out(out, place) != x.qparams:
        raise UnsupportedError(f"{place}: {profile.engine} pools into the parameters of its input; leave out=None and requantize afterwards")
    check_out(out, place)
    codes = _FORMULAS[formula](_Windows(x, out, form, profile, *windows))
    codes = saturate(codes, out._type.qmin, out._type.qmax).astype(out.storage)
    return QTensor(to_channels_last(codes) if last else np.ascontiguousarray(codes), out)


def _through_reals(form, x, out, profile, bounds, section, place):
    rows, columns, divisor = bounds[:3]
    if section == "adaptive_avg_pool":
        pool = lambda real: adaptive_pool_of_reals(form, real, (rows, columns), place)  # noqa: E731
    else:
        pool = lambda real: pool_of_reals(form, real, (rows, columns), divisor)  # noqa: E731
    return in_format_of(through_reals(x, out, profile, pool), x.values)


def avg_pool2d(
    x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None, *, out=None, numerics="fbgemm"
):  # fmt: skip
    """Average over windows.

    Parameters
    ----------
    x : QTensor, (N, C, H, W)
        PyTorch rounds contiguous and channels-last tensors in two different ways; the strides of ``x.values`` decide.
    kernel_size, stride, padding : int or pair of int
    ceil_mode, count_include_pad : bool
    divisor_override : int, optional
    out : QParams, optional
        PyTorch keeps the input's parameters; ONNX Runtime takes others.
    numerics : str or Numerics

    Returns
    -------
    QTensor
        In the memory format of `x`.

    Exactness
    ---------
    Integer sums are exact; the division rounds as `refquant.numerics.forms.PoolForm` says; bit-exact.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> x = rq.QTensor(np.array([[[[0, 1], [2, 3]]]], np.uint8), rq.QParams(1.0, 0, "uint8"))
    >>> avg_pool2d(x, 2).values
    array([[[[2]]]], dtype=uint8)
    """

    def bounds(place):
        g = pool_geometry(x.shape, kernel_size, stride, padding, 1, ceil_mode, place)
        (r0, r1, rn), (c0, c1, cn) = window_bounds(g, x.shape)
        divisor = rn[:, None] * cn if count_include_pad else (r1 - r0)[:, None] * (c1 - c0)
        own = divisor_of(divisor_override, place)
        return (r0, r1), (c0, c1), divisor if own is None else np.full_like(divisor, own), g, count_include_pad and own is None

    return _pool(x, out, numerics, "avg_pool", "avg_pool2d", bounds, ceil_mode)


def adaptive_avg_pool2d(x, output_size, *, out=None, numerics="fbgemm"):
    """Average over windows that divide the input into `output_size` parts.

    Parameters
    ----------
    x : QTensor, (N, C, H, W)
    output_size : int or pair of int
    out : QParams, optional
    numerics : str or Numerics
        ONNX Runtime has the global form alone (``output_size=1``).

    Returns
    -------
    QTensor

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> x = rq.QTensor(np.array([[[[0, 1], [2, 4]]]], np.uint8), rq.QParams(1.0, 0, "uint8"))
    >>> adaptive_avg_pool2d(x, 1).values.ravel()
    array([2], dtype=uint8)
    """

    def bounds(place):
        if x.ndim != 4:
            raise ShapeError(f"{place}: x has shape {x.shape} but must be (N, C, H, W)")
        size = sides(output_size, "output_size", 2, place, least=1)
        if 0 in x.shape[2:]:
            raise ShapeError(f"{place}: x has shape {x.shape}; its height and width must not be 0")
        check_room((*x.shape[:2], *size), "the output", place)
        rows, columns = (adaptive_bounds(n, o) for n, o in zip(x.shape[2:], size))
        return rows, columns, (rows[1] - rows[0])[:, None] * (columns[1] - columns[0])

    return _pool(x, out, numerics, "adaptive_avg_pool", "adaptive_avg_pool2d", bounds)


def global_avg_pool2d(x, *, out=None, numerics="fbgemm"):
    """Average over the whole image: `adaptive_avg_pool2d` with ``output_size=1``."""
    return adaptive_avg_pool2d(x, 1, out=out, numerics=numerics)


def bind_global_avg_pool2d(x, *, out=None, numerics="fbgemm"):
    """Return `global_avg_pool2d` as a function of QTensors like `x`, by a table of the codes of all sums; or None where codes depend on more than a sum."""
    profile, pixels = profiles.get(numerics), x.shape[2] * x.shape[3]
    form, last = resolve_call(profile.adaptive_avg_pool, dtype=x.dtype, even=True), is_channels_last(x.values)
    vector = max(getattr(form, "vector", 1), 1)
    formula = getattr(form, "channels_last" if last else "contiguous", None)
    if formula not in _OF_THE_SUM or x.dtype != "uint8" or x.shape[1] % vector or not 0 < pixels <= _MOST_PIXELS:
        return None
    # For each sum an image that has it, of pixels that differ by 1 at most; whole vectors of them.
    sums = np.arange(-(-(255 * pixels + 1) // vector) * vector)
    images = (sums[:, None] // pixels + (np.arange(pixels) < sums[:, None] % pixels)).clip(max=255).astype(np.uint8).reshape(1, -1, *x.shape[2:])
    table = global_avg_pool2d(QTensor(to_channels_last(images) if last else images, x.qparams), out=out, numerics=profile)
    codes, qparams = table.values.reshape(-1), table.qparams
    whole = tuple(np.array([end]) for end in (0, x.shape[2])), tuple(np.array([end]) for end in (0, x.shape[3]))

    def run(x):
        y = codes[sum_windows(x.values, *whole)]
        return QTensor(to_channels_last(y) if last else y, qparams)

    return run
