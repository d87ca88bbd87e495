"""MNASNet-B1 (Tan et al., 2018), with torchvision's names."""

from refquant.zoo.widths import nearest

__all__ = ["mnasnet"]

# channels, kernel, first stride, expansion, repetitions
_STACKS = ((24, 3, 2, 3, 3), (40, 5, 2, 3, 3), (80, 5, 2, 6, 3), (96, 3, 1, 6, 2), (192, 5, 2, 6, 4), (320, 3, 1, 6, 1))


def _conv(x, index, channels, kernel, stride=1, groups=1, relu=True):
    y = x.conv2d(channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False, name=str(index)).batch_norm(name=str(index + 1))
    return y.relu(name=str(index + 2)) if relu else y


def _inverted_residual(x, channels, kernel, stride, expansion):
    hidden = x.channels * expansion
    with x.builder.scope("layers"):
        y = _conv(_conv(x, 0, hidden, 1), 3, hidden, kernel, stride, groups=hidden)
        y = _conv(y, 6, channels, 1, relu=False)
    return y + x if stride == 1 and x.channels == channels else y


def mnasnet(alpha):
    """Return MNASNet on (3, 224, 224) with `alpha` times the channels."""

    def build(x, w):
        b = x.builder
        with b.scope("layers"):
            x = _conv(x, 0, w(nearest(32 * alpha)), 3, 2)
            x = _conv(_conv(x, 3, x.channels, 3, groups=x.channels), 6, w(nearest(16 * alpha)), 1, relu=False)
            for i, (channels, kernel, stride, expansion, repetitions) in enumerate(_STACKS):
                for k in range(repetitions):
                    with b.scope(str(8 + i)), b.scope(str(k)):
                        x = _inverted_residual(x, w(nearest(channels * alpha)), kernel, 1 if k else stride, expansion)
            x = _conv(x, 14, w(1280), 1)
        with b.scope("classifier"):
            return x.mean((2, 3)).dropout(name="0").linear(w(1000), name="1")

    return build
