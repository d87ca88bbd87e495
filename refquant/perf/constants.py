"""The constants of the roofline: what is assumed, what is published, and what is fitted, to which figures."""

from typing import NamedTuple

__all__ = ["Constants", "CONSTANTS", "FITTED"]


class Constants(NamedTuple):
    """What the model does not derive from a machine and a network.

    Attributes
    ----------
    multiply : float
        Share of the INT8 peak that a product with full registers reaches, FBGEMM's and oneDNN's alike. Fitted.
    call : float
        Seconds that the framework spends on one call of an operator, of whatever engine and dtype. Fitted.
    fbgemm_call : float
        Seconds beyond it of a call of FBGEMM. Fitted.
    fbgemm_value : float
        Cycles a core spends on each output of FBGEMM, whose kernels but the depthwise ones write int32 sums to a buffer as large as the output,
        read them again and requantize. Fitted.
    aten_value : float
        Cycles a core spends on each output of an operator of ATen that computes on codes by way of real numbers. Fitted.
    fp32 : float
        Share of the float32 peak that a convolution reaches. Fitted to a single figure, see `refquant.perf.published`.
    float_passes : float
        Times that a float32 convolution moves its tensors: read, written in blocks of channels, and read again. By count.
    dram : float
        Share of the memory's peak rate that streams reach. Assumed.
    tile_share : float
        Share of its peak that tdpbusd reaches where vpdpbusd reaches all of its own: 2.97 of 8, the geometric mean of four products in
        ONNX Runtime's pull request 14042 (3.7, 2.7, 3.0, 2.6).
    reference : float
        Operations a cycle of oneDNN's reference kernel. Assumed.
    view_call : float
        Seconds of a call that only looks at a tensor otherwise. Assumed.
    """

    multiply: float
    call: float
    fbgemm_call: float
    fbgemm_value: float
    aten_value: float
    fp32: float
    float_passes: float
    dram: float
    tile_share: float
    reference: float
    view_call: float


#: What `refquant.perf.published.fit` finds, to three digits; a test repeats it.
FITTED = ("multiply", "call", "fbgemm_call", "fbgemm_value", "aten_value")

CONSTANTS = Constants(
    multiply=0.868, call=21.5e-6, fbgemm_call=31.8e-6, fbgemm_value=6.80, aten_value=2.45, fp32=0.495, float_passes=3.0, dram=0.9, tile_share=2.97 / 8, reference=0.5,
    view_call=2e-6,
)  # fmt: skip
