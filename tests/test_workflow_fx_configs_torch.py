"""refquant's FX workflow beside PyTorch's own: custom configs, models in reference form, mappings given at conversion."""

import copy
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.engine

from test_workflow_fx_torch import CONV, Net, converted, images  # noqa: E402
from torch import nn  # noqa: E402
from torch.ao import quantization as tq  # noqa: E402
from torch.ao.quantization import quantize_fx  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from refquant import interop, workflow  # noqa: E402
from refquant.backends import torch_fx  # noqa: E402
from refquant.backends.torch_tensors import engine  # noqa: E402
from refquant.cli.verify_models import numerics_here  # noqa: E402
from refquant.errors import ArgumentError, RefquantError  # noqa: E402

warnings.filterwarnings("ignore", module="torch")


# Custom configs.


@pytest.mark.parametrize("inputs, outputs", [([0], []), ([], [0]), ([0], [0]), ([], [1]), ([0], [0, 1])])
def test_inputs_and_outputs_as_codes(inputs, outputs):
    module = Net(lambda m, x: (lambda y: (y, m.other(F.max_pool2d(y, 2))))(m.relu(m.conv(x))), **CONV)
    batches = images()
    custom = tq.fx.custom_config.PrepareCustomConfig().set_input_quantized_indexes(inputs).set_output_quantized_indexes(outputs)
    ours_custom = workflow.PrepareCustomConfig().set_input_quantized_indexes(inputs).set_output_quantized_indexes(outputs)
    with engine("fbgemm"), torch.no_grad():
        theirs = quantize_fx.prepare_fx(copy.deepcopy(module), tq.get_default_qconfig_mapping("fbgemm"), (torch.from_numpy(batches[0]),), prepare_custom_config=custom)
        ours = workflow.prepare_fx(interop.from_torch(module, (batches[0],)), workflow.get_default_qconfig_mapping("fbgemm"), (batches[0],), ours_custom)
        assert ours.placement == torch_fx.placement(theirs)
        for batch in batches:
            torch_fx._Float64Sums(theirs).run(torch.from_numpy(batch))
            ours(batch, real="float64")
        converted, int8 = quantize_fx.convert_fx(theirs), workflow.convert_fx(ours, numerics_here("fbgemm"))
        x, given = batches[0], torch.from_numpy(batches[0])
        if inputs:
            given = torch.quantize_per_tensor(given, 0.05, 90, torch.quint8)
            x = _as_qtensor(given)
        expected = converted(given)
    for a, b in zip(int8(x), expected, strict=True):
        assert hasattr(a, "qparams") == b.is_quantized
        if b.is_quantized:
            assert (a.qparams.scale, a.qparams.zero_point) == (b.q_scale(), b.q_zero_point())
            np.testing.assert_array_equal(a.values, b.int_repr().numpy())
        else:
            np.testing.assert_array_equal(a, b.numpy())


def _as_qtensor(tensor):
    from refquant import QParams, QTensor

    return QTensor(tensor.int_repr().numpy(), QParams(tensor.q_scale(), tensor.q_zero_point(), "uint8"))


def test_modules_that_are_not_looked_into_stay_float():
    class Two(nn.Sequential):
        pass

    module = Net(lambda m, x: m.other(m.block(m.conv(x))), block=Two(nn.Conv2d(4, 4, 1), nn.ReLU()), **CONV)
    custom = tq.fx.custom_config.PrepareCustomConfig().set_non_traceable_module_names(["block"])
    x = images()[0]
    theirs = quantize_fx.prepare_fx(copy.deepcopy(module), tq.get_default_qconfig_mapping("fbgemm"), (torch.from_numpy(x),), prepare_custom_config=custom)
    ours_custom = workflow.PrepareCustomConfig.from_dict({"non_traceable_module_name": ["block"]})
    ours = workflow.prepare_fx(interop.from_torch(module, (x,)), workflow.get_default_qconfig_mapping("fbgemm"), (x,), ours_custom)
    named = {"block_1": "block"}  # where PyTorch has one module, the graph has the layers inside
    assert [(named.get(name, name), k) for name, k in ours.placement] == torch_fx.placement(theirs)


def test_attributes_are_preserved():
    x = images()[0]
    model = interop.from_torch(Net(lambda m, x: m.conv(x), **CONV), (x,))
    model.labels = ["cat", "dog"]
    config = workflow.PrepareCustomConfig().set_preserved_attributes(["labels"])
    prepared = workflow.prepare_fx(model, workflow.get_default_qconfig_mapping("fbgemm"), (x,), config)
    prepared(x)
    assert workflow.convert_fx(prepared, convert_custom_config=workflow.ConvertCustomConfig().set_preserved_attributes(["labels"])).labels == ["cat", "dog"]
    assert not hasattr(workflow.convert_fx(prepared), "labels")
    assert workflow.PrepareCustomConfig.from_dict(config.to_dict()).to_dict() == {"preserved_attributes": ["labels"]}


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: workflow.PrepareCustomConfig().set_input_quantized_indexes([-1]), ArgumentError, "integers from 0 on"),
        (lambda: workflow.PrepareCustomConfig().set_preserved_attributes("labels"), ArgumentError, "must be a list of strings"),
        (lambda: workflow.PrepareCustomConfig.from_dict({"input_quantized": [0]}), ArgumentError, "did you mean"),
        (lambda: workflow.ConvertCustomConfig.from_dict({"labels": [0]}), ArgumentError, "preserved_attributes"),
        (lambda: converted(Net(lambda m, x: m.conv(x), **CONV), prepare_custom_config=workflow.PrepareCustomConfig().set_output_quantized_indexes([1])), ArgumentError, "index 1 but there are 1"),
        (lambda: converted(Net(lambda m, x: m.conv(x), **CONV), prepare_custom_config=workflow.PrepareCustomConfig().set_preserved_attributes(["a"])), ArgumentError, "no attribute 'a'"),
        (lambda: converted(Net(lambda m, x: m.conv(x), **CONV), backend_config=3), ArgumentError, "backend_config is a int but must be a BackendConfig"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call()


# Conversion.


def pair(module, engine_name="fbgemm"):
    batches = images()
    ours = workflow.prepare_fx(interop.from_torch(module, (batches[0],)), workflow.get_default_qconfig_mapping(engine_name), (batches[0],))
    for batch in batches:
        ours(batch, real="float64")
    return ours, torch_fx.prepared_module(module, engine_name, batches, order="float64"), batches


def test_reference_models_agree():
    module = Net(lambda m, x: m.relu(m.bn(m.conv(x)) + torch.sigmoid(m.other(x))), **CONV)
    ours, theirs, batches = pair(module)
    converted = quantize_fx.convert_to_reference_fx(copy.deepcopy(theirs))
    rows = torch_fx.compare_layers(
        workflow.layer_bits(workflow.convert_to_reference_fx(ours), batches[1], real="float64"), torch_fx.run_bits(converted, "fbgemm", batches[1], order="float64")
    )
    assert len(rows) == 5 and all(row.exact for row in rows)


def test_a_mapping_given_at_conversion_takes_layers_back():
    module = Net(lambda m, x: m.other(m.relu(m.conv(x))) + x, **CONV)
    ours, theirs, batches = pair(module)
    mappings = workflow.get_default_qconfig_mapping("fbgemm").set_module_name("other", None), tq.get_default_qconfig_mapping("fbgemm").set_module_name("other", None)
    with engine("fbgemm"):
        converted = quantize_fx.convert_fx(copy.deepcopy(theirs), qconfig_mapping=mappings[1])
    int8 = workflow.convert_fx(ours, numerics_here("fbgemm"), qconfig_mapping=mappings[0])
    rows = torch_fx.compare_layers(workflow.layer_bits(int8, batches[1], real="float64"), torch_fx.run_bits(converted, "fbgemm", batches[1], order="float64"))
    assert all(row.exact for row in rows) and int8.node("other").params["weight"].dtype == np.float32
    with pytest.raises(ArgumentError, match="may only take QConfigs away"):
        workflow.convert_fx(ours, qconfig_mapping=workflow.get_default_qconfig_mapping("onednn"))


def test_per_channel_weights_of_transposed_convolutions_have_no_kernel():
    module = Net(lambda m, x: m.up(m.conv(x)), up=nn.ConvTranspose2d(4, 4, 2), **CONV)
    with pytest.raises(AssertionError, match="Per channel weight observer is not supported"):
        torch_fx.prepared_module(module, "onednn", images())
    prepared = workflow.prepare_fx(interop.from_torch(module, (images()[0],)), workflow.get_default_qconfig_mapping("onednn"), (images()[0],))
    prepared(images()[0])
    with pytest.raises(RefquantError, match="whose weight has parameters per channel"):
        workflow.convert_fx(prepared)
