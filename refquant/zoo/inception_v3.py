"""Inception v3 (Szegedy et al., 2015) without its auxiliary classifier, with torchvision's names."""

__all__ = ["inception_v3"]


def _conv(x, scope, channels, kernel, stride=1, padding=0):
    with x.builder.scope(scope):
        y = x.conv2d(channels, kernel, stride=stride, padding=padding, bias=False, name="conv")
        return y.batch_norm(eps=0.001, name="bn").relu(name="relu")


def _pooled(x, channels):
    return _conv(x.avg_pool2d(3, 1, 1, name="avgpool"), "branch_pool", channels, 1)


def _a(x, w, pool):
    """5×5, and two 3×3 one after the other."""
    one = _conv(x, "branch1x1", w(64), 1)
    five = _conv(_conv(x, "branch5x5_1", w(48), 1), "branch5x5_2", w(64), 5, padding=2)
    double = _conv(_conv(x, "branch3x3dbl_1", w(64), 1), "branch3x3dbl_2", w(96), 3, padding=1)
    return one.cat(five, _conv(double, "branch3x3dbl_3", w(96), 3, padding=1), _pooled(x, w(pool)))


def _b(x, w):
    """Half the side."""
    three = _conv(x, "branch3x3", w(384), 3, 2)
    double = _conv(_conv(x, "branch3x3dbl_1", w(64), 1), "branch3x3dbl_2", w(96), 3, padding=1)
    return three.cat(_conv(double, "branch3x3dbl_3", w(96), 3, 2), x.max_pool2d(3, 2, name="maxpool"))


_WIDE, _TALL = ((1, 7), (0, 3)), ((7, 1), (3, 0))


def _chain(x, name, channels, windows):
    """Convolutions one after the other, each with its window and padding."""
    for i, (n, (kernel, padding)) in enumerate(zip(channels, windows)):
        x = _conv(x, f"{name}_{i + 1}", n, kernel, padding=padding)
    return x


def _c(x, w, c7):
    """7×7 as rows and columns."""
    c7, n, point = w(c7), w(192), (1, 0)
    seven = _chain(x, "branch7x7", (c7, c7, n), (point, _WIDE, _TALL))
    double = _chain(x, "branch7x7dbl", (c7, c7, c7, c7, n), (point, _TALL, _WIDE, _TALL, _WIDE))
    return _conv(x, "branch1x1", n, 1).cat(seven, double, _pooled(x, n))


def _d(x, w):
    """Half the side."""
    three = _conv(_conv(x, "branch3x3_1", w(192), 1), "branch3x3_2", w(320), 3, 2)
    seven = _chain(x, "branch7x7x3", (w(192),) * 3, ((1, 0), _WIDE, _TALL))
    return three.cat(_conv(seven, "branch7x7x3_4", w(192), 3, 2), x.max_pool2d(3, 2, name="maxpool"))


def _fork(x, name, channels):
    """A row and a column side by side."""
    return _conv(x, f"{name}a", channels, (1, 3), padding=(0, 1)).cat(_conv(x, f"{name}b", channels, (3, 1), padding=(1, 0)))


def _e(x, w):
    """Rows and columns side by side."""
    three = _fork(_conv(x, "branch3x3_1", w(384), 1), "branch3x3_2", w(384))
    double = _conv(_conv(x, "branch3x3dbl_1", w(448), 1), "branch3x3dbl_2", w(384), 3, padding=1)
    return _conv(x, "branch1x1", w(320), 1).cat(three, _fork(double, "branch3x3dbl_3", w(384)), _pooled(x, w(192)))


_MIXED = (
    ("5b", _a, 32), ("5c", _a, 64), ("5d", _a, 64), ("6a", _b), ("6b", _c, 128), ("6c", _c, 160), ("6d", _c, 160), ("6e", _c, 192),
    ("7a", _d), ("7b", _e), ("7c", _e),
)  # fmt: skip


def inception_v3(x, w):
    """Inception v3 on (3, 299, 299): 23,834,568 parameters."""
    x = _conv(_conv(x, "Conv2d_1a_3x3", w(32), 3, 2), "Conv2d_2a_3x3", w(32), 3)
    x = _conv(x, "Conv2d_2b_3x3", w(64), 3, padding=1).max_pool2d(3, 2, name="maxpool1")
    x = _conv(_conv(x, "Conv2d_3b_1x1", w(80), 1), "Conv2d_4a_3x3", w(192), 3).max_pool2d(3, 2, name="maxpool2")
    for scope, block, *sizes in _MIXED:
        with x.builder.scope(f"Mixed_{scope}"):
            x = block(x, w, *sizes)
    return x.adaptive_avg_pool2d(1, name="avgpool").dropout(name="dropout").flatten(1).linear(w(1000), name="fc")
