"""PyTorch tensors from problems and back, without a float step in between. Imports torch when imported."""

import warnings
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["TYPES", "to_torch", "quantized", "to_numpy", "threads", "engine"]

#: PyTorch's name of each quantized dtype that it has.
TYPES = {"uint8": torch.quint8, "int8": torch.qint8, "int32": torch.qint32}


def to_torch(array):
    """Return a tensor with the strides of `array`; PyTorch has no negative ones, so that such an array is copied."""
    array = np.asarray(array)
    if min(array.strides, default=0) < 0:
        array = array.copy("C")
    if not array.flags.writeable:
        order = np.argsort([-s for s in array.strides], kind="stable")
        array = array.transpose(order).copy().transpose(np.argsort(order))
    return torch.from_numpy(array)


def quantized(q):
    """Return a QTensor as a quantized tensor with the same codes, strides and (double) scales."""
    p = q.qparams
    if not p.per_channel:
        return torch._make_per_tensor_quantized_tensor(to_torch(q.values), p.scale, p.zero_point)
    scales, zeros = torch.tensor(p.scale, dtype=torch.float64), torch.tensor(p.zero_point, dtype=torch.int64)
    return torch._make_per_channel_quantized_tensor(to_torch(q.values), scales, zeros, p.axis)


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
