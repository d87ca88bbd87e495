"""Results as text of 100 columns, and as plain values for JSON."""

import textwrap

from refquant.backends.bench.case import Role
from refquant.backends.bench.harness import geomean

__all__ = ["text_report", "plain_report", "machine_line", "listing"]

WIDTH = 100
_QUIET = 0.5
_SEE = ", told below"
_STATES = {True: ("reached", "green"), False: ("below", "red"), None: ("not judged", "dim")}


def machine_line(machine):
    """Return the machine in one line: processor, the features that matter, threads, versions."""
    has = lambda name, present: name if present else f"no {name}"  # noqa: E731
    parts = [machine["cpu"], has("AVX512-VNNI", machine["avx512_vnni"]), has("AMX", machine["amx_int8"])]
    count = machine["threads"]
    parts.append(f"{count} thread{'s' * (count != 1)}")
    versions = ", ".join(f"{name} {v}" if v else f"no {name}" for name, v in machine["versions"].items())
    return f"{', '.join(parts)}; {versions}"


def _disturbance(machine):
    """A warning where other processes were at work as the run began, else nothing."""
    load, count = machine["load"], machine["processors"]
    if not load or load <= _QUIET:
        return ""
    return f"Load {load:.1f} on {count} processors before the run: do not trust figures of several threads, which are by the wall's clock."


def seconds_text(seconds):
    """Return a time with a unit that leaves three or four digits.

    Examples
    --------
    >>> seconds_text(0.000213), seconds_text(2.5)
    ('213 us', '2.5 s')
    """
    for unit, size in (("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            break
    return f"{seconds / size:.3g} {unit}"


def _number(value, digits=2):
    return "" if value is None else f"{value:.{digits}f}"


def text_report(found, machine, *, cases=False, told=(), paint=lambda text, colour: text):
    """Return the report.

    Parameters
    ----------
    found : list of WorkResult
    machine : dict
        From `refquant.backends.bench.engines.machine`.
    cases : bool
        Print every case, also of works that are summed up by groups.
    told : collection of str
        Works whose profile follows.
    paint : callable
        ``paint(text, colour)`` for terminals with colours.
    """
    lines = [*textwrap.wrap(machine_line(machine), WIDTH), *textwrap.wrap(_disturbance(machine), WIDTH)]
    for row in found:
        lines += ["", f"{row.work.name}: {row.work.title}"]
        lines += _group_table(row) if row.work.grouped and not cases else _case_table(row)
        for note in (*row.work.notes([r for r in row.results if r.timed]), *_disturbed(row), *_skipped(row)):
            lines += textwrap.wrap(note, WIDTH - 2, initial_indent="  ", subsequent_indent="    ")
    return "\n".join([*lines, "", *_verdict_table(found, told, paint)])


def _case_table(row):
    yield f"  {'case':<37}{'time':>9}{'least':>9}{'GOPS':>6}{'share':>6}  {'best rival':<23}{'ratio':>6}".rstrip()
    for group, results in _groups(row.results).items():
        if group:
            yield f"  {group}"
        for r in results:
            yield from [_case_line(r)] if r.timed else _difference(r)


def _case_line(r):
    name = f"  {_own_name(r)}" if r.group else r.name
    median, least = seconds_text(r.seconds(r.subject)), seconds_text(min(r.samples[r.subject]))
    line = f"  {name:<37}{median:>9}{least:>9}{_number(r.gops, 0):>6}{_number(r.share):>6}  {(r.best or '')[:22]:<23}{_number(r.ratio):>6}"
    return line.rstrip()


def _own_name(r):
    """The name without the group."""
    return r.name.removeprefix(r.group).lstrip()


def _difference(r):
    yield f"  {r.name}: {r.status}, not timed"
    for line in r.detail.splitlines():
        yield from textwrap.wrap(line, WIDTH - 4, initial_indent="    ", subsequent_indent="      ")


def _groups(results):
    groups = {}
    for r in results:
        groups.setdefault(r.group, []).append(r)
    return groups


def _group_table(row):
    yield f"  {'':<16}{'cases':>5}{'geomean':>9}  {'bar':<13}{'GOPS':>5}{'share':>7}{'worst':>7}  in"
    for group, results in _groups(row.results).items():
        timed = [r for r in results if r.ratio is not None]
        worst = min(timed, key=lambda r: r.ratio, default=None)
        gops = geomean(r.gops for r in results if r.gops)
        share = geomean(r.share for r in results if r.share)
        least = "" if worst is None else f"{worst.ratio:.2f}"
        yield (
            f"  {group:<16}{len(results):>5}{_number(geomean(r.ratio for r in timed)):>9}  {_bar_text(row, group):<13}{_number(gops, 0):>5}{_number(share):>7}"
            f"{least:>7}  {'' if worst is None else _own_name(worst)}"
        ).rstrip()
        for r in results:
            if not r.timed:
                yield from _difference(r)


def _disturbed(row):
    return [f"{r.name}: not judged, for {r.disturbed}" for r in row.results if r.disturbed]


def _bar_text(row, group):
    """The first bar of a group, and whether it is reached."""
    verdict = next((v for v in row.verdicts if v.group == group), None)
    return "" if verdict is None or not group else f"{verdict.limit:g} {_STATES[verdict.reached][0]}"


def _skipped(row):
    reasons = dict.fromkeys(reason for r in row.results for reason in r.skipped)
    return [f"Skipped: {reason}" for reason in reasons]


def _verdict_table(found, told, paint):
    rows = [(row.work.name, v) for row in found for v in row.verdicts]
    if not rows:
        return []
    lines = [f"{'work':<13}{'figure':<48}{'wanted':>8}{'found':>8}"]
    for name, v in rows:
        label = f"{v.group}, {v.label}" if v.group else v.label
        state = paint(*_STATES[v.reached]) + (_SEE if v.reached is False and name in told else "")
        wanted = f"{'<=' if v.at_most else '>='} {v.limit:g}"
        lines.append(f"{name:<13}{label:<48}{wanted:>8}{_number(v.figure):>8}  {state}")
    return lines


def listing(rows):
    """Return what ``--list`` prints: works, their bars, their cases."""
    lines = []
    for work, plans in rows:
        lines.append(f"{work.name}: {work.title}")
        for bar in work.bars:
            lines.append(f"  {bar.label}{' of each group' if bar.by_group else ''} {'<=' if bar.at_most else '>='} {bar.limit:g}")
        lines += [f"    {work.name}/{plan.name}" for plan in plans]
    return "\n".join(lines)


def plain_report(found, machine, settings):
    """Return all results as dicts, lists, strings and numbers."""
    return {
        "machine": machine,
        "turns": settings.turns,
        "works": [
            {
                "name": row.work.name,
                "title": row.work.title,
                "cases": [_plain_case(r) for r in row.results],
                "bars": [v._asdict() for v in row.verdicts],
                "notes": list(row.work.notes([r for r in row.results if r.timed])),
            }
            for row in found
        ],
    }


def _plain_case(r):
    contenders = [
        {"name": name, "role": str(role), "median": r.seconds(name), "least": min(r.samples[name]), "seconds": r.samples[name]}
        for name, role in r.roles.items()
    ]
    yardsticks = r.names(Role.YARDSTICK)
    return {
        "name": r.name, "group": r.group, "status": str(r.status), "detail": r.detail, "operations": r.operations,
        "contenders": contenders, "best": r.best if r.timed else None, "ratio": r.ratio, "gops": r.gops,
        "share": r.share, "share_of": yardsticks[0] if yardsticks else None, "skipped": list(r.skipped),
        "disturbed": r.disturbed,
    }  # fmt: skip
