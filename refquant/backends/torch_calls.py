"""Each operator on PyTorch's own quantized kernels: codes in, codes out. Imports torch when imported."""

import numpy as np
import torch
from torch.nn import functional

from refquant.backends.torch_special import SPECIAL_CALLS
from refquant.backends.torch_tensors import TYPES, quantized, to_numpy, to_torch

__all__ = ["CALLS", "call_in_turn", "dynamic_input"]

_ops = torch.ops.quantized


def _relu(name, problem):
    return getattr(_ops, name + "_relu" if problem.get("activation") == "relu" else name)


def _bias(problem):
    bias = problem.get("bias")
    return None if bias is None else torch.from_numpy(np.array(bias, np.float32))


def dynamic_input(x):
    """Return float32 numbers that dynamic quantization turns into the codes and parameters of `x`, or None where there are none.

    Their minimum and maximum must be the ends of uint8, and each product of code and scale must be exact.
    """
    p = x.qparams
    codes = x.values.astype(np.int64)
    real = (codes - p.zero_point) * p.scale
    exact = np.array_equal(real.astype(np.float32).astype(np.float64), real)
    if x.dtype != "uint8" or not codes.size or codes.min() != 0 or codes.max() != 255 or not exact or p.scale < 6.2e-5:
        return None
    return real.astype(np.float32)


def _pack_linear(problem):
    return _ops.linear_prepack(quantized(problem["w"]), _bias(problem))


def _linear(problem, packed=None):
    packed = _pack_linear(problem) if packed is None else packed
    out, activation = problem.get("out"), problem.get("activation")
    if isinstance(activation, tuple):
        return _ops.linear_leaky_relu(quantized(problem["x"]), packed, out.scale, out.zero_point, activation[1])
    if activation == "tanh":
        return _ops.linear_tanh(quantized(problem["x"]), packed, out.scale, out.zero_point)
    if out is None:
        call = _ops.linear_relu_dynamic if problem.get("activation") == "relu" else _ops.linear_dynamic
        return call(to_torch(dynamic_input(problem["x"])), packed, False)
    return _relu("linear", problem)(quantized(problem["x"]), packed, out.scale, out.zero_point)


def _pack_conv(problem):
    dims = int(problem.op[4])
    geometry = [_sides(problem.get(name, usual), dims) for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1))]
    pack = getattr(_ops, f"{problem.op}_prepack")
    return pack(quantized(problem["w"]), _bias(problem), *geometry, problem.get("groups", 1))


def _conv(problem, packed=None):
    packed = _pack_conv(problem) if packed is None else packed
    out, other = problem["out"], problem.get("other")
    if other is not None:
        accumulated = quantized(other).clone(memory_format=torch.channels_last)
        return _relu("conv2d_add", problem)(quantized(problem["x"]), accumulated, packed, out.scale, out.zero_point)
    return _relu(problem.op, problem)(quantized(problem["x"]), packed, out.scale, out.zero_point)


def _conv_transpose(problem):
    dims, out = int(problem.op[-2]), problem["out"]
    usual = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1}
    pack = getattr(_ops, f"{problem.op}_prepack")
    packed = pack(quantized(problem["w"]), _bias(problem), *(_sides(problem.get(name, v), dims) for name, v in usual.items()), problem.get("groups", 1))
    return getattr(_ops, problem.op)(quantized(problem["x"]), packed, out.scale, out.zero_point)


def _sides(value, dims):
    return list(value) if isinstance(value, tuple) else [value] * dims


def _quantize(problem):
    x, p = to_torch(problem["x"]), problem["qparams"]
    if not p.per_channel:
        return torch.quantize_per_tensor(x, p.scale, p.zero_point, TYPES[p.dtype])
    scales, zeros = torch.tensor(p.scale, dtype=torch.float64), torch.tensor(p.zero_point, dtype=torch.int64)
    return torch.quantize_per_channel(x, scales, zeros, p.axis, TYPES[p.dtype])


def _fake_quantize(problem):
    x, p = to_torch(problem["x"]), problem["qparams"]
    if not p.per_channel:
        return torch.fake_quantize_per_tensor_affine(x, p.scale, p.zero_point, p.qmin, p.qmax)
    scales, zeros = torch.tensor(p.scale, dtype=torch.float32), torch.tensor(p.zero_point, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(x, scales, zeros, p.axis, p.qmin, p.qmax)


def _add(problem):
    out = problem["out"]
    return _relu("add", problem)(quantized(problem["a"]), quantized(problem["b"]), out.scale, out.zero_point)


def _mul(problem):
    out = problem["out"]
    return _relu("mul", problem)(quantized(problem["a"]), quantized(problem["b"]), out.scale, out.zero_point)


def _unary(problem):
    name, x, out = problem.op, quantized(problem["x"]), problem.get("out")
    if out is None:
        return {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "hardsigmoid": functional.hardsigmoid, "gelu": functional.gelu}[name](x)
    parameters = out.scale, out.zero_point
    if name == "elu":
        return _ops.elu(x, *parameters, problem.get("alpha", 1.0), 1.0, 1.0)
    if name == "leaky_relu":
        return _ops.leaky_relu(x, problem.get("negative_slope", 0.01), False, *parameters)
    return getattr(_ops, name)(x, *parameters)


def _cat(problem):
    out = problem["out"]
    return _relu("cat", problem)([quantized(t) for t in problem["tensors"]], problem.get("dim", 1), out.scale, out.zero_point)


def _max_pool2d(problem):
    return functional.max_pool2d(
        quantized(problem["x"]), problem["kernel_size"], problem.get("stride"), problem.get("padding", 0), problem.get("dilation", 1), problem.get("ceil_mode", False)
    )


def _avg_pool2d(problem):
    return functional.avg_pool2d(
        quantized(problem["x"]), problem["kernel_size"], problem.get("stride"), problem.get("padding", 0),
        problem.get("ceil_mode", False), problem.get("count_include_pad", True), problem.get("divisor_override"),
    )  # fmt: skip


_TABLE = {
    "quantize": _quantize,
    "dequantize": lambda problem: quantized(problem["q"]).dequantize(),
    "fake_quantize": _fake_quantize,
    "linear": _linear,
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    **{f"conv_transpose{dims}d": _conv_transpose for dims in (1, 2, 3)},
    "add": _add,
    "mul": _mul,
    "relu": lambda problem: torch.relu(quantized(problem["x"])),
    **{op: _unary for op in ("sigmoid", "tanh", "hardsigmoid", "hardswish", "elu", "leaky_relu", "gelu")},
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": lambda problem: functional.adaptive_avg_pool2d(quantized(problem["x"]), problem["output_size"]),
    "cat": _cat,
}

_PACKED = {"linear": (_pack_linear, _linear), **{f"conv{dims}d": (_pack_conv, _conv) for dims in (1, 2, 3)}}


def call_in_turn(problems):
    """Return the last result of linear layers or convolutions that are computed one after the other, by one and the same packed weights."""
    pack, call = _PACKED[problems[0].op]
    packed = pack(problems[0])
    return to_numpy([call(problem, packed) for problem in problems][-1])


#: Each operator's kernel as a function of a problem, which returns an ndarray.
CALLS = {**{name: (lambda problem, call=call: to_numpy(call(problem))) for name, call in _TABLE.items()}, **SPECIAL_CALLS}
