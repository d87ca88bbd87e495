"""`load` and `names`: the table of networks."""

from typing import Callable, NamedTuple

from refquant.errors import choose
from refquant.graph import Builder
from refquant.zoo.blocks import digits_mobilenet, digits_resnet, glyphs_net

__all__ = ["Network", "NETWORKS", "names", "load"]


class Network(NamedTuple):
    """A network: its name, the function that builds it from an input value, and the shape of its input."""

    name: str
    build: Callable
    input_shape: tuple


NETWORKS = (
    Network("digits_resnet", digits_resnet, (None, 1, 8, 8)),
    Network("digits_mobilenet", digits_mobilenet, (None, 1, 8, 8)),
    Network("glyphs_net", glyphs_net, (None, 1, 32, 32)),
)


def names():
    """Return the names of all networks."""
    return tuple(network.name for network in NETWORKS)


def load(name):
    """Return a trained network.

    Parameters
    ----------
    name : str
        One of `names`.

    Returns
    -------
    Model
        On float32 arrays. Nodes and module paths are named as in the PyTorch module of `refquant.data.architectures_torch`.

    Raises
    ------
    ArgumentError
        An unknown name, with the list of names.

    Examples
    --------
    >>> from refquant.data import load_split
    >>> x, labels = load_split("digits", "test")
    >>> y, = load("digits_mobilenet")(x[:16])
    >>> y.shape, int((y.argmax(1) == labels[:16]).sum())
    ((16, 10), 16)
    """
    from refquant import data

    by_name = {network.name: network for network in NETWORKS}
    network = by_name[choose("zoo.load", "name", name, by_name)]
    builder = Builder(data.load_arrays(name), name=name)
    return builder.build(network.build(builder.input("x", network.input_shape)))
