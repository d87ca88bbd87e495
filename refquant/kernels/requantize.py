"""The output stage on accumulators that are already there.

    acc    [row][channel]    int32, channels innermost
    out    [row][channel]    uint8, int8, int32 or float32
"""

import numpy as np

from refquant.kernels.finish import finish_tile
from refquant.kernels.jit import jit_disabled, kernel, parallel_for
from refquant.kernels.plain import plain_requantize
from refquant.kernels.signature import as_input, freeze_epilogue
from refquant.kernels.stage import BYTES, make_stage, output_kind

__all__ = ["requantize"]


@kernel
def _requantize_rows(first, last, acc, out, item, stage):
    channels = acc.shape[1]
    finish_tile(
        acc.ctypes.data + first * channels * 4, channels * 4, last - first, channels, 0,
        out.ctypes.data + first * channels * item, channels * item, 0, 0, stage.ctypes.data,
    )  # fmt: skip


def requantize(acc, epilogue, dtype):
    """Turn int32 accumulators into output codes: `refquant.core.epilogue.apply_epilogue`, bit for bit.

    Parameters
    ----------
    acc : ndarray of int32, (..., N)
        Channels last.
    epilogue : Epilogue
    dtype : numpy.dtype
        uint8, int8, int32 or float32; float32 stops before the output scale.

    Returns
    -------
    ndarray of `dtype`, (..., N)
    """
    out = np.empty(acc.shape, dtype)
    if not out.size:
        return out
    channels = acc.shape[-1]
    rows, kind = as_input(acc.reshape(-1, channels)), output_kind(dtype)
    grain = max(1, 65536 // channels)
    if jit_disabled():
        codes = out.view(np.uint8) if kind == BYTES else out
        parallel_for(plain_requantize, rows.shape[0], rows, codes.reshape(rows.shape), kind, freeze_epilogue(epilogue))
    else:
        memory = out.reshape(-1).view(np.uint8)
        parallel_for(_requantize_rows, rows.shape[0], rows, memory, out.itemsize, make_stage(epilogue, kind, False), grain=grain)
    return out
