"""Input scales for which a function ends beside a tie: where engines that compute it in different steps part.

A case must mean the same problem on every processor, so the functions are computed here by IEEE sums, products and quotients alone.
"""

import numpy as np

from refquant.verify.draws import pick
from refquant.verify.powers import power_of_two

__all__ = ["SOLVED", "scale_beside_a_tie", "softmax_beside_a_tie"]

_LOG2_E = 1.4426950408889634
_SQRT_HALF = 0.7071067811865476
_TWO_OVER_SQRT_PI = 1.1283791670955126
_TRIES = 12
# Beside ties of 1/128, where ATen's vectors (the first two) or glibc's function (the others) are an ulp off and other engines are not.
_UNEVEN = {("tanh", 1 / 128): (0.17762607, 0.18569927, 0.25958386, 0.45473242, 0.71416384, 1.0793791)}


def _exp(x):
    return power_of_two(x * _LOG2_E)


def _tanh(x):
    small = _exp(-2.0 * x)
    return (1.0 - small) / (1.0 + small)


def _normal(x):
    """The normal distribution, by the series of the error function."""
    z = x * _SQRT_HALF
    term, total, n = z, z, 0
    while abs(term) > 1e-20:
        n += 1
        term *= -z * z / n
        total += term / (2 * n + 1)
    return 0.5 + 0.5 * _TWO_OVER_SQRT_PI * total


def _log(x):
    """Of numbers from 1 on: halved until below 2, then by the series of the area tangent."""
    halvings = 0
    while x >= 2:
        x, halvings = x / 2, halvings + 1
    z = (x - 1.0) / (x + 1.0)
    total, term, n = 0.0, z, 1
    while abs(term) > 1e-20:
        total, term, n = total + term / n, term * z * z, n + 2
    return 2.0 * total + halvings / _LOG2_E


def _elu(x, alpha):
    return alpha * (_exp(x) - 1.0)


#: (function of an argument and alpha, the arguments' sizes from and to); beyond, they are flat. Of ELU and CELU the side below zero, of GELU from its lowest point on.
SOLVED = {
    "sigmoid": (lambda x, alpha: 1.0 / (1.0 + _exp(-x)), 0.25, 3.5),
    "tanh": (lambda x, alpha: _tanh(x), 0.25, 3.5),
    "hardsigmoid": (lambda x, alpha: (x + 3.0) / 6.0, 0.25, 2.9),
    "gelu": (lambda x, alpha: x * _normal(x), 1.0, 3.5),
    "elu": (_elu, 0.25, 3.5),
    "exp": (lambda x, alpha: _exp(x), 0.25, 3.5),
    "log": (lambda x, alpha: _log(x), 1.25, 30.0),
    "celu": (lambda x, alpha: _elu(x / alpha, alpha), 0.25, 3.5),
}


def _solve(function, target, low, high):
    """Return where a function that grows or falls between `low` and `high` takes a value."""
    grows = function(low) < function(high)
    for _ in range(60):
        middle = (low + high) / 2
        if (function(middle) < target) == grows:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _beside(rng, steps, size, low, high, step_at):
    """Return a float32 scale at which `steps`, a function of the argument's size, is all but half an integer; if there is one, where quotient and product with the reciprocal round apart."""
    f, best = np.float32, None
    for _ in range(_TRIES):
        target = float(np.floor(steps(rng.uniform(low, high))) + 0.5)
        ends = sorted((steps(low), steps(high)))
        if not ends[0] < target < ends[1]:
            continue
        nearest = f(_solve(steps, target, low, high) / size)
        for scale in nearest + np.arange(-3, 4, dtype=f) * np.spacing(nearest):
            number = steps(float(scale) * size)
            step = f(step_at(float(scale)))
            value = f(number * float(step))
            apart = np.rint(value / step) != np.rint(value * (f(1) / step))
            rank = (not apart, abs(number - target))
            if best is None or rank < best[0]:
                best = rank, float(scale)
        if best is not None and not best[0][0]:
            break
    return float(f(rng.uniform(low, high) / size)) if best is None else best[1]


def scale_beside_a_tie(rng, op, difference, step, alpha=1.0):
    """Return an input scale, a float32 number, for which a code's function, divided by the output's scale, is all but half an integer.

    Parameters
    ----------
    rng : numpy.random.Generator
    op : str
        One of `SOLVED`.
    difference : int
        Code less zero point; not 0.
    step : float or None
        The output's scale; None: that of the input.
    alpha : float

    Returns
    -------
    float

    Examples
    --------
    >>> scale = scale_beside_a_tie(np.random.default_rng(0), "sigmoid", 40, 1 / 256)
    >>> bool(abs(256 * SOLVED["sigmoid"][0](40 * scale, 1.0) % 1 - 0.5) < 1e-4)
    True
    """
    sign, size = (1.0, difference) if difference > 0 else (-1.0, -difference)
    function, low, high = SOLVED[op]
    if (op, step) in _UNEVEN and rng.random() < 0.6:
        argument = np.float32(pick(rng, _UNEVEN[op, step]))
        beside = argument / np.float32(size) + np.arange(-1, 2, dtype=np.float32) * np.spacing(argument / np.float32(size))
        return float(beside[np.argmin(np.abs(beside * np.float32(size) - argument))])
    step_at = (lambda scale: scale) if step is None else (lambda scale: step)
    return _beside(rng, lambda u: function(sign * u, alpha) / step_at(u / size), size, low, high, step_at)


def softmax_beside_a_tie(rng, difference, others, step):
    """Return an input scale for which the largest entry's softmax, beside so many `others` that are equal and by `difference` smaller, is all but half an integer of steps.

    Examples
    --------
    >>> scale = softmax_beside_a_tie(np.random.default_rng(0), 40, 1, 1 / 256)
    >>> bool(abs(256 / (1 + np.exp(-40 * scale)) % 1 - 0.5) < 1e-4)
    True
    """
    high = 3.5 + float(np.log2(1 + others))
    return _beside(rng, lambda u: 1.0 / (1.0 + others * _exp(-u)) / step, difference, 0.25, high, lambda scale: step)
