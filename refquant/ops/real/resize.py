"""pad and interpolate on float32 arrays."""

import numpy as np

from refquant.core.rounding import Round, round_real
from refquant.errors import ArgumentError, RangeError, ShapeError, choose
from refquant.ops.arguments import sides
from refquant.ops.real.order import check_order, in_format_of, real_input

__all__ = ["pad", "interpolate"]

_F = np.float32


def pad(x, pad, value=0.0):
    """Surround an array with a number; `pad` holds pairs (before, after) from the last axis to the first, negative ones cut.

    Examples
    --------
    >>> pad(np.float32([[1, 2]]), (1, 0))
    array([[0., 1., 2.]], dtype=float32)
    """
    given, x = x, real_input(x, "x", "pad")
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ShapeError(f"pad: pad={tuple(pad)} must be pairs, for {x.ndim} axes of x {x.shape} at most")
    pairs = [(0, 0)] * (x.ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)][::-1]
    if any(n + a + b < 0 for n, (a, b) in zip(x.shape, pairs)):
        raise ShapeError(f"pad: pad={tuple(pad)} cuts more off x {x.shape} than there is; cut less")
    inner = x[tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, pairs))]
    return in_format_of(np.pad(inner, [(max(a, 0), max(b, 0)) for a, b in pairs], constant_values=_F(value)), given)


def interpolate(x, size=None, scale_factor=None, mode="nearest", align_corners=False, *, order="torch_avx512"):
    """Resize images by the nearest pixel or by lines between pixels.

    Parameters
    ----------
    x : array_like of float32, (N, C, H, W); for ``nearest`` (N, C, ...)
    size, scale_factor : number or one an axis
        One of the two; a side becomes ``floor(side · factor)``.
    mode : {"nearest", "bilinear"}
    align_corners : bool
        Of ``bilinear``.

    Returns
    -------
    ndarray of float32
        In the memory format of `x`.

    Exactness
    ---------
    ``nearest`` moves numbers; the source index is a float32 product, rounded down. ``bilinear`` takes PyTorch's float32 weights, sums each row's
    two pixels and then the two rows, one operation after the other; PyTorch's kernels fuse some of these operations. Order ``inductor``:
    ``nearest`` alone.

    Examples
    --------
    >>> x = np.float32([[[[0, 10]]]])
    >>> interpolate(x, (1, 4)).ravel().tolist(), interpolate(x, (1, 4), mode="bilinear").ravel().tolist()
    ([0.0, 0.0, 10.0, 10.0], [0.0, 2.5, 7.5, 10.0])
    """
    place = "interpolate"
    choose(place, "mode", mode, ("nearest", "bilinear"))
    check_order(order, place, generated=mode == "nearest")
    given, x = x, real_input(x, "x", place)
    dims = x.ndim - 2
    if dims < 1 or 0 in x.shape[2:] or mode == "bilinear" and dims != 2:
        raise ShapeError(f"{place}: x has shape {x.shape} but must be (N, C, {'H, W' if mode == 'bilinear' else '...'}) with pixels")
    if (size is None) == (scale_factor is None):
        raise ArgumentError(f"{place}: size={size} and scale_factor={scale_factor}; give one of them")
    if size is not None:
        sizes, factors = sides(size, "size", dims, place, least=1), (None,) * dims
    else:
        factors = tuple(float(f) for f in np.broadcast_to(np.asarray(scale_factor, np.float64), (dims,)))
        sizes = tuple(int(round_real(np.float64(n * f), Round.FLOOR)) for n, f in zip(x.shape[2:], factors))
    if min(sizes) < 1:
        raise RangeError(f"{place}: scale_factor={scale_factor} makes {sizes} of {x.shape[2:]}; no side may vanish")
    # A side that keeps its length goes without the factor.
    ratios = [_F(1.0 / f) if f and n != o else _F(n) / _F(o) for n, o, f in zip(x.shape[2:], sizes, factors)]
    if mode == "nearest":
        y = x
        for axis, (n, o, ratio) in enumerate(zip(x.shape[2:], sizes, ratios), 2):
            # The same size and twice the size go without the ratio.
            source = np.arange(o) * n // o if o in (n, 2 * n) else round_real(np.arange(o).astype(_F) * ratio, Round.FLOOR).astype(np.int64)
            y = y.take(np.minimum(source, n - 1), axis)
        return in_format_of(np.ascontiguousarray(y), given)
    if sizes == x.shape[2:]:
        return in_format_of(x.copy(), given)
    rows, columns = (_line(n, o, ratio, align_corners) for n, o, ratio in zip(x.shape[2:], sizes, ratios))
    across = x[..., columns[0]] * columns[2] + x[..., columns[1]] * columns[3]
    return in_format_of(across[:, :, rows[0]] * rows[2][:, None] + across[:, :, rows[1]] * rows[3][:, None], given)


def _line(n, size, ratio, align_corners):
    """Return the two source indices and their weights of every output along one axis."""
    places = np.arange(size).astype(_F)
    if align_corners:
        source = (_F(n - 1) / _F(size - 1) if size > 1 else _F(0)) * places
    else:
        source = np.maximum(ratio * (places + _F(0.5)) - _F(0.5), _F(0))
    low = np.minimum(source.astype(np.int64), n - 1)
    weight = np.minimum(np.maximum(source - low.astype(_F), _F(0)), _F(1))
    return low, low + (low < n - 1), _F(1) - weight, weight
