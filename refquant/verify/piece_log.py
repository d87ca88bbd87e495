"""A log of finished work: one JSON object a line, each written whole, so that a run that is killed goes on where it stopped.

::

    {"format": 1, "what": "matrix", "seed": 7, …}            what the work is; the same in every run that goes on with it
    {"key": "fbgemm/add/0", "outputs": 1000000, …}           one finished piece
"""

import json
import os
from pathlib import Path

from refquant.errors import RefquantError

__all__ = ["PieceLog"]

_FORMAT = 1


class PieceLog:
    """Finished pieces by key; appended to a file if a path is given.

    Parameters
    ----------
    path : path or None
        None keeps the pieces in memory.
    header : dict
        What the work is. Values of None are taken from a log that is there, else from `fresh`.
    fresh : dict, optional

    Raises
    ------
    RefquantError
        The file is no log, or one of other work.

    Examples
    --------
    >>> log = PieceLog(None, {"what": "sums"})
    >>> log.add({"key": "a", "outputs": 3})
    >>> "a" in log.pieces, log.header["what"]
    (True, 'sums')
    """

    def __init__(self, path, header, fresh=None):
        self.path = None if path is None else Path(path)
        self.header, self.pieces = {"format": _FORMAT, **header}, {}
        lines = self._reached(self._whole_lines) if self.path is not None else []
        if lines:
            self._take(lines)
            return
        self.header.update((name, value) for name, value in (fresh or {}).items() if self.header[name] is None)
        self._append(self.header)

    def add(self, piece):
        """Take in a finished piece, which has a ``key``; on disk when this returns."""
        self.pieces[piece["key"]] = piece
        self._append(piece)

    def _reached(self, step, *arguments):
        try:
            return step(*arguments)
        except OSError as error:
            raise RefquantError(f"log: {self.path} must be a file that can be read and written but is not ({error.strerror}); give another path") from error

    def _whole_lines(self):
        """Return all lines; one that was cut off is taken out of the file."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)
        return content[:whole].decode(errors="replace").splitlines()

    def _take(self, lines):
        try:
            header, *pieces = [json.loads(line) for line in lines]
            self.pieces = {piece["key"]: piece for piece in pieces}
            known = header["format"] == _FORMAT
        except (ValueError, KeyError, TypeError) as error:
            raise RefquantError(f"log: {self.path} must be a log of refquant but is not ({error!r}); give another path") from error
        for name, value in self.header.items():
            if value is not None and json.loads(json.dumps(value)) != header.get(name) or not known:
                raise RefquantError(
                    f"log: {self.path} must be of the same work but has {name}={header.get(name)!r}, not {value!r}; leave the option as it was, or give another path"
                )
        self.header = header

    def _append(self, entry):
        if self.path is not None:
            self._reached(self._write, (json.dumps(entry) + "\n").encode())

    def _write(self, line):
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
