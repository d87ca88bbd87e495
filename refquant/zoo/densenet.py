"""DenseNet (Huang et al., 2016), with torchvision's names."""

__all__ = ["densenet"]


def _dense_layer(x, growth):
    y = x.batch_norm(name="norm1").relu(name="relu1").conv2d(4 * growth, 1, bias=False, name="conv1")
    return y.batch_norm(name="norm2").relu(name="relu2").conv2d(growth, 3, padding=1, bias=False, name="conv2")


def densenet(depths, growth=32, first=64):
    """Return a DenseNet on (3, 224, 224) with so many layers a block."""

    def build(x, w):
        b = x.builder
        with b.scope("features"):
            x = x.conv2d(w(first), 7, stride=2, padding=3, bias=False, name="conv0").batch_norm(name="norm0").relu(name="relu0").max_pool2d(3, 2, 1, name="pool0")
            for stage, depth in enumerate(depths):
                for i in range(depth):
                    with b.scope(f"denseblock{stage + 1}"), b.scope(f"denselayer{i + 1}"):
                        x = x.cat(_dense_layer(x, w(growth)))
                if stage < len(depths) - 1:
                    with b.scope(f"transition{stage + 1}"):
                        x = x.batch_norm(name="norm").relu(name="relu").conv2d(x.channels // 2, 1, bias=False, name="conv").avg_pool2d(2, 2, name="pool")
            x = x.batch_norm(name="norm5")
        return x.relu(name="relu").adaptive_avg_pool2d(1, name="avgpool").flatten(1).linear(w(1000), name="classifier")

    return build
