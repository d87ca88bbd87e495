"""Views: the same codes in memory with gaps, steps, turned axes or repetitions, as a case's option asks for."""

import numpy as np

from refquant.core.qtensor import QTensor
from refquant.verify.problem import Problem

__all__ = ["VIEWS", "viewed"]

# What an operator works on, by the names of its arguments; of two operands both, unless one is to be repeated.
_ROLES = ("x", "q", "a", "b", "tensors")
_GAP = 3


def _by_memory(x, change):
    """Return `change` done to `x` with its axes in the order in which they lie in memory, the innermost last."""
    axes = sorted(range(x.ndim), key=lambda d: -x.strides[d])
    return change(x.transpose(axes)).transpose(np.argsort(axes))


def _cut(x):
    """Lay the rows of `x`, other codes between them, behind one element, so that none is aligned."""
    wide = np.full((*x.shape[:-1], x.shape[-1] + _GAP), 7, x.dtype)
    wide[..., 1 : 1 + x.shape[-1]] = x
    return wide[..., 1 : 1 + x.shape[-1]]


def _stepped(x):
    return np.repeat(x, 2, axis=-1)[..., ::2]


def _turned(x):
    """Lay the last two axes down in the other order; of fewer there is none."""
    return np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2) if x.ndim > 1 else x


def _repeated(x):
    return np.broadcast_to(x[..., :1], x.shape)


#: By option: what becomes of a tensor, its innermost axis last.
VIEWS = {"sliced": _cut, "stepped": _stepped, "transposed": _turned, "expanded": _repeated}


def viewed(problem, name):
    """Return a problem whose tensors are views.

    Parameters
    ----------
    problem : Problem
    name : str
        One of `VIEWS`; ``expanded`` is done to the first tensor alone, whose codes change by it, the others keep all codes.

    Returns
    -------
    Problem

    Examples
    --------
    >>> x = np.arange(6, dtype=np.uint8).reshape(2, 3)
    >>> [viewed(Problem("quantize", {"x": x}), name)["x"].strides for name in VIEWS]
    [(6, 1), (6, 2), (1, 2), (3, 0)]
    >>> np.array_equal(viewed(Problem("quantize", {"x": x}), "sliced")["x"], x)
    True
    """
    roles = [name for name in _ROLES if problem.get(name) is not None]
    changed = {role: _changed(problem[role], VIEWS[name]) for role in (roles[:1] if name == "expanded" else roles)}
    return Problem(problem.op, {**problem.arguments, **changed})


def _changed(value, change):
    if isinstance(value, tuple):
        return tuple(_changed(v, change) for v in value)
    values = value.values if isinstance(value, QTensor) else value
    if not values.size or not values.ndim:
        return value
    values = _by_memory(values, change)
    return QTensor(values, value.qparams) if isinstance(value, QTensor) else values
