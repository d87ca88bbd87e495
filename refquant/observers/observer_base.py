"""What every observer is: something that sees batches, and knows quantization parameters in the end."""

import inspect

import numpy as np

from refquant.core.arguments import as_array
from refquant.errors import ArgumentError, UnsupportedError, choose
from refquant.observers.qparams_from_range import plain_name

__all__ = ["ObserverBase", "ObserverFactory"]


class ObserverFactory:
    """An observer class with some of its arguments: call it for a fresh observer.

    Parameters
    ----------
    observer : type
        A subclass of `ObserverBase`.
    arguments : dict
        Keyword arguments of the observer.
    callables : dict
        Keyword arguments that are computed anew for every observer, by calling these.

    Examples
    --------
    >>> from refquant.observers import MinMaxObserver
    >>> weight = MinMaxObserver.with_args(dtype="qint8").with_args(qscheme="per_tensor_symmetric")
    >>> weight
    MinMaxObserver.with_args(dtype='qint8', qscheme='per_tensor_symmetric')
    >>> weight() is weight()
    False
    """

    __slots__ = ("observer", "arguments", "callables")

    def __init__(self, observer, arguments=None, callables=None):
        self.observer = observer
        self.arguments = dict(arguments or {})
        self.callables = dict(callables or {})
        parameters = inspect.signature(observer.__init__).parameters
        known = [name for name in parameters if name != "self"]
        # A fake-quantizer hands arguments on to its observer, which checks them when it is made.
        handed_on = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for name in (*self.arguments, *self.callables):
            if name not in known and not handed_on:
                choose(f"{observer.__name__}.with_args", "argument", name, known)

    def __call__(self, **arguments):
        computed = {name: call() for name, call in self.callables.items() if name not in arguments}
        return self.observer(**{**self.arguments, **computed, **arguments})

    def with_args(self, **arguments):
        """Return a factory with more arguments."""
        return ObserverFactory(self.observer, {**self.arguments, **arguments}, self.callables)

    def with_callable_args(self, **callables):
        """Return a factory with more arguments that are computed for every observer."""
        return ObserverFactory(self.observer, self.arguments, {**self.callables, **callables})

    def _key(self):
        return self.observer, self.arguments, self.callables

    def __eq__(self, other):
        return isinstance(other, ObserverFactory) and self._key() == other._key()

    def __hash__(self):
        return hash((self.observer, frozenset(self.arguments), frozenset(self.callables)))

    def __repr__(self):
        text = f"{self.observer.__name__}.with_args({', '.join(f'{k}={v!r}' for k, v in self.arguments.items())})"
        if self.callables:
            text += f".with_callable_args({', '.join(f'{k}={v!r}' for k, v in self.callables.items())})"
        return text


class ObserverBase:
    """Base of the observers: ``observer(batch)`` records and returns the batch, `calculate_qparams` concludes.

    Parameters
    ----------
    dtype : str or dtype
        What the observed tensor will be quantized to.
    is_dynamic : bool
        Whether quantization parameters are chosen at run time instead.

    Attributes
    ----------
    made_with : tuple of (tuple, dict)
        The arguments that the observer was made with.

    Notes
    -----
    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``, ``ObserverBase``.
    """

    def __new__(cls, *args, **named):
        observer = super().__new__(cls)
        observer.made_with = args, named
        return observer

    def __init__(self, dtype, is_dynamic=False):
        self.dtype = dtype
        self.is_dynamic = bool(is_dynamic)

    @classmethod
    def with_args(cls, **arguments):
        """Return an `ObserverFactory` that makes observers with these arguments."""
        return ObserverFactory(cls, arguments)

    @classmethod
    def with_callable_args(cls, **callables):
        """Return an `ObserverFactory` that calls these for the arguments of each observer."""
        return ObserverFactory(cls, callables=callables)

    def __call__(self, x):
        """Record the batch `x`, unless it is empty, and return it as it is."""
        self._record(x)
        return x

    def _record(self, x):
        """What a subclass does with a batch; here, nothing."""

    def calculate_qparams(self):
        """Return the quantization parameters; an observer that knows none raises `UnsupportedError`."""
        name = type(self).__name__
        raise UnsupportedError(f"{name}: calculate_qparams has no result, {name} keeps no range; ask the observer that does")

    def __repr__(self):
        return f"{type(self).__name__}(dtype={self.dtype!r}, is_dynamic={self.is_dynamic})"


def as_batch(x, place):
    """Return `x` as an array of real numbers; Python numbers become float32, as in ``torch.tensor``."""
    array = as_array(x, "the batch", place)
    if array.dtype.kind not in "fiu":
        raise ArgumentError(f"{place}: the batch has dtype {array.dtype}; observers take real numbers, convert it to float32")
    if array.dtype == np.float64 and not hasattr(x, "dtype"):
        array = array.astype(np.float32)
    return array


def unsupported_dynamic(is_dynamic, place):
    """Raise if dynamic quantization is asked of an observer that only knows static quantization."""
    if is_dynamic:
        raise UnsupportedError(f"{place}: is_dynamic=True is not supported, this observer is for static quantization; use PlaceholderObserver")


_PLAIN = {"quint8": "uint8", "qint8": "int8", "qint32": "int32", "quint4x2": "uint4"}


def known_dtype(dtype, allowed, place):
    """Return the name of a dtype that is one of `allowed`, without PyTorch's q: ``"uint8"`` for ``"quint8"``."""
    name = choose(place, "dtype", plain_name(dtype), allowed)
    return _PLAIN.get(name, name)
