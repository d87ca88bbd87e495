"""cat: concatenation of tensors with different parameters."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import dequantize_codes, quantize_real
from refquant.core.layout import empty_channels_last, is_channels_last, is_packed_channels_last
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, ShapeError, UnsupportedError, choose
from refquant.numerics.range_forms import RangeForm
from refquant.ops.arguments import axis_of, check_eight_bit, check_out, check_qtensor
from refquant.ops.lookup import code_table, take_codes
from refquant.ops.range_elementwise import range_copy

__all__ = ["cat"]


def _requantize(q, out, dequantize, scaling, zero, rounding, activation, codes, overflow="saturate"):
    real = dequantize_codes(codes, q.scale, q.zero_point, dequantize)
    if activation == "relu":
        real = np.where(real > 0, real, np.float32(0))
    kind = out._type
    return quantize_real(real, out.scale, out.zero_point, kind.qmin, kind.qmax, scaling=scaling, add=zero, rounding=rounding, overflow=overflow)


def _tables(profile, q, out, activation):
    """Return the tables of one input: for the channels-last vector body, its scalar tail, and all else."""
    form = profile.quantize

    def table(dequantize, scaling, zero, overflow="saturate"):
        return code_table(lambda codes: _requantize(q, out, dequantize, scaling, zero, form.rounding, activation, codes, overflow), q.storage, out.storage)

    return table("fma", "reciprocal64", "after", "wrap"), table("sub_mul", "reciprocal", "before"), table(profile.dequantize.formula, form.scaling, form.zero_point)


def _converted(x, form, profile, out, activation, vectorized):
    if getattr(form, "contiguous", None) == "copy":
        return x.values if activation is None else np.maximum(x.values, x.values.dtype.type(out.zero_point))
    if isinstance(form, RangeForm):
        table = code_table(lambda codes: range_copy(form, x.qparams, out, codes), x.qparams.storage, out.storage)
        return take_codes(table, np.ascontiguousarray(x.values)).reshape(x.shape)
    copies = form.copy_equal and vectorized and activation is None
    if copies and x.qparams.scale == out.scale and x.qparams.zero_point == out.zero_point:
        return x.values
    body, tail, plain = _tables(profile, x.qparams, out, activation)
    if not vectorized:
        return take_codes(plain, np.ascontiguousarray(x.values)).reshape(x.shape)
    vector = max(form.vector, 1)
    split = x.shape[1] // vector * vector
    inner = np.ascontiguousarray(np.moveaxis(x.values, 1, -1))
    y = take_codes(body, inner)
    y[..., split:] = take_codes(tail, inner[..., split:].copy())
    return np.moveaxis(y, -1, 1)


def cat(tensors, dim=1, *, out, numerics="fbgemm", activation=None):
    """Concatenate quantized tensors into one set of parameters.

    Parameters
    ----------
    tensors : sequence of QTensor
        Equal shapes but for `dim`.
    dim : int
    out : QParams
    numerics : str or Numerics
    activation : {None, "relu"}

    Returns
    -------
    QTensor
        Channels last where all inputs are; joined along channels, inputs of one channel or of 1x1 images count too, as in PyTorch.

    Exactness
    ---------
    Bit-exact. PyTorch takes another path (and other formulas) when all inputs are four-dimensional, channels last, and joined along channels.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> a = rq.QTensor(np.array([[4]], np.uint8), rq.QParams(1.0, 0, "uint8"))
    >>> b = rq.QTensor(np.array([[4]], np.uint8), rq.QParams(0.5, 0, "uint8"))
    >>> cat([a, b], out=rq.QParams(1.0, 0, "uint8")).values
    array([[4, 2]], dtype=uint8)
    """
    profile = profiles.get(numerics)
    place = f"cat[{profile.name}]"
    choose(place, "activation", activation, [None, "relu"])
    if not isinstance(tensors, (list, tuple)):
        raise ArgumentError(f"{place}: tensors must be a list of QTensors, not {type(tensors).__name__}; put them into one")
    if not tensors:
        raise ArgumentError(f"{place}: tensors is empty; give at least one QTensor")
    for i, x in enumerate(tensors):
        check_eight_bit(check_qtensor(x, f"tensors[{i}]", place), f"tensors[{i}]", place)
    first = tensors[0]
    dim = axis_of(dim, first.ndim, place)
    for i, x in enumerate(tensors):
        if x.ndim != first.ndim or any(n != m for d, (n, m) in enumerate(zip(x.shape, first.shape)) if d != dim):
            raise ShapeError(f"{place}: tensors[{i}] has shape {x.shape} and tensors[0] {first.shape}; all axes but {dim} must agree")
    check_out(out, place)
    form = profile.section("cat", "cat")
    packed = dim == 1 and all(is_packed_channels_last(x.values) for x in tensors)
    last = packed or all(is_channels_last(x.values) for x in tensors)
    if getattr(form, "contiguous", None) == "copy" and any((x.qparams.scale, x.qparams.zero_point, x.dtype) != (out.scale, out.zero_point, out.dtype) for x in tensors):
        raise UnsupportedError(f"{place}: {profile.engine} copies codes, so inputs must have the output's parameters; requantize them before")
    if isinstance(form, RangeForm) and activation == "relu" and out.zero_point > out._type.qmin:
        raise UnsupportedError(f"{place}: how {profile.engine} places a ReLU behind a concatenation is not known; leave it out, or give out its lowest code as zero point")
    vectorized = getattr(form, "channels_last", None) == "vector" and packed
    y = np.concatenate([_converted(x, form, profile, out, activation, vectorized) for x in tensors], axis=dim)
    memory = empty_channels_last(y.shape, y.dtype) if last else np.empty(y.shape, y.dtype)
    memory[...] = y
    return QTensor(memory, out)
