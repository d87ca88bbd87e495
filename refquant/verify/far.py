"""Problems far from those of networks: the same operation with scales, zero points, codes and biases that no layer has."""

import numpy as np

from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.verify.draws import pick
from refquant.verify.problem import Problem

__all__ = ["far"]

# What may change; each problem takes one set of these.
_SETS = ("scales", "scales", "zeros", "scales zeros", "codes", "codes zeros", "bias", "activation", "zeros codes activation", "scales codes bias")
# The scales of scalars' results are chosen by the operator, which refuses what leaves float32.
_AS_THEY_ARE = ("add_scalar", "mul_scalar")
# These refuse codes below the zero point: negative numbers have no root.
_ROOTS = ("sqrt", "rsqrt")
_LEAST, _MOST = 2.0**-100, 2.0**100


def _scale(rng, scale):
    """Draw a scale so far from the one there was that multipliers pass 1, underflow, or saturate everything; a third of them on a power of two."""
    kind = int(rng.integers(3))
    drawn = scale * 2.0 ** int(rng.integers(*((-24, 25), (-8, 13))[kind])) if kind < 2 else 2.0 ** int(rng.integers(-20, 6))
    return min(max(drawn, _LEAST), _MOST)


def _parameters(rng, q, chosen):
    """Draw scales, of channels three in ten, and zero points at the ends of the dtype; those of a symmetric dtype stay 0."""
    scale, zero = q.scale, q.zero_point
    if "scales" in chosen:
        scale = np.array([_scale(rng, s) if rng.random() < 0.3 else s for s in scale]) if q.per_channel else _scale(rng, scale)
    if "zeros" in chosen and not q.symmetric:
        ends = (q.qmin, q.qmax, q.qmin + 1, q.qmax - 1)
        zero = np.array([pick(rng, ends) for _ in zero]) if q.per_channel else pick(rng, ends)
    return QParams(scale, zero, q.dtype, axis=q.axis, quant_min=q.qmin, quant_max=q.qmax)


def _codes(rng, codes):
    """Draw codes that are all alike, all but the last, or all at the two ends of the dtype."""
    low, high = np.iinfo(codes.dtype).min, np.iinfo(codes.dtype).max
    kind, drawn = int(rng.integers(5)), codes.copy("K")
    if kind < 2:
        drawn[...] = (low, high)[kind]
    elif kind == 2:
        drawn[...] = rng.choice(np.array([low, high], codes.dtype), codes.shape)
    elif codes.size:
        drawn[...] = codes.reshape(-1)[0] if kind == 3 else codes
        drawn[(-1,) * codes.ndim] = high
    return drawn


def _bias(rng, bias):
    """Draw a bias at the ends of int32, or of real numbers far beyond what a sum can hold."""
    bias, some = bias.copy(), rng.random(bias.shape) < 0.3
    if bias.dtype == np.int32:
        bias[some] = pick(rng, (2**31 - 1, -(2**31), 2**31 - 64))
        return bias
    with np.errstate(over="ignore"):
        bias = bias * np.float32(10.0 ** int(rng.integers(-5, 6)))
    bias[some] = np.float32(pick(rng, (1e30, -1e30, 1e-45, -0.0, 3e38)))
    return bias


def _activation(rng, arguments):
    """Draw the slopes and limits of functions."""
    activation = arguments.get("activation")
    if isinstance(activation, tuple) and activation[0] == "leaky_relu":
        arguments["activation"] = "leaky_relu", float(np.float32(pick(rng, (0.0, 1.0, 2.0, 1e-10, 1e10))))
    if isinstance(activation, tuple) and activation[0] == "hardtanh":
        low, high = sorted(rng.choice(np.array([-1e10, -6, -1, 0, 0.3, 1, 6, 1e10]), 2, replace=False).tolist())
        arguments["activation"] = "hardtanh", float(np.float32(low)), float(np.float32(high))
    for name in ("negative_slope", "alpha"):
        if name in arguments:
            arguments[name] = float(np.float32(pick(rng, (1.0, 2.0, 1e-10, 0.5, 100.0))))


def far(problem, rng):
    """Return a problem with some of its arguments taken far from where networks have them.

    Parameters
    ----------
    problem : Problem
    rng : numpy.random.Generator

    Returns
    -------
    Problem

    Examples
    --------
    >>> x = QTensor(np.arange(6, dtype=np.uint8).reshape(2, 3), QParams(0.5, 128, "uint8"))
    >>> far(Problem("relu", {"x": x}), np.random.default_rng(1))["x"].qparams.zero_point
    128
    """
    chosen = pick(rng, _SETS).split()

    def changed(value):
        if isinstance(value, tuple) and any(isinstance(v, QTensor) for v in value):
            return tuple(changed(v) for v in value)
        if isinstance(value, QParams):
            return _parameters(rng, value, chosen) if rng.random() < 0.6 else value
        if isinstance(value, QTensor):
            return QTensor(_codes(rng, value.values) if "codes" in chosen and rng.random() < 0.6 else value.values, changed(value.qparams))
        return value

    if problem.op in _AS_THEY_ARE:
        return problem
    arguments = {name: changed(value) for name, value in problem.arguments.items()}
    if problem.op in _ROOTS:
        x = arguments["x"]
        arguments["x"] = QTensor(np.maximum(x.values, x.values.dtype.type(x.qparams.zero_point)), x.qparams)
    if "bias" in chosen and isinstance(arguments.get("bias"), np.ndarray):
        arguments["bias"] = _bias(rng, arguments["bias"])
    if "activation" in chosen and problem.op != "gemm":
        _activation(rng, arguments)
    return Problem(problem.op, arguments)
