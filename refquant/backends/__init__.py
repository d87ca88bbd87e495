"""Engines as runners. `ENGINES` lists each once; `load` imports its package when it is asked for.

>>> from refquant import backends
>>> backends.names()
('fbgemm', 'onednn', 'x86', 'qnnpack', 'inductor', 'onnxruntime', 'tflite_ref', 'tflite_opt', 'xnnpack', 'openvino')

An engine that obeys an environment variable can be held to another processor level, see `refquant.backends.held_runner`; of any other engine only
the level on which it runs here can be asked for, as failures on such a processor name it:

>>> backends.find("onednn@avx2").arguments
('onednn', 'avx2')
"""

from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from refquant.core.levels import check_level
from refquant.errors import ArgumentError, BackendMissing, choose

__all__ = ["Engine", "ENGINES", "HELD", "REFERENCES", "names", "find", "load", "installed"]


class Engine(NamedTuple):
    """An engine that refquant can be held against.

    Attributes
    ----------
    name : str
        As ``refquant verify --engine`` takes it; also the name of its profile.
    packages : tuple of str
        What must be importable.
    install : str
        The command that brings it.
    module, maker : str
        Where the runner's class stands, and its name.
    arguments : tuple
        What the class is called with.
    """

    name: str
    packages: tuple
    install: str
    module: str
    maker: str
    arguments: tuple = ()


def _torch(name):
    return Engine(name, ("torch",), "pip install 'refquant[torch]'", "refquant.backends.torch_runner", "TorchRunner", (name,))


def _litert(name):
    packages = ("ai_edge_litert", "flatbuffers")
    return Engine(name, packages, "pip install 'refquant[litert]'", "refquant.backends.litert_runner", "LiteRtRunner", (name,))


#: Engines whose libraries can be held to a lower processor level.
HELD = ("onednn", "fbgemm", "x86")

ENGINES = (
    _torch("fbgemm"),
    _torch("onednn"),
    _torch("x86"),
    _torch("qnnpack"),
    Engine("inductor", ("torch",), "pip install 'refquant[torch]'", "refquant.backends.inductor_runner", "InductorRunner"),
    Engine(
        "onnxruntime", ("onnx", "onnxruntime"), "pip install 'refquant[onnxruntime]'", "refquant.backends.onnxruntime_runner", "OnnxRuntimeRunner"
    ),
    _litert("tflite_ref"),
    _litert("tflite_opt"),
    _litert("xnnpack"),
    Engine("openvino", ("onnx", "openvino"), "pip install 'refquant[openvino]'", "refquant.backends.openvino_runner", "OpenVinoRunner"),
)  # fmt: skip

#: No engine but a reference implementation, which `find` and `load` know by its profile's name; it is asked for functions of real numbers alone.
REFERENCES = (
    Engine("onnx_reference", ("onnx",), "pip install onnx", "refquant.backends.onnx_reference_runner", "OnnxReferenceRunner"),
)  # fmt: skip

if len({engine.name for engine in ENGINES}) != len(ENGINES):
    raise ArgumentError("backends: two engines share a name; rename one")


def names():
    """Return the names of all engines."""
    return tuple(engine.name for engine in ENGINES)


def find(name):
    """Return the `Engine` of a name, or raise an `ArgumentError` with the nearest ones; ``onednn@avx2`` is oneDNN held to AVX2."""
    if "@" in name:
        return _held(*name.split("@", 1))
    known = {engine.name: engine for engine in REFERENCES}
    return known[name] if name in known else {engine.name: engine for engine in ENGINES}[choose("backends", "engine", name, names())]


def _held(name, level):
    from refquant.verify.held import profile_here

    engine, arguments = find(name), (name, check_level(level, f"engine {name}"))
    if name not in HELD:
        here = profile_here(name)
        if here == f"{name}@{level}":
            return engine
        raise ArgumentError(
            f"engine {name}@{level}: {name} runs as {here} on this processor and cannot be held to another level, as {', '.join(HELD)} can; "
            "leave the level out, or ask on a processor of that level"
        )
    return engine._replace(name=f"{name}@{level}", module="refquant.backends.held_runner", maker="HeldRunner", arguments=arguments)


def installed(name):
    """Whether an engine's packages can be found; nothing is imported."""
    return all(find_spec(package) is not None for package in find(name).packages)


def load(name):
    """Return the runner of an engine.

    Raises
    ------
    BackendMissing
        A package is missing; the message holds the command that installs it.
    """
    engine = find(name)
    missing = [package for package in engine.packages if find_spec(package) is None]
    if missing:
        raise BackendMissing(f"engine {name}: needs the package {missing[0]}, which is not installed; {engine.install}")
    return getattr(import_module(engine.module), engine.maker)(*engine.arguments)
