"""conv_transpose1d, conv_transpose2d, conv_transpose3d: transposed convolutions on codes."""

from typing import NamedTuple

import numpy as np

from refquant import numerics as profiles
from refquant.core.arguments import check_room
from refquant.core.epilogue import Epilogue, apply_epilogue
from refquant.core.layout import empty_channels_last
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, RangeError, ShapeError, UnsupportedError
from refquant.isa.accumulate import accumulate_conv, neighbours
from refquant.isa.products import ConvGeometry, Product, takes_fbgemm_direct
from refquant.kernels.conv import conv_requantize, pack_conv
from refquant.kernels.conv_pairs import bind_conv_s16pair, pack_paired
from refquant.kernels.requantize import requantize
from refquant.numerics.dispatch import resolve
from refquant.numerics.onednn_transposed import LEVELS, Transposed, transposed_kernel
from refquant.numerics.range_forms import RangeProductForm
from refquant.numerics.tail_forms import TransposedTailForm
from refquant.ops.arguments import check_eight_bit, check_product_out, check_qtensor, sides
from refquant.ops.output_stage import check_bias, output_stage
from refquant.ops.pairing import has_vnni, transposed_product
from refquant.ops.pack_weights import as_qtensor, flipped_weights
from refquant.ops.range_stage import transposed_range_stage
from refquant.ops.transposed_taps import exact_taps, in_halves, saturated_taps, saturated_taps_reference, sum_taps

__all__ = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "conv_transpose_reference"]


class _Geometry(NamedTuple):
    stride: tuple
    padding: tuple
    dilation: tuple
    full: tuple  # the output's sides before its padding is cut off
    out: tuple

    def places(self, tap, size):
        """Where the inputs' products with one tap lie in the full output."""
        steps = zip(tap, self.dilation, self.stride, size)
        return tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, s, n in steps)

    def cut(self, array, first):
        """Cut the padding off a full array, whose sides begin at axis `first`."""
        return array[(slice(None),) * first + tuple(slice(p, p + o) for p, o in zip(self.padding, self.out))]


class _Plan(NamedTuple):
    x: QTensor
    w: QTensor
    packed: object
    groups: int
    geometry: _Geometry
    accumulator: str
    product: Product
    epilogue: Epilogue
    dtype: np.dtype
    tail: tuple = None  # the first of the last channels, and their output stage


def _plan(dims, x, w, bias, stride, padding, output_padding, dilation, groups, out, numerics, activation, isa):
    op = f"conv_transpose{dims}d"
    profile = profiles.get(numerics)
    profile = profile.on(isa, f"{op}[{profile.name}]")
    place = f"{op}[{profile.name}]"
    w, packed = as_qtensor(w, "w", place)
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    _check_weight(check_eight_bit(check_qtensor(w, "w", place, per_channel=True), "w", place), place, dims + 2)
    geometry = _geometry(dims, x.shape, w.shape, stride, padding, output_padding, dilation, groups, place)
    if packed is not None and not (packed.transposed and packed.groups == groups):
        raise ArgumentError(f"{place}: w was packed otherwise; pack it with pack_weights(w, groups={groups}, transposed=True)")
    channels = w.shape[1] * groups
    bias = check_bias(bias, channels, place)
    check_product_out(out, place)
    section = profile.section("conv_transpose", op)
    kernel = _onednn_kernel(profile, x, w, groups, geometry)
    form = resolve(
        section, x_shape=x.shape, w_shape=w.shape, groups=groups, zero_points=np.atleast_1d(w.qparams.zero_point),
        output_padding=sides(output_padding, "output_padding", dims, place, least=0), per_channel_transposed=w.qparams.per_channel, vnni=has_vnni(profile.isa), kernel=kernel,
    )  # fmt: skip
    saturating = transposed_product(profile, form is getattr(section, "no", None), x, w, groups, place, kernel)
    if isinstance(form, RangeProductForm):
        epilogue = transposed_range_stage(form, x.qparams, w, out, bias, activation, place, groups=groups, geometry=geometry)
        x = _shifted(x) if getattr(saturating, "shift", 0) else x
        return _Plan(x, w, packed, groups, geometry, "exact", saturating, epilogue, out.storage)
    epilogue = output_stage(form, x.qparams, _output_channels(w.qparams, groups), out, bias, channels, activation, place)
    accumulator = form.accumulator
    if accumulator.startswith("fbgemm_direct") and not _takes_direct_path(x, w, groups, geometry):
        accumulator = "exact"
    if accumulator == "fbgemm_direct_rows" and x.shape[0] > 1:
        raise UnsupportedError(f"{place}: the engine's kernel computes the first image alone and leaves the memory of {x.shape[0] - 1} more as it was; give one image")
    plan = _Plan(x, w, packed, groups, geometry, accumulator, saturating, epilogue, out.storage)
    if not isinstance(form, TransposedTailForm) or not channels % max(form.vector, 1):
        return plan
    stage = output_stage(form.replace(arithmetic=form.tail), x.qparams, _output_channels(w.qparams, groups), out, bias, channels, activation, place)
    return plan._replace(tail=(channels // max(form.vector, 1) * form.vector, stage))


def _shifted(x):
    """The same numbers as uint8, which the engine multiplies in place of int8."""
    return QTensor((x.values.view(np.uint8) ^ np.uint8(0x80)), QParams(x.qparams.scale, int(x.qparams.zero_point) + 128, "uint8"))


def _check_weight(w, place, ndim):
    if w.ndim != ndim:
        raise ShapeError(f"{place}: w has shape {w.shape} but must have {ndim} dimensions, (IC, OC / groups, kernel)")
    if w.qparams.per_channel and w.qparams.axis != 1:
        raise ArgumentError(f"{place}: w is quantized along axis {w.qparams.axis} but output channels are axis 1; quantize along axis 1")


def _geometry(dims, x_shape, w_shape, stride, padding, output_padding, dilation, groups, place):
    if len(x_shape) != dims + 2:
        raise ShapeError(f"{place}: x has shape {x_shape} but must have {dims + 2} dimensions, (N, IC, {'D, H, W'[-3 * dims + 2 :]})")
    (groups,) = sides(groups, "groups", 1, place, least=1)
    if x_shape[1] != w_shape[0] or w_shape[0] % groups:
        raise ShapeError(f"{place}: x has IC={x_shape[1]}, w {w_shape} and groups={groups}; w must be (IC, OC / groups, kernel) and IC a multiple of groups")
    stride = sides(stride, "stride", dims, place, least=1)
    padding = sides(padding, "padding", dims, place, least=0)
    more = sides(output_padding, "output_padding", dims, place, least=0)
    dilation = sides(dilation, "dilation", dims, place, least=1)
    for s, d, m in zip(stride, dilation, more):
        if m >= max(s, d):
            raise RangeError(f"{place}: output_padding={output_padding!r} must be smaller than stride {stride} or dilation {dilation}; reduce it")
    full = tuple((n - 1) * s + d * (k - 1) + 1 + m for n, s, d, k, m in zip(x_shape[2:], stride, dilation, w_shape[2:], more))
    out = tuple(f - 2 * p for f, p in zip(full, padding))
    if min(out) < 1 or min(w_shape[2:]) < 1 or min(x_shape[2:]) < 1:
        raise ShapeError(f"{place}: x {x_shape} and w {w_shape} give an output of sides {out}; enlarge the input or reduce its padding")
    check_room((x_shape[0], max(w_shape[0], w_shape[1] * groups), *(f + d * (k - 1) for f, d, k in zip(full, dilation, w_shape[2:]))), "the input with zeros between", place)
    return _Geometry(stride, padding, dilation, full, out)


def _output_channels(p, groups):
    """The parameters of weights by output channel: those along axis 1 hold for every group."""
    if not p.per_channel:
        return p
    return QParams(np.tile(p.scale, groups), np.tile(p.zero_point, groups), p.dtype, axis=0, quant_min=p.qmin, quant_max=p.qmax)


def _takes_direct_path(x, w, groups, geometry):
    shape = ConvGeometry(groups, w.shape[0] // groups, w.shape[1], tuple(w.shape[2:]), geometry.stride, geometry.padding, geometry.dilation, 1)
    return x.values.dtype == np.uint8 and w.values.dtype == np.int8 and takes_fbgemm_direct(shape)


def _onednn_kernel(profile, x, w, groups, geometry):
    """The kernel of oneDNN that takes it, where the profile's level is one of those that choose; else an empty name."""
    if profile.isa not in LEVELS:
        return ""
    return transposed_kernel(Transposed.of(x.shape, w.shape, groups, geometry.stride, geometry.padding, geometry.dilation, geometry.out), profile.isa)


def _shuffled_blocks(plan):
    """The weights that oneDNN multiplies by: the blocks of a kernel, in the memory of a group, read as (OC, IC) and then in that order again."""
    w, groups = plan.w.values, plan.groups
    ic, oc, *kernel = w.shape
    blocks = w.reshape(groups, oc, ic // groups, -1)
    mixed = np.swapaxes(blocks, 1, 2).reshape(groups, oc, ic // groups, -1)
    return np.swapaxes(mixed, 1, 2).reshape(w.shape)


def _spread(x, zero, geometry, kernel):
    """Put zeros between the inputs and around them, so that a convolution of step 1 is the transposed one; channels last."""
    reach = [d * (k - 1) for d, k in zip(geometry.dilation, kernel)]
    wide = empty_channels_last((*x.shape[:2], *(o + r for o, r in zip(geometry.out, reach))), x.dtype)
    wide[...] = zero
    put, take = [slice(None)] * 2, [slice(None)] * 2
    for n, s, p, r, total in zip(x.shape[2:], geometry.stride, geometry.padding, reach, wide.shape[2:]):
        first = max(0, -((r - p) // s))
        last = min(n, (total - 1 - (r - p)) // s + 1)
        take.append(slice(first, max(last, first)))
        put.append(slice(first * s + r - p, (last - 1) * s + r - p + 1, s) if last > first else slice(0, 0))
    wide[tuple(put)] = x[tuple(take)]
    return wide


def _by_taps(plan):
    """Whether an engine adds up tap by tap, pairs of channels saturating: FBGEMM's direct kernel, and oneDNN below AVX-512."""
    return plan.accumulator.startswith("fbgemm_direct") or (plan.product is not None and plan.product.order == "channels")


def _run(plan):
    qx, qw = plan.x.qparams, _output_channels(plan.w.qparams, plan.groups)
    if _by_taps(plan):
        return _finish(_summed(plan, saturated_taps), plan, requantize)
    kernel = plan.w.shape[2:]
    spread = _spread(plan.x.values, qx.zero_point, plan.geometry, kernel)
    geometry = {"stride": (1,) * len(kernel), "padding": ((0, 0),) * len(kernel), "dilation": plan.geometry.dilation}
    zeros = {"x_zero": qx.zero_point, "w_zero": qw.zero_point}
    if plan.product is not None:
        w = flipped_weights(_weights(plan), plan.groups)
        places = neighbours(plan.product.order, w.shape[1], kernel)
        paired = pack_paired(w, plan.groups, places, False, padding=geometry["padding"], dilation=geometry["dilation"])
        return bind_conv_s16pair(spread.shape, paired, plan.epilogue, plan.dtype, **geometry, **zeros)(spread)
    if plan.packed is not None and plan.accumulator == "exact":
        packed = plan.packed.packed
    else:
        packed = pack_conv(flipped_weights(_weights(plan), plan.groups), plan.groups)
    return _with_tail(plan, lambda stage: conv_requantize(spread, packed, stage, plan.dtype, **geometry, **zeros))


def _accumulate(plan):
    """The accumulators in NumPy, (N, *out, OC)."""
    zeros = {"x_zero": plan.x.qparams.zero_point, "w_zero": plan.w.qparams.zero_point}
    if _by_taps(plan):
        return _summed(plan, saturated_taps_reference)
    if plan.product is None:
        return exact_taps(plan.x.values, _weights(plan), plan.groups, plan.geometry, **zeros)
    one, none = (1,) * len(plan.geometry.out), (0,) * len(plan.geometry.out)
    spread = _spread(plan.x.values, plan.x.qparams.zero_point, plan.geometry, plan.w.shape[2:])
    acc = accumulate_conv(
        spread, flipped_weights(_weights(plan), plan.groups), plan.product, x_zero_point=plan.x.qparams.zero_point,
        w_zero_point=_output_channels(plan.w.qparams, plan.groups).zero_point, stride=one, padding=none, dilation=plan.geometry.dilation, groups=plan.groups,
    )  # fmt: skip
    return np.moveaxis(acc, 1, -1)


def _summed(plan, taps):
    x, w, g = plan.x.values, _weights(plan), plan.geometry
    lines = g._replace(stride=(1, g.stride[1])) if plan.accumulator == "fbgemm_direct_rows" else g
    zero = _output_channels(plan.w.qparams, plan.groups).zero_point
    halves = (0, -1) if plan.product is None else plan.product.halves
    return sum_taps(taps(*in_halves(x, w, plan.groups, halves), plan.groups), x, w, plan.groups, g, x_zero=plan.x.qparams.zero_point, w_zero=zero, lines=lines)


def _with_tail(plan, compute):
    """Carry out the output stage, and that of the last channels where they have one of their own."""
    y = compute(plan.epilogue)
    if plan.tail is not None:
        first, stage = plan.tail
        y[:, first:] = compute(stage)[:, first:]
    return y


def _weights(plan):
    return _shuffled_blocks(plan) if plan.accumulator == "onednn_blocks" else plan.w.values


def _finish(acc, plan, stage):
    """Carry out the output stage on (N, *out, OC)."""
    y = empty_channels_last((acc.shape[0], acc.shape[-1], *acc.shape[1:-1]), plan.dtype)
    np.moveaxis(y, 1, -1)[...] = stage(np.ascontiguousarray(acc), plan.epilogue, plan.dtype)
    return y


def conv_transpose2d(
    x, w, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None, isa=None
):  # fmt: skip
    """Compute a two-dimensional transposed convolution on codes.

    ``acc[n, o, i·s + kh·d − p, j·s + kw·d − p] += (x[n, c, i, j] − zx) · (w[c, o, kh, kw] − zw[o])`` in int32 over all c, i, j, kh, kw,
    then the profile's output stage.

    Parameters
    ----------
    x : QTensor, (N, IC, H, W)
        uint8 or int8, per tensor; contiguous or channels last.
    w : QTensor or PackedWeights, (IC, OC / groups, KH, KW)
        Per tensor, or per channel along axis 1 (each group with the same scales).
    bias : array_like, (OC,), optional
        float32 in real units, or int32 in units of ``x.scale * w.scale``.
    stride, padding, output_padding, dilation : int or pair of int
        ``output_padding`` enlarges the output at its end, where it only sees what falls there.
    groups : int
    out : QParams
        Of the output.
    numerics : str or Numerics
        Whose arithmetic. The profiles compute what is meant; what oneDNN and FBGEMM make of some shapes instead is
        ``onednn+shuffled_transpose``, ``fbgemm+overlapping_transpose`` and ``x86+defective_transpose``.
    activation : {None, "relu"}
    isa : str, optional
        The processor level of the engine, as for `conv2d`: without VNNI pairs of products saturate.

    Returns
    -------
    QTensor, (N, OC, OH, OW)
        ``OH = (H − 1)·s − 2·p + d·(KH − 1) + output_padding + 1``, in channels-last strides.

    Raises
    ------
    ShapeError, ArgumentError, RangeError
        Shapes that do not fit, an empty output, an ``output_padding`` that is no smaller than stride and dilation.
    UnsupportedError
        The engine has no integer kernel for it, as ONNX Runtime, which dequantizes; what it does on that level was not measured.

    Exactness
    ---------
    The accumulator is exact modulo 2**32, but for FBGEMM's direct kernel (one group, kernel 2x1 … 2x6, channels in eights, no padding), which
    saturates pairs of channels to int16, and for what `isa` makes saturate (see `refquant.isa.products`). Bit-exact.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> x = rq.QTensor(np.array([[[[11, 12]]]], np.uint8), rq.QParams(1.0, 10, "uint8"))
    >>> w = rq.QTensor(np.array([[[[1, 2, 3]]]], np.int8), rq.QParams(1.0, 0, "int8"))
    >>> rq.ops.conv_transpose2d(x, w, stride=2, out=rq.QParams(1.0, 0, "uint8"), numerics="qnnpack").values
    array([[[[1, 2, 5, 4, 6]]]], dtype=uint8)
    """
    plan = _plan(2, x, w, bias, stride, padding, output_padding, dilation, groups, out, numerics, activation, isa)
    return QTensor(_run(plan), out)


def conv_transpose1d(
    x, w, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None, isa=None
):  # fmt: skip
    """Compute a one-dimensional transposed convolution on codes: `conv_transpose2d` with x (N, IC, W) and w (IC, OC / groups, KW)."""
    plan = _plan(1, x, w, bias, stride, padding, output_padding, dilation, groups, out, numerics, activation, isa)
    return QTensor(_run(plan), out)


def conv_transpose3d(
    x, w, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None, isa=None
):  # fmt: skip
    """Compute a three-dimensional transposed convolution on codes: `conv_transpose2d` with x (N, IC, D, H, W) and w (IC, OC / groups, KD, KH, KW)."""
    plan = _plan(3, x, w, bias, stride, padding, output_padding, dilation, groups, out, numerics, activation, isa)
    return QTensor(_run(plan), out)


def conv_transpose_reference(
    x, w, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None, isa=None
):  # fmt: skip
    """Same result as `conv_transpose1d`, `conv_transpose2d` and `conv_transpose3d`, in NumPy."""
    plan = _plan(getattr(w, "ndim", 4) - 2, x, w, bias, stride, padding, output_padding, dilation, groups, out, numerics, activation, isa)
    acc = _accumulate(plan)
    return QTensor(_with_tail(plan, lambda stage: _finish(acc, plan._replace(epilogue=stage), apply_epilogue)), out)
