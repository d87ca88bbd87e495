"""Every operation of a model against PyTorch's float32 forward, through from_torch: the same bits but where a C library decides."""

import copy
import warnings

import numpy as np
import pytest

from refquant import interop
from refquant.graph import OPS

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.engine
nn, F = torch.nn, torch.nn.functional

SAME, SUMS, CLOSE = "the same bits", "the same bits if both sum in float64", "within some ulps"


def image(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * 3)


X = image(16, 16, 9, 9)
ROWS = image(16, 7, 24)
VOLUME = image(4, 16, 5, 6, 7)
SEQUENCE = image(16, 16, 21)
TOKENS = torch.arange(24).reshape(4, 6)


class Net(nn.Module):
    def __init__(self, forward, **layers):
        super().__init__()
        self.body = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.body(self, x)


def row(how, layer, x=X):
    """A layer, or a function of (module, x)."""
    return how, (Net(lambda m, x: m.layer(x), layer=layer) if isinstance(layer, nn.Module) else Net(layer)), x


def parameter(*shape):
    return nn.Parameter(image(*shape, seed=1))


def with_parameters(how, forward, x=X, **shapes):
    net = Net(forward)
    for name, shape in shapes.items():
        setattr(net, name, parameter(*shape))
    return how, net, x


def settled(norm):
    """Statistics and weights that are not the initial ones."""
    with torch.no_grad():
        for k, tensor in enumerate((*norm.parameters(), *norm.buffers())):
            if tensor.dtype == torch.float32:
                tensor.copy_(image(*tensor.shape, seed=k).abs() + 0.1)
    return norm


def chunks(m, x):
    a, b = x.chunk(2, dim=1)
    return torch.cat([b, a], 1)


# fmt: off
ROWS_OF_CASES = {
    "conv1d": [row(SUMS, nn.Conv1d(16, 20, 3, padding=1), SEQUENCE), with_parameters(SUMS, lambda m, x: F.conv1d(x, m.w, m.b, 1, 1), SEQUENCE, w=(20, 16, 3), b=(20,))],
    "conv2d": [row(SUMS, nn.Conv2d(16, 20, 3, padding=1)), with_parameters(SUMS, lambda m, x: F.conv2d(x, m.w, stride=2), w=(20, 16, 3, 3))],
    "conv3d": [row(SUMS, nn.Conv3d(16, 20, 3, padding=1), VOLUME), row(SUMS, nn.Conv3d(16, 16, (1, 3, 2), stride=(1, 2, 1), groups=4), VOLUME)],
    "conv_transpose1d": [row(SUMS, nn.ConvTranspose1d(16, 20, 3, stride=2, padding=1), SEQUENCE)],
    "conv_transpose2d": [row(SUMS, nn.ConvTranspose2d(16, 20, 3, stride=2, padding=1, output_padding=1)), row(SUMS, nn.ConvTranspose2d(16, 8, 2, stride=2, groups=2)),
                         row(SUMS, nn.ConvTranspose2d(16, 8, (3, 2), stride=1, padding=2, dilation=2))],
    "conv_transpose3d": [row(SUMS, nn.ConvTranspose3d(16, 20, (1, 2, 3), stride=2), VOLUME)],
    "linear": [row(SUMS, nn.Linear(24, 32), ROWS), with_parameters(SUMS, lambda m, x: F.linear(x, m.w, m.b), ROWS, w=(32, 24), b=(32,))],
    "matmul": [row(CLOSE, lambda m, x: torch.matmul(x, x.transpose(1, 2)), ROWS), row(CLOSE, lambda m, x: x @ x.transpose(-1, -2), ROWS),
               row(CLOSE, lambda m, x: torch.bmm(x, x.transpose(1, 2)), ROWS)],
    "batch_norm": [row(SAME, settled(nn.BatchNorm2d(16))), row(SAME, settled(nn.BatchNorm1d(16)), SEQUENCE), row(SAME, settled(nn.BatchNorm3d(16)), VOLUME)],
    "layer_norm": [row(CLOSE, settled(nn.LayerNorm(24)), ROWS), row(CLOSE, settled(nn.LayerNorm((7, 24))), ROWS), row(CLOSE, lambda m, x: F.layer_norm(x, (24,)), ROWS)],
    "group_norm": [row(CLOSE, settled(nn.GroupNorm(4, 16))), row(CLOSE, lambda m, x: F.group_norm(x, 8))],
    "instance_norm": [row(CLOSE, nn.InstanceNorm2d(16)), row(CLOSE, settled(nn.InstanceNorm1d(16, affine=True)), SEQUENCE), row(CLOSE, lambda m, x: F.instance_norm(x))],
    "local_response_norm": [row(CLOSE, nn.LocalResponseNorm(5)), row(CLOSE, lambda m, x: F.local_response_norm(x, 2, k=2.0))],
    "relu": [row(SAME, nn.ReLU()), row(SAME, lambda m, x: F.relu(x)), row(SAME, lambda m, x: x.relu())],
    "relu6": [row(SAME, nn.ReLU6()), row(SAME, lambda m, x: F.relu6(x))],
    "hardtanh": [row(SAME, nn.Hardtanh(-0.5, 2)), row(SAME, lambda m, x: F.hardtanh(x))],
    "clamp": [row(SAME, lambda m, x: torch.clamp(x, -1, 1)), row(SAME, lambda m, x: x.clamp(min=0.5))],
    "hardswish": [row(SAME, nn.Hardswish()), row(SAME, lambda m, x: F.hardswish(x))],
    "hardsigmoid": [row(SAME, nn.Hardsigmoid()), row(SAME, lambda m, x: F.hardsigmoid(x))],
    "sigmoid": [row(CLOSE, nn.Sigmoid()), row(CLOSE, lambda m, x: torch.sigmoid(x)), row(CLOSE, lambda m, x: x.sigmoid())],
    "tanh": [row(CLOSE, nn.Tanh()), row(CLOSE, lambda m, x: torch.tanh(x))],
    "elu": [row(CLOSE, nn.ELU(0.7)), row(CLOSE, lambda m, x: F.elu(x))],
    "leaky_relu": [row(SAME, nn.LeakyReLU(0.03)), row(SAME, lambda m, x: F.leaky_relu(x, 0.2))],
    "silu": [row(CLOSE, nn.SiLU()), row(CLOSE, lambda m, x: F.silu(x))],
    "prelu": [row(SAME, nn.PReLU()), row(SAME, settled(nn.PReLU(16)))],
    "gelu": [row(CLOSE, nn.GELU()), row(CLOSE, nn.GELU("tanh")), row(CLOSE, lambda m, x: F.gelu(x, approximate="tanh"))],
    "softmax": [row(CLOSE, nn.Softmax(1)), row(CLOSE, lambda m, x: F.softmax(x, dim=-1)), row(CLOSE, lambda m, x: torch.softmax(x, 1))],
    "log_softmax": [row(CLOSE, nn.LogSoftmax(1)), row(CLOSE, lambda m, x: F.log_softmax(x, dim=-1))],
    "add": [row(SAME, lambda m, x: x + x), row(SAME, lambda m, x: torch.add(x, x)), row(SAME, lambda m, x: x.add(x))],
    "sub": [row(SAME, lambda m, x: x - x.relu())],
    "mul": [row(SAME, lambda m, x: x * x), row(SAME, lambda m, x: torch.mul(x, x.mean((2, 3), True)))],
    "div": [row(SAME, lambda m, x: x / (x.relu() + 1)), row(SAME, lambda m, x: x / 3.0)],
    "add_scalar": [row(SAME, lambda m, x: x + 3), row(SAME, lambda m, x: 0.1 + x), row(SAME, lambda m, x: x - 0.5)],
    "mul_scalar": [row(SAME, lambda m, x: 0.3 * x), row(SAME, lambda m, x: torch.mul(x, 2)), row(SAME, lambda m, x: x / 4)],
    "cat": [row(SAME, lambda m, x: torch.cat([x, x], 1))],
    "stack": [row(SAME, lambda m, x: torch.stack([x, x + 1])), row(SAME, lambda m, x: torch.stack((x, x * 2, x), -1))],
    "max_pool1d": [row(SAME, nn.MaxPool1d(3, 2), SEQUENCE), row(SAME, lambda m, x: F.max_pool1d(x, 2), SEQUENCE)],
    "max_pool2d": [row(SAME, nn.MaxPool2d(3, 2, 1, ceil_mode=True)), row(SAME, lambda m, x: F.max_pool2d(x, 2))],
    "max_pool3d": [row(SAME, nn.MaxPool3d(3, 2, 1), VOLUME), row(SAME, lambda m, x: F.max_pool3d(x, 2, ceil_mode=True), VOLUME)],
    "avg_pool1d": [row(SAME, nn.AvgPool1d(3, 2, 1), SEQUENCE), row(SAME, lambda m, x: F.avg_pool1d(x, 2), SEQUENCE)],
    "avg_pool2d": [row(SAME, nn.AvgPool2d(3, 2, 1)), row(SAME, lambda m, x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))],
    "avg_pool3d": [row(SAME, nn.AvgPool3d(3, 2, 1), VOLUME), row(SAME, lambda m, x: F.avg_pool3d(x, 2, ceil_mode=True), VOLUME)],
    "adaptive_avg_pool1d": [row(SAME, nn.AdaptiveAvgPool1d(4), SEQUENCE), row(SAME, lambda m, x: F.adaptive_avg_pool1d(x, 1), SEQUENCE)],
    "adaptive_avg_pool2d": [row(SAME, nn.AdaptiveAvgPool2d((2, 3))), row(SAME, lambda m, x: F.adaptive_avg_pool2d(x, 1))],
    "adaptive_avg_pool3d": [row(SAME, nn.AdaptiveAvgPool3d((2, 3, 1)), VOLUME), row(SAME, lambda m, x: F.adaptive_avg_pool3d(x, 1), VOLUME)],
    "adaptive_max_pool2d": [row(SAME, nn.AdaptiveMaxPool2d((2, 3))), row(SAME, lambda m, x: F.adaptive_max_pool2d(x, 1))],
    "mean": [row(SAME, lambda m, x: x.mean([2, 3])), row(SAME, lambda m, x: torch.mean(x, 1), ROWS), row(SAME, lambda m, x: x.mean(-1, keepdim=True))],
    "flatten": [row(SAME, nn.Flatten()), row(SAME, lambda m, x: torch.flatten(x, 2))],
    "reshape": [row(SAME, lambda m, x: x.view(x.size(0), -1)), row(SAME, lambda m, x: x.reshape(x.shape[0], x.shape[1] // 4, 4, 81))],
    "permute": [row(SAME, lambda m, x: x.permute(0, 2, 3, 1)), row(SAME, lambda m, x: torch.permute(x, (0, 3, 1, 2)))],
    "transpose": [row(SAME, lambda m, x: x.transpose(1, 2)), row(SAME, lambda m, x: torch.transpose(x, -1, 1))],
    "squeeze": [row(SAME, lambda m, x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1))],
    "unsqueeze": [row(SAME, lambda m, x: x.unsqueeze(2)), row(SAME, lambda m, x: torch.unsqueeze(x, -1))],
    "slice": [row(SAME, chunks), row(SAME, lambda m, x: torch.split(x, [4, 12], 1)[1]),
              row(SAME, lambda m, x: x[:, 2:9:3, ..., 1:])],
    "select": [row(SAME, lambda m, x: x[:, 0]), row(SAME, lambda m, x: x.select(2, -1))],
    "expand": [row(SAME, lambda m, x: x.mean((2, 3), True).expand(-1, -1, 9, 9))],
    "pixel_shuffle": [row(SAME, nn.PixelShuffle(2)), row(SAME, lambda m, x: F.pixel_shuffle(x, 4))],
    "pixel_unshuffle": [row(SAME, nn.PixelUnshuffle(3)), row(SAME, lambda m, x: F.pixel_unshuffle(x, 9))],
    "repeat": [row(SAME, lambda m, x: x.repeat(1, 2, 1, 3)), row(SAME, lambda m, x: x.repeat((2, 1, 1, 1, 1)))],
    "repeat_interleave": [row(SAME, lambda m, x: torch.repeat_interleave(x, 3, dim=2)), row(SAME, lambda m, x: x.repeat_interleave(2, -1))],
    "channel_shuffle": [row(SAME, nn.ChannelShuffle(4)), row(SAME, lambda m, x: F.channel_shuffle(x, 2))],
    "pad": [row(SAME, lambda m, x: F.pad(x, (1, 2, 0, 1), value=3.0)), row(SAME, nn.ZeroPad2d((1, 0, 2, -1)))],
    "interpolate": [row(SAME, nn.Upsample(scale_factor=2)), row(SAME, lambda m, x: F.interpolate(x, size=(5, 20))), row(CLOSE, nn.Upsample(scale_factor=2, mode="bilinear")),
                    row(CLOSE, lambda m, x: F.interpolate(x, size=(20, 5), mode="bilinear", align_corners=True))],
    "embedding": [row(SAME, nn.Embedding(30, 8), TOKENS), with_parameters(SAME, lambda m, x: F.embedding(x, m.w), TOKENS, w=(30, 8))],
    "constant": [with_parameters(SAME, lambda m, x: x + m.p, p=(1, 16, 9, 9))],
    "dropout": [row(SAME, nn.Dropout()), row(SAME, lambda m, x: F.dropout(x, training=False))],
    "identity": [row(SAME, nn.Identity())],
}
# fmt: on
NOT_IN_TORCH = {"input", "quantize", "dequantize", "requantize", "fake_quantize", "observe", "quantize_dynamic", "linear_dynamic", "call"}
CASES = [pytest.param(op, *case, id=f"{op}-{k}") for op, cases in ROWS_OF_CASES.items() for k, case in enumerate(cases)]


def test_every_operation_has_a_case():
    assert set(ROWS_OF_CASES) == {op.name for op in OPS} - NOT_IN_TORCH


@pytest.mark.parametrize("op, how, net, x", CASES)
def test_float_forward(op, how, net, x):
    net = net.eval()
    torch.set_num_threads(1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = np.ascontiguousarray(net(x).numpy())
        model = interop.from_torch(net, (x,))
    assert op in {node.op for node in model.nodes}
    shapes = {}
    (ours,) = model.run(x.numpy(), hooks=lambda node, value: shapes.__setitem__(node.name, value.shape))
    assert ours.dtype == np.float32 and ours.shape == theirs.shape
    assert shapes == model.shapes(tuple(x.shape))
    if how == SAME:
        assert np.array_equal(ours.view(np.int32), theirs.view(np.int32)), f"{(ours != theirs).sum()} of {ours.size} differ"
    np.testing.assert_allclose(ours, theirs, rtol=3e-6, atol=3e-6 * np.abs(theirs).max())
    (wide,) = model.run(x.numpy(), real="float64")
    np.testing.assert_allclose(wide, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())
    if how == SUMS:
        with torch.no_grad():
            assert np.array_equal(wide, copy.deepcopy(net).double()(x.double()).float().numpy())


# A group norm without a weight does not know its channels.
@pytest.mark.parametrize("op, how, net, x", [case for case in CASES if case.id != "group_norm-1"])
def test_back_to_torch(op, how, net, x):
    """A model as a module of PyTorch computes what the module did, and is read back as the same model."""
    from refquant.backends.torch_module import to_torch

    net = net.eval()
    model = interop.from_torch(net, (x,))
    module = to_torch(model)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(net(x), module(x))
    again = interop.from_torch(module, (x,))
    assert [(n.op, n.target, len(n.inputs)) for n in again.nodes if n.op != "constant"] == [(n.op, n.target, len(n.inputs)) for n in model.nodes if n.op != "constant"]
