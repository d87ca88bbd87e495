"""What could be changed in one layer, as changed `Layer`s whose gain can be measured."""

import numpy as np

from refquant import ops
from refquant.core.qparams import QParams
from refquant.core.rounding import Round, round_real, round_shift
from refquant.drift.exact import PRODUCTS
from refquant.drift.pairing import weight_codes

__all__ = ["EVEN_CHANNELS", "remedies", "per_channel_weights", "with_range", "even_channels"]

_KEEPS_CHANNELS = ("relu", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d")
EVEN_CHANNELS = "evening out its channels' ranges (cross-layer equalization)"


def per_channel_weights(layer):
    """Return the layer with one symmetric scale for each output channel, the greatest magnitude at the end of int8.

    Parameters
    ----------
    layer : Layer
        With weights.
    """
    greatest = np.abs(layer.weight.reshape(len(layer.weight), -1)).max(1).astype(np.float64)
    scale = np.maximum(greatest / 127.5, 1e-30).astype(np.float32)
    codes = ops.quantize(layer.weight, QParams(scale, np.zeros(len(scale), np.int64), "int8", axis=0), numerics="fbgemm")
    return layer._replace(node=layer.node.replace(params={**layer.node.params, "weight": codes}))


def with_range(layer, low, high):
    """Return the layer with all codes of its output's dtype laid over a range, stretched to hold 0.

    Parameters
    ----------
    layer : Layer
    low, high : float
    """
    kind = layer.out._type
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    scale = float(np.float32((high - low) / (kind.qmax - kind.qmin))) or 1.0
    zero = int(np.clip(round_real(np.float64(kind.qmin - low / scale), Round.HALF_EVEN), kind.qmin, kind.qmax))
    out = QParams(scale, zero, layer.out.dtype)
    return layer._replace(out=out, node=layer.node.replace(attrs={**layer.node.attrs, "out": out}))


def remedies(int8, layer, cause, values):
    """Return ``{name: changed Layer}`` of what may help against a cause.

    Parameters
    ----------
    int8 : Model
    layer : Layer
    cause : str
        One of `refquant.drift.causes.CAUSES`.
    values : Values
        Of the float network.
    """
    found = {}
    if cause == "weights" and layer.weight is not None:
        codes = weight_codes(layer.node)
        already = codes is not None and codes.qparams.per_channel
        found["weight scales that hold the greatest weight" if already else "one weight scale per channel"] = per_channel_weights(layer)
    if cause in ("rounding", "range_out") and layer.node.attrs.get("out") is not None:
        kind, out = layer.out._type, layer.out
        if out.qmax - out.qmin < kind.qmax - kind.qmin:
            found[f"all {kind.qmax - kind.qmin + 1} codes for its output, not {out.qmax - out.qmin + 1}"] = with_range(layer, *_nominal(out))
        found["a range from the least to the greatest value"] = with_range(layer, values.low, values.high)
        found["a range of half that width"] = with_range(layer, values.low / 2, values.high / 2)
    if cause == "rounding" and layer.node.op in PRODUCTS and len(values.channel_low) > 1 and _feeds_products(int8, layer.name):
        found[EVEN_CHANNELS] = even_channels(layer, values)
    if cause == "engine":
        found["7-bit activations before it (reduce_range)"] = layer._replace(grids=tuple(map(_half_as_fine, layer.grids)))
    return found


def _feeds_products(int8, name):
    """Whether only layers with weights read a value, so that these can take back what its channels are multiplied by."""
    users = int8.users(name)
    return bool(users) and all(n.op in PRODUCTS or n.op in _KEEPS_CHANNELS and _feeds_products(int8, n.name) for n in users)


def even_channels(layer, values):
    """Return the layer with a grid of its own for each output channel: what evening out the channels' ranges is worth."""
    kind = layer.out._type
    low, high = np.minimum(values.channel_low, 0.0), np.maximum(values.channel_high, 0.0)
    scale = np.maximum((high - low) / (kind.qmax - kind.qmin), 1e-30).astype(np.float32)
    zero = np.clip(round_real(kind.qmin - low / scale, Round.HALF_EVEN), kind.qmin, kind.qmax).astype(np.int64)
    return layer._replace(out=QParams(scale, zero, layer.out.dtype, axis=1))


def _half_as_fine(grid):
    if grid is None or grid.qmax - grid.qmin < 255:
        return grid
    low, high = (int(round_shift(np.int64(q), 1, Round.FLOOR)) for q in (grid.qmin, grid.qmax))
    zero = int(round_shift(np.int64(grid.zero_point), 1, Round.FLOOR))
    return QParams(2 * grid.scale, zero, grid.dtype, quant_min=low, quant_max=high)


def _nominal(out):
    return out.scale * (out.qmin - out.zero_point), out.scale * (out.qmax - out.zero_point)
