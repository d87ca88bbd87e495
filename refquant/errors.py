"""The errors of refquant.

Every message states four things: the rule that was broken, the value that broke it,
the place (operator, argument, file) and the remedy.
"""

__all__ = [
    "RefquantError",
    "ArgumentError",
    "ShapeError",
    "RangeError",
    "UnsupportedError",
    "BackendMissing",
    "choose",
]


class RefquantError(Exception):
    """Base of every error that refquant raises on purpose."""


class ArgumentError(RefquantError, ValueError):
    """An argument has a wrong type, name, dtype or content."""


class ShapeError(RefquantError, ValueError):
    """The shapes of two arguments do not fit together."""


class RangeError(RefquantError, ValueError):
    """A number lies outside of the range that the operation is defined on."""


class UnsupportedError(RefquantError, NotImplementedError):
    """The engine that a profile describes has no such operation."""


class BackendMissing(RefquantError, ImportError):
    """An optional package is needed and not installed."""


def choose(place, name, value, allowed):
    """Return `value` if it is one of `allowed`, else raise an `ArgumentError` that lists them.

    Parameters
    ----------
    place : str
        Who asks, for the message (``"QParams"``, ``"linear[fbgemm]"``).
    name : str
        The argument's name.
    value : object
        What was given.
    allowed : iterable
        The values that are allowed.

    Raises
    ------
    ArgumentError
        When `value` is none of `allowed`; a close spelling is suggested.

    Examples
    --------
    >>> choose("linear", "activation", "relu", ["none", "relu"])
    'relu'
    """
    allowed = list(allowed)
    try:
        if value in allowed:
            return value
    except (TypeError, ValueError):  # an array, whose comparison has no one answer
        pass
    import difflib

    near = difflib.get_close_matches(str(value), [str(a) for a in allowed], 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listing = ", ".join(repr(a) for a in allowed)
    raise ArgumentError(f"{place}: {name}={value!r} is not known; {hint}choose one of {listing}")
