"""Layers of several steps and gathered blocks of ONNX Runtime's own domain in ONNX models: every bit beside a live ONNX Runtime."""

import logging

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from test_onnx_runtime import HERE, MICROSOFT, assert_same, both, codes, fed, fixed, single_node  # noqa: E402

from refquant.errors import ArgumentError, UnsupportedError  # noqa: E402
from refquant.interop import from_onnx  # noqa: E402

F = np.float32
AVX2 = pytest.mark.skipif(HERE == "onnxruntime", reason="this processor has no use for AVX2: MLAS takes its kernels for AVX-512")


def run(op, inputs, outputs, least=1, **attrs):
    model = single_node(op, inputs, outputs, MICROSOFT, **attrs)
    # on more threads an LSTM cuts its batch into pieces, each with a range of states of its own
    assert_same(model, {k: v[0] for k, v in inputs.items() if v is not None and not v[1]}, least, threads=1)


def refused(model, match, error=UnsupportedError):
    feeds = {}
    for i in model.graph.input:
        shape = [d.dim_value for d in i.type.tensor_type.shape.dim]
        feeds[i.name] = np.ones(shape, helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type))
    with pytest.raises(error, match=match):
        from_onnx(model, numerics=HERE, as_graph=False).run(feeds)


def attention_inputs(rng, batch, steps, k, heads, size, weight="int8", per_column=False, mask=None, past=None):
    wide = 3 * heads * size
    scale = rng.uniform(0.001, 0.02, wide).astype(F) if per_column else F(0.011)
    zero = codes(rng, np.shape(scale), weight) if weight == "uint8" else np.zeros(np.shape(scale), weight)
    return {
        "x": fed(codes(rng, (batch, steps, k), "uint8")), "w": fixed(codes(rng, (k, wide), weight)), "bias": fixed(rng.normal(0, 1, wide).astype(F)),
        "sx": fixed(F(0.03)), "sw": fixed(scale), "mask": None if mask is None else fed(mask.astype(np.int32)), "zx": fixed(np.uint8(117)),
        "zw": fixed(zero), "past": None if past is None else fed(rng.normal(0, 1, (2, batch, heads, past, size)).astype(F)),
    }  # fmt: skip


def trimmed(inputs):
    names = list(inputs)
    while inputs[names[-1]] is None:
        names.pop()
    return {name: inputs[name] for name in names}


def masks(rng, batch, steps, keys):
    ends = rng.integers(1, keys + 1, batch)
    return [
        None, ends, np.concatenate([ends, rng.integers(0, ends)]), rng.integers(0, 2, (batch, keys)), rng.integers(0, 2, (batch, steps, keys)), np.zeros((batch, keys)),
    ]  # fmt: skip


@AVX2
@pytest.mark.parametrize("past", [None, 0, 1, 5])
@pytest.mark.parametrize("weight, per_column", [("int8", False), ("int8", True), ("uint8", True)], ids=str)
def test_attention(weight, per_column, past):
    rng = np.random.default_rng(1)
    for batch, steps, k, heads, size in ((2, 7, 24, 3, 8), (1, 1, 33, 2, 5), (2, 19, 40, 1, 64)):
        outputs = {"y": "float32"} if past is None else {"y": "float32", "present": "float32"}
        for mask in masks(rng, batch, steps, steps + (past or 0)):
            for causal in (0, 1):
                inputs = trimmed(attention_inputs(rng, batch, steps, k, heads, size, weight, per_column, mask, past))
                run("QAttention", inputs, outputs, num_heads=heads, unidirectional=causal)


@AVX2
def test_attention_with_a_scale_and_another_mask_value():
    rng = np.random.default_rng(2)
    inputs = trimmed(attention_inputs(rng, 2, 9, 24, 3, 8, mask=rng.integers(0, 2, (2, 9))))
    run("QAttention", inputs, {"y": "float32"}, num_heads=3, scale=0.2, mask_filter_value=-3.5)
    (plain,), (other,) = (both(single_node("QAttention", inputs, {"y": "float32"}, MICROSOFT, num_heads=3, **a), {k: v[0] for k, v in inputs.items() if v and not v[1]})[1] for a in ({}, {"mask_filter_value": -3.5}))
    assert not np.array_equal(plain, other)


def test_attention_says_what_it_has_not():
    inputs = trimmed(attention_inputs(np.random.default_rng(3), 1, 3, 8, 2, 4))
    refused(single_node("QAttention", inputs, {"y": "float32"}, MICROSOFT, num_heads=2, do_rotary=1), "QAttention 'n': turns its keys")
    refused(single_node("QAttention", inputs, {"y": "float32"}, MICROSOFT, num_heads=2, past_present_share_buffer=1), "shares the buffer")
    inputs["mask"] = fed(np.ones(3, np.int32))
    refused(single_node("QAttention", inputs, {"y": "float32"}, MICROSOFT, num_heads=2), "mask_index has shape", ArgumentError)


def lstm_inputs(rng, steps, batch, k, size, ways, weight="int8", per_column=False, state=False, bias=True):
    shape = (ways, 4 * size) if per_column else (ways,)
    scales = [rng.uniform(0.001, 0.01, shape).astype(F) for _ in range(2)]
    zeros = [np.full(shape, zero if weight == "uint8" else 0, weight) for zero in (131, 77)]  # per column they must all be the same
    return {
        "x": fed(rng.normal(0, 2, (steps, batch, k)).astype(F)), "w": fixed(codes(rng, (ways, k, 4 * size), weight)),
        "r": fixed(codes(rng, (ways, size, 4 * size), weight)), "b": fixed(rng.normal(0, 1, (ways, 8 * size)).astype(F)) if bias else None, "lengths": None,
        **{name: fed(rng.normal(0, 1, (ways, batch, size)).astype(F)) if state else None for name in ("h", "c")}, "p": None,
        "sw": fixed(scales[0]), "zw": fixed(zeros[0]), "sr": fixed(scales[1]), "zr": fixed(zeros[1]),
    }  # fmt: skip


LSTM = {"y": "float32", "h1": "float32", "c1": "float32"}


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("weight, per_column", [("int8", False), ("int8", True), ("uint8", False), ("uint8", True)], ids=str)
def test_lstm(weight, per_column, direction):
    rng, ways = np.random.default_rng(4), 2 if direction == "bidirectional" else 1
    for steps, batch, k, size, state, bias in ((5, 3, 7, 9, True, True), (1, 1, 1, 1, False, True), (9, 2, 33, 16, True, False), (3, 5, 16, 40, False, False)):
        inputs = lstm_inputs(rng, steps, batch, k, size, ways, weight, per_column, state, bias)
        run("DynamicQuantizeLSTM", inputs, LSTM, hidden_size=size, direction=direction)
        inputs["lengths"] = fed(np.full(batch, steps, np.int32))
        run("DynamicQuantizeLSTM", inputs, LSTM, hidden_size=size, direction=direction)


def test_lstm_says_what_it_has_not():
    inputs = lstm_inputs(np.random.default_rng(5), 4, 2, 3, 5, 1)
    for attrs, match in (({"clip": 1.0}, "clips its gates"), ({"input_forget": 1}, "input_forget=1"), ({"activations": ["Relu", "Tanh", "Tanh"]}, "activations")):
        refused(single_node("DynamicQuantizeLSTM", inputs, LSTM, MICROSOFT, hidden_size=5, **attrs), match)
    refused(single_node("DynamicQuantizeLSTM", {**inputs, "p": fed(np.ones((1, 15), F))}, LSTM, MICROSOFT, hidden_size=5), "peepholes")
    refused(single_node("DynamicQuantizeLSTM", {**inputs, "lengths": fed(np.ones(2, np.int32))}, LSTM, MICROSOFT, hidden_size=5), "lengths")


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("segments", [True, False])
def test_embed_layer_norm(dtype, segments):
    rng = np.random.default_rng(6)
    for batch, steps, wide in ((2, 9, 64), (1, 1, 3), (3, 4, 100)):
        tables = {"word": (50, wide), "position": (12, wide), "segment": (2, wide), "gamma": (wide,), "beta": (wide,)}
        ids = {"ids": fed(rng.integers(0, 50, (batch, steps)).astype(np.int32)), "segment_ids": fed(rng.integers(0, 2, (batch, steps)).astype(np.int32)) if segments else None}
        quantized = {name: fixed(codes(rng, shape, dtype)) if segments or name != "segment" else None for name, shape in tables.items()}
        scales = {f"{n}_s": fixed(F(rng.uniform(0.001, 0.1))) if segments or n != "segment" else None for n in tables}
        zeros = {f"{n}_z": fixed(codes(rng, (), dtype)) if segments or n != "segment" else None for n in tables}
        for mask in (None, fed(rng.integers(0, 3, (batch, steps)).astype(np.int32))):
            inputs = {**ids, **quantized, "mask": mask, **scales, **zeros}
            run("QEmbedLayerNormalization", inputs, {"y": "float32", "n": "int32"}, epsilon=1e-6)


def gathered(data, indices, scales, zero_points, **attrs):
    """Return the differing numbers between ONNX Runtime and refquant, of how many."""
    constants = {"data": data, "scales": scales, "zeros": zero_points}
    names = ["data", "indices", "scales", *(["zeros"] if zero_points is not None else [])]
    node = helper.make_node("GatherBlockQuantized", names, ["y"], "n", domain=MICROSOFT, **attrs)
    kinds = [helper.np_dtype_to_tensor_dtype(v.dtype) for v in (indices, scales)]
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("indices", kinds[0], indices.shape)], [helper.make_tensor_value_info("y", kinds[1], None)],
        [numpy_helper.from_array(v, k) for k, v in constants.items() if v is not None],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)], ir_version=10)
    (ref,), (comp,) = both(model, {"indices": indices})
    assert ref.dtype == comp.dtype and ref.shape == comp.shape
    return int(np.count_nonzero(ref.view(np.uint8) != comp.view(np.uint8))), ref.size


@pytest.mark.parametrize("real", [np.float32, np.float16])
@pytest.mark.parametrize("bits, shape", [(8, (50, 70)), (4, (50, 35)), (2, (50, 20)), (4, (5, 7, 24)), (8, (3, 1))], ids=str)
def test_gathered_bytes(bits, shape, real):
    rng = np.random.default_rng(bits)
    data, blocks = codes(rng, shape, "uint8"), -(-shape[-1] * 8 // bits // 16)
    scales = rng.uniform(0.001, 3, (*shape[:-1], blocks)).astype(real)
    for zeros in (None, codes(rng, (*shape[:-1], -(-blocks * bits // 8)), "uint8")):
        indices = rng.integers(-shape[0] - 1, shape[0] + 2, (3, 9))
        wrong, count = gathered(data, indices, scales, zeros, block_size=16, bits=bits, gather_axis=0, quantize_axis=-1)
        assert not wrong and count


@pytest.mark.parametrize("name", ["int4", "uint4"])
@pytest.mark.parametrize("axes", [(0, 1), (1, 0), (2, 1), (0, 2), (1, 1)], ids=str)
def test_gathered_small_integers(name, axes):
    kind, rng = np.dtype(getattr(pytest.importorskip("ml_dtypes"), name)), np.random.default_rng(7)
    data = rng.integers(0, 8, (40, 33, 5)).astype(kind)
    shape = [-(-n // 16) if i == axes[1] else n for i, n in enumerate(data.shape)]
    scales = rng.uniform(0.001, 3, shape).astype(F)
    for zeros in (None, rng.integers(0, 8, shape).astype(kind)):
        indices = rng.integers(0, data.shape[axes[0]], (2, 4)).astype(np.int32)
        assert gathered(data, indices, scales, zeros, block_size=16, gather_axis=axes[0], quantize_axis=axes[1])[0] == 0


def test_a_forgotten_zero_point_of_a_block_is_found(monkeypatch):
    from refquant.interop.onnx import microsoft_blocks

    rng = np.random.default_rng(8)
    data, scales, zeros = codes(rng, (9, 40), "uint8"), rng.uniform(0.1, 1, (9, 3)).astype(F), codes(rng, (9, 3), "uint8")
    unpacked = microsoft_blocks.unpacked
    monkeypatch.setattr(microsoft_blocks, "unpacked", lambda v, bits: unpacked(v, bits) * np.uint8(v.shape[-1] > 3))
    assert gathered(data, np.arange(9), scales, zeros, block_size=16, bits=8)[0] > 100


def dynamic(nodes, inputs, outputs, constants, folder, **options):
    """Quantize a float model with ONNX Runtime's own tool; return the path."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    infos = [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in inputs.items()]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_tensor_value_info(k, TensorProto.FLOAT, None) for k in outputs], [numpy_helper.from_array(v, k) for k, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)], ir_version=8)
    onnx.save(model, folder / "float.onnx")
    logging.disable(logging.WARNING)
    quantization.quantize_dynamic(folder / "float.onnx", folder / "int8.onnx", **options)
    logging.disable(logging.NOTSET)
    return onnx.load(folder / "int8.onnx")


def assert_operators(model, *names):
    assert set(names) <= {n.op_type for n in model.graph.node}, sorted({n.op_type for n in model.graph.node})


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_dynamically_quantized_lstm(per_channel, tmp_path):
    rng = np.random.default_rng(9)
    constants = {"w": rng.normal(0, 0.3, (2, 40, 12)).astype(F), "r": rng.normal(0, 0.3, (2, 40, 10)).astype(F), "b": rng.normal(0, 0.3, (2, 80)).astype(F)}
    x = {"x": rng.normal(0, 1, (6, 3, 12)).astype(F)}
    node = helper.make_node("LSTM", ["x", "w", "r", "b"], ["y", "h", "c"], "rnn", hidden_size=10, direction="bidirectional")
    model = dynamic([node], x, ["y", "h", "c"], constants, tmp_path, per_channel=per_channel)
    assert_operators(model, "DynamicQuantizeLSTM")
    assert_same(model, x, 300, threads=1)


@AVX2
@pytest.mark.parametrize("optimize", [False, True])
def test_a_dynamically_quantized_encoder(optimize, tmp_path):
    """Embeddings, attention and a feed-forward part, as onnxruntime.transformers writes BERT, quantized by quantize_dynamic."""
    rng, wide, heads = np.random.default_rng(10), 32, 4
    make = lambda *shape: rng.normal(0, 0.2, shape).astype(F)  # noqa: E731
    ids = {name: rng.integers(0, 2, (2, 7)).astype(np.int32) for name in ("ids", "segments")}
    ids["mask"] = np.int32([[1] * 7, [1] * 4 + [0] * 3])
    constants = {
        "word": make(30, wide), "position": make(16, wide), "segment": make(2, wide), "g": 1 + make(wide), "be": make(wide), "wqkv": make(wide, 3 * wide),
        "bqkv": make(3 * wide), "wo": make(wide, wide), "bo": make(wide), "wi": make(wide, 64), "bi": make(64), "wd": make(64, wide), "bd": make(wide),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("EmbedLayerNormalization", ["ids", "segments", "word", "position", "segment", "g", "be", "mask"], ["e", "mi"], "embed", domain=MICROSOFT),
        node("Attention", ["e", "wqkv", "bqkv", "mi"], ["a"], "att", domain=MICROSOFT, num_heads=heads),
        node("MatMul", ["a", "wo"], ["o0"], "out"), node("Add", ["o0", "bo"], ["o1"], "out_b"), node("Add", ["o1", "e"], ["r"], "res"),
        node("MatMul", ["r", "wi"], ["i0"], "in"), node("Add", ["i0", "bi"], ["i1"], "in_b"), node("Relu", ["i1"], ["i2"], "act"),
        node("MatMul", ["i2", "wd"], ["d0"], "down"), node("Add", ["d0", "bd"], ["y"], "down_b"),
    ]  # fmt: skip
    model = dynamic(nodes, ids, ["y", "a", "e"], constants, tmp_path)
    assert_operators(model, "QEmbedLayerNormalization", "QAttention", "MatMulInteger", "DynamicQuantizeLinear")
    for ref, comp in zip(*both(model, ids, optimize=optimize), strict=True):
        assert ref.shape == comp.shape and np.count_nonzero(ref.view(np.int32) != comp.view(np.int32)) == 0 and ref.std() > 0
