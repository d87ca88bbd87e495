"""Hold engines against the oracle, bit for bit; where an engine is not installed, hold the oracle against bits recorded from it."""

from refquant import backends
from refquant.cli.console import Progress, paint
from refquant.cli.numbers import count, minutes, whole
from refquant.errors import ArgumentError, BackendMissing, choose
from refquant.verify import STREAMS, Case, Status, campaign, check_vectors, read_index, try_case

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  refquant verify                                        all engines, all operators
  refquant verify --engine onednn --op conv2d --outputs 1000000
  refquant verify --engine onednn@avx2 --op linear       oneDNN held to AVX2: products saturate in pairs
  refquant verify --recorded                             golden vectors alone, no engine is asked
  refquant verify --case linear/fbgemm/m5k64n17/neartie/seed=7/per_channel
  refquant verify --model digits_resnet --engine x86     a network, layer by layer
  refquant verify --models                               59 networks under PyTorch's four engines: observers, fusions, scales, codes
  refquant verify --models wide-3 wide-4 --engine x86    two of the random ones
  refquant verify --models mixed-17 mixed-18             two of any number of others: shared modules, parts, operations in place
  refquant verify --models --qat                         the same, prepared for quantization-aware training
  refquant verify --matrix --minutes 10                  every cell that the table calls exact, fresh data, in ten minutes
  refquant verify --matrix --total 1000000000 --log run.jsonl
  refquant verify --matrix --drawn                       and what no list thinks of: drawn shapes, far scales
  refquant verify --model model.onnx                     a quantized ONNX model in ONNX Runtime, every value, node by node
  refquant verify --networks                             nine published networks: in, quantized by three paths, out, and in ONNX Runtime
  refquant verify --exhaustive --only quantize --engine fbgemm --log sweep.jsonl
  refquant verify --power --op conv2d                    after how many outputs default cases tell profiles and planted faults apart
  refquant verify --kernels                              no engine is asked: each kernel of products on all M, N, K up to 70, at each level of processors
  refquant verify --kernels avx512_vnni without-jit      at one level, whose instructions are emulated where they lack, and without the compiler
  refquant verify --list                                 engines, operators, golden vectors

exit status: 0 all bits agree or a named variant explains them, 1 a bit is unexplained, 2 wrong usage, or nothing was compared
"""

_ROW = "{:<19}  {:<11}  {:<8}  {:>12}  {:>9}  {}"
_SHOWN = 3
_OUTPUTS = 50000
# What to do, and the options that go with it.
_MODES = {
    "list": {"vectors"},
    "case": {"engine"},
    "model": {"engine", "data", "numerics"},
    "models": {"engine", "minutes", "qat"},
    "networks": set(),
    "matrix": {"engine", "op", "outputs", "total", "drawn", "seed", "minutes", "workers", "log", "reasons"},
    "exhaustive": {"engine", "only", "sets", "minutes", "workers", "log"},
    "power": {"op", "outputs", "seed", "json"},
    "kernels": set(),
}
_PLAIN = {"engine", "op", "outputs", "seed", "recorded", "vectors", "reasons"}
_COLOUR = {Status.EXACT: "green", Status.DIFFERENT: "red", Status.UNSUPPORTED: "dim", Status.UNTRUSTED: "yellow", Status.EXPLAINED: "yellow"}


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--engine", action="append", metavar="NAME", help="an engine (may be repeated); all unless given")
    parser.add_argument("--op", action="append", metavar="OP", help="an operator (may be repeated); all unless given")
    parser.add_argument("--outputs", type=count, metavar="N", help="outputs to compare for each operator and engine (50000; 1000000 with --matrix)")
    parser.add_argument("--seed", type=whole, metavar="S", help="seed of the cases (0; a fresh one with --matrix)")
    parser.add_argument("--recorded", action="store_true", help="check golden vectors only, also of engines that are installed")
    parser.add_argument("--vectors", metavar="FOLDER", help="golden vectors other than those that come with refquant")
    parser.add_argument("--reasons", action="store_true", help="say why cases were not asked of an engine")
    parser.add_argument("--list", action="store_true", help="list engines, operators and golden vectors")
    networks = parser.add_argument_group("networks")
    networks.add_argument("--model", metavar="NAME", help="compare a bundled network with PyTorch's own workflow, layer by layer, or an ONNX file with ONNX Runtime, node by node")
    networks.add_argument("--models", nargs="*", metavar="NAME", help="compare many networks with PyTorch's own workflow, one line each: published, bundled and random ones; all unless named")
    networks.add_argument("--networks", nargs="*", metavar="FILE.onnx", help="float ONNX networks (the light ones of onnx unless given): import, quantize by every path, export, compare with ONNX Runtime")
    networks.add_argument("--qat", action="store_true", default=None, help="with --models: as for quantization-aware training, with fake-quantizers and layers that round their weights")
    networks.add_argument("--data", metavar="FILE.npz", help="with an ONNX file: images to feed it, as for refquant drift; random numbers unless given")
    networks.add_argument("--numerics", metavar="PROFILE", help="with an ONNX file: the profile to hold ONNX Runtime against (onnxruntime)")
    long = parser.add_argument_group("long runs")
    long.add_argument("--matrix", action="store_true", help="every operator of every engine that the table of operators calls exact, on fresh data")
    long.add_argument("--exhaustive", action="store_true", help="whole domains: every float32, every int32 accumulator, every code, every pair of codes")
    long.add_argument("--kernels", nargs="*", metavar="LEVEL", help="the kernels of products against NumPy on every shape, at levels of refquant.isa, or without-jit; all unless named")
    long.add_argument("--only", action="append", metavar="SWEEP", help="with --exhaustive: quantize, requantize, unary or pairs (may be repeated)")
    long.add_argument("--sets", type=count, metavar="N", help="with --exhaustive: the first N sets of parameters of quantize and requantize alone")
    long.add_argument("--total", type=count, metavar="N", help="with --matrix: go on in all cells until there are so many outputs together")
    long.add_argument("--drawn", action="store_true", default=None, help="with --matrix: shapes drawn at random and numbers far away, too, which still find engines in corners that no profile describes")
    long.add_argument("--minutes", type=minutes, metavar="M", help="with --matrix, --exhaustive or --models: begin nothing after so many minutes")
    long.add_argument("--workers", type=count, metavar="N", help="processes; one for each core unless given")
    long.add_argument("--log", metavar="FILE", help="keep finished pieces there, and go on from them after an interruption")
    cases = parser.add_argument_group("cases")
    cases.add_argument("--case", metavar="LINE", help="try one case, as a failure prints it")
    cases.add_argument("--power", action="store_true", help="no engine is asked: how many outputs default cases need to tell profiles and planted faults apart")
    cases.add_argument("--json", metavar="OUT", help="with --power: write every number to a file")


def _mode(arguments):
    """Return which of `_MODES` is asked for, None where none is; refuse a second one, and options that do not go with it."""
    given = [name for name, value in vars(arguments).items() if value is not None and value is not False]
    modes = [name for name in _MODES if name in given]
    if len(modes) > 1:
        raise ArgumentError(f"verify: --{modes[0]} and --{modes[1]} are two runs; give one of them")
    mode = modes[0] if modes else None
    for name in given:
        if name not in _MODES.get(mode, _PLAIN) and name != mode:
            homes = [f"--{home}" for home, names in _MODES.items() if name in names] or ["a run of cases"]
            homes = " or ".join(filter(None, (", ".join(homes[:-1]), homes[-1])))
            remedy = f"not to --{mode}; leave --{name} out" if mode else f"which is not asked for; add it, or leave --{name} out"
            raise ArgumentError(f"verify: --{name} belongs to {homes}, {remedy}")
    return mode


def run(arguments):
    """Run and return the exit status."""
    mode = _mode(arguments)
    engines = [backends.find(name) for name in arguments.engine or backends.names()]
    ops = [choose("verify", "operator", op, STREAMS) for op in arguments.op or STREAMS]
    if mode == "list":
        return _list(arguments)
    if mode == "case":
        return _case(arguments)
    if mode == "model":
        if arguments.model.endswith(".onnx"):
            from refquant.cli.verify_onnx import compare_onnx

            return compare_onnx(arguments)
        from refquant.cli.verify_model import compare_model

        return compare_model(arguments.model, arguments.engine)
    if mode == "kernels":
        from refquant.cli.verify_kernels import verify_kernels

        return verify_kernels(arguments.kernels)
    if mode == "models":
        from refquant.cli.verify_models import compare_models

        return compare_models(arguments.models, arguments.engine, minutes=arguments.minutes, qat=bool(arguments.qat))
    if mode == "networks":
        from refquant.cli.verify_networks import compare_networks

        return compare_networks(arguments.networks)
    if mode == "matrix":
        from refquant.cli.verify_matrix import verify_matrix

        return verify_matrix(arguments, engines, ops)
    if mode == "exhaustive":
        from refquant.cli.verify_exhaustive import verify_exhaustive

        return verify_exhaustive(arguments, engines)
    if mode == "power":
        from refquant.cli.verify_power import show_power

        return show_power(arguments.op, arguments.outputs or _OUTPUTS, arguments.seed or 0, arguments.json)
    if arguments.vectors:
        read_index(arguments.vectors)
    arguments.outputs, arguments.seed = arguments.outputs or _OUTPUTS, arguments.seed or 0
    return _tables(arguments, engines, ops)


def _list(arguments):
    print("engines")
    for engine in backends.ENGINES:
        state = "installed" if backends.installed(engine.name) else f"not installed: {engine.install}"
        print(f"  {engine.name:<12} {state}")
    print(f"  {', '.join(f'{name}@avx2' for name in backends.HELD)} and so on: the libraries of an engine held to a lower processor level")
    print("\noperators\n  " + "\n  ".join(STREAMS))
    index = read_index(arguments.vectors)
    print("\ngolden vectors")
    for name, source in index["engines"].items():
        entries = [e for e in index["files"].values() if e["engine"] == name]
        print(f"  {name:<16} {sum(e['outputs'] for e in entries):>7,} outputs of {len(entries)} operators; {_source(source)}")
    return 0


def _source(provenance):
    return f"{provenance['package']} {provenance['version']}, {provenance['cpu'].partition(' (')[0]}, {provenance['date']}"


def _case(arguments):
    case = Case.parse(arguments.case)
    for name in arguments.engine or [case.profile]:
        trial = try_case(backends.load(name), case)
        status, detail = trial.outcome
        print(f"{case} on {name}")
        print(paint(detail if detail.startswith(str(status)) else str(trial.outcome), _COLOUR[status]))
        if trial.comparison is not None and status is Status.EXACT:
            print(f"{trial.comparison.outputs:,} outputs, 0 differ")
        if status is Status.EXPLAINED:
            print(f"{trial.comparison.outputs:,} outputs are those of {detail}; see refquant profiles {detail}")
        elif status is not Status.EXACT:
            return 1 if status is Status.DIFFERENT else 2
    return 0


def _tables(arguments, engines, ops):
    live, recorded = _sources(arguments, engines)
    print(_ROW.format("operator", "engine", "bits", "outputs", "differing", "verdict"))
    rows = [_print(arguments, row, "live") for row in _live(arguments, live, ops)]
    rows += [_print(arguments, row, "recorded") for row in _recorded(arguments, recorded, ops)]
    print()
    _summary(arguments, rows, [e for e in recorded if not arguments.recorded])
    if any(row.failures for row in rows):
        return 1
    if not sum(row.outputs for row in rows):
        raise ArgumentError("verify: nothing was compared, so nothing is verified; see refquant verify --reasons and --list")
    return 0


def _sources(arguments, engines):
    """Return (runners to ask, engines whose recorded bits are checked); an engine that was named must be there."""
    live, recorded = [], []
    for engine in engines:
        try:
            if arguments.recorded:
                raise BackendMissing("not asked")
            live.append(backends.load(engine.name))
        except BackendMissing:
            if arguments.engine and not arguments.recorded:
                raise
            recorded.append(engine)
    return live, recorded


def _live(arguments, runners, ops):
    progress = Progress()
    for op in ops:
        for runner in runners:
            report = lambda row: progress.show(f"{row.op} on {row.engine}: {row.outputs:,} of {arguments.outputs:,} outputs")  # noqa: E731
            row = campaign(runner, op, outputs=arguments.outputs, seed=arguments.seed, progress=report)
            progress.clear()
            yield row


def _recorded(arguments, engines, ops):
    if not engines:
        return
    entries = read_index(arguments.vectors)["files"]
    names = {}
    for name, entry in entries.items():
        names.setdefault((entry["op"], entry["engine"].partition("@")[0]), []).append(name)
    for op in ops:
        for engine in engines:
            for name in names.get((op, engine.name), ()):
                yield check_vectors(name, arguments.vectors)


def _print(arguments, row, bits):
    if row.status is Status.UNSUPPORTED and not (arguments.op or arguments.reasons):
        return row
    verdict = paint(str(row.status), _COLOUR[row.status])
    print(_ROW.format(row.op, row.engine, bits, f"{row.outputs:,}", f"{row.differing:,}", verdict), flush=True)
    for name, cases in row.explained.items():
        print(f"    {_number(range(cases), 'case')} of {row.cases}: the engine gives the bits of {name}; see refquant profiles {name}")
    for trial in row.failures[:_SHOWN]:
        repeat = f"refquant verify --case {trial.case}" if bits == "live" else f"recorded case {trial.case}"
        print(f"    {repeat}")
        print("      " + trial.outcome.detail.replace("\n", "\n      "))
    if len(row.failures) > _SHOWN:
        print(f"    and {len(row.failures) - _SHOWN} more cases of {row.cases}")
    return row


def _summary(arguments, rows, missing):
    total, differing = sum(row.outputs for row in rows), sum(row.differing for row in rows)
    colour = "red" if any(row.failures for row in rows) else "green"
    asked = [row for row in rows if row.status is not Status.UNSUPPORTED]
    what = f"{_number({r.op for r in asked}, 'operator')} on {_number({r.engine.partition('@')[0] for r in asked}, 'engine')}"
    print(paint(f"{total:,} outputs of {what} compared, {differing:,} differ", colour))
    _reasons(arguments, rows, len(rows) - len(asked))
    if missing:
        _advice(arguments, missing)


def _reasons(arguments, rows, without):
    """Say how much was not compared, and with --reasons why."""
    total = {}
    for row in rows:
        for reason, number in row.reasons.items():
            total[reason] = total.get(reason, 0) + number
    if total and not arguments.reasons:
        print(f"{sum(total.values()):,} cases do not count, and {without} times an engine has no such operator (--reasons says why)")
    elif total:
        print("cases that do not count:")
        for reason, number in sorted(total.items(), key=lambda item: -item[1]):
            print(f"  {number:>6,}  {reason}")


def _number(items, name):
    return f"{len(items):,} {name}" + ("" if len(items) == 1 else "s")


def _advice(arguments, missing):
    """Say which engines would be asked if they were there, and where the recorded bits come from."""
    index = read_index(arguments.vectors)["engines"]
    commands = {}
    for engine in missing:
        commands.setdefault(engine.install, []).append(engine)
    print()
    for command, engines in commands.items():
        names = ", ".join(engine.name for engine in engines)
        sources = {_source(index[engine.name]) for engine in engines if engine.name in index}
        print(f"not installed: {names}. Checked against bits recorded from {' and '.join(sorted(sources)) or 'nothing'}.")
        print(f"  to ask the engine itself: {command}")
