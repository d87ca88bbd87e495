"""What an observer has seen, as plain data: what differs from a new observer that was made alike."""

import numpy as np

from refquant.errors import ArgumentError, RangeError, UnsupportedError, choose

__all__ = ["state_of", "restore"]

_NUMBERS = (int, float)


def state_of(observer, place):
    """Return what an observer has seen.

    Parameters
    ----------
    observer : ObserverBase
    place : str
        For messages.

    Returns
    -------
    dict
        ``{attribute: value}``, of those that are not what they are in a new observer: numbers, arrays (a NumPy scalar as an array without axes), tuples of such, and
        for an object inside, such as a histogram, a dictionary of the same kind.

    Raises
    ------
    UnsupportedError
        An attribute that is none of these.

    Examples
    --------
    >>> from refquant.observers import MinMaxObserver
    >>> seen, resumed = MinMaxObserver(dtype="uint8"), MinMaxObserver(dtype="uint8")
    >>> _ = seen(np.float32([-1, 3]))
    >>> state_of(seen, "")
    {'_batches': 1, 'min_val': array(-1., dtype=float32), 'max_val': array(3., dtype=float32)}
    >>> restore(resumed, state_of(seen, ""), "")
    >>> resumed.calculate_qparams() == seen.calculate_qparams()
    True
    """
    args, named = observer.made_with
    return _differences(observer, type(observer)(*args, **named), place)


def _differences(held, fresh, place):
    state = {}
    for name, value in vars(held).items():
        before = getattr(fresh, name, None)
        if name == "made_with" or _alike(value, before):
            continue
        if hasattr(value, "__dict__") and type(value) is type(before):
            inner = _differences(value, before, f"{place}.{name}")
            state.update({name: inner} if inner else {})
        else:
            state[name] = _plain(value, f"{place}.{name}")
    return state


def _alike(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, (np.ndarray, np.generic)):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_alike, a, b))
    return not hasattr(a, "__dict__") and bool(a == b)


def _plain(value, place):
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "iufb":
        return np.array(value)
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return tuple(_plain(v, place) for v in value)
    if value is None or isinstance(value, (bool, *_NUMBERS)):
        return value
    raise UnsupportedError(f"{place}: is a {type(value).__name__}, which is no state to write; use another observer")


def restore(observer, state, place):
    """Let a new observer have seen what another has.

    Parameters
    ----------
    observer : ObserverBase
        Made with the arguments of the other.
    state : dict
        Of `state_of`; it may come from a file, and is checked.
    place : str
        For messages.

    Raises
    ------
    ArgumentError, RangeError
        A state that such an observer cannot have.
    """
    _restore(observer, state, place)


def _restore(held, state, place):
    known = [name for name in vars(held) if name != "made_with"]
    if not isinstance(state, dict):
        raise ArgumentError(f"{place}: the state of a {type(held).__name__} must be a table but is {str(state)[:40]!r}; write it anew")
    for name, value in state.items():
        before = getattr(held, choose(place, "attribute", name, known))
        if hasattr(before, "__dict__"):
            _restore(before, value, f"{place}.{name}")
        else:
            setattr(held, name, _as(value, before, f"{place}.{name}"))
    _check_histogram(held, place)


def _as(value, before, place):
    """Return a value in the type of what stood there before, or raise."""
    if isinstance(before, (list, tuple)) and isinstance(value, (list, tuple)):
        if isinstance(before, list) or not before:
            return type(before)(_as(v, None, place) for v in value)
        if len(value) == len(before):
            return tuple(_as(v, b, place) for v, b in zip(value, before))
    elif before is None:
        if isinstance(value, (tuple, list)):
            return tuple(_as(v, None, place) for v in value)
        if isinstance(value, np.ndarray) or value is None or type(value) in _NUMBERS:
            return _array(value)
    elif isinstance(before, (np.ndarray, np.generic)):
        if isinstance(value, np.ndarray) and value.dtype.kind == before.dtype.kind and value.ndim == np.ndim(before) and (np.size(before) < 2 or value.shape == before.shape):
            return _array(value)
    elif type(value) is type(before) and type(value) in (bool, *_NUMBERS):
        if type(value) is int and value < min(before, 0):
            raise RangeError(f"{place}: {value} must not be negative; write the state anew")
        return value
    raise ArgumentError(f"{place}: {str(value)[:40]!r} cannot take the place of a {type(before).__name__}; write the state anew")


def _array(value):
    """A NumPy scalar again, where there are no axes, and an array that may be changed."""
    return np.array(value)[()] if isinstance(value, np.ndarray) else value


def _check_histogram(held, place):
    """Counts and edges must be such, lest a search in them breaks off or never ends."""
    counts, edges = (getattr(held, name, None) for name in ("counts", "edges"))
    if counts is None and edges is None:
        return
    sound = isinstance(counts, np.ndarray) and counts.ndim == 1 and counts.size and np.isfinite(counts).all() and (counts >= 0).all()
    if sound and hasattr(held, "edges"):
        sound = isinstance(edges, np.ndarray) and edges.shape == (counts.size + 1,) and np.isfinite(edges).all() and (np.diff(edges) >= 0).all()
    if sound and hasattr(held, "width"):
        sound = held.width > 0 and np.isfinite(held.width) and np.isfinite(held.low)
    if not sound:
        raise RangeError(f"{place}: a histogram needs finite counts that are not negative, between edges that rise; write the state anew")
