"""What an operator's ``isa=`` means: which of its products saturate, by the profile's pairing and the processor level."""

import numpy as np

from refquant.core.rounding import Round, round_shift
from refquant.errors import UnsupportedError
from refquant.isa.accumulate import neighbours
from refquant.isa.cpu import level
from refquant.isa.products import ConvGeometry, Product, saturating_product, takes_fbgemm_depthwise
from refquant.ops.range_stage import sums_in_float

__all__ = ["has_vnni", "saturating_level", "linear_product", "conv_product", "transposed_product", "conv_geometry", "rearrange", "halved"]


def has_vnni(isa):
    """Return whether a level has AVX512-VNNI, or None for none."""
    return None if isa is None else "AVX512-VNNI" in level(isa).extensions


def saturating_level(profile):
    """Return the ``isa=`` with which `refquant.ops.matmul_integer` gives a profile's plain matrix product of uint8 and int8: None where it is exact.

    Examples
    --------
    >>> from refquant import numerics
    >>> [saturating_level(numerics.get(name)) for name in ("onnxruntime", "onnxruntime@avx2", "onnxruntime@sse41", "qnnpack@avx2")]
    [None, 'avx2', None, None]
    """
    rule = profile.pairing.linear
    if profile.isa is None or rule in ("exact", "unknown") or saturating_product(rule, "linear", profile.isa) is None:
        return None
    return profile.isa


def _by_rule(rule, op, isa, x, w, place, geometry=None):
    if rule == "exact":
        return None
    if rule == "unknown":
        raise UnsupportedError(f"{place}: how this engine adds up products on {isa} is not known; leave isa out, or choose another profile")
    if w.values.dtype == np.uint8:
        if rule == "onnxruntime":
            return None
        raise UnsupportedError(f"{place}: {rule} multiplies int8 weights, so with uint8 weights nothing is known about {isa}; leave isa out")
    return saturating_product(rule, op, isa, x_dtype=x.dtype, x_zero_point=x.qparams.zero_point, geometry=geometry)


def linear_product(profile, x, w, place):
    """Return the `Product` of a linear layer on the profile's level, None if it is exact."""
    return None if profile.isa is None else _by_rule(profile.pairing.linear, "linear", profile.isa, x, w, place)


def conv_geometry(x_shape, w_shape, groups, geometry):
    """Return the `ConvGeometry` of a checked call."""
    kernel, stride, dilation = tuple(w_shape[2:]), geometry["stride"], geometry["dilation"]
    padding = tuple(low for low, _ in geometry["padding"])
    width = (x_shape[-1] + 2 * padding[-1] - dilation[-1] * (kernel[-1] - 1) - 1) // stride[-1] + 1
    return ConvGeometry(groups, w_shape[1], w_shape[0] // groups, kernel, stride, padding, dilation, width)


def conv_product(profile, form, otherwise, x, w, groups, geometry, place):
    """Return the `Product` of a convolution, None if it is exact.

    Parameters
    ----------
    profile : Numerics
    form : ProductForm or RealForm
        In force for this call.
    otherwise : bool
        Whether a `Dispatch` said no.
    x, w : QTensor
    groups : int
    geometry : dict
        ``stride``, ``padding`` and ``dilation``.
    place : str
    """
    if sums_in_float(form, x.qparams, w.shape, groups):
        return None
    shape = conv_geometry(x.shape, w.shape, groups, geometry)
    if profile.isa is not None:
        rule = profile.pairing.conv_otherwise if otherwise else profile.pairing.conv
        return _by_rule(rule, f"conv{w.ndim - 2}d", profile.isa, x, w, place, shape)
    if getattr(form, "accumulator", "exact") == "exact" or x.dtype != "uint8" or w.dtype != "int8":
        return None
    return Product("raster", "zero_point") if takes_fbgemm_depthwise(shape) else None


def transposed_product(profile, otherwise, x, w, groups, place, kernel):
    """Return the `Product` of a transposed convolution, None if it is exact; FBGEMM's direct kernel is the form's affair, and `kernel` is oneDNN's."""
    if profile.isa is None:
        return None
    rule = profile.pairing.conv_otherwise if otherwise else profile.pairing.conv
    dims = w.ndim - 2
    one = (1,) * dims
    geometry = ConvGeometry(groups, w.shape[0] // groups, w.shape[1], tuple(w.shape[2:]), one, one, one, 1, kernel)
    return _by_rule(rule, f"conv_transpose{dims}d", profile.isa, x, w, place, geometry)


def rearrange(product, k):
    """Return which k to take, in which order, so that a linear layer's neighbours lie side by side; −1 is none, and None is as they are."""
    order = neighbours("k", k, halves=product.halves).reshape(-1)
    return None if np.array_equal(order[:k], np.arange(k)) else order


def halved(values):
    """Return int8 weights as half of what oneDNN makes of them: ``round_half_even(w / 2)``."""
    return round_shift(values.astype(np.int64), 1, Round.HALF_EVEN).astype(np.int8)
