"""Small floating-point formats and packed integers, against a slow witness in Fractions, and against ml_dtypes."""

from bisect import bisect_left
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest

from refquant.core.lowbits import FLOAT_FORMATS, decode_float, encode_float, pack_codes, sign_extend, unpack_codes, wrap_code
from refquant.errors import ArgumentError

# Written down from the OCP and ONNX texts: exponent bits, mantissa bits, bias, codes of magnitude that are no finite number, -0, +∞, NaN.
WITNESS = {
    "float8_e4m3fn": (4, 3, 7, {0x7F}, True, None, 0x7F),
    "float8_e4m3fnuz": (4, 3, 8, set(), False, None, 0x80),
    "float8_e5m2": (5, 2, 15, {0x7C, 0x7D, 0x7E, 0x7F}, True, 0x7C, 0x7E),
    "float8_e5m2fnuz": (5, 2, 16, set(), False, None, 0x80),
    "float6_e2m3fn": (2, 3, 1, set(), True, None, None),
    "float6_e3m2fn": (3, 2, 3, set(), True, None, None),
    "float4_e2m1fn": (2, 1, 1, set(), True, None, None),
    "bfloat16": (8, 7, 127, set(range(0x7F80, 0x8000)), True, 0x7F80, 0x7FC0),
}
SMALL = [name for name in WITNESS if name != "bfloat16"]
MODES = {"up": "ceil", "down": "floor", "nearest": "half_up"}


def value_of(magnitude, e_bits, m_bits, bias):
    e, m = magnitude >> m_bits, magnitude & ((1 << m_bits) - 1)
    return Fraction(m, 1 << m_bits) * Fraction(2) ** (1 - bias) if e == 0 else (1 + Fraction(m, 1 << m_bits)) * Fraction(2) ** (e - bias)


@lru_cache(maxsize=None)
def grid(name):
    """Return the finite magnitudes of a format, and one step beyond the last."""
    e_bits, m_bits, bias, special, *_ = WITNESS[name]
    values = [value_of(c, e_bits, m_bits, bias) for c in range(1 << (e_bits + m_bits)) if c not in special]
    return [*values, 2 * values[-1] - values[-2]]


def witness_encode(x, name, saturate):
    """Encode one finite float by looking for its nearest neighbour."""
    e_bits, m_bits, _, _, negative_zero, infinity, nan = WITNESS[name]
    values, sign, a = grid(name), 1 << (e_bits + m_bits), abs(Fraction(float(x)))
    top = len(values) - 2
    if a >= values[-1]:
        code = top + 1
    else:
        high = bisect_left(values, a)
        low = high - 1 if values[high] != a else high
        near_low, near_high = a - values[low], values[high] - a
        code = low if near_low < near_high or (near_low == near_high and low % 2 == 0) else high
    negative = np.signbit(x)
    if code > top:
        if not saturate and nan is not None:
            code = nan if infinity is None else infinity
            if code == sign:
                return code
        else:
            code = top
    return code | sign if negative and (code or negative_zero) else code


def neighbours(values, dtype):
    x = np.array([float(v) for v in values], dtype)
    with np.errstate(over="ignore"):
        x = np.concatenate([x, np.nextafter(x, dtype(np.inf)), np.nextafter(x, dtype(-np.inf))])
    x = x[np.isfinite(x)]
    return np.concatenate([x, -x])


@pytest.mark.parametrize("saturate", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SMALL)
def test_every_code_every_midpoint_and_their_neighbours(name, dtype, saturate):
    values = grid(name)
    middles = [(a + b) / 2 for a, b in zip(values, values[1:])]
    x = np.unique(np.concatenate([neighbours([*values, *middles, values[-1] * 1000, values[1] / 1000], dtype), [dtype(0.0), dtype(-0.0)]]))
    x = np.append(x, dtype(-0.0))
    ref = [witness_encode(v, name, saturate) for v in x]
    assert encode_float(x, name, saturate=saturate).tolist() == ref
    assert len(x) > 5 * len(values)


@pytest.mark.parametrize("name", SMALL)
def test_every_float16(name):
    x = np.arange(65536, dtype=np.uint16).view(np.float16)
    x = x[np.isfinite(x)]
    for saturate in (True, False):
        assert encode_float(x, name, saturate=saturate).tolist() == [witness_encode(v, name, saturate) for v in x]


def test_bfloat16_boundaries():
    rng = np.random.default_rng(0)
    codes = np.unique(np.concatenate([rng.integers(0, 0x7F80, 3000), [0, 1, 2, 0x7F, 0x80, 0x81, 0x7F7E, 0x7F7F]]))
    values = [value_of(int(c), 8, 7, 127) for c in codes]
    middles = [v + Fraction(2) ** (max(int(c) >> 7, 1) - 127 - 8) for v, c in zip(values, codes)]
    x = neighbours([v for v in (*values, *middles) if v < Fraction(2) ** 128], np.float32)
    bits = x.view(np.uint32).astype(np.int64)
    ref = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    assert np.array_equal(encode_float(x, "bfloat16", saturate=False), ref)
    assert np.array_equal(decode_float(codes, "bfloat16").astype(np.float64), [float(v) for v in values])


@pytest.mark.parametrize("name", WITNESS)
def test_every_code_decodes(name):
    e_bits, m_bits, bias, special, negative_zero, infinity, nan = WITNESS[name]
    sign = 1 << (e_bits + m_bits)
    codes = np.arange(2 * sign)
    comp = decode_float(codes, name)
    for code, value in zip(codes.tolist(), comp):
        magnitude = code & (sign - 1)
        if magnitude == infinity and infinity is not None:
            assert np.isinf(value) and np.signbit(value) == (code >= sign)
        elif magnitude in special or (not negative_zero and code == sign):
            assert np.isnan(value)
        else:
            ref = value_of(magnitude, e_bits, m_bits, bias)
            assert Fraction(float(value)) == (-ref if code >= sign else ref) and np.signbit(value) == (code >= sign)


@pytest.mark.parametrize("name", WITNESS)
def test_every_number_comes_back(name):
    fmt = next(f for f in FLOAT_FORMATS if f.name == name)
    codes = np.arange(1 << fmt.bits)
    real = decode_float(codes, name)
    finite = np.isfinite(real)
    assert np.array_equal(encode_float(real[finite], name), codes[finite])


def test_nan_and_infinity():
    x = np.float32([np.nan, np.inf, -np.inf])
    saturated = {n: [int(c) for c in encode_float(x, n)] for n in SMALL}
    assert saturated == {
        "float8_e4m3fn": [0x7F, 0x7E, 0xFE], "float8_e4m3fnuz": [0x80, 0x7F, 0xFF], "float8_e5m2": [0x7E, 0x7B, 0xFB], "float8_e5m2fnuz": [0x80, 0x7F, 0xFF],
        "float6_e2m3fn": [0x20, 0x1F, 0x3F], "float6_e3m2fn": [0x20, 0x1F, 0x3F], "float4_e2m1fn": [8, 7, 15],
    }  # fmt: skip
    open_ended = {n: [int(c) for c in encode_float(x, n, saturate=False)] for n in SMALL[:4]}
    assert open_ended == {"float8_e4m3fn": [0x7F, 0x7F, 0xFF], "float8_e4m3fnuz": [0x80] * 3, "float8_e5m2": [0x7E, 0x7C, 0xFC], "float8_e5m2fnuz": [0x80] * 3}


def witness_power(x, mode, saturate):
    """Encode one finite float as a power of two; ONNX's table looks at the range before it rounds."""
    a = Fraction(float(x))
    if a < Fraction(2) ** -127:
        return 0 if saturate else 0xFF
    if a > Fraction(2) ** 127:
        return 0xFE if saturate else 0xFF
    e = a.numerator.bit_length() - a.denominator.bit_length()
    e -= a < Fraction(2) ** e
    rest = a / Fraction(2) ** e - 1
    return e + {"up": rest > 0, "down": False, "nearest": rest >= Fraction(1, 2)}[mode] + 127


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("saturate", [True, False])
def test_powers_of_two(mode, saturate):
    powers = [Fraction(2) ** e for e in range(-149, 128)]
    x = neighbours([*powers, *(p * 3 / 2 for p in powers[1:]), *(p * 5 / 4 for p in powers[2:])], np.float32)
    x = np.append(x, np.float32([0, 3e38]))
    wide = np.append(x.astype(np.float64), [1e300, 1e-300, 5e-324, np.nextafter(1.5, 2)])
    for v in (x, wide):
        ref = [witness_power(a, mode, saturate) for a in v]
        assert encode_float(v, "float8_e8m0fnu", saturate=saturate, rounding=MODES[mode]).tolist() == ref
    assert encode_float(np.float32([np.nan, np.inf]), "float8_e8m0fnu", saturate=saturate, rounding=MODES[mode]).tolist() == [0xFF, 0xFE if saturate else 0xFF]


def test_powers_of_two_need_a_rounding():
    with pytest.raises(ArgumentError, match="ceil"):
        encode_float([1.0], "float8_e8m0fnu")


def test_integers_round_once():
    values = [2**53 + 2**45, 2**53 + 2**45 + 1, -(2**53) - 2**45 - 1, 2**62 + 1, 0, 1, -1, 448, 449, 464, 465, -(2**63), 2**63 - 1]
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        x = np.array(values, np.int64)
        assert encode_float(x, name).tolist() == [_encode_exact(v, name) for v in values]
    wide = [2**64 - 1, 2**63 + 2**55, 2**63 + 2**55 + 1]
    assert encode_float(np.array(wide, np.uint64), "bfloat16").tolist() == [_encode_exact(v, "bfloat16") for v in wide]


def _encode_exact(value, name):
    values = grid(name)
    magnitude = abs(value)
    code = min(range(len(values)), key=lambda c: (abs(values[c] - magnitude), c % 2))
    e_bits, m_bits = WITNESS[name][:2]
    return min(code, len(values) - 2) | (1 << (e_bits + m_bits) if value < 0 else 0)


@pytest.mark.parametrize("name", [f.name for f in FLOAT_FORMATS])
def test_ml_dtypes_agrees(name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype, fmt = np.dtype(getattr(ml_dtypes, name)), next(f for f in FLOAT_FORMATS if f.name == name)
    rng = np.random.default_rng(1)
    bits = np.concatenate([rng.integers(0, 2**32, 500_000), np.arange(65536) << 16, (np.arange(65536) << 16) + 0x8000]).astype(np.uint32)
    half = np.arange(65536, dtype=np.uint16).view(np.float16)
    for x in (bits.view(np.float32), half):
        if name == "float8_e8m0fnu":
            with np.errstate(invalid="ignore"):
                wide = x.astype(np.float64)
            x = x[~(np.abs(wide) < 2.0**-126) & ~(wide > 2.0**127)]
        comp = encode_float(x, name, saturate=False, rounding="half_up" if fmt.mantissa_bits == 0 else "half_even")
        with np.errstate(all="ignore"):
            assert np.array_equal(comp, x.astype(dtype).view(fmt.storage))
    codes = np.arange(1 << fmt.bits).astype(fmt.storage)
    assert np.array_equal(decode_float(codes, name), codes.view(dtype).astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_packing(bits):
    rng = np.random.default_rng(bits)
    for count in (*range(20), 1001):
        codes = rng.integers(0, 1 << bits, count).astype(np.uint8)
        number = sum(int(c) << (bits * i) for i, c in enumerate(codes))
        packed = pack_codes(codes, bits)
        assert packed.tobytes() == number.to_bytes(-(-count * bits // 8), "little")
        assert np.array_equal(unpack_codes(packed, bits, count), codes)
    with pytest.raises(ArgumentError, match="bytes but there are 1"):
        unpack_codes(np.zeros(1, np.uint8), bits, 16 // bits)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_integer_codes(bits):
    x = np.arange(-1000, 1000)
    wrapped = [(v + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1)) for v in x.tolist()]
    assert wrap_code(x, bits, True).tolist() == wrapped
    assert wrap_code(x, bits, False).tolist() == [v % (1 << bits) for v in x.tolist()]
    assert wrap_code(x + 0.75, bits, True).tolist() == [(int(v + 0.75) + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1)) for v in x.tolist()]
    assert np.array_equal(sign_extend(np.arange(256).astype(np.uint8), bits), [(v + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1)) for v in range(256)])
