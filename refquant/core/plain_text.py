"""Plain values as JSON text, with arrays beside it: what files of refquant are made of. Nothing is executed when it is read.

A value is null, true, a number, a text, a list, or one of

* ``{"float": "nan"}``: what JSON has no number for;
* ``{"array": 3}``: the array ``a3.npy`` beside the text;
* ``{"table": [[key, value], …]}``: a dictionary with texts as keys;

and what a subclass adds.
"""

import json
import math
import re

import numpy as np

from refquant.core.archive import read_array
from refquant.errors import ArgumentError, choose

__all__ = ["PlainReader", "PlainWriter", "read_members", "MEMBER", "GARBLED"]

MEMBER = re.compile(r"model\.json|a(0|[1-9]\d{0,5})\.npy")
"""The names of the members of an archive: one text, and arrays that are numbered from 0 on."""
GARBLED = (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError, MemoryError)
"""What goes wrong in a text that is JSON but makes no sense."""


class PlainWriter:
    """Turns values into what JSON holds, and keeps the arrays, each once, in the order in which they were met.

    Examples
    --------
    >>> writer = PlainWriter()
    >>> writer.described({"low": float("inf"), "counts": np.arange(3)}, "")
    {'table': [['low', {'float': 'inf'}], ['counts', {'array': 0}]]}
    >>> sorted(writer.members({"version": 1}))
    ['a0.npy', 'model.json']
    """

    def __init__(self):
        self.kept, self._places, self._sources = [], {}, []

    def place(self, array):
        """Return the number of an array."""
        if id(array) not in self._places:
            self._places[id(array)] = len(self.kept)
            self._sources.append(array)
            self.kept.append(np.array(array, order="C"))
        return self._places[id(array)]

    def described(self, value, place):
        """Return a value as JSON has it; `place` is for messages."""
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, (int, np.integer)):
            return int(value)
        if isinstance(value, (float, np.floating)):
            return float(value) if math.isfinite(value) else {"float": str(float(value))}
        if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
            return [self.described(v, place) for v in value]
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {"table": [[key, self.described(v, f"{place}, {key}")] for key, v in value.items()]}
        if isinstance(value, np.ndarray) and value.dtype.kind in "iufb" and value.dtype.itemsize <= 8:
            return {"array": self.place(value)}
        return self.other(value, place)

    def other(self, value, place):
        """Return a value that is not plain; a subclass knows some."""
        raise ArgumentError(f"{place}: is a {type(value).__name__}, which a file does not hold; give plain numbers, texts and arrays")

    def members(self, text):
        """Return the members of the archive of a text."""
        content = json.dumps(text, ensure_ascii=True, allow_nan=False, indent=1).encode()
        return {"model.json": content, **{f"a{i}.npy": array for i, array in enumerate(self.kept)}}


class PlainReader:
    """Turns what JSON holds back into values; lists become tuples, arrays cannot be written to.

    Examples
    --------
    >>> PlainReader([np.arange(3)], "file").value({"table": [["low", {"float": "inf"}], ["counts", {"array": 0}]]})
    {'low': inf, 'counts': array([0, 1, 2])}
    """

    kinds = ("float", "array", "table")

    def __init__(self, arrays, place, remedy="write the file anew"):
        self.arrays, self.place, self.remedy = arrays, place, remedy

    def value(self, value):
        """Return the value that was described."""
        if isinstance(value, list):
            return tuple(self.value(v) for v in value)
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        choose(self.place, "kind of value", kind, self.kinds)
        return getattr(self, f"_{kind}")(content)

    def _float(self, content):
        return float(choose(self.place, "float", content, ("nan", "inf", "-inf")))

    def _array(self, content):
        if type(content) is not int or not 0 <= content < len(self.arrays):
            raise ArgumentError(f"{self.place}: names the array {content!r} but has {len(self.arrays)}; {self.remedy}")
        return self.arrays[content]

    def _table(self, content):
        return _once([(str(key), self.value(value)) for key, value in content])


def read_members(entries, place, kind, version, remedy):
    """Return the text and the arrays of an archive's members.

    Parameters
    ----------
    entries : dict of str to bytes
        Of `refquant.core.archive.read_archive`, with `MEMBER` for names.
    place, kind : str
        What the file is, for messages; what its text must say under ``format``.
    version : int
        The newest that is read.
    remedy : str
        How such a file comes about.

    Raises
    ------
    ArgumentError
        No text, a damaged or a newer one, arrays that are missing or damaged.
    """
    entries = dict(entries)
    text = _text(entries.pop("model.json", None), place, kind, version, remedy)
    arrays = [_frozen(read_array(entries[name], name, place)) for name in sorted(entries, key=lambda name: int(name[1:-4]))]
    if set(entries) != {f"a{i}.npy" for i in range(len(arrays))}:
        raise ArgumentError(f"{place}: its arrays must be numbered from 0 on, but one of {len(arrays)} is missing; {remedy}")
    return text, arrays


def _text(content, place, wanted, newest, remedy):
    if content is None:
        raise ArgumentError(f"{place}: has no entry model.json, so it is no model; {remedy}")
    try:
        text = json.loads(content, object_pairs_hook=_once, parse_constant=_once)
        kind, version = text["format"], text["version"]
    except GARBLED as error:
        raise ArgumentError(f"{place}: model.json must be the JSON text of a model but is damaged ({str(error)[:120]}); {remedy}") from error
    if kind != wanted or type(version) is not int or version < 1:
        raise ArgumentError(f"{place}: must be a {wanted!r} but is a {str(kind)[:40]!r} of version {str(version)[:40]!r}; {remedy}")
    if version > newest:
        raise ArgumentError(f"{place}: is of version {version} but this refquant reads up to {newest}; upgrade refquant, or save the model with the older one")
    return text


def _once(pairs):
    """Refuse repeated keys and the constants NaN and Infinity, which JSON does not have."""
    if isinstance(pairs, str) or len({key for key, _ in pairs}) != len(pairs):
        raise ValueError(f"{pairs if isinstance(pairs, str) else [key for key, _ in pairs][:4]} is no plain JSON")
    return dict(pairs)


def _frozen(array):
    array = np.array(array, array.dtype.newbyteorder("="), order="C")
    array.flags.writeable = False
    return array
