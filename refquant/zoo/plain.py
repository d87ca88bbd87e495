"""Networks without residuals: VGG (Simonyan and Zisserman, 2014), SqueezeNet 1.1 (Iandola et al., 2016), DenseNet-121 (Huang et al., 2016)."""

__all__ = ["vgg16", "squeezenet1_1", "densenet121"]


def vgg16(x):
    """VGG-16 without BatchNorm on (3, 224, 224): 138,357,544 parameters."""
    with x.builder.scope("features"):
        for stage, (channels, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
            for i in range(depth):
                x = x.conv2d(channels, 3, padding=1, name=f"conv{stage + 1}_{i + 1}").relu(name=f"relu{stage + 1}_{i + 1}")
            x = x.max_pool2d(2, 2, name=f"pool{stage + 1}")
    x = x.adaptive_avg_pool2d(7, name="avgpool").flatten(1)
    with x.builder.scope("classifier"):
        x = x.linear(4096, name="0").relu(name="1").dropout(name="2")
        x = x.linear(4096, name="3").relu(name="4").dropout(name="5")
        return x.linear(1000, name="6")


def _fire(x, scope, squeeze, expand):
    with x.builder.scope(scope):
        x = x.conv2d(squeeze, 1, name="squeeze").relu(name="squeeze_activation")
        left = x.conv2d(expand, 1, name="expand1x1").relu(name="expand1x1_activation")
        right = x.conv2d(expand, 3, padding=1, name="expand3x3").relu(name="expand3x3_activation")
        return left.cat(right)


def squeezenet1_1(x):
    """SqueezeNet 1.1 on (3, 224, 224): 1,235,496 parameters."""
    with x.builder.scope("features"):
        x = x.conv2d(64, 3, stride=2, name="0").relu(name="1").max_pool2d(3, 2, ceil_mode=True, name="2")
        x = _fire(_fire(x, "3", 16, 64), "4", 16, 64).max_pool2d(3, 2, ceil_mode=True, name="5")
        x = _fire(_fire(x, "6", 32, 128), "7", 32, 128).max_pool2d(3, 2, ceil_mode=True, name="8")
        for scope, squeeze, expand in (("9", 48, 192), ("10", 48, 192), ("11", 64, 256), ("12", 64, 256)):
            x = _fire(x, scope, squeeze, expand)
    with x.builder.scope("classifier"):
        x = x.dropout(name="0").conv2d(1000, 1, name="1").relu(name="2").adaptive_avg_pool2d(1, name="3")
    return x.flatten(1)


def _dense_layer(x, growth):
    y = x.batch_norm(name="norm1").relu(name="relu1").conv2d(4 * growth, 1, bias=False, name="conv1")
    return y.batch_norm(name="norm2").relu(name="relu2").conv2d(growth, 3, padding=1, bias=False, name="conv2")


def densenet121(x, growth=32, depths=(6, 12, 24, 16)):
    """DenseNet-121 on (3, 224, 224): 7,978,856 parameters."""
    b = x.builder
    with b.scope("features"):
        x = x.conv2d(64, 7, stride=2, padding=3, bias=False, name="conv0").batch_norm(name="norm0").relu(name="relu0").max_pool2d(3, 2, 1, name="pool0")
        for stage, depth in enumerate(depths):
            for i in range(depth):
                with b.scope(f"denseblock{stage + 1}"), b.scope(f"denselayer{i + 1}"):
                    x = x.cat(_dense_layer(x, growth))
            if stage < len(depths) - 1:
                with b.scope(f"transition{stage + 1}"):
                    x = x.batch_norm(name="norm").relu(name="relu").conv2d(x.channels // 2, 1, bias=False, name="conv").avg_pool2d(2, 2, name="pool")
        x = x.batch_norm(name="norm5")
    return x.relu(name="relu").adaptive_avg_pool2d(1, name="avgpool").flatten(1).linear(1000, name="classifier")
