# %% [markdown]
# # From real numbers to INT8
#
# A quantized tensor is a grid laid over the real line. Two numbers describe the grid: the **scale** $s$, the distance
# between neighbours, and the **zero point** $z$, the code that stands for the real number 0:
#
# $$ x \approx s\,(q - z), \qquad q = \mathrm{clip}\big(\mathrm{round}(x / s) + z\big). $$
#
# Every claim below is computed and asserted. Nothing is downloaded and the seeds are fixed.

# %%
import matplotlib.pyplot as plt
import numpy as np

import refquant as rq
from refquant.core.rounding import round_real

rng = np.random.default_rng(0)
BLUE, ORANGE, GREY = "#3366aa", "#dd7733", "#999999"
plt.rcParams.update({"figure.figsize": (8, 3), "axes.spines.top": False, "axes.spines.right": False, "font.size": 10})

# %% [markdown]
# ## The staircase
#
# Eight bits give 256 steps. To see them we take three bits' worth: codes 0 … 7 with scale 0.5 and zero point 3.

# %%
three_bits = rq.QParams(scale=0.5, zero_point=3, dtype="uint8", quant_min=0, quant_max=7)
x = np.linspace(-3, 4, 2001).astype(np.float32)
y = rq.fake_quantize(x, three_bits, numerics="onnx")

fig, (left, right) = plt.subplots(1, 2)
left.plot(x, x, color=GREY, lw=1, label="$x$")
left.step(x, y, color=BLUE, where="mid", label="quantized")
left.set(xlabel="real number", ylabel="what the grid says")
left.legend(frameon=False)
right.plot(x, y - x, color=ORANGE, lw=1)
right.axhspan(-0.25, 0.25, color=GREY, alpha=0.2)
right.set(xlabel="real number", ylabel="error", title="half a step inside, unbounded outside")
fig.tight_layout()

inside = (x >= -1.5) & (x <= 2.0)
assert np.abs(y - x)[inside].max() <= 0.25
assert np.abs(y - x)[~inside].max() > 0.25

# %% [markdown]
# ## Why zero must lie on the grid
#
# Padding, ReLU and sparse activations are full of exact zeros. If 0 fell between two codes, each of them would carry the same error,
# and a convolution would add it up. That is why the zero point is an *integer* and why observers stretch a range until it contains 0.

# %%
low, high = 0.3, 5.1
scale_without_zero = np.float32((high - low) / 255)
grid_without_zero = low + scale_without_zero * np.arange(256)
observer = rq.observers.MinMaxObserver(dtype="uint8")
observer(np.array([low, high], np.float32))
qp = observer.calculate_qparams()
print(qp)

assert np.abs(grid_without_zero).min() > 0.1, "a grid over [0.3, 5.1] cannot say 0"
assert rq.dequantize(rq.quantize([0.0], qp)).tolist() == [0.0], "the observer's grid can"

# %% [markdown]
# ## Rounding: the part that engines disagree about
#
# Halfway between two codes somebody has to decide. IEEE arithmetic goes to the *even* neighbour; C's `round` goes *away* from zero; integer
# code that adds one half and shifts goes *up*.

# %%
values = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
print(f"{'':13}" + "".join(f"{v:7}" for v in values))
for mode in rq.Round:
    print(f"{mode.value:13}" + "".join(f"{int(v):7}" for v in round_real(values, mode)))

# %% [markdown]
# Even with one rounding mode there is a choice: is the zero point added *after* rounding, as an integer, or *before*, as a float?
# ONNX adds it after. PyTorch 2.13's `quantize_per_tensor` adds it before, in the same fused multiply-add that scales. With an odd
# zero point every exact tie then goes to the other neighbour:

# %%
ties = np.array([0.5, 1.5, 2.5, 3.5], np.float32)
odd = rq.QParams(scale=1.0, zero_point=1, dtype="uint8")
after = rq.quantize(ties, odd, numerics="onnx").values
before = rq.quantize(ties, odd, numerics="fbgemm").values
print("zero point after rounding :", after)
print("zero point before rounding:", before)
assert after.tolist() == [1, 3, 3, 5] and before.tolist() == [2, 2, 4, 4]

# %% [markdown]
# ## How large is the error?
#
# Inside of the range the error of a fine grid is nearly uniform on $[-s/2, s/2]$, so its mean square is $s^2/12$. Each further bit
# halves $s$ and gains $20 \log_{10} 2 \approx 6.02$ dB of signal-to-quantization-noise ratio (SQNR).

# %%
signal = rng.uniform(-1, 1, 200_000).astype(np.float32)


def sqnr(reference, approximation):
    noise = reference.astype(np.float64) - approximation
    return 10 * np.log10(np.mean(reference.astype(np.float64) ** 2) / np.mean(noise**2))


bits = np.arange(2, 9)
measured = []
for b in bits:
    levels = 2**b
    grid = rq.QParams(2.0 / (levels - 1), levels // 2, "uint8", quant_min=0, quant_max=int(levels - 1))
    measured.append(sqnr(signal, rq.fake_quantize(signal, grid, numerics="onnx")))
slope = np.polyfit(bits, measured, 1)[0]

plt.figure()
plt.plot(bits, measured, "o-", color=BLUE)
plt.xlabel("bits")
plt.ylabel("SQNR in dB")
plt.title(f"{slope:.2f} dB a bit")
plt.tight_layout()
assert 5.8 < slope < 6.4

step = 2.0 / 255
error = rq.fake_quantize(signal, rq.QParams(step, 128, "uint8"), numerics="onnx") - signal
inside = np.abs(signal) < 0.99
assert abs(np.mean(error[inside].astype(np.float64) ** 2) / (step**2 / 12) - 1) < 0.01

# %% [markdown]
# ## Range against resolution
#
# Activations are rarely uniform. A wide range keeps the outliers and coarsens the grid for everybody else; a narrow one clips them.
# How much is worth clipping depends on the bits: with 4 the best range is a fraction of the data's, with 8 hardly anything may be cut off, because
# a clipped outlier costs the square of what was lost. `HistogramObserver` looks for the best 8-bit range.

# %%
heavy = (rng.standard_t(3, 100_000)).astype(np.float32)
limits = np.geomspace(1, np.abs(heavy).max(), 80)


def noise_of(grid):
    return np.mean((rq.fake_quantize(heavy, grid, numerics="fbgemm") - heavy).astype(np.float64) ** 2)


def symmetric_grid(limit, b):
    return rq.QParams(2 * limit / (2**b - 1), 2 ** (b - 1), "uint8", quant_min=0, quant_max=2**b - 1)


found = {}
for kind in (rq.observers.MinMaxObserver, rq.observers.HistogramObserver):
    observer = kind(dtype="uint8")
    observer(heavy)
    grid = observer.calculate_qparams()
    found[kind.__name__] = (grid.scale * 127.5, noise_of(grid))

best = {}
plt.figure()
for b, color in ((4, ORANGE), (8, BLUE)):
    noise = [noise_of(symmetric_grid(limit, b)) for limit in limits]
    best[b] = limits[int(np.argmin(noise))]
    plt.loglog(limits, noise, color=color, label=f"{b} bits")
for (name, (limit, value)), marker in zip(found.items(), "os"):
    plt.plot(limit, value, marker, color="k", ms=5, label=name)
plt.xlabel("range kept: ± limit")
plt.ylabel("mean square error")
plt.legend(frameon=False)
plt.tight_layout()

print({b: round(float(v), 1) for b, v in best.items()}, {k: round(float(v[0]), 1) for k, v in found.items()})
assert best[4] < best[8] / 2
assert found["HistogramObserver"][1] < found["MinMaxObserver"][1]

# %% [markdown]
# ## One scale for a tensor, or one for each channel?
#
# The weights of a depthwise convolution are a handful of numbers a channel, and channels differ by orders of magnitude. One scale must
# serve the largest; the smallest channels then own a few codes, or none.

# %%
weights = np.concatenate([rng.normal(0, sigma, (1, 200)) for sigma in np.geomspace(0.001, 1, 16)]).astype(np.float32)
per_tensor = rq.observers.MinMaxObserver(dtype="int8", qscheme="per_tensor_symmetric")
per_channel = rq.observers.PerChannelMinMaxObserver(dtype="int8", qscheme="per_channel_symmetric")
rows = {}
for name, observer in (("per tensor", per_tensor), ("per channel", per_channel)):
    observer(weights)
    w = rq.dequantize(rq.quantize(weights, observer.calculate_qparams()))
    rows[name] = [sqnr(a, b) if np.any(a != b) else np.inf for a, b in zip(weights, w)]

plt.figure()
for (name, values), color in zip(rows.items(), (ORANGE, BLUE)):
    plt.plot(values, "o-", color=color, label=name)
plt.xlabel("channel, from small weights to large")
plt.ylabel("SQNR in dB")
plt.legend(frameon=False)
plt.tight_layout()
assert min(rows["per channel"]) > 30 and rows["per tensor"][0] < 5

# %% [markdown]
# ## What to take along
#
# * The grid costs at most half a step inside of the range: $s^2/12$ on average, 6 dB a bit.
# * Outside it costs whatever was cut off. An observer chooses between the two.
# * On exact ties engines differ, by the rounding mode and by where the zero point enters. The next notebook follows one layer through all of them.
