"""The places on which hypotheses are judged: a few for the first look, a sample, and all of them in the end."""

import math
import time

import numpy as np

from refquant.errors import RefquantError
from refquant.verify.diagnosis.call import PRODUCTS
from refquant.verify.diagnosis.evaluator import Evaluator

__all__ = ["Bench"]

_FIRST_LOOK = (48, 16)
_SAMPLE = 1024
_PRODUCTS_IN_SAMPLE = 1 << 20
_PRODUCTS_AT_ONCE = 1 << 25
_FEWEST_ON_A_LINE = 10


class Bench:
    """Somebody's bits beside the oracle's.

    Attributes
    ----------
    actual, expected : ndarray
        Flat, in logical order.
    shape : tuple of int
    differing : ndarray of int
        Where they differ.
    levels : dict of str to ndarray of int
        ``"tiny"`` and ``"sample"``: half of the places are such where they differ.
    generation : int
        How often the sample has been extended.
    deadline : float
        On the monotonic clock; when `wrong_everywhere` gives up.
    """

    def __init__(self, call, base, actual, expected, seed=0):
        self.base, self.shape = base, expected.shape
        self.actual, self.expected = actual.reshape(-1), expected.reshape(-1)
        self.differing = np.flatnonzero(~same_bits(self.actual, self.expected))
        self.evaluator = Evaluator(call, base, expected.shape)
        self.tried = self.generation = 0
        self.deadline = math.inf
        self.depth = self.evaluator.products.depth if call.op in PRODUCTS else 1
        rng = np.random.default_rng(seed)
        most = max(24, min(_SAMPLE, _PRODUCTS_IN_SAMPLE // (2 * max(self.depth, 1))))
        wrong = _some(rng, self.differing, most)
        right = _some(rng, np.setdiff1d(np.arange(self.actual.size), self.differing, assume_unique=True), most)
        self.levels = {
            "sample": np.concatenate([wrong, right]),
            "tiny": np.concatenate([wrong[: _FIRST_LOOK[0]], right[: _FIRST_LOOK[1]]]),
        }
        self._limits = (self.actual.min(), self.actual.max()) if self.actual.size else (0, 0)
        parts = self.values(call, "sample")
        self.evaluator.whole = parts is None or not same_bits(parts, self.expected[self.levels["sample"]]).all()

    def values(self, call, level):
        """Return a call's outputs at a level, or None where it cannot be computed."""
        self.tried += 1
        try:
            with np.errstate(all="ignore"):
                return self.evaluator.values(call, self.levels[level], (level, self.generation))
        except (RefquantError, ArithmeticError, ValueError):
            return None

    def real(self, call, level):
        """Return what the output scale divides, at a level."""
        return self.evaluator.real(call, self.levels[level], (level, self.generation))

    def wrong(self, call, level):
        """Return which outputs at a level disagree with the actual bits, or None."""
        y = self.values(call, level)
        return None if y is None else ~same_bits(self.actual[self.levels[level]], y)

    def score(self, call, level):
        """Return (disagreeing outputs, the same with a share for the distance), or None."""
        y = self.values(call, level)
        if y is None:
            return None
        actual = self.actual[self.levels[level]]
        wrong = ~same_bits(actual, y)
        count = int(np.count_nonzero(wrong))
        return count, count + float(_distance(actual[wrong], y[wrong]).sum()) / 2 if count else 0.0

    def residual(self, call, level):
        """Return how far the actual codes are from any linear function of the real numbers that a call computes: 0 is a line, 1 is noise.

        A wrong scale or zero point at the output leaves it as it is, so it tells what else is right.
        """
        try:
            with np.errstate(all="ignore"):
                real = self.real(call, level)
        except (RefquantError, ArithmeticError, ValueError):
            return 1.0
        actual = self.actual[self.levels[level]]
        if real is None or actual.dtype.kind == "f":
            return 1.0
        inside = (actual > self._limits[0]) & (actual < self._limits[1]) & np.isfinite(real)
        if np.count_nonzero(inside) < _FEWEST_ON_A_LINE:
            return 1.0
        x, y = real[inside] - real[inside].mean(), actual[inside] - actual[inside].mean(dtype=float)
        energy = float(x @ x) * float(y @ y)
        return 1.0 - float(x @ y) ** 2 / energy if energy > 0 else 1.0

    def wrong_everywhere(self, call):
        """Return the number of outputs of a call that disagree, at least, all outputs looked at; None where that cannot be told in time.

        A call that has passed the sample and fails here leaves its failures in the sample.
        """
        try:
            with np.errstate(all="ignore"):
                bad = self._disagreeing(call)
        except (RefquantError, ArithmeticError, ValueError):
            return None
        if bad is not None and 0 < bad.size < self.actual.size // 2 and not self.wrong(call, "sample").any():
            self.generation += 1
            for name, count in (("sample", 64), ("tiny", 4)):
                self.levels[name] = np.union1d(self.levels[name], bad[:count])
        return None if bad is None else int(bad.size)

    def _disagreeing(self, call):
        if not call.quirks:
            y = call.run(self.base).reshape(-1)
            return np.flatnonzero(~same_bits(self.actual, y)) if y.shape == self.actual.shape else None
        step = max(1, _PRODUCTS_AT_ONCE // max(self.depth, 1))
        for start in range(0, self.actual.size, step):
            index = np.arange(start, min(start + step, self.actual.size))
            bad = index[~same_bits(self.actual[index], self.evaluator.values(call, index))]
            if bad.size:
                return bad
            if time.monotonic() > self.deadline:
                return None
        return bad

    def fixed_by(self, call):
        """Return the number of differing outputs that a call computes as they are (of very many: in proportion)."""
        index = self.differing[: max(1, _PRODUCTS_AT_ONCE // max(self.depth, 1))]
        try:
            with np.errstate(all="ignore"):
                y = self.evaluator.values(call, index)
        except (RefquantError, ArithmeticError, ValueError):
            return 0
        return int(np.count_nonzero(same_bits(self.actual[index], y))) * self.differing.size // max(index.size, 1)


def same_bits(a, b):
    """Return where two arrays agree in every bit; all NaN are alike."""
    if a.dtype.kind != "f":
        return a == b
    return (a.view(f"u{a.itemsize}") == b.view(f"u{b.itemsize}")) | (np.isnan(a) & np.isnan(b))


def _some(rng, index, most):
    return index if index.size <= most else np.sort(rng.permutation(index)[:most]) if most > index.size // 2 else rng.choice(index, most, replace=False)


def _distance(a, b):
    """Return distances from 0 to 1."""
    if a.dtype.kind != "f":
        return np.minimum(np.abs(a.astype(np.int64) - b.astype(np.int64)), 64) / 64
    with np.errstate(all="ignore"):
        relative = np.abs(a - b) / np.maximum(np.abs(a), np.float32(1e-30))
    return np.minimum(np.nan_to_num(relative, nan=1.0, posinf=1.0), 1.0)
