"""U-Net (Ronneberger et al., 2015), as its figure 1 draws it: convolutions without padding, and what is copied to the way up is cropped."""

__all__ = ["unet"]

_CHANNELS = 64, 128, 256, 512, 1024


def _double(x, scope, channels):
    with x.builder.scope(scope):
        return x.conv2d(channels, 3, name="conv1").relu(name="relu1").conv2d(channels, 3, name="conv2").relu(name="relu2")


def _cropped(x, like):
    """The middle of an image, as large as another."""
    for dim in (2, 3):
        start = (x.shape[dim] - like.shape[dim]) // 2
        x = x.slice(dim, start, start + like.shape[dim])
    return x


def unet(x, w):
    """U-Net on (1, 572, 572), two classes: 31,030,658 parameters."""
    left = []
    for i, channels in enumerate(_CHANNELS):
        if left:
            x = x.max_pool2d(2, name=f"pool{i}")
        x = _double(x, f"down{i + 1}", w(channels))
        left.append(x)
    for i, channels in reversed(list(enumerate(_CHANNELS[:-1]))):
        up = x.conv_transpose(w(channels), 2, stride=2, name=f"upconv{i + 1}")
        x = _double(_cropped(left[i], up).cat(up), f"up{i + 1}", w(channels))
    return x.conv2d(2, 1, name="head")
