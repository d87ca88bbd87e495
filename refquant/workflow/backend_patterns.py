"""PyTorch's tables of patterns, one for each of its engines, and the one that ``prepare_fx`` takes unless it is given another.

Source
------
PyTorch 2.13, torch/ao/quantization/backend_config: native.py, fbgemm.py, x86.py, onednn.py, qnnpack.py, _common_operator_config_utils.py. Layers that
exist in training alone are left out.
"""

from functools import lru_cache
from itertools import product

from refquant.errors import choose
from refquant.workflow.backend_config import BY_TENSORS, NOT_OBSERVED, SHARE, BackendConfig, BackendPatternConfig, DTypeConfig, DTypeWithConstraints, as_constraints

__all__ = ["BACKEND_CONFIGS", "get_backend_config", "FIXED_TARGETS"]

BACKEND_CONFIGS = ("native", "fbgemm", "x86", "onednn", "qnnpack")

_U8, _S8, _REAL, _HALF, _U4 = map(as_constraints, ("uint8", "int8", "float32", "float16", "uint4"))
_WEIGHTED = DTypeConfig(_U8, _U8, _S8, "float32")
_CODES = DTypeConfig(_U8, _U8)
_DYNAMIC = DTypeConfig(_U8, _REAL, _S8, "float32", True)
_DYNAMIC_HALF = DTypeConfig(_HALF, _REAL, _HALF, "float32", True)
_NORM = DTypeConfig(_U8, _U8, _REAL, "float32")
_EMBEDDING = (DTypeConfig(_REAL, _REAL, _U8), DTypeConfig(_REAL, _REAL, _U4))
# XNNPACK's kernels below QNNPACK want scales of 2⁻¹² and more.
_S8_SCALED = DTypeWithConstraints("int8", scale_min=2**-12)
_S8_WEIGHT = DTypeWithConstraints("int8", -127, 127, 2**-12)
_WEIGHTED_SYMMETRIC = DTypeConfig(_S8_SCALED, _S8_SCALED, _S8_WEIGHT, "float32")
_CODES_SYMMETRIC = DTypeConfig(_S8_SCALED, _S8_SCALED)

_SIGMOID = DTypeWithConstraints("uint8", 0, 255, None, 1 / 256, 0)
_TANH = DTypeWithConstraints("uint8", 0, 255, None, 2 / 256, 128)
FIXED_TARGETS = {
    **dict.fromkeys(("nn.Hardsigmoid", "F.hardsigmoid", ".hardsigmoid", ".hardsigmoid_", "nn.Sigmoid", "torch.sigmoid", ".sigmoid", ".sigmoid_", "nn.Softmax"), _SIGMOID),
    **dict.fromkeys(("nn.Tanh", "torch.tanh", ".tanh", ".tanh_"), _TANH),
}
"""Operations with a known range of outputs, and the parameters that go with it."""

_RELUS = ("nn.ReLU", "F.relu")
_ADDS = ("torch.add", "operator.add")


def _conv_rows(dtypes):
    for d in (1, 2, 3):
        conv, function, norm, fused = f"nn.Conv{d}d", f"F.conv{d}d", f"nn.BatchNorm{d}d", f"nni.ConvReLU{d}d"
        yield _weighted(conv, dtypes)
        yield _weighted(function, dtypes)
        yield from (BackendPatternConfig(f"{relu}({conv})", dtypes, fused=fused) for relu in _RELUS)
        yield _weighted(fused, dtypes)
        yield from (BackendPatternConfig(f"{relu}({function})", dtypes) for relu in _RELUS)
        yield BackendPatternConfig(f"{norm}({conv})", dtypes, fused=conv)
        yield from (BackendPatternConfig(f"{relu}({norm}({conv}))", dtypes, fused=fused) for relu in _RELUS)
        transposed = f"nn.ConvTranspose{d}d"
        yield _weighted(transposed, dtypes)
        yield BackendPatternConfig(f"{norm}({transposed})", dtypes, fused=transposed)
        yield _weighted(f"F.conv_transpose{d}d", dtypes)


def _conv_add_rows(dtypes):
    """Convolutions that add a second tensor, in both orders of the operands, with a batch norm and without; oneDNN alone."""
    conv, norm = "nn.Conv2d", "nn.BatchNorm2d(nn.Conv2d)"
    for outer, fused in (("{}", "nni.ConvAdd2d"), ("nn.ReLU({})", "nni.ConvAddReLU2d")):
        for operands, (layer, add) in product(("{}, *", "*, {}"), product((norm, conv), _ADDS)):
            yield BackendPatternConfig(outer.format(f"{add}({operands.format(layer)})"), dtypes, fused=fused)
        yield _weighted(fused, dtypes)


def _linear_rows(dtypes):
    yield _weighted("nn.Linear", dtypes)
    yield _weighted("F.linear", dtypes)
    yield from _eltwise_rows(dtypes, _RELUS, "nni.LinearReLU")
    yield BackendPatternConfig("nn.BatchNorm1d(nn.Linear)", dtypes, fused="nn.Linear")


def _eltwise_rows(dtypes, functions, fused):
    yield from (BackendPatternConfig(f"{f}(nn.Linear)", dtypes, fused=fused) for f in functions)
    yield _weighted(fused, dtypes)
    yield from (BackendPatternConfig(f"{f}(F.linear)", dtypes) for f in functions)


def _linear_post_rows(dtypes):
    """What oneDNN alone adds."""
    yield from _eltwise_rows(dtypes, ("nn.LeakyReLU", "F.leaky_relu"), "nni.LinearLeakyReLU")
    yield BackendPatternConfig("nn.LeakyReLU(nn.BatchNorm1d(nn.Linear))", dtypes, fused="nni.LinearLeakyReLU")
    yield from _eltwise_rows(dtypes, ("nn.Tanh", "torch.tanh"), "nni.LinearTanh")


def _binary_rows(dtypes):
    for op in ("operator.add", "torch.add", "operator.mul", "torch.mul"):
        yield from (BackendPatternConfig(f"{relu}({op})", dtypes, BY_TENSORS) for relu in (*_RELUS, "torch.relu"))
        yield BackendPatternConfig(op, dtypes, BY_TENSORS)
    yield BackendPatternConfig("torch.matmul", dtypes)


_DEFAULT = (
    *(f"nn.{m}" for m in ("ELU", "LeakyReLU", "Hardswish", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "Dropout", "PReLU")),
    *(f"F.{f}" for f in ("elu", "hardswish", "leaky_relu", "dropout", "group_norm", "instance_norm")),
)  # fmt: skip

_PASSING = (
    *(f"nn.{kind}{d}d" for kind in ("AdaptiveAvgPool", "AvgPool") for d in (1, 2, 3)), "nn.Hardtanh", "nn.Identity", *(f"nn.MaxPool{d}d" for d in (1, 2, 3)),
    "nn.PixelShuffle", "nn.PixelUnshuffle", "nn.ReLU", "nn.ReLU6", "F.adaptive_avg_pool1d", "F.adaptive_avg_pool2d", "F.adaptive_avg_pool3d",
    "F.hardtanh", "F.hardtanh_", "F.interpolate", "F.max_pool1d", "F.max_pool2d", "F.max_pool3d", "F.pixel_shuffle", "F.pixel_unshuffle", "F.relu", "F.relu6",
    "F.avg_pool1d", "F.avg_pool2d", "F.avg_pool3d", "torch.clamp", "torch.flatten", "torch.mean", "torch.narrow", "torch.repeat_interleave",
    "torch.transpose", "torch.squeeze", "torch.stack", "torch.unsqueeze", "operator.floordiv", ".contiguous", ".clamp", ".detach", ".detach_", ".mean",
    ".permute", ".repeat", ".repeat_interleave", ".reshape", ".resize_", ".relu", ".relu_", ".squeeze", ".squeeze_", ".transpose", ".unsqueeze", ".unsqueeze_", ".view",
)  # fmt: skip


def _other_rows(codes, binary, norm, infos):
    yield BackendPatternConfig("torch.cat", codes, SHARE)
    yield from (BackendPatternConfig(target, codes) for target in _DEFAULT)
    for target, fixed in FIXED_TARGETS.items():
        yield BackendPatternConfig(target, tuple(c._replace(input=_constrained(c.input, fixed), output=_constrained(c.output, fixed)) for c in binary))
    yield from (BackendPatternConfig(target, codes, SHARE) for target in _PASSING)
    if infos:
        yield from (BackendPatternConfig(target, codes, NOT_OBSERVED) for target in (".shape", ".size"))
    for d in (2, 3):
        yield from (BackendPatternConfig(f"{relu}(nn.BatchNorm{d}d)", codes, fused=f"nni.BNReLU{d}d") for relu in _RELUS)
        yield BackendPatternConfig(f"nn.BatchNorm{d}d", codes)
    yield from (BackendPatternConfig(f"nni.BNReLU{d}d", codes) for d in (2, 3))
    if norm:
        yield from (BackendPatternConfig(target, norm) for target in ("nn.LayerNorm", "F.layer_norm"))


def _constrained(dtype, fixed):
    return dtype._replace(**{k: getattr(fixed, k) for k in ("quant_min", "quant_max", "scale", "zero_point")}) if dtype.dtype == fixed.dtype else dtype


def _rnn_rows(dtypes, embedding):
    yield from (_weighted(f"nn.{m}", dtypes) for m in ("GRUCell", "LSTMCell", "RNNCell", "LSTM", "GRU"))
    yield from (_weighted(f"nn.{m}", embedding) for m in ("Embedding", "EmbeddingBag"))


def _weighted(pattern, dtypes):
    return BackendPatternConfig(pattern, dtypes, weighted=True)


@lru_cache(maxsize=None)
def get_backend_config(name="native"):
    """Return one of PyTorch's tables.

    Parameters
    ----------
    name : {"native", "fbgemm", "x86", "onednn", "qnnpack"}
        ``"native"`` is the one that PyTorch's ``prepare_fx`` takes, whatever the engine, unless it is given another.

    Returns
    -------
    BackendConfig

    Examples
    --------
    >>> onednn, native = get_backend_config("onednn"), get_backend_config()
    >>> [c.pattern for c in onednn.fusions if c not in native.fusions][:2]
    ['torch.add(nn.BatchNorm2d(nn.Conv2d), *)', 'operator.add(nn.BatchNorm2d(nn.Conv2d), *)']
    """
    choose("get_backend_config", "name", name, BACKEND_CONFIGS)
    symmetric = name == "qnnpack"
    weighted = (_WEIGHTED_SYMMETRIC,) * symmetric + (_WEIGHTED,)
    codes = (_CODES_SYMMETRIC,) * symmetric + (_CODES,)
    dynamic = (_DYNAMIC,) if name == "onednn" else (_DYNAMIC, _DYNAMIC_HALF)
    # PyTorch writes the x86 engine's sums down with the dtypes of weighted layers, which asks nothing more of layers without weights.
    binary = (_WEIGHTED,) if name == "x86" else codes
    norm = (_NORM,) if name in ("native", "onednn") else ()
    rows = [*_conv_rows(weighted), *(_conv_add_rows(weighted) if name == "onednn" else ()), *_linear_rows(weighted + dynamic)]
    if name == "onednn":
        rows += _linear_post_rows(weighted + dynamic)
    rows += [*_binary_rows(binary), *_other_rows(codes, binary, norm, name in ("native", "fbgemm", "x86"))]
    embedding = (DTypeConfig(_REAL, _REAL, _S8),) if name == "onednn" else _EMBEDDING
    return BackendConfig(name, [*rows, *_rnn_rows(dynamic, embedding)])
