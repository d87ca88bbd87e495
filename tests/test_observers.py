"""Observers without PyTorch: the contract that each keeps, values recorded from PyTorch 2.13, and bad input."""

import inspect
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from refquant import observers
from refquant.core.qparams import QParams
from refquant.errors import ArgumentError, RangeError, ShapeError, UnsupportedError
from refquant.observers import OBSERVERS, choose_qparams, qparams_from_range, quant_limits
from refquant.observers.searched_range_observer_base import SearchedRangeObserverBase

F = np.float32
ARGUMENTS = {"FixedQParamsObserver": {"scale": 0.1, "zero_point": 3}}
RANGED = [c for c in OBSERVERS if issubclass(c, observers.ObserverBase) and hasattr(c, "quant_min")]
SEARCHED = [c for c in OBSERVERS if issubclass(c, SearchedRangeObserverBase)]
TORCH = [c for c in OBSERVERS if c not in SEARCHED]
PER_TENSOR = [c for c in RANGED if "PerChannel" not in c.__name__]
PER_CHANNEL = [c for c in RANGED if c not in PER_TENSOR]
X = np.linspace(-1, 3, 24, dtype=np.float32).reshape(2, 3, 4)


def make(cls, **arguments):
    return cls(**{**ARGUMENTS.get(cls.__name__, {}), **arguments})


# Every observer.


@pytest.mark.parametrize("cls", OBSERVERS)
def test_a_batch_comes_back_as_it_is(cls):
    before = X.copy()
    assert make(cls)(X) is X
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("cls", OBSERVERS)
def test_qparams_or_a_clear_refusal(cls):
    obs = make(cls)
    obs(X)
    if cls in RANGED or cls is observers.FixedQParamsObserver:
        qparams = obs.calculate_qparams()
        assert isinstance(qparams, QParams) and qparams.dtype == obs.dtype == "uint8"
        assert np.array_equal(np.float32(qparams.scale), qparams.scale)
        assert (qparams.qmin, qparams.qmax) == (obs.quant_min, obs.quant_max)
    else:
        with pytest.raises(UnsupportedError, match=cls.__name__):
            obs.calculate_qparams()


@pytest.mark.parametrize("cls", OBSERVERS)
def test_factories(cls):
    factory = cls.with_args(**ARGUMENTS.get(cls.__name__, {}))
    assert isinstance(factory(), cls) and factory() is not factory()
    assert factory == cls.with_args(**ARGUMENTS.get(cls.__name__, {})) and hash(factory) == hash(pickle.loads(pickle.dumps(factory)))
    with pytest.raises(ArgumentError, match="no_such"):
        factory.with_args(no_such=1)
    assert cls.__name__ in repr(factory) and cls.__name__ in repr(factory())


@pytest.mark.parametrize("cls", OBSERVERS)
def test_pickles_carry_the_statistics(cls):
    obs = make(cls)
    obs(X)
    copy = pickle.loads(pickle.dumps(obs))
    for value in (obs, copy):
        value(X * F(2))
    assert repr(copy) == repr(obs)
    if cls in RANGED:
        assert copy.calculate_qparams() == obs.calculate_qparams()


@pytest.mark.parametrize("cls", OBSERVERS)
def test_files_and_docstrings(cls):
    words = "".join("_" + c.lower() if c.isupper() else c for c in cls.__name__.replace("QParams", "Qparams"))[1:]
    assert Path(inspect.getfile(cls)).stem == words
    assert ("Source: PyTorch 2.13" if cls in TORCH else "Source: ") in cls.__doc__ and ">>>" in cls.__doc__
    assert getattr(observers, cls.__name__) is cls and cls.__name__ in observers.__all__


def test_a_duplicate_name_raises():
    class MinMaxObserver(observers.MinMaxObserver):
        pass

    for table in ((*OBSERVERS, MinMaxObserver), (*OBSERVERS, OBSERVERS[0])):
        with pytest.raises(ArgumentError, match="'MinMaxObserver' stands there twice"):
            observers.by_name(table)


def test_numba_loads_with_the_first_histogram():
    code = (
        "import sys, numpy as np; from refquant.observers import *; x = np.ones((2, 3), np.float32);"
        "[o(x) for o in (MinMaxObserver(), PerChannelMinMaxObserver())]; h = HistogramObserver(); before = 'numba' in sys.modules;"
        "h(x); print(before, 'numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "True"]


def test_histogram_observer_without_the_jit():
    code = (
        "import numpy as np; from refquant.observers import HistogramObserver; h = HistogramObserver(bins=64);"
        "x = (np.arange(300, dtype=np.float32) % 37) ** 3; h(x); h(-x[:100]); q = h.calculate_qparams(); print(h.histogram.tolist(), q)"
    )
    run = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**__import__("os").environ, "NUMBA_DISABLE_JIT": off}).stdout for off in "01"]
    assert run[0] == run[1] and "QParams" in run[0]


def test_with_callable_args():
    seen = []
    factory = observers.MinMaxObserver.with_callable_args(eps=lambda: seen.append(1) or 0.5).with_args(dtype="int8")
    assert [factory().eps, factory(eps=0.25).eps] == [0.5, 0.25] and len(seen) == 1
    assert factory().dtype == "int8" and "with_callable_args" in repr(factory)


# From a range to parameters.


@pytest.mark.parametrize(
    "low, high, arguments, ref",
    [
        (-1, 3, {}, ((0.01568627450980392, 64), (0.01568627543747425, 64))),
        (-1, 1, {}, ((0.00784313725490196, 128), (0.007843137718737125, 127))),
        (0, 0, {}, ((0.1, 0), (0.10000000149011612, 0))),
        (2, 5, {"reduce_range": True}, ((0.03937007874015748, 0), (0.03937007859349251, 0))),
        (-1e-4, 1e-4, {}, ((6.0999998822808266e-05, 128), (6.0999998822808266e-05, 128))),
        (0, 1e-4, {}, ((6.0999998822808266e-05, 0), (6.0999998822808266e-05, 0))),
        (-1e-4, 0, {"qmin": -128, "qmax": 127}, ((6.0999998822808266e-05, 127), (6.0999998822808266e-05, 127))),
        (-1, 3, {"qmin": -128, "qmax": 127, "preserve_sparsity": True}, ((0.02362204719992245, 0), (0.023622047156095505, 0))),
    ],
)
def test_choose_qparams(low, high, arguments, ref):
    assert tuple(choose_qparams(low, high, library=library, **arguments) for library in ("aten", "fbgemm")) == ref


@pytest.mark.parametrize(
    "arguments, ref",
    [
        (("quint8",), ("uint8", 0, 255, False)),
        (("int8", None, None, True), ("int8", -64, 63, False)),
        (("uint8", None, None, True), ("uint8", 0, 127, False)),
        (("int16", None, None, True), ("int16", -32768, 32767, False)),
        (("quint4x2",), ("uint4", 0, 15, False)),
        (("int8", -127, 127, True), ("int8", -64, 63, True)),
        (("uint8", 0, 127), ("uint8", 0, 127, True)),
    ],
)
def test_quant_limits(arguments, ref):
    assert quant_limits(*arguments) == ref


def test_symmetric_zero_points():
    for dtype, limits, ref in (("int8", (), 0), ("uint8", (), 128), ("uint8", (0, 127), 63), ("uint16", (), 32768), ("int16", (), 0)):
        assert qparams_from_range(F(-1), F(1), quant_limits(dtype, *limits), "per_tensor_symmetric").zero_point == ref


def test_moving_average_with_one_keeps_the_last_batch():
    obs = observers.MovingAverageMinMaxObserver(averaging_constant=1, is_dynamic=True)
    for x in (X, X[:1]):
        obs(x)
    assert (obs.min_val, obs.max_val) == (X[:1].min(), X[:1].max())


# Nothing seen, and what must not be seen.


@pytest.mark.parametrize("cls", RANGED)
def test_no_batch_is_a_warning(cls):
    obs = make(cls, reduce_range=True)
    obs(np.zeros((0, 4), np.float32))
    obs([])
    with pytest.warns(UserWarning, match="before any batch") as caught:
        assert obs.calculate_qparams() == QParams(1.0, 0, "uint8", quant_max=127)
    assert caught[0].filename == __file__


def test_infinities_are_dropped_with_a_warning():
    obs, ref = observers.HistogramObserver(), observers.HistogramObserver()
    with pytest.warns(UserWarning, match="infinity in the batch was dropped") as caught:
        obs(np.append(X, [F(np.inf), F(-np.inf)]))
    assert caught[0].filename == __file__
    ref(X)
    np.testing.assert_array_equal(obs.histogram, ref.histogram)
    with pytest.warns(UserWarning, match="infinity"):
        obs(np.full(3, np.inf, np.float32))
    assert obs.calculate_qparams() == ref.calculate_qparams()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("cls", [c for c in RANGED if c in TORCH and c is not observers.HistogramObserver])
def test_a_spoilt_range_names_its_batch(cls, bad):
    obs, spoilt = make(cls), X.copy()
    spoilt[1, 1, 1] = bad
    for x in (X, spoilt, X):
        obs(x)
    with pytest.raises(RangeError, match=r"batch 2 holds a NaN or an infinity.*drop it"):
        obs.calculate_qparams()


def test_reset():
    for cls in SEARCHED:
        with pytest.raises(UnsupportedError, match="reset_min_max_vals"):
            make(cls).reset_min_max_vals()
    for cls in (c for c in RANGED if c in TORCH):
        obs = make(cls)
        obs(np.full((2, 3, 4), np.nan, np.float32) if cls is not observers.HistogramObserver else X)
        if cls is observers.HistogramObserver:
            with pytest.raises(UnsupportedError, match="reset_min_max_vals"):
                obs.reset_min_max_vals()
            continue
        obs.reset_min_max_vals()
        obs(X)
        ref = make(cls)
        ref(X)
        assert obs.calculate_qparams() == ref.calculate_qparams()


def test_a_refused_batch_leaves_no_trace():
    obs, ref = observers.HistogramObserver(), observers.HistogramObserver()
    for bad in (np.float32([np.nan]), F([-3e38, 3e38]), np.ones(3), np.array(["a"])):
        with pytest.raises((RangeError, ArgumentError)):
            obs(bad)
        obs(X), ref(X)
    np.testing.assert_array_equal(obs.histogram, ref.histogram)
    assert (obs.min_val, obs.max_val) == (X.min(), X.max())


@pytest.mark.parametrize("cls", SEARCHED)
def test_a_refused_batch_leaves_no_trace_in_a_search(cls):
    obs, ref = make(cls), make(cls)
    for bad in (np.float32([np.nan, 1]), F([3, np.inf]), F([-np.inf]), np.array(["a"]), np.float64([1e300])):
        for value in (obs, ref):
            value(X)
        with pytest.raises((RangeError, ArgumentError), match=cls.__name__):
            obs(bad)
    assert obs.calculate_qparams() == ref.calculate_qparams() and repr(obs) == repr(ref)
    with pytest.raises(UnsupportedError, match="is_dynamic"):
        make(cls, is_dynamic=True)


@pytest.mark.parametrize("data", [np.zeros(5, np.float32), F([7]), np.full(9, -2.5, np.float32), np.arange(6)])
@pytest.mark.parametrize("cls", SEARCHED)
def test_a_search_in_little_data(cls, data):
    obs = make(cls)
    obs(data), obs(data)
    assert np.isfinite(obs.min_val) and np.isfinite(obs.max_val)
    if cls is observers.EmaQuantileObserver and obs.min_val > obs.max_val:  # as in MQBench
        with pytest.raises(RangeError, match="must end no lower than it begins"):
            obs.calculate_qparams()
        return
    assert obs.min_val <= obs.max_val and obs.calculate_qparams().scale > 0


@pytest.mark.parametrize("data", [F([1e-45, 0]), F([-3e38, 3e38]), F([3e38]), F([1e38, 1.1e38])])
@pytest.mark.parametrize("cls", SEARCHED)
def test_a_search_at_the_ends_of_float32(cls, data):
    obs = make(cls)
    try:
        obs(data)
        low, high = obs.min_val, obs.max_val
    except RangeError as error:
        assert "scale the data" in str(error)
    else:
        assert np.isfinite(low) and np.isfinite(high) and low <= high


H, M, P = observers.HistogramObserver, observers.MinMaxObserver, observers.PerChannelMinMaxObserver
BAD = [
    (lambda: M(dtype="float32"), ArgumentError, "MinMaxObserver: dtype='float32'"),
    (lambda: M(dtype="int2"), ArgumentError, "dtype='int2'"),
    (lambda: M(qscheme="per_channel_affine"), ArgumentError, "qscheme='per_channel_affine'"),
    (lambda: P(qscheme="per_tensor_affine"), ArgumentError, "did you mean 'per_channel_affine'"),
    (lambda: M(quant_min=0), ArgumentError, "quant_min is given without quant_max"),
    (lambda: M(quant_min=0, quant_max=256), RangeError, r"quant_max=256 lies outside of uint8 \[0, 255\]"),
    (lambda: M(dtype="int8", quant_min=1, quant_max=5), RangeError, "0 between them"),
    (lambda: M(quant_min=0, quant_max=0), RangeError, "two codes"),
    (lambda: M(quant_min=0.0, quant_max=1.5), ArgumentError, "quant_min=0.0 is a float"),
    (lambda: M(eps=-1), RangeError, "eps=-1"),
    (lambda: M(eps="small"), ArgumentError, "eps='small'"),
    (lambda: M(qscheme="per_tensor_symmetric", reduce_range=True), UnsupportedError, "not supported for quint8"),
    (lambda: P(qscheme="per_channel_symmetric", reduce_range=True), UnsupportedError, "not supported for quint8"),
    (lambda: P(is_dynamic=True), UnsupportedError, "is_dynamic"),
    (lambda: P(ch_axis=0.5), ArgumentError, "ch_axis=0.5"),
    (lambda: H(is_dynamic=True), UnsupportedError, "is_dynamic"),
    (lambda: H(bins=0), ArgumentError, "bins=0"),
    (lambda: H(bins=2.5), ArgumentError, "bins=2.5"),
    (lambda: H(dtype="int32"), UnsupportedError, "8 or 16 bits"),
    (lambda: observers.MovingAverageMinMaxObserver(is_dynamic=True), UnsupportedError, "averaging_constant=1"),
    (lambda: observers.MovingAverageMinMaxObserver(averaging_constant="a"), ArgumentError, "averaging_constant='a'"),
    (lambda: observers.FixedQParamsObserver(0.0, 0), RangeError, "scale"),
    (lambda: observers.FixedQParamsObserver(0.1, 0, dtype="qint8"), RangeError, "quant_max=255"),
    (lambda: observers.FixedQParamsObserver(0.1, 0, is_dynamic=True), UnsupportedError, "is_dynamic"),
    (lambda: observers.PlaceholderObserver(compute_dtype="quint8"), UnsupportedError, "compute_dtype"),
    (lambda: observers.PlaceholderObserver(dtype="bloat16"), ArgumentError, "did you mean 'bfloat16'"),
    (lambda: M()(np.array([True])), ArgumentError, "dtype bool"),
    (lambda: M()(np.array([1j])), ArgumentError, "dtype complex128"),
    (lambda: H()(X.astype(np.float64)), ArgumentError, "dtype float64"),
    (lambda: H()(np.arange(3)), ArgumentError, "dtype int64"),
    (lambda: H()(np.float32([1, np.nan])), RangeError, "batch 1 holds a NaN"),
    (lambda: H()(np.float32([-1e38, 1e38])), RangeError, "2048 bins must stay within float32"),
    (lambda: P()(np.float32([1, 2])), ShapeError, r"shape \(2,\) with ch_axis=0"),
    (lambda: P(ch_axis=3)(X), ShapeError, "ch_axis=3"),
    (lambda: P(ch_axis=-4)(X), ShapeError, "ch_axis=-4"),
    (lambda: [o(x) for o in [P()] for x in (X, X[:1])], ShapeError, "has 1 channels on axis 0, the ones before had 2"),
    (lambda: [o(x) for o in [P(ch_axis=-1)] for x in (X, X[0])], ShapeError, "on axis 1, the ones before had 4 on axis 2"),
    (lambda: choose_qparams(1, 0), RangeError, r"\[1.0, 0.0\]"),
    (lambda: choose_qparams(0, np.inf), RangeError, "finite"),
    (lambda: choose_qparams(0, 1, 5, 5), RangeError, "qmin=5"),
    (lambda: choose_qparams(-3e38, 3.4e38, preserve_sparsity=True), RangeError, "inf"),
    (lambda: choose_qparams(X, X), ShapeError, "two scalars"),
    (lambda: choose_qparams(0, 1, library="torch"), ArgumentError, "library='torch'"),
    (lambda: qparams_from_range(-3e38, 3e38, quant_limits("uint8")), RangeError, "the scale inf"),
    (lambda: qparams_from_range(0, 0, quant_limits("uint8"), eps=0), RangeError, "the scale 0.0"),
    (lambda: qparams_from_range(F([0, 2]), F([1, 1]), quant_limits("uint8"), "per_channel_affine", axis=0), RangeError, "of channel 1"),
    (lambda: qparams_from_range(F([0]), F([1]), quant_limits("uint8")), ShapeError, "axis=None"),
]


@pytest.mark.parametrize("call, error, text", BAD, ids=[v[2] for v in BAD])
def test_bad_input(call, error, text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match=text):
            call()
