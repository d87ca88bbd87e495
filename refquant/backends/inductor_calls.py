"""Each operator as PT2E lowered for x86 calls it: quantized_decomposed for conversions, onednn.*_pointwise for products. Imports torch when imported."""

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # noqa: F401  (registers quantized_decomposed)
from torch.nn import functional

from refquant.backends.inductor_special import special_table
from refquant.backends.torch_tensors import to_torch

__all__ = ["CALLS"]

_decomposed = torch.ops.quantized_decomposed
_TYPES = {"uint8": torch.uint8, "int8": torch.int8, "int32": torch.int32}
# The least scale of the observers that choose parameters at run time.
_EPS = 2.0**-23


def _vectors(p):
    return torch.tensor(p.scale, dtype=torch.float32), torch.tensor(p.zero_point, dtype=torch.int64)


def _to_codes(x, p):
    limits = p.qmin, p.qmax, _TYPES[p.dtype]
    if p.per_channel:
        return _decomposed.quantize_per_channel(x, *_vectors(p), p.axis, *limits)
    return _decomposed.quantize_per_tensor(x, p.scale, p.zero_point, *limits)


def _to_real(q):
    p, codes = q.qparams, to_torch(q.values)
    limits = p.qmin, p.qmax, _TYPES[p.dtype]
    if p.per_channel:
        return _decomposed.dequantize_per_channel(codes, *_vectors(p), p.axis, *limits)
    return _decomposed.dequantize_per_tensor(codes, p.scale, p.zero_point, *limits)


def _relu(real, problem):
    return torch.relu(real) if problem.get("activation") == "relu" else real


def _binary(function):
    return lambda problem: _to_codes(_relu(function(_to_real(problem["a"]), _to_real(problem["b"])), problem), problem["out"])


def _cat(problem):
    real = torch.cat([_to_real(q) for q in problem["tensors"]], problem.get("dim", 1))
    return _to_codes(_relu(real, problem), problem["out"])


def _max_pool2d(problem):
    q = problem["x"]
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    arguments = {name: problem.get(name) for name in names if problem.get(name) is not None}
    return _to_codes(functional.max_pool2d(_to_real(q), **arguments), q.qparams)


def _fake_quantize(problem):
    x, p = to_torch(problem["x"]), problem["qparams"]
    if not p.per_channel:
        return torch.fake_quantize_per_tensor_affine(x, p.scale, p.zero_point, p.qmin, p.qmax)
    scales, zeros = _vectors(p)
    return torch.fake_quantize_per_channel_affine(x, scales, zeros.to(torch.int32), p.axis, p.qmin, p.qmax)


def _bias(problem):
    bias = problem.get("bias")
    return None if bias is None else torch.from_numpy(np.array(bias, np.float32))


def _weight_parameters(w):
    return tuple(v.reshape(-1) for v in _vectors(w.qparams))


def _input(q):
    return to_torch(q.values), q.qparams.scale, q.qparams.zero_point


def _output(problem):
    out = problem.get("out")
    return (1.0, 0, torch.float32) if out is None else (out.scale, out.zero_point, _TYPES[out.dtype])


def _post(problem):
    activation = problem.get("activation") or "none"
    name, *parameters = activation if isinstance(activation, tuple) else (activation,)
    return name, parameters, "none" if name == "gelu" else ""


def _other(problem):
    """The second tensor, its scale and zero point, and how it is added: ``sum``, into it, or ``add`` of real numbers to a linear layer."""
    other = problem["other"]
    if isinstance(other, np.ndarray):
        linear = problem.op == "linear"
        return to_torch(other).clone(memory_format=torch.contiguous_format if linear else torch.channels_last), 1.0, 0, "add" if linear else "sum"
    return to_torch(other.values).clone(), other.qparams.scale, other.qparams.zero_point, "sum"


def _linear(problem):
    w = problem["w"]
    packed = torch.ops.onednn.qlinear_prepack(to_torch(w.values), None)
    if problem.get("other") is not None:
        other, scale, zero, how = _other(problem)
        return torch.ops.onednn.qlinear_pointwise.binary(
            *_input(problem["x"]), packed, *_weight_parameters(w), other, _bias(problem), *_output(problem), scale, zero, how, 1.0, *_post(problem)
        )
    return torch.ops.onednn.qlinear_pointwise.default(*_input(problem["x"]), packed, *_weight_parameters(w), _bias(problem), *_output(problem), *_post(problem))


def _codes_at_run_time(x, dtype, symmetric):
    """The input of a dynamically quantized layer as the graph has it: codes, scale and zero point, all tensors."""
    kind, limits = _TYPES[dtype], (0, 255) if dtype == "uint8" else (-128, 127)
    choose = _decomposed.choose_qparams_symmetric if symmetric else _decomposed.choose_qparams
    scale, zero = choose.tensor(x, *limits, _EPS, kind)
    return _decomposed.quantize_per_tensor.tensor(x, scale, zero, *limits, kind), scale, zero


def _quantize_dynamic(problem):
    codes, scale, zero = _codes_at_run_time(to_torch(problem["x"]), problem.get("dtype", "uint8"), problem.get("symmetric", False))
    return torch.cat([t.contiguous().reshape(-1).double() for t in (codes, scale, zero)])


def _linear_dynamic(problem):
    w = problem["w"]
    packed = torch.ops.onednn.qlinear_prepack(to_torch(w.values), None)
    post = problem.get("activation") or "none", [], ""
    return torch.ops.onednn.qlinear_pointwise.tensor(
        *_codes_at_run_time(to_torch(problem["x"]), "uint8", False), packed, *_weight_parameters(w), _bias(problem), 1.0, 0, torch.float32, *post
    )


def _conv(problem):
    dims, x, w, groups = int(problem.op[4]), problem["x"], problem["w"], problem.get("groups", 1)
    sides = [v if isinstance(v, tuple) else (v,) * dims for v in (problem.get("stride", 1), problem.get("padding", 0), problem.get("dilation", 1))]
    scales, zeros = _weight_parameters(w)
    packed = torch.ops.onednn.qconv_prepack(to_torch(w.values), scales, x.qparams.scale, x.qparams.zero_point, *sides, groups, None)
    if problem.get("other") is not None:
        other, scale, zero, how = _other(problem)
        return torch.ops.onednn.qconv2d_pointwise.binary(
            *_input(x), packed, scales, zeros, other, _bias(problem), *sides, groups, *_output(problem), scale, zero, how, None, *_post(problem)
        )
    return torch.ops.onednn.qconv_pointwise.default(*_input(x), packed, scales, zeros, _bias(problem), *sides, groups, *_output(problem), *_post(problem))


_TABLE = {
    "quantize": lambda problem: _to_codes(to_torch(problem["x"]), problem["qparams"]),
    "dequantize": lambda problem: _to_real(problem["q"]),
    "fake_quantize": _fake_quantize,
    "linear": _linear,
    "quantize_dynamic": _quantize_dynamic,
    "linear_dynamic": _linear_dynamic,
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "add": _binary(torch.add),
    "mul": _binary(torch.mul),
    "relu": lambda problem: _to_codes(torch.relu(_to_real(problem["x"])), problem["x"].qparams),
    "max_pool2d": _max_pool2d,
    "cat": _cat,
    **special_table(_to_real, _to_codes),
}

#: Each operator's call as a function of a problem, which returns an ndarray.
CALLS = {name: (lambda problem, call=call: call(problem).numpy()) for name, call in _TABLE.items()}
