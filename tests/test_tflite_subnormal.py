"""XNNPACK under LiteRT takes subnormal numbers for zero: least inputs at least scales, and the reciprocals of the largest scales."""

from fractions import Fraction

import numpy as np
import pytest
import witness

import refquant as rq
from refquant import numerics
from refquant.numerics.forms import QuantizeForm
from refquant.verify import Problem, oracle

_LEAST = np.float32(2.0**-126)
_SCALES = [float(np.float32(s)) for s in (2.0**-126, 1.2e-38, 2e-38, 2.0**-124, 1.0, 2.0**126, 8.5070602e37, 1.7e38, 3.4e38)]
_X = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, _LEAST, np.nextafter(_LEAST, np.float32(0)), -9e-39, 6e-39, 1e-45, 1.2e-38, 3e-38, 1e38, 2e38, -3e38])


def slow(x, scale):
    """In fractions, where infinities and NaN reach the ends by hand."""
    least, inverse = Fraction(float(_LEAST)), Fraction(float(np.float32(1) / np.float32(scale)))
    if not np.isfinite(x):
        return 127 if np.isnan(x) or x > 0 or inverse < least else -128
    value = Fraction(float(x))
    if abs(value) < least or inverse < least:
        return 3
    return witness.clip(witness.half_even(Fraction(float(np.float32(np.clip(float(value * inverse), -1e30, 1e30))))) + 3, -128, 127)


def problem(scale):
    return Problem("quantize", {"x": _X, "qparams": rq.QParams(scale, 3, "int8")})


@pytest.mark.parametrize("scale", _SCALES)
def test_by_fractions(scale):
    expected = [slow(x, scale) for x in _X]
    assert oracle(problem(scale), "xnnpack").tolist() == expected == oracle(problem(scale), "xnnpack", reference=True).tolist()


def test_channels_and_layouts():
    scales = np.float32([1.7e38, 1.0, 2e-38])
    x = np.ascontiguousarray(np.broadcast_to(_X, (3, _X.size)).T)[::-1].T
    x.setflags(write=False)
    y = rq.quantize(x, rq.QParams(scales, np.full(3, 3), "int8", axis=0), numerics="xnnpack").values
    assert y.tolist() == [[slow(v, float(s)) for v in row] for s, row in zip(scales, x)]


@pytest.mark.engine
@pytest.mark.parametrize("scale", _SCALES)
def test_the_engine_does_it(scale):
    from refquant import backends

    pytest.importorskip("ai_edge_litert")
    assert backends.load("xnnpack").run(problem(scale)).tolist() == oracle(problem(scale), "xnnpack").tolist()


def test_a_profile_that_counts_them_is_told_apart():
    own = numerics.get("xnnpack").quantize
    plain = numerics.get("xnnpack").replace(quantize=QuantizeForm(scaling=own.scaling, zero_point=own.zero_point, rounding=own.rounding, overflow=own.overflow, nan=own.nan))
    wrong = [scale for scale in _SCALES if oracle(problem(scale), plain).tolist() != oracle(problem(scale), "xnnpack").tolist()]
    assert wrong == [scale for scale in _SCALES if not 2.0**-124 <= scale <= 2.0**126]
