"""The structure of a model: every name defined once and before it is used, every operator known, every size sane."""

from refquant.errors import ArgumentError, UnsupportedError, choose
from refquant.interop.onnx.dtypes import type_of_number
from refquant.interop.onnx.model import OnnxInput, OnnxModel, OnnxNode, check_arity
from refquant.interop.onnx.table import NEWEST, find_executor, supported_operators
from refquant.interop.onnx.tensors import array_of, attribute_of

__all__ = ["checked_opsets", "checked_graph", "node_of"]

_MOST_NODES = 200_000


def checked_opsets(proto):
    """Return ``{domain: version}`` of a model."""
    if not proto.HasField("graph"):
        raise ArgumentError("from_onnx: the model has no graph; the file is no ONNX model, or was cut off")
    if len(proto.functions):
        names = [f.name for f in proto.functions][:3]
        raise UnsupportedError(f"from_onnx: the model defines functions ({', '.join(names)}); inline them first: onnx.inliner.inline_local_functions")
    opsets = {}
    for entry in proto.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if opsets.setdefault(domain, entry.version) != entry.version:
            raise ArgumentError(f"from_onnx: operator set {domain or 'ai.onnx'!r} is imported in two versions; the file is damaged, export it again")
    if not opsets:
        raise ArgumentError("from_onnx: the model imports no operator set; the file is damaged, export it again")
    for domain, version in opsets.items():
        newest = NEWEST.get(domain)
        if version < 1 or (newest and version > newest):
            raise UnsupportedError(
                f"from_onnx: operator set {domain or 'ai.onnx'} {version} is outside of 1 … {newest}; convert the model: onnx.version_converter"
            )
    return opsets


def node_of(proto, index, opsets, external=None):
    """Return the `OnnxNode` of a ``NodeProto``, with its attributes read and its operator found."""
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    name = proto.name or f"{proto.op_type}_{index}"
    place = f"{proto.op_type} {name!r}"
    if domain not in opsets and domain != "com.microsoft":
        raise ArgumentError(f"{place}: operator set {domain or 'ai.onnx'!r} is not imported; the file is damaged, export it again")
    version = opsets.get(domain, 1)
    executor = find_executor(proto.op_type, domain, version)
    if executor is None:
        near = supported_operators(proto.op_type, domain)
        raise UnsupportedError(f"{place}: operator {domain or 'ai.onnx'}.{proto.op_type} (version {version}) is not supported; {near}")
    attrs = {}
    for attribute in proto.attribute:
        if attribute.name in attrs:
            raise ArgumentError(f"{place}: attribute {attribute.name!r} stands there twice; the file is damaged, export it again")
        attrs[attribute.name] = attribute_of(attribute, place, external)
    _check_attributes(proto, domain, version, place)
    inputs = list(proto.input)
    while inputs and not inputs[-1]:
        inputs.pop()
    check_arity(executor.run, len(inputs), place)
    return OnnxNode(name, proto.op_type, domain, tuple(inputs), tuple(proto.output), attrs, version, executor.run)


def _check_attributes(proto, domain, version, place):
    """Hold attributes against the operator's schema, where onnx has one: their names, their types, and that none is missing."""
    from onnx import defs

    try:
        schema = defs.get_schema(proto.op_type, version, domain)
    except defs.SchemaError:
        return
    for attribute in proto.attribute:
        known = schema.attributes.get(attribute.name)
        if known is None:
            raise ArgumentError(
                f"{place}: attribute {attribute.name!r} does not exist in version {version}, which has {sorted(schema.attributes)}; export the model again"
            )
        if int(known.type.value if hasattr(known.type, "value") else known.type) != attribute.type:
            raise ArgumentError(
                f"{place}: attribute {attribute.name!r} is of type {attribute.type} but must be {known.type}; the file is damaged, export it again"
            )
    missing = [name for name, known in schema.attributes.items() if known.required and name not in {a.name for a in proto.attribute}]
    if missing:
        raise ArgumentError(f"{place}: attribute {missing[0]!r} is required but missing; the file is damaged, export it again")


def checked_graph(proto, opsets, external, numerics, outputs=None):
    """Return the `OnnxModel` of a ``ModelProto``, cut to `outputs` if they are given."""
    graph = proto.graph
    if len(graph.node) > _MOST_NODES:
        raise UnsupportedError(f"from_onnx: the graph has {len(graph.node)} nodes, more than {_MOST_NODES}; split the model")
    if len(graph.sparse_initializer):
        raise UnsupportedError("from_onnx: sparse initializers are not supported; store them dense")
    constants = _constants(graph, external)
    inputs = [_input(info, graph) for info in graph.input if info.name not in constants]
    names = [i.name for i in inputs]
    if len(set(names)) != len(names):
        raise ArgumentError(f"from_onnx: inputs {names} repeat a name; the file is damaged, export it again")
    _check_flow(graph, {*constants, *names})
    wanted = [info.name for info in graph.output] if outputs is None else list(outputs)
    nodes = _nodes(graph, opsets, external, _needed(graph, wanted, {*constants, *names}))
    if len({node.name for node in nodes}) != len(nodes):
        nodes = [node._replace(name=f"{node.name}_{i}") for i, node in enumerate(nodes)]
    return OnnxModel(nodes, inputs, wanted, constants, numerics)


def _nodes(graph, opsets, external, positions):
    """Return the nodes, or refuse all at once whose operators are not supported."""
    nodes, refused = [], []
    for i in positions:
        try:
            nodes.append(node_of(graph.node[i], i, opsets, external))
        except UnsupportedError as error:
            refused.append(error)
    if len(refused) == 1:
        raise refused[0]
    if refused:
        raise UnsupportedError(f"from_onnx: {len(refused)} of its nodes are not supported: {'; '.join(str(error) for error in refused)}")
    return nodes


def _needed(graph, wanted, given):
    """Return the positions of the nodes that some values depend on; the others are not even looked at."""
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    for name in wanted:
        choose("from_onnx", "output", name, [*makers, *given])
    keep, path = set(), list(wanted)
    while path:
        i = makers.get(path.pop())
        if i is not None and i not in keep:
            keep.add(i)
            path.extend(graph.node[i].input)
    return sorted(keep)


def _constants(graph, external):
    constants = {}
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in constants:
            raise ArgumentError(f"from_onnx: initializer {tensor.name!r} has no name or one that is taken; the file is damaged, export it again")
        constants[tensor.name] = array_of(tensor, "initializer", external)
    return constants


def _input(info, graph):
    place = f"input {info.name!r}"
    kind = info.type.WhichOneof("value")
    if not info.name or kind is None:
        raise ArgumentError(f"from_onnx: {place} has no name or no type; the file is damaged, export it again")
    if kind != "tensor_type":
        takers = [_label(node, i) for i, node in enumerate(graph.node) if info.name in node.input]
        raise UnsupportedError(f"from_onnx: {place} of {takers[0] if takers else 'the graph'} has the type {kind.removesuffix('_type')}; refquant takes tensors")
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return OnnxInput(info.name, type_of_number(tensor.elem_type, place), None)
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    if any(n is not None and n < 0 for n in shape):
        shape = tuple(None if n is not None and n < 0 else n for n in shape)
    return OnnxInput(info.name, type_of_number(tensor.elem_type, place), shape)


def _check_flow(graph, defined):
    """Refuse values that are never defined, defined twice, or depend on themselves."""
    makers = {}
    for i, node in enumerate(graph.node):
        for name in node.output:
            if name and (name in makers or name in defined):
                raise ArgumentError(f"from_onnx: value {name!r} is defined twice, again by {_label(node, i)}; the file is damaged, export it again")
            if name:
                makers[name] = i
    known = set(defined)
    for i, node in enumerate(graph.node):
        for name in node.input:
            if name and name not in known:
                _explain_missing(graph, makers, name, i)
        known.update(node.output)
    if not len(graph.output):
        raise ArgumentError("from_onnx: the graph has no output; the file is damaged, export it again")
    for info in graph.output:
        if info.name not in known or not info.name:
            raise ArgumentError(f"from_onnx: output {info.name!r} is computed by no node; the file is damaged, export it again")


def _label(node, index):
    return f"{node.op_type} {node.name or f'{node.op_type}_{index}'!r}"


def _explain_missing(graph, makers, name, index):
    place = _label(graph.node[index], index)
    if name not in makers:
        raise ArgumentError(
            f"from_onnx: {place} needs {name!r}, which is no input, initializer or earlier output; the initializer is missing, export the model again"
        )
    path, seen = [name], set()
    while path:
        current = path.pop()
        maker = makers.get(current)
        if maker is None or maker in seen:
            continue
        if maker == index:
            raise ArgumentError(f"from_onnx: {place} depends on its own output by way of {name!r}; the graph is cyclic, export the model again")
        seen.add(maker)
        path.extend(n for n in graph.node[maker].input if n)
    later = _label(graph.node[makers[name]], makers[name])
    raise ArgumentError(f"from_onnx: {place} needs {name!r}, which {later} computes only later; sort the nodes topologically")
