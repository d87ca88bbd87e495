"""The architectures of the bundled networks, block by block; shapes in comments are (C, H, W).

They compute what the modules of `refquant.data.architectures_torch` compute, under the same names.
"""

__all__ = ["digits_resnet", "digits_mobilenet", "glyphs_net"]


def _conv_bn(x, channels, kernel, stride=1, groups=1, suffix=""):
    """conv, bn: no bias, padding that keeps the size at stride 1."""
    y = x.conv2d(channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False, name=f"conv{suffix}")
    return y.batch_norm(name=f"bn{suffix}")


def _conv_bn_relu(x, scope, channels, kernel, stride=1, groups=1):
    """A module with conv, bn, relu."""
    with x.builder.scope(scope):
        return _conv_bn(x, channels, kernel, stride, groups).relu(name="relu")


def _residual(x, scope, channels, stride=1):
    """ResNet's basic block; where the shape changes, x passes a strided 1 × 1 shortcut."""
    b = x.builder
    with b.scope(scope):
        y = _conv_bn(x, channels, 3, stride, suffix="1").relu(name="relu1")
        y = _conv_bn(y, channels, 3, suffix="2")
        if stride != 1 or x.channels != channels:
            with b.scope("shortcut"):
                x = _conv_bn(x, channels, 1, stride)
        return (y + x).relu(name="relu2")


def _depthwise_separable(x, scope, channels, stride=1):
    """MobileNet's block: depthwise 3 × 3, then pointwise 1 × 1."""
    with x.builder.scope(scope):
        y = _conv_bn_relu(x, "depthwise", x.channels, 3, stride, groups=x.channels)
        return _conv_bn_relu(y, "pointwise", channels, 1)


def _inverted_residual(x, scope, hidden):
    """MobileNetV2's block: expand, depthwise, project without ReLU, plus x."""
    with x.builder.scope(scope):
        y = _conv_bn_relu(x, "expand", hidden, 1)
        y = _conv_bn_relu(y, "depthwise", hidden, 3, groups=hidden)
        with x.builder.scope("project"):
            y = _conv_bn(y, x.channels, 1)
        return y + x


def _two_branches(x, scope, channels):
    """A 1 × 1 branch and a depthwise separable one, concatenated."""
    with x.builder.scope(scope):
        left = _conv_bn_relu(x, "left", channels, 1)
        right = _depthwise_separable(x, "right", channels)
        return left.cat(right)


def _head(x, classes):
    """Global average, one fully connected layer."""
    return x.adaptive_avg_pool2d(1, name="avgpool").flatten(1).linear(classes, name="fc")


def digits_resnet(x):
    """A residual network on (1, 8, 8) digits."""
    x = _conv_bn_relu(x, "stem", 16, 3)  # (16, 8, 8)
    x = _residual(x, "block1", 16)  # (16, 8, 8)
    x = x.max_pool2d(3, 2, 1, name="maxpool")  # (16, 4, 4)
    x = _residual(x, "block2", 32, stride=2)  # (32, 2, 2)
    x = _residual(x, "block3", 32)  # (32, 2, 2)
    return _head(x, 10)


def digits_mobilenet(x):
    """A depthwise separable network on (1, 8, 8) digits; 20, 36 and 44 channels are no multiples of 8."""
    x = _conv_bn_relu(x, "stem", 16, 3)  # (16, 8, 8)
    x = _depthwise_separable(x, "block1", 24)  # (24, 8, 8)
    x = _depthwise_separable(x, "block2", 32, stride=2)  # (32, 4, 4)
    x = _depthwise_separable(x, "block3", 20)  # (20, 4, 4)
    x = _depthwise_separable(x, "block4", 36)  # (36, 4, 4)
    x = _depthwise_separable(x, "block5", 44, stride=2)  # (44, 2, 2)
    return _head(x, 10)


def glyphs_net(x):
    """A network of 22 convolutions on (1, 32, 32) glyphs, with every kind of block above."""
    x = _conv_bn_relu(x, "stem", 16, 3)  # (16, 32, 32)
    x = _depthwise_separable(x, "down", 32, stride=2)  # (32, 16, 16)
    x = _residual(x, "block1", 32)  # (32, 16, 16)
    x = _two_branches(x, "branches", 24)  # (48, 16, 16)
    x = x.max_pool2d(2, 2, name="maxpool")  # (48, 8, 8)
    x = _residual(x, "block2", 64)  # (64, 8, 8)
    x = _depthwise_separable(x, "block3", 64)  # (64, 8, 8)
    x = _residual(x, "block4", 96, stride=2)  # (96, 4, 4)
    x = _depthwise_separable(x, "block5", 124)  # (124, 4, 4)
    x = _inverted_residual(x, "block6", 248)  # (124, 4, 4)
    return _head(x, 62)
