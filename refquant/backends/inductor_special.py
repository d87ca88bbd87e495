"""Operators that stay in float32 in a graph of PT2E, between dequantize and quantize. Imports torch when imported."""

import numpy as np
import torch
from torch.nn import functional

from refquant.core.qparams import QParams

__all__ = ["special_table"]


# Scales of functions whose output's parameters a problem may leave out; the zero point is the lowest code, of tanh the middle one.
_SCALES = {"sigmoid": 1 / 256, "hardsigmoid": 1 / 256, "softmax": 1 / 256, "tanh": 2 / 256}


def output_parameters(problem):
    """Return the parameters of a problem's output."""
    q = problem["x"].qparams
    if problem.get("out") is not None or problem.op not in _SCALES:
        return problem.get("out") or q
    zero = (q.qmin + q.qmax + 1) // 2 if problem.op == "tanh" else q.qmin
    return QParams(_SCALES[problem.op], zero, q.dtype)


def _vector(value):
    return torch.from_numpy(np.array(value, np.float32))


def special_table(to_real, to_codes):
    """Return each operator's call as a function of a problem.

    Parameters
    ----------
    to_real, to_codes : callable
        ``quantized_decomposed`` dequantization of a QTensor, and quantization into parameters.
    """

    def by_reals(function):
        return lambda problem: to_codes(function(to_real(problem["x"]), problem), output_parameters(problem))

    def prelu(x, problem):
        return functional.prelu(x, to_real(problem["weight"]).reshape(-1))

    def batch_norm(x, problem):
        weight, bias = (None if problem.get(name) is None else _vector(problem[name]) for name in ("weight", "bias"))
        y = functional.batch_norm(x, _vector(problem["mean"]), _vector(problem["var"]), weight, bias, False, 0.1, problem["eps"])
        return torch.relu(y) if problem.get("activation") == "relu" else y

    def interpolate(x, problem):
        corners = {"align_corners": problem["align_corners"]} if "align_corners" in problem.arguments else {}
        return functional.interpolate(x, problem.get("size"), problem.get("scale_factor"), problem["mode"], **corners)

    def average(pool):
        return lambda x, problem: pool(
            x, problem["kernel_size"], problem.get("stride"), problem.get("padding", 0), problem.get("ceil_mode", False), problem.get("count_include_pad", True),
            problem.get("divisor_override"),
        )  # fmt: skip

    def maximum(pool):
        names = ("stride", "padding", "dilation", "ceil_mode")
        return lambda x, problem: pool(x, problem["kernel_size"], **{name: problem[name] for name in names if problem.get(name) is not None})

    return {
        "relu6": by_reals(lambda x, problem: functional.relu6(x)),
        "hardtanh": by_reals(lambda x, problem: functional.hardtanh(x, problem.get("min_val", -1.0), problem.get("max_val", 1.0))),
        "clamp": by_reals(lambda x, problem: torch.clamp(x, problem.get("min"), problem.get("max"))),
        "threshold": by_reals(lambda x, problem: functional.threshold(x, problem["threshold"], problem["value"])),
        "hardswish": by_reals(lambda x, problem: functional.hardswish(x)),
        "leaky_relu": by_reals(lambda x, problem: functional.leaky_relu(x, problem.get("negative_slope", 0.01))),
        "sigmoid": by_reals(lambda x, problem: torch.sigmoid(x)),
        "tanh": by_reals(lambda x, problem: torch.tanh(x)),
        "hardsigmoid": by_reals(lambda x, problem: functional.hardsigmoid(x)),
        "elu": by_reals(lambda x, problem: functional.elu(x, problem.get("alpha", 1.0))),
        "celu": by_reals(lambda x, problem: functional.celu(x, problem.get("alpha", 1.0))),
        "gelu": by_reals(lambda x, problem: functional.gelu(x)),
        "prelu": by_reals(prelu),
        "batch_norm": by_reals(batch_norm),
        "mean": by_reals(lambda x, problem: torch.mean(x, problem["dim"], problem["keepdim"])),
        "avg_pool2d": by_reals(average(functional.avg_pool2d)),
        "avg_pool3d": by_reals(average(functional.avg_pool3d)),
        "adaptive_avg_pool2d": by_reals(lambda x, problem: functional.adaptive_avg_pool2d(x, problem["output_size"])),
        "adaptive_avg_pool3d": by_reals(lambda x, problem: functional.adaptive_avg_pool3d(x, problem["output_size"])),
        "max_pool1d": by_reals(maximum(functional.max_pool1d)),
        "max_pool3d": by_reals(maximum(functional.max_pool3d)),
        "interpolate": by_reals(interpolate),
        "softmax": by_reals(lambda x, problem: torch.softmax(x, problem["dim"])),
        "requantize": by_reals(lambda x, problem: x),
    }
