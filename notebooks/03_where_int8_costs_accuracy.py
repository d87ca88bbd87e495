# %% [markdown]
# # Where INT8 costs accuracy
#
# Two trained networks, `digits_mobilenet` and `glyphs_net`, lose anything between nothing and 40 points of accuracy in INT8, depending on
# choices that look harmless. This notebook finds the layers that do it, and why, with `refquant.drift`. The quantized networks run in the arithmetic
# of PyTorch's x86 engine, bit for bit; the causes are told apart by changing one thing at a time in exact arithmetic.

# %%
import matplotlib.pyplot as plt
import numpy as np

from refquant import data, observers, zoo
from refquant.drift import CAUSES, analyse, even_out
from refquant.workflow import QConfig, QConfigMapping, convert_fx, get_default_qconfig, prepare_fx

BLUE, ORANGE, GREY, RED = "#35618f", "#d9b23f", "#aeb8c2", "#b4432f"
plt.rcParams.update({"figure.figsize": (8, 3), "axes.spines.top": False, "axes.spines.right": False, "font.size": 10})


def recipe(per_channel, bits, observer="HistogramObserver"):
    activation = getattr(observers, observer).with_args(dtype="quint8", reduce_range=bits == 7)
    weight = get_default_qconfig("onednn" if per_channel else "qnnpack").weight
    return QConfigMapping("x86").set_global(QConfig(activation, weight))


# %% [markdown]
# ## The damage
#
# `digits_mobilenet` is a small depthwise separable network. We quantize it with **one scale for all weights of a layer** and with **one scale for each
# output channel**, all else being equal.

# %%
mobilenet = zoo.load("digits_mobilenet")
x, labels = data.load_split("digits", "test")
seen, _ = data.load_split("digits", "calibration")
per_tensor = analyse(mobilenet, recipe(per_channel=False, bits=8), x, labels, calibration=seen, sensitivity=True)
per_channel = analyse(mobilenet, recipe(per_channel=True, bits=8), x, labels, calibration=seen)
for name, report in (("per tensor", per_tensor), ("per channel", per_channel)):
    a = report.accuracy
    print(f"{name:12} FP32 {100 * a.fp32 / a.images:.2f} %   INT8 {100 * a.int8 / a.images:.2f} %   {a.changed} of {a.images} predictions changed")

assert per_tensor.accuracy.drop > 11 and per_channel.accuracy.drop < 1

# %% [markdown]
# Weights or activations? The same network with only the one or only the other on its grid, and the rest in float, answers that. With both on their grids but all
# arithmetic exact, it does what the engine does: here the *grids* cost accuracy, not the engine's rounding.

# %%
steps = {step.name: step for step in per_tensor.steps}
for step in per_tensor.steps:
    print(f"{step.name:24} {100 * step.correct / 500:6.2f} %   output {step.sqnr:5.1f} dB")

assert per_tensor.accuracy.fp32 - steps["weights only"].correct > 50
assert per_tensor.accuracy.fp32 - steps["activations only"].correct < 5
assert abs(steps["both, exact arithmetic"].correct - steps["INT8"].correct) <= 3

# %% [markdown]
# ## Why one scale does not do
#
# The greatest weight of a layer decides about its scale. A channel whose weights are a hundred times smaller then has a handful of codes, or none.
# The bars are the greatest weight of each channel; below the dashed line, half a step, everything is rounded to zero.

# %%
worst = per_tensor.layer(per_tensor.verdict.layer)
w = worst.weights
greatest = np.maximum(np.abs(w.low), np.abs(w.high))
fig, (top, bottom) = plt.subplots(2, 1, figsize=(8, 4.2), sharex=True)
top.bar(range(len(greatest)), greatest, color=BLUE)
top.axhline(w.step[0] / 2, color="black", ls="--", lw=1)
top.set(yscale="log", ylabel="greatest weight", title=worst.name)
bottom.bar(range(len(greatest)), w.channel_sqnr, color=BLUE, label="per tensor")
bottom.plot(range(len(greatest)), per_channel.layer(worst.name).weights.channel_sqnr, "o", color=ORANGE, label="per channel")
bottom.set(xlabel="channel", ylabel="SQNR in dB")
bottom.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
fig.tight_layout()

small = greatest < greatest.max() / 50
assert small.any() and np.array(w.channel_sqnr)[small].max() < 20
assert min(per_channel.layer(worst.name).weights.channel_sqnr) > 40
assert w.spread > 100

# %% [markdown]
# ## A layer's own error says little about the harm that it does
#
# Three numbers for each layer. **Alone**: the layer is quantized and fed with the float network's values. **Cumulated**: its value in the quantized network, so
# it inherits what came before. **At the output**: nothing but this layer's own grids is quantized, and we look at the end of the network.
#
# `block2_pointwise_conv` keeps 34 dB by itself, better than many others. But its error sits in channels whose numbers are small here and
# are multiplied by large weights in the next layer. At the output it does the most harm of all.

# %%
fig = per_tensor.plot()
fig.set_size_inches(11, 4.6)
fig

# %%
harm = {r.name: r.impact for r in per_tensor.layers}
assert min(harm, key=harm.get) == worst.name == "block2_pointwise_conv"
assert worst.local.sqnr > 30 and worst.impact < 12, "a small error of its own, a large one at the output"
depthwise = [r for r in per_tensor.layers if r.op == "dwconv2d+relu"]
assert all(r.cause == "weights" and r.causes["weights"].share > 0.7 for r in depthwise)
behind = per_tensor.layer("block5_pointwise_conv")
assert behind.local.sqnr > 35 and behind.cumulative.sqnr < 8, "innocent, but it inherits"

# %% [markdown]
# ## The split is exact
#
# Between the float layer and the quantized one lie six changes: clipping of inputs and output, the weights' grid, the inputs' grid, the rounding of the output, and
# what the engine computes differently from exact arithmetic. Each is carried out on its own, so the parts add up to the whole.

# %%
print(f"{'':24}" + "".join(f"{name:>11}" for name in CAUSES))
for r in per_tensor.layers[:8]:
    print(f"{r.name:24}" + "".join(f"{100 * r.causes[name].share:10.1f}%" for name in CAUSES))

for report in (per_tensor, per_channel):
    for r in report.layers:
        assert abs(sum(cause.share for cause in r.causes.values()) - 1) < 1e-9
        assert abs(r.causes["engine"].share) < 0.01

# %% [markdown]
# ## One layer at a time
#
# What if only this layer were INT8? What if only this layer were *not*? No single layer explains a loss of 14 points: the best exception that we could make gives back
# less than half of it. The cause is one and the same in all of them, so the remedy must be too.

# %%
only = [100 * (per_tensor.accuracy.fp32 - r.only) / 500 for r in per_tensor.layers]
without = [100 * (r.without - per_tensor.accuracy.int8) / 500 for r in per_tensor.layers]
fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
for ax, values, title in zip(axes, (only, without), ("lost with this layer alone in INT8", "regained with this layer alone in float")):
    ax.barh([r.name for r in per_tensor.layers], values, color=BLUE)
    ax.set(xlabel="points of accuracy", title=title)
axes[0].invert_yaxis()
fig.tight_layout()

assert max(without) < per_tensor.accuracy.drop / 2
assert max(only) < 5

# %%
print("\n".join(per_tensor.verdict.sentences))
assert per_tensor.verdict.cause == "weights" and per_tensor.verdict.remedy == "one weight scale per channel"

# %% [markdown]
# ## A network that is sensitive to everything
#
# `glyphs_net` tells 62 printed characters apart. Eight ways to quantize it, on the first 256 of its test images:

# %%
glyphs = zoo.load("glyphs_net")
images, classes = data.load_split("glyphs", "test")
images, classes = images[:256], classes[:256]
calibration = data.load_split("glyphs", "calibration")[0][:256]
table = {}
for observer in ("HistogramObserver", "MinMaxObserver"):
    for bits in (8, 7):
        for channel in (True, False):
            prepared = prepare_fx(glyphs, recipe(channel, bits, observer), (calibration[:64],))
            for k in range(0, len(calibration), 64):
                prepared(calibration[k : k + 64])
            scores = convert_fx(prepared)(images)[0]
            table[channel, bits, observer] = 100 * float((scores.argmax(1) == classes).mean())
for (channel, bits, observer), accuracy in sorted(table.items(), key=lambda item: -item[1]):
    print(f"{'per channel' if channel else 'per tensor':12} {bits} bits  {observer:18} {accuracy:6.2f} %  {'█' * int(accuracy / 2)}")

best, last = max(table.values()), min(table.values())
assert best > 95 and last < 70
for bits in (8, 7):
    for observer in ("HistogramObserver", "MinMaxObserver"):
        assert table[True, bits, observer] > table[False, bits, observer]
for channel in (True, False):
    for observer in ("HistogramObserver", "MinMaxObserver"):
        assert table[channel, 8, observer] > table[channel, 7, observer]

# %% [markdown]
# ## Errors add up to more than their sum
#
# In the worst corner the weights' grids alone, and the activations' grids alone, are bearable. Together they are not: a decision that two half-sized errors leave alone
# falls when they meet.

# %%
report = analyse(glyphs, recipe(False, 7), images, classes, calibration=calibration, layer_images=32)
lost = {step.name: 100 * (report.accuracy.fp32 - step.correct) / 256 for step in report.steps}
for name, points in lost.items():
    print(f"{name:24} costs {points:5.2f} points")

assert lost["weights only"] + lost["activations only"] < 0.6 * lost["INT8"]

# %% [markdown]
# The layer that harms most is where channels differ most: the expansion before the last depthwise convolution.

# %%
print("\n".join(report.verdict.sentences))
assert report.verdict.layer.startswith("block6_") and report.verdict.cause == "weights"
spread = {r.name: r.weights.spread for r in report.layers if r.weights}
assert spread["block6_expand_conv"] > 100 > spread["block1_conv1"]

# %% [markdown]
# ## What is left when the weights are right
#
# With a scale for each channel the weights cost nothing any more. What remains is the *activations*: they have one grid for all channels in every engine, and the
# channels before a depthwise convolution differ by a factor of hundreds. The other observer does not help.

# %%
better = analyse(glyphs, recipe(True, 7), images, classes, calibration=calibration, layer_images=32)
steps = {step.name: step for step in better.steps}
assert better.accuracy.fp32 - steps["weights only"].correct <= 2
assert steps["activations only"].correct - steps["INT8"].correct <= 4

r = better.layer(better.verdict.layer)
spans = np.array(r.values.magnitudes) / r.grid.scale
fig, ax = plt.subplots()
ax.bar(range(len(spans)), np.sort(spans), color=np.where(np.sort(spans) < 8, RED, BLUE), width=1)
ax.set(yscale="log", xlabel="channels, sorted", ylabel="codes that a channel spans", title=r.name)
fig.tight_layout()
print("\n".join(better.verdict.sentences))

assert table[True, 7, "MinMaxObserver"] < table[True, 7, "HistogramObserver"]
assert better.verdict.cause == "rounding" and "equalization" in better.verdict.remedy
assert (spans < 8).mean() > 0.1 and spans.max() > 100

# %% [markdown]
# ## The remedy, carried out
#
# Evening out the channels is exact in float if the factors are powers of two: a channel is multiplied on its way out, in its batch norm, and divided on its way in, in the weights
# of the next convolution. A ReLU in between does not mind, nor does a sum whose other side is multiplied too.

# %%
even = even_out(glyphs, [calibration])
assert np.array_equal(even(images[:64])[0], glyphs(images[:64])[0]), "not a bit of the float network changes"

table = {}
for name, network in (("as trained", glyphs), ("evened out", even)):
    for channel in (True, False):
        prepared = prepare_fx(network, recipe(channel, 7), (calibration[:64],))
        for k in range(0, len(calibration), 64):
            prepared(calibration[k : k + 64])
        table[name, channel] = 100 * float((convert_fx(prepared)(images)[0].argmax(1) == classes).mean())
for (name, channel), accuracy in table.items():
    print(f"{name:12} {'per channel' if channel else 'per tensor':12} 7 bits  {accuracy:6.2f} %")

assert table["evened out", True] > table["as trained", True] + 5
assert table["evened out", False] > table["as trained", False] + 20

# %% [markdown]
# The same analysis is one command, `refquant drift glyphs_net --per-tensor --html report.html`; the page it writes needs no other file.
