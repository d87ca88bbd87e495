"""Random QDQ models, at every optimization level of ONNX Runtime, against `from_onnx`: ``python tests/onnx_qdq_fuzz.py 300 [FIRST_SEED] [--wide]``.

Scales of every other model are powers of two and its sums short, so that float32 sums are exact whatever their order; the others are compared where ONNX Runtime
computes no product in float32. Beside the numbers, the operators on codes are counted on both sides.
"""

import os
import sys
import tempfile
from collections import Counter
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from static_quantization import alive

from refquant.backends.machine import profile_here
from refquant.interop import from_onnx

__all__ = ["LEVELS", "SHAPE", "Comparison", "RandomModel", "compare"]

LEVELS = ("disabled", "basic", "extended", "all")
_LEVEL = dict(zip(LEVELS, (getattr(ort.GraphOptimizationLevel, f"ORT_{name}") for name in ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"))))
_FUSE = dict(zip(LEVELS, (False, "basic", True, True)))
SHAPE = (2, 4, 6, 6)
_UNARY = (
    ("Relu", {}), ("LeakyRelu", {"alpha": 0.25}), ("Sigmoid", {}), ("Tanh", {}), ("Softmax", {"axis": -1}), ("AveragePool", {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}),
    ("MaxPool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}), ("Transpose", {"perm": [0, 1, 3, 2]}), ("Identity", {}), ("Neg", {}), ("Abs", {}), ("Elu", {}),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}), ("Softmax", {"axis": 1}), ("HardSigmoid", {}),
)  # fmt: skip


class RandomModel:
    """A random model of values of one shape, each real, or dequantized codes.

    Attributes
    ----------
    proto : onnx.ModelProto
    x : ndarray of float32
    signed : bool
        Whether activations are int8.
    operators : list of str
    """

    opset = 17

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.signed, self.powers = bool(self.rng.integers(2)), seed % 2 == 0
        self.nodes, self.constants, self.values, self.operators, self.ends = [], {}, [], [], []
        self.x = (self.rng.integers(-40, 41, SHAPE) / 8).astype(np.float32) if self.powers else self.rng.normal(0, 2, SHAPE).astype(np.float32)
        self.values.append(self.quantized("x"))
        for _ in range(int(self.rng.integers(2, 9))):
            self.step()
        self.ends.append(self.values[-1])
        infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in dict.fromkeys(self.ends)]
        graph = helper.make_graph(self.nodes, "g", infos, outputs, [numpy_helper.from_array(v, k) for k, v in self.constants.items()])
        self.proto = alive(helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)], ir_version=8 if self.opset < 20 else 10))

    def chance(self, share):
        return self.rng.random() < share

    def make(self, op, inputs, output=None, **attrs):
        output = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], f"n{len(self.nodes)}_{op}", **attrs))
        return output

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def parameters(self, dtype, scale=None):
        info = np.iinfo(dtype)
        middle = 128 if info.min == 0 else 0
        zero = int(self.rng.choice([info.min, info.max, middle, middle + 5, middle - 9], p=[0.3, 0.05, 0.35, 0.15, 0.15]))
        scale = self.drawn(2, 6) if scale is None else scale
        return [self.constant(np.float32(scale)), self.constant(np.array(zero, dtype))]

    def drawn(self, low, high, size=None):
        """Return scales, powers of two or not."""
        exponent = self.rng.integers(low, high, size) if self.powers else self.rng.uniform(low, high, size)
        return 2.0**-exponent

    def quantized(self, value):
        """Quantize and dequantize a value; now and then in another type, twice, or with a second dequantizer."""
        other = self.chance(0.05)
        dtype = np.int8 if self.signed != other else np.uint8
        pair = self.parameters(dtype)
        codes = self.make("QuantizeLinear", [value, *pair])
        real = self.make("DequantizeLinear", [codes, *pair])
        if self.chance(0.1):
            self.values.append(self.make("DequantizeLinear", [codes, *pair]))
        if self.chance(0.05):
            return self.quantized(real)
        return real

    def weight(self, shape, columns=None):
        dtype = np.int8 if self.signed or self.chance(0.7) else np.uint8
        w = self.rng.integers(-100, 101, shape) if dtype == np.int8 else self.rng.integers(0, 256, shape)
        w = self.constant(w.astype(dtype))
        if columns is None or self.chance(0.5):
            scale, zero = np.float32(self.drawn(7, 8)), np.array(0 if dtype == np.int8 else 128, dtype)
            self.last_scale = scale
            return self.make("DequantizeLinear", [w, self.constant(scale), self.constant(zero)])
        scale = np.float32(self.drawn(6, 9, shape[columns]))
        self.last_scale = scale
        return self.make("DequantizeLinear", [w, self.constant(scale), self.constant(np.full(len(scale), 0 if dtype == np.int8 else 128, dtype))], axis=columns)

    def source(self):
        if self.chance(0.8):
            return self.values[-1]
        return self.values[int(self.rng.integers(len(self.values)))]

    def scale_of(self, value):
        maker = next((n for n in self.nodes if value in n.output), None)
        return self.constants[maker.input[1]] if maker is not None and maker.op_type == "DequantizeLinear" else None

    def bias(self, x, length):
        scale = self.scale_of(x)
        codes = self.rng.integers(-3000, 3000, length).astype(np.int32)
        if scale is None:
            return []
        if self.chance(0.1):
            return [self.constant((codes * 2.0**-10).astype(np.float32))]
        factor = np.float32(np.float32(scale) * self.last_scale * np.float32(1 if self.chance(0.9) else 2))
        zero = self.constant(np.zeros(factor.shape, np.int32))
        return [self.make("DequantizeLinear", [self.constant(codes), self.constant(factor), zero], axis=0)]

    def conv(self):
        x, group = self.source(), int(self.rng.choice([1, 1, 4]))
        w = self.weight((4, 4 // group, 3, 3), 0)
        bias = self.bias(x, 4) if self.chance(0.7) else []
        return self.make("Conv", [x, w, *bias], pads=[1, 1, 1, 1], group=group)

    def matmul(self):
        x = self.source()
        return self.make("MatMul", [x, self.weight((6, 6), 1)]) if self.chance(0.6) else self.make("MatMul", [x, self.source()])

    def gemm(self):
        flat = self.make("Reshape", [self.source(), self.constant(np.int64([48, 6]))])
        if self.chance(0.9):
            flat = self.quantized(flat)
        w = self.weight((6, 6), None)
        bias = self.bias(flat, 6) if self.chance(0.6) else []
        attrs = {"transB": int(self.rng.integers(2))} | ({"alpha": 0.5} if self.chance(0.1) else {})
        y = self.make("Gemm", [flat, w, *bias], **attrs)
        if self.chance(0.9):
            y = self.quantized(y)
        return self.make("Reshape", [y, self.constant(np.int64(SHAPE))])

    def binary(self):
        op = str(self.rng.choice(["Add", "Mul", "Sub", "Max", "Add", "Mul"]))
        other = self.source()
        if self.chance(0.25):
            shape = SHAPE if self.chance(0.3) else (1, 4, 1, 1) if self.chance(0.5) else ()
            dtype = np.int8 if self.signed else np.uint8
            codes = self.constant(self.rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype))
            other = self.make("DequantizeLinear", [codes, *self.parameters(dtype)])
        pair = [self.source(), other]
        return self.make(op, pair[::-1] if self.chance(0.3) else pair)

    def concat(self):
        parts = [self.source() for _ in range(2)]
        joined = self.make("Concat", parts, axis=1)
        if self.chance(0.8):
            joined = self.quantized(joined)
        ends = [self.constant(np.int64([v])) for v in (2, 6, 1)]
        return self.make("Slice", [joined, *ends])

    def pooled(self):
        y = self.make("GlobalAveragePool", [self.source()])
        y = self.quantized(y) if self.chance(0.9) else y
        return self.make("Mul", [self.source(), y])

    def where(self):
        condition = self.constant(self.rng.integers(0, 2, SHAPE).astype(bool))
        return self.make("Where", [condition, self.source(), self.source()])

    def unary(self):
        op, attrs = _UNARY[int(self.rng.integers(len(_UNARY)))]
        return self.make(op, [self.source()], **attrs)

    def clip(self):
        low, high = (self.constant(np.float32(v)) for v in ((0, 6) if self.chance(0.5) else (-0.5, 1.25)))
        return self.make("Clip", [self.source(), low, high])

    def kinds(self):
        """Return the maker of the next operator."""
        kinds = (self.conv, self.matmul, self.gemm, self.binary, self.concat, self.pooled, self.where, self.unary, self.clip)
        return kinds[int(self.rng.choice(len(kinds), p=[0.18, 0.14, 0.1, 0.18, 0.08, 0.05, 0.05, 0.17, 0.05]))]

    def step(self):
        before = len(self.nodes)
        y = self.kinds()()
        self.operators += [n.op_type for n in self.nodes[before:] if n.op_type not in ("QuantizeLinear", "DequantizeLinear")]
        if self.chance(0.2):
            y = self.make("Relu", [y])
        # float32 sums stay short and exact only from codes
        y = self.quantized(y) if self.chance(0.95) or self.operators[-1] in ("Conv", "MatMul", "Gemm") and self.chance(0.7) else y
        if self.chance(0.05):
            self.ends.append(y)
        self.values.append(y)


class Comparison(NamedTuple):
    """What came of a model at a level.

    Attributes
    ----------
    differ, numbers : int
        None to be compared where ONNX Runtime adds products in float32 whose order decides.
    operators : dict
        Operators on codes: how many more ONNX Runtime has than refquant, where the numbers differ.
    """

    differ: int
    numbers: int
    operators: dict


_SUMS = ("Conv", "FusedConv", "MatMul", "Gemm", "FusedGemm", "FusedMatMul")


def _on_codes(names):
    return Counter(name for name in names if name.startswith(("QLinear", "QGemm", "MatMulInteger")))


def compare(model, level):
    """Return the `Comparison` of a model at a level."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads, options.graph_optimization_level = 4, 1, _LEVEL[level]
        options.optimized_model_filepath = os.path.join(folder, "optimized.onnx")
        options.add_session_config_entry("session.qdqisint8allowed", "1")
        refs = ort.InferenceSession(model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"x": model.x})
        theirs = [node.op_type for node in alive(onnx.load(options.optimized_model_filepath)).graph.node]
    ours = from_onnx(model.proto, numerics=profile_here("onnxruntime"), as_graph=False, fuse_qdq=_FUSE[level])
    comps, difference = ours(model.x), _on_codes(theirs)
    difference.subtract(_on_codes(node.op for node in ours.nodes))
    difference = {name: n for name, n in difference.items() if n}
    if not model.powers and set(_SUMS) & set(theirs):
        return Comparison(0, 0, difference)
    differ = sum(int(np.count_nonzero(~((r == c) | (np.isnan(r) & np.isnan(c))))) for r, c in zip(refs, comps, strict=True))
    return Comparison(differ, sum(r.size for r in refs), difference)


def main(count, first=0, wide=False):
    from onnx_qdq_wide import WideModel

    totals = Counter()
    for seed in range(first, first + count):
        model = (WideModel if wide else RandomModel)(seed)
        for level in LEVELS:
            try:
                found = compare(model, level)
            except Exception as error:
                totals[level, type(error).__name__] += 1
                print(f"seed {seed} {level}: {type(error).__name__}: {str(error)[:160]}")
                continue
            totals[level, "models"] += 1
            totals[level, "numbers"] += found.numbers
            totals[level, "numbers that differ"] += found.differ
            totals[level, "models with other operators on codes"] += bool(found.operators)
            if found.differ or found.operators:
                print(f"seed {seed} {level}: {found}; int8={model.signed}; {model.operators}")
    for (level, what), n in sorted(totals.items()):
        print(f"{level:9} {what}: {n:,}")
    return int(any(n for (_, what), n in totals.items() if "differ" in what or "other" in what))


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(__file__))
    sys.exit(main(*map(int, [a for a in sys.argv[1:] if a != "--wide"]), wide="--wide" in sys.argv))
