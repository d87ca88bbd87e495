"""What OpenVINO's CPU plugin leaves empty, packs too narrowly or mixes up. Imports onnx and openvino when called."""

import numpy as np

from refquant import backends
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.verify.problem import Problem

__all__ = ["huge_lower_limit", "kernel_of_another", "mean_of_long_stack", "wide_sums_of_groups"]


def huge_lower_limit():
    """Return what a lower limit of 2**31 steps makes of code 5."""
    x = QTensor(np.array([5], np.uint8), QParams(1.0, 1, "uint8"))
    return backends.load("openvino").run(Problem("clamp", {"x": x, "min": 2.0**31, "max": None})).tolist()


def kernel_of_another():
    """Return what codes 85 and 86 of the second of two tensors in one model are dequantized to, with zero points -20 and 85."""
    codes = np.arange(-128, 128).astype(np.int8)
    problems = [Problem("dequantize", {"q": QTensor(codes, QParams(1 / 16, zero, "int8"))}) for zero in (-20, 85)]
    return backends.load("openvino").together(problems).run(problems[1])[[128 + 85, 128 + 86]].tolist()


def mean_of_long_stack():
    """Return how many of 20 means of ones above the zero point come out as code 0, over the last of three axes, the first longer than the second."""
    x = QTensor(np.full((5, 4, 6), 4, np.uint8), QParams(1.0, 3, "uint8"))
    y = backends.load("openvino").run(Problem("mean", {"x": x, "dim": (2,)}))
    return [int((y == 0).sum())]


def wide_sums_of_groups():
    """Return both outputs of two groups of three channels whose sums are 40,000 and 30,000 codes."""
    x = QTensor(np.full((1, 6, 1, 1), 200, np.uint8), QParams(1.0, 0, "uint8"))
    w = QTensor(np.array([[80, 70, 50], [50, 50, 50]], np.int8).reshape(2, 3, 1, 1), QParams(1.0, 0, "int8"))
    y = backends.load("openvino").run(Problem("conv2d", {"x": x, "w": w, "groups": 2, "out": QParams(1.0, 0, "uint8")}))
    return y.reshape(-1).tolist()
