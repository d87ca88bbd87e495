"""The entry point ``refquant``.

>>> main(["profiles", "fbgemm", "fbgemm"])
fbgemm and fbgemm do not differ.
0
"""

import argparse
import difflib
import errno
import os
import sys
from importlib import import_module
from typing import NamedTuple

from refquant.cli.console import fit
from refquant.errors import ArgumentError, RefquantError
from refquant.version import VERSION

__all__ = ["Command", "COMMANDS", "main", "parser_of"]


class Command(NamedTuple):
    """One command: its name, its module, and what it does in a few words.

    The module has ``EXAMPLES`` (a text), ``add_arguments(parser)`` and ``run(arguments)``, which returns the exit status.
    """

    name: str
    module: str
    summary: str


COMMANDS = (
    Command("verify", "refquant.cli.verify", "engines against the oracle, or the oracle against recorded bits"),
    Command("campaign", "refquant.cli.campaign", "long runs that keep a journal, survive being killed, and can be asked about"),
    Command("convert", "refquant.cli.convert", "models in and out: quantize, ONNX files, refquant's own"),
    Command("drift", "refquant.cli.drift", "where INT8 costs a network accuracy, layer by layer"),
    Command("compare-paths", "refquant.cli.compare_paths", "FX, PT2E and ONNX Runtime's quantization of one network, side by side"),
    Command("audit", "refquant.cli.audit", "would an INT8 network saturate on a CPU without VNNI, and what hangs on a tie"),
    Command("bench", "refquant.cli.bench", "the oracle's speed beside the engines', in one run"),
    Command("diagnose", "refquant.cli.diagnose", "why bits differ: the smallest set of causes that explains a case file"),
    Command("gallery", "refquant.cli.gallery", "published puzzles of INT8 inference, solved"),
    Command("gen", "refquant.cli.gen", "cases made to hurt, into a pipe, for a program in any language"),
    Command("check", "refquant.cli.check", "that program's results, from a pipe, against the oracle"),
    Command("findings", "refquant.cli.findings", "what engines do that one would not expect, shown on the engine"),
    Command("calibrators", "refquant.cli.calibrators", "which range each calibrator finds on one distribution, and what that costs"),
    Command("zoo", "refquant.cli.zoo", "published networks: parameters, multiply-adds, layers"),
    Command("simulate", "refquant.cli.simulate", "how fast a network would be on a machine, and by which kernels, without running it"),
    Command("pt2e", "refquant.cli.pt2e", "PyTorch's PT2E path beside refquant's: annotations, scales and bits of many networks"),
    Command("profiles", "refquant.cli.profiles", "what a profile says, or how two differ"),
)

if len({command.name for command in COMMANDS}) != len(COMMANDS):
    raise ArgumentError("cli: two commands share a name; rename one")

_EXAMPLES = """examples:
  refquant verify                                  every engine that is installed, and recorded bits of the others
  refquant verify --engine onednn --op conv2d --outputs 1000000
  refquant profiles fbgemm onednn                  where two engines compute differently
  refquant COMMAND --help                          all options of a command

exit status: 0 all bits agree, 1 a bit is unexplained, 2 the command was not understood or could not run
"""


class _Help(argparse.RawDescriptionHelpFormatter):
    """argparse's help with examples that fit the terminal."""

    def _fill_text(self, text, width, indent):
        return fit("".join(indent + line for line in text.splitlines(keepends=True)), width)


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors and the nearest spelling."""

    def error(self, message):
        raise ArgumentError(f"{message}; see {self.prog} --help")

    def parse(self, arguments):
        """Parse all arguments, and name the option that was probably meant where one is unknown."""
        known, unknown = self.parse_known_args(arguments)
        if unknown:
            near = difflib.get_close_matches(unknown[0].partition("=")[0], list(self._option_string_actions), 1)
            hint = f"did you mean {near[0]}" if near else f"see {self.prog} --help"
            raise ArgumentError(f"{self.prog.partition(' ')[2] or self.prog}: {unknown[0]!r} is not an option or argument here; {hint}")
        return known


def _top(names):
    parser = _Parser(
        prog="refquant", usage="refquant COMMAND [options]", formatter_class=_Help, epilog=_EXAMPLES,
        description="The exact bits of INT8 inference, and why they differ.", add_help=False, allow_abbrev=False,
    )  # fmt: skip
    commands = parser.add_argument_group("commands")
    for command in COMMANDS:
        commands.add_argument(command.name, nargs="?", help=command.summary)
    others = parser.add_argument_group("options")
    others.add_argument("-h", "--help", action="help", help="this text")
    others.add_argument("--version", action="version", version=f"refquant {VERSION}", help="the version")
    return parser


def parser_of(command):
    """Return the module of a command and the parser of its arguments."""
    module = import_module(command.module)
    parser = _Parser(
        prog=f"refquant {command.name}", description=module.__doc__.partition("\n")[0], epilog=module.EXAMPLES, formatter_class=_Help, allow_abbrev=False,
    )  # fmt: skip
    module.add_arguments(parser)
    return module, parser


def _dispatch(arguments):
    table = {command.name: command for command in COMMANDS}
    if not arguments or arguments[0].startswith("-"):
        parser = _top(table)
        if arguments and arguments[0] in ("-h", "--help", "--version"):
            parser.parse_args(arguments[:1])
        if arguments:
            parser.parse(arguments)
        parser.print_help(sys.stderr)
        return 2
    name = arguments[0]
    if name not in table:
        near = difflib.get_close_matches(name, table, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ArgumentError(f"{name!r} is not a command; {hint}choose one of {', '.join(table)}")
    module, parser = parser_of(table[name])
    return module.run(parser.parse(arguments[1:]))


def main(arguments=None):
    """Run a command and return its exit status: 0, 1 for an unexplained bit, 2 for an error.

    Parameters
    ----------
    arguments : list of str, optional
        ``sys.argv[1:]`` unless given.
    """
    try:
        return _dispatch(sys.argv[1:] if arguments is None else list(arguments))
    except RefquantError as error:
        print(f"refquant: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("refquant: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone; Python must not complain about it once more when it exits.
        _silence_stdout()
        return 141
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _silence_stdout()
        print("refquant: no space is left where this writes to; free some, or write elsewhere", file=sys.stderr)
        return 2


def _silence_stdout():
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
