"""Shapes drawn at random: strides beyond the kernel, padding beyond half of it, two channels a group, or 70,001 elements."""

import math
from zlib import crc32

import numpy as np

from refquant.errors import ArgumentError
from refquant.verify.case import FIELDS
from refquant.verify.case_outputs import elements_of, windows_of
from refquant.verify.draws import pick

__all__ = ["drawn_case"]

# One, primes, and lengths around whole steps of vectors and tiles.
_LENGTHS = (1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 23, 24, 25, 31, 32, 33, 48, 63, 64, 65, 96, 100, 127, 128, 129, 192, 255, 256, 257, 511, 512, 513)
_LONG = (1023, 1024, 1025, 2047, 4096, 4097, 5000, 8193, 16385)
_SIDES = (1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 11, 12, 14, 15, 16, 17, 19, 21, 28, 33)
_KERNELS = (1, 1, 2, 2, 3, 3, 3, 4, 5, 5, 6, 7, 8, 9, 11)
_FEW = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17)
_MOST_ELEMENTS, _MOST_PRODUCTS = 200_000, 20_000_000
_TRIES = 1000
# Operators that need a second axis.
_BY_CHANNEL = ("prelu", "batch_norm", "softmax")


def _pick(rng, pool, most=math.inf):
    return pick(rng, [n for n in pool if n <= most])


def _each(rng, pool, dims, most=math.inf):
    """Draw one number for all sides, or one a side."""
    if rng.random() < 0.5:
        return (_pick(rng, pool, most),) * dims
    return tuple(_pick(rng, pool, most) for _ in range(dims))


def _side(values):
    return values[0] if len(set(values)) == 1 else tuple(values)


def _groups(rng, dims):
    """Draw (channels, output channels, groups): depthwise with 1 to 3 outputs a channel, groups of any width, or none."""
    kind = rng.random()
    if kind < 0.35:
        g = _pick(rng, _LENGTHS, 300)
        return g, g * _pick(rng, (1, 1, 1, 1, 2, 3)), g
    if kind < 0.6:
        g = _pick(rng, (2, 2, 3, 4, 5, 6, 8, 16, 32, 101))
        return g * _pick(rng, _FEW), g * _pick(rng, _FEW), g
    return _pick(rng, _LENGTHS, 64 if dims > 2 else 513), _pick(rng, _LENGTHS, 300), 1


def _convolution(rng, op, dims):
    c, oc, g = _groups(rng, dims)
    sides = _each(rng, _SIDES, dims, {1: 99, 2: 40, 3: 9}[dims])
    if dims == 1 and rng.random() < 0.1:
        sides = (_pick(rng, _LONG),)
    kernel, stride = _each(rng, _KERNELS, dims, 11 if dims < 3 else 5), _each(rng, (1, 1, 1, 2, 2, 3, 4, 5, 7), dims)
    padding, dilation = _each(rng, (0, 0, 0, 1, 1, 2, 3, 4, 6), dims), _each(rng, (1, 1, 1, 1, 2, 3, 4), dims)
    shape = {"n": _pick(rng, (1, 1, 1, 2, 3, 5)), "c": c, **dict(zip("thw"[3 - dims :], sides)), "oc": oc, "k": _side(kernel), "s": _side(stride), "p": _side(padding), "d": _side(dilation), "g": g}
    if "transpose" in op:
        shape["op"] = _side([int(rng.integers(max(s, d))) if rng.random() < 0.4 else 0 for s, d in zip(stride, dilation)])
    return shape


def _product(rng, op):
    shape = {letter: _pick(rng, _LENGTHS) for letter in "mkn"}
    if rng.random() < 0.25:
        shape["k"] = _pick(rng, _LONG)
    if op == "matmul":
        stack = ((), (), (1,), (2,), (7,), (2, 3), (3, 1, 2))[int(rng.integers(7))]
        shape = {**shape, "m": min(shape["m"], 64), "n": min(shape["n"], 64), **({"b": _side(stack) if len(stack) == 1 else stack} if stack else {})}
    return shape


def _elements(rng, op):
    kinds = ["nc", *["nchw"] * 3, *(["ncthw"] if "t" in FIELDS[op][1] else []), *([] if op in _BY_CHANNEL else ["n"])]
    axes = pick(rng, kinds)
    if axes == "n" and rng.random() < 0.3:
        return {"n": _pick(rng, (70_001, 131_073, 196_613))}
    return {axis: _pick(rng, _LENGTHS, 5 if axis == "n" and len(axes) > 2 else 33 if axis in "thw" else 513) for axis in axes}


def _draw(rng, op):
    dims = next((int(c) for c in op if c.isdigit()), 2)
    if op.startswith("conv"):
        return _convolution(rng, op, dims)
    if op in ("linear", "linear_dynamic", "gemm", "matmul_integer", "matmul"):
        return _product(rng, op)
    if op == "cat":
        counts = tuple(_pick(rng, _LENGTHS, 70) for _ in range(int(rng.integers(1, 6))))
        return {"n": _pick(rng, _LENGTHS, 9), "c": _side(counts) if len(counts) == 1 else counts, **({"h": _pick(rng, _SIDES), "w": _pick(rng, _SIDES)} if rng.random() < 0.8 else {})}
    if op == "interpolate":
        return {"n": _pick(rng, _FEW), "c": _pick(rng, _LENGTHS, 100), "h": _pick(rng, _SIDES), "w": _pick(rng, _SIDES), "o": tuple(_pick(rng, _LENGTHS, 65) for _ in "hw")}
    if op in _OWN:
        return _OWN[op](rng)
    return _elements(rng, op)


def _mean(rng):
    shape = {"n": _pick(rng, _LENGTHS, 65), "c": _pick(rng, _LENGTHS, 100), **({"h": _pick(rng, _SIDES), "w": _pick(rng, _SIDES)} if rng.random() < 0.7 else {})}
    return {**shape, "r": int(rng.integers(1, len(shape) + 1))}


def _channels(rng, groups):
    g = _pick(rng, _FEW) if groups else 1
    shape = {"n": _pick(rng, _FEW, 5), "c": g * _pick(rng, _FEW), **({"h": _pick(rng, _SIDES)} if rng.random() < 0.8 else {}), "w": _pick(rng, _SIDES)}
    return {**shape, "g": g} if groups else shape


_OWN = {
    "attention": lambda rng: {"n": _pick(rng, _FEW, 5), "t": _pick(rng, _LENGTHS, 65), "c": _pick(rng, _LENGTHS, 130), "g": _pick(rng, _FEW, 9), "o": _pick(rng, _LENGTHS, 65)},
    "lstm_dynamic": lambda rng: {"t": _pick(rng, _FEW), "n": _pick(rng, _FEW), "c": _pick(rng, _LENGTHS, 100), "o": _pick(rng, _LENGTHS, 65)},
    "embed_layer_norm": lambda rng: {"n": _pick(rng, _FEW, 5), "t": _pick(rng, _LENGTHS, 33), "c": _pick(rng, _LENGTHS)},
    "layer_norm": lambda rng: {"m": _pick(rng, _LENGTHS, 100), "n": _pick(rng, (*_LENGTHS, 1000, 2049, 4097))},
    "group_norm": lambda rng: _channels(rng, True),
    "instance_norm": lambda rng: _channels(rng, False),
    "quantize_embedding": lambda rng: {"m": _pick(rng, _LENGTHS, 300), "n": 4 * _pick(rng, _LENGTHS, 130)},
    "embedding_bag": lambda rng: {"m": _pick(rng, _LENGTHS, 300), "n": 4 * _pick(rng, _LENGTHS, 130), "b": _pick(rng, _LENGTHS, 100), "l": _pick(rng, _LENGTHS, 300)},
    "mean": _mean,
}


def _is_small(case):
    s = dict(case.shape)
    if not 0 < case.outputs <= _MOST_ELEMENTS or elements_of(case) > 4 * _MOST_ELEMENTS:
        return False
    if "oc" in s:
        kernel = s["k"] if isinstance(s["k"], tuple) else (s["k"],) * sum(bool(s.get(letter)) for letter in "thw")
        return min(windows_of(case)) > 0 and case.outputs * s["c"] // s["g"] * math.prod(kernel) <= _MOST_PRODUCTS
    return case.outputs * s.get("k", 1) <= _MOST_PRODUCTS


def drawn_case(case):
    """Return a case with another shape, drawn at random: operator and seed decide it; it has outputs, and few enough products to be computed in no time.

    Parameters
    ----------
    case : Case

    Returns
    -------
    Case

    Examples
    --------
    >>> from refquant.verify.case import Case
    >>> print(drawn_case(Case.parse("conv2d/any/n1c1h2w2-oc1k1/random/seed=5")))
    conv2d/any/n5c2h7w8-oc32k11x3s1x2p4d1x3g2/random/seed=5
    """
    rng = np.random.Generator(np.random.PCG64([case.seed, crc32(case.op.encode())]))
    for _ in range(_TRIES):
        try:
            drawn = case.replace(shape=tuple(_draw(rng, case.op).items()), strategy="random" if case.strategy == "wrap" else case.strategy)
        except ArgumentError:
            continue
        if _is_small(drawn):
            return drawn
    return case
