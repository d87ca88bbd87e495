"""How an observer is made, as plain data: the name of its class and its arguments, by name."""

import inspect

import numpy as np

from refquant.errors import RangeError, UnsupportedError, choose
from refquant.observers.observer_base import ObserverBase, ObserverFactory

__all__ = ["recipe_of", "maker_of"]

_MOST_STEPS = 1 << 22


def recipe_of(maker, place):
    """Return how an observer is made, from the observer itself or from its maker.

    Parameters
    ----------
    maker : ObserverBase, observer class or ObserverFactory
    place : str
        For messages.

    Returns
    -------
    dict
        ``{"observer": name, "arguments": {name: plain value or recipe} or None}``, None for a class.

    Raises
    ------
    UnsupportedError
        A class that does not come with refquant; arguments that are computed anew for each observer.

    Examples
    --------
    >>> from refquant.observers import MinMaxObserver
    >>> recipe_of(MinMaxObserver.with_args(dtype="qint8"), "")
    {'observer': 'MinMaxObserver', 'arguments': {'dtype': 'qint8'}}
    >>> recipe_of(MinMaxObserver("qint8"), "") == recipe_of(MinMaxObserver.with_args(dtype="qint8"), "")
    True
    """
    if isinstance(maker, ObserverBase):
        maker = ObserverFactory(type(maker), _arguments_of(maker))
    kind, arguments = (maker.observer, maker.arguments) if isinstance(maker, ObserverFactory) else (maker, None)
    name = getattr(kind, "__name__", repr(kind))
    if _classes().get(name) is not kind:
        raise UnsupportedError(f"{place}: {name} does not come with refquant, so that a file cannot say how it is made; observe with one of refquant.observers")
    if getattr(maker, "callables", None):
        raise UnsupportedError(f"{place}: {maker!r} calls functions for its arguments, which a file does not hold; use with_args")
    return {"observer": name, "arguments": None if arguments is None else {key: _plain(value, place) for key, value in arguments.items()}}


def maker_of(recipe, place):
    """Return the class or factory of a recipe that was read from a file.

    Raises
    ------
    ArgumentError, RangeError
        What is no recipe; an argument that would need absurd memory.
    """
    name, arguments = recipe["observer"], recipe["arguments"]
    kind = _classes()[choose(place, "observer", name, _classes())]
    if arguments is None:
        return kind
    made = {}
    for key, value in arguments.items():
        made[key] = maker_of(value, place) if isinstance(value, dict) else value
        if isinstance(value, int) and ("bins" in key or key in ("steps", "levels", "interval")) and value > _MOST_STEPS:
            raise RangeError(f"{place}: {name} with {key}={value:,} but at most {_MOST_STEPS:,} are read from a file; make the observer in code")
    return kind.with_args(**made)


def _arguments_of(observer):
    args, named = observer.made_with
    signature = inspect.signature(type(observer).__init__)
    bound = dict(signature.bind(observer, *args, **named).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            bound.update(bound.pop(name, {}))
    del bound["self"]
    return bound


def _plain(value, place):
    if isinstance(value, ObserverFactory) or isinstance(value, type) and issubclass(value, ObserverBase):
        return recipe_of(value, place)
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(v, place) for v in value]
    if isinstance(value, np.ndarray):
        return value
    raise UnsupportedError(f"{place}: an observer was made with {value!r}, a {type(value).__name__}, which a file does not hold; give plain numbers, texts and arrays")


def _classes():
    from refquant.observers import FAKE_QUANTIZERS, OBSERVERS, by_name  # the table, which imports every observer

    return by_name((*OBSERVERS, *FAKE_QUANTIZERS))
