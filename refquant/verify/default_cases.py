"""The cases that an operator is tried on by default: tails of tiles, primes, single elements, groups, strides, and every data strategy."""

from itertools import count
from zlib import crc32

import numpy as np

from refquant import numerics
from refquant.core.arguments import as_integer
from refquant.errors import choose
from refquant.numerics.add_forms import AddForm, FoldedAddForm
from refquant.numerics.forms import GLOBAL_ALONE
from refquant.numerics.fixed_forms import FixedMeanForm
from refquant.numerics.profile import Dispatch
from refquant.numerics.range_forms import RangeForm, RangeProductForm
from refquant.numerics.special_forms import BoxPoolForm, RealsForm, RowDynamicForm
from refquant.verify.case import Case
from refquant.verify.case_streams import ELEMENTWISE as _ELEMENTWISE
from refquant.verify.case_streams import LARGE as _LARGE
from refquant.verify.case_streams import Stream
from refquant.verify.case_streams import make_stream as _stream
from refquant.verify.special_streams import SPECIAL_STREAMS
from refquant.verify.views import VIEWS

__all__ = ["STREAMS", "Stream", "case_stream", "default_cases"]


_LINEAR_OPTIONS = (
    "per_channel, nobias, per_channel relu, relu, per_channel nobias, per_channel asymmetric, int8 per_channel, float per_channel, float nobias relu, "
    "asymmetric, float relu, float per_channel nobias, uint8 nobias, int8 uint8 per_channel relu, leaky_relu per_channel, leaky_relu, hardtanh per_channel, "
    "hardswish nobias, other per_channel nobias, other relu, float hardswish, float other per_channel, tanh per_channel, gelu, swish nobias, "
    "float tanh, float gelu per_channel, float swish, int8 tanh, int8 float gelu"
)
_CONV_OPTIONS = (
    "per_channel, nobias, per_channel relu, channels_last relu, per_channel nobias, per_channel asymmetric, per_channel channels_last, int8 per_channel, "
    "float per_channel, float, float per_channel relu, asymmetric channels_last, uint8 nobias, channels_last, hardtanh per_channel, hardswish, "
    "other per_channel nobias, other relu per_channel, other nobias, float hardtanh, swish per_channel, float swish, float other relu"
)
_TRANSPOSE_OPTIONS = "nobias, , relu, channels_last, per_channel, asymmetric, int8, asymmetric relu, uint8 nobias, channels_last nobias"

STREAMS = {
    "quantize": _stream(_ELEMENTWISE + " n2c7h7w3", _LARGE, "edges edges random", ", int8, per_channel, int8 per_channel channels_last, channels_last, int32, int32 per_channel, per_channel channels_last, transposed, channels_last stepped"),
    "dequantize": _stream(_ELEMENTWISE, _LARGE, "random edges saturate", ", int8, per_channel, int8 per_channel channels_last, channels_last, int32, per_channel channels_last, int32 per_channel, transposed, channels_last sliced"),
    "fake_quantize": _stream(_ELEMENTWISE, _LARGE, "edges edges random", ", int8, per_channel, int8 per_channel, narrow, int8 narrow, narrow per_channel, stepped, channels_last sliced"),
    "linear": _stream(
        "m5k64n17 m1k1n5 m2k3n31 m13k7n16 m31k127n33 m3k515n5 m16k16n64 m129k2n1 m1k256n257 m64k31n100 m7k4n15 m33k65n18 m2k4096n11 m17k1n64",
        "m256k64n256 m199k100n333 m512k31n128 m64k768n512",
        "neartie saturate neartie pairs neartie random wrap offset", _LINEAR_OPTIONS, "m3k81000n6 m2k120001n5",
    ),
    "conv1d": _stream(
        "n1c3w17-oc5k3 n2c8w33-oc16k3p1 n1c16w20-oc16k5p2g16 n3c6w31-oc9k7s3p3d2g3 n1c1w9-oc4k1 n1c101w11-oc101k3g101", "n4c32w256-oc64k3p1",
        "neartie saturate neartie pairs random offset", _CONV_OPTIONS,
    ),
    "conv2d": _stream(
        "n1c3h9w11-oc5k3 n1c16h14w14-oc32k3p1 n2c8h8w8-oc8k3p1g8 n1c1h7w7-oc3k1 n1c7h13w5-oc11k3x5s2x1p1x2 n2c16h9w9-oc32k3s2p1g16 n1c24h15w15-oc24k5p2g24"
        " n1c12h10w10-oc18k3p2d2g6 n1c8h17w17-oc8k7p3g8 n1c128h5w5-oc128k3p1g128 n1c5h6w6-oc10k3g5 n3c3h19w19-oc16k7s2p3 n1c101h3w3-oc101k1g101 n1c64h6w6-oc17k1s2 n1c33h4w4-oc7k2x1d1x2",
        "n2c16h28w28-oc64k3p1 n4c64h28w28-oc64k3p1g64 n1c64h40w40-oc96k1 n2c32h30w30-oc64k3s2p1g4 n3c19h31w31-oc35k3p1",
        "neartie pairs neartie saturate neartie random wrap offset", _CONV_OPTIONS, "n1c9000h3w4-oc5k3 n1c2900h6w6-oc4k5x6",
    ),
    "conv3d": _stream("n1c3t4h5w6-oc5k3 n1c8t5h6w7-oc8k3p1g8 n1c4t3h7w7-oc6k2x3x1s1x2x1g2 n1c8t5h5w6-oc8k5p2g8 n2c6t4h7w6-oc6k3p1g6", "n1c16t6h14w14-oc32k3p1", "neartie saturate pairs random offset", _CONV_OPTIONS),
    "conv_transpose1d": _stream(
        "n1c3w9-oc5k3s2 n2c8w11-oc16k3p1 n1c16w7-oc16k5s3p2g16 n3c6w8-oc9k4s2p1d2g3op1 n1c1w9-oc4k1 n1c5w6-oc5k2s2", "n4c32w128-oc32k4s2p1",
        "neartie saturate neartie pairs random offset", _TRANSPOSE_OPTIONS,
    ),
    "conv_transpose2d": _stream(
        "n1c3h5w6-oc5k3s2 n1c16h7w7-oc16k3s2p1op1 n2c8h5w8-oc8k3p1g8 n1c1h4w4-oc3k1 n1c7h6w5-oc11k3x5s2x1p1x2 n2c16h5w4-oc8k2x4s1x2 n1c24h4w4-oc24k2s2"
        " n1c16h1w9-oc8k2x3s1x2 n1c8h5w5-oc16k2x5s2 n1c12h5w5-oc18k3p2d2g6 n2c12h5w5-oc12k4s2p1g4 n1c5h6w6-oc5k4s3p1op1 n1c101h2w3-oc101k2s2g101 n1c33h4w4-oc7k2x1d1x2"
        " n1c8h6w4-oc8k2x6s2x1op1x0 n1c9h3w3-oc9k2s3op2 n1c16h1w6-oc16k2s2",
        "n2c16h28w28-oc16k4s2p1 n1c64h14w14-oc32k2s2 n4c32h14w14-oc32k3s2p1g32 n1c32h20w20-oc32k2x2s1",
        "neartie pairs neartie saturate neartie random wrap offset", _TRANSPOSE_OPTIONS, "n1c9000h3w4-oc5k3 n1c2900h3w3-oc4k5x6s2",
    ),
    "conv_transpose3d": _stream(
        "n1c3t2h4w3-oc3k3s2 n1c4t2h3w4-oc5k1x3x2s1x2x2 n1c8t3h4w3-oc8k3s2p1g8 n1c4t3h3w4-oc6k2x3x1s1x2x1g2 n2c6t2h3w4-oc6k3s2p1d1x2x1 n1c5t2h2w3-oc7k2s2op1", "n1c16t4h8w8-oc16k4s2p1",
        "neartie saturate pairs random offset", _TRANSPOSE_OPTIONS,
    ),
    "matmul_integer": _stream(
        "m5k64n17 m1k1n5 m2k3n31 m13k7n16 m31k127n33 m3k515n5 m129k2n1 m1k256n257 m7k4n15", "m256k64n256 m199k100n333",
        "random pairs saturate wrap", ", asymmetric, per_channel asymmetric, int8, uint8 asymmetric, int8 uint8, int8 per_channel asymmetric", "m3k140000n6",
    ),
    "add": _stream(_ELEMENTWISE + " n1 n1c1h1w1", _LARGE + " n131", "neartie saturate neartie random", ", relu, int8, channels_last, int8 relu channels_last, channels_last relu, mixed, threads, int8 threads, threads relu channels_last, broadcast, int8 broadcast, int8 threads, sliced, transposed relu, stepped int8, expanded, channels_last sliced, threads sliced, int8 threads, "),
    "mul": _stream(_ELEMENTWISE, _LARGE, "neartie saturate telling random", ", relu, int8, channels_last, int8 relu channels_last, channels_last relu, mixed, broadcast, int8 broadcast, sliced, channels_last stepped"),
    "relu": _stream(_ELEMENTWISE, _LARGE, "random", ", int8, channels_last, transposed, channels_last sliced"),
    **{
        op: _stream(_ELEMENTWISE, _LARGE, strategies, "rescale, int8 rescale, channels_last rescale, threads rescale" + fixed)
        for op, strategies, fixed in (
            ("sigmoid", "telling telling random", ", , int8, channels_last, threads, sliced, channels_last sliced"), ("tanh", "telling telling random", ", , int8, channels_last, threads, sliced, transposed"),
            ("hardsigmoid", "telling telling neartie edges", ", , int8, channels_last, threads, int8 threads"), ("elu", "telling telling random neartie", ", sliced rescale, stepped rescale"),
            ("hardswish", "neartie neartie random", ", int8 threads rescale, threads rescale, sliced rescale, channels_last sliced rescale"),
            ("leaky_relu", "neartie neartie random", ", transposed rescale, channels_last sliced rescale"),
        )
    },
    "gelu": _stream(_ELEMENTWISE, _LARGE, "telling telling random", ", int8, channels_last, threads, sliced, transposed"),
    "max_pool2d": _stream(
        "n1c3h9w11-k2 n2c17h8w8-k3s2p1 n1c16h7w7-k3x2s1x2p1 n1c5h13w13-k3d2s2 n3c32h10w10-k2s2 n2c9h8w10-k3s1p1d2 n1c16h9w7-k2x3s2x1p1x0d3x1 n2c33h7w9-k5x3s2p2x1d1x2"
        " n1c8h6w11-k2x4s3x1p0x2d1x3 n3c5h12w12-k3x2s4x5p1 n1c7h2w3-k2p1d2 n2c17h5w1-k3x2s1p1d2x1", "n2c64h28w28-k3s1p1 n2c64h14w14-k3s1p1d2", "random saturate",
        ", channels_last, ceil, ceil channels_last, int8, int8 channels_last ceil, int8 channels_last, transposed, channels_last sliced",
    ),
    "avg_pool2d": _stream(
        "n1c3h9w11-k2 n2c17h8w8-k2s1 n1c16h8w8-k4s2p1 n2c35h7w7-k3s2p1 n3c32h10w10-k2x3s2x1p1x0 n1c64h6w6-k6 n1c5h13w13-k5x4s3 n6c32h5w4-k5x4 n2c19h3w3-k1s2 n2c28h9w8-k2s1 n1c15h8w8-k4s2"
        " n3c33h9w10-k3x2s4x5p1 n2c16h8w7-k4x5s3p2x1",
        "n4c67h28w28-k2s1 n4c32h28w28-k4s1p2", "neartie saturate neartie random",
        ", channels_last, rescale, nopad, nopad channels_last, ceil nopad, int8, rescale channels_last, divisor, divisor channels_last, rescale nopad int8, ceil channels_last, ceil, ceil divisor, int8 channels_last, int8 nopad ceil channels_last, sliced, channels_last sliced",
    ),
    "adaptive_avg_pool2d": _stream(
        "n2c17h4w4 n2c64h7w7 n8c33h1w2 n5c3h8w6-o4x3 n2c16h9w5-o3x2 n16c24h2w3 n3c40h14w14 n2c13h6w6-o6 n4c1h9w7 n9c21h1w1 n6c29h4w6 n9c13h6w6-o3x2 n40c29h2w3 n30c13h3w6 n8c21h12w12-o6x4 n5c24h7w9-o7x3 n3c17h3w4-o5x8 n8c33h7w14 n4c33h13w19-o2",
        "n64c259h4w4 n64c128h7w6 n8c67h28w28-o14", "neartie saturate neartie random", ", channels_last, rescale, int8, int8 channels_last, rescale channels_last, transposed, channels_last sliced",
    ),
    "cat": _stream(
        "n2h5w5-c3x8 n1h7w7-c16x17 n3h2w2-c9x1x24 n4-c5x11 n1h3w5-c7x8x9x10 n5h1w1-c19x8x6 n3h6w4-c1x1 n2h5w5-c7x13", "n4h28w28-c32x35 n2h40w40-c11x16x8", "neartie saturate neartie random",
        "channels_last, , relu, channels_last relu, int8 channels_last, int8, mixed, equal, equal int8 channels_last, channels_last sliced",
    ),
    **SPECIAL_STREAMS,
}  # fmt: skip


_POST = {"leaky_relu", "hardtanh", "hardswish", "tanh", "gelu", "swish", "other"}
_PRODUCTS = ("linear", "matmul", "gemm", *(f"{kind}{dims}d" for kind in ("conv", "conv_transpose") for dims in (1, 2, 3)))

# So often all small shapes come before the first large one, which would use up the default budget of outputs.
_ROUNDS = 3
# Engines without uint8 activations, and whose weights have no zero point.
_INT8_ALONE = ("tflite_ref", "tflite_opt", "xnnpack")
# Engines that take tensors of any strides.
_BY_STRIDES = ("fbgemm", "onednn", "x86", "qnnpack")


def case_stream(op, profile, *, seed=0):
    """Yield the default cases of an operator under a profile, without end.

    Parameters
    ----------
    op : str
    profile : str or Numerics
        Whose line the cases carry; its forms say in which units a bias is given and which outputs exist.
    seed : int
        Case number `i` gets the seed ``seed + i``.

    Yields
    ------
    Case
    """
    stream = STREAMS[choose("default_cases", "op", op, STREAMS)]
    profile, seed = numerics.get(profile), as_integer(seed, "seed", "case_stream", least=0)
    rng = np.random.Generator(np.random.PCG64([seed, crc32(op.encode())]))
    shapes = [[s for s in _shapes(op, texts) if _pools(op, profile, s)] for texts in stream[:3]]
    # A profile that takes no large shape is given the small ones again.
    small, large, wrap = (_shuffled(rng, chosen) for chosen in (shapes[0], shapes[1] or shapes[0], shapes[2]))
    strategies = _shuffled(rng, stream.strategies)
    options = _shuffled(rng, [tuple(o.split()) for o in stream.options if _offered(op, profile, o.split())] or [()])
    for i in count():
        strategy, chosen = next(strategies), next(options)
        shape = wrap if strategy == "wrap" else large if i >= _ROUNDS * len(stream.small) and i % 2 else small
        case = Case(op=op, profile=profile.name, shape=next(shape), strategy=strategy, seed=seed + i)
        if profile.name in _INT8_ALONE:
            chosen = ("int8", *(o for o in chosen if o not in ("int8", "uint8", "int32", *(["asymmetric"] if op != "matmul" else []))))
        if isinstance(profile.conv, RangeProductForm) and op in _PRODUCTS:
            chosen = tuple(o for o in chosen if o not in ("uint8", "asymmetric")) + ("symmetric",) * op.startswith(("conv_transpose", "matmul"))
        if strategy == "offset":
            chosen = tuple(o for o in chosen if o not in ("nobias", "float"))
        yield case.replace(options=chosen if "nobias" in chosen or i % 5 == 4 else chosen + _bias_option(op, profile, chosen))


def _shuffled(rng, items):
    """Yield all items in random order, again and again."""
    while items:
        for i in rng.permutation(len(items)):
            yield items[i]


def _shapes(op, texts):
    return [Case.parse(f"{op}/any/{text}/random/seed=0").shape for text in texts]


def _pools(op, profile, shape):
    """Whether the profile pools a shape; one that pools globally alone gives one output a channel."""
    form = getattr(profile, op.removesuffix("2d")) if op.startswith("adaptive_avg_pool") else None
    if form is None or isinstance(form, (BoxPoolForm, RealsForm)):
        return True
    return dict(shape)["o"] == 1 or not any(getattr(side, "contiguous", "global") in GLOBAL_ALONE for side in _either(form))


def _either(form):
    """Return a form, or those that a `Dispatch` chooses between."""
    return (*_either(form.yes), *_either(form.no)) if isinstance(form, Dispatch) else (form,)


def _section(op, options):
    kind = op.rstrip("123d") if op.startswith("conv") else "linear" if op in ("matmul", "gemm") else op
    return kind + "_real" if "float" in options else kind


def _offered(op, profile, options):
    """Whether a profile has what a set of options asks for; whether the engine has it is for its runner to say."""
    if not set(VIEWS).isdisjoint(options) and profile.name.partition("@")[0].rstrip("*") not in _BY_STRIDES:
        return False
    if op == "matmul" and profile.matmul is not None and "per_channel" in options:
        return False
    if op in _PRODUCTS:
        if not _POST.isdisjoint(options) and (profile.post is None or op not in ("linear", "conv2d")):
            return False
        return getattr(profile, _section(op, options)) is not None
    if "rescale" in options and op.endswith("pool2d"):
        form = getattr(profile, op.removesuffix("2d"))
        own = {*GLOBAL_ALONE, "sequential", "spec"}
        return form is not None and all(isinstance(side, (RangeForm, RealsForm)) or {side.contiguous, side.channels_last} <= own for side in _either(form))
    if "broadcast" in options and op in ("add", "mul"):
        return isinstance(profile.add, FoldedAddForm) or (isinstance(profile.add, AddForm) and not profile.add.vector and profile.name != "inductor")
    if "symmetric" in options:
        return isinstance(profile.dynamic, RowDynamicForm) and profile.dynamic.style == "tensor_utils"
    if "rescale" in options and op == "mean":
        return isinstance(profile.mean, (FixedMeanForm, RealsForm))
    return True


def _bias_option(op, profile, options):
    """Return ("intbias",) where the profile takes a bias in int32 units."""
    if op not in _PRODUCTS:
        return ()
    form = getattr(profile, _section(op, options))
    while isinstance(form, Dispatch):
        form = form.yes
    return ("intbias",) if form is not None and form.bias == "int32" else ()


def default_cases(op, profile, *, outputs, seed=0):
    """Yield default cases until they have at least `outputs` outputs together.

    Parameters
    ----------
    op : str
    profile : str or Numerics
    outputs : int
    seed : int

    Yields
    ------
    Case

    Examples
    --------
    >>> for case in default_cases("linear", "fbgemm", outputs=260):
    ...     print(case)
    linear/fbgemm/m1k256n257/random/seed=0/nobias
    linear/fbgemm/m2k120001n5/wrap/seed=1/per_channel/int8
    """
    total, outputs = 0, as_integer(outputs, "outputs", "default_cases")
    for case in case_stream(op, profile, seed=seed):
        if total >= outputs:
            return
        yield case
        total += case.outputs
