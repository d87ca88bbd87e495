"""What the observers of a prepared model have seen, as a file."""

import copy
import hashlib
import operator

import numpy as np

from refquant.core.archive import read_archive, write_archive
from refquant.core.plain_text import GARBLED, MEMBER, PlainReader, PlainWriter, read_members
from refquant.errors import ArgumentError, RefquantError, UnsupportedError
from refquant.observers.observer_state import restore, state_of

__all__ = ["save_state", "load_state"]

_FORMAT, _VERSION = "refquant calibration", 1
_MOST_ENTRIES = 100_000
_MOST_BYTES = 1 << 30
_REMEDY = "delete it, and calibrate from the start"


def save_state(prepared, path):
    """Write what the observers have seen, whole or not at all.

    Parameters
    ----------
    prepared : Prepared
    path : path

    Raises
    ------
    UnsupportedError
        An observer of your own that keeps more than numbers and arrays; a custom module.
    """
    custom = [n.name for n in prepared.model.nodes if n.op == "call" and n.attrs["function"] is not None]
    if custom:
        raise UnsupportedError(f"save_state: {custom[0]!r} is a custom module, whose object may have seen values too, which a file does not hold; calibrate without an interruption")
    writer = PlainWriter()
    states = [state_of(observer, f"save_state: observer {number}") for number, observer in enumerate(_observers(prepared))]
    text = {"format": _FORMAT, "version": _VERSION, "model": _digest(prepared), "batches": prepared.batches, "states": writer.described(states, "save_state")}
    write_archive(path, writer.members(text))


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
    entries = read_archive(path, place, MEMBER.fullmatch, most_entries=_MOST_ENTRIES, most_bytes=_MOST_BYTES, stored=True, remedy=_REMEDY)
    text, arrays = read_members(entries, place, _FORMAT, _VERSION, _REMEDY)
    try:
        if text["model"] != _digest(prepared):
            raise ArgumentError(f"{place}: was written for another model or mapping; {_REMEDY}")
        batches, states = operator.index(text["batches"]), PlainReader(arrays, place, _REMEDY).value(text["states"])
        restored = [copy.deepcopy(observer) for observer in observers]
        for number, (observer, state) in enumerate(zip(restored, states, strict=True)):
            restore(observer, state, f"{place}, observer {number}")
    except GARBLED as error:
        raise error if isinstance(error, RefquantError) else ArgumentError(f"{place}: its text is garbled ({str(error)[:120]}); {_REMEDY}") from error
    for observer, other in zip(observers, restored):
        vars(observer).update(vars(other))
    prepared.batches = batches


def _observers(prepared):
    """Return the observers of values, and of parameters where the front observes them as the model runs, each once, in order."""
    if getattr(prepared, "norms", None) is not None:
        raise UnsupportedError(f"calibration state: {prepared.model.name!r} is in training, with statistics that a state does not hold; run it in one go")
    found = [n.attrs["observer"] for n in prepared.model.nodes if n.op == "observe"] + [p.observer for p in getattr(prepared, "parameters", ())]
    return list({id(observer): observer for observer in found}.values())


def _digest(prepared):
    """Return a hash of the model and of where observers sit, as a text."""
    digest = hashlib.sha256()
    for node in prepared.model.nodes:
        observer = node.attrs.get("observer")
        kind = "" if observer is None else (type(observer).__name__, observer.dtype, *(getattr(observer, k, None) for k in ("qscheme", "quant_min", "quant_max", "bins")))
        attrs = sorted((k, repr(v)) for k, v in node.attrs.items() if k != "observer")
        digest.update(repr((node.name, node.op, node.inputs, node.target, attrs, kind)).encode())
        for key, value in node.params.items():
            digest.update(key.encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()
