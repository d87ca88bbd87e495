"""One small model for each family of operators in every operator set from 7 to the newest: executed, as a graph, and in ONNX Runtime."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from refquant.graph import Model  # noqa: E402
from refquant.interop import from_onnx  # noqa: E402
from refquant.interop.onnx.table import NEWEST  # noqa: E402

pytestmark = pytest.mark.engine
X = np.random.default_rng(0).standard_normal((2, 4, 6, 8)).astype(np.float32)
OPSETS = range(7, NEWEST[""] + 1)


def draw(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def node(op, inputs, outputs="y", **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def listed(opset, since, name, values, op, inputs="x", **more):
    """An operator whose list was an attribute before a version and is an input from then on."""
    if opset < since:
        return [node(op, inputs, **{name: values}, **more)], {}
    return [node(op, f"{inputs} {name}", **more)], {name: np.int64(values)}


def convolution(v):
    w = {"w": draw(6, 2, 3, 3), "b": draw(6), "s": np.abs(draw(6)) + 0.5, "m": draw(6), "d": np.abs(draw(6)) + 0.5, "t": draw(6, 3, 2, 2)}
    nodes = [node("Conv", "x w b", "c", group=2, pads=[1, 0, 1, 0], strides=[1, 2]), node("BatchNormalization", "c s b m d", "n", epsilon=1e-3), node("ConvTranspose", "n t", strides=[2, 2])]
    return nodes, w


def products(v):
    return [node("Flatten", "x", "f"), node("Gemm", "f w b", "g", alpha=0.5, beta=2.0, transB=1), node("MatMul", "g v")], {"w": draw(5, 192), "b": draw(5), "v": draw(5, 3)}


def pools(v):
    nodes = [node("MaxPool", "x", "a", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]), node("AveragePool", "a", "b", kernel_shape=[2, 2], count_include_pad=1, pads=[1, 1, 1, 1])]
    return [*nodes, node("GlobalAveragePool", "b", "c"), node("GlobalMaxPool", "x", "d"), node("Sum", "c d")], {}


def functions(v):
    names = ["Relu", "Sigmoid", "Tanh", "Elu", "LeakyRelu", "PRelu", *(["HardSwish"] if v >= 14 else []), *(["Gelu"] if v >= 20 else [])]
    nodes = [node(op, "x k" if op == "PRelu" else "x", f"v{i}") for i, op in enumerate(names)]
    return [*nodes, node("Concat", " ".join(f"v{i}" for i in range(len(names))), axis=1)], {"k": draw(4, 1, 1)}


def limits(v):
    return ([node("Clip", "x", "c", min=-0.5, max=1.0)], {}) if v < 11 else ([node("Clip", "x lo hi", "c")], {"lo": np.float32(-0.5), "hi": np.float32(1)})


def clips(v):
    nodes, constants = limits(v)
    return [*nodes, node("Mul", "c two", "d"), node("Add", "d one", "e"), node("Sub", "e one", "f"), node("Div", "f two")], {**constants, "two": np.float32(2), "one": draw(4, 1, 1)}


def softmaxes(v):
    return [node("Softmax", "x", "a", axis=3), node("LogSoftmax", "x", "b", axis=3), node("Add", "a b")], {}


def sums_of_squares(v):
    nodes = [node("InstanceNormalization", "x w b", "a"), node("LRN", "a", "c" if v >= 17 else "y", size=3, alpha=0.1)]
    more = [node("LayerNormalization", "c p q", "e", axis=-1), node("GroupNormalization", "e g h" if v < 21 else "e w b", num_groups=2)] if v >= 18 else [node("LayerNormalization", "c p q", axis=-1)] if v == 17 else []
    constants = {"w": draw(4), "b": draw(4), "p": draw(8), "q": draw(8), "g": draw(2), "h": draw(2)}
    used = {name for n in [*nodes, *more] for name in n.input}
    return [*nodes, *more], {k: c for k, c in constants.items() if k in used}


def means(v):
    first, a = listed(v, 18, "axes", [2, 3], "ReduceMean", keepdims=0)
    return first, a


def squeezing(v):
    first, a = listed(v, 13, "axes", [0, 3], "Unsqueeze")
    first[0].output[0] = "u"
    second, b = listed(v, 13, "axes", [0], "Squeeze", "u")
    second[0].input[:] = ["u", *(["axes2"] if v >= 13 else [])]
    second[0].output[0] = "s"
    return [*first, *second, node("Transpose", "s", perm=[0, 2, 1, 3, 4])], {**a, **({"axes2": b["axes"]} if b else {})}


def slicing(v):
    if v < 10:
        nodes, constants = [node("Slice", "x", "a", starts=[1, -6], ends=[3, 100], axes=[1, 3])], {}
    else:
        nodes, constants = [node("Slice", "x starts ends axes", "a")], {"starts": np.int64([1, -6]), "ends": np.int64([3, 100]), "axes": np.int64([1, 3])}
    split, more = listed(v, 13, "split", [2, 4], "Split", "a", axis=2)
    split[0].output[:] = ["b", "c"]
    return [*nodes, *split, node("Concat", "c b", axis=2)], {**constants, **more}


def padding(v):
    if v < 11:
        return [node("Pad", "x", pads=[0, 0, 1, 0, 0, 0, 0, 2], value=1.5)], {}
    return [node("Pad", "x pads value")], {"pads": np.int64([0, 0, 1, 0, 0, 0, 0, 2]), "value": np.float32(1.5)}


def resizing(v):
    scales = np.float32([1, 1, 2, 2])
    if v < 9:
        return [node("Upsample", "x", mode="nearest", scales=scales.tolist())], {}
    if v < 11:
        return [node("Upsample" if v < 10 else "Resize", "x scales", mode="nearest")], {"scales": scales}
    nearest = node("Resize", "x roi scales", "n", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    linear = node("Resize", "x roi scales", "l", mode="linear", coordinate_transformation_mode="align_corners")
    return [nearest, linear, node("Concat", "n l", axis=1)], {"scales": scales, "roi": np.float32([])}


def shapes(v):
    nodes = [node("Shape", "x", "n"), node("Gather", "n zero", "k"), node("Reshape", "x to", "r"), node("Dropout", "r", "d"), node("Identity", "d")]
    return nodes[2:], {"to": np.int64([0, -1, 4])}


def expanding(v):
    return [node("Expand", "x to", "e"), node("Max", "e x")], {"to": np.int64([3, 2, 4, 6, 8])}


def quantization(v):
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "r"), node("QuantizeLinear", "r s2 z2", "p"), node("DequantizeLinear", "p s2 z2")]
    return nodes, {"s": np.float32(0.02), "z": np.uint8(120), "s2": np.float32(0.05), "z2": np.int8(-3)}


def integer_operators(v):
    nodes = [node("QuantizeLinear", "x s z", "q"), node("QLinearConv", "q s z w ws wz ys z b", "c", pads=[1, 1, 1, 1]), node("QLinearMatMul", "c ys z m ws wz s z", "p"), node("DequantizeLinear", "p s z")]
    rng = np.random.default_rng(2)
    w, m = rng.integers(-40, 40, (5, 4, 3, 3)).astype(np.int8), rng.integers(-40, 40, (8, 3)).astype(np.int8)
    return nodes, {"s": np.float32(0.03), "z": np.uint8(110), "w": w, "ws": np.float32(0.01), "wz": np.int8(0), "ys": np.float32(0.05), "b": rng.integers(-99, 99, 5).astype(np.int32), "m": m}


# name: (nodes and constants of an operator set, the first one, whether a graph can be made of it)
FAMILIES = {
    "convolution": (convolution, 7, True), "products": (products, 7, True), "pools": (pools, 7, True), "functions": (functions, 7, True), "clips": (clips, 7, True),
    "softmax": (softmaxes, 7, True), "norms": (sums_of_squares, 7, True), "means": (means, 7, True), "squeezing": (squeezing, 7, True), "slicing": (slicing, 7, True),
    "padding": (padding, 7, True), "resizing": (resizing, 7, True), "shapes": (shapes, 7, True), "expanding": (expanding, 8, False),
    "quantization": (quantization, 10, True), "integer operators": (integer_operators, 10, True),
}  # fmt: skip


def model_of(family, opset):
    nodes, constants = FAMILIES[family][0](opset)
    graph = helper.make_graph(
        nodes, family, [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def runtime(family, opset):
    """Return ONNX Runtime's output; of the newest operator set for which the installed one has all kernels, where that is older."""
    for older in range(opset, 19, -1) if opset > 20 else [opset]:
        try:
            opened = session(model_of(family, older))
        except Exception:  # noqa: S112 - onnxruntime's own exceptions share no base
            continue
        return opened.run(None, {"x": X})[0]
    raise AssertionError(f"ONNX Runtime loads {family} in no operator set from 20 to {opset}")


def session(proto):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def assert_close(comp, ref):
    assert comp.shape == ref.shape and comp.dtype == ref.dtype and ref.std() > 0
    assert np.abs(comp - ref).max() <= 2e-5 * max(np.abs(ref).max(), 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_in_every_operator_set(family):
    """Where ONNX Runtime is older than onnx, its newest stands for what follows: the operators of these families have not changed since."""
    _, first, as_graph = FAMILIES[family]
    for opset in OPSETS[max(first - 7, 0) :]:
        proto = model_of(family, opset)
        ref = runtime(family, opset)
        (comp,) = from_onnx(proto, as_graph=False, numerics="onnxruntime")(X)
        assert_close(comp, ref)
        if as_graph:
            graph = from_onnx(proto, as_graph=True, numerics="onnxruntime")
            assert isinstance(graph, Model)
            assert_close(graph(X)[0], ref)


def test_operator_sets_that_do_not_exist_are_refused():
    from refquant.errors import UnsupportedError

    for opset in (0, NEWEST[""] + 1, 2**31):
        proto = model_of("clips", 13)
        proto.opset_import[0].version = opset
        with pytest.raises(UnsupportedError, match="outside of"):
            from_onnx(proto)
