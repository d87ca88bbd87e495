"""Models in and out: ONNX, PyTorch, and refquant's own files. Each optional package is imported when its function is called.

>>> sorted(__all__)
['RefquantBackend', 'from_export', 'from_onnx', 'from_torch', 'load', 'save', 'to_onnx']
"""

from importlib import import_module

from refquant.errors import BackendMissing
from refquant.interop.from_export import from_export
from refquant.interop.from_torch import from_torch
from refquant.interop.native import load, save

_LAZY = {"from_onnx": "refquant.interop.onnx.load", "to_onnx": "refquant.interop.onnx.export", "RefquantBackend": "refquant.interop.onnx.backend"}

__all__ = ["from_export", "from_torch", "load", "save", *_LAZY]


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module 'refquant.interop' has no attribute {name!r}")
    try:
        value = getattr(import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "onnx":
            raise
        raise BackendMissing(f"interop.{name}: needs ONNX, which cannot be imported ({error}); pip install 'refquant[onnx]'") from error
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
