"""Published puzzles of INT8 inference, solved: the thread's numbers, the oracle's, the installed engine's, and the reason."""

import shutil

from refquant import backends
from refquant.cli.console import paint, table
from refquant.errors import ArgumentError, BackendMissing

__all__ = ["EXAMPLES", "add_arguments", "run", "load_runner"]

EXAMPLES = """examples:
  refquant gallery                          every puzzle, solved by the oracle and by the engines that are installed
  refquant gallery pytorch-44939
  refquant gallery --list
  refquant gallery --oracle                 by the oracle alone; nothing optional is imported

What engines do that nobody has asked about yet: refquant findings.

exit status: 0 every number is reproduced, 1 one is not, 2 no such puzzle
"""


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("name", nargs="*", metavar="NAME", help="puzzles; all unless given")
    parser.add_argument("--list", action="store_true", help="list names and titles")
    parser.add_argument("--oracle", action="store_true", help="ask no engine")


def load_runner(name):
    """Return a runner; an engine that refquant does not know, or that this machine cannot run, is missing like one that is not installed."""
    try:
        backends.find(name)
    except ArgumentError as error:
        raise BackendMissing(f"engine {name}: refquant has no such runner") from error
    return backends.load(name)


def run(arguments):
    """Run and return the exit status."""
    from refquant.verify.gallery import PUZZLES, find, solve

    chosen = [find(name) for name in arguments.name] or list(PUZZLES)
    if arguments.list:
        print(*table([(p.name, p.title) for p in chosen]), sep="\n")
        return 0
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 60), 120)
    solutions = []
    for puzzle in chosen:
        solutions.append(solve(puzzle, None if arguments.oracle else load_runner))
        for line in solutions[-1].text(width).splitlines():
            print(paint(line, "red") if line.endswith("NOT THE SAME") else line)
        print()
    wrong = [s.puzzle.name for s in solutions if not s.solved]
    rows = [row for s in solutions for row in s.rows]
    live = sum(row.live is not None for row in rows)
    text = f"{len(solutions)} puzzles, {len(rows)} results reproduced by the oracle, {live} of them asked of an engine too"
    print(paint(f"not reproduced: {', '.join(wrong)}" if wrong else text, "red" if wrong else "green"))
    return 1 if wrong else 0
