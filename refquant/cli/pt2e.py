"""PyTorch's PT2E path beside refquant's: annotations, observers, scales and bits of many networks."""

import logging
import time

from refquant.cli.numbers import whole
from refquant.errors import ArgumentError, BackendMissing

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  refquant pt2e                            40 networks, in eager mode
  refquant pt2e --lowered 12               12 of them as TorchInductor lowers them too, each fused layer compared
  refquant pt2e --networks 0 --compiled 3  3 of them compiled by TorchInductor: what its C++ and oneDNN compute
  refquant pt2e --networks 0 --operators   single operators, compiled
  refquant pt2e --networks 200 --seed 7 --strict

The columns: observed tensors; quantized values, or fused layers; numbers compared; numbers that differ.
Calibration, and what runs eagerly or lowered, sums real numbers in float64 on both sides, rounded once: PyTorch's order depends on the processor.
A compiled program runs as it is: what each fused layer reads, what it computes, and the outputs, beside the oracle's in the order of the generated C++.
What both sides refuse, what TorchInductor itself fails at, and what refquant refuses to describe is counted apart.
Needs torch and torchao, and --compiled a C++ compiler.

exit status: 0, 1 where anything differs, 2 wrong usage
"""

# Comparisons that show neither agreement nor a difference, and how the total calls them.
_APART = {"both refuse": "refused by both sides", "inductor fails": "at which TorchInductor itself fails", "not described": "with a float32 layer whose order is not described"}
_LINE = "{:26} {:8} {:14} {:>9} {:>7} {:>11} {:>9} {:>8}"


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--networks", type=whole, default=40, metavar="N", help="how many are quantized in eager mode (40): bundled, published ones at reduced width, random ones")
    parser.add_argument("--lowered", type=whole, default=0, metavar="N", help="how many are lowered by TorchInductor as well (0); a few seconds each")
    parser.add_argument("--compiled", type=whole, default=0, metavar="N", help="how many are compiled by TorchInductor, C++ and all, as well (0); half a minute each")
    parser.add_argument("--operators", action="store_true", help="compile single operators as well, on special numbers and ties; some seconds each")
    parser.add_argument("--seed", type=whole, default=0, metavar="S", help="of weights and of random networks (0)")
    parser.add_argument("--strict", action="store_true", help="export with strict=True, which tells layers by the call")


def run(arguments):
    """Compare; exit status 1 if anything differs."""
    logging.getLogger("torchao").setLevel(logging.ERROR)  # It warns of extensions for GPUs, which nothing here asks for.
    try:
        import torch
        import torchao  # noqa: F401
    except ImportError as error:
        raise BackendMissing(f"pt2e: needs PyTorch and torchao ({error}); pip install 'refquant[torch]' torchao") from error
    from refquant.cli.pt2e_networks import networks
    from refquant.cli.pt2e_operators import OPERATORS
    from refquant.cli.pt2e_parity import compare_operator

    torch.set_num_threads(1)
    modes = ("eager", arguments.networks), ("lowered", arguments.lowered), ("compiled", arguments.compiled)
    tasks = [(network, mode) for mode, count in modes for network in networks(count, arguments.seed)]
    tasks += [(operator, "operator") for operator in (OPERATORS if arguments.operators else ())]
    if not tasks:
        raise ArgumentError("pt2e: nothing is compared; give --networks, --lowered or --compiled a number above 0, or --operators")
    found = []
    print(_LINE.format("network", "mode", "verdict", "observers", "values", "numbers", "differing", "seconds"))
    for task, mode in tasks:
        start = time.perf_counter()
        parity = compare_operator(task, arguments.seed) if mode == "operator" else _compare_network(task, mode, arguments.strict)
        print(_LINE.format(*_row(task.name, mode, parity, time.perf_counter() - start)), flush=True)
        found.append((f"{task.name} ({mode})", parity))
    failed = [f"{name}: {parity.verdict}: {parity.detail}" for name, parity in found if not parity.equal and parity.verdict not in _APART]
    print(_total([parity for _, parity in found], len(failed)))
    print(*failed, sep="\n")
    return 1 if failed else 0


def _total(found, failed):
    """Say how many comparisons agree, and apart from those how many could show nothing."""
    verdicts = [parity.verdict for parity in found]
    agree = verdicts.count("equal")
    apart = [f"; {verdicts.count(verdict)} {words}" for verdict, words in _APART.items() if verdict in verdicts]
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
    from refquant.cli import pt2e_parity

    model, batches = network.build()
    return getattr(pt2e_parity, f"compare_{mode}")(to_torch(model), model, batches, strict=strict)
