"""Gather, scatter and their relatives: indices are checked before they are used."""

import numpy as np

from refquant.interop.onnx.call import axis_of, check_size, need

__all__ = [
    "gather", "gather_elements", "gather_nd", "scatter_elements", "scatter_nd", "one_hot", "non_zero", "compress", "reverse_sequence",
]  # fmt: skip


def _checked(call, indices, length):
    need(call, indices.dtype.kind in "iu", f"indices are {indices.dtype}")
    indices = indices.astype(np.int64)
    good = not indices.size or (indices.min() >= -length and indices.max() < length)
    need(call, good, f"indices span [{indices.min(initial=0)}, {indices.max(initial=0)}] but the axis has {length} entries", "correct the indices")
    return np.where(indices < 0, indices + length, indices)


def gather(call, x, indices):
    """``Gather``: entries of one axis by their indices."""
    axis = axis_of(call, call.get("axis", 0), x.ndim)
    check_size((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype.itemsize, call.place)
    return np.take(x, _checked(call, indices, x.shape[axis]), axis)


def gather_elements(call, x, indices):
    """``GatherElements``: single elements along an axis."""
    axis = axis_of(call, call.get("axis", 0), x.ndim)
    need(call, indices.ndim == x.ndim, f"indices {indices.shape} and x {x.shape} must have as many axes")
    index = list(np.indices(indices.shape, sparse=True)) if indices.ndim else []
    index[axis] = _checked(call, indices, x.shape[axis])
    return x[tuple(index)]


def gather_nd(call, x, indices):
    """``GatherND``: slices by tuples of indices."""
    batch, depth = int(call.get("batch_dims", 0)), indices.shape[-1] if indices.ndim else 0
    good = 0 <= batch < min(x.ndim, indices.ndim) and 1 <= depth <= x.ndim - batch and x.shape[:batch] == indices.shape[:batch]
    need(call, good, f"indices {indices.shape} with batch_dims={batch} do not fit x {x.shape}")
    lead = np.indices(x.shape[:batch], sparse=True) if batch else ()
    lead = [v.reshape(*v.shape, *[1] * (indices.ndim - 1 - batch)) for v in lead]
    return x[(*lead, *(_checked(call, indices[..., i], x.shape[batch + i]) for i in range(depth)))]


_UPDATES = {"none": None, "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scatter(call, x, index, updates):
    how = call.get("reduction", "none") or "none"
    need(call, how in _UPDATES, f"reduction={how!r} is none of {', '.join(_UPDATES)}")
    need(call, updates.dtype == x.dtype, f"updates are {updates.dtype} but x is {x.dtype}")
    y = x.copy()
    if _UPDATES[how] is None:
        y[index] = updates
    else:
        _UPDATES[how].at(y, index, updates)
    return y


def scatter_elements(call, x, indices, updates):
    """``ScatterElements``: single elements along an axis replaced, or combined."""
    axis = axis_of(call, call.get("axis", 0), x.ndim)
    need(call, indices.ndim == x.ndim and indices.shape == updates.shape, f"indices {indices.shape} and updates {updates.shape} do not fit x {x.shape}")
    index = list(np.broadcast_arrays(*np.indices(indices.shape, sparse=True))) if indices.ndim else []
    index[axis] = _checked(call, indices, x.shape[axis])
    return _scatter(call, x, tuple(index), updates)


def scatter_nd(call, x, indices, updates):
    """``ScatterND``: slices by tuples of indices replaced, or combined."""
    depth = indices.shape[-1] if indices.ndim else 0
    need(call, 1 <= depth <= x.ndim and updates.shape == (*indices.shape[:-1], *x.shape[depth:]), f"updates {updates.shape} do not fit indices {indices.shape}")
    return _scatter(call, x, tuple(_checked(call, indices[..., i], x.shape[i]) for i in range(depth)), updates)


def one_hot(call, indices, depth, values):
    """``OneHot``: a vector of ``off`` with one ``on`` for each index; those out of range are all ``off``."""
    need(call, np.size(depth) == 1 and values.shape == (2,), f"depth has {np.size(depth)} elements and values shape {values.shape}")
    depth = int(np.asarray(depth).reshape(-1)[0])
    axis = axis_of(call, call.get("axis", -1), indices.ndim, end=True)
    shape = check_size((*indices.shape[:axis], depth, *indices.shape[axis:]), values.dtype.itemsize, call.place)
    wanted = np.expand_dims(np.where(indices < 0, indices + depth, indices), axis)
    place = np.arange(depth).reshape(-1, *[1] * (len(shape) - axis - 1))
    return np.where(wanted == place, values[1], values[0])


def non_zero(call, x):
    """``NonZero``: indices of what is not 0, one column an element."""
    return np.array(np.nonzero(np.atleast_1d(x)), np.int64)[: max(x.ndim, 0)]


def compress(call, x, condition):
    """``Compress``: entries of an axis (or of all elements) where the condition holds."""
    need(call, condition.ndim == 1 and condition.dtype == bool, f"the condition is {condition.dtype} {condition.shape}")
    axis = None if "axis" not in call.attrs else axis_of(call, call.get("axis"), x.ndim)
    length = x.size if axis is None else x.shape[axis]
    need(call, condition.size <= length, f"the condition has {condition.size} entries but there are {length}")
    return np.compress(condition, x, axis)


def reverse_sequence(call, x, lengths):
    """``ReverseSequence``: the first entries of each sequence turned around."""
    time, batch = int(call.get("time_axis", 0)), int(call.get("batch_axis", 1))
    need(call, x.ndim >= 2 and {time, batch} == {0, 1} and lengths.shape == (x.shape[batch],), f"x {x.shape} and lengths {lengths.shape} do not fit")
    y = np.moveaxis(x.copy(), (time, batch), (0, 1))
    source = np.moveaxis(x, (time, batch), (0, 1))
    for i, n in enumerate(lengths):
        need(call, 0 <= n <= source.shape[0], f"a sequence of length {n} in {source.shape[0]} steps")
        y[:n, i] = source[:n, i][::-1]
    return np.moveaxis(y, (0, 1), (time, batch))
