"""What TorchInductor makes of a module that torchao has converted: its fused graph, operator by operator, and the program that it compiles. Imports torch when imported."""

import warnings
from typing import NamedTuple

import numpy as np
import torch
import torch._inductor.config
from torch._inductor.compile_fx import compile_fx, compile_fx_inner
from torch.utils._python_dispatch import TorchDispatchMode

from refquant.backends.torch_pt2e import Float64Sums, converted_module

__all__ = ["LoweredLayer", "CompilationFailed", "inductor_graph", "run_lowered", "run_compiled", "compiled"]

# Vectors of AVX2, also where the CPU has longer ones: the order of some sums depends on their length.
_CONFIG = {"freezing": True, "cpp.simdlen": 256}


class LoweredLayer(NamedTuple):
    """A layer that Inductor has lowered: told by the scales of its weight, what it has taken in, what it read and what it computed."""

    weight_scales: bytes
    operator: str
    activation: tuple
    binary: bool
    scale: float
    zero_point: int
    values: np.ndarray
    x: np.ndarray


class CompilationFailed(Exception):
    """TorchInductor did not get through a module."""


def _compile(converted, inputs, inner):
    """Run a converted module through ``torch.compile``, `inner` in the place of Inductor's code generation; return the module's outputs."""
    torch._dynamo.reset()
    with torch._inductor.config.patch(_CONFIG), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            outputs = torch.compile(converted, backend=lambda graph, example: compile_fx(graph, example, inner_compile=inner))(*inputs)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            said = f": {error.inner_exception}".partition("\n")[0].rstrip(": ")
            raise CompilationFailed(f"{type(error.inner_exception).__name__} in {_last_file(error)}{said}") from error
    return outputs if isinstance(outputs, (tuple, list)) else (outputs,)


def inductor_graph(converted, *inputs):
    """Return the graph that TorchInductor makes of a converted module before it writes C++: frozen, fused, weights packed.

    Raises
    ------
    CompilationFailed
    """
    found = []

    def keep(graph, example_inputs, **options):
        found.append(graph)
        return lambda arguments: [torch.zeros(0)] * len(graph.graph.output_node().args[0])

    _compile(converted, inputs, keep)
    return found[-1]


def _last_file(error):
    trace = error.inner_exception.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "an unknown file" if trace is None else f"{trace.tb_frame.f_code.co_filename.rpartition('site-packages/')[2]}, line {trace.tb_lineno}"


def run_lowered(prepared, *inputs):
    """Convert a calibrated module, let Inductor lower it, and run the lowered graph operator by operator, real sums in float64.

    Returns
    -------
    outputs : tuple of ndarray
    layers : list of LoweredLayer
        In order of execution.
    """
    tensors = _tensors(inputs)
    graph, layers = inductor_graph(converted_module(prepared), *tensors), []

    class Recorder(Float64Sums):
        def call_function(self, target, args, kwargs):
            if target is torch.ops.onednn.qconv2d_pointwise.binary:  # compiled code sees to the memory format of what is added to
                args = (*args[:6], args[6].contiguous(memory_format=torch.channels_last), *args[7:])
            if _is_layer(target):
                return _recorded(target, args, kwargs, layers)
            return super().call_function(target, args, kwargs)

    with torch.no_grad():
        outputs = Recorder(graph).run(*tensors)
    return tuple(y.numpy() for y in outputs), layers


def run_compiled(prepared, *inputs):
    """Convert a calibrated module, compile it with TorchInductor for good, C++ and all, and run the program.

    Returns
    -------
    outputs : tuple of ndarray
    layers : list of LoweredLayer
        In the order in which the program calls oneDNN for them.
    """
    layers = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            return _recorded(function, args, kwargs or {}, layers) if _is_layer(function) else function(*args, **(kwargs or {}))

    def watched(graph, example_inputs, **options):
        program = compile_fx_inner(graph, example_inputs, **options)

        def run(arguments):
            with Recorder():
                return program(arguments)

        run._boxed_call = True
        return run

    outputs = _compile(converted_module(prepared), _tensors(inputs), watched)
    return tuple(y.numpy() for y in outputs), layers


def compiled(function, *inputs):
    """Compile a function of tensors with TorchInductor and return what it computes of arrays, strides kept."""
    torch._dynamo.reset()
    with torch._inductor.config.patch(_CONFIG), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.compile(function)(*map(torch.from_numpy, inputs)).numpy()


def _tensors(inputs):
    return [torch.from_numpy(np.ascontiguousarray(x)) for x in inputs]


def _is_layer(target):
    return "onednn.q" in str(target) and "pointwise" in str(target)


def _recorded(target, args, kwargs, layers):
    """Call an operator of oneDNN and keep what it read and what it made; the tensor that it adds may be its output too."""
    x = args[0].numpy().copy()
    y = target(*args, **kwargs)
    convolution, binary = "qconv" in str(target), "binary" in str(target)
    at = (7 if binary else 6) + (5 if convolution else 1)
    scale, zero = args[at : at + 2]
    name, parameters = args[-3], args[-2]
    activation = () if name == "none" else (name, *(float(p) for p in parameters if p is not None))
    layers.append(LoweredLayer(args[4].numpy().tobytes(), "conv" if convolution else "linear", activation, binary, float(scale), int(zero), y.numpy().copy(), x))
    return y
