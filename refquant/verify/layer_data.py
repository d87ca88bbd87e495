"""The data of layers of several steps: attention, recurrent layers, embeddings that are added and normalized."""

import numpy as np

from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.verify.draws import draw_codes, draw_scale, draw_weights, draw_zero, pick
from refquant.verify.elementwise_data import dtype_of
from refquant.verify.powers import power_of_two
from refquant.verify.problem import Problem
from refquant.verify.special_data import build_quantize_dynamic

__all__ = ["build_attention", "build_lstm_dynamic", "build_embed_layer_norm"]


def _columns(case, rng, shape, terms, spread):
    """Draw weights with their columns last, whose products have about this spread in real numbers."""
    kind = "uint8" if case.has("uint8") else "int8"
    codes = np.moveaxis(draw_weights(rng, (shape[-1], *shape[:-1]), kind, case.strategy), 0, -1)
    count = shape[-1] if case.has("per_channel") else 1
    scales = power_of_two(rng.uniform(-0.5, 0.5, count)) * spread / (74.0 * np.sqrt(terms))
    zero = int(draw_zero(rng, kind, "neartie")) if case.has("asymmetric") else 128 if kind == "uint8" else 0
    codes = np.ascontiguousarray(codes)
    if not case.has("per_channel"):
        return QTensor(codes, QParams(float(scales[0]), zero, kind))
    return QTensor(codes, QParams(scales, np.full(count, zero), kind, axis=len(shape) - 1))


def build_attention(case, rng):
    """Return the problem of a case of ``attention``."""
    heads, size, k = case["g"], case["o"], case["c"]
    zero, scale = draw_zero(rng, "uint8", case.strategy), draw_scale(rng)
    x = QTensor(draw_codes(rng, (case["n"], case["t"], k), "uint8", zero, case.strategy), QParams(scale, zero, "uint8"))
    w = _columns(case, rng, (k, 3 * heads * size), k, float(power_of_two(rng.uniform(-1, 3))) / (74.0 * scale))
    bias = rng.normal(0, 1, 3 * heads * size).astype(np.float32)
    mask = None
    if case.has("masked"):
        mask = (rng.random((case["n"], case["t"])) < 0.7).astype(np.int32)
    return Problem("attention", {"x": x, "w": w, "bias": bias, "num_heads": heads, "mask": mask, "causal": case.has("causal")})


def build_lstm_dynamic(case, rng):
    """Return the problem of a case of ``lstm_dynamic``: an input whose codes lie on ties, gates from dull to saturated, states to begin with or none."""
    steps, batch, k, size = case["t"], case["n"], case["c"], case["o"]
    direction = "reverse" if case.has("reverse") else "bidirectional" if case.has("bidirectional") else "forward"
    ways = 2 if direction == "bidirectional" else 1
    drawn = case.replace(op="quantize_dynamic", shape=(("n", steps), ("c", batch), ("h", k)), options=())
    x = build_quantize_dynamic(drawn, rng)["x"]
    most = max(float(np.abs(x).max()), 1e-30)
    wide = float(power_of_two(rng.uniform(-1, 3)))
    w = _columns(case, rng, (ways, k, 4 * size), k, wide / most)
    r = _columns(case, rng, (ways, size, 4 * size), size, wide)
    arguments = {"x": x, "w": w, "r": r, "bias": None if case.has("nobias") else rng.normal(0, 1, (ways, 8 * size)).astype(np.float32)}
    if rng.random() < 0.5:
        arguments.update(h=rng.uniform(-1, 1, (ways, batch, size)).astype(np.float32), c=rng.normal(0, 2, (ways, batch, size)).astype(np.float32))
    return Problem("lstm_dynamic", {**arguments, "direction": direction})


def build_embed_layer_norm(case, rng):
    """Return the problem of a case of ``embed_layer_norm``."""
    dtype, width, words = dtype_of(case), case["c"], int(rng.integers(1, 40))

    def table(*shape):
        zero = draw_zero(rng, dtype, case.strategy)
        return QTensor(draw_codes(rng, shape, dtype, zero, case.strategy), QParams(draw_scale(rng), zero, dtype))

    shape = (case["n"], case["t"])
    arguments = {"input_ids": rng.integers(0, words, shape), "word": table(words, width), "position": table(case["t"] + int(rng.integers(3)), width)}
    arguments.update(gamma=table(width), beta=table(width), epsilon=float(np.float32(pick(rng, (1e-12, 1e-5, 1e-3)))))
    if not case.has("alone"):
        arguments.update(segment_ids=rng.integers(0, 2, shape), segment=table(2, width))
    return Problem("embed_layer_norm", arguments)
