"""Standalone modules: parts of a model that are prepared and converted for themselves, as `cut` takes them out and `splice` puts them back."""

from typing import NamedTuple

from refquant.errors import ArgumentError, UnsupportedError
from refquant.graph.node import Node

__all__ = ["StandaloneModule", "cut", "splice"]


class StandaloneModule(NamedTuple):
    """How one part is prepared; None is what its surroundings have.

    Attributes
    ----------
    qconfig_mapping : QConfigMapping or None
    example_inputs : tuple of ndarray
    prepare_custom_config : PrepareCustomConfig
    backend_config : BackendConfig or None
    """

    qconfig_mapping: object
    example_inputs: tuple
    prepare_custom_config: object
    backend_config: object


def cut(model, path, place, layers=False):
    """Take the part of a path out of a model.

    Parameters
    ----------
    model : Model
    path : str
        Of a module: the part is all nodes in it.
    place : str
        For messages.
    layers : bool
        Whether the part may be a single layer.

    Returns
    -------
    (Model, str, Model)
        The model with one ``call`` node for the part, that node's name, and the part: its paths begin at the part, its inputs come in the order in which its nodes read them.

    Raises
    ------
    ArgumentError
        No such part, or one that is not closed: several outputs, no input, a way out and in again.
    UnsupportedError
        A single layer, or a part that may be two calls of one module.
    """
    part = [n for n in model.nodes if n.op != "input" and f"{n.path}.".startswith(f"{path}.")]
    place = f"{place} {path!r}"
    _check_layers(part, path, place, layers)
    inside = {n.name for n in part}
    read = list(dict.fromkeys(i for n in part for i in n.inputs if i not in inside))
    outputs = [n.name for n in part if n.name in model.outputs or any(m.name not in inside for m in model.users(n.name))]
    if len(outputs) != 1 or not read:
        raise ArgumentError(f"{place}: has {len(read)} inputs and {len(outputs)} outputs ({', '.join(outputs)}) but must have inputs and one output; name a module that returns one value")
    _check_closed(model, inside, place)
    name = path.replace(".", "_")
    name = _free(name if name.isidentifier() else f"_{name}", {n.name for n in model.nodes} - inside)
    inputs = {value: _free(f"{name}_input_{k}", inside) for k, value in enumerate(read)}
    given = [Node(new, "input", attrs=_input_attrs(model.node(value))) for value, new in inputs.items()]
    own = [n.replace(inputs=[inputs.get(i, i) for i in n.inputs], path=n.path[len(path) + 1 :]) for n in part]
    classes = {inner[len(path) + 1 :]: kind for inner, kind in model.classes.items() if inner.startswith(f"{path}.")}
    taken = model.with_nodes([*given, *own], outputs=outputs, name=f"{model.name}.{path}", classes=classes)
    whole = Node(name, "call", read, {"part": taken}, path=path)
    nodes, at = [n.replace(inputs=[name if i in inside else i for i in n.inputs]) for n in model.nodes if n.name not in inside], model.nodes.index(part[0])
    outer = model.with_nodes([*nodes[:at], whole, *nodes[at:]], outputs=[name if o in inside else o for o in model.outputs])
    return outer, name, taken


def _input_attrs(node):
    return {"dtype": node.attrs["dtype"]} if node.op == "input" else {}


def _check_layers(part, path, place, layers):
    if not part:
        raise ArgumentError(f"{place}: no node lies in it; name a module by its dotted path, as in model.nodes[i].path")
    if not layers and any(n.is_module and n.path == path for n in part):
        raise UnsupportedError(f"{place}: is a layer, which PyTorch would trace into functions of its parameters; name a module that contains it, or give the layer a QConfig by set_module_name")
    calls = [(n.op, n.path) for n in part]
    if any(calls == calls[:k] * (len(calls) // k) for k in range(1, len(calls) // 2 + 1)):
        raise UnsupportedError(f"{place}: its nodes repeat, so that it may be called more than once; give each call a module of its own")


def _check_closed(model, inside, place):
    behind = set()
    for node in model.nodes:
        reached = any(i in inside or i in behind for i in node.inputs)
        if node.name in inside and any(i in behind for i in node.inputs):
            raise ArgumentError(f"{place}: {node.name!r} reads what comes from the part through nodes outside of it; a part must be one region, called once")
        if reached and node.name not in inside:
            behind.add(node.name)


def _free(name, taken):
    while name in taken:
        name += "_"
    return name


def splice(outer, parts):
    """Put parts back into the model that they were taken from.

    Parameters
    ----------
    outer : Model
        With nodes that stand for parts.
    parts : dict of str to Model
        By the names of those nodes.

    Returns
    -------
    Model
        Nodes of parts keep their names, unless something else has them.
    """
    nodes, renamed, taken = [], {}, {n.name for n in outer.nodes} - set(parts)
    for node in outer.nodes:
        node = node.replace(inputs=[renamed.get(i, i) for i in node.inputs])
        if node.name not in parts:
            nodes.append(node)
            continue
        part = parts[node.name]
        names = dict(zip(part.inputs, node.inputs))
        for inner in part.nodes:
            if inner.op == "input":
                continue
            own = names[inner.name] = inner.name if inner.name not in taken else _free(f"{node.name}_{inner.name}", taken)
            taken.add(own)
            sources = (own,) if inner.sources == (inner.name,) else inner.sources
            nodes.append(inner.replace(name=own, inputs=[names[i] for i in inner.inputs], path=f"{node.path}.{inner.path}".rstrip("."), sources=sources))
        renamed[node.name] = names[part.outputs[0]]
    return outer.with_nodes(nodes, outputs=[renamed.get(o, o) for o in outer.outputs])
