"""The operators of PT2E lowered for x86 as a runner. Imports torch when a runner is made."""

import numpy as np

from refquant.backends.machine import profile_here
from refquant.backends.torch_runner import torch_provenance
from refquant.errors import BackendMissing

__all__ = ["InductorRunner"]

_PRODUCTS = ("linear", "conv1d", "conv2d", "conv3d")


class InductorRunner:
    """What a model quantized by PT2E calls on x86: ``quantized_decomposed`` and ``onednn.qlinear_pointwise``, ``onednn.qconv_pointwise``.

    These are the operators of the exported graph, run as they are. What TorchInductor's generated C++ makes of the conversions when it
    fuses them with their neighbours is not asked.

    Raises
    ------
    BackendMissing
        PyTorch is not installed, or was built without oneDNN.
    """

    name = "inductor"

    def __init__(self):
        try:
            import torch

            from refquant.backends import inductor_calls, torch_tensors
        except ImportError as error:
            raise BackendMissing(f"engine inductor: needs PyTorch, which cannot be imported ({error}); pip install 'refquant[torch]'") from error
        if not torch.backends.mkldnn.is_available():
            raise BackendMissing(f"engine inductor: this build of PyTorch {torch.__version__} has no oneDNN; pip install 'refquant[torch]' on x86-64")
        self.profile = profile_here(self.name)
        self._torch, self._calls, self._tensors = torch, inductor_calls.CALLS, torch_tensors

    def describe(self):
        """Return the provenance of results."""
        return torch_provenance(self._torch, self.name)

    def supports(self, problem):
        """Return None, or why this engine cannot be asked."""
        if problem.op not in self._calls:
            return f"PT2E's graph computes {problem.op} in float"
        if problem.op in _PRODUCTS:
            return _refuse_product(problem)
        if problem.get("reduce_range"):
            return "quantized_decomposed.choose_qparams has no narrower range of codes"
        if problem.op == "linear_dynamic" and (problem["w"].dtype != "int8" or not problem["w"].qparams.symmetric):
            return "weights must be int8 with zero point 0"
        return None

    def run(self, problem):
        """Return the engine's codes or numbers."""
        with self._tensors.threads(problem.get("threads", 1)):
            return self._calls[problem.op](problem)


def _refuse_product(problem):
    x, w, bias = problem["x"], problem["w"], problem.get("bias")
    if w.dtype != "int8" or not w.qparams.symmetric:
        return "weights must be int8 with zero point 0"
    if x.dtype != "uint8" and problem.op != "linear":
        return "onednn.qconv_pointwise takes uint8 activations"
    other = problem.get("other")
    if isinstance(problem.get("activation"), tuple) and problem["activation"][0] == "leaky_relu" and problem.op != "linear":
        return "onednn.qconv_pointwise has no leaky ReLU"
    if getattr(other, "dtype", None) == "int8":
        return "a second tensor of int8 codes is not added"
    if problem.op == "conv3d" and problem.get("activation") is not None:
        return "onednn.qconv_pointwise has no post operations for volumes"
    if bias is not None and np.asarray(bias).dtype.kind != "f":
        return "a bias must be real numbers"
    return None
