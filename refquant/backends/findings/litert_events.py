"""What TensorFlow Lite's reference kernels do to the process."""

import numpy as np

from refquant import backends
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.verify.problem import Problem

__all__ = ["softmax_of_many"]


def softmax_of_many():
    """Return how many outputs the softmax of 512 equal codes has by BUILTIN_REF."""
    x = QTensor(np.full((1, 512), 1, np.int8), QParams(0.1, 0, "int8"))
    y = backends.load("tflite_ref").run(Problem("softmax", {"x": x, "dim": -1}))
    return [y.size]
