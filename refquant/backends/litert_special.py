"""TensorFlow Lite's operators that few other engines have as integer kernels, as calls of one-operator models."""

import numpy as np

from refquant.core.layout import to_channels_last
from refquant.core.qtensor import QTensor
from refquant.verify.problem import Problem

__all__ = ["SPECIAL_CALLS", "as_images", "refuse_far", "refuse_special"]

_GEOMETRY = ("stride", "padding", "dilation", "output_padding", "kernel_size")


def as_images(problem):
    """Return a problem on sequences as one on images of height 1."""
    changes = {name: QTensor(problem[name].values[:, :, None], problem[name].qparams) for name in ("x", "w") if name in problem.arguments}
    for name in _GEOMETRY:
        if problem.get(name) is not None:
            (value,) = np.atleast_1d(problem[name])
            changes[name] = (0 if "padding" in name else 1, int(value))
    return Problem(problem.op.replace("1d", "2d"), {**problem.arguments, **changes})


def _pair(value):
    return (value, value) if isinstance(value, (int, np.integer)) else tuple(value)


def _scales(q):
    return q.qparams.scale, q.qparams.zero_point


def _conv_transpose2d(evaluate, problem):
    """TRANSPOSE_CONV without padding, of which the padding is cut off."""
    x, w, out = problem["x"], problem["w"], problem["out"]
    stride, padding, more = (_pair(problem.get(name, usual)) for name, usual in (("stride", 1), ("padding", 0), ("output_padding", 0)))
    full = [(n - 1) * s + k + m for n, s, k, m in zip(x.shape[2:], stride, w.shape[2:], more)]
    shape = (x.shape[0], *full, w.shape[1])
    bias = np.zeros(w.shape[1], np.int32) if problem.get("bias") is None else problem["bias"]
    constants = [
        (np.array(shape, np.int32), None, None, 0),
        (np.ascontiguousarray(np.moveaxis(w.values, (1, 0), (0, 3))), *_scales(w), 0),
        (bias, np.float32(x.qparams.scale) * np.asarray(w.qparams.scale, np.float32), 0, 0),
    ]
    options = ("TransposeConvOptions", {"padding": 1, "strideH": stride[0], "strideW": stride[1], "fusedActivationFunction": int(problem.get("activation") == "relu")})
    codes = np.ascontiguousarray(np.moveaxis(x.values, 1, -1))
    y = evaluate("TRANSPOSE_CONV", 3, options, [(codes, _scales(x))], constants, (shape, "int8", out.scale, out.zero_point), [1, 2, 0, 3])
    (ph, pw), y = padding, np.moveaxis(y, -1, 1)
    return to_channels_last(y[:, :, ph : y.shape[2] - ph, pw : y.shape[3] - pw])


def _elementwise(builtin, version=1):
    def call(evaluate, problem):
        x = problem["x"]
        return evaluate(builtin, version, None, [(x.values, _scales(x))], [], (x.shape, "int8", *_scales(x)))

    return call


_LIMITS = {(-1.0, 1.0): "RELU_N1_TO_1", (0.0, 1.0): "RELU_0_TO_1"}


def _limits_of(problem):
    return problem.get("min_val", -1.0), problem.get("max_val", 1.0)


def _prelu(evaluate, problem):
    x, w, out = problem["x"], problem["weight"], problem["out"]
    codes = np.ascontiguousarray(np.moveaxis(x.values, 1, -1) if x.ndim > 2 else x.values)
    slopes = w.values.reshape([1] * max(x.ndim - 2, 0) + [-1])
    y = evaluate("PRELU", 1, None, [(codes, _scales(x))], [(slopes, *_scales(w), 0)], (codes.shape, "int8", out.scale, out.zero_point))
    return np.moveaxis(y, -1, 1) if x.ndim > 2 else y


def _softmax(evaluate, problem):
    x = problem["x"]
    return evaluate("SOFTMAX", 2, ("SoftmaxOptions", {"beta": 1.0}), [(x.values, _scales(x))], [], (x.shape, "int8", 1 / 256, -128))


def _mean(evaluate, problem):
    x, out = problem["x"], problem.get("out") or problem["x"].qparams
    axes = np.sort(np.atleast_1d(problem["dim"]) % x.ndim).astype(np.int32)
    shape = [1 if d in axes else n for d, n in enumerate(x.shape)]
    y = evaluate("MEAN", 2, ("ReducerOptions", {"keepDims": True}), [(x.values, _scales(x))], [(axes, None, None, 0)], (shape, "int8", out.scale, out.zero_point))
    return y if problem.get("keepdim") else y.reshape([n for d, n in enumerate(x.shape) if d not in axes])


def _interpolate(evaluate, problem):
    x, size = problem["x"], np.array(_pair(problem["size"]), np.int32)
    shape = (x.shape[0], *size.tolist(), x.shape[1])
    codes = np.ascontiguousarray(np.moveaxis(x.values, 1, -1))
    corners = bool(problem.get("align_corners"))
    if problem["mode"] == "bilinear":
        kind, options = "RESIZE_BILINEAR", ("ResizeBilinearOptions", {"alignCorners": corners, "halfPixelCenters": not corners})
    else:
        kind, options = "RESIZE_NEAREST_NEIGHBOR", ("ResizeNearestNeighborOptions", {"alignCorners": False, "halfPixelCenters": problem["mode"] == "nearest-exact"})
    y = evaluate(kind, 3, options, [(codes, _scales(x))], [(size, None, None, 0)], (shape, "int8", *_scales(x)))
    return to_channels_last(np.moveaxis(y, -1, 1))


def _matmul(evaluate, problem):
    a, b, out = problem["a"], problem["b"], problem["out"]
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    options = ("BatchMatMulOptions", {"adjX": False, "adjY": False})
    return evaluate("BATCH_MATMUL", 3, options, [(q.values, _scales(q)) for q in (a, b)], [], (shape, "int8", out.scale, out.zero_point))


def _linear_dynamic(evaluate, problem):
    x, w, bias = np.asarray(problem["x"], np.float32), problem["w"], problem.get("bias")
    fields = {"fusedActivationFunction": int(problem.get("activation") == "relu"), "asymmetricQuantizeInputs": not problem.get("symmetric", False)}
    constants = [(w.values, *_scales(w), 0)] + ([] if bias is None else [(np.asarray(bias, np.float32), None, None, 0)])
    shape = (*x.shape[:-1], w.shape[0])
    y = evaluate("FULLY_CONNECTED", 12 if w.qparams.per_channel else 9, ("FullyConnectedOptions", fields), [(x, (None, None))], constants, (shape, "float32", None, None))
    return y.reshape(shape)


# Multipliers that kernels are made for, with room for the 256 codes.
_LEAST, _MOST = 2.0**-30, 2.0**22
# So many neighbours' sums, 64 at a step, 16 bits hold.
_NEIGHBOURS = 8192


def _ratios(problem):
    """Return what a kernel multiplies by: scales of inputs over that of the output; of limits the number of steps."""
    op, out = problem.op, problem.get("out")
    if op in ("relu6", "hardtanh"):
        return (2.0**-6 / problem["x"].qparams.scale,)
    if op in ("sqrt", "rsqrt"):
        return (problem["x"].qparams.scale ** (0.5 if op == "sqrt" else -0.5) / out.scale,)
    if op == "matmul" and out is not None:
        return (problem["a"].qparams.scale * problem["b"].qparams.scale / out.scale,)
    if op not in ("requantize", "leaky_relu", "prelu", "mean", "elu", "hardswish", "abs") or out is None:
        return ()
    ratio = problem["x"].qparams.scale / out.scale
    if op == "leaky_relu":
        return ratio, abs(ratio * problem["negative_slope"]) or 1.0
    return (ratio, ratio * problem["weight"].qparams.scale) if op == "prelu" else (ratio,)


def _sums_in_sixteen_bits(problem):
    """Whether a mean runs over the last axes, all side by side, of more elements than 16 bits sum."""
    x, axes = problem["x"], {int(d) % problem["x"].ndim for d in np.atleast_1d(problem["dim"])}
    inner = 1
    for d in reversed(range(x.ndim)):
        if d not in axes and x.shape[d] > 1:
            break
        inner *= x.shape[d]
    return inner > _NEIGHBOURS


def refuse_far(problem, name):
    """Return why numbers of a problem leave what the kernels of the engine `name` can hold, or None."""
    if not all(_LEAST <= ratio < _MOST for ratio in _ratios(problem)):
        return "a multiplier outside of [2**-30, 2**22) shifts, or takes a code, out of int32, which C++ leaves undefined"
    if problem.op == "mean" and name == "xnnpack" and _sums_in_sixteen_bits(problem):
        return "XNNPACK's AVX2 kernel sums more than 8,192 neighbours in 16 bits, which wrap"
    return None


def refuse_special(problem):
    """Return why TensorFlow Lite cannot be asked for a problem of these operators, or None."""
    op = problem.op
    if op.startswith("conv_transpose"):
        return _refuse_transposed(problem)
    if op == "matmul" and (problem.get("out") is None or problem.get("bias") is not None or problem["b"].qparams.per_channel):
        return "BATCH_MATMUL of int8 gives int8, without a bias, per tensor"
    if op == "hardtanh" and _limits_of(problem) not in _LIMITS:
        return "RELU_N1_TO_1 has the limits -1 and 1 alone, RELU_0_TO_1 0 and 1"
    if op == "linear_dynamic" and (problem["w"].dtype != "int8" or np.any(problem["w"].qparams.zero_point) or problem.get("reduce_range")):
        return "weights must be int8 with zero point 0, and the range whole"
    if op == "linear_dynamic" and problem["w"].size and problem["w"].values.min() == -128:
        return "hybrid weights lie in -127 … 127; of -128 the kernels take the wrong sign"
    if op == "softmax" and (problem["dim"] not in (-1, problem["x"].ndim - 1) or problem.get("out") is not None):
        return "SOFTMAX has the last axis and its own output parameters alone"
    if op == "interpolate" and problem.get("size") is None:
        return "RESIZE takes sizes, no factors"
    if op == "prelu" and problem["x"].ndim > 4:
        return "PRELU takes up to four axes"
    if op == "mean" and len(problem["x"].shape) > 4:
        return "MEAN takes up to four axes"
    return None


def _refuse_transposed(problem):
    w, bias = problem["w"], problem.get("bias")
    if any(v != 1 for v in (*_pair(problem.get("dilation", 1)), problem.get("groups", 1))):
        return "TRANSPOSE_CONV has neither groups nor dilation"
    if w.dtype != "int8" or np.any(w.qparams.zero_point):
        return "weights must be int8 with zero point 0"
    if bias is not None and np.asarray(bias).dtype != np.int32:
        return "a bias must be int32"
    if np.any(np.float64(problem["x"].qparams.scale) * w.qparams.scale / problem["out"].scale >= 1):
        return "the multiplier must be below 1"
    return None


#: Each operator's call: of the function that evaluates a model, and a problem.
SPECIAL_CALLS = {
    "conv_transpose1d": lambda evaluate, problem: _conv_transpose2d(evaluate, as_images(problem))[:, :, 0],
    "conv_transpose2d": _conv_transpose2d,
    "linear_dynamic": _linear_dynamic,
    "matmul": _matmul,
    "relu6": _elementwise("RELU6", 2),
    "hardtanh": lambda evaluate, problem: _elementwise(_LIMITS[_limits_of(problem)])(evaluate, problem),
    "prelu": _prelu,
    "softmax": _softmax,
    "mean": _mean,
    "interpolate": _interpolate,
}
