"""The quantization parameters of every tensor: of activations from their ranges, of constants from their values."""

from typing import Any, NamedTuple

import numpy as np

from refquant.core.rounding import Round, round_real
from refquant.errors import ArgumentError, RangeError, ShapeError, UnsupportedError
from refquant.workflow.ort.scales import code_range, of_array, scale_and_zero_point, snapped_to_uint8

__all__ = ["TensorParameters", "adjusted_ranges", "activation_parameters", "constant_parameters", "int32_bias", "weight_scale_for_bias"]


class TensorParameters(NamedTuple):
    """Scale (float32) and zero point (of `dtype`) of a tensor; vectors with `axis`."""

    scale: Any
    zero_point: Any
    dtype: str
    axis: Any = None


def _parameters(scale, zero_point, dtype, axis=None):
    return TensorParameters(np.asarray(scale, np.float32), np.asarray(zero_point, dtype), dtype, axis)


def adjusted_ranges(graph, ranges, options):
    """Return the ranges as the quantizers use them: what goes into a ReLU or a Clip alone has the range of what comes out; a softmax has 0 … 1."""
    ranges = {name: (np.float32(np.squeeze(low)), np.float32(np.squeeze(high))) for name, (low, high) in ranges.items()}
    for node in graph.nodes:
        if node.op in ("Clip", "Relu") and options.wants(node):
            before, after = node.inputs[0], node.outputs[0]
            if len(graph.readers(before)) == 1 and before in ranges and after in ranges:
                ranges[before] = ranges[after]
        elif node.op == "Softmax" and options.wants(node):
            ranges[node.outputs[0]] = (np.float32(0), np.float32(1))
    return ranges


def activation_parameters(ranges, options):
    """Return ``{name: TensorParameters}`` of all activations with a range."""
    return {name: _activation(name, bounds, options) for name, bounds in ranges.items()}


def _activation(name, bounds, options):
    fixed = options.override(name)
    if "reduce_range" in fixed:
        raise UnsupportedError(f"quantize_static: 'reduce_range' of {name!r}: ONNX Runtime reduces constants alone; leave it out")
    dtype = fixed.get("quant_type", options.activation_type)
    if "scale" in fixed:
        return _parameters(fixed["scale"], fixed["zero_point"], dtype)
    low, high = fixed.get("rmin", bounds[0]), fixed.get("rmax", bounds[1])
    symmetric = fixed.get("symmetric", options["ActivationSymmetric"])
    codes, minimum = code_range(dtype, symmetric=symmetric), options["MinimumRealRange"]
    place = f"quantize_static: {name!r}"
    if options["ActivationRestrictedAsymmetric"] and dtype == "uint8" and not symmetric:
        return _parameters(*snapped_to_uint8(low, high, codes, minimum, place), dtype)
    return _parameters(*scale_and_zero_point(low, high, codes, symmetric, minimum, place), dtype)


def constant_parameters(name, array, dtype, options, *, axis=None, symmetric, reduced):
    """Return the `TensorParameters` of a constant.

    Parameters
    ----------
    name : str
    array : ndarray of float32
    dtype : str
        Unless the user fixed another.
    options : QuantizationOptions
    axis : int, optional
        Of the channels, each of which gets its own parameters.
    symmetric : callable
        From the type to whether zero points are 0, where the user fixed nothing.
    reduced : bool
        The codes are reduced, where the user fixed nothing.
    """
    fixed = options.overrides.get(name) or [{}]
    dtype = fixed[0].get("quant_type", dtype)
    axis = _axis(name, fixed[0].get("axis", axis), array)
    place = f"quantize_static: constant {name!r}"
    if axis is not None and len(fixed) not in (1, array.shape[axis]):
        raise ShapeError(f"{place}: TensorQuantOverrides has {len(fixed)} channels but axis {axis} has {array.shape[axis]}; give one each, or one for all")
    if "scale" in fixed[0]:
        return _fixed_constant(name, fixed, array, dtype, axis)
    if array.dtype != np.float32:
        raise UnsupportedError(f"{place}: is {array.dtype}; float32 alone is quantized")
    settings = {
        "symmetric": fixed[0].get("symmetric", symmetric(dtype)), "reduced": fixed[0].get("reduce_range", reduced),
        "minimum": options["MinimumRealRange"], "place": place,
    }  # fmt: skip
    if axis is None:
        return _parameters(*of_array(array, dtype, low=fixed[0].get("rmin"), high=fixed[0].get("rmax"), **settings), dtype)
    channels = np.moveaxis(array, axis, 0)
    rows = [fixed[i] if i < len(fixed) else {} for i in range(len(channels))]
    found = [of_array(c, dtype, low=row.get("rmin"), high=row.get("rmax"), **settings) for c, row in zip(channels, rows)]
    return _parameters([scale for scale, _ in found], [zero for _, zero in found], dtype, axis)


def _fixed_constant(name, fixed, array, dtype, axis):
    if axis is None:
        return _parameters(fixed[0]["scale"], fixed[0]["zero_point"], dtype)
    if len(fixed) != array.shape[axis]:
        raise ShapeError(f"quantize_static: TensorQuantOverrides of {name!r} fix {len(fixed)} scales but axis {axis} has {array.shape[axis]}; give one each")
    return _parameters([row["scale"] for row in fixed], [row["zero_point"] for row in fixed], dtype, axis)


def _axis(name, axis, array):
    if axis is None:
        return None
    if not -array.ndim <= axis < array.ndim:
        raise RangeError(f"quantize_static: axis {axis} of constant {name!r} lies outside of its {array.ndim} dimensions; choose {-array.ndim} … {array.ndim - 1}")
    return axis % array.ndim


_LARGEST = 2.0**31 - 1


def weight_scale_for_bias(bias, x_scale, w_scale, per_channel):
    """Return the weight's scale, larger where the bias would not fit into int32 in units of ``x_scale * w_scale``, and whether it changed.

    The least scale of a bias b is ``1.0001 * 2 * max|b| / (2 * (2**31 - 1))``, in double.

    Parameters
    ----------
    bias : ndarray of float32
    x_scale : numpy.float32
    w_scale : ndarray of float32
    per_channel : bool

    Source
    ------
    onnxruntime 1.32, qdq_quantizer.py and onnx_quantizer.py: ``_adjust_weight_scale_for_int32_bias``.
    """
    if not w_scale.size or (per_channel and w_scale.ndim != 1):
        return w_scale, False
    # numpy.abs of a channel is float32, of a whole bias double, as the extremes are compared with a double there
    largest = np.abs(bias) if per_channel else np.float64(max(-min(float(bias.min()), 0.0), max(float(bias.max()), 0.0)))
    least = 1.0001 * (2.0 * largest) / np.float64(2 * _LARGEST)
    units = np.float64(x_scale) * w_scale.astype(np.float64)
    short = (units < least) & (units > 0.0)
    if not short.any():
        return w_scale, False
    with np.errstate(divide="ignore", invalid="ignore"):
        larger = (w_scale.astype(np.float64) * (least / units)).astype(np.float32)
    return np.where(short, larger, w_scale).astype(np.float32).reshape(w_scale.shape), True


def int32_bias(bias, x_scale, w_scale, beta=1.0, place="int32_bias"):
    """Return the codes of a bias (int32) and their scale: ``rne(b / s)`` in double with ``s = x_scale * w_scale * beta`` in float32.

    Source
    ------
    onnxruntime 1.32, base_quantizer.py: ``quantize_bias_static_impl``.
    """
    if beta == 0:
        bias, beta = np.zeros_like(bias), 1.0
    scale = np.asarray(np.float32(x_scale) * w_scale * np.float32(beta), np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        real = round_real(bias.astype(np.float64) / scale.astype(np.float64), Round.HALF_EVEN)
    if np.isnan(real).any():
        raise ArgumentError(f"{place}: the bias cannot be divided by its scale {scale.min()}; its input or weight has a scale too small, set MinimumRealRange")
    codes = np.clip(real, -(2.0**31), _LARGEST).astype(np.int32)
    return codes.reshape(bias.shape), scale.reshape(-1)
