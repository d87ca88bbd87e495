"""Pieces of long verification on live engines, as functions that another process can be given."""

from functools import cache

import refquant
from refquant import backends
from refquant.verify.exhaustive import SWEEPS
from refquant.verify.matrix import run_cell

__all__ = ["matrix_piece", "sweep_piece"]

_runner = cache(backends.load)


def matrix_piece(task):
    """Run one piece of the matrix; see `refquant.verify.matrix.run_cell`."""
    return run_cell(_runner(task["engine"]), task)


def sweep_piece(task):
    """Run one piece of a sweep, on one thread; see `refquant.verify.exhaustive`."""
    refquant.set_num_threads(1)
    return SWEEPS[task["what"]][1](_runner(task["engine"]), task)
