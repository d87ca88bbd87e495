"""Accumulators of linear layers and convolutions, as saturating products leave them: the readable reference in NumPy."""

import math

import numpy as np

from refquant.core.rounding import Round, round_shift
from refquant.core.wrap import saturate_int16, wrap_int32
from refquant.errors import ArgumentError, ShapeError, choose
from refquant.isa.products import ORDERS, Product

__all__ = ["neighbours", "accumulate_linear", "accumulate_conv"]


def neighbours(order, channels, kernel=(1, 1), halves=(0, -1)):
    """Return which products of one output are added in int16.

    Parameters
    ----------
    order : str
        One of `refquant.isa.products.ORDERS`.
    channels : int
        Input channels of one group, or K of a linear layer.
    kernel : tuple of int
    halves : (int, int)
        As in `Product`, for the orders ``k`` and ``raster``.

    Returns
    -------
    ndarray of int64, (pairs, 2)
        Positions in (*kernel, ic), flattened; −1 for the partner of a product that stays alone.

    Examples
    --------
    >>> neighbours("k", 3).tolist(), neighbours("channels", 1, (1, 2)).tolist(), neighbours("columns", 1, (2, 2)).tolist()
    ([[0, 1], [2, -1]], [[0, -1], [1, -1]], [[0, 2], [1, 3]])
    >>> neighbours("k", 5, halves=(4, 7)).tolist()
    [[0, 1], [2, -1], [3, 4]]
    """
    choose("isa.neighbours", "order", order, ORDERS)
    size = math.prod(kernel) * channels
    places = np.arange(size, dtype=np.int64).reshape(*kernel, channels)
    if order == "columns":
        places = np.moveaxis(places, -2, 0)
    if order == "reversed":
        places = places.reshape(-1, channels)[::-1]
    if order in ("k", "raster") and halves[0] <= size <= halves[1]:
        first, second = neighbours("k", (size + 1) // 2), neighbours("k", size // 2)
        return np.concatenate([first, np.where(second < 0, -1, second + (size + 1) // 2)])
    parts = {"channels": math.prod(kernel), "rows": math.prod(kernel[:-1])}.get(order, 1)
    lines = places.reshape(parts, size // max(parts, 1))
    lines = np.pad(lines, ((0, 0), (0, lines.shape[1] % 2)), constant_values=-1)
    return lines.reshape(-1, 2)


def _sum_pairs(products, pairs):
    padded = np.pad(products, [(0, 0)] * (products.ndim - 1) + [(0, 1)])
    return saturate_int16(padded[..., pairs[:, 0]] + padded[..., pairs[:, 1]]).sum(axis=-1)


def _effective_weights(w, product):
    wide = w.astype(np.int64)
    return 2 * round_shift(wide, 1, Round.HALF_EVEN) if product is not None and product.halved else wide


def _check(place, x, w, product):
    if x.dtype not in (np.uint8, np.int8) or w.dtype != np.int8:
        raise ArgumentError(f"{place}: x is {x.dtype} and w {w.dtype}; x must be uint8 or int8 and w int8, as the engine multiplies them")
    if product is not None and not isinstance(product, Product):
        raise ArgumentError(f"{place}: product is a {type(product).__name__}; pass what saturating_product returns")
    pairs = product is not None and not product.halved
    if pairs and x.dtype == np.int8 and product.shift != 128:
        raise ArgumentError(f"{place}: x is int8 but the product adds {product.shift}; ask saturating_product with x_dtype='int8'")
    return pairs


def accumulate_linear(x, w, product, *, x_zero_point=0, w_zero_point=0):
    """Compute ``Σ_k (x[m, k] − zx) · (w[n, k] − zw[n])`` as an engine does.

    Parameters
    ----------
    x : ndarray of uint8 or int8, (..., K)
    w : ndarray of int8, (OC, K)
    product : Product or None
        From `saturating_product`; None is exact.
    x_zero_point : int
    w_zero_point : int or ndarray of int, (OC,)

    Returns
    -------
    ndarray of int32, (..., OC)

    Exactness
    ---------
    Sums of neighbours saturate to int16, everything else is exact modulo 2**32.

    Examples
    --------
    >>> x, w = np.full((1, 3), 255, np.uint8), np.full((1, 3), 127, np.int8)
    >>> int(accumulate_linear(x, w, Product("k"))[0, 0]), 32767 + 255 * 127
    (65152, 65152)
    """
    x, w = np.asarray(x), np.asarray(w)
    pairs = _check("isa.accumulate_linear", x, w, product)
    if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise ShapeError(f"isa.accumulate_linear: x has shape {x.shape} and w {w.shape}; they must be (..., K) and (OC, K)")
    zero = np.broadcast_to(np.asarray(w_zero_point, np.int64), (w.shape[0],))
    wide_x, wide_w = x.astype(np.int64), _effective_weights(w, product)
    if not pairs:
        return wrap_int32((wide_x - x_zero_point) @ (wide_w - zero[:, None]).T)
    wide_x, x_zero_point = wide_x + product.shift, x_zero_point + product.shift
    places = neighbours(product.order, w.shape[1], halves=product.halves)
    raw = np.stack([_sum_pairs(wide_x * row, places) for row in wide_w], axis=-1) if len(w) else np.zeros((*x.shape[:-1], 0), np.int64)
    terms = x_zero_point * wide_w.sum(1) + wide_x.sum(-1, keepdims=True) * zero - w.shape[1] * x_zero_point * zero
    return wrap_int32(raw - terms)


def _windows(x, kernel, stride, padding, dilation, outside):
    """Return (N, *out, *kernel, C): what each tap of each output sees."""
    dims = len(kernel)
    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), *((p, p) for p in padding)), constant_values=outside)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, dims + 2)))
    steps = (slice(None), slice(None), *(slice(None, None, s) for s in stride), *(slice(None, None, d) for d in dilation))
    return np.moveaxis(windows[steps], 1, -1)


def accumulate_conv(x, w, product, *, x_zero_point=0, w_zero_point=0, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """Compute the accumulators of a convolution as an engine does.

    Parameters
    ----------
    x : ndarray of uint8 or int8, (N, C, *spatial)
    w : ndarray of int8, (OC, C / groups, *kernel)
        One to three spatial dimensions.
    product : Product or None
        From `saturating_product`; None is exact.
    x_zero_point : int
        Also the value of the padding.
    w_zero_point : int or ndarray of int, (OC,)
    stride, padding, dilation : tuple of int
        One entry a spatial dimension.
    groups : int

    Returns
    -------
    ndarray of int32, (N, OC, *out)
        ``Σ (x − zx) · (w − zw)`` but for the saturation.

    Exactness
    ---------
    Sums of neighbours saturate to int16, everything else is exact modulo 2**32.

    Examples
    --------
    >>> x, w = np.full((1, 3, 1, 1), 255, np.uint8), np.full((1, 3, 1, 1), 127, np.int8)
    >>> int(accumulate_conv(x, w, Product("channels"))[0, 0, 0, 0])
    65152
    """
    x, w = np.asarray(x), np.asarray(w)
    pairs = _check("isa.accumulate_conv", x, w, product)
    if x.ndim < 3 or w.ndim != x.ndim or x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ShapeError(
            f"isa.accumulate_conv: x has shape {x.shape}, w {w.shape} and groups={groups};"
            " x must be (N, C, *spatial) and w (OC, C / groups, *kernel)"
        )
    shift = product.shift if pairs else 0
    zx, kernel = x_zero_point + shift, w.shape[2:]
    skips = pairs and product.fill == "nothing"
    seen = _windows(x.astype(np.int64) + shift, kernel, stride, padding, dilation, 0 if skips else zx)
    inside = _windows(np.ones(x.shape, np.int64), kernel, stride, padding, dilation, 0 if skips else 1)
    depth, out = w.shape[1] * math.prod(kernel), seen.shape[: w.ndim - 1]
    taps = np.moveaxis(_effective_weights(w, product), 1, -1).reshape(w.shape[0], depth)
    zero = np.broadcast_to(np.asarray(w_zero_point, np.int64), (w.shape[0],))
    places = neighbours(product.order, w.shape[1], kernel, product.halves) if pairs else None
    acc = np.empty((*out, w.shape[0]), np.int64)
    per_group = w.shape[0] // groups
    for group in range(groups):
        channels = slice(group * w.shape[1], (group + 1) * w.shape[1])
        values = seen[..., channels].reshape(*out, depth)
        valid = inside[..., channels].reshape(values.shape)
        for n in range(group * per_group, (group + 1) * per_group):
            raw = _sum_pairs(values * taps[n], places) if pairs else values @ taps[n]
            terms = zx * (valid @ taps[n]) + (values.sum(-1) - zx * valid.sum(-1)) * zero[n]
            acc[..., n] = raw - terms
    return np.moveaxis(wrap_int32(acc), -1, 1)
