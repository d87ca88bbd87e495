"""sigmoid, tanh, hardsigmoid, hardswish, elu, celu, leaky_relu, gelu, threshold: functions of one code, that is, tables of 256 entries."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import dequantize_codes, quantize_real
from refquant.core.arguments import as_real
from refquant.core.eigen import eigen_elu
from refquant.core.glibc import glibc_exp
from refquant.core.layout import in_suggested_format, is_channels_last
from refquant.core.mlas import mlas_gelu, mlas_logistic, mlas_tanh
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import RangeError, UnsupportedError
from refquant.numerics.fixed_forms import FixedUnaryForm
from refquant.numerics.range_forms import RangeForm
from refquant.ops.arguments import check_eight_bit, check_out, check_qtensor, sides
from refquant.ops.fixed_unary import fixed_function
from refquant.ops.lookup import code_table, take_codes
from refquant.ops.memo import Memo
from refquant.ops.range_elementwise import range_function
from refquant.ops.tensor_iterator import empty_in_format_of, loop_of, segments
from refquant.ops.unary_functions import ATEN, FLOAT, TABLES, UNARY, float_gelu

__all__ = ["sigmoid", "tanh", "hardsigmoid", "hardswish", "elu", "celu", "leaky_relu", "gelu", "threshold"]

_F = np.float32
_SUB_MUL_BODY = ("sigmoid",)
_RECIPROCAL64_BODY = ("sigmoid", "hardswish")


def _aten(profile, name, function, tail, parameter, q, out, codes):
    body = not tail
    x = dequantize_codes(codes, q.scale, q.zero_point, "fma" if body and name not in _SUB_MUL_BODY else "sub_mul")
    y = function(x, parameter)
    scaling = "reciprocal64" if body and name in _RECIPROCAL64_BODY else "reciprocal"
    kind = out._type
    add, overflow = ("after", "wrap") if body else ("before", "saturate")
    return quantize_real(y, out.scale, out.zero_point, kind.qmin, kind.qmax, scaling=scaling, add=add, rounding="half_even", overflow=overflow)


def _gate(x):
    return np.minimum(np.maximum(x * (_F(1) / _F(6)) + _F(0.5), _F(0)), _F(1))


#: name: (body, tail), as ONNX Runtime's float kernels compute them; of Elu the elements that fill no vector of four are the C library's.
_RUNTIME = {
    "sigmoid": (lambda x, p: mlas_logistic(x),) * 2,
    "tanh": (lambda x, p: mlas_tanh(x),) * 2,
    "gelu": (lambda x, p: mlas_gelu(x),) * 2,
    "elu": (lambda x, p: eigen_elu(x, p, leftover=0), lambda x, p: eigen_elu(x, p, leftover=x.size)),
    "hardsigmoid": (lambda x, p: _gate(x),) * 2,
    "hardswish": (lambda x, p: x * _gate(x),) * 2,
}
_RUNTIME_VECTOR = {"elu": 4}
# UnaryOpsKernel.cpp and Activation.cpp: two vectors of eight a step.
_FLOAT_VECTOR, _FLOAT_GRAIN = 16, 32768
_MEMO = Memo(512)


#: Of a style, its functions by name, (body, tail).
_BY_REALS = {"lookup": {name: (body, body) for name, (body, _) in UNARY.items()}, "float": FLOAT}
_BY_REALS["onnxruntime"] = _BY_REALS["lookup"] | _RUNTIME


def _by_reals(profile, name, function, tail, parameter, q, out, codes):
    y = function(dequantize_codes(codes, q.scale, q.zero_point, profile.dequantize.formula), parameter)
    form, kind = profile.quantize, out._type
    return quantize_real(
        y, out.scale, out.zero_point, kind.qmin, kind.qmax, scaling=form.scaling, add=form.zero_point, rounding=form.rounding, nan=form.nan
    )  # fmt: skip


# QNNPACK's own lookup tables: sigmoid.c, tanh.c, hardsigmoid.c, hardswish.c. The first knows one scale alone.
_QNNPACK = ("sigmoid", "tanh", "hardsigmoid", "hardswish")


def _qnnpack(name, q, out, codes):
    x = dequantize_codes(codes, q.scale, q.zero_point, "sub_mul")
    kind = out._type
    if name == "sigmoid":
        real, scale = _F(256) / (_F(1) + glibc_exp(-x)), 1.0
    else:
        function = TABLES[name] if name == "tanh" else UNARY[name][0]
        real, scale = function(x, None), out.scale
    return quantize_real(real, scale, out.zero_point, kind.qmin, kind.qmax, scaling="reciprocal", add="before", rounding="half_even")


def _style(form, profile, name, x, out, place):
    """Return the style in force: QNNPACK takes some functions of uint8, and sigmoid into one pair of parameters."""
    if form.style != "qnnpack":
        return form.style
    if x.dtype != "uint8" or name not in _QNNPACK:
        return "aten"
    if name == "sigmoid" and (out.scale != 1 / 256 or out.zero_point):
        raise UnsupportedError(f"{place}: {profile.engine} has sigmoid into scale 1/256 and zero point 0 alone; leave out away")
    return "qnnpack"


# qelu.cpp makes its output contiguous whatever the input is; vector loops need strides that agree, so a channels-last input is all tail.
_CONTIGUOUS_OUTPUT = ("elu", "celu")
# LeakyReLU.cpp copies its input into the memory format that it suggests; the others loop over it as it lies.
_COPIED_INPUT = ("leaky_relu",)


def _unary(name, x, out, numerics, threads, parameter=None):
    profile = profiles.get(numerics)
    place = f"{name}[{profile.name}]"
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    sides(threads, "threads", 1, place, least=1)
    form = profile.section("unary", name)
    check_out(out, place)
    if isinstance(form, RangeForm):
        function = float_gelu(profile.isa) if name == "gelu" else UNARY[name][0]
        table = code_table(lambda c: range_function(form, name, function, parameter, x.qparams, out, c), x.qparams.storage, out.storage)
        return QTensor(_laid_out_as(x.values, lambda inner: take_codes(table, inner)), out)
    if isinstance(form, FixedUnaryForm):
        if name == "elu" and parameter != 1:
            raise UnsupportedError(f"{place}: alpha={parameter!r}, but {profile.engine} has alpha=1 alone; leave it out")
        function = UNARY[name][1] if name == "sigmoid" and form.logistic == "float64" else TABLES.get(name)
        table = code_table(lambda c: fixed_function(form, name, function, parameter, x.qparams, out, c, place), x.qparams.storage, out.storage)
        return QTensor(_laid_out_as(x.values, lambda inner: take_codes(table, inner)), out)
    style = _style(form, profile, name, x, out, place)
    if style not in _BY_REALS and out.dtype != x.dtype:
        raise UnsupportedError(f"{place}: {profile.engine} keeps the dtype {x.dtype} of its input, but out is {out.dtype}; give out the same dtype")
    if style == "qnnpack":
        table = code_table(lambda c: _qnnpack(name, x.qparams, out, c), x.qparams.storage, out.storage)
        return QTensor(_laid_out_as(x.values, lambda inner: take_codes(table, inner)), out)
    if style == "aten":
        return QTensor(_by_iterator(form, profile, name, parameter, x.qparams, out, threads, x.values), out)
    return QTensor(_laid_out_as(x.values, lambda inner: _by_segments(form, profile, name, parameter, x.qparams, out, threads, inner, is_channels_last(x.values))), out)


def _laid_out_as(values, function):
    """Apply a function of contiguous codes in the order in which they lie in memory."""
    last = is_channels_last(values)
    y = function(np.ascontiguousarray(np.moveaxis(values, 1, -1) if last else values))
    return np.moveaxis(y, -1, 1) if last else y.reshape(values.shape)


def _functions(form, profile, name, size, last):
    """Return ``(body, tail)``, elements of a step of the body and the least of a thread, of `size` elements that lie channels last or do not."""
    if form.style == "float":
        if name == "gelu" and not last and size > 1:
            return (float_gelu(profile.isa),), 0, 0
        return FLOAT[name], _FLOAT_VECTOR, _FLOAT_GRAIN
    vector = _RUNTIME_VECTOR.get(name, form.vector) if form.style == "onnxruntime" else form.vector
    return _BY_REALS.get(form.style, ATEN)[name], vector, form.grain


def _table(form, profile, name, functions, tail, parameter, q, out):
    """Return the table of the body, or the tail; remembered."""
    compute = _by_reals if form.style in _BY_REALS else _aten
    make = lambda: code_table(lambda c: compute(profile, name, functions[tail], tail, parameter, q, out, c), q.storage, out.storage)  # noqa: E731
    return _MEMO.get((profile, functions[tail]), (name, parameter, tail, q, out), make)


def _by_segments(form, profile, name, parameter, q, out, threads, inner, last):
    flat = inner.reshape(-1)
    y = np.empty(flat.size, out.storage)
    functions, vector, grain = _functions(form, profile, name, flat.size, last)
    for start, stop, tail in segments(flat.size, vector, grain, threads):
        y[start:stop] = take_codes(_table(form, profile, name, functions, tail, parameter, q, out), flat[start:stop])
    return y.reshape(inner.shape)


def _by_iterator(form, profile, name, parameter, q, out, threads, values):
    """Return the codes as PyTorch's loop makes them of an input of any strides."""
    y = np.empty(values.shape, out.storage) if name in _CONTIGUOUS_OUTPUT else empty_in_format_of(values, out.storage)
    if name in _COPIED_INPUT:
        values = in_suggested_format(values)
    loop = loop_of(y, values)
    flat, target = values.transpose(loop.axes).reshape(-1), y.transpose(loop.axes).reshape(-1)
    for part, tail in loop.parts(flat.size, form.vector, form.grain, threads):
        target[part] = take_codes(_table(form, profile, name, ATEN[name], tail, parameter, q, out), flat[part])
    return y


def _fixed(x, scale, place):
    """Return PyTorch's output parameters of a function with a known range."""
    check_qtensor(x, "x", place)
    zero = {"uint8": 0, "int8": -128} if scale == 1 / 256 else {"uint8": 128, "int8": 0}
    return QParams(scale, zero.get(x.dtype, 0), x.dtype)


def sigmoid(x, *, out=None, numerics="fbgemm", threads=1):
    """Apply ``1 / (1 + exp(-x))``.

    Parameters
    ----------
    x : QTensor
        uint8 or int8, per tensor.
    out : QParams, optional
        PyTorch's (1/256, zero point at the smallest code) unless given.
    numerics : str or Numerics
    threads : int
        Of the engine that is modelled, see `add`.

    Returns
    -------
    QTensor
        In the memory format of `x`.

    Exactness
    ---------
    PyTorch's vector loops are bit-exact, by SLEEF's functions (`refquant.core.sleef`) and for inductor's gelu oneDNN's, and so is the scalar loop of
    sigmoid where the C library is glibc. Of the other scalar loops, and for inductor's tanh, the function is taken in float64 and rounded
    once; the C library's or MKL's last bit may differ, which moves a code only where the result lies within an ulp of a tie. ONNX Runtime's own
    functions (`refquant.core.mlas`, `refquant.core.eigen`) are bit-exact, and so are OpenVINO's, which are oneDNN's (`refquant.core.onednn_eltwise`).

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> sigmoid(rq.QTensor(np.array([0, 128, 255], np.uint8), rq.QParams(0.05, 128, "uint8"))).values
    array([  0, 128, 255], dtype=uint8)
    """
    return _unary("sigmoid", x, _fixed(x, 1 / 256, "sigmoid") if out is None else out, numerics, threads)


def tanh(x, *, out=None, numerics="fbgemm", threads=1):
    """Apply the hyperbolic tangent; PyTorch's output parameters are (2/256, the middle of the dtype). See `sigmoid`."""
    return _unary("tanh", x, _fixed(x, 2 / 256, "tanh") if out is None else out, numerics, threads)


def hardsigmoid(x, *, out=None, numerics="fbgemm", threads=1):
    """Apply ``min(max(x + 3, 0), 6) / 6``; bit-exact. See `sigmoid`."""
    return _unary("hardsigmoid", x, _fixed(x, 1 / 256, "hardsigmoid") if out is None else out, numerics, threads)


def hardswish(x, *, out, numerics="fbgemm", threads=1):
    """Apply ``x * min(max(x + 3, 0), 6) / 6``; bit-exact. See `sigmoid`."""
    return _unary("hardswish", x, out, numerics, threads)


def elu(x, alpha=1.0, *, out, numerics="fbgemm", threads=1):
    """Apply ``x`` where it is positive, else ``alpha * (exp(x) - 1)``. See `sigmoid`."""
    return _unary("elu", x, out, numerics, threads, as_real(alpha, "alpha", "elu"))


def celu(x, alpha=1.0, *, out, numerics="fbgemm", threads=1):
    """Apply ``x`` where it is positive, else ``alpha * (exp(x / alpha) - 1)``, the quotient as a product with ``f(1 / alpha)``. See `sigmoid`."""
    alpha = as_real(alpha, "alpha", "celu")
    if alpha == 0:
        raise RangeError(f"celu: alpha={alpha} must not be 0, by which it divides; choose another")
    return _unary("celu", x, out, numerics, threads, alpha)


def threshold(x, threshold, value, *, numerics="fbgemm", threads=1):
    """Apply ``x`` where it exceeds `threshold`, else `value`, with the parameters of `x`; bit-exact. See `sigmoid`."""
    check_qtensor(x, "x", "threshold")
    numbers = tuple(as_real(number, name, "threshold", finite=False) for name, number in (("threshold", threshold), ("value", value)))
    return _unary("threshold", x, x.qparams, numerics, threads, numbers)


def leaky_relu(x, negative_slope=0.01, *, out, numerics="fbgemm", threads=1):
    """Apply ``x`` where it is positive, else ``negative_slope * x``; bit-exact. See `sigmoid`."""
    return _unary("leaky_relu", x, out, numerics, threads, as_real(negative_slope, "negative_slope", "leaky_relu"))


def gelu(x, *, out=None, numerics="fbgemm", threads=1):
    """Apply ``x/2 * (1 + erf(x / sqrt(2)))``; PyTorch keeps the input's parameters. See `sigmoid`."""
    check_qtensor(x, "x", "gelu")
    return _unary("gelu", x, x.qparams if out is None else out, numerics, threads)
