"""Networks through PyTorch's FX workflow and through refquant's: same observers, same fusions, same parameters, same codes."""

import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.engine

from torch import nn  # noqa: E402

from refquant import interop  # noqa: E402
from refquant.backends import torch_fx  # noqa: E402
from refquant.cli import verify_models  # noqa: E402
from refquant.cli.verify_models import ENGINES, NETWORKS, compare_network  # noqa: E402


def check(name, engine, **options):
    result = compare_network(name, engine, **options)
    assert result.exact, f"{name} on {engine}: {result.first}"
    assert result.observers > 3 and result.layers > 3 and result.outputs > 5_000
    return result


@pytest.mark.parametrize("seed", range(8))
def test_random_classifiers_agree(seed):
    check(f"plain-{seed}", ENGINES[seed % 4], order=torch_fx.real_order())


@pytest.mark.parametrize("seed", range(100, 116))
def test_random_networks_of_all_kinds_of_layers_agree(seed):
    check(f"wide-{seed}", ENGINES[seed % 4])


@pytest.mark.parametrize("seed", [17, 35, 53, 55, 111, 130])
def test_random_networks_of_shared_modules_parts_and_operations_in_place_agree(seed):
    assert compare_network(f"mixed-{seed}", ENGINES[seed % 4]).exact


def test_a_published_network_agrees():
    check("squeezenet1_1@48", "fbgemm")


@pytest.mark.parametrize("name, engine", [("digits_resnet", "x86"), ("digits_mobilenet", "qnnpack"), ("plain-1", "onednn"), ("wide-3", "fbgemm"), ("wide-4", "qnnpack")])
def test_training_is_prepared_alike(name, engine):
    check(name, engine, qat=True)


def test_what_pytorch_cannot_train_is_refused_too(monkeypatch):
    result = compare_network("wide-0", "qnnpack", qat=True)
    assert result.refused and not result.first
    monkeypatch.setattr(torch_fx, "prepared_module", lambda *arguments, **options: None)
    assert "PyTorch prepares it, refquant refuses" in compare_network("wide-0", "qnnpack", qat=True).first


def test_a_layer_that_folds_its_norm_is_found(monkeypatch):
    """Without the way through ``γ/σ`` and the norm, values round elsewhere: the plain convolution of the folded weight."""
    from refquant.workflow.prepare_qat_fx import QatLayer

    folded = lambda layer, node: [node.replace(params={**node.params, "weight": layer.fake_quant(node.params["weight"])})]  # noqa: E731
    monkeypatch.setattr(QatLayer, "nodes", folded)
    assert not compare_network("digits_mobilenet", "x86", qat=True).exact


def test_training_rounds_weights_of_layers_that_a_regular_expression_leaves_out(monkeypatch):
    from torch.ao import quantization as tq

    from refquant import workflow
    from refquant.errors import UnsupportedError

    def mappings():
        return workflow.get_default_qat_qconfig_mapping("fbgemm").set_module_name_regex("conv", None), tq.get_default_qat_qconfig_mapping("fbgemm").set_module_name_regex("conv", None)

    assert compare_network("small", "fbgemm", small(), mappings=mappings(), qat=True).exact
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["refquant.workflow.prepare_qat_fx"], "_swapped_by", lambda prepared, mapping: {n.path: prepared.qconfigs.get(n.name) for n in prepared.model.nodes if n.is_module})
        assert not compare_network("small", "fbgemm", small(), mappings=mappings(), qat=True).exact
    alone = workflow.QConfigMapping("fbgemm").set_module_name_regex("conv", workflow.get_default_qat_qconfig("fbgemm"))
    module, batches = small()
    with pytest.raises(UnsupportedError, match="name it: set_module_name"):
        workflow.prepare_qat_fx(interop.from_torch(module, (batches[0],)), alone, (batches[0],))


def test_a_type_left_out_of_fused_layers_in_training_is_refused_by_both():
    from torch.ao import quantization as tq

    from refquant import workflow

    mappings = (m.get_default_qat_qconfig_mapping("fbgemm").set_object_type(nn.Conv2d, None) for m in (workflow, tq))
    assert compare_network("small", "fbgemm", small(), mappings=tuple(mappings), qat=True).refused


def test_there_are_enough_networks():
    assert len(NETWORKS) >= 50 and len(set(NETWORKS)) == len(NETWORKS)


# Faults that the comparison must find.


class Small(nn.Module):
    def __init__(self, relu=True):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu, self.fc = nn.Conv2d(3, 8, 3), nn.ReLU() if relu else nn.Identity(), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.relu(self.conv(x)).mean((2, 3)))


def small(relu=True):
    rng = np.random.default_rng(0)
    return Small(relu).eval(), [rng.standard_normal((8, 3, 8, 8)).astype(np.float32) for _ in range(2)]


def test_other_fusions_observers_and_codes_are_found(monkeypatch):
    assert compare_network("small", "fbgemm", small()).exact
    monkeypatch.setattr(torch_fx, "module_calls", lambda prepared: [("conv", "Conv2d")])
    assert "fused otherwise" in compare_network("small", "fbgemm", small()).first
    monkeypatch.undo()
    monkeypatch.setattr(torch_fx, "placement", lambda prepared: [("x", 0)])
    result = compare_network("small", "fbgemm", small())
    assert "observers elsewhere" in result.first and result.observers == -1
    monkeypatch.undo()
    run_bits = torch_fx.run_bits

    def spoilt(*arguments, **options):
        rows = run_bits(*arguments, **options)
        codes = rows[2].codes.copy()
        codes.flat[5] ^= 1
        return [*rows[:2], rows[2]._replace(codes=codes), *rows[3:]]

    monkeypatch.setattr(torch_fx, "run_bits", spoilt)
    result = compare_network("small", "fbgemm", small())
    assert (result.differing, result.parameters) == (1, 0) and not result.exact


def test_the_table_and_the_exit_status(monkeypatch, capsys):
    assert verify_models.compare_models(["plain-1"], ["fbgemm"]) == 0
    text = capsys.readouterr().out
    assert "plain-1" in text and "1 of 1 networks, 1 comparisons" in text and text.rstrip().endswith("0 comparisons differ")
    monkeypatch.setattr(torch_fx, "placement", lambda prepared: [])
    assert verify_models.compare_models(["plain-1"], ["fbgemm"]) == 1
    assert "observers elsewhere" in capsys.readouterr().out
