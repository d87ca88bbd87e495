"""Files that are written whole or not at all."""

import os
import tempfile
from pathlib import Path

from refquant.errors import ArgumentError, RefquantError

__all__ = ["write_whole", "check_writable", "as_path"]


def check_writable(path):
    """Refuse a path that cannot be written to, before any work is done.

    Raises
    ------
    RefquantError
        The folder is missing or may not be written to, or the path is a folder.

    Examples
    --------
    >>> check_writable("no_such_folder/report.html")
    Traceback (most recent call last):
    refquant.errors.RefquantError: no_such_folder/report.html: its folder must exist and be writable, but 'no_such_folder' is not; make it, or write elsewhere
    """
    path = as_path(path)
    if path.is_dir():
        raise RefquantError(f"{path}: must be a file, but is a folder; give a file name in it, such as {path / 'report.html'}")
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise RefquantError(f"{path}: its folder must exist and be writable, but {str(path.parent)!r} is not; make it, or write elsewhere")


def as_path(path):
    """Return a path, or say that this is none."""
    if not isinstance(path, (str, os.PathLike)) or "\0" in os.fsdecode(path):
        raise ArgumentError(f"{path!r} is a {type(path).__name__} but must be the path of a file; give a text or a pathlib.Path")
    return Path(os.fsdecode(path))


def write_whole(path, content):
    """Write bytes into a temporary file beside `path`, then rename it.

    Raises
    ------
    RefquantError
        The file cannot be written; nothing is left behind.
    """
    path = as_path(path)
    check_writable(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise RefquantError(f"{path}: must be writable, but is not ({error.strerror}); free space, or write elsewhere") from error


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
