"""Small float ONNX models, and ONNX Runtime's own quantization of them: what `refquant.workflow.quantize_static` is held against."""

import contextlib
import io
import logging
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["MODELS", "alive", "batches_of", "quantize_with_onnxruntime", "differences", "float_values"]


def _model(nodes, constants, inputs, outputs, opset=17):
    infos = ([helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in side] for side in (inputs, outputs))
    graph = helper.make_graph(nodes, "g", *infos, [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def _node(op, inputs, *outputs, **attrs):
    return helper.make_node(op, inputs.split(","), list(outputs), name=f"{op}_{outputs[0]}", **attrs)


def _normal(seed):
    rng = np.random.default_rng(seed)
    return lambda *shape: (rng.standard_normal(shape) * 0.3).astype(np.float32)


def convolutional():
    """Convolutions with and without groups, norms, clips, pools, sums, products, halves, enlargement, two heads."""
    f = _normal(0)
    nodes = [
        _node("Conv", "x,w1,b1", "c1", pads=[1, 1, 1, 1]), _node("BatchNormalization", "c1,g,be,mu,va", "bn1"), _node("Relu", "bn1", "r1"),
        _node("MaxPool", "r1", "p1", kernel_shape=[2, 2], strides=[2, 2]), _node("Conv", "p1,w2,b2", "c2", pads=[1, 1, 1, 1], group=2),
        _node("Clip", "c2,lo,hi", "cl"), _node("Conv", "cl,w3", "c3"), _node("Add", "c3,cl", "a1"), _node("Sigmoid", "a1", "s1"),
        _node("Mul", "a1,s1", "m1"), _node("AveragePool", "m1", "ap", kernel_shape=[2, 2], strides=[2, 2]), _node("Split", "m1,sp", "sa", "sb", axis=1),
        _node("AveragePool", "sb", "ap2", kernel_shape=[2, 2], strides=[2, 2]), _node("Concat", "ap,ap2", "cc", axis=1),
        _node("Resize", "sa,,sc", "up", mode="nearest"), _node("GlobalAveragePool", "up", "gu"), _node("GlobalAveragePool", "cc", "gp"),
        _node("Flatten", "gp", "fl"), _node("Gemm", "fl,w4,b4", "ge", transB=1), _node("Relu", "ge", "r5"), _node("MatMul", "r5,w5", "mm"),
        _node("Add", "mm,b5", "logits"), _node("Softmax", "logits", "sm", axis=-1), _node("Reshape", "gu,rs", "gr"),
    ]  # fmt: skip
    constants = {
        "w1": f(8, 3, 3, 3), "b1": f(8), "g": 1 + f(8), "be": f(8), "mu": f(8), "va": np.abs(f(8)) + np.float32(0.5), "w2": f(8, 4, 3, 3), "b2": f(8),
        "lo": np.float32(0), "hi": np.float32(6), "w3": f(8, 8, 1, 1), "sp": np.int64([4, 4]), "sc": np.float32([1, 1, 2, 2]), "w4": f(16, 12),
        "b4": f(16), "w5": f(16, 10), "b5": f(10), "rs": np.int64([0, -1]),
    }  # fmt: skip
    return _model(nodes, constants, [("x", ["N", 3, 8, 8])], [("sm", ["N", 10]), ("gr", ["N", 4])])


def passing():
    """Operators that only move codes, and a bias that two layers share and that needs a larger weight scale."""
    f = _normal(1)
    nodes = [
        _node("Conv", "x,w,b", "c1"), _node("Relu", "c1", "r1"), _node("Conv", "r1,w2,b", "c2"), _node("LeakyRelu", "c2", "l", alpha=0.1),
        _node("Transpose", "l", "t", perm=[0, 2, 3, 1]), _node("Unsqueeze", "t,ax", "u"), _node("Squeeze", "u,ax", "sq"), _node("Pad", "sq,pd", "pp"),
        _node("Slice", "pp,st,en", "sl"), _node("Mul", "sl,k", "y"),
    ]  # fmt: skip
    constants = {
        "w": f(4, 3, 1, 1), "b": f(4) * np.float32(1e6), "w2": f(4, 4, 1, 1) * np.float32(1e-5), "ax": np.int64([1]),
        "pd": np.int64([0, 0, 0, 0, 0, 1, 1, 0]), "st": np.int64([0]), "en": np.int64([1]), "k": np.float32([0.5, -1, 2, 0.25]),
    }  # fmt: skip
    return _model(nodes, constants, [("x", ["N", 3, 4, 4])], [("y", ["M", 5, 5, 4])])


def attention():
    """Products of two activations, softmax, layer norm, an embedding, a choice."""
    f = _normal(2)
    nodes = [
        _node("MatMul", "x,w", "q"), _node("MatMul", "x,w1", "kk"), _node("Transpose", "kk", "kt", perm=[0, 2, 1]), _node("MatMul", "q,kt", "qk"),
        _node("Softmax", "qk", "p"), _node("MatMul", "p,q", "o"), _node("Add", "o,x", "res"), _node("LayerNormalization", "res,lg,lb", "ln"),
        _node("Gather", "emb,idx", "e"), _node("Add", "ln,e", "y0"), _node("Where", "cond,y0,res", "y"),
    ]  # fmt: skip
    constants = {
        "w": f(8, 8), "w1": f(8, 8), "lg": 1 + f(8), "lb": f(8), "emb": f(20, 8), "idx": np.int64([1, 3, 5]), "cond": np.array([True] * 7 + [False]),
    }  # fmt: skip
    return _model(nodes, constants, [("x", ["N", 3, 8])], [("y", ["N", 3, 8])])


def shared():
    """A weight and a bias of three layers, one transposed; an output in the middle; integers between real numbers."""
    f = _normal(3)
    nodes = [
        _node("Conv", "x,w,b", "c1", pads=[1, 1, 1, 1]), _node("ConvTranspose", "x,w,b", "c2", pads=[1, 1, 1, 1]), _node("Add", "c1,c2", "a"),
        _node("Relu", "a", "r"), _node("Conv", "r,w,b", "c3", pads=[1, 1, 1, 1]), _node("Relu", "c3", "r3"), _node("Concat", "r,r3,x", "y", axis=1),
        _node("ArgMax", "y", "am", axis=1), _node("Cast", "am", "y2", to=1), _node("InstanceNormalization", "y,is,ib", "y3"),
    ]  # fmt: skip
    constants = {"w": f(4, 4, 3, 3), "b": f(4), "is": 1 + f(12), "ib": f(12)}
    return _model(nodes, constants, [("x", ["N", 4, 6, 6])], [("y3", ["N", 12, 6, 6]), ("y2", ["N", 1, 6, 6]), ("a", ["N", 4, 6, 6])])


MODELS = {"convolutional": convolutional, "passing": passing, "attention": attention, "shared": shared}


def alive(proto):
    """Return a model without the nodes that its outputs do not need, which `from_onnx` does not even look at."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    needed, kept = {o.name for o in proto.graph.output}, []
    for node in reversed(proto.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    del proto.graph.node[:]
    proto.graph.node.extend(kept[::-1])
    return proto


def batches_of(model, count=4, seed=5):
    """Return batches for the first input, each wider than the one before."""
    shape = [d.dim_value or 3 for d in model.graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal(shape) * (1 + 0.7 * i)).astype(np.float32) for i in range(count)]


def quantize_with_onnxruntime(model, batches, folder, options):
    """Return (quantized ModelProto, ranges by name) of ONNX Runtime's own tool, run with options in refquant's words."""
    from onnxruntime import quantization
    from onnxruntime.quantization.calibrate import CalibrationMethod, load_tensors_data

    name = model.graph.input[0].name

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.set_range(0, len(batches))

        def get_next(self):
            return next(self.iterator, None)

        def __len__(self):
            return len(batches)

        def set_range(self, start_index, end_index):
            self.iterator = iter([{name: x} for x in batches[start_index:end_index]])

    given, types = dict(options), {"int8": "QInt8", "uint8": "QUInt8", "int16": "QInt16", "uint16": "QUInt16"}
    for key in ("activation_type", "weight_type"):
        given[key] = quantization.QuantType[types[given.get(key, "int8")]]
    given["quant_format"] = quantization.QuantFormat[given.get("quant_format", "QDQ")]
    given["calibrate_method"] = CalibrationMethod[given.get("calibrate_method", "MinMax")]
    cache, out = Path(folder) / "ranges.json", Path(folder) / "quantized.onnx"
    copied = onnx.ModelProto.FromString(model.SerializeToString())
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            quantization.quantize_static(copied, out, Reader(), calibration_cache_path=cache, **given)
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load(out), {key: data.range_value for key, data in load_tensors_data(cache).items()}


def differences(proto, model):
    """Return in words how a quantized `OnnxModel` differs from a ModelProto: nodes by what they make, constants to the bit."""
    theirs, ours = {tuple(n.output): n for n in proto.graph.node}, {tuple(n.outputs): n for n in model.nodes}
    found = [f"only {side}: {sorted(keys)}" for side, keys in (("theirs", theirs.keys() - ours.keys()), ("ours", ours.keys() - theirs.keys())) if keys]
    for key in theirs.keys() & ours.keys():
        a, b = theirs[key], ours[key]
        if (a.op_type, a.domain, _trimmed(a.input)) != (b.op, b.domain, _trimmed(b.inputs)):
            found.append(f"{key}: {a.domain}.{a.op_type}{_trimmed(a.input)} but {b.domain}.{b.op}{_trimmed(b.inputs)}")
        attrs = {x.name: _plain(helper.get_attribute_value(x)) for x in a.attribute}
        if attrs != {name: _plain(value) for name, value in b.attrs.items()}:
            found.append(f"{key}: {attrs} but {b.attrs}")
    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    found += [f"only one has constant {name}" for name in constants.keys() ^ model.constants.keys()]
    for name in constants.keys() & model.constants.keys():
        a, b = constants[name], np.asarray(model.constants[name])
        if (a.dtype, a.shape, a.tobytes()) != (b.dtype, b.shape, b.tobytes()):
            found.append(f"{name}: {a.dtype} {a.shape} {a.reshape(-1)[:3]} but {b.dtype} {b.shape} {b.reshape(-1)[:3]}")
    return found


def _trimmed(names):
    names = list(names)
    while names and not names[-1]:
        names.pop()
    return names


def _plain(value):
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    return value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else np.asarray(value).tolist()


def float_values(model):
    """Return ``run(batch, see)`` that shows ONNX Runtime's own float32 values, computed as its calibrators compute them."""
    import onnxruntime

    inferred = onnx.shape_inference.infer_shapes(model)
    have = {o.name for o in inferred.graph.output}
    real = [v for v in inferred.graph.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT and v.name not in have]
    inferred.graph.output.extend(real)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, 3
    session = onnxruntime.InferenceSession(inferred.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names, first = [o.name for o in session.get_outputs()], model.graph.input[0].name

    def run(batch, see):
        see(first, batch)
        for name, value in zip(names, session.run(None, {first: batch})):
            see(name, value)

    return run
