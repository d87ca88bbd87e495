"""`build`: published architectures as graphs, with weights drawn from a seed."""

from typing import Callable, NamedTuple

from refquant.errors import choose
from refquant.graph import Builder
from refquant.zoo.bert import bert_base_layer
from refquant.zoo.mobilenet_v2 import mobilenet_v2
from refquant.zoo.plain import densenet121, squeezenet1_1, vgg16
from refquant.zoo.resnet import resnet18, resnet34, resnet50, resnext50_32x4d, wide_resnet50_2

__all__ = ["Architecture", "ARCHITECTURES", "architectures", "build"]


def _images(size=224):
    return None, 3, size, size


def _tokens(size=128):
    return None, size, 768


class Architecture(NamedTuple):
    """A published network.

    Attributes
    ----------
    name : str
        torchvision's.
    build : callable
        From an input value.
    parameters : int
    giga_multiply_adds : float
        Both as torchvision publishes them with its weights (``num_params``, and ``_ops`` to three decimals, for one image of 3×224×224).
        Of BERT's layer: a twelfth of the published 85,054,464 of the encoder, and the products of its layers for 128 tokens.
    input : callable
        ``input(size)`` returns the shape of the input.
    """

    name: str
    build: Callable
    parameters: int
    giga_multiply_adds: float
    input: Callable = _images


ARCHITECTURES = (
    Architecture("resnet18", resnet18, 11_689_512, 1.814),
    Architecture("resnet34", resnet34, 21_797_672, 3.664),
    Architecture("resnet50", resnet50, 25_557_032, 4.089),
    Architecture("resnext50_32x4d", resnext50_32x4d, 25_028_904, 4.230),
    Architecture("wide_resnet50_2", wide_resnet50_2, 68_883_240, 11.398),
    Architecture("mobilenet_v2", mobilenet_v2, 3_504_872, 0.301),
    Architecture("vgg16", vgg16, 138_357_544, 15.470),
    Architecture("squeezenet1_1", squeezenet1_1, 1_235_496, 0.349),
    Architecture("densenet121", densenet121, 7_978_856, 2.834),
    Architecture("bert_base_layer", bert_base_layer, 7_087_872, 0.931, _tokens),
)


def architectures():
    """Return the names of all architectures."""
    return tuple(a.name for a in ARCHITECTURES)


def build(name, *, seed=0, size=None):
    """Return a network with weights drawn from a seed.

    Parameters
    ----------
    name : str
        One of `architectures`.
    seed : int
    size : int, optional
        Height and width of images, 224 unless given; or the number of tokens, 128.

    Returns
    -------
    Model
        On float32 arrays.

    Raises
    ------
    ArgumentError
        An unknown name, with the list of names.

    Examples
    --------
    >>> build("squeezenet1_1").parameter_count
    1235496
    """
    by_name = {a.name: a for a in ARCHITECTURES}
    architecture = by_name[choose("zoo.build", "name", name, by_name)]
    builder = Builder(seed=seed, name=name)
    shape = architecture.input() if size is None else architecture.input(size)
    return builder.build(architecture.build(builder.input("x", shape)))
