"""Every planted fault is found: a sloppy engine of its own computes wrong bits, the diagnosis must name what is wrong, to the bit.

``python tests/quality/test_planted_faults.py [first seed]`` prints the statistics.
"""

import sys
import time
from typing import NamedTuple

import numpy as np
import pytest
from test_planted_faults_table import CONVOLUTION, ELEMENTWISE, FAULTS, LINEAR, PAIRED, TRIPLES, UNKNOWN, Fault

from refquant.verify.build import build
from refquant.verify.diagnosis import CAUSES, diagnose
from refquant.verify.problem import oracle


class Result(NamedTuple):
    """How the diagnosis fared with one fault."""

    fault: Fault
    explained: bool
    named: bool
    headline: bool
    differing: int
    seconds: float
    text: str


def plant(fault, first=0):
    """Return (problem, wrong bits) of the first seed that shows the fault in at least two outputs."""
    for seed in range(first, first + 60):
        problem = fault.prepare(build(fault.line.replace("seed=0", f"seed={seed}")))
        actual = np.asarray(fault.plant(problem))
        others = [oracle(problem, fault.profile), *(np.asarray(part(problem)) for part in fault.parts)]
        bits = lambda v: v.view(np.int32) if v.dtype == np.float32 else v  # noqa: E731
        if all(actual.shape == other.shape and np.count_nonzero(bits(actual) != bits(other)) >= 2 for other in others):
            return problem, actual
    raise AssertionError(f"{fault.name}: no seed shows it")


def names_all(names, causes):
    """Whether each expected name stands in the names of one explanation; one name in several words counts as any of them."""
    return all(any(part in n for n in names) for part in causes)


def matches(fault, names):
    if " + " in fault.name:
        return names_all(names, fault.causes)
    return any(part in n for n in names for part in fault.causes)


def examine(fault, first=0):
    """Diagnose one planted fault."""
    problem, actual = plant(fault, first)
    begin = time.perf_counter()
    d = diagnose(problem.op, actual=actual, numerics=fault.profile, **problem.arguments)
    seconds = time.perf_counter() - begin
    everything = [d.names, *(e.names for e in d.alternatives)]
    return Result(fault, d.explained, any(matches(fault, n) for n in everything), matches(fault, d.names), d.differing, seconds, str(d))


@pytest.fixture(scope="module")
def results():
    return [examine(fault) for fault in FAULTS]


def test_the_bench_is_as_large_as_it_says():
    assert len(FAULTS) >= 60 and len(PAIRED) >= 15
    assert len({f.name for f in FAULTS}) == len(FAULTS)


def test_every_cause_of_the_table_is_planted():
    planted = " ".join(name for fault in FAULTS for name in fault.causes)
    assert [cause.name for cause in CAUSES if cause.name not in planted] == []


def test_planted_faults_are_explained_to_the_bit(results):
    missed = [r.fault.name for r in results if not r.explained]
    assert len(missed) <= 0.05 * len(results), missed


def test_planted_faults_are_named(results):
    unnamed = [(r.fault.name, r.text) for r in results if r.explained and not r.named]
    assert len(unnamed) <= 0.05 * len(results), unnamed


def test_no_diagnosis_takes_long(results):
    seconds = sorted(r.seconds for r in results)
    assert seconds[-1] < 30 and seconds[len(seconds) // 2] < 3


@pytest.mark.parametrize("fault", UNKNOWN, ids=lambda f: f.name)
def test_what_is_not_in_the_table_is_not_explained(fault):
    problem, actual = plant(fault)
    d = diagnose(problem.op, actual=actual, numerics=fault.profile, seconds=1.5, **problem.arguments)
    assert not d.explained and d.nearest and all(e.left for e in d.nearest), str(d)


def statistics(results):
    """Return the bench's figures as text."""
    seconds = sorted(r.seconds for r in results)
    kinds = [("linear", LINEAR), ("convolution", CONVOLUTION), ("elementwise", ELEMENTWISE), ("pairs", PAIRED), ("triples", TRIPLES)]
    lines = []
    for kind, faults in kinds:
        mine = [r for r in results if r.fault in faults]
        lines.append(f"{kind:12} {len(mine):4} planted, {sum(r.explained for r in mine):4} explained, {sum(r.named for r in mine):4} named, {sum(r.headline for r in mine):4} first")
    lines.append(f"{'all':12} {len(results):4} planted, {sum(r.explained for r in results):4} explained, {sum(r.named for r in results):4} named, {sum(r.headline for r in results):4} first")
    lines.append(f"seconds: median {seconds[len(seconds) // 2]:.2f}, 90 % {seconds[len(seconds) * 9 // 10]:.2f}, most {seconds[-1]:.2f}, together {sum(seconds):.0f}")
    lines += [f"not explained: {r.fault.name}\n{r.text}" for r in results if not r.explained]
    lines += [f"not named: {r.fault.name}\n{r.text}" for r in results if r.explained and not r.named]
    lines += [f"named second: {r.fault.name}\n{r.text}" for r in results if r.named and not r.headline]
    return "\n".join(lines)


if __name__ == "__main__":
    start = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    print(statistics([examine(fault, start) for fault in FAULTS]))
