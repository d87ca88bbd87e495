"""LiteRT (TensorFlow Lite) as runners: three resolvers, three numerics. Imports ai_edge_litert when a runner is made."""

import numpy as np

from refquant.backends.litert_special import SPECIAL_CALLS, as_images, refuse_far, refuse_special
from refquant.backends.machine import cpu_features, cpu_model
from refquant.core.layout import is_channels_last, to_channels_last
from refquant.core.qtensor import QTensor
from refquant.errors import BackendMissing

__all__ = ["LiteRtRunner"]

_RESOLVERS = {"tflite_ref": "BUILTIN_REF", "tflite_opt": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "xnnpack": "AUTO"}
_INSTALL = "pip install 'refquant[litert]'"


class LiteRtRunner:
    """LiteRT with one of its resolvers, on models of one operator, int8.

    Parameters
    ----------
    name : {"tflite_ref", "tflite_opt", "xnnpack"}

    Raises
    ------
    BackendMissing
        ai-edge-litert or flatbuffers is not installed.
    """

    def __init__(self, name):
        try:
            from ai_edge_litert import interpreter

            from refquant.backends import litert_models
        except ImportError as error:
            raise BackendMissing(f"engine {name}: needs ai-edge-litert and flatbuffers, which cannot be imported ({error}); {_INSTALL}") from error
        self.name = self.profile = name
        self._interpreter, self._build = interpreter, litert_models.build_model
        self._resolver = getattr(interpreter.OpResolverType, _RESOLVERS[name])

    def describe(self):
        """Return the provenance of results."""
        from importlib.metadata import version

        return {
            "engine": self.name,
            "package": "ai-edge-litert",
            "version": version("ai-edge-litert"),
            "cpu": cpu_model(),
            "features": list(cpu_features()),
            "threads": 1,
        }

    def supports(self, problem):
        """Return None, or why this engine cannot be asked."""
        if problem.op not in _CALLS:
            return f"no model is written for {problem.op}"
        if any(q.dtype not in ("int8", "int32") for q in _parameters(problem)):
            return "int8 only"
        if any(isinstance(q, QTensor) and not q.ndim for q in problem.quantized()):
            return "a number without axes is no tensor that a model can be given"
        return refuse_far(problem, self.name) or _refuse(problem, self.name)

    def run(self, problem):
        """Return the engine's codes or numbers."""
        return _CALLS[problem.op](self._evaluate, problem)

    def _evaluate(self, builtin, version, options, inputs, constants, output, order=None):
        described = [(a.shape, a.dtype.name, *p) for a, p in inputs]
        content = self._build(builtin, version, options, described, constants, output, order)
        runner = self._interpreter.Interpreter(model_content=content, experimental_op_resolver_type=self._resolver, num_threads=1)
        runner.allocate_tensors()
        for detail, (array, _) in zip(runner.get_input_details(), inputs):
            runner.set_tensor(detail["index"], np.ascontiguousarray(array))
        runner.invoke()
        return runner.get_tensor(runner.get_output_details()[0]["index"])


def _parameters(problem):
    found = [getattr(q, "qparams", q) for q in problem.quantized()]
    return [*found, *([problem["out"]] if problem.get("out") is not None else [])]


def _refuse(problem, name):
    op = problem.op
    if op in ("linear", "conv1d", "conv2d"):
        return _refuse_product(problem)
    if op == "softmax" and name == "tflite_ref" and _aborts(problem["x"]):
        return "BUILTIN_REF aborts the process where the exponentials of a row add up to 512"
    if op in SPECIAL_CALLS:
        return refuse_special(problem)
    if op in ("quantize", "dequantize") and any(p.per_channel or p.dtype != "int8" for p in _parameters(problem)):
        return "per tensor int8 only"
    if op == "quantize" and name == "xnnpack" and np.float32(problem["qparams"].scale) < 2.0**-126:
        return "the scale is subnormal, which ends the process"
    if op in ("add", "sub"):
        ratios = [q.qparams.scale / problem["out"].scale for q in (problem["a"], problem["b"])]
        if name == "xnnpack" and not all(2.0**-10 <= r < 2.0**8 for r in ratios):
            return "the ratio of the scales must lie in [2**-10, 2**8)"
        if max(q.qparams.scale for q in (problem["a"], problem["b"])) / 2**19 / problem["out"].scale >= 1:
            return "the output's scale is too small for the kernel's multiplier"
    if op == "requantize" and name == "xnnpack" and not 2.0**-8 <= problem["x"].qparams.scale / problem["out"].scale <= 2.0**7:
        return "the ratio of the scales must lie in [2**-8, 2**7]"
    if op == "mul" and problem["a"].qparams.scale * problem["b"].qparams.scale / problem["out"].scale >= 1:
        return "the product of the scales must be below the output's"
    if op == "squared_difference" and (2 * max(problem[name].qparams.scale for name in "ab")) ** 2 / 2**14 / problem["out"].scale >= 1:
        return "the output's scale is too small for the kernel's multiplier"
    if op == "cat" and problem.get("activation") is not None:
        return "CONCATENATION of int8 has no activation"
    if op in ("max_pool1d", "max_pool2d") and (set(np.atleast_1d(problem.get("dilation", 1)).tolist()) != {1} or problem.get("ceil_mode")):
        return "MAX_POOL_2D has neither ceil_mode nor dilation"
    if op == "adaptive_avg_pool2d" and problem["output_size"] not in (1, (1, 1)):
        return "MEAN is the global pool alone"
    if op == "avg_pool2d":
        if problem.get("divisor_override") is not None or problem.get("ceil_mode") or problem.get("padding", 0) not in (0, (0, 0)):
            return "AVERAGE_POOL_2D has neither padding of its own nor ceil_mode nor a divisor"
        if problem.get("out") is not None and problem["out"] != problem["x"].qparams:
            return "AVERAGE_POOL_2D keeps its input's parameters"
    return None


def _refuse_product(problem):
    x, w, bias, out = problem["x"], problem["w"], problem.get("bias"), problem.get("out")
    if out is None:
        return "there is no float output with int8 activations"
    if w.dtype != "int8" or np.any(w.qparams.zero_point):
        return "weights must be int8 with zero point 0"
    if bias is not None and np.asarray(bias).dtype != np.int32:
        return "a bias must be int32"
    if problem.op != "linear" and problem.get("groups", 1) not in (1, x.shape[1]):
        return "only groups=1 and depthwise convolutions have int8 kernels"
    if np.any(np.float64(x.qparams.scale) * w.qparams.scale / out.scale >= 1):
        return "the multiplier must be below 1"
    return None


def _pair(value):
    return (value, value) if isinstance(value, (int, np.integer)) else tuple(value)


def _scales(q):
    return q.qparams.scale, q.qparams.zero_point


def _activation(problem):
    return 1 if problem.get("activation") == "relu" else 0


def _bias(problem):
    w, bias = problem["w"], problem.get("bias")
    channels = w.shape[0]
    codes = np.zeros(channels, np.int32) if bias is None else np.asarray(bias, np.int32)
    return codes, np.float32(problem["x"].qparams.scale) * np.asarray(w.qparams.scale, np.float32), 0, 0


def _linear(evaluate, problem):
    x, w, out = problem["x"], problem["w"], problem["out"]
    options = ("FullyConnectedOptions", {"fusedActivationFunction": _activation(problem)})
    constants = [(w.values, *_scales(w), 0), _bias(problem)]
    shape = (*x.shape[:-1], w.shape[0])
    y = evaluate("FULLY_CONNECTED", 12 if w.qparams.per_channel else 4, options, [(x.values, _scales(x))], constants, (shape, "int8", out.scale, out.zero_point))
    # Without keep_num_dims rows come out as one axis.
    return y.reshape(shape)


def _nhwc(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def _conv2d(evaluate, problem):
    x, w, out = problem["x"], problem["w"], problem["out"]
    (sh, sw), (dh, dw), (ph, pw) = (_pair(problem.get(k, d)) for k, d in (("stride", 1), ("dilation", 1), ("padding", 0)))
    padded = np.pad(_nhwc(x.values), ((0, 0), (ph, ph), (pw, pw), (0, 0)), constant_values=x.qparams.zero_point)
    fields = {"padding": 1, "strideH": sh, "strideW": sw, "dilationHFactor": dh, "dilationWFactor": dw, "fusedActivationFunction": _activation(problem)}
    depthwise = problem.get("groups", 1) > 1
    if depthwise:
        weights, axis = np.ascontiguousarray(np.transpose(w.values, (1, 2, 3, 0))), 3
        fields["depthMultiplier"] = w.shape[0] // x.shape[1]
    else:
        weights, axis = np.ascontiguousarray(np.moveaxis(w.values, 1, -1)), 0
    size = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(padded.shape[1:3], w.shape[2:], (sh, sw), (dh, dw))]
    output = ((x.shape[0], *size, w.shape[0]), "int8", out.scale, out.zero_point)
    kind = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depthwise else ("CONV_2D", "Conv2DOptions")
    y = evaluate(kind[0], 3, (kind[1], fields), [(padded, _scales(x))], [(weights, *_scales(w), axis), _bias(problem)], output)
    return to_channels_last(np.moveaxis(y, -1, 1))


def _aborts(x):
    """Whether the sum of the exponentials of a row comes near 512, which the kernel's last shift has no room for."""
    codes = x.values.astype(np.float64)
    if not codes.size or codes.shape[-1] < 500:
        return False
    return bool(np.exp((codes - codes.max(-1, keepdims=True)) * x.qparams.scale).sum(-1).max() > 500)


def _pairwise(builtin, options=None):
    def call(evaluate, problem):
        a, b, out = problem["a"], problem["b"], problem["out"]
        chosen = options and (options, {"fusedActivationFunction": _activation(problem)})
        last = is_channels_last(a.values) and is_channels_last(b.values)
        # Which numbers are the last ones, which fill no vector, is a matter of memory.
        arrays = [(_nhwc(q.values) if last else q.values, _scales(q)) for q in (a, b)]
        shape = np.broadcast_shapes(*(array.shape for array, _ in arrays))
        y = evaluate(builtin, 2, chosen, arrays, [], (shape, "int8", out.scale, out.zero_point))
        return np.moveaxis(y, -1, 1) if last else y

    return call


def _pool(builtin):
    def call(evaluate, problem):
        x = problem["x"]
        kernel = _pair(problem["kernel_size"])
        stride = _pair(problem.get("stride") or kernel)
        fields = {"padding": 1, "strideH": stride[0], "strideW": stride[1], "filterHeight": kernel[0], "filterWidth": kernel[1], "fusedActivationFunction": 0}
        # Padding is done here: a maximum does not see the lowest code.
        (ph, pw), lowest = _pair(problem.get("padding", 0)), x.qparams.qmin
        values = np.pad(_nhwc(x.values), ((0, 0), (ph, ph), (pw, pw), (0, 0)), constant_values=lowest)
        size = [(n - k) // s + 1 for n, k, s in zip(values.shape[1:3], kernel, stride)]
        y = evaluate(builtin, 2, ("Pool2DOptions", fields), [(values, _scales(x))], [], ((x.shape[0], *size, x.shape[1]), "int8", *_scales(x)))
        y = np.moveaxis(y, -1, 1)
        return to_channels_last(y) if is_channels_last(x.values) else np.ascontiguousarray(y)

    return call


def _mean(evaluate, problem):
    x, out = problem["x"], problem.get("out") or problem["x"].qparams
    shape, axes = (x.shape[0], 1, 1, x.shape[1]), (np.array([1, 2], np.int32), None, None, 0)
    y = evaluate("MEAN", 2, ("ReducerOptions", {"keepDims": True}), [(_nhwc(x.values), _scales(x))], [axes], (shape, "int8", out.scale, out.zero_point))
    y = np.moveaxis(y, -1, 1)
    return to_channels_last(y) if is_channels_last(x.values) else np.ascontiguousarray(y)


def _cat(evaluate, problem):
    tensors, out, dim = problem["tensors"], problem["out"], problem.get("dim", 1)
    shape = list(tensors[0].shape)
    shape[dim] = sum(q.shape[dim] for q in tensors)
    options = ("ConcatenationOptions", {"axis": dim, "fusedActivationFunction": 0})
    y = evaluate("CONCATENATION", 2, options, [(q.values, _scales(q)) for q in tensors], [], (shape, "int8", out.scale, out.zero_point))
    return to_channels_last(y) if dim == 1 and all(is_channels_last(q.values) for q in tensors) else y


_OWN_OUTPUT = {"sigmoid": (1 / 256, -128), "tanh": (1 / 128, 0)}


def _unary(builtin, options=lambda problem: None):
    def call(evaluate, problem):
        x, out = problem["x"], problem.get("out")
        parameters = (out.scale, out.zero_point) if out is not None else _OWN_OUTPUT.get(problem.op, _scales(x))
        y = evaluate(builtin, 1, options(problem), [(x.values, _scales(x))], [], (x.shape, "int8", *parameters))
        return to_channels_last(y) if is_channels_last(x.values) else y

    return call


def _in_memory_order(compute, x):
    return np.moveaxis(compute(_nhwc(x)), -1, 1) if is_channels_last(x) else compute(x)


def _quantize(evaluate, problem):
    p = problem["qparams"]
    x = np.asarray(problem["x"], np.float32)
    compute = lambda x: evaluate("QUANTIZE", 1, ("QuantizeOptions", {}), [(x, (None, None))], [], (x.shape, "int8", p.scale, p.zero_point))  # noqa: E731
    return _in_memory_order(compute, x)


def _requantize(evaluate, problem):
    x, out = problem["x"], problem["out"]
    y = evaluate("QUANTIZE", 2, ("QuantizeOptions", {}), [(x.values, _scales(x))], [], (x.shape, "int8", out.scale, out.zero_point))
    return to_channels_last(y) if is_channels_last(x.values) else y


def _dequantize(evaluate, problem):
    q = problem["q"]
    return _in_memory_order(lambda x: evaluate("DEQUANTIZE", 2, ("DequantizeOptions", {}), [(x, _scales(q))], [], (x.shape, "float32", None, None)), q.values)


_CALLS = {
    "linear": _linear,
    "conv2d": _conv2d,
    "add": _pairwise("ADD", "AddOptions"),
    "sub": _pairwise("SUB", "SubOptions"),
    "mul": _pairwise("MUL", "MulOptions"),
    "squared_difference": _pairwise("SQUARED_DIFFERENCE"),
    "avg_pool2d": _pool("AVERAGE_POOL_2D"),
    "adaptive_avg_pool2d": _mean,
    "max_pool1d": lambda evaluate, problem: _pool("MAX_POOL_2D")(evaluate, as_images(problem))[:, :, 0],
    "max_pool2d": _pool("MAX_POOL_2D"),
    "cat": _cat,
    "relu": _unary("RELU"),
    "sigmoid": _unary("LOGISTIC"),
    "tanh": _unary("TANH"),
    "hardswish": _unary("HARD_SWISH", lambda problem: ("HardSwishOptions", {})),
    "elu": _unary("ELU"),
    "leaky_relu": _unary("LEAKY_RELU", lambda problem: ("LeakyReluOptions", {"alpha": float(problem.get("negative_slope", 0.01))})),
    "gelu": _unary("GELU", lambda problem: ("GeluOptions", {"approximate": False})),
    "exp": _unary("EXP", lambda problem: ("ExpOptions", {})),
    **{op: _unary(op.upper()) for op in ("log", "sqrt", "rsqrt", "abs")},
    "quantize": _quantize,
    "requantize": _requantize,
    "dequantize": _dequantize,
    "conv1d": lambda evaluate, problem: _conv2d(evaluate, as_images(problem))[:, :, 0],
    **SPECIAL_CALLS,
}
