"""Hypothesis strategies for tests of your own kernels: parameters, codes and whole layers that bring out numerical effects, and shrink well.

::

    from hypothesis import given, settings
    from refquant.testing import assert_bitexact, oracle, strategies

    @settings(deadline=None)                         # the oracle's first call compiles
    @given(strategies.linear_problems())
    def test_my_linear(problem):
        y = my_linear(problem["x"], problem["w"], problem["bias"], problem["out"], problem["activation"])
        assert_bitexact(y, oracle(problem, "fbgemm"))

Needs Hypothesis (``pip install 'refquant[hypothesis]'``), which is imported when a strategy is made.
"""

from functools import lru_cache

import numpy as np

from refquant.core.dtypes import int_type
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, BackendMissing, choose
from refquant.verify import Problem, build, case_stream

__all__ = ["EFFECTS", "sizes", "zero_points", "scales", "near_tie_scales", "qparams", "codes", "qtensors", "linear_problems", "conv2d_problems", "cases", "problems"]

#: What the data of a layer bring out: nothing in particular; outputs on a rounding tie or a few ulp beside; codes at the ends of their range; products whose
#: pairs leave int16; outputs on a tie at the edge of the output's range; sums that leave int32 (huge K, linear layers alone); an int32 bias at its ends.
EFFECTS = ("plain", "neartie", "ends", "pairs", "clamp", "wrap", "bias")

_PLAIN_LINEAR, _PLAIN_CONV = EFFECTS, tuple(e for e in EFFECTS if e != "wrap")
# Lengths around whole tiles of kernels, primes, and one.
_SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 101, 127, 128, 129, 255, 256, 257, 509, 512, 513)
# From here on products of the largest codes leave int32.
_HUGE = 133_000


def _hypothesis():
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
    st, _ = _hypothesis()
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
    st, _ = _hypothesis()
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
    st, _ = _hypothesis()
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
    st, _ = _hypothesis()
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
    st, _ = _hypothesis()
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
    _, hnp = _hypothesis()
    one, rest = _code(int_type(dtype, "strategies.codes"), quiet, ends)
    return hnp.arrays(int_type(dtype).storage, shape, elements=one, fill=rest)


@lru_cache(maxsize=1024)
def _code(kind, quiet, ends):
    """Return the strategies of one code, and of what fills a large array up. (Hypothesis looks each new strategy through, which takes time.)"""
    st, _ = _hypothesis()
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
    st, _ = _hypothesis()
    drawn = globals()["qparams"](dtype) if qparams is None else st.just(qparams)

    @st.composite
    def tensor(draw):
        q = draw(drawn)
        where = shape if shape is not None else tuple(draw(st.lists(sizes(17), min_size=1, max_size=3)))
        quiet = int(np.ravel(q.zero_point)[0])
        return QTensor(draw(st.one_of(codes(where, q.dtype, quiet=quiet), codes(where, q.dtype, ends=True))), q)

    return tensor()


def linear_problems(*, x_dtypes=("uint8",), w_dtypes=("int8",), asymmetric=False, per_channel=None, biases=("none", "float32"), activations=(None, "relu"), effects=_PLAIN_LINEAR):
    """Return a strategy of `Problem` of ``linear``; shrinks to one output and K = 1.

    Parameters
    ----------
    x_dtypes, w_dtypes : sequence of str
        Of activation (and output) and weight.
    asymmetric : bool
        Whether weights have zero points.
    per_channel : bool, optional
        Either unless given.
    biases : sequence of {"none", "float32", "int32"}
    activations : sequence of {None, "relu"}
    effects : sequence of str
        Some of `EFFECTS`. ``wrap`` makes K larger than 133,000.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> once = settings(database=None, deadline=None, max_examples=1000)
    >>> from refquant import numerics
    >>> from refquant.verify import oracle
    >>> away = numerics.get("onnx").replace(rounding="half_away")
    >>> differ = lambda p: (oracle(p, "onnx") != oracle(p, away)).any()
    >>> small = find(linear_problems(effects=["neartie"]), differ, settings=once)
    >>> small["x"].shape, small["w"].shape, small["bias"], small["activation"]
    ((1, 1), (1, 1), None, None)
    """
    return _layers("linear", x_dtypes, w_dtypes, asymmetric, per_channel, biases, activations, effects)


def conv2d_problems(*, x_dtypes=("uint8",), w_dtypes=("int8",), asymmetric=False, per_channel=None, biases=("none", "float32"), activations=(None, "relu"), effects=_PLAIN_CONV):
    """Return a strategy of `Problem` of ``conv2d``, with strides, padding, dilation and groups; shrinks to one output of a 1x1 kernel.

    Parameters as for `linear_problems`.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> once = settings(database=None, deadline=None, max_examples=1000)
    >>> small = find(conv2d_problems(), lambda p: p["groups"] > 1, settings=once)
    >>> small["x"].shape, small["w"].shape, small["stride"], small["padding"]
    ((1, 2, 1, 1), (2, 1, 1, 1), 1, 0)
    """
    return _layers("conv2d", x_dtypes, w_dtypes, asymmetric, per_channel, biases, activations, effects)


def _layers(op, x_dtypes, w_dtypes, asymmetric, per_channel, biases, activations, effects):
    st, _ = _hypothesis()
    for effect in effects:
        choose(f"strategies.{op}_problems", "effect", effect, _PLAIN_LINEAR if op == "linear" else _PLAIN_CONV)
    for bias in biases:
        choose(f"strategies.{op}_problems", "bias", bias, ("none", "float32", "int32"))

    @st.composite
    def layer(draw):
        effect = draw(st.sampled_from(effects))
        shapes, geometry = _linear_shapes(draw, effect) if op == "linear" else _conv2d_shapes(draw)
        wide = draw(st.sampled_from((False, True) if per_channel is None else (per_channel,)))
        x, w = _operands(draw, effect, shapes, (draw(st.sampled_from(x_dtypes)), draw(st.sampled_from(w_dtypes))), asymmetric, shapes[1][0] if wide else None)
        relu = draw(st.sampled_from(activations))
        out = QParams(draw(scales(2.0**-6)), draw(zero_points(x.qparams.dtype)), x.qparams.dtype)
        bias = _bias(draw, effect, biases, shapes[1][0])
        w = _at_ties(draw, effect, x, w, bias, out, geometry)
        if bias is not None and bias.dtype == np.float32:
            bias = (bias * x.qparams.scale * np.broadcast_to(w.qparams.scale, bias.shape)).astype(np.float32)
        return Problem(op, {"x": x, "w": w, "bias": bias, "out": out, "activation": relu, **geometry})

    return layer()


def _linear_shapes(draw, effect):
    st, _ = _hypothesis()
    k = _HUGE + draw(st.integers(0, 70)) if effect == "wrap" else draw(sizes(513))
    m, n = (draw(sizes(3 if effect == "wrap" else 17)) for _ in "mn")
    return ((m, k), (n, k)), {}


def _conv2d_shapes(draw):
    st, _ = _hypothesis()
    groups, each, inner = draw(st.sampled_from((1, 2, 3, 8))), draw(sizes(5)), draw(sizes(9))
    kernel = [draw(st.integers(1, 3)) for _ in "hw"]
    stride, padding, dilation = draw(st.integers(1, 2)), draw(st.integers(0, 2)), draw(st.integers(1, 2))
    sides = [draw(st.integers(max(1, dilation * (k - 1) + 1 - 2 * padding), 9)) for k in kernel]
    shapes = (draw(st.integers(1, 2)), groups * inner, *sides), (groups * each, inner, *kernel)
    return shapes, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def _operands(draw, effect, shapes, dtypes, asymmetric, channels):
    q = [draw(qparams(dtypes[0])), draw(qparams(dtypes[1], channels=channels, symmetric=not asymmetric))]
    ends = effect in ("ends", "pairs", "wrap")
    zeros = [int(np.ravel(p.zero_point)[0]) for p in q]
    if effect in ("neartie", "clamp"):
        # Sums of zeros have no ties.
        zeros = [z + 1 if z < p.qmax else z - 1 for z, p in zip(zeros, q)]
    return [QTensor(draw(codes(shape, p.dtype, quiet=z, ends=ends)), p) for shape, p, z in zip(shapes, q, zeros)]


def _bias(draw, effect, biases, channels):
    """Draw a bias: int32, or float32 in units of the accumulator for now."""
    st, hnp = _hypothesis()
    kind = "int32" if effect == "bias" and "int32" in biases else draw(st.sampled_from(biases))
    if kind == "none":
        return None
    least, most = -(2**31), 2**31 - 1
    number = st.sampled_from((0, most, least, most - 1, least + 1)) if effect == "bias" else st.integers(-9999, 9999)
    bias = draw(hnp.arrays(np.int32, channels, elements=number, fill=number))
    return bias if kind == "int32" else bias.astype(np.float32)


def _at_ties(draw, effect, x, w, bias, out, geometry):
    """Return the weights with scales that put the first output of each channel on a tie, or beside."""
    st, _ = _hypothesis()
    if effect not in ("neartie", "clamp"):
        return w
    steps = None
    if effect == "clamp":
        edge = draw(st.sampled_from((out.qmax - out.zero_point, out.zero_point - out.qmin)))
        steps = max(edge + draw(st.integers(-1, 1)), 0)
    acc = _first_accumulators(x, w, geometry)
    if bias is not None:
        acc = acc + bias.astype(np.int64)
    q = w.qparams
    if q.per_channel:
        scale = [draw(near_tie_scales(int(a), x.qparams.scale, out.scale, steps=steps)) if a else 1.0 for a in acc]
    else:
        first = next((int(a) for a in acc if a), 1)
        scale = draw(near_tie_scales(first, x.qparams.scale, out.scale, steps=steps))
    return QTensor(w.values, QParams(scale, q.zero_point, q.dtype, axis=q.axis))


def _first_accumulators(x, w, geometry):
    """Return the exact sum of the first output of each channel."""
    q = w.qparams
    weights = w.values.astype(np.int64) - np.reshape(q.zero_point, (-1, *[1] * (w.ndim - 1)))
    codes = x.values[0].astype(np.int64) - x.qparams.zero_point
    if not geometry:
        return weights @ codes
    p, d = geometry["padding"], geometry["dilation"]
    padded = np.pad(codes, ((0, 0), (p, p), (p, p)))
    patch = padded[:, : d * (w.shape[2] - 1) + 1 : d, : d * (w.shape[3] - 1) + 1 : d]
    groups, inner = geometry["groups"], w.shape[1]
    own = np.repeat(np.arange(groups), w.shape[0] // groups)
    return np.array([(weights[i] * patch[g * inner : (g + 1) * inner]).sum() for i, g in enumerate(own)])


def cases(op, numerics):
    """Return a strategy of `Case`: any shape, data strategy and options of the operator's default cases, any seed; shrinks to few outputs and seed 0.

    Parameters
    ----------
    op : str
    numerics : str
        The profile whose line the cases carry.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> once = settings(database=None, deadline=None, max_examples=1000)
    >>> find(cases("add", "onnx"), lambda case: case.has("relu") and case.outputs > 60, settings=once).seed
    0
    """
    st, _ = _hypothesis()
    stream = case_stream(op, numerics)
    known = sorted((next(stream) for _ in range(160)), key=lambda case: (case.outputs, len(case.options), str(case)))
    known = [case for case in known if case.strategy != "wrap"]
    return st.builds(lambda case, seed: case.replace(seed=seed), st.sampled_from(known), st.integers(0, 2**16))


def problems(op, numerics):
    """Return a strategy of `Problem` of any operator: those of `cases`.
    """
    return cases(op, numerics).map(build)


