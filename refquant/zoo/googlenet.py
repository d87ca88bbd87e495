"""GoogLeNet (Szegedy et al., 2014) with BatchNorm and without its auxiliary classifiers, with torchvision's names."""

__all__ = ["googlenet"]

# 1×1; 3×3 reduced and full; "5×5" (3×3 in torchvision) reduced and full; behind the pool
_BLOCKS = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip


def _conv(x, scope, channels, kernel, stride=1):
    with x.builder.scope(scope):
        y = x.conv2d(channels, kernel, stride=stride, padding=kernel // 2, bias=False, name="conv")
        return y.batch_norm(eps=0.001, name="bn").relu(name="relu")


def _inception(x, w, scope, sizes):
    one, three_in, three, five_in, five, pooled = (w(n) for n in sizes)
    with x.builder.scope(f"inception{scope}"):
        a = _conv(x, "branch1", one, 1)
        b = _conv(_conv(x, "branch2_0", three_in, 1), "branch2_1", three, 3)
        c = _conv(_conv(x, "branch3_0", five_in, 1), "branch3_1", five, 3)
        d = _conv(x.max_pool2d(3, 1, 1, ceil_mode=True, name="branch4_0"), "branch4_1", pooled, 1)
        return a.cat(b, c, d)


def googlenet(x, w):
    """GoogLeNet on (3, 224, 224): 6,624,904 parameters."""
    x = _conv(x, "conv1", w(64), 7, 2).max_pool2d(3, 2, ceil_mode=True, name="maxpool1")
    x = _conv(_conv(x, "conv2", w(64), 1), "conv3", w(192), 3).max_pool2d(3, 2, ceil_mode=True, name="maxpool2")
    for scope, sizes in _BLOCKS.items():
        if scope == "4a":
            x = x.max_pool2d(3, 2, ceil_mode=True, name="maxpool3")
        if scope == "5a":
            x = x.max_pool2d(2, 2, ceil_mode=True, name="maxpool4")
        x = _inception(x, w, scope, sizes)
    return x.adaptive_avg_pool2d(1, name="avgpool").flatten(1).dropout(name="dropout").linear(w(1000), name="fc")
