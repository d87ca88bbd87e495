"""AlexNet in its one-column form (Krizhevsky, 2014), with torchvision's names."""

__all__ = ["alexnet"]


def alexnet(x, w):
    """AlexNet on (3, 224, 224): 61,100,840 parameters."""
    with x.builder.scope("features"):
        x = x.conv2d(w(64), 11, stride=4, padding=2, name="0").relu(name="1").max_pool2d(3, 2, name="2")
        x = x.conv2d(w(192), 5, padding=2, name="3").relu(name="4").max_pool2d(3, 2, name="5")
        for index, channels in ((6, 384), (8, 256), (10, 256)):
            x = x.conv2d(w(channels), 3, padding=1, name=str(index)).relu(name=str(index + 1))
        x = x.max_pool2d(3, 2, name="12")
    x = x.adaptive_avg_pool2d(6, name="avgpool").flatten(1)
    with x.builder.scope("classifier"):
        x = x.dropout(name="0").linear(w(4096), name="1").relu(name="2")
        return x.dropout(name="3").linear(w(4096), name="4").relu(name="5").linear(w(1000), name="6")
