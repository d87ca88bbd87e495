"""`prepare_qat_fx`: a float model becomes what PyTorch trains: fake-quantizers at values, and in layers that round their weights to a grid."""

import copy
import re
from typing import NamedTuple

import numpy as np

from refquant import ops
from refquant.core.qparams import QParams
from refquant.errors import UnsupportedError
from refquant.graph.node import Node
from refquant.workflow.backend_config import BackendConfig
from refquant.workflow.backend_patterns import get_backend_config
from refquant.workflow.prepare_fx import fused_model, prepared_with
from refquant.workflow.qconfig_mapping import qconfigs_of

__all__ = ["prepare_qat_fx", "QatLayer", "qat_backend_config", "as_float"]

_F = np.float32
_WITH_NORM = re.compile(r"(?:(?:nn\.ReLU|F\.relu)\()?nn\.BatchNorm[123]d\((nn\.(?:Conv[123]d|Linear))\)+")
_FLOAT = {**{f"nni.ConvBn{d}d": f"nn.Conv{d}d" for d in (1, 2, 3)}, **{f"nni.ConvBnReLU{d}d": f"nni.ConvReLU{d}d" for d in (1, 2, 3)}, "nni.LinearBn1d": "nn.Linear"}
_SWAPPED = {*_FLOAT, *(f"nn.Conv{d}d" for d in (1, 2, 3)), *(f"nni.ConvReLU{d}d" for d in (1, 2, 3)), "nn.Linear", "nni.LinearReLU"}


class QatLayer(NamedTuple):
    """A layer whose weight is rounded to its grid in each run, or one that keeps its batch norm.

    Attributes
    ----------
    weight, bias : ndarray
        Of the layer itself; bias may be None.
    norm : dict or None
        The parameters of the batch norm behind it.
    eps : float
        Of the batch norm.
    fake_quant : ObserverBase or None
        Sees the weight, with a batch norm the weight times ``γ / sqrt(var + eps)``, and hands it on. None: no QConfig.

    Source
    ------
    PyTorch 2.13, torch/ao/nn/intrinsic/qat/modules/conv_fused.py, ``_ConvBnNd._forward_approximate``; torch/ao/nn/qat/modules.
    """

    weight: np.ndarray
    bias: object
    norm: object
    eps: float
    fake_quant: object

    def nodes(self, node):
        """Yield what computes the layer in one run; its fake-quantizer sees the weight now. The last has the name of the node."""
        if self.norm is None:
            yield node.replace(params={**node.params, "weight": self.fake_quant(self.weight)})
        elif self.fake_quant is None:
            yield from self.float_nodes(node)
        else:
            yield from self._scaled_nodes(node)

    def float_nodes(self, node):
        """Yield the layer and its batch norm, each for itself."""
        conv = f"{node.name}_without_norm"
        yield node.replace(name=conv, target=_plain(node.target), params={"weight": self.weight, "bias": self.bias}, attrs={**node.attrs, "activation": None}, sources=node.sources[:1])
        yield self._norm_node(node, conv)

    def _scaled_nodes(self, node):
        """The layer with the weight of both, divided by the norm's share again, then the bias and the norm."""
        factor = self.norm["weight"] / np.sqrt(self.norm["running_var"] + _F(self.eps))
        weight = self.fake_quant(self.weight * factor.reshape(-1, *[1] * (self.weight.ndim - 1)))
        along = (1, -1, *[1] * (self.weight.ndim - 2))
        base = node.name
        params = {"weight": weight, "bias": np.zeros(len(weight), _F)}
        yield node.replace(name=f"{base}_scaled", target=_plain(node.target), params=params, attrs={**node.attrs, "activation": None}, sources=node.sources[:1])
        yield Node(f"{base}_factor", "constant", params={"value": factor.reshape(along)}, path=node.path)
        yield Node(f"{base}_divided", "div", [f"{base}_scaled", f"{base}_factor"], path=node.path)
        if self.bias is not None:
            yield Node(f"{base}_bias", "constant", params={"value": self.bias.reshape(along)}, path=node.path)
            yield Node(f"{base}_with_bias", "add", [f"{base}_divided", f"{base}_bias"], path=node.path)
        yield self._norm_node(node, f"{base}_divided" if self.bias is None else f"{base}_with_bias")

    def _norm_node(self, node, source):
        attrs = {"eps": self.eps, "activation": node.attrs["activation"]}
        return Node(node.name, "batch_norm", [source], attrs, self.norm, target="nni.BNReLU2d" if attrs["activation"] else None, path=node.path, sources=node.sources[1:])

    def quantized(self, weight, place, numerics):
        """Return the weight of the float layer as a QTensor: the fake-quantizer sees it once more, and its observer gives the parameters."""
        fake_quant = copy.deepcopy(self.fake_quant)
        fake_quant(weight)
        qparams = fake_quant.calculate_qparams()
        if not isinstance(qparams, QParams):
            raise UnsupportedError(f"convert: {type(fake_quant).__name__} of {place}.weight gives {qparams!r}; weights need integer zero points, choose another fake-quantizer")
        return ops.quantize(weight, qparams, numerics=numerics)


def _plain(target):
    return re.sub(r"nni\.(Conv|Linear)(?:Bn)?(?:ReLU)?([123]d)?", lambda m: f"nn.{m[1]}{m[2] if m[1] == 'Conv' else ''}", target)


def qat_backend_config(table):
    """Return a table for training: a layer and its batch norm become one that keeps both.

    Examples
    --------
    >>> table = qat_backend_config(get_backend_config())
    >>> [c.fused for c in table.fusions if c.pattern in ("nn.BatchNorm2d(nn.Conv2d)", "nn.ReLU(nn.BatchNorm2d(nn.Conv2d))")]
    ['nni.ConvBn2d', 'nni.ConvBnReLU2d']
    """
    rows = []
    for config in table.configs:
        found = _WITH_NORM.fullmatch(config.pattern)
        if config.fused and found:
            layer = found[1].removeprefix("nn.")
            relu = "ReLU" if "relu" in config.pattern.lower() else ""
            fused = "nni.LinearBn1d" if layer == "Linear" else f"nni.ConvBn{relu}{layer[-2:]}"
            rows += [config._replace(fused=fused), config._replace(pattern=fused, fused=None, weighted=True)]
        else:
            rows.append(config)
    return BackendConfig(table.name, rows)


def prepare_qat_fx(model, qconfig_mapping, example_inputs, prepare_custom_config=None, backend_config=None):
    """Fuse layers and insert fake-quantizers, as PyTorch does before quantization-aware training.

    refquant does not train: the weights stay as they are, batch norms keep their running statistics (PyTorch's model in ``eval`` mode), and a call of the
    result simulates INT8 in float32 while fake-quantizers observe.

    Parameters
    ----------
    model, qconfig_mapping, example_inputs, prepare_custom_config, backend_config
        Of `prepare_fx`; the mapping is such as `get_default_qat_qconfig_mapping` returns.

    Returns
    -------
    Prepared
        With ``layers``; `convert_fx` takes it.

    Raises
    ------
    ArgumentError, ShapeError
        As `prepare_fx`.
    UnsupportedError
        What PyTorch has no layer for in training: a batch norm behind a transposed convolution, an embedding with a QConfig. Standalone modules. A layer that only a regular
        expression or a rule by order gives a QConfig.

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/quantize_fx.py, ``prepare_qat_fx``; fx/prepare.py, ``_qat_swap_modules``.

    Examples
    --------
    >>> from refquant import zoo
    >>> from refquant.data import load_split
    >>> from refquant.workflow import convert_fx, get_default_qat_qconfig_mapping
    >>> x, _ = load_split("digits", "calibration")
    >>> prepared = prepare_qat_fx(zoo.load("digits_resnet"), get_default_qat_qconfig_mapping("x86"), (x[:50],))
    >>> prepared.model.node("stem_conv").target, type(prepared.layers["stem_conv"].fake_quant).__name__
    ('nni.ConvBnReLU2d', 'FusedMovingAvgObsFakeQuantize')
    >>> simulated, = prepared(x[:50])
    >>> int8, = convert_fx(prepared)(x[:50])
    >>> bool((int8.argmax(1) == simulated.argmax(1)).mean() > 0.9)
    True
    """
    table = backend_config or get_backend_config()
    table = qat_backend_config(table) if isinstance(table, BackendConfig) else table
    if any(getattr(prepare_custom_config, name, None) for name in ("standalone_module_names", "standalone_module_classes", "float_to_observed_mapping")):
        raise UnsupportedError("prepare_qat_fx: standalone and custom modules are prepared for calibration alone; use prepare_fx, or leave their setters out")
    prepared = prepared_with("prepare_qat_fx", model, qconfig_mapping, example_inputs, prepare_custom_config, table)
    fused_from = {n.name: n for n in model.nodes}
    _check_trainable(prepared, fused_from)
    prepared.layers = _layers(prepared, fused_from, _swapped_by(prepared, qconfig_mapping))
    outer, _ = prepared.apart()
    outer.layers = {name: layer for name, layer in prepared.layers.items() if name in outer.qconfigs}
    return prepared


def _check_trainable(prepared, fused_from):
    for node in prepared.model.nodes:
        norms = [s for s in node.sources[1:] if s in fused_from and fused_from[s].op == "batch_norm"]
        if norms and node.target not in _FLOAT and node.op != "batch_norm":
            raise UnsupportedError(f"prepare_qat_fx: {node.name!r} is a {node.target} with the batch norm {norms[0]!r}; PyTorch has no such layer for training, set the QConfig of both apart by a backend_config without that fusion")
        if node.target == "nn.Embedding" and prepared.qconfigs.get(node.name) is not None:
            raise UnsupportedError(f"prepare_qat_fx: {node.name!r} is an embedding, whose rows PyTorch trains with float zero points alone; leave it float: set_object_type('nn.Embedding', None)")


def _swapped_by(prepared, mapping):
    """Return the QConfig by the path of a layer under which PyTorch swaps it: rules by regular expression and by order do not count there, though they do for values."""
    plain, model = copy.copy(mapping), fused_model(prepared.model)
    plain.module_name_regexes, plain.module_name_object_type_orders = {}, {}
    qconfigs = qconfigs_of(model, plain, prepared.backend_config, prepared.custom.left_alone(model))
    for node in model.nodes:
        if node.is_module and node.target in _SWAPPED and qconfigs[node.name] is None and prepared.qconfigs.get(node.name) is not None:
            raise UnsupportedError(
                f"prepare_qat_fx: {node.name!r} has a QConfig by a regular expression or by order alone, under which PyTorch rounds its values but leaves its weight;"
                f" name it: set_module_name({node.path!r}, ...)"
            )
        first = (prepared.backend_config.fused_parts(node.target) or ("",))[0]
        if node.target in _SWAPPED - set(_FLOAT) and qconfigs[node.name] is not None and mapping.object_types.get(first, ...) is None:
            raise UnsupportedError(
                f"prepare_qat_fx: {node.name!r} is a {node.target}, which the rule for {first!r} does not reach, though it reaches the layer inside, and PyTorch breaks off there;"
                f" leave it float as a whole: set_module_name({node.path!r}, None) instead of set_object_type({first!r}, None)"
            )
    return {n.path: qconfigs[n.name] for n in model.nodes if n.is_module}


def _layers(prepared, fused_from, by_path):
    """Return ``{node name: QatLayer}``; calls of one module share its fake-quantizer."""
    layers, made = {}, {}
    for node in prepared.model.nodes:
        qconfig = by_path[node.path] if node.is_module else prepared.qconfigs.get(node.name)
        swapped = node.is_module and node.target in _SWAPPED and qconfig is not None
        if not (swapped or node.name in prepared.weights or node.target in _FLOAT):
            continue
        key = node.path if node.is_module else node.name
        if key not in made:
            made[key] = _layer(node, fused_from, qconfig)
        layers[node.name] = made[key]
    return layers


def _layer(node, fused_from, qconfig):
    own = [fused_from[name] for name in node.sources if name in fused_from]
    norm = next((n for n in own if n.op == "batch_norm"), None) if node.target in _FLOAT else None
    root = own[0] if norm is not None else node
    fake_quant = None if qconfig is None else qconfig.weight()
    return QatLayer(root.params["weight"], root.params.get("bias"), None if norm is None else dict(norm.params), 0.0 if norm is None else norm.attrs["eps"], fake_quant)


def as_float(prepared):
    """Return a prepared model whose layers are float ones again, with batch norms folded; those without a QConfig stay apart."""
    nodes = []
    for node in prepared.model.nodes:
        layer = prepared.layers.get(node.name)
        if layer is not None and layer.fake_quant is None:
            nodes += layer.float_nodes(node)
        else:
            nodes.append(node.replace(target=_FLOAT.get(node.target, node.target)))
    return prepared.with_model(prepared.model.with_nodes(nodes))
