"""Every ready-made fake-quantizer against PyTorch's own, on random streams of batches: identical bits, no tolerance."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from test_observers_torch import GROWTHS, KINDS, SCALES, stream  # noqa: E402
from torch.ao.quantization import fake_quantize as theirs  # noqa: E402

from refquant import observers  # noqa: E402
from refquant.errors import RangeError, UnsupportedError  # noqa: E402

pytestmark = pytest.mark.engine
NAMES = tuple(observers.DEFAULT_FAKE_QUANTS)
SWITCHES = ("enable_observer", "disable_observer", "enable_fake_quant", "disable_fake_quant")


def pair(name, **more):
    return observers.DEFAULT_FAKE_QUANTS[name](**more), getattr(theirs, name)(**more)


def assert_same_state(ours, torchs, what):
    scale, zero = torchs.scale.detach().reshape(-1).numpy(), torchs.zero_point.detach().reshape(-1).numpy()
    assert np.array_equal(ours.scale.view(np.int32), scale.astype(np.float32).view(np.int32)), f"{what}: scale {ours.scale} beside {scale}"
    assert np.array_equal(ours.zero_point.astype(np.float64), zero.astype(np.float64)), f"{what}: zero point {ours.zero_point} beside {zero}"


def assert_same_batch(ours, torchs, x, what):
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ref = torchs(torch.from_numpy(x)).numpy()
        except AssertionError:  # moving averages of a constant may cross by a rounding
            with pytest.raises(RangeError, match="must end no lower than it begins"):
                ours(x)
            return False
        comp = ours(x)
    assert comp.dtype == ref.dtype == np.float32 and comp.shape == ref.shape
    different = np.flatnonzero((comp.view(np.int32) != ref.view(np.int32)).reshape(-1))
    assert not different.size, f"{what}: {different.size} of {x.size} differ, first {comp.reshape(-1)[different[0]]!r} beside {ref.reshape(-1)[different[0]]!r}"
    assert_same_state(ours, torchs, what)
    return True


def on_the_grid(rng, fake, shape):
    """Ties, their neighbours one ulp away, and values beyond both ends of the grid that is in force."""
    scale = float(np.resize(fake.scale, 1)[0])
    codes = rng.integers(-300, 300, shape) + 0.5
    x = (codes * scale).astype(np.float32)
    return np.where(rng.random(shape) < 0.5, x, np.nextafter(x, np.float32(rng.choice([-1, 1]) * np.inf)))


def shaped(rng, batches, channels):
    """Batches with channels on axis 0, of two to four dimensions."""
    rest = [(-1,), (2, -1), (1, 2, -1)][int(rng.integers(3))]
    return [np.resize(x, (channels * 2 * max(1, x.size // (2 * channels)),)).reshape(channels, *rest) for x in batches]


@pytest.mark.parametrize("name", NAMES)
def test_streams(name):
    count = 6 if "histogram" in name else 170
    rng = np.random.default_rng(len(name))
    kinds = [(kind, growth) for kind in KINDS for growth in GROWTHS]
    for i in range(count):
        kind, growth = kinds[i % len(kinds)]
        batches = stream(rng, kind, growth, float(rng.choice(SCALES)))
        ours, torchs = pair(name)
        if ours.is_per_channel:
            batches = shaped(rng, batches, int(rng.integers(1, 7)))
        for k, x in enumerate(batches):
            switch = SWITCHES[int(rng.integers(4))] if k and rng.random() < 0.4 else None
            if switch:
                getattr(ours, switch)(), getattr(torchs, switch)()
            if not assert_same_batch(ours, torchs, x, f"{name}, stream {i} ({kind}, {growth}), batch {k} {switch or ''}"):
                break
        ours.disable_observer(), torchs.disable_observer()
        ours.enable_fake_quant(), torchs.enable_fake_quant()
        hard = on_the_grid(rng, ours, x.shape)
        hard.reshape(-1)[:3] = [np.inf, -np.inf, np.nan][: hard.size]
        assert_same_batch(ours, torchs, hard, f"{name}, stream {i}, ties")


@pytest.mark.parametrize("name", [n for n in NAMES if "fused" in n])
def test_what_a_conversion_asks_is_the_observers_formula(name):
    rng = np.random.default_rng(1)
    other = 0
    for _ in range(40):
        ours, torchs = pair(name)
        x = rng.standard_normal((4, 50)).astype(np.float32)
        assert_same_batch(ours, torchs, x, name)
        scale, zero = torchs.calculate_qparams()
        q = ours.calculate_qparams()
        assert np.array_equal(np.float32(q.scale).reshape(-1), scale.numpy()) and np.array_equal(np.reshape(q.zero_point, -1), zero.numpy())
        other += int((np.float32(q.scale).reshape(-1) != ours.scale).any())
    assert other > 30 if "wt" in name and "127" not in name else True


def test_before_anything_is_observed():
    for name in NAMES:
        ours, torchs = pair(name)
        if not ours.is_per_channel:
            ours.disable_observer(), torchs.disable_observer()
            assert_same_batch(ours, torchs, np.float32([-1.5, 0.25, 0.5, 1.5, 300]), name)


def test_channels_on_another_axis():
    rng = np.random.default_rng(2)
    for axis in (1, 2, 3):
        ours, torchs = pair("default_per_channel_weight_fake_quant", ch_axis=axis)
        for _ in range(3):
            assert_same_batch(ours, torchs, rng.standard_normal((3, 4, 2, 5)).astype(np.float32), f"axis {axis}")
    with pytest.raises(UnsupportedError, match="axis 0 alone"):
        observers.DEFAULT_FAKE_QUANTS["default_fused_per_channel_wt_fake_quant"](ch_axis=1)


def test_infinities_end_a_moving_average_as_in_torch():
    ours, torchs = pair("default_fused_act_fake_quant")
    ours.disable_fake_quant(), torchs.disable_fake_quant()
    for batch in ([1, 2], [np.inf, 0], [3, -1], [0, 5]):
        assert_same_batch(ours, torchs, np.float32(batch), "infinities")
        held = torchs.activation_post_process
        assert (ours.activation_post_process.min_val, ours.activation_post_process.max_val) == (held.min_val.item(), held.max_val.item())


def test_a_fault_is_found(monkeypatch):
    """Were the fused observer to use ATen's formula, this test's streams would show it."""
    import refquant.observers.fused_moving_avg_obs_fake_quantize as fused

    right = fused.choose_qparams
    monkeypatch.setattr(fused, "choose_qparams", lambda *a, library, **k: tuple(np.float32(v) if i == 0 else v for i, v in enumerate(right(*a, library="aten", **k))))
    with pytest.raises(AssertionError):
        ours, torchs = pair("default_fused_act_fake_quant")
        assert_same_batch(ours, torchs, np.float32([-1, 1]), "planted")
