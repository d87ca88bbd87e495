"""From a `RangeProductForm` and the parameters at hand to an `Epilogue`: products whose output is a FakeQuantize.

The steps stand in OpenVINO's sources in this order: low_precision_transformations (the scales and zero points leave the product),
graph_optimizer.cpp (a bias goes into the shift), dnnl_postops_composer.cpp (steps and shifts of channels become scalars where they can).
"""

from typing import NamedTuple

import numpy as np

from refquant.core import epilogue as E
from refquant.core.range_steps import Steps, range_of, steps_of
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.core.rounding import Round, round_real
from refquant.errors import UnsupportedError, choose

__all__ = ["range_stage", "raw_codes", "sums_in_float", "check_packing", "transposed_range_stage"]

_F = np.float32
_DRIFT, _NEGLIGIBLE = _F(5e-5), _F(255) * _F(1e-5)
# float32 holds every integer up to here, so sums are exact in whatever order.
_EXACT = 2**24


class _Layer(NamedTuple):
    form: object
    low: np.float32
    high: np.float32
    scale: np.ndarray  # f(sx * sw); one number if all channels have the same
    term: object  # f(zx * sum(w)) that the raw accumulator holds too much, or None
    bias: object
    relu: bool
    real: bool  # sums in float32
    qmin: int


def sums_in_float(form, x, shape, groups):
    """Whether the engine computes a convolution in float32: int8 with a zero point, and depthwise volumes with one."""
    depthwise = groups > 1 and groups == shape[0] and shape[1] == 1
    return getattr(form, "float_sums", "none") == "signed" and x.zero_point != 0 and (x.dtype == "int8" or (len(shape) == 5 and depthwise))


def transposed_range_stage(form, x, w, out, bias, activation, place, *, groups, geometry):
    """Build the output stage of a transposed convolution, which stays in integers without a zero point and in one group alone; `w` is (IC, OC, kernel)."""
    kernel, sides = w.shape[2:], int(np.prod(geometry.out))
    if x.zero_point or groups > 1:
        raise UnsupportedError(f"{place}: x has zero point {x.zero_point} and groups={groups}, with which OpenVINO dequantizes and computes in float32; use zero point 0 and one group")
    if geometry.stride[-1] > 3 or any(k < s for k, s in zip(kernel, geometry.stride)) or w.shape[0] ** 2 * sides > 2**26:
        raise UnsupportedError(f"{place}: kernel {kernel}, stride {geometry.stride} and {w.shape[0]} channels, with which OpenVINO computes in float32; use a stride of 3 at most, no larger than the kernel")
    if form.plain != "divide" and max(geometry.stride) > 1 and max(geometry.dilation) > 1:
        raise UnsupportedError(f"{place}: stride {geometry.stride} and dilation {geometry.dilation}, which OpenVINO gives to a matrix product whose bias the profile does not describe; use one of them")
    flat = QTensor(np.swapaxes(w.values, 0, 1), w.qparams if not w.qparams.per_channel else QParams(w.qparams.scale, w.qparams.zero_point, w.dtype, axis=0))
    return range_stage(form, x, flat, out, bias, activation, place, groups=groups, stride=(1,) * len(kernel))


def raw_codes(form, x):
    """Return the activation as the accumulator sees it: without its zero point, where that enters the range."""
    return x if form.zero_point == "sum" else QTensor(x.values, QParams(x.qparams.scale, 0, x.dtype))


def range_stage(form, x, w, out, bias, activation, place, *, groups=1, stride=()):
    """Build the output stage.

    Parameters
    ----------
    form : RangeProductForm
    x, out : QParams
    w : QTensor
        The weights themselves: their sums are part of the stage.
    bias : ndarray or None
        float32; int32 in units of ``x.scale * w.scale``.
    activation : {None, "relu"}
    place : str
    groups : int
    stride : tuple of int

    Returns
    -------
    Epilogue

    Raises
    ------
    UnsupportedError
        Where the engine leaves integer arithmetic, or a range is lost in float32.
    """
    choose(place, "activation", activation, [None, "relu"])
    real = bool(stride) and sums_in_float(form, x, w.shape, groups)
    _check(x, w, place, groups, stride, real)
    scale = np.atleast_1d(_F(x.scale) * np.asarray(w.qparams.scale).astype(_F))
    scale = scale[:1] if np.all(scale == scale[0]) else scale
    if bias is not None and bias.dtype == np.int32:
        bias = bias.astype(_F) * scale
    term = None
    if form.zero_point == "range" and x.zero_point:
        term = (x.zero_point * w.values.astype(np.int64).reshape(w.shape[0], -1).sum(1)).astype(_F)
    low, high = range_of(out.scale, out.zero_point, out._type.qmin, out._type.qmax)
    # Where the range begins at 0 the ReLU is dropped.
    relu = activation == "relu" and out.zero_point > out._type.qmin
    layer = _Layer(form, low, high, scale, term, bias, relu, real, out._type.qmin)
    with np.errstate(all="ignore"):
        parts, steps = _parts(layer)
    _check_range(steps, place)
    kind = out._type
    limits = {"lo": kind.qmin, "hi": kind.qmax, "qlo": max(kind.qmin, out.zero_point) if activation == "relu" else kind.qmin, "qhi": kind.qmax}
    return E.make_epilogue(w.shape[0], **{**parts, **limits, "flags": parts["flags"] | E.CLAMP})


def _check(x, w, place, groups, stride, real):
    if w.qparams.dtype != "int8" or np.any(w.qparams.zero_point):
        raise UnsupportedError(f"{place}: weights are {w.qparams.dtype} with zero points, for which OpenVINO leaves integer arithmetic; use int8 with zero point 0")
    if stride and max(w.shape[2:]) == 1 and max(stride) > 1:
        raise UnsupportedError(f"{place}: OpenVINO turns a kernel of 1 with stride {stride} into a pool and a float32 convolution; use stride 1")
    if not real:
        return
    depthwise = groups == w.shape[0] and w.shape[1] == 1
    if groups > 1 and (not depthwise or len(w.shape) == 3):
        raise UnsupportedError(f"{place}: OpenVINO computes groups of int8 with a zero point in float32 kernels that the profile does not describe; use uint8")
    most = max(int(x.zero_point) - x._type.qmin, x._type.qmax - int(x.zero_point))
    if np.abs(w.values.astype(np.int64)).reshape(w.shape[0], -1).sum(1).max(initial=0) * most > _EXACT:
        raise UnsupportedError(f"{place}: OpenVINO sums int8 with a zero point in float32, where sums beyond 2**24 depend on their order; use uint8")


def _parts(layer):
    if layer.relu and (layer.bias is not None or layer.term is not None):
        return _sum(layer)
    if layer.bias is None or layer.bias.size == 1:
        return _in_range(layer)
    return _sum(layer) if layer.form.bias == "sum" and not layer.real else _bias_in_shift(layer)


def _off(layer):
    """The step that takes a zero point's term off the raw accumulator."""
    return {"flags": 0} if layer.term is None else {"flags": E.PRE_BIAS, "pre_b": -layer.term, "pre_k": 1}


def _vectors(layer, steps):
    """Return (step, shift + qmin), each a single number where all channels have the same."""
    step, shift = np.atleast_1d(steps.step), np.atleast_1d(steps.shift)
    if layer.form.drift and np.all(np.abs(shift - shift[0]) < _DRIFT):
        shift = shift[:1]
    shift = shift + _F(layer.qmin)
    if np.all(shift == shift[0]):
        shift = shift[:1]
        if layer.form.plain != "kept" and np.abs(shift[0]) < _NEGLIGIBLE:
            shift = np.zeros(1, _F)
    return step[:1] if np.all(step == step[0]) else step, shift


def _in_range(layer):
    """Without a bias, and with that of a single output, which moves the range as a zero point does."""
    bias = _F(0) if layer.bias is None else layer.bias
    low, high = np.atleast_1d((layer.low - bias) / layer.scale), np.atleast_1d((layer.high - bias) / layer.scale)
    if layer.term is not None:
        low, high = low + layer.term, high + layer.term
    steps = steps_of(low, high, "quotient")
    step, shift = _vectors(layer, steps)
    if step.size == shift.size == 1:
        if not shift[0]:
            return _plain(layer, {"flags": 0}, step[0]), steps
        return {"flags": E.SCALE_FMA if layer.form.contraction == "fma" else E.BIAS, "s2": step, "b": shift}, steps
    return {"flags": E.BIAS, "s2": step, "b": shift}, steps


def _plain(layer, parts, step):
    """Scale sums that need no shift."""
    if layer.form.plain == "divide":
        return {**parts, "flags": parts["flags"] | E.DST_DIV, "d": _F(1) / step}
    return {**parts, "flags": parts["flags"] | E.DST_MUL, "d": _F(1) / (_F(1) / step) if layer.form.plain == "multiply" and not layer.real else step}


def _to_grid(layer, parts, step, shift):
    """Scale and shift a real number, which is the same for all channels."""
    if not shift[0]:
        return _plain(layer, parts, step[0])
    fused = E.DST_FMA if layer.form.contraction == "fma" else E.DST_MUL | E.ZERO_FLOAT
    return {**parts, "flags": parts["flags"] | fused, "d": step[0], "zf": shift[0]}


def _sum(layer):
    steps = steps_of(layer.low, layer.high, "quotient")
    parts = {**_off(layer), "s2": layer.scale}
    if layer.bias is not None:
        parts.update(flags=parts["flags"] | E.BIAS, b=layer.bias)
    parts["flags"] |= E.RELU if layer.relu else 0
    return _to_grid(layer, parts, *_vectors(layer, steps)), steps


def _bias_in_shift(layer):
    steps = steps_of(layer.low, layer.high, "quotient")
    # The range moves with the scale and the bias; its ends only limit codes.
    apart = layer.real or layer.term is not None
    own = layer.scale if apart and layer.scale.size > 1 else np.ones(1, _F)
    shifted = Steps((layer.low - layer.bias) / own, (layer.high - layer.bias) / own, steps.step * own, steps.shift + layer.bias * steps.step)
    step, shift = _vectors(layer, shifted)
    parts = _off(layer)
    if own.size > 1:
        return {**parts, "flags": parts["flags"] | E.BIAS, "s2": step, "b": shift}, shifted
    if shift.size == 1:
        return _to_grid(layer, {**parts, "s2": layer.scale}, step, shift), shifted
    if not apart:
        return {**parts, "flags": parts["flags"] | E.BIAS, "s2": layer.scale * step, "b": shift}, shifted
    return {**parts, "flags": parts["flags"] | E.SCALE1 | E.BIAS, "s1": layer.scale[0], "s2": step, "b": shift}, shifted


def check_packing(epilogue, x, w, groups, place):
    """Refuse sums that the matrix product behind groups which are no fours may pack wrongly: of uint8 beyond 32,767 codes, of int8 beyond int32, it makes the lowest code."""
    wide = w.values.astype(np.int64).reshape(w.shape[0], -1)
    kind, zero = x.qparams._type, int(x.qparams.zero_point)
    most = np.where(wide > 0, wide * (kind.qmax - zero), wide * (kind.qmin - zero)).sum(1)
    free = epilogue._replace(flags=epilogue.flags & ~E.CLAMP, qlo=-(2**31), qhi=2**31 - 1)
    codes = E.apply_epilogue(most[None].astype(np.int32), free, np.int32)
    limit = 2**31 - 1 if x.dtype == "int8" else 2**15 - 1
    if np.any((codes > limit) | (codes == -(2**31))):
        raise UnsupportedError(f"{place}: with groups={groups} of {w.shape[1]} channels OpenVINO turns sums beyond {limit} codes to the lowest code, and these may get there; use a larger output scale")


def _check_range(steps, place):
    """Refuse a range whose ends are no longer the first and the last code: there limits move, and NaN and infinities arise."""
    with np.errstate(all="ignore"):
        first, last = (round_real(end * steps.step + steps.shift, Round.HALF_EVEN) for end in (steps.low, steps.high))
    if not (np.all(first == 0) and np.all(last == 255) and np.all(np.isfinite(steps.step)) and np.all(steps.step > 0)):
        raise UnsupportedError(
            f"{place}: the output's range is lost in float32 beside the bias or the zero point's term (codes {np.min(first):g} to {np.max(last):g}); use a larger output scale"
        )
