"""Random networks as PyTorch modules: branches, shared values, every spelling of a layer. Imports torch when imported."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

__all__ = ["RandomNetwork", "PLAIN", "WIDE"]

PLAIN = ("conv", "conv", "conv", "depthwise", "add", "cat", "pool", "relu", "other")
"""Kinds of steps of a classifier of images."""
WIDE = (
    "conv", "conv", "depthwise", "grouped", "function", "transposed", "again", "excite", "add", "add", "mul", "number", "cat", "pool", "relu", "curve", "curve", "norm",
    "move", "other", "block",
)  # fmt: skip
"""Kinds of steps that use most of what PyTorch can quantize."""

_SIDE = 8


class RandomNetwork(nn.Module):
    """A random program over images of 8 × 8.

    Parameters
    ----------
    seed : int
    steps : int
    kinds : tuple of str
        `PLAIN` or `WIDE`.
    without : collection of str
        Layers that are left out, such as ``"relu6"``.
    """

    def __init__(self, seed, steps=9, kinds=PLAIN, without=()):
        super().__init__()
        self.rng, self.kinds, self.without = np.random.default_rng(seed), tuple(k for k in kinds if k not in without), set(without)
        torch.manual_seed(seed)
        self.program, self.layers, self.weights = [], nn.ModuleDict(), nn.ParameterDict()
        self.channels = [int(self.rng.choice([1, 3, 8]))]
        self.in_channels = self.channels[0]
        for _ in range(steps):
            self._add_step(str(self.rng.choice(self.kinds)))
        self._add_head()
        self._draw_statistics()
        self.eval()

    def _draw_statistics(self):
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.3, 2)
            if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)) or isinstance(module, nn.InstanceNorm2d) and module.affine:
                nn.init.uniform_(module.weight, 0.3, 2)
                nn.init.normal_(module.bias, 0, 0.3)

    def _any(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def _pick(self, allowed=lambda c: True):
        places = [i for i, c in enumerate(self.channels) if allowed(c)]
        recent = [i for i in places if i >= len(self.channels) - 3]
        return int(self.rng.choice(recent or places)) if places else None

    def _layer(self, module):
        name = f"m{len(self.layers)}"
        self.layers[name] = module
        return name

    def _weight(self, *shape):
        name = f"w{len(self.weights)}"
        self.weights[name] = nn.Parameter(torch.randn(*shape) * (2 / max(1, np.prod(shape[1:]))) ** 0.5)
        return name

    def _add_step(self, kind):
        a = self._pick()
        c = self.channels[a]
        relu = str(self.rng.choice(["none", "module", "F", "torch", "method"], p=[0.3, 0.4, 0.2, 0.05, 0.05]))
        step = {"kind": kind, "a": a, "relu": relu}
        if relu == "module":
            step["relu_layer"] = self._layer(nn.ReLU())
        self.channels.append(getattr(self, f"_{kind}")(step, c))
        self.program.append(step)

    def _conv(self, step, c, kernel=None, out=None, groups=1):
        out = out or int(self.rng.choice([8, 12, 16, 24]))
        kernel = kernel or int(self.rng.choice([1, 3]))
        bias, norm = bool(self.rng.random() < 0.5), bool(self.rng.random() < 0.6)
        step["layer"] = self._layer(nn.Conv2d(c, out, kernel, padding=kernel // 2, groups=groups, bias=bias or not norm))
        step["norm"] = self._layer(nn.BatchNorm2d(out)) if norm else None
        return out

    def _depthwise(self, step, c):
        return self._conv(step, c, 3, c, c)

    def _grouped(self, step, c):
        return self._conv(step, c, 3, 2 * c if c % 2 else c, 1 if c % 2 else 2)

    def _function(self, step, c):
        out = int(self.rng.choice([8, 16]))
        step["weight"], step["bias"] = self._weight(out, c, 3, 3), self._any(None, self._weight(out))
        return out

    def _transposed(self, step, c):
        out = int(self.rng.choice([8, 12]))
        step["layer"] = self._layer(nn.ConvTranspose2d(c, out, 3, padding=1))
        step["norm"] = self._layer(nn.BatchNorm2d(out)) if self.rng.random() < 0.4 else None
        return out

    def _again(self, step, c):
        """The same module twice."""
        step["layer"] = self._layer(nn.Conv2d(c, c, 3, padding=1))
        return c

    def _excite(self, step, c):
        step["down"], step["up"] = self._layer(nn.Conv2d(c, 4, 1)), self._layer(nn.Conv2d(4, c, 1))
        step["gate"] = self._layer(self._any(nn.Sigmoid(), nn.Hardsigmoid()))
        return c

    def _add(self, step, c):
        step["b"] = self._pick(lambda other: other == c)
        step["torch"] = bool(self.rng.random() < 0.3)
        return c

    def _mul(self, step, c):
        return self._add(step, c)

    def _number(self, step, c):
        step["number"], step["sum"] = float(self._any(0.5, 2.0, -1.5, 0.3, 3.0)), bool(self.rng.random() < 0.5)
        return c

    def _cat(self, step, c):
        step["others"] = [self._pick() for _ in range(int(self.rng.integers(1, 3)))]
        return c + sum(self.channels[i] for i in step["others"])

    def _pool(self, step, c):
        pool = self._any(nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False), None)
        step["layer"] = None if pool is None else self._layer(pool)
        return c

    def _relu(self, step, c):
        return c

    def _curve(self, step, c):
        modules = nn.Hardswish(), nn.Hardsigmoid(), nn.Sigmoid(), nn.Tanh(), nn.LeakyReLU(0.1), nn.ELU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.75), nn.PReLU(c)
        functions = "hardswish", "hardsigmoid", "leaky_relu", "relu6", "hardtanh", "sigmoid", "tanh", "elu"
        if self.rng.random() < 0.6:
            step["layer"] = self._layer(self._any(*(m for m in modules if type(m).__name__.lower() not in self.without)))
        else:
            step["function"] = self._any(*(f for f in functions if f not in self.without))
        return c

    def _norm(self, step, c):
        step["layer"] = self._layer(self._any(nn.BatchNorm2d(c), nn.InstanceNorm2d(c, affine=True), nn.LayerNorm(_SIDE)))
        return c

    def _move(self, step, c):
        step["move"] = self._any("permute", "transpose", "reshape", "view", "flatten", "shuffle", "squeeze", "resize", "contiguous")
        return c

    def _other(self, step, c):
        step["layer"] = self._layer(self._any(nn.Identity(), nn.Dropout()))
        return c

    def _block(self, step, c):
        """A module of modules, some of them inside another."""
        inner = nn.Sequential(nn.Conv2d(c, c, 1), nn.ReLU()) if self.rng.random() < 0.5 else nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c))
        step["layer"] = self._layer(nn.Sequential(inner, self._any(nn.ReLU(), nn.Identity(), nn.Hardswish())))
        return c

    def _add_head(self):
        c, out = self.channels[-1], int(self.rng.choice([12, 16]))
        self.head = nn.Linear(c, out)
        self.flatten_module = bool(self.rng.random() < 0.2)
        self.flat = nn.Flatten()
        self.both = bool(self.rng.random() < 0.2)
        self.tail = None
        if "curve" in self.kinds:
            self.tail = self._any(None, "function", "norm", "tanh", "leaky")
            self.fc = nn.Linear(out, 10)
            self.fc_norm = nn.BatchNorm1d(10)
            self.tail_weight = nn.Parameter(torch.randn(10, out) * 0.3)

    # Running it.

    def run_step(self, step, values):
        """Return the value of a step."""
        x = getattr(self, f"_run_{step['kind']}", self._run_layer)(step, values[step["a"]], values)
        relu = {"none": lambda v: v, "F": functional.relu, "torch": torch.relu, "method": lambda v: v.relu()}
        return self.layers[step["relu_layer"]](x) if step["relu"] == "module" else relu[step["relu"]](x)

    def _run_layer(self, step, x, values):
        x = self.layers[step["layer"]](x)
        return self.layers[step["norm"]](x) if step.get("norm") else x

    def _run_again(self, step, x, values):
        return self.layers[step["layer"]](functional.max_pool2d(self.layers[step["layer"]](x), 3, stride=1, padding=1))

    def _run_function(self, step, x, values):
        bias = None if step["bias"] is None else self.weights[step["bias"]]
        return functional.conv2d(x, self.weights[step["weight"]], bias, (1, 1), (1, 1), (1, 1), 1)  # PyTorch cannot convert defaults, nor one number for both sides

    def _run_excite(self, step, x, values):
        y = functional.relu(self.layers[step["down"]](functional.adaptive_avg_pool2d(x, 1)))
        return x * self.layers[step["gate"]](self.layers[step["up"]](y))

    def _run_add(self, step, x, values):
        return torch.add(x, values[step["b"]]) if step["torch"] else x + values[step["b"]]

    def _run_mul(self, step, x, values):
        return torch.mul(x, values[step["b"]]) if step["torch"] else x * values[step["b"]]

    def _run_number(self, step, x, values):
        return x + step["number"] if step["sum"] else x * step["number"]

    def _run_cat(self, step, x, values):
        return torch.cat([x, *(values[i] for i in step["others"])], 1)

    def _run_pool(self, step, x, values):
        return functional.max_pool2d(x, 3, stride=1, padding=1) if step["layer"] is None else self.layers[step["layer"]](x)

    def _run_relu(self, step, x, values):
        return x

    def _run_curve(self, step, x, values):
        if "layer" in step:
            return self.layers[step["layer"]](x)
        return getattr(torch if step["function"] in ("sigmoid", "tanh") else functional, step["function"])(x)

    def _run_move(self, step, x, values):
        c = self.channels[step["a"]]
        moves = {
            "permute": lambda v: v.permute(0, 1, 3, 2),
            "transpose": lambda v: v.transpose(2, 3),
            "reshape": lambda v: v.reshape(-1, c, _SIDE // 2, 2 * _SIDE).reshape(-1, c, _SIDE, _SIDE),
            "view": lambda v: v.contiguous().view(-1, c, _SIDE * _SIDE).view(-1, c, _SIDE, _SIDE),
            "flatten": lambda v: torch.flatten(v, 2).reshape(-1, c, _SIDE, _SIDE),
            "shuffle": lambda v: functional.channel_shuffle(v, 2) if c % 2 == 0 else v,
            "squeeze": lambda v: v.unsqueeze(2).squeeze(2),
            "resize": lambda v: functional.max_pool2d(functional.interpolate(v, scale_factor=2.0), 2),
            "contiguous": lambda v: v.contiguous(),
        }
        return moves[step["move"]](x)

    def forward(self, x):
        """The program, then a global pool and a linear layer."""
        values = [x]
        for step in self.program:
            values.append(self.run_step(step, values))
        y = functional.adaptive_avg_pool2d(values[-1], 1)
        y = self.flat(y) if self.flatten_module else torch.flatten(y, 1)
        y = self.head(y)
        if self.tail is not None:
            y = self._run_tail(y)
        return (y, values[len(values) // 2]) if self.both else y

    def _run_tail(self, y):
        if self.tail == "function":
            return functional.relu(functional.linear(y, self.tail_weight))
        if self.tail == "norm":
            return functional.relu(self.fc_norm(self.fc(functional.dropout(y, 0.3, self.training))))
        return torch.tanh(self.fc(y)) if self.tail == "tanh" else functional.leaky_relu(self.fc(y))
