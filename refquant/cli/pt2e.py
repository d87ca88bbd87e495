"""PyTorch's PT2E path beside refquant's: annotations, observers, scales and bits of many networks."""

import time

from refquant.errors import BackendMissing

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  refquant pt2e                            40 networks, in eager mode
  refquant pt2e --lowered 12               12 more of them as TorchInductor lowers them, each fused layer compared
  refquant pt2e --networks 200 --seed 7 --strict

The columns: observed tensors, quantized values, codes compared, codes that differ. Real sums run in float64 on both sides, rounded once:
PyTorch's order of summation depends on the processor. Needs torch and torchao. Exit status 1 where anything differs.
"""

_LINE = "{:20} {:8} {:14} {:>9} {:>7} {:>11} {:>9} {:>8}"


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--networks", type=int, default=40, metavar="N", help="how many are quantized in eager mode (40): bundled, published ones at reduced width, random ones")
    parser.add_argument("--lowered", type=int, default=0, metavar="N", help="how many are lowered by TorchInductor as well (0); a few seconds each")
    parser.add_argument("--seed", type=int, default=0, help="of weights and of random networks (0)")
    parser.add_argument("--strict", action="store_true", help="export with strict=True, which tells layers by the call")


def run(arguments):
    """Compare; exit status 1 if anything differs."""
    try:
        import torch
        import torchao  # noqa: F401
    except ImportError as error:
        raise BackendMissing(f"pt2e: needs PyTorch and torchao ({error}); pip install 'refquant[torch]' torchao") from error
    from refquant.cli.pt2e_networks import networks

    torch.set_num_threads(1)
    total, counts, failed = 0, [0, 0], []
    print(_LINE.format("network", "mode", "verdict", "observers", "values", "numbers", "differing", "seconds"))
    for mode, count in (("eager", arguments.networks), ("lowered", arguments.lowered)):
        for network in networks(count, arguments.seed):
            row, found, exact = _one(network, mode, arguments.strict)
            print(_LINE.format(*row), flush=True)
            total += 1
            counts = [a + b for a, b in zip(counts, exact)]
            failed += [] if found.equal or found.verdict == "inductor fails" else [f"{network.name} ({mode}): {found.verdict}: {found.detail}"]
    print(f"{total - len(failed)} of {total} networks agree; {counts[1]:,} of {counts[0]:,} numbers differ")
    print(*failed, sep="\n")
    return 1 if failed else 0


def _one(network, mode, strict):
    """Return the row of a network, its Parity, and the numbers compared and differing."""
    from refquant.backends.torch_module import to_torch
    from refquant.cli import pt2e_parity

    start = time.perf_counter()
    model, batches = network.build()
    compare = pt2e_parity.compare_eager if mode == "eager" else pt2e_parity.compare_lowered
    found = compare(to_torch(model), model, batches, strict=strict)
    c = found.counts
    numbers, differing = c.get("codes", c.get("numbers", 0)), c.get("differing", 0)
    row = network.name, mode, found.verdict, c.get("observers", ""), c.get("values", c.get("layers", "")), f"{numbers:,}", f"{differing:,}", f"{time.perf_counter() - start:.1f}"
    return tuple(map(str, row)), found, (numbers, differing)
