"""MobileNetV2 (Sandler et al., 2018), with ReLU in place of ReLU6, as its quantizable form in torchvision."""

__all__ = ["mobilenet_v2"]

# expansion, channels, repetitions, first stride
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _conv_bn_relu(x, scope, channels, kernel, stride=1, groups=1):
    with x.builder.scope(scope):
        y = x.conv2d(channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False, name="0")
        return y.batch_norm(name="1").relu(name="2")


def _inverted_residual(x, expansion, channels, stride):
    hidden = x.channels * expansion
    with x.builder.scope("conv"):
        y = x if expansion == 1 else _conv_bn_relu(x, "expand", hidden, 1)
        y = _conv_bn_relu(y, "depthwise", hidden, 3, stride, groups=hidden)
        y = y.conv2d(channels, 1, bias=False, name="project").batch_norm(name="bn")
    return y + x if stride == 1 and x.channels == channels else y


def mobilenet_v2(x, w):
    """MobileNetV2 on (3, 224, 224): 3,504,872 parameters."""
    b = x.builder
    with b.scope("features"):
        x = _conv_bn_relu(x, "0", w(32), 3, stride=2)
        index = 1
        for expansion, channels, repetitions, stride in _STAGES:
            for i in range(repetitions):
                with b.scope(str(index)):
                    x = _inverted_residual(x, expansion, w(channels), stride if i == 0 else 1)
                index += 1
        x = _conv_bn_relu(x, str(index), w(1280), 1)
    x = x.adaptive_avg_pool2d(1, name="avgpool").flatten(1)
    with b.scope("classifier"):
        return x.dropout(name="0").linear(w(1000), name="1")
