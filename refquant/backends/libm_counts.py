"""Count where a mathematical library decides a code: ``python -m refquant.backends.libm_counts [--op OP] [--engine ENGINE] [--sets N]``.

All 256 codes of each function under many parameters, products that such a function follows, and softmax of random codes: the oracle's float64
rounded once beside the engine's own function, as the notes of the table of operators state them (`refquant.numerics.coverage.LIBM_COUNTS`).
Exit status 1 where a count is another than the recorded one.
"""

import argparse
import sys

from refquant import backends
from refquant.numerics import coverage
from refquant.verify.libm_sweep import libm_sweep

__all__ = ["main"]


def main(argv=None):
    """Sweep, print a line a function and engine, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m refquant.backends.libm_counts", description=__doc__.splitlines()[0])
    parser.add_argument("--op", action="append", help="this function alone, or operator with its function ('linear tanh'); may be repeated")
    parser.add_argument("--engine", action="append", choices=(*backends.names(), *(engine.name for engine in backends.REFERENCES)), help="this engine alone; may be repeated")
    parser.add_argument("--sets", type=int, help="sets of parameters; as recorded unless given, and then nothing is held against the record")
    arguments = parser.parse_args(argv)
    status = 0
    for (op, engine), recorded in coverage.LIBM_COUNTS.items():
        if (arguments.op and op not in arguments.op) or (arguments.engine and engine not in arguments.engine):
            continue
        if not backends.installed(engine):
            print(f"{op:12} {engine:12} not installed")
            continue
        row = libm_sweep(backends.load(engine), op, sets=arguments.sets)
        same = arguments.sets is not None or (row.differing, row.outputs) == recorded
        status |= not same
        print(f"{op:12} {engine:12} {row.differing:,} of {row.outputs:,} outputs differ" + ("" if same else f"; recorded: {recorded[0]:,} of {recorded[1]:,}"), flush=True)
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
