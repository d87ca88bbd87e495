"""refquant's own model files: a zip archive of one JSON text and plain arrays, readable by anything, executing nothing.

::

    model.json      {"format": "refquant model", "version": 1, "name": …, "numerics": …, "real": …, "outputs": […], "nodes": [node, …]}
                    where modules have classes, {…, "classes": {path: name}}
                    of version 2, a prepared model, whose observe nodes have numbers of observers, and beside the nodes
                    "prepared": a table: {"front", "batches", "observers": [{"observer", "arguments", "state"}, …], …}, of `refquant.workflow.prepared_parts`
                    of version 3, a prepared model with parts, {…, "parts": {name of a call node: model or prepared model, …}}: standalone modules, which are
                    prepared and may have parts again, and float ones
                    node:     {"name", "op", "inputs", "attrs", "params", "target", "path", "sources"}
                    numerics: null, the name of a profile, or {"base": name, "name": name, "changes": {section: {field: value}}}
                    value:    null, true, a number, a text, a list, or one of
                        {"float": "nan"}                                    what JSON has no number for
                        {"array": 3}                                        the entry a3.npy
                        {"table": [[key, value], …]}                        a dictionary
                        {"qparams": {"scale", "zero_point", "dtype", "axis", "quant_min", "quant_max"}}
                        {"qtensor": [codes, qparams]}
                        {"packed": [codes, qparams, groups, transposed]}    weights that are laid out for the kernels again when they are loaded
    a0.npy, …       integers, floats and booleans, as ``numpy.save`` writes them

Entries are stored, not compressed, so that nothing in a file is larger than the file; the archive's checksums tell flipped bits. The same model gives
the same bytes. ``numpy.load`` opens such a file too.
"""

import math

import numpy as np

from refquant import numerics as profiles
from refquant.core.archive import read_archive, write_archive
from refquant.core.plain_text import GARBLED, MEMBER, PlainReader, PlainWriter, read_members
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, RangeError, RefquantError, choose, UnsupportedError
from refquant.graph import Model, Node
from refquant.numerics.profile import Numerics, section_types
from refquant.ops.pack_weights import PackedWeights, pack_weights
from refquant.workflow.prepare_fx import Prepared, whole
from refquant.workflow.prepared_parts import parts_of, prepared_of

__all__ = ["save", "load"]

_FORMAT, _VERSION = "refquant model", 3
_MOST_ENTRIES = 100_000
_MOST_BYTES = 1 << 36
_MOST_ELEMENTS = 1 << 32
_REMEDY = "write it with refquant.save"


def save(model, path):
    """Write a model into a file that `load` gives back bit for bit.

    Parameters
    ----------
    model : Model, Prepared or PreparedPT2E
        Float or quantized; or prepared, with its observers and what they have seen: the one that is loaded goes on where this one stands.
    path : str or os.PathLike
        Written whole or not at all; ``.npz`` is a good ending.

    Raises
    ------
    ArgumentError
        No model; something that the format does not hold, such as a profile whose changes are not plain fields.
    UnsupportedError
        A prepared model with an observer of your own class, or with parameters that a function of yours derives.
    RefquantError
        The file cannot be written, or the model's shapes do not fit together; nothing is left behind.

    Examples
    --------
    >>> import os, tempfile, numpy as np, refquant as rq
    >>> path = os.path.join(tempfile.mkdtemp(), "digits.npz")
    >>> rq.save(rq.zoo.load("digits_resnet"), path)
    >>> x = np.zeros((1, 1, 8, 8), np.float32)
    >>> np.array_equal(rq.load(path)(x)[0], rq.zoo.load("digits_resnet")(x)[0])
    True
    """
    writer = _Writer()
    text = _described(model, writer)
    _check_sizes(getattr(model, "model", model), "save")
    version = 3 if "parts" in text else 2 if "prepared" in text else 1
    write_archive(path, writer.members({"format": _FORMAT, "version": version, **text}))


def _described(model, writer):
    """Return the text of a model, or of a prepared one and its parts."""
    model, parts = model.apart() if isinstance(model, Prepared) else (model, {})
    prepared = None
    if not isinstance(model, Model):
        model, prepared = parts_of(model)
    elif any(n.op == "observe" for n in model.nodes):
        raise ArgumentError(f"save: model {model.name!r} has observers; save the prepared model that it is part of")
    text = {
        "name": model.name, "numerics": _described_profile(model.numerics), "real": model.real, "outputs": list(model.outputs),
        "nodes": [_described_node(node, writer, parts) for node in model.nodes], **({"classes": dict(model.classes)} if model.classes else {}),
    }  # fmt: skip
    if prepared is not None:
        text["prepared"] = writer.described(prepared, "save")
    if parts:
        text["parts"] = {name: _described(part, writer) for name, part in parts.items()}
    return text


def load(path):
    """Read a model that `save` wrote.

    Parameters
    ----------
    path : str or os.PathLike

    Returns
    -------
    Model, Prepared or PreparedPT2E

    Raises
    ------
    ArgumentError
        The file cannot be read, is cut off, damaged, no model, or of a newer version; nothing of it is executed.
    RangeError, ShapeError, UnsupportedError
        What it describes makes no sense, or is unknown to this version.
    """
    place = f"model file {path}"
    entries = read_archive(path, place, MEMBER.fullmatch, most_entries=_MOST_ENTRIES, most_bytes=_MOST_BYTES, stored=True, remedy=_REMEDY)
    text, arrays = read_members(entries, place, _FORMAT, _VERSION, _REMEDY)
    try:
        if text["version"] != (3 if "parts" in text else 2 if "prepared" in text else 1):
            raise ArgumentError(f"{place}: observers come with version 2 and its entry 'prepared' alone, parts with version 3; {_REMEDY}")
        model = _loaded(text, _Reader(arrays, place, _REMEDY), place)
        _check_sizes(getattr(model, "model", model), place)
    except RefquantError as error:
        raise error if str(error).startswith(place) else type(error)(f"{place}: {error}") from error
    except GARBLED as error:
        raise ArgumentError(f"{place}: the description must be that of a model but is garbled ({type(error).__name__}: {str(error)[:120]}); {_REMEDY}") from error
    return model


def _loaded(text, reader, place):
    """Return the model, or the prepared one with its parts, of a text."""
    parts = {name: _loaded(_typed(part, dict), reader, f"{place}, part {name!r}") for name, part in _typed(text.get("parts", {}), dict).items()}
    model = reader.model(text, {name: getattr(part, "model", part) for name, part in parts.items()})
    if "prepared" not in text:
        if parts or any(n.op == "observe" for n in model.nodes):
            raise ArgumentError(f"{place}: observers and parts come with an entry 'prepared' alone; {_REMEDY}")
        return model
    prepared = prepared_of(model, reader.value(text["prepared"]), place)
    if parts and not isinstance(prepared, Prepared):
        raise ArgumentError(f"{place}: has parts, which the front 'fx' knows alone; {_REMEDY}")
    batches = prepared.batches
    prepared = whole(prepared, parts) if parts else prepared
    prepared.batches = batches
    return prepared


def _check_sizes(model, place):
    """Refuse a model one of whose values would be absurdly large."""
    for name, shape in model.shapes().items():
        if any(n is not None and n < 0 for n in shape) or math.prod(n or 1 for n in shape) > _MOST_ELEMENTS:
            raise RangeError(f"{place}: node {name!r} would compute a value of shape {shape}, beyond {_MOST_ELEMENTS:,} elements; correct its attributes")


def _described_node(node, writer, parts):
    place = f"save: node {node.name!r}"
    attrs = {} if node.name in parts else node.attrs  # of a part the text comes for itself
    attrs, params = ({key: writer.described(value, f"{place}, {key}") for key, value in table.items()} for table in (attrs, node.params))
    inputs, sources = list(node.inputs), list(node.sources)
    return {"name": node.name, "op": node.op, "inputs": inputs, "attrs": attrs, "params": params, "target": node.target, "path": node.path, "sources": sources}


class _Writer(PlainWriter):
    """Plain values, and those of a model."""

    def other(self, value, place):
        if isinstance(value, QParams):
            return {"qparams": _described_qparams(value, self, place)}
        if isinstance(value, QTensor):
            return {"qtensor": [self.described(v, place) for v in (value.values, value.qparams)]}
        if isinstance(value, PackedWeights):
            return {"packed": [self.described(v, place) for v in (value.values, value.qparams, value.groups, value.transposed)]}
        raise ArgumentError(f"{place}: is a {type(value).__name__}, which a model file does not hold; give plain attributes")


def _described_qparams(p, writer, place):
    QParams(p.scale, p.zero_point, p.dtype, p.axis, quant_min=p.qmin, quant_max=p.qmax)
    fields = {"scale": p.scale, "zero_point": p.zero_point, "dtype": p.dtype, "axis": p.axis, "quant_min": p.qmin, "quant_max": p.qmax}
    return {key: writer.described(v, place) for key, v in fields.items()}


def _described_profile(numerics):
    """A profile by its name; one that was changed as the nearest by name, and the fields in which they differ."""
    if numerics is None:
        return None
    profile = profiles.get(numerics)
    try:
        if profiles.get(profile.name) == profile:
            return profile.name
    except ArgumentError:
        pass  # a name of its own
    for base in sorted(profiles.PROFILES, key=lambda p: len(profile.differences(p))):
        changes = {}
        for section, field, _, _ in profile.differences(base):
            inner, value = changes.setdefault(section, {}), getattr(profile, section, None)
            *sides, field = field.split(".")
            for side in sides:
                inner, value = inner.setdefault(side, {}), getattr(value, side, None)
            inner[field] = _plain(getattr(value, field, None))
        described = {"base": base.name, "name": profile.name, "changes": changes}
        try:
            if _profile(described, "save") == profile:
                return described
        except (ArgumentError, UnsupportedError):
            continue
    raise ArgumentError(f"save: the profile {profile.name!r} differs from those that come with refquant in more than plain fields, which a file cannot hold; set numerics to one by name")


def _plain(value):
    return value if isinstance(value, (bool, int)) else str(getattr(value, "value", value))


def _profile(described, place):
    if described is None:
        return None
    if isinstance(described, str):
        return profiles.get(described)
    base, sections = profiles.get(described["base"]), section_types()
    changes = {choose(place, "section", section, sections): dict(fields) for section, fields in described["changes"].items()}
    try:
        changed = base.replace(name=str(described["name"]), **changes)
    except GARBLED as error:
        raise ArgumentError(f"{place}: the profile cannot be a changed {base.name} ({error}); {_REMEDY}") from error
    return changed if isinstance(changed, Numerics) else base


class _Reader(PlainReader):
    """Plain values, and those of a model."""

    kinds = (*PlainReader.kinds, "qparams", "qtensor", "packed")

    def model(self, text, parts):
        nodes = [self.node(entry, parts) for entry in _typed(text["nodes"], list)]
        left = set(parts) - {n.name for n in nodes if n.op == "call"}
        if left:
            raise ArgumentError(f"{self.place}: the part {min(left)!r} must belong to a node 'call' of that name; {_REMEDY}")
        classes = {path: _typed(kind, str) for path, kind in _typed(text.get("classes", {}), dict).items()}
        settings = {"name": _typed(text["name"], str), "numerics": _profile(text["numerics"], self.place), "real": text["real"], "classes": classes}
        return Model(nodes, [_typed(name, str) for name in _typed(text["outputs"], list)], **settings)

    def node(self, entry, parts):
        attrs, params = ({_typed(key, str): self.value(v) for key, v in _typed(entry[table], dict).items()} for table in ("attrs", "params"))
        for key, value in params.items():
            if not isinstance(value, (np.ndarray, QTensor, PackedWeights)):
                raise ArgumentError(f"{self.place}: parameter {key!r} of node {entry['name']!r} must be an array but is a {type(value).__name__}; {_REMEDY}")
        inputs, sources = ([_typed(name, str) for name in _typed(entry[key], list)] for key in ("inputs", "sources"))
        if entry["op"] == "call":
            if attrs or entry["name"] not in parts:
                raise ArgumentError(f"{self.place}: the node {entry['name']!r} stands for a part, which must be among the entry 'parts', and has no attributes; {_REMEDY}")
            attrs = {"part": parts[entry["name"]]}
            if (len(attrs["part"].inputs), len(attrs["part"].outputs)) != (len(inputs), 1):
                raise ArgumentError(f"{self.place}: part {entry['name']!r} must have the inputs of its node and one output; {_REMEDY}")
        return Node(entry["name"], entry["op"], inputs, attrs, params, target=_typed(entry["target"], str), path=_typed(entry["path"], str), sources=sources)

    def _qparams(self, content):
        if set(content) != {"scale", "zero_point", "dtype", "axis", "quant_min", "quant_max"}:
            raise KeyError(f"quantization parameters {sorted(content)}")
        p = {key: self.value(v) for key, v in content.items()}
        return QParams(p["scale"], p["zero_point"], _typed(p["dtype"], str), p["axis"], quant_min=p["quant_min"], quant_max=p["quant_max"])

    def _qtensor(self, content):
        codes, qparams = (self.value(v) for v in content)
        return QTensor(codes, qparams)

    def _packed(self, content):
        codes, qparams, groups, transposed = (self.value(v) for v in content)
        return pack_weights(codes if qparams is None else QTensor(codes, qparams), groups=_typed(groups, int), transposed=_typed(transposed, bool))


def _typed(value, kind):
    if type(value) is not kind:
        raise TypeError(f"{str(value)[:40]!r} must be a {kind.__name__}")
    return value
