"""linear: a fully connected layer on codes."""

import math
from typing import NamedTuple

import numpy as np

from refquant import numerics as profiles
from refquant.core.epilogue import Epilogue, apply_epilogue, to_int32
from refquant.core.qtensor import QTensor
from refquant.core.wrap import wrap_int32
from refquant.errors import ShapeError
from refquant.isa.accumulate import accumulate_linear
from refquant.isa.products import Product
from refquant.kernels.gemm import bind_gemm
from refquant.kernels.pairs import bind_gemm_s16pair, pack_pairs
from refquant.kernels.requantize import requantize
from refquant.numerics.range_forms import RangeProductForm
from refquant.ops.arguments import check_eight_bit, check_product_out, check_qtensor, check_weight
from refquant.ops.kept import kept
from refquant.ops.output_stage import check_bias, output_stage, real_stage
from refquant.ops.pairing import linear_product, rearrange
from refquant.ops.pack_weights import as_qtensor, bias_key, is_reusable, pack_weights
from refquant.ops.post_operations import is_plain, post_operations, relu_of_reference
from refquant.ops.range_stage import range_stage, raw_codes

__all__ = ["linear", "linear_reference", "bind_linear"]


class _Plan(NamedTuple):
    x: QTensor
    w: QTensor
    packed: object
    epilogue: Epilogue
    dtype: np.dtype
    product: Product
    post: str
    cut: bool = False
    accumulator: str = "exact"


def bind_linear(x, w, bias=None, *, out=None, numerics="fbgemm", activation=None, isa=None):
    """Return a layer as a function of the codes of `x` alone, for any of this K and dtype; packed weights remember it."""
    profile = profiles.get(numerics)
    make = lambda: _bind(_plan(x, w, bias, out, profile, activation, isa))  # noqa: E731
    if not is_reusable(x, w, bias):
        return make()
    objects, numbers = bias_key(bias)
    return w.memo.get((x.qparams, out, profile, *objects), (x.shape[-1:], x.values.dtype, activation, isa, *numbers), make)


def _bind(plan):
    if plan.cut:
        whole = _bind(plan._replace(cut=False))
        return lambda codes: relu_of_reference(whole(codes))
    channels, k = plan.w.shape
    if plan.accumulator == "converted":
        return lambda codes: requantize(_accumulate(plan, codes), plan.epilogue, plan.dtype)
    how = {"signed": plan.x.values.dtype == np.int8, "a_zero": plan.x.qparams.zero_point, "b_zero": plan.w.qparams.zero_point}
    if plan.product is not None:
        product = _bind_paired(plan, how)
    else:
        packed = plan.packed or pack_weights(plan.w)
        product = bind_gemm(packed.packed, plan.epilogue, plan.dtype, **how)

    def run(codes):
        rows = codes.shape[:-1]
        return product(codes.reshape(math.prod(rows), k)).reshape(*rows, channels)

    return run


def _bind_paired(plan, how):
    """The kernel that saturates; where an engine's neighbours are not those of memory, k is put into its order first."""
    order, w = rearrange(plan.product, plan.w.shape[1]), plan.w.values
    if order is None:
        return bind_gemm_s16pair(pack_pairs(w.T), plan.epilogue, plan.dtype, **how)
    if np.any(how["b_zero"]):
        return lambda codes: requantize(_accumulate(plan, codes), plan.epilogue, plan.dtype)
    product = bind_gemm_s16pair(pack_pairs(np.where(order < 0, np.int8(0), w[:, order]).T), plan.epilogue, plan.dtype, **how)
    return lambda codes: product(codes[:, np.maximum(order, 0)])


def _accumulate(plan, codes):
    qx, qw = plan.x.qparams, plan.w.qparams
    if plan.accumulator == "converted":
        return to_int32(_sums(plan, codes).astype(np.float32)).astype(np.int32)
    if plan.product is not None:
        return accumulate_linear(codes, plan.w.values, plan.product, x_zero_point=qx.zero_point, w_zero_point=qw.zero_point)
    return wrap_int32(_sums(plan, codes))


def _sums(plan, codes):
    return (codes.astype(np.int64) - plan.x.qparams.zero_point) @ (plan.w.values.astype(np.int64) - np.reshape(plan.w.qparams.zero_point, (-1, 1))).T


def _plan(x, w, bias, out, profile, activation, isa):
    profile = profile.on(isa, f"linear[{profile.name}]")
    place = f"linear[{profile.name}]"
    w, packed = as_qtensor(w, "w", place)
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    check_weight(check_eight_bit(check_qtensor(w, "w", place, per_channel=True), "w", place), place, 2)
    if x.ndim < 1 or x.shape[-1] != w.shape[1]:
        k = x.shape[-1] if x.ndim else "no axis"
        raise ShapeError(f"{place}: w has K={w.shape[1]} but x has K={k} (x {x.shape}, w {w.shape}); w must be (OC, K)")
    bias = check_bias(bias, w.shape[0], place)
    product = linear_product(profile, x, w, place)
    # Where a fast kernel shifts int8 codes to uint8, its output stage is that kernel's.
    signed = x.dtype == "int8" and profile.linear_int8 is not None and not getattr(product, "shift", 0)
    if out is None:
        form = profile.section("linear_real", "linear")
        kernel = profile.linear_int8 if signed else form
        cut = activation == "relu" and kernel.post == "reference"
        epilogue = real_stage(form, x.qparams, w.qparams, bias, w.shape[0], None if cut else activation, place)
        return _Plan(x, w, packed, epilogue, np.dtype(np.float32), product, kernel.post, cut, _accumulator(kernel, w))
    check_product_out(out, place)
    form = profile.linear_int8 if signed else profile.section("linear", "linear")
    if isinstance(form, RangeProductForm):
        epilogue, x = range_stage(form, x.qparams, w, out, bias, activation, place), raw_codes(form, x)
        return _Plan(x, w, packed, epilogue, out.storage, product, None)
    epilogue = output_stage(form, x.qparams, w.qparams, out, bias, w.shape[0], activation, place)
    return _Plan(x, w, packed, epilogue, out.storage, product, form.post, accumulator=_accumulator(form, w))


def _accumulator(form, w):
    """How sums are taken: those of fewer k than this stay within int32, whoever converts them."""
    converted = getattr(form, "accumulator", "exact") == "converted"
    return "converted" if converted and w.shape[1] >= 2**31 // (255 * 255) else "exact"


def linear(x, w, bias=None, *, out=None, numerics="fbgemm", activation=None, isa=None, other=None):
    """Compute a fully connected layer on codes: ``y = x @ w.T + bias``.

    ``acc[m, n] = Σ_k (x[m, k] − zx) · (w[n, k] − zw[n])`` in int32, then the profile's output stage.

    Parameters
    ----------
    x : QTensor, (..., K)
        uint8 or int8, per tensor.
    w : QTensor or PackedWeights, (OC, K)
        int8 or uint8, per tensor or per channel along axis 0.
    bias : array_like, (OC,), optional
        float32 in real units (each engine enters it in its own way), or int32 in units of ``x.scale * w.scale``.
    out : QParams, optional
        Of the output; None asks for float32, as dynamically quantized layers give.
    numerics : str or Numerics
        Whose arithmetic.
    activation : None, str or tuple
        ``"relu"``; where the profile has post-operations also ``"leaky_relu"``, ``"hardtanh"``, ``"hardswish"``, ``"tanh"``, ``"gelu"`` or
        ``"swish"``, with parameters as a tuple: ``("leaky_relu", 0.01)``, ``("hardtanh", -1.0, 1.0)``.
    isa : str, optional
        The processor level of the engine, such as ``"avx2"``: where it has no VNNI, products saturate in pairs as the engine adds them
        there. Unless given, the processor that the profile describes.
    other : QTensor or ndarray of float32, (..., OC), optional
        Added before the activation, where the profile has post-operations.

    Returns
    -------
    QTensor, or ndarray of float32, (..., OC)

    Raises
    ------
    ShapeError, ArgumentError
        With the shapes, the rule and the remedy.
    UnsupportedError
        The engine has no float32 output, or what it does on that level is not known; or `out` is not of 8 bits, which no engine writes.

    Exactness
    ---------
    The accumulator is exact modulo 2**32, but for what `isa` makes saturate (see `refquant.isa.products`). The output stage rounds as the profile's `ProductForm` says; bit-exact.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> x = rq.QTensor(np.array([[131, 128]], np.uint8), rq.QParams(0.5, 128, "uint8"))
    >>> w = rq.QTensor(np.array([[2, 1], [-1, 4]], np.int8), rq.QParams(0.25, 0, "int8"))
    >>> rq.ops.linear(x, w, out=rq.QParams(0.5, 0, "uint8"), numerics="onednn").values
    array([[2, 0]], dtype=uint8)
    >>> x, w = rq.QTensor(np.full((1, 2), 255, np.uint8), x.qparams), rq.QTensor(np.full((1, 2), 127, np.int8), w.qparams)
    >>> [int(rq.ops.linear(x, w, numerics="onednn", isa=isa)[0, 0] * 8) for isa in ("avx512_vnni", "avx2")]
    [32258, 255]
    """
    asked = out
    if "+" in profiles.get(numerics).name:
        out, activation = kept(numerics, x, w, out, activation)
    if is_plain(activation, other):
        y = bind_linear(x, w, bias, out=out, numerics=numerics, activation=activation, isa=isa)(x.values)
    else:
        y = _with_post(x, w, bias, out, numerics, activation, isa, other, lambda plan: _bind(plan)(plan.x.values))
    return y if out is None else QTensor(y, asked)


def _with_post(x, w, bias, out, numerics, activation, isa, other, real_values):
    """Compute the product as float32, `real_values` of a plan, and from there what follows it."""
    profile = profiles.get(numerics)
    plan = _plan(x, w, bias, out, profile, None, isa)
    post = post_operations(profile, "linear", activation, other, (*x.shape[:-1], plan.w.shape[0]), plan.post)
    return post.finish(real_values(plan._replace(dtype=np.dtype(np.float32))), plan.epilogue, plan.dtype, np.empty)


def linear_reference(x, w, bias=None, *, out=None, numerics="fbgemm", activation=None, isa=None, other=None):
    """Same result as `linear`, in NumPy."""
    asked = out
    if "+" in profiles.get(numerics).name:
        out, activation = kept(numerics, x, w, out, activation)
    if not is_plain(activation, other):
        stage = lambda plan: apply_epilogue(_accumulate(plan, plan.x.values), plan.epilogue, plan.dtype)  # noqa: E731
        y = _with_post(x, w, bias, out, numerics, activation, isa, other, stage)
        return y if out is None else QTensor(y, asked)
    plan = _plan(x, w, bias, out, profiles.get(numerics), activation, isa)
    y = apply_epilogue(_accumulate(plan, plan.x.values), plan.epilogue, plan.dtype)
    y = relu_of_reference(y) if plan.cut else y
    return y if out is None else QTensor(y, asked)
