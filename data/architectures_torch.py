"""The networks of `refquant.data` as PyTorch modules.

Every module can be traced by ``torch.fx``. Each use of a ReLU is a module of its own, and the layers outside of
modules are ``x + y``, ``torch.cat([..], 1)`` and ``torch.flatten(x, 1)``. Shapes in comments are (C, H, W).
"""

import torch
from torch import nn

from . import load_arrays


def conv_bn(in_channels, out_channels, kernel, stride=1, groups=1):
    """The (conv, bn) pair all networks are built of: no bias, padding that keeps H and W at stride 1."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(out_channels)


class ConvBN(nn.Module):
    """conv, bn."""

    def __init__(self, in_channels, out_channels, kernel, stride=1, groups=1):
        super().__init__()
        self.conv, self.bn = conv_bn(in_channels, out_channels, kernel, stride, groups)

    def forward(self, x):
        return self.bn(self.conv(x))


class ConvBNReLU(nn.Module):
    """conv, bn, relu."""

    def __init__(self, in_channels, out_channels, kernel, stride=1, groups=1):
        super().__init__()
        self.conv, self.bn = conv_bn(in_channels, out_channels, kernel, stride, groups)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.bn(self.conv(x)))


class Residual(nn.Module):
    """ResNet's basic block: relu(bn2(conv2(relu1(bn1(conv1(x))))) + x).

    Where the shape changes, x passes a strided 1x1 ``shortcut`` (conv, bn) first.
    """

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(in_channels, out_channels, 3, stride)
        self.relu1 = nn.ReLU()
        self.conv2, self.bn2 = conv_bn(out_channels, out_channels, 3)
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = None if same_shape else ConvBN(in_channels, out_channels, 1, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x):
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return self.relu2(y + shortcut)


class DepthwiseSeparable(nn.Module):
    """MobileNet's block: ``depthwise`` 3x3 (conv, bn, relu), then ``pointwise`` 1x1 (conv, bn, relu)."""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.depthwise = ConvBNReLU(in_channels, in_channels, 3, stride, groups=in_channels)
        self.pointwise = ConvBNReLU(in_channels, out_channels, 1)

    def forward(self, x):
        return self.pointwise(self.depthwise(x))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: ``expand`` 1x1, ``depthwise`` 3x3, linear ``project`` 1x1, plus x; no ReLU after the sum."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.expand = ConvBNReLU(channels, hidden, 1)
        self.depthwise = ConvBNReLU(hidden, hidden, 3, groups=hidden)
        self.project = ConvBN(hidden, channels, 1)

    def forward(self, x):
        return self.project(self.depthwise(self.expand(x))) + x


class TwoBranches(nn.Module):
    """``left`` 1x1 (conv, bn, relu) and ``right`` depthwise separable 3x3, concatenated in this order."""

    def __init__(self, in_channels, branch_channels):
        super().__init__()
        self.left = ConvBNReLU(in_channels, branch_channels, 1)
        self.right = DepthwiseSeparable(in_channels, branch_channels)

    def forward(self, x):
        return torch.cat([self.left(x), self.right(x)], 1)


class DigitsResNet(nn.Module):
    """A residual network on (1, 8, 8) digits."""

    def __init__(self):
        super().__init__()
        self.stem = ConvBNReLU(1, 16, 3)                                    # (16, 8, 8)
        self.block1 = Residual(16, 16)                                      # (16, 8, 8)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)     # (16, 4, 4)
        self.block2 = Residual(16, 32, stride=2)                            # (32, 2, 2)
        self.block3 = Residual(32, 32)                                      # (32, 2, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)                              # (32, 1, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = self.stem(x)
        x = self.block1(x)
        x = self.maxpool(x)
        x = self.block2(x)
        x = self.block3(x)
        x = self.avgpool(x)
        x = torch.flatten(x, 1)
        return self.fc(x)


class DigitsMobileNet(nn.Module):
    """A depthwise separable network on (1, 8, 8) digits; 20, 36 and 44 channels are no multiples of 8."""

    def __init__(self):
        super().__init__()
        self.stem = ConvBNReLU(1, 16, 3)                                    # (16, 8, 8)
        self.block1 = DepthwiseSeparable(16, 24)                            # (24, 8, 8)
        self.block2 = DepthwiseSeparable(24, 32, stride=2)                  # (32, 4, 4)
        self.block3 = DepthwiseSeparable(32, 20)                            # (20, 4, 4)
        self.block4 = DepthwiseSeparable(20, 36)                            # (36, 4, 4)
        self.block5 = DepthwiseSeparable(36, 44, stride=2)                  # (44, 2, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)                              # (44, 1, 1)
        self.fc = nn.Linear(44, 10)

    def forward(self, x):
        x = self.stem(x)
        x = self.block1(x)
        x = self.block2(x)
        x = self.block3(x)
        x = self.block4(x)
        x = self.block5(x)
        x = self.avgpool(x)
        x = torch.flatten(x, 1)
        return self.fc(x)


class GlyphsNet(nn.Module):
    """A network of 21 convolutions on (1, 32, 32) glyphs, with every kind of block above."""

    def __init__(self):
        super().__init__()
        self.stem = ConvBNReLU(1, 16, 3)                                    # (16, 32, 32)
        self.down = DepthwiseSeparable(16, 32, stride=2)                    # (32, 16, 16)
        self.block1 = Residual(32, 32)                                      # (32, 16, 16)
        self.branches = TwoBranches(32, 24)                                 # (48, 16, 16)
        self.maxpool = nn.MaxPool2d(kernel_size=2, stride=2)                # (48, 8, 8)
        self.block2 = Residual(48, 64)                                      # (64, 8, 8)
        self.block3 = DepthwiseSeparable(64, 64)                            # (64, 8, 8)
        self.block4 = Residual(64, 96, stride=2)                            # (96, 4, 4)
        self.block5 = DepthwiseSeparable(96, 124)                           # (124, 4, 4)
        self.block6 = InvertedResidual(124, 248)                            # (124, 4, 4)
        self.avgpool = nn.AdaptiveAvgPool2d(1)                              # (124, 1, 1)
        self.fc = nn.Linear(124, 62)

    def forward(self, x):
        x = self.stem(x)
        x = self.down(x)
        x = self.block1(x)
        x = self.branches(x)
        x = self.maxpool(x)
        x = self.block2(x)
        x = self.block3(x)
        x = self.block4(x)
        x = self.block5(x)
        x = self.block6(x)
        x = self.avgpool(x)
        x = torch.flatten(x, 1)
        return self.fc(x)


ARCHITECTURES = {"digits_resnet": DigitsResNet, "digits_mobilenet": DigitsMobileNet, "glyphs_net": GlyphsNet}


def load(name):
    """A trained network.

    Parameters
    ----------
    name : str
        A key of `refquant.data.NETWORKS`.

    Returns
    -------
    torch.nn.Module
        In eval mode, float32, with the bundled weights.

    Raises
    ------
    ArgumentError
        If there is no such network.
    RefquantError
        If its file is missing or damaged.
    """
    from refquant.errors import choose

    module = ARCHITECTURES[choose("data.architectures_torch.load", "name", name, ARCHITECTURES)]()
    set_arrays(module, load_arrays(name))
    return module.eval()


def get_arrays(module):
    """The float32 arrays of a module under their ``state_dict`` names: all of them but the step counters of BatchNorm."""
    return {key: tensor.detach().numpy().copy() for key, tensor in module.state_dict().items() if not _is_counter(key)}


def set_arrays(module, arrays):
    """Put what `get_arrays` returned into a module of the same architecture."""
    state = {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}
    state.update({key: tensor for key, tensor in module.state_dict().items() if _is_counter(key)})
    module.load_state_dict(state, strict=True)


def _is_counter(key):
    return key.endswith("num_batches_tracked")
