"""`prepare_fx`: a float model becomes one with observers, which is then calibrated by calling it."""

import copy

import numpy as np

from refquant.errors import ArgumentError
from refquant.graph.table import model_table
from refquant.workflow.backend_config import BackendConfig
from refquant.workflow.backend_patterns import get_backend_config
from refquant.workflow.custom_config import PrepareCustomConfig, checked_indexes, preserve
from refquant.workflow.custom_module import observed_module
from refquant.workflow.float_model import check_float_model
from refquant.workflow.fuse import fuse
from refquant.workflow.placement import place_observers
from refquant.workflow.qconfig_mapping import QConfigMapping, qconfigs_of
from refquant.workflow.standalone import splice
from refquant.workflow.take_apart import take_apart, take_layers

__all__ = ["Prepared", "prepare_fx", "fused_model"]


class Prepared:
    """A model with observers; made by `prepare_fx` or `prepare_qat_fx`.

    Call it with calibration batches: it returns float outputs, and its observers see every value. ``print`` shows where
    they sit and who shares one.

    Attributes
    ----------
    model : Model
        With ``observe`` nodes.
    qconfigs : dict of str to QConfig or None
        By node name.
    backend : str or None
        The engine that the mapping was made for.
    observed : frozenset of str
        The nodes that will be quantized where engines have kernels for their dtypes.
    weights : frozenset of str
        Those of them that are functions with a weight that is observed as an input.
    backend_config : BackendConfig
        The table of patterns.
    custom : PrepareCustomConfig
    layers : dict of str to QatLayer
        Of `prepare_qat_fx`: how layers compute while their weights are rounded to a grid; else empty.
    standalone : tuple of (Prepared, dict of str to (Prepared or Model))
        The model with one node for each part, and the parts by the names of these nodes: standalone modules are prepared, float ones are not. The first is None
        where there are no parts.
    batches : int
        How many batches were seen.
    """

    def __init__(self, model, qconfigs, backend, *, observed=(), weights=(), backend_config=None, custom=None):
        self.model, self.qconfigs, self.backend = model, qconfigs, backend
        self.observed, self.weights = frozenset(observed), frozenset(weights)
        self.backend_config, self.custom = backend_config, custom
        self.layers, self.standalone, self.batches = {}, (None, {}), 0

    def __call__(self, *inputs, **options):
        """Run the float model and let the observers see its values; options are those of `Model.run`."""
        if any(np.size(getattr(x, "values", x)) == 0 for x in inputs):
            raise ArgumentError(f"{self.model.name}: the calibration batch is empty; give at least one image")
        model = self.model.with_nodes(self._trained_nodes()) if self.layers else self.model
        outputs = model.run(*inputs, **options)
        self.batches += 1
        return outputs

    def _trained_nodes(self):
        for node in self.model.nodes:
            yield from self.layers[node.name].nodes(node) if node.name in self.layers else [node]

    def with_model(self, model):
        """Return a prepared model with other nodes, else like this one."""
        other = copy.copy(self)
        other.model = model
        return other

    def apart(self):
        """Return the model around its parts, itself where there are none, and the parts by name; all have seen the same batches."""
        outer, parts = self.standalone
        for part in (outer, *parts.values()):
            if isinstance(part, Prepared):
                part.batches = self.batches
        return outer or self, parts

    @property
    def placement(self):
        """Where observers sit: ``[(observed node, number of its observer)]`` in order; a number that comes again is a shared observer."""
        numbers = {}
        rows = [(_observed(self.model, n), n.attrs["observer"]) for n in self.model.nodes if n.op == "observe"]
        return [(name, numbers.setdefault(id(observer), len(numbers))) for name, observer in rows]

    def __repr__(self):
        return f"<Prepared {self.model.name!r}: {len(self.placement)} observed values, {self.batches} batches seen>"

    def __str__(self):
        first, extra = {}, {"": "observer"}
        observers = [n.attrs["observer"] for n in self.model.nodes if n.op == "observe"]
        for (name, number), observer in zip(self.placement, observers):
            shared = f"#{number} as {first[number]}" if number in first else f"#{number} {type(observer).__name__}"
            first.setdefault(number, name)
            extra[name] = ", ".join(filter(None, [extra.get(name), shared]))
        return model_table(fused_model(self.model), extra)


def _observed(model, node):
    """Return the value that an observer sees, also behind another observer."""
    while node.op == "observe":
        node = model.node(node.inputs[0])
    return node.name


def fused_model(model):
    """Return a model without its ``observe`` nodes."""
    behind = {}
    for node in model.nodes:
        if node.op == "observe":
            behind[node.name] = behind.get(node.inputs[0], node.inputs[0])
    plain = [n.replace(inputs=[behind.get(i, i) for i in n.inputs]) for n in model.nodes if n.op != "observe"]
    return model.with_nodes(plain, outputs=[behind.get(o, o) for o in model.outputs])


def prepare_fx(model, qconfig_mapping, example_inputs, prepare_custom_config=None, backend_config=None):
    """Fuse layers and insert observers, as PyTorch's FX workflow does.

    Parameters
    ----------
    model : Model
        On float32 arrays.
    qconfig_mapping : QConfigMapping
    example_inputs : tuple of ndarray
        Inputs that fit the model; their shapes are checked.
    prepare_custom_config : PrepareCustomConfig, optional
    backend_config : BackendConfig, optional
        What is fused and quantized, and how. As in PyTorch, the native table unless given, whatever the engine: with `get_backend_config("onednn")`,
        convolutions take up sums, and linear layers a leaky ReLU or a tanh.

    Returns
    -------
    Prepared
        `model` itself does not change.

    Raises
    ------
    ArgumentError
        Something else than a float Model or a QConfigMapping; inputs that are no tuple.
    ShapeError
        Inputs that do not fit.

    Examples
    --------
    >>> from refquant import zoo
    >>> from refquant.data import load_split
    >>> from refquant.workflow import get_default_qconfig_mapping, prepare_fx
    >>> x, _ = load_split("digits", "calibration")
    >>> prepared = prepare_fx(zoo.load("digits_resnet"), get_default_qconfig_mapping("x86"), (x[:50],))
    >>> prepared.placement[:4]
    [('x', 0), ('stem_conv', 1), ('block1_conv1', 2), ('block1_conv2', 3)]
    >>> y, = prepared(x[:50])
    >>> y.dtype, prepared.batches
    (dtype('float32'), 1)
    """
    return prepared_with("prepare_fx", model, qconfig_mapping, example_inputs, prepare_custom_config, backend_config or get_backend_config())


def prepared_with(place, model, qconfig_mapping, example_inputs, prepare_custom_config, table, nested=False):
    """Same as `prepare_fx`, for any caller and with a given table; `nested` for the inside of a standalone module."""
    custom = prepare_custom_config or PrepareCustomConfig()
    _check_arguments(place, model, qconfig_mapping, example_inputs, custom, table)
    given = checked_indexes(custom.input_quantized_indexes, len(model.inputs), f"{place}: input_quantized_indexes")
    checked_indexes(custom.output_quantized_indexes, len(model.outputs), f"{place}: output_quantized_indexes")
    outer, parts = take_apart(model, custom, place, nested)
    alone = custom.left_alone(outer)
    fused, layers = take_layers(fuse(outer, table, alone), custom, place)
    parts.update(layers)
    qconfigs = qconfigs_of(fused, qconfig_mapping, table, alone)
    alone_standing = {name: part for name, part in parts.items() if part.kind == "standalone module"}
    fused, observed = _observed_modules(fused, parts, qconfigs, custom, place)
    wanted = {name: part.settings.prepare_custom_config.input_quantized_indexes for name, part in alone_standing.items()}
    placed = place_observers(fused, qconfigs, table, given, alone, wanted, observed)
    prepared = Prepared(placed.model, qconfigs, qconfig_mapping.backend, observed=placed.observed, weights=placed.weights, backend_config=table, custom=custom)
    left = {name: part.model for name, part in parts.items() if name not in observed}
    left.update((name, _part(f"{place}, standalone module {part.path!r}", part, qconfigs[name], table)) for name, part in alone_standing.items())
    prepared = whole(prepared, left) if left else prepared
    preserve(model, prepared.model, custom.preserved_attributes, place)
    return prepared


def _check_arguments(place, model, qconfig_mapping, example_inputs, custom, table):
    check_float_model(place, model)
    if not isinstance(qconfig_mapping, QConfigMapping):
        kind = type(qconfig_mapping).__name__
        raise ArgumentError(f"{place}: qconfig_mapping is a {kind}; pass a QConfigMapping, such as get_default_qconfig_mapping('x86')")
    if not isinstance(example_inputs, (tuple, list)):
        kind = type(example_inputs).__name__
        raise ArgumentError(f"{place}: example_inputs is a {kind} but must be a tuple, one entry an input; write (x,)")
    _check_kinds(place, table, custom, *(m.prepare_custom_config for m in (*custom.standalone_module_names.values(), *custom.standalone_module_classes.values())))
    model._bind(tuple(example_inputs))
    model.shapes(*(np.shape(x) for x in example_inputs))


def _observed_modules(model, parts, qconfigs, custom, place):
    """Let observed objects take the place of custom modules that have a QConfig; returns the names of their nodes too."""
    made = {}
    for name, part in parts.items():
        if part.kind == "custom module" and qconfigs[name] is not None:
            made[name] = observed_module(part.model, qconfigs[name], custom.float_to_observed_mapping, part.settings, f"{place}: custom module {part.path!r}")
    nodes = [n.replace(attrs={**n.attrs, "function": made[n.name]}) if n.name in made else n for n in model.nodes]
    return model.with_nodes(nodes), frozenset(made)


def _part(place, part, qconfig, table):
    module = part.settings
    mapping = QConfigMapping().set_global(qconfig) if module.qconfig_mapping is None else module.qconfig_mapping
    return prepared_with(place, part.model, mapping, module.example_inputs, module.prepare_custom_config, module.backend_config or table, nested=True)


def whole(outer, parts):
    """Return the prepared model that parts belong to.

    Parameters
    ----------
    outer : Prepared
        With one ``call`` node for each part.
    parts : dict of str to (Prepared or Model)
        By the names of these nodes.
    """
    models = {name: getattr(part, "model", part) for name, part in parts.items()}
    outer = outer.with_model(outer.model.with_nodes([n.replace(attrs={**n.attrs, "part": models[n.name]}) if n.name in parts else n for n in outer.model.nodes]))
    model = splice(outer.model, models)
    each = [p for p in (outer, *parts.values()) if isinstance(p, Prepared)]
    qconfigs = dict.fromkeys((n.name for n in model.nodes if n.op != "observe"))
    qconfigs.update((name, qconfig) for p in each for name, qconfig in p.qconfigs.items() if name in qconfigs)
    observed, weights = (set().union(*(getattr(p, side) for p in each)) for side in ("observed", "weights"))
    joined = Prepared(model, qconfigs, outer.backend, observed=observed, weights=weights, backend_config=outer.backend_config, custom=outer.custom)
    joined.layers, joined.standalone = outer.layers, (outer, parts)
    return joined


def _check_kinds(place, table, *customs):
    for name, value, kind in (("backend_config", table, BackendConfig), *(("prepare_custom_config", custom, PrepareCustomConfig) for custom in customs)):
        if not isinstance(value, kind):
            raise ArgumentError(f"{place}: {name} is a {type(value).__name__} but must be a {kind.__name__}; see refquant.workflow.{kind.__name__}")
