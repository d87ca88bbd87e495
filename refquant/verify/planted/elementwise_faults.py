"""Faults of the operators that are not layers."""

import numpy as np

from refquant.verify.planted.fault import (
    Fault, add, copied, grid, joined, largest, mul, narrowed, nchw_as_nhwc, neighbour, ort, pool, quant, torch_add, torch_cat, torch_pool, rounded_trip, whole_mean,
)  # fmt: skip
from refquant.verify.planted.lines import ADAPTIVE, ADD, CAT, MUL, PER, POOL, QUA
from refquant.verify.planted.sloppy_engine import F, bf16, f16

__all__ = ["SUM_AND_PRODUCT", "QUANTIZATION", "POOLING", "OTHERS"]

SUM_AND_PRODUCT = (
    Fault("add: zero point before rounding", ADD, "onnx", add(zero="before"), ("zero_point[before]",)),
    Fault("add: half away", ADD, "onnx", add(rounding="away"), ("rounding[half_away]",)),
    Fault("add: reciprocal", ADD, "onnx", add(divide=False), ("scaling[reciprocal",)),
    Fault("add: wraps", ADD, "onnx", add(limits="wrap"), ("output_wraps",)),
    Fault("add: ReLU missing", ADD + "/relu", "onnx", add(relu=None), ("relu_missing",)),
    Fault("add: parameters swapped", ADD, "onnx", add(sides=lambda s: [(s[0][0], s[1][1]), (s[1][0], s[0][1])]), ("swapped_parameters",)),
    Fault("add: b's zero point ignored", ADD, "onnx", add(sides=lambda s: [s[0], (s[1][0], (s[1][1][0], 0))]), ("zero_point_ignored", "other_b_zero_point", "other_output_zero_point")),
    Fault("add: b read with a's parameters", ADD, "onnx", add(sides=lambda s: [s[0], (s[1][0], s[0][1])]), ("borrowed_parameters",)),
    Fault("add: scales in bfloat16", ADD.replace("neartie", "random"), "onnx", add(scale=bf16), ("coarse_scale",)),
    Fault("add: stale output scale", ADD, "onnx", add(out=lambda s, z: (s * 1.3, z)), ("other_output_scale",)),
    Fault("add: stale zero point", ADD, "onnx", add(out=lambda s, z: (s, z + 7)), ("other_output_zero_point",)),
    Fault("add: b in another order", "add/any/n2c5h7w9/neartie/seed=0", "onnx", add(sides=lambda s: [s[0], (nchw_as_nhwc(s[1][0]), s[1][1])]), ("operand_order",)),
    Fault("add: b left out", ADD, "onnx", add(sides=lambda s: [s[0], (s[1][0] * 0, (s[1][1][0], 0))]), ("operand_missing",)),
    Fault("add: stale scale of a", ADD, "onnx", add(sides=lambda s: [(s[0][0], (s[0][1][0] * 0.7, s[0][1][1])), s[1]]), ("other_a_scale",)),
    Fault("add: stale scale of b", ADD, "onnx", add(sides=lambda s: [s[0], (s[1][0], (s[1][1][0] * 1.6, s[1][1][1]))]), ("other_b_scale",)),
    Fault("add: stale zero point of a", ADD, "onnx", add(sides=lambda s: [(s[0][0], (s[0][1][0], s[0][1][1] + 5)), s[1]]), ("other_a_zero_point", "other_b_zero_point")),
    Fault("add: three threads", "add/any/n100003/neartie/seed=0", "fbgemm", torch_add(64, 3), ("threads[3]",)),
    Fault("add: vector body of 32", "add/any/n127/neartie/seed=0", "fbgemm", torch_add(32), ("vector[32]", "vector[")),
    Fault("add: dequantizes fused", "add/any/n40000/neartie/seed=0", "onnx", add(fused=True), ("dequantize[fma]",)),
    Fault("add: ReLU at code 0", ADD + "/int8/relu", "onnx", add(relu="code 0"), ("relu_at_zero",)),
    Fault("mul: half away", MUL, "onnxruntime", mul(rounding="away"), ("rounding[half_away]",)),
    Fault("mul: floor", MUL, "onnxruntime", mul(rounding="floor"), ("rounding[floor]",)),
    Fault("mul: zero point after rounding", MUL, "onnxruntime", mul(zero="after"), ("zero_point[after]",)),
    Fault("mul: reciprocal", "mul/any/n40000/neartie/seed=0", "onnxruntime", mul(order="(xw)*(1/y)"), ("multiplier[(xw)*(1/y)]",)),
    Fault("mul: wraps", MUL.replace("neartie", "saturate"), "onnxruntime", mul(limits="wrap"), ("output_wraps",)),
    Fault("mul: ReLU missing", MUL + "/relu", "onnxruntime", mul(relu=None), ("relu_missing",)),
    Fault("mul: ReLU at code 0", MUL + "/int8/relu", "onnxruntime", mul(relu="code 0"), ("relu_at_zero",)),
    Fault("mul: b's zero point ignored", MUL, "onnxruntime", mul(sides=lambda s: [s[0], (s[1][0], (s[1][1][0], 0))]), ("zero_point_ignored",)),
    Fault("mul: zero points swapped", MUL, "onnxruntime", mul(sides=lambda s: [(s[0][0], s[1][1]), (s[1][0], s[0][1])]), ("swapped_parameters",)),
    Fault("mul: scales in bfloat16", MUL.replace("neartie", "random"), "onnxruntime", mul(scale=bf16), ("coarse_scale",)),
    Fault("mul: stale output scale", MUL, "onnxruntime", mul(out=lambda s, z: (s * 1.3, z)), ("other_output_scale",)),
    Fault("mul: stale output zero point", MUL, "onnxruntime", mul(out=lambda s, z: (s, z - 6)), ("other_output_zero_point",)),
    Fault("mul: stale zero point of b", MUL, "onnxruntime", mul(sides=lambda s: [s[0], (s[1][0], (s[1][1][0], s[1][1][1] + 4))]), ("other_b_zero_point",)),
    Fault("mul: b in another order", "mul/any/n2c5h7w9/neartie/seed=0", "onnxruntime", mul(sides=lambda s: [s[0], (nchw_as_nhwc(s[1][0]), s[1][1])]), ("operand_order",)),
)  # fmt: skip

QUANTIZATION = (
    Fault("quantize: zero point before rounding", QUA, "onnx", quant(zero="before"), ("zero_point[before]",)),
    Fault("quantize: truncation", QUA, "onnx", quant(rounding="truncate"), ("rounding[truncate]",)),
    Fault("quantize: reciprocal", QUA, "onnx", quant(divide=False), ("scaling[reciprocal",)),
    Fault("quantize: wraps", QUA.replace("edges", "random"), "onnx", quant(limits="wrap"), ("output_wraps",)),
    Fault("quantize: NaN to the top", QUA, "onnx", quant(nan="high"), ("nan[qmax]",)),
    Fault("quantize: lower half of the codes", QUA, "onnx", quant(clip=(0, 127)), ("narrow_range",)),
    Fault("quantize: float16 input", QUA.replace("edges", "random"), "onnx", quant(x=f16), ("coarse_input",)),
    Fault("quantize: stale scale", QUA.replace("edges", "random"), "onnx", quant(s=lambda s: s * 1.07), ("other_output_scale",)),
    Fault("quantize: zero point ignored", QUA, "onnx", quant(z=lambda z: 0), ("zero_point_ignored",)),
    Fault("quantize: neighbour's scale", PER, "onnx", quant(s=neighbour(1)), ("neighbours_scale",)),
    Fault("quantize: first channel's scale", PER, "onnx", quant(s=lambda s: s * 0 + s[0]), ("per_tensor_scale",)),
    Fault("quantize: first channel's parameters", PER, "onnx", quant(s=lambda s: s * 0 + s[0], z=lambda z: z * 0 + z[0]), ("per_tensor_parameters",)),
    Fault("quantize: along the wrong axis", PER, "onnx", quant(axis=2), ("wrong_axis[2]",)),
    Fault("quantize: the range of its own", QUA.replace("edges", "random"), "onnx", quant(clip=(20, 90)), ("own_limits",), prepare=narrowed),
    Fault("fake quantize: the whole dtype", "fake_quantize/any/n2000/random/seed=0/narrow", "onnx", rounded_trip(), ("whole_range",)),
    Fault("dequantize: fused", "dequantize/any/n2000/random/seed=0", "onnx", grid(lambda q, s, z: q.astype(F) * s + F(-z) * s), ("formula[mul_add]",)),
    Fault("dequantize: zero point ignored", "dequantize/any/n2000/random/seed=0", "onnx", grid(lambda q, s, z: q.astype(F) * s), ("zero_point_ignored",)),
    Fault("dequantize: float16 result", "dequantize/any/n2000/random/seed=0", "onnx", grid(lambda q, s, z: f16(F(q.astype(int) - z) * s)), ("coarse_result",)),
    Fault("dequantize: stale scale", "dequantize/any/n2000/random/seed=0", "onnx", grid(lambda q, s, z: F(q.astype(int) - z) * F(1.25 * s)), ("other_grid",)),
    Fault("quantize: half away", QUA, "onnx", quant(rounding="away"), ("rounding[half_away]",)),
    Fault("quantize: scale in bfloat16", QUA.replace("edges", "random"), "onnx", quant(s=bf16), ("coarse_scale",)),
    Fault("quantize: stale zero point", QUA.replace("edges", "random"), "onnx", quant(z=lambda z: z + 5), ("other_output_zero_point",)),
    Fault("quantize: [qmin + 1, qmax]", QUA.replace("edges", "random"), "onnx", quant(clip=(1, 255)), ("narrow_range",)),
)  # fmt: skip

POOLING = (
    Fault("pool: truncation", POOL, "onnx", pool(rounding="truncate"), ("rounding[truncate]",)),
    Fault("pool: padding counted", POOL + "/nopad", "onnx", pool(counted=True), ("padding_counted",)),
    Fault("pool: divisor ignored", POOL + "/divisor", "onnx", pool(divisor=None), ("divisor_ignored",)),
    Fault("pool: the contiguous path", "avg_pool2d/any/n2c17h9w9-k2s1/neartie/seed=0/channels_last", "fbgemm", torch_pool, ("memory_format", "channels_last[scaled]")),
    Fault("pool: padding of code 0", POOL, "onnx", pool(pad=0), ("pool_padding",)),
    Fault("pool: half away", POOL.replace("k3s2p1", "k2s1"), "onnx", pool(rounding="away"), ("rounding[half_away]",)),
    Fault("pool: window swapped", "avg_pool2d/any/n2c5h9w9-k2x3s2/neartie/seed=0", "onnx", lambda p: np.ascontiguousarray(pool(swap=True)(p)), ("kernel_swapped",)),
    Fault("max pool: padding of code 0", "max_pool2d/any/n2c5h9w9-k3s2p1/saturate/seed=0/int8", "onnx", largest(pad=0), ("pool_padding",)),
    Fault("max pool: other sign", "max_pool2d/any/n2c5h9w9-k3s2/random/seed=0", "onnx", largest(bytes_of=np.int8), ("maximum_of_bytes",)),
    Fault("pool: floor", POOL, "onnx", pool(rounding="floor"), ("rounding[floor]",)),
    Fault("pool: zero point before rounding", POOL.replace("k3s2p1", "k2s1"), "onnx", pool(zero="before"), ("quantize.zero_point[before]",)),
    Fault("pool: reciprocal", "avg_pool2d/any/n8c33h16w16-k2/neartie/seed=0", "onnx", pool(divide=False), ("quantize.scaling[reciprocal",)),
    Fault("pool: output parameters ignored", POOL + "/rescale", "onnx", pool(out=lambda own, asked: own), ("borrowed_parameters",)),
    Fault("adaptive pool: half away", ADAPTIVE, "onnx", whole_mean(rounding="away"), ("rounding[half_away]",)),
    Fault("adaptive pool: truncation", ADAPTIVE, "onnx", whole_mean(rounding="truncate"), ("rounding[truncate]",)),
)  # fmt: skip

OTHERS = (
    Fault("cat: codes copied", CAT, "onnx", copied, ("cat_parameters",)),
    Fault("cat: first parameters", CAT, "onnx", joined(lambda qs: [qs[0]] * len(qs)), ("cat_parameters",)),
    Fault("cat: zero points ignored", CAT, "onnx", joined(lambda qs: [(s, 0) for s, z in qs]), ("cat_parameters",)),
    Fault("cat: half away", CAT, "onnx", joined(rounding="away"), ("quantize.rounding[half_away]",)),
    Fault("cat: zero point before rounding", CAT, "onnx", joined(zero="before"), ("quantize.zero_point[before]",)),
    Fault("cat: reciprocal", CAT.replace("n2h5w5", "n9h12w12"), "onnx", joined(divide=False), ("quantize.scaling[reciprocal",)),
    Fault("cat: wraps", CAT.replace("neartie", "saturate"), "onnx", joined(limits="wrap"), ("output_wraps",)),
    Fault("cat: the parameters of the input before", CAT, "onnx", joined(lambda qs: [qs[-1], *qs[:-1]]), ("cat_parameters",)),
    Fault("cat: blocks of 4 channels", CAT.replace("c3x8", "c7x13") + "/channels_last", "fbgemm", torch_cat(4), ("cat.vector[4]",)),
    Fault("cat: ReLU missing", CAT + "/relu", "onnx", joined(norelu=True), ("relu_missing",)),
    Fault("matmul: pairs", "matmul_integer/any/m20k40n16/pairs/seed=0", "onnx", ort(acc={"how": "pairs"}), ("int16_pairs",)),
    Fault("matmul: zero point missing", "matmul_integer/any/m20k40n16/random/seed=0/asymmetric", "onnx", ort(zx=0), ("compensation", "zero_point_ignored")),
    Fault("matmul: tail of 8", "matmul_integer/any/m20k43n16/random/seed=0", "onnx", ort(acc={"drop": 8}), ("tail_of_k",)),
)  # fmt: skip
