"""linear: a fully connected layer on codes."""

import math
from typing import NamedTuple

import numpy as np

from refquant import numerics as profiles
from refquant.core.epilogue import Epilogue, apply_epilogue
from refquant.core.qtensor import QTensor
from refquant.core.wrap import wrap_int32
from refquant.errors import ShapeError
from refquant.kernels.gemm import bind_gemm
from refquant.ops.arguments import check_eight_bit, check_out, check_qtensor, check_weight
from refquant.ops.output_stage import check_bias, output_stage, real_stage
from refquant.ops.pack_weights import PackedWeights, as_qtensor, is_reusable, pack_weights

__all__ = ["linear", "linear_reference"]


class _Plan(NamedTuple):
    x: QTensor
    w: QTensor
    packed: object
    epilogue: Epilogue
    dtype: np.dtype


def _bound(x, w, bias, out, numerics, activation):
    """The layer as a function of the codes alone, remembered by packed weights."""
    profile = profiles.get(numerics)
    make = lambda: _bind(_plan(x, w, bias, out, profile, activation))  # noqa: E731
    if not is_reusable(x, w, bias):
        return make()
    return w.memo.get((x.qparams, out, profile, bias), (x.shape[-1:], x.values.dtype, activation), make)


def _bind(plan):
    packed, (channels, k) = plan.packed or pack_weights(plan.w), plan.w.shape
    product = bind_gemm(
        packed.packed, plan.epilogue, plan.dtype, signed=plan.x.values.dtype == np.int8, a_zero=plan.x.qparams.zero_point,
        b_zero=plan.w.qparams.zero_point,
    )  # fmt: skip

    def run(codes):
        rows = codes.shape[:-1]
        return product(codes.reshape(math.prod(rows), k)).reshape(*rows, channels)

    return run


def _plan(x, w, bias, out, profile, activation):
    place = f"linear[{profile.name}]"
    w, packed = as_qtensor(w, "w", place)
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    check_weight(check_eight_bit(check_qtensor(w, "w", place, per_channel=True), "w", place), place, 2)
    if x.ndim < 1 or x.shape[-1] != w.shape[1]:
        k = x.shape[-1] if x.ndim else "no axis"
        raise ShapeError(f"{place}: w has K={w.shape[1]} but x has K={k} (x {x.shape}, w {w.shape}); w must be (OC, K)")
    bias = check_bias(bias, w.shape[0], place)
    if out is None:
        form = profile.section("linear_real", "linear")
        epilogue = real_stage(form, x.qparams, w.qparams, bias, w.shape[0], activation, place)
        return _Plan(x, w, packed, epilogue, np.dtype(np.float32))
    check_out(out, place)
    form = profile.section("linear", "linear")
    epilogue = output_stage(form, x.qparams, w.qparams, out, bias, w.shape[0], activation, place)
    return _Plan(x, w, packed, epilogue, out.storage)


def linear(x, w, bias=None, *, out=None, numerics="fbgemm", activation=None):
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
    activation : {None, "relu"}

    Returns
    -------
    QTensor, or ndarray of float32, (..., OC)

    Raises
    ------
    ShapeError, ArgumentError
        With the shapes, the rule and the remedy.
    UnsupportedError
        The engine has no float32 output.

    Exactness
    ---------
    The accumulator is exact modulo 2**32. The output stage rounds as the profile's `ProductForm` says; bit-exact.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> x = rq.QTensor(np.array([[131, 128]], np.uint8), rq.QParams(0.5, 128, "uint8"))
    >>> w = rq.QTensor(np.array([[2, 1], [-1, 4]], np.int8), rq.QParams(0.25, 0, "int8"))
    >>> rq.ops.linear(x, w, out=rq.QParams(0.5, 0, "uint8"), numerics="onednn").values
    array([[2, 0]], dtype=uint8)
    """
    run = _bound(x, w, bias, out, numerics, activation)
    y = run(x.values)
    return y if out is None else QTensor(y, out)


def linear_reference(x, w, bias=None, *, out=None, numerics="fbgemm", activation=None):
    """Same result as `linear`, in NumPy."""
    plan = _plan(x, w, bias, out, profiles.get(numerics), activation)
    zero = np.reshape(plan.w.qparams.zero_point, (-1, 1))
    a = plan.x.values.astype(np.int64) - plan.x.qparams.zero_point
    acc = wrap_int32(a @ (plan.w.values.astype(np.int64) - zero).T)
    y = apply_epilogue(acc, plan.epilogue, plan.dtype)
    return y if out is None else QTensor(y, out)
