"""conv_transpose1d, conv_transpose2d, conv_transpose3d: transposed convolutions on codes."""

from itertools import product
from typing import NamedTuple

import numpy as np

from refquant import numerics as profiles
from refquant.core.epilogue import Epilogue, apply_epilogue
from refquant.core.layout import empty_channels_last
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.core.wrap import saturate_int16, wrap_int32
from refquant.errors import ArgumentError, RangeError, ShapeError, UnsupportedError
from refquant.kernels.conv import conv_requantize, pack_conv
from refquant.kernels.pairs import gemm_s16pair_s32
from refquant.kernels.requantize import requantize
from refquant.numerics.dispatch import resolve
from refquant.ops.arguments import check_eight_bit, check_out, check_qtensor, sides
from refquant.ops.output_stage import check_bias, output_stage
from refquant.ops.pairing import has_vnni
from refquant.ops.pack_weights import as_qtensor, flipped_weights

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
    epilogue: Epilogue
    dtype: np.dtype


def _plan(dims, x, w, bias, stride, padding, output_padding, dilation, groups, out, numerics, activation):
    profile = profiles.get(numerics)
    op = f"conv_transpose{dims}d"
    place = f"{op}[{profile.name}]"
    w, packed = as_qtensor(w, "w", place)
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    _check_weight(check_eight_bit(check_qtensor(w, "w", place, per_channel=True), "w", place), place, dims + 2)
    geometry = _geometry(dims, x.shape, w.shape, stride, padding, output_padding, dilation, groups, place)
    if packed is not None and not (packed.transposed and packed.groups == groups):
        raise ArgumentError(f"{place}: w was packed otherwise; pack it with pack_weights(w, groups={groups}, transposed=True)")
    channels = w.shape[1] * groups
    bias = check_bias(bias, channels, place)
    check_out(out, place)
    form = resolve(
        profile.section("conv_transpose", op), x_shape=x.shape, w_shape=w.shape, groups=groups, zero_points=np.atleast_1d(w.qparams.zero_point),
        output_padding=sides(output_padding, "output_padding", dims, place, least=0), per_channel_transposed=w.qparams.per_channel,
    )  # fmt: skip
    if profile.isa is not None and profile.pairing.conv != "exact" and not has_vnni(profile.isa):
        raise UnsupportedError(f"{place}: which sums of a transposed convolution saturate on {profile.isa} is not known; choose a profile with isa=None")
    epilogue = output_stage(form, x.qparams, _output_channels(w.qparams, groups), out, bias, channels, activation, place)
    accumulator = form.accumulator
    if accumulator.startswith("fbgemm_direct") and not _takes_direct_path(x, w, groups, geometry):
        accumulator = "exact"
    if accumulator == "fbgemm_direct_rows" and x.shape[0] > 1:
        raise UnsupportedError(f"{place}: the engine's kernel computes the first image alone and leaves the memory of {x.shape[0] - 1} more as it was; give one image")
    return _Plan(x, w, packed, groups, geometry, accumulator, epilogue, out.storage)


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
    return _Geometry(stride, padding, dilation, full, out)


def _output_channels(p, groups):
    """The parameters of weights by output channel: those along axis 1 hold for every group."""
    if not p.per_channel:
        return p
    return QParams(np.tile(p.scale, groups), np.tile(p.zero_point, groups), p.dtype, axis=0, quant_min=p.qmin, quant_max=p.qmax)


def _takes_direct_path(x, w, groups, geometry):
    """FBGEMM's rule for its direct kernel, which saturates pairs of channels and sets one row of the kernel below the other."""
    return (
        len(geometry.out) == 2
        and groups == 1
        and x.values.dtype == np.uint8
        and w.values.dtype == np.int8
        and x.shape[1] % 8 == 0
        and w.shape[1] % 8 == 0
        and w.shape[2] == 2
        and w.shape[3] <= 6
        and all(s in (1, 2) for s in geometry.stride)
        and not any(geometry.padding)
        and geometry.dilation == (1, 1)
    )


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


def _run(plan):
    qx, qw = plan.x.qparams, _output_channels(plan.w.qparams, plan.groups)
    if plan.accumulator.startswith("fbgemm_direct"):
        return _finish(_direct(plan, _tap_products(plan)), plan, requantize)
    if plan.packed is not None and plan.accumulator == "exact":
        packed = plan.packed.packed
    else:
        packed = pack_conv(flipped_weights(_weights(plan), plan.groups), plan.groups)
    kernel = plan.w.shape[2:]
    return conv_requantize(
        _spread(plan.x.values, qx.zero_point, plan.geometry, kernel), packed, plan.epilogue, plan.dtype, x_zero=qx.zero_point, w_zero=qw.zero_point,
        stride=(1,) * len(kernel), padding=((0, 0),) * len(kernel), dilation=plan.geometry.dilation,
    )  # fmt: skip


def _weights(plan):
    return _shuffled_blocks(plan) if plan.accumulator == "onednn_blocks" else plan.w.values


def _finish(acc, plan, stage):
    """Carry out the output stage on (N, *out, OC)."""
    y = empty_channels_last((acc.shape[0], acc.shape[-1], *acc.shape[1:-1]), plan.dtype)
    np.moveaxis(y, 1, -1)[...] = stage(np.ascontiguousarray(acc), plan.epilogue, plan.dtype)
    return y


def _tap_products(plan):
    """The saturating products of the direct kernel, (N, H, W, KH, KW, OC)."""
    x, w = plan.x.values, plan.w.values
    rows = np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(-1, x.shape[1])
    taps = np.ascontiguousarray(np.moveaxis(w, 1, -1)).reshape(w.shape[0], -1)
    return gemm_s16pair_s32(rows, taps).reshape(x.shape[0], *x.shape[2:], *w.shape[2:], w.shape[1])


def _tap_products_reference(plan):
    x, w = np.moveaxis(plan.x.values, 1, -1).astype(np.int64), np.moveaxis(plan.w.values, 1, -1).astype(np.int64)
    total = 0
    for i in range(0, x.shape[-1], 2):
        total = total + saturate_int16(np.tensordot(x[..., i : i + 2], w[i : i + 2], 1))
    return total


def _direct(plan, products):
    """FBGEMM's direct kernel: raw products at their places, then what zero points take from them."""
    g = plan.geometry
    right = g
    if plan.accumulator == "fbgemm_direct_rows":
        g = g._replace(stride=(1, g.stride[1]))
    n, *size = products.shape[:3]
    channels = products.shape[-1]
    acc, rows = np.zeros((n, *right.full, channels), np.int64), np.zeros((n, *right.full, 1), np.int64)
    columns, count = np.zeros((*right.full, channels), np.int64), np.zeros((*right.full, 1), np.int64)
    sums = plan.x.values.sum(1, dtype=np.int64)[..., None]
    w = plan.w.values.sum(0, dtype=np.int64)
    for i, j in product(*map(range, products.shape[3:5])):
        here = g.places((i, j), size)
        acc[(slice(None), *here)] += products[:, :, :, i, j]
        rows[(slice(None), *here)] += sums
        here = right.places((i, j), size)
        columns[here] += w[:, i, j]
        count[here] += plan.x.shape[1]
    zero = np.asarray(plan.w.qparams.zero_point)
    return wrap_int32(acc - plan.x.qparams.zero_point * (columns - zero * count) - zero * rows)


def _scattered(plan):
    """Every input adds its multiple of the kernel to the output, (N, OC, *out)."""
    g, groups = plan.geometry, plan.groups
    x = plan.x.values.astype(np.int64) - plan.x.qparams.zero_point
    zero = np.reshape(plan.w.qparams.zero_point, (1, -1, *[1] * len(g.out)))
    w = (_weights(plan).astype(np.int64) - zero).reshape(groups, -1, *plan.w.shape[1:])
    x = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    acc = np.zeros((x.shape[0], groups, w.shape[2], *g.full), np.int64)
    for tap in np.ndindex(*plan.w.shape[2:]):
        acc[(..., *g.places(tap, x.shape[3:]))] += np.einsum("ngc...,gco->ngo...", x, w[(..., *tap)])
    return wrap_int32(g.cut(acc, 3)).reshape(x.shape[0], -1, *g.out)


def conv_transpose2d(
    x, w, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None
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

    Returns
    -------
    QTensor, (N, OC, OH, OW)
        ``OH = (H − 1)·s − 2·p + d·(KH − 1) + output_padding + 1``, in channels-last strides.

    Raises
    ------
    ShapeError, ArgumentError, RangeError
        Shapes that do not fit, an empty output, an ``output_padding`` that is no smaller than stride and dilation.
    UnsupportedError
        The engine has no integer kernel for it, as ONNX Runtime, which dequantizes.

    Exactness
    ---------
    The accumulator is exact modulo 2**32, but for FBGEMM's direct kernel (one group, kernel 2x1 … 2x6, channels in eights, no padding), which
    saturates pairs of channels to int16. Bit-exact.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> x = rq.QTensor(np.array([[[[11, 12]]]], np.uint8), rq.QParams(1.0, 10, "uint8"))
    >>> w = rq.QTensor(np.array([[[[1, 2, 3]]]], np.int8), rq.QParams(1.0, 0, "int8"))
    >>> rq.ops.conv_transpose2d(x, w, stride=2, out=rq.QParams(1.0, 0, "uint8"), numerics="qnnpack").values
    array([[[[1, 2, 5, 4, 6]]]], dtype=uint8)
    """
    plan = _plan(2, x, w, bias, stride, padding, output_padding, dilation, groups, out, numerics, activation)
    return QTensor(_run(plan), out)


def conv_transpose1d(
    x, w, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None
):  # fmt: skip
    """Compute a one-dimensional transposed convolution on codes: `conv_transpose2d` with x (N, IC, W) and w (IC, OC / groups, KW)."""
    plan = _plan(1, x, w, bias, stride, padding, output_padding, dilation, groups, out, numerics, activation)
    return QTensor(_run(plan), out)


def conv_transpose3d(
    x, w, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None
):  # fmt: skip
    """Compute a three-dimensional transposed convolution on codes: `conv_transpose2d` with x (N, IC, D, H, W) and w (IC, OC / groups, KD, KH, KW)."""
    plan = _plan(3, x, w, bias, stride, padding, output_padding, dilation, groups, out, numerics, activation)
    return QTensor(_run(plan), out)


def conv_transpose_reference(
    x, w, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None
):  # fmt: skip
    """Same result as `conv_transpose1d`, `conv_transpose2d` and `conv_transpose3d`, in NumPy."""
    plan = _plan(w.ndim - 2, x, w, bias, stride, padding, output_padding, dilation, groups, out, numerics, activation)
    if plan.accumulator.startswith("fbgemm_direct"):
        acc = _direct(plan, _tap_products_reference(plan))
    else:
        acc = np.moveaxis(_scattered(plan), 1, -1)
    return QTensor(_finish(acc, plan, apply_epilogue), out)
