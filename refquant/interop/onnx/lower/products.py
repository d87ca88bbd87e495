"""Convolutions, transposed convolutions, Gemm and MatMul on real numbers."""

import numpy as np

from refquant.interop.onnx.lower.windows import padded, padding_of, positive

__all__ = ["LOWERINGS", "conv_attrs"]


def _weight(low, node, index):
    weight = low.constant(node, index, "weight")
    if weight.dtype != np.float32:
        low.refuse(node, f"has a weight of {weight.dtype}")
    return weight


def conv_attrs(low, node, x, shape):
    """Return (input, attributes) of a convolution with weights of a shape."""
    dims, groups = len(shape) - 2, int(node.attrs.get("group", 1))
    if dims not in (1, 2, 3) or groups < 1:
        low.refuse(node, f"convolves over {dims} axes in {groups} groups")
    kernel = tuple(node.attrs.get("kernel_shape") or shape[2:])
    if kernel != tuple(shape[2:]):
        low.refuse(node, f"has kernel_shape={list(kernel)} but weights {tuple(shape)}")
    stride, dilation = positive(low, node, "strides", dims), positive(low, node, "dilations", dims)
    x, padding = padded(low, node, x, *padding_of(low, node, kernel, stride, dilation), 0.0)
    return x, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def _conv(low, node):
    weight, bias = _weight(low, node, 1), low.constant(node, 2, "bias")
    x, attrs = conv_attrs(low, node, low.value(node, 0), weight.shape)
    params = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    return low.add(node.name, f"conv{weight.ndim - 2}d", [x], attrs, params)


def _conv_transpose(low, node):
    weight, bias = _weight(low, node, 1), low.constant(node, 2, "bias")
    dims = weight.ndim - 2
    kernel, stride, dilation = weight.shape[2:], positive(low, node, "strides", dims), positive(low, node, "dilations", dims)
    auto, pads = node.attrs.get("auto_pad", "NOTSET") or "NOTSET", node.attrs.get("pads") or [0] * (2 * dims)
    if dims not in (1, 2, 3) or auto not in ("NOTSET", "VALID") or node.attrs.get("output_shape") or list(pads[:dims]) != list(pads[dims:]):
        low.refuse(node, "is a transposed convolution whose output is padded or sized otherwise than on both sides alike")
    if tuple(node.attrs.get("kernel_shape") or kernel) != kernel:
        low.refuse(node, f"has kernel_shape={node.attrs['kernel_shape']} but weights {weight.shape}")
    attrs = {
        "stride": stride, "padding": tuple(int(p) for p in pads[:dims]), "dilation": dilation, "groups": int(node.attrs.get("group", 1)),
        "output_padding": tuple(int(p) for p in node.attrs.get("output_padding") or [0] * dims),
    }  # fmt: skip
    return low.add(node.name, f"conv_transpose{dims}d", [low.value(node, 0)], attrs, {"weight": weight, **({} if bias is None else {"bias": bias})})


def _gemm(low, node):
    weight, bias = _weight(low, node, 1), low.constant(node, 2, "bias")
    alpha, beta = (np.float32(node.attrs.get(name, 1.0)) for name in ("alpha", "beta"))
    weight = (weight if node.attrs.get("transB", 0) else weight.T) * alpha
    if node.attrs.get("transA", 0) or (bias is not None and bias.dtype != np.float32) or (bias is not None and bias.size not in (1, len(weight))):
        low.refuse(node, "transposes its input, or adds otherwise than a linear layer")
    params = {"weight": np.ascontiguousarray(weight)}
    if bias is not None:
        params["bias"] = np.ascontiguousarray(np.broadcast_to(bias.reshape(-1) * beta, len(weight)))
    return low.add(node.name, "linear", [low.value(node, 0)], {}, params)


def _matmul(low, node):
    if node.inputs[1] not in low.constants or low.constants[node.inputs[1]].ndim != 2:
        return low.add(node.name, "matmul", [low.value(node, 0), low.value(node, 1)])
    return low.add(node.name, "linear", [low.value(node, 0)], {}, {"weight": np.ascontiguousarray(_weight(low, node, 1).T)})


LOWERINGS = {"Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _gemm, "MatMul": _matmul}
