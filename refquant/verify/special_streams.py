"""The default cases of operators that few engines have."""

from refquant.verify.case_streams import ELEMENTWISE, LARGE, make_stream

__all__ = ["SPECIAL_STREAMS"]

_CONV1D = "n1c3w17-oc5k3 n2c8w33-oc16k3p1 n1c16w20-oc16k5p2g16 n3c6w31-oc9k7s3p3d2g3 n1c1w9-oc4k1"
_CONV2D = "n1c3h9w11-oc5k3 n1c16h14w14-oc32k3p1 n2c8h8w8-oc8k3p1g8 n1c1h7w7-oc3k1 n1c7h13w5-oc11k3x5s2x1p1x2 n1c12h10w10-oc18k3p2d2g6 n1c33h4w4-oc7k2x1d1x2"
_CONV3D = "n1c3t4h5w6-oc5k3 n1c8t5h6w7-oc8k3p1g8 n1c4t3h7w7-oc6k2x3x1s1x2x1g2"
_DYNAMIC_CONV = "per_channel, nobias, per_channel nobias, per_channel narrow, narrow, "
_VOLUMES = "n1c3t4h5w6-k2 n2c17t5h5w5-k2s1 n1c16t4h8w8-k3s2p1 n1c35t3h7w7-k3s2p1 n2c32t4h5w6-k1x2x3s1x2x1p0x1x0 n1c64t3h6w6-k3 n2c28t4h5w6-k2 n3c15t3h4w5-k2x2x1"
_IMAGES = (
    "n1c3h4w6-o6x9 n2c16h8w8-o12 n1c17h6w4-o9x6 n1c8h2w2-o3 n2c5h9w7-o5x3 n1c33h5w5-o15 n1c1h7w5-o4x11 n3c24h4w4-o8 n1c7h1w3-o1x5 n2c9h6w6-o6 n1c40h10w2-o15x3 n4c12h8w8-o12 n5c24h6w6-o9 n4c28h4w4-o6"
)
_NORM_ROWS = "m3n64 m5n31 m1n1 m2n32 m7n100 m4n33 m3n257 m9n65 m2n768 m17n40"
_GROUPS = "n1c4h3w5-g2 n2c6h8w8-g3 n1c64h4w4-g4 n2c33h5w5-g11 n1c8w40-g1 n3c5h1w7-g5 n1c70h9w9-g2 n2c96h3w3-g3 n1c4h24w24-g2 n1c66h23w23-g2 n2c3w3-g1"
_INSTANCES = "n1c4h3w5 n2c6h8w8 n1c64h4w4 n2c33h5w5 n1c8w40 n3c5h1w7 n1c70h9w9 n1c3h24w24 n2c7w3 n1c48h23w23 n1c80h25w22"
_ACTIVATIONS = "n2c5 n1c3h5w7 n2c16h9w9 n64c3 n3c17h4w4 n1c8h1w1 n2c1h9w8 n7c33 n1c5w70 n1c4t3h5w6 n2c35t2h3w3"
_ROWS = "m7n16 m1n4 m33n64 m5n100 m3n8 m20n36 m64n128 m11n20"
_BAGS = "m9n16-b5l40 m1n4-b1l3 m30n64-b17l100 m12n100-b3l9 m5n8-b30l20 m40n36-b12l200 m7n20-b6l1 m50n128-b9l90 m10n4-b40l900"


def _limits(threads="", telling=""):
    return make_stream(ELEMENTWISE, LARGE, telling + "edges edges random", ", int8, channels_last, int8 channels_last, sliced, transposed" + threads)


SPECIAL_STREAMS = {
    "quantize_dynamic": make_stream(ELEMENTWISE, LARGE, "edges edges edges random", ", int8, narrow, channels_last, int8 narrow"),
    "linear_dynamic": make_stream(
        "m5k64n17 m1k2n5 m2k3n31 m13k7n16 m31k127n33 m3k515n5 m129k2n1 m1k256n257 m7k4n15", "m256k64n256 m199k100n333", "neartie random edges saturate",
        "per_channel, nobias, per_channel relu, relu, per_channel nobias, asymmetric, narrow, narrow per_channel, symmetric, symmetric per_channel nobias, symmetric relu",
    ),
    "conv1d_dynamic": make_stream(_CONV1D + " n1c101w5-oc101k3g101 n1c102w3-oc102k1g102", "n4c32w256-oc64k3p1", "telling telling telling neartie random edges", _DYNAMIC_CONV),
    "conv2d_dynamic": make_stream(_CONV2D + " n1c101h3w3-oc101k1g101 n1c102h2w2-oc102k1g102", "n2c16h28w28-oc64k3p1", "telling telling telling neartie random edges", _DYNAMIC_CONV),
    "conv3d_dynamic": make_stream(_CONV3D + " n1c101t2h2w3-oc101k1g101 n1c102t1h2w2-oc102k1g102", "n1c16t6h14w14-oc32k3p1", "telling telling telling neartie random edges", _DYNAMIC_CONV),
    "conv_integer": make_stream(
        f"{_CONV1D} {_CONV2D} {_CONV3D}", "n2c16h28w28-oc64k3p1", "random pairs saturate wrap", ", asymmetric, int8, uint8 asymmetric, int8 asymmetric", "n1c9000h3w4-oc5k3"
    ),
    "matmul": make_stream(
        "m5k64n17 b2-m2k3n31 b3-m13k7n16 b2x2-m7k33n18 m1k256n257 b5-m1k17n5 m129k2n1 b2-m64k31n33 b4-m1k1n9", "b12-m64k64n64 b2x4-m50k33n70",
        "neartie saturate neartie pairs random edges", "per_channel, , per_channel asymmetric, int8 per_channel, float per_channel, float, alone, alone float nobias, asymmetric, uint8, uint8 per_channel float, int8",
    ),
    "gemm": make_stream(
        "m5k64n17 m1k1n5 m2k3n31 m13k7n16 m31k127n33 m3k515n5 m129k2n1 m1k256n257 m64k31n100 m33k65n18", "m199k100n333 m256k64n128",
        "neartie offset saturate neartie pairs random edges wrap offset", "per_channel, nobias, per_channel asymmetric, int8 per_channel, float per_channel, float nobias, asymmetric, uint8, float, int8", "m3k81000n6",
    ),
    "attention": make_stream(
        "n2t5c16-g2o8 n1t1c16-g3o5 n2t33c24-g3o16 n3t9c7-g1o2 n1t2c130-g4o4 n1t7c20-g2o33", "n1t160c32-g2o64", "random neartie saturate pairs",
        "per_channel, , asymmetric, uint8, masked, causal per_channel, masked causal, per_channel asymmetric uint8",
    ),
    "lstm_dynamic": make_stream(
        "t5n2c7-o3 t1n1c4-o4 t12n3c16-o8 t9n1c33-o17 t3n5c1-o1", "t7n9c64-o32", "edges random neartie saturate",
        "per_channel, nobias, uint8, reverse per_channel, bidirectional, bidirectional per_channel nobias, uint8 asymmetric",
    ),
    "embed_layer_norm": make_stream("n2t5c16 n1t1c7 n3t4c33 n1t9c5 n2t3c768", "n4t32c256", "random saturate neartie", ", int8, alone, alone int8"),
    "where": make_stream(ELEMENTWISE, LARGE, "neartie saturate neartie random", ", int8, broadcast, int8 broadcast"),
    **{op: make_stream(ELEMENTWISE, LARGE, strategies, "int8 rescale, int8 channels_last rescale") for op, strategies in (
        ("exp", "telling telling random"), ("log", "telling telling random"), ("sqrt", "neartie saturate neartie random"), ("rsqrt", "neartie saturate neartie random"),
        ("abs", "neartie neartie random"),
    )},
    "sub": make_stream(ELEMENTWISE, LARGE, "neartie saturate neartie random", "int8, int8 relu, int8 channels_last, int8 channels_last relu, int8 broadcast"),
    "squared_difference": make_stream(ELEMENTWISE, LARGE, "neartie saturate neartie random", "int8, int8 channels_last, int8 broadcast"),
    "requantize": make_stream(ELEMENTWISE, LARGE, "neartie saturate neartie random", ", int8, channels_last, int8 channels_last, sliced, transposed"),
    "add_scalar": make_stream(ELEMENTWISE, LARGE, "neartie random", ", relu, int8, int8 relu, channels_last, channels_last relu"),
    "mul_scalar": make_stream(ELEMENTWISE, LARGE, "neartie random", ", relu, int8, int8 relu, channels_last, channels_last relu"),
    "relu6": _limits(),
    "clamp": _limits(),
    "hardtanh": _limits(telling="telling "),
    "threshold": _limits(", threads, int8 threads"),
    "celu": make_stream(ELEMENTWISE, LARGE, "telling telling random", "rescale, int8 rescale, channels_last rescale, threads rescale, sliced rescale"),
    "prelu": make_stream(_ACTIVATIONS, "n2c32h28w28 n4c19h20w20", "neartie neartie random", ", int8, channels_last, alone, int8 alone, int8 channels_last, sliced, channels_last sliced"),
    "softmax": make_stream(_ACTIVATIONS, "n64c1000 n4c19h20w20", "telling telling telling random", ", rescale, int8, first, int8 rescale, first rescale, sliced, transposed"),
    "max_pool1d": make_stream("n1c3w17-k2 n2c17w8-k3s2p1 n1c5w13-k3d2s2 n3c32w10-k2s1 n2c9w11-k3s1p1d2 n1c16w9-k2s3p1d3 n3c7w12-k3s5p1 n4c5w1-k2p1", "n2c64w300-k3s1p1", "random saturate", ", ceil, int8, int8 ceil"),
    "max_pool3d": make_stream(_VOLUMES, "n2c32t6h14w14-k3s1p1", "random saturate", ", channels_last, ceil, int8, int8 channels_last ceil"),
    "avg_pool3d": make_stream(
        _VOLUMES, "n2c35t6h14w14-k2s1 n1c32t6h14w14-k3s1p1", "neartie saturate neartie random", ", channels_last, nopad, ceil, int8, divisor, nopad int8 channels_last"
    ),
    "adaptive_avg_pool3d": make_stream(
        "n2c17t3h4w4 n2c64t2h7w7 n8c33t1h1w2 n2c3t4h8w6-o2x4x3 n1c16t5h9w5-o2x3x2 n9c24t2h2w3 n1c13t3h6w6-o6 n4c1t2h9w7 n16c29t3h2w3 n40c13t3h2w2-o1x1x2 n30c24t3h2w2-o1x2x1 n50c14t3h1w4-o1x1x2", "n8c67t4h14w14-o2x7x7 n500c67t2h2w3",
        "neartie saturate neartie random", ", channels_last, int8, int8 channels_last",
    ),
    "mean": make_stream("n100c2 n64c7 n9c3h5w7-r2 n2c16h9w9-r2 n3c17h4w4-r3 n200c4 n30c8h2w2-r2 n50c3h4w4 n17c12 n2c70h13w11-r2 n3c33h30w9-r2 n30c33h30w9-r2", "n400c64h2w2-r2 n4c19h20w20 n40c50h2w3-r2", "neartie random saturate",  ", int8, keepdim, int8 keepdim, fromend, channels_last, channels_last int8, first, first keepdim, rescale, int8 rescale, first rescale, middle, middle rescale, , sliced, transposed"),
    "interpolate": make_stream(
        _IMAGES, "n2c32h28w28-o42 n1c19h20w20-o30x50", "random saturate neartie",
        "bilinear, , bilinear channels_last, channels_last, exact, bilinear corners, bilinear corners channels_last, bilinear int8, bilinear int8 channels_last, factor, bilinear factor,"
        " bilinear factor channels_last, exact channels_last factor, bilinear sliced, bilinear channels_last sliced",
    ),
    "batch_norm": make_stream(_ACTIVATIONS, "n2c32h28w28 n4c19h20w20", "neartie saturate neartie random", ", relu, int8, channels_last, int8 relu, channels_last relu, sliced, channels_last sliced"),
    "layer_norm": make_stream(_NORM_ROWS, "m64n512 m100n97", "neartie neartie saturate random", "affine, , int8 affine, affine, int8, affine sliced"),
    "group_norm": make_stream(_GROUPS, "n4c32h14w14-g8 n2c48h20w20-g4", "neartie neartie saturate random", "affine, , int8 affine, channels_last affine, int8 channels_last affine, channels_last, affine sliced, channels_last sliced affine"),
    "instance_norm": make_stream(_INSTANCES, "n4c32h14w14 n2c48h20w20", "neartie neartie saturate random", "affine, , int8 affine, channels_last affine, channels_last, affine sliced, channels_last sliced affine"),
    "quantize_embedding": make_stream(_ROWS, "m300n256 m1000n64", "neartie random", ", bits4, bits2"),
    "embedding_bag": make_stream(_BAGS, "m100n256-b60l500", "neartie random", ", bits4, bits2, weighted, bits4 weighted, lastoffset, alone, bits4 alone, bits2 weighted lastoffset"),
}  # fmt: skip
