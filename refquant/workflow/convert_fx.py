"""`convert_fx`: a calibrated model becomes one that runs in INT8; `convert_to_reference_fx`: one that shows where, on float32."""

from refquant import numerics as profiles
from refquant.errors import ArgumentError, UnsupportedError
from refquant.graph.node import Node
from refquant.workflow.backend_config import BackendConfig
from refquant.workflow.convert import check_calibrated, on_grid, quantize_values, quantized_slopes, reference_weights
from refquant.workflow.custom_config import ConvertCustomConfig, preserve
from refquant.workflow.custom_module import swap_quantized
from refquant.workflow.lower import lower
from refquant.workflow.prepare_fx import Prepared, fused_model
from refquant.workflow.prepare_qat_fx import as_float, qat_backend_config
from refquant.workflow.qconfig_mapping import QConfigMapping, qconfigs_of
from refquant.workflow.standalone import splice

__all__ = ["convert_fx", "convert_to_reference_fx"]


def convert_fx(prepared, numerics=None, convert_custom_config=None, qconfig_mapping=None, backend_config=None):
    """Quantize a calibrated model.

    Parameters
    ----------
    prepared : Prepared
        From `prepare_fx`, called with calibration data; it does not change, and may be converted again.
    numerics : str or Numerics, optional
        The profile that the model will run under. Unless given, the one of the engine that the QConfigMapping was made for; x86,
        PyTorch's default, where it was made for none.
    convert_custom_config : ConvertCustomConfig, optional
    qconfig_mapping : QConfigMapping, optional
        The mapping of `prepare_fx`, with None for layers that are to stay float after all.
    backend_config : BackendConfig, optional
        The table of `prepare_fx`, which the prepared model keeps; PyTorch's does not, and wants it again.

    Returns
    -------
    Model
        Takes and returns float32 arrays, but for inputs and outputs that `PrepareCustomConfig` wants as QTensors. A layer that was not quantized runs in
        float32 between a dequantize and a quantize node.

    Raises
    ------
    ArgumentError
        Not a prepared model, no calibration data, an unknown profile, a mapping that differs by more than None, another table.
    UnsupportedError
        A layer that cannot be quantized, with the call that leaves it float.

    Examples
    --------
    >>> from refquant import zoo
    >>> from refquant.data import load_split
    >>> from refquant.workflow import convert_fx, get_default_qconfig_mapping, prepare_fx
    >>> x, _ = load_split("digits", "calibration")
    >>> prepared = prepare_fx(zoo.load("digits_resnet"), get_default_qconfig_mapping("x86"), (x[:50],))
    >>> for batch in x.reshape(4, 50, 1, 8, 8):
    ...     _ = prepared(batch)
    >>> int8 = convert_fx(prepared)
    >>> [n.name for n in int8.nodes][:4], int8.node("stem_conv").sources
    (['x', 'x_quantize', 'stem_conv', 'block1_conv1'], ('stem_conv', 'stem_bn', 'stem_relu'))
    >>> test, labels = load_split("digits", "test")
    >>> y, = int8(test)
    >>> bool((y.argmax(1) == labels).mean() > 0.98)
    True
    """
    _check_table(prepared, backend_config, "convert_fx")
    return _convert(prepared, numerics, convert_custom_config, qconfig_mapping, "convert_fx", _lowered)


def convert_to_reference_fx(prepared, numerics=None, convert_custom_config=None, qconfig_mapping=None, backend_config=None):
    """Quantize a calibrated model, and leave every layer on float32 between dequantize and quantize nodes, its weight on its grid.

    That model computes what a layer *means*, whatever engine runs it; `convert_fx` turns its dequantize-layer-quantize triples into the engine's layers.

    Parameters
    ----------
    prepared, numerics, convert_custom_config, qconfig_mapping, backend_config
        Of `convert_fx`.

    Returns
    -------
    Model

    Examples
    --------
    >>> from refquant import zoo
    >>> from refquant.data import load_split
    >>> from refquant.workflow import get_default_qconfig_mapping, prepare_fx
    >>> x, _ = load_split("digits", "calibration")
    >>> prepared = prepare_fx(zoo.load("digits_resnet"), get_default_qconfig_mapping("x86"), (x[:50],))
    >>> _ = prepared(x[:50])
    >>> [n.name for n in convert_to_reference_fx(prepared).nodes][:6]
    ['x', 'x_quantize', 'x_dequantize', 'stem_conv', 'stem_conv_quantize', 'stem_conv_dequantize']
    """
    _check_table(prepared, backend_config, "convert_to_reference_fx")
    return _convert(prepared, numerics, convert_custom_config, qconfig_mapping, "convert_to_reference_fx", _reference)


def _check_table(prepared, given, place):
    table = getattr(prepared, "backend_config", None)
    if given is not None and given != table and not (isinstance(given, BackendConfig) and qat_backend_config(given) == table):
        raise ArgumentError(f"{place}: backend_config is {given!r} but the model was prepared with {table!r}; give prepare_fx and {place} the same, or leave it out here")


def _convert(prepared, numerics, custom, mapping, place, finish):
    if not isinstance(prepared, Prepared):
        raise ArgumentError(f"{place}: prepared is a {type(prepared).__name__} but must come from prepare_fx; prepare and calibrate the model first")
    check_calibrated(prepared, place)
    custom = custom or ConvertCustomConfig()
    if not isinstance(custom, ConvertCustomConfig):
        raise ArgumentError(f"{place}: convert_custom_config is a {type(custom).__name__} but must be a ConvertCustomConfig; see refquant.workflow.ConvertCustomConfig")
    profile = profiles.get(numerics or prepared.backend or "x86")
    model = _converted(prepared, profile, mapping, place, finish, swaps=custom.observed_to_quantized_mapping)
    return preserve(prepared.model, model.with_nodes(model.nodes, numerics=profile), custom.preserved_attributes, place)


def _converted(prepared, profile, mapping, place, finish, part=None, swaps=None):
    prepared, parts = prepared.apart()
    skipped = _without_qconfig(prepared, mapping, place)
    prepared = as_float(prepared) if prepared.layers else prepared
    weights = {name: w for name, w in reference_weights(prepared).items() if name not in skipped}
    # PyTorch takes the range of run-time parameters from the engine, not from the observer.
    model = quantize_values(prepared.model, reduce_range=profile.name.partition("@")[0] in ("fbgemm", "x86"), left_out=_left_out(prepared.model, skipped))
    inner = {name: p for name, p in parts.items() if isinstance(p, Prepared)}
    model = _with_codes(model, prepared, inner, place)
    if swaps:
        model, parts = swap_quantized(model, prepared, parts, swaps, place)
    if part is not None and prepared.custom.output_quantized_indexes and model.node(model.outputs[0]).op not in ("quantize", "input"):
        raise UnsupportedError(f"{place}: standalone module {part!r} is to return codes but its last layer is not quantized; leave out set_output_quantized_indexes, or give the layer a QConfig")
    model = finish(model, prepared, weights, skipped)
    # PyTorch swaps no custom modules in standalone ones.
    return splice(model, {name: _converted(p, profile, None, place, finish, name) if name in inner else p for name, p in parts.items()})


def _lowered(model, prepared, weights, skipped):
    return lower(model, weights, quantized_slopes(prepared), skipped, prepared.custom.left_alone(prepared.model))


def _reference(model, prepared, weights, skipped):
    """The model with weights on their grid."""
    return model.with_nodes([on_grid(n, weights) for n in model.nodes])


def _without_qconfig(prepared, mapping, place):
    """Return the names of nodes that have no QConfig, or lose theirs by a mapping that is given at conversion."""
    none = {name for name, qconfig in prepared.qconfigs.items() if qconfig is None}
    if mapping is None:
        return none
    if not isinstance(mapping, QConfigMapping):
        raise ArgumentError(f"{place}: qconfig_mapping is a {type(mapping).__name__}; pass the QConfigMapping of prepare_fx, with None for layers that are to stay float")
    fused = fused_model(prepared.model)
    given = qconfigs_of(fused, mapping, prepared.backend_config, prepared.custom.left_alone(fused))
    for name, qconfig in given.items():
        if qconfig is not None and qconfig != prepared.qconfigs[name]:
            raise ArgumentError(f"{place}: the mapping gives {name!r} {qconfig} but prepare_fx was told {prepared.qconfigs[name]}; a mapping given at conversion may only take QConfigs away")
    return none | {name for name, qconfig in given.items() if qconfig is None}


def _left_out(model, skipped):
    """Return the observers whose value and all of whose readers have no QConfig."""
    out = set()
    for node in model.nodes:
        if node.op == "observe":
            around = {node.inputs[0], *(n.name for n in model.users(node.name))}
            if around <= skipped:
                out.add(node.name)
    return out


def _with_codes(model, prepared, parts, place):
    """Let the inputs and outputs that are to be QTensors be such, also those of standalone modules."""
    given = {model.inputs[i] for i in prepared.custom.input_quantized_indexes} | {name for name, part in parts.items() if part.custom.output_quantized_indexes}
    nodes, behind = [], {}
    for node in model.nodes:
        inputs = [f"{i}_dequantize" if i in given else i for i in node.inputs]
        for wanted in {inputs[i] for i in parts[node.name].custom.input_quantized_indexes} if node.name in parts else ():
            if wanted not in behind:
                raise UnsupportedError(f"{place}: standalone module {node.path!r} wants codes but {wanted!r} is not quantized; leave out set_input_quantized_indexes, or give it a QConfig")
            inputs = [behind[wanted] if i == wanted else i for i in inputs]
        nodes.append(node.replace(inputs=inputs))
        if node.name in given:
            nodes.append(Node(f"{node.name}_dequantize", "dequantize", [node.name]))
        behind.update((n.name, n.inputs[0]) for n in nodes[-2:] if n.op == "dequantize")
    outputs = [f"{o}_dequantize" if o in given else o for o in model.outputs]
    for i in prepared.custom.output_quantized_indexes:
        outputs[i] = behind.get(outputs[i], outputs[i])
    return model.with_nodes(nodes, outputs=outputs)
