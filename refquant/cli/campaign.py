"""Long runs that keep a journal: engines against the oracle for hours, killed and resumed, in several processes at once."""

import json

from refquant import backends
from refquant.cli.console import Progress, paint, table
from refquant.cli.numbers import count, whole
from refquant.errors import ArgumentError, choose
from refquant.verify.journal import QUESTIONS, Journal, question, run_campaign
from refquant.verify.journal.long_campaign import KIND

__all__ = ["EXAMPLES", "add_arguments", "run"]

_QUESTIONS = "\n".join(f"  {q.name:<10} {q.tells}" for q in QUESTIONS)

EXAMPLES = f"""examples:
  refquant campaign run night.journal --engine fbgemm --engine onednn --outputs 100000000 --workers 8
  refquant campaign run night.journal                    go on where it stopped; a second process may help
  refquant campaign show night.journal                   how far it is
  refquant campaign query night.journal failures
  refquant campaign query night.journal --sql "SELECT op, SUM(outputs) FROM results GROUP BY op"
  refquant campaign report night.journal --html night.html

questions for query:
{_QUESTIONS}

a journal is one SQLite file on a disk of this machine. A campaign that was killed, however, loses nothing and repeats nothing when it is run again.
On a cluster: refquant.verify.journal.run_campaign(..., executor=client.get_executor()).

exit status: 0 all bits agree, 1 a bit is unexplained, 2 wrong usage, no journal, or nothing was compared
"""

_ACTIONS = ("run", "show", "query", "report")
_ALLOWED = {"run": {"engine", "op", "outputs", "seed", "workers"}, "show": set(), "query": {"question", "sql", "json"}, "report": {"html"}}
_SHOWN, _WIDEST = 5, 100


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("action", metavar="ACTION", help="run, show, query or report")
    parser.add_argument("journal", metavar="JOURNAL", help="the journal's file; run makes it")
    parser.add_argument("question", metavar="QUESTION", nargs="?", help="query: one of the questions below")
    parser.add_argument("--engine", action="append", metavar="NAME", help="run: an engine (may be repeated); every one that is installed unless given")
    parser.add_argument("--op", action="append", metavar="OP", help="run: an operator (may be repeated); all unless given")
    parser.add_argument("--outputs", type=count, metavar="N", help="run: outputs to compare for each operator and engine (50000); more than before goes on")
    parser.add_argument("--seed", type=whole, metavar="S", help="run: seed of the cases (0)")
    parser.add_argument("--workers", type=count, metavar="N", help="run: processes on this machine (1)")
    parser.add_argument("--sql", metavar="TEXT", help="query: a SELECT of your own")
    parser.add_argument("--json", action="store_true", help="query: print one JSON object a row")
    parser.add_argument("--html", metavar="FILE", help="report: write a page instead")


def run(arguments):
    """Run and return the exit status."""
    action = choose("campaign", "action", arguments.action, _ACTIONS)
    for name, value in vars(arguments).items():
        if value and name not in ("action", "journal") and name not in _ALLOWED[action]:
            home = next(a for a in _ACTIONS if name in _ALLOWED[a])
            given = repr(value) if name == "question" else f"--{name}"
            raise ArgumentError(f"campaign {action}: {given} belongs to campaign {home}; leave it out")
    return {"run": _run, "show": _show, "query": _query, "report": _report}[action](arguments)


def _run(arguments):
    for name in arguments.engine or ():
        if not backends.installed(name):
            backends.load(name)
    engines = arguments.engine
    if engines is None and _is_new(arguments.journal):
        engines = [name for name in backends.names() if backends.installed(name)]
        if not engines:
            raise ArgumentError("campaign run: no engine is installed; pip install 'refquant[torch,onnxruntime,litert]'")
    progress = Progress()
    try:
        tried = run_campaign(
            arguments.journal, engines, arguments.op, load=backends.load, outputs=arguments.outputs, seed=arguments.seed, workers=arguments.workers or 1,
            progress=lambda journal: progress.show(_how_far(journal)),
        )  # fmt: skip
    finally:
        progress.clear()
    print(f"{tried:,} cases tried now")
    return _show(arguments)


def _is_new(path):
    from pathlib import Path

    return not Path(path).exists()


def _how_far(journal):
    compared, target, differing = journal.ask("SELECT SUM(compared), SUM(target), (SELECT SUM(differing) FROM cases) FROM streams")[0]
    return f"{compared or 0:,} outputs of at most {target or 0:,} compared, {differing or 0:,} differ"


def _open(arguments):
    journal = Journal(arguments.journal)
    if journal.kind != KIND:
        raise ArgumentError(f"journal {arguments.journal}: holds a {journal.kind}, not a campaign; its own command shows it, and campaign query asks it")
    return journal


def verdict(row):
    """Return (status in words, colour) of a row of the question "progress"."""
    if row["different"]:
        return "DIFFERENT", "red"
    if row["outputs"]:
        return ("EXPLAINED", "yellow") if row["explained"] else ("EXACT", "green")
    return ("UNSUPPORTED", "dim") if row["finished"] else ("…", "dim")


def _show(arguments):
    with _open(arguments) as journal:
        rows = journal.ask(question("progress").sql)
        failures = journal.ask(question("failures").sql)
        sessions = journal.ask("SELECT COUNT(*), COUNT(DISTINCT refquant) FROM sessions")[0]
        states = journal.counts()
    shown = [row for row in rows if row["outputs"] or not row["finished"]]
    head = ("operator", "engine", "cases", "outputs", "differing", "finished", "verdict")
    cells = [(r["operator"], r["engine"], f"{r['cases']:,}", f"{r['outputs']:,}", f"{r['differing']:,}", "yes" if r["finished"] else "no", verdict(r)[0]) for r in shown]
    for line, row in zip(table([head, *cells], right={2, 3, 4}), [None, *shown]):
        print(line if row is None else line.removesuffix(verdict(row)[0]) + paint(*verdict(row)))
    for row in failures[:_SHOWN]:
        print(f"    refquant verify --engine {row['engine']} --case {row['case']}\n      {row['report']}")
    if len(failures) > _SHOWN:
        print(f"    and {len(failures) - _SHOWN:,} more cases (refquant campaign query {arguments.journal} failures)")
    total, differing = sum(r["outputs"] for r in rows), sum(r["differing"] for r in rows)
    left = sum(n for state, n in states.items() if state != "done") + sum(not r["finished"] for r in rows)
    print()
    print(paint(f"{total:,} outputs compared in {states.get('done', 0):,} cases, {differing:,} differ", "red" if failures else "green"))
    mixed = f"; {sessions[1]} versions of refquant" if sessions[1] > 1 else ""
    print(f"{'not finished: run it again' if left else 'finished'}; {sessions[0]} session{'s' if sessions[0] != 1 else ''}{mixed}")
    return 1 if failures else 0 if total else 2


def _query(arguments):
    if bool(arguments.sql) == bool(arguments.question):
        raise ArgumentError(f"campaign query: give one question ({', '.join(q.name for q in QUESTIONS)}) or --sql; see refquant campaign --help")
    sql = arguments.sql or question(arguments.question).sql
    with Journal(arguments.journal) as journal:
        rows = journal.ask(sql)
    if arguments.json:
        for row in rows:
            print(json.dumps(dict(row)))
    elif rows:
        numbers = {i for i, value in enumerate(rows[0]) if isinstance(value, (int, float))}
        print(*table([tuple(rows[0].keys()), *(tuple(map(_cell, row)) for row in rows)], right=numbers), sep="\n")
    else:
        print("no rows")
    return 0


def _cell(value):
    text = "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _report(arguments):
    if not arguments.html:
        return _show(arguments)
    from refquant.cli.campaign_page import page
    from refquant.core.files import check_writable, write_whole

    check_writable(arguments.html)
    with _open(arguments) as journal:
        write_whole(arguments.html, page(journal).encode())
        different = journal.ask("SELECT COUNT(*) FROM results WHERE status = 'DIFFERENT'")[0][0]
    print(f"{arguments.html} written")
    return 1 if different else 0
