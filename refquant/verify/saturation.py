"""Where products saturate in int16 on a processor without VNNI: which outputs do, and which channels could on any data."""

import numpy as np

from refquant import numerics as profiles
from refquant.isa.accumulate import accumulate_conv, accumulate_linear, neighbours
from refquant.numerics.dispatch import resolve
from refquant.ops.arguments import sides
from refquant.ops.pairing import conv_product, has_vnni, linear_product

__all__ = ["product_of", "channels_at_risk", "saturated"]

_LOW, _HIGH = -(2**15), 2**15 - 1


def _geometry(problem):
    dims, place = problem["w"].ndim - 2, "saturation"
    stride, padding, dilation = (sides(problem.get(name, usual), name, dims, place, least=least) for name, usual, least in (("stride", 1, 1), ("padding", 0, 0), ("dilation", 1, 1)))
    return {"stride": stride, "padding": tuple((p, p) for p in padding), "dilation": dilation}


def product_of(problem, numerics):
    """Return the `Product` of a linear layer or a convolution under a profile on a processor level, such as ``"onednn@avx2"``; None is exact."""
    profile, x, w = profiles.get(numerics), problem["x"], problem["w"]
    if problem.op == "linear":
        return linear_product(profile, x, w, "saturation")
    groups, section = problem.get("groups", 1), profile.section("conv", problem.op)
    form = resolve(section, x_shape=x.shape, w_shape=w.shape, groups=groups, zero_points=np.atleast_1d(w.qparams.zero_point), vnni=has_vnni(profile.isa))
    return conv_product(profile, form, form is getattr(section, "no", None), x, w, groups, _geometry(problem), "saturation")


def channels_at_risk(w, product, most=255):
    """Return which output channels have two neighbouring weights whose products with codes of 0 … `most` can leave int16.

    Parameters
    ----------
    w : QTensor
        int8, output channels first.
    product : Product or None
    most : int

    Returns
    -------
    ndarray of bool, (OC,)

    Examples
    --------
    >>> from refquant.core.qparams import QParams
    >>> from refquant.core.qtensor import QTensor
    >>> from refquant.isa.products import Product
    >>> w = QTensor(np.int8([[64, 64], [64, 65], [-64, -65], [127, -128]]), QParams(1.0, 0, "int8"))
    >>> channels_at_risk(w, Product("k")).tolist()
    [False, True, True, False]
    """
    codes = np.asarray(w.values, np.int64)
    if product is None or product.halved:
        return np.zeros(len(codes), bool)
    kernel = codes.shape[2:] if codes.ndim > 2 else (1,)
    flat = codes.reshape(len(codes), -1) if codes.ndim == 2 else np.moveaxis(codes, 1, -1).reshape(len(codes), -1)
    order = neighbours(product.order, flat.shape[1] // int(np.prod(kernel)), kernel, halves=product.halves) if codes.ndim > 2 else neighbours(product.order, flat.shape[1], halves=product.halves)
    both = np.pad(flat, ((0, 0), (0, 1)))[:, order]
    return ((most * np.maximum(both, 0).sum(-1) > _HIGH) | (most * np.minimum(both, 0).sum(-1) < _LOW)).any(1)


def saturated(problem, numerics):
    """Return which accumulators of a layer are not the exact ones on a processor level, because a pair of products saturated.

    Parameters
    ----------
    problem : Problem
        Of a linear layer or a convolution.
    numerics : str or Numerics
        With a level, such as ``"onednn@avx2"``.

    Returns
    -------
    ndarray of bool
        Of the operator's shape.

    Examples
    --------
    >>> from refquant.verify import build
    >>> int(saturated(build("linear/onednn/m2k8n3/pairs/seed=0"), "onednn@avx2").sum()) > 0
    True
    """
    x, w, product = problem["x"], problem["w"], product_of(problem, numerics)
    shape = (*x.shape[:-1], w.shape[0]) if problem.op == "linear" else None
    risky = _worth_a_look(x, w, product)
    if problem.op == "linear":
        found = np.zeros(shape, bool)
        if risky.any():
            exact, theirs = (accumulate_linear(x.values, w.values[risky], how) for how in (None, product))
            found[..., risky] = exact != theirs
        return found
    return _saturated_conv(problem, product, risky)


def _worth_a_look(x, w, product):
    """Return the channels that could saturate with codes no greater than these."""
    if product is not None and product.halved:
        return np.ones(w.shape[0], bool)
    shift = 0 if product is None else product.shift
    return channels_at_risk(w, product, int(max(x.values.max(initial=0), x.qparams.zero_point)) + shift)


def _saturated_conv(problem, product, risky):
    x, w, groups, geometry = problem["x"], problem["w"], problem.get("groups", 1), _geometry(problem)
    geometry = {**geometry, "padding": tuple(low for low, _ in geometry["padding"])}
    per_group, ic = w.shape[0] // groups, w.shape[1]
    parts = []
    for g in range(groups):
        mine = slice(g * per_group, (g + 1) * per_group)
        weights, zero = w.values[mine][risky[mine]], int(x.qparams.zero_point)
        codes = x.values[:, g * ic : (g + 1) * ic]
        exact, theirs = (accumulate_conv(codes, weights, how, x_zero_point=zero, **geometry) for how in (None, product)) if len(weights) else (None, None)
        parts.append((mine, None if exact is None else exact != theirs))
    size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(x.shape[2:], w.shape[2:], geometry["stride"], geometry["padding"], geometry["dilation"])]
    found = np.zeros((x.shape[0], w.shape[0], *size), bool)
    for mine, differs in parts:
        if differs is not None:
            found[:, np.flatnonzero(risky[mine]) + mine.start] = differs
    return found
