"""requantize: codes of one grid to codes of another, and sums to codes."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.arguments import as_array
from refquant.core.epilogue import apply_epilogue, gemmlowp_multiply, half_up_multiply, to_int32
from refquant.core.layout import is_channels_last, to_channels_last
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.core.rounding import Round, round_shift
from refquant.core.wrap import saturate
from refquant.errors import ArgumentError, ShapeError, choose
from refquant.kernels.requantize import requantize as requantize_kernel
from refquant.numerics.profile import Dispatch
from refquant.numerics.range_forms import RangeForm
from refquant.ops.arguments import check_eight_bit, check_out, check_qtensor
from refquant.ops.by_reals import in_format_of
from refquant.ops.dequantize import dequantize_reference
from refquant.ops.lookup import code_table, take_codes
from refquant.ops.output_stage import check_bias, output_stage, quantized_multiplier
from refquant.ops.quantize import quantize_reference
from refquant.ops.range_elementwise import range_copy

__all__ = ["requantize", "requantize_reference", "requantize_sums", "requantize_sums_reference"]

def _plan(x, out, numerics):
    profile = profiles.get(numerics)
    place = f"requantize[{profile.name}]"
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    check_out(out, place)
    profile.section("requantize", "requantize")
    return profile


def _by_integers(how, x, out, codes):
    centred = codes.astype(np.int64) - x.qparams.zero_point
    if how == "byte":
        mult = int(to_int32(np.float32(256) * (np.float32(x.qparams.scale) / np.float32(out.scale))))
        y = round_shift(centred * mult, 8, Round.HALF_UP)
    else:
        mult, shift = quantized_multiplier(np.float64(np.float32(x.qparams.scale)) / np.float64(np.float32(out.scale)))
        y = (gemmlowp_multiply if how == "gemmlowp" else half_up_multiply)(centred, mult, shift)
    return saturate(y + out.zero_point, out._type.qmin, out._type.qmax).astype(out.storage)


def _codes(profile, x, out, codes, tail):
    if isinstance(profile.requantize, RangeForm):
        return range_copy(profile.requantize, x.qparams, out, codes).astype(out.storage)
    how = profile.requantize.tail if tail else profile.requantize.body
    if how != "reals":
        return _by_integers(how, x, out, codes)
    real = dequantize_reference(QTensor(codes, x.qparams), numerics=profile)
    return quantize_reference(real, out, numerics=profile).values


def _requantized(x, out, numerics, convert):
    """Take codes apart as the engine's loop does, and convert the parts."""
    profile = _plan(x, out, numerics)
    vector = getattr(profile.requantize, "vector", 0)
    if not vector:
        return in_format_of(QTensor(convert(profile, x, out, x.values, False), out), x.values)
    flat = np.ascontiguousarray(x.values).reshape(-1)
    split = flat.size // vector * vector
    parts = [convert(profile, x, out, codes, tail) for codes, tail in ((flat[:split], False), (flat[split:], True))]
    y = np.concatenate(parts).reshape(x.shape)
    return QTensor(to_channels_last(y) if is_channels_last(x.values) else y, out)


def _looked_up(profile, x, out, codes, tail):
    table = code_table(lambda c: _codes(profile, x, out, c, tail), x.qparams.storage, out.storage)
    return take_codes(table, codes)


def requantize(x, *, out, numerics="fbgemm"):
    """Take codes to another scale and zero point, as the engine does.

    Parameters
    ----------
    x : QTensor
        uint8 or int8, per tensor.
    out : QParams
        8 bits.
    numerics : str or Numerics
        Whose arithmetic: PyTorch and ONNX dequantize and quantize, TFLite has an integer multiplier.

    Returns
    -------
    QTensor
        In the memory format of `x`.

    Exactness
    ---------
    Bit-exact, see `refquant.numerics.special_forms.RequantizeForm`. There are 256 codes, so large tensors look them up.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.array([1, 2, 3], np.uint8), rq.QParams(1.0, 0, "uint8"))
    >>> requantize(x, out=rq.QParams(2.0, 1, "uint8"), numerics="fbgemm").values
    array([2, 2, 2], dtype=uint8)
    >>> requantize(x, out=rq.QParams(2.0, 1, "uint8"), numerics="onnxruntime").values
    array([1, 2, 3], dtype=uint8)
    """
    return _requantized(x, out, numerics, _looked_up)


def requantize_reference(x, *, out, numerics="fbgemm"):
    """Same result as `requantize`, without a table."""
    return _requantized(x, out, numerics, _codes)


def _stage(acc, x, w, bias, out, numerics, activation, kind):
    profile = profiles.get(numerics)
    place = f"requantize_sums[{profile.name}]"
    choose(place, "kind", kind, ("linear", "conv"))
    acc = as_array(acc, "acc", place)
    if acc.dtype != np.int32 or acc.ndim < 1:
        raise ArgumentError(f"{place}: acc is {acc.dtype} {acc.shape} but must be int32 with channels on its last axis; take what matmul_integer returns")
    for name, q in (("x", x), ("w", w)):
        if not isinstance(q, QParams):
            raise ArgumentError(f"{place}: {name} must be a QParams, not {type(q).__name__}; give the parameters that the sums were made with")
    channels = acc.shape[-1]
    if w.per_channel and len(w.scale) != channels:
        raise ShapeError(f"{place}: w has {len(w.scale)} scales but acc has {channels} channels; they must agree")
    check_out(out, place)
    form = profile.section(kind, "requantize_sums")
    if isinstance(form, Dispatch):
        form = form.yes if profile.conv.rule == "x86" and profile.conv.vnni and w.symmetric else form.no
    return acc, output_stage(form, x, w, out, check_bias(bias, channels, place), channels, activation, place)


def requantize_sums(acc, x, w, bias=None, *, out, numerics="fbgemm", activation=None, kind="linear"):
    """Take int32 sums to codes: the output stage of a linear layer or convolution alone.

    Parameters
    ----------
    acc : ndarray of int32, (..., N)
        Sums of products of centred codes, such as `matmul_integer` gives; channels last.
    x, w : QParams
        Of activation and weights.
    bias : array_like, (N,), optional
        float32, or int32 in units of ``x.scale * w.scale``.
    out : QParams
    numerics : str or Numerics
    activation : {None, "relu"}
    kind : {"linear", "conv"}
        Whose form.

    Returns
    -------
    QTensor

    Exactness
    ---------
    Bit-exact: `linear` is `matmul_integer` and then this.

    Examples
    --------
    >>> import refquant as rq
    >>> acc = np.array([[3, -5]], np.int32)
    >>> requantize_sums(acc, rq.QParams(0.5, 0, "uint8"), rq.QParams(1.0, 0, "int8"), out=rq.QParams(1.0, 10, "uint8")).values
    array([[12,  8]], dtype=uint8)
    """
    acc, stage = _stage(acc, x, w, bias, out, numerics, activation, kind)
    return QTensor(requantize_kernel(np.ascontiguousarray(acc.reshape(-1, acc.shape[-1])), stage, out.storage).reshape(acc.shape), out)


def requantize_sums_reference(acc, x, w, bias=None, *, out, numerics="fbgemm", activation=None, kind="linear"):
    """Same result as `requantize_sums`, in NumPy."""
    acc, stage = _stage(acc, x, w, bias, out, numerics, activation, kind)
    return QTensor(apply_epilogue(acc, stage, out.storage), out)
