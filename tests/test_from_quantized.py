"""Modules that PyTorch quantized, read with their packed weights: 0 differing integers at every layer, under each engine."""


import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.ao.quantization import get_default_qconfig_mapping  # noqa: E402
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from refquant import zoo  # noqa: E402
from refquant.backends.machine import profile_here  # noqa: E402
from refquant.backends.torch_fx import run_bits  # noqa: E402
from refquant.backends.torch_tensors import engine  # noqa: E402
from refquant.data import architectures_torch, load_split  # noqa: E402
from refquant.errors import UnsupportedError  # noqa: E402
from refquant.graph import layer_bits  # noqa: E402
from refquant.interop import from_torch  # noqa: E402

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]
ENGINES = ("fbgemm", "onednn", "x86", "qnnpack")


def here(backend):
    return backend if backend == "qnnpack" else profile_here(backend)


def quantize(module, backend, x, mapping=None):
    """Return a module that PyTorch itself quantized."""
    with engine(backend), torch.no_grad():
        prepared = prepare_fx(module.eval(), mapping or get_default_qconfig_mapping(backend), (x,))
        prepared(x)
        return convert_fx(prepared)


def assert_same(converted, backend, x):
    """Require equal parameters and codes of every value on codes; return the model."""
    with engine(backend):
        model = from_torch(converted, (x,))
    theirs = run_bits(converted, backend, x.numpy())
    ours = {row.name: row for row in layer_bits(model, x.numpy(), numerics=here(backend))}
    for row in theirs:
        mine = ours[row.name]
        assert (mine.scale, mine.zero_point) == (row.scale, row.zero_point), row.name
        assert np.array_equal(mine.codes, row.codes), f"{row.name}: {np.count_nonzero(mine.codes != row.codes)} of {row.codes.size} differ"
    assert len(theirs) >= 3 and model.numerics == backend
    return model


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", zoo.names())
def test_a_trained_network(name, backend):
    x = torch.from_numpy(load_split(name, "calibration")[0][:40])
    converted = quantize(architectures_torch.load(name), backend, x)
    model = assert_same(converted, backend, x)
    assert np.array_equal(model.run(x.numpy(), numerics=here(backend))[0], run_in_torch(converted, backend, x))


def run_in_torch(converted, backend, x):
    with engine(backend), torch.no_grad():
        return converted(x).numpy()


class Everything(nn.Module):
    """Layers as modules and functions, residuals, joints, products with values and with numbers, what moves codes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, stride=(2, 1))
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.gate = nn.Conv2d(8, 8, 1)
        self.act, self.leaky, self.elu, self.sig = nn.Hardswish(), nn.LeakyReLU(0.2), nn.ELU(0.7), nn.Sigmoid()
        self.pool, self.mean, self.drop = nn.MaxPool2d(2, ceil_mode=True), nn.AdaptiveAvgPool2d(1), nn.Dropout()
        self.norm = nn.BatchNorm2d(8)
        self.fc1, self.fc2 = nn.Linear(16, 12), nn.Linear(12, 5, bias=False)
        self.w = nn.Parameter(torch.randn(8, 8, 3, 3) * 0.1)
        self.b = nn.Parameter(torch.randn(8))

    def forward(self, x):
        x = self.first(x)
        a = self.depthwise(x)
        y = F.relu(x + a)
        y = y * torch.sigmoid(self.gate(y))
        y = self.norm(self.act(y) + self.leaky(y))
        y = F.relu(F.conv2d(y, self.w, self.b, [1, 1], [1, 1], [1, 1], 1))
        z = F.hardswish(self.elu(y)) * 0.5 + 3
        y = torch.cat([self.pool(y), self.pool(z)], 1).transpose(2, 3).contiguous()
        y = self.drop(torch.flatten(self.mean(F.relu6(y)), 1))
        return self.fc2(F.relu(self.fc1(y)))


def randomly(module, seed):
    torch.manual_seed(seed)
    module = module()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5), layer.running_var.uniform_(0.5, 2)
    return module.eval()


@pytest.mark.parametrize("backend", ENGINES)
def test_every_kind_of_layer(backend):
    module, x = randomly(Everything, 1), torch.randn(20, 3, 12, 10)
    assert_same(quantize(module, backend, x), backend, x)


class Sequences(nn.Module):
    """Convolutions over one axis, rows of more axes."""

    def __init__(self):
        super().__init__()
        self.c, self.fc = nn.Conv1d(4, 6, 3, padding=1), nn.Linear(6, 7)

    def forward(self, x):
        return self.fc(F.relu(self.c(x)).transpose(1, 2))


class Volumes(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv3d(2, 4, 3, padding=1), nn.Conv3d(4, 4, 1)

    def forward(self, x):
        return F.relu(self.b(F.relu(self.a(x))))


class Transposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.ConvTranspose2d(4, 6, 2, stride=2), nn.Conv2d(6, 3, 3)

    def forward(self, x):
        return F.relu(self.b(self.a(x)))


CASES = [(Sequences, b) for b in ENGINES] + [(Volumes, b) for b in ("fbgemm", "onednn", "x86")] + [(Transposed, "qnnpack"), (Transposed, "fbgemm")]


@pytest.mark.parametrize("module, backend", CASES, ids=lambda v: getattr(v, "__name__", v))
def test_other_numbers_of_axes(module, backend):
    x = torch.randn(20, *{Sequences: (4, 16), Volumes: (2, 3, 5, 4), Transposed: (4, 5, 5)}[module])
    module = randomly(module, 2)
    assert_same(quantize(module, backend, x), backend, x)


def test_fused_sums_of_onednn():
    from torch.ao.quantization.backend_config import get_onednn_backend_config

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x):
            y = F.relu(self.a(x) + self.b(x))
            return self.c(y) + y

    module, x = randomly(Sum, 3), torch.randn(20, 3, 8, 8)
    with engine("onednn"), torch.no_grad():
        config = get_onednn_backend_config()
        prepared = prepare_fx(module, get_default_qconfig_mapping("onednn"), (x,), backend_config=config)
        prepared(x)
        converted = convert_fx(prepared, backend_config=config)
    assert any("ConvAdd" in type(layer).__name__ for layer in converted.modules())
    assert_same(converted, "onednn", x)


def test_what_is_missing_is_named():
    module, x = nn.Sequential(nn.Linear(4, 4)).eval(), torch.randn(2, 4)
    from torch.ao.quantization import QConfigMapping, default_dynamic_qconfig

    converted = quantize(module, "fbgemm", x, QConfigMapping().set_global(default_dynamic_qconfig))
    with pytest.raises(UnsupportedError, match="dynamic"):
        from_torch(converted, (x,))


def test_a_planted_fault_is_seen():
    x = torch.from_numpy(load_split("digits_resnet", "calibration")[0][:40])
    converted = quantize(architectures_torch.load("digits_resnet"), "fbgemm", x)
    converted.stem.conv.scale = converted.stem.conv.scale * 1.01
    with engine("fbgemm"):
        model = from_torch(converted, (x,))
    converted.stem.conv.scale = converted.stem.conv.scale / 1.01
    assert not np.array_equal(model.run(x.numpy(), numerics=here("fbgemm"))[0], run_in_torch(converted, "fbgemm", x))
