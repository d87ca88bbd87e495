"""Modules that ``convert_fx`` quantized, with their packed weights unpacked: a `Model` on the same codes. Torch is handed in."""

import numpy as np

from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import UnsupportedError
from refquant.graph import Node
from refquant.graph.opset import op_of_target
from refquant.interop.from_torch import Reader
from refquant.interop.torch_layers import LAYERS, array_of
from refquant.ops.pack_weights import pack_weights

__all__ = ["QuantizedReader", "is_quantized"]

_GEOMETRY = ("stride", "padding", "dilation", "groups")
_TRANSPOSED = (*_GEOMETRY, "output_padding")


def is_quantized(torch, module):
    """Whether a module is a traced graph in which something becomes codes."""
    return isinstance(module, torch.fx.GraphModule) and any(n.target in (torch.quantize_per_tensor, torch.quantize_per_tensor_dynamic) or _home(n, module) for n in module.graph.nodes)


def _home(node, module):
    """Whether a node calls an operator or a layer on codes."""
    if node.op == "call_function":
        return _name(node.target).startswith("quantized.")
    return node.op == "call_module" and "quantized" in type(module.get_submodule(node.target)).__module__.split(".")


def _name(function):
    """Return ``"quantized.add"`` for ``torch.ops.quantized.add`` and its overloads."""
    parts = str(function).split(".")
    return ".".join(parts[:2]) if parts[0] == "quantized" else getattr(function, "__name__", str(function))


class QuantizedReader(Reader):
    """Reads what `Reader` reads, and layers on codes."""

    def _worked_out(self, node):
        if node.op != "get_attr":
            return super()._worked_out(node)
        value = self.module
        for part in node.target.split("."):
            value = getattr(value, part)
        if isinstance(value, self.torch.Tensor) and not value.is_quantized and value.dim():
            self.known[node] = array_of(value, self._place(node), node.target)
        else:
            self.known[node] = value.item() if isinstance(value, self.torch.Tensor) and not value.is_quantized else value
        return True

    def _append(self, node):
        rule, subject, args = None, None, node.args
        if node.op == "call_module":
            subject = self.modules[node.target]
            home = type(subject).__module__.split(".")
            if "reference" in home or "intrinsic" in home and "quantized" not in home:
                rule = _left_float
            elif "quantized" in home:
                rule = _LAYERS.get(type(subject).__name__)
                if rule is None or "dynamic" in home:
                    self._refuse(node, f"layer {type(subject).__module__}.{type(subject).__name__}")
        elif node.op == "call_method" and node.target == "dequantize":
            rule = _dequantize
        elif node.op == "call_function":
            name = _name(node.target)
            rule = _FUNCTIONS.get(name)
            if rule is None and name.startswith("quantized."):
                self._refuse(node, f"operator {name}")
            args = self._plain(node.args)
        if rule is None:
            return super()._append(node)
        op, inputs, attrs, params = rule(self, node, subject, *args, **{key: self._plain(v) for key, v in node.kwargs.items()})
        params = {key: value for key, value in params.items() if value is not None}
        target = {"quantize": "quantize", "dequantize": "dequantize"}.get(op)
        path = node.target if node.op == "call_module" else self._scope(node)
        self._put(Node(node.name, op, [self._value(v, node) for v in inputs], attrs, params, target=target, path=path))

    def qparams(self, scale, zero_point, dtype="uint8"):
        """Return output parameters, which a module or an operator holds as numbers or tensors."""
        name = str(dtype).removeprefix("torch.")
        return QParams(float(scale), int(zero_point), name)

    def packed(self, weight, bias, groups=1, transposed=False):
        """Return the parameters of a layer from PyTorch's unpacked ones."""
        codes = np.ascontiguousarray(weight.int_repr().numpy())
        if weight.qscheme() in (self.torch.per_tensor_affine, self.torch.per_tensor_symmetric):
            qparams = QParams(weight.q_scale(), weight.q_zero_point(), codes.dtype.name)
        else:
            qparams = QParams(weight.q_per_channel_scales().double().numpy(), weight.q_per_channel_zero_points().long().numpy(), codes.dtype.name, axis=weight.q_per_channel_axis())
        params = {"weight": pack_weights(QTensor(codes, qparams), groups=groups, transposed=transposed)}
        if bias is not None:
            params["bias"] = bias.detach().numpy().copy()
            params["bias"].flags.writeable = False
        return params


def _left_float(reader, node, module, x):
    """A layer that no engine took on codes, perhaps with its ReLU: it computes with real numbers, and weights on their grid."""
    first, *rest = module if isinstance(module, reader.torch.nn.Sequential) else (module,)
    target = f"nn.{type(first).__name__}"
    if target not in LAYERS or [type(layer).__name__ for layer in rest] not in ([], ["ReLU"]):
        reader._refuse(node, f"layer {type(module).__module__}.{type(module).__name__}")
    attrs, params = LAYERS[target](first, reader._place(node))
    if hasattr(first, "get_weight"):
        params["weight"] = array_of(first.get_weight(), reader._place(node), "weight")
    return op_of_target(target, "from_torch").name, [x], {**attrs, **({"activation": "relu"} if rest else {})}, params


def _side(value):
    return value[0] if len(set(value)) == 1 else tuple(int(v) for v in value)


def _product(op, activation=None, pair=False):
    """A layer with packed weights, as a module."""

    def rule(reader, node, module, *inputs):
        attrs = {"activation": activation, "out": reader.qparams(module.scale, module.zero_point)}
        transposed = op.startswith("conv_transpose")
        if op != "linear":
            if getattr(module, "padding_mode", "zeros") != "zeros":
                raise UnsupportedError(f"{reader._place(node)}: padding_mode={module.padding_mode!r} is not supported; pad with zeros")
            attrs.update({key: getattr(module, key) if key == "groups" else _side(getattr(module, key)) for key in (_TRANSPOSED if transposed else _GEOMETRY)})
        # An added input comes second, as in refquant's layers.
        return op, list(inputs), attrs, reader.packed(module.weight(), module.bias(), attrs.get("groups", 1), transposed)

    return rule


def _called_product(op, activation=None):
    """A layer with packed weights, as an operator: its geometry is in the packed object."""

    def rule(reader, node, _, x, packed, scale, zero_point):
        attrs = {"activation": activation, "out": reader.qparams(scale, zero_point)}
        weight, bias = packed.unpack()
        if op != "linear":
            if op == "conv1d":  # packed as an image of height 1
                weight = weight.squeeze(2) if weight.dim() == 4 else weight
            for key in ("stride", "padding", "dilation"):
                attrs[key] = _side(getattr(packed, key)()[-(weight.dim() - 2) :])
            attrs["groups"] = packed.groups()
        return op, [x], attrs, reader.packed(weight, bias, attrs.get("groups", 1))

    return rule


def _function(op, *names):
    """A function of one value as a module: its own parameters, and perhaps its output's."""

    def rule(reader, node, module, x):
        attrs = {name: getattr(module, name) for name in names}
        return op, [x], {**attrs, "out": reader.qparams(module.scale, module.zero_point)}, {}

    return rule


def _norm(op, *names):
    def rule(reader, node, module, x):
        keys = ("weight", "bias", *(("running_mean", "running_var") if op == "batch_norm" else ()))
        params = {key: None if getattr(module, key) is None else array_of(getattr(module, key), reader._place(node), key) for key in keys}
        attrs = {"eps": module.eps, **{name: getattr(module, name) for name in names}, "out": reader.qparams(module.scale, module.zero_point)}
        if type(module).__name__.startswith("BNReLU"):
            attrs["activation"] = "relu"
        return op, [x], attrs, params

    return rule


def _called(op, *names):
    """A function of one value as an operator: ``(x, *settings, scale, zero_point)``."""

    def rule(reader, node, _, x, *args, **named):
        named.pop("inplace", None)
        scale, zero = (named.pop(f"output_{key}") if f"output_{key}" in named else args[place] for key, place in (("scale", -2), ("zero_point", -1)))
        return op, [x], {**dict(zip(names, args)), **named, "out": reader.qparams(scale, zero)}, {}

    return rule


def _pair(op, activation=None):
    """A sum or a product of two values, or of a value and a number."""

    def rule(reader, node, _, a, b, scale=None, zero_point=None):
        if isinstance(a, (int, float)):
            a, b = b, a
        if isinstance(b, (int, float)):
            return f"{op}_scalar", [a], {"number": float(b), "activation": activation}, {}
        return op, [a, b], {"activation": activation, "out": reader.qparams(scale, zero_point)}, {}

    return rule


def _cat(reader, node, _, tensors, dim, scale=None, zero_point=None):
    return "cat", list(tensors), {"dim": dim, "out": None if scale is None else reader.qparams(scale, zero_point)}, {}


def _quantize(reader, node, _, x, scale, zero_point, dtype):
    return "quantize", [x], {"out": reader.qparams(scale, zero_point, dtype)}, {}


def _quantize_layer(reader, node, module, x):
    return "quantize", [x], {"out": reader.qparams(module.scale, module.zero_point, module.dtype)}, {}


def _dequantize(reader, node, _, x):
    return "dequantize", [x], {}, {}


def _dropout(reader, node, module, x):
    return "dropout", [x], {}, {}


def _prelu(reader, node, module, x):
    weight = module.weight
    weight = weight.dequantize() if weight.is_quantized else weight
    return "prelu", [x], {"out": reader.qparams(module.scale, module.zero_point)}, {"weight": array_of(weight, reader._place(node), "weight")}


def _leaky_relu(reader, node, _, x, negative_slope=0.01, inplace=False, output_scale=None, output_zero_point=None):
    return "leaky_relu", [x], {"negative_slope": negative_slope, "out": reader.qparams(output_scale, output_zero_point)}, {}


_LAYERS = {
    **{f"Conv{d}d": _product(f"conv{d}d") for d in (1, 2, 3)}, **{f"ConvReLU{d}d": _product(f"conv{d}d", "relu") for d in (1, 2, 3)},
    **{f"ConvTranspose{d}d": _product(f"conv_transpose{d}d") for d in (1, 2, 3)}, "ConvAdd2d": _product("conv2d"), "ConvAddReLU2d": _product("conv2d", "relu"),
    "Linear": _product("linear"), "LinearReLU": _product("linear", "relu"), "Hardswish": _function("hardswish"), "Sigmoid": _function("sigmoid"),
    "ELU": _function("elu", "alpha"), "LeakyReLU": _function("leaky_relu", "negative_slope"), "Softmax": _function("softmax", "dim"), "PReLU": _prelu,
    **{f"{kind}{d}d": _norm("batch_norm") for kind in ("BatchNorm", "BNReLU") for d in (2, 3)}, **{f"InstanceNorm{d}d": _norm("instance_norm") for d in (1, 2, 3)},
    "LayerNorm": _norm("layer_norm"), "GroupNorm": _norm("group_norm", "num_groups"), "Dropout": _dropout, "Quantize": _quantize_layer, "DeQuantize": _dequantize,
}  # fmt: skip
"""``{layer of torch.ao.nn.quantized or its intrinsic: rule}``; ``rule(reader, node, module, *inputs)`` returns (op, inputs, attrs, params)."""

_FUNCTIONS = {
    "quantize_per_tensor": _quantize, "quantized.add": _pair("add"), "quantized.add_relu": _pair("add", "relu"), "quantized.mul": _pair("mul"), "quantized.mul_relu": _pair("mul", "relu"),
    "quantized.cat": _cat, "quantized.linear": _called_product("linear"), "quantized.linear_relu": _called_product("linear", "relu"),
    **{f"quantized.conv{d}d{tail}": _called_product(f"conv{d}d", activation) for d in (1, 2, 3) for tail, activation in (("", None), ("_relu", "relu"))},
    "quantized.hardswish": _called("hardswish"), "quantized.sigmoid": _called("sigmoid"), "quantized.leaky_relu": _leaky_relu,
    "quantized.softmax": _called("softmax", "dim"),
}  # fmt: skip
"""``{function: rule}``; ``rule(reader, node, None, *arguments)`` likewise."""
