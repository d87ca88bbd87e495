"""The files that a command writes: all of them are possible before anything is computed."""

import os

from refquant.core.files import check_writable
from refquant.errors import ArgumentError

__all__ = ["check_outputs", "say_written"]


def check_outputs(command, *paths):
    """Raise where one of the files cannot be written, or two are one; None is no file."""
    paths = [path for path in paths if path]
    for path in paths:
        check_writable(path)
    if len({os.path.abspath(path) for path in paths}) < len(paths):
        raise ArgumentError(f"{command}: {' and '.join(paths)} name one file twice; give each output a file of its own")


def say_written(*paths):
    """Print a line for each file; None is no file."""
    for path in filter(None, paths):
        print(f"written: {path}")
