"""The calibrators of other tools: against the tool where it runs here, else against its published formula in slow, plain Python."""

import bisect
import math
import statistics
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from refquant import observers
from refquant.errors import ArgumentError, RangeError
from refquant.observers.ppq_mse_observer import bin_errors
from refquant.observers.statistic_range_observer import AGGREGATORS, PRESETS, STATISTICS

F = np.float32


def data(kind, seed=0, size=4000):
    rng = np.random.default_rng(seed)
    return {
        "normal": rng.standard_normal(size), "tails": rng.standard_cauchy(size), "relu": np.maximum(rng.standard_normal(size), 0),
        "negative": -1 - rng.random(size), "outlier": np.append(rng.standard_normal(size), 40), "ties": rng.integers(-5, 6, size) / 4,
    }[kind].astype(np.float32)  # fmt: skip


KINDS = ("normal", "tails", "relu", "negative", "outlier", "ties")


# ONNX Runtime, which runs here.


def collector(method, **options):
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    given = {"symmetric": False, "num_bins": 2048, "num_quantized_bins": 128, "percentile": 99.999, "scenario": "same", **options}
    return calibrate.HistogramCollector(method=method, **given)


ONNXRUNTIME = [
    ("entropy", {"num_bins": 128}, lambda: observers.EntropyObserver(128, 128)),
    ("entropy", {"num_bins": 300, "num_quantized_bins": 32}, lambda: observers.EntropyObserver(300, 32)),
    ("entropy", {"num_bins": 201, "num_quantized_bins": 51}, lambda: observers.EntropyObserver(201, 51)),
    ("percentile", {"symmetric": True}, lambda: observers.PercentileObserver()),
    ("percentile", {"symmetric": True, "percentile": 97.5, "num_bins": 100}, lambda: observers.PercentileObserver(97.5, 100)),
    ("percentile", {"percentile": 95}, lambda: observers.PercentileObserver(95, symmetric=False)),
    ("percentile", {"percentile": 0.0, "num_bins": 64}, lambda: observers.PercentileObserver(0.0, 64, False)),
    ("distribution", {}, lambda: observers.DistributionObserver()),
    ("distribution", {"scenario": "p3", "num_bins": 513}, lambda: observers.DistributionObserver(513, "p3")),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", range(len(ONNXRUNTIME)))
def test_ranges_of_onnxruntime(row, kind, capsys):
    method, options, make = ONNXRUNTIME[row]
    ref, comp = collector(method, **options), make()
    for seed, factor in enumerate((1, 0.5, 1.75)):
        x = data(kind, seed, 600) * F(factor)
        if kind == "tails":
            x = np.clip(x, -20, 20)  # else the histogram grows a thousandfold
        ref.collect({"x": [x]})
        comp(x)
        result = ref.compute_collection_result()["x"]
        low, high = (result.lowest, result.highest) if method == "distribution" else result[:2]
        assert (F(low).tobytes(), F(high).tobytes()) == (comp.min_val.tobytes(), comp.max_val.tobytes())
        if method == "distribution":
            assert (result.avg.tobytes(), result.std.tobytes()) == (comp.avg.tobytes(), comp.std.tobytes())
    counts, edges = ref.histogram_dict["x"][:2]
    assert np.array_equal(counts, comp.histogram.counts) and edges.tobytes() == comp.histogram.edges.tobytes()


# NVIDIA's pytorch-quantization: loops as published.


def kl_threshold(x, bins, levels):
    from scipy.stats import entropy

    counts, edges = np.histogram(np.abs(x), bins=bins)
    counts = [int(c) for c in counts]
    counts[0] = counts[1]
    losses = []
    for i in range(levels, bins + 1):
        places = [bisect.bisect_right([k * i / levels for k in range(levels + 1)], j) - 1 if counts[j] else -1 for j in range(i)]
        members, sums = Counter(places), Counter()
        for place, count in zip(places, counts):
            sums[place] += count
        q = [sums[place] / members[place] if place >= 0 else 0.0 for place in places]
        p = counts[:i]
        p[-1] += sum(counts[i:])
        losses.append(entropy(p, q) if any(q) else math.inf)
    last = max(k for k, loss in enumerate(losses) if loss == min(losses))
    return edges[last + levels]


@pytest.mark.parametrize("kind", KINDS)
def test_kl_divergence(kind):
    obs = observers.KlDivergenceObserver(64, 16)
    obs(data(kind))
    assert obs.max_val == kl_threshold(data(kind), 64, 16) == -obs.min_val
    other = observers.KlDivergenceObserver(64, 4)
    other(data(kind))
    assert other.max_val == kl_threshold(data(kind), 64, 4)
    assert kind not in ("tails", "outlier") or other.max_val != obs.max_val


# PPQ: sums in fractions.


def mse_range(counts, low, width, codes, interval, symmetric):
    def loss(start, step):
        end, total = start + codes * step, Fraction(0)
        for i, count in enumerate(counts):
            if i < start:
                error = Fraction(start - i) - Fraction(1, 2)
            elif i > end:
                error = Fraction(i - end) + Fraction(1, 2)
            else:
                left = (i - start) % step
                right = step - left - 1
                error = left + Fraction(1, 4) if left == right else min(left, right) + Fraction(1, 2)
            total += int(count) * error * error
        return total

    tried = [(0, len(counts) // codes + 1)]
    for start in [0] if symmetric else range(0, len(counts), interval):
        if start * width + low > 0:
            break
        for step in range(1, len(counts) // codes + 1):
            if start + codes * step > len(counts) + codes:
                break
            tried.append((start, step))
    losses = [loss(*c) for c in tried]
    start, step = tried[losses.index(min(losses))]
    return start, start + codes * step


@pytest.mark.parametrize("qscheme", ["per_tensor_affine", "per_tensor_symmetric"])
@pytest.mark.parametrize("kind", KINDS)
def test_ppq_mse(kind, qscheme):
    obs = observers.PpqMseObserver(128, 8, qscheme=qscheme, quant_min=0, quant_max=15)
    x = data(kind)
    obs(x)
    h, symmetric = obs.histogram, qscheme.endswith("symmetric")
    start, end = mse_range(h.counts, h.low, h.width, 16, 8, symmetric)
    low, high = (-end * h.width, end * h.width) if symmetric else (start * h.width + h.low, end * h.width + h.low)
    assert (obs.min_val, obs.max_val) == (F(low), F(high))
    assert h.counts.sum() == x.size


def test_errors_of_bins_fit_the_loops():
    for start, step, end in ((0, 1, 16), (3, 4, 19), (5, 5, 20)):
        for i, error in enumerate(bin_errors(24, start, step, end)):
            left = (i - start) % step
            right = step - left - 1
            inside = left + 0.25 if left == right else min(left, right) + 0.5
            assert error == ((start - i - 0.5) if i < start else (i - end + 0.5) if i > end else inside) ** 2


def ppq_kl(counts, half):
    counts = [float(c) for c in counts]
    empty = int(len(counts) * 0.002)
    counts[: empty + 1] = [0.0] * empty + [1.0]
    losses = []
    for i in range(half, len(counts) + 1, half):
        p = [*counts[: i - 1], sum(counts[i - 1 :])]
        each = i // half
        q = []
        for k in range(half):
            part = counts[k * each : (k + 1) * each]
            filled = [c for c in part if c > 0]
            q += [sum(filled) / len(filled) if c > 0 else 0.0 for c in part]
        losses.append(sum(a / sum(p) * (math.log10(a / sum(p) + 1e-30) - math.log10(b / (sum(q) or 1) + 1e-30)) for a, b in zip(p, q)))
    return (losses.index(min(losses)) + 1) * half


@pytest.mark.parametrize("kind", KINDS)
def test_ppq_kl(kind):
    obs = observers.PpqKlObserver(256, quant_min=0, quant_max=31)
    obs(data(kind))
    assert obs.max_val == F(ppq_kl(obs.histogram.counts, 16) * obs.histogram.width) == -obs.min_val


# AIMET: every candidate, in plain loops.


@pytest.mark.parametrize("qscheme", ["per_tensor_affine", "per_tensor_symmetric"])
@pytest.mark.parametrize("kind", KINDS)
def test_sqnr(kind, qscheme):
    from refquant.observers.sqnr_observer import candidates

    obs = observers.SqnrObserver(40, qscheme=qscheme, quant_min=0, quant_max=15)
    x = data(kind, size=300)
    obs(x)
    h = obs.histogram
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scales, offsets = candidates(x.min(), x.max(), 15, qscheme.endswith("symmetric"))
    tried = set(zip(scales.tolist(), offsets.tolist()))
    widest = (high - low) / 15
    if qscheme.endswith("symmetric"):
        assert len(tried) == 101 and max(s for s, _ in tried) == pytest.approx(2 * max(high, -low) / 15 * 1.01, rel=1e-6) and {o for _, o in tried} == {-8.0}
    else:
        bottom = widest * round(low / widest)
        expected = []
        for k in range(1, 18):
            for o in [*range(-15, 1), round(low / widest)]:
                first, last = max(bottom, widest * k / 16 * o), min(bottom + widest * 15, widest * k / 16 * (o + 15))
                expected.append(max((last - first) / 15, 2.0**-23))
        assert scales.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-7) and all(-15 <= o <= 0 for s, o in tried if s > 1e-6)
    losses = []
    for d, o in zip(scales.tolist(), offsets.tolist()):
        total = 0.0
        for i, count in enumerate(h.counts):
            m = float(F(h.low + h.width * (i + 0.5)))
            code = round(float(F(F(m) / F(d) - F(o))))  # Python rounds halves to even
            error = float(F(F(min(max(code, 0), 15) + o) * F(d) - F(m)))
            total += count * error * error * (3.0 if not 0 <= code <= 15 else 1.0)
        losses.append(total)
    k = min(range(len(losses)), key=lambda i: (losses[i], i))
    assert losses[k] == pytest.approx(min(losses))
    best = scales[k] * offsets[k], scales[k] * offsets[k] + F(15) * scales[k]
    assert (obs.min_val, obs.max_val) == best


# NNCF: the statistics module, and quantiles by hand.


def quantile(values, q):
    values = sorted(float(v) for v in values)
    place = q * (len(values) - 1)
    i = min(int(place), len(values) - 2) if len(values) > 1 else 0
    return values[i] + (values[min(i + 1, len(values) - 1)] - values[i]) * (place - i)


def statistic(name, x, q):
    x = [abs(float(v)) if name.startswith("abs") else float(v) for v in x]
    if name == "raw":
        return x
    return [{"min": min, "max": max, "abs_max": max, "mean": statistics.fmean}[name](x) if "quantile" not in name else quantile(x, q)]


def aggregate(name, values, p):
    if name.endswith("no_outliers"):
        low, high = quantile(values, p), quantile(values, 1 - p)
        values = [v for v in values if low - 1e-9 <= v <= high + 1e-9]
    return {"min": min, "max": max, "mean": statistics.fmean, "median": statistics.median}[name.removesuffix("_no_outliers")](values)


GRID = [(s, a) for s in STATISTICS for a in AGGREGATORS if a != "histogram"]


@pytest.mark.parametrize("row", GRID, ids=lambda row: f"{row[0]} {row[1]}")
def test_statistics_and_aggregators(row):
    batches = [data("normal", seed, 60) * F(1 + seed / 3) for seed in range(7)]
    for p in (1e-4, 0.2):
        obs = observers.StatisticRangeObserver("min", "min", *row, quantile_outlier_prob=p)
        for x in batches:
            obs(x)
        values = [v for x in batches for v in statistic(row[0], x, 1 - p)]
        ends = sorted((float(min(x.min() for x in batches)), aggregate(row[1], values, p)))
        assert [float(obs.min_val), float(obs.max_val)] == pytest.approx(ends, rel=2e-6, abs=1e-7)
        other = observers.StatisticRangeObserver(*row, "max", "max", quantile_outlier_prob=p)
        for x in batches:
            other(x)
        values = [v for x in batches for v in statistic(row[0], x, p)]
        ends = sorted((aggregate(row[1], values, p), float(max(x.max() for x in batches))))
        assert [float(other.min_val), float(other.max_val)] == pytest.approx(ends, rel=2e-6, abs=1e-7)


def test_presets():
    batches = [data("normal", seed, 200) for seed in range(5)]
    found = {}
    for name in PRESETS:
        obs = observers.StatisticRangeObserver.preset(name, quantile_outlier_prob=0.1)
        for x in batches:
            obs(x)
        found[name] = obs.min_val, obs.max_val
    assert len(set(found.values())) == len(PRESETS)
    histogram, min_max = observers.HistogramObserver(), observers.MinMaxObserver()
    for x in batches:
        histogram(x), min_max(x)
    assert found["HISTOGRAM"] == histogram.best_range() and found["MINMAX"] == (min_max.min_val, min_max.max_val)
    clipped = observers.StatisticRangeObserver(clipping_value=0.5)
    clipped(batches[0])
    assert (clipped.min_val, clipped.max_val) == (-0.5, 0.5)


# MQBench: PyTorch runs here.


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_ema_quantile(kind, accumulate):
    torch = pytest.importorskip("torch")
    obs, low, high = observers.EmaQuantileObserver(threshold=0.99, bins=100, accumulate=accumulate), None, None
    for seed in range(3):
        x = torch.from_numpy(data(kind, seed) if kind != "ties" else np.append(np.zeros(5000), [1, -1]).astype(np.float32) * F(seed + 1))
        obs(x.numpy())
        least, most = x.min(), x.max()
        counts, total = torch.histc(x.abs(), bins=100, min=0.0, max=torch.max(-least, most)), 0
        clip = torch.max(-least, most)
        for i, count in enumerate(counts):
            if total + count >= 0.99 * x.numel():
                clip = (i + 0.5) * (most / 100)
                break
            total += count if accumulate else 0
        new = max(least, -clip), min(most, clip)
        low, high = new if low is None else (low * 0.9 + new[0] * (1.0 - 0.9), high * 0.9 + new[1] * (1.0 - 0.9))
        assert (obs.min_val, obs.max_val) == (low.item(), high.item())


@pytest.mark.parametrize("kind", KINDS)
def test_clip_std(kind):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(data(kind))
    obs, clipping = observers.ClipStdObserver(), observers.ClipStdObserver(clip=True)
    obs(x.numpy()), clipping(x.numpy())
    mean, std = x.double().mean().float(), x.double().std().float()
    low, high = mean - 2.6 * std, mean + 2.6 * std
    assert (obs.min_val, obs.max_val) == (torch.minimum(low, x.min()).item(), torch.maximum(high, x.max()).item())
    assert (clipping.min_val, clipping.max_val) == (torch.maximum(low, x.min()).item(), torch.minimum(high, x.max()).item())


@pytest.mark.parametrize("ema_ratio", [None, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_lp_norm(kind, ema_ratio):
    torch = pytest.importorskip("torch")
    from torch.ao.quantization.observer import MinMaxObserver

    obs, low, high = observers.LpNormObserver(p=2.0, ema_ratio=ema_ratio), None, None
    for seed in range(2):
        x = torch.from_numpy(data(kind, seed, 500))
        obs(x.numpy())
        best, least = 1e10, None
        for i in range(95):
            ends = x.min() * (1.0 - i * 0.01), x.max() * (1.0 - i * 0.01)
            scale, zero = MinMaxObserver(eps=torch.finfo(torch.float32).eps)._calculate_qparams(*ends)
            y = torch.fake_quantize_per_tensor_affine(x, scale.item(), int(zero.item()), 0, 255)
            loss = (y - x).double().abs().pow(2.0).mean().item()
            if loss < best:
                best, least = loss, ends
        if low is None:
            low, high = least
        elif ema_ratio is None:
            low, high = min(low, least[0]), max(high, least[1])
        else:
            low, high = low * 0.9 + least[0] * (1.0 - 0.9), high * 0.9 + least[1] * (1.0 - 0.9)
        assert (obs.min_val, obs.max_val) == (low.item(), high.item())


BAD = [
    (lambda: observers.EntropyObserver(16, 32), ArgumentError, "exceeds num_bins"),
    (lambda: observers.EntropyObserver(0), ArgumentError, "num_bins=0"),
    (lambda: observers.PercentileObserver(101), RangeError, "0 … 100"),
    (lambda: observers.DistributionObserver(100), RangeError, "512"),
    (lambda: observers.DistributionObserver(scenario="p4"), ArgumentError, "scenario"),
    (lambda: observers.DistributionObserver().avg, RangeError, "no data"),
    (lambda: observers.KlDivergenceObserver(64), ArgumentError, "no candidate"),
    (lambda: observers.LpNormObserver(0), RangeError, "p=0"),
    (lambda: observers.LpNormObserver(steps=200), RangeError, "steps=200"),
    (lambda: observers.EmaQuantileObserver(1.5), RangeError, "ema_ratio"),
    (lambda: observers.ClipStdObserver(-1), RangeError, "std_scale"),
    (lambda: observers.SqnrObserver(gamma=0), RangeError, "gamma"),
    (lambda: observers.StatisticRangeObserver("mode"), ArgumentError, "min_statistic"),
    (lambda: observers.StatisticRangeObserver(max_aggregator="histogram"), ArgumentError, "at both ends"),
    (lambda: observers.StatisticRangeObserver(quantile_outlier_prob=0.5), RangeError, "0.5"),
    (lambda: observers.StatisticRangeObserver.preset("MAX"), ArgumentError, "preset"),
]


@pytest.mark.parametrize("call, error, text", BAD, ids=[row[2] for row in BAD])
def test_bad_arguments_are_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_calibrators_in_a_workflow():
    from refquant import zoo
    from refquant.data import load_split
    from refquant.workflow import QConfig, QConfigMapping, convert_fx, prepare_fx

    x, _ = load_split("digits", "calibration")
    test, labels = load_split("digits", "test")
    weight = observers.PerChannelMinMaxObserver.with_args(dtype="qint8", qscheme="per_channel_symmetric")
    for maker in (observers.PercentileObserver, observers.StatisticRangeObserver.with_args(min_aggregator="mean", max_aggregator="mean")):
        prepared = prepare_fx(zoo.load("digits_resnet"), QConfigMapping("onednn").set_global(QConfig(maker, weight)), (x[:50],))
        for batch in x.reshape(4, 50, 1, 8, 8):
            prepared(batch)
        (y,) = convert_fx(prepared)(test)
        assert (y.argmax(1) == labels).mean() > 0.95
