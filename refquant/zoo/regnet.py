"""RegNetX and RegNetY (Radosavovic et al., 2020), with torchvision's names."""

from itertools import groupby
from math import log

from refquant.zoo.widths import nearest

__all__ = ["regnet"]


def _stages(depth, first, slope, factor, group):
    """Return (channels, blocks) a stage: widths on a line, moved to the nearest powers of `factor`, then to multiples of 8 and of a group."""
    widths = []
    for i in range(depth):
        power = round(log((first + slope * i) / first) / log(factor))
        widths.append(round(first * factor**power / 8) * 8)
    return [(nearest(width, min(group, width)), len(list(same))) for width, same in groupby(widths)]


def _conv(x, scope, channels, kernel, stride=1, groups=1, relu=True):
    with x.builder.scope(scope):
        y = x.conv2d(channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False, name="0").batch_norm(name="1")
        return y.relu(name="2") if relu else y


def _gated(x, squeeze):
    with x.builder.scope("se"):
        y = x.adaptive_avg_pool2d(1, name="avgpool").conv2d(squeeze, 1, name="fc1").relu(name="activation")
        return y.conv2d(x.channels, 1, name="fc2").sigmoid(name="scale_activation") * x


def _block(x, channels, stride, group, gate):
    shortcut = x if stride == 1 and x.channels == channels else _conv(x, "proj", channels, 1, stride, relu=False)
    with x.builder.scope("f"):
        y = _conv(_conv(x, "a", channels, 1), "b", channels, 3, stride, channels // min(group, channels))
        if gate:
            y = _gated(y, max(1, round(gate * x.channels)))
        y = _conv(y, "c", channels, 1, relu=False)
    return (shortcut + y).relu(name="activation")


def regnet(depth, first, slope, factor, group, gate=None):
    """Return a RegNet on (3, 224, 224): its rule of widths, the channels of a group, and of a squeeze-and-excitation the share of channels."""

    def build(x, w):
        b = x.builder
        x = _conv(x, "stem", w(32), 3, 2)
        for stage, (channels, blocks) in enumerate(_stages(depth, first, slope, factor, group)):
            for i in range(blocks):
                with b.scope("trunk_output"), b.scope(f"block{stage + 1}"), b.scope(f"block{stage + 1}-{i}"):
                    x = _block(x, w(channels, min(group, channels)), 1 if i else 2, group, gate)
        return x.adaptive_avg_pool2d(1, name="avgpool").flatten(1).linear(w(1000), name="fc")

    return build
