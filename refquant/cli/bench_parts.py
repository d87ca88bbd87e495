"""Where the time goes of what is neither a product nor a network: parts of a call timed by themselves, and what works tell of their own."""

from typing import NamedTuple

from refquant.backends.bench.case import Contender
from refquant.backends.bench.harness import beside, clock_of, measure
from refquant.backends.bench.report import seconds_text
from refquant.errors import RefquantError

__all__ = ["Parts", "part_works", "part_table", "own_words"]


class Parts(NamedTuple):
    """Seconds of a case, and of each of its parts; ``rest`` is what is left."""

    name: str
    seconds: float
    parts: dict


def part_works(rows, settings, progress=lambda line: None, clock=None):
    """Time the cases that say what a call is made of.

    Parameters
    ----------
    rows : list of (Work, list of Plan)
    settings : Settings
    progress : callable
    clock : callable, optional

    Returns
    -------
    list of (Work, list of Parts)
        Works without such cases are left out.
    """
    found = []
    for work, plans in rows:
        profiles = []
        for plan in plans:
            try:
                case = plan.build(settings)
            except RefquantError:
                continue  # the works' own run has reported it
            if case.parts is None:
                break
            profiles.append(_parts_of(case, settings, clock or clock_of(case, settings)))
            progress(f"profile {work.name}/{plan.name}")
        if profiles:
            found.append((work, profiles))
    return found


def _parts_of(case, settings, clock):
    calls = {"whole": case.subject.call, **case.parts}
    samples = measure([Contender(name=name, call=call) for name, call in calls.items()], settings.turns, clock)
    seconds = beside(samples, "whole")
    whole = seconds.pop("whole")
    return Parts(case.name, whole, {**seconds, "rest": max(0.0, whole - sum(seconds.values()))})


def part_table(found):
    """Return the parts as lines of at most 100 columns."""
    lines = []
    for work, profiles in found:
        lines += ["", f"{work.name}: where the time goes; rest: what none of the parts takes by itself"]
        for p in profiles:
            parts = ", ".join(f"{name} {seconds / p.seconds:.0%}" for name, seconds in p.parts.items())
            lines.append(f"  {p.name:<32}{seconds_text(p.seconds):>8}  {parts}")
    return lines


def own_words(found, rows, settings):
    """Return ``[(work, lines)]`` of the works that tell more than their cases do.

    Parameters
    ----------
    found : list of WorkResult
    rows : list of (Work, list of Plan)
        What is to be explained.
    settings : Settings
    """
    results = {row.work.name: row.results for row in found}
    told = []
    for work, plans in rows:
        names = {plan.name for plan in plans}
        lines = work.where([r for r in results.get(work.name, []) if r.timed and r.name in names], settings)
        if lines:
            told.append((work, lines))
    return told
