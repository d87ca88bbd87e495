"""conv1d, conv2d, conv3d: convolutions on codes."""

from typing import NamedTuple

import numpy as np

from refquant import numerics as profiles
from refquant.core.epilogue import Epilogue, apply_epilogue
from refquant.core.layout import empty_channels_last
from refquant.core.qtensor import QTensor
from refquant.core.wrap import saturate_int16, wrap_int32
from refquant.errors import ArgumentError, ShapeError
from refquant.kernels.conv import bind_conv
from refquant.kernels.requantize import requantize
from refquant.numerics.dispatch import resolve
from refquant.ops.arguments import check_eight_bit, check_out, check_qtensor, check_weight, sides
from refquant.ops.output_stage import check_bias, output_stage, real_stage
from refquant.ops.pack_weights import PackedWeights, as_qtensor, is_reusable, pack_weights

__all__ = ["conv1d", "conv2d", "conv3d", "conv_reference"]


class _Plan(NamedTuple):
    x: QTensor
    w: QTensor
    packed: object
    groups: int
    geometry: dict
    pairs: bool
    epilogue: Epilogue
    dtype: np.dtype
    pairs_epilogue: Epilogue = None


def _bound(dims, x, w, bias, stride, padding, dilation, groups, out, numerics, activation):
    """The layer as a function of the codes alone, remembered by packed weights."""
    profile = profiles.get(numerics)
    make = lambda: _bind(_plan(dims, x, w, bias, stride, padding, dilation, groups, out, profile, activation))  # noqa: E731
    if not is_reusable(x, w, bias):
        return make()
    values = (dims, x.shape, x.values.dtype, stride, padding, dilation, groups, activation)
    return w.memo.get((x.qparams, out, profile, bias), values, make)


def _plan(dims, x, w, bias, stride, padding, dilation, groups, out, profile, activation):
    place = f"conv{dims}d[{profile.name}]"
    w, packed = as_qtensor(w, "w", place)
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    check_weight(check_eight_bit(check_qtensor(w, "w", place, per_channel=True), "w", place), place, dims + 2)
    geometry = _geometry(dims, x.shape, w.shape, stride, padding, dilation, groups, place)
    if packed is not None and packed.groups != groups:
        raise ArgumentError(f"{place}: w was packed for groups={packed.groups} but groups={groups}; pack it with groups={groups}")
    channels = w.shape[0]
    bias = check_bias(bias, channels, place)
    if out is None:
        form = profile.section("conv_real", place.partition("[")[0])
        epilogue = real_stage(form, x.qparams, w.qparams, bias, channels, activation, place)
        return _Plan(x, w, packed, groups, geometry, False, epilogue, np.dtype(np.float32))
    check_out(out, place)
    zeros = np.atleast_1d(w.qparams.zero_point)
    form = resolve(profile.section("conv", place.partition("[")[0]), x_shape=x.shape, w_shape=w.shape, groups=groups, zero_points=zeros)
    pairs = form.accumulator == "fbgemm_depthwise" and _takes_depthwise_path(x, w, groups, geometry)
    epilogue = output_stage(form, x.qparams, w.qparams, out, bias, channels, activation, place)
    plan = _Plan(x, w, packed, groups, geometry, pairs, epilogue, out.storage)
    if not pairs:
        return plan
    return plan._replace(pairs_epilogue=epilogue._replace(bias_i=wrap_int32(epilogue.bias_i.astype(np.int64) + _pairs_compensation(plan))))


def _geometry(dims, x_shape, w_shape, stride, padding, dilation, groups, place):
    if len(x_shape) != dims + 2:
        raise ShapeError(f"{place}: x has shape {x_shape} but must have {dims + 2} dimensions, (N, IC, {'D, H, W'[-3 * dims + 2 :]})")
    (groups,) = sides(groups, "groups", 1, place, least=1)
    if x_shape[1] != w_shape[1] * groups or w_shape[0] % groups:
        raise ShapeError(
            f"{place}: x has IC={x_shape[1]}, w {w_shape} and groups={groups}; IC must be {w_shape[1]} * groups and OC a multiple of groups"
        )
    stride = sides(stride, "stride", dims, place, least=1)
    padding = sides(padding, "padding", dims, place, least=0)
    dilation = sides(dilation, "dilation", dims, place, least=1)
    for n, k, p, d in zip(x_shape[2:], w_shape[2:], padding, dilation):
        if k < 1 or n + 2 * p < d * (k - 1) + 1:
            raise ShapeError(
                f"{place}: kernel {w_shape[2:]} with dilation {dilation} is larger than the padded input {x_shape[2:]} + 2*{padding};"
                " enlarge the input or its padding"
            )
    return {"stride": stride, "padding": tuple((p, p) for p in padding), "dilation": dilation}


def _takes_depthwise_path(x, w, groups, geometry):
    """FBGEMM's rule for its depthwise kernels (FbgemmConv.cc, takeDepthWiseFastPath), which saturate pairs of taps."""
    ic, oc, kernel = x.shape[1], w.shape[0], w.shape[2:]
    side = kernel[-1]
    return (
        len(kernel) > 1
        and groups == ic
        and oc in (ic, 2 * ic)
        and ic % 8 == 0
        and x.values.dtype == np.uint8
        and w.values.dtype == np.int8
        and side in (3, 5, 7)
        and all(k == side for k in kernel)
        and all(s in (1, 2) for s in geometry["stride"])
        and all(d == 1 for d in geometry["dilation"])
        and all(p == ((side - 1) // 2,) * 2 for p in geometry["padding"])
    )


def _pairs_compensation(plan):
    """Zero-point terms that FBGEMM subtracts after its saturating depthwise sum, but for those of `_row_offsets`."""
    w = plan.w.values.astype(np.int64).reshape(plan.w.shape[0], -1)
    return -plan.x.qparams.zero_point * (w - np.reshape(plan.w.qparams.zero_point, (-1, 1))).sum(1)


def _row_offsets(plan):
    """What weights' zero points take from the saturating depthwise sum: ``zw[o]`` times the sum of raw codes in the window."""
    windows = _windows(plan).sum(tuple(range(-len(plan.geometry["stride"]), 0)))
    windows = np.repeat(windows, plan.w.shape[0] // plan.x.shape[1], axis=1)
    zero = np.broadcast_to(plan.w.qparams.zero_point, (plan.w.shape[0],))
    return windows * zero.reshape(1, -1, *[1] * (windows.ndim - 2))


def _bind(plan):
    packed, qx, qw = plan.packed or pack_weights(plan.w, groups=plan.groups), plan.x.qparams, plan.w.qparams
    shape, zeros = plan.x.shape, {"x_zero": qx.zero_point, "w_zero": qw.zero_point}
    if not plan.pairs:
        return bind_conv(shape, packed.packed, plan.epilogue, plan.dtype, **plan.geometry, **zeros)
    if qw.symmetric:
        return bind_conv(shape, packed.packed, plan.pairs_epilogue, plan.dtype, **plan.geometry, **zeros, pairs=True)
    pairs = bind_conv(shape, packed.packed, None, np.dtype(np.int32), **plan.geometry, **zeros, pairs=True)

    def run(codes):
        acc = wrap_int32(pairs(codes).astype(np.int64) - _row_offsets(plan._replace(x=QTensor(codes, qx))))
        return np.moveaxis(requantize(np.moveaxis(acc, 1, -1), plan.pairs_epilogue, plan.dtype), -1, 1)

    return run


def conv2d(
    x, w, bias=None, *, stride=1, padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None
):  # fmt: skip
    """Compute a two-dimensional convolution on codes.

    ``acc[n, o, i, j] = Σ (x[n, c, i·s + kh·d − p, j·s + kw·d − p] − zx) · (w[o, c, kh, kw] − zw[o])`` in int32, padding
    contributing 0, then the profile's output stage.

    Parameters
    ----------
    x : QTensor, (N, IC, H, W)
        uint8 or int8, per tensor; contiguous or channels last.
    w : QTensor or PackedWeights, (OC, IC / groups, KH, KW)
        Per tensor or per channel along axis 0.
    bias : array_like, (OC,), optional
        float32 in real units, or int32 in units of ``x.scale * w.scale``.
    stride, padding, dilation : int or pair of int
    groups : int
    out : QParams, optional
        Of the output; None asks for float32, where the engine has such a form.
    numerics : str or Numerics
        Whose arithmetic. The x86 profile chooses between oneDNN and FBGEMM as PyTorch does.
    activation : {None, "relu"}

    Returns
    -------
    QTensor, or ndarray of float32, (N, OC, OH, OW)
        In channels-last strides, as PyTorch's kernels leave it.

    Raises
    ------
    ShapeError, ArgumentError, RangeError
        Shapes that do not fit, a kernel larger than the padded input, strides below 1.
    UnsupportedError
        The engine has no float32 output.

    Exactness
    ---------
    The accumulator is exact modulo 2**32, but for FBGEMM's depthwise kernels, which add pairs of taps with int16 saturation even
    on CPUs with VNNI. The output stage rounds as the profile's `ProductForm` says; bit-exact.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> x = rq.QTensor(np.full((1, 1, 3, 3), 12, np.uint8), rq.QParams(0.5, 10, "uint8"))
    >>> w = rq.QTensor(np.ones((1, 1, 3, 3), np.int8), rq.QParams(0.5, 0, "int8"))
    >>> rq.ops.conv2d(x, w, padding=1, out=rq.QParams(0.5, 0, "uint8"), numerics="onednn").values[0, 0]
    array([[4, 6, 4],
           [6, 9, 6],
           [4, 6, 4]], dtype=uint8)
    """
    run = _bound(2, x, w, bias, stride, padding, dilation, groups, out, numerics, activation)
    y = run(x.values)
    return y if out is None else QTensor(y, out)


def conv1d(
    x, w, bias=None, *, stride=1, padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None
):  # fmt: skip
    """Compute a one-dimensional convolution on codes: `conv2d` with x (N, IC, W) and w (OC, IC / groups, KW)."""
    run = _bound(1, x, w, bias, stride, padding, dilation, groups, out, numerics, activation)
    y = run(x.values)
    return y if out is None else QTensor(y, out)


def conv3d(
    x, w, bias=None, *, stride=1, padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None
):  # fmt: skip
    """Compute a three-dimensional convolution on codes: `conv2d` with x (N, IC, D, H, W) and w (OC, IC / groups, KD, KH, KW)."""
    run = _bound(3, x, w, bias, stride, padding, dilation, groups, out, numerics, activation)
    y = run(x.values)
    return y if out is None else QTensor(y, out)


def conv_reference(
    x, w, bias=None, *, stride=1, padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None
):  # fmt: skip
    """Same result as `conv1d`, `conv2d` and `conv3d`, in NumPy."""
    dims = w.ndim - 2
    plan = _plan(dims, x, w, bias, stride, padding, dilation, groups, out, profiles.get(numerics), activation)
    acc = np.moveaxis(_accumulate(plan), 1, -1)
    y = empty_channels_last((acc.shape[0], acc.shape[-1], *acc.shape[1:-1]), plan.dtype)
    np.moveaxis(y, 1, -1)[...] = apply_epilogue(acc, plan.epilogue, plan.dtype)
    return y if out is None else QTensor(y, out)


def _windows(plan):
    """Return the raw codes that each output sees, (N, IC, *out, *kernel), padded with the zero point."""
    g = plan.geometry
    x = np.pad(plan.x.values, ((0, 0), (0, 0), *g["padding"]), constant_values=plan.x.qparams.zero_point).astype(np.int64)
    reach = [d * (k - 1) + 1 for k, d in zip(plan.w.shape[2:], g["dilation"])]
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=tuple(range(2, x.ndim)))
    steps = (slice(None), slice(None), *(slice(None, None, s) for s in g["stride"]), *(slice(None, None, d) for d in g["dilation"]))
    return windows[steps]


def _accumulate(plan):
    w = plan.w.values.astype(np.int64)
    windows = _windows(plan)
    n, _, *out = windows.shape[: w.ndim]
    windows = windows.reshape(n, plan.groups, -1, *out, int(np.prod(w.shape[2:])))
    w = w.reshape(plan.groups, w.shape[0] // plan.groups, w.shape[1], -1)
    if plan.pairs:
        acc = _pair_sums(windows, w) + _pairs_compensation(plan).reshape(1, plan.groups, -1, *[1] * len(out))
        acc = acc.reshape(n, plan.w.shape[0], *out) - _row_offsets(plan)
    else:
        zero = np.broadcast_to(plan.w.qparams.zero_point, (plan.w.shape[0],)).reshape(plan.groups, -1, 1, 1)
        acc = np.einsum("ngc...t,goct->ngo...", windows - plan.x.qparams.zero_point, w - zero)
    return wrap_int32(acc.reshape(n, plan.w.shape[0], *out))


def _pair_sums(windows, w):
    products = np.expand_dims(windows[:, :, 0], 2) * w[:, :, 0].reshape(1, *w.shape[:2], *[1] * (windows.ndim - 4), -1)
    even = products.shape[-1] // 2 * 2
    pairs = saturate_int16(products[..., 0:even:2] + products[..., 1:even:2])
    return pairs.sum(-1) + products[..., even:].sum(-1)
