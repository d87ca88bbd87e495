"""Elementwise operators whose output is a FakeQuantize: what OpenVINO's transformations leave of "dequantize, compute, quantize".

    quantize       range(x)
    sum            fma(a − f(za + f(f(zb · sb) / sa)), f(sa / sb), b)     into the range divided by sb
    product        ((a − za) · sa) · ((b − zb) · sb); where zb is 0: ((a − za) · f(sa · sb)) · b
    choice         (a − za) · sa or (b − zb) · sb
    concatenation  a − za                                                 into the range divided by sa
    leaky ReLU     of a, into the range divided by sa, where za is 0; else of (a − za) · sa
    functions      of (a − za) · sa, as oneDNN's vector code computes them
    PReLU          (a − za) · sa, below 0 times (w − zw) · sw
    softmax        of (a − za) · sa, as oneDNN's vector code computes it
    lines          of (a − za) · sa, columns first, two roundings a pair
    limits         codes between f(low / sa + za) and f(high / sa + za) without what is behind their points
    pools, means   f(f(sum) / n)                                          into the range divided by sa, −za in its shift

A ReLU in front of a range that begins at 0 is dropped. Codes are raw, each step is one float32 operation.
"""

import numpy as np

from refquant.core.fma import fma32
from refquant.core.onednn_eltwise import onednn_elu, onednn_logistic
from refquant.core.onednn_softmax import onednn_softmax
from refquant.core.onednn_tanh import onednn_tanh
from refquant.core.range_steps import range_codes, range_of, steps_of
from refquant.core.rounding import Round, round_real

__all__ = ["range_quantize", "range_fake_quantize", "range_sum", "range_product", "range_copy", "range_choice", "range_function", "range_prelu", "range_softmax", "range_bilinear", "range_limit", "range_mean", "range_reduced"]

_F = np.float32


def range_quantize(form, x, qparams):
    """Return the codes of real numbers, with parameters per tensor or per channel."""
    scale, zero = qparams.along(np.ndim(x))
    steps = steps_of(*range_of(scale, zero, qparams.qmin, qparams.qmax), form.shift)
    return range_codes(x, steps, qparams.qmin, qparams.qmax, contraction=form.contraction, reduced=form.reduced)


def range_fake_quantize(form, x, qparams):
    """Return real numbers on the grid: without zero points a FakeQuantize alone, ``fma(step, f((high − low) / 255), low)``, else dequantized apart."""
    scale, zero = qparams.along(np.ndim(x))
    low, high = range_of(scale, zero, qparams.qmin, qparams.qmax)
    codes = range_codes(x, steps_of(low, high, form.shift), qparams.qmin, qparams.qmax, contraction=form.contraction, reduced=form.reduced)
    with np.errstate(all="ignore"):
        if np.any(zero):
            return (codes - zero).astype(_F) * scale.astype(_F)
        steps = (codes - qparams.qmin).astype(_F)
        return fma32(steps, np.broadcast_to((high - low) / _F(255), steps.shape), np.broadcast_to(low, steps.shape))


def _codes(form, real, out, divisor, relu=False):
    low, high = range_of(out.scale, out.zero_point, out._type.qmin, out._type.qmax)
    with np.errstate(all="ignore"):
        if relu and out.zero_point > out._type.qmin:
            real = np.maximum(real, _F(0))
        steps = steps_of(low / divisor, high / divisor, form.shift)
    return range_codes(real, steps, out._type.qmin, out._type.qmax, contraction=form.contraction, reduced=form.reduced)


def _centred(codes, q):
    return codes.astype(_F) - _F(q.zero_point)


def _real(codes, q):
    return _centred(codes, q) * _F(q.scale)


def range_sum(form, qa, qb, out, a, b, activation):
    """Return the codes of a sum."""
    sa, sb = _F(qa.scale), _F(qb.scale)
    with np.errstate(all="ignore"):
        offset = _F(qa.zero_point) + (_F(qb.zero_point) * sb) / sa
        total = fma32(a.astype(_F) - offset, sa / sb, b.astype(_F))
    return _codes(form, total, out, sb, activation == "relu")


def range_product(form, qa, qb, out, a, b, activation):
    """Return the codes of a product."""
    with np.errstate(all="ignore"):
        if qb.zero_point:
            real = _real(a, qa) * _real(b, qb)
        else:  # the scale of b moves through the product
            real = _centred(a, qa) * (_F(qa.scale) * _F(qb.scale)) * b.astype(_F)
        return _codes(form, real, out, _F(1), activation == "relu")


def range_choice(form, condition, qx, qy, out, x, y):
    """Return the codes of a choice."""
    return _codes(form, np.where(condition, _real(x, qx), _real(y, qy)), out, _F(1))


def range_copy(form, q, out, codes):
    """Return one input of a concatenation under the output's parameters."""
    return _codes(form, _centred(codes, q), out, _F(q.scale))


def range_function(form, name, function, parameter, q, out, codes):
    """Return the codes of a function of one code."""
    if name == "leaky_relu" and not q.zero_point:
        return _codes(form, function(_centred(codes, q), parameter), out, _F(q.scale))
    x = _real(codes, q)
    with np.errstate(all="ignore"):
        return _codes(form, _FUNCTIONS.get(name, function)(x, parameter), out, _F(1))


def _between(x, low, high):
    return np.minimum(np.maximum(x, _F(low)), _F(high))


#: Functions as OpenVINO computes them: oneDNN's, or steps of its own.
_FUNCTIONS = {
    "hardswish": lambda x, p: x * (_between(x + _F(3), 0, 6) / _F(6)),
    "hardsigmoid": lambda x, p: _between(x * (_F(1) / _F(6)) + _F(0.5), 0, 1),
    "sigmoid": lambda x, p: onednn_logistic(x),
    "tanh": lambda x, p: onednn_tanh(x),
    "elu": lambda x, p: onednn_elu(x, p),
}


def range_prelu(form, q, slopes, out, codes, weight):
    """Return the codes of a leaky ReLU with a quantized slope a channel, `slopes` their parameters."""
    with np.errstate(all="ignore"):
        x = _real(codes, q)
        return _codes(form, np.where(x >= 0, x, x * _real(weight, slopes)), out, _F(1))


def range_softmax(form, q, out, codes, dim):
    """Return the codes of a softmax."""
    return _codes(form, onednn_softmax(_real(codes, q), dim, lanes=max(form.vector, 1)), out, _F(1))


def range_bilinear(form, q, codes, rows, columns):
    """Return the codes of lines between points: of a pair the second product is rounded; rows and columns are (first, second, their weights)."""
    (top, bottom, over, under), (left, right, before, behind) = rows, columns
    x = _real(codes, q)

    def across(row):
        second = x[:, :, row][..., right] * behind
        return fma32(x[:, :, row][..., left], np.broadcast_to(before, second.shape), second)

    far = across(bottom)
    return _codes(form, fma32(far, np.broadcast_to(under[:, None], far.shape), across(top) * over[:, None]), q, _F(1))


def range_limit(value, q):
    """Return the code of a limit: a quotient in float64, of which what is behind the point is cut off."""
    limit = np.float64(value) / np.float64(_F(q.scale)) + q.zero_point
    return int(round_real(np.float64(min(max(limit, q.qmin), q.qmax)), Round.TRUNCATE))


def range_reduced(form, q, out, total, count):
    """Return the codes of means that nothing is fused with, ``f(f(sum) / n)`` less the zero point, on steps in units of the input's scale."""
    low, high = range_of(out.scale, out.zero_point, out._type.qmin, out._type.qmax)
    scale = _F(q.scale)
    with np.errstate(all="ignore"):
        steps = steps_of(low / scale, high / scale, form.shift)
    mean = total.astype(_F) / count.astype(_F) - _F(q.zero_point)
    return range_codes(mean, steps, out._type.qmin, out._type.qmax, contraction=form.contraction, reduced=form.reduced)


def range_mean(form, q, out, total, count, windows=False):
    """Return the codes of means of raw codes, ``f(f(sum) / n)``, of windows ``f(f(sum) · f(1 / n))``: the zero point goes into the shift, so padding that counts is code 0, not the number 0."""
    low, high = range_of(out.scale, out.zero_point, out._type.qmin, out._type.qmax)
    zero, scale = _F(q.zero_point), _F(q.scale)
    with np.errstate(all="ignore"):
        steps = steps_of(low / scale, high / scale, form.shift)
        moved = steps._replace(low=steps.low + zero, high=steps.high + zero, shift=steps.shift + -zero * steps.step)
    mean = total.astype(_F) * (_F(1) / count.astype(_F)) if windows else total.astype(_F) / count.astype(_F)
    return range_codes(mean, moved, out._type.qmin, out._type.qmax, contraction=form.contraction, reduced=form.reduced)
