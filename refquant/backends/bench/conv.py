"""Convolutions: all distinct layers of two networks at batch 1, under the x86 profile."""

import math

import refquant as rq
from refquant.backends.bench.case import Bar, Case, Plan, Role, Work
from refquant.backends.bench.gemm import ratios
from refquant.backends.bench.harness import geomean
from refquant.backends.bench.layers import codes_of, conv_layer, torch_call
from refquant.verify.held import profile_here

__all__ = ["CONV", "distinct_convolutions"]

_NETWORKS = ("resnet50", "mobilenet_v2")
_GEOMETRY = ("stride", "padding", "dilation", "groups")


def distinct_convolutions(model):
    """Return ``[(x shape, w shape, activation, geometry, first)]`` of the convolutions of a model at batch 1, each once.

    Parameters
    ----------
    model : Model
        On float32 arrays.

    Returns
    -------
    list of tuple
        `activation` is ``"relu"`` where a ReLU follows the convolution or its norm, `first` tells whether the model's input is read.
    """
    shapes, found = model.shapes(), {}
    for node in model.nodes:
        if node.op != "conv2d":
            continue
        geometry = {name: node.attrs[name] for name in _GEOMETRY}
        x_shape = (1, *shapes[node.inputs[0]][1:])
        row = (x_shape, node.params["weight"].shape, _activation(model, node), geometry, node.inputs[0] in model.inputs)
        found.setdefault(repr(row), row)
    return list(found.values())


def _activation(model, node):
    for _ in range(2):
        users = model.users(node.name)
        if len(users) != 1 or users[0].op not in ("batch_norm", "relu"):
            return None
        node = users[0]
        if node.op == "relu":
            return "relu"
    return None


def _name(network, row):
    x, w, activation, geometry, _ = row
    stride, groups = geometry["stride"], geometry["groups"]
    text = f"{network} {x[1]}x{x[2]}x{x[3]} {w[2]}x{w[3]}"
    step = stride if isinstance(stride, int) else stride[0]
    text += "" if step == 1 else f"/{step}"
    text += f" -> {w[0]}" if groups == 1 else " depthwise" if groups == x[1] else f" -> {w[0]}, {groups} groups"
    return text + (" relu" if activation else "")


def _operations(row):
    x, w, _, geometry, _ = row
    sides = []
    for size, kernel, i in ((x[2], w[2], 0), (x[3], w[3], 1)):
        s, p, d = (v if isinstance(v, int) else v[i] for v in (geometry[n] for n in _GEOMETRY[:3]))
        sides.append((size + 2 * p - d * (kernel - 1) - 1) // s + 1)
    return 2.0 * math.prod(w) * math.prod(sides)


def _case(network, row, settings):
    x_shape, w_shape, activation, geometry, first = row
    # In a running network the quantized image is contiguous; all other values are channels last.
    layer = conv_layer(x_shape, w_shape, activation, geometry, channels_last=not first)
    packed = rq.ops.pack_weights(layer.w, groups=geometry["groups"])
    options = dict(layer.geometry, out=layer.out, numerics=profile_here("x86"), activation=activation)
    case = Case(_name(network, row), network, _operations(row), layer=layer)
    case.add("refquant", lambda: lambda: rq.ops.conv2d(layer.x, packed, layer.bias, **options), Role.SUBJECT, bits=codes_of)
    case.add("torch x86", lambda: torch_call(layer, "x86"), bits=codes_of)
    return case


def _plans():
    rows = [(network, row) for network in _NETWORKS for row in distinct_convolutions(rq.zoo.build(network))]
    return [Plan(_name(n, r), n, lambda settings, n=n, r=r: _case(n, r, settings)) for n, r in rows]


CONV = Work(
    "conv",
    "Convolutions of ResNet-50 and MobileNetV2 at batch 1, profile x86; rival: PyTorch's x86 engine",
    _plans,
    bars=(
        Bar("geomean", lambda rs: geomean(ratios(rs)), 1.2, by_group=True),
        Bar("geomean of all layers", lambda rs: geomean(ratios(rs)), 1.2),
        Bar("worst ratio", lambda rs: min(ratios(rs), default=None), 0.8, by_group=True),
    ),
    grouped=True,
)
