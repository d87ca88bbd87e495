"""Tables: an operator on 8-bit codes has 256 results, or 65,536 for a pair; large tensors look them up."""

import numpy as np

__all__ = ["code_table", "take_codes", "pair_table", "take_pairs"]


def _all_codes(dtype):
    return np.arange(256, dtype=np.uint8).view(dtype)


def code_table(function, dtype, storage):
    """Tabulate `function` over the 256 codes of `dtype`, indexed by the code's byte."""
    return function(_all_codes(dtype)).astype(storage)


def take_codes(table, q):
    """Return ``table[byte of q]``."""
    return np.take(table, q.view(np.uint8))


def pair_table(function, dtype_a, dtype_b, storage):
    """Tabulate `function` over all pairs of codes, indexed by both bytes."""
    a, b = np.meshgrid(_all_codes(dtype_a), _all_codes(dtype_b), indexing="ij")
    return function(a.reshape(-1), b.reshape(-1)).astype(storage)


def take_pairs(table, a, b):
    """Return ``table[byte of a, byte of b]``."""
    index = a.view(np.uint8).astype(np.uint16)
    index <<= 8
    index |= b.view(np.uint8)
    return np.take(table, index)
