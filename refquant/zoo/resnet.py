"""ResNet (He et al., 2015), with torchvision's names; ResNeXt and Wide ResNet are the same with other widths."""

__all__ = ["resnet"]


def _conv_bn(x, channels, kernel, stride=1, groups=1, suffix=""):
    y = x.conv2d(channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False, name=f"conv{suffix}")
    return y.batch_norm(name=f"bn{suffix}")


def _shortcut(x, channels, stride):
    if stride == 1 and x.channels == channels:
        return x
    with x.builder.scope("downsample"):
        return x.conv2d(channels, 1, stride=stride, bias=False, name="0").batch_norm(name="1")


def _basic(x, w, planes, stride, groups, base):
    y = _conv_bn(x, w(planes), 3, stride, suffix="1").relu(name="relu1")
    y = _conv_bn(y, w(planes), 3, suffix="2")
    return (y + _shortcut(x, w(planes), stride)).relu(name="relu2")


def _bottleneck(x, w, planes, stride, groups, base):
    width = w(planes * base // 64 * groups, max(8, groups))
    y = _conv_bn(x, width, 1, suffix="1").relu(name="relu1")
    y = _conv_bn(y, width, 3, stride, groups, suffix="2").relu(name="relu2")
    y = _conv_bn(y, w(planes * 4), 1, suffix="3")
    return (y + _shortcut(x, w(planes * 4), stride)).relu(name="relu3")


def resnet(depths, bottleneck=True, groups=1, base=64):
    """Return a ResNet on (3, 224, 224) of basic or bottleneck blocks, with `groups` of `base` channels each."""
    block = _bottleneck if bottleneck else _basic

    def build(x, w):
        x = x.conv2d(w(64), 7, stride=2, padding=3, bias=False, name="conv1").batch_norm(name="bn1").relu(name="relu")
        x = x.max_pool2d(3, 2, 1, name="maxpool")
        for stage, depth in enumerate(depths):
            for i in range(depth):
                with x.builder.scope(f"layer{stage + 1}"), x.builder.scope(str(i)):
                    x = block(x, w, 64 << stage, 2 if stage and i == 0 else 1, groups, base)
        return x.adaptive_avg_pool2d(1, name="avgpool").flatten(1).linear(w(1000), name="fc")

    return build
