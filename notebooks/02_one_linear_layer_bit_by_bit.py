# %% [markdown]
# # One linear layer under every profile, bit by bit
#
# A fully connected layer on codes has an exact part and a part that engines make up as they like:
#
# 1. **Exact**: $\mathrm{acc} = \sum_k (x_k - z_x)(w_k - z_w)$, 8-bit codes, 32-bit sum. All engines agree.
# 2. **The output stage**: acc becomes a code of the output's grid, $q \approx \mathrm{acc}\cdot s_x s_w / s_y + z_y$. Here they differ: in
#    the order of the scale product, in how the bias enters, in where the zero point is added.
#
# This notebook follows single accumulators through that stage.

# %%
import matplotlib.pyplot as plt
import numpy as np

import refquant as rq

plt.rcParams.update({"figure.figsize": (8, 3), "axes.spines.top": False, "axes.spines.right": False, "font.size": 10})
PROFILES = ("fbgemm", "onednn", "x86", "onnxruntime", "onnx")
f = np.float32

# %% [markdown]
# ## The exact part

# %%
rng = np.random.default_rng(1)
x = rq.QTensor(rng.integers(0, 256, (1, 6)).astype(np.uint8), rq.QParams(0.031, 128, "uint8"))
w = rq.QTensor(rng.integers(-128, 128, (1, 6)).astype(np.int8), rq.QParams(0.007, 0, "int8"))
terms = (x.values.astype(int) - 128) * w.values
print("x - zx:", (x.values.astype(int) - 128)[0])
print("w     :", w.values[0])
print("terms :", terms[0], "→ acc =", terms.sum())
acc = rq.ops.matmul_integer(x.values, w.values.T, a_zero_point=128)
assert acc[0, 0] == terms.sum()

# %% [markdown]
# In real numbers this accumulator stands for $\mathrm{acc}\cdot s_x s_w$, whatever the engine.

# %%
real = rq.dequantize(x) @ rq.dequantize(w).T
print(f"float layer: {real[0, 0]:.6f}   from codes: {acc[0, 0] * 0.031 * 0.007:.6f}")
assert abs(real[0, 0] - acc[0, 0] * 0.031 * 0.007) < 1e-4

# %% [markdown]
# ## The output stage, step by step
#
# We choose the scales so that $s_x s_w / s_y = 2^{-5}$ as nearly as float32 allows: every odd multiple of 16 then lies on a rounding tie or
# one bit beside it. Such data tell engines apart; with random scales they differ once in a million outputs.

# %%
sx, sy = f(0.0371), f(0.0523)
sw = f(sy / f(32) / sx)
bias = f(0.0171)
a = f(16 * 7)


def show(name, steps):
    print(f"{name:12}" + "  →  ".join(f"{label} {float(v):.9g}" for label, v in steps))


m = (sx * sw) / sy
show("fbgemm", [("m=(sx·sw)/sy", m), ("acc+b/(sx·sw)", a + bias / (sx * sw)), ("·m", (a + bias / (sx * sw)) * m)])

one = f(1)
s = one / f(1.0 / float(sx))
ww = one / f(1.0 / float(sw))
t = (a * s) * ww + bias
d = one / (one / f(1.0 / float(sy)))
show("onednn", [("acc·sx·sw", (a * s) * ww), ("+b", t), ("·1/sy", t * d)])

code = f(np.rint(bias / (sx * sw)))
show("onnxruntime", [("bias as int32", code), ("acc", a + code), ("·m", (a + code) * m)])

# %% [markdown]
# Three engines, three numbers: FBGEMM divides the bias into the accumulator's unit and keeps its fraction, oneDNN adds it in real units, ONNX Runtime has
# rounded it to an integer long before.
#
# ## All accumulators at once
#
# One input code of weight 1 cannot reach every accumulator, but a row of them can. We drive the real operator with every accumulator from −4000 to 4000 and ask where
# the profiles differ.

# %%
count = 8001
target = np.arange(-4000, 4001)
values = np.zeros((count, 64), np.uint8) + 128
rest = target.copy()
for k in range(64):
    step = np.clip(rest, -128, 127)
    values[:, k] = step + 128
    rest -= step
assert not rest.any()

layer_x = rq.QTensor(values, rq.QParams(float(sx), 128, "uint8"))
layer_w = rq.QTensor(np.ones((1, 64), np.int8), rq.QParams(float(sw), 0, "int8"))
out = rq.QParams(float(sy), 129, "uint8")
codes = {p: rq.ops.linear(layer_x, layer_w, out=out, numerics=p).values[:, 0].astype(int) for p in PROFILES}

print(f"{'':12}" + "".join(f"{p:>12}" for p in PROFILES))
for p in PROFILES:
    print(f"{p:12}" + "".join(f"{np.count_nonzero(codes[p] != codes[q]):12}" for q in PROFILES))

assert np.array_equal(codes["fbgemm"], codes["x86"]), "x86 sends linear layers to FBGEMM"
assert np.any(codes["fbgemm"] != codes["onednn"])

# %% [markdown]
# Where do they part? Only at the ties: the accumulators that lie halfway between two codes.

# %%
exact = target * float(sx) * float(sw) / float(sy)
distance = np.abs(exact - np.floor(exact) - 0.5)
differ = codes["fbgemm"] != codes["onednn"]

fig, (left, right) = plt.subplots(1, 2, gridspec_kw={"width_ratios": [2, 1]})
near = np.abs(target) <= 200
left.step(target[near], codes["fbgemm"][near], where="mid", color="#3366aa", label="fbgemm")
left.step(target[near], codes["onednn"][near], where="mid", color="#dd7733", ls="--", label="onednn")
left.plot(target[near & differ], codes["fbgemm"][near & differ], "o", color="k", ms=4, label="they differ")
left.set(xlabel="accumulator", ylabel="output code")
left.legend(frameon=False)
right.semilogy(np.sort(distance[differ]) + 1e-12, ".", color="k")
right.set(xlabel="differing accumulators", ylabel="distance from a tie")
fig.tight_layout()

assert differ.any() and distance[differ].max() < 1e-4
assert np.abs(codes["fbgemm"] - codes["onednn"]).max() == 1

# %% [markdown]
# ## What the zero point has to do with it
#
# oneDNN adds the zero point before it rounds, FBGEMM after. With an *even* zero point both round a tie to the same neighbour; with an *odd* one they cannot.

# %%
for zero in (128, 129):
    out = rq.QParams(0.5, zero, "uint8")
    plain_x = rq.QTensor(values, rq.QParams(0.125, 128, "uint8"))
    plain_w = rq.QTensor(np.ones((1, 64), np.int8), rq.QParams(0.125, 0, "int8"))
    pair = [rq.ops.linear(plain_x, plain_w, out=out, numerics=p).values for p in ("fbgemm", "onednn")]
    differing = int(np.count_nonzero(pair[0] != pair[1]))
    print(f"zero point {zero}: {differing} of {count} differ")
    assert (differing == 0) == (zero % 2 == 0)

# %% [markdown]
# ## A profile is data
#
# What we just found by hand is written down as a form. Two profiles can be compared field by field, and a field can be changed.

# %%
for section, field, mine, theirs in rq.numerics.get("fbgemm").differences(rq.numerics.get("onednn")):
    if section == "linear":
        print(f"{field:12} fbgemm: {mine:12} onednn: {theirs}")

changed = rq.numerics.get("fbgemm").replace(linear={"zero_point": "before", "overflow": "saturate"})
again = rq.ops.linear(plain_x, plain_w, out=out, numerics=changed)
np.testing.assert_array_equal(again.values, pair[1])

# %% [markdown]
# On these data one field, *zero point before rounding*, turns FBGEMM's bits into oneDNN's. `refquant.verify.diagnose` searches over exactly these fields when
# somebody's bits differ from an oracle's.
