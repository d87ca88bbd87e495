"""Cast and CastLike between all element types."""

import numpy as np

from refquant.core.lowbits import decode_float, encode_float, wrap_code
from refquant.core.rounding import Round, round_real
from refquant.errors import choose
from refquant.interop.onnx.dtypes import as_codes, numpy_dtype, type_of_array, type_of_number, view_codes
from refquant.interop.onnx.rules import SPECIFICATION

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


def cast_to(x, kind, *, saturate=True, round_mode="up", rules=SPECIFICATION, place="Cast"):
    """Convert an array to another element type.

    Parameters
    ----------
    x : ndarray
    kind : TensorType
    saturate : bool
        Of float 8 targets.
    round_mode : {"up", "down", "nearest"}
        Of ``float8_e8m0fnu``.
    rules : Rules
        Where ONNX Runtime departs from the text.

    Returns
    -------
    ndarray

    Exactness
    ---------
    One rounding, half to even, for floating-point targets. Integer targets cut fractions off and keep the low bits; a real number beyond the
    target, which ONNX leaves undefined, becomes what x86 makes of it: by way of int32 for types of up to 16 bits and int32 itself,
    of int64 for int64; unsigned 32- and 64-bit targets in two halves.
    """
    x = real_of(x)
    if kind.kind == "small_float":
        return _to_small_float(x, kind, bool(saturate), round_mode, rules, place)
    if kind.kind == "small_int":
        if x.dtype.kind == "f":
            x = _to_integer(round_real(x, Round.HALF_AWAY) if rules.small_integers == "half_away" else x, np.dtype(np.int32))
        return view_codes(wrap_code(x, kind.bits, kind.name.startswith("int")), kind).reshape(x.shape)
    if x.dtype.kind in "OUS" or kind.kind == "string":
        return _text(x, kind)
    if kind.kind == "int" and x.dtype.kind == "f":
        return _to_integer(x, numpy_dtype(kind))
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(numpy_dtype(kind))


def _to_small_float(x, kind, saturate, round_mode, rules, place):
    rounding = "half_even"
    if kind.name == "float8_e8m0fnu":
        rounding = _ROUNDINGS[choose(place, "round_mode", round_mode, _ROUNDINGS)]
    codes = encode_float(x, kind.name, saturate=saturate and kind.name != "bfloat16", rounding=rounding)
    if rules.float8 == "onnxruntime" and kind.name in _RUNTIME_FLOAT8:
        low, high, code, nan = _RUNTIME_FLOAT8[kind.name]
        sign = codes & 0x80
        codes = np.where(np.isnan(x), sign | nan, codes).astype(np.uint8)
        if not saturate:
            codes = np.where((np.abs(x) >= low) & (np.abs(x) < high), sign | code, codes).astype(np.uint8)
    return view_codes(codes, kind).reshape(x.shape)


# Measured on onnxruntime 1.32: magnitudes in [low, high) become this code unless saturated; the code of NaN.
_RUNTIME_FLOAT8 = {"float8_e4m3fn": (480, 496, 0x7E, 0x7F), "float8_e5m2": (61440, 65536, 0x7F, 0x7F)}


def _to_integer(x, dtype):
    whole = np.trunc(x.astype(np.float64))
    if dtype in (np.uint32, np.uint64):
        half = 2.0 ** (8 * dtype.itemsize - 1)
        signed = np.dtype(f"int{8 * dtype.itemsize}")
        upper = _to_integer(whole - half, signed).view(dtype) ^ dtype.type(int(half))
        return np.where(whole >= half, upper, _to_integer(whole, signed).view(dtype))
    bits = 63 if dtype == np.int64 else 31
    inside = (whole >= -(2.0**bits)) & (whole < 2.0**bits)
    return np.where(inside, np.where(inside, whole, 0).astype(np.int64), -(2**bits)).astype(dtype)


def _text(x, kind):
    if kind.kind != "string":
        return x.astype(np.str_).astype(numpy_dtype(kind))
    return np.array([str(v) for v in x.reshape(-1)], object).reshape(x.shape)


def cast(call, x):
    """``Cast``: to the type of attribute ``to``."""
    return _cast(call, x, type_of_number(call.require("to"), call.place))


def cast_like(call, x, target):
    """``CastLike``: to the type of the second input."""
    return _cast(call, x, type_of_array(target, call.place))


def _cast(call, x, kind):
    return cast_to(x, kind, saturate=call.get("saturate", 1), round_mode=call.get("round_mode", "up"), rules=call.rules, place=call.place)
