"""ONNX's tensor types: number, name, bits and the NumPy dtype that holds them."""

from typing import NamedTuple

import numpy as np

from refquant.errors import ArgumentError, BackendMissing, UnsupportedError

__all__ = ["TensorType", "TENSOR_TYPES", "type_of_number", "type_of_array", "numpy_dtype", "view_codes", "as_codes"]


class TensorType(NamedTuple):
    """One element type.

    Attributes
    ----------
    number : int
        In ``TensorProto.DataType``.
    name : str
        NumPy's name, or that of ``ml_dtypes`` for types that NumPy lacks.
    bits : int
        Of one element in a file; 4- and 2-bit elements lie one to a byte in memory.
    kind : {"int", "float", "small_int", "small_float", "bool", "complex", "string"}
    field : str
        The field of ``TensorProto`` that holds elements that are not raw bytes.
    """

    number: int
    name: str
    bits: int
    kind: str
    field: str


TENSOR_TYPES = (
    TensorType(1, "float32", 32, "float", "float_data"),
    TensorType(2, "uint8", 8, "int", "int32_data"),
    TensorType(3, "int8", 8, "int", "int32_data"),
    TensorType(4, "uint16", 16, "int", "int32_data"),
    TensorType(5, "int16", 16, "int", "int32_data"),
    TensorType(6, "int32", 32, "int", "int32_data"),
    TensorType(7, "int64", 64, "int", "int64_data"),
    TensorType(8, "object", 0, "string", "string_data"),
    TensorType(9, "bool", 8, "bool", "int32_data"),
    TensorType(10, "float16", 16, "float", "int32_data"),
    TensorType(11, "float64", 64, "float", "double_data"),
    TensorType(12, "uint32", 32, "int", "uint64_data"),
    TensorType(13, "uint64", 64, "int", "uint64_data"),
    TensorType(14, "complex64", 64, "complex", "float_data"),
    TensorType(15, "complex128", 128, "complex", "double_data"),
    TensorType(16, "bfloat16", 16, "small_float", "int32_data"),
    TensorType(17, "float8_e4m3fn", 8, "small_float", "int32_data"),
    TensorType(18, "float8_e4m3fnuz", 8, "small_float", "int32_data"),
    TensorType(19, "float8_e5m2", 8, "small_float", "int32_data"),
    TensorType(20, "float8_e5m2fnuz", 8, "small_float", "int32_data"),
    TensorType(21, "uint4", 4, "small_int", "int32_data"),
    TensorType(22, "int4", 4, "small_int", "int32_data"),
    TensorType(23, "float4_e2m1fn", 4, "small_float", "int32_data"),
    TensorType(24, "float8_e8m0fnu", 8, "small_float", "int32_data"),
    TensorType(25, "uint2", 2, "small_int", "int32_data"),
    TensorType(26, "int2", 2, "small_int", "int32_data"),
    TensorType(27, "float6_e2m3fn", 6, "small_float", "int32_data"),
    TensorType(28, "float6_e3m2fn", 6, "small_float", "int32_data"),
)

_BY_NUMBER = {t.number: t for t in TENSOR_TYPES}
_BY_NAME = {t.name: t for t in TENSOR_TYPES}


def type_of_number(number, place):
    """Return the `TensorType` of a number in ``TensorProto.DataType``."""
    if number not in _BY_NUMBER:
        raise UnsupportedError(f"{place}: element type {number} is not known; refquant reads types 1 … {len(TENSOR_TYPES)} of onnx.TensorProto")
    return _BY_NUMBER[number]


def type_of_array(array, place):
    """Return the `TensorType` of an array.

    Examples
    --------
    >>> type_of_array(np.zeros(2, np.int8), "x").number
    3
    """
    name = "object" if array.dtype.kind in "OUST" else array.dtype.name
    if name not in _BY_NAME:
        raise ArgumentError(f"{place}: dtype {array.dtype} is no element type of ONNX; convert the array")
    return _BY_NAME[name]


def numpy_dtype(kind):
    """Return the NumPy dtype of a `TensorType`; types that NumPy lacks come from the package ml_dtypes."""
    if not kind.kind.startswith("small"):
        return np.dtype(kind.name)
    try:
        import ml_dtypes
    except ImportError:
        raise BackendMissing(f"tensors of type {kind.name} need the package ml_dtypes: pip install ml_dtypes") from None
    if not hasattr(ml_dtypes, kind.name):
        raise BackendMissing(f"tensors of type {kind.name} need a newer ml_dtypes: pip install -U ml_dtypes")
    return np.dtype(getattr(ml_dtypes, kind.name))


def as_codes(array):
    """Return the bits of an array of a small type, as uint8 or uint16; the codes of signed integers as int8.

    The spare bits of 4- and 2-bit integers carry the sign.
    """
    kind = type_of_array(array, "as_codes")
    if kind.kind == "small_int":
        from refquant.core.lowbits import sign_extend, wrap_code

        raw = np.ascontiguousarray(array).view(np.uint8)
        return sign_extend(raw, kind.bits) if kind.name.startswith("int") else wrap_code(raw, kind.bits, False)
    return np.ascontiguousarray(array).view(np.uint16 if kind.bits == 16 else np.uint8)


def view_codes(codes, kind):
    """Give codes the dtype of a small `TensorType`, masking what its bits do not hold."""
    dtype = numpy_dtype(kind)
    if kind.bits < 8:
        codes = codes.astype(np.uint8) & ((1 << kind.bits) - 1)
    return np.ascontiguousarray(codes).view(dtype)
