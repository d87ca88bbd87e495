"""Words of k whose products are added while they are 16 bits wide: the columns of a product for the fastest tiles of AVX2.

    words    [8 columns][word][column][4]    int8, the words of k in an order of the block's own: bundles of 4, 3 and 2, singles, heavy ones
    order    [8 columns][word]               which word stands there: run * words of a run + word of the run
    counts   [8 columns][kind]               how many there are of each

``vpmaddubsw`` leaves 16 lanes of 16 bits, each the sum of two products; widening a word's lanes to 32 bits takes a second multiplication and
an addition. Words share these where the sum of their lanes fits into 16 bits too. With bytes of A up to a level it does if the positive
weights of a lane add up to at most ``32767 // level``, and the negative ones as well; sums on the way may wrap. A word that is too heavy
even by itself is multiplied in 16 bits, its even and its odd bytes apart; where pairs are to saturate, it is a single word, and they do.

Which words go together is free, so hard ones are given light partners. Of weights that spread like those of networks nearly all words
come into bundles of four or three, of uniform ones into bundles of two. Partners lie within `_REACH` words: what a tile reads of A stays near.
The level is the lowest that was enough for most of what has passed; above it, the other tiles are exact.
"""

from typing import NamedTuple

import numpy as np
from numba.core import types

from refquant.kernels.jit import kernel
from refquant.kernels.signature import as_input
from refquant.kernels.tile import rung_named
from refquant.kernels.vector_ir import I16, I32, I64, emitted_function, vector

__all__ = ["LEVELS", "NO_BUNDLES", "SIZES", "BundledColumns", "bundles_of", "bundle_columns"]

LEVELS = (127, 143, 159, 191, 255)
SIZES = (4, 3, 2, 1, 0)
"""Words of a bundle, by kind; 0 stands for the heavy words, which are alone too."""
_REACH, _CLASSES, _HEAVY, _MOST_TABLES = 128, 256, 4, 8
_COSTS, _TILE_COST, _EXACT_COST = np.array([3.0, 2.36, 1.68, 1.0, 1.8]), 4.0, 1.8
"""What a bundle of each kind, a tile, and a word in 16 bits cost, in words by themselves; as measured."""
_HEAVY_ARE_SINGLE = np.eye(5, dtype=np.int64)[[0, 1, 2, 3, 3]]
_NONE8, _NONE32, _NONE64 = as_input(np.empty(0, np.int8)), as_input(np.empty((0, 0), np.int32)), as_input(np.empty((0, 0), np.int64))
NO_BUNDLES = _NONE8, _NONE32, _NONE64, -1, np.zeros(len(LEVELS), np.int64)
"""In place of what `BundledColumns.table` returns, where nothing is bundled."""


@kernel
def _weigh(source, most, lanes):
    """The positive and the negative sums of each lane of some words, and how hard it is to find partners for each: words from hard to easy."""
    count, heads = lanes.shape[0], np.zeros(_CLASSES + 1, np.int64)
    classes, ranked = np.empty(count, np.int64), np.empty(count, np.int64)
    for i in range(count):
        weight = 0
        for j in range(16):
            a, b = np.int64(source[64 * i + 2 * j]), np.int64(source[64 * i + 2 * j + 1])
            above, below = max(a, 0) + max(b, 0), max(-a, 0) + max(-b, 0)
            lanes[i, j], lanes[i, 16 + j] = above, below
            weight += max(0, max(above, below) - 2 * most // 5)
        classes[i] = _CLASSES - 1 - min(_CLASSES - 1, weight // 4)
        heads[classes[i] + 1] += 1
    for c in range(_CLASSES):
        heads[c + 1] += heads[c]
    for i in range(count):
        ranked[heads[classes[i]]] = i
        heads[classes[i]] += 1
    return ranked


def _emit_fits(e, total, lanes, most):
    kind = vector(I16, 32)
    both = e.add(e.load(total, kind), e.load(lanes, kind))
    heavy = e.builder.icmp_signed(">", both, e.splat(e.builder.trunc(most, I16), 32))
    fits = e.equal(e.builder.bitcast(heavy, I32), 0)
    with e.when(fits):
        e.store(both, total)
    return e.builder.zext(fits, I64)


_fits = emitted_function("bundle_fits", types.int64, [types.int64] * 3, _emit_fits)
"""``(total, lanes, most)``: add 32 int16 to others, both given by address, and return 1, if no sum is more than `most`; else 0."""


@kernel
def _join(lanes, ranked, most, follower, kinds):
    """Give each word, from hard to easy, up to three of the next ones with which it fits; `follower` links the words of a bundle."""
    count, total = lanes.shape[0], np.empty(32, np.int16)
    free = np.ones(count, np.bool_)
    for a in range(count):
        seed = ranked[a]
        if not free[seed]:
            continue
        for j in range(32):
            total[j] = 0
        last, size, b = seed, 1, a + 1
        if _fits(total.ctypes.data, lanes.ctypes.data + 64 * seed, most) == 0:
            kinds[seed] = _HEAVY
            continue
        while size < 4 and b < count:
            other = ranked[b]
            b += 1
            if free[other] and _fits(total.ctypes.data, lanes.ctypes.data + 64 * other, most) > 0:
                free[other] = False
                follower[last] = other
                last, size = other, size + 1
        kinds[seed] = 4 - size


@kernel
def _bundle_block(source, most, order, counts):
    """Order the words of 8 columns, which lie 64 bytes apart."""
    n = order.shape[0]
    lanes, follower, kinds = np.empty((_REACH, 32), np.int16), np.empty(_REACH, np.int64), np.empty(_REACH, np.int64)
    listed, of_kind = np.empty(n, np.int64), np.empty(n, np.int64)
    done = 0
    for begin in range(0, n, _REACH):
        count = min(_REACH, n - begin)
        follower[:], kinds[:] = -1, -1
        _join(lanes[:count], _weigh(source[64 * begin :], most, lanes[:count]), most, follower, kinds)
        for i in range(count):
            word = i
            while kinds[i] >= 0 and word >= 0:
                listed[done], of_kind[done] = begin + word, kinds[i]
                word = follower[word]
                done += 1
    done = 0
    for kind in range(5):
        start = done
        for i in range(n):
            if of_kind[i] == kind:
                order[done] = listed[i]
                done += 1
        counts[kind] = (done - start) // max(1, 4 - kind)


@kernel
def _bundle_blocks(data, line16, most, words, order, counts):
    for block in range(order.shape[0]):
        source = data[block // 2 * line16 + block % 2 * 32 :]
        _bundle_block(source, most, order[block], counts[block])
        target = words[block * line16 // 2 :]
        for i in range(order.shape[1]):
            word = order[block, i]
            for j in range(32):
                target[32 * i + j] = source[64 * word + j]


def bundle_columns(data, blocks, words, level):
    """Put packed columns of AVX2 into bundles.

    Parameters
    ----------
    data : ndarray of int8
        As `refquant.kernels.columns.pack_columns` lays them out.
    blocks : int
        Of 16 columns.
    words : int
        Of k, four bytes each, those of all runs.
    level : int
        The highest byte of A for which the bundles are exact.

    Returns
    -------
    words : ndarray of int8
    order, counts : ndarray of int64
        See the top of this file.
    """
    packed = np.empty(blocks * 64 * words, np.int8)
    order, counts = np.empty((2 * blocks, words), np.int64), np.empty((2 * blocks, len(SIZES)), np.int64)
    _bundle_blocks(data, 64 * words, 32767 // level, packed, order, counts)
    return as_input(packed), as_input(order), as_input(counts)


class Bundles(NamedTuple):
    """What `bundle_columns` returns for a level, as one value that threads see whole.

    Attributes
    ----------
    rank, level : int
        Of `LEVELS`, the place and the level; -1 for the level where other tiles are faster.
    words, order, counts : ndarray
    tables : dict
        What `BundledColumns.table` returned, and the runs, by their identity, which nothing else can take while they are kept.
    """

    rank: int
    level: int
    words: np.ndarray
    order: np.ndarray
    counts: np.ndarray
    tables: dict


class BundledColumns:
    """The bundles of one packed matrix, made when it is used for the second time: bundling takes longer than one small product.

    Parameters
    ----------
    data : ndarray of int8
    blocks : int
        Of 16 columns.
    exact : bool
        If not, pairs saturate as on the rung ``pairs256``. None of a bundle can, so that only the heavy words are not multiplied in 16 bits.
    """

    def __init__(self, data, blocks, exact):
        self._data, self._blocks, self._exact, self._used = data, blocks, exact, False
        self._seen = np.zeros(len(LEVELS), np.int64)
        self._made = None

    def expect(self, highest):
        """Take it that blocks of rows with bytes up to `highest` have passed: the next `table` is made for them."""
        self._used = True
        self._seen[int(np.searchsorted(LEVELS, highest))] += 1

    def table(self, runs, length):
        """Return what the loops of a product take for windows of these runs.

        Parameters
        ----------
        runs : ndarray of int64, read-only
            As in `refquant.kernels.left.Left`.
        length : int
            Bytes of a run.

        Returns
        -------
        tuple
            Words, where each begins from a row's start, counts, the level, and where blocks of rows are counted by the level that they need;
            without words, and with the level -1, where others are faster.
        """
        if not self._used:
            self._used = True
            return *NO_BUNDLES[:4], self._seen
        words = runs.size * -(-length // 4)
        made, seen = self._made, self._seen.tolist()
        if made is None or 8 * sum(seen[made.rank + 1 :]) > sum(seen):
            made = self._made = self._make(words)
        if made.level < 0:
            return *NO_BUNDLES[:4], self._seen
        found = made.tables.get(id(runs))
        if found is None:
            begins = runs[made.order * runs.size // words] + 4 * (made.order % (words // runs.size))
            taken = (made.words, as_input(begins.astype(np.int32)), made.counts, made.level) if begins.max() < 2**31 else NO_BUNDLES[:4]
            if len(made.tables) >= _MOST_TABLES:
                made.tables.clear()
            found = made.tables[id(runs)] = (*taken, self._seen), runs
        return found[0]

    def _make(self, words):
        """Bundle for the lowest level that 15 of 16 blocks of rows need at most."""
        enough = np.cumsum(self._seen) * 16 >= self._seen.sum() * 15
        rank = int(np.argmax(enough))
        level, others = LEVELS[rank], words
        packed, order, counts = bundle_columns(self._data, self._blocks, words, level)
        if self._exact:
            limits = self._data[64 * words * self._blocks :].view(np.uint8)
            others *= np.where(limits < level, _EXACT_COST, 1.0).mean()
        else:
            counts = as_input(counts @ _HEAVY_ARE_SINGLE)
        faster = _TILE_COST + (counts @ _COSTS).mean() < others
        return Bundles(rank, level if faster else -1, packed, order, counts, {})


def bundles_of(packed, columns, blocks):
    """Return the `BundledColumns` of packed columns, kept with what they are packed from; None where no tiles take them.

    Parameters
    ----------
    packed : PackedB or PackedConv
    columns : ndarray of int8
        Of which `packed` keeps hold.
    blocks : int
        Of 16 columns.
    """
    rung = rung_named(packed.rung)
    if rung is None or not rung.joins_words:
        return None
    found = packed.bundles.get(id(columns))
    return found or packed.bundles.setdefault(id(columns), BundledColumns(columns, blocks, rung.exact))
