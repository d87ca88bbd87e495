"""Observers give what PyTorch's gave, and faults planted in them are found."""

import sys
import zlib

import numpy as np
import pytest

from refquant import observers
from refquant.errors import RefquantError

F = np.float32

# Values recorded from PyTorch 2.13.0 on x86-64: first two scales and zero points, CRC-32 of the histogram or of the bounds.

SHAPES = {"PerChannelMinMaxObserver": (5, 4, 50), "MovingAveragePerChannelMinMaxObserver": (5, 4, 50)}


def batches(recipe, size=1000):
    """Batches from (shape, scale) pairs, by integer and float32 arithmetic that is the same everywhere."""
    for seed, (shape, scale) in enumerate(recipe):
        u = (np.arange(1 + seed, size + 1 + seed, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(2**32)).astype(np.float64) / 2**32
        u = (u * 2 - 1).astype(np.float32)
        x = {"even": u, "peak": u * u * u, "tail": u**2 * u**2 * u**2 * u**2 * u, "relu": np.maximum(u, F(0)), "grid": np.clip(np.floor(u * F(1100)), -1024, 1024) / F(1024), "one": u * F(0) + F(1)}[shape]
        yield x * F(scale)

GOLDEN = [
    ("HistogramObserver", {}, (("peak", 1.0),), ["0x1.fd2dc20000000p-8"], [128], 0x7f81ba93),
    ("HistogramObserver", {}, (("peak", 1.0), ("peak", 1000.0)), ["0x1.f13eac0000000p+2"], [128], 0xfc194096),
    ("HistogramObserver", {}, (("peak", 1.0), ("relu", 3.0), ("even", 0.5)), ["0x1.006be60000000p-6"], [64], 0x3a49ed9),
    ("HistogramObserver", {"reduce_range": True}, (("relu", 1.0), ("relu", 1.25)), ["0x1.4211a00000000p-7"], [0], 0x298bb163),
    ("HistogramObserver", {"dtype": "qint8", "qscheme": "per_tensor_symmetric"}, (("tail", 1.0), ("peak", 20.0)), ["0x1.3fd89c0000000p-3"], [0], 0x9c96dae5),
    ("HistogramObserver", {"bins": 100}, (("even", 1.0), ("peak", 7.0)), ["0x1.bbacfc0000000p-5"], [129], 0x4db1b1f9),
    ("HistogramObserver", {"dtype": "uint8", "qscheme": "per_tensor_symmetric", "reduce_range": True}, (("tail", 1.0),), ["0x1.fd45c20000000p-7"], [128], 0xa551e73a),
    ("HistogramObserver", {}, (("one", 3.0), ("one", 3.0), ("peak", 5.0)), ["0x1.3f54b20000000p-5"], [128], 0x5769cb00),
    ("HistogramObserver", {}, (("peak", 1e-42), ("peak", 3e-42)), ["0x1.0000000000000p-23"], [0], 0x7955c6ba),
    ("HistogramObserver", {}, (("one", 3.0),), ["0x1.8181820000000p-7"], [0], 0x96d8e772),
    ("HistogramObserver", {}, (("grid", 0.1),), ["0x1.9b01680000000p-11"], [128], 0x21d6ea5f),
    ("MinMaxObserver", {}, (("peak", 1.0), ("tail", 0.1)), ["0x1.0017040000000p-7"], [127], 0xfcbb0283),
    ("MinMaxObserver", {"dtype": "qint8", "qscheme": "per_tensor_symmetric"}, (("peak", 1.0),), ["0x1.004d880000000p-7"], [0], 0xfcbb0283),
    ("MinMaxObserver", {"dtype": "qint8", "qscheme": "per_tensor_symmetric", "quant_min": -127, "quant_max": 127, "eps": 0.000244140625}, (("peak", 1e-09),), ["0x1.0000000000000p-12"], [0], 0x6ba2ff89),
    ("MinMaxObserver", {"quant_min": 0, "quant_max": 127}, (("relu", 1.0),), ["0x1.01c7ea0000000p-7"], [0], 0xf1492152),
    ("MovingAverageMinMaxObserver", {}, (("peak", 1.0), ("tail", 0.1), ("even", 30.0)), ["0x1.48414e0000000p-7"], [127], 0xdb99c000),
    ("MovingAverageMinMaxObserver", {"averaging_constant": 0.3}, (("peak", 1.0), ("tail", 0.1), ("even", 30.0), ("peak", 0.7), ("even", 3.0)), ["0x1.6e34760000000p-5"], [127], 0x879cf488),
    ("MovingAverageMinMaxObserver", {"averaging_constant": 0.25, "dtype": "int16"}, (("peak", 1.0), ("tail", 0.1), ("even", 30.0)), ["0x1.023fa80000000p-12"], [-11], 0xf575b34b),
    ("PerChannelMinMaxObserver", {"ch_axis": 1}, (("peak", 1.0), ("tail", 0.1)), ["0x1.f2c75c0000000p-8", "0x1.f3c6fc0000000p-8"], [131, 128], 0x27267c43),
    ("PerChannelMinMaxObserver", {"ch_axis": 1, "dtype": "qint8", "qscheme": "per_channel_symmetric"}, (("peak", 1.0),), ["0x1.ffc0f80000000p-8", "0x1.f6432e0000000p-8"], [0, 0], 0x27267c43),
    ("PerChannelMinMaxObserver", {"ch_axis": 1, "qscheme": "per_channel_affine_float_qparams"}, (("tail", 1.0),), ["0x1.d69d440000000p-8", "0x1.d885b60000000p-8"], [137.4322967529297, 129.40182495117188], 0xdcc20f75),
    ("MovingAveragePerChannelMinMaxObserver", {"ch_axis": 1, "dtype": "qint8", "qscheme": "per_channel_symmetric", "averaging_constant": 0.1}, (("peak", 1.0), ("even", 9.0)), ["0x1.cd41100000000p-7", "0x1.c78bd40000000p-7"], [0, 0], 0x1360998d),
]


def check_golden(name, arguments, recipe, scales, zero_points, crc):
    obs = getattr(observers, name)(**arguments)
    for x in batches(recipe):
        obs(x.reshape(SHAPES.get(name, (-1,))))
    qparams = obs.calculate_qparams()
    assert [float(v).hex() for v in np.atleast_1d(qparams.scale)[:2]] == scales
    assert np.atleast_1d(qparams.zero_point)[:2].tolist() == zero_points
    bounds = np.append(obs.min_val, obs.max_val)
    assert zlib.crc32(getattr(obs, "histogram", bounds).tobytes()) == crc


@pytest.mark.parametrize("row", GOLDEN)
def test_golden_values(row):
    check_golden(*row)


def _off_by_one_edges(original):
    return lambda x, first, last, bins: np.roll(original(x, first, last, bins), 1)


def _double_precision(original):
    return lambda x, first, last, bins: np.histogram(x.astype(float), bins, (float(first), float(last)))[0].astype(np.float32)


FAULTS = [
    ("HistogramObserver", "refquant.kernels.histogram.histogram_counts", _off_by_one_edges),
    ("HistogramObserver", "refquant.kernels.histogram.histogram_counts", _double_precision),
    ("HistogramObserver", "refquant.kernels.histogram.rescaled_histogram", lambda original: lambda h, *ends: np.roll(original(h, *ends), 1)),
    ("HistogramObserver", "refquant.kernels.histogram.search_bins", lambda original: lambda *a: (original(*a)[0] + 1, original(*a)[1])),
    ("HistogramObserver", "refquant.observers.histogram_observer.outer_edges", lambda original: lambda low, high: (low, high + F(high == low))),
    ("MinMaxObserver", "refquant.observers.qparams_from_range._symmetric_zero_point", lambda original: lambda limits: 1),
    ("MovingAverageMinMaxObserver", "refquant.observers.moving_average_min_max_observer.averaged", lambda o: lambda m, x, c: F((1 - c) * m + c * x)),
    ("PerChannelMinMaxObserver", "refquant.observers.qparams_from_range._affine_zero_point", lambda o: lambda s, limits: limits.qmin - np.floor(s).astype(int)),
    ("MovingAveragePerChannelMinMaxObserver", "refquant.observers.moving_average_per_channel_min_max_observer.averaged", lambda o: lambda m, x, c: x),
]


@pytest.mark.parametrize("name, place, fault", FAULTS)
def test_a_planted_fault_is_found(monkeypatch, name, place, fault):
    rows = [row for row in GOLDEN if row[0] == name]
    for row in rows:
        check_golden(*row)
    module, _, attribute = place.rpartition(".")
    module = sys.modules[module]
    monkeypatch.setattr(module, attribute, fault(getattr(module, attribute)))
    failed = 0
    for row in rows:
        try:
            check_golden(*row)
        except (AssertionError, RefquantError):
            failed += 1
    assert failed, "no golden value tells the fault"
