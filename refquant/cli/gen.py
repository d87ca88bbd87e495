"""Write cases made to hurt, for a program in any language: into a pipe, or as .npz files."""

import os
import sys
from pathlib import Path

from refquant import numerics
from refquant.cli.console import Progress
from refquant.cli.numbers import count, whole
from refquant.errors import ArgumentError, choose
from refquant.verify import STREAMS, Case, build, save_case
from refquant.verify.pipe import cases_to_send, check_size, generate

__all__ = ["EXAMPLES", "add_arguments", "run", "widen"]

EXAMPLES = """examples:
  refquant gen --op linear --numerics fbgemm --cases 300 | ./engine | refquant check
  refquant gen --op linear --numerics fbgemm --shape m1024k1024n32 --cases 500 | ./engine | refquant check
  refquant gen --case linear/fbgemm/m5k64n17/neartie/seed=7/per_channel | ./engine | refquant check
  refquant gen --op conv2d --numerics tflite_ref --cases 50 --folder cases     0000.npz, … for refquant check --folder

the format of the stream: help(refquant.verify.stream); of the files: help(refquant.verify.case_file)
a program that reads it, in C: notebooks/c_engine/engine.c

exit status: 0, 2 wrong usage
"""


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--op", action="append", metavar="OP", help="an operator (may be repeated)")
    parser.add_argument("--numerics", metavar="PROFILE", help="whose arithmetic the results are to have")
    parser.add_argument("--cases", type=count, default=100, metavar="N", help="how many (100)")
    parser.add_argument("--seed", type=whole, default=0, metavar="S", help="seed of the cases (0)")
    parser.add_argument("--shape", action="append", default=[], metavar="TEXT", help="such as m1024k1024n32, in place of the default ones (may be repeated)")
    parser.add_argument("--strategy", action="append", default=[], metavar="NAME", help="such as neartie, in place of the default ones (may be repeated)")
    parser.add_argument("--case", action="append", metavar="LINE", help="this case (may be repeated) in place of all others")
    parser.add_argument("--folder", metavar="FOLDER", help="write case files there in place of the stream")


def _cases(arguments):
    if arguments.case:
        return [check_size(Case.parse(line)) for line in arguments.case]
    if not arguments.op or not arguments.numerics:
        raise ArgumentError("gen: --op and --numerics are needed, such as --op linear --numerics fbgemm; see refquant gen --help")
    for op in arguments.op:
        choose("gen", "operator", op, STREAMS)
    choose("gen", "numerics", arguments.numerics, numerics.names())
    return list(cases_to_send(arguments.op, arguments.numerics, cases=arguments.cases, seed=arguments.seed, shapes=arguments.shape, strategies=arguments.strategy))


def run(arguments):
    """Run and return the exit status."""
    cases = _cases(arguments)
    progress = Progress()
    if arguments.folder:
        return _write_files(arguments.folder, cases, progress)
    if sys.stdout.isatty():
        raise ArgumentError("gen: the stream is binary and not for a terminal; pipe it into your program, or give --folder")
    with os.fdopen(widen(sys.stdout), "wb", closefd=False) as out:
        generate(out, cases, progress=lambda done, size: progress.show(f"{done:,} of {len(cases):,} cases, {size / 1e6:,.0f} MB"))
    progress.clear()
    return 0


def widen(stream):
    """Return the descriptor of a stream; a pipe gets a megabyte of room, where the system knows how."""
    descriptor = stream.fileno()
    try:
        import fcntl

        fcntl.fcntl(descriptor, getattr(fcntl, "F_SETPIPE_SZ", 1031), 1 << 20)
    except (ImportError, OSError):
        pass
    return descriptor


def _write_files(folder, cases, progress):
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"gen: {folder} must be a folder but cannot be made ({error.strerror}); choose another path") from error
    if any(folder.glob("*.npz")):
        raise ArgumentError(f"gen: {folder} holds .npz files already; choose an empty folder")
    for i, case in enumerate(cases):
        problem = build(case)
        save_case(folder / f"{i:04d}.npz", problem.op, numerics=case.profile, **problem.arguments)
        progress.show(f"{i + 1:,} of {len(cases):,} cases")
    progress.clear()
    print(f"{len(cases):,} cases in {folder}: write the output of NNNN.npz as NNNN.y.npy, or into it as the entry 'actual'; then refquant check --folder {folder}", file=sys.stderr)
    return 0
