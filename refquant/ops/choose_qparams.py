"""choose_qparams: the parameters that dynamic quantization takes from the data at hand."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.arguments import as_real
from refquant.core.choose_qparams import check_range
from refquant.core.choose_qparams import choose_qparams as aten_qparams
from refquant.core.qparams import QParams
from refquant.core.rounding import Round, round_real
from refquant.errors import ShapeError, UnsupportedError, choose
from refquant.numerics.special_forms import RowDynamicForm
from refquant.ops.quantize import real_array

__all__ = ["choose_qparams"]

_F = np.float32
_LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}


def choose_qparams(x, *, numerics="fbgemm", dtype="uint8", symmetric=False, reduce_range=False, eps=2.0**-23):
    """Choose the parameters of a tensor from its least and greatest number, as the engine does at run time.

    Parameters
    ----------
    x : array_like of float
        Not empty, finite.
    numerics : str or Numerics
        Which profile's ``dynamic`` form.
    dtype : {"uint8", "int8"}
        ONNX has ``"uint8"`` alone.
    symmetric : bool
        Zero point 0: ``quantized_decomposed.choose_qparams_symmetric.tensor``.
    reduce_range : bool
        Halve the codes (0 … 127, −64 … 63); QNNPACK ignores it, ONNX has no such form.
    eps : float
        The least scale, where the form is ``decomposed``.

    Returns
    -------
    QParams
        Per tensor, over the whole dtype; the scale is the double or float32 that the engine keeps.

    Raises
    ------
    ShapeError, RangeError
        An empty tensor, a NaN or an infinity.
    UnsupportedError
        What the engine does not offer.

    Exactness
    ---------
    Bit-exact. ATen: a double scale, and the zero point from the end of the range with the smaller error; ``decomposed`` and ONNX: float32,
    see `refquant.numerics.special_forms.DynamicForm`.

    Source
    ------
    PyTorch 2.13 ATen/native/quantized/cpu/QuantUtils.h, torch/ao/quantization/fx/_decomposed.py; ONNX DynamicQuantizeLinear.

    Examples
    --------
    >>> choose_qparams([-1.0, 3.0], numerics="fbgemm")
    QParams(scale=0.01568627450980392, zero_point=64, dtype='uint8')
    >>> choose_qparams([-1.0, 3.0], numerics="onnxruntime")
    QParams(scale=0.01568627543747425, zero_point=64, dtype='uint8')
    """
    profile = profiles.get(numerics)
    place = f"choose_qparams[{profile.name}]"
    form = profile.section("dynamic", "choose_qparams")
    if isinstance(form, RowDynamicForm):
        raise UnsupportedError(f"{place}: {profile.engine} has no such operation: it quantizes rows inside of a linear layer; call linear_dynamic")
    choose(place, "dtype", dtype, _LIMITS)
    eps = as_real(eps, "eps", place)
    x = real_array(x, place)
    if not x.size:
        raise ShapeError(f"{place}: x has shape {x.shape}; a range needs at least one number")
    low, high = x.min(), x.max()
    check_range(low, high, place)
    if form.reduced == "ignored":
        reduce_range = False
    if form.parameters == "aten":
        return _aten(low, high, dtype, symmetric, reduce_range)
    if reduce_range or (form.parameters != "decomposed" and (symmetric or dtype != "uint8")):
        raise UnsupportedError(f"{place}: dtype={dtype!r}, symmetric={symmetric}, reduce_range={reduce_range}, but {profile.engine} has no such form; leave them out")
    low, high = min(low, _F(0)), max(high, _F(0))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        if form.parameters == "decomposed":
            scale, zero = _decomposed(low, high, dtype, symmetric, _F(eps))
        elif form.parameters == "span":
            scale, zero = _span(low, high, place)
        else:
            scale, zero = _onnx(low, high, _F(1) if form.parameters == "runtime" else _F(1) / _F(255))
    check_range(scale, scale, f"{place}, scale")
    # A range of the least numbers has scale 0 in float32, which ONNX hands on.
    return QParams(float(scale), int(zero), dtype, unchecked=True)


def _aten(low, high, dtype, symmetric, reduce_range):
    scale, zero = aten_qparams(low, high, *_LIMITS[dtype], preserve_sparsity=symmetric, reduce_range=reduce_range)
    return QParams(scale, zero, dtype)


def _decomposed(low, high, dtype, symmetric, eps):
    qmin, qmax = _LIMITS[dtype]
    if symmetric:
        return max(max(-low, high) / _F((qmax - qmin) / 2), eps), 128 if dtype == "uint8" else 0
    scale = max((high - low) / _F(qmax - qmin), eps)
    return scale, np.clip(qmin - int(round_real(np.float64(low / scale), Round.HALF_EVEN)), qmin, qmax)


def _span(low, high, place):
    scale = (high - low) * (_F(1) / _F(255))
    if scale < np.finfo(_F).tiny or not np.isfinite(_F(1) / (high - low)) or not np.isfinite(_F(255) * max(-low, high)):
        raise UnsupportedError(f"{place}: x goes from {low:g} to {high:g}, whose scale or whose inverse is no normal float32, as the engine wants it; scale x")
    return scale, round_real(np.float64(min(max(-low * (_F(1) / scale), _F(0)), _F(255))), Round.HALF_EVEN)


def _onnx(low, high, flat):
    scale = flat if low == high else (high - low) / _F(255)
    zero = _F(0) - low / scale
    return scale, round_real(np.float64(255 if np.isnan(zero) else min(max(zero, _F(0)), _F(255))), Round.HALF_EVEN)
