"""Messages between a process and its worker: a JSON head and arrays, as one ``.npz`` behind its length. Nothing in them is executed.

::

    8 bytes     length of the rest, little-endian
    rest        npz: ``head``, a JSON text, and the arrays ``a0``, ``a1``, …
"""

import io
import json

import numpy as np

__all__ = ["write_frame", "read_frame"]


def write_frame(stream, head, arrays=()):
    """Write one message and flush."""
    body = io.BytesIO()
    np.savez(body, head=np.array(json.dumps(head)), **{f"a{i}": array for i, array in enumerate(arrays)})
    content = body.getvalue()
    stream.write(len(content).to_bytes(8, "little"))
    stream.write(content)
    stream.flush()


def read_frame(stream):
    """Read one message: (head, arrays), or None at the end of the stream.

    Examples
    --------
    >>> stream = io.BytesIO()
    >>> write_frame(stream, {"ask": "run"}, [np.arange(3)])
    >>> _ = stream.seek(0)
    >>> read_frame(stream), read_frame(stream)
    (({'ask': 'run'}, [array([0, 1, 2])]), None)
    """
    length = stream.read(8)
    if len(length) < 8:
        return None
    content = stream.read(int.from_bytes(length, "little"))
    with np.load(io.BytesIO(content), allow_pickle=False) as entries:
        head = json.loads(str(entries["head"]))
        return head, [entries[f"a{i}"] for i in range(len(entries.files) - 1)]
