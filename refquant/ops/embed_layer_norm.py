"""embed_layer_norm: rows of quantized tables, added and normalized."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.arguments import as_array, as_real
from refquant.errors import ArgumentError, RangeError, ShapeError
from refquant.ops.arguments import check_eight_bit, check_qtensor
from refquant.ops.dequantize import dequantize

__all__ = ["embed_layer_norm"]

_F = np.float32


def _table(q, name, ndim, place):
    check_eight_bit(check_qtensor(q, name, place), name, place)
    if q.ndim != ndim or not q.size:
        raise ShapeError(f"{place}: {name} has shape {q.shape} but must have {ndim} dimensions and not be empty")
    return q


def _rows(ids, name, rows, shape, place):
    ids = as_array(ids, name, place)
    if ids.dtype.kind not in "iu" or ids.ndim != 2 or (shape and ids.shape != shape):
        raise ArgumentError(f"{place}: {name} is {ids.dtype} {ids.shape} but must be integers of shape {shape or '(B, S)'}")
    if ids.size and not 0 <= ids.min() <= ids.max() < rows:
        raise RangeError(f"{place}: {name} has rows {ids.min()} … {ids.max()} but the table has {rows}")
    return ids


def embed_layer_norm(input_ids, word, position, gamma, beta, segment_ids=None, segment=None, *, epsilon=1e-12, numerics="onnxruntime"):
    """Look rows up in quantized tables, add them and normalize each sum: ``QEmbedLayerNormalization``.

    ``v = word[id] + position[s] + segment[sid]``; ``y = (v − mean) / √(mean of (v − mean)² + ε) · gamma + beta``, in float32.

    Parameters
    ----------
    input_ids : array_like of int, (B, S)
    word : QTensor, (words, H)
        All tables uint8, or all int8; per tensor.
    position : QTensor, (positions, H)
        At least S rows.
    gamma, beta : QTensor, (H,)
    segment_ids : array_like of int, (B, S), optional
    segment : QTensor, (segments, H), optional
        Both or none of the two.
    epsilon : float
    numerics : str or Numerics

    Returns
    -------
    ndarray of float32, (B, S, H)

    Raises
    ------
    ArgumentError, RangeError, ShapeError
        What does not fit; a row that is not there.
    UnsupportedError
        The engine has no such operator.

    Exactness
    ---------
    Bit-exact: every step rounded to float32, both sums in order.

    Source
    ------
    ONNX Runtime 1.32, contrib_ops/cpu/quantization/qembed_layer_norm.cc.

    Examples
    --------
    >>> import refquant as rq
    >>> qp = rq.QParams(0.5, 0, "uint8")
    >>> table, one, none = (rq.QTensor(np.array(v, np.uint8), qp) for v in ([[1, 3], [5, 1]], [2, 2], [0, 0]))
    >>> embed_layer_norm([[1, 0]], table, table, one, none).tolist()
    [[[1.0, -1.0], [1.0, -1.0]]]
    """
    profile = profiles.get(numerics)
    place = f"embed_layer_norm[{profile.name}]"
    if (segment_ids is None) != (segment is None):
        raise ArgumentError(f"{place}: segment_ids and segment go together; give both or none")
    tables = {"word": _table(word, "word", 2, place), "position": _table(position, "position", 2, place)}
    vectors = {"gamma": _table(gamma, "gamma", 1, place), "beta": _table(beta, "beta", 1, place)}
    if segment is not None:
        tables["segment"] = _table(segment, "segment", 2, place)
    everything = {**tables, **vectors}
    if len({q.shape[-1] for q in everything.values()}) > 1 or len({q.dtype for q in everything.values()}) > 1:
        raise ShapeError(f"{place}: {', '.join(f'{name} {q.dtype} {q.shape}' for name, q in everything.items())}; all must have one dtype and one width")
    ids = _rows(input_ids, "input_ids", len(word.values), None, place)
    if ids.shape[1] > len(position.values):
        raise ShapeError(f"{place}: input_ids has {ids.shape[1]} positions but position has {len(position.values)} rows")
    profile.check_offered("embed_layer_norm")
    epsilon = as_real(epsilon, "epsilon", place)
    real = {name: dequantize(q, numerics=profile) for name, q in everything.items()}
    v = real["word"][ids] + real["position"][None, : ids.shape[1]]
    if segment is not None:
        v = v + real["segment"][_rows(segment_ids, "segment_ids", len(segment.values), ids.shape, place)]
    return _normalized(v, real["gamma"], real["beta"], epsilon)


def _in_order(v):
    return np.add.accumulate(v, axis=-1, dtype=_F)[..., -1:] / _F(v.shape[-1])


def _normalized(v, gamma, beta, epsilon):
    centred = v - _in_order(v)
    return centred / np.sqrt(_in_order(centred * centred) + _F(epsilon)) * gamma + beta
