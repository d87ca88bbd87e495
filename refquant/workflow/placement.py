"""Where observers go: PyTorch's rules of placement and sharing, on a fused model."""

from typing import NamedTuple

from refquant.graph.match import find_patterns
from refquant.graph.node import Node
from refquant.observers import PlaceholderObserver
from refquant.workflow.backend_config import BY_TENSORS, SHARE
from refquant.workflow.qconfig import reuses_input

__all__ = ["Placed", "place_observers"]

_FLOAT = PlaceholderObserver.with_args(dtype="float32")
_GIVEN = PlaceholderObserver.with_args(dtype="uint8")
_OBSERVED = ("uint8", "int8", "int32", "float16")


class Placed(NamedTuple):
    """A model with ``observe`` nodes, and what the conversion must know of how they came there.

    Attributes
    ----------
    model : Model
    observed : frozenset of str
        The nodes of patterns that are quantized.
    weights : frozenset of str
        Those among them that are functions with a weight of their own, which is observed too.
    """

    model: object
    observed: frozenset
    weights: frozenset


class _Target(NamedTuple):
    """What a node is to be: makers of observers for its inputs, its weight and its output, and whether it shares them."""

    input: object = _FLOAT
    weight: object = _FLOAT
    output: object = _FLOAT
    share: bool = False
    reuse: bool = False


def place_observers(model, qconfigs, backend_config, quantized_inputs=(), left_alone=(), standalone=None, custom=()):
    """Insert ``observe`` nodes into a fused model.

    A quantized pattern is observed at its inputs, where nothing has observed them yet, and at its output. What shares its
    observer with its input (pools, ReLU, flatten, concatenation) hands on *one* observer, which then sees all those values.

    Parameters
    ----------
    model : Model
    qconfigs : dict of str to QConfig or None
    backend_config : BackendConfig
    quantized_inputs : sequence of int
        Inputs that will be given as codes.
    left_alone : collection of str
        Nodes that no pattern reaches.
    standalone : dict of str to list of int, optional
        Nodes that stand for modules prepared for themselves, and which of their inputs those want as codes.
    custom : collection of str
        Nodes of observed custom modules, which are observed as layers that engines have for all dtypes.

    Returns
    -------
    Placed
        The new nodes are called ``activation_post_process_0``, … in the order in which they were placed.

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/fx/prepare.py, ``insert_observers_for_model``.
    """
    work = _Placement(model, qconfigs, backend_config, left_alone)
    for index in quantized_inputs:
        work.target[model.inputs[index]] = _Target(_GIVEN, _FLOAT, _GIVEN)
    work.standalone = {name: wanted for name, wanted in (standalone or {}).items() if qconfigs[name] is not None}
    # PyTorch takes the output of such a module for quantized, whether it then is or not.
    work.target.update((name, _Target(output=qconfigs[name].activation)) for name in work.standalone)
    work.target.update((name, work.of_qconfig(name)) for name in custom)
    for node in model.nodes:
        if node.name in work.standalone:
            work.visit_standalone(node.name)
        elif node.name in custom:
            work.visit_custom(node)
        elif node.op != "input":
            work.visit(node)
    placed = model.with_nodes(work.nodes(), outputs=[work.renamed.get(o, o) for o in model.outputs])
    return Placed(placed, frozenset(work.observed), frozenset(work.weights))


class _Placement:
    """The graph under change: inputs of nodes, and the observers behind each value."""

    def __init__(self, model, qconfigs, backend_config, left_alone):
        self.model, self.qconfigs = model, qconfigs
        self.matches = find_patterns(model, backend_config.configs, left_alone)
        self.target = {n.name: _Target() for n in model.nodes}
        self.inputs = {n.name: list(n.inputs) for n in model.nodes}
        self.behind = {n.name: [] for n in model.nodes}  # names of the observers right after a value, the nearest first
        self.value, self.observer, self.renamed = {}, {}, {}
        self.observed, self.weights = set(), set()
        self.count, self.standalone = 0, {}
        self._set_targets()

    def _set_targets(self):
        """Give each node of a pattern what the QConfig of the pattern's last node says; take it back where the engine does not support it."""
        matches = {id(m): m for m in self.matches.values()}.values()
        for match in matches:
            if self.qconfigs[match.last.name] is not None:
                target = self.of_qconfig(match.last.name, _shares(match))
                self.target.update((n.name, target) for n in match.nodes)
        for match in matches:
            # PyTorch asks for each node of the pattern with that node's own QConfig, and one refusal is enough.
            if not all(self._supported(match, self.qconfigs[n.name]) for n in match.nodes):
                self.target.update((n.name, _Target()) for n in match.nodes)

    def of_qconfig(self, name, share=False):
        """Return what the QConfig of a node makes of it."""
        qconfig = self.qconfigs[name]
        return _Target(qconfig.activation, qconfig.weight, qconfig.activation, share, reuses_input(qconfig))

    def _supported(self, match, qconfig):
        return any(self._fits(match, qconfig, config) for config in match.pattern.dtype_configs)

    def _fits(self, match, qconfig, config):
        source, sink = self.target[match.root.name], self.target[match.last.name]
        given, weight, out = source.input(), source.weight(), sink.output()
        if config.input.dtype is not None and not (config.input.dtype == given.dtype and config.is_dynamic == given.is_dynamic and _allows(config.input, qconfig)):
            return False
        if _has_weight_input(match.root) and config.weight.dtype is not None and not (config.weight.dtype == weight.dtype and _allows(config.weight, qconfig, "weight")):
            return False
        if config.bias not in (None, "float32") and "bias" in match.root.params and _has_weight_input(match.root):
            return False
        dtype = "float32" if out.is_dynamic else out.dtype
        return config.output.dtype is None or config.output.dtype == dtype and _allows(config.output, qconfig)

    def visit(self, node):
        match, qconfig = self.matches.get(node.name), self.qconfigs[node.name]
        if match is None or qconfig is None or not self._supported(match, qconfig):
            return
        self.observed.update(n.name for n in match.nodes)
        if node is match.root:
            self._observe_inputs(node)
        if node is match.last:
            self._observe_output(node)

    def visit_custom(self, node):
        """Observe what comes in and what goes out."""
        self._observe_inputs(node)
        self._observe_output(node)

    def visit_standalone(self, name):
        """Observe the inputs that come as codes."""
        inputs, wanted = self.inputs[name], self.standalone[name]
        observed = []
        for value in inputs:
            codes = inputs.index(value) in wanted and self.target[self.value.get(value, value)].output().dtype != "uint8"
            observed.append(self._observer_of(value, self.qconfigs[name].activation()) if codes else value)
        self.inputs[name] = observed

    def _observe_inputs(self, node):
        target = self.target[node.name]
        first = self.inputs[node.name][0] if self.inputs[node.name] else None
        observed = []
        for name in self.inputs[node.name]:
            wanted = target.input()
            before = self.target[self.value.get(name, name)].output()
            if wanted.is_dynamic:
                needed = name == first
            else:
                needed = not target.reuse and wanted.dtype in _OBSERVED and wanted.dtype != before.dtype
            observed.append(self._observer_of(name, wanted) if needed else name)
        self.inputs[node.name] = observed
        if _has_weight_input(node) and target.weight().dtype in _OBSERVED and not target.reuse:
            self.weights.add(node.name)

    def _observer_of(self, name, wanted):
        """Return the observer of a value: one of the same class and dtype that is there already, or a new one."""
        for other in reversed(self.behind[name]):
            if type(self.observer[other]) is type(wanted) and self.observer[other].dtype == wanted.dtype:
                return other
        return self._insert(name, wanted)

    def _observe_output(self, node):
        target = self.target[node.name]
        observer = target.output()
        if observer.is_dynamic or observer.dtype not in _OBSERVED:
            return
        name = self._insert(node.name, observer)
        self._redirect(node.name, name)
        # Where the input is given as codes, its observer is elsewhere.
        given = observer.dtype == "uint8" and not _reads_a_list(node) and self.inputs[node.name][0] in self.model.inputs
        if (target.share and not given or target.reuse) and not self._share(node.name, name):
            self._remove(node.name, name)

    def _insert(self, value, observer):
        name = f"activation_post_process_{self.count}"
        self.count += 1
        self.behind[value].insert(0, name)
        self.behind[name], self.inputs[name] = [], [value]
        self.observer[name], self.value[name] = observer, self.value.get(value, value)
        return name

    def _redirect(self, old, new):
        """Let all readers of a value read its observer instead."""
        for reader, inputs in self.inputs.items():
            if reader != new:
                inputs[:] = [new if i == old else i for i in inputs]
        self.renamed[old] = new

    def _remove(self, value, name):
        for inputs in self.inputs.values():
            inputs[:] = [value if i == name else i for i in inputs]
        self.behind[value].remove(name)
        del self.renamed[value], self.observer[name], self.inputs[name], self.value[name]

    def _share(self, node, own):
        """Give the output, and all inputs but the first, the observer of the first input; False if there is none."""
        first, *others = self.inputs[node]
        first = self._nearest(first, through_lists=False)
        if first is None:
            return False
        for other in others if _reads_a_list(self.model.node(node)) else ():
            name = self._nearest(other, through_lists=True)
            if name is None:
                return False
            self.observer[name] = self.observer[first]
        self.observer[own] = self.observer[first]
        return True

    def _nearest(self, name, through_lists):
        """Go up from a value to the first observer; None if the model's input comes first."""
        while name not in self.observer:
            if not self.inputs.get(name) or not through_lists and _reads_a_list(self.model.node(name)):
                return None
            name = self.inputs[name][0]
        return name

    def nodes(self):
        for node in self.model.nodes:
            yield node.replace(inputs=self.inputs[node.name])
            yield from self._observers(node.name, node.path)

    def _observers(self, value, path):
        for name in self.behind[value]:
            yield Node(name, "observe", [value], {"observer": self.observer[name]}, path=path)
            yield from self._observers(name, path)


def _shares(match):
    observation = match.pattern.observation
    if observation == BY_TENSORS:
        return len(match.root.inputs) == 1
    return observation == SHARE


def _allows(constraints, qconfig, side="activation"):
    if qconfig is None or constraints.dtype is None:
        return True
    return constraints.allows(getattr(qconfig, side)())


def _has_weight_input(node):
    """Whether the weight comes in as an argument, so that it is observed like an input; layers hold theirs."""
    return "weight" in node.params and not node.is_module and node.op not in ("layer_norm", "group_norm", "instance_norm")


def _reads_a_list(node):
    return node.target in ("torch.cat", "torch.stack")
