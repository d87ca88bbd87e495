# %% [markdown]
# # The same network, other answers
#
# Two machines run the same INT8 network and disagree. This notebook solves some puzzles that people published about that, then audits a network
# before anybody is puzzled: would it saturate on a CPU without VNNI, where, how far off, and what helps?

# %%
import matplotlib.pyplot as plt
import numpy as np

import refquant as rq
from refquant import data, zoo
from refquant.cli.drift import Recipe
from refquant.drift.audit import audit
from refquant.drift.audit_network import GraphNetwork
from refquant.verify import oracle
from refquant.verify.gallery import PUZZLES, find, solve
from refquant.verify.problem import Problem
from refquant.workflow import convert_fx, prepare_fx

BLUE, ORANGE, GREY, RED = "#35618f", "#d9b23f", "#aeb8c2", "#b4432f"
plt.rcParams.update({"figure.figsize": (8, 3), "axes.spines.top": False, "axes.spines.right": False, "font.size": 10})

# %% [markdown]
# ## A puzzle: 15 steps off, in one place
#
# A 3 x 3 convolution of a 5 x 5 image: one output of nine is 15 codes off, the others are right (`pytorch-50720` of the gallery; `refquant gallery` has them all).

# %%
puzzle = find("pytorch-50720")
solution = solve(puzzle)
print(solution.text())
assert solution.solved
assert all(solve(p).solved for p in PUZZLES)

# %% [markdown]
# The instruction `vpmaddubsw` multiplies unsigned by signed bytes and adds *two neighbouring products in 16 bits*, with saturation. The weights of the thread are
# almost all clipped to -128 or 127, so two bright pixels side by side are enough. Here are the pairs of the wrong output, and of its neighbour.

# %%
x = np.float32([
    [-0.3096, 0.3871, -0.8741, -1.2659, -0.0505], [-0.1814, 0.6141, 0.7843, 1.1278, -0.4891], [2.4613, -0.7179, -0.2446, 0.6929, -0.3115],
    [0.8652, -0.6757, 1.9093, -0.5734, 0.3151], [0.7885, 0.0279, 0.3433, -0.2992, 1.0210],
])  # fmt: skip
codes = rq.quantize(x, rq.QParams(0.15, 120, "uint8"), numerics="fbgemm").values.astype(int)
weights = rq.quantize(np.linspace(-1, 1, 9).astype(np.float32), rq.QParams(0.0007, 0, "int8"), numerics="fbgemm").values.astype(int)


def pairs(row, column):
    products = codes[row : row + 3, column : column + 3].ravel() * weights
    return products[0:8:2] + products[1:8:2]


fig, (left, right) = plt.subplots(1, 2, sharey=True)
for ax, place in ((left, (1, 0)), (right, (1, 1))):
    ax.bar(range(4), pairs(*place), color=[RED if abs(v) > 32767 else BLUE for v in pairs(*place)])
    for limit in (-32768, 32767):
        ax.axhline(limit, color="black", ls="--", lw=1)
    ax.set(title=f"output {place}", xlabel="pair of taps", xticks=range(4))
left.set_ylabel("sum of two products")
fig.tight_layout()

outside = np.array([[np.abs(pairs(i, j)).max() > 32768 for j in range(3)] for i in range(3)])
assert np.argwhere(outside).tolist() == [[1, 0]], "the one place of the thread"

# %% [markdown]
# ## A puzzle: one rounding or two
#
# TensorFlow Lite's integer formula says -119, its interpreter -120 (`tensorflow-102943`). The product is 6.49999999…; gemmlowp rounds it to 31 bits first. All accumulators
# near that tie, under the three sets of kernels:

# %%
print(solve(find("tensorflow-102943")).text())
steps = np.arange(-70, 71)
layer = {"w": rq.QTensor(np.full((1, 1, 1, 1), 9, np.int8), rq.QParams(0.024093778803944588, 0, "int8")), "out": rq.QParams(0.11484327912330627, 0, "int8")}
inputs = rq.QTensor(steps.astype(np.int8).reshape(1, 1, 1, -1), rq.QParams(0.05296124517917633, 0, "int8"))
real = steps * 9 * (0.05296124517917633 * 0.024093778803944588 / 0.11484327912330627)
ties = np.abs(np.abs(real % 1) - 0.5) < 1e-6
bits = {name: oracle(Problem("conv2d", {"x": inputs, **layer}), name).ravel() for name in ("xnnpack", "tflite_opt", "tflite_ref")}
fig, ax = plt.subplots(figsize=(8, 2.4))
for k, (name, colour) in enumerate((("xnnpack", BLUE), ("tflite_opt", ORANGE), ("tflite_ref", RED))):
    ax.plot(real[ties] + 0.12 * (k - 1), bits[name][ties] - real[ties], "o", color=colour, label=name)
ax.set(xlabel="exact result, all but a tie", ylabel="code less exact result", yticks=[-0.5, 0.5], ylim=(-1, 1))
ax.legend(frameon=False, ncols=3, loc="upper right", bbox_to_anchor=(1, 1.2))
fig.tight_layout()

assert ties.sum() > 2 and all(np.array_equal(bits[a][~ties], bits[b][~ties]) for a in bits for b in bits), "away from ties they agree"
assert not np.array_equal(bits["xnnpack"][ties], bits["tflite_ref"][ties])

# %% [markdown]
# ## The audit
#
# `digits_resnet` and `digits_mobilenet` with activations of 8 bits, as PyTorch's oneDNN engine quantizes them, on a CPU with AVX2 only. Every layer is computed by the oracle
# with and without VNNI on the same codes. Beside it: activations of 7 bits (what `reduce_range` means), and weights of 7 bits.

# %%
images, labels = data.load_split("digits", "test")
seen, _ = data.load_split("digits", "calibration")
eight = Recipe("onednn", per_tensor=False, observer="histogram", reduce_range=False)


def converted(model, recipe):
    prepared = prepare_fx(model, recipe.mapping(), example_inputs=(seen[:1],))
    prepared(seen)
    return convert_fx(prepared)


def audited(name, layer_images):
    model = zoo.load(name)
    others = {"activations of 7 bits": converted(model, eight._replace(reduce_range=True)), "weights of 7 bits": converted(model, eight._replace(narrow_weights=True))}
    network = converted(model, eight)
    return network, audit(network, images, labels, reference=lambda batch: model(batch)[0], others=others, layer_images=layer_images)


network, report = audited("digits_resnet", 32)
_, mobile = audited("digits_mobilenet", 4)
print(report.to_text())

own, narrow_x, narrow_w = report.networks
assert own.saturated > 0 and own.outputs > 1000 and narrow_x.saturated == narrow_w.saturated == 0

# %%
fig, ax = plt.subplots(figsize=(8, 2.4))
names = [n.name for n in mobile.networks]
for k, (right, colour, label) in enumerate((("right", BLUE, "with VNNI"), ("right_there", ORANGE, "on AVX2"))):
    ax.barh(np.arange(3) + 0.36 * k, [100 * getattr(n, right) / mobile.images for n in mobile.networks], 0.36, color=colour, label=label)
ax.axvline(100 * mobile.float_right / mobile.images, color="black", ls="--", lw=1)
ax.set(yticks=np.arange(3) + 0.18, xlim=(97, 100), xlabel="right answers of digits_mobilenet, per cent (dashed: float32)")
ax.set_yticklabels(names)
ax.invert_yaxis()
ax.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
fig.tight_layout()

assert mobile.networks[2].right_there > mobile.networks[1].right_there, "for this network, 7 bits of activations cost more than saturation"

# %% [markdown]
# Of the channels of each layer, grey channels have two neighbouring weights that *could* leave 16 bits, red ones did, on 32 images.

# %%
layers = [layer for layer in report.layers if layer.weights]
fig, ax = plt.subplots(figsize=(8, 3))
for k, layer_audit in enumerate(layers):
    ax.barh(k, layer_audit.at_risk / layer_audit.channels, color=GREY, height=0.7)
    ax.barh(k, len(layer_audit.by_channel) / layer_audit.channels, color=RED, height=0.7)
ax.set(yticks=range(len(layers)), xlabel="share of channels", title="could saturate (grey), did (red)")
ax.set_yticklabels([layer_audit.name for layer_audit in layers], fontsize=8)
ax.invert_yaxis()
fig.tight_layout()

assert all(len(layer_audit.by_channel) <= layer_audit.at_risk for layer_audit in layers), "what is proven safe never saturates"

# %% [markdown]
# Errors are rare but not small: where a pair saturates, a code moves by many steps at once, and layers behind it carry that on.

# %%
few = images[:32]
worst = max(layers, key=lambda layer_audit: layer_audit.most).name
call = next(layer_now for layer_now in GraphNetwork(network).layers(few) if layer_now.name == worst)
there = oracle(call.problem, "onednn@avx2")
moved = there != call.codes
fig, ax = plt.subplots(figsize=(4.2, 4))
ax.plot([0, 255], [0, 255], color=GREY, lw=1)
ax.plot(call.codes[moved], there[moved], ".", color=RED, ms=4)
ax.set(xlabel="code with VNNI", ylabel="code with AVX2", title=f"{worst}: {moved.sum()} of {moved.size:,} differ")
fig.tight_layout()

assert 0 < moved.mean() < 0.02 and np.abs(there.astype(int) - call.codes)[moved].max() > 3

# %% [markdown]
# ## Ties
#
# Ties are the other reason for disagreement. In trained networks with scales of their own hardly an output lies on one; with scales that are powers of two, many may.
# On ties, `fbgemm` and `onednn` go different ways if the zero point is odd.

# %%
rng = np.random.default_rng(0)
counts = {}
for name, scale in (("a power of two", 2.0), ("any other", 1.9)):
    w = rq.QTensor(rng.integers(-3, 4, (16, 16)).astype(np.int8), rq.QParams(1.0, 0, "int8"))
    x = rq.QTensor(rng.integers(0, 256, (400, 16)).astype(np.uint8), rq.QParams(1.0, 128, "uint8"))
    problem = Problem("linear", {"x": x, "w": w, "out": rq.QParams(scale, 129, "uint8")})
    counts[name] = np.mean(oracle(problem, "fbgemm") != oracle(problem, "onednn"))
fig, ax = plt.subplots(figsize=(5, 2))
ax.barh(list(counts), [100 * v for v in counts.values()], color=BLUE)
ax.set(xlabel="outputs on which the engines disagree, per cent", ylabel="output scale")
fig.tight_layout()

assert counts["a power of two"] > 0.1 and counts["any other"] == 0

# %% [markdown]
# Who has the wrong bits in hand asks for the reason; `refquant diagnose --wrong-profiles` does so for every engine that is installed.

# %%
d = rq.verify.diagnose("linear", actual=oracle(problem := Problem("linear", {**problem.arguments, "out": rq.QParams(2.0, 129, "uint8")}), "onednn"), numerics="fbgemm", **problem.arguments)
print(d)
assert d.explained and d.causes == ("adds the zero point before rounding",)
