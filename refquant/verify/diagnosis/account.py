"""What differing outputs look like before anybody asks why: how far off, how many at a limit, how many on a tie, and the worst one in full."""

from dataclasses import dataclass, field
from typing import NamedTuple, Optional

import numpy as np

from refquant.errors import RefquantError
from refquant.verify.compare import compare

__all__ = ["Account", "Worst", "account"]

_MOST = 4096
_BINS = 8
# By how much float32 arithmetic may miss a tie, relative to the value.
_NEAR = 2.0**-21


class Worst(NamedTuple):
    """The output that is furthest off.

    Attributes
    ----------
    index : tuple of int
    actual, expected : int or float
    accumulator : int or None
        Of an integer product, without the bias.
    multiplier : float or None
        From the accumulator to codes, exact.
    real : float or None
        What the output scale divides; in codes, from the zero point.
    """

    index: tuple
    actual: object
    expected: object
    accumulator: Optional[int] = None
    multiplier: Optional[float] = None
    real: Optional[float] = None

    def __str__(self):
        parts = [f"{list(self.index)}: actual {self.actual!r}, expected {self.expected!r}"]
        if self.accumulator is not None:
            parts.append(f"accumulator {self.accumulator:,}")
        if self.multiplier is not None:
            parts.append(f"multiplier {self.multiplier:.9g}")
        if self.real is not None:
            parts.append(f"real value {self.real:.9g} codes from the zero point")
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Account:
    """Figures of the outputs that differ.

    Attributes
    ----------
    histogram : dict of int to int
        Outputs by ``actual - expected``; as `Comparison.histogram`.
    saturated : float or None
        The share at an end of the output's codes, in the actual or in the expected bits; None for real outputs.
    ties : float or None
        The share whose real value lies on a rounding tie, as far as float32 can tell; None where there is no real value to look at.
    worst : Worst or None
    """

    histogram: dict = field(default_factory=dict)
    saturated: Optional[float] = None
    ties: Optional[float] = None
    worst: Optional[Worst] = None

    def lines(self):
        """Yield the lines of a report."""
        if self.histogram:
            shown = sorted(self.histogram.items(), key=lambda kv: (-kv[1], abs(kv[0] or 0)))
            more = f", and {len(shown) - _BINS} more distances" if len(shown) > _BINS else ""
            yield "actual - expected in LSB: " + ", ".join(f"{'NaN' if d is None else format(d, '+d')}: {n:,}" for d, n in shown[:_BINS]) + more
        shares = [f"{100 * share:.3g} % {words}" for share, words in ((self.saturated, "at an end of the codes"), (self.ties, "on a tie")) if share is not None]
        if shares:
            yield "of those that differ: " + ", ".join(shares)
        if self.worst is not None:
            yield f"worst {self.worst}"


def account(call, bench):
    """Return the figures of a diagnosis's differing outputs (of very many: of the first few thousand).

    Parameters
    ----------
    call : Call
        The undisturbed one.
    bench : Bench

    Returns
    -------
    Account
    """
    comparison = compare(bench.actual.reshape(bench.shape), bench.expected.reshape(bench.shape), nan_equal=True)
    index = bench.differing[:_MOST]
    out = call.arguments.get("out", call.arguments.get("qparams"))
    saturated = None
    if out is not None and bench.expected.dtype.kind in "iu":
        at_end = lambda codes: (codes == out._type.qmin) | (codes == out._type.qmax)  # noqa: E731
        saturated = float(np.mean(at_end(bench.actual[index]) | at_end(bench.expected[index])))
    ties = None
    worst = Worst(*comparison.worst) if comparison.worst is not None else None
    flat = int(np.ravel_multi_index(worst.index, bench.shape)) if worst is not None and bench.shape else 0
    codes = _real_codes(call, bench, out, np.append(index, flat))
    if codes is not None:
        ties = float(np.mean(np.abs(np.abs(codes[:-1] - np.floor(codes[:-1])) - 0.5) <= _NEAR * np.maximum(np.abs(codes[:-1]), 1.0)))
        worst = worst and worst._replace(real=float(codes[-1]))
    products = bench.evaluator.products
    if products is not None and worst is not None:
        worst = worst._replace(**_product(call, products, out, np.array([flat])))
    return Account(histogram=comparison.histogram, saturated=saturated, ties=ties, worst=worst)


def _real_codes(call, bench, out, index):
    """Return real values in codes from the zero point, or None where there are none."""
    if out is None or out.per_channel or call.op in ("matmul_integer", "fake_quantize"):
        return None
    try:
        with np.errstate(all="ignore"):
            real = bench.evaluator.real(call, index)
    except (RefquantError, ArithmeticError, ValueError):
        return None
    if real is None:
        return None
    codes = real / np.float64(out.scale)
    return np.where(np.isfinite(codes), codes, 0.0)


def _product(call, products, out, index):
    try:
        found = {"accumulator": int(products.accumulator(call, index)[0])}
        if out is not None and call.op != "matmul_integer":
            found["multiplier"] = float(products.real(call, index)[1][0] / np.float64(out.scale))
        return found
    except (RefquantError, ArithmeticError, ValueError):
        return {}
