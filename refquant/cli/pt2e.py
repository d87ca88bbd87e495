"""PyTorch's PT2E path beside refquant's: annotations, observers, scales and bits of many networks."""

import logging
import time

from refquant.cli.console import interruption
from refquant.cli.numbers import whole
from refquant.cli.pt2e_verdict import APART, Parity
from refquant.errors import ArgumentError, BackendMissing
from refquant.verify.piece_log import PieceLog

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  refquant pt2e                            40 networks, in eager mode
  refquant pt2e --networks 0 --qat 12      12 of them prepared for quantization-aware training: passes in training and in evaluation, conversion
  refquant pt2e --networks 0 --qat-compiled 3   3 of them trained, converted, and compiled by TorchInductor
  refquant pt2e --lowered 12               12 of them as TorchInductor lowers them too, each fused layer compared
  refquant pt2e --networks 0 --compiled 3  3 of them compiled by TorchInductor: what its C++ and oneDNN compute
  refquant pt2e --networks 0 --operators   single operators, compiled
  refquant pt2e --networks 200 --seed 7 --strict
  refquant pt2e --compiled 40 --log run.jsonl   killed, the same command goes on

The columns: observed tensors; quantized values, or fused layers; numbers compared; numbers that differ.
Calibration, and what runs eagerly or lowered, sums real numbers in float64 on both sides, rounded once: PyTorch's order depends on the processor.
A compiled program runs as it is: what each fused layer reads, what it computes, and the outputs, beside the oracle's in the order of the generated C++.
What both sides refuse, what TorchInductor itself fails at, and what refquant refuses to describe is counted apart, with the reason.
Training is its forward passes: fake-quantizers observe and running statistics follow, but there are no gradients, and dropouts drop nothing.
Needs torch and torchao, and --compiled a C++ compiler.

exit status: 0, 1 where anything differs, 2 wrong usage
"""

_LINE = "{:26} {:12} {:14} {:>9} {:>7} {:>11} {:>9} {:>8}"


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--networks", type=whole, default=40, metavar="N", help="how many are quantized in eager mode (40): bundled, published ones at reduced width, random ones")
    parser.add_argument("--qat", type=whole, default=0, metavar="N", help="how many are prepared for quantization-aware training as well (0); half a minute each")
    parser.add_argument("--qat-compiled", type=whole, default=0, metavar="N", help="how many of these are converted and compiled by TorchInductor as well (0); a minute each")
    parser.add_argument("--lowered", type=whole, default=0, metavar="N", help="how many are lowered by TorchInductor as well (0); a few seconds each")
    parser.add_argument("--compiled", type=whole, default=0, metavar="N", help="how many are compiled by TorchInductor, C++ and all, as well (0); half a minute each")
    parser.add_argument("--operators", action="store_true", help="compile single operators as well, on special numbers and ties; some seconds each")
    parser.add_argument("--seed", type=whole, default=0, metavar="S", help="of weights and of random networks (0)")
    parser.add_argument("--strict", action="store_true", help="export with strict=True, which tells layers by the call")
    parser.add_argument("--log", metavar="FILE", help="a file that keeps what is done, from which the same command goes on")


def run(arguments):
    """Compare; exit status 1 if anything differs."""
    logging.getLogger("torchao").setLevel(logging.ERROR)  # It warns of extensions for GPUs, which nothing here asks for.
    try:
        import torch
        import torchao  # noqa: F401
    except ImportError as error:
        raise BackendMissing(f"pt2e: needs PyTorch and torchao ({error}); pip install 'refquant[torch]' torchao") from error
    torch.set_num_threads(1)
    tasks = list(_tasks(arguments))
    if not tasks:
        raise ArgumentError("pt2e: nothing is compared; give --networks, --qat, --qat-compiled, --lowered or --compiled a number above 0, or --operators")
    versions = {"torch": torch.__version__, "torchao": torchao.__version__}
    log = PieceLog(arguments.log, {"what": "pt2e", "seed": arguments.seed, "strict": arguments.strict, **versions})
    found, interrupted = [], False
    print(_LINE.format("network", "mode", "verdict", "observers", "values", "numbers", "differing", "seconds"))
    try:
        for task, mode in tasks:
            parity, seconds = _done(task, mode, arguments, log)
            print(_LINE.format(*_row(task.name, mode, parity, seconds)), flush=True)
            if parity.verdict in APART:
                print(f"    {parity.detail}", flush=True)
            found.append((f"{task.name} ({mode})", parity))
    except KeyboardInterrupt:
        interrupted = True
    failed = [f"{name}: {parity.verdict}: {parity.detail}" for name, parity in found if not parity.equal and parity.verdict not in APART]
    print(_total([parity for _, parity in found], len(failed)))
    print(*failed, sep="\n")
    if interrupted:
        print(interruption(arguments.log))
    return 130 if interrupted else 1 if failed else 0


def _tasks(arguments):
    from refquant.cli.pt2e_networks import networks
    from refquant.cli.pt2e_operators import OPERATORS

    modes = ("eager", arguments.networks), ("qat", arguments.qat), ("qat_compiled", arguments.qat_compiled), ("lowered", arguments.lowered), ("compiled", arguments.compiled)
    yield from ((network, mode) for mode, count in modes for network in networks(count, arguments.seed))
    yield from ((operator, "operator") for operator in (OPERATORS if arguments.operators else ()))


def _done(task, mode, arguments, log):
    """Return what the comparison finds and its seconds, from the log if it is there."""
    key = f"{mode}/{task.name}"
    if key not in log.pieces:
        start = time.perf_counter()
        parity = _compared(task, mode, arguments)
        log.add({"key": key, **parity._asdict(), "seconds": time.perf_counter() - start})
    piece = log.pieces[key]
    return Parity(piece["verdict"], piece["counts"], piece["detail"]), piece["seconds"]


def _compared(task, mode, arguments):
    """Compare; a network at which one side stops in a way that nobody foresaw is named, and the run goes on."""
    from refquant.cli.pt2e_parity import compare_operator

    try:
        return compare_operator(task, arguments.seed) if mode == "operator" else _compare_network(task, mode, arguments.strict)
    except Exception as error:
        return Parity("stopped", {}, f"{type(error).__name__}: {error}".partition("\n")[0])


def _total(found, failed):
    """Say how many comparisons agree, and apart from those how many could show nothing."""
    verdicts = [parity.verdict for parity in found]
    agree = verdicts.count("equal")
    apart = [f"; {verdicts.count(verdict)} {words}" for verdict, words in APART.items() if verdict in verdicts]
    numbers, differing = map(sum, zip(*(_numbers(parity) for parity in found), (0, 0)))
    return f"{agree} of {agree + failed} comparisons agree{''.join(apart)}; {differing:,} of {numbers:,} numbers differ"


def _numbers(parity):
    """Return how many numbers were compared, and how many differ."""
    return parity.counts.get("codes", parity.counts.get("numbers", 0)), parity.counts.get("differing", 0)


def _row(name, mode, parity, seconds):
    c, (numbers, differing) = parity.counts, _numbers(parity)
    return tuple(map(str, (name, mode, parity.verdict, c.get("observers", ""), c.get("values", c.get("layers", "")), f"{numbers:,}", f"{differing:,}", f"{seconds:.1f}")))


def _compare_network(network, mode, strict):
    from refquant.backends.torch_module import to_torch
    from refquant.cli import pt2e_parity, pt2e_qat

    model, batches = network.build()
    compare = getattr(pt2e_qat if mode.startswith("qat") else pt2e_parity, f"compare_{mode}")
    return compare(to_torch(model), model, batches, strict=strict)
