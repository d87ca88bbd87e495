"""Every observer against PyTorch's own, on random streams of batches: identical bits, no tolerance."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.ao.quantization.observer as torch_observers  # noqa: E402

from refquant import observers  # noqa: E402
from refquant.errors import RangeError  # noqa: E402
from refquant.observers.qparams_from_range import choose_qparams  # noqa: E402
from refquant.observers.searched_range_observer_base import SearchedRangeObserverBase  # noqa: E402

F = np.float32
SEED = 20261122
KINDS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "shifted": lambda rng, n: rng.normal(size=n) + rng.normal() * 10,
    "uniform": lambda rng, n: rng.uniform(-1, 2, n),
    "lognormal": lambda rng, n: rng.lognormal(0, 2, n),
    "cauchy": lambda rng, n: np.clip(rng.standard_cauchy(n), -1e6, 1e6),
    "relu": lambda rng, n: np.maximum(rng.normal(-0.5, 1, n), 0),
    "negative": lambda rng, n: -rng.lognormal(0, 1, n),
    "constant": lambda rng, n: np.full(n, rng.normal()),
    "zeros": lambda rng, n: np.zeros(n),
    "big constant": lambda rng, n: np.full(n, rng.normal() * 1e10),
    "few values": lambda rng, n: rng.integers(-2, 3, n) * 0.25,
    "spike": lambda rng, n: np.where(rng.random(n) < 0.001, 100.0, rng.normal(size=n) * 1e-3),
    "narrow": lambda rng, n: 1000 + rng.normal(size=n) * 1e-3,
}
SCALES = (1, 1, 1e-3, 1e3)
EXTREME_SCALES = (1e-7, 1e-20, 1e-38, 1e-42, 1e12, 1e20, 1e30)  # errors under- or overflow, and PyTorch's search takes a second
GROWTHS = ("free", "first widest", "widening by 1000", "one range")


def stream(rng, kind, growth, scale, infinities=False):
    """One to five batches of float32."""
    count = int(rng.integers(1, 6))
    batches = []
    for i in range(count):
        x = KINDS[kind](rng, int(rng.integers(1, 3000))) * scale
        if growth == "first widest":
            x = x * 10.0**-i
        elif growth == "widening by 1000":
            x = x * 1000.0 ** (i - count + 1)
        elif growth == "one range":
            x = np.append(np.clip(x, -scale, scale), [-scale, scale])
        if infinities and rng.random() < 0.5:
            x = np.append(x, rng.choice([np.inf, -np.inf], int(rng.integers(1, 4))))
        with np.errstate(over="ignore"):
            batches.append(x.astype(np.float32))
    return batches


def streams(count, seed=SEED, infinities=False):
    """`count` streams: every kind with every growth in turn, each with a random scale; one in 25 has an extreme one."""
    rng = np.random.default_rng(seed)
    pairs = [(kind, growth) for kind in KINDS for growth in GROWTHS]
    for i in range(count):
        kind, growth = pairs[i % len(pairs)]
        scales = EXTREME_SCALES if rng.random() < 0.04 else SCALES
        scale = scales[int(rng.integers(len(scales)))]
        if kind in ("cauchy", "big constant", "lognormal") and scale > 1e20:
            scale = 1.0
        yield f"{i}: {kind}, {growth}, {scale:g}", stream(rng, kind, growth, scale, infinities)


def bits(value):
    """The bits of float32, with one NaN for all, and one zero: its sign PyTorch leaves to the order of its lanes."""
    value = np.asarray(value, np.float32) + F(0)
    return np.where(np.isnan(value), F(np.nan), value).reshape(-1).view(np.uint32)


def assert_same(name, what, ref, comp):
    ref, comp = np.asarray(ref), np.asarray(comp)
    assert comp.dtype == ref.dtype or comp.dtype.kind == ref.dtype.kind == "i", f"{name}: {what} has dtype {comp.dtype}, not {ref.dtype}"
    ref, comp = (bits(v) if v.dtype.kind == "f" else v.reshape(-1) for v in (ref, comp))
    different = np.flatnonzero(ref != comp) if ref.size == comp.size else [-1]
    assert len(different) == 0, f"{name}: {what} differs at {different[:5]} of {ref.size}: {ref[different[:5]]} and {comp[different[:5]]}"


def torch_arguments(arguments):
    named = {k: v for k, v in arguments.items() if k not in ("dtype", "qscheme")}
    return {**named, **{k: getattr(torch, arguments[k]) for k in ("dtype", "qscheme") if k in arguments}}


def run_pair(observer, batches, arguments, name):
    """Feed both; compare range and histogram after every batch, scale and zero point at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = getattr(torch_observers, observer)(**torch_arguments(arguments))
        computed = getattr(observers, observer)(**arguments)
        for x in batches:
            reference(torch.from_numpy(x))
            assert computed(x) is x
            for what in ("min_val", "max_val", "histogram"):
                if hasattr(reference, what):  # a clone, because PyTorch resizes these in place
                    assert_same(name, what, getattr(reference, what).clone().numpy(), getattr(computed, what))
        try:
            scale, zero_point = (v.numpy() for v in reference.calculate_qparams())
            unusable = not (np.isfinite(scale).all() and (scale > 0).all())
        except AssertionError as refusal:  # moving averages of nearly constant data can cross by one rounding
            scale, unusable = refusal, "should be less than" in str(refusal)
        try:
            qparams = computed.calculate_qparams()
        except RangeError:
            assert unusable, f"{name}: an error where PyTorch has scale {scale}"
            return
        assert not unusable, f"{name}: no error where PyTorch has scale {scale}"
    assert np.array_equal(np.float32(qparams.scale), qparams.scale), f"{name}: the scale is no float32"
    assert_same(name, "scale", scale, np.float32(qparams.scale))
    assert_same(name, "zero point", zero_point, np.asarray(qparams.zero_point))
    if not isinstance(qparams, observers.FloatQParams):
        assert (qparams.qmin, qparams.qmax) == (reference.quant_min, reference.quant_max)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("part", range(4))
def test_histogram_observer(part):
    for name, batches in streams(52, SEED + part):
        run_pair("HistogramObserver", batches, {}, name)


def test_histogram_observer_with_infinities():
    for name, batches in streams(26, SEED, infinities=True):
        run_pair("HistogramObserver", batches, {}, name)
    for only in (np.inf, -np.inf):
        x = np.full(3, only, np.float32)
        run_pair("HistogramObserver", [x], {}, "only infinities")
        run_pair("HistogramObserver", [x, np.arange(5, dtype=np.float32), x], {}, "infinities around numbers")


LIMITS = (
    {},
    {"reduce_range": True},
    {"quant_min": 0, "quant_max": 127},
    {"quant_min": 0, "quant_max": 100, "reduce_range": True, "eps": 2**-12},
    {"eps": 1e-3},
)
SIGNED_LIMITS = ({"quant_min": -127, "quant_max": 127}, {"quant_min": -8, "quant_max": 7, "reduce_range": True})


def settings(schemes, wide=("uint16", "int16", "int32", "qint32"), extra=()):
    """Every combination of dtype, qscheme and limits that PyTorch and the observer both take."""
    for dtype in ("quint8", "qint8", "uint8", "int8", *wide):
        for scheme in schemes:
            for limits in LIMITS + (SIGNED_LIMITS if dtype in ("int8", "qint8") else ()):
                if not (dtype == "quint8" and scheme.endswith("symmetric") and limits.get("reduce_range")) or "histogram" in extra:
                    yield {"dtype": dtype, "qscheme": scheme, **limits}


TENSOR_SCHEMES = ("per_tensor_affine", "per_tensor_symmetric")
CHANNEL_SCHEMES = ("per_channel_affine", "per_channel_symmetric", "per_channel_affine_float_qparams")


def test_histogram_observer_settings():
    tries = settings(TENSOR_SCHEMES, ("int16", "uint16"), ("histogram",))
    tries = [{**s, "bins": (2048, 2048, 2048, 100)[i % 4]} for i, s in enumerate(tries)]
    for arguments, (name, batches) in zip(tries, streams(len(tries), SEED + 10)):
        run_pair("HistogramObserver", batches, arguments, f"{name}, {arguments}")


@pytest.mark.parametrize("bins", [1, 2, 7, 33, 4096])
def test_histogram_observer_bins(bins):
    for name, batches in streams(7, SEED + bins):
        run_pair("HistogramObserver", batches, {"bins": bins}, name)


@pytest.mark.parametrize("observer", ["MinMaxObserver", "MovingAverageMinMaxObserver"])
def test_per_tensor_observers(observer):
    tries = list(settings(TENSOR_SCHEMES)) * 4
    for i, (arguments, (name, batches)) in enumerate(zip(tries, streams(len(tries), SEED + 20))):
        if "Moving" in observer:
            arguments = {**arguments, "averaging_constant": (0.01, 0.1, 1.0, 0.3)[i % 4]}
        run_pair(observer, batches, arguments, f"{name}, {arguments}")


@pytest.mark.parametrize("observer", ["PerChannelMinMaxObserver", "MovingAveragePerChannelMinMaxObserver"])
def test_per_channel_observers(observer):
    tries = [*settings(CHANNEL_SCHEMES), *({"dtype": "quint4x2", "qscheme": s} for s in CHANNEL_SCHEMES)] * 3
    rng = np.random.default_rng(SEED)
    for i, (arguments, (name, batches)) in enumerate(zip(tries, streams(len(tries), SEED + 30))):
        shape, axis = (((5, -1), 0), ((-1, 3), 1), ((2, 3, -1), 1), ((2, -1, 2, 4), -1), ((1, -1), 0))[i % 5]
        size = -int(np.prod(shape))
        gain = rng.lognormal(0, 2, [s if j == axis % len(shape) else 1 for j, s in enumerate(shape)]).astype(np.float32)
        with np.errstate(over="ignore"):
            batches = [np.resize(x, max(1, x.size // size) * size).reshape(shape) * gain for x in batches]
        arguments = {**arguments, "ch_axis": axis}
        if "Moving" in observer:
            arguments["averaging_constant"] = (0.01, 0.1, 1.0)[i % 3]
        run_pair(observer, batches, arguments, f"{name}, {arguments}")


def test_moving_averages_that_cross():
    """A minimum above the maximum, by the rounding of the average: PyTorch asserts, refquant raises."""
    rng = np.random.default_rng(SEED)
    crossed = 0
    for i in range(100):
        batches = [rng.normal(size=20).astype(np.float32), np.full(5, rng.normal() * 100, np.float32)]
        arguments = {"averaging_constant": 1.0}
        run_pair("MovingAverageMinMaxObserver", batches, arguments, f"{i}: {batches[1][0]}")
        obs = observers.MovingAverageMinMaxObserver(**arguments)
        for x in batches:
            obs(x)
        crossed += bool(obs.min_val > obs.max_val)
    assert crossed, "no data made them cross"


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint8", "int32"])
def test_other_dtypes_of_batches(dtype):
    rng = np.random.default_rng(SEED)
    info = np.finfo if dtype.startswith("f") else np.iinfo
    x = (rng.normal(size=(7, 11)) * 100).astype(dtype)
    x[0, 0], x[1, 1] = info(dtype).min, info(dtype).max
    for observer in ("MinMaxObserver", "PerChannelMinMaxObserver", "MovingAverageMinMaxObserver"):
        run_pair(observer, [x, x // 2 if dtype[0] != "f" else x], {}, f"{observer}, {dtype}")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("observer", ["MinMaxObserver", "MovingAverageMinMaxObserver", "PerChannelMinMaxObserver"])
def test_spoilt_batches(observer, bad):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    spoilt = x.copy()
    spoilt[1, 2] = bad
    for batches in ([spoilt], [x, spoilt, x], [spoilt, x]):
        run_pair(observer, batches, {}, f"{observer}, {bad}")


def test_no_batches_and_empty_batches():
    empty = np.zeros((0, 3), np.float32)
    for observer in ("MinMaxObserver", "MovingAverageMinMaxObserver", "PerChannelMinMaxObserver", "HistogramObserver"):
        run_pair(observer, [], {}, observer)
        run_pair(observer, [empty], {}, observer)
        run_pair(observer, [empty, np.float32([[1, 2], [3, 4]]), empty], {}, observer)


def test_strided_batches():
    x = np.random.default_rng(SEED).normal(size=(6, 40, 8)).astype(np.float32)
    for batch in (x[::2, 1:], x.transpose(2, 0, 1), np.asfortranarray(x), x[:, :, 3]):
        for observer in ("HistogramObserver", "MinMaxObserver", "PerChannelMinMaxObserver"):
            run_pair(observer, [batch], {}, f"{observer}, strides {batch.strides}")


def test_counters_stop_at_two_to_the_24():
    x = np.append(np.zeros(2**24 + 5, np.float32), F(1))
    run_pair("HistogramObserver", [x], {}, "many zeros")


def test_choose_qparams():
    """C++, through the function that dynamic quantization calls, and through the fused observer."""
    checked = 0
    for name, batches in streams(208, SEED + 40):
        x = np.concatenate(batches)
        for reduce_range in (False, True):
            ref = torch._choose_qparams_per_tensor(torch.from_numpy(x), reduce_range)
            comp = choose_qparams(x.min(), x.max(), reduce_range=reduce_range)
            assert comp == ref, f"{name}: {comp}, not {ref}"
            checked += 1
    assert checked == 416


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("limits", [(-128, 127), (0, 255), (0, 127), (-127, 127)])
def test_choose_qparams_of_the_fused_observer(symmetric, limits):
    for name, batches in streams(104, SEED + 50):
        x = torch.from_numpy(batches[0])
        low, high, scale, on = torch.tensor(float("inf")), torch.tensor(float("-inf")), torch.ones(1), torch.ones(1, dtype=torch.int)
        zero_point = torch.zeros(1, dtype=torch.int)
        torch.fused_moving_avg_obs_fake_quant(x, on, on, low, high, scale, zero_point, 0.01, *limits, 0, False, symmetric)
        comp_scale, comp_zero_point = choose_qparams(low.item(), high.item(), *limits, preserve_sparsity=symmetric, library="fbgemm")
        assert_same(name, "scale", scale.numpy(), F([comp_scale]))
        assert zero_point.item() == comp_zero_point, f"{name}: zero point {comp_zero_point}, not {zero_point.item()}"


def test_fixed_qparams_observer():
    for scale, zero_point in ((1 / 256, 0), (2 / 256, 128), (0.1, 3)):
        run_pair("FixedQParamsObserver", [np.ones(3, np.float32)], {"scale": scale, "zero_point": zero_point}, "fixed")


def test_signatures_are_those_of_torch():
    """Parameters, order and defaults; `factory_kwargs` has no meaning here."""
    import inspect

    for cls in (c for c in observers.OBSERVERS if not issubclass(c, SearchedRangeObserverBase)):
        reference = inspect.signature(getattr(torch_observers, cls.__name__).__init__).parameters
        wanted = [n for n in reference if n not in ("self", "kwargs", "factory_kwargs")]
        computed = inspect.signature(cls.__init__).parameters
        assert [n for n in computed if n != "self"] == wanted, cls.__name__
        for name in wanted:
            ref, comp = reference[name].default, computed[name].default
            assert comp == (str(ref).rpartition(".")[2] if isinstance(ref, (torch.dtype, torch.qscheme)) else ref), f"{cls.__name__}: {name}"
