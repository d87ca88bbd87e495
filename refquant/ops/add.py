"""add: the sum of two quantized tensors, and of its ReLU."""

import math

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import dequantize_codes, quantize_real, reciprocal
from refquant.core.epilogue import to_int32
from refquant.core.fma import fma32
from refquant.core.layout import is_channels_last
from refquant.core.qtensor import QTensor
from refquant.core.rounding import Round
from refquant.core.wrap import saturate
from refquant.errors import UnsupportedError, choose
from refquant.kernels import elementwise as kernels
from refquant.numerics.add_forms import AddForm, FixedAddForm, FoldedAddForm, GemmlowpAddForm
from refquant.numerics.dispatch import resolve_call
from refquant.numerics.range_forms import RangeForm
from refquant.ops.arguments import check_eight_bit, check_out, check_qtensor, sides
from refquant.ops.broadcast import broadcast_shape, scalar_side, spread
from refquant.ops.fixed_sum import fixed_sum
from refquant.ops.lookup import pair_table, take_pairs
from refquant.ops.memo import Memo
from refquant.ops.range_elementwise import range_sum
from refquant.ops.tensor_iterator import Loop, empty_in_format_of, loop_of

__all__ = ["add", "add_reference", "bind_add", "is_elementwise"]

# Below, no rounded number and no zero point leave int32 together.
_NEAR_INT32 = 2.0**30


def _plan(a, b, out, profile, activation, threads):
    place = f"add[{profile.name}]"
    choose(place, "activation", activation, [None, "relu"])
    sides(threads, "threads", 1, place, least=1)
    for name, q in (("a", a), ("b", b)):
        check_eight_bit(check_qtensor(q, name, place), name, place)
    check_out(out, place)
    form = resolve_call(profile.section("add", "add"), dtype=a.dtype)
    if a.shape != b.shape and broadcast_shape(place, a=a, b=b) and not is_elementwise(form):
        raise UnsupportedError(f"{place}: a has shape {a.shape} and b {b.shape}; they must be equal, since how {profile.engine} loops over others is not described")
    return form


def is_elementwise(form):
    """Whether each output of a form depends on its two codes alone (of `FoldedAddForm` on which operand is held fixed, too), so that operands may broadcast."""
    return isinstance(form, FoldedAddForm) or (isinstance(form, AddForm) and not form.vector)


def _sum_real(form, qa, qb, out, codes_a, codes_b, activation, dequantize, add):
    real = dequantize_codes(codes_a, qa.scale, qa.zero_point, dequantize)
    real = real + dequantize_codes(codes_b, qb.scale, qb.zero_point, dequantize)
    if activation == "relu":
        real = np.where(real > 0, real, np.float32(0))
    kind = out._type
    overflow = "wrap" if form.vector and add == "after" else "saturate"
    return quantize_real(
        real, out.scale, out.zero_point, kind.qmin, kind.qmax, scaling=form.scaling, add=add, rounding=form.rounding, overflow=overflow
    )  # fmt: skip


def _folded_constants(form, qa, qb, out):
    f = np.float32
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        ra, rb = f(qa.scale) / f(out.scale), f(qb.scale) / f(out.scale)
        za, zb, zy = f(qa.zero_point), f(qb.zero_point), f(out.zero_point)
        return ra, rb, zy - (fma32(ra, za, rb * zb) if form.contraction == "fma" else ra * za + rb * zb)


def _sum_folded(form, qa, qb, out, codes_a, codes_b, activation):
    f = np.float32
    ra, rb, constant = _folded_constants(form, qa, qb, out)
    a, b = codes_a.astype(f), codes_b.astype(f)
    with np.errstate(over="ignore", invalid="ignore"):
        v = fma32(a, ra, fma32(b, rb, constant)) if form.contraction == "fma" else a * ra + (b * rb + constant)
    kind = out._type
    low = max(kind.qmin, out.zero_point) if activation == "relu" else kind.qmin
    if form.overflow == "saturate":
        v = np.where(v > kind.qmin, v, f(kind.qmin))
        v = np.where(v < kind.qmax, v, f(kind.qmax))
    return saturate(to_int32(v, form.rounding), low, kind.qmax)


def _codes(form, qa, qb, out, activation, tail, codes_a, codes_b):
    """Return the sum of codes by the body's formula, or the tail's."""
    if isinstance(form, FoldedAddForm):
        return _sum_folded(form, qa, qb, out, codes_a, codes_b, activation)
    if isinstance(form, (FixedAddForm, GemmlowpAddForm)):
        return fixed_sum(form, qa, qb, out, codes_a, codes_b, activation, tail)
    if isinstance(form, RangeForm):
        return range_sum(form, qa, qb, out, codes_a, codes_b, activation)
    dequantize, zero = (form.tail_dequantize, form.tail_zero_point) if tail else (form.dequantize, form.zero_point)
    return _sum_real(form, qa, qb, out, codes_a, codes_b, activation, dequantize, zero)


def memory_order_of_pair(a, b):
    """Return (a, b, back): the codes in the order in which they lie in memory, and the way back."""
    if is_channels_last(a.values) and is_channels_last(b.values):
        moved = np.moveaxis(a.values, 1, -1)
        return moved.reshape(-1), np.moveaxis(b.values, 1, -1).reshape(-1), lambda y: np.moveaxis(y.reshape(moved.shape), -1, 1)
    return a.values.reshape(-1), b.values.reshape(-1), lambda y: y.reshape(a.shape)


def bind_add(a, b, *, out, numerics="fbgemm", activation=None, threads=1):
    """Return the sum as a function of the codes of `a` and `b` alone, for any of these shapes, strides and dtypes; remembered."""
    profile = profiles.get(numerics)
    make = lambda: _bind(a, b, out, profile, activation, threads, _step)  # noqa: E731
    if not (isinstance(a, QTensor) and isinstance(b, QTensor)):
        return make()
    u, v = a.values, b.values
    values = (u.shape, u.strides, u.dtype, v.shape, v.strides, v.dtype, activation, threads)
    return _MEMO.get((a.qparams, b.qparams, out, profile), values, make)


_MEMO = Memo(512)


def _bind(a, b, out, profile, activation, threads, step):
    form = _plan(a, b, out, profile, activation, threads)
    if a.shape != b.shape:
        return _bind_broadcast(form, a, b, out, activation, step, f"add[{profile.name}]")
    swapped = a.size == 1 and getattr(form, "lone", None) == "swapped"
    if swapped:
        a, b = b, a
    steps = [step(form, a.qparams, b.qparams, out, activation, tail, a.size) for tail in (False, True)]
    if getattr(form, "grain", 0):
        return _bind_iterator(form, a, b, steps, out.storage, threads)
    order, back, shape = _orders(a, b)
    parts = Loop(order, a.size, True).parts(a.size, getattr(form, "vector", 0), 0, 1)
    size, dtype = a.size, out.storage

    def run(u, v):
        if swapped:
            u, v = v, u
        y = np.empty(size, dtype)
        _fill(parts, steps, u.transpose(order).reshape(-1), v.transpose(order).reshape(-1), y)
        return y.reshape(shape).transpose(back)

    return run


def _bind_iterator(form, a, b, steps, dtype, threads):
    """The sum by PyTorch's loop over whatever strides the tensors have, into the memory format of the first."""
    like = empty_in_format_of(a.values, dtype)
    loop, shape, strides = loop_of(like, a.values, b.values), like.shape, like.strides
    parts, size, axes = loop.parts(a.size, form.vector, form.grain, threads), a.size, loop.axes

    def run(u, v):
        y = np.empty(size, dtype)
        _fill(parts, steps, u.transpose(axes).reshape(-1), v.transpose(axes).reshape(-1), y)
        return np.ndarray(shape, dtype, y, strides=strides)

    return run


def _fill(parts, steps, u, v, y):
    """Write each part of the sum by its step; a mask's elements are gathered first."""
    for part, tail in parts:
        if isinstance(part, slice):
            steps[tail](np.ascontiguousarray(u[part]), np.ascontiguousarray(v[part]), y[part])
        else:
            some = np.empty(np.count_nonzero(part), y.dtype)
            steps[tail](u[part], v[part], some)
            y[part] = some


def _bind_broadcast(form, a, b, out, activation, step, place):
    """The sum of operands of different shapes; one that ONNX Runtime's loop holds fixed enters the constant first."""
    shape = broadcast_shape(place, a=a, b=b)
    held = scalar_side(a.shape, b.shape) if getattr(form, "lone", None) == "swapped" else None
    qa, qb = (b.qparams, a.qparams) if held == "a" else (a.qparams, b.qparams)
    size = math.prod(shape)
    fill = step(form, qa, qb, out, activation, False, size)

    def run(u, v):
        flat_u, flat_v = (spread(values, shape).reshape(-1) for values in ((v, u) if held == "a" else (u, v)))
        y = np.empty(size, out.storage)
        fill(flat_u, flat_v, y)
        return y.reshape(shape)

    return run


def _orders(a, b):
    """Return the axes in the order in which both lie in memory, the way back, and the shape in that order."""
    axes = tuple(range(a.ndim))
    if is_channels_last(a.values) and is_channels_last(b.values):
        order, back = (0, *axes[2:], 1), (0, axes[-1], *axes[1:-1])
        return order, back, tuple(a.shape[i] for i in order)
    return axes, axes, a.shape


def _reference_step(form, qa, qb, out, activation, tail, size):
    def fill(u, v, target):
        target[...] = _codes(form, qa, qb, out, activation, tail, u, v)

    return fill


def _step(form, qa, qb, out, activation, tail, size):
    """Return a kernel with its numbers, if there is one for the form."""
    if isinstance(form, (AddForm, FoldedAddForm)) and form.rounding is Round.HALF_EVEN and out.storage.itemsize == 1:
        if isinstance(form, FoldedAddForm):
            if form.overflow == "indefinite" and _folded_leaves_int32(form, qa, qb, out):
                return _reference_step(form, qa, qb, out, activation, tail, size)
            numbers, fused = _folded_step(form, qa, qb, out, activation), form.contraction == "fma"
            return lambda u, v, target: kernels.add_folded(u, v, target, numbers, fused)
        if form.vector and not tail and _leaves_int32(qa, qb, out):
            return _reference_step(form, qa, qb, out, activation, tail, size)
        how, divide = _DEQUANTIZE[form.tail_dequantize if tail else form.dequantize], form.scaling == "divide"
        numbers = _real_step(form, qa, qb, out, activation, tail)
        return kernels.bind_add_real(numbers, how, divide)
    if size < 4 * 65536:
        return _reference_step(form, qa, qb, out, activation, tail, size)

    def by_table(u, v, target):
        function = lambda c, d: _codes(form, qa, qb, out, activation, tail, c, d)  # noqa: E731
        target[...] = take_pairs(pair_table(function, u.dtype, v.dtype, out.storage), u, v)

    return by_table


def _leaves_int32(qa, qb, out):
    """Whether a sum can be so large that its rounded quotient and the zero point leave int32, as which a vector body adds them."""
    with np.errstate(over="ignore"):
        return not np.float32(256) * (np.float32(qa.scale) + np.float32(qb.scale)) / np.float32(out.scale) < _NEAR_INT32


def _folded_leaves_int32(form, qa, qb, out):
    """Whether a sum of raw codes can leave int32, as which its numbers become codes."""
    ra, rb, constant = _folded_constants(form, qa, qb, out)
    with np.errstate(over="ignore", invalid="ignore"):
        return not np.float32(256) * (ra + rb) + abs(constant) < _NEAR_INT32


_DEQUANTIZE = {"sub_mul": kernels.SUB_MUL, "mul_add": kernels.MUL_ADD, "fma": kernels.FMA}


def _real_step(form, qa, qb, out, activation, tail):
    f = np.float32
    zero = form.tail_zero_point if tail else form.zero_point
    sa, sb, za, zb, zy = f(qa.scale), f(qb.scale), f(qa.zero_point), f(qb.zero_point), f(out.zero_point)
    inside, after = (zy, f(0)) if zero == "before" else (f(0), zy)
    kind = out._type
    with np.errstate(over="ignore"):
        return kernels.RealSum(
            sa, za, sa * -za, sb, zb, sb * -zb, f(0 if activation == "relu" else -np.inf),
            f(reciprocal(out.scale, form.scaling)), inside, after, f(kind.qmin) - after, f(kind.qmax) - after,
        )  # fmt: skip


def _folded_step(form, qa, qb, out, activation):
    ra, rb, constant = _folded_constants(form, qa, qb, out)
    low = max(out._type.qmin, out.zero_point) if activation == "relu" else out._type.qmin
    return kernels.FoldedSum(ra, rb, constant, np.float32(low), np.float32(out._type.qmax))


def add(a, b, *, out, numerics="fbgemm", activation=None, threads=1):
    """Add two quantized tensors: ``quantize(dequantize(a) + dequantize(b))`` as the engine computes it.

    Parameters
    ----------
    a, b : QTensor
        Per tensor; of one shape, or, under ONNX's profiles, of two that broadcast.
    out : QParams
    numerics : str or Numerics
    activation : {None, "relu"}
    threads : int
        Of the engine that is modelled: PyTorch cuts large tensors among its threads, and each range ends in a scalar tail that
        rounds otherwise than the vector body.

    Returns
    -------
    QTensor
        Under PyTorch's profiles in the memory format of `a`, else channels last where both inputs are.

    Exactness
    ---------
    Bit-exact. PyTorch: fma dequantize, sum, product with 1/s, then rounding, then the zero point in the body;
    another order in the tail, of each row where a view leaves gaps between rows, and throughout where a view is transposed
    (`refquant.ops.tensor_iterator`). ONNX Runtime: raw codes with all zero points folded into one constant, which is *inside* of the rounding.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> qp = rq.QParams(1.0, 1, "uint8")
    >>> a = rq.QTensor(np.array([3], np.uint8), qp)
    >>> add(a, a, out=rq.QParams(8.0, 1, "uint8"), numerics="onnx").values
    array([1], dtype=uint8)
    >>> add(a, a, out=rq.QParams(8.0, 1, "uint8"), numerics="onnxruntime").values
    array([2], dtype=uint8)
    """
    run = bind_add(a, b, out=out, numerics=numerics, activation=activation, threads=threads)
    return QTensor(run(a.values, b.values), out)


def add_reference(a, b, *, out, numerics="fbgemm", activation=None, threads=1):
    """Same result as `add`, in NumPy."""
    run = _bind(a, b, out, profiles.get(numerics), activation, threads, _reference_step)
    return QTensor(run(a.values, b.values), out)
