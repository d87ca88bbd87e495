"""Cast and CastLike between all element types."""

import numpy as np

from refquant.core.lowbits import decode_float, encode_float, wrap_code
from refquant.errors import choose
from refquant.interop.onnx.dtypes import as_codes, numpy_dtype, type_of_array, type_of_number, view_codes

__all__ = ["cast_to", "cast", "cast_like", "real_of"]

_ROUNDINGS = {"up": "ceil", "down": "floor", "nearest": "half_up"}


def real_of(x):
    """Return an array as NumPy computes with it: small floats as float32, small integers as int8 or uint8, all else as it is.

    Examples
    --------
    >>> real_of(np.arange(3)).dtype.name
    'int64'
    """
    kind = type_of_array(x, "real_of")
    if kind.kind == "small_float":
        return decode_float(as_codes(x), kind.name).reshape(x.shape)
    return as_codes(x).reshape(x.shape) if kind.kind == "small_int" else x


def cast_to(x, kind, *, saturate=True, round_mode="up", place="Cast"):
    """Convert an array to another element type.

    Parameters
    ----------
    x : ndarray
    kind : TensorType
    saturate : bool
        Of float 8 targets.
    round_mode : {"up", "down", "nearest"}
        Of ``float8_e8m0fnu``.

    Returns
    -------
    ndarray

    Exactness
    ---------
    One rounding, half to even, for floating-point targets. Integer targets cut fractions off and keep the low bits; a real number beyond the
    target, which ONNX leaves undefined, becomes what x86 makes of it: by way of int32 for types of up to 16 bits and int32 itself,
    by way of int64 for the others, where too large means the lowest number.
    """
    x = real_of(x)
    if kind.kind == "small_float":
        rounding = "half_even"
        if kind.name == "float8_e8m0fnu":
            rounding = _ROUNDINGS[choose(place, "round_mode", round_mode, _ROUNDINGS)]
        inf = kind.name == "bfloat16"
        return view_codes(encode_float(x, kind.name, saturate=bool(saturate) and not inf, rounding=rounding), kind).reshape(x.shape)
    if kind.kind == "small_int":
        return view_codes(wrap_code(_integers(x), kind.bits, kind.name.startswith("int")), kind).reshape(x.shape)
    if x.dtype.kind in "OUS" or kind.kind == "string":
        return _text(x, kind)
    if kind.kind == "int" and x.dtype.kind == "f":
        return _to_integer(x, numpy_dtype(kind))
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(numpy_dtype(kind))


def _integers(x):
    return x if x.dtype.kind in "iub" else _to_integer(x, np.dtype(np.int32))


def _to_integer(x, dtype):
    whole = np.trunc(x.astype(np.float64))
    if dtype == np.uint64:
        inside = (whole >= 0) & (whole < 2.0**64)
        return np.where(inside, np.where(inside, whole, 0).astype(np.uint64), np.uint64(2**63))
    bits = 31 if dtype.itemsize <= 2 or dtype == np.int32 else 63
    inside = (whole >= -(2.0**bits)) & (whole < 2.0**bits)
    return np.where(inside, np.where(inside, whole, 0).astype(np.int64), -(2**bits)).astype(dtype)


def _text(x, kind):
    if kind.kind != "string":
        return x.astype(np.str_).astype(numpy_dtype(kind))
    out = np.empty(x.shape, object)
    out[...] = [[str(v)] for v in x.reshape(-1)] and np.array([str(v) for v in x.reshape(-1)], object).reshape(x.shape)
    return out


def cast(call, x):
    """``Cast``: to the type of attribute ``to``."""
    kind = type_of_number(call.require("to"), call.place)
    return cast_to(x, kind, saturate=call.get("saturate", 1), round_mode=call.get("round_mode", "up"), place=call.place)


def cast_like(call, x, target):
    """``CastLike``: to the type of the second input."""
    kind = type_of_array(target, call.place)
    return cast_to(x, kind, saturate=call.get("saturate", 1), round_mode=call.get("round_mode", "up"), place=call.place)
