"""OpenVINO's CPU plugin as a runner. Imports onnx and openvino when a runner is made."""

from contextlib import suppress

import numpy as np

from refquant.backends.machine import cpu_features, cpu_model, profile_here
from refquant.backends.signal_stack import signal_stack_kept
from refquant.errors import ArgumentError, BackendMissing

__all__ = ["OpenVinoRunner"]

_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_PRODUCTS = ("linear", "conv1d", "conv2d", "conv3d", *_TRANSPOSED)
# What the plugin calls the node that must have stayed in integers.
_NODES = {"linear": "FullyConnected", **dict.fromkeys(("conv1d", "conv2d", "conv3d"), "Convolution"), **dict.fromkeys(_TRANSPOSED, "Deconvolution")}
# What gives codes that it was given, as long as the real numbers in between are finite.
_COPYING = ("relu", "max_pool1d", "max_pool2d", "max_pool3d")
# Steps of a lower limit from which on, with a zero point, it is no int32.
_WRAPS = 2.0**31 - 512
_OPTIONS = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}


class OpenVinoRunner:
    """OpenVINO on small models of DequantizeLinear, an operator and QuantizeLinear; float32 where it computes in reals, one thread.

    Raises
    ------
    BackendMissing
        onnx or openvino is not installed.
    """

    name = "openvino"

    def __init__(self):
        try:
            import openvino

            from refquant.backends.openvino_models import QDQ_MODELS
        except ImportError as error:
            raise BackendMissing(f"engine openvino: needs onnx and openvino, which cannot be imported ({error}); pip install 'refquant[openvino]'") from error
        self.profile = profile_here(self.name)
        self._openvino, self._core, self._models = openvino, openvino.Core(), QDQ_MODELS

    def describe(self):
        """Return the provenance of results."""
        return {
            "engine": self.name,
            "package": "openvino",
            "version": self._openvino.__version__.partition("-")[0],
            "cpu": cpu_model(),
            "features": list(cpu_features()),
            "threads": 1,
        }

    def supports(self, problem):
        """Return None, or why this engine cannot be asked."""
        if problem.op not in self._models:
            return f"no model is written for {problem.op}"
        if problem.op in _TRANSPOSED and "@" not in self.profile and set(np.atleast_1d(problem.get("dilation", 1)).tolist()) != {1}:
            return "how transposed convolutions with dilation are computed on AVX-512 is not described"
        if problem.op in _TRANSPOSED and np.atleast_1d(problem.get("dilation", 1))[-1] > 1 and np.atleast_1d(problem.get("output_padding", 0))[-1] > 0:
            return "some outputs of a line that is dilated and padded at its output are others than those meant; by which rule is not described"
        return _refuse(problem)

    def run(self, problem):
        """Return the engine's codes or numbers."""
        small, compiled = self._compiled(problem)
        return small.finish(compiled(list(small.feeds.values()))[0].copy())

    def together(self, problems):
        """Return a runner for these problems, all compiled as branches of one model.

        The branches share neither inputs nor constants, so each is fused as in a model of its own; compiling takes a quarter of the time.

        Parameters
        ----------
        problems : list of Problem
            Of one operator: beside a FakeQuantize anywhere in a model, DequantizeLinear is computed otherwise than without.

        Raises
        ------
        ArgumentError
            Problems of several operators.
        """
        ops = sorted({problem.op for problem in problems})
        if len(ops) > 1:
            raise ArgumentError(f"together: must be problems of one operator but are of {', '.join(ops)}; ask each operator's apart")
        return _Together(self, problems)

    def node_precision(self, problem):
        """Return the precision in which the plugin runs a product's node, as its runtime graph says: ``I8`` and ``i8`` are integers.

        Examples
        --------
        >>> OpenVinoRunner().node_precision(problem)  # doctest: +SKIP
        'brgemm_avx512_I8'
        """
        _, compiled = self._compiled(problem)
        for node in compiled.get_runtime_model().get_ordered_ops():
            about = node.get_rt_info()
            if about["layerType"].astype(str) == _NODES[problem.op]:
                return about["primitiveType"].astype(str)
        return ""

    def compile(self, model, **options):
        """Compile an ONNX model for the CPU.

        Parameters
        ----------
        model : bytes
        **options
            Of the plugin, as ``INFERENCE_NUM_THREADS=1``.
        """
        with signal_stack_kept():
            return self._core.compile_model(self._core.read_model(model), "CPU", options)

    def _compiled(self, problem):
        small = self._models[problem.op](problem)
        return small, self.compile(small.model, **_OPTIONS)


class _Together:
    """Answers problems that were asked in one model; any other as the runner itself."""

    def __init__(self, runner, problems):
        from refquant.backends.joined_models import join_models

        self.name, self.profile = runner.name, runner.profile
        self.describe, self.supports, self._alone = runner.describe, runner.supports, runner.run
        asked = [problem for problem in problems if runner.supports(problem) is None]
        models = [runner._models[problem.op](problem) for problem in asked]
        self.compiled, answers = None, []
        with suppress(RuntimeError):  # each is asked alone then, which tells whose it was
            if asked:
                joined, feeds = join_models(models)
                self.compiled = runner.compile(joined, **_OPTIONS)
                answers = [small.finish(answer.copy()) for small, answer in zip(models, self.compiled(feeds).to_tuple())]
        self._answers = {id(problem): (problem, answer) for problem, answer in zip(asked, answers)}

    def run(self, problem):
        asked, answer = self._answers.get(id(problem), (None, None))
        return answer if asked is problem else self._alone(problem)


def _refuse(problem):
    if any(getattr(q, "qparams", q).dtype == "int32" for q in problem.quantized()):
        return "codes must be of 8 bits"
    if problem.op in _COPYING and float(problem["x"].qparams.scale) * 256 > np.finfo(np.float32).max:
        return "the real numbers between dequantization and quantization overflow float32"
    if problem.op in _PRODUCTS:
        return _refuse_product(problem)
    if problem.op == "matmul":
        return _refuse_factors(problem)
    if problem.op == "quantize_dynamic" and (problem.get("dtype", "uint8") != "uint8" or problem.get("reduce_range")):
        return "DynamicQuantizeLinear gives uint8, the whole of it"
    if problem.op == "fake_quantize" and (problem["qparams"].qmin, problem["qparams"].qmax) != (problem["qparams"]._type.qmin, problem["qparams"]._type.qmax):
        return "QuantizeLinear has no narrower range of codes"
    if problem.op in ("add", "mul", "cat"):
        inputs = problem["tensors"] if problem.op == "cat" else (problem["a"], problem["b"])
        if {q.dtype for q in inputs} != {problem["out"].dtype}:
            return "inputs and output must have one dtype"
    if problem.op in ("sigmoid", "tanh", "hardsigmoid", "hardswish", "elu", "leaky_relu") and problem.get("out") is None:
        return "the output must have parameters"
    if problem.get("ceil_mode"):
        return "ceil_mode counts windows otherwise than PyTorch"
    if problem.get("divisor_override") is not None:
        return "AveragePool has no divisor_override"
    if problem.op.startswith("adaptive_avg_pool") and set(np.atleast_1d(problem["output_size"]).tolist()) != {1}:
        return "there is no adaptive pooling but the global one"
    if problem.op == "interpolate" and problem["mode"] == "nearest-exact":
        return "Resize has no mode that takes the nearest centre as PyTorch does"
    if problem.op == "mean" and _left_empty(problem):
        return "a mean over the last of three axes, the first longer than the second, or over the last two, not kept: the engine leaves the further rows empty"
    if problem.op in ("clamp", "hardtanh") and not _ordered(problem):
        return "Clip wants a lower limit that is not above the upper one"
    if problem.op in ("clamp", "hardtanh") and _lower(problem) / problem["x"].qparams.scale >= _WRAPS:
        return "a lower limit of 2**31 steps and more wraps to int32"
    return None


def _lower(problem):
    low = problem.get("min") if problem.op == "clamp" else problem.get("min_val", -1.0)
    return -np.inf if low is None else low


def _left_empty(problem):
    x = problem["x"]
    if x.ndim != 3 or x.qparams.zero_point == 0:
        return False
    axes = sorted(d % 3 for d in np.atleast_1d(problem["dim"]))
    return axes == [2] and x.shape[0] > x.shape[1] or axes == [1, 2] and x.shape[0] > 1 and not problem.get("keepdim")


def _ordered(problem):
    low, high = (problem.get(name) for name in (("min", "max") if problem.op == "clamp" else ("min_val", "max_val")))
    return low is None or high is None or low <= high


def _refuse_factors(problem):
    out = problem.get("out")
    if out is None or problem.get("bias") is not None or problem["b"].qparams.per_channel:
        return "products of two activations are per tensor, without a bias, and without a QuantizeLinear they run in float32"
    if problem["a"].qparams.zero_point or problem["b"].qparams.zero_point or problem["b"].dtype != "int8":
        return "factors with zero points, and a second one of uint8, run in float32"
    return None if out.dtype == problem["a"].dtype else "the first factor and the output must have one dtype"


def _counts_padding(problem):
    """Whether a padded convolution has a zero point and groups, no depthwise ones, whose channels fill no steps of 8."""
    groups, w, q = problem.get("groups", 1), problem["w"], problem["x"].qparams
    inside, outside = w.shape[1], w.shape[0] // groups
    code = q.zero_point + (128 if q.dtype == "int8" else 0)
    return groups > 1 and (inside, outside) != (1, 1) and bool(inside % 8 or outside % 8) and code != 0 and bool(np.any(problem.get("padding", 0)))


def _refuse_product(problem):
    x, w, out = problem["x"], problem["w"], problem.get("out")
    if out is None:
        return "products without a QuantizeLinear run in float32"
    if out.dtype != x.dtype:
        return "input and output must have one dtype"
    if w.dtype != "int8" or np.any(w.qparams.zero_point):
        return "weights with zero points run in float32"
    if problem.op == "conv3d" and _counts_padding(problem):
        return "padding of a volume with a zero point, in groups whose channels fill no steps of 8, is counted otherwise than it is meant"
    if problem.get("isa") is not None:
        return "the engine chooses its instructions itself"
    return None
