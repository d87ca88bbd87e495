"""What TensorFlow Lite's reference kernels do to the process."""

import numpy as np

from refquant import backends
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.verify.problem import Problem

__all__ = ["softmax_of_many", "lowest_hybrid_weight"]


def softmax_of_many():
    """Return how many outputs the softmax of 512 equal codes has by BUILTIN_REF."""
    x = QTensor(np.full((1, 512), 1, np.int8), QParams(0.1, 0, "int8"))
    y = backends.load("tflite_ref").run(Problem("softmax", {"x": x, "dim": -1}))
    return [y.size]


def lowest_hybrid_weight():
    """Return the sums of 16 products of −1 by the weights −128 and −127, by a hybrid FULLY_CONNECTED."""
    w = QTensor(np.repeat(np.array([[-128], [-127]], np.int8), 16, axis=1), QParams(1.0, 0, "int8"))
    y = backends.load("tflite_opt").run(Problem("linear_dynamic", {"x": np.full((1, 16), -1, np.float32), "w": w, "symmetric": True}))
    return y.reshape(-1).tolist()
