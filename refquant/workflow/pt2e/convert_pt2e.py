"""`convert_pt2e`: observers become quantize and dequantize nodes, weights become codes."""

import numpy as np

from refquant import numerics as profiles
from refquant import ops
from refquant.core.qparams import QParams
from refquant.errors import ArgumentError, RefquantError, UnsupportedError
from refquant.graph.node import Node
from refquant.observers.qparams_from_range import plain_name
from refquant.workflow.pt2e.prepare_pt2e import PreparedPT2E
from refquant.workflow.pt2e.quantization_spec import CODES

__all__ = ["convert_pt2e"]

_EPS = 2.0**-23  # what torchao takes where a fake-quantizer hides its observer's


def convert_pt2e(prepared, numerics="inductor"):
    """Quantize a calibrated model: each layer still computes in float32, between a dequantize and a quantize node.

    Parameters
    ----------
    prepared : PreparedPT2E
        From `prepare_pt2e` or `prepare_qat_pt2e`, called with data; it does not change, and may be converted again. After training, batch norms are folded
        into the convolutions that they scale, and the others take their running statistics.
    numerics : str or Numerics
        The profile of the quantize and dequantize nodes: PyTorch's quantized_decomposed operators.

    Returns
    -------
    Model
        Takes and returns float32 arrays. Weights are codes; a layer on float32 values computes with them dequantized. This is what
        PyTorch runs in eager mode; `lower_pt2e` makes of it what TorchInductor runs.

    Raises
    ------
    ArgumentError
        Not a prepared model, no calibration data, an unknown profile.
    UnsupportedError
        Activations per channel, or of a dtype that is no integer.

    Examples
    --------
    >>> from refquant import zoo
    >>> from refquant.data import load_split
    >>> from refquant.workflow import X86InductorQuantizer, get_default_x86_inductor_quantization_config, prepare_pt2e
    >>> x, _ = load_split("digits", "calibration")
    >>> quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    >>> prepared = prepare_pt2e(zoo.load("digits_mobilenet"), quantizer)
    >>> for batch in x.reshape(4, 50, 1, 8, 8):
    ...     _ = prepared(batch)
    >>> model = convert_pt2e(prepared)
    >>> [n.name for n in model.nodes][:4], model.node("stem_conv").params["weight"].dtype
    (['x', 'x_quantize', 'x_dequantize', 'stem_conv'], 'int8')
    >>> test, labels = load_split("digits", "test")
    >>> y, = model(test)
    >>> bool((y.argmax(1) == labels).mean() > 0.95)
    True
    """
    if not isinstance(prepared, PreparedPT2E):
        raise ArgumentError(f"convert_pt2e: prepared is a {type(prepared).__name__} but must come from prepare_pt2e; prepare and calibrate the model first")
    if not prepared.batches:
        raise ArgumentError("convert_pt2e: the model has seen no data, so its observers know no range; call prepared(batch) with calibration data first")
    profile = profiles.get(numerics)
    model, parameters = prepared.folded()
    weights = _quantized_parameters(parameters, profile)
    behind, nodes = {}, []
    for node in model.nodes:
        node = node.replace(inputs=[behind.get(i, i) for i in node.inputs])
        if node.op != "observe":
            nodes.append(node.replace(params={**node.params, **weights.get(node.name, {})}))
        else:
            pair = _conversion(node, {n.name for n in nodes})
            nodes += pair
            behind[node.name] = pair[-1].name if pair else node.inputs[0]
    outputs = [behind.get(o, o) for o in model.outputs]
    return model.with_nodes(_alive(nodes, outputs), outputs=outputs, numerics=profile)


def _conversion(node, taken):
    """Return what takes the place of an observer: a quantize and a dequantize node, or nothing where the value stays float."""
    observer, value = node.attrs["observer"], node.inputs[0]
    base = value if f"{value}_quantize" not in taken else node.name
    if observer.is_dynamic:
        return _pair(node, base, "quantize_dynamic", _dynamic_settings(observer, value))
    if plain_name(observer.dtype) not in CODES:
        if plain_name(observer.dtype) == "float32":
            return []
        raise UnsupportedError(f"convert_pt2e: {value!r} is to become {observer.dtype}; values can be quantized to {', '.join(CODES)}")
    qparams = _qparams(observer, value)
    if qparams.per_channel:
        raise UnsupportedError(f"convert_pt2e: {type(observer).__name__} of {value!r} gives parameters per channel, but values are quantized per tensor; observe it with another observer")
    return _pair(node, base, "quantize", {"out": qparams})


def _pair(node, base, op, settings):
    quantize = Node(f"{base}_quantize", op, node.inputs, settings, path=node.path)
    return [quantize, Node(f"{base}_dequantize", "dequantize", [quantize.name], path=node.path)]


def _dynamic_settings(observer, value):
    """Return how parameters are chosen at run time: from all codes of the dtype."""
    dtype, scheme = plain_name(observer.dtype), plain_name(observer.qscheme)
    whole = {"uint8": (0, 255), "int8": (-128, 127)}.get(dtype)
    if whole is None or (observer.quant_min, observer.quant_max) != whole or not scheme.startswith("per_tensor"):
        raise UnsupportedError(
            f"convert_pt2e: {value!r} is to be quantized at run time to {dtype} {observer.quant_min} … {observer.quant_max}, {scheme};"
            " parameters are chosen per tensor, from all codes of uint8 or int8: leave reduce_range out"
        )
    return {"dtype": dtype, "symmetric": scheme.endswith("symmetric"), "eps": float(getattr(observer, "eps", _EPS))}


def _qparams(observer, name):
    try:
        qparams = observer.calculate_qparams()
    except RefquantError as error:
        raise type(error)(f"convert_pt2e: the observer of {name!r}: {error}") from error
    if not isinstance(qparams, QParams):
        raise UnsupportedError(f"convert_pt2e: {type(observer).__name__} of {name!r} gives {qparams!r}, whose zero point is no integer; choose another observer")
    return qparams


def _quantized_parameters(parameters, profile):
    """Return ``{node name: {parameter: QTensor or ndarray}}``."""
    found = {}
    for parameter in parameters:
        value = _quantized(parameter, profile)
        for node, key in parameter.readers:
            found.setdefault(node, {})[key] = value
    return found


def _quantized(parameter, profile):
    observer, dtype = parameter.observer, plain_name(parameter.observer.dtype)
    if dtype == "float16":
        return parameter.value.astype(np.float16).astype(np.float32)
    if dtype not in CODES:
        return parameter.value
    if observer.is_dynamic:
        raise UnsupportedError(f"convert_pt2e: {parameter.name!r} is to get its parameters at run time, but it does not change; give its spec is_dynamic=False")
    return ops.quantize(parameter.value, _qparams(observer, parameter.name), numerics=profile)


def _alive(nodes, outputs):
    """Return the nodes whose values are read; of a dropout PyTorch thinks that it has side effects."""
    wanted = {*outputs, *(n.name for n in nodes if n.op == "dropout")}
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
    return [n for n in nodes if n.name in wanted or n.op == "input"]
