# %% [markdown]
# # Two paths, one network
#
# PyTorch knows two ways to an INT8 model, FX graph mode and PT2E, and ONNX Runtime has a third. The same network, calibrated on the same images, gets other scales on each.
# This notebook puts them side by side, takes the differences apart one choice at a time, and proves each step by bits.

# %%
import matplotlib.pyplot as plt
import numpy as np

from refquant import zoo
from refquant.core.choose_qparams import choose_qparams
from refquant.data import load_split
from refquant.drift import compare_paths
from refquant.observers import DEFAULT_FAKE_QUANTS, HistogramObserver
from refquant.workflow import compare_simulation, convert_fx, get_default_qconfig_mapping, prepare_fx
from refquant.workflow.pt2e.fold_batch_norm import fold_batch_norms

BLUE, ORANGE, GREEN, GREY, RED = "#35618f", "#d9b23f", "#4f9d94", "#aeb8c2", "#b4432f"
COLOURS = {"fx": BLUE, "pt2e": ORANGE, "ort": GREEN}
plt.rcParams.update({"figure.figsize": (8, 3), "axes.spines.top": False, "axes.spines.right": False, "font.size": 10})

model = zoo.load("glyphs_net")
calibration, _ = load_split("glyphs_net", "calibration")
images, labels = (part[:192] for part in load_split("glyphs_net", "test"))
batches = [calibration[i : i + 50] for i in range(0, 100, 50)]
report = compare_paths(model, batches, images, labels, layer_images=32)

# %% [markdown]
# ## What comes out
#
# Three defaults, one network, one calibration set. The bars below the line exchange a single choice.

# %%
right = {row.path: 100 * row.correct / report.images for row in report.accuracy}
fp32 = 100 * report.accuracy[0].fp32 / report.images
names = ["fx", "pt2e", "ort", "fx, 8 bits", "fx, 8 bits, MinMax", "ort, per channel"]
fig, ax = plt.subplots()
ax.barh(names[::-1], [right[name] for name in names[::-1]], color=[COLOURS.get(name, GREY) for name in names[::-1]])
ax.axvline(fp32, color="black", ls="--", lw=1)
ax.set(xlabel="right, %", title=f"float is right for {fp32:.1f} %", xlim=(70, 100))
fig.tight_layout()

assert right["pt2e"] > right["fx"] > right["ort"], "three defaults, three accuracies"
assert right["fx, 8 bits"] > right["fx"] + 3 and right["ort, per channel"] > right["ort"] + 5

# %% [markdown]
# ## The eighth bit
#
# FX's default for x86 leaves the eighth bit of activations unused (`reduce_range`), because processors without VNNI add pairs of products in 16 bits; PT2E's quantizer uses
# all 256 codes. Everything else about the two ranges is the same: the histogram observer searches the same bins. With 256 codes, FX finds PT2E's parameters to the bit.

# %%
both = [row for row in report.tensors if {"fx", "pt2e"} <= set(row.seen)]
ratio = [row.seen["fx"].qparams.scale / row.seen["pt2e"].qparams.scale for row in both]
fig, ax = plt.subplots()
ax.plot(ratio, "o", color=BLUE)
ax.axhline(255 / 127, color=RED, lw=1, ls="--")
ax.set(xlabel="tensor", ylabel="scale of FX / scale of PT2E", ylim=(1.9, 2.1), title="255 steps over 127")
fig.tight_layout()

assert np.allclose(ratio, 255 / 127, rtol=1e-6)
bridges = {(name, path): (same, of) for name, path, same, of in report.bridges}
assert bridges["fx, 8 bits", "pt2e"] == (len(both), len(both)) and bridges["fx, 8 bits", "fx"][0] == 0

# %% [markdown]
# ## The observer
#
# ONNX Runtime takes the whole range that it has seen; PyTorch's histogram cuts tails off that cost more than they are worth. The ranges of both, as shares of what was seen, and
# the tensor where they differ most:

# %%
three = [row for row in report.tensors if {"fx", "ort"} <= set(row.seen) and not row.seen["fx"].shared]
seen = np.array([max(row.range[1], 0) - min(row.range[0], 0) for row in three])
share = {name: np.array([row.seen[name].qparams.scale * (row.seen[name].qparams.qmax - row.seen[name].qparams.qmin) for row in three]) / seen for name in ("fx", "ort")}
most = three[int(np.argmin(share["fx"] / share["ort"]))]
values = {}
fold_batch_norms(model).run(calibration[:100], hooks=lambda node, value: values.__setitem__(node.name, value))

fig, (left, right_) = plt.subplots(1, 2)
for name in share:
    left.plot(share[name], "o", color=COLOURS[name], label=name)
left.legend(frameon=False)
left.set(xlabel="tensor", ylabel="range kept / range seen", ylim=(0, None))
right_.hist(values[most.name].ravel(), bins=200, color=GREY, log=True)
for name in share:
    q = most.seen[name].qparams
    right_.axvline(q.scale * (q.qmax - q.zero_point), color=COLOURS[name], label=name)
right_.set(xlabel=most.name, ylabel="how many")
fig.tight_layout()

alone = HistogramObserver(reduce_range=True)
for i in (0, 50):
    alone(values[most.name][i : i + 50])
assert (share["ort"] > 0.99).all() and (share["fx"] / share["ort"]).min() < 0.85
assert np.isclose(alone.calculate_qparams().scale, most.seen["fx"].qparams.scale, rtol=1e-5), "the observer alone, outside of any path, says the same"

# %% [markdown]
# ## Placement
#
# PT2E fuses a sum into the convolution before it: the summand is never rounded to codes. FX and ONNX Runtime round it. Where the table of the command says `–`, there is no quantizer.

# %%
fused = [row.name for row in report.tensors if any(reason.startswith("fusion: pt2e") for reason in row.why)]
print("inside of a fused layer of PT2E:", ", ".join(fused))
assert fused and all("pt2e" not in row.seen for row in report.tensors if row.name in fused)

# %% [markdown]
# ## The simulation is not the thing
#
# Training sees INT8 as fake-quantized float: real sums, rounded to the grid. How far is that from what kernels compute? Layer by layer, given the same inputs, almost never a code; but
# under a reduced range kernels saturate at 255, and the simulation ends at 127.

# %%
prepared = prepare_fx(model, get_default_qconfig_mapping("x86"), (batches[0],))
for batch in batches:
    prepared(batch)
int8 = convert_fx(prepared)
rows = compare_simulation(int8, images[:32])
outputs, own, beyond, total = np.array([(r.outputs, r.own, r.beyond, r.differing) for r in rows]).sum(0)
print(f"{outputs:,} codes: {own:,} differ by a layer's own doing, {beyond:,} lie beyond the calibrated range; {total:,} differ with all layers before")
assert own < outputs * 1e-3 < total
assert all(r.own_most <= 1 for r in rows if not r.beyond)

fig, ax = plt.subplots()
share = [100 * r.differing / r.outputs for r in rows]
ax.bar(range(len(rows)), share, color=GREY)
ax.bar(range(len(rows)), [100 * r.own / r.outputs for r in rows], color=RED)
ax.set(xlabel="layer", ylabel="codes that differ, %", title="grey: all layers before simulated too; red: by the layer's own doing")
fig.tight_layout()

# %% [markdown]
# ## And the fake-quantizer has a formula of its own
#
# PyTorch's fused fake-quantizer, the default of quantization-aware training, takes FBGEMM's formula for the scale; the conversion asks the observer, which has another. Training
# rounds to one grid, the converted network to the next.

# %%
weights = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
fake = DEFAULT_FAKE_QUANTS["default_fused_per_channel_wt_fake_quant"]()
fake(weights)
trained, converted = fake.grid().scale, np.asarray(fake.calculate_qparams().scale)
low, high = weights.min(1), weights.max(1)
widest = np.maximum(-low / 128, high / 127)
fig, ax = plt.subplots()
ax.plot(converted / trained, "o", color=BLUE)
ax.axhline(127 / 127.5, color=RED, lw=1, ls="--")
ax.axhline(128 / 127.5, color=RED, lw=1, ls="--")
ax.set(xlabel="channel", ylabel="scale of the conversion / of the training")
fig.tight_layout()

assert np.allclose(trained, widest, rtol=1e-6) and not np.array_equal(trained, converted)
one = choose_qparams(low[0], high[0], -128, 127, preserve_sparsity=True, library="fbgemm")
assert one == (trained[0], 0)
