"""SqueezeNet 1.0 and 1.1 (Iandola et al., 2016), with torchvision's names."""

__all__ = ["squeezenet1_0", "squeezenet1_1"]


def _fire(x, w, scope, squeeze, expand):
    with x.builder.scope(scope):
        x = x.conv2d(w(squeeze), 1, name="squeeze").relu(name="squeeze_activation")
        left = x.conv2d(w(expand), 1, name="expand1x1").relu(name="expand1x1_activation")
        right = x.conv2d(w(expand), 3, padding=1, name="expand3x3").relu(name="expand3x3_activation")
        return left.cat(right)


def _squeezenet(x, w, first, kernel, pools):
    """A first convolution, eight fire modules, and pools before some of them."""
    squeezes = (16, 16, 32, 32, 48, 48, 64, 64)
    index = 3
    with x.builder.scope("features"):
        x = x.conv2d(w(first), kernel, stride=2, name="0").relu(name="1").max_pool2d(3, 2, ceil_mode=True, name="2")
        for i, squeeze in enumerate(squeezes):
            if i in pools:
                x = x.max_pool2d(3, 2, ceil_mode=True, name=str(index))
                index += 1
            x = _fire(x, w, str(index), squeeze, 4 * squeeze)
            index += 1
    with x.builder.scope("classifier"):
        x = x.dropout(name="0").conv2d(w(1000), 1, name="1").relu(name="2").adaptive_avg_pool2d(1, name="3")
    return x.flatten(1)


def squeezenet1_0(x, w):
    """SqueezeNet 1.0 on (3, 224, 224): 1,248,424 parameters."""
    return _squeezenet(x, w, 96, 7, (3, 7))


def squeezenet1_1(x, w):
    """SqueezeNet 1.1 on (3, 224, 224): 1,235,496 parameters."""
    return _squeezenet(x, w, 64, 3, (2, 4))
