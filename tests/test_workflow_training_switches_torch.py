"""Observers and fake-quantizers switched on and off in training, beside PyTorch's and torchao's own switches."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.engine

from torch import nn  # noqa: E402
from torch.ao import quantization as tq  # noqa: E402
from torch.ao.nn.intrinsic.qat import freeze_bn_stats, update_bn_stats  # noqa: E402

from test_workflow_standalone_torch import same_codes  # noqa: E402

from refquant import interop, workflow  # noqa: E402
from refquant.backends import torch_fx  # noqa: E402
from refquant.backends.torch_module import to_torch  # noqa: E402
from refquant.cli.verify_models import numerics_here  # noqa: E402
from refquant.errors import ArgumentError  # noqa: E402
from refquant.graph import Builder  # noqa: E402

SWITCHES = ("disable_observer", "disable_fake_quant", "enable_observer", "enable_fake_quant")
BATCHES = [(np.random.default_rng(seed).standard_normal((4, 3, 6, 6)) * (1 + seed)).astype(np.float32) for seed in range(6)]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.plain, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

    def forward(self, x):
        y = torch.relu(self.norm(self.conv(x)))
        return self.fc(torch.sigmoid(self.plain(y) + y).mean((2, 3)))


def pair(engine):
    module = Net().eval()
    theirs = torch_fx.prepared_module(module, engine, BATCHES[:1], order="float64", qat=True)
    ours = workflow.prepare_qat_fx(interop.from_torch(module, (BATCHES[0],)), workflow.get_default_qat_qconfig_mapping(engine), (BATCHES[0],))
    ours(BATCHES[0], real="float64")
    return ours, theirs


def their_pass(theirs, x):
    with torch.no_grad():
        return torch_fx._Float64Sums(theirs).run(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("engine", ["fbgemm", "qnnpack"])
def test_fx_switches(engine):
    ours, theirs = pair(engine)
    for name, x in zip(SWITCHES, BATCHES[1:]):
        assert getattr(workflow, name)(ours) is ours
        theirs.apply(getattr(tq, name))
        np.testing.assert_array_equal(ours(x, real="float64")[0], their_pass(theirs, x))
    assert same_codes(workflow.convert_fx(ours, numerics_here(engine)), torch_fx.quantized_module(theirs, engine), BATCHES[5], engine) >= 8


def test_a_switch_that_forgets_weights_is_found():
    """The fault: fake-quantizers of layers go on rounding."""
    ours, theirs = pair("fbgemm")
    layers, ours.layers = ours.layers, {}
    workflow.disable_fake_quant(ours)
    ours.layers = layers
    theirs.apply(tq.disable_fake_quant)
    assert (ours(BATCHES[1], real="float64")[0] != their_pass(theirs, BATCHES[1])).any()


def test_frozen_norms_in_training_compute_what_evaluation_does():
    """refquant's norms never move in FX training: what PyTorch has after ``freeze_bn_stats``."""
    _, theirs = pair("fbgemm")
    theirs.apply(tq.disable_observer)
    x = torch.from_numpy(BATCHES[1])
    with torch.no_grad():
        evaluated = theirs(x)
        assert torch.equal(theirs.train().apply(freeze_bn_stats)(x), evaluated)
        before = theirs.conv.bn.running_mean.clone()
        theirs.apply(update_bn_stats)(x)
        assert not torch.equal(theirs.conv.bn.running_mean, before)


def test_pt2e_switches():
    pytest.importorskip("torchao")
    from torchao.quantization.pt2e import fake_quantize

    from refquant.backends import torch_pt2e_qat

    b = Builder(seed=2)
    y = b.input("x", (None, 3, 6, 6)).conv2d(4, 3, bias=False).batch_norm().relu()
    model = b.build((y.conv2d(4, 1) + y).adaptive_avg_pool2d(1).flatten(1).linear(3))
    quantizer = workflow.X86InductorQuantizer().set_global(workflow.get_default_x86_inductor_quantization_config(is_qat=True))
    ours = workflow.prepare_qat_pt2e(model, quantizer, defects=("fixed_eps",))
    theirs = torch_pt2e_qat.prepared_qat_module(to_torch(model), BATCHES[0])
    for name, x in zip((None, *SWITCHES), BATCHES):
        if name:
            getattr(workflow, name)(ours)
            theirs.apply(getattr(fake_quantize, name))
        np.testing.assert_array_equal(ours(x, real="float64")[0], torch_pt2e_qat._simulated(theirs, x)[0])


def test_what_is_no_prepared_model():
    with pytest.raises(ArgumentError, match="not in a Net"):
        workflow.disable_observer(Net())
