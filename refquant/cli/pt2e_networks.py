"""Networks for `refquant pt2e`: the bundled ones, published ones at an eighth of their width, and random ones."""

from typing import Callable, NamedTuple

import numpy as np

from refquant import zoo
from refquant.graph import Builder

__all__ = ["PT2ENetwork", "networks", "random_model"]

_PUBLISHED = (
    "alexnet", "vgg11_bn", "resnet18", "resnet50", "resnext50_32x4d", "squeezenet1_1", "densenet121", "googlenet", "mobilenet_v2", "mobilenet_v3_small",
    "mnasnet0_5", "shufflenet_v2_x0_5", "efficientnet_b0", "regnet_x_400mf", "regnet_y_400mf",
)  # fmt: skip
_DEEP = ("densenet121", "efficientnet_b0", "regnet_x_400mf", "regnet_y_400mf", "resnet50", "resnext50_32x4d")
_BATCH = 4


class PT2ENetwork(NamedTuple):
    """A network and the shape of its batches.

    Attributes
    ----------
    name : str
    build : callable
        Returns ``(model, batches)``.
    """

    name: str
    build: Callable


def networks(count, seed):
    """Return `count` networks: bundled and published ones first, then random ones.

    Parameters
    ----------
    count, seed : int

    Examples
    --------
    >>> [n.name for n in networks(20, 5)][::9]
    ['digits_resnet', 'densenet121', 'random-5']
    """
    fixed = [PT2ENetwork(name, lambda name=name: _bundled(name)) for name in zoo.names()]
    fixed += [PT2ENetwork(name, lambda name=name: _published(name, seed)) for name in _PUBLISHED]
    drawn = [PT2ENetwork(f"random-{s}", lambda s=s: _random(s)) for s in range(seed, seed + max(0, count - len(fixed)))]
    return (fixed + drawn)[:count]


def _batches(shape, seed):
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal(shape) * (1 + i)).astype(np.float32) for i in range(2)]


def _bundled(name):
    from refquant.data import load_split

    x, _ = load_split(name.partition("_")[0], "calibration")
    return zoo.load(name), [x[:16], x[16:32]]


def _published(name, seed):
    model = zoo.build(name, seed=seed, size=32 if name in _DEEP else 64, width=0.125)
    return model, _batches((_BATCH, *model.node("x").attrs["shape"][1:]), seed)


def _random(seed):
    model = random_model(seed)
    return model, _batches((_BATCH, *model.node("x").attrs["shape"][1:]), seed)


def random_model(seed, steps=8):
    """Return a random network over images of 8 × 8: convolutions with every function behind them, sums, products, concatenations, pools, a head of linear layers.

    Parameters
    ----------
    seed : int
    steps : int

    Examples
    --------
    >>> random_model(3).shapes()["x"]
    (None, 8, 8, 8)
    """
    rng = np.random.default_rng(seed)
    builder = Builder(seed=seed, name=f"random-{seed}")
    values = [builder.input("x", (None, int(rng.choice([1, 3, 8])), 8, 8))]
    for _ in range(steps):
        values.append(_step(rng, values))
    last = values[-1]
    y = last.adaptive_avg_pool2d(1).flatten(1) if rng.random() < 0.7 else last.max_pool2d(2).flatten(1)
    for width in rng.choice([8, 12], int(rng.integers(0, 3))):
        z = y.linear(int(width))
        z = [lambda v: v, lambda v: v.relu(), lambda v: v.gelu(), lambda v: v.leaky_relu(0.1)][rng.integers(4)](z)
        y = z + y if z.shape == y.shape and rng.random() < 0.7 else z
    return builder.build(y.linear(5))


def _step(rng, values):
    recent = values[-3:]
    x = recent[rng.integers(len(recent))]
    kind = rng.choice(["conv", "conv", "conv", "depthwise", "sum", "sum of convolutions", "product", "cat", "pool"])
    same = [v for v in values if v.shape == x.shape]
    if kind == "conv":
        return _function(rng, _conv(rng, x, int(rng.choice([8, 12, 16])), 1))
    if kind == "depthwise" and x.channels > 1:
        return _function(rng, _conv(rng, x, x.channels, x.channels))
    if kind == "sum of convolutions":
        y = _conv(rng, x, x.channels, 1) + same[rng.integers(len(same))]
        return y.relu() if rng.random() < 0.6 else y
    if kind in ("sum", "product"):
        other = same[rng.integers(len(same))]
        y = x + other if kind == "sum" else x * other.sigmoid()
        return y.relu() if rng.random() < 0.5 else y
    if kind == "cat" and x.channels < 40:
        return x.cat(values[rng.integers(len(values))])
    return x.max_pool2d(3, 1, 1) if rng.random() < 0.5 else x.avg_pool2d(3, 1, 1)


def _conv(rng, x, channels, groups):
    kernel = int(rng.choice([1, 3])) if groups == 1 else 3
    y = x.conv2d(channels, kernel, padding=kernel // 2, groups=groups)
    return y.batch_norm() if rng.random() < 0.4 else y


def _function(rng, y):
    functions = [lambda v: v, lambda v: v.relu(), lambda v: v.relu6(), lambda v: v.hardtanh(-0.5, 1.5), lambda v: v.hardswish(), lambda v: v.silu()]
    return functions[rng.integers(len(functions))](y)
