"""What `drift.analyse` measures of a small network, beside a slow network of loops and float64."""

import numpy as np
import pytest
from test_drift import converted

from refquant.drift import analyse
from refquant.drift.causes import split_error
from refquant.drift.pairing import pair_layers, recorded
from refquant.graph import Builder


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(3)
    b = Builder(seed=5)
    x = b.input(shape=(None, 2, 5, 5))
    model = b.build(x.conv2d(3, 3, padding=1, stride=2).batch_norm().relu().flatten().linear(4))
    images = rng.standard_normal((40, 2, 5, 5)).astype(np.float32)
    return model, converted(model, images), images


# --- an independent recomputation in float64, loops for the convolution ---


def naive_conv(x, w, bias, stride, padding):
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    n, (oc, _, kh, kw) = len(x), w.shape
    oh, ow = (x.shape[2] - kh) // stride + 1, (x.shape[3] - kw) // stride + 1
    y = np.zeros((n, oc, oh, ow))
    for i in range(oh):
        for j in range(ow):
            window = x[:, :, i * stride : i * stride + kh, j * stride : j * stride + kw]
            y[:, :, i, j] = np.tensordot(window, w.astype(np.float64), ([1, 2, 3], [1, 2, 3]))
    return y + np.reshape(bias, (1, -1, 1, 1))


def naive_codes(x, q):
    return np.clip(np.rint(np.asarray(x, np.float64) / q.scale) + q.zero_point, 0, 255)


def naive_grid(x, q):
    return (naive_codes(x, q) - q.zero_point) * q.scale


def naive_network(model, int8, x):
    """Return FP32 values and INT8 values of conv and linear, all in float64 and rounded at the grids alone."""
    norm, conv, fc = (model.node(n) for n in ("batch_norm", "conv2d", "linear"))
    p = {k: v.astype(np.float64) for k, v in norm.params.items()}
    factor = p["weight"] / np.sqrt(p["running_var"] + 1e-5)
    w = conv.params["weight"] * factor.reshape(-1, 1, 1, 1)
    bias = (conv.params["bias"] - p["running_mean"]) * factor + p["bias"]
    q_in, q_mid, q_out = (int8.node(n).attrs["out"] for n in ("x_quantize", "conv2d", "linear"))
    wq, fq = (int8.node(n).params["weight"] for n in ("conv2d", "linear"))
    grid = {
        "conv": wq.values * np.reshape(wq.qparams.scale, (-1, 1, 1, 1)),
        "fc": fq.values * np.reshape(fq.qparams.scale, (-1, 1)),
    }

    def run(values, w, act):
        return np.maximum(naive_conv(values, w, bias, 2, 1), 0) if act == "conv" else values.reshape(len(values), -1) @ w.T + fc.params["bias"]

    real = run(x, w, "conv")
    codes = naive_grid(run(naive_grid(x, q_in), grid["conv"], "conv"), q_mid)
    return {
        "real": (real, run(real, fc.params["weight"], "fc")),
        "int8": (codes, naive_grid(run(codes, grid["fc"], "fc"), q_out)),
        "fc cut": run(np.minimum(real, 255 * q_mid.scale), fc.params["weight"], "fc"),
        "fc weights": run(np.minimum(real, 255 * q_mid.scale), grid["fc"], "fc"),
        "fc inputs": run(naive_grid(real, q_mid), grid["fc"], "fc"),
        "q": (q_in, q_mid, q_out),
        "w": (w, wq),
    }


def naive_sqnr(a, b):
    return 10 * np.log10(np.sum(a**2) / np.sum((a - b) ** 2))


def test_cumulative_error_is_that_of_an_independent_network(small):
    model, int8, x = small
    ref = naive_network(model, int8, x)
    report = analyse(model, int8, x)
    for name, real, codes, q in zip(("conv2d", "linear"), ref["real"], ref["int8"], ref["q"][1:]):
        comp = report.layer(name).cumulative
        assert comp.sqnr == pytest.approx(naive_sqnr(real, codes), abs=1e-4)
        assert comp.cosine == pytest.approx(np.sum(real * codes) / np.sqrt(np.sum(real**2) * np.sum(codes**2)), abs=1e-7)
        assert comp.max_lsb == pytest.approx(np.abs(real - codes).max() / q.scale, rel=1e-4)
        assert comp.mean_lsb == pytest.approx(np.abs(real - codes).mean() / q.scale, rel=1e-4)


def test_local_error_and_its_causes_are_those_of_an_independent_layer(small):
    model, int8, x = small
    ref = naive_network(model, int8, x)
    record = analyse(model, int8, x).layer("linear")
    real, q = ref["real"][1], ref["q"][2]
    low, high = -q.zero_point * q.scale, (255 - q.zero_point) * q.scale
    cut, weights, exact = (np.clip(v, low, high) for v in (ref["fc cut"], ref["fc weights"], ref["fc inputs"]))
    alone = naive_grid(exact, q)
    errors = {"range_in": ref["fc cut"] - real, "range_out": cut - ref["fc cut"], "weights": weights - cut}
    errors.update(inputs=exact - weights, rounding=alone - exact)
    assert errors["range_in"].any() and errors["range_out"].any(), "the data must reach all causes"
    total = alone - real
    for name, error in errors.items():
        assert record.causes[name].share == pytest.approx(np.sum(error * total) / np.sum(total**2), abs=1e-4), name
        if error.any():
            assert record.causes[name].sqnr == pytest.approx(naive_sqnr(real, real + error), abs=0.01), name
    assert record.local.sqnr == pytest.approx(naive_sqnr(real, alone), abs=1e-4)
    assert record.saturated == np.mean(np.abs(ref["fc inputs"] - exact) > q.scale / 2)
    assert abs(record.causes["engine"].share) < 1e-4


def test_weight_errors_are_those_of_an_independent_fold(small):
    model, int8, x = small
    w, wq = naive_network(model, int8, x)["w"]
    comp = analyse(model, int8, x).layer("conv2d").weights
    grid = wq.values * np.reshape(wq.qparams.scale, (-1, 1, 1, 1))
    ref = [naive_sqnr(a, b) for a, b in zip(w, grid)]
    np.testing.assert_allclose(comp.channel_sqnr, ref, atol=1e-3)
    assert comp.worst == int(np.argmin(ref)) and comp.sqnr == pytest.approx(naive_sqnr(w, grid), abs=1e-4)
    np.testing.assert_allclose(comp.high, w.reshape(3, -1).max(1), rtol=1e-6)


def test_occupancy_histogram_and_ends_count_what_is_there(small):
    model, int8, x = small
    record = analyse(model, int8, x).layer("conv2d")
    codes = recorded(int8, (x,))["conv2d"].values
    real = recorded(model, (x,))["relu"]
    assert record.occupancy == len(np.unique(codes)) / 256
    assert record.ends == np.mean(codes == 255)
    assert sum(record.values.counts) == real.size
    assert (record.values.low, record.values.high) == (real.min(), real.max())
    np.testing.assert_array_equal(record.values.channel_high, real.max((0, 2, 3)))


def test_impact_is_the_output_with_only_this_layers_own_error(small):
    model, int8, x = small
    layer = next(layer for layer in pair_layers(model, int8, recorded(int8, (x,))) if layer.name == "linear")
    values = recorded(model, (x,))
    split = split_error(layer, values["linear"], [values["flatten"]], int8.numerics)
    output = values["linear"] + sum(split.errors[name] for name in ("range_out", "weights", "rounding", "engine"))
    assert analyse(model, int8, x).layer("linear").impact == pytest.approx(naive_sqnr(values["linear"].astype(np.float64), output), abs=1e-4)
