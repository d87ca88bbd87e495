"""PyTorch tensors from problems and back, without a float step in between. Imports torch when imported."""

import warnings
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["TYPES", "to_torch", "quantized", "to_numpy", "threads", "engine"]

#: PyTorch's name of each quantized dtype that it has.
TYPES = {"uint8": torch.quint8, "int8": torch.qint8, "int32": torch.qint32}


def to_torch(array):
    """Return a tensor with the strides of `array`, gaps and repetitions included; PyTorch has no negative ones, so that such an array is copied."""
    array = np.asarray(array)
    memory = _memory(array)
    return torch.from_numpy(array.copy("C")) if memory is None else torch.as_strided(torch.from_numpy(memory), array.shape, _steps(array))


def quantized(q):
    """Return a QTensor as a quantized tensor with the same codes, strides and (double) scales."""
    p = q.qparams
    if p.per_channel:
        scales, zeros = torch.tensor(p.scale, dtype=torch.float64), torch.tensor(p.zero_point, dtype=torch.int64)
        return torch._make_per_channel_quantized_tensor(to_torch(q.values), scales, zeros, p.axis)
    memory = _memory(q.values)
    if memory is None:
        return torch._make_per_tensor_quantized_tensor(to_torch(q.values), p.scale, p.zero_point)
    # What PyTorch makes of a tensor of integers is dense, whatever the strides of these.
    return torch.as_strided(torch._make_per_tensor_quantized_tensor(torch.from_numpy(memory), p.scale, p.zero_point), q.shape, _steps(q.values))


def _steps(array):
    return tuple(s // array.itemsize for s in array.strides)


def _memory(array):
    """Return the span of memory in which an array lies as a writable vector, or None where a tensor cannot have its strides."""
    if any(s < 0 or s % array.itemsize for s in array.strides):
        return None
    span = 1 + sum((n - 1) * s for n, s in zip(array.shape, _steps(array))) if array.size else 0
    memory = np.lib.stride_tricks.as_strided(array, (span,), (array.itemsize,))
    return memory if array.flags.writeable else memory.copy()


def to_numpy(y):
    """Return a tensor's codes, or its numbers."""
    return (y.int_repr() if y.is_quantized else y).numpy()


@contextmanager
def threads(count):
    """Set the number of threads, on which elementwise bits depend, and put back what was before."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def engine(name, count=1):
    """Select a quantized engine and the number of threads; put back what was before."""
    before = torch.backends.quantized.engine
    with warnings.catch_warnings(), threads(count):
        warnings.simplefilter("ignore", UserWarning)
        try:
            torch.backends.quantized.engine = name
            yield
        finally:
            torch.backends.quantized.engine = before
