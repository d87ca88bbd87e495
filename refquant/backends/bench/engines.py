"""The other side: engines found or named as missing, their threads and versions."""

import ctypes
import os
import platform
import re
import warnings
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import refquant as rq
from refquant import backends
from refquant.backends.machine import cpu_features, cpu_model
from refquant.errors import BackendMissing

__all__ = ["torch_engine", "torch_package", "onnxruntime_call", "limited_threads", "machine"]

_BLAS_NAMES = [f"{start}openblas_set_num_threads{end}" for start in ("scipy_", "") for end in ("64_", "")]


def torch_package():
    """Return the package torch, or raise `BackendMissing`."""
    if find_spec("torch") is None:
        raise BackendMissing("torch is not installed; pip install 'refquant[torch]'")
    import torch

    return torch


def torch_engine(name):
    """Return torch and a context in which the quantized engine `name` packs weights; `BackendMissing` if this build has none."""
    torch = torch_package()
    if name not in torch.backends.quantized.supported_engines:
        raise BackendMissing(f"this build of PyTorch {torch.__version__} has no engine {name}")
    from refquant.backends.torch_tensors import engine

    return torch, engine(name, torch.get_num_threads())


def onnxruntime_call(problem, threads):
    """Return a call of ONNX Runtime on a problem, input and output bound to memory beforehand; it returns the output as an ndarray."""
    if not backends.installed("onnxruntime"):
        raise BackendMissing("onnxruntime is not installed; pip install 'refquant[onnxruntime]'")
    import onnxruntime

    from refquant.backends.onnx_models import MODELS

    small = MODELS[problem.op](problem)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(small.model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in small.feeds.items():
        binding.bind_cpu_input(name, array)
    first = session.run(None, small.feeds)[0]
    out = onnxruntime.OrtValue.ortvalue_from_numpy(np.empty_like(first))
    binding.bind_ortvalue_output("y", out)

    def call():
        session.run_with_iobinding(binding)
        return out

    return call


@contextmanager
def limited_threads(count):
    """Let refquant, PyTorch and NumPy's OpenBLAS run on `count` threads, without PyTorch's warnings; afterwards put back refquant's and PyTorch's."""
    before = rq.get_num_threads()
    torch = torch_package() if find_spec("torch") else None
    theirs = torch.get_num_threads() if torch else 0
    set_threads(count)
    _set_blas_threads(count)
    try:
        with torch.no_grad() if torch else nullcontext(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        rq.set_num_threads(before)
        if torch:
            torch.set_num_threads(theirs)


def set_threads(count):
    """Let refquant and PyTorch run on `count` threads."""
    rq.set_num_threads(count)
    if find_spec("torch"):
        torch_package().set_num_threads(count)


def _set_blas_threads(count):
    """Tell every OpenBLAS that is loaded; elsewhere than on Linux, set ``OPENBLAS_NUM_THREADS`` before NumPy is imported."""
    try:
        loaded = set(re.findall(r"\S*openblas\S*\.so\S*", Path("/proc/self/maps").read_text()))
    except OSError:
        return
    for path in loaded:
        library = ctypes.CDLL(path)
        for name in _BLAS_NAMES:
            if hasattr(library, name):
                getattr(library, name)(count)


def machine(threads):
    """Return what figures depend on: processor, features, threads, versions, and what else runs. Call it before the works."""
    versions = {"refquant": rq.__version__, "python": platform.python_version()}
    for package in ("numpy", "numba", "torch", "onnxruntime"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    features = cpu_features()
    return {
        "cpu": cpu_model(), "avx512_vnni": "avx512_vnni" in features, "amx_int8": "amx_int8" in features, "features": list(features),
        "processors": os.cpu_count() or 1, "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None, "threads": threads, "versions": versions,
    }  # fmt: skip
