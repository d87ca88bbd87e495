"""What the table of operators says an engine lacks, asked of the engine: it refuses, or has float kernels alone."""

import numpy as np
import pytest

from refquant.ops.support import Support, support

pytestmark = pytest.mark.engine

_BYTES = {"tensor(uint8)", "tensor(int8)"}
#: ONNX's operators behind a line of the table that ONNX Runtime has no kernel of codes for.
_FLOAT_IN_RUNTIME = {
    "conv_transpose2d": "ConvTranspose", "threshold": "ThresholdedRelu", "celu": "Celu", "batch_norm": "BatchNormalization", "layer_norm": "LayerNormalization",
    "group_norm": "GroupNormalization", "instance_norm": "InstanceNormalization", "embedding_bag": "ReduceSum",
}  # fmt: skip
_KERNEL_OF_CODES = "MaxPool"


def _takes_bytes(name):
    state = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
    kernels = [k for k in state.get_all_opkernel_def() if k.provider == "CPUExecutionProvider" and k.domain == "" and k.op_name == name]
    return bool(_BYTES & {t for kernel in kernels for allowed in kernel.type_constraints.values() for t in allowed})


@pytest.mark.parametrize("op", _FLOAT_IN_RUNTIME)
def test_onnx_runtime_has_float_kernels_alone(op):
    assert support(op, "onnxruntime")[0] is Support.ABSENT
    assert not _takes_bytes(_FLOAT_IN_RUNTIME[op]) and _takes_bytes(_KERNEL_OF_CODES)


def test_onnx_runtime_has_no_bags_and_no_scalars_of_codes():
    state = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
    names = {kernel.op_name for kernel in state.get_all_opkernel_def()} | {schema.name for schema in state.get_all_operator_schema()}
    assert not [name for name in names if "EmbeddingBag" in name or name.startswith("QLinear") and "Scalar" in name] and "QLinearAdd" in names


#: Of TensorFlow Lite: (operator, version, options, shapes of inputs, constants, shape of the output), all int8.
_MODELS = {
    "conv3d": ("CONV_3D", 1, ("Conv3DOptions", {"strideD": 1, "strideH": 1, "strideW": 1}), [(1, 2, 3, 4, 2)], [(1, 1, 1, 2, 3)], (1, 2, 3, 4, 3)),
    "conv_transpose3d": ("CONV_3D_TRANSPOSE", 1, ("Conv3DOptions", {"strideD": 1, "strideH": 1, "strideW": 1}), [(5,), (1, 1, 1, 3, 2), (1, 2, 3, 4, 2)], [], (1, 2, 3, 4, 3)),
    "elu": ("ELU", 1, None, [(1, 8)], [], (1, 8)),
    "avg_pool3d": ("AVERAGE_POOL_2D", 2, ("Pool2DOptions", {"strideH": 1, "strideW": 1, "filterHeight": 2, "filterWidth": 2}), [(1, 2, 3, 4, 2)], [], (1, 2, 2, 3, 2)),
}  # fmt: skip


def _allocate(runner, op):
    from refquant.backends.litert_models import build_model

    builtin, version, options, inputs, constants, output = _MODELS[op]
    described = [(shape, "int8", 0.05, 0) for shape in inputs]
    weights = [(np.ones(shape, np.int8), 0.05, 0, 0) for shape in constants]
    content = build_model(builtin, version, options, described, weights, (output, "int8", 0.05, 0))
    runner._interpreter.Interpreter(model_content=content, experimental_op_resolver_type=runner._resolver).allocate_tensors()


@pytest.mark.parametrize("engine", ("tflite_ref", "tflite_opt", "xnnpack"), indirect=True)
@pytest.mark.parametrize("op", _MODELS)
def test_tensorflow_lite_refuses(engine, op):
    if support(op, engine.name)[0] is not Support.ABSENT:
        _allocate(engine, op)  # such as ELU, which the reference resolver alone lacks
        return
    with pytest.raises((RuntimeError, ValueError)):
        _allocate(engine, op)


def test_tensorflow_lite_has_no_such_operator():
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    names = {name for name in vars(schema.BuiltinOperator) if name.isupper()}
    assert not [name for name in names if any(word in name for word in ("SIGMOID_HARD", "HARD_SIGMOID", "THRESHOLD", "CELU", "LAYER_NORM", "GROUP_NORM", "INSTANCE_NORM", "BATCH_NORM"))]
    assert {"HARD_SWISH", "ELU", "L2_NORMALIZATION"} <= names


def _codes(torch, shape, dtype="quint8"):
    return torch.quantize_per_tensor(torch.arange(float(np.prod(shape))).reshape(shape), 0.5, 3, getattr(torch, dtype))


@pytest.mark.parametrize("engine", ("fbgemm", "qnnpack", "x86"), indirect=True)
def test_pytorch_refuses(engine, monkeypatch):
    import torch

    x = _codes(torch, (1, 2, 4, 4, 4))
    monkeypatch.setattr(torch.backends.quantized, "engine", engine.name)
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.where(torch.ones(x.shape, dtype=torch.bool), x, x)
    for name in ("sub", "exp", "log", "sqrt", "rsqrt", "abs"):
        with pytest.raises((RuntimeError, NotImplementedError)):
            getattr(torch, name)(*[x] * (2 if name == "sub" else 1))
    packed = torch.ops.quantized.linear_prepack(torch.quantize_per_tensor(torch.ones(3, 4), 0.5, 0, torch.qint8), None)
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.ops.quantized.linear_leaky_relu(_codes(torch, (2, 4)), packed, 0.5, 0, 0.01)
    if engine.name == "qnnpack":
        with pytest.raises((RuntimeError, NotImplementedError)):
            torch.nn.functional.max_pool3d(x, 2)
    else:
        assert torch.nn.functional.max_pool3d(x, 2).shape == (1, 2, 2, 2, 2)


@pytest.mark.parametrize("engine", ("fbgemm",), indirect=True)
def test_pytorch_s_product_of_two_tensors_is_one_of_real_numbers(engine):
    """Of one product a sum needs no order: dequantize, multiply, quantize."""
    import torch

    a, b = _codes(torch, (7, 1)), _codes(torch, (1, 9))
    y = torch.ops.quantized.matmul(a, b, 0.25, 5)
    assert torch.equal(y.int_repr(), torch.quantize_per_tensor(a.dequantize() @ b.dequantize(), 0.25, 5, torch.quint8).int_repr())


def test_pt2e_leaves_in_float32_what_the_table_says():
    pytest.importorskip("torchao")
    import torch
    from refquant.backends.torch_pt2e import default_quantizer, prepare_pt2e

    modules = {
        "layer_norm": (torch.nn.LayerNorm(8), (2, 8)), "group_norm": (torch.nn.GroupNorm(2, 8), (2, 8, 4)), "instance_norm": (torch.nn.InstanceNorm1d(8), (2, 8, 4)),
        "conv_transpose2d": (torch.nn.ConvTranspose2d(3, 4, 2), (1, 3, 5, 5)), "linear": (torch.nn.Linear(8, 4), (2, 8)),
    }  # fmt: skip
    for op, (module, shape) in modules.items():
        graph = torch.export.export(module.eval(), (torch.ones(shape),), strict=True).module()
        prepared = prepare_pt2e(graph, default_quantizer())
        observed = [node for node in prepared.graph.nodes if "activation_post_process" in str(node.target)]
        assert bool(observed) == (support(op, "inductor")[0] is Support.EXACT), op
