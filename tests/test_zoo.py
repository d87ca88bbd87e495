"""The bundled networks as graphs: names, shapes, accuracy."""

import pytest

from refquant import data, zoo
from refquant.errors import ArgumentError


@pytest.mark.parametrize("name", zoo.names())
def test_every_network_loads_and_recognizes_its_images(name):
    model = zoo.load(name)
    x, labels = data.load_split(name, "test")
    y, = model(x[:256])
    assert (y.argmax(1) == labels[:256]).mean() > 0.97
    assert model.shapes()[model.outputs[0]] == (None, y.shape[1])
    assert set(data.NETWORKS) == set(zoo.names())


def test_every_array_of_a_file_is_used_and_every_parameter_comes_from_it():
    for name in zoo.names():
        arrays = data.load_arrays(name)
        model = zoo.load(name)
        taken = {f"{n.path}.{key}" for n in model.nodes for key in n.params}
        assert taken == set(arrays)


def test_unknown_names_are_refused():
    with pytest.raises(ArgumentError, match="did you mean 'digits_resnet'"):
        zoo.load("digit_resnet")
