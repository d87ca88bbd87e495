"""`build`: published architectures as graphs, with weights drawn from a seed."""

from typing import Callable, NamedTuple

from refquant.errors import RangeError, choose
from refquant.graph import Builder
from refquant.zoo.alexnet import alexnet
from refquant.zoo.bert import bert_base_encoder, bert_base_layer
from refquant.zoo.densenet import densenet
from refquant.zoo.efficientnet import efficientnet_b0
from refquant.zoo.googlenet import googlenet
from refquant.zoo.inception_v3 import inception_v3
from refquant.zoo.mnasnet import mnasnet
from refquant.zoo.mobilenet_v2 import mobilenet_v2
from refquant.zoo.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from refquant.zoo.regnet import regnet
from refquant.zoo.resnet import resnet
from refquant.zoo.shufflenet_v2 import shufflenet_v2
from refquant.zoo.squeezenet import squeezenet1_0, squeezenet1_1
from refquant.zoo.unet import unet
from refquant.zoo.vgg import vgg
from refquant.zoo.vit import vit_b_16
from refquant.zoo.widths import Widths

__all__ = ["Architecture", "ARCHITECTURES", "architectures", "build"]

_TORCHVISION = "torchvision 0.15 and later, num_params and _ops of its weights"


class Architecture(NamedTuple):
    """A published network.

    Attributes
    ----------
    name : str
        torchvision's.
    build : callable
        ``build(x, w)`` from an input value and `Widths`.
    parameters : int
        As published by `source`.
    giga_multiply_adds : float
        To three decimals, for one input of the usual size: as published by `source`, or else counted here from the figures that are.
    source : str
    size : int
        The usual height and width of images, or number of tokens.
    channels : int
        Of images; or the width of hidden states.
    tokens : bool
        Whether the input is (tokens, channels) in place of (channels, size, size).
    counted : bool
        Whether the multiply-adds are refquant's own count, because nobody published one of just these layers.
    """

    name: str
    build: Callable
    parameters: int
    giga_multiply_adds: float
    source: str = _TORCHVISION
    size: int = 224
    channels: int = 3
    tokens: bool = False
    counted: bool = False

    def shape(self, w, size=None):
        """Return the input's shape at a width and a size."""
        size = self.size if size is None else size
        return (None, size, w(self.channels)) if self.tokens else (None, self.channels, size, size)


_BERT = "Devlin et al., 2018: 12 layers of hidden size 768, twelve times 7,087,872; products counted here for 128 tokens, 22.3 GFLOP, where Sun et al., MobileBERT, 2020, give 22.5 for the whole BERT-base"
_UNET = "Ronneberger et al., 2015, figure 1: its 23 convolutions added up, as in Keras's zhixuhao/unet, 31,031,685, with a head of 1,157 in place of 130; products counted here from the same figure"
_INCEPTION = f"{_TORCHVISION}, 27,161,264, less its auxiliary classifier, 3,326,696, which inference does not run"

ARCHITECTURES = (
    Architecture("alexnet", alexnet, 61_100_840, 0.714),
    Architecture("vgg11", vgg((1, 1, 2, 2, 2)), 132_863_336, 7.609),
    Architecture("vgg11_bn", vgg((1, 1, 2, 2, 2), True), 132_868_840, 7.609),
    Architecture("vgg13", vgg((2, 2, 2, 2, 2)), 133_047_848, 11.308),
    Architecture("vgg13_bn", vgg((2, 2, 2, 2, 2), True), 133_053_736, 11.308),
    Architecture("vgg16", vgg((2, 2, 3, 3, 3)), 138_357_544, 15.470),
    Architecture("vgg16_bn", vgg((2, 2, 3, 3, 3), True), 138_365_992, 15.470),
    Architecture("vgg19", vgg((2, 2, 4, 4, 4)), 143_667_240, 19.632),
    Architecture("vgg19_bn", vgg((2, 2, 4, 4, 4), True), 143_678_248, 19.632),
    Architecture("resnet18", resnet((2, 2, 2, 2), bottleneck=False), 11_689_512, 1.814),
    Architecture("resnet34", resnet((3, 4, 6, 3), bottleneck=False), 21_797_672, 3.664),
    Architecture("resnet50", resnet((3, 4, 6, 3)), 25_557_032, 4.089),
    Architecture("resnet101", resnet((3, 4, 23, 3)), 44_549_160, 7.801),
    Architecture("resnet152", resnet((3, 8, 36, 3)), 60_192_808, 11.514),
    Architecture("resnext50_32x4d", resnet((3, 4, 6, 3), groups=32, base=4), 25_028_904, 4.230),
    Architecture("resnext101_32x8d", resnet((3, 4, 23, 3), groups=32, base=8), 88_791_336, 16.414),
    Architecture("wide_resnet50_2", resnet((3, 4, 6, 3), base=128), 68_883_240, 11.398),
    Architecture("wide_resnet101_2", resnet((3, 4, 23, 3), base=128), 126_886_696, 22.753),
    Architecture("squeezenet1_0", squeezenet1_0, 1_248_424, 0.819),
    Architecture("squeezenet1_1", squeezenet1_1, 1_235_496, 0.349),
    Architecture("densenet121", densenet((6, 12, 24, 16)), 7_978_856, 2.834),
    Architecture("densenet161", densenet((6, 12, 36, 24), 48, 96), 28_681_000, 7.728),
    Architecture("densenet169", densenet((6, 12, 32, 32)), 14_149_480, 3.360),
    Architecture("densenet201", densenet((6, 12, 48, 32)), 20_013_928, 4.291),
    Architecture("googlenet", googlenet, 6_624_904, 1.498),
    Architecture("inception_v3", inception_v3, 23_834_568, 5.713, _INCEPTION, 299),
    Architecture("mobilenet_v2", mobilenet_v2, 3_504_872, 0.301),
    Architecture("mobilenet_v3_small", mobilenet_v3_small, 2_542_856, 0.057),
    Architecture("mobilenet_v3_large", mobilenet_v3_large, 5_483_032, 0.217),
    Architecture("mnasnet0_5", mnasnet(0.5), 2_218_512, 0.104),
    Architecture("mnasnet1_0", mnasnet(1.0), 4_383_312, 0.314),
    Architecture("shufflenet_v2_x0_5", shufflenet_v2((48, 96, 192)), 1_366_792, 0.040),
    Architecture("shufflenet_v2_x1_0", shufflenet_v2((116, 232, 464)), 2_278_604, 0.145),
    Architecture("efficientnet_b0", efficientnet_b0, 5_288_548, 0.386),
    Architecture("regnet_x_400mf", regnet(22, 24, 24.48, 2.54, 16), 5_495_976, 0.414),
    Architecture("regnet_x_800mf", regnet(16, 56, 35.73, 2.28, 16), 7_259_656, 0.800),
    Architecture("regnet_y_400mf", regnet(16, 48, 27.89, 2.09, 8, 0.25), 4_344_144, 0.402),
    Architecture("regnet_y_800mf", regnet(14, 56, 38.84, 2.4, 16, 0.25), 6_432_512, 0.834),
    Architecture("unet", unet, 31_030_658, 150.428, _UNET, 572, 1, counted=True),
    Architecture("vit_b_16", vit_b_16, 86_567_656, 17.564),
    Architecture("bert_base_layer", bert_base_layer, 7_087_872, 0.931, _BERT, 128, 768, True, True),
    Architecture("bert_base_encoder", bert_base_encoder, 85_054_464, 11.174, _BERT, 128, 768, True, True),
)


def architectures():
    """Return the names of all architectures."""
    return tuple(a.name for a in ARCHITECTURES)

_WIDEST, _LARGEST = 64, 1 << 16


def build(name, *, seed=0, size=None, width=1, empty=False):
    """Return a network with weights drawn from a seed.

    Parameters
    ----------
    name : str
        One of `architectures`.
    seed : int
    size : int, optional
        Height and width of images, or the number of tokens; the architecture's usual ones unless given.
    width : float
        Factor of all numbers of channels, which become multiples of 8; the published network has 1. Small networks of the same layers
        are what tests run.
    empty : bool
        Draw no weights: all are zeros that take no memory, for questions about shapes and counts.

    Returns
    -------
    Model
        On float32 arrays.

    Raises
    ------
    ArgumentError
        An unknown name, with the list of names.
    RangeError
        A width or size that is not positive, or so large that no network of it could be held.
    ShapeError
        A size that is too small for the network's windows.

    Examples
    --------
    >>> build("squeezenet1_1").parameter_count, build("resnet152", empty=True).parameter_count
    (1235496, 60192808)
    >>> build("mobilenet_v2", width=0.25, size=64).node("features_0_0")
    Node('features_0_0', 'conv2d', ['x'])
    """
    by_name = {a.name: a for a in ARCHITECTURES}
    architecture = by_name[choose("zoo.build", "name", name, by_name)]
    for key, value, most in (("width", width, _WIDEST), ("size", 1 if size is None else size, _LARGEST)):
        if not 0 < value <= most:
            raise RangeError(f"zoo.build: {key}={value} must be positive and at most {most}; correct it")
    builder, w = Builder(seed=None if empty else seed, empty=empty, name=name), Widths(width)
    return builder.build(architecture.build(builder.input("x", architecture.shape(w, size)), w))
