"""ONNX Runtime's layers of several steps as small ONNX models. Imports onnx when imported."""

import numpy as np

from refquant.backends.model_builder import ModelBuilder

__all__ = ["LAYER_MODELS"]

_MICROSOFT = "com.microsoft"


def _attention(problem):
    g, x, w, mask = ModelBuilder(), problem["x"], problem["w"], problem.get("mask")
    (sx, zx), (sw, zw) = g.parameters("x", x.qparams), g.parameters("w", w.qparams)
    masked = "" if mask is None else g.feed("mask", np.asarray(mask, np.int32))
    inputs = [g.feed("x", x.values), g.constant("w", w.values), g.constant("bias", np.asarray(problem["bias"], np.float32)), sx, sw, masked, zx, zw]
    g.node("QAttention", inputs, domain=_MICROSOFT, num_heads=problem["num_heads"], unidirectional=int(problem.get("causal", False)))
    return g.model(np.float32)


def _lstm_dynamic(problem):
    g, x, w, r = ModelBuilder(), np.asarray(problem["x"], np.float32), problem["w"], problem["r"]
    ways, size = r.shape[:2]
    inputs = [g.feed("x", x), g.constant("w", w.values), g.constant("r", r.values)]
    bias = problem.get("bias")
    inputs += ["" if bias is None else g.constant("bias", np.asarray(bias, np.float32)), ""]
    inputs += ["" if problem.get(name) is None else g.feed(name, np.asarray(problem[name], np.float32)) for name in "hc"]
    inputs.append("")
    for name, q in (("w", w), ("r", r)):
        shape = (ways, 4 * size) if q.qparams.per_channel else (ways,)
        inputs.append(g.constant(f"{name}_scale", np.broadcast_to(np.asarray(q.qparams.scale, np.float32), shape)))
        inputs.append(g.constant(f"{name}_zero", np.broadcast_to(np.asarray(q.qparams.zero_point).astype(q.values.dtype), shape)))
    outputs = ["states", "last_h", "last_c"]
    g.nodes.append(g.make("DynamicQuantizeLSTM", inputs, outputs, domain=_MICROSOFT, hidden_size=size, direction=problem.get("direction", "forward")))
    flat = g.constant("flat", np.array([-1], np.int64))
    g.node("Concat", [g.node("Reshape", [name, flat], f"{name}_flat") for name in outputs], axis=0)
    return g.model(np.float32)


def _embed_layer_norm(problem):
    g, names = ModelBuilder(), ("word", "position", "segment", "gamma", "beta")
    ids = [g.feed(name, np.asarray(problem[name], np.int32)) if problem.get(name) is not None else "" for name in ("input_ids", "segment_ids")]
    tables = {name: problem.get(name) for name in names}
    codes = [g.constant(name, q.values) if q is not None else "" for name, q in tables.items()]
    parameters = [g.parameters(name, q.qparams) if q is not None else ["", ""] for name, q in tables.items()]
    inputs = [*ids, *codes, "", *(scale for scale, _ in parameters), *(zero for _, zero in parameters)]
    g.nodes.append(g.make("QEmbedLayerNormalization", inputs, ["y", "mask_index"], domain=_MICROSOFT, epsilon=float(problem.get("epsilon", 1e-12))))
    return g.model(np.float32)


#: Each layer's model, as a function of a problem.
LAYER_MODELS = {"attention": _attention, "lstm_dynamic": _lstm_dynamic, "embed_layer_norm": _embed_layer_norm}
