"""What the observers of a prepared model have seen, as a file."""

import hashlib

import numpy as np

from refquant.core.archive import read_archive, read_array, write_archive
from refquant.errors import ArgumentError, UnsupportedError

__all__ = ["save_state", "load_state"]

_MOST_BYTES = 1 << 30


def save_state(prepared, path):
    """Write what the observers have seen, whole or not at all.

    Parameters
    ----------
    prepared : Prepared
    path : path

    Raises
    ------
    UnsupportedError
        An observer that keeps all values.
    """
    members = {"batches.npy": np.array(prepared.batches, np.int64), "model.npy": _digest(prepared)}
    for number, observer in enumerate(_observers(prepared)):
        for name, value in vars(observer).items():
            if isinstance(value, (list, dict)):
                raise UnsupportedError(f"save_state: {type(observer).__name__} keeps all values, which is no state to write; use another observer, or no state")
            if _is_number(value):
                members[f"{number}.{name}.npy"] = np.asarray(value)
    write_archive(path, members)


def load_state(prepared, path):
    """Read what `save_state` wrote into the observers of a prepared model that has seen nothing yet.

    Parameters
    ----------
    prepared : Prepared
    path : path

    Raises
    ------
    ArgumentError
        The file is damaged or belongs to another model; the prepared model has seen data.
    """
    place = f"calibration state {str(path)!r}"
    if prepared.batches:
        raise ArgumentError(f"{place}: the prepared model has seen {prepared.batches} batches already; resume with a model that was just prepared")
    observers = _observers(prepared)
    known = {f"{number}.{name}.npy" for number, observer in enumerate(observers) for name in vars(observer)} | {"batches.npy", "model.npy"}
    remedy = "delete it, and calibrate from the start"
    content = read_archive(path, place, known.__contains__, most_entries=len(known), most_bytes=_MOST_BYTES, remedy=remedy)
    arrays = {name: read_array(data, name, place) for name, data in content.items()}
    if not {"batches.npy", "model.npy"} <= set(arrays) or not np.array_equal(arrays["model.npy"], _digest(prepared)):
        raise ArgumentError(f"{place}: was written for another model or mapping; {remedy}")
    values = [{name: arrays[key] for name in vars(o) if (key := f"{number}.{name}.npy") in arrays} for number, o in enumerate(observers)]
    for observer, given in zip(observers, values):
        for name, array in given.items():
            before = getattr(observer, name)
            setattr(observer, name, array if isinstance(before, np.ndarray) else array[()] if isinstance(before, np.generic) else array.item())
    prepared.batches = int(arrays["batches.npy"])


def _observers(prepared):
    """Return the observers of values, and of parameters where the front observes them as the model runs, each once, in order."""
    found = [n.attrs["observer"] for n in prepared.model.nodes if n.op == "observe"] + [p.observer for p in getattr(prepared, "parameters", ())]
    return list({id(observer): observer for observer in found}.values())


def _is_number(value):
    return isinstance(value, (bool, int, float, np.generic)) or isinstance(value, np.ndarray) and value.dtype.kind in "iufb"


def _digest(prepared):
    """Return a hash of the model and of where observers sit, as bytes."""
    digest = hashlib.sha256()
    for node in prepared.model.nodes:
        observer = node.attrs.get("observer")
        kind = "" if observer is None else (type(observer).__name__, observer.dtype, *(getattr(observer, k, None) for k in ("qscheme", "quant_min", "quant_max", "bins")))
        attrs = sorted((k, repr(v)) for k, v in node.attrs.items() if k != "observer")
        digest.update(repr((node.name, node.op, node.inputs, node.target, attrs, kind)).encode())
        for key, value in node.params.items():
            digest.update(key.encode() + np.ascontiguousarray(value).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
