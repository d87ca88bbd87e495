"""What engines do that their users would not expect, each shown on the engine that is installed and by the oracle."""

import textwrap

from refquant import backends
from refquant.backends.findings import FINDINGS, find, reproduce
from refquant.cli.console import paint
from refquant.errors import ArgumentError, BackendMissing

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
    found = [_show(finding, whole=bool(arguments.name)) for finding in chosen]
    changed = sum(not one.shows for one in found)
    if not arguments.name:
        live = sum(one.shown.live is not None for one in found)
        print("\n" + paint(f"{len(chosen)} findings, {live} shown on the engine itself, {changed} no longer as described", "red" if changed else "green"))
    return 1 if changed else 0


def _show(finding, whole):
    """Print a finding and return its `Reproduction`."""
    why = None
    try:
        found = reproduce(finding, backends.load(finding.engine) if backends.installed(finding.engine) else None)
    except BackendMissing as error:
        found, why = reproduce(finding), error
    mark = paint("defect" if finding.defect else "shows", "yellow" if finding.defect else "green") if found.shows else paint("DIFFERENT", "red")
    print(f"{paint(finding.name, 'bold')} ({finding.engine}, {mark})")
    print(textwrap.fill(finding.title, _WIDTH, initial_indent="  ", subsequent_indent="  "))
    if whole:
        print("\n" + textwrap.fill(finding.text, _WIDTH, initial_indent="  ", subsequent_indent="  "))
        print(f"\n  profile {finding.profile}; expected: {finding.expected_by}")
    for line in found.lines() if whole or not found.shows else ():
        print(f"  {line}")
    if why is not None:
        print(textwrap.fill(f"by the oracle alone: {why}", _WIDTH, initial_indent="  ", subsequent_indent="  "))
    return found
