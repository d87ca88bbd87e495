"""Published architectures have the published parameters and multiply-adds, and run at reduced width."""

import json

import numpy as np
import pytest

from refquant import zoo
from refquant.cli.main import main
from refquant.errors import ArgumentError, RangeError, ShapeError
from refquant.graph.work import multiply_adds

SMALL = {"inception_v3": 80, "unet": 188}
names = pytest.mark.parametrize("name", zoo.architectures())


def small(name, seed=0):
    """A network of the same layers that runs in a blink."""
    return zoo.build(name, width=0.125, size=SMALL.get(name, 32 if name.startswith("bert") else 64), seed=seed)


def batch(model, n=2):
    return np.random.default_rng(1).standard_normal((n, *model.nodes[0].attrs["shape"][1:])).astype(np.float32)


@pytest.mark.parametrize("architecture", zoo.ARCHITECTURES, ids=lambda a: a.name)
def test_parameters_and_multiply_adds(architecture):
    model = zoo.build(architecture.name, empty=True)
    assert model.parameter_count == architecture.parameters
    assert f"{sum(multiply_adds(model).values()) / 1e9:.3f}" == f"{architecture.giga_multiply_adds:.3f}"


def test_a_count_that_is_wrong_is_found(monkeypatch, capsys):
    wrong = tuple(a._replace(parameters=a.parameters + 1) if a.name == "alexnet" else a for a in zoo.ARCHITECTURES[:2])
    assert main(["zoo"]) == 0
    monkeypatch.setattr(zoo, "ARCHITECTURES", wrong)
    capsys.readouterr()
    assert main(["zoo"]) == 1 and "OTHERWISE" in capsys.readouterr().out


@names
def test_reduced_networks_compute_what_pytorch_computes(name):
    torch = pytest.importorskip("torch")
    from refquant import interop
    from refquant.backends.torch_module import to_torch

    model = small(name)
    x, module = batch(model), to_torch(model)
    with torch.no_grad():
        theirs = module(torch.from_numpy(x)).numpy()
    (ours,) = model.run(x, real="float64")
    assert ours.shape == theirs.shape and np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
    again = interop.from_torch(module, (torch.from_numpy(x),))
    assert [n.op for n in again.nodes if n.op != "constant"] == [n.op for n in model.nodes if n.op != "constant"]


def test_seeds_and_empty_weights():
    one, same, other = small("resnet18"), small("resnet18"), small("resnet18", seed=1)
    weight = one.node("conv1").params["weight"]
    assert np.array_equal(weight, same.node("conv1").params["weight"]) and not np.array_equal(weight, other.node("conv1").params["weight"])
    empty = zoo.build("vgg19", empty=True).node("classifier_0").params["weight"]
    assert empty.shape == (4096, 25088) and empty.strides == (0, 0)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: zoo.build("resnet500"), ArgumentError, "did you mean 'resnet50'"),
        (lambda: zoo.build("resnet18", width=0), RangeError, "width=0 must be positive"),
        (lambda: zoo.build("resnet18", size=-1), RangeError, "size=-1"),
        (lambda: zoo.build("inception_v3", size=32, empty=True), ShapeError, "larger than the padded input"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_command_prints_layers(capsys):
    assert main(["zoo", "mobilenet_v2", "--width", "0.25", "--size", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("mobilenet_v2: 155 nodes") and lines[1].split() == ["layer", "operation", "shape", "settings", "parameters", "MAC"]
    assert main(["zoo", "digits_resnet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 38266 and sum(layer["parameters"] for layer in found["layers"]) == 38266
    assert main(["zoo", "--width", "2"]) == 2
