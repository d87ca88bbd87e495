"""Golden vectors: problems with the bits that a real engine gave, so that the oracle is checked without the engine.

::

    data/vectors/index.json            {"format": 1, "engines": {"fbgemm": provenance, …}, "files": {"conv2d-fbgemm.npz": {"sha256": …, …}, …}}
    data/vectors/conv2d-fbgemm.npz     "problems": a JSON text; "a0", "a1", …: the arrays that it names; "y0", …: the engine's bits
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refquant.errors import RefquantError, choose
from refquant.verify.campaign import Row, Trial
from refquant.verify.compare import Outcome, Status, compare
from refquant.verify.problem import Problem, from_plain, oracle, to_plain

__all__ = ["Vector", "vectors_folder", "read_index", "read_vectors", "write_vectors", "check_vectors"]

_FORMAT = 1
_REMEDY = "reinstall refquant, or record anew with python -m refquant.backends.record"


class Vector(NamedTuple):
    """One recorded call.

    Attributes
    ----------
    case : str
        The line that the problem was built from; ``near LINE`` where its scales were drawn by NumPy's functions of another processor, and the line
        gives some of them a last bit away.
    profile : str
        The profile that the engine is held against.
    problem : Problem
    bits : ndarray
        What the engine gave.
    """

    case: str
    profile: str
    problem: Problem
    bits: np.ndarray


def vectors_folder():
    """Return the folder of the vectors that come with refquant."""
    from refquant import data

    return Path(data.__file__).resolve().parent / "vectors"


def _read(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise RefquantError(f"golden vectors: {path} must be a readable file but is not ({error.strerror}); {_REMEDY}") from error


def read_index(folder=None):
    """Return the index of a folder of vectors: a dict with ``engines`` (provenance by engine) and ``files`` (an entry by file name).

    Raises
    ------
    RefquantError
        The index is missing or is no index.
    """
    path = Path(folder or vectors_folder()) / "index.json"
    try:
        index = json.loads(_read(path))
        entries = index["files"].values()
        whole = index["format"] == _FORMAT and all({"sha256", "op", "engine"} <= e.keys() and e["engine"] in index["engines"] for e in entries)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefquantError(f"golden vectors: {path} must be an index but is damaged ({error!r}); {_REMEDY}") from error
    if not whole:
        raise RefquantError(f"golden vectors: {path} must be an index of format {_FORMAT} but lacks entries; {_REMEDY}")
    return index


def read_vectors(name, folder=None):
    """Read one file of vectors, after a look at its SHA-256.

    Parameters
    ----------
    name : str
        A file name of the index.
    folder : path, optional

    Returns
    -------
    list of Vector

    Raises
    ------
    RefquantError
        The file is missing, or is not the one that the index lists.
    """
    folder = Path(folder or vectors_folder())
    files = read_index(folder)["files"]
    entry = files[choose("golden vectors", "file", name, files)]
    content = _read(folder / name)
    found = hashlib.sha256(content).hexdigest()
    if found != entry["sha256"]:
        raise RefquantError(f"golden vectors: {folder / name} must have SHA-256 {entry['sha256'][:16]}… (index.json) but has {found[:16]}…; {_REMEDY}")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        listing = json.loads(str(archive["problems"]))
        return [_vector(item, archive, i) for i, item in enumerate(listing)]


def _vector(item, archive, i):
    arrays = [archive[f"a{n}"] for n in item["arrays"]]
    return Vector(item["case"], item["profile"], from_plain(item["problem"], arrays), archive[f"y{i}"])


def pack(vectors):
    """Return the content of one file."""
    listing, arrays = [], {}
    for i, vector in enumerate(vectors):
        problem, own = to_plain(vector.problem)
        numbers = range(len(arrays), len(arrays) + len(own))
        arrays.update((f"a{n}", array) for n, array in zip(numbers, own))
        listing.append({"case": vector.case, "profile": vector.profile, "problem": problem, "arrays": list(numbers)})
    bits = {f"y{i}": np.ascontiguousarray(vector.bits) for i, vector in enumerate(vectors)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, problems=np.array(json.dumps(listing)), **arrays, **bits)
    return buffer.getvalue()


def write_vectors(groups, folder=None):
    """Write a whole folder of vectors, or nothing: what was there stays until all is on disk, then goes in one step.

    Files of the folder that are no vectors are taken over.

    Parameters
    ----------
    groups : dict of (op, engine) to (provenance, list of Vector)
    folder : path, optional

    Returns
    -------
    dict
        The index.
    """
    folder = Path(folder or vectors_folder())
    files, engines = {}, {}
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".vectors-", dir=folder.parent))
    try:
        for (op, engine), (provenance, vectors) in sorted(groups.items()):
            name, content = f"{op}-{engine}.npz", pack(vectors)
            (fresh / name).write_bytes(content)
            files[name] = {
                "op": op, "engine": engine, "cases": len(vectors), "outputs": int(sum(v.bits.size for v in vectors)),
                "sha256": hashlib.sha256(content).hexdigest(),
            }  # fmt: skip
            engines[engine] = provenance
        index = {"format": _FORMAT, "engines": engines, "files": files}
        (fresh / "index.json").write_text(json.dumps(index, indent=1) + "\n")
        for path in folder.glob("*"):
            if path.suffix != ".npz" and path.name != "index.json":
                shutil.copy2(path, fresh / path.name)
        os.chmod(fresh, 0o755)
        _swap(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return index


def _swap(fresh, folder):
    """Put `fresh` in the place of `folder`; if that fails, `folder` is as it was."""
    if not folder.exists():
        os.rename(fresh, folder)
        return
    old = folder.with_name(fresh.name + "-old")
    os.rename(folder, old)
    try:
        os.rename(fresh, folder)
    except BaseException:
        os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_vectors(name, folder=None, *, reference=False):
    """Hold the oracle against one file of recorded bits.

    Parameters
    ----------
    name : str
    folder : path, optional
    reference : bool
        Ask the NumPy reference in place of the kernels.

    Returns
    -------
    Row
        Whose failures carry the recorded lines.
    """
    entry = read_index(folder)["files"][name]
    row = Row(entry["op"], entry["engine"])
    for vector in read_vectors(name, folder):
        comparison = compare(vector.bits, oracle(vector.problem, vector.profile, reference=reference))
        row.add(Trial(vector.case, Outcome(comparison.status, "" if comparison.status is Status.EXACT else str(comparison)), comparison))
    return row
