"""Time refquant beside the engines, in one process and in turn, after proving equal bits."""

import io
import json
import sys
from pathlib import Path

from refquant.cli.console import Progress, paint
from refquant.cli.numbers import count
from refquant.cli.outputs import check_outputs
from refquant.core.files import write_whole
from refquant.errors import ArgumentError, choose

__all__ = ["EXAMPLES", "add_arguments", "run", "peak"]

EXAMPLES = """examples:
  refquant bench                                   everything; takes some minutes on an idle machine
  refquant bench --filter conv/resnet50            a table of its layers
  refquant bench --filter gemm --filter linear/x86 --threads 2
  refquant bench --filter gemm --profile           and where the time of each product goes, whatever its figure
  refquant bench --json bench.json --plot bench.svg
  refquant bench --list                            works, what they have to reach, their cases

A ratio says how many times longer the best rival takes. Figures are medians over turns; on one thread, of processor time.

exit status: 0, 1 if the bits of a case differ or it cannot run (it is not timed then), 2 wrong usage
"""

_ROUNDS = 20_000
_ACCUMULATORS, _AVX2_ACCUMULATORS = 24, 8


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--threads", type=count, default=1, metavar="N", help="threads of refquant and of every engine (1)")
    parser.add_argument("--filter", action="append", metavar="TEXT", help="run the cases whose work/case holds it, and print each of them; several filters run what any of them names")
    parser.add_argument("--turns", type=count, default=7, metavar="N", help="turns of each contender, at least 5 (7)")
    parser.add_argument("--json", metavar="OUT", help="write all figures to a file")
    parser.add_argument("--plot", metavar="OUT", help="draw the ratios: a .png or .svg")
    parser.add_argument("--profile", action="store_true", help="of all that is run tell where the time goes, on one thread; what stays below its bar is told of in any case")
    parser.add_argument("--list", action="store_true", help="list works, what they have to reach, and their cases")


def run(arguments):
    """Run and return the exit status."""
    from refquant.backends.bench.case import Settings
    from refquant.backends.bench.engines import limited_threads, machine
    from refquant.backends.bench.report import listing, plain_report, text_report
    from refquant.backends.bench.run import WORKS, below, chosen, run_works
    from refquant.cli.bench_where import where_time_goes
    from refquant.kernels.shared_work import shared_steps

    if arguments.list:
        print(listing(chosen(WORKS, arguments.filter)))
        return 0
    _check(arguments)
    about = machine(arguments.threads)
    with limited_threads(arguments.threads):
        settings = Settings(arguments.threads, arguments.turns, peak(arguments.threads), shared_steps)
        report, done = _progress()
        found = run_works(WORKS, settings, text=arguments.filter, progress=report)
        rows = chosen(WORKS, arguments.filter) if arguments.profile else below(found)
        where = where_time_goes(rows, found, settings, report)
        done()
    if arguments.json:
        write_whole(arguments.json, (json.dumps(plain_report(found, about, settings) | where.plain(), indent=1) + "\n").encode())
    if arguments.plot:
        _plot(found, about, arguments.plot)
    lines = where.lines() or (["", "Nothing that was run has a profile."] if arguments.profile else [])
    print("\n".join([text_report(found, about, cases=arguments.filter is not None, told=where.works, paint=paint), *lines]))
    return 1 if any(row.failed for row in found) else 0


def _check(arguments):
    """Refuse what would fail after minutes of work, or say nothing of this processor."""
    from refquant.kernels.processor import VARIABLE, emulated_level

    if emulated_level():
        raise ArgumentError(f"bench: {VARIABLE}={emulated_level()} writes instructions out that the processor lacks, so that no time means anything; unset it")
    if arguments.profile and arguments.threads != 1:
        raise ArgumentError(f"bench --profile: threads={arguments.threads}, but parts are timed on one; leave --threads out")
    check_outputs("bench", arguments.json, arguments.plot)
    if arguments.plot:
        choose("bench --plot", "suffix", Path(arguments.plot).suffix.lower(), [".png", ".svg"])


def _progress():
    """Return a function that reports a line and one that ends reporting: one line over and over on a terminal, else all of them."""
    if not sys.stderr.isatty():
        return lambda line: print(line, file=sys.stderr, flush=True), lambda: None
    progress = Progress()
    return progress.show, progress.clear


def _plot(found, about, path):
    from refquant.backends.bench.chart import draw

    figure = draw(found, about)
    if figure is None:
        print(f"refquant: {path} is not written, as nothing that was run has a ratio", file=sys.stderr)
        return
    content = io.BytesIO()
    figure.savefig(content, format=Path(path).suffix[1:].lower(), dpi=150)
    write_whole(path, content.getvalue())


def peak(threads):
    """Return the processor's fastest product of bytes as a yardstick: its chain of instructions on registers alone, on every thread.

    Parameters
    ----------
    threads : int

    Returns
    -------
    Yardstick or None
        ``vpdpbusd``, or on AVX2 ``vpmaddubsw``, ``vpmaddwd`` and ``vpaddd``; None where the processor has neither, or the JIT is off.
    """
    from refquant.backends.bench.case import Yardstick
    from refquant.kernels.jit import jit_disabled, parallel_for
    from refquant.kernels.processor import host_features

    features = host_features()
    bits = 512 if "avx512vnni" in features else 256 if features & {"avxvnni", "avx2"} else 0
    if jit_disabled() or not bits:
        return None
    import numpy as np

    name = "vpdpbusd" if features & {"avx512vnni", "avxvnni"} else "vpmaddubsw"
    accumulators = _ACCUMULATORS if name == "vpdpbusd" else _AVX2_ACCUMULATORS
    spin, sums = _spin(name, bits, accumulators), np.zeros(threads, np.int64)
    operations = 2.0 * (bits // 8) * accumulators * _ROUNDS * threads
    return Yardstick(f"{name} peak, {bits} bits", lambda: parallel_for(spin, threads, _ROUNDS, sums), operations)


def _spin(name, bits, count):
    """Compile the loop: independent accumulators, each with a start of its own, so that none can be left out."""
    from numba.core import types

    from refquant.kernels.jit import kernel
    from refquant.kernels.vector_ir import I8, I16, I32, I64, emitted_function, vector

    kind, bytes_kind, pairs_kind = vector(I32, bits // 32), vector(I8, bits // 8), vector(I16, bits // 16)

    def step(e, acc, word):
        if name == "vpdpbusd":
            return e.call(f"llvm.x86.avx512.vpdpbusd.{bits}", kind, acc, word, word), word
        bytes_of = e.builder.bitcast(word, bytes_kind)
        pairs = e.call("llvm.x86.avx2.pmadd.ub.sw", pairs_kind, bytes_of, bytes_of)
        fours = e.call("llvm.x86.avx2.pmadd.wd", kind, pairs, e.constant(1, pairs_kind))
        # Else the products, all the same, would be taken out of the loop.
        return e.in_order(e.add(acc, fours), word)

    def emit(e, rounds):
        word = e.splat(e.builder.trunc(rounds, I32), kind.count)
        accumulators = [e.variable(e.constant(i + 1, kind)) for i in range(count)]
        same = e.variable(word)
        with e.loop(rounds):
            for acc in accumulators:
                total, word = step(e, e.get(acc), e.get(same))
                e.set(acc, total)
                e.set(same, word)
        total = e.get(accumulators[0])
        for acc in accumulators[1:]:
            total = e.add(total, e.get(acc))
        return e.builder.sext(e.builder.extract_element(total, e.constant(0, I32)), I64)

    loop = emitted_function(f"{name}_peak_{bits}_{count}", types.int64, [types.int64], emit)

    @kernel
    def spin(start, stop, rounds, sums):
        for i in range(start, stop):
            sums[i] = loop(rounds)

    return spin
