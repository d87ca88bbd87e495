"""`prepare_fx`: a float model becomes one with observers, which is then calibrated by calling it."""

import numpy as np

from refquant.errors import ArgumentError
from refquant.graph.model import Model
from refquant.graph.table import model_table
from refquant.workflow.fuse import FUSED_PARTS, fuse
from refquant.workflow.placement import place_observers
from refquant.workflow.qconfig_mapping import QConfigMapping, qconfigs_of

__all__ = ["Prepared", "prepare_fx"]


class Prepared:
    """A model with observers; made by `prepare_fx`.

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
    batches : int
        How many batches were seen.
    """

    def __init__(self, model, qconfigs, backend):
        self.model, self.qconfigs, self.backend = model, qconfigs, backend
        self.batches = 0

    def __call__(self, *inputs, **options):
        """Run the float model and let the observers see its values; options are those of `Model.run`."""
        if any(np.size(getattr(x, "values", x)) == 0 for x in inputs):
            raise ArgumentError(f"{self.model.name}: the calibration batch is empty; give at least one image")
        outputs = self.model.run(*inputs, **options)
        self.batches += 1
        return outputs

    @property
    def placement(self):
        """Where observers sit: ``[(observed node, number of its observer)]`` in order; a number that comes again is a shared observer."""
        numbers = {}
        rows = [(n.inputs[0], n.attrs["observer"]) for n in self.model.nodes if n.op == "observe"]
        return [(name, numbers.setdefault(id(observer), len(numbers))) for name, observer in rows]

    def __repr__(self):
        return f"<Prepared {self.model.name!r}: {len(self.placement)} observed values, {self.batches} batches seen>"

    def __str__(self):
        places = self.placement
        first, extra = {}, {"": "observer"}
        for name, number in places:
            observer = next(n.attrs["observer"] for n in self.model.users(name) if n.op == "observe")
            shared = f"#{number} as {first[number]}" if number in first else f"#{number} {type(observer).__name__}"
            first.setdefault(number, name)
            extra[name] = ", ".join(filter(None, [extra.get(name), shared]))
        visible = [n for n in self.model.nodes if n.op != "observe"]
        behind = {n.name: n.inputs[0] for n in self.model.nodes if n.op == "observe"}
        plain = [n.replace(inputs=[behind.get(i, i) for i in n.inputs]) for n in visible]
        return model_table(self.model.with_nodes(plain, outputs=[behind.get(o, o) for o in self.model.outputs]), extra)


def prepare_fx(model, qconfig_mapping, example_inputs):
    """Fuse layers and insert observers, as PyTorch's FX workflow does.

    Parameters
    ----------
    model : Model
        On float32 arrays.
    qconfig_mapping : QConfigMapping
    example_inputs : tuple of ndarray
        Inputs that fit the model; their shapes are checked.

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
    _check_model(model)
    if not isinstance(qconfig_mapping, QConfigMapping):
        kind = type(qconfig_mapping).__name__
        raise ArgumentError(f"prepare_fx: qconfig_mapping is a {kind}; pass a QConfigMapping, such as get_default_qconfig_mapping('x86')")
    if not isinstance(example_inputs, (tuple, list)):
        kind = type(example_inputs).__name__
        raise ArgumentError(f"prepare_fx: example_inputs is a {kind} but must be a tuple, one entry an input; write (x,)")
    model._bind(tuple(example_inputs))
    model.shapes(*(np.shape(x) for x in example_inputs))
    fused = fuse(model)
    qconfigs = qconfigs_of(fused, qconfig_mapping, FUSED_PARTS)
    return Prepared(place_observers(fused, qconfigs), qconfigs, qconfig_mapping.backend)


def _check_model(model):
    if not isinstance(model, Model):
        kind = type(model).__name__
        raise ArgumentError(f"prepare_fx: model is a {kind} but must be a refquant Model; convert PyTorch modules with refquant.interop.from_torch")
    if any(n.op in ("observe", "quantize", "dequantize") for n in model.nodes):
        raise ArgumentError(f"prepare_fx: model {model.name!r} is prepared or quantized already; pass the float model")
