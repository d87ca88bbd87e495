"""The checks that operators share, each with one message."""

from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from refquant.core.arguments import as_integer
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, RangeError, ShapeError, UnsupportedError

__all__ = ["check_qtensor", "check_out", "check_product_out", "any_width", "check_weight", "sides", "check_eight_bit", "axis_of", "divisor_of"]


def check_qtensor(q, name, place, *, per_channel=False):
    """Refuse anything but a QTensor (per tensor unless `per_channel`)."""
    if not isinstance(q, QTensor):
        raise ArgumentError(f"{place}: {name} must be a QTensor, not {type(q).__name__}; wrap the codes: refquant.QTensor(values, qparams)")
    if q.qparams.per_channel and not per_channel:
        raise ArgumentError(f"{place}: {name} is quantized per channel but this argument must be per tensor; quantize it with a scalar scale")
    return q


def check_eight_bit(q, name, place):
    """Refuse codes that are not 8 bits wide."""
    if q.values.dtype.itemsize != 1:
        raise ArgumentError(f"{place}: {name} has dtype {q.dtype} but products take 8-bit codes; use uint8 or int8")
    return q


def check_out(out, place):
    """Refuse output parameters that are not per tensor."""
    if not isinstance(out, QParams):
        raise ArgumentError(f"{place}: out must be a QParams, not {type(out).__name__}; build one with refquant.QParams")
    if out.per_channel:
        raise ArgumentError(f"{place}: out is per channel but activations are quantized per tensor; give a scalar scale and zero point")
    return out


_any_width = ContextVar("any_width", default=False)


@contextmanager
def any_width():
    """Context: products write codes of any dtype. No engine does; an output stage is taken apart so."""
    token = _any_width.set(True)
    try:
        yield
    finally:
        _any_width.reset(token)


def check_product_out(out, place):
    """Refuse output parameters that no product writes: those of `check_out`, and codes of another width than its factors."""
    check_out(out, place)
    if out.dtype not in ("uint8", "int8") and not _any_width.get():
        raise UnsupportedError(f"{place}: out has dtype {out.dtype}, but from 8-bit factors every engine writes 8-bit codes; choose uint8 or int8, or quantize what out=None gives")
    return out


def check_weight(w, place, ndim):
    """Refuse weights of another rank, or quantized along anything but their output channels."""
    if w.ndim != ndim:
        raise ShapeError(f"{place}: w has shape {w.shape} but must have {ndim} dimensions, output channels first")
    if w.qparams.per_channel and w.qparams.axis != 0:
        raise ArgumentError(f"{place}: w is quantized along axis {w.qparams.axis} but output channels are axis 0; quantize along axis 0")
    return w


def sides(value, name, dims, place, *, least):
    """Return `value` as a tuple of `dims` integers, each at least `least`."""
    items = tuple(value) if isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim == 1) else (value,) * dims
    if len(items) != dims:
        raise ArgumentError(f"{place}: {name}={value!r} must be one integer or {dims} of them")
    return tuple(as_integer(v, name, place, least=least) for v in items)


def axis_of(dim, ndim, place):
    """Return an axis counted from the front, of one that may be counted from the back."""
    number = as_integer(dim, "dim", place)
    if not -ndim <= number < ndim:
        raise ArgumentError(f"{place}: dim={dim} but there are {ndim} dimensions; choose {f'{-ndim} … {ndim - 1}' if ndim else 'an array that has some'}")
    return number % ndim


def divisor_of(divisor_override, place):
    """Return a pool's own divisor, not 0, or None."""
    if divisor_override is None:
        return None
    divisor = as_integer(divisor_override, "divisor_override", place)
    if not divisor or abs(divisor) >= 2**31:
        raise RangeError(f"{place}: divisor_override={divisor} must not be 0, and fit int32; leave it out to divide by the window's size")
    return divisor
