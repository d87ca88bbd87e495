"""fake_quantize: real numbers moved onto the grid of a quantized dtype, still real."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import code_of_nan, dequantize_codes, quantize_real
from refquant.core.qparams import QParams
from refquant.errors import ArgumentError
from refquant.kernels import affine as kernels
from refquant.numerics.range_forms import RangeForm
from refquant.ops.memory_order import around_axis, memory_order, restored
from refquant.ops.quantize import channel_vectors, check_axis, quantizer, real_array
from refquant.ops.range_elementwise import range_fake_quantize

__all__ = ["fake_quantize", "fake_quantize_reference"]


def fake_quantize(x, qparams, *, numerics="fbgemm"):
    """Move real numbers onto the grid: quantize within [quant_min, quant_max], then dequantize.

    Engines round here in another way than in `quantize`: PyTorch's fake-quantize rounds before it adds the zero
    point, its quantize after, so that the two differ on ties.

    Parameters
    ----------
    x : array_like of float
    qparams : QParams
        Its ``quant_min`` and ``quant_max`` bound the grid.
    numerics : str or Numerics

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact to the profile's ``fake_quantize`` (or ``fake_quantize_channel``) form, then ``f32(q - z) * s``; OpenVINO's is `refquant.ops.range_elementwise.range_fake_quantize`.

    Examples
    --------
    >>> from refquant import QParams
    >>> fake_quantize([0.5, 1.5, 2.5], QParams(1.0, 1, "uint8"), numerics="fbgemm").tolist()
    [0.0, 2.0, 2.0]
    """
    x, form = _plan(x, qparams, numerics)
    if isinstance(form, RangeForm):
        return range_fake_quantize(form, x, qparams)
    how = quantizer(form)
    if how is None:
        return fake_quantize_reference(x, qparams, numerics=numerics)
    axes, source = memory_order(x)
    out = np.empty(source.shape, np.float32)
    limits = qparams.qmin, qparams.qmax
    vectors = channel_vectors(form, qparams)
    kernels.fake_quantize_reals(source, out, how, *vectors, limits, code_of_nan(form.nan, *limits), around_axis(x.shape, axes, qparams.axis))
    return restored(out, axes)


def _plan(x, qparams, numerics):
    profile = profiles.get(numerics)
    place = f"fake_quantize[{profile.name}]"
    if not isinstance(qparams, QParams):
        raise ArgumentError(f"{place}: qparams must be a QParams, not {type(qparams).__name__}; build one with refquant.QParams")
    x = real_array(x, place)
    check_axis(x, qparams, place)
    return x, profile.section("fake_quantize_channel" if qparams.per_channel else "fake_quantize", "fake_quantize")


def fake_quantize_reference(x, qparams, *, numerics="fbgemm"):
    """Same result as `fake_quantize`, in NumPy."""
    x, form = _plan(x, qparams, numerics)
    if isinstance(form, RangeForm):
        return range_fake_quantize(form, x, qparams)
    scale, zero = qparams.along(x.ndim)
    codes = quantize_real(
        x, scale, zero, qparams.qmin, qparams.qmax,
        scaling=form.scaling, add=form.zero_point, rounding=form.rounding, overflow=form.overflow, nan=form.nan,
    )  # fmt: skip
    return dequantize_codes(codes, scale, zero, "sub_mul")
