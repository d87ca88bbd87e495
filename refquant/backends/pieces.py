"""Pieces of long verification on live engines, as functions that another process can be given."""

from functools import cache

from refquant import backends
from refquant.verify.matrix import run_cell

__all__ = ["matrix_piece"]

_runner = cache(backends.load)


def matrix_piece(task):
    """Run one piece of the matrix; see `refquant.verify.matrix.run_cell`."""
    return run_cell(_runner(task["engine"]), task)
