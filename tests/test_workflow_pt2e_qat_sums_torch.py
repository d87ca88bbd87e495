"""Sums in PT2E's quantization-aware training beside torchao's own: which branch is fused, and which is the other input."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchao")
pytestmark = pytest.mark.engine

from refquant.backends import torch_pt2e_qat  # noqa: E402
from refquant.backends.torch_module import to_torch  # noqa: E402
from refquant.cli.pt2e_qat import compare_qat  # noqa: E402
from refquant.graph import Builder, Node  # noqa: E402

BATCHES = [(np.random.default_rng(seed).standard_normal((4, 3, 6, 6)) * (1 + seed)).astype(np.float32) for seed in range(2)]


def conv(x, norm=True, kernel=1):
    y = x.conv2d(4, kernel, padding=kernel // 2, bias=not norm)
    return y.batch_norm() if norm else y


def long(x):
    return conv(conv(x, kernel=3).relu())


def projected_first(x):
    """As a RegNet has it: torchao moves a scaled convolution to where its norm is read."""
    shortcut = conv(x)
    return (shortcut + long(x)).relu()


def projected_last(x):
    y = long(x)
    return (y + conv(x)).relu()


def behind_another_user(x):
    y = conv(x)
    return ((y + long(x)).relu() + conv(y)).relu()


def shared_by_two_sums(x):
    y, z = conv(x), conv(x)
    return (y + z).relu() + (z + conv(x)).relu()


def of_three(x):
    y, z = conv(x), conv(x)
    return (y + z + conv(x)).relu()


# fmt: off
SUMS = {
    "projected first": projected_first,
    "projected last": projected_last,
    "no norms": lambda x: (conv(x, False) + conv(x, False)).relu(),
    "norm on the first": lambda x: (conv(x) + conv(x, False)).relu(),
    "norm on the second": lambda x: (conv(x, False) + conv(x)).relu(),
    "without a function": lambda x: conv(x) + conv(x),
    "relu6": lambda x: (conv(x) + conv(x)).relu6(),
    "of three": of_three,
    "shared by two sums": shared_by_two_sums,
    "behind another user": behind_another_user,
    "with the input": lambda x: (conv(x.conv2d(4, 1)) + x.conv2d(4, 1)).relu() + conv(x),
    "of functions": lambda x: (conv(x).relu() + conv(x).relu()).relu(),
}
# fmt: on


def network(name):
    b = Builder(seed=3)
    return b.build(SUMS[name](b.input("x", (None, 3, 6, 6))).adaptive_avg_pool2d(1).flatten(1).linear(3))


@pytest.mark.parametrize("name", SUMS)
def test_agrees(name):
    found = compare_qat(to_torch(network(name)), network(name), BATCHES)
    assert found.verdict == "equal" and found.counts["codes"] > 1000, found


def test_sum_with_itself():
    b = Builder(seed=3)
    y = conv(b.input("x", (None, 3, 6, 6)))
    model = b.build((y + y).relu().adaptive_avg_pool2d(1).flatten(1).linear(3))
    assert compare_qat(to_torch(model), model, BATCHES).verdict in ("equal", "both refuse")


@pytest.mark.parametrize("target", [".add_", "operator.iadd", "torch.add", ".add"])
@pytest.mark.parametrize("name", ["projected first", "projected last", "of three"])
def test_other_spellings(name, target):
    model = network(name)
    model = model.with_nodes([Node(n.name, n.op, n.inputs, n.attrs, n.params, target=target, path=n.path) if n.op == "add" else n for n in model.nodes])
    assert compare_qat(to_torch(model), model, BATCHES).verdict == "equal"


def test_places_by_the_order_of_execution_would_differ(monkeypatch):
    """The fault: operations told by where torchao has moved them."""
    monkeypatch.setattr(torch_pt2e_qat, "numbered_operations", lambda module: module)
    assert compare_qat(to_torch(network("projected first")), network("projected first"), BATCHES).verdict == "annotations"
