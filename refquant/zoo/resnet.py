"""ResNet (He et al., 2015), with torchvision's names; ResNeXt and Wide ResNet are the same with other widths. Shapes in comments are (C, H, W)."""

__all__ = ["resnet18", "resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2"]


def _conv_bn(x, channels, kernel, stride=1, groups=1, suffix=""):
    y = x.conv2d(channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False, name=f"conv{suffix}")
    return y.batch_norm(name=f"bn{suffix}")


def _shortcut(x, channels, stride):
    if stride == 1 and x.channels == channels:
        return x
    with x.builder.scope("downsample"):
        return x.conv2d(channels, 1, stride=stride, bias=False, name="0").batch_norm(name="1")


def _basic(x, planes, stride, groups, base):
    y = _conv_bn(x, planes, 3, stride, suffix="1").relu(name="relu1")
    y = _conv_bn(y, planes, 3, suffix="2")
    return (y + _shortcut(x, planes, stride)).relu(name="relu2")


def _bottleneck(x, planes, stride, groups, base):
    width = planes * base // 64 * groups
    y = _conv_bn(x, width, 1, suffix="1").relu(name="relu1")
    y = _conv_bn(y, width, 3, stride, groups, suffix="2").relu(name="relu2")
    y = _conv_bn(y, planes * 4, 1, suffix="3")
    return (y + _shortcut(x, planes * 4, stride)).relu(name="relu3")


def _resnet(x, block, depths, groups=1, base=64, width=64):
    x = x.conv2d(width, 7, stride=2, padding=3, bias=False, name="conv1").batch_norm(name="bn1").relu(name="relu")
    x = x.max_pool2d(3, 2, 1, name="maxpool")
    for stage, depth in enumerate(depths):
        for i in range(depth):
            with x.builder.scope(f"layer{stage + 1}"), x.builder.scope(str(i)):
                x = block(x, width << stage, 2 if stage and i == 0 else 1, groups, base)
    return x.adaptive_avg_pool2d(1, name="avgpool").flatten(1).linear(1000, name="fc")


def resnet18(x):
    """ResNet-18 on (3, 224, 224): 11,689,512 parameters."""
    return _resnet(x, _basic, (2, 2, 2, 2))


def resnet34(x):
    """ResNet-34 on (3, 224, 224): 21,797,672 parameters."""
    return _resnet(x, _basic, (3, 4, 6, 3))


def resnet50(x):
    """ResNet-50 on (3, 224, 224): 25,557,032 parameters."""
    return _resnet(x, _bottleneck, (3, 4, 6, 3))


def resnext50_32x4d(x):
    """ResNeXt-50 32×4d on (3, 224, 224): 25,028,904 parameters."""
    return _resnet(x, _bottleneck, (3, 4, 6, 3), groups=32, base=4)


def wide_resnet50_2(x):
    """Wide ResNet-50-2 on (3, 224, 224): 68,883,240 parameters."""
    return _resnet(x, _bottleneck, (3, 4, 6, 3), base=128)
