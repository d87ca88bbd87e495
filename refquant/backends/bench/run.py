"""The table of works, and the run through those that were asked for."""

from typing import NamedTuple

from refquant.backends.bench.case import Settings, Work
from refquant.backends.bench.conv import CONV
from refquant.backends.bench.elementwise import ELEMENTWISE
from refquant.backends.bench.gemm import GEMM, NUMPY
from refquant.backends.bench.harness import LEAST_TURNS, Result, run_case
from refquant.backends.bench.linear import LINEAR
from refquant.backends.bench.networks import NETWORKS
from refquant.backends.bench.observing import OBSERVING
from refquant.backends.bench.saturating import SATURATING
from refquant.backends.bench.startup import STARTUP
from refquant.backends.bench.threads import THREADS
from refquant.errors import ArgumentError, RangeError, RefquantError
from refquant.verify import Status

__all__ = ["WORKS", "Verdict", "WorkResult", "chosen", "run_works", "judge", "below"]

WORKS = (GEMM, NUMPY, SATURATING, LINEAR, CONV, NETWORKS, ELEMENTWISE, OBSERVING, THREADS, STARTUP)

if len({work.name for work in WORKS}) != len(WORKS):
    raise ArgumentError("bench: two works share a name; rename one")


class Verdict(NamedTuple):
    """A bar, the group it was applied to, the figure found, and whether that reaches it (None: nothing can be judged)."""

    label: str
    group: str
    limit: float
    at_most: bool
    figure: float
    reached: bool


class WorkResult(NamedTuple):
    """A work, the results of its cases, and the verdicts; these are empty where only some cases were run."""

    work: Work
    results: list
    verdicts: list

    @property
    def failed(self):
        """Results whose bits did not agree, or that could not be had."""
        return [r for r in self.results if not r.timed]


def chosen(works, texts=None):
    """Return ``[(work, plans)]`` of those whose ``work/case`` holds one of `texts`; the name of a work stands for that work alone.

    Parameters
    ----------
    works : sequence of Work
    texts : str or sequence of str, optional
        Without any, all cases.

    Raises
    ------
    ArgumentError
        One of them is in none.
    """
    wanted = [text.lower() for text in ([texts] if isinstance(texts, str) else texts or [""])]
    names, rows, idle = [work.name for work in works], [], set(wanted)
    for work in works:
        plans = []
        for plan in work.plans():
            met = {text for text in wanted if (text == work.name if text in names else text in f"{work.name}/{plan.name}".lower())}
            idle -= met
            plans += [plan] if met else []
        if plans:
            rows.append((work, plans))
    if idle - {""}:
        raise ArgumentError(f"bench: --filter {min(idle)!r} is in no work/case; works are {', '.join(names)}, and --list shows the cases")
    return rows


def run_works(works, settings=Settings(), *, text=None, progress=lambda line: None, clock=None):
    """Run works, one case after the other.

    Parameters
    ----------
    works : sequence of Work
    settings : Settings
    text : str or sequence of str, optional
        Run the cases whose ``work/case`` holds it, or one of them.
    progress : callable
        Takes a line for each case.
    clock : callable, optional
        In place of those of `refquant.backends.bench.harness.clock_of`.

    Returns
    -------
    list of WorkResult
    """
    if settings.turns < LEAST_TURNS:
        raise RangeError(f"bench: turns={settings.turns} is less than {LEAST_TURNS}, and a median of so few means little; ask for {LEAST_TURNS} or more")
    rows = chosen(works, text)
    total, done, found = sum(len(plans) for _, plans in rows), 0, []
    for work, plans in rows:
        results = []
        for plan in plans:
            done += 1
            result = _result(plan, settings, clock)
            results.append(result)
            progress(f"[{done}/{total}] {work.name}/{plan.name}: {_short(result)}")
        whole = not text or len(plans) == len(work.plans())
        found.append(WorkResult(work, results, judge(work, results) if whole else []))
    return found


def _result(plan, settings, clock):
    """Run a case; one that cannot be run costs no other its figures."""
    try:
        return run_case(plan.build(settings), settings, clock)
    except RefquantError as error:
        return Result(name=plan.name, group=plan.group, status=Status.UNSUPPORTED, detail=str(error))


def _short(result):
    if not result.timed:
        return str(result.status)
    return f"{1e3 * result.seconds(result.subject):.3f} ms" + ("" if result.ratio is None else f", ratio {result.ratio:.2f}")


def judge(work, results):
    """Return the verdicts on a work. A case whose bits differ, or that could not be run, reaches nothing; one that was disturbed is not judged."""
    verdicts = []
    for bar in work.bars:
        for group in list(dict.fromkeys(r.group for r in results)) if bar.by_group else [""]:
            mine = [r for r in results if not bar.by_group or r.group == group]
            figure = bar.figure([r for r in mine if r.timed])
            good = None if figure is None else figure <= bar.limit if bar.at_most else figure >= bar.limit
            if any(r.disturbed for r in mine):
                good = None
            if any(not r.timed for r in mine):
                good = False
            verdicts.append(Verdict(bar.label, group, bar.limit, bar.at_most, figure, good))
    return verdicts


def below(found):
    """Return ``[(work, plans)]`` of the works with a bar that is not reached: the timed cases that keep its figure down.

    Those are the cases whose ratio is less than the bar; all that the bar judges, where there is none.
    """
    rows = []
    for row in found:
        names = set()
        for v in row.verdicts:
            if v.reached is False:
                judged = [r for r in row.results if r.timed and v.group in ("", r.group)]
                names |= {r.name for r in judged if r.ratio is not None and r.ratio < v.limit and not v.at_most} or {r.name for r in judged}
        plans = [plan for plan in row.work.plans() if plan.name in names] if names else []
        if plans:
            rows.append((row.work, plans))
    return rows
