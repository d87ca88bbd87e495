"""Nets in the forms of PyTorch's own unit tests of its FX workflow (test_quantize_fx.py), beside PyTorch: placement, parameters and every code."""

import operator
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.engine

from torch import nn  # noqa: E402
from torch.ao import quantization as tq  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from test_workflow_standalone_torch import same_codes  # noqa: E402

from refquant import interop, workflow  # noqa: E402
from refquant.backends import torch_fx  # noqa: E402
from refquant.cli.verify_models import numerics_here  # noqa: E402
from refquant.errors import ArgumentError  # noqa: E402

warnings.filterwarnings("ignore", module="torch")


class Net(nn.Module):
    """A forward over layers of its own."""

    def __init__(self, forward, layers):
        super().__init__()
        torch.manual_seed(0)
        for name, layer in layers.items():
            setattr(self, name, layer() if isinstance(layer, type) or callable(layer) and not isinstance(layer, (nn.Module, torch.Tensor)) else layer)
        self._forward = forward
        self.eval()

    def forward(self, x):
        return self._forward(self, x)


def images(k=0):
    return np.random.default_rng(k).standard_normal((2, 4, 6, 6)).astype(np.float32) * (k + 1)


def rows(k=0):
    return np.random.default_rng(k).standard_normal((5, 8)).astype(np.float32) * (k + 1)


def conv(*a, **k):
    return lambda: nn.Conv2d(4, 4, 3, padding=1, *a, **k)


def fc():
    return nn.Linear(8, 8)


def weight(*shape):
    return lambda: nn.Parameter(torch.randn(*shape) / 3)


DEFAULT = (lambda e: workflow.get_default_qconfig_mapping(e), lambda e: tq.get_default_qconfig_mapping(e))
DYNAMIC = (lambda e: workflow.QConfigMapping(e).set_global(workflow.default_dynamic_qconfig), lambda e: tq.QConfigMapping().set_global(tq.default_dynamic_qconfig))
MIN_MAX = (lambda e: workflow.QConfigMapping(e).set_global(workflow.default_qconfig), lambda e: tq.QConfigMapping().set_global(tq.default_qconfig))
REUSE = (
    lambda e: workflow.get_default_qconfig_mapping(e).set_object_type("reshape", workflow.REUSE_INPUT).set_object_type("view", None),
    lambda e: tq.get_default_qconfig_mapping(e).set_object_type("reshape", tq.qconfig.default_reuse_input_qconfig).set_object_type("view", None),
)
SOME_NONE = (
    lambda e: workflow.get_default_qconfig_mapping(e).set_module_name("b", None).set_object_type(operator.mul, None),
    lambda e: tq.get_default_qconfig_mapping(e).set_module_name("b", None).set_object_type(operator.mul, None),
)
# fmt: off
CASES = {
    "test_functional_linear with relu": (lambda m, x: F.relu(F.linear(x, m.w, m.c)), dict(w=weight(8, 8), c=weight(8)), rows, DEFAULT),
    "test_functional_conv": (lambda m, x: F.conv2d(x, m.w, None, (1, 1), (1, 1), (1, 1), 1), dict(w=weight(4, 4, 3, 3)), images, DEFAULT),
    "test_dynamic_with_fusion": (lambda m, x: F.relu(m.a(m.r(m.b(x)))), dict(a=fc, b=fc, r=nn.ReLU), rows, DYNAMIC),
    "test_dynamic_with_fusion_multiple_uses": (lambda m, x: m.r(m.a(m.r(m.a(x)))), dict(a=fc, r=nn.ReLU), rows, DYNAMIC),
    "test_dynamic_linear_input_multiple_use": (lambda m, x: m.a(x) + m.b(x), dict(a=fc, b=fc), rows, DYNAMIC),
    "test_default_quant_after_none_qconfig": (lambda m, x: m.a(m.b(x).transpose(2, 3)), dict(a=conv(), b=conv()), images, SOME_NONE),
    "test_qconfig_none": (lambda m, x: m.b(m.a(x)) * x, dict(a=conv(), b=conv()), images, SOME_NONE),
    "test_shape_followed_by_quantized_op": (lambda m, x: (lambda y: m.b(F.interpolate(y, (y.shape[2] * 2, y.shape[3]))))(m.a(x)), dict(a=conv(), b=conv()), images, DEFAULT),
    "test_linear_shape_view": (lambda m, x: m.b(m.a(x).view(x.size(0), 8)), dict(a=fc, b=fc), rows, DEFAULT),
    "test_reshape between layers": (lambda m, x: m.b(m.a(x).reshape(-1, 8)), dict(a=fc, b=fc), rows, DEFAULT),
    "test_reuse_input_qconfig": (lambda m, x: m.b(m.a(x).reshape(-1, 8).view(-1, 8)), dict(a=fc, b=fc), rows, REUSE),
    "test_chunk": (lambda m, x: (lambda y: m.b(torch.cat([y[1], y[0]], 1)))(m.a(x).chunk(2, 1)), dict(a=conv(), b=conv()), images, DEFAULT),
    "test_clamp and hardtanh": (lambda m, x: m.b(torch.clamp(m.h(m.a(x)).clamp(-0.5, 0.4), min=-0.3, max=2.0)), dict(a=conv(), b=conv(), h=lambda: nn.Hardtanh(-0.6, 0.5)), images, DEFAULT),
    "test_relu6 and in place": (lambda m, x: m.b(F.relu6(m.a(x))).relu_(), dict(a=conv(), b=conv()), images, DEFAULT),
    "test_sub_scalar": (lambda m, x: m.b(((m.a(x) - 0.5) + 3) * 4), dict(a=conv(), b=conv()), images, DEFAULT),
    "test_add_relu multiple uses": (lambda m, x: (lambda y: m.r(y + m.b(y)) + m.r(y + 1.5))(m.a(x)), dict(a=conv(), b=conv(), r=nn.ReLU), images, DEFAULT),
    "test_inplace_add": (lambda m, x: operator.iadd(m.a(x), m.b(x)), dict(a=conv(), b=conv()), images, DEFAULT),
    "test_mul then relu": (lambda m, x: F.relu(m.a(x) * m.b(x)), dict(a=conv(), b=conv()), images, DEFAULT),
    "test_bn_relu": (lambda m, x: m.b(m.r(m.n(F.avg_pool2d(m.a(x), 2)))), dict(a=conv(), b=conv(), n=lambda: nn.BatchNorm2d(4), r=nn.ReLU), images, DEFAULT),
    "test_fixed_qparams_ops": (lambda m, x: m.b(torch.tanh(F.hardsigmoid(m.a(x)).sigmoid())), dict(a=conv(), b=conv()), images, DEFAULT),
    "test_elu and leaky_relu": (lambda m, x: m.b(m.l(m.e(m.a(x)))), dict(a=conv(), b=conv(), e=nn.ELU, l=lambda: nn.LeakyReLU(0.2)), images, DEFAULT),
    "test_hardswish": (lambda m, x: m.b(F.hardswish(m.h(m.a(x)))), dict(a=conv(), b=conv(), h=nn.Hardswish), images, DEFAULT),
    "test_layer_norm and group_norm": (lambda m, x: m.b(m.g(m.l(m.a(x)))), dict(a=conv(), b=conv(), l=lambda: nn.LayerNorm(6), g=lambda: nn.GroupNorm(2, 4)), images, DEFAULT),
    "test_bmm": (lambda m, x: torch.matmul(m.a(x), m.b(x).transpose(0, 1)), dict(a=fc, b=fc), rows, DEFAULT),
    "test_getitem": (lambda m, x: m.b(m.a(x)[:, :, 1:5]), dict(a=conv(), b=conv()), images, DEFAULT),
    "test_pixel_shuffle's cousin, channel_shuffle": (lambda m, x: m.b(m.s(m.a(x))), dict(a=conv(), b=conv(), s=lambda: nn.ChannelShuffle(2)), images, DEFAULT),
    "test_pixel_shuffle": (lambda m, x: m.c(m.s(m.a(x))), dict(a=conv(), s=lambda: nn.PixelShuffle(2), c=lambda: nn.Conv2d(1, 4, 1)), images, DEFAULT),
    "test_pixel_unshuffle": (lambda m, x: m.c(F.pixel_unshuffle(m.a(x), 2)), dict(a=conv(), c=lambda: nn.Conv2d(16, 4, 1)), images, DEFAULT),
    "test_narrow": (lambda m, x: m.b(torch.narrow(m.a(x), 2, 1, 3)), dict(a=conv(), b=conv()), images, DEFAULT),
    "test_repeat_interleave": (lambda m, x: m.b(torch.repeat_interleave(m.a(x).repeat_interleave(2, dim=3), 3, dim=2)), dict(a=conv(), b=conv()), images, DEFAULT),
    "test_repeat and detach": (lambda m, x: m.b(m.a(x).repeat(1, 1, 2, 1).detach()), dict(a=conv(), b=conv()), images, DEFAULT),
    "test_squeeze and unsqueeze": (lambda m, x: m.b(m.a(x).unsqueeze(0).squeeze(0)), dict(a=conv(), b=conv()), images, DEFAULT),
    "test_flatten and dropout": (lambda m, x: m.c(m.d(torch.flatten(m.p(m.a(x)), 1))), dict(a=conv(), p=lambda: nn.AdaptiveAvgPool2d(1), d=nn.Dropout, c=lambda: nn.Linear(4, 8)), images, DEFAULT),
    "test_mean and permute": (lambda m, x: m.c(m.a(x).permute(0, 2, 3, 1).mean((1, 2))), dict(a=conv(), c=lambda: nn.Linear(4, 8)), images, DEFAULT),
    "test_stack": (lambda m, x: m.c(torch.stack([m.a(x), m.b(x)], 1).flatten(1)), dict(a=conv(), b=conv(), c=lambda: nn.Linear(288, 8)), images, DEFAULT),
    "test_stack of rows": (lambda m, x: m.c(torch.stack([m.a(x), m.b(x), m.a(x)])), dict(a=fc, b=fc, c=fc), rows, DEFAULT),
    "test_output_lists": (lambda m, x: [m.a(x), m.b(m.a(x))], dict(a=conv(), b=conv()), images, DEFAULT),
    "test_multiple_inputs, one used twice": (lambda m, x: m.a(x) + torch.cat([x, x], 1)[:, :4], dict(a=conv()), images, DEFAULT),
    "test_min_max_qconfig": (lambda m, x: m.b(F.relu(m.a(x))), dict(a=conv(), b=conv()), images, MIN_MAX),
    "test_conv_transpose": (lambda m, x: m.b(m.t(m.a(x))), dict(a=conv(), b=conv(), t=lambda: nn.ConvTranspose2d(4, 4, 2, 2)), images, DEFAULT),
    "test_prelu": (lambda m, x: m.b(m.p(m.a(x))), dict(a=conv(), b=conv(), p=nn.PReLU), images, DEFAULT),
    "test_copy_node_fp32_input": (lambda m, x: F.max_pool2d(x.relu(), 2).flatten(2), {}, images, DEFAULT),
    "test_reused module, and once more where nobody reads it": (lambda m, x: (lambda y: (y, m.a(y * 3))[0])(m.b(m.a(x))), dict(a=conv(), b=conv()), images, DEFAULT),
    "test_norm_weight_bias by name": (lambda m, x: F.layer_norm(m.a(x), (8,), m.w, m.c), dict(a=fc, w=weight(8), c=weight(8)), rows, DEFAULT),
}
# fmt: on


def both(name, engine):
    forward, layers, batch, mappings = CASES[name]
    module, data = Net(forward, layers), [batch(0), batch(1)]
    reference = torch_fx.prepared_module(module, engine, data, mapping=mappings[1](engine), order="float64")
    prepared = workflow.prepare_fx(interop.from_torch(module, (data[0],)), mappings[0](engine), (data[0],))
    for x in data:
        prepared(x, real="float64")
    return prepared, reference, data


@pytest.mark.parametrize("engine", ["fbgemm"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_agrees(name, engine):
    prepared, reference, data = both(name, engine)
    assert [k for _, k in prepared.placement] == [k for _, k in torch_fx.placement(reference)]
    count = same_codes(workflow.convert_fx(prepared, numerics_here(engine)), torch_fx.quantized_module(reference, engine), data[1], engine)
    assert count or CASES[name][3] is DYNAMIC or not CASES[name][1]


def test_another_net_is_told_apart():
    """The fault: the sum of one case under the observers of another."""
    prepared, *_ = both("test_inplace_add", "fbgemm")
    _, reference, data = both("test_mul then relu", "fbgemm")
    with pytest.raises((AssertionError, ArgumentError)):
        same_codes(workflow.convert_fx(prepared, numerics_here("fbgemm")), torch_fx.quantized_module(reference, "fbgemm"), data[1], "fbgemm")
