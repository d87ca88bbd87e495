"""`parts_of` takes a prepared model apart into its graph and plain data, `prepared_of` puts it together again."""

import numpy as np

from refquant.errors import ArgumentError, UnsupportedError, choose
from refquant.observers.observer_recipe import maker_of, recipe_of
from refquant.observers.observer_state import restore, state_of
from refquant.workflow.backend_config import BackendConfig, BackendPatternConfig, DTypeConfig, DTypeWithConstraints
from refquant.workflow.backend_patterns import BACKEND_CONFIGS, get_backend_config
from refquant.workflow.custom_config import PrepareCustomConfig
from refquant.workflow.prepare_fx import Prepared
from refquant.workflow.prepare_qat_fx import QatLayer, qat_backend_config
from refquant.workflow.pt2e.derived_observer import DerivedObserver
from refquant.workflow.pt2e.prepare_pt2e import ObservedParameter, PreparedPT2E
from refquant.workflow.qconfig import BACKENDS, QConfig

__all__ = ["parts_of", "prepared_of"]


def parts_of(prepared):
    """Take a prepared model apart.

    Parameters
    ----------
    prepared : Prepared or PreparedPT2E
        Without the parts that its nodes may stand for, see `Prepared.apart`.

    Returns
    -------
    (Model, dict)
        The graph, in which each ``observe`` node has the number of its observer instead of the observer; and the observers, with all that the conversion needs, as numbers,
        texts, arrays, lists and dictionaries.

    Raises
    ------
    ArgumentError
        No prepared model.
    UnsupportedError
        An observer or a parameter that plain data do not describe: a class of your own, a function; a custom module.
    """
    if not isinstance(prepared, (Prepared, PreparedPT2E)):
        raise ArgumentError(f"save: {type(prepared).__name__} is no prepared model; save a Model, or what prepare_fx or prepare_pt2e returned")
    custom = [n.path for n in prepared.model.nodes if n.op == "call" and n.attrs["function"] is not None]
    if custom:
        raise UnsupportedError(f"save: {prepared.model.name!r} has the custom module {custom[0]!r}, an object of a class of your own, which a file does not hold; keep the object")
    if getattr(prepared, "norms", None) is not None:
        raise UnsupportedError(f"save: {prepared.model.name!r} is in training, with statistics that a file does not hold; convert the model, and save that")
    observers = _Numbered()
    nodes = [n.replace(attrs={"observer": observers.number(n.attrs["observer"])}) if n.op == "observe" else n for n in prepared.model.nodes]
    parts = _pt2e_parts(prepared, observers) if isinstance(prepared, PreparedPT2E) else _fx_parts(prepared, observers)
    rows = [_observer_row(o, f"save: observer {number} of {prepared.model.name!r}") for number, o in enumerate(observers.met)]
    return prepared.model.with_nodes(nodes), {"batches": prepared.batches, "observers": rows, **parts}


class _Numbered:
    """Objects by the order in which they were met; what is shared keeps its number."""

    def __init__(self):
        self.met, self._numbers = [], {}

    def number(self, thing):
        if id(thing) not in self._numbers:
            self._numbers[id(thing)] = len(self.met)
            self.met.append(thing)
        return self._numbers[id(thing)]


def _observer_row(observer, place):
    if isinstance(observer, DerivedObserver):
        raise UnsupportedError(f"{place} derives its parameters by the function {observer.spec.derive_qparams_fn!r}, which a file does not hold; convert the model, and save that")
    return {**recipe_of(observer, place), "state": state_of(observer, place)}


def _fx_parts(prepared, observers):
    qconfigs, numbers = [], {}
    for name, qconfig in prepared.qconfigs.items():
        if qconfig is not None and qconfig not in qconfigs:
            qconfigs.append(qconfig)
        numbers[name] = None if qconfig is None else qconfigs.index(qconfig)
    rows = [{side: recipe_of(getattr(q, side), f"save: the {side} of {q!r}") for side in ("activation", "weight")} for q in qconfigs]
    layers = {name: _layer_row(layer, observers) for name, layer in prepared.layers.items()}
    return {
        "front": "fx", "qconfigs": rows, "qconfig_of": numbers, "backend": prepared.backend, "observed": sorted(prepared.observed), "weights": sorted(prepared.weights),
        "backend_config": _table_parts(prepared.backend_config), "custom": prepared.custom.plain(), **({"layers": layers} if layers else {}),
    }  # fmt: skip


def _layer_row(layer, observers):
    number = None if layer.fake_quant is None else observers.number(layer.fake_quant)
    return [layer.weight, layer.bias, layer.norm, layer.eps, number]


def _table_parts(table):
    for name in BACKEND_CONFIGS:
        if table in (get_backend_config(name), qat_backend_config(get_backend_config(name))):
            return name if table == get_backend_config(name) else [name]
    plain = lambda c: [list(c.input), list(c.output), list(c.weight), c.bias, c.is_dynamic]  # noqa: E731
    return [table.name, [[c.pattern, [plain(d) for d in c.dtype_configs], c.observation, c.fused, c.weighted] for c in table.configs]]


def _pt2e_parts(prepared, observers):
    return {"front": "pt2e", "parameters": [[p.name, observers.number(p.observer), p.value, list(p.readers)] for p in prepared.parameters]}


def prepared_of(model, parts, place):
    """Put a prepared model together.

    Parameters
    ----------
    model : Model
    parts : dict
        Of `parts_of`; it may come from a file, and is checked.
    place : str
        For messages.

    Returns
    -------
    Prepared or PreparedPT2E
        The latter without ``graph``: what the quantizer had written is not kept.

    Raises
    ------
    RefquantError
        Parts that do not fit together.
    """
    observers = [_observer_of(row, f"{place}, observer {number}") for number, row in enumerate(parts["observers"])]
    nodes = [n.replace(attrs={"observer": _of(observers, n.attrs["observer"], place)}) if n.op == "observe" else n for n in model.nodes]
    model, front = model.with_nodes(nodes), choose(place, "front", parts["front"], ("fx", "pt2e"))
    prepared = _fx_of(model, parts, observers, place) if front == "fx" else _pt2e_of(model, parts, observers, place)
    prepared.batches = _count(parts["batches"], "batches", place)
    return prepared


def _observer_of(row, place):
    maker = maker_of(row, place)
    observer = maker() if isinstance(maker, type) else maker.observer(**maker.arguments)
    restore(observer, row["state"], place)
    return observer


def _of(things, number, place):
    if type(number) is not int or not 0 <= number < len(things):
        raise ArgumentError(f"{place}: asks for number {number!r} of {len(things)} observers or qconfigs; write the file anew")
    return things[number]


def _count(value, name, place):
    if type(value) is not int or value < 0:
        raise ArgumentError(f"{place}: {name}={value!r} must be a count; write the file anew")
    return value


def _fx_of(model, parts, observers, place):
    qconfigs = [QConfig(*(maker_of(row[side], place) for side in ("activation", "weight"))) for row in parts["qconfigs"]]
    of = {name: None if number is None else _of(qconfigs, number, place) for name, number in parts["qconfig_of"].items()}
    names, backend = {n.name for n in model.nodes if n.op != "observe"}, parts["backend"]
    named = [*of, *parts["observed"], *parts["weights"]]
    if set(of) != names or not set(named) <= names:
        odd = sorted(set(named) ^ names)[:1] or ["a node"]
        raise ArgumentError(f"{place}: each node, and nothing else, needs a QConfig or none, which does not hold of {odd[0]!r}; write the file anew")
    if backend is not None:
        choose(place, "backend", backend, BACKENDS)
    custom = PrepareCustomConfig.from_dict(parts["custom"])
    prepared = Prepared(model, of, backend, observed=parts["observed"], weights=parts["weights"], backend_config=_table_of(parts["backend_config"], place), custom=custom)
    prepared.layers = {name: _layer_of(row, model.node(name), observers, f"{place}, layer {name!r}") for name, row in parts.get("layers", {}).items()}
    return prepared


def _layer_of(row, node, observers, place):
    weight, bias, norm, eps, number = row
    layer = QatLayer(weight, bias, norm, float(eps), None if number is None else _of(observers, number, place))
    shapes = [(weight, np.shape(node.params.get("weight")))] + [(v, weight.shape[:1]) for v in (bias, *(norm or {}).values()) if v is not None]
    if any(v.shape != shape or v.dtype != np.float32 for v, shape in shapes) or norm is not None and set(norm) != {"weight", "bias", "running_mean", "running_var"}:
        raise ArgumentError(f"{place}: its weight, bias and norm must be float32 in the shapes of the node's; write the file anew")
    if norm is None and layer.fake_quant is None:
        raise ArgumentError(f"{place}: has neither a fake-quantizer nor a batch norm, so it is no layer of training; write the file anew")
    return layer


def _table_of(parts, place):
    if isinstance(parts, str):
        return get_backend_config(choose(place, "backend_config", parts, BACKEND_CONFIGS))
    if len(parts) == 1:
        return qat_backend_config(get_backend_config(choose(place, "backend_config", parts[0], BACKEND_CONFIGS)))
    name, rows = parts
    configs = []
    for pattern, dtypes, observation, fused, weighted in rows:
        configs.append(BackendPatternConfig(pattern, tuple(DTypeConfig(*(DTypeWithConstraints(*c) for c in d[:3]), *d[3:]) for d in dtypes), observation, fused, weighted))
    return BackendConfig(name, configs)


def _pt2e_of(model, parts, observers, place):
    parameters, by_name = [], {n.name: n for n in model.nodes}
    for name, number, value, readers in parts["parameters"]:
        for node, key in readers:
            if getattr(by_name[choose(place, "node", node, by_name)].params.get(key), "shape", None) != value.shape:
                raise ArgumentError(f"{place}: the observed parameter {name!r} must be {key!r} of node {node!r}, in its shape; write the file anew")
        parameters.append(ObservedParameter(str(name), _of(observers, number, place), value, tuple((node, key) for node, key in readers)))
    return PreparedPT2E(model, parameters, None)
