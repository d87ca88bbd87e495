"""Published architectures have the published parameters and multiply-adds."""

import pytest

from refquant import zoo
from refquant.errors import ArgumentError
from refquant.graph.work import multiply_adds


@pytest.mark.parametrize("architecture", zoo.ARCHITECTURES, ids=lambda a: a.name)
def test_parameters_and_multiply_adds(architecture):
    model = zoo.build(architecture.name)
    assert model.parameter_count == architecture.parameters
    assert f"{sum(multiply_adds(model).values()) / 1e9:.3f}" == f"{architecture.giga_multiply_adds:.3f}"


def test_unknown_architecture():
    with pytest.raises(ArgumentError, match="did you mean 'resnet50'"):
        zoo.build("resnet500")
