"""The search: single causes, then pairs, then triples that grow from the best pairs."""

import time
from dataclasses import dataclass, field

from refquant.verify.diagnosis.call import Call
from refquant.verify.diagnosis.cause import Candidate
from refquant.verify.diagnosis.causes import CAUSES, SOLVED
from refquant.verify.diagnosis.form_causes import field_candidates, profile_candidates

__all__ = ["Hypothesis", "Findings", "search", "single_candidates"]

_GROWN_PAIRS = 48
_STRAIGHT_PAIRS = 24
_WITH_SILENT = 12
_WITH_SOLVED = 12
_SOLVED_ANEW = 4
_KEPT = 400
_MOST_ALTERNATIVES = 24


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """Candidates, in order, and the call that they lead to.

    Attributes
    ----------
    candidates : tuple of Candidate
    call : Call
    words : tuple of str
    score : tuple
        Disagreeing outputs of the sample, and the same with a share for the distance.
    """

    candidates: tuple
    call: Call
    words: tuple
    score: tuple = ()

    @property
    def surprise(self):
        """How unlikely the causes are, for hypotheses of equal size."""
        return sum(c.cause.surprise for c in self.candidates)

    @property
    def touches(self):
        """What the causes transform."""
        return {c.touches for c in self.candidates}


@dataclass
class Findings:
    """What a search has found.

    Attributes
    ----------
    explanations : list of Hypothesis
        All of one size, and the smallest; each computes every actual bit.
    nearest : list of Hypothesis
        The best of those that do not.
    ruled_out, silent : list of Hypothesis
        Single causes that are not it, and those that change no output of these data.
    complete : bool
        Whether no size was cut short by the clock.
    """

    explanations: list = field(default_factory=list)
    nearest: list = field(default_factory=list)
    ruled_out: list = field(default_factory=list)
    silent: list = field(default_factory=list)
    complete: bool = True


def single_candidates(call, base, bench):
    """Return all single causes in the order in which they are applied; those solved from the data apart."""
    keyed = [(cause, cause.keys(call, bench) if callable(cause.keys) else cause.keys) for cause in CAUSES if call.op in cause.ops and cause.name not in SOLVED]
    plain = [Candidate(cause, key) for cause, keys in keyed for key in keys]
    return [*profile_candidates(call, base), *plain, *field_candidates(call)]


def _solved_candidates(call, bench):
    return [Candidate(cause, key) for cause in CAUSES if call.op in cause.ops and cause.name in SOLVED for key in cause.keys(call, bench)]


class _Search:
    def __init__(self, call, base, bench, seconds):
        self.base, self.bench = base, bench
        self.start = Hypothesis((), call, (), bench.score(call, "sample"))
        self.deadline = bench.deadline = time.monotonic() + seconds
        self.findings = Findings()

    def late(self):
        if time.monotonic() > self.deadline:
            self.findings.complete = False
            return True
        return False

    def extend(self, hypothesis, candidate, level):
        """Return the hypothesis with one cause more, scored at a level, or None."""
        if candidate.touches in hypothesis.touches:
            return None
        call = candidate.apply(hypothesis.call)
        score = None if call is None else self.bench.score(call, level)
        if score is None:
            return None
        return Hypothesis((*hypothesis.candidates, candidate), call, (*hypothesis.words, candidate.words(hypothesis.call)), score)

    def explains(self, hypothesis):
        """Whether a hypothesis that fits the first look fits the sample and then every output."""
        if self.bench.score(hypothesis.call, "sample")[0]:
            return False
        wrong = self.bench.wrong_everywhere(hypothesis.call)
        self.findings.complete &= wrong is not None
        return wrong == 0

    def singles(self):
        """Try every cause alone."""
        call = self.start.call
        self.order = single_candidates(call, self.base, self.bench)
        tried = [h for h in (self.extend(self.start, c, "sample") for c in self.order) if h is not None]
        self.solutions = sorted(self.solved(self.start, "sample"), key=lambda h: h.score[1])
        tried += self.solutions
        self.effective, self.silent = [], []
        expected = self.bench.values(call, "sample")
        for h in tried:
            changes = h.score != self.start.score or (self.bench.values(h.call, "sample") != expected).any()
            (self.effective if changes else self.silent).append(h)
        self.keep(h for h in self.effective if h.score[0] == 0)
        self.findings.silent = self.silent
        found = {id(h) for h in self.findings.explanations}
        self.findings.ruled_out = sorted((h for h in self.effective if id(h) not in found), key=lambda h: h.score[1])
        self.effective.sort(key=lambda h: h.score[1])
        return self.effective

    def solved(self, hypothesis, level):
        """Extend a hypothesis by the causes that are solved from the data; anew where a solution of the sample fails elsewhere."""
        for _ in range(_SOLVED_ANEW):
            before = self.bench.generation
            found = [self.extend(hypothesis, c, level) for c in _solved_candidates(hypothesis.call, self.bench)]
            found = [h for h in found if h is not None]
            fits = [h for h in found if h.score[0] == 0 and self.bench.score(h.call, "sample")[0] == 0]
            if not fits or any(self.bench.wrong_everywhere(h.call) == 0 for h in fits) or self.bench.generation == before:
                break
        return found

    def keep(self, hypotheses):
        for h in hypotheses:
            if len(self.findings.explanations) < _MOST_ALTERNATIVES and self.explains(h):
                self.findings.explanations.append(h)

    def pairs(self):
        """Try two causes together: all that change something alone, and the best ones with those that do not."""
        rank = {c: i for i, c in enumerate(self.order)}
        plain = [h for h in self.effective if h.candidates[0] in rank]
        silent = [h for h in self.silent if h.candidates[0] in rank]
        best = []
        for i, first in enumerate(plain):
            for second in [*plain[i + 1 :], *(silent if i < _WITH_SILENT else ())]:
                if self.late():
                    return best
                a, b = sorted((first, second), key=lambda h: rank[h.candidates[0]])
                self.consider(best, self.extend(a, b.candidates[0], "tiny"))
        for solution in self.solutions[:_WITH_SOLVED]:
            for candidate in self.order:
                if self.late():
                    return best
                self.consider(best, self.extend(solution, candidate, "tiny"))
        for first in self.straightest(plain, _WITH_SOLVED):
            if self.late():
                break
            for h in self.solved(first, "tiny"):
                self.consider(best, h)
        return best

    def straightest(self, hypotheses, count):
        """Return hypotheses that get most outputs right, then those of whose real numbers the actual codes are nearest to a line."""
        by_line = sorted(hypotheses, key=lambda h: self.bench.residual(h.call, "tiny"))[:count]
        return [*hypotheses[:count], *(h for h in by_line if h not in hypotheses[:count])]

    def consider(self, best, hypothesis):
        if hypothesis is None:
            return
        if hypothesis.score[0] == 0:
            self.keep([hypothesis])
        best.append(hypothesis)
        if len(best) > 4 * _KEPT:
            best.sort(key=lambda h: h.score[1])
            del best[_KEPT:]

    def triples(self, pairs):
        """Try a third cause beside the best pairs."""
        best = []
        for pair in pairs[:_GROWN_PAIRS]:
            for candidate in self.order:
                if self.late():
                    return best
                if candidate not in pair.candidates:
                    self.consider(best, self.extend(pair, candidate, "tiny"))
        for pair in self.straightest(pairs, _STRAIGHT_PAIRS):
            if self.late():
                return best
            for h in self.solved(pair, "tiny"):
                self.consider(best, h)
        return best

    def ranked(self, hypotheses):
        """Return hypotheses scored on the sample, best first."""
        scored = [Hypothesis(h.candidates, h.call, h.words, self.bench.score(h.call, "sample")) for h in sorted(hypotheses, key=lambda h: h.score[1])[:_KEPT]]
        return sorted(scored, key=lambda h: h.score[1])


def search(call, base, bench, *, most=3, seconds=20.0):
    """Find the smallest sets of causes that compute every actual bit.

    Parameters
    ----------
    call : Call
        The undisturbed one.
    base : Numerics
    bench : Bench
    most : int
        The largest number of causes in a set.
    seconds : float
        When to stop.

    Returns
    -------
    Findings
    """
    work = _Search(call, base, bench, seconds)
    found = work.findings
    found.nearest = work.singles()[:5]
    if not found.explanations and most > 1:
        pairs = work.ranked(work.pairs())
        found.nearest = sorted([*found.nearest, *pairs[:5]], key=lambda h: h.score[1])[:5]
        if not found.explanations and most > 2:
            triples = work.ranked(work.triples(pairs))
            found.nearest = sorted([*found.nearest, *triples[:5]], key=lambda h: h.score[1])[:5]
    return found
