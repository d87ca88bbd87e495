"""VGG (Simonyan and Zisserman, 2014), with and without BatchNorm, with torchvision's names."""

__all__ = ["vgg"]

_CHANNELS = 64, 128, 256, 512, 512


def vgg(depths, batch_norm=False):
    """Return VGG with so many convolutions a stage, on (3, 224, 224)."""

    def build(x, w):
        index = 0
        with x.builder.scope("features"):
            for channels, depth in zip(_CHANNELS, depths):
                for _ in range(depth):
                    x = x.conv2d(w(channels), 3, padding=1, name=str(index))
                    if batch_norm:
                        x = x.batch_norm(name=str(index := index + 1))
                    x = x.relu(name=str(index + 1))
                    index += 2
                x = x.max_pool2d(2, 2, name=str(index))
                index += 1
        x = x.adaptive_avg_pool2d(7, name="avgpool").flatten(1)
        with x.builder.scope("classifier"):
            x = x.linear(w(4096), name="0").relu(name="1").dropout(name="2")
            x = x.linear(w(4096), name="3").relu(name="4").dropout(name="5")
            return x.linear(w(1000), name="6")

    return build
