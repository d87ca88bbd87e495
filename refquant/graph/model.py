"""`Model`: a directed graph of operations that can be run, looked into and rewritten."""

import heapq

import numpy as np

from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, RefquantError, ShapeError, choose
from refquant.graph.module_classes import checked_classes
from refquant.graph.node import Node
from refquant.graph.opset import Context, graph_op
from refquant.graph.plan import make_step, signature
from refquant.graph.table import model_table
from refquant.ops.real import ORDERS

__all__ = ["Model"]

_MOST_PLANS = 8


class Model:
    """A network as a graph of `Node`s, on float32 arrays, on codes, or on both.

    Parameters
    ----------
    nodes : iterable of Node
        In any order in which they can be sorted; kept in a topological order that stays as close to the given one as possible.
    outputs : sequence of str
        Names of the nodes whose values are returned.
    name : str
    numerics : str or Numerics, optional
        The profile that quantized nodes run under, unless `run` is told otherwise.
    real : str
        The order of real sums, one of `refquant.ops.real.ORDERS`.
    classes : dict of str to (str or type), optional
        The classes of modules that contain layers, by the modules' paths; of class objects the full names are kept. Nothing is computed with them: workflows may be told
        what to do with the modules of a class.

    Raises
    ------
    ArgumentError
        Duplicate names, unknown inputs or outputs, cycles, a wrong number of inputs, missing parameters.

    Examples
    --------
    >>> import numpy as np
    >>> model = Model([Node("x", "input"), Node("relu", "relu", ["x"])], outputs=["relu"])
    >>> y, = model(np.float32([-1, 2]))
    >>> y
    array([0., 2.], dtype=float32)
    """

    def __init__(self, nodes, outputs, *, name="model", numerics=None, real="torch_avx512", classes=None):
        nodes = tuple(nodes)
        self.name = name
        self.numerics = numerics
        self.real = choose(f"Model {name!r}", "real", real, ORDERS)
        self.classes = checked_classes(classes, f"Model {name!r}")
        self._by_name = _named(nodes, name)
        for node in nodes:
            _check_node(node, self._by_name, name)
        self.nodes = _sorted(nodes, name)
        self.inputs = tuple(n.name for n in self.nodes if n.op == "input")
        self.outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        if not self.outputs:
            raise ArgumentError(f"Model {name!r}: outputs is empty; name the nodes whose values are wanted")
        for output in self.outputs:
            choose(f"Model {name!r}", "output", output, self._by_name)
        self._place = {node.name: i for i, node in enumerate(self.nodes)}
        self._uses = _uses(self.nodes, self._place, self.outputs)
        self._plans = {}

    def node(self, name):
        """Return the node of a name.

        Raises
        ------
        ArgumentError
            No such node; close names are suggested.
        """
        return self._by_name[choose(f"Model {self.name!r}", "node", name, self._by_name)]

    def users(self, name):
        """Return the nodes that read a node's value, in order."""
        return [n for n in self.nodes if name in n.inputs]

    @property
    def parameter_count(self):
        """How many numbers the weights, biases and constants hold; running statistics do not count."""
        return sum(int(np.prod(n.params[k].shape)) for n in self.nodes for k in ("weight", "bias", "value") if k in n.params)

    @property
    def quantized(self):
        """Whether any node works on codes."""
        return any(n.op == "quantize" for n in self.nodes)

    def with_nodes(self, nodes, **changes):
        """Return a model of other nodes, else like this one; `changes` are arguments of `Model`."""
        settings = {"outputs": self.outputs, "name": self.name, "numerics": self.numerics, "real": self.real, "classes": self.classes, **changes}
        return Model(nodes, **settings)

    def shapes(self, *input_shapes):
        """Work out the shape of every value without running the model.

        Parameters
        ----------
        *input_shapes : tuple of (int or None)
            One an input; without any, those that the input nodes state. None stands for an unknown dimension.

        Returns
        -------
        dict of str to tuple
            Empty for values whose input shapes are not stated.

        Raises
        ------
        ShapeError
            Shapes that do not fit together, with the node.
        """
        if input_shapes and len(input_shapes) != len(self.inputs):
            raise ArgumentError(f"Model {self.name!r}: {len(input_shapes)} shapes for {len(self.inputs)} inputs ({', '.join(self.inputs)}); give one each")
        given = dict(zip(self.inputs, input_shapes))
        known = {}
        for node in self.nodes:
            if node.op == "input":
                shape = given.get(node.name, node.attrs["shape"])
                known.update({} if shape is None else {node.name: tuple(shape)})
            elif all(i in known for i in node.inputs):
                known[node.name] = tuple(graph_op(node.op, self.name).shape(node, *(known[i] for i in node.inputs)))
        return known

    def __call__(self, *inputs, **options):
        """Same as `run`."""
        return self.run(*inputs, **options)

    def run(self, *inputs, hooks=(), numerics=None, real=None, threads=1):
        """Run the model.

        Parameters
        ----------
        *inputs : ndarray of float32, or QTensor
            One for each input node.
        hooks : callable or sequence of callable
            ``hook(node, value)`` is called with every value as it is computed, inputs included. What it returns, unless
            None, takes the value's place.
        numerics : str or Numerics, optional
            The profile of quantized nodes; the model's own unless given.
        real : str, optional
            The order of real sums; the model's own unless given.
        threads : int
            Of the engine that is modelled, where its bits depend on them (`refquant.ops.add`).

        Returns
        -------
        tuple of (ndarray or QTensor)
            One value for each of `outputs`.

        Raises
        ------
        ArgumentError, ShapeError
            Wrong inputs, or what an operator refuses, with the node's name.
        """
        order = choose(f"Model {self.name!r}", "real", real or self.real, ORDERS)
        context = Context(self.numerics if numerics is None else numerics, order, threads)
        hooks = (hooks,) if callable(hooks) else tuple(hooks)
        values = self._bind(inputs)
        if hooks:
            return self._run_with_hooks(context, values, hooks)
        key = (id(context.numerics), order, threads, *map(signature, values))
        plan = self._plans.get(key)
        if plan is None:
            return self._run_and_plan(context, values, key)
        return self._run_plan(plan[0], values)

    def _run_with_hooks(self, context, given, hooks):
        values = dict(zip(self.inputs, given))
        for node, (_, dropped) in zip(self.nodes, self._uses):
            value = values[node.name] if node.op == "input" else self._evaluate(context, node, [values[i] for i in node.inputs])
            for hook in hooks:
                other = hook(node, value)
                value = value if other is None else other
            values[node.name] = value
            for i in dropped:
                del values[self.nodes[i].name]
        return tuple(values[name] for name in self.outputs)

    def _run_and_plan(self, context, given, key):
        values, steps = self._places(given), []
        for place, (node, (sources, dropped)) in enumerate(zip(self.nodes, self._uses)):
            if node.op == "input":
                continue
            inputs = [values[i] for i in sources]
            values[place] = self._evaluate(context, node, inputs)
            steps.append(make_step(context, node, inputs, sources, place, dropped))
            for i in dropped:
                values[i] = None
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        # What is told by its identity is kept, so that nothing else can take its place.
        self._plans[key] = steps, (context.numerics, [v.qparams for v in given if isinstance(v, QTensor)])
        return tuple(values[self._place[name]] for name in self.outputs)

    def _run_plan(self, steps, given):
        values = self._places(given)
        place = None
        try:
            for function, sources, place, dropped in steps:
                values[place] = function(*[values[i] for i in sources])
                for i in dropped:
                    values[i] = None
        except RefquantError as error:
            raise self._located(error, self.nodes[place]) from error
        return tuple(values[self._place[name]] for name in self.outputs)

    def time_steps(self, *inputs, clock):
        """Run the model as planned and return ``{node: seconds}`` of its steps; `clock` gives seconds."""
        if not self._plans:
            self.run(*inputs)
        values, times = self._places(self._bind(inputs)), {}
        for function, sources, place, dropped in next(reversed(self._plans.values()))[0]:
            start = clock()
            values[place] = function(*[values[i] for i in sources])
            times[self.nodes[place].name] = clock() - start
            for i in dropped:
                values[i] = None
        return times

    def _places(self, given):
        values = [None] * len(self.nodes)
        for name, value in zip(self.inputs, given):
            values[self._place[name]] = value
        return values

    def _evaluate(self, context, node, inputs):
        if context.numerics is None and any(isinstance(v, QTensor) for v in inputs):
            raise ArgumentError(f"Model {self.name!r}: node {node.name!r} works on codes but no profile is set; give numerics=, such as numerics='fbgemm'")
        try:
            return graph_op(node.op, self.name).run(context, node, *inputs)
        except RefquantError as error:
            raise self._located(error, node) from error

    def _located(self, error, node):
        return type(error)(f"Model {self.name!r}, node {node.name!r}: {error}")

    def __getstate__(self):
        return {**self.__dict__, "_plans": {}, "classes": dict(self.classes)}

    def _bind(self, inputs):
        """Return the value of each input, checked."""
        if len(inputs) != len(self.inputs):
            raise ArgumentError(f"Model {self.name!r}: {len(inputs)} inputs given but it has {len(self.inputs)} ({', '.join(self.inputs)}); give one each")
        return [self._checked_input(self._by_name[name], x) for name, x in zip(self.inputs, inputs)]

    def _checked_input(self, node, x):
        place = f"Model {self.name!r}, input {node.name!r}"
        if not isinstance(x, QTensor):
            x = np.asarray(x)
            dtype = node.attrs["dtype"]
            if x.dtype != dtype:
                raise ArgumentError(f"{place}: the array has dtype {x.dtype} but must be {dtype}; convert it with x.astype(np.{dtype})")
        wanted = node.attrs["shape"]
        if wanted is not None and (len(wanted) != len(x.shape) or any(w not in (None, n) for w, n in zip(wanted, x.shape))):
            text = ", ".join("N" if w is None else str(w) for w in wanted)
            raise ShapeError(f"{place}: the array has shape {x.shape} but must be ({text}); reshape it, or run the model that fits it")
        return x

    def __repr__(self):
        return f"<Model {self.name!r}: {len(self.nodes)} nodes, {self.parameter_count:,} parameters>"

    def __str__(self):
        merged = {n.name: " + ".join(n.sources) for n in self.nodes if len(n.sources) > 1}
        return model_table(self, {"": "made of", **merged} if merged else None)


def _named(nodes, model):
    by_name = {}
    for node in nodes:
        if not isinstance(node, Node):
            raise ArgumentError(f"Model {model!r}: {node!r} is a {type(node).__name__}; nodes must be refquant.graph.Node")
        if node.name in by_name:
            raise ArgumentError(f"Model {model!r}: two nodes are named {node.name!r}; rename one")
        by_name[node.name] = node
    return by_name


def _check_node(node, by_name, model):
    kind = graph_op(node.op, f"Model {model!r}, node {node.name!r}")
    place = f"Model {model!r}, node {node.name!r} ({node.op})"
    least, most = kind.arity
    if len(node.inputs) < least or most is not None and len(node.inputs) > most:
        wanted = f"{least}" if least == most else f"at least {least}"
        raise ArgumentError(f"{place}: {len(node.inputs)} inputs {list(node.inputs)} but it takes {wanted}; correct inputs=")
    for name in node.inputs:
        choose(place, "input", name, by_name)
    for key in node.params:
        choose(place, "parameter", key, kind.params)
    for key, required in kind.params.items():
        if required and key not in node.params:
            raise ArgumentError(f"{place}: parameter {key!r} is missing; give params={{{key!r}: array}}")


def _uses(nodes, place, outputs):
    """Return, for each node, the places of its inputs and of the values that are read for the last time."""
    last = {place[name]: i for i, node in enumerate(nodes) for name in node.inputs}
    kept = {place[name] for name in outputs}
    uses = []
    for i, node in enumerate(nodes):
        sources = tuple(place[name] for name in node.inputs)
        uses.append((sources, tuple(p for p in sorted(set(sources)) if last[p] == i and p not in kept)))
    return uses


def _sorted(nodes, model):
    """Return nodes in an order in which every input comes first: at each step the first in the given order that is ready."""
    missing = [len(set(node.inputs)) for node in nodes]
    readers = {node.name: [] for node in nodes}
    for i, node in enumerate(nodes):
        for name in set(node.inputs):
            readers[name].append(i)
    ready = [i for i, count in enumerate(missing) if not count]
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(nodes[i])
        for j in readers[nodes[i].name]:
            missing[j] -= 1
            if not missing[j]:
                heapq.heappush(ready, j)
    if len(order) < len(nodes):
        done = {node.name for node in order}
        loop = ", ".join(node.name for node in nodes if node.name not in done)
        raise ArgumentError(f"Model {model!r}: the nodes {loop} lie on or behind a cycle; a node's inputs must not depend on the node")
    return tuple(order)
