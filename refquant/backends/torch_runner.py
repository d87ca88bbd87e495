"""PyTorch's quantized engines as runners. Imports torch when a runner is made."""

import numpy as np

from refquant.backends.machine import cpu_features, cpu_model, profile_here
from refquant.core.affine import quantize_real
from refquant.core.layout import is_channels_last, is_disputed, is_packed_channels_last
from refquant.core.qparams import QParams
from refquant.errors import BackendMissing
from refquant.numerics import get
from refquant.verify.held import level_here, refuse_gaps

__all__ = ["TorchRunner", "torch_provenance"]

_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_PRODUCTS = ("linear", "conv1d", "conv2d", "conv3d", *_TRANSPOSED)
_DYNAMIC = ("linear_dynamic", "conv1d_dynamic", "conv2d_dynamic", "conv3d_dynamic")
_POOLS = ("avg_pool2d", "adaptive_avg_pool2d")
_MAXIMA = ("max_pool1d", "max_pool2d")
_ENDING = ("hardswish", "hardsigmoid", "softmax")
# Kernels of ATen that take as many channels at a step as the build for a processor has lanes.
_BY_LANES = (*_POOLS, "avg_pool3d", "softmax")
# Whose kernels for channels-last memory write into outputs that need not be.
_BY_FORMAT = ("max_pool1d", "max_pool2d", "max_pool3d", *_POOLS, "avg_pool3d", "adaptive_avg_pool3d", "interpolate", "group_norm", "instance_norm")
# Functions whose output parameters the caller cannot choose.
_KEEPING = ("tanh", "hardsigmoid", "gelu")


def torch_provenance(torch, name):
    """Return where the results of an engine of PyTorch come from."""
    return {
        "engine": name,
        "package": "torch",
        "version": torch.__version__,
        "cpu": cpu_model(),
        "features": list(cpu_features()),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": 1,
    }


class TorchRunner:
    """One quantized engine of PyTorch, driven without its float front end.

    Parameters
    ----------
    name : {"fbgemm", "onednn", "x86", "qnnpack"}

    Raises
    ------
    BackendMissing
        PyTorch is not installed, or was built without that engine.
    """

    def __init__(self, name):
        try:
            import torch

            from refquant.backends import torch_calls, torch_tensors
        except ImportError as error:
            raise BackendMissing(f"engine {name}: needs PyTorch, which cannot be imported ({error}); pip install 'refquant[torch]'") from error
        if name not in torch.backends.quantized.supported_engines:
            raise BackendMissing(f"engine {name}: this build of PyTorch {torch.__version__} has no such engine; pip install 'refquant[torch]' on x86-64")
        self.name, self.profile = name, profile_here(name)
        self._torch, self._calls, self._tensors = torch, torch_calls, torch_tensors

    def describe(self):
        """Return the provenance of results."""
        return torch_provenance(self._torch, self.name)

    def supports(self, problem):
        """Return None, or why this engine cannot be asked."""
        if problem.op not in self._calls.CALLS:
            return f"PyTorch has no quantized kernel for {problem.op}"
        return self._refuse_types(problem) or self._refuse_machine(problem) or _refuse_view(problem) or _refuse_form(problem, self.name, self._calls.dynamic_input)

    def run(self, problem):
        """Return the engine's codes or numbers."""
        with self._tensors.engine(self.name, problem.get("threads", 1)):
            return self._calls.CALLS[problem.op](problem)

    def run_in_turn(self, problems):
        """Return the last result of layers that are computed one after the other by the same packed weights."""
        with self._tensors.engine(self.name, 1):
            return self._calls.call_in_turn(problems)

    def _refuse_types(self, problem):
        for q in problem.quantized():
            if q.dtype not in self._tensors.TYPES:
                return f"PyTorch has no quantized dtype {q.dtype}"
            if problem.op not in ("quantize", "dequantize", "fake_quantize") and q.dtype == "int32":
                return f"{problem.op} takes 8-bit codes only"
        return None

    def _refuse_machine(self, problem):
        described = "AVX2" if self.profile.endswith(("@avx2", "@avx_vnni", "@avx_vnni_int8")) else "AVX512"
        if problem.op in _BY_LANES and self._torch.backends.cpu.get_cpu_capability() != described:
            return f"the profile describes ATen's {described} kernels, which do not run here"
        return None


def _refuse_view(problem):
    """Where strides lead PyTorch to a wrong result, see the findings."""
    if problem.op in _BY_FORMAT:
        x = problem["x"].values
        if is_disputed(x[:, :, None] if x.ndim == 3 else x) and not (x[0, 0].size == 1 and _gives_one_point(problem)):
            return "PyTorch takes this memory for channels last when it reads and for contiguous when it writes, so that codes come out in another order"
    if problem.op in ("group_norm", "instance_norm"):
        x = problem["x"].values
        if len(x) > 1 and x[0, 0].size == 1 and problem.get("num_groups", x.shape[1]) == x.shape[1]:
            return "PyTorch normalizes the first of several images with groups of one element, and leaves uninitialized memory for the others"
    if problem.op in ("conv1d_dynamic", "conv2d_dynamic", "conv3d_dynamic"):
        x = np.asarray(problem["x"])
        dense = x.transpose(np.argsort([-s for s in x.strides], kind="stable"))
        if not dense.flags.c_contiguous and min(x.strides) >= 0:
            return "PyTorch takes the range of as many elements of memory as the view has, gaps and what lies behind included"
    return None


def _gives_one_point(problem):
    """Whether an image of one pixel surely stays one, whose order in memory nobody can tell."""
    if problem.op in ("group_norm", "instance_norm"):
        return True
    if problem.op.startswith("adaptive"):
        return set(np.ravel(problem["output_size"])) == {1}
    return problem.op != "interpolate" and not np.any(problem.get("padding", 0))


def _refuse_transposed(problem, engine):
    if problem.get("activation") is not None:
        return "PyTorch has no transposed convolution with a ReLU"
    w = problem["w"]
    if w.qparams.per_channel and (engine != "qnnpack" or problem.get("groups", 1) > 1):
        return "only QNNPACK takes weights of a transposed convolution per channel, and with one group"
    if engine == "qnnpack" and w.ndim == 5:
        return "QNNPACK takes a transposed volume for an image: it computes one slice and reads whatever lies behind its weights in memory"
    if engine == "onednn" and np.any(problem.get("output_padding", 0)):
        return "PyTorch gives oneDNN no output padding"
    return refuse_gaps(problem, level_here()) if engine == "onednn" else None


def _refuse_post(problem, engine):
    other, activation = problem.get("other"), problem.get("activation")
    if other is None and activation in (None, "relu"):
        return None
    if engine != "onednn" or problem.get("out") is None:
        return "oneDNN alone has post-operations, with codes as output"
    if other is not None and (problem.op != "conv2d" or activation not in (None, "relu") or other.dtype != "uint8"):
        return "a second tensor of quint8 is added to a conv2d alone, before a ReLU or none"
    if other is None and not (problem.op == "linear" and (activation == "tanh" or activation[0] == "leaky_relu")):
        return "PyTorch's quantized operators have a leaky ReLU and a tanh after linear layers alone"
    return None


def _refuse_form(problem, engine, dynamic_input):
    if problem.op in _PRODUCTS:
        reason = _refuse_transposed(problem, engine) if problem.op in _TRANSPOSED else None
        return reason or _refuse_post(problem, engine) or _refuse_product(problem, engine, dynamic_input)
    if engine == "qnnpack" and problem.op in ("add", "avg_pool2d", *_MAXIMA):
        reason = _refuse_qnnpack(problem)
        if reason:
            return reason
    if engine == "qnnpack" and problem.op in _ENDING and problem["x"].dtype == "uint8" and not problem["x"].values.size:
        return "QNNPACK divides by the number of rows of an empty tensor, which ends the process"
    if engine == "qnnpack" and problem.op == "softmax" and problem["x"].dtype == "uint8" and problem["dim"] < 0 and problem["x"].values.strides[problem["dim"]] != 1:
        return "PyTorch looks up a negative axis in a list of axes, and raises, where that axis has not stride 1; count it from the front"
    if engine == "qnnpack" and problem.op in _LIMITS:
        return _refuse_qnnpack_limits(problem)
    if engine == "qnnpack" and problem.op == "max_pool3d":
        return "QNNPACK refuses max_pool3d"
    if problem.op in _DYNAMIC:
        return _refuse_dynamic(problem, engine)
    if problem.op in ("group_norm", "instance_norm") and _beyond_its_buffer(problem):
        return "ATen's channels-last kernel has lines of a scale and a shift for as many images as a group has elements, and reads behind them for further ones"
    if problem.op in _POOLS and problem.get("out") not in (None, problem["x"].qparams):
        return "PyTorch pools into the parameters of its input"
    if problem.op in _KEEPING and problem.get("out") is not None:
        return "PyTorch gives this function parameters of its own"
    if problem.op in ("add", "mul", "cat"):
        inputs = problem["tensors"] if problem.op == "cat" else (problem["a"], problem["b"])
        if {q.dtype for q in inputs} != {problem["out"].dtype}:
            return "inputs and output must have one dtype"
    return None


def _beyond_its_buffer(problem):
    """Whether a channels-last normalization has more images than elements in a group."""
    x = problem["x"].values
    groups = problem.get("num_groups", x.shape[1])
    return is_packed_channels_last(x) and x.shape[0] * groups > x[0].size


# Operators that QNNPACK clamps by: the names of their limits, and what these are unless given.
_LIMITS = {"clamp": (("min", None), ("max", None)), "hardtanh": (("min_val", -1.0), ("max_val", 1.0)), "relu6": (("min", 0.0), ("max", 6.0))}


def _refuse_qnnpack_limits(problem):
    low, high = (problem.get(name, usual) for name, usual in _LIMITS[problem.op])
    if low is None or high is None:
        return "QNNPACK clamps to two limits only"
    p, form = problem["x"].qparams, get("qnnpack").clamp
    if p.dtype == "uint8" and is_channels_last(problem["x"].values):
        return "QNNPACK clamps the memory of a channels-last tensor into a contiguous one, so that codes come out in another order"
    codes = [
        quantize_real(np.float32(v), p.scale, p.zero_point, p.qmin, p.qmax, scaling=form.scaling, add=form.zero_point, rounding=form.rounding) for v in (low, high)
    ]
    return "QNNPACK refuses an empty range of codes" if p.dtype == "uint8" and codes[0] >= codes[1] else None


def _refuse_qnnpack(problem):
    if any(q.dtype != "uint8" for q in problem.quantized()) or problem.get("ceil_mode"):
        return None
    if problem.get("activation") == "relu" and problem["out"].zero_point == 255:
        return "QNNPACK refuses an empty range of codes"
    if problem.op == "add" and not all(2.0**-14 <= np.float32(problem[name].qparams.scale) / np.float32(problem["out"].scale) < 2.0**8 for name in "ab"):
        return "QNNPACK refuses ratios of scales outside of [2**-14, 2**8)"
    return "QNNPACK refuses windows of one element" if set(np.atleast_1d(problem.get("kernel_size", 2)).tolist()) == {1} else None


def _refuse_dynamic(problem, engine):
    if problem["w"].dtype != "int8":
        return "weights must be qint8"
    if np.ndim(problem["x"]) < 2:
        return "a row without a batch is refused; give it two axes"
    if engine == "qnnpack" and np.size(problem["x"]):
        reals = np.asarray(problem["x"], np.float32)
        x = QParams(max((max(float(reals.max()), 0) - min(float(reals.min()), 0)) / 255, 2.0**-126), 0, "uint8")
        reason = _refuse_multiplier(x, problem["w"].qparams, problem.get("bias"), None if problem.op == "linear_dynamic" else x)
        if reason:
            return reason
    return "weights must have zero point 0" if engine == "onednn" and not problem["w"].qparams.symmetric else None


def _refuse_multiplier(x, w, bias, out):
    """What QNNPACK refuses of a product's multiplier, and what its bias, as int32 steps, cannot hold."""
    with np.errstate(all="ignore"):
        steps = np.float32(x.scale) * np.asarray(w.scale, np.float32)
        multiplier = steps * (np.float32(1) / np.float32(1 if out is None else out.scale))
        if not np.all((multiplier >= 2.0**-126) & np.isfinite(multiplier) & (steps >= 2.0**-126)):
            return "QNNPACK refuses multipliers that are not positive, finite and normal"
        if bias is not None and not np.all(np.abs(bias / steps.astype(np.float64)) < 2.0**31):
            return "a bias beyond int32, in units of x.scale * w.scale, whose conversion wraps or not by its path"
    return None


def _refuse_product(problem, engine, dynamic_input):
    x, w, bias, out = problem["x"], problem["w"], problem.get("bias"), problem.get("out")
    signed = engine.startswith("onednn") and problem.op == "linear" and out is not None and x.dtype == out.dtype == "int8"
    if not signed and (x.dtype != "uint8" or (out is not None and out.dtype != "uint8")):
        return "the profile describes quint8 activations"
    if w.dtype != "int8":
        return "weights must be qint8"
    if x.ndim < 2:
        return "a row without a batch is refused; give it two axes"
    if bias is not None and np.asarray(bias).dtype.kind != "f":
        return "a bias must be real numbers"
    if engine == "onednn" and not w.qparams.symmetric:
        return "weights must have zero point 0"
    if engine == "qnnpack":
        reason = _refuse_multiplier(x.qparams, w.qparams, bias, out)
        if reason:
            return reason
    if out is None and problem.op != "linear":
        return "there is no convolution with a float output"
    if out is None and dynamic_input(x) is None:
        return "dynamic quantization cannot be led to these codes and parameters"
    return None
