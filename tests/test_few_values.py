"""Functions of one number where few numbers occur: the bits of the function itself, whatever the numbers and wherever they stand."""

import numpy as np
import pytest

from refquant.kernels.jit import jit_disabled
from refquant.kernels.lookup_reals import look_up_reals, slots_of
from refquant.ops.real import gelu
from refquant.ops.real.few_values import few_values


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a.view(np.uint32), b.view(np.uint32))


def turned(x):
    """A function that tells -0.0 from 0.0 and the NaNs from one another; counts what it was given."""
    turned.seen += x.size
    return (x.view(np.uint32) ^ np.uint32(0x00345678)).view(np.float32)


def codes(rng, shape, count=256):
    return ((rng.integers(0, count, shape) - 65) * np.float32(0.0917)).astype(np.float32)


@pytest.mark.parametrize("case", ["codes", "transposed", "other numbers", "specials", "all different", "few", "float64"])
def test_same_bits_wherever_numbers_stand(case):
    rng = np.random.default_rng(0)
    x = codes(rng, (3, 100, 101), 128)
    if case == "transposed":
        x = x.transpose(2, 0, 1)[::-1]
    elif case == "other numbers":
        x.reshape(-1)[rng.choice(x.size, 40, replace=False)] = rng.standard_normal(40)
    elif case == "specials":
        bits = np.uint32([0, 0x80000000, 1, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7FC00001, 0xFFC12345])
        x = rng.choice(bits, x.shape).view(np.float32)
    elif case == "all different":
        x = rng.standard_normal(x.shape).astype(np.float32)
    elif case == "few":
        x = x[0, :5]
    elif case == "float64":
        x = x.astype(np.float64)
        assert np.array_equal(few_values(np.sin, x), np.sin(x))
        return
    turned.seen = 0
    expected = turned(np.ascontiguousarray(x))
    turned.seen = 0
    assert same(few_values(turned, x), expected)
    if not jit_disabled():
        assert (turned.seen == x.size) == (case in ("all different", "few"))


@pytest.mark.skipif(jit_disabled(), reason="tables are for compiled kernels")
def test_a_number_that_another_has_put_out_of_its_slot_is_told():
    """Of two numbers with one slot the table holds the later one; what stands there is not taken for the other."""
    first = np.uint32(0x3F800000)
    steps = np.arange(1, 1 << 20, dtype=np.uint32)
    slot = lambda bits: (bits * np.uint32(0x9E3779B1)) >> np.uint32(16)  # noqa: E731
    second = (first + steps)[slot(first + steps) == slot(np.array([first]))][0]
    known, out = np.array([first, second]), np.zeros(3, np.float32)
    others = look_up_reals(np.array([first, second, first]), slots_of(known, np.float32([5, 6])), out)
    assert others.tolist() == [True, False, True] and out[1] == 6


def test_gelu_of_codes_is_that_of_each_number():
    rng = np.random.default_rng(1)
    x = codes(rng, (2, 128, 100))
    flat = np.concatenate([gelu(part) for part in x.reshape(-1, 100)])
    assert same(gelu(x), flat.reshape(x.shape))
