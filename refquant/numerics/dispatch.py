"""The x86 engine's choice between oneDNN and FBGEMM, made when weights are packed."""

__all__ = ["uses_onednn"]


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
