"""Results of a function of one number, looked up where few different numbers occur.

    slot       (bits of a number * _HASH) >> 16
    numbers    [slot]   uint32     the number whose result stands there
    results    [slot]   float32
    out        [i]      float32    of numbers that their slot does not hold, untouched, and counted
"""

import numpy as np

from refquant.kernels.jit import kernel, parallel_for

__all__ = ["slots_of", "look_up_reals"]

_SLOTS, _GRAIN = 1 << 16, 1 << 15
_HASH, _SHIFT = np.uint32(0x9E3779B1), np.uint32(16)


def slots_of(known, results):
    """Return the tables ``(numbers, results)`` of some numbers, given by their bits; of two that meet in a slot one is kept."""
    tables = np.full(_SLOTS, known[0]), np.full(_SLOTS, results[0])
    slots = (known * _HASH) >> _SHIFT
    last = dict(zip(slots.tolist(), range(known.size)))
    for table, values in zip(tables, (known, results)):
        table[list(last)] = values[list(last.values())]
    return tables


@kernel
def _look_up(first, last, bits, numbers, results, out, missed):
    count = 0
    for i in range(first, last):
        slot = np.uint32(bits[i] * _HASH) >> _SHIFT
        out[i] = results[slot]
        count += numbers[slot] != bits[i]
    if count > 0:
        missed[0] = True


def look_up_reals(bits, tables, out):
    """Look up flat `bits` and return where their slots hold other numbers: a mask, or None."""
    missed = np.zeros(1, np.bool_)
    parallel_for(_look_up, bits.size, bits, *tables, out, missed, grain=_GRAIN)
    return tables[0][(bits * _HASH) >> _SHIFT] != bits if missed[0] else None
