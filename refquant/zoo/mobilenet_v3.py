"""MobileNetV3 (Howard et al., 2019), with torchvision's names."""

from refquant.zoo.widths import nearest

__all__ = ["mobilenet_v3_large", "mobilenet_v3_small"]

_EPS = 0.001
# kernel, expanded channels, channels, squeeze-and-excitation, hardswish, stride
_LARGE = (
    (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2), (5, 120, 40, 1, 0, 1), (5, 120, 40, 1, 0, 1),
    (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1),
    (5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1),
)  # fmt: skip
_SMALL = (
    (3, 16, 16, 1, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 1, 1, 2), (5, 240, 40, 1, 1, 1), (5, 240, 40, 1, 1, 1),
    (5, 120, 48, 1, 1, 1), (5, 144, 48, 1, 1, 1), (5, 288, 96, 1, 1, 2), (5, 576, 96, 1, 1, 1), (5, 576, 96, 1, 1, 1),
)  # fmt: skip


def _conv(x, scope, channels, kernel, stride=1, groups=1, activation=None):
    with x.builder.scope(scope):
        y = x.conv2d(channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False, name="0").batch_norm(eps=_EPS, name="1")
        return y if activation is None else getattr(y, activation)(name="2")


def _gated(x, scope, squeeze):
    """Squeeze-and-excitation: each channel times a number made of all channels' means."""
    with x.builder.scope(scope):
        y = x.adaptive_avg_pool2d(1, name="avgpool").conv2d(squeeze, 1, name="fc1").relu(name="activation")
        return y.conv2d(x.channels, 1, name="fc2").hardsigmoid(name="scale_activation") * x


def _block(x, w, kernel, expanded, channels, gate, hard, stride):
    activation, expanded, index = "hardswish" if hard else "relu", w(expanded), 0
    with x.builder.scope("block"):
        y = x
        if expanded != x.channels:
            y, index = _conv(x, "0", expanded, 1, activation=activation), 1
        y = _conv(y, str(index), expanded, kernel, stride, expanded, activation)
        if gate:
            index += 1
            y = _gated(y, str(index), nearest(expanded // 4))
        y = _conv(y, str(index + 1), w(channels), 1)
    return y + x if stride == 1 and x.channels == y.channels else y


def _mobilenet_v3(x, w, rows, last):
    b = x.builder
    with b.scope("features"):
        x = _conv(x, "0", w(16), 3, 2, activation="hardswish")
        for i, row in enumerate(rows):
            with b.scope(str(i + 1)):
                x = _block(x, w, *row)
        x = _conv(x, str(len(rows) + 1), 6 * x.channels, 1, activation="hardswish")
    x = x.adaptive_avg_pool2d(1, name="avgpool").flatten(1)
    with b.scope("classifier"):
        return x.linear(w(last), name="0").hardswish(name="1").dropout(name="2").linear(w(1000), name="3")


def mobilenet_v3_large(x, w):
    """MobileNetV3 large on (3, 224, 224): 5,483,032 parameters."""
    return _mobilenet_v3(x, w, _LARGE, 1280)


def mobilenet_v3_small(x, w):
    """MobileNetV3 small on (3, 224, 224): 2,542,856 parameters."""
    return _mobilenet_v3(x, w, _SMALL, 1024)
