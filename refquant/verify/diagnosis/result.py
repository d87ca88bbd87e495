"""`Diagnosis`: why somebody's bits differ from the oracle's, or an honest "unexplained"."""

from dataclasses import dataclass, field

from refquant.numerics.profile import Numerics
from refquant.verify.diagnosis.account import Account

__all__ = ["Diagnosis", "Explanation"]

_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One set of causes.

    Attributes
    ----------
    causes : tuple of str
        In words.
    names : tuple of str
        The same for programs: names of the table of causes, or ``section.field[value]``, or ``profile[name]``.
    numerics : Numerics
        The profile part of it.
    transformations : tuple of str
        Those causes that no profile can say.
    left : int
        Outputs that it does not compute as they are: of all outputs where it explains them, else of the sample.
    hypothesis : Hypothesis
    """

    causes: tuple
    names: tuple
    numerics: Numerics
    transformations: tuple
    left: int
    hypothesis: object = field(repr=False, compare=False)

    def __str__(self):
        return "; ".join(self.causes)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The result of `diagnose`; its text is the report.

    Attributes
    ----------
    op, against : str
        The operator, and the profile that the bits were held against.
    outputs, differing : int
    explained : bool
        Whether the causes compute every bit of `actual`. True without causes where no bit differs.
    causes : tuple of str
        The smallest set, in words; empty where nothing explains the bits.
    names : tuple of str
        The same causes for programs.
    numerics : Numerics
        The profile that computes `actual`; where `transformations` are needed too, or nothing explains the bits: the nearest one.
    transformations : tuple of str
        Causes that no profile can say.
    profiles : tuple of str
        Every named profile that computes each actual bit, whatever the causes say.
    means : tuple of str
        Where the cause is a whole profile: those of its differences that these data need.
    evidence : dict of str to int
        For each cause alone: how many of the differing outputs it computes as they are.
    alternatives : tuple of Explanation
        As many other causes that compute every bit just as well: these data cannot tell. See `separating_case`.
    ruled_out : dict of str to int
        Single causes that change outputs of these data and are not it: how many sampled outputs each leaves wrong.
    silent : tuple of str
        Single causes that change nothing on these data, about which they say nothing.
    nearest : tuple of Explanation
        Where unexplained: the best candidates, and how many outputs each leaves.
    sampled : int
        Outputs in the sample.
    places : tuple of str
        What the places of the differing outputs have in common.
    account : Account or None
        How far off they are, how many lie at an end of the codes or on a tie, and the worst one in full.
    tried : int
        Hypotheses that were computed.
    complete : bool
        Whether the search ended by itself and not by the clock.
    explanation : Explanation or None
        What `causes`, `names`, `numerics` and `transformations` are taken from.
    problem : Problem
        The call, completed.
    base : Numerics
        The profile that `against` names.
    """

    op: str
    against: str
    outputs: int
    differing: int
    explained: bool
    numerics: Numerics
    causes: tuple = ()
    names: tuple = ()
    transformations: tuple = ()
    profiles: tuple = ()
    means: tuple = ()
    evidence: dict = field(default_factory=dict)
    alternatives: tuple = ()
    ruled_out: dict = field(default_factory=dict)
    silent: tuple = ()
    nearest: tuple = ()
    sampled: int = 0
    places: tuple = ()
    account: Account = None
    tried: int = 0
    complete: bool = True
    explanation: Explanation = field(default=None, repr=False)
    problem: object = field(default=None, repr=False)
    base: Numerics = field(default=None, repr=False)

    def separating_case(self, *, seed=0, attempts=60):
        """Build a problem on which the causes and the alternatives give different bits.

        Parameters
        ----------
        seed : int
        attempts : int
            Problems tried.

        Returns
        -------
        Problem or None
            The one that tells most alternatives from the causes; None where there are none, or none of the attempts tells any.
        """
        from refquant.verify.diagnosis.separate import separating_problem

        if not self.explained or not self.alternatives:
            return None
        others = [e.hypothesis for e in self.alternatives]
        return separating_problem(self.problem, self.base, self.explanation.hypothesis, others, seed=seed, attempts=attempts)

    def __str__(self):
        return "\n".join(_report(self))


def _report(d):
    yield f"{d.op} against {d.against}: {d.differing:,} of {d.outputs:,} outputs differ"
    if not d.differing:
        return
    yield from (f"  where: {place}" for place in d.places)
    yield from (f"  {line}" for line in (d.account.lines() if d.account else ()))
    yield from _found(d) if d.explained else _not_found(d)
    if d.ruled_out:
        yield f"  ruled out: {len(d.ruled_out):,} other single causes; {len(d.silent):,} change nothing on these data"


def _found(d):
    yield f"EXPLAINED: {'; '.join(d.causes)}"
    yield from (f"  that is: {means}" for means in d.means)
    if not d.transformations:
        yield f"  every bit is computed by {_named(d)}"
    elif len(d.transformations) < len(d.causes):
        yield f"  with the profile {_named(d)}"
    same = [name for name in d.profiles if name != d.numerics.name]
    if same:
        yield f"  every bit is computed by the profile{'s' if len(same) > 1 else ''} {', '.join(same)} too"
    if len(d.causes) > 1:
        yield from (f"  explains {n:,} of {d.differing:,} alone: {cause}" for cause, n in d.evidence.items())
    if d.alternatives:
        yield f"  these data cannot tell it from {len(d.alternatives)} other explanation{'s' if len(d.alternatives) > 1 else ''} (separating_case() builds data that may):"
        yield from (f"    {other}" for other in d.alternatives[:_SHOWN])
        if len(d.alternatives) > _SHOWN:
            yield f"    … and {len(d.alternatives) - _SHOWN} more"


def _named(d):
    from refquant import numerics

    if d.numerics.name in numerics.names():
        return d.numerics.name
    changes = {}
    for section, name, _, theirs in d.base.differences(d.numerics):
        changes.setdefault(section, {})[name.rpartition(".")[2]] = theirs
    texts = [f"{section}={values!r}" for section, values in changes.items() if "offered" not in values]
    return f"{d.against}.replace({', '.join(texts)})" if texts else d.numerics.name


def _not_found(d):
    stopped = "" if d.complete else ", stopped by the clock"
    yield f"UNEXPLAINED after {d.tried:,} hypotheses{stopped}. Nearest, by outputs left wrong of {d.sampled:,} sampled:"
    yield from (f"    {e.left:,}: {e}" for e in d.nearest)
