"""`choose_kernel`: which of an engine's kernels computes a layer, and by which of its rules."""

from typing import NamedTuple

from refquant import numerics
from refquant.errors import choose
from refquant.isa.cpu import level as processor_level
from refquant.isa.products import takes_fbgemm_depthwise, takes_fbgemm_direct
from refquant.isa.sequences import sequence_used
from refquant.numerics.dispatch import resolve, uses_onednn
from refquant.numerics.profile import Dispatch

__all__ = ["ENGINES", "Kernel", "choose_kernel", "why_not_onednn", "takes_groupwise", "takes_pointwise"]

ENGINES = ("x86", "fbgemm", "onednn")


class Kernel(NamedTuple):
    """A kernel and the rule that chose it.

    Attributes
    ----------
    engine : {"fbgemm", "onednn", "aten"}
    name : str
        oneDNN's as ``ONEDNN_VERBOSE=1`` prints it.
    unit : {"fp32", "pairs", "dot", "tile", "reference", "none"}
        The instructions that multiply, see `refquant.isa.sequences`.
    path : str
        ``gemm``, ``pointwise``, ``im2col``, ``depthwise``, ``groupwise``, ``direct``, ``conv``, ``reference`` or ``elementwise``.
    reason : str
    """

    engine: str
    name: str
    unit: str
    path: str
    reason: str


def choose_kernel(layer, engine, level, *, linux=True):
    """Return the `Kernel` of a layer under an engine of PyTorch on a processor level.

    Parameters
    ----------
    layer : Layer
    engine : {"x86", "fbgemm", "onednn"}
    level : str
        A level of `refquant.isa.cpu.LEVELS`.
    linux : bool

    Raises
    ------
    UnsupportedError
        The engine does not run on such a processor.

    Source
    ------
    PyTorch OnednnUtils.h (`refquant.numerics.dispatch.uses_onednn`), qlinear_prepack.cpp; FBGEMM FbgemmConv.cc and GroupwiseConv.cc; oneDNN 3.12,
    ``ONEDNN_VERBOSE=1`` on SSE4.1, AVX2 and AVX512-VNNI; names on other levels, and of transposed convolutions on AVX-512, are held against no engine.

    Examples
    --------
    >>> from refquant.perf.layers import Layer
    >>> kernel = choose_kernel(Layer("fc", "linear", "int8", "product", m=1, n=1000, k=512), "x86", "avx512_vnni")
    >>> kernel.engine, kernel.reason
    ('fbgemm', 'x86 sends every linear layer to FBGEMM')
    """
    choose("simulate", "engine", engine, ENGINES)
    if layer.dtype != "int8":
        return _float(layer)
    if layer.kind != "product" or layer.op == "matmul":
        return Kernel("aten", layer.op, "none", "elementwise", "ATen's own kernel under every engine")
    if engine != "x86":
        reason = f"engine {engine} computes all layers itself"
        return (_fbgemm if engine == "fbgemm" else _onednn)(layer, level, reason)
    if layer.geometry is None:
        return _fbgemm(layer, level, "x86 sends every linear layer to FBGEMM")
    against = why_not_onednn(layer, level, linux=linux)
    if against:
        return _fbgemm(layer, level, f"not oneDNN: {against[0]}")
    return _onednn(layer, level, "AVX512-VNNI, at most 100 groups, symmetric weights" + (", no output padding" if layer.transposed else ""))


def why_not_onednn(layer, level, *, linux=True):
    """Return the conditions that keep the x86 engine from giving a convolution to oneDNN; empty where none does.

    Each condition is put to `refquant.numerics.dispatch.uses_onednn` alone, with all others met, so the rule stands in one place.
    """
    vnni = "AVX512-VNNI" in processor_level(level).extensions
    met = dict(groups=1, zero_points=(0,), output_padding=(), per_channel_transposed=False, vnni=True, linux=True)
    asked = {
        "linux": (linux, "the system is not Linux"),
        "vnni": (vnni, "no AVX512-VNNI"),
        "groups": (layer.groups, "more than 100 groups"),
        "zero_points": (layer.weight_zero_points, "weights with a zero point"),
        "per_channel_transposed": (layer.transposed and layer.per_channel, "transposed, with weights per channel"),
        "output_padding": (layer.output_padding, "an output padding"),
    }
    return [text for key, (value, text) in asked.items() if not uses_onednn(**{**met, key: value})]


def takes_groupwise(geometry, level):
    """Whether FBGEMM takes its groupwise kernels: 3x3, padding 1, equal 2, 4, 8 or 16 channels in and out, and groups enough for a register.

    Source
    ------
    FBGEMM, src/GroupwiseConv.cc, ``fbgemmOptimizedGConv``; src/PackWeightMatrixForGConv.cc, ``numOfGroupsTogether``.
    """
    width = 64 if "AVX512F" in processor_level(level).extensions else 32
    if geometry.ic != geometry.oc or geometry.ic not in (2, 4, 8, 16) or len(geometry.kernel) == 1:
        return False
    together = max(width // geometry.oc // max(geometry.ic, 4), 1)
    square = set(geometry.kernel) == {3} and set(geometry.padding) == {1} and set(geometry.dilation) == {1}
    return geometry.groups >= together and square and geometry.stride[-2:] in ((1, 1), (2, 2))


def takes_pointwise(geometry):
    """Whether FBGEMM takes a convolution for a matrix product: kernel, stride and dilation 1, no padding."""
    return set(geometry.kernel + geometry.stride + geometry.dilation) == {1} and not any(geometry.padding)


def _float(layer):
    if layer.kind != "product":
        return Kernel("aten", layer.op, "none", "elementwise", "float32")
    name = {"linear": "mkl sgemm", "matmul": "mkl sgemm"}.get(layer.op, "onednn convolution")
    return Kernel("aten", name, "fp32", "depthwise" if _depthwise(layer) else "conv" if layer.geometry else "gemm", "float32")


def _depthwise(layer):
    return layer.geometry is not None and layer.groups > 1 and layer.geometry.ic == 1


def _fbgemm(layer, level, reason):
    unit = _unit("fbgemm", level)
    if layer.geometry is None:
        return Kernel("fbgemm", "fbgemmPacked", unit, "gemm", reason)
    g = layer.geometry
    if layer.transposed:
        if takes_fbgemm_direct(g):
            return Kernel("fbgemm", "directconv", "pairs", "direct", f"{reason}; one group, kernel 2x1 to 2x6, channels in eights, no padding")
        return Kernel("fbgemm", "im2col", unit, "im2col", f"{reason}; transposed")
    if takes_fbgemm_depthwise(g):
        return Kernel("fbgemm", "depthwise", "pairs", "depthwise", f"{reason}; depthwise, a square of 3, 5 or 7, channels in eights, padding that keeps the size")
    if takes_groupwise(g, level):
        return Kernel("fbgemm", "groupwise", unit, "groupwise", f"{reason}; 3x3, groups of {g.ic} channels")
    if takes_pointwise(g):
        return Kernel("fbgemm", "pointwise", unit, "pointwise", f"{reason}; 1x1, stride 1: a matrix product as it lies")
    return Kernel("fbgemm", "im2col", unit, "im2col", f"{reason}; no special kernel fits, so its windows are laid out as a matrix")


def _unit(engine, level):
    return sequence_used(engine, level)[0].name


def _onednn(layer, level, reason):
    extensions, g = processor_level(level).extensions, layer.geometry
    unit, isa = _unit("onednn", level), _onednn_isa(level)
    # Kernels generated around a batch of small products; older ones below AVX-512 and AVX-VNNI.
    brgemm = "AVX512F" in extensions or unit == "dot"
    if g is None:
        return Kernel("onednn", f"brg_matmul:{isa}" if brgemm else "gemm:jit", unit, "gemm", reason)
    if layer.transposed:
        return Kernel("onednn", f"deconvolution:{isa}" if brgemm else f"jit_uni_int8:{isa}", unit, "conv", f"{reason}; transposed")
    rule = _onednn_exception(g, level)
    if rule == "onednn_reference":
        return Kernel("onednn", "ref:any", "reference", "reference", f"{reason}; its fast kernels take groups of channels in fours alone")
    path = "depthwise" if _depthwise(layer) and g.oc == 1 else "pointwise" if set(g.kernel) == {1} and g.groups == 1 else "conv"
    if rule is not None:
        name = "jit_uni_int8" if rule == "onednn_groups" else "jit_int8"
        return Kernel("onednn", f"{name}:{isa}", unit, path, f"{reason}; {'groups of channels in fours' if rule == 'onednn_groups' else 'a depthwise volume'}")
    if brgemm:
        narrow = isa.replace("amx", "vnni") if path == "depthwise" else isa
        # The depthwise kernel is one for images.
        name = "brdgmm_dw" if path == "depthwise" and len(g.kernel) < 3 else "brgconv_1x1" if path == "pointwise" else "brg_conv_fwd"
        return Kernel("onednn", f"{name}:{narrow}", "dot" if path == "depthwise" and unit == "tile" else unit, path, reason + "; depthwise" * (path == "depthwise"))
    return Kernel("onednn", f"{'jit_uni_int8_1x1' if path == 'pointwise' else 'jit_uni_int8'}:{isa}", unit, path, reason + "; depthwise" * (path == "depthwise"))


def _onednn_exception(geometry, level):
    """Return the rule by which oneDNN takes another kernel than usual on a level, as the profile of that level has it, or None."""
    form = numerics.get(f"onednn@{level}").conv
    if not isinstance(form, Dispatch):
        return None
    w_shape = (geometry.oc * geometry.groups, geometry.ic, *geometry.kernel)
    return form.rule if resolve(form, x_shape=None, w_shape=w_shape, groups=geometry.groups, zero_points=(0,)) is form.yes else None


def _onednn_isa(level):
    return {"amx_int8": "avx512_core_amx", "avx512_vnni": "avx512_core_vnni"}.get(level, processor_level(level).onednn.lower())
