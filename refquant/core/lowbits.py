"""Numbers of 8 bits and fewer: small floating-point formats, 4- and 2-bit integers, and how they are packed.

All arithmetic is on integers. A real number is taken apart into ``significand * 2**exponent``, the significand is shifted to
the target's quantum with one rounding, and the quanta are counted: the count, carried over from the significand into the exponent, *is*
the code. So there is one rounding, in one place, for every format.
"""

from typing import NamedTuple

import numpy as np

from refquant.core.rounding import Round, round_shift
from refquant.errors import ArgumentError, choose

__all__ = ["FloatFormat", "FLOAT_FORMATS", "float_format", "encode_float", "decode_float", "wrap_code", "sign_extend", "pack_codes", "unpack_codes"]


class FloatFormat(NamedTuple):
    """One small floating-point format.

    Attributes
    ----------
    name : str
        As ``ml_dtypes`` calls it.
    bits, exponent_bits, mantissa_bits, bias : int
    signed : bool
        Without a sign (``float8_e8m0fnu``) there is neither zero nor subnormal number.
    top : int
        The code of the largest finite number.
    infinity : int or None
        The code of +∞, where there is one.
    nan : int
        What NaN becomes, before the sign bit is exclusive-ored in. Formats without a NaN take zero with the sign turned around.
    negative_zero : bool
        Without it the code ``10…0`` is NaN.
    """

    name: str
    bits: int
    exponent_bits: int
    mantissa_bits: int
    bias: int
    signed: bool
    top: int
    infinity: int
    nan: int
    negative_zero: bool

    @property
    def storage(self):
        """The NumPy dtype that holds one code."""
        return np.dtype(np.uint16 if self.bits > 8 else np.uint8)

    @property
    def sign(self):
        """The sign bit, 0 where there is none."""
        return 1 << (self.bits - 1) if self.signed else 0


def _format(name, exponent_bits, mantissa_bits, bias, kind):
    bits = 1 + exponent_bits + mantissa_bits
    ones = (1 << (bits - 1)) - 1
    infinity, mantissa = ((1 << exponent_bits) - 1) << mantissa_bits, 1 << mantissa_bits
    top, inf, nan = {
        "ieee": (infinity - 1, infinity, infinity | mantissa >> 1),
        "fn": (ones - 1, None, ones),
        "fnuz": (ones, None, 1 << (bits - 1)),
        "finite": (ones, None, 1 << (bits - 1)),
    }[kind]
    return FloatFormat(name, bits, exponent_bits, mantissa_bits, bias, True, top, inf, nan, kind != "fnuz")


FLOAT_FORMATS = (
    _format("float8_e4m3fn", 4, 3, 7, "fn"),
    _format("float8_e4m3fnuz", 4, 3, 8, "fnuz"),
    _format("float8_e5m2", 5, 2, 15, "ieee"),
    _format("float8_e5m2fnuz", 5, 2, 16, "fnuz"),
    FloatFormat("float8_e8m0fnu", 8, 8, 0, 127, False, 0xFE, None, 0xFF, False),
    _format("float6_e2m3fn", 2, 3, 1, "finite"),
    _format("float6_e3m2fn", 3, 2, 3, "finite"),
    _format("float4_e2m1fn", 2, 1, 1, "finite"),
    _format("bfloat16", 8, 7, 127, "ieee"),
)

_BY_NAME = {f.name: f for f in FLOAT_FORMATS}


def float_format(name):
    """Look up a format by name; a `FloatFormat` passes through.

    Examples
    --------
    >>> float_format("float8_e4m3fn").top
    126
    """
    return name if isinstance(name, FloatFormat) else _BY_NAME[choose("float_format", "name", name, _BY_NAME)]


def _parts(x):
    """Return (sign, significand, exponent) with ``x = ±significand * 2**exponent``; NaN and ∞ come out as any number."""
    if x.dtype.kind in "iub":
        x = _odd_float64(x)
    with np.errstate(invalid="ignore"):
        bits = x.astype(np.float64).view(np.int64)
    field = (bits >> 52) & 0x7FF
    significand = (bits & ((1 << 52) - 1)) | np.where(field > 0, 1 << 52, 0)
    return bits < 0, significand, np.maximum(field, 1) - 1075


def _odd_float64(x):
    """Turn integers into float64 such that one more rounding, to 40 bits or fewer, is that of the integer (round to odd)."""
    negative = x < 0
    magnitude = x.astype(np.uint64)
    magnitude = np.where(negative, ~magnitude + np.uint64(1), magnitude)
    low = magnitude & np.uint64(0xFFF)
    sticky = (magnitude - low) | np.where(low > 0, np.uint64(0x1000), np.uint64(0))
    magnitude = np.where(magnitude >> np.uint64(52) > 0, sticky, magnitude).astype(np.float64)
    return np.where(negative, -magnitude, magnitude)


def encode_float(x, fmt, *, saturate=True, rounding=Round.HALF_EVEN):
    """Round numbers to a small floating-point format, once.

    Parameters
    ----------
    x : array_like of float16, float32, float64 or integers
    fmt : str or FloatFormat
    saturate : bool
        Numbers that round beyond the largest finite one become that one, infinities too; else ∞, or NaN where the format has no ∞.
        Formats with neither always saturate.
    rounding : Round
        ``float8_e8m0fnu`` has no significand bits that could be even: ask for ``ceil`` (ONNX's "up"), ``floor`` ("down") or
        ``half_up`` ("nearest"). Magnitudes are rounded.

    Returns
    -------
    ndarray of uint8, or uint16 for bfloat16
        Codes in the low bits.

    Exactness
    ---------
    One rounding of the real number, from float64 and 64-bit integers too. ``float8_e8m0fnu`` has neither zero nor sign: what lies below its
    smallest number, before rounding, becomes that one, and what lies above its largest becomes that one; NaN unless `saturate`.

    Source
    ------
    ONNX 1.23 docs/Operators.md, Cast: tables of float 8 conversion. NaN in formats without NaN as ml_dtypes 0.6 has it,
    from where ONNX's test cases take it (the text of docs/technical/float4.md says 6).

    Examples
    --------
    >>> [hex(c) for c in encode_float([1.0, -0.0, 1e9, np.nan], "float8_e4m3fn")]
    ['0x38', '0x80', '0x7e', '0x7f']
    >>> decode_float(encode_float([0.3, 3.6, 7.0], "float4_e2m1fn"), "float4_e2m1fn")
    array([0.5, 4. , 6. ], dtype=float32)
    """
    fmt, x = float_format(fmt), np.asarray(x)
    if x.dtype.kind not in "fiub":
        raise ArgumentError(f"encode_float: x has dtype {x.dtype} but must be real numbers; convert it")
    if fmt.mantissa_bits == 0:
        choose("encode_float", "rounding", str(Round(rounding)), ["ceil", "floor", "half_up"])
    negative, significand, exponent = _parts(x)
    code, out = _count(significand, exponent, fmt, rounding), np.iinfo(fmt.storage)
    over = code > fmt.top
    beyond = fmt.nan if fmt.infinity is None else fmt.infinity
    saturate = saturate or fmt.nan == fmt.sign and fmt.negative_zero
    if x.dtype.kind == "f":
        over, nan = over | np.isinf(x), np.isnan(x)
    else:
        nan = np.zeros(x.shape, bool)
    code = np.where(over, fmt.top if saturate else beyond, code)
    code = np.where(nan, fmt.nan, code)
    if not fmt.signed:
        below = negative | (significand == 0) | (exponent + 52 < 1 - fmt.bias - 1)
        above = (code > fmt.top) | ((exponent + 52 == fmt.bias) & (significand > 1 << 52))
        code = np.where(nan, fmt.nan, np.where(below, 0 if saturate else fmt.nan, np.where(above | over, fmt.top if saturate else fmt.nan, code)))
    elif fmt.negative_zero:
        code = np.where(negative, code ^ fmt.sign, code)
    else:
        code = np.where(negative & (code > 0) & (code < fmt.nan), code | fmt.sign, code)
    return (code & out.max).astype(fmt.storage)


def _count(significand, exponent, fmt, rounding):
    """Return the code of ``significand * 2**exponent`` in a format whose exponent is not bounded above."""
    leading, least = exponent + 52, 1 - fmt.bias
    binade = np.maximum(leading, least) if fmt.signed else leading
    shift = binade - fmt.mantissa_bits - exponent
    quanta = round_shift(significand, np.minimum(shift, 62), rounding)
    return quanta + (binade - least) * (1 << fmt.mantissa_bits)


def decode_float(codes, fmt):
    """Return the numbers that codes of a small floating-point format stand for.

    Parameters
    ----------
    codes : array_like of unsigned int
        Bits above the format's are ignored.
    fmt : str or FloatFormat

    Returns
    -------
    ndarray of float32
        Exact.

    Examples
    --------
    >>> decode_float([0x38, 0x7E, 0x01, 0xFF], "float8_e4m3fn").tolist()
    [1.0, 448.0, 0.001953125, nan]
    >>> decode_float([0, 127, 255], "float8_e8m0fnu").tolist()
    [5.877471754111438e-39, 1.0, nan]
    """
    fmt = float_format(fmt)
    codes = np.asarray(codes).astype(np.int64) & ((1 << fmt.bits) - 1)
    magnitude = codes & ~fmt.sign if fmt.signed else codes
    field = magnitude >> fmt.mantissa_bits
    significand = (magnitude & ((1 << fmt.mantissa_bits) - 1)) | np.where((field > 0) | (not fmt.signed), 1 << fmt.mantissa_bits, 0)
    exponent = (np.maximum(field, 1) if fmt.signed else field) - fmt.bias - fmt.mantissa_bits
    value = np.ldexp(significand.astype(np.float64), exponent.astype(np.int32))
    value = np.where(magnitude > fmt.top, np.nan, value)
    if fmt.infinity is not None:
        value = np.where(magnitude == fmt.infinity, np.inf, value)
    if fmt.signed and not fmt.negative_zero:
        value = np.where(codes == fmt.nan, np.nan, value)
    return np.where(codes & fmt.sign, -value, value).astype(np.float32)


def wrap_code(x, bits, signed):
    """Turn numbers into integers of `bits` bits: fractions are cut off, then high bits.

    Parameters
    ----------
    x : array_like of float or integers
        NaN and what leaves int64 become 0.
    bits : int
        2, 4 or 8.
    signed : bool

    Returns
    -------
    ndarray of int8 or uint8
        Two's complement, the sign extended.

    Examples
    --------
    >>> wrap_code([-9, -1.7, 7, 15], 4, True).tolist()
    [7, -1, 7, -1]
    """
    x = np.asarray(x)
    if x.dtype.kind == "f":
        x = np.trunc(x.astype(np.float64))
        inside = np.abs(x) < 2.0**63
        x = np.where(inside, x, 0).astype(np.int64)
    codes = (x.astype(np.int64) & ((1 << bits) - 1)).astype(np.uint8)
    return sign_extend(codes, bits) if signed else codes


def sign_extend(codes, bits):
    """Read the low `bits` bits of uint8 codes as two's complement, into int8.

    Examples
    --------
    >>> sign_extend(np.array([0x0F, 0x07, 0x08], np.uint8), 4).tolist()
    [-1, 7, -8]
    """
    spare = 8 - bits
    return (np.asarray(codes, np.uint8) << spare).view(np.int8) >> spare


def pack_codes(codes, bits):
    """Pack codes of 2, 4 or 6 bits one after the other into bytes, the first in the lowest bits.

    Examples
    --------
    >>> [hex(b) for b in pack_codes(np.array([1, 2, 3], np.uint8), 4)]
    ['0x21', '0x3']
    """
    flat = np.ascontiguousarray(codes).reshape(-1).view(np.uint8)
    single = np.unpackbits(flat[:, None], axis=1, bitorder="little")[:, :bits]
    return np.packbits(single.reshape(-1), bitorder="little")


def unpack_codes(data, bits, count):
    """Return `count` codes of 2, 4 or 6 bits that were packed by `pack_codes`.

    Raises
    ------
    ArgumentError
        Too few bytes.

    Examples
    --------
    >>> unpack_codes(np.array([0x21, 0x03], np.uint8), 4, 3).tolist()
    [1, 2, 3]
    """
    data = np.asarray(data, np.uint8).reshape(-1)
    if data.size * 8 < count * bits:
        raise ArgumentError(f"unpack_codes: {count} codes of {bits} bits need {-(-count * bits // 8)} bytes but there are {data.size}")
    single = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
    return np.packbits(single, axis=1, bitorder="little").reshape(count)
