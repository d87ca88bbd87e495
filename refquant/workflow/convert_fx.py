"""`convert_fx`: a calibrated model becomes one that runs in INT8."""

from refquant import numerics as profiles
from refquant.errors import ArgumentError
from refquant.workflow.convert import check_calibrated, chosen_nodes, lower, quantize_values
from refquant.workflow.prepare_fx import Prepared

__all__ = ["convert_fx"]


def convert_fx(prepared, numerics=None):
    """Quantize a calibrated model.

    Parameters
    ----------
    prepared : Prepared
        From `prepare_fx`, called with calibration data; it does not change, and may be converted again.
    numerics : str or Numerics, optional
        The profile that the model will run under. Unless given, the one of the engine that the QConfigMapping was made for; x86,
        PyTorch's default, where it was made for none.

    Returns
    -------
    Model
        Takes and returns float32 arrays. A layer that was not quantized runs in float32 between a dequantize and a quantize node.

    Raises
    ------
    ArgumentError
        Not a prepared model, no calibration data, an unknown profile.
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
    if not isinstance(prepared, Prepared):
        raise ArgumentError(f"convert_fx: prepared is a {type(prepared).__name__} but must come from prepare_fx; prepare and calibrate the model first")
    check_calibrated(prepared, "convert_fx")
    profile = profiles.get(numerics or prepared.backend or "x86")
    chosen = chosen_nodes(prepared)
    model = lower(quantize_values(prepared.model), chosen, prepared.qconfigs)
    return model.with_nodes(model.nodes, numerics=profile)
