"""Custom modules: parts of a model whose place an object of the user's takes when the model is prepared, and another one when it is converted."""

import copy

from refquant.errors import ArgumentError, UnsupportedError, choose
from refquant.graph.module_classes import class_name, is_class

__all__ = ["QUANT_TYPES", "quant_type_name", "quant_type", "ClassMapping", "observed_module", "swap_quantized"]

QUANT_TYPES = ("static", "dynamic", "weight_only")
_CODES = ("uint8", "int8", "int16", "int32")


def quant_type_name(value, place):
    """Return one of `QUANT_TYPES` for its name, or for a member of PyTorch's enumeration ``QuantType``."""
    return choose(place, "quant_type", getattr(value, "name", value).lower() if isinstance(getattr(value, "name", value), str) else value, QUANT_TYPES)


def quant_type(qconfig, place):
    """Return how a QConfig quantizes: its weight alone, activations as they come, or with ranges that are observed.

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/utils.py, ``get_quant_type``.

    Examples
    --------
    >>> from refquant.workflow import default_dynamic_qconfig, get_default_qconfig
    >>> quant_type(get_default_qconfig("x86"), ""), quant_type(default_dynamic_qconfig, "")
    ('static', 'dynamic')
    """
    activation, weight = qconfig.activation(), qconfig.weight()
    if weight.dtype in _CODES:
        return "dynamic" if activation.is_dynamic else "static" if activation.dtype in _CODES else "weight_only"
    if weight.dtype == "float16" and (activation.is_dynamic or activation.dtype == "float16"):
        return "dynamic" if activation.is_dynamic else "static"
    raise ArgumentError(f"{place}: the QConfig has activations of {activation.dtype} and weights of {weight.dtype}, which is neither static, dynamic nor weight_only; give the module another one")


class ClassMapping(dict):
    """``{quant type: {class or its name: the class that takes its place}}``."""

    def put(self, key, value, kind, method, place):
        """Add an entry, whose value must have a method."""
        if not isinstance(value, type) or not callable(getattr(value, method, None)):
            raise ArgumentError(f"{place}: {value!r} must be a class with the class method {method}; write one, see the Notes of refquant.workflow.PrepareCustomConfig")
        class_name(key, place)
        self.setdefault(quant_type_name(kind, place), {})[key] = value

    def to_dict(self, key):
        """Return the mapping under PyTorch's key for it, nothing where it is empty."""
        return {key: {kind: dict(rows) for kind, rows in self.items()}} if self else {}

    @property
    def keys_of_all(self):
        """The classes that are swapped under any quant type."""
        return list(dict.fromkeys(name for rows in self.values() for name in rows))

    def find(self, full, qconfig, place):
        """Return the class that takes the place of one, None where it stays.

        Raises
        ------
        ArgumentError
            A class that is swapped, but not under the quant type of its QConfig.
        """
        if not any(is_class(full, name) for name in self.keys_of_all):
            return None
        kind = quant_type(qconfig, place)
        found = [value for name, value in self.get(kind, {}).items() if is_class(full, name)]
        if not found:
            raise ArgumentError(f"{place}: {full} is swapped, but not under the quant type {kind!r} of its QConfig; add an entry with quant_type={kind!r}")
        return found[0]


def observed_module(part, qconfig, mapping, full, place):
    """Return the observed object of a float part, which gets its QConfig as the attribute ``qconfig``, as in PyTorch."""
    kind = mapping.find(full, qconfig, place)
    part.qconfig = qconfig
    return _made(kind.from_float, part, f"{place}: {kind.__name__}.from_float")


def _made(method, given, place):
    made = method(given)
    if not callable(made):
        raise ArgumentError(f"{place} returned a {type(made).__name__}, which cannot be called; return an object that computes y = object(*arrays, **options)")
    return made


def swap_quantized(model, prepared, parts, mapping, place):
    """Let quantized objects take the place of observed ones.

    An object under a static QConfig works on codes: it takes its first input as such, and hands codes on, with the observer of its output as its attribute
    ``activation_post_process``.

    Parameters
    ----------
    model : Model
        With quantize and dequantize nodes.
    prepared : Prepared
        That it was made of.
    parts : dict of str to (Prepared or Model)
        The parts that nodes stand for; float ones may be swapped too.
    mapping : ClassMapping
    place : str
        For messages.

    Returns
    -------
    (Model, dict)
        The model, and the parts that are left.

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/fx/convert.py, ``convert_custom_module``.
    """
    left = dict(parts)
    for node in prepared.model.nodes:
        thing, full = _swappable(node, prepared.model, parts)
        where = f"{place}: custom module {node.path!r}"
        qconfig = prepared.qconfigs.get(node.name)
        kind = None if thing is None or qconfig is None else mapping.find(full, qconfig, where)
        if kind is None:
            continue
        thing = copy.copy(thing)
        if node.attrs["function"] is None:
            thing.qconfig = qconfig
        if quant_type(qconfig, where) == "static":
            model = _on_codes(model, node.name, where)
            thing.activation_post_process = next(m.attrs["observer"] for m in prepared.model.users(node.name) if m.op == "observe")
        quantized = _made(kind.from_observed, thing, f"{where}: {kind.__name__}.from_observed")
        model = model.with_nodes([n.replace(attrs={**n.attrs, "function": quantized}) if n.name == node.name else n for n in model.nodes])
        left.pop(node.name, None)
    return model, left


def _swappable(node, model, parts):
    """Return the object of a node, or its float part, and the full name of its class; None where it is a layer or a part that is prepared for itself."""
    if node.op != "call":
        return None, ""
    if node.attrs["function"] is not None:
        function = node.attrs["function"]
        return function, class_name(type(function), "")
    part = parts.get(node.name)
    return (part, model.classes[node.path]) if part is node.attrs["part"] and node.path in model.classes else (None, "")


def _on_codes(model, name, place):
    """Let a node read its first input before that is dequantized, and its readers dequantize what it returns."""
    node = model.node(name)
    behind = [n.name for n in model.users(name) if n.op == "quantize"]
    if not behind:
        raise UnsupportedError(f"{place}: works on codes, but its output is not observed; swap it by set_float_to_observed_mapping, with a QConfig for 8-bit activations")
    first = model.node(node.inputs[0])
    codes = first.inputs[0] if first.op == "dequantize" else first.name
    gone = {other: name for other in behind}
    nodes = []
    for n in model.nodes:
        if n.name not in gone:
            inputs = [codes if n.name == name and i == first.name else gone.get(i, i) for i in n.inputs]
            nodes.append(n.replace(inputs=inputs))
    return model.with_nodes(_alive(nodes, first.name, model), outputs=[gone.get(o, o) for o in model.outputs])


def _alive(nodes, name, model):
    """Return the nodes without a dequantize node that nobody reads any more."""
    read = name in model.outputs or model.node(name).op != "dequantize" or any(name in n.inputs for n in nodes)
    return nodes if read else [n for n in nodes if n.name != name]
