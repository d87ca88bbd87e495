"""Archives of plain arrays, such as ``numpy.savez`` writes: read with suspicion, written whole and always alike.

Nothing in a file is executed, and nothing of it is allocated before its size was checked.
"""

import io
import math
import struct
import tokenize
import zipfile
import zlib

import numpy as np

from refquant.core.files import as_path, write_whole
from refquant.errors import ArgumentError

__all__ = ["read_archive", "read_array", "write_archive"]

_BROKEN = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, UnicodeDecodeError, EOFError, NotImplementedError, RuntimeError, ValueError)


def read_archive(path, place, accepts, *, most_entries, most_bytes, stored=False, remedy="write it anew with numpy.savez"):
    """Return ``{name: bytes}`` of an archive's members.

    Parameters
    ----------
    path : str or os.PathLike
    place : str
        What the file is, for messages.
    accepts : callable
        ``accepts(name)``: whether a member of that name may stand there; any other is refused.
    most_entries, most_bytes : int
        Limits of the number of members and of their size together, unpacked.
    stored : bool
        Refuse compressed members: then nothing in the archive can be larger than the file.
    remedy : str
        How such a file comes about, for messages.

    Raises
    ------
    ArgumentError
        The file cannot be read, is damaged or no archive, holds other members, two of one name, too many or too much.
    """
    path = as_path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(members, place, accepts, most_entries, most_bytes, remedy)
            if stored:
                _check_stored(members, path.stat().st_size, place, remedy)
            return {m.filename: archive.read(m) for m in members}
    except ArgumentError:
        raise
    except OSError as error:
        raise ArgumentError(f"{place}: cannot be read ({error.strerror or error}); check the path") from error
    except _BROKEN as error:
        raise ArgumentError(f"{place}: must be an .npz archive but is not ({error}); {remedy}") from error


def _check_members(members, place, accepts, most_entries, most_bytes, remedy):
    names = [m.filename for m in members]
    strange = [name for name in names if not accepts(name)]
    if strange or len(names) > most_entries or len(set(names)) != len(names):
        raise ArgumentError(f"{place}: must hold at most {most_entries:,} entries of known names, each once, but there is {(strange or ['one too many'])[0][:80]!r}; {remedy}")
    total = sum(m.file_size for m in members)
    if total > most_bytes:
        raise ArgumentError(f"{place}: its arrays take {total:,} bytes but at most {most_bytes:,} are read; cut it down")


def _check_stored(members, size, place, remedy):
    packed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size]
    if packed or sum(m.file_size for m in members) > size:
        raise ArgumentError(f"{place}: entries must be stored as they are, one behind the other, but {(packed or ['some'])[0]!r} is compressed or shared; {remedy}")


def read_array(content, name, place, *, text_bytes=0):
    """Return the array of an ``.npy`` file after a look at its header: a plain dtype, and as many bytes as it says.

    Parameters
    ----------
    content : bytes
    name, place : str
        For messages.
    text_bytes : int
        The longest text that is let through; none unless given.
    """
    stream = io.BytesIO(content)
    try:
        major, _ = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise ArgumentError(f"{place}: {name} must be a NumPy array but is damaged ({error}); write the file anew") from error
    text = dtype.kind == "U" and dtype.itemsize <= text_bytes
    if not text and (dtype.kind not in "iufb" or dtype.itemsize > 8):
        raise ArgumentError(f"{place}: {name} has dtype {dtype} but only integers, floats and booleans are read; convert it")
    if len(shape) > 64 or any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ArgumentError(f"{place}: {name} says shape {shape} but holds {len(content) - stream.tell():,} bytes; write the file anew")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


def write_archive(path, members):
    """Write ``{name: bytes or ndarray}`` whole or not at all; arrays as ``.npy``. The same members give the same bytes.

    Members are stored without compression, which `read_archive` may then insist on.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, value in members.items():
            if isinstance(value, np.ndarray):
                stream = io.BytesIO()
                np.lib.format.write_array(stream, value, allow_pickle=False)
                value = stream.getvalue()
            archive.writestr(zipfile.ZipInfo(name), value)
    write_whole(path, content.getvalue())
