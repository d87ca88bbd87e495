"""Hypothesis strategies of parameters, codes and quantized tensors; see `refquant.testing.strategies`."""

from functools import lru_cache

import numpy as np

from refquant.core.dtypes import int_type
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, BackendMissing

__all__ = ["sizes", "zero_points", "scales", "near_tie_scales", "qparams", "codes", "qtensors", "hypothesis_modules"]

# Lengths around whole tiles of kernels, primes, and one.
_SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 101, 127, 128, 129, 255, 256, 257, 509, 512, 513)


def hypothesis_modules():
    """Return Hypothesis's modules of strategies: its own, and that of NumPy's arrays.

    Raises
    ------
    BackendMissing
        Hypothesis is not installed.
    """
    try:
        import hypothesis.extra.numpy
        import hypothesis.strategies
    except ImportError as error:
        raise BackendMissing("refquant.testing.strategies: needs Hypothesis, which is not installed; pip install 'refquant[hypothesis]'") from error
    return hypothesis.strategies, hypothesis.extra.numpy


@lru_cache(maxsize=64)
def sizes(most=65):
    """Return a strategy of lengths: one, primes, and whole tiles of kernels with their neighbours; shrinks to 1.

    Parameters
    ----------
    most : int

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> once = settings(database=None, deadline=None, max_examples=1000)
    >>> find(sizes(), lambda n: n > 16, settings=once)
    17
    """
    st, _ = hypothesis_modules()
    return st.sampled_from([n for n in _SIZES if n <= most])


@lru_cache(maxsize=64)
def zero_points(dtype="uint8"):
    """Return a strategy of zero points: the middle, odd ones beside it, both ends and their neighbours, any; shrinks to the middle.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> once = settings(database=None, deadline=None, max_examples=1000)
    >>> find(zero_points("uint8"), lambda z: True, settings=once), find(zero_points("int8"), lambda z: z % 2, settings=once)
    (128, 1)
    """
    st, _ = hypothesis_modules()
    kind = int_type(dtype, "strategies.zero_points")
    low, high = kind.qmin, kind.qmax
    middle = (low + high + 1) >> 1
    return st.one_of(st.sampled_from([middle, middle + 1, middle - 1, low, high, low + 1, high - 1]), st.integers(low, high))


@lru_cache(maxsize=64)
def scales(low=2.0**-12, high=1.0):
    """Return a strategy of scales: powers of two, numbers of float32, and doubles that are none; shrinks to the power of two nearest below `high`.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> once = settings(database=None, deadline=None, max_examples=1000)
    >>> find(scales(), lambda s: True, settings=once), find(scales(), lambda s: s < 0.3, settings=once)
    (1.0, 0.25)
    """
    st, _ = hypothesis_modules()
    if not 0 < low <= high < np.inf:
        raise ArgumentError(f"strategies.scales: low={low!r} and high={high!r} must be positive, finite and in order; swap or change them")
    top, bottom = int(np.floor(np.log2(high))), int(np.ceil(np.log2(low)))
    single = st.floats(float(np.nextafter(np.float32(low), np.float32(np.inf))), float(np.nextafter(np.float32(high), np.float32(0))), width=32)
    plain = st.integers(0, max(top - bottom, 0)).map(lambda e: float(2.0 ** (top - e)))
    return st.one_of(plain, single, st.floats(low, high)) if low < high / 2 else st.floats(low, high)


def near_tie_scales(accumulator, x_scale, out_scale, *, steps=None):
    """Return a strategy of weight scales under which an accumulator lies on a rounding tie of the output, or up to four ulp of float32 beside.

    ``accumulator * x_scale * scale / out_scale = steps + 1/2``, up to rounding; shrinks to the tie at one half.

    Parameters
    ----------
    accumulator : int
        Not 0.
    x_scale, out_scale : float
    steps : int, optional
        Which tie; 0 to 120 unless given.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> once = settings(database=None, deadline=None, max_examples=1000)
    >>> find(near_tie_scales(4, 1.0, 1.0), lambda s: True, settings=once)
    0.125
    """
    st, _ = hypothesis_modules()
    if not accumulator:
        raise ArgumentError("strategies.near_tie_scales: accumulator is 0, which no scale brings to a tie; give another")
    which = st.integers(0, 120) if steps is None else st.just(steps)

    def scale(chosen):
        tie, ulps = chosen
        exact = np.float32(abs((tie + 0.5) / accumulator) * out_scale / x_scale)
        return float(max((exact.view(np.int32) + np.int32(ulps)).view(np.float32), np.float32(1e-30)))

    return st.tuples(which, st.integers(-4, 4)).map(scale)


@lru_cache(maxsize=64)
def qparams(dtype="uint8", *, channels=None, axis=0, symmetric=False):
    """Return a strategy of `QParams`.

    Parameters
    ----------
    dtype : str
    channels : int, optional
        Per channel along `axis`.
    axis : int
    symmetric : bool
        Zero points of 0 alone.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> once = settings(database=None, deadline=None, max_examples=1000)
    >>> find(qparams("int8"), lambda q: q.zero_point == -128, settings=once)
    QParams(scale=1.0, zero_point=-128, dtype='int8')
    """
    st, _ = hypothesis_modules()
    zero = st.just(0) if symmetric else zero_points(dtype)
    if channels is None:
        return st.builds(QParams, scales(), zero, st.just(dtype))
    lists = [st.lists(of, min_size=channels, max_size=channels) for of in (scales(), zero)]
    return st.builds(lambda s, z: QParams(s, z, dtype, axis=axis), *lists)


def codes(shape, dtype="uint8", *, quiet=0, ends=False):
    """Return a strategy of arrays of codes, most of them alike where they are large; shrinks to `quiet`.

    Parameters
    ----------
    shape : tuple of int
    dtype : str
    quiet : int
        The code that means least: the zero point.
    ends : bool
        Codes at both ends of the dtype, and beside them, alone.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> once = settings(database=None, deadline=None, max_examples=1000)
    >>> find(codes((2, 3), quiet=7), lambda a: a[1, 1] > 200, settings=once)
    array([[  7,   7,   7],
           [  7, 201,   7]], dtype=uint8)
    """
    _, hnp = hypothesis_modules()
    one, rest = _code(int_type(dtype, "strategies.codes"), quiet, ends)
    return hnp.arrays(int_type(dtype).storage, shape, elements=one, fill=rest)


@lru_cache(maxsize=1024)
def _code(kind, quiet, ends):
    """Return the strategies of one code, and of what fills a large array up. (Hypothesis looks each new strategy through, which takes time.)"""
    st, _ = hypothesis_modules()
    low, high = kind.qmin, kind.qmax
    if ends:
        one = st.sampled_from([high, low, high - 1, low + 1])
        return one, one
    # Codes count from the quiet one, up first.
    return st.one_of(st.integers(0, high - quiet).map(lambda d: quiet + d), st.integers(0, quiet - low).map(lambda d: quiet - d)), st.just(quiet)


def qtensors(shape=None, dtype="uint8", *, qparams=None):
    """Return a strategy of `QTensor`.

    Parameters
    ----------
    shape : tuple of int, optional
        One to three axes of `sizes` unless given.
    dtype : str
    qparams : QParams, optional
        Drawn unless given.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> once = settings(database=None, deadline=None, max_examples=1000)
    >>> find(qtensors(), lambda t: t.ndim == 2, settings=once).values
    array([[128]], dtype=uint8)
    """
    st, _ = hypothesis_modules()
    drawn = globals()["qparams"](dtype) if qparams is None else st.just(qparams)

    @st.composite
    def tensor(draw):
        q = draw(drawn)
        where = shape if shape is not None else tuple(draw(st.lists(sizes(17), min_size=1, max_size=3)))
        quiet = int(np.ravel(q.zero_point)[0])
        return QTensor(draw(st.one_of(codes(where, q.dtype, quiet=quiet), codes(where, q.dtype, ends=True))), q)

    return tensor()
