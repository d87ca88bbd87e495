"""The comparison fails on every planted fault, and says which it is."""

import numpy as np
import pytest

from refquant import QParams, QTensor
from refquant.errors import ArgumentError
from refquant.testing import assert_bitexact
from refquant.verify import Status, compare


def codes(shape=(2, 3, 4, 5), dtype=np.uint8, seed=0):
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 100, shape).astype(dtype)


def floats(shape=(6, 7), dtype=np.float32, seed=0):
    return np.random.Generator(np.random.PCG64(seed)).normal(size=shape).astype(dtype)


def flipped(ref, bit, position=0):
    comp = ref.copy()
    raw = comp.reshape(-1).view(f"u{comp.itemsize}")
    raw[position] ^= np.array(1 << bit, raw.dtype)
    return comp


@pytest.mark.parametrize("dtype", (np.uint8, np.int8, np.int32, np.int64, np.float16, np.float32, np.float64))
def test_every_single_bit_counts(dtype):
    ref = (floats if np.dtype(dtype).kind == "f" else codes)(dtype=dtype)
    for bit in range(8 * ref.itemsize):
        for position in (0, ref.size // 2, ref.size - 1):
            comparison = compare(flipped(ref, bit, position), ref)
            assert comparison.status is Status.DIFFERENT
            assert (comparison.differing, comparison.outputs) == (1, ref.size)
            assert comparison.positions[0][0] == np.unravel_index(position, ref.shape)
            with pytest.raises(AssertionError):
                assert_bitexact(flipped(ref, bit, position), ref)


@pytest.mark.parametrize(
    "comp, what",
    [
        (codes().astype(np.int16), "dtype int16, expected uint8"),
        (codes().view(np.int8), "dtype int8, expected uint8"),
        (codes().reshape(2, 3, 20), "shape (2, 3, 20), expected (2, 3, 4, 5)"),
        (codes()[:1], "shape (1, 3, 4, 5), expected (2, 3, 4, 5)"),
        (codes()[:0], "shape (0, 3, 4, 5)"),
    ],
)
def test_dtype_and_shape_come_first(comp, what):
    assert what in compare(comp, codes()).reason
    with pytest.raises(AssertionError, match=what.replace("(", r"\(").replace(")", r"\)")):
        assert_bitexact(comp, codes())


def test_broadcasting_is_no_agreement():
    with pytest.raises(AssertionError, match="shape"):
        assert_bitexact(np.float32(1), np.ones(3, np.float32))


def test_nan_and_signed_zero():
    ref = np.float32([0.0, 1.0, np.nan, np.inf])
    payload = ref.copy()
    payload.view(np.uint32)[2] ^= 1
    assert compare(ref, ref).status is Status.EXACT
    assert compare(payload, ref).histogram == {None: 1}
    assert compare(payload, ref, nan_equal=True).exact
    assert compare(np.float32([-0.0, 1.0, np.nan, np.inf]), ref).differing == 1
    number = np.float32([0.0, 1.0, 7.0, np.inf])
    assert compare(number, ref, nan_equal=True).differing == 1
    assert compare(number, ref).worst[0] == (2,)


def test_distances_are_signed_and_in_units_of_the_last_place():
    ref = np.uint8([[10, 20, 30, 40]])
    assert compare(np.uint8([[11, 18, 30, 255]]), ref).histogram == {1: 1, -2: 1, 215: 1}
    up = np.nextafter(np.float32(1), np.float32(2))
    assert compare(np.float32([up, -up, 2]), np.float32([1, -1, 2])).histogram == {1: 1, -1: 1}
    tiny = np.float32([1e-45, -1e-45])
    assert compare(tiny, tiny[::-1]).histogram == {2: 1, -2: 1}
    assert compare(np.int64([2**63 - 1]), np.int64([-(2**63)])).histogram == {2**64 - 1: 1}


def test_places_and_worst():
    ref = codes((2, 3, 4, 5))
    comp = ref.copy()
    comp[:, 1] += 1
    comp[1, 2, 3, 4] += 50
    comparison = compare(comp, ref)
    assert comparison.channels == {1: 40, 2: 1}
    assert comparison.worst[0] == (1, 2, 3, 4)
    assert "in 2 channels: 1: 40, 2: 1" in str(comparison) and "+1: 40, +50: 1" in str(comparison)
    assert compare(codes((3, 4)) + np.uint8([0, 0, 1, 0]), codes((3, 4))).channels == {2: 3}


@pytest.mark.parametrize("ref", (np.zeros(0, np.uint8), np.full(9, 7, np.uint8), np.zeros((2, 2), np.float32)))
def test_data_that_could_not_show_a_difference_are_not_trusted(ref):
    assert compare(ref.copy(), ref).status is Status.UNTRUSTED
    assert compare(ref, ref).exact


def test_a_constant_expectation_still_fails_on_a_difference():
    ref = np.full(9, 7, np.uint8)
    assert compare(flipped(ref, 0), ref).status is Status.DIFFERENT


def test_strides_do_not_matter_and_tensors_are_taken():
    ref = codes((4, 6))
    assert compare(np.asfortranarray(ref), ref).status is Status.EXACT
    assert_bitexact(QTensor(ref, QParams(1.0, 0, "uint8")), ref)
    assert compare(np.float32(ref).T, np.float32(ref).T.copy()).status is Status.EXACT


def test_the_message_starts_with_the_case():
    with pytest.raises(AssertionError, match="^linear/x\nDIFFERENT: 1 of 2"):
        assert_bitexact(np.uint8([1, 2]), np.uint8([1, 3]), err_msg="linear/x")


def test_what_has_no_bits_is_refused():
    with pytest.raises(ArgumentError, match="only integers and floats"):
        compare(np.array([1j]), np.array([1j]))
