"""Causes: weights and activations in another order than the operator's."""

import math

import numpy as np

from refquant.verify.diagnosis.call import CONVOLUTIONS, PRODUCTS
from refquant.verify.diagnosis.cause import Cause

__all__ = ["LAYOUT_CAUSES"]

_IMAGES = (*CONVOLUTIONS, "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d")


def _moved(call, role, key, function):
    """Return a call with re-ordered codes, or None where nothing moves."""
    old = call.codes(role)
    new = call.once(("layout", role, key), old, lambda v: np.ascontiguousarray(function(v)))
    return None if new.shape != old.shape or np.array_equal(new, old) else call.with_codes(role, new)


def _transposed(call, key):
    return _moved(call, "w", "transposed", lambda w: w.reshape(w.shape[1], w.shape[0]).T)


_WEIGHT_ORDERS = {
    "OHWI": lambda w: np.moveaxis(w.reshape(w.shape[0], *w.shape[2:], w.shape[1]), -1, 1),
    "HWIO": lambda w: np.moveaxis(w.reshape(*w.shape[2:], w.shape[1], w.shape[0]), (-1, -2), (0, 1)),
    "IOHW": lambda w: np.swapaxes(w.reshape(w.shape[1], w.shape[0], *w.shape[2:]), 0, 1),
}
_WEIGHT_SOURCES = {
    "OHWI": lambda w: np.ascontiguousarray(np.moveaxis(w, 1, -1)).reshape(w.shape),
    "HWIO": lambda w: np.ascontiguousarray(np.moveaxis(w, (0, 1), (-1, -2))).reshape(w.shape),
    "IOHW": lambda w: np.ascontiguousarray(np.swapaxes(w, 0, 1)).reshape(w.shape),
}


def _read_as(call, key):
    return _moved(call, "w", ("as", key), _WEIGHT_ORDERS[key])


def _stored_as(call, key):
    return _moved(call, "w", ("stored", key), _WEIGHT_SOURCES[key])


def _flip_keys(call, bench):
    if call.op not in CONVOLUTIONS:
        return ()
    axes = ("depth", "height", "width")[-int(call.op[4]) :]
    return ("every direction", *axes) if len(axes) > 1 else axes


def _flipped(call, key):
    w = call.codes("w")
    axes = tuple(range(2, w.ndim)) if key == "every direction" else (("depth", "height", "width").index(key) - 3,)
    return _moved(call, "w", ("flip", key), lambda w: np.flip(w, axes))


def _kernel_transposed(call, key):
    return _moved(call, "w", "kernel", lambda w: np.swapaxes(w, -1, -2))


def _channels_reversed(call, key):
    return _moved(call, "w", "reversed", lambda w: w[:, ::-1])


def _channel_factors(call, bench):
    depth = call.codes("w").shape[1]
    return tuple(c for c in range(2, depth) if depth % c == 0)[:24]


def _regrouped(call, key):
    return _moved(call, "w", ("regroup", key), lambda w: np.swapaxes(w.reshape(w.shape[0], key, -1, *w.shape[2:]), 1, 2).reshape(w.shape))


def _rows_rolled(call, key):
    return _moved(call, "w", ("roll", key), lambda w: np.roll(w, 1 if key == "previous" else -1, axis=0))


_ORDERS = {
    "NHWC": lambda x: np.moveaxis(x.reshape(x.shape[0], *x.shape[2:], x.shape[1]), -1, 1),
    "NCHW": lambda x: np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(x.shape),
    "NCWH": lambda x: np.swapaxes(x.reshape(*x.shape[:2], *x.shape[:1:-1]), -1, -2) if x.ndim == 4 else x,
}


def _x_order(call, key):
    return _moved(call, "x", ("order", key), _ORDERS[key])


def _x_order_words(key, call):
    if key == "NCWH":
        return "takes height for width in the input's memory"
    other = "NCHW" if key == "NHWC" else "NHWC"
    return f"reads the input's {other} memory as {key}"


def _b_order(call, key):
    return _moved(call, "b", ("order", key), _ORDERS[key]) if call.codes("b").ndim == 4 else None


def _nhwc_positions(shape):
    inner = (shape[0], *shape[2:], shape[1])
    return np.moveaxis(np.arange(math.prod(shape)).reshape(inner), -1, 1).reshape(-1)


def _nchw_positions(shape):
    return np.moveaxis(np.arange(math.prod(shape)).reshape(shape), 1, -1).reshape(-1)


def _transposed_positions(shape):
    return np.arange(math.prod(shape)).reshape(-1, shape[-1]).T.reshape(-1)


_OUTPUT_ORDERS = {"in NCHW order where NHWC is read": _nhwc_positions, "in NHWC order": _nchw_positions, "transposed": _transposed_positions}


def _output_keys(call, bench):
    shape = bench.shape
    if call.op in _IMAGES:
        return tuple(_OUTPUT_ORDERS)[:2] if len(shape) > 2 and shape[1] > 1 and math.prod(shape[2:]) > 1 else ()
    return ("transposed",) if call.op in ("linear", "matmul_integer") and len(shape) == 2 and min(shape) > 1 else ()


def _output_moved(call, key):
    # What lies at flat position i is the answer for position order[i].
    return call.but(quirks={"moved": _OUTPUT_ORDERS[key]})


def _signedness(role):
    def apply(call, key):
        old = call.codes(role)
        other = {"uint8": np.int8, "int8": np.uint8}.get(old.dtype.name)
        return None if other is None else call.with_codes(role, call.once("other sign", old, lambda v: np.ascontiguousarray(v).view(other).astype(np.int16)))

    return apply


LAYOUT_CAUSES = (
    Cause("weights_transposed", "reads the weights transposed: memory (OC, K) as (K, OC)", "w order", ("linear", "matmul_integer"), _transposed),
    Cause("weights_read_as", "reads the weights' OIHW memory as {}", "w order", CONVOLUTIONS, _read_as, tuple(_WEIGHT_ORDERS)),
    Cause("weights_stored_as", "is given weights in {} order and reads them as OIHW", "w order", CONVOLUTIONS, _stored_as, tuple(_WEIGHT_SOURCES)),
    Cause("kernel_flipped", "flips the kernel in {} (a convolution in place of a correlation)", "w order", CONVOLUTIONS, _flipped, _flip_keys),
    Cause("kernel_transposed", "swaps height and width of the kernel", "w order", ("conv2d", "conv3d"), _kernel_transposed),
    Cause("input_channels_reversed", "takes the input channels in reverse order (BGR for RGB)", "channel order", CONVOLUTIONS, _channels_reversed),
    Cause(
        "channels_regrouped",
        lambda key, call: f"takes k in another order: the weights' K = {key} x {call.codes('w').shape[1] // key} in the other nesting (such as NCHW flattened as NHWC)",
        "channel order", PRODUCTS, _regrouped, _channel_factors, 0.1,
    ),
    Cause("neighbours_weights", "computes each output channel with the weights of the {} one", "w rows", PRODUCTS, _rows_rolled, ("previous", "next"), 0.1),
    Cause("input_order", _x_order_words, "x order", _IMAGES, _x_order, tuple(_ORDERS)),
    Cause("operand_order", lambda key, call: f"reads b's memory as {key}, unlike a's", "x order", ("add", "mul"), _b_order, ("NHWC", "NCHW")),
    Cause("output_order", "writes its output {}", "y order", (*PRODUCTS, *_IMAGES), _output_moved, _output_keys),
    Cause("input_signedness", "takes the input's bytes for the other signedness", "x values", PRODUCTS, _signedness("x"), surprise=0.1),
    Cause("weight_signedness", "takes the weights' bytes for the other signedness", "w values", PRODUCTS, _signedness("w"), surprise=0.1),
)  # fmt: skip
