"""What PyTorch's FX workflow fuses and quantizes, as two tables.

Chains are given by what their nodes were in the source, in order of execution.

Source
------
PyTorch 2.13, torch/ao/quantization/backend_config/native.py and _common_operator_config_utils.py: the BackendConfig that
``prepare_fx`` takes unless it is given another.
"""

from typing import NamedTuple

from refquant.errors import ArgumentError

__all__ = ["OWN", "SHARE", "Fusion", "FUSIONS", "Quantized", "QUANTIZED", "PASSING", "WEIGHTED"]

OWN = "own"
"""The output gets an observer of its own."""
SHARE = "share"
"""The output, and all inputs, share the observer of the first input: values pass through without new parameters."""

WEIGHTED = ("conv1d", "conv2d", "linear")
"""Operations whose weights are quantized too."""


class Fusion(NamedTuple):
    """A chain that becomes one node before observers are placed.

    Attributes
    ----------
    targets : tuple of str
    target : str
        What the one node is then called.
    fold : {None, "conv", "linear"}
        How a batch norm goes into the weights: the two formulas round differently.
    activation : {None, "relu"}
    """

    targets: tuple
    target: str
    fold: str
    activation: str


class Quantized(NamedTuple):
    """A chain that is quantized as a whole: observed at its first node's inputs and its last node's output.

    Attributes
    ----------
    targets : tuple of str
    observation : {OWN, SHARE}
    """

    targets: tuple
    observation: str


_RELUS = ("nn.ReLU", "F.relu")


def _conv_fusions(dims):
    conv, norm, fused = f"nn.Conv{dims}d", f"nn.BatchNorm{dims}d", f"nni.ConvReLU{dims}d"
    yield Fusion((conv, norm), conv, "conv", None)
    for relu in _RELUS:
        yield Fusion((conv, norm, relu), fused, "conv", "relu")
        yield Fusion((conv, relu), fused, None, "relu")


FUSIONS = (
    *_conv_fusions(1),
    *_conv_fusions(2),
    *(Fusion(("nn.Linear", relu), "nni.LinearReLU", None, "relu") for relu in _RELUS),
    Fusion(("nn.Linear", "nn.BatchNorm1d"), "nn.Linear", "linear", None),
    *(Fusion(("nn.BatchNorm2d", relu), "nni.BNReLU2d", None, "relu") for relu in _RELUS),
)

QUANTIZED = (
    *(Quantized((target,), OWN) for target in ("nn.Conv1d", "nn.Conv2d", "nn.Linear", "nn.BatchNorm2d", "nn.Dropout", "F.dropout")),
    *(Quantized((target,), OWN) for target in ("nni.ConvReLU1d", "nni.ConvReLU2d", "nni.LinearReLU", "nni.BNReLU2d")),
    # A batch norm folded into a linear layer leaves a linear layer and its ReLU behind, which fusion has passed by.
    *(Quantized(("nn.Linear", relu), OWN) for relu in _RELUS),
    *(Quantized((add,), OWN) for add in ("operator.add", "torch.add")),
    *(Quantized((add, relu), OWN) for add in ("operator.add", "torch.add") for relu in (*_RELUS, "torch.relu")),
    Quantized(("torch.cat",), SHARE),
    *(Quantized((target,), SHARE) for target in ("nn.ReLU", "F.relu", ".relu", "nn.Identity", "torch.flatten", ".reshape", ".view")),
    *(Quantized((target,), SHARE) for target in ("nn.MaxPool2d", "F.max_pool2d", "nn.AvgPool2d", "F.avg_pool2d")),
    *(Quantized((target,), SHARE) for target in ("nn.AdaptiveAvgPool2d", "F.adaptive_avg_pool2d")),
)  # fmt: skip

PASSING = (*(row.targets[0] for row in QUANTIZED if row.observation == SHARE), "nn.Dropout", "F.dropout", "nn.BatchNorm2d", "nni.BNReLU2d")
"""What PyTorch lowers wherever it stands between two quantized values, whether its QConfig says so or not."""

for _table in (FUSIONS, QUANTIZED):
    if len({row.targets for row in _table}) != len(_table):
        raise ArgumentError("workflow.patterns: a chain stands twice in a table; remove one")
