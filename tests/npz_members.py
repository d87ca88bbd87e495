"""The members of a ``.npz`` file as bytes, for tests that damage it."""

import io
import zipfile

import numpy as np

__all__ = ["members", "write_members", "npy"]


def members(path):
    """Return ``{name: bytes}`` of a file."""
    with zipfile.ZipFile(path) as archive:
        return {m.filename: archive.read(m) for m in archive.infolist()}


def write_members(path, content, compress=zipfile.ZIP_STORED):
    """Write a file of members, less those that are None."""
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, value in content.items():
            if value is not None:
                archive.writestr(name, value)


def npy(array, **how):
    """Return the bytes of an array in NumPy's format."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), **how)
    return buffer.getvalue()
