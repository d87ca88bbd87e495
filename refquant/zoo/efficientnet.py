"""EfficientNet-B0 (Tan and Le, 2019), with torchvision's names."""

__all__ = ["efficientnet_b0"]

# expansion, kernel, first stride, channels, repetitions
_STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1))


def _conv(x, scope, channels, kernel, stride=1, groups=1, silu=True):
    with x.builder.scope(scope):
        y = x.conv2d(channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False, name="0").batch_norm(name="1")
        return y.silu(name="2") if silu else y


def _gated(x, scope, squeeze):
    with x.builder.scope(scope):
        y = x.adaptive_avg_pool2d(1, name="avgpool").conv2d(squeeze, 1, name="fc1").silu(name="activation")
        return y.conv2d(x.channels, 1, name="fc2").sigmoid(name="scale_activation") * x


def _block(x, expansion, kernel, stride, channels):
    hidden, index = x.channels * expansion, 0
    with x.builder.scope("block"):
        y = x
        if expansion != 1:
            y, index = _conv(x, "0", hidden, 1), 1
        y = _conv(y, str(index), hidden, kernel, stride, hidden)
        y = _gated(y, str(index + 1), max(1, x.channels // 4))
        y = _conv(y, str(index + 2), channels, 1, silu=False)
    return y + x if stride == 1 and x.channels == channels else y


def efficientnet_b0(x, w):
    """EfficientNet-B0 on (3, 224, 224): 5,288,548 parameters."""
    b = x.builder
    with b.scope("features"):
        x = _conv(x, "0", w(32), 3, 2)
        for stage, (expansion, kernel, stride, channels, repetitions) in enumerate(_STAGES):
            for i in range(repetitions):
                with b.scope(str(stage + 1)), b.scope(str(i)):
                    x = _block(x, expansion, kernel, 1 if i else stride, w(channels))
        x = _conv(x, str(len(_STAGES) + 1), w(1280), 1)
    x = x.adaptive_avg_pool2d(1, name="avgpool").flatten(1)
    with b.scope("classifier"):
        return x.dropout(name="0").linear(w(1000), name="1")
