"""Both ends of a pipe with an engine in the middle: `generate` writes cases, `judge` reads its results and holds them against the oracle."""

import math
import time
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np

from refquant import numerics as profiles
from refquant.errors import ArgumentError, UnsupportedError, choose
from refquant.verify.build import build
from refquant.verify.campaign import Row, Trial
from refquant.verify.case import STRATEGIES, Case
from refquant.verify.check import Check
from refquant.verify.compare import Outcome, Status, compare
from refquant.verify.default_cases import case_stream
from refquant.verify.problem import Problem, oracle
from refquant.verify.reasons import reasons, telling
from refquant.verify.stream import DTYPES, PROBLEMS, RESULTS, Reader, Writer, check_of, fields_of, record_bytes
from refquant.verify.views import VIEWS

__all__ = ["Failure", "Judged", "cases_to_send", "check_size", "generate", "judge", "judge_files", "judge_one"]

# Orders in memory and threads, which arrays in a stream do not have.
_LAYOUTS = ("channels_last", "mixed", "threads", *VIEWS)
_MOST_ELEMENTS = 1 << 28
# Failing results whose bits are kept, to say why.
_KEPT = 8
_DIAGNOSED = 3


class Failure(NamedTuple):
    """A result that differs: its case (a file's name, where it came from one), the problem, the engine's bits, the profile."""

    case: Case
    problem: Problem
    actual: np.ndarray
    profile: str


class Judged(NamedTuple):
    """What `judge` found.

    Attributes
    ----------
    check : Check
    failures : list of Failure
        Those that tell most.
    bytes : int
        Of both streams, problems and results, without the first record.
    seconds : float
        From the first record on.
    """

    check: Check
    failures: list
    bytes: int
    seconds: float

    @property
    def rate(self):
        """Megabytes (10**6) a second."""
        return self.bytes / max(self.seconds, 1e-9) / 1e6


def cases_to_send(ops, profile, *, cases, seed=0, shapes=(), strategies=()):
    """Yield default cases of operators in turn, without orders in memory; with shapes and strategies in place of theirs if given.

    Parameters
    ----------
    ops : sequence of str
    profile : str
    cases, seed : int
    shapes : sequence of str
        As in a case's line, such as ``m1024k1024n32``; needs a single operator.
    strategies : sequence of str

    Yields
    ------
    Case

    Examples
    --------
    >>> for case in cases_to_send(["linear"], "fbgemm", cases=2, shapes=["m2k3n4"], strategies=["neartie"]):
    ...     print(case)
    linear/fbgemm/m2k3n4/neartie/seed=0/nobias
    linear/fbgemm/m2k3n4/neartie/seed=1/per_channel/int8
    """
    if shapes and len(ops) != 1:
        raise ArgumentError(f"gen: a shape is that of one operator but {len(ops)} are given; name one with --op")
    for strategy in strategies:
        choose("gen", "strategy", strategy, STRATEGIES)
    shape = cycle([Case.parse(f"{ops[0]}/any/{text}/random/seed=0").shape for text in shapes] or [None])
    strategy = cycle(strategies or [None])
    streams = cycle([case_stream(op, profile, seed=seed) for op in ops])
    for case in islice((next(stream) for stream in streams), cases):
        changes = {key: value for key, value in (("shape", next(shape)), ("strategy", next(strategy))) if value is not None}
        yield check_size(case.replace(options=tuple(o for o in case.options if o not in _LAYOUTS), **changes))


def check_size(case):
    """Return the case, unless its arrays would take all memory."""
    s = dict(case.shape)
    if case.op in ("linear", "matmul_integer"):
        elements = s["k"] * (s["m"] + s["n"])
    else:
        elements = math.prod(sum(np.atleast_1d(s[letter]).tolist()) or 1 for letter in "ncthw" if letter in s)
        elements += s.get("oc", 0) * math.prod(np.atleast_1d(s["k"]).tolist()) * s["c"] if "oc" in s else 0
    outputs = case.outputs
    if max(elements, outputs) > _MOST_ELEMENTS or outputs < 0:
        raise ArgumentError(f"case {case}: takes {max(elements, abs(outputs)):,} elements but at most {_MOST_ELEMENTS:,} go into a stream; choose a smaller shape")
    return case


def generate(out, cases, *, progress=None):
    """Write a stream of problems.

    Parameters
    ----------
    out : binary file
    cases : iterable of Case
        Those that cannot be built (a kernel larger than its input, say) raise.
    progress : callable, optional
        Called with (cases written, bytes written).
    """
    writer, total, count = Writer(out, PROBLEMS), 0, 0
    for count, case in enumerate(cases, 1):
        fields = fields_of(build(case))
        writer.write(str(case), fields)
        total += record_bytes(str(case), fields)
        if progress:
            progress(count, total)
    writer.end()


def _most_bytes(line):
    """Return the most bytes that the fields of a case's result may take: one array of 8 bytes an output, and its header."""
    return 8 * check_size(Case.parse(line)).outputs + 128


def judge(source, *, numerics=None, seconds=20.0, progress=None):
    """Read a stream of results, build each problem again from its line, and compare.

    Parameters
    ----------
    source : binary file
    numerics : str or Numerics, optional
        Whose arithmetic; what the lines name unless given.
    seconds : float
        To find out why bits differ; 0 does not ask.
    progress : callable, optional
        Called with (results read, bytes of both streams).

    Returns
    -------
    Judged

    Raises
    ------
    ArgumentError
        The stream is damaged, cut off or of another version; a result has another dtype or shape than its operator gives.
    """
    reader, court = Reader(source, RESULTS, _most_bytes), _Court(numerics)
    total, first, before = 0, None, 0
    for count, record in enumerate(reader, 1):
        if first is None:
            first, before = time.perf_counter(), reader.bytes
        case = Case.parse(record.line)
        problem, size = _rebuilt(case, record)
        total += size if count > 1 else 0
        court.take(case, problem, record.fields, case.profile)
        if progress:
            progress(count, total + reader.bytes)
    elapsed = time.perf_counter() - first if first is not None else 0.0
    return court.verdict(seconds, total + reader.bytes - before, elapsed)


def judge_files(files, *, numerics=None, seconds=20.0, progress=None):
    """Compare the results of case files.

    Parameters
    ----------
    files : iterable of (name, Problem, ndarray, str)
        With the bits in question, and the profile that they were expected to follow.
    numerics, seconds, progress
        As for `judge`.

    Returns
    -------
    Judged
    """
    court, total = _Court(numerics), 0
    for count, (name, problem, actual, profile) in enumerate(files, 1):
        court.take(name, problem, {"y": actual}, profile)
        total += actual.nbytes
        if progress:
            progress(count, total)
    return court.verdict(seconds, total, 0.0)


class _Court:
    """Takes results one after the other, and keeps the failures that tell most."""

    def __init__(self, numerics):
        self.numerics, self.rows, self.kept = numerics, {}, []

    def take(self, case, problem, fields, profile):
        profile = self.numerics or profile
        trial, actual = judge_one(case, problem, fields, profile)
        self.rows.setdefault((problem.op, profiles.get(profile).name), Row(problem.op, "the engine")).add(trial)
        if trial.outcome.status is Status.DIFFERENT:
            entries = [*self.kept, (trial, Failure(case, problem, np.array(actual), profile))]
            best = telling([trial for trial, _ in entries], most=_KEPT)
            self.kept = sorted((e for e in entries if any(e[0] is t for t in best)), key=lambda e: next(i for i, t in enumerate(best) if t is e[0]))

    def verdict(self, seconds, size, elapsed):
        failures = [failure for _, failure in self.kept]
        # Causes are those of one profile and operator.
        alike = [f for f in failures if (f.problem.op, f.profile) == (failures[0].problem.op, failures[0].profile)]
        found = reasons([f[:3] for f in alike[:_DIAGNOSED]], alike[0].profile, seconds=seconds) if alike and seconds else ()
        names = sorted({profile for _, profile in self.rows})
        return Judged(Check("the engine", ", ".join(names), tuple(self.rows.values()), found), failures, size, elapsed)


def _rebuilt(case, record):
    """Return the problem of a record and the bytes that it took in the stream of problems."""
    problem = build(case)
    fields = fields_of(problem)
    if check_of(fields) != record.check:
        raise ArgumentError(f"case {case}: its result has check {record.check:#010x} but the problem built from the line has {check_of(fields):#010x}; copy line and check of the problem, and generate with this version of refquant")
    return problem, record_bytes(str(case), fields)


def judge_one(case, problem, fields, numerics):
    """Compare one result with the oracle.

    Returns
    -------
    (Trial, ndarray or None)
        The trial and the engine's bits.
    """
    if not fields:
        return Trial(case, Outcome(Status.UNSUPPORTED, "the engine does not compute it")), None
    if set(fields) != {"y"}:
        raise ArgumentError(f"case {case}: a result must have the field y alone but has {', '.join(map(repr, fields))}; write one field, or none for what you do not compute")
    actual = fields["y"]
    try:
        expected = oracle(problem, numerics)
    except UnsupportedError as error:
        return Trial(case, Outcome(Status.UNSUPPORTED, str(error))), actual
    for what, found, right in (("dtype", actual.dtype, expected.dtype), ("shape", actual.shape, expected.shape)):
        if found != right:
            code = f" (code {DTYPES[right.name]})" if what == "dtype" else ""
            raise ArgumentError(f"case {case}: y has {what} {found} but {problem.op} gives {right}{code}; write the output of this very case")
    comparison = compare(actual, expected)
    return Trial(case, Outcome(comparison.status, "" if comparison.status is Status.EXACT else str(comparison)), comparison), actual
