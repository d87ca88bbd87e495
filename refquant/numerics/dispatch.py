"""Rules by which an engine chooses between two forms: when it packs the weights of a convolution, or at the call of a sum or pool."""

from refquant.numerics.profile import Dispatch

__all__ = ["resolve", "resolve_call", "uses_onednn", "uses_onednn_reference", "is_depthwise_volume", "uses_depthwise_volume", "goes_to_qnnpack"]


def resolve(form, *, x_shape, w_shape, groups, zero_points, output_padding=(), per_channel_transposed=False, vnni=None, kernel=None):
    """Return the form that a convolution is computed by: `form` itself, or what the rule of a `Dispatch` chooses.

    Parameters
    ----------
    form : ProductForm or Dispatch
    x_shape, w_shape : tuple of int
    groups : int
    zero_points : sequence of int
        Of the weights.
    output_padding : sequence of int
        Of a transposed convolution.
    per_channel_transposed : bool
        Whether it is one whose weights are quantized per channel.
    vnni : bool, optional
        Whether the processor has AVX512-VNNI, where it is another than the form's.
    kernel : str, optional
        Of a transposed convolution below AVX-512: which of oneDNN's kernels would take it, see `refquant.numerics.onednn_transposed`.
    """
    if not isinstance(form, Dispatch):
        return form
    if form.rule == "depthwise_volume":
        chosen = uses_depthwise_volume(x_shape=x_shape, w_shape=w_shape, groups=groups)
    elif form.rule == "onednn_reference":
        chosen = uses_onednn_reference(w_shape=w_shape, groups=groups)
    elif form.rule == "onednn_transposed":
        chosen = kernel != "direct"
    elif form.rule == "symmetric":
        chosen = not any(zero_points)
    elif form.rule == "onednn_volume":
        chosen = is_depthwise_volume(w_shape=w_shape, groups=groups)
    elif form.rule == "onednn_groups":
        chosen = groups > 1 and w_shape[1] % 4 == 0 and w_shape[0] // groups % 4 == 0
    else:
        asked = form.vnni if vnni is None or form.rule == "x86_held" else vnni
        chosen = uses_onednn(
            groups=groups, zero_points=zero_points, output_padding=output_padding, per_channel_transposed=per_channel_transposed, vnni=asked
        )
    inner = form.yes if chosen else form.no
    return resolve(inner, x_shape=x_shape, w_shape=w_shape, groups=groups, zero_points=zero_points, vnni=vnni, kernel=kernel)


def uses_onednn(*, groups, zero_points, output_padding=(), per_channel_transposed=False, vnni=True, linux=True):
    """Whether PyTorch's x86 engine packs a convolution for oneDNN.

    True when the system is Linux and the CPU has AVX512-VNNI (AVX-VNNI does not count) and ``groups <= 100`` and all weight
    zero points are 0 (per-channel weights of a transposed convolution count as not symmetric) and every output padding is 0.
    Linear layers always go to FBGEMM.

    Source
    ------
    PyTorch 2.13, aten/src/ATen/native/quantized/cpu/OnednnUtils.h, ``should_use_onednn_quant``.

    Examples
    --------
    >>> uses_onednn(groups=100, zero_points=[0]), uses_onednn(groups=101, zero_points=[0])
    (True, False)
    """
    symmetric = not any(zero_points) and not per_channel_transposed
    return bool(linux and vnni and groups <= 100 and symmetric and not any(output_padding))


def uses_onednn_reference(*, w_shape, groups):
    """Whether oneDNN on SSE4.1 and AVX2 leaves a convolution to its reference kernel, ref_int8: groups, but not in fours, and depthwise volumes.

    Source
    ------
    oneDNN 3.12, src/cpu/x64/jit_uni_x8s8s32x_conv_kernel.cpp, ``init_conf``.

    Examples
    --------
    >>> uses_onednn_reference(w_shape=(8, 4, 3, 3), groups=2), uses_onednn_reference(w_shape=(6, 3, 3, 3), groups=2)
    (False, True)
    """
    ic, oc = w_shape[1], w_shape[0] // groups
    if groups == 1:
        return False
    return len(w_shape) == 5 if ic == oc == 1 else bool(ic % 4 or oc % 4)


def is_depthwise_volume(*, w_shape, groups):
    """Whether a convolution has three dimensions and one input and output channel in each of several groups.

    On AVX-512 without VNNI oneDNN computes these alone by jit_avx512_core_x8s8s32x.

    Examples
    --------
    >>> is_depthwise_volume(w_shape=(8, 1, 3, 3, 3), groups=8)
    True
    """
    return len(w_shape) == 5 and groups > 1 and w_shape[:2] == (groups, 1)


def uses_depthwise_volume(*, x_shape, w_shape, groups):
    """Whether QNNPACK takes its depthwise kernel of 27 taps, which multiplies in float64: 3x3x3, one output a channel, several channels.

    Source
    ------
    PyTorch 2.13, aten/src/ATen/native/quantized/cpu/qnnpack/src/q8dwconv/mp8x27-sse2.c; the rule by trial of 25 geometries.

    Examples
    --------
    >>> uses_depthwise_volume(x_shape=(1, 8, 5, 6, 7), w_shape=(8, 1, 3, 3, 3), groups=8)
    True
    """
    return tuple(w_shape[2:]) == (3, 3, 3) and groups > 1 and groups == x_shape[1] == w_shape[0]


def resolve_call(form, *, dtype, even=True):
    """Return the form that a sum or pool is computed by: `form` itself, or what the rule of a `Dispatch` chooses.

    Parameters
    ----------
    form : Form
    dtype : str
        Of the codes.
    even : bool
        Of a pool: whether no window may hang over the image (``ceil_mode``) and adaptive windows are parts of one size.
    """
    while isinstance(form, Dispatch):
        form = form.yes if goes_to_qnnpack(dtype=dtype, even=even) else form.no
    return form


def goes_to_qnnpack(*, dtype, even=True):
    """Whether PyTorch gives a sum or pool to QNNPACK where that is the engine: of uint8, without ``ceil_mode``, and adaptive ones whose parts are all of one size.

    Source
    ------
    PyTorch 2.13, aten/src/ATen/native/quantized/cpu: qadd.cpp, Pooling.cpp, AveragePool2d.cpp, AdaptiveAveragePooling.cpp.

    Examples
    --------
    >>> goes_to_qnnpack(dtype="uint8", even=True), goes_to_qnnpack(dtype="int8", even=True)
    (True, False)
    """
    return dtype == "uint8" and even
