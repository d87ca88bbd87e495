"""Product sequences: the instructions with which an engine multiplies bytes and adds up in 32 bits, one register after the other.

    name     instructions                       k a step    result
    pairs    vpmaddubsw, vpmaddwd, vpaddd       4           sums of two neighbouring products saturate to int16
    dot      vpdpbusd                           4           exact modulo 2**32
    wide     vpmaddwd, vpaddd                   2           exact modulo 2**32, on factors widened to 16 bits
    tile     tdpbusd                            64          exact modulo 2**32

A register of the second factor holds, for 16 columns n, four (two) consecutive k each; the first factor's four (two) values are
broadcast to all columns. Which sequence an engine uses at which processor level stands in `SEQUENCES_USED`.
"""

from typing import Callable, NamedTuple

import numpy as np

from refquant.errors import ArgumentError, ShapeError, UnsupportedError, choose
from refquant.isa.amx import tdpbusd, tile_layout
from refquant.isa.cpu import level
from refquant.isa.vnni import vpdpbusd
from refquant.isa.x86 import vpaddd, vpmaddubsw, vpmaddwd

__all__ = ["Sequence", "SEQUENCES", "SEQUENCES_USED", "sequence_used", "multiply"]

_COLUMNS = 16


def _pairs(acc, a, b):
    ones = np.ones(2 * _COLUMNS, np.int16)
    return vpaddd(acc, vpmaddwd(vpmaddubsw(a, b), ones))


def _wide(acc, a, b):
    return vpaddd(acc, vpmaddwd(a.astype(np.int16), b.astype(np.int16)))


class Sequence(NamedTuple):
    """One way to multiply.

    Attributes
    ----------
    name : str
    instructions : tuple of str
    depth : int
        How many k one step takes.
    step : callable
        ``step(acc, a, b)`` on registers of 512 bits (or tiles); the same lanes on narrower ones.
    exact : bool
        Whether no step saturates, for uint8 times int8.
    """

    name: str
    instructions: tuple
    depth: int
    step: Callable
    exact: bool


SEQUENCES = (
    Sequence("pairs", ("vpmaddubsw", "vpmaddwd", "vpaddd"), 4, _pairs, False),
    Sequence("dot", ("vpdpbusd",), 4, vpdpbusd, True),
    Sequence("wide", ("vpmaddwd", "vpaddd"), 2, _wide, True),
    Sequence("tile", ("tdpbusd",), 64, tdpbusd, True),
)

_SEQUENCES = {row.name: row for row in SEQUENCES}

SEQUENCES_USED = (
    # engine, level, sequence for uint8 x int8, evidence: "measured", "emulated" (the engine's binary under QEMU) or "read" (its source)
    ("onednn", "sse41", "pairs", "measured"),
    ("onednn", "avx2", "pairs", "measured"),
    ("onednn", "avx_vnni", "dot", "measured"),
    ("onednn", "avx_vnni_int8", "dot", "read"),
    ("onednn", "avx512", "pairs", "measured"),
    ("onednn", "avx512_vbmi", "pairs", "measured"),
    ("onednn", "avx512_vnni", "dot", "measured"),
    ("onednn", "amx_int8", "tile", "read"),
    ("fbgemm", "avx2", "pairs", "measured"),
    ("fbgemm", "avx_vnni", "pairs", "read"),
    ("fbgemm", "avx_vnni_int8", "pairs", "read"),
    ("fbgemm", "avx512", "pairs", "measured"),
    ("fbgemm", "avx512_vbmi", "pairs", "measured"),
    ("fbgemm", "avx512_vnni", "dot", "measured"),
    ("fbgemm", "amx_int8", "dot", "read"),
    ("onnxruntime", "sse41", "wide", "emulated"),
    ("onnxruntime", "avx2", "pairs", "emulated"),
    ("onnxruntime", "avx_vnni", "dot", "read"),
    ("onnxruntime", "avx_vnni_int8", "dot", "read"),
    ("onnxruntime", "avx512", "pairs", "read"),
    ("onnxruntime", "avx512_vbmi", "pairs", "read"),
    ("onnxruntime", "avx512_vnni", "dot", "measured"),
    ("onnxruntime", "amx_int8", "tile", "read"),
    ("openvino", "avx2", "pairs", "measured"),
    ("openvino", "avx512_vnni", "dot", "measured"),
)

ENGINES = ("onednn", "fbgemm", "onnxruntime", "openvino")

_USED = {}
for _engine, _level, _name, _evidence in SEQUENCES_USED:
    if (_engine, _level) in _USED:
        raise ArgumentError(f"isa: {_engine} on {_level} is listed twice; remove one row")
    _USED[_engine, level(_level).name] = (_SEQUENCES[_name], _evidence)


def sequence_used(engine, name):
    """Return how an engine multiplies uint8 by int8 at a processor level.

    Parameters
    ----------
    engine : {"onednn", "fbgemm", "onnxruntime", "openvino"}
    name : str
        A level of `refquant.isa.cpu.LEVELS`.

    Returns
    -------
    (Sequence, str)
        The sequence and the evidence for it.

    Raises
    ------
    UnsupportedError
        The engine does not run there (FBGEMM needs AVX2), or nothing is known about it.

    Examples
    --------
    >>> sequence_used("fbgemm", "avx_vnni")[0].instructions
    ('vpmaddubsw', 'vpmaddwd', 'vpaddd')
    """
    choose("isa", "engine", engine, ENGINES)
    key = (engine, level(name).name)
    if key not in _USED:
        known = ", ".join(other for who, other in _USED if who == engine)
        raise UnsupportedError(f"isa: {engine} has no known INT8 kernels on {key[1]}; choose a level among {known}")
    return _USED[key]


def multiply(a, b, sequence):
    """Multiply matrices register by register, as a sequence does: the readable meaning of an engine's inner loop.

    Parameters
    ----------
    a : ndarray of uint8, (M, K)
    b : ndarray of int8, (K, N)
    sequence : str or Sequence

    Returns
    -------
    ndarray of int32, (M, N)

    Exactness
    ---------
    ``dot``, ``wide`` and ``tile``: the exact product modulo 2**32. ``pairs``: sums over (k, k + 1) with even k saturate to int16.

    Examples
    --------
    >>> a, b = np.full((1, 64), 255, np.uint8), np.full((64, 1), 127, np.int8)
    >>> {name: int(multiply(a, b, name)[0, 0]) for name in ("pairs", "dot", "wide", "tile")}
    {'pairs': 1048544, 'dot': 2072640, 'wide': 2072640, 'tile': 2072640}
    """
    if not isinstance(sequence, Sequence):
        sequence = _SEQUENCES[choose("isa.multiply", "sequence", sequence, _SEQUENCES)]
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != np.uint8 or b.dtype != np.int8:
        raise ArgumentError(f"isa.multiply: a is {a.dtype} and b {b.dtype} but must be uint8 and int8; convert the codes")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ShapeError(f"isa.multiply: a has shape {a.shape} and b {b.shape}; they must be (M, K) and (K, N)")
    depth, columns = sequence.depth, b.shape[1]
    a = np.pad(a, ((0, 0), (0, -a.shape[1] % depth)))
    b = np.pad(b, ((0, a.shape[1] - b.shape[0]), (0, -b.shape[1] % _COLUMNS)))
    block = _tile_blocks if sequence.name == "tile" else _register_blocks
    out = np.empty((a.shape[0], b.shape[1]), np.int32)
    for first in range(0, b.shape[1], _COLUMNS):
        out[:, first : first + _COLUMNS] = block(a, b[:, first : first + _COLUMNS], sequence)
    return out[:, :columns]


def _register_blocks(a, b, sequence):
    depth = sequence.depth
    acc = np.zeros((a.shape[0], _COLUMNS), np.int32)
    for k in range(0, a.shape[1], depth):
        broadcast = np.tile(a[:, k : k + depth], _COLUMNS)
        acc = sequence.step(acc, broadcast, b[k : k + depth].T.reshape(-1))
    return acc


def _tile_blocks(a, b, sequence):
    rows = np.pad(a, ((0, -a.shape[0] % 16), (0, 0)))
    acc = np.zeros((rows.shape[0] // 16, 16, _COLUMNS), np.int32)
    for k in range(0, a.shape[1], 64):
        acc = sequence.step(acc, rows[:, k : k + 64].reshape(-1, 16, 64), tile_layout(b[k : k + 64]))
    return acc.reshape(-1, _COLUMNS)[: a.shape[0]]
