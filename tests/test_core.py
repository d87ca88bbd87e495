"""Rounding, fma, parameters and tensors against the slow witness, and their errors."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
import witness

from refquant.core.affine import quantize_real
from refquant.core.dtypes import DTYPES, int_type
from refquant.core.epilogue import to_int32
from refquant.core.fma import fma32
from refquant.core.layout import empty_channels_last, is_channels_last, to_channels_last
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.core.rounding import Round, round_real, round_shift
from refquant.core.wrap import saturate_int16, wrap_int32
from refquant.errors import ArgumentError, RangeError, RefquantError, ShapeError

SLOW_ROUNDING = {
    Round.HALF_EVEN: witness.half_even,
    Round.HALF_AWAY: witness.half_away,
    Round.HALF_UP: witness.half_up,
    Round.HALF_DOWN: lambda x: -witness.half_up(-x),
    Round.HALF_TO_ZERO: lambda x: -witness.half_up(-x) if x >= 0 else witness.half_up(x),
    Round.TRUNCATE: int,
    Round.FLOOR: lambda x: x.numerator // x.denominator,
    Round.CEIL: lambda x: -(-x.numerator // x.denominator),
}


def ties_and_neighbours(dtype):
    halves = (np.arange(-9, 10) / 2).astype(dtype)
    big = np.array([2.0**22 + 0.5, 2.0**23 - 0.5, 2.0**23 + 1, -(2.0**22) - 0.5, 1e-30, -1e-30, 1e-45], dtype)
    x = np.concatenate([halves, big])
    return np.concatenate([x, np.nextafter(x, dtype(np.inf)), np.nextafter(x, dtype(-np.inf))])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mode", Round)
def test_round_real_is_exact(mode, dtype):
    x = ties_and_neighbours(dtype)
    ref = np.array([SLOW_ROUNDING[mode](Fraction(float(v))) for v in x], dtype)
    comp = round_real(x, mode)
    assert comp.dtype == dtype
    np.testing.assert_array_equal(comp, ref)


@pytest.mark.parametrize("mode", Round)
def test_round_shift_is_exact(mode):
    x = np.concatenate([np.arange(-70, 71), [2**62, -(2**62), 2**40 + 3]])
    for shift in (0, 1, 2, 5, 31, 62):
        ref = [SLOW_ROUNDING[mode](Fraction(int(v), 2**shift)) for v in x]
        assert round_shift(x, shift, mode).tolist() == ref


def test_rounding_modes_are_told_apart():
    x = np.array([-1.5, -0.5, 0.5, 1.5, 2.5, 0.3, -0.3, 0.7, -0.7], np.float32)
    results = {mode: tuple(round_real(x, mode)) for mode in Round}
    assert len(set(results.values())) == len(Round)


def test_round_passes_nan_and_infinity():
    for mode in Round:
        y = round_real(np.array([np.nan, np.inf, -np.inf], np.float32), mode)
        assert np.isnan(y[0]) and y[1] == np.inf and y[2] == -np.inf


def test_fma32_rounds_once():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4000)).astype(np.float32)
    c = (-a * b + rng.standard_normal(4000) * 1e-9).astype(np.float32)
    tricky = np.float32([1 + 2**-12, 2**-75, 3e-23, 2**-149, 2**-130])
    a, b = np.concatenate([a, tricky]), np.concatenate([b, tricky])
    c = np.concatenate([c, np.float32([-1, 2**-149, 2**-140, 2**-149, 1])])
    ref = np.array([float(witness.f(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)))) for x, y, z in zip(a, b, c)], np.float32)
    comp = fma32(a, b, c)
    assert comp.dtype == np.float32
    np.testing.assert_array_equal(comp.view(np.int32), ref.view(np.int32))
    assert np.any(comp != a * b + c), "the data must separate one rounding from two"


def test_fma32_specials():
    assert np.isnan(fma32(np.float32(np.inf), np.float32(0), np.float32(1)))
    assert fma32(np.float32(3e38), np.float32(10), np.float32(0)) == np.inf


def test_wrap_and_saturate():
    values = np.array([2**31, 2**32 + 5, -(2**31) - 1, 7], np.int64)
    assert wrap_int32(values).tolist() == [witness.wrap32(int(v)) for v in values]
    assert saturate_int16(np.array([32768, -32769, 5])).tolist() == [32767, -32768, 5]


def test_to_int32_is_the_x86_conversion():
    x = np.array([2147483520.0, 2147483648.0, -2147483648.0, np.nan, np.inf, -np.inf, 0.5], np.float32)
    assert to_int32(x).tolist() == [2147483520, -(2**31), -(2**31), -(2**31), -(2**31), -(2**31), 0]


def test_quantize_overflow_policies_differ():
    x = np.array([3e9, -3e9, np.nan], np.float32)
    answers = {o: quantize_real(x, 1.0, 200, 0, 255, scaling="reciprocal", add="after", rounding="half_even", overflow=o).tolist() for o in ("saturate", "indefinite", "int64")}
    assert answers == {"saturate": [255, 0, 0], "indefinite": [0, 0, 0], "int64": [255, 0, 0]}


def test_channels_last_follows_pytorch():
    cases = {(2, 3, 4, 5): True, (1, 3, 4, 5): True, (2, 1, 4, 5): False, (2, 3, 1, 1): True, (1, 1, 1, 1): False}
    for shape, expected in cases.items():
        x = empty_channels_last(shape, np.uint8)
        if expected:
            assert is_channels_last(x), shape
        assert not is_channels_last(np.empty(shape, np.uint8)) or 1 in shape[1:]
    x = np.arange(24).reshape(1, 2, 3, 4)
    assert np.array_equal(to_channels_last(x), x)


@pytest.mark.parametrize("kind", DTYPES, ids=lambda t: t.name)
def test_dtypes(kind):
    assert int_type(kind.name) is kind
    assert np.iinfo(kind.storage).min <= kind.qmin < kind.qmax <= np.iinfo(kind.storage).max


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, -np.inf, 1e-60, 1e60])
def test_bad_scales_are_refused(scale):
    with pytest.raises(RangeError, match="positive and finite"):
        QParams(scale, 0, "uint8")
    with pytest.raises(RangeError, match=r"scale\[1\]"):
        QParams([1.0, scale], [0, 0], "int8", axis=0)
    assert QParams(scale, 0, "uint8", unchecked=True).dtype == "uint8"


@pytest.mark.parametrize("zero_point, dtype", [(256, "uint8"), (-1, "uint8"), (128, "int8"), (-129, "int8"), (16, "uint4")])
def test_zero_points_outside_of_the_dtype_are_refused(zero_point, dtype):
    with pytest.raises(RangeError, match="lies outside"):
        QParams(1.0, zero_point, dtype)


@pytest.mark.parametrize(
    "build, error, words",
    [
        (lambda: QParams(1.0, 0, "float32"), ArgumentError, "choose one of"),
        (lambda: QParams(1.0, 0, "unit8"), ArgumentError, "did you mean 'uint8'"),
        (lambda: QParams("a", 0, "uint8"), ArgumentError, "real number"),
        (lambda: QParams(1.0, 0.5, "uint8"), ArgumentError, "integer"),
        (lambda: QParams([1.0], [0], "uint8"), ShapeError, "axis"),
        (lambda: QParams([1.0, 2.0], [0, 0, 0], "uint8", axis=0), ShapeError, "as many"),
        (lambda: QParams(1.0, 0, "uint8", quant_min=200, quant_max=100), RangeError, "below"),
        (lambda: QParams(1.0, 0, "uint8", quant_max=300), RangeError, "outside"),
        (lambda: QTensor(np.zeros(3, np.int8), QParams(1.0, 0, "uint8")), ArgumentError, "dtype"),
        (lambda: QTensor(np.zeros((2, 3), np.int8), QParams([1.0] * 3, [0] * 3, "int8", axis=0)), ShapeError, "scales"),
        (lambda: QTensor(np.full(2, 16, np.uint8), QParams(1.0, 0, "uint4")), RangeError, "span"),
        (lambda: QTensor(np.zeros(2, np.uint8), 0.5), ArgumentError, "QParams"),
    ],
)
def test_bad_parameters_are_refused(build, error, words):
    with pytest.raises(error, match=words) as caught:
        build()
    assert isinstance(caught.value, RefquantError)


def test_parameters_are_values():
    a, b = QParams([0.1, 0.2], [0, 0], "int8", axis=0), QParams([0.1, 0.2], [0, 0], "int8", axis=0)
    assert a == b and hash(a) == hash(b) and pickle.loads(pickle.dumps(a)) == a
    assert a != QParams([0.1, 0.25], [0, 0], "int8", axis=0)
    with pytest.raises(AttributeError):
        a.scale = 3
    with pytest.raises(ValueError):
        a.scale[0] = 3
