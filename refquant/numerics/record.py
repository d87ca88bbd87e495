"""Frozen dataclasses of keywords, whose methods stand in one class.

`dataclasses` writes and compiles six methods for each class that it decorates. For the forty forms of a profile that would take half of
the time in which ``refquant.ops`` is imported.
"""

from dataclasses import MISSING, FrozenInstanceError, dataclass

__all__ = ["Record", "record"]


def record(cls):
    """Make a dataclass of a subclass of `Record`, as ``dataclass(frozen=True, kw_only=True)`` would.

    Examples
    --------
    >>> @record
    ... class Point(Record):
    ...     x: int
    ...     y: int = 0
    >>> Point(x=1), Point(x=1) == Point(x=1, y=0)
    (Point(x=1, y=0), True)
    """
    return dataclass(init=False, repr=False, eq=False, kw_only=True)(cls)


class Record:
    """What a dataclass that cannot be changed does: fields by keyword, equality and hash by all of them."""

    def __init__(self, **values):
        fields, own = self.__dataclass_fields__, self.__dict__
        for name, f in fields.items():
            value = values.pop(name, f.default)
            if value is MISSING:
                raise TypeError(f"{type(self).__qualname__}() lacks {name!r}; its fields are {', '.join(fields)}")
            own[name] = value
        if values:
            raise TypeError(f"{type(self).__qualname__}() has no field {min(values)!r}; its fields are {', '.join(fields)}")
        self.__post_init__()

    def __post_init__(self):
        """Check the fields."""

    def _values(self):
        return tuple(map(self.__dict__.__getitem__, self.__dataclass_fields__))

    def __eq__(self, other):
        return self._values() == other._values() if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self):
        return hash(self._values())

    def __repr__(self):
        return f"{type(self).__qualname__}({', '.join(f'{name}={self.__dict__[name]!r}' for name in self.__dataclass_fields__)})"

    def __setattr__(self, name, value):
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name):
        raise FrozenInstanceError(f"cannot delete field {name!r}")
