"""Two and three faults at once, each on data that show it."""

import numpy as np

from refquant.verify.planted.fault import add, fbgemm, flattened_nhwc, halved, joined, mul, neighbour, nhwc_as_nchw, ohwi, ort, pool, quant, several
from refquant.verify.planted.lines import ADD, CAT, CONV, DW, DWN, FINE, LIN, LINF, MUL, PAIRS, PER, POOL, QUA, RELU

__all__ = ["PAIRED", "TRIPLES"]

TRANSPOSED, FLIPPED = {"w": lambda w: w.reshape(w.shape[1], -1).T}, {"w": lambda w: w[:, :, ::-1, ::-1]}
AWAY, UP, CUT, DOWN, BEFORE = ({"rounding": "away"}, {"rounding": "up"}, {"rounding": "truncate"}, {"rounding": "floor"}, {"zero": "before"})
NO_BIAS, TWICE, IN_PAIRS, PAD_0, WRAPS = {"bias": None}, {"bias": lambda b: 2 * b}, {"acc": {"how": "pairs"}}, {"pad": 0}, {"limits": "wrap"}
SWAPPED = {"sides": lambda s: [(s[0][0], s[1][1]), (s[1][0], s[0][1])]}
B_PLAIN = {"sides": lambda s: [s[0], (s[1][0], (s[1][1][0], 0))]}
SATURATED = LIN.replace("neartie", "saturate")
T, B0, RA = "weights_transposed", "bias_missing", "rounding[half_away]"

PAIRED = (
    several("bias missing + half away", LIN, "onnxruntime", ort, (NO_BIAS, AWAY), (B0, RA)),
    several("transposed + zero point before", LIN, "onnxruntime", ort, (TRANSPOSED, BEFORE), (T, "zero_point[before]")),
    several("NHWC flattening + truncation", LIN, "onnxruntime", ort, ({"x": flattened_nhwc(8)}, CUT), ("channels_regrouped", "rounding[truncate]")),
    several("neighbour's scale + bias twice", LIN, "onnxruntime", ort, ({"sw": neighbour(1)}, TWICE), ("neighbours_scale", "bias_changed")),
    several("int16 pairs + bias missing", PAIRS, "onnxruntime", ort, (IN_PAIRS, NO_BIAS), ("int16_pairs", B0)),
    several("tail of 16 + half up", LIN.replace("k48", "k57"), "onnxruntime", ort, ({"acc": {"drop": 16}}, UP), ("tail_of_k", "rounding[half_up]")),
    several("stale zero point + truncation", LIN, "onnxruntime", ort, ({"zy": lambda z: z + 9}, CUT), ("other_output_zero_point", "rounding[truncate]")),
    several("stale scale + bias missing", LIN, "onnxruntime", ort, ({"sy": lambda s: s * 1.21}, NO_BIAS), ("other_", B0)),
    several("weights halved + neighbour's bias", LIN, "onnxruntime", ort, ({"w": halved}, {"bias": neighbour(1)}), ("weights_halved", "neighbours_bias")),
    several("zero point ignored + output wraps", SATURATED, "onnxruntime", ort, ({"acc": {"compensate_x": 0}}, WRAPS), ("", "output_wraps")),
    several("weights clipped + half away", FINE.replace("neartie", "saturate"), "onnxruntime", ort, ({"w": lambda w: np.maximum(w, -127)}, AWAY), ("weights_clipped", RA)),
    several("ReLU missing + floor", RELU, "onnxruntime", ort, ({"relu": None}, DOWN), ("relu_missing", "rounding[floor]")),
    several("padding with 0 + truncation", CONV, "onnxruntime", ort, (PAD_0, CUT), ("padding_code", "rounding[truncate]")),
    several("kernel flipped + bias missing", CONV, "onnxruntime", ort, (FLIPPED, NO_BIAS), ("kernel_flipped", B0)),
    several("OHWI + neighbour's scale", CONV, "onnxruntime", ort, ({"w": ohwi}, {"sw": neighbour(-1)}), ("weights_read_as", "neighbours_scale")),
    several("NHWC input + zero point before", CONV, "onnxruntime", ort, ({"x": nhwc_as_nchw}, BEFORE), ("input_order", "zero_point[before]")),
    several("depthwise taps + padding with 0", DW, "onnxruntime", ort, (PAD_0, IN_PAIRS), ("", "padding_code")),
    several("neighbour's bias as float + half away", LINF, "fbgemm", fbgemm, ({"rounding": "away"}, {"bias": neighbour(1)}), (RA, "neighbours_bias")),
    several("add: swapped + half away", ADD, "onnx", add, (SWAPPED, AWAY), ("swapped_parameters", RA)),
    several("add: wraps + zero point before", ADD, "onnx", add, (WRAPS, BEFORE), ("output_wraps", "zero_point[before]")),
    several("quantize: reciprocal + zero point before", QUA, "onnx", quant, ({"divide": False}, BEFORE), ("scaling[reciprocal", "zero_point[before]")),
    several("quantize: neighbour's scale + truncation", PER, "onnx", quant, ({"s": neighbour(1)}, CUT), ("neighbours_scale", "rounding[truncate]")),
    several("pool: padding counted + floor", POOL + "/nopad", "onnx", pool, ({"counted": True}, DOWN), ("padding_counted", "rounding[floor]")),
    several("cat: first parameters + half away", CAT, "onnx", joined, ({"change": lambda qs: [qs[0]] * len(qs)}, AWAY), ("cat_parameters", RA)),
    several("mul: half away + b's zero point ignored", MUL, "onnxruntime", mul, (AWAY, B_PLAIN), (RA, "zero_point_ignored")),
    several("mul: wraps + ReLU missing", MUL.replace("neartie", "saturate") + "/relu", "onnxruntime", mul, (WRAPS, {"relu": None}), ("output_wraps", "relu_missing")),
    several("depthwise first scale + truncation", DWN, "onnxruntime", ort, ({"sw": lambda s: s * 0 + s[0]}, CUT), ("per_tensor_scale", "rounding[truncate]")),
    several("depthwise neighbour's weights + bias twice", DWN, "onnxruntime", ort, ({"w": lambda w: np.roll(w, 1, 0)}, TWICE), ("neighbours_weights", "bias_changed")),
    several("reciprocals + half up", FINE, "onnxruntime", ort, ({"order": "(xw)*(1/y)"}, UP), ("multiplier[(xw)*(1/y)]", "rounding[half_up]")),
)  # fmt: skip

TRIPLES = (
    several("transposed + bias missing + half away", LIN, "onnxruntime", ort, (TRANSPOSED, NO_BIAS, AWAY), (T, B0, RA)),
    several("padding 0 + neighbour's scale + truncation", CONV, "onnxruntime", ort, (PAD_0, {"sw": neighbour(1)}, CUT), ("padding_code", "neighbours_scale", "rounding[truncate]")),
    several("flipped + bias twice + zero point before", CONV, "onnxruntime", ort, (FLIPPED, TWICE, BEFORE), ("kernel_flipped", "bias_changed", "zero_point[before]")),
    several("swapped + half up + wraps", ADD, "onnx", add, (SWAPPED, UP, WRAPS), ("swapped_parameters", "rounding[half_up]", "output_wraps")),
    several("halved + neighbour's bias + clamp", LIN, "onnxruntime", ort, ({"w": halved}, {"bias": neighbour(1)}, {"clamp": (0, 127)}), ("weights_halved", "neighbours_bias", "narrow_range")),
    several("NHWC flattening + bias twice + zero point before", LIN, "onnxruntime", ort, ({"x": flattened_nhwc(12)}, TWICE, BEFORE), ("channels_regrouped", "bias_changed", "zero_point[before]")),
    several("NHWC input + first scale + half away", CONV, "onnxruntime", ort, ({"x": nhwc_as_nchw}, {"sw": lambda s: s * 0 + s[0]}, AWAY), ("input_order", "per_tensor_scale", RA)),
    several("depthwise padding 0 + neighbour's scale + floor", DWN, "onnxruntime", ort, (PAD_0, {"sw": neighbour(1)}, DOWN), ("padding_code", "neighbours_scale", "rounding[floor]")),
    several("mul: b's zero point ignored + half away + wraps", MUL, "onnxruntime", mul, (B_PLAIN, AWAY, WRAPS), ("zero_point_ignored", RA, "output_wraps")),
    several("quantize: neighbour's scale + half away + wraps", PER.replace("edges", "random"), "onnx", quant, ({"s": neighbour(1)}, AWAY, WRAPS), ("neighbours_scale", RA, "output_wraps")),
)  # fmt: skip
