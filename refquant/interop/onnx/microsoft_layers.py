"""Layers of several steps of ONNX Runtime's own domain: QAttention, DynamicQuantizeLSTM, QEmbedLayerNormalization."""

import numpy as np

from refquant import ops
from refquant.core.qtensor import QTensor
from refquant.interop.onnx.call import need
from refquant.interop.onnx.integer_products import tensor_params
from refquant.ops.attention import attention_with_past

__all__ = ["qattention", "dynamic_quantize_lstm", "qembed_layer_normalization"]


def _quantized(call, name, codes, scale, zero_point, axis=None):
    need(call, codes.dtype in (np.uint8, np.int8), f"{name} is {codes.dtype}", "give uint8 or int8")
    need(call, scale is not None, f"the scale of {name} is missing")
    q = tensor_params(call, name, scale, zero_point, codes.dtype, axis=axis)
    need(call, not q.per_channel or len(q.scale) == codes.shape[q.axis], f"{name} {codes.shape} has {np.size(scale)} scales along axis {q.axis}")
    return QTensor(codes, q)


def _key_mask(call, mask, batch, keys):
    """Return a mask of keys or scores: of (B,) ends, or (2 B,) ends and then starts, whatever stands between is kept."""
    if mask is None or mask.ndim in (2, 3):
        return mask
    need(call, mask.ndim == 1 and mask.size in (batch, 2 * batch), f"mask_index has shape {mask.shape} but there are {batch} sequences of {keys} keys")
    at = np.arange(keys)
    kept = at < mask[:batch, None]
    return kept & (at >= mask[batch:, None]) if mask.size > batch else kept


def qattention(call, x, w, bias, x_scale, w_scale, mask=None, x_zero_point=None, w_zero_point=None, past=None):
    """``QAttention``, see `refquant.ops.attention`: float32, and the keys and values of all steps if asked for."""
    if call.get("do_rotary", 0):
        call.refuse("turns its keys (do_rotary=1)", "ONNX Runtime's kernel for the CPU ignores it; apply RotaryEmbedding outside")
    if call.get("past_present_share_buffer", 0):
        call.refuse("shares the buffer of past and present", "set past_present_share_buffer=0")
    need(call, x.ndim == 3 and w.ndim == 2, f"x has shape {x.shape} and w {w.shape}; x must be (B, S, K), w (K, 3 * H)")
    qx, qw = _quantized(call, "x", x, x_scale, x_zero_point), _quantized(call, "w", w, w_scale, w_zero_point, axis=1)
    keys = x.shape[1] + (0 if past is None or past.ndim != 5 else past.shape[3])
    out = attention_with_past(
        qx, qw, bias, call.require("num_heads"), _key_mask(call, mask, x.shape[0], keys), past, causal=bool(call.get("unidirectional", 0)),
        scale=call.get("scale", 0.0), mask_value=call.get("mask_filter_value", -10000.0), numerics=call.profile,
    )  # fmt: skip
    return tuple(out)


_WAYS = {"forward": ("forward",), "reverse": ("reverse",), "bidirectional": ("forward", "reverse")}


def _check_lstm(call, lengths, peepholes, steps):
    """Refuse what `refquant.ops.lstm_dynamic` has not."""
    if peepholes is not None:
        call.refuse("has peepholes (input P)", "leave them out")
    if lengths is not None and (lengths != steps).any():
        call.refuse(f"has sequences of lengths {lengths.tolist()[:8]} among {steps} steps (input sequence_lens)", "run sequences of other lengths apart")
    if call.get("clip", 0.0):
        call.refuse(f"clips its gates (clip={call.get('clip')})", "leave the attribute out")
    if call.get("input_forget", 0):
        call.refuse("couples input and forget gate (input_forget=1)", "set it to 0")
    activations = [name.lower() for name in call.get("activations", ())]
    if activations != ["sigmoid", "tanh", "tanh"] * (len(activations) // 3):
        call.refuse(f"has the activations {call.get('activations')}", "Sigmoid, Tanh, Tanh are described")


def dynamic_quantize_lstm(
    call, x, w, r, bias=None, lengths=None, h=None, c=None, peepholes=None, w_scale=None, w_zero_point=None, r_scale=None, r_zero_point=None
):  # fmt: skip
    """``DynamicQuantizeLSTM``, see `refquant.ops.lstm_dynamic`: all states (T, D, B, H), the last ones and the last cells."""
    ways = _WAYS.get(call.get("direction", "forward"), ())
    need(call, x.ndim == 3 and w.ndim == r.ndim == 3, f"x has shape {x.shape}, w {w.shape}, r {r.shape}; all must have 3 axes")
    need(call, ways and len(w) == len(r) == len(ways), f"direction={call.get('direction')!r} but w has shape {w.shape} and r {r.shape}")
    need(call, call.get("hidden_size", r.shape[1]) == r.shape[1], f"hidden_size={call.get('hidden_size')} but r has shape {r.shape}")
    _check_lstm(call, lengths, peepholes, x.shape[0])

    def one(i, codes, name, scale, zero):
        scale, zero = (v if v is None or v.ndim == 0 or len(v) == 1 else v[i] for v in (scale, zero))
        return _quantized(call, name, codes[i : i + 1], scale, zero, axis=2)

    runs = [
        ops.lstm_dynamic(
            x, one(i, w, "w", w_scale, w_zero_point), one(i, r, "r", r_scale, r_zero_point), *(None if v is None else v[i : i + 1] for v in (bias, h, c)),
            direction=way, numerics=call.profile,
        )
        for i, way in enumerate(ways)
    ]  # fmt: skip
    return tuple(np.concatenate(parts, axis=1 - min(k, 1)) for k, parts in enumerate(zip(*runs)))


def qembed_layer_normalization(
    call, ids, segment_ids, word, position, segment, gamma, beta, mask=None, word_scale=None, position_scale=None, segment_scale=None, gamma_scale=None,
    beta_scale=None, word_zero=None, position_zero=None, segment_zero=None, gamma_zero=None, beta_zero=None,
):  # fmt: skip
    """``QEmbedLayerNormalization``, see `refquant.ops.embed_layer_norm`; the second output counts the ones of a mask."""
    tables = [
        None if codes is None else _quantized(call, name, codes, scale, zero)
        for name, codes, scale, zero in (
            ("word_embedding", word, word_scale, word_zero), ("position_embedding", position, position_scale, position_zero),
            ("segment_embedding", None if segment_ids is None else segment, segment_scale, segment_zero), ("gamma", gamma, gamma_scale, gamma_zero),
            ("beta", beta, beta_scale, beta_zero),
        )
    ]  # fmt: skip
    need(call, segment_ids is None or segment is not None, "has segment_ids but no segment_embedding")
    word, position, segment, gamma, beta = tables
    y = ops.embed_layer_norm(ids, word, position, gamma, beta, segment_ids, segment, epsilon=call.get("epsilon", 1e-12), numerics=call.profile)
    need(call, mask is None or mask.shape == ids.shape, f"mask {None if mask is None else mask.shape} and input_ids {ids.shape} must have one shape")
    ones = np.zeros(len(ids), np.int32) if mask is None else (mask == 1).sum(axis=1, dtype=np.int32)
    return y, ones
