"""Hold the results of a program in any language against the oracle: from a pipe, or as .npy files beside the cases."""

import argparse
import os
import sys
from pathlib import Path

from refquant.cli.console import Progress, paint
from refquant.cli.gen import widen
from refquant.errors import ArgumentError
from refquant.verify import save_case
from refquant.verify.case_file import load_bits, load_case
from refquant.verify.pipe import judge, judge_files

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  refquant gen --op linear --numerics fbgemm --cases 300 | ./engine | refquant check
  refquant gen --op linear --numerics fbgemm | ./engine | refquant check --save failed     and then refquant diagnose failed/0000.npz
  refquant check --folder cases                       NNNN.npz from refquant gen --folder, results beside them as NNNN.y.npy

exit status: 0 all bits agree, 1 a bit differs, 2 no such stream, or nothing was compared
"""


def _seconds(text):
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of at least 0")
    return value


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--numerics", metavar="PROFILE", help="whose arithmetic; what the cases name unless given")
    parser.add_argument("--folder", metavar="FOLDER", help="read case files and results from there, not a stream")
    parser.add_argument("--save", metavar="FOLDER", help="save failing cases as .npz there, for refquant diagnose")
    parser.add_argument("--seconds", type=_seconds, default=20.0, metavar="S", help="time to find out why bits differ (20); 0 does not ask")


def run(arguments):
    """Run and return the exit status."""
    progress = Progress()
    show = lambda count, size: progress.show(f"{count:,} results, {size / 1e6:,.0f} MB")  # noqa: E731
    how = {"numerics": arguments.numerics, "seconds": arguments.seconds, "progress": show}
    if arguments.folder:
        judged = judge_files(_files(arguments.folder), **how)
    else:
        if sys.stdin.isatty():
            raise ArgumentError("check: there is no stream on stdin; pipe your program into it, or give --folder")
        with os.fdopen(widen(sys.stdin), "rb", closefd=False) as source:
            judged = judge(source, **how)
    progress.clear()
    result = judged.check
    for line in str(result).splitlines():
        print(paint(line, "green") if ": EXACT," in line else paint(line, "red") if "DIFFERENT" in line else line)
    if arguments.save and judged.failures:
        _save(arguments.save, judged.failures)
    if judged.seconds:
        print(f"{judged.bytes / 1e6:,.1f} MB of problems and results in {judged.seconds:.2f} s after the first: {judged.rate:,.0f} MB/s", file=sys.stderr)
    if any(row.failures for row in result.rows):
        return 1
    if not result.outputs:
        raise ArgumentError("check: nothing was compared, so nothing is verified; generate cases that the engine computes")
    return 0


def _files(folder):
    """Yield (path, problem, bits, profile) of the case files in a folder."""
    paths = sorted(Path(folder).glob("*.npz"))
    if not paths:
        raise ArgumentError(f"check: {folder} holds no .npz files; write them with refquant gen --folder {folder}")
    for path in paths:
        case = load_case(path)
        beside = path.with_suffix(".y.npy")
        actual = load_bits(beside) if beside.exists() else case.actual
        if actual is None:
            raise ArgumentError(f"check: {path} has no result; write it as {beside.name} beside it, or as its entry 'actual'")
        yield path, case.problem, actual, case.profile


def _save(folder, failures):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for i, failure in enumerate(failures):
        save_case(folder / f"{i:04d}.npz", failure.problem.op, actual=failure.actual, numerics=failure.profile, **failure.problem.arguments)
    print(f"the {len(failures)} failing cases that tell most are in {folder}: refquant diagnose {folder / '0000.npz'}")
