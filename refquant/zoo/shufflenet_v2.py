"""ShuffleNetV2 (Ma et al., 2018), with torchvision's names."""

__all__ = ["shufflenet_v2"]


def _conv(x, index, channels, kernel, stride=1, groups=1, relu=True):
    y = x.conv2d(channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False, name=str(index)).batch_norm(name=str(index + 1))
    return y.relu(name=str(index + 2)) if relu else y


def _shuffled(x):
    """Channels of the two halves in turn."""
    _, channels, height, width = x.shape
    return x.reshape(None, 2, channels // 2, height, width).transpose(1, 2).reshape(None, channels, height, width)


def _branch(x, channels, stride):
    with x.builder.scope("branch2"):
        x = _conv(x, 0, channels, 1)
        return _conv(_conv(x, 3, channels, 3, stride, channels, relu=False), 5, channels, 1)


def _unit(x, channels, stride):
    half = channels // 2
    if stride == 1:
        left, right = x.chunk(2)
        return _shuffled(left.cat(_branch(right, half, 1)))
    with x.builder.scope("branch1"):
        left = _conv(_conv(x, 0, x.channels, 3, stride, x.channels, relu=False), 2, half, 1)
    return _shuffled(left.cat(_branch(x, half, stride)))


def shufflenet_v2(channels, last=1024):
    """Return ShuffleNetV2 on (3, 224, 224) with so many channels in its three stages."""

    def build(x, w):
        b = x.builder
        with b.scope("conv1"):
            x = _conv(x, 0, w(24), 3, 2)
        x = x.max_pool2d(3, 2, 1, name="maxpool")
        for stage, (size, depth) in enumerate(zip(channels, (4, 8, 4))):
            for i in range(depth):
                with b.scope(f"stage{stage + 2}"), b.scope(str(i)):
                    x = _unit(x, w(size), 1 if i else 2)
        with b.scope("conv5"):
            x = _conv(x, 0, w(last), 1)
        return x.mean((2, 3)).linear(w(1000), name="fc")

    return build
