"""What engines do that their users would not expect, each shown on the engine that is installed and by the oracle."""

import textwrap

from refquant import backends
from refquant.backends.findings import FINDINGS, find, reproduce
from refquant.cli.console import paint
from refquant.errors import ArgumentError

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  refquant findings                                  all, a line each, and whether they still show
  refquant findings depthwise-saturates-on-vnni      one, with its reason and its numbers
  refquant findings --engine onnxruntime

published puzzles of INT8 inference, solved: refquant gallery

exit status: 0 engine and oracle agree on every finding, 1 they do not, 2 wrong usage
"""

_WIDTH = 100


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="one finding; all unless given")
    parser.add_argument("--engine", action="append", metavar="NAME", help="findings about this engine (may be repeated)")


def run(arguments):
    """Run and return the exit status."""
    engines = [backends.find(name).name for name in arguments.engine or backends.names()]
    chosen = [find(arguments.name)] if arguments.name else [finding for finding in FINDINGS if finding.engine in engines]
    if arguments.name and chosen[0].engine not in engines:
        raise ArgumentError(f"findings: {arguments.name} is about {chosen[0].engine}; leave --engine out")
    if not chosen:
        raise ArgumentError(f"findings: none is about {', '.join(engines)}; see refquant findings")
    agree = [_show(finding, whole=bool(arguments.name)) for finding in chosen]
    if not arguments.name:
        live = sum(backends.installed(finding.engine) for finding in chosen)
        text = f"{len(chosen)} findings, {live} shown on the engine itself, {len(agree) - sum(agree)} no longer as described"
        print("\n" + paint(text, "green" if all(agree) else "red"))
    return 0 if all(agree) else 1


def _show(finding, whole):
    """Print a finding and return whether it still shows."""
    runner = backends.load(finding.engine) if backends.installed(finding.engine) else None
    found = reproduce(finding, runner)
    shows = found.agrees and found.surprises
    mark = paint("defect" if finding.defect else "shows", "yellow" if finding.defect else "green") if shows else paint("DIFFERENT", "red")
    print(f"{paint(finding.name, 'bold')} ({finding.engine}, {mark})")
    print(textwrap.fill(finding.title, _WIDTH, initial_indent="  ", subsequent_indent="  "))
    if whole:
        print("\n" + textwrap.fill(finding.text, _WIDTH, initial_indent="  ", subsequent_indent="  "))
        print(f"\n  profile {finding.profile}; expected: {finding.expected_by}")
    for line in found.lines() if whole or not shows else ():
        print(f"  {line}")
    return shows
