"""``refquant verify --model M.onnx``: a quantized network in ONNX Runtime, every value beside the oracle's, node by node."""

from dataclasses import dataclass

import numpy as np

from refquant import numerics as profiles
from refquant.backends.machine import profile_here
from refquant.cli.console import Progress, paint, table
from refquant.cli.drift import read_data
from refquant.cli.onnx_layers import problem_of
from refquant.errors import ArgumentError, RefquantError, ShapeError, UnsupportedError, choose
from refquant.verify.compare import compare

__all__ = ["NodeCheck", "compare_onnx", "walk", "verify_onnx", "on_codes"]

_SHOWN = 12
#: Nodes on real numbers that nobody promises the last bit of: sums without an order, and functions of a library.
STATUSES = ("EXACT", "LOCAL", "INHERITED", "REAL", "UNKNOWN")


@dataclass(frozen=True)
class NodeCheck:
    """One node of the model as ONNX Runtime fused it.

    Attributes
    ----------
    name, op : str
    outputs, local, total : int
        Elements; those that differ when the oracle is given the engine's own inputs; those that differ when it goes its own way from the start.
    status : str
        ``EXACT``; ``LOCAL``: differs on the engine's own inputs; ``INHERITED``: differs because an earlier node does; ``REAL``: float32 sums or
        functions, in whose last bits the oracle does not claim to be the engine; ``UNKNOWN``: an operator that refquant lacks.
    node : OnnxNode or None
    inputs : list
        The engine's.
    actual : ndarray or None
        The engine's first output.
    expected : ndarray or None
        The oracle's, on those inputs.
    """

    name: str
    op: str
    outputs: int
    local: int
    total: int
    status: str
    node: object
    inputs: list
    actual: np.ndarray
    expected: np.ndarray


def _differing(a, b):
    return 0 if np.shape(a) == np.shape(b) and compare(a, b, nan_equal=True).exact else compare(a, b, nan_equal=True).differing


def _only_real(arrays):
    return all(np.asarray(a).dtype.kind == "f" for a in arrays if a is not None)


def walk(model, theirs, feeds, numerics=None):
    """Hold every node of a model against what an engine computed.

    Parameters
    ----------
    model : bytes
        The model as the engine fused it.
    theirs : dict of str to ndarray
        Every value of it, by the engine.
    feeds : dict of str to ndarray
    numerics : str or Numerics, optional
        ONNX Runtime's on this processor unless given.

    Returns
    -------
    list of NodeCheck
        In order of execution.
    """
    from refquant.interop.onnx.checks import checked_opsets, node_of
    from refquant.interop.onnx.load import read_proto
    from refquant.interop.onnx.rules import rules_of
    from refquant.interop.onnx.tensors import array_of

    proto, _ = read_proto(model)
    profile, opsets = profiles.get(numerics or profile_here("onnxruntime")), checked_opsets(proto)
    constants = {t.name: array_of(t, "initializer", None) for t in proto.graph.initializer}
    theirs, ours = {**constants, **feeds, **theirs}, {**constants, **feeds}
    checks = []
    for i, message in enumerate(proto.graph.node):
        try:
            node = node_of(message, i, opsets)
        except UnsupportedError:
            ours.update({name: theirs[name] for name in message.output if name})
            checks.append(NodeCheck(message.name, message.op_type, 0, 0, 0, "UNKNOWN", None, [], None, None))
            continue
        checks.append(_check_node(node, ours, theirs, profile, rules_of(profile)))
    return checks


def _check_node(node, ours, theirs, profile, rules):
    from refquant.interop.onnx.model import run_node

    names = [name for name in node.outputs if name]
    inputs, own = ([values[name] if name else None for name in node.inputs] for values in (theirs, ours))
    expected = run_node(node, inputs, profile, rules)
    same = all(a is b or np.array_equal(a, b) for a, b in zip(inputs, own) if a is not None)
    computed = expected if same else run_node(node, own, profile, rules)
    local, total = (sum(_differing(theirs[name], y) for name, y in zip(names, values)) for values in (expected, computed))
    status = "LOCAL" if local else "INHERITED" if total else "EXACT"
    if local and _only_real([*inputs, *expected]):
        status = "REAL"
        computed = [theirs[name] for name in names]
    ours.update(zip(names, computed))
    outputs = sum(np.asarray(theirs[name]).size for name in names)
    return NodeCheck(node.name, node.op, outputs, local, total, status, node, inputs, np.asarray(theirs[names[0]]), np.asarray(expected[0]))


def explain(check, numerics, seconds=20.0):
    """Return lines that say why a node differs on the engine's own inputs."""
    problem = problem_of(check.node, check.inputs)
    if problem is not None:
        from refquant.verify.diagnosis import diagnose

        try:
            return str(diagnose(problem.op, actual=check.actual, numerics=numerics, seconds=seconds, **problem.arguments)).splitlines()
        except RefquantError as error:
            return [f"no diagnosis: {error}", *str(compare(check.actual, check.expected)).splitlines()]
    return ["no diagnosis, as the node is not a single operator of refquant's", *str(compare(check.actual, check.expected)).splitlines()]


def verify_onnx(path, *, data=None, numerics=None, progress=lambda text: None):
    """Run a model in ONNX Runtime and by the oracle.

    Parameters
    ----------
    path : str
    data : str, optional
        A file of arrays with ``x``; random numbers unless given.
    numerics : str or Numerics, optional
        ONNX Runtime's on this processor unless given: without VNNI, pairs of products saturate.
    progress : callable

    Returns
    -------
    (list of NodeCheck, Trace, int)
        The last: elements of the outputs in which the model as refquant fuses it differs from the session.
    """
    from refquant.backends.onnx_trace import trace_model
    from refquant.interop import from_onnx

    numerics = numerics or profile_here("onnxruntime")
    progress("reading the model")
    whole = from_onnx(path, numerics=numerics, as_graph=False)
    feeds = _feeds(whole.signature, data)
    progress("ONNX Runtime")
    trace = trace_model(path, feeds)
    progress("the oracle, node by node")
    checks = walk(trace.model, trace.values, feeds, numerics)
    progress("the oracle, as refquant fuses the model")
    mine = whole.run(feeds)
    return checks, trace, sum(_differing(trace.outputs[name], y) for name, y in zip(whole.outputs, mine))


def _feeds(signature, data):
    if data is not None:
        if len(signature) != 1:
            raise ArgumentError(f"verify: --data feeds one input but the model has {len(signature)}: {[s.name for s in signature]}; leave --data out")
        x, _, _ = read_data(data, labels=False, place="verify --model")
        (wanted,) = signature
        fixed = wanted.shape[0] if wanted.shape else None
        return {wanted.name: x[: fixed or 4]}
    feeds = {}
    for k, wanted in enumerate(signature):
        if wanted.shape is None:
            raise ShapeError(f"verify: input {wanted.name!r} has no shape, so no data can be made up for it; give --data FILE.npz")
        shape, rng = tuple(n or (4 if i == 0 else 1) for i, n in enumerate(wanted.shape)), np.random.default_rng(k)
        if wanted.type.name != "float32" and wanted.type.name not in ("uint8", "int8"):
            raise ArgumentError(f"verify: input {wanted.name!r} is {wanted.type.name}, for which no data can be made up; cut the model so that it takes float32 or codes")
        feeds[wanted.name] = rng.standard_normal(shape).astype(np.float32) if wanted.type.name == "float32" else rng.integers(0, 256, shape).astype(np.uint8).view(wanted.type.name)
    return feeds


def compare_onnx(arguments):
    """Verify a file, print a table; return the exit status."""
    engine, *others = arguments.engine or ["onnxruntime"]
    choose("verify", "engine of an ONNX model", engine, ["onnxruntime"])
    if others:
        raise ArgumentError("verify: an ONNX model is compared with one engine, onnxruntime; name no other")
    numerics, line = arguments.numerics or profile_here("onnxruntime"), Progress()
    checks, trace, fused = verify_onnx(arguments.model, data=arguments.data, numerics=numerics, progress=line.show)
    line.clear()
    return _report(arguments.model, checks, trace, fused, numerics)


def _report(name, checks, trace, fused, numerics):
    count = {status: sum(check.status == status for check in checks) for status in STATUSES}
    outputs = sum(check.outputs for check in checks if check.status not in ("REAL", "UNKNOWN"))
    if not any(on_codes(check) for check in checks):
        raise ArgumentError(f"verify: {name} has no node on codes, so there is nothing to verify; give a quantized model, as onnxruntime.quantization writes it")
    print(f"{name}: {len(checks)} nodes as ONNX Runtime fused them, {outputs:,} values in between and outputs, under {numerics}")
    print(f"  the fused model, without further rewriting, gives {'the very outputs' if not trace.faithful else f'{trace.faithful:,} other outputs than those'} of a session with all optimizations")
    print(f"  the model as refquant fuses it: {fused:,} of {sum(y.size for y in trace.outputs.values()):,} outputs differ from the session's")
    wrong = [check for check in checks if check.status in ("LOCAL", "INHERITED")]
    shown = [check for check in checks if check.status != "EXACT"][:_SHOWN]
    if shown:
        rows = [("node", "operator", "values", "on its own inputs", "from the start", "verdict")]
        rows += [(c.name, c.op, f"{c.outputs:,}", f"{c.local:,}", f"{c.total:,}", c.status) for c in shown]
        print(*table(rows, right={2, 3, 4}), sep="\n")
    first = next((check for check in checks if check.status == "LOCAL"), None)
    if first is not None:
        print(paint(f"first node that differs on the engine's own inputs: {first.op} {first.name!r}", "red"))
        print("\n".join(f"  {text}" for text in explain(first, numerics)))
    failed = bool(wrong) or bool((fused or trace.faithful) and not count["REAL"] + count["UNKNOWN"])
    told = ", ".join(f"{count[status]} {words}" for status, words in _WORDS.items() if count[status])
    print(paint(told, "red" if failed else "green"))
    return 1 if failed else 0


def on_codes(check):
    """Whether a node takes or gives codes."""
    arrays = [a for a in (*check.inputs, check.actual) if a is not None]
    return any(a.dtype in (np.uint8, np.int8) for a in arrays)


_WORDS = {
    "EXACT": "nodes exact", "LOCAL": "differing on the engine's own inputs", "INHERITED": "differing because an earlier node does",
    "REAL": "float32 nodes whose last bits nobody promises", "UNKNOWN": "nodes that refquant lacks, taken from the engine",
}  # fmt: skip
