"""Operators that few engines have on PyTorch's own quantized kernels. Imports torch when imported."""

import numpy as np
import torch
from torch.nn import functional

from refquant.backends.torch_tensors import TYPES, quantized, to_numpy, to_torch
from refquant.core.embedding import QuantizedEmbedding, pack_embedding

__all__ = ["SPECIAL_CALLS"]

_ops = torch.ops.quantized


def _with_parameters(y):
    return torch.cat([y.int_repr().contiguous().reshape(-1).double(), torch.tensor([y.q_scale(), y.q_zero_point()], dtype=torch.float64)])


def _fused(name, problem):
    return getattr(_ops, name + "_relu" if problem.get("activation") == "relu" else name)


def _real(value):
    return None if value is None else torch.from_numpy(np.array(value, np.float32))


def _quantize_dynamic(problem):
    return _with_parameters(torch.quantize_per_tensor_dynamic(to_torch(problem["x"]), TYPES[problem.get("dtype", "uint8")], problem.get("reduce_range", False)))


def _linear_dynamic(problem):
    packed = _ops.linear_prepack(quantized(problem["w"]), _real(problem.get("bias")))
    call = _ops.linear_relu_dynamic if problem.get("activation") == "relu" else _ops.linear_dynamic
    return call(to_torch(problem["x"]), packed, problem.get("reduce_range", False))


def _sides(value, dims):
    return list(value) if isinstance(value, tuple) else [value] * dims


def _conv_dynamic(problem):
    dims = int(problem.op[4])
    geometry = [_sides(problem[name], dims) for name in ("stride", "padding", "dilation")]
    packed = getattr(_ops, f"conv{dims}d_prepack")(quantized(problem["w"]), _real(problem.get("bias")), *geometry, problem["groups"])
    return getattr(_ops, problem.op)(to_torch(problem["x"]), packed, problem.get("reduce_range", False))


def _requantize(problem):
    out = problem["out"]
    return torch.quantize_per_tensor(quantized(problem["x"]).dequantize(), out.scale, out.zero_point, TYPES[out.dtype])


def _scalar(problem):
    return _with_parameters(_fused(problem.op, problem)(quantized(problem["x"]), problem["number"]))


def _prelu(problem):
    out = problem["out"]
    return _ops.prelu(quantized(problem["x"]), quantized(problem["weight"]), out.scale, out.zero_point)


def _softmax(problem):
    x = problem["x"]
    scale, zero = (problem["out"].scale, problem["out"].zero_point) if problem.get("out") else (1 / 256, x.qparams.qmin)
    return _ops.softmax(quantized(x), problem["dim"], scale, zero)


def _batch_norm(problem):
    x, out = problem["x"], problem["out"]
    call = _fused({2: "batch_norm1d", 3: "batch_norm1d", 4: "batch_norm2d", 5: "batch_norm3d"}[x.ndim], problem)
    parameters = [_real(problem.get(name)) for name in ("weight", "bias", "mean", "var")]
    return call(quantized(x), *parameters, problem["eps"], out.scale, out.zero_point)


def _norm(problem):
    own = {"layer_norm": "normalized_shape", "group_norm": "num_groups"}.get(problem.op)
    first = [] if own is None else [list(problem[own]) if own == "normalized_shape" else problem[own]]
    parameters = [_real(problem.get(name)) for name in ("weight", "bias")]
    return getattr(_ops, problem.op)(quantized(problem["x"]), *first, *parameters, problem["eps"], problem["out"].scale, problem["out"].zero_point)


def _max_pool(problem):
    call = {"max_pool1d": functional.max_pool1d, "max_pool3d": functional.max_pool3d}[problem.op]
    return call(quantized(problem["x"]), problem["kernel_size"], problem.get("stride"), problem["padding"], problem["dilation"], problem["ceil_mode"])


def _avg_pool3d(problem):
    return functional.avg_pool3d(
        quantized(problem["x"]), problem["kernel_size"], problem.get("stride"), problem["padding"], problem["ceil_mode"], problem["count_include_pad"],
        problem.get("divisor_override"),
    )  # fmt: skip


def _interpolate(problem):
    corners = {"align_corners": problem["align_corners"]} if "align_corners" in problem.arguments else {}
    return functional.interpolate(quantized(problem["x"]), problem.get("size"), problem.get("scale_factor"), problem["mode"], **corners)


_NAMES = {8: "byte", 4: "4bit", 2: "2bit"}


def _quantize_embedding(problem):
    return getattr(_ops, f"embedding_bag_{_NAMES[problem['bits']]}_prepack")(to_torch(problem["weight"]))


def _embedding_bag(problem):
    table = QuantizedEmbedding(*problem["table"])
    packed, indices = torch.from_numpy(pack_embedding(table)), to_torch(problem["indices"])
    if problem.get("offsets") is None:
        offsets = torch.arange(len(indices))
    else:
        offsets = to_torch(problem["offsets"])
    call = getattr(_ops, f"embedding_bag_{_NAMES[table.bits]}_rowwise_offsets")
    weights = _real(problem.get("per_sample_weights"))
    return call(packed, indices, offsets, False, 0, False, weights, None, problem.get("include_last_offset", False))


def _celu(problem):
    return _ops.celu(quantized(problem["x"]), problem["out"].scale, problem["out"].zero_point, problem["alpha"])


_TABLE = {
    "quantize_dynamic": _quantize_dynamic,
    "linear_dynamic": _linear_dynamic,
    **{op: _conv_dynamic for op in ("conv1d_dynamic", "conv2d_dynamic", "conv3d_dynamic")},
    "requantize": _requantize,
    **{op: _scalar for op in ("add_scalar", "mul_scalar")},
    "relu6": lambda problem: _ops.relu6(quantized(problem["x"])),
    "clamp": lambda problem: _ops.clamp(quantized(problem["x"]), problem.get("min"), problem.get("max")),
    "hardtanh": lambda problem: functional.hardtanh(quantized(problem["x"]), problem.get("min_val", -1.0), problem.get("max_val", 1.0)),
    "threshold": lambda problem: _ops.threshold(quantized(problem["x"]), problem["threshold"], problem["value"]),
    "celu": _celu,
    "prelu": _prelu,
    "softmax": _softmax,
    "batch_norm": _batch_norm,
    **{op: _norm for op in ("layer_norm", "group_norm", "instance_norm")},
    **{op: _max_pool for op in ("max_pool1d", "max_pool3d")},
    "avg_pool3d": _avg_pool3d,
    "adaptive_avg_pool3d": lambda problem: functional.adaptive_avg_pool3d(quantized(problem["x"]), problem["output_size"]),
    "mean": lambda problem: torch.mean(quantized(problem["x"]), problem["dim"], problem["keepdim"]),
    "interpolate": _interpolate,
    "quantize_embedding": _quantize_embedding,
    "embedding_bag": _embedding_bag,
}

#: Each operator's kernel as a function of a problem, which returns an ndarray.
SPECIAL_CALLS = {name: (lambda problem, call=call: to_numpy(call(problem))) for name, call in _TABLE.items()}
