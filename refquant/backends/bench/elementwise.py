"""Work that memory bounds: quantize, dequantize, minimum and maximum of 3.2 million float32."""

from mmap import PAGESIZE

import numpy as np

import refquant as rq
from refquant.backends.bench.case import Bar, Case, Plan, Role, Work
from refquant.backends.bench.engines import torch_package
from refquant.backends.bench.gemm import ratios
from refquant.backends.bench.layers import codes_of

__all__ = ["ELEMENTWISE", "first_touch"]

_SHAPE = (16, 64, 56, 56)
_SCALE, _ZERO = 0.0371, 121


def _values():
    return np.random.default_rng(5).normal(0, 2, _SHAPE).astype(np.float32)


def first_touch(shape, dtype):
    """Return a call that gets memory for an array and writes to each of its pages, which the system then has to find."""
    step = PAGESIZE // np.dtype(dtype).itemsize

    def call():
        np.empty(shape, dtype).reshape(-1)[::step] = 0

    return call


def _case(name, ours, theirs, bits, parts):
    case = Case(name, parts=parts)
    case.add("refquant", lambda: ours, Role.SUBJECT, bits=bits)
    case.add("torch", theirs, bits=bits)
    source, target = _values(), np.empty(_SHAPE, np.float32)
    case.add("copy of the float32", lambda: lambda: np.copyto(target, source), Role.YARDSTICK)
    return case


def _quantize(settings):
    x, qparams = _values(), rq.QParams(_SCALE, _ZERO, "uint8")

    def theirs():
        torch = torch_package()
        tensor = torch.from_numpy(x)
        return lambda: torch.quantize_per_tensor(tensor, _SCALE, _ZERO, torch.quint8)

    small = x.reshape(-1)[:64]
    parts = {"call": lambda: rq.quantize(small, qparams, numerics="x86"), "reading": x.max, "fresh pages": first_touch(_SHAPE, np.uint8)}
    return _case("quantize", lambda: rq.quantize(x, qparams, numerics="x86"), theirs, codes_of, parts)


def _dequantize(settings):
    q = rq.quantize(_values(), rq.QParams(_SCALE, _ZERO, "uint8"), numerics="x86")

    def theirs():
        torch = torch_package()
        tensor = torch._make_per_tensor_quantized_tensor(torch.from_numpy(q.values), _SCALE, _ZERO)
        return lambda: tensor.dequantize()

    small = rq.QTensor(q.values.reshape(-1)[:64], q.qparams)
    parts = {"call": lambda: rq.dequantize(small, numerics="x86"), "reading": q.values.max, "fresh pages": first_touch(_SHAPE, np.float32)}
    return _case("dequantize", lambda: rq.dequantize(q, numerics="x86"), theirs, np.asarray, parts)


def _min_max(settings):
    x, mine = _values(), rq.observers.MinMaxObserver()

    def theirs():
        torch = torch_package()
        from torch.ao.quantization import MinMaxObserver

        observer, tensor = MinMaxObserver(), torch.from_numpy(x)
        return lambda: (observer(tensor), observer)[1]

    small, other = x.reshape(-1)[:64], rq.observers.MinMaxObserver()
    return _case("min-max observer", lambda: (mine(x), mine)[1], theirs, _ends, {"call": lambda: other(small), "reading": x.max})


def _ends(observer):
    return np.float32([observer.min_val, observer.max_val])


ELEMENTWISE = Work(
    "elementwise",
    "3.2 million float32 on their way to codes and back; rival: PyTorch; share: of a copy",
    lambda: [Plan("quantize", "", _quantize), Plan("dequantize", "", _dequantize), Plan("min-max observer", "", _min_max)],
    bars=(Bar("worst ratio", lambda rs: min(ratios(rs), default=None), 1.0),),
)
