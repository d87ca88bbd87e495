"""`GraphOp`: what a model knows of an operation; and what the families of operations share."""

from typing import Callable, NamedTuple

from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError

__all__ = ["GraphOp", "REQUIRED", "Context", "only_real", "real_only", "on_codes_or_reals", "same_codes"]

REQUIRED = type("Required", (), {"__repr__": lambda self: "required"})()


class GraphOp(NamedTuple):
    """An operation of a model.

    Attributes
    ----------
    name : str
    arity : tuple of int
        Least and greatest number of inputs; None for "any".
    attrs : dict
        Settings with their defaults; `REQUIRED` for those without.
    params : dict
        Arrays, and whether each is required.
    targets : tuple of str
        What it is called where models come from; the first is the usual one.
    run : callable
        ``run(context, node, *inputs)`` returns the value.
    shape : callable
        ``shape(node, *input shapes)`` returns the shape.
    bind : callable, optional
        ``bind(context, node, *inputs)`` returns ``run`` for inputs like these with all but their values worked out, or None.
    """

    name: str
    arity: tuple
    attrs: dict
    params: dict
    targets: tuple
    run: Callable
    shape: Callable
    bind: Callable = None


class Context(NamedTuple):
    """What a run of a model is carried out under: the profile of its quantized nodes, the order of its real sums, the engine's threads."""

    numerics: object
    real: str
    threads: int


def only_real(node, x):
    """Return `x`, or say that it should not be codes."""
    if isinstance(x, QTensor):
        raise ArgumentError(f"{node.op} takes real numbers but got {x!r}; put a dequantize node before it")
    return x


def real_only(function, *attrs, order=False):
    """An operation that engines have on float32 alone: ``function(*inputs, **settings)``, with the order of sums if it has one."""

    def run(ctx, node, *xs):
        settings = {key: node.attrs[key] for key in attrs}
        return function(*(only_real(node, x) for x in xs), **settings, **({"order": ctx.real} if order else {}))

    return run


def on_codes_or_reals(quantized, function, *attrs, out=False, threads=False, order=False):
    """An operation with a form for codes and one for real numbers, of one input and the same settings.

    Parameters
    ----------
    quantized, function : callable
    *attrs : str
        Settings of both.
    out, threads : bool
        Whether the form for codes takes output parameters, the engine's threads.
    order : bool
        Whether the form for real numbers takes the order of sums.
    """

    def run(ctx, node, x):
        settings = {key: node.attrs[key] for key in attrs}
        if not isinstance(x, QTensor):
            return function(x, **settings, **({"order": ctx.real} if order else {}))
        extra = {"out": node.attrs["out"]} if out else {}
        return quantized(x, **settings, **extra, **({"threads": ctx.threads} if threads else {}), numerics=ctx.numerics)

    return run


def same_codes(function):
    """An operation that moves numbers and computes none: on codes the same as on real numbers, with the parameters handed on.

    ``function(node, array)`` returns the array.
    """

    def run(ctx, node, x):
        return QTensor(function(node, x.values), x.qparams) if isinstance(x, QTensor) else function(node, x)

    return run
