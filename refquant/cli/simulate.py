"""Predict which kernels an INT8 network runs by on a machine, and how fast: from shapes, dispatch rules and a roofline, without running it."""

import json
import os
import shutil

from refquant.cli.console import paint, table
from refquant.cli.numbers import count, whole
from refquant.errors import ArgumentError, choose

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  refquant simulate resnet50 --machine xeon-8358 --cores 4            its kernels, why each was chosen, and the time of each
  refquant simulate mobilenet_v2 --machine core-155h --engine onednn  a laptop without AVX-512
  refquant simulate resnet50 --instances 8 --top 0                    eight instances of 4 cores share a socket; totals alone
  refquant simulate model.onnx --machine mine.json                    a network and a machine of your own: {"like": "xeon-8358", "cores": 8}
  refquant simulate --machines                                        the machines
  refquant simulate --published                                       published speeds beside the prediction, with the errors

This is about speed. What quantization does to a network's outputs: refquant drift, and refquant compare-paths --simulate.
"""


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="an architecture of refquant zoo, a bundled network, an ONNX file or refquant's own")
    parser.add_argument("--machine", default="xeon-8358", metavar="NAME", help="a machine, or a JSON file (default: xeon-8358)")
    parser.add_argument("--cores", type=count, default=4, metavar="N", help="cores of one instance (default: 4)")
    parser.add_argument("--engine", default="x86", metavar="NAME", help="x86, fbgemm, onednn (default: x86)")
    parser.add_argument("--batch", type=count, default=1, metavar="N", help="inputs at a time (default: 1)")
    parser.add_argument("--instances", type=count, default=1, metavar="N", help="that run on the machine at once, each on its own cores (default: 1)")
    parser.add_argument("--size", type=count, metavar="N", help="of an architecture: height and width, or the number of tokens")
    parser.add_argument("--width", type=float, default=1.0, metavar="F", help="of an architecture: factor of all channels")
    parser.add_argument("--top", type=whole, metavar="N", help="list the N slowest calls (default: all)")
    parser.add_argument("--machines", action="store_true", help="list the machines and where their figures come from")
    parser.add_argument("--published", action="store_true", help="compare with published speeds, fit anew, and predict each network from the others")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments):
    """Predict and print; exit status 0."""
    others = [name for name in ("machines", "published") if getattr(arguments, name)]
    if len(others) + (arguments.model is not None) != 1:
        raise ArgumentError("simulate: give one of MODEL, --machines and --published; see refquant simulate --help")
    if arguments.machines:
        return _machines(arguments.json)
    if arguments.published:
        from refquant.cli.simulate_published import run_published

        return run_published(arguments.json)
    return _simulate(arguments)


def _simulate(arguments):
    from refquant.perf import get_machine, simulate

    if arguments.top is not None and arguments.top < 0:
        raise ArgumentError(f"simulate: --top {arguments.top} must be at least 0; give a number of calls")
    machine = get_machine(arguments.machine)
    report = simulate(_model(arguments), machine, arguments.cores, arguments.engine, arguments.batch, instances=arguments.instances)
    if arguments.json:
        print(json.dumps(report.to_dict(), indent=1))
        return 0
    title, *rest = report.to_text(min(max(shutil.get_terminal_size((130, 24)).columns, 100), 160), arguments.top).split("\n")
    print(paint(title, "bold"), *rest, sep="\n", end="")
    return 0


def _model(arguments):
    from refquant import data, zoo
    from refquant.cli.drift import load_network

    name = arguments.model
    if name in zoo.architectures():
        return zoo.build(name, size=arguments.size, width=arguments.width, empty=True)
    if arguments.size is not None or arguments.width != 1:
        raise ArgumentError(f"simulate: --size and --width go with an architecture of refquant zoo, but {name} is none; leave them out")
    if not (os.path.exists(name) or name.endswith((".onnx", ".npz"))):
        choose("simulate", "model", name, [*data.NETWORKS, *zoo.architectures()])
    return load_network(name, "simulate")


def _machines(as_json):
    from dataclasses import asdict

    from refquant.perf import MACHINES

    if as_json:
        print(json.dumps([asdict(machine) for machine in MACHINES], indent=1))
        return 0
    rows = [("machine", "processor", "level", "cores", "GHz", "float32", "INT8", "L2 KiB", "L3 MiB", "GB/s")]
    for m in MACHINES:
        int8 = max(m.tile, m.dot, m.pairs)
        rows.append((m.name, m.title, m.level, str(m.cores), f"{m.ghz:g}", f"{m.fp32:g}", f"{int8:.4g}", f"{m.l2_kib:g}", f"{m.l3_mib:g}", f"{m.dram_gbps:g}"))
    print(*table(rows, right=range(3, 10)), "", "float32 and INT8: operations a cycle and core, a multiply-add counts as two", sep="\n")
    print(*(f"{m.name}: {m.source}" for m in MACHINES), sep="\n")
    return 0
