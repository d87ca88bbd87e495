"""Random networks of everything that PyTorch's FX workflow meets: shared modules, parts, methods in place, products, norms. Imports torch when imported."""

import operator

import torch
from torch import nn
from torch.nn import functional

from refquant.backends.torch_networks import WIDE, RandomNetwork

__all__ = ["MixedNetwork", "MIXED"]

MIXED = (
    *WIDE, "parts", "slice", "place", "twice", "turned", "clamp", "average", "constant", "last_axis", "channels_last", "shared", "matmul", "stack", "window", "line", "volume",
    "residual", "keep", "smooth", "repeat",
)  # fmt: skip
"""Kinds of steps."""

_SIDE = 8


class MixedNetwork(RandomNetwork):
    """A random program as `RandomNetwork`, of more kinds of steps."""

    def __init__(self, seed, steps=9, kinds=MIXED, without=()):
        super().__init__(seed, steps, kinds, without)

    def _convolution(self, c, out):
        """A convolution without a choice of its own, which a later step may use again."""
        kernel = int(self.rng.choice([1, 3]))
        return self._layer(nn.Conv2d(c, out, kernel, padding=kernel // 2))

    def _parts(self, step, c):
        step["even"] = c % 2 == 0
        step["how"] = self._any("chunk", "split", "sizes")
        step["then"] = self._any("swap", "sum", "first")
        return c if step["then"] == "swap" or not step["even"] else c // 2

    def _run_parts(self, step, x, values):
        c = self.channels[step["a"]]
        if not step["even"]:
            return x
        ways = {"chunk": lambda: x.chunk(2, 1), "split": lambda: torch.split(x, c // 2, 1), "sizes": lambda: torch.split(x, [c // 2, c // 2], dim=1)}
        y = ways[step["how"]]()
        return torch.cat([y[1], y[0]], 1) if step["then"] == "swap" else y[0] + y[1] if step["then"] == "sum" else y[0]

    def _slice(self, step, c):
        step["start"], step["stop"] = (0, c) if c == 1 else self._any((1, c), (0, c - 1), (0, c // 2))
        return step["stop"] - step["start"]

    def _run_slice(self, step, x, values):
        return x[:, step["start"] : step["stop"]]

    def _place(self, step, c):
        """Operations in place, on a value that nothing else reads."""
        step["layer"], step["b"] = self._convolution(c, c), self._pick(lambda other: other == c)
        step["how"] = self._any("add_", "mul_", "iadd", "imul", "relu_", "number")
        return c

    def _run_place(self, step, x, values):
        y, other = self.layers[step["layer"]](x), values[step["b"]]
        ways = {
            "add_": lambda: y.add_(other), "mul_": lambda: y.mul_(other), "iadd": lambda: operator.iadd(y, other), "imul": lambda: operator.imul(y, other),
            "relu_": lambda: y.relu_(), "number": lambda: operator.iadd(y, 0.75),
        }  # fmt: skip
        return ways[step["how"]]()

    def _twice(self, step, c):
        step["how"] = self._any("sum", "product", "cat", "torch")
        return 2 * c if step["how"] == "cat" else c

    def _run_twice(self, step, x, values):
        ways = {"sum": lambda: x + x, "product": lambda: x * x, "cat": lambda: torch.cat([x, x], 1), "torch": lambda: torch.add(x, x)}
        return ways[step["how"]]()

    def _turned(self, step, c):
        step["how"] = self._any("sub", "div", "left", "add method", "mul method")
        step["number"] = float(self._any(0.5, 2.0, -1.5, 0.3))
        return c

    def _run_turned(self, step, x, values):
        n = step["number"]
        ways = {"sub": lambda: x - n, "div": lambda: x / 4, "left": lambda: n * x, "add method": lambda: x.add(n), "mul method": lambda: x.mul(n)}
        return ways[step["how"]]()

    def _clamp(self, step, c):
        step["how"] = self._any("torch", "method", "half", "hardtanh")
        return c

    def _run_clamp(self, step, x, values):
        ways = {
            "torch": lambda: torch.clamp(x, -0.7, 0.9), "method": lambda: x.clamp(-0.3, 2), "half": lambda: x.clamp(min=-0.4, max=3.0),
            "hardtanh": lambda: functional.hardtanh(x, -0.8, 0.6),
        }  # fmt: skip
        return ways[step["how"]]()

    def _average(self, step, c):
        step["how"] = self._any("method", "torch", "pool", "functional")
        step["layer"] = self._layer(nn.AdaptiveAvgPool2d(1))
        return c

    def _run_average(self, step, x, values):
        ways = {
            "method": lambda: x.mean((2, 3), keepdim=True), "torch": lambda: torch.mean(x, [2, 3], True), "pool": lambda: self.layers[step["layer"]](x),
            "functional": lambda: functional.adaptive_avg_pool2d(x, (1, 1)),
        }  # fmt: skip
        return x * ways[step["how"]]()

    def _constant(self, step, c):
        step["weight"], step["left"] = self._weight(1, c, 1, 1), bool(self.rng.random() < 0.5)
        return c

    def _run_constant(self, step, x, values):
        w = self.weights[step["weight"]]
        return w * x if step["left"] else x * w

    def _last_axis(self, step, c):
        step["layer"] = self._layer(self._any(nn.Linear(_SIDE, _SIDE), nn.Linear(_SIDE, _SIDE, bias=False)))
        return c

    def _channels_last(self, step, c):
        out = int(self.rng.choice([8, 12]))
        step["layer"], step["moved"] = self._layer(nn.Linear(c, out)), self._any("permute", "torch", "transpose")
        return out

    def _run_channels_last(self, step, x, values):
        layer = self.layers[step["layer"]]
        if step["moved"] == "transpose":
            return layer(x.transpose(1, 3)).transpose(1, 3)
        return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if step["moved"] == "permute" else torch.permute(layer(torch.permute(x, (0, 2, 3, 1))), (0, 3, 1, 2))

    def _shared(self, step, c):
        """A convolution that an earlier step has used, if there is one that fits."""
        fits = [name for name, m in self.layers.items() if isinstance(m, nn.Conv2d) and m.in_channels == c and m.groups == 1]
        step["layer"] = str(self.rng.choice(fits)) if fits else self._convolution(c, 8)
        return self.layers[step["layer"]].out_channels

    def _matmul(self, step, c):
        step["b"], step["how"] = self._pick(lambda other: other == c), self._any("torch", "operator", "method")
        step["moved"] = bool(self.rng.random() < 0.5)
        return c

    def _run_matmul(self, step, x, values):
        y = values[step["b"]]
        y = y.transpose(2, 3) if step["moved"] else y
        return torch.matmul(x, y) if step["how"] == "torch" else x @ y if step["how"] == "operator" else x.matmul(y)

    def _stack(self, step, c):
        step["b"] = self._pick(lambda other: other == c)
        return 2 * c

    def _run_stack(self, step, x, values):
        return torch.stack([x, values[step["b"]]], 1).reshape(-1, 2 * self.channels[step["a"]], _SIDE, _SIDE)

    def _window(self, step, c):
        step["layer"] = self._layer(self._any(nn.MaxPool2d(2, 1, 1, dilation=2), nn.AvgPool2d(2, 1, ceil_mode=True), nn.AdaptiveAvgPool2d(4), nn.MaxPool2d(2), nn.AvgPool2d(2, divisor_override=3)))
        return c

    def _run_window(self, step, x, values):
        return functional.interpolate(self.layers[step["layer"]](x), (_SIDE, _SIDE))

    def _line(self, step, c):
        step["layer"] = self._layer(nn.Conv1d(c, c, 3, padding=1))
        step["norm"] = self._layer(nn.BatchNorm1d(c)) if self.rng.random() < 0.5 else None
        return c

    def _run_line(self, step, x, values):
        y = self.layers[step["layer"]](x.flatten(2))
        y = self.layers[step["norm"]](y) if step["norm"] else y
        return functional.relu(y).view(-1, self.channels[step["a"]], _SIDE, _SIDE)

    def _volume(self, step, c):
        step["layer"] = self._layer(nn.Conv3d(c, 8, (1, 3, 3), padding=(0, 1, 1)))
        return 8

    def _run_volume(self, step, x, values):
        return self.layers[step["layer"]](x.unsqueeze(2)).squeeze(2)

    def _residual(self, step, c):
        step["layer"], step["other"] = self._convolution(c, c), self._any(None, self._convolution(c, c))
        step["how"] = self._any("operator", "torch", "place")
        return c

    def _run_residual(self, step, x, values):
        y, z = self.layers[step["layer"]](x), self.layers[step["other"]](x) if step["other"] else x
        return y + z if step["how"] == "operator" else torch.add(z, y) if step["how"] == "torch" else operator.iadd(y, z)

    def _keep(self, step, c):
        step["how"] = self._any("dropout", "detach", "contiguous", "size")
        return c

    def _run_keep(self, step, x, values):
        ways = {
            "dropout": lambda: functional.dropout(x, 0.2, self.training), "detach": lambda: x.detach(), "contiguous": lambda: x.contiguous(),
            "size": lambda: x.reshape(x.size(0), -1).reshape(x.size(0), x.shape[1], _SIDE, _SIDE),
        }  # fmt: skip
        return ways[step["how"]]()

    def _smooth(self, step, c):
        step["layer"] = self._layer(self._any(nn.SiLU(), nn.GELU(), nn.Softmax(1), nn.GroupNorm(1, c), nn.ELU(0.5)))
        return c

    def _repeat(self, step, c):
        step["how"] = self._any("repeat", "interleave", "shuffle")
        return 2 * c if step["how"] != "shuffle" else 4 * c

    def _run_repeat(self, step, x, values):
        if step["how"] == "shuffle":
            return functional.interpolate(functional.pixel_unshuffle(x, 2), scale_factor=2.0)
        return x.repeat(1, 2, 1, 1) if step["how"] == "repeat" else torch.repeat_interleave(x, 2, dim=1)
