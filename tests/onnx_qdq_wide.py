"""More kinds of random QDQ models for `onnx_qdq_fuzz`: moving operators, means, Resize, ArgMax, real weights and biases, 16 bits, quantizers without zero points,
values with several readers, opsets 13 to 21."""

import numpy as np
from onnx import TensorProto

from onnx_qdq_fuzz import SHAPE, RandomModel

__all__ = ["WideModel"]


class WideModel(RandomModel):
    """A `RandomModel` with more kinds of operators and quantizers."""

    def __init__(self, seed):
        self.wide = np.random.default_rng([seed, 1])
        self.opset = int(self.wide.choice([13, 17, 18, 19, 21]))
        super().__init__(seed)

    def any_of(self, share):
        return self.wide.random() < share

    def quantized(self, value):
        if self.any_of(0.04):
            return self.sixteen(value)
        if self.any_of(0.05) and not self.signed:
            return self.without_zero(value)
        real = super().quantized(value)
        if self.any_of(0.08):
            self.ends.append(real)
        return real

    def sixteen(self, value):
        if self.opset < 21:
            return super().quantized(value)
        pair = [self.constant(np.float32(self.drawn(8, 11))), self.constant(np.array(0 if self.signed else 2**15, np.int16 if self.signed else np.uint16))]
        return self.make("DequantizeLinear", [self.make("QuantizeLinear", [value, *pair]), *pair])

    def without_zero(self, value):
        scale = self.constant(np.float32(self.drawn(2, 6)))
        return self.make("DequantizeLinear", [self.make("QuantizeLinear", [value, scale]), scale])

    def moved(self):
        x = self.source()
        ends = lambda *v: [self.constant(np.int64([n])) for n in v]  # noqa: E731
        kind = int(self.wide.integers(8))
        if kind == 0:
            parts = self.make("Split", [x, self.constant(np.int64([2, 2]))], axis=1)
            self.nodes[-1].output.append(f"{parts}_b")
            return self.make("Concat", [self.quantized(parts) if self.any_of(0.5) else parts, f"{parts}_b"], axis=1)
        if kind == 1:
            return self.make("Gather", [x, self.constant(np.int64([3, 1, 1, 0]))], axis=1)
        if kind == 2:
            return self.make("Squeeze", [self.make("Unsqueeze", [x, *ends(1)]), *ends(1)])
        if kind == 3:
            return self.make("Slice", [self.make("Pad", [x, self.constant(np.int64([0, 0, 1, 0, 0, 0, 0, 1]))]), self.constant(np.int64([0, 1])), self.constant(np.int64([6, 7])), self.constant(np.int64([2, 3]))])
        if kind == 4:
            return self.make("Transpose", [self.make("Transpose", [x], perm=[0, 2, 3, 1])], perm=[0, 3, 1, 2])
        if kind == 5:
            return self.make("Reshape", [self.make("Flatten", [x], axis=1), self.constant(np.int64(SHAPE))])
        if kind == 6:
            return self.make("DepthToSpace", [self.make("SpaceToDepth", [x], blocksize=2)], blocksize=2)
        return self.make("Identity", [x])

    def reduced(self):
        x, kind = self.source(), int(self.wide.integers(4))
        if kind == 0 and self.opset >= 18:
            y = self.make("ReduceMean", [x, self.constant(np.int64([2, 3]))])
        elif kind == 1 and self.opset >= 18:
            y = self.make("ReduceMax", [x, self.constant(np.int64([1]))])
        elif kind == 2:
            y = self.make("Cast", [self.make("ArgMax", [x], axis=int(self.wide.integers(1, 4)))], to=TensorProto.FLOAT)
        else:
            y = self.make("ReduceSum", [x, self.constant(np.int64([3]))])
        return self.make("Add", [self.source(), self.quantized(y) if self.any_of(0.7) else y])

    def resized(self):
        modes = [{"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, {"mode": "linear"}]
        y = self.make("Resize", [self.source(), "", self.constant(np.float32([1, 1, 2, 2]))], **modes[int(self.wide.integers(2))])
        y = self.quantized(y) if self.any_of(0.7) else y
        return self.make("MaxPool", [y], kernel_shape=[2, 2], strides=[2, 2])

    def real_layer(self):
        """A layer with real weights, a real bias, or auto_pad."""
        x, kind = self.source(), int(self.wide.integers(3))
        w = (self.wide.integers(-64, 65, (4, 4, 3, 3)) * 2.0**-8).astype(np.float32)
        w.flat[0] = 127 * 2.0**-8 if self.powers else w.flat[0]
        bias = [self.constant((self.wide.integers(-99, 99, 4) * 2.0**-8).astype(np.float32))] if self.any_of(0.5) else []
        if kind == 0:
            return self.make("Conv", [x, self.constant(w), *bias], pads=[1, 1, 1, 1])
        if kind == 1:
            return self.make("Conv", [x, self.weight((4, 4, 3, 3), 0), *bias], auto_pad=str(self.wide.choice(["SAME_UPPER", "SAME_LOWER"])))
        return self.make("Conv", [x, self.weight((4, 1, 3, 3), 0), *bias], group=4, dilations=[2, 2], pads=[2, 2, 2, 2])

    def added(self):
        """A product of matrices to which a bias is added without a quantizer between."""
        y = self.make("MatMul", [self.source(), self.weight((6, 6), 1)])
        return self.make("Add", [y, self.constant((self.wide.integers(-99, 99, 6) * 2.0**-6).astype(np.float32))])

    def kinds(self):
        if self.any_of(0.6):
            return super().kinds()
        mine = (self.moved, self.reduced, self.resized, self.real_layer, self.added)
        return mine[int(self.wide.choice(len(mine), p=[0.35, 0.2, 0.15, 0.2, 0.1]))]

