"""Case files: one call of an operator and somebody's output bits, in one ``.npz`` that anything can write.

::

    problem     a JSON text, 0-dimensional: {"format": 1, "op": "linear", "profile": "onnx", "arguments": {name: value, …}}
                value: null, true, a number, a text, a list of values, or
                    {"array": 0, "channels_last": false}                 the entry a0, with its memory format
                    {"array": 0, "channels_last": false, "strides": [8, 2]}   the same as a view, with strides in elements
                    {"scale": 0.5, "zero_point": 3, "dtype": "uint8", "axis": null, "quant_min": 0, "quant_max": 255}
                    {"qtensor": {"array": …}, "qparams": {"scale": …}}
    a0, a1, …   the arrays that it names
    actual      the bits in question; may be left out

Arrays are plain integers and floats. Nothing in a file is executed, and nothing of it is allocated before its size was checked.
"""

import io
import json
import math
import re
from typing import NamedTuple

import numpy as np

from refquant import numerics as profiles
from refquant.core.arguments import as_array
from refquant.core.archive import read_archive, read_array
from refquant.core.files import as_path, write_whole
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, RefquantError, choose
from refquant.verify.problem import Problem, from_plain, to_plain

__all__ = ["CaseFile", "save_case", "load_case", "load_bits"]

_FORMAT = 1
_MOST_BYTES = 1 << 30
_MOST_TEXT = 1 << 24
_MOST_ENTRIES = 80
_MOST_ELEMENTS = 1 << 28
_MOST_STEPS = 1 << 16
_NAME = re.compile(r"(problem|actual|a\d{1,2})\.npy")


class CaseFile(NamedTuple):
    """The content of a case file.

    Attributes
    ----------
    problem : Problem
    actual : ndarray or None
    profile : str
        What the bits were expected to follow.
    """

    problem: Problem
    actual: np.ndarray
    profile: str


def save_case(path, op, *, actual=None, numerics="fbgemm", **arguments):
    """Write a case file.

    Parameters
    ----------
    path : path
    op : str
    actual : array_like or QTensor, optional
        Somebody's output bits.
    numerics : str
        The name of the profile that they were expected to follow.
    **arguments
        What the operator was called with, by keyword.

    Examples
    --------
    >>> import tempfile, refquant as rq
    >>> from pathlib import Path
    >>> x = rq.QTensor(np.array([3, 9], np.uint8), rq.QParams(1.0, 5, "uint8"))
    >>> path = Path(tempfile.mkdtemp()) / "case.npz"
    >>> save_case(path, "relu", actual=np.array([5, 8], np.uint8), numerics="onnx", x=x)
    >>> case = load_case(path)
    >>> case.problem["x"].values.tolist(), case.actual.tolist(), case.profile
    ([3, 9], [5, 8], 'onnx')
    """
    profile = profiles.get(numerics)
    if profiles.get(choose("save_case", "numerics", profile.name, (*profiles.names(), *profiles.variant_names()))) != profile:
        raise ArgumentError(f"save_case: numerics is a changed {profile.name}, which a file cannot hold; give the name of a profile")
    if not isinstance(op, str):
        raise ArgumentError(f"save_case: op is a {type(op).__name__} but must be the name of an operator; give a text such as 'linear'")
    description, arrays = to_plain(Problem(op, arguments))
    if len(arrays) > _MOST_ENTRIES - 2:
        raise ArgumentError(f"save_case: the call has {len(arrays)} arrays but a file holds {_MOST_ENTRIES - 2}; leave some inputs out")
    entries = {f"a{i}": array for i, array in enumerate(arrays)}
    if actual is not None:
        entries["actual"] = np.ascontiguousarray(actual.values if isinstance(actual, QTensor) else as_array(actual, "actual", "save_case"))
    text = json.dumps({"format": _FORMAT, "profile": profile.name, **description})
    content = io.BytesIO()
    np.savez_compressed(content, problem=np.array(text), **entries)
    path = as_path(path)
    write_whole(path if path.suffix == ".npz" else path.with_name(path.name + ".npz"), content.getvalue())


def load_case(path):
    """Read a case file.

    Parameters
    ----------
    path : path

    Returns
    -------
    CaseFile

    Raises
    ------
    ArgumentError
        The file cannot be read, is no case file, or asks for more memory than such a file may.
    """
    place = f"case file {path}"
    entries = _entries(path, place)
    if "problem" not in entries or entries["problem"].dtype.kind != "U" or entries["problem"].ndim:
        raise ArgumentError(f"{place}: the entry 'problem' must be a JSON text but is missing or something else; write the file with refquant.verify.save_case")
    try:
        described = json.loads(str(entries["problem"]))
        if described["format"] != _FORMAT:
            raise ArgumentError(f"{place}: format is {described['format']!r} but this version reads {_FORMAT}; write the file anew")
        arrays = [entries[f"a{i}"] for i in range(sum(name.startswith("a") and name != "actual" for name in entries))]
        profile = choose(place, "profile", described["profile"], profiles.names())
        problem = from_plain(described, arrays)
    except RefquantError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise ArgumentError(f"{place}: the description must be that of a problem but is damaged ({error!r}); write the file with refquant.verify.save_case") from error
    _check_sizes(problem, place)
    return CaseFile(problem, entries.get("actual"), profile)


def load_bits(path):
    """Read somebody's output bits from an ``.npy`` file.

    Raises
    ------
    ArgumentError
        The file cannot be read, or is no array of plain numbers.
    """
    path, place = as_path(path), f"results {path}"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ArgumentError(f"{place}: takes {path.stat().st_size:,} bytes but at most {_MOST_BYTES:,} are read; cut the problem down")
        content = path.read_bytes()
    except OSError as error:
        raise ArgumentError(f"{place}: cannot be read ({error.strerror or error}); check the path") from error
    return read_array(content, path.name, place)


def _entries(path, place):
    members = read_archive(path, place, _NAME.fullmatch, most_entries=_MOST_ENTRIES, most_bytes=_MOST_BYTES, remedy="it is no case file; write it with refquant.verify.save_case or numpy.savez")
    return {name[:-4]: read_array(content, name, place, text_bytes=4 * _MOST_TEXT if name == "problem.npy" else 0) for name, content in members.items()}


def _numbers(value):
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def _check_sizes(problem, place):
    """Refuse geometry that would make the operator allocate far more than its inputs."""
    for name, value in problem.arguments.items():
        for number in _numbers(value):
            if not math.isfinite(number) or (name not in ("a_zero_point", "b_zero_point") and abs(number) > _MOST_STEPS):
                raise ArgumentError(f"{place}: {name}={value!r} must keep within {_MOST_STEPS:,}; it is no sensible call")
    x = problem.get("x")
    if not isinstance(x, QTensor):
        return
    size = x.size
    for name, times in (("padding", 2), ("output_size", 1)):
        sides = list(_numbers(problem.get(name, 0) or 0))
        sides = sides * (x.ndim - 2) if len(sides) == 1 else sides
        for side, n in zip(sides, x.shape[2:]):
            size *= 1 + times * abs(side) / max(n, 1)
    if size > _MOST_ELEMENTS:
        raise ArgumentError(f"{place}: padding or output_size would make {size:,.0f} elements of {x.size:,}; it is no sensible call")
