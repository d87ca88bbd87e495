"""Comparison by bits: what differs, where, by how much; and the outcomes that a check can have."""

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np

from refquant.core.arguments import as_array
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError

__all__ = ["Status", "Outcome", "Comparison", "compare", "assert_bitexact"]

_SHOWN = 5
_BINS = 8


class Status(str, Enum):
    """What a check found.

    `EXACT`: every bit agrees. `EXPLAINED`: bits differ for a cause that has a name. `DIFFERENT`: bits differ.
    `UNSUPPORTED`: the engine or the profile has no such operation. `UNTRUSTED`: every bit agrees, but the
    data could not have shown a difference.
    """

    EXACT = "EXACT"
    EXPLAINED = "EXPLAINED"
    DIFFERENT = "DIFFERENT"
    UNSUPPORTED = "UNSUPPORTED"
    UNTRUSTED = "UNTRUSTED"

    def __str__(self):
        return self.value


class Outcome(NamedTuple):
    """A status and what there is to say about it: the cause, the reason, or the comparison's report."""

    status: Status
    detail: str = ""

    def __str__(self):
        if self.status in (Status.EXPLAINED, Status.UNSUPPORTED):
            return f"{self.status}({self.detail})"
        return f"{self.status}: {self.detail}" if self.detail else str(self.status)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of `compare`; its text is the report.

    Attributes
    ----------
    status : Status
        `EXACT`, `DIFFERENT` or `UNTRUSTED`.
    outputs, differing : int
        Elements compared, and those whose bits differ (all of them where dtype or shape do).
    reason : str
        Why nothing was compared element by element, or why the comparison proves nothing.
    channels : dict of int to int
        Differing elements of each channel (axis 1 of four- and five-dimensional arrays, else the last).
    positions : tuple of (index, actual, expected)
        The first few.
    histogram : dict of int to int
        Differing elements by ``actual - expected``: in codes for integers, in units of the last place for floats. NaN on one
        side alone is counted under the key None.
    worst : tuple (index, actual, expected), or None
        An element with the largest distance.
    """

    status: Status
    outputs: int
    differing: int
    reason: str = ""
    channels: dict = field(default_factory=dict)
    positions: tuple = ()
    histogram: dict = field(default_factory=dict)
    worst: tuple = None

    @property
    def exact(self):
        """Whether no bit differs; also true where the data could not have shown a difference."""
        return self.status is not Status.DIFFERENT

    def __str__(self):
        if self.reason:
            return f"{self.status}: {self.reason}"
        if self.exact:
            return f"{self.status}: {self.outputs:,} outputs, 0 differ"
        return "\n".join(_report(self))


def _report(c):
    yield f"{c.status}: {c.differing:,} of {c.outputs:,} outputs differ ({100 * c.differing / c.outputs:.3g} %)"
    shown = sorted(c.histogram.items(), key=lambda kv: (-kv[1], abs(kv[0] or 0)))
    parts = [f"{'NaN' if d is None else format(d, '+d')}: {n:,}" for d, n in shown[:_BINS]]
    if len(shown) > _BINS:
        parts.append(f"{len(shown) - _BINS} more distances: {sum(n for _, n in shown[_BINS:]):,}")
    yield "  actual - expected in LSB: " + ", ".join(parts)
    if len(c.channels) > 1 or (c.channels and c.differing > 1):
        most = sorted(c.channels.items(), key=lambda kv: (-kv[1], kv[0]))
        text = ", ".join(f"{k}: {n:,}" for k, n in most[:_BINS])
        yield f"  in {len(c.channels):,} channels: {text}" + (", …" if len(most) > _BINS else "")
    for label, rows in (("first", c.positions), ("worst", (c.worst,))):
        for index, a, e in rows:
            yield f"  {label} {list(index)}: actual {a!r}, expected {e!r}"


def compare(actual, expected, *, nan_equal=False):
    """Compare two arrays bit by bit: dtype first, then shape, then every element.

    Parameters
    ----------
    actual, expected : array_like or QTensor
        Integers or floats; of a QTensor the codes count.
    nan_equal : bool
        Whether any NaN equals any other. If not, their bits must agree too; -0.0 and 0.0 always differ.

    Returns
    -------
    Comparison

    Examples
    --------
    >>> print(compare(np.uint8([[1, 7, 9]]), np.uint8([[1, 8, 9]])))
    DIFFERENT: 1 of 3 outputs differ (33.3 %)
      actual - expected in LSB: -1: 1
      first [0, 1]: actual 7, expected 8
      worst [0, 1]: actual 7, expected 8
    >>> print(compare(np.float32([1, 2]), np.float64([1, 2])))
    DIFFERENT: dtype float32, expected float64
    >>> print(compare(np.uint8([]), np.uint8([])))
    UNTRUSTED: no outputs to compare
    """
    actual, expected = _array(actual, "actual"), _array(expected, "expected")
    for what, a, e in (("dtype", actual.dtype, expected.dtype), ("shape", actual.shape, expected.shape)):
        if a != e:
            return Comparison(status=Status.DIFFERENT, outputs=expected.size, differing=max(expected.size, 1), reason=f"{what} {a}, expected {e}")
    differ = _bits(actual) != _bits(expected)
    if nan_equal and actual.dtype.kind == "f":
        differ &= ~(np.isnan(actual) & np.isnan(expected))
    count = int(np.count_nonzero(differ))
    if not count:
        why = _untrusted(expected)
        return Comparison(status=Status.UNTRUSTED if why else Status.EXACT, outputs=expected.size, differing=0, reason=why)
    return _differences(actual, expected, differ, count)


def _array(value, name):
    array = value.values if isinstance(value, QTensor) else as_array(value, name, "compare")
    if array.dtype.kind not in "iufb" or array.dtype.itemsize > 8:
        raise ArgumentError(f"compare: {name} has dtype {array.dtype} but only integers and floats have bits to compare; convert it")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _bits(array):
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "f" else array


def _untrusted(expected):
    if not expected.size:
        return "no outputs to compare"
    bits = _bits(expected)
    if (bits == bits.flat[0]).all():
        return f"all {expected.size:,} outputs equal {expected.flat[0].item()!r}; use data that spreads them"
    return ""


def _differences(actual, expected, differ, count):
    where = np.nonzero(differ) if actual.ndim else ()
    a, e = np.atleast_1d(actual[differ]), np.atleast_1d(expected[differ])
    distance, one_nan = _distance(a, e)
    histogram = dict(zip(*(v.tolist() for v in np.unique(distance[~one_nan], return_counts=True))))
    if one_nan.any():
        histogram[None] = int(one_nan.sum())
    row = lambda i: (tuple(int(w[i]) for w in where), a[i].item(), e[i].item())  # noqa: E731
    worst = int(np.argmax(one_nan)) if one_nan.any() else int(np.argmax(np.abs(distance)))
    channels = {}
    if actual.ndim:
        axis = 1 if actual.ndim in (4, 5) else actual.ndim - 1
        channels = dict(zip(*(v.tolist() for v in np.unique(where[axis], return_counts=True))))
    return Comparison(
        status=Status.DIFFERENT, outputs=actual.size, differing=count, channels=channels, histogram=histogram, worst=row(worst),
        positions=tuple(row(i) for i in range(min(count, _SHOWN))),
    )  # fmt: skip


def _distance(a, e):
    """Return (signed distance, NaN on one side or with another payload); floats in units of the last place."""
    wide = object if a.dtype.itemsize == 8 else np.int64
    if a.dtype.kind != "f":
        return a.astype(wide) - e.astype(wide), np.zeros(a.shape, bool)
    nan = np.isnan(a) | np.isnan(e)
    low = -(2 ** (8 * a.dtype.itemsize - 1))

    def ordered(v):
        bits = v.view(f"i{v.dtype.itemsize}").astype(wide)
        return np.where(bits < 0, low - bits, bits)

    return np.where(nan, 0, ordered(a) - ordered(e)), nan


def assert_bitexact(actual, expected, *, nan_equal=False, err_msg=""):
    """Raise an AssertionError unless two arrays agree in dtype, in shape and in every bit.

    Parameters
    ----------
    actual, expected : array_like or QTensor
        As for `compare`.
    nan_equal : bool
        Whether any NaN equals any other.
    err_msg : str
        Put in front of the report; a case's line, say.

    Raises
    ------
    AssertionError
        With counts, places and the histogram of distances.

    Examples
    --------
    >>> assert_bitexact(np.uint8([1, 2]), np.uint8([1, 2]))
    >>> assert_bitexact(np.uint8([1, 2]), np.uint8([1, 3]))
    Traceback (most recent call last):
        ...
    AssertionError: DIFFERENT: 1 of 2 outputs differ (50 %)
      actual - expected in LSB: -1: 1
      first [1]: actual 2, expected 3
      worst [1]: actual 2, expected 3
    """
    __tracebackhide__ = True
    comparison = compare(actual, expected, nan_equal=nan_equal)
    if not comparison.exact:
        raise AssertionError(f"{err_msg}\n{comparison}" if err_msg else str(comparison))
