"""From a model with observers to one with quantize and dequantize nodes and weights on their grid: the reference model, which still works on float32."""

from refquant import ops
from refquant.core.qparams import QParams
from refquant.errors import ArgumentError, RefquantError, UnsupportedError
from refquant.graph.node import Node

__all__ = ["quantize_values", "quantize_weight", "reference_weights", "quantized_slopes", "on_grid", "check_calibrated"]

# PyTorch quantizes weights before any engine sees them; the profiles of all its engines agree on how.
_WEIGHT_NUMERICS = "fbgemm"


def quantize_values(model, reduce_range=False, left_out=()):
    """Replace each ``observe`` node by a quantize and a dequantize node with the parameters that its observer found.

    Parameters
    ----------
    model : Model
    reduce_range : bool
        Whether values whose parameters are chosen at run time use the codes 0 … 127.
    left_out : collection of str
        ``observe`` nodes of which nothing is left.

    Returns
    -------
    Model
        All layers still work on float32.
    """
    parameters, behind, nodes, names = {}, {}, [], {n.name for n in model.nodes}
    for node in model.nodes:
        node = node.replace(inputs=[behind.get(i, i) for i in node.inputs])
        if node.op != "observe":
            nodes.append(node)
            continue
        observer, value = node.attrs["observer"], node.inputs[0]
        if node.name in left_out or observer.dtype not in ("uint8", "int8") and not observer.is_dynamic:
            behind[node.name] = value
            continue
        base = value if f"{value}_quantize" not in names else node.name
        names.add(f"{base}_quantize")
        if observer.is_dynamic:
            nodes.append(Node(f"{base}_quantize", "quantize_dynamic", [value], {"reduce_range": reduce_range}, path=node.path))
        else:
            if id(observer) not in parameters:
                parameters[id(observer)] = _qparams(observer, value)
            nodes.append(Node(f"{base}_quantize", "quantize", [value], {"out": parameters[id(observer)]}, path=node.path))
        nodes.append(Node(f"{base}_dequantize", "dequantize", [f"{base}_quantize"], path=node.path))
        behind[node.name] = f"{base}_dequantize"
    return model.with_nodes(nodes, outputs=[behind.get(o, o) for o in model.outputs])


def _qparams(observer, value):
    try:
        qparams = observer.calculate_qparams()
    except RefquantError as error:
        raise type(error)(f"convert: the observer of {value!r}: {error}") from error
    if not isinstance(qparams, QParams) or qparams.per_channel:
        raise UnsupportedError(f"convert: {type(observer).__name__} of {value!r} gives {qparams!r}, but activations are quantized per tensor; observe them with another observer")
    return qparams


def quantize_weight(node, qconfig, times=1):
    """Return the weight of a layer as a QTensor, with the parameters that a new observer of the QConfig finds.

    Parameters
    ----------
    node : Node
    qconfig : QConfig
    times : int
        How often the observer sees the weight, which matters for histograms alone.
    """
    observer = qconfig.weight()
    for _ in range(times):
        observer(node.params["weight"])
    qparams = observer.calculate_qparams()
    if not isinstance(qparams, QParams):
        raise UnsupportedError(f"convert: {type(observer).__name__} of {node.name}.weight gives {qparams!r}; weights need integer zero points, choose another observer")
    return ops.quantize(node.params["weight"], qparams, numerics=_WEIGHT_NUMERICS)


def reference_weights(prepared):
    """Return ``{node name: QTensor}`` of the layers whose weights are quantized, whether the layer then runs on codes or not.

    Source
    ------
    PyTorch 2.13, torch/ao/quantization/fx/convert.py, ``convert_weighted_module``; the weights of functions are observed each time they are used.
    """
    found = {}
    # Calls of one module share its QConfig, the last call's.
    by_path = {n.path: prepared.qconfigs.get(n.name) for n in prepared.model.nodes if n.is_module}
    for node in prepared.model.nodes:
        if "weight" not in node.params or node.name not in prepared.observed or prepared.qconfigs[node.name] is None:
            continue
        if not node.is_module:
            if node.name in prepared.weights:
                found[node.name] = _trained_weight(node, prepared) or quantize_weight(node, prepared.qconfigs[node.name], prepared.batches + 1)
            continue
        config, qconfig = prepared.backend_config.find(node.target), by_path[node.path]
        if config is not None and config.weighted and qconfig is not None and _supported(qconfig, config.dtype_configs):
            found[node.name] = _trained_weight(node, prepared) or quantize_weight(node, qconfig)
    return found


def _trained_weight(node, prepared):
    """Return the weight on the grid of the fake-quantizer that saw it in training, or None."""
    layer = prepared.layers.get(node.name)
    return None if layer is None else layer.quantized(node.params["weight"], node.name, _WEIGHT_NUMERICS)


def quantized_slopes(prepared):
    """Return ``{node name: QTensor}`` of the slopes of PReLU layers, which are quantized where the layer becomes one on codes."""
    by_path = {n.path: prepared.qconfigs.get(n.name) for n in prepared.model.nodes if n.is_module}
    return {n.name: quantize_weight(n, by_path[n.path]) for n in prepared.model.nodes if n.op == "prelu" and by_path.get(n.path) is not None}


def _supported(qconfig, dtype_configs):
    """Whether engines have kernels for the dtypes of a QConfig; PyTorch asks only now for a module's weight, after observers were placed."""
    activation, weight = qconfig.activation(), qconfig.weight()
    for config in dtype_configs:
        dtypes = [c.dtype or "float32" for c in (config.input, config.output, config.weight)]
        out = "float32" if config.is_dynamic else activation.dtype
        if config.is_dynamic == activation.is_dynamic and dtypes == [activation.dtype, out, weight.dtype] and (config.bias or "float32") == "float32":
            return weight.dtype in ("uint8", "int8")
    return False


def on_grid(node, weights):
    """Return the node with its quantized weight as float32 numbers."""
    if node.name not in weights:
        return node
    return node.replace(params={**node.params, "weight": ops.dequantize(weights[node.name], numerics=_WEIGHT_NUMERICS)})


def check_calibrated(prepared, place):
    """Refuse a prepared model that has seen no data but needs it."""
    needs = any(n.op == "observe" and not n.attrs["observer"].is_dynamic for n in prepared.model.nodes)
    if not prepared.batches and needs:
        raise ArgumentError(f"{place}: the model has seen no data, so its observers know no range; call prepared(batch) with calibration data first")
