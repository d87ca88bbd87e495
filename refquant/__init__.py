"""refquant: the exact bits of INT8 inference, and why they differ.

Public names load on first use, so ``import refquant`` is light.

>>> import numpy as np, refquant as rq
>>> q = rq.quantize(np.float32([0.5, 1.5, 2.5]), rq.QParams(1.0, 1, "uint8"), numerics="fbgemm")
>>> q.values.tolist(), rq.dequantize(q).tolist()
([2, 2, 4], [1.0, 1.0, 3.0])
"""

from importlib import import_module
from pathlib import Path

from refquant.version import VERSION as __version__

_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "data" / "checksums.json").is_file():
    # Installed, data/ is the package refquant.data; in a checkout it stands beside this folder.
    __path__.append(str(_CHECKOUT))

_MODULES = ("numerics", "isa", "ops", "observers", "graph", "workflow", "interop", "verify", "drift", "perf", "zoo", "testing", "errors")
_NAMES = {
    "QParams": "refquant.core.qparams",
    "QTensor": "refquant.core.qtensor",
    "Round": "refquant.core.rounding",
    "quantize": "refquant.ops.quantize",
    "dequantize": "refquant.ops.dequantize",
    "fake_quantize": "refquant.ops.fake_quantize",
    "set_num_threads": "refquant.kernels.jit",
    "get_num_threads": "refquant.kernels.jit",
    "load": "refquant.interop.native",
    "save": "refquant.interop.native",
    "RefquantError": "refquant.errors",
}

__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name):
    if name in _NAMES:
        value = getattr(import_module(_NAMES[name]), name)
    elif name in _MODULES:
        value = import_module(f"refquant.{name}")
    else:
        raise AttributeError(f"module 'refquant' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
