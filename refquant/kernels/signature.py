"""One Numba type for each argument: arrays contiguous and read-only, whatever the caller holds; so a kernel is compiled once."""

import numpy as np

from refquant.core.epilogue import Epilogue

__all__ = ["as_input", "freeze_epilogue", "slice_epilogue"]

_VECTORS = tuple(Epilogue._fields.index(name) for name in ("bias_i", "pre_b", "s2", "b", "m64", "mult", "shift"))


def as_input(array):
    """Return `array` C-contiguous and read-only; a copy only where it must be."""
    array = np.ascontiguousarray(array).view()
    array.setflags(write=False)
    return array


def freeze_epilogue(ep):
    """Return `ep` with read-only vectors."""
    if any(ep[i].flags.writeable for i in _VECTORS):
        return Epilogue._make([as_input(value) if i in _VECTORS else value for i, value in enumerate(ep)])
    return ep



def slice_epilogue(ep, channels):
    """Return the output stage of some of the channels, a slice."""
    return Epilogue._make([as_input(value[channels]) if i in _VECTORS else value for i, value in enumerate(ep)])
