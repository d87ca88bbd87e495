"""The sloppy engine without a fault: what it computes then is what the profile says, wherever it covers a case at all."""

import numpy as np

from refquant.verify.compare import compare
from refquant.verify.planted.fault import add, fbgemm, float_output, grid, joined, largest, mul, ort, pool, product, quant, rounded_trip, torch_add, torch_cat, whole_mean
from refquant.verify.planted.sloppy_engine import F
from refquant.verify.problem import oracle

__all__ = ["RIGHT", "covers"]


def _layer(coded, real):
    return lambda p: real(p) if p.get("out") is None else coded(p)


#: Of each operator and profile on which faults are planted, the engine that makes none.
RIGHT = {
    ("linear", "onnxruntime"): _layer(ort(), float_output(fused=False)),
    ("linear", "fbgemm"): _layer(fbgemm(), float_output()),
    ("linear", "onnx"): lambda p: product(p, "spec"),
    ("conv2d", "onnxruntime"): ort(),
    ("conv2d", "fbgemm"): fbgemm(acc={"how": "pairs"}),
    ("matmul_integer", "onnxruntime"): ort(),
    ("matmul_integer", "onnx"): ort(),
    ("add", "onnx"): add(),
    ("add", "fbgemm"): lambda p: torch_add(64, p.get("threads", 1))(p),
    ("mul", "onnxruntime"): mul(),
    ("quantize", "onnx"): quant(),
    ("fake_quantize", "onnx"): rounded_trip(lambda q: (q.qmin, q.qmax)),
    ("dequantize", "onnx"): grid(lambda q, s, z: F(q.astype(np.int64) - z) * s),
    ("avg_pool2d", "onnx"): pool(),
    ("adaptive_avg_pool2d", "onnx"): whole_mean(),
    ("max_pool2d", "onnx"): largest(),
    ("cat", "onnx"): joined(),
    ("cat", "fbgemm"): torch_cat(),
}  # fmt: skip


def covers(problem, profile):
    """Whether the engine without a fault computes a problem as the profile does.

    Parameters
    ----------
    problem : Problem
    profile : str

    Examples
    --------
    >>> from refquant.verify import build
    >>> covers(build("linear/onnxruntime/m5k7n3/neartie/seed=0/intbias"), "onnxruntime")
    True
    """
    right = RIGHT.get((problem.op, profile))
    try:
        return right is not None and compare(right(problem), oracle(problem, profile), nan_equal=True).exact
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError):
        return False
