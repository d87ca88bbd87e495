"""conv1d, conv2d, conv3d: convolutions on codes."""

from typing import NamedTuple

import numpy as np

from refquant import numerics as profiles
from refquant.core.arguments import check_room
from refquant.core.epilogue import Epilogue, apply_epilogue
from refquant.core.layout import empty_channels_last
from refquant.core.qtensor import QTensor
from refquant.core.wrap import wrap_int32
from refquant.errors import ArgumentError, ShapeError
from refquant.isa.accumulate import accumulate_conv, neighbours
from refquant.isa.products import Product, in_fours
from refquant.kernels.conv import bind_conv
from refquant.kernels.conv_pairs import bind_conv_s16pair, pack_paired
from refquant.kernels.requantize import requantize
from refquant.numerics.dispatch import resolve
from refquant.numerics.tail_forms import DepthwiseTailForm
from refquant.numerics.range_forms import RangeProductForm
from refquant.ops.arguments import check_eight_bit, check_product_out, check_qtensor, check_weight, sides
from refquant.ops.kept import kept
from refquant.ops.output_stage import check_bias, output_stage, real_stage
from refquant.ops.pairing import conv_geometry, conv_product, halved, has_vnni
from refquant.ops.pack_weights import as_qtensor, bias_key, is_reusable, pack_weights
from refquant.ops.post_operations import is_plain, post_operations, relu_of_reference
from refquant.ops.range_stage import check_packing, range_stage

__all__ = ["conv1d", "conv2d", "conv3d", "conv_reference", "bind_convolution"]


class _Plan(NamedTuple):
    x: QTensor
    w: QTensor
    packed: object
    groups: int
    geometry: dict
    product: Product
    epilogue: Epilogue
    dtype: np.dtype
    post: str
    cut: bool = False
    tail: tuple = None


def bind_convolution(
    dims, x, w, bias=None, *, stride=1, padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None, isa=None
):  # fmt: skip
    """Return a convolution as a function of the codes of `x` alone, for any of this shape and dtype; packed weights remember it."""
    profile = profiles.get(numerics)
    make = lambda: _bind(_plan(dims, x, w, bias, stride, padding, dilation, groups, out, profile, activation, isa))  # noqa: E731
    if not is_reusable(x, w, bias):
        return make()
    objects, numbers = bias_key(bias)
    values = (dims, x.shape, x.values.dtype, stride, padding, dilation, groups, activation, isa, *numbers)
    return w.memo.get((x.qparams, out, profile, *objects), values, make)


def _plan(dims, x, w, bias, stride, padding, dilation, groups, out, profile, activation, isa):
    profile = profile.on(isa, f"conv{dims}d[{profile.name}]")
    place = f"conv{dims}d[{profile.name}]"
    w, packed = as_qtensor(w, "w", place)
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    check_weight(check_eight_bit(check_qtensor(w, "w", place, per_channel=True), "w", place), place, dims + 2)
    geometry = _geometry(dims, x.shape, w.shape, stride, padding, dilation, groups, place)
    if packed is not None and packed.transposed:
        raise ArgumentError(f"{place}: w was packed for a transposed convolution; pack it with pack_weights(w, groups={groups})")
    if packed is not None and packed.groups != groups:
        raise ArgumentError(f"{place}: w was packed for groups={packed.groups} but groups={groups}; pack it with groups={groups}")
    channels = w.shape[0]
    bias = check_bias(bias, channels, place)
    name = place.partition("[")[0]
    section = profile.section("conv_real" if out is None else "conv", name)
    zeros = np.atleast_1d(w.qparams.zero_point)
    form = resolve(section, x_shape=x.shape, w_shape=w.shape, groups=groups, zero_points=zeros, vnni=has_vnni(profile.isa))
    otherwise = form is getattr(section, "no", None)
    cut = out is None and activation == "relu" and form.post == "reference"
    if out is None:
        epilogue, dtype = real_stage(form, x.qparams, w.qparams, bias, channels, None if cut else activation, place), np.dtype(np.float32)
    else:
        check_product_out(out, place)
        if isinstance(form, RangeProductForm):
            epilogue = range_stage(form, x.qparams, w, out, bias, activation, place, groups=groups, stride=geometry["stride"])
        else:
            epilogue = output_stage(form, x.qparams, w.qparams, out, bias, channels, activation, place)
        dtype = out.storage
    product = conv_product(profile, form, otherwise, x, w, groups, geometry, place)
    if product is not None and isinstance(form, RangeProductForm) and not in_fours(conv_geometry(x.shape, w.shape, groups, geometry)):
        check_packing(epilogue, x, w, groups, place)
    plan = _Plan(x, w, packed, groups, geometry, product, epilogue, dtype, getattr(form, "post", None), cut)
    if not isinstance(form, DepthwiseTailForm) or groups == 1 or channels % form.vector == 0:
        return plan
    stage = output_stage(form.replace(arithmetic=form.tail), x.qparams, w.qparams, out, bias, channels, activation, place)
    return plan._replace(tail=(channels // form.vector * form.vector, stage))


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
    wide = [n + 2 * p for n, p in zip(x_shape[2:], padding)]
    check_room((*x_shape[:2], *wide), "the padded input", place)
    check_room((x_shape[0], w_shape[0], *((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(wide, w_shape[2:], stride, dilation))), "the output", place)
    return {"stride": stride, "padding": tuple((p, p) for p in padding), "dilation": dilation}


def _bind(plan):
    if plan.cut:
        whole = _bind(plan._replace(cut=False))
        return lambda codes: relu_of_reference(whole(codes))
    zeros = {"x_zero": plan.x.qparams.zero_point, "w_zero": plan.w.qparams.zero_point}
    if plan.product is not None:
        return _bind_halved(plan) if plan.product.halved else _bind_paired(plan, zeros)
    packed = plan.packed or pack_weights(plan.w, groups=plan.groups)
    body = bind_conv(plan.x.shape, packed.packed, plan.epilogue, plan.dtype, **plan.geometry, **zeros)
    if plan.tail is None:
        return body
    first, stage = plan.tail
    tail = bind_conv(plan.x.shape, packed.packed, stage, plan.dtype, **plan.geometry, **zeros)

    def run(codes):
        y = body(codes)
        y[:, first:] = tail(codes)[:, first:]
        return y

    return run


def _bind_paired(plan, zeros):
    geometry, skips = plan.geometry, plan.product.fill == "nothing"
    places = neighbours(plan.product.order, plan.w.shape[1], plan.w.shape[2:], plan.product.halves)
    w = pack_paired(plan.w.values, plan.groups, places, skips, padding=geometry["padding"], dilation=geometry["dilation"])
    return bind_conv_s16pair(plan.x.shape, w, plan.epilogue, plan.dtype, **geometry, **zeros)


def _bind_halved(plan):
    """oneDNN's way with signed activations: the exact convolution by half of the weights, doubled."""
    finish = lambda acc: np.moveaxis(requantize(np.moveaxis(acc, 1, -1), plan.epilogue, plan.dtype), -1, 1)  # noqa: E731
    if np.any(plan.w.qparams.zero_point):
        return lambda codes: finish(_accumulate(plan, codes))
    packed = pack_weights(QTensor(halved(plan.w.values), plan.w.qparams), groups=plan.groups).packed
    half = bind_conv(plan.x.shape, packed, None, np.dtype(np.int32), **plan.geometry, x_zero=plan.x.qparams.zero_point)
    return lambda codes: finish(wrap_int32(2 * half(codes).astype(np.int64)))


def conv2d(
    x, w, bias=None, *, stride=1, padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None, isa=None, other=None
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
    activation : None, str or tuple
        ``"relu"``; of conv2d, where the profile has post-operations, also ``("hardtanh", low, high)``, ``"hardswish"`` or ``"swish"``.
    isa : str, optional
        The processor level of the engine, such as ``"avx2"``: where it has no VNNI, products saturate in pairs as the engine adds them
        there, and the x86 profile sends everything to FBGEMM. Unless given, the processor that the profile describes.
    other : QTensor or ndarray of float32, (N, OC, OH, OW), optional
        Of conv2d: added before the activation, where the profile has post-operations.

    Returns
    -------
    QTensor, or ndarray of float32, (N, OC, OH, OW)
        In channels-last strides, as PyTorch's kernels leave it.

    Raises
    ------
    ShapeError, ArgumentError, RangeError
        Shapes that do not fit, a kernel larger than the padded input, strides below 1.
    UnsupportedError
        The engine has no float32 output, or what it does on that level is not known; or `out` is not of 8 bits, which no engine writes.

    Exactness
    ---------
    The accumulator is exact modulo 2**32, but for FBGEMM's depthwise kernels, which add pairs of taps with int16 saturation even
    on CPUs with VNNI, and for what `isa` makes saturate (see `refquant.isa.products`). The output stage rounds as the profile's `ProductForm` says; bit-exact.

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
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    y = _compute(2, x, w, bias, out, numerics, activation, isa, other, settings)
    return y if out is None else QTensor(y, out)


def conv1d(
    x, w, bias=None, *, stride=1, padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None, isa=None, other=None
):  # fmt: skip
    """Compute a one-dimensional convolution on codes: `conv2d` with x (N, IC, W) and w (OC, IC / groups, KW)."""
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    y = _compute(1, x, w, bias, out, numerics, activation, isa, other, settings)
    return y if out is None else QTensor(y, out)


def conv3d(
    x, w, bias=None, *, stride=1, padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None, isa=None, other=None
):  # fmt: skip
    """Compute a three-dimensional convolution on codes: `conv2d` with x (N, IC, D, H, W) and w (OC, IC / groups, KD, KH, KW)."""
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    y = _compute(3, x, w, bias, out, numerics, activation, isa, other, settings)
    return y if out is None else QTensor(y, out)


def conv_reference(
    x, w, bias=None, *, stride=1, padding=0, dilation=1, groups=1, out=None, numerics="fbgemm", activation=None, isa=None, other=None
):  # fmt: skip
    """Same result as `conv1d`, `conv2d` and `conv3d`, in NumPy."""
    dims, asked = getattr(w, "ndim", 4) - 2, out
    if "+" in profiles.get(numerics).name:
        out, activation = kept(numerics, x, w, out, activation)
    if not is_plain(activation, other):
        settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        y = _with_post(dims, x, w, bias, out, numerics, activation, isa, other, settings, _real_values)
        return y if out is None else QTensor(y, asked)
    plan = _plan(dims, x, w, bias, stride, padding, dilation, groups, out, profiles.get(numerics), activation, isa)
    acc = np.moveaxis(_accumulate(plan, plan.x.values), 1, -1)
    y = empty_channels_last((acc.shape[0], acc.shape[-1], *acc.shape[1:-1]), plan.dtype)
    np.moveaxis(y, 1, -1)[...] = apply_epilogue(acc, plan.epilogue, plan.dtype)
    if plan.cut:
        y[...] = relu_of_reference(y)
    if plan.tail is not None:
        y[:, plan.tail[0] :] = np.moveaxis(apply_epilogue(acc, plan.tail[1], plan.dtype), -1, 1)[:, plan.tail[0] :]
    return y if out is None else QTensor(y, asked)


def _real_values(plan):
    acc = np.moveaxis(_accumulate(plan, plan.x.values), 1, -1)
    return np.moveaxis(apply_epilogue(acc, plan.epilogue, plan.dtype), -1, 1)


def _compute(dims, x, w, bias, out, numerics, activation, isa, other, settings):
    if "+" in profiles.get(numerics).name:
        out, activation = kept(numerics, x, w, out, activation)
    if is_plain(activation, other):
        return bind_convolution(dims, x, w, bias, out=out, numerics=numerics, isa=isa, activation=activation, **settings)(x.values)
    return _with_post(dims, x, w, bias, out, numerics, activation, isa, other, settings, lambda plan: _bind(plan)(plan.x.values))


def _with_post(dims, x, w, bias, out, numerics, activation, isa, other, settings, real_values):
    """Compute the convolution as float32, `real_values` of a plan, and from there what follows it."""
    profile = profiles.get(numerics)
    plan = _plan(dims, x, w, bias, *settings.values(), out, profile, None, isa)
    t = real_values(plan._replace(dtype=np.dtype(np.float32)))
    return post_operations(profile, f"conv{dims}d", activation, other, t.shape, plan.post).finish(t, plan.epilogue, plan.dtype, empty_channels_last)


def _accumulate(plan, codes):
    w, zero, geometry = plan.w.values, plan.w.qparams.zero_point, plan.geometry
    if w.dtype == np.uint8:
        w, zero = (w ^ 0x80).view(np.int8), np.asarray(zero) - 128
    sides = {"stride": geometry["stride"], "dilation": geometry["dilation"], "padding": tuple(low for low, _ in geometry["padding"])}
    return accumulate_conv(codes, w, plan.product, x_zero_point=plan.x.qparams.zero_point, w_zero_point=zero, groups=plan.groups, **sides)
