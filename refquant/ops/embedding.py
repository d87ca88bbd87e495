"""quantize_embedding, embedding_bag: tables of rows that have a scale and a bias of their own, and sums of such rows."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.arguments import as_array, as_integers, as_reals
from refquant.core.embedding import QuantizedEmbedding, pack_embedding
from refquant.core.fma import fma32
from refquant.core.rounding import Round, round_real
from refquant.errors import ArgumentError, RangeError, ShapeError, choose

__all__ = ["QuantizedEmbedding", "quantize_embedding", "pack_embedding", "embedding_bag"]

_F = np.float32
_BITS = (2, 4, 8)
_EPSILON = _F(1e-8)


def quantize_embedding(weight, bits=8):
    """Quantize each row by its own range, as FBGEMM does.

    8 bits: ``scale = f((max − min) / 255)``, ``bias = min``, ``code = round((w − min) · f(255 / f(f(max − min) + 1e-8)))``.
    4 and 2 bits: ``bias = f16(min)``, ``scale = f16(f(max − bias) / (2ⁿ − 1))``, ``code = clip(round((w − bias) · f(1 / scale)))``.

    Parameters
    ----------
    weight : array_like of float32, (R, D)
        Finite.
    bits : {8, 4, 2}

    Returns
    -------
    QuantizedEmbedding

    Exactness
    ---------
    Bit-exact, scales and biases included.

    Source
    ------
    PyTorch 2.13 ``quantized::embedding_bag_byte_prepack``, ``…_4bit_prepack``, ``…_2bit_prepack``; FBGEMM ``src/QuantUtils.cc``.

    Examples
    --------
    >>> q = quantize_embedding(np.float32([[0.0, 1.0, 2.0, 3.0]]), 4)
    >>> q.codes, q.scale, q.bias
    (array([[ 0,  5, 10, 15]], dtype=uint8), array([0.19995117], dtype=float32), array([0.], dtype=float32))
    """
    place = "quantize_embedding"
    choose(place, "bits", bits, _BITS)
    weight = as_reals(weight, "weight", place)
    if weight.ndim != 2 or not weight.shape[1]:
        raise ShapeError(f"{place}: weight has shape {weight.shape} but must be (rows, columns) with columns")
    if bits < 8 and weight.shape[1] % (8 // bits):
        raise ShapeError(f"{place}: weight has {weight.shape[1]} columns but {bits}-bit codes need a multiple of {8 // bits}; pad the rows")
    if not np.isfinite(weight).all():
        raise RangeError(f"{place}: weight holds NaN or infinities; its rows must be finite")
    low, high = weight.min(1), weight.max(1)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        if bits == 8:
            scale, bias = (high - low) / _F(255), low
            inverse = _F(255) / ((high - low) + _EPSILON)
        else:
            scale, bias, inverse = _half_parameters(low, high, (1 << bits) - 1)
        codes = round_real((weight - bias[:, None]) * inverse[:, None], Round.HALF_EVEN)
    return QuantizedEmbedding(np.clip(codes, 0, (1 << bits) - 1).astype(np.uint8), scale, bias, bits)


def _half_parameters(low, high, top):
    bias = low.astype(np.float16).astype(_F)
    width = high - bias
    scale = np.where(width == 0, _F(1), width / _F(top)).astype(np.float16).astype(_F)
    scale = np.where(scale == 0, _F(1), scale)
    inverse = _F(1) / scale
    wild = np.isinf(inverse)
    return np.where(wild, _F(1), scale), bias, np.where(wild, _F(1), inverse)


def embedding_bag(table, indices, offsets=None, *, per_sample_weights=None, include_last_offset=False, numerics="fbgemm"):
    """Add rows of a quantized table, one sum a bag: ``Σ weight · (scale · code + bias)``.

    Parameters
    ----------
    table : QuantizedEmbedding
    indices : array_like of int, (L,)
        Rows.
    offsets : array_like of int, (B,), optional
        Where each bag starts; None makes each index a bag (``quantized::embedding_byte``, ``…_4bit``).
    per_sample_weights : array_like of float32, (L,), optional
    include_last_offset : bool
        The last offset is the end of the last bag.
    numerics : str or Numerics

    Returns
    -------
    ndarray of float32, (bags, D)
        Empty bags are 0.

    Raises
    ------
    RangeError
        An index that is no row; offsets that are no increasing positions.

    Exactness
    ---------
    Bit-exact: rows are added one after another in float32, ``acc = fma(f(weight · scale), code, f(acc + f(weight · bias)))``.

    Source
    ------
    PyTorch 2.13 ATen/native/quantized/cpu/qembeddingbag.cpp; FBGEMM ``src/EmbeddingSpMDM.cc``, ``src/EmbeddingSpMDMNBit.cc``.

    Examples
    --------
    >>> table = quantize_embedding(np.float32([[0.0, 1.0], [2.0, 4.0]]))
    >>> embedding_bag(table, [0, 1, 1], [0, 2])
    array([[2., 5.],
           [2., 4.]], dtype=float32)
    """
    profile = profiles.get(numerics)
    place = f"embedding_bag[{profile.name}]"
    form = profile.section("embedding", "embedding_bag")
    if not isinstance(table, tuple) or len(table) != len(QuantizedEmbedding._fields):
        raise ArgumentError(f"{place}: table must be a QuantizedEmbedding, not {type(table).__name__}; make it with quantize_embedding")
    table = _checked_table(QuantizedEmbedding(*table), place)
    indices, bounds = _bags(table, indices, offsets, include_last_offset, place)
    scale, bias = table.scale[indices], table.bias[indices]
    if per_sample_weights is not None:
        weights = as_reals(per_sample_weights, "per_sample_weights", place)
        if weights.shape != indices.shape:
            raise ShapeError(f"{place}: per_sample_weights has shape {weights.shape} but indices {indices.shape}; give one for each")
        scale, bias = weights * scale, weights * bias
    y = np.zeros((len(bounds) - 1, table.codes.shape[1]), _F)
    start, length = bounds[:-1], np.diff(bounds)
    for step in range(int(length.max(initial=0))):
        bags = np.flatnonzero(length > step)
        at = start[bags] + step
        codes, s, b = table.codes[indices[at]].astype(_F), scale[at][:, None], bias[at][:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            y[bags] = fma32(s, codes, y[bags] + b) if form.order == "bias_first" else y[bags] + fma32(s, codes, b)
    return y


def _checked_table(table, place):
    codes, scale, bias = as_array(table.codes, "table.codes", place), as_reals(table.scale, "table.scale", place), as_reals(table.bias, "table.bias", place)
    choose(place, "table.bits", table.bits, _BITS)
    if codes.dtype != np.uint8 or codes.ndim != 2 or not scale.shape == bias.shape == codes.shape[:1]:
        shapes = f"codes {codes.dtype} {codes.shape}, scale {scale.shape}, bias {bias.shape}"
        raise ShapeError(f"{place}: table has {shapes}; codes must be uint8 (rows, columns), and each row must have a scale and a bias; make it with quantize_embedding")
    return QuantizedEmbedding(codes, scale, bias, table.bits)


def _bags(table, indices, offsets, include_last_offset, place):
    indices = as_array(indices, "indices", place)
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise ShapeError(f"{place}: indices are {indices.dtype} {indices.shape} but must be a vector of integers")
    indices = indices.astype(np.int64)
    rows = table.codes.shape[0]
    bad = np.flatnonzero((indices < 0) | (indices >= rows))
    if bad.size:
        raise RangeError(f"{place}: indices[{bad[0]}]={indices[bad[0]]} but the table has {rows} rows; choose 0 … {rows - 1}")
    if offsets is None:
        return indices, np.arange(indices.size + 1)
    bounds = as_integers(offsets, "offsets", place)
    if bounds.ndim != 1:
        raise ShapeError(f"{place}: offsets have shape {bounds.shape} but must be a vector, one a bag; flatten them")
    if not include_last_offset:
        bounds = np.append(bounds, indices.size)
    if not bounds.size or bounds[0] != 0 or bounds[-1] != indices.size or (np.diff(bounds) < 0).any():
        raise RangeError(f"{place}: offsets {bounds.tolist()[:8]} must begin with 0, never fall, and end at {indices.size}, the number of indices")
    return indices, bounds
