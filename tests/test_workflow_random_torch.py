"""Random small networks through PyTorch's FX workflow and through refquant's: same observers, same parameters, same codes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from refquant import interop  # noqa: E402
from refquant.backends import torch_fx  # noqa: E402
from refquant.backends.machine import has_vnni  # noqa: E402
from refquant.workflow import convert_fx, get_default_qconfig_mapping, layer_bits, prepare_fx  # noqa: E402

# The profiles of oneDNN describe a CPU with AVX512-VNNI.
BACKENDS = ("fbgemm", "onednn", "x86", "qnnpack") if has_vnni() else ("fbgemm", "qnnpack")


class RandomNet(nn.Module):
    """A random program over images of 8 x 8: branches, sums, concatenations, pools, ReLUs of every spelling, shared values."""

    def __init__(self, seed, steps=9):
        super().__init__()
        self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.program, self.layers = [], nn.ModuleDict()
        channels = [int(self.rng.choice([1, 3, 8]))]
        self.in_channels = channels[0]
        for _ in range(steps):
            self.add_step(channels)
        self.head = nn.Linear(channels[-1], int(self.rng.choice([12, 16])))
        self.flatten_module = bool(self.rng.random() < 0.2)
        self.flat = nn.Flatten()
        self.both = bool(self.rng.random() < 0.2)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.3, 2)
                nn.init.uniform_(module.weight, 0.3, 2)
                nn.init.normal_(module.bias, 0, 0.3)
        self.eval()

    def pick(self, channels, allowed=lambda c: True):
        places = [i for i, c in enumerate(channels) if allowed(c)]
        recent = [i for i in places if i >= len(channels) - 3]
        return int(self.rng.choice(recent or places)) if places else None

    def layer(self, module):
        name = f"m{len(self.layers)}"
        self.layers[name] = module
        return name

    def add_step(self, channels):
        kind = str(self.rng.choice(["conv", "conv", "conv", "depthwise", "add", "cat", "pool", "relu", "other"]))
        a = self.pick(channels)
        c = channels[a]
        relu = str(self.rng.choice(["none", "module", "F", "torch", "method"], p=[0.3, 0.4, 0.2, 0.05, 0.05]))
        step = {"kind": kind, "a": a, "relu": relu}
        if relu == "module":
            step["relu_layer"] = self.layer(nn.ReLU())
        if kind in ("conv", "depthwise"):
            out = c if kind == "depthwise" else int(self.rng.choice([8, 12, 16, 24]))
            kernel = 3 if kind == "depthwise" else int(self.rng.choice([1, 3]))
            bias, norm = bool(self.rng.random() < 0.5), bool(self.rng.random() < 0.6)
            step["layer"] = self.layer(nn.Conv2d(c, out, kernel, padding=kernel // 2, groups=c if kind == "depthwise" else 1, bias=bias or not norm))
            step["norm"] = self.layer(nn.BatchNorm2d(out)) if norm else None
            c = out
        elif kind == "add":
            step["b"] = self.pick(channels, lambda other: other == c)
            step["torch_add"] = bool(self.rng.random() < 0.3)
        elif kind == "cat":
            step["others"] = [self.pick(channels) for _ in range(int(self.rng.integers(1, 3)))]
            c += sum(channels[i] for i in step["others"])
        elif kind == "pool":
            pools = [nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False), None]
            pool = pools[self.rng.integers(len(pools))]
            step["layer"] = None if pool is None else self.layer(pool)
        elif kind == "other":
            step["layer"] = self.layer([nn.Identity(), nn.Dropout()][self.rng.integers(2)])
        self.program.append(step)
        channels.append(c)

    def run_step(self, step, values):
        x, kind = values[step["a"]], step["kind"]
        if kind in ("conv", "depthwise", "other"):
            x = self.layers[step["layer"]](x)
            if step.get("norm"):
                x = self.layers[step["norm"]](x)
        elif kind == "add":
            x = torch.add(x, values[step["b"]]) if step["torch_add"] else x + values[step["b"]]
        elif kind == "cat":
            x = torch.cat([x, *(values[i] for i in step["others"])], 1)
        elif kind == "pool":
            x = F.max_pool2d(x, 3, stride=1, padding=1) if step["layer"] is None else self.layers[step["layer"]](x)
        relu = {"none": lambda v: v, "F": F.relu, "torch": torch.relu, "method": lambda v: v.relu()}
        return self.layers[step["relu_layer"]](x) if step["relu"] == "module" else relu[step["relu"]](x)

    def forward(self, x):
        values = [x]
        for step in self.program:
            values.append(self.run_step(step, values))
        y = F.adaptive_avg_pool2d(values[-1], 1)
        y = self.flat(y) if self.flatten_module else torch.flatten(y, 1)
        y = self.head(y)
        return (y, values[len(values) // 2]) if self.both else y


def check(seed, backend, order=None):
    """Quantize a random network on both sides and return (quantized values, outputs compared)."""
    order = order or torch_fx.real_order()
    module = RandomNet(seed)
    rng = np.random.default_rng(1000 + seed)
    batches = [rng.standard_normal((20, module.in_channels, 8, 8)).astype(np.float32) * (1 + i) for i in range(2)]
    model = interop.from_torch(module, (torch.from_numpy(batches[0]),))
    prepared = prepare_fx(model, get_default_qconfig_mapping(backend), (batches[0],))
    for batch in batches:
        prepared(batch, real=order)
    theirs = torch_fx.prepared_module(module, backend, batches, order=order)
    assert prepared.placement == torch_fx.placement(theirs), f"seed {seed}: observers sit elsewhere"
    bits = torch_fx.run_bits(torch_fx.quantized_module(theirs, backend), backend, batches[1], order=order)
    rows = torch_fx.compare_layers(layer_bits(convert_fx(prepared), batches[1], real=order), bits)
    wrong = [row for row in rows if not row.exact]
    assert not wrong, f"seed {seed}, {backend}: {wrong[0].name} {wrong[0].scales} {wrong[0].zero_points} {wrong[0].codes}"
    return len(rows), sum(row.codes.outputs for row in rows)


@pytest.mark.parametrize("seed", range(16))
def test_random_networks_agree_with_torch(seed):
    values, outputs = check(seed, BACKENDS[seed % len(BACKENDS)])
    assert values > 3 and outputs > 10_000


@pytest.mark.parametrize("seed", range(4))
def test_random_networks_agree_with_torch_in_float64(seed):
    """The order of summation that holds on every CPU."""
    check(seed, "fbgemm", order="float64")
