"""Findings about OpenVINO's CPU plugin."""

import numpy as np

from refquant.backends.findings.event import Event
from refquant.backends.findings.finding import Finding, by, codes, of

__all__ = ["OPENVINO"]

OPENVINO = (
    Finding(
        name="a-dequantized-zero-point-is-not-zero", engine="openvino",
        title="OpenVINO dequantizes the zero point to a number beside 0, unless the model has a QuantizeLinear anywhere",
        text="Without one, code * scale - zero_point * scale is a fused step after zero_point * scale was rounded; with one, even in another branch, the low precision transformations run "
        "and keep (code - zero_point) * scale: the profile openvino+low_precision.",
        problem=of("dequantize", q=codes([3, 4], 0.1, 3)), expect=by("onnx"), expected_by="by ONNX's formula",
    ),
    Finding(
        name="padding-is-code-zero", engine="openvino",
        title="In OpenVINO's average pool, padding that counts is code 0 and not the number 0",
        text="The zero point moves into the output's range, and padding does not move with it: each padded place counts as minus zero_point steps. "
        "Four equal numbers of 0 with a border of zeros do not average to 0.",
        problem=of("avg_pool2d", x=codes(np.full((1, 1, 2, 2), 8), 1.0, 8), kernel_size=2, stride=1, padding=1), expect=by("onnx"), expected_by="of zeros",
    ),
    Finding(
        name="limits-are-cut", engine="openvino",
        title="OpenVINO cuts the limits of a Clip between codes off, where others round them",
        text="Between DequantizeLinear and QuantizeLinear limits become integers by a conversion that drops what is behind the point: 2.7 steps are 2.",
        problem=of("clamp", x=codes([1, 10]), min=0.0, max=2.7), expect=by("onnx"), expected_by="of the nearest code",
    ),
    Event(
        name="a-kernel-of-another-zero-point", engine="openvino", defect=True, level="avx2",
        title="In one model OpenVINO takes the kernel of one dequantization for another with another zero point",
        text="Kernels are kept by a 64-bit hash of what they compute, constants among it, and whoever has the same hash gets them without a further comparison. The hash is weak: 256 codes of int8 "
        "with scale 1/16 and zero points -20 and 85 have the same, so the code 85 of the second tensor, which is 0, becomes 6.5625. Shown on CPUs without AVX512-VNNI.",
        live="openvino_events:kernel_of_another", oracle=lambda: [6.5625, 6.625], expect=lambda: [0, 0.0625], expected_by="of the zero point 85",
    ),
    Event(
        name="a-huge-lower-limit-limits-nothing", engine="openvino", defect=True,
        title="A lower limit of 2**31 steps wraps in OpenVINO and limits nothing",
        text="It becomes an int32 together with the zero point, without a look at its size: everything should be the largest code, and stays as it was.",
        live="openvino_events:huge_lower_limit", oracle=lambda: [5], expect=lambda: [255], expected_by="the largest code",
    ),
    Event(
        name="rows-of-a-mean-stay-empty", engine="openvino", defect=True,
        title="OpenVINO's mean over the last of three axes leaves rows empty where the first axis is the longest",
        text="Of five matrices of four rows the rows of the fifth are code 0, whatever they hold; with a zero point of 0 the engine takes another way and is right.",
        live="openvino_events:mean_of_long_stack", oracle=lambda: [4], expect=lambda: [0], expected_by="no row of zeros",
    ),
    Event(
        name="groups-are-packed-to-int16", engine="openvino", defect=True, level="avx2",
        title="On AVX2 OpenVINO's grouped convolutions turn a sum beyond 32,767 codes into the smallest one",
        text="Groups whose channels are no fours go to a matrix product that packs its int32 codes to 16 bits without saturation before it packs them to 8: 40,000 codes become 0, "
        "30,000 codes 255. Shown on CPUs without AVX512-VNNI.",
        live="openvino_events:wide_sums_of_groups", oracle=lambda: [0, 255], expect=lambda: [255, 255], expected_by="of saturation",
    ),
)  # fmt: skip
