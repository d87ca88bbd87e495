"""Streams: problems out, an engine's bits back, through pipes; any language can read and write them.

Numbers are little-endian and every block is a multiple of 8 bytes long, zeros at its end. ::

    stream   header, records, end
    header   char magic[8] = "RQSTREAM"    u32 version = 1    u32 kind: 1 problems, 2 results
    record   u32 tag: "CASE" in problems, "RSLT" in results    u32 number of fields
             u64 bytes of this record that follow these 24      u32 length of the line    u32 check
             the line: text of the case, from which it can be built again    the fields
    field    char name[24]    u32 dtype    u32 dimensions (0 to 5)    u64 shape[5], then the elements in C order
    end      u32 tag "DONE"    u32 0    u64 number of records

    dtype    1 uint8    2 int8    3 int32    4 float32    5 float64

A result copies line and check of its problem (check is the CRC-32 of the problem's fields) and has one field ``y``, of the operator's shape and dtype;
or none, which says that the engine does not compute such a case. The end of the results copies the end of the problems.

The fields of a problem are the arguments of ``refquant.ops.<op>`` by name; what is None is left out, and activations are contiguous::

    x                    of a QTensor: the codes, with x.scale (float64) and x.zero_point (int32), vectors where they are per channel, then along x.axis
    out.scale, …         of parameters alone: also out.zero_point, out.dtype (int32, as above) and out.range (int32: lowest and highest code)
    bias                 of an array: the array
    stride, groups, …    of a whole number or several: int32; of a real number: float64
    activation           of a text: uint8, such as "relu"
    tensors.0, …         of several tensors or arrays: one after the other
"""

import math
import struct
import zlib
from typing import NamedTuple

import numpy as np

from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError

__all__ = ["VERSION", "PROBLEMS", "RESULTS", "DTYPES", "Record", "Writer", "Reader", "fields_of", "check_of", "record_bytes"]

VERSION = 1
PROBLEMS, RESULTS = 1, 2
#: Code of each dtype.
DTYPES = {name: code for code, name in enumerate(("uint8", "int8", "int32", "float32", "float64"), 1)}

_MAGIC = b"RQSTREAM"
_HEADER, _RECORD, _FIELD = struct.Struct("<8sII"), struct.Struct("<4sIQII"), struct.Struct("<24sII5Q")
_END = struct.Struct("<4sIQ")
_TAGS = {PROBLEMS: b"CASE", RESULTS: b"RSLT"}
_KINDS = {PROBLEMS: "problems", RESULTS: "results"}
_MOST_BYTES, _MOST_LINE, _MOST_FIELDS, _CHUNK = 1 << 30, 1 << 12, 1 << 8, 1 << 24
_NAMES = {code: np.dtype(name) for name, code in DTYPES.items()}


class Record(NamedTuple):
    """One case, or one result.

    Attributes
    ----------
    line : str
    check : int
    fields : dict of str to ndarray
    """

    line: str
    check: int
    fields: dict


def fields_of(problem):
    """Return the fields of a problem: a list of (name, array).

    Examples
    --------
    >>> x = QTensor(np.array([3, 9], np.uint8), QParams(1.0, 5, "uint8"))
    >>> from refquant.verify.problem import Problem
    >>> [(name, array.dtype.name, array.tolist()) for name, array in fields_of(Problem("relu", {"x": x}))]
    [('x', 'uint8', [3, 9]), ('x.scale', 'float64', 1.0), ('x.zero_point', 'int32', 5)]
    """
    return [(name, np.ascontiguousarray(array).reshape(np.shape(array))) for key, value in problem.arguments.items() for name, array in _flat(key, value)]


def _flat(name, value):
    if value is None:
        return
    if isinstance(value, QTensor):
        yield name, value.values
        yield from _parameters(name, value.qparams)
    elif isinstance(value, QParams):
        yield from _parameters(name, value)
        yield f"{name}.dtype", np.int32(DTYPES[value.dtype])
        yield f"{name}.range", np.array([value.qmin, value.qmax], np.int32)
    elif isinstance(value, str):
        yield name, np.frombuffer(value.encode(), np.uint8)
    elif isinstance(value, (tuple, list)) and any(isinstance(v, (QTensor, np.ndarray)) for v in value):
        for i, item in enumerate(value):
            yield from _flat(f"{name}.{i}", item)
    else:
        array = np.asarray(value)
        yield name, array if array.dtype.name in DTYPES else array.astype(np.float64 if array.dtype.kind == "f" else np.int32)


def _parameters(name, q):
    yield f"{name}.scale", np.asarray(q.scale, np.float64)
    yield f"{name}.zero_point", np.asarray(q.zero_point, np.int32)
    if q.per_channel:
        yield f"{name}.axis", np.int32(q.axis)


def _blocks(fields):
    """Return the blocks of fields as they go over the pipe."""
    blocks = []
    for name, array in fields:
        shape = (*array.shape, *[0] * (5 - array.ndim))
        blocks.append(_FIELD.pack(name.encode(), DTYPES[array.dtype.name], array.ndim, *shape))
        blocks.append(memoryview(array.reshape(-1)).cast("B") if array.size else b"")
        if array.nbytes % 8:
            blocks.append(bytes(-array.nbytes % 8))
    return blocks


def check_of(fields):
    """Return the check of fields: CRC-32 of their blocks."""
    check = 0
    for block in _blocks(fields):
        check = zlib.crc32(block, check)
    return check


def record_bytes(line, fields):
    """Return how many bytes a record takes."""
    return _RECORD.size + _padded(len(line.encode())) + sum(_FIELD.size + _padded(array.nbytes) for _, array in fields)


def _padded(size):
    return size + -size % 8


class Writer:
    """Writes a stream.

    Parameters
    ----------
    out : binary file
    kind : int
        `PROBLEMS` or `RESULTS`.
    """

    def __init__(self, out, kind):
        self._out, self._kind, self._count = out, kind, 0
        out.write(_HEADER.pack(_MAGIC, VERSION, kind))

    def write(self, line, fields, check=None):
        """Write a record; of a result give its problem's check, and no fields where the engine does not compute it."""
        fields = [(name, np.asarray(array)) for name, array in fields]
        text, blocks = line.encode(), _blocks(fields)
        if check is None:
            check = check_of(fields)
        body = _padded(len(text)) + sum(map(len, blocks))
        self._out.write(_RECORD.pack(_TAGS[self._kind], len(fields), body, len(text), check) + text + bytes(-len(text) % 8))
        for block in blocks:
            self._out.write(block)
        self._count += 1

    def end(self):
        """Write the end, without which a stream counts as cut off."""
        self._out.write(_END.pack(b"DONE", 0, self._count))
        self._out.flush()


class Reader:
    """Reads a stream: an iterator of `Record`; whatever is not such a stream is an `ArgumentError` that says where and what to do.

    Parameters
    ----------
    source : binary file
    kind : int
    allowed : callable, optional
        Takes a record's line and returns the most bytes that it may have; called before anything is read into memory.
    """

    def __init__(self, source, kind, allowed=None):
        self._source, self._kind, self._allowed = source, kind, allowed or (lambda line: _MOST_BYTES)
        self.bytes = self.count = 0

    def _refuse(self, what, remedy):
        raise ArgumentError(f"stream of {_KINDS[self._kind]}, record {self.count + 1}, byte {self.bytes:,}: {what}; {remedy}")

    def _exactly(self, size, what):
        content = bytearray()
        while len(content) < size:
            piece = self._source.read(min(size - len(content), _CHUNK))
            if not piece:
                self.bytes += len(content)
                self._refuse(f"it ends in the middle of {what}, after {len(content):,} of {size:,} bytes", "the program before this one stopped early, see what it says")
            content = piece if len(piece) == size else content + piece
        self.bytes += size
        return content

    def __iter__(self):
        self._read_header()
        while True:
            start = self._exactly(_END.size, "a record's start")
            tag, fields, number = _END.unpack(start)
            if tag == b"DONE":
                self._read_end(number)
                return
            if tag != _TAGS[self._kind]:
                self._refuse(f"a record must begin with {_TAGS[self._kind].decode()} or DONE but begins with {tag!r}", "write each block padded to 8 bytes, and as many bytes as it says")
            length, check = struct.unpack("<II", self._exactly(_RECORD.size - _END.size, "a record's start"))
            yield self._read_record(fields, number, length, check)
            self.count += 1

    def _read_header(self):
        start = self._exactly(_HEADER.size, "the header")
        magic, version, kind = _HEADER.unpack(start)
        if magic != _MAGIC:
            self._refuse(f"it must begin with {_MAGIC.decode()} but begins with {bytes(magic)!r}", "pipe refquant gen into your program and your program into refquant check")
        if version != VERSION:
            self._refuse(f"it has version {version} but this refquant reads version {VERSION}", "use the refquant that wrote it, or a newer one" if version > VERSION else "write it anew")
        if kind != self._kind:
            self._refuse(f"it holds {_KINDS.get(kind, f'kind {kind}')}", f"{_KINDS[self._kind]} are expected here, kind {self._kind} in the header")

    def _read_end(self, number):
        if number != self.count:
            self._refuse(f"its end says {number:,} records but {self.count:,} came", "write a result for each case, in order, one without fields for what you do not compute")
        if self._source.read(1):
            self._refuse("bytes follow its end", "write nothing after DONE, and messages to stderr")

    def _read_record(self, fields, size, length, check):
        if length > _MOST_LINE or _padded(length) > size or fields > _MOST_FIELDS or size > _MOST_BYTES:
            self._refuse(f"a record of {size:,} bytes with {fields:,} fields and a line of {length:,} bytes is absurd", f"keep below {_MOST_BYTES:,} bytes")
        try:
            line = bytes(self._exactly(_padded(length), "a line"))[:length].decode()
        except UnicodeDecodeError:
            self._refuse("its line is no text", "copy the line of the problem")
        size -= _padded(length)
        most = self._allowed(line)
        if size > most:
            self._refuse(f"{line} takes {size:,} bytes but can have {most:,} at most", "write the outputs of this case alone")
        return Record(line, check, dict(self._fields(memoryview(self._exactly(size, "a record")), fields, line)))

    def _fields(self, content, count, line):
        at = 0
        for _ in range(count):
            if len(content) - at < _FIELD.size:
                self._refuse(f"{line}: it says {count} fields but is too short for them", "count the bytes of the record anew")
            name, dtype, ndim, *shape = _FIELD.unpack_from(content, at)
            name = bytes(name).rstrip(b"\0").decode(errors="replace")
            at += _FIELD.size
            if dtype not in _NAMES:
                self._refuse(f"{line}: field {name!r} has dtype {dtype}", f"write one of {', '.join(f'{code} ({kind})' for code, kind in _NAMES.items())}")
            elements = math.prod(shape[:ndim])
            if ndim > 5 or elements * _NAMES[dtype].itemsize > len(content) - at:
                self._refuse(f"{line}: field {name!r} says {ndim} dimensions, {tuple(shape)}, but {len(content) - at:,} bytes are left of the record", "write its shape, and as many elements as it says")
            yield name, np.frombuffer(content, _NAMES[dtype], elements, at).reshape(shape[:ndim])
            at += _padded(elements * _NAMES[dtype].itemsize)
        if at != len(content):
            self._refuse(f"{line}: {len(content) - at:,} bytes of the record are left after its {count} fields", "count the bytes of the record anew")
