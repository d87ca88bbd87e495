"""A campaign's journal as one page of HTML that needs no other file and no network."""

import json
from datetime import datetime
from html import escape

from refquant.drift.page_frame import page_frame, sortable_table
from refquant.drift.svg import line, nice_ticks, rect, svg, text
from refquant.verify.journal import question

__all__ = ["page"]

_MORE_STYLE = """
td.exact { background: color-mix(in srgb, var(--good) 22%, transparent); } td.explained { background: color-mix(in srgb, var(--fair) 26%, transparent); }
td.different { background: color-mix(in srgb, var(--poor) 30%, transparent); font-weight: 600; } td.none { color: var(--soft); }
table.matrix th, table.matrix td { text-align: center; } table.matrix th:first-child, table.matrix td:first-child { text-align: left; }
pre { margin: 6px 0 0; font: 12.5px/1.5 ui-monospace, "SF Mono", Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
"""
_SHOWN = 12
_WIDTH, _NAME, _ROW = 900, 130, 24


def page(journal):
    """Return the page.

    Parameters
    ----------
    journal : Journal

    Returns
    -------
    str
    """
    rows = journal.ask(question("progress").sql)
    title = f"{journal.path.name}: a campaign"
    body = [_header(journal, rows), _verdict(journal, rows), _matrix(rows), _work(journal), _failures(journal), _numbers(rows), _reasons(journal), _origins(journal)]
    return page_frame(title, body, _MORE_STYLE)


def _header(journal, rows):
    about = journal.about
    seconds, cases = journal.ask("SELECT COALESCE(SUM(seconds), 0), COUNT(*) FROM results")[0]
    differing = sum(r["differing"] for r in rows)
    cards = (
        ("outputs compared", f"{sum(r['outputs'] for r in rows):,}", ""), ("outputs that differ", f"{differing:,}", "bad" if differing else ""),
        ("cases", f"{cases:,}", ""), ("engines", f"{len({r['engine'] for r in rows if r['outputs']}):,}", ""), ("of computing", _duration(seconds), ""),
    )  # fmt: skip
    shown = "".join(f'<div class="card {kind}"><b>{value}</b><span class="soft">{name}</span></div>' for name, value, kind in cards)
    return f'<header><h1>{escape(journal.path.name)}</h1><div class="soft">begun {escape(about["began"])} by refquant {escape(about["refquant"])}</div></header>\n<div class="cards">{shown}</div>'


def _duration(seconds):
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _verdict(journal, rows):
    failed = [r for r in rows if r["different"]]
    open_ = sum(not r["finished"] for r in rows)
    places = ", ".join(f"{r['operator']} on {r['engine']}" for r in failed[:4]) + (", …" if len(failed) > 4 else "")
    sentences = [f"Bits differ in {sum(r['different'] for r in failed):,} cases: {places}." if failed else "Every bit that was compared agrees with the oracle." if any(r["outputs"] for r in rows) else "Nothing was compared yet."]
    sentences.append(f"{open_} of {len(rows)} streams of cases are not finished; run the campaign again to go on." if open_ else "The campaign is finished.")
    versions = [r[0] for r in journal.ask("SELECT DISTINCT refquant FROM sessions")]
    if len(versions) > 1:
        sentences.append(f"It mixes {len(versions)} versions of refquant: {', '.join(versions)}.")
    return '<section class="verdict">' + "".join(f"<p>{escape(s)}</p>" for s in sentences) + "</section>"


def _matrix(rows):
    engines, ops = dict.fromkeys(r["engine"] for r in rows), dict.fromkeys(r["operator"] for r in rows)
    cells = {(r["operator"], r["engine"]): _square(r) for r in rows}
    head = "".join(f"<th>{escape(e)}</th>" for e in engines)
    body = "".join(f"<tr><td>{escape(op)}</td>{''.join(cells.get((op, e), '<td></td>') for e in engines)}</tr>" for op in ops)
    legend = "".join(
        f'<span><i style="background:var(--{var})"></i>{name}</span>' for var, name in (("good", "every bit agrees"), ("fair", "differs for a named cause"), ("poor", "differs"))
    )
    note = '<p class="soft">Outputs compared; · where the engine has no such operator or cannot be asked on this processor, … where nothing was compared yet.</p>'
    return f'<h2>Whose bits</h2>{note}<div class="legend">{legend}</div><div class="scroll"><table class="matrix"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _square(r):
    if not r["outputs"] and not r["different"]:
        return f'<td class="none">{"·" if r["finished"] else "…"}</td>'
    kind = "different" if r["different"] else "explained" if r["explained"] else "exact"
    shown = f"{_short(r['differing'])} of {_short(r['outputs'])}" if r["differing"] else _short(r["outputs"])
    return f'<td class="{kind}" title="{r["differing"]:,} of {r["outputs"]:,} outputs differ, in {r["cases"]:,} cases">{shown}{"" if r["finished"] else " …"}</td>'


def _short(n):
    """Return a count in few characters.

    Examples
    --------
    >>> _short(950), _short(61258), _short(2_400_000)
    ('950', '61k', '2.4M')
    """
    return f"{n:,}" if n < 1000 else f"{n / 1e3:.0f}k" if n < 999_500 else f"{n / 1e6:.1f}M" if n < 1e9 else f"{n / 1e9:.1f}G"


def _work(journal):
    """The time line: when each session worked, and how many cases it wrote down."""
    sessions = journal.ask(
        """SELECT s.id, s.pid, s.host, s.began, MAX(c.finished) AS last, s.ended, COUNT(c.id) AS cases FROM sessions s
        LEFT JOIN cases c ON c.session = s.id AND c.state = 'done' GROUP BY s.id ORDER BY s.id"""
    )
    if not sessions:
        return ""
    begin = [datetime.fromisoformat(s["began"]).timestamp() for s in sessions]
    end = [datetime.fromisoformat(s["ended"] or s["last"] or s["began"]).timestamp() for s in sessions]
    first, span = min(begin), max(max(end) - min(begin), 1.0)
    x = lambda t: _NAME + (_WIDTH - _NAME - 80) * t / span  # noqa: E731
    height = 24 + _ROW * min(len(sessions), 40) + 22
    unit, name = (1, "s") if span < 180 else (60, "min") if span < 10800 else (3600, "h")
    parts = []
    for tick in nice_ticks(0, span / unit, 6):
        parts += [line(x(tick * unit), 20, x(tick * unit), height - 20, "grid"), text(x(tick * unit), height - 5, f"{tick:g} {name}", "tick", "middle")]
    for k, s in enumerate(sessions[-40:]):
        i, y = len(sessions) - min(len(sessions), 40) + k, 24 + _ROW * k
        parts.append(text(_NAME - 8, y + 14, f"process {s['pid']}", "name", "end"))
        state = "ended" if s["ended"] else "killed, or at work"
        parts.append(rect(x(begin[i] - first), y + 3, max(x(end[i]) - x(begin[i]), 3), 14, "local" if s["ended"] else "outside", f"{s['host']}: {s['cases']:,} cases, {state}", 2))
        parts.append(text(x(end[i] - first) + 6, y + 14, f"{s['cases']:,} cases", "tick"))
    legend = '<div class="legend"><span><i style="background:var(--local)"></i>ended</span><span><i style="background:var(--poor)"></i>killed, or at work</span></div>'
    return f'<h2>At work</h2>{legend}<div class="scroll">{svg(_WIDTH, height, parts, "when each process worked")}</div>'


def _failures(journal):
    rows = journal.ask("SELECT engine, line, detail, outputs, differing FROM results WHERE status = 'DIFFERENT' ORDER BY differing DESC, line LIMIT 100")
    if not rows:
        return ""
    cards = [
        f'<div class="layer"><h3>{escape(r["line"])}</h3><div class="soft">on {escape(r["engine"])}; repeat: <code>refquant verify --engine {escape(r["engine"])} '
        f"--case {escape(r['line'])}</code></div><pre>{escape(r['detail'])}</pre></div>"
        for r in rows
    ]
    rest = f"<details><summary>{len(cards) - _SHOWN} more</summary>{''.join(cards[_SHOWN:])}</details>" if len(cards) > _SHOWN else ""
    return f"<h2>Differences</h2>{''.join(cards[:_SHOWN])}{rest}"


def _numbers(rows):
    names = ("operator", "engine", "cases", "outputs", "differing", "different", "explained", "unsupported", "untrusted")
    cell = lambda v: f'<td data-value="{v}">{v:,}</td>' if isinstance(v, int) else f"<td>{escape(str(v))}</td>"  # noqa: E731
    body = ("<tr>" + "".join(cell(r[name]) for name in names) + f"<td>{'yes' if r['finished'] else 'no'}</td></tr>" for r in rows)
    return (
        '<h2>All numbers</h2><p class="soft">Cases by outcome; click a heading to sort.</p>'
        + sortable_table((*names, "finished"), body)
    )


def _words(title, head, rows):
    if not rows:
        return ""
    body = "".join("<tr>" + "".join(f"<td>{escape(str(v))}</td>" for v in row) + "</tr>" for row in rows)
    return f'<h2>{title}</h2><div class="scroll"><table class="words"><thead><tr>{"".join(f"<th>{h}</th>" for h in head)}</tr></thead><tbody>{body}</tbody></table></div>'


def _reasons(journal):
    rows = [(r["engine"], r["status"].lower(), f"{r['cases']:,}", r["reason"]) for r in journal.ask(question("reasons").sql)]
    return _words("What does not count", ("engine", "outcome", "cases", "reason"), rows)


def _origins(journal):
    rows = []
    for r in journal.ask(question("engines").sql):
        what = json.loads(r["provenance"])
        rows.append((r["engine"], f"{what.get('package', '')} {what.get('version', '')}", what.get("cpu", ""), f"{r['cases']:,}"))
    sessions = [tuple(r)[1:] for r in journal.ask(question("sessions").sql)]
    return _words("Engines", ("engine", "package", "processor", "cases"), rows) + _words(
        "Sessions", ("began", "ended", "host", "process", "cases", "refquant", "Python", "NumPy"), sessions
    )
