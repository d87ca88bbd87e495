"""What no cause of the table is: the diagnosis must not find one."""

import numpy as np

from refquant.verify.planted.fault import Fault, ort, product
from refquant.verify.planted.lines import LIN, PAIRS
from refquant.verify.planted.sloppy_engine import as_codes, wrap

__all__ = ["UNKNOWN"]

def shuffled(values):
    return values[np.random.default_rng(7).permutation(len(values))]


def lottery(p):
    """Stochastic rounding."""
    exact = product(p, "ort", rounding="floor").astype(int)
    return as_codes(exact + np.random.default_rng(1).integers(0, 2, exact.shape), np.uint8)


def one_weight_wrong(w):
    w = w.copy()
    w[3, 5] += 9
    return w


def stuck(p):
    """A code that the output's table maps wrongly."""
    y = ort()(p)
    return np.where(y == np.bincount(y.reshape(-1)).argmax(), y ^ 64, y).astype(np.uint8)


def gelu_like(p):
    real = (ort()(p).astype(np.float64) - p["out"].zero_point) * p["out"].scale
    return as_codes(np.rint(real / (1 + np.exp(-1.702 * real)) / p["out"].scale) + p["out"].zero_point, np.uint8)


UNKNOWN = (
    Fault("stochastic rounding", LIN, "onnxruntime", lottery, ()),
    Fault("channels of the bias shuffled", LIN, "onnxruntime", ort(bias=shuffled), ()),
    Fault("scales of the channels shuffled", LIN, "onnxruntime", ort(sw=shuffled), ()),
    Fault("one weight is wrong", LIN, "onnxruntime", ort(w=one_weight_wrong), ()),
    Fault("accumulator wraps at 20 bits", PAIRS, "onnxruntime", ort(acc={"how": (wrap, 20)}), ()),
    Fault("a table of outputs with one wrong entry", LIN, "onnxruntime", stuck, ()),
    Fault("another activation", LIN, "onnxruntime", gelu_like, ()),
    Fault("two thirds of the bias", LIN, "onnxruntime", ort(bias=lambda b: b * 2 // 3), ()),
)  # fmt: skip
