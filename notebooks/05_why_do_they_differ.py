# %% [markdown]
# # Why do they differ?
#
# Two implementations of one INT8 layer disagree in a few codes, mostly by one. "Off by one is fine" is how real mistakes hide: the same ±1 comes from
# a rounding mode, from a bias that was rounded early, from a scale of the wrong channel. This notebook finds the reason, step by step, the way
# `refquant diagnose` does: a reason counts only if it computes *every* bit.

# %%
import matplotlib.pyplot as plt
import numpy as np

import refquant as rq
from refquant.verify import compare, diagnose, oracle
from refquant.verify.planted import FAULTS, UNKNOWN, examine, plant

plt.rcParams.update({"figure.figsize": (8, 3), "axes.spines.top": False, "axes.spines.right": False, "font.size": 10})
faults = {fault.name: fault for fault in (*FAULTS, *UNKNOWN)}

# %% [markdown]
# ## The scene
#
# Somebody's kernel computes a linear layer, and we hold it against ONNX Runtime's arithmetic. (It is a *planted fault*: a small engine in plain NumPy
# that has been told to do one thing wrong. We pretend not to know which.)

# %%
problem, theirs = plant(faults["half away"]._replace(line="linear/any/m300k4n48/neartie/seed=0/per_channel/intbias"), first=3)
ours = oracle(problem, "onnxruntime")
print(compare(theirs, ours))

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), gridspec_kw={"width_ratios": [2, 1]})
left.imshow((theirs.astype(int) - ours).T, cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
left.set(xlabel="row", ylabel="output channel", title="theirs − ours")
steps, counts = np.unique((theirs.astype(int) - ours)[theirs != ours], return_counts=True)
right.bar(steps, counts, color="#35618f")
right.set(xlabel="difference in LSB", ylabel="outputs", xticks=[-1, 0, 1], title="how far off")
figure.tight_layout()

# %% [markdown]
# Nothing is off by more than one, so the sums must be right, and something in the last step is not. It shows in some channels only, in both directions:
# so it is no matter of single rows, nor of one constant.
#
# ## The first clue: where the real values lie
#
# Before rounding, each output is a real number of steps of the output's grid. We compute it exactly and look at its fraction.

# %%
x, w, qy = problem["x"], problem["w"], problem["out"]
acc = (x.values.astype(np.int64) - x.qparams.zero_point) @ w.values.T.astype(np.int64) + problem["bias"]
real = acc * x.qparams.scale * w.qparams.scale / qy.scale
fraction = real - np.floor(real)
differ = theirs != ours

plt.hist([fraction[differ], fraction[~differ]], bins=64, range=(0, 1), stacked=True, color=["#b4432f", "#aeb8c2"], label=["different", "equal"])
plt.xlabel("fraction of the real value (0.5 is a tie)")
plt.ylabel("outputs")
plt.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
assert np.abs(fraction[differ] - 0.5).max() < 1e-5

# %% [markdown]
# Every difference lies on a tie, and so do many outputs that agree: these data put accumulators there on purpose. A tie can only be decided by the rounding, or by
# an arithmetic that misses it by an ulp.
#
# ## Suspects, one by one
#
# An engine's arithmetic is a filled-in form. Change one field, compute all outputs, count what stays wrong.

# %%
form = rq.numerics.get("onnxruntime")
changes = [("rounding", r) for r in ("half_away", "half_up", "half_to_zero", "truncate", "floor", "ceil")]
changes += [("zero_point", "before"), ("multiplier", "(xw)*(1/y)"), ("arithmetic", "float64"), ("arithmetic", "fixed_gemmlowp")]
wrong = {f"{field} = {value}": int((oracle(problem, form.replace(linear={field: value})) != theirs).sum()) for field, value in changes}
wrong = dict(sorted(wrong.items(), key=lambda item: -item[1]))
plt.figure(figsize=(8, 3.2))
plt.barh(list(wrong), [max(n, 0.6) for n in wrong.values()], color=["#4f9d94" if n == 0 else "#aeb8c2" for n in wrong.values()])
plt.axvline(differ.sum(), color="#b4432f", linestyle="--", linewidth=1)
plt.xscale("log")
plt.xlabel("outputs left wrong (dashed: with nothing changed)")
assert [name for name, n in wrong.items() if n == 0] == ["rounding = half_away"]
assert 0 < wrong["rounding = half_up"] < differ.sum()

# %% [markdown]
# One suspect leaves nothing wrong. "Nearly" would not do: half-up repairs the positive ties and leaves the negative ones.
#
# ## The search does this with everything it knows

# %%
d = diagnose(problem.op, actual=theirs, numerics="onnxruntime", **problem.arguments)
print(d)
assert d.explained and d.causes == ("rounds half away from zero",) and d.account.ties == 1.0

# %% [markdown]
# It has tried the other profiles, every field of the form, and a table of mistakes that no form can say: transposed weights, a forgotten compensation,
# int16 pairs, a neighbour's scale. What was ruled out is part of the answer.

# %%
left_wrong = np.sort(list(d.ruled_out.values()))
plt.plot(left_wrong, np.arange(1, left_wrong.size + 1), drawstyle="steps-post", color="#35618f")
plt.axvline(0, color="#4f9d94")
plt.xlabel(f"outputs left wrong, of {d.sampled:,} sampled")
plt.ylabel("single causes")
plt.title(f"{len(d.ruled_out)} causes ruled out, {len(d.silent)} change nothing on these data")
assert left_wrong[0] > 0

# %% [markdown]
# ## Two mistakes at once
#
# Each of two mistakes alone explains little, because the other one spoils its outputs. So the search goes on to pairs (and triples).

# %%
two = examine(faults["neighbour's scale + bias twice"])
print(two.diagnosis)
assert two.explained and len(two.diagnosis.causes) == 2
alone = two.diagnosis.evidence
plt.figure(figsize=(8, 1.8))
names = [*alone, "both"]
plt.barh(names, [*alone.values(), two.differing], color=["#aeb8c2"] * len(alone) + ["#4f9d94"])
plt.xlabel(f"outputs explained, of {two.differing} that differ")
assert sum(alone.values()) < 0.5 * two.differing

# %% [markdown]
# ## When the data cannot tell
#
# Half-up and half-away agree on every positive tie. A layer whose outputs are all positive cannot tell them apart, and then the honest answer is both.

# %%
xp = rq.QTensor(np.arange(256, dtype=np.uint8).reshape(64, 4), rq.QParams(0.5, 0, "uint8"))
wp = rq.QTensor(np.array([[1, 0, 0, 0], [3, 0, 0, 0]], np.int8), rq.QParams(0.5, 0, "int8"))
qp = rq.QParams(2.0, 0, "uint8")


def kernel(x, w, bias=None, out=None, **options):
    """The kernel in question: rounds half up."""
    return rq.ops.linear(x, w, bias, out=out, numerics=form.replace(rounding="half_up"), **options).values


d = diagnose("linear", actual=kernel(xp, wp, out=qp), numerics="onnxruntime", x=xp, w=wp, out=qp)
said = {d.causes, *(e.causes for e in d.alternatives)}
for causes in sorted(said):
    print(causes)
assert {("rounds half up",), ("rounds half away from zero",)} <= said

# %% [markdown]
# It also builds the experiment that decides: a problem on which the candidates differ. Run the kernel on it, and ask again.

# %%
case = d.separating_case()
again = diagnose("linear", actual=kernel(**case.arguments), numerics="onnxruntime", **case.arguments)
left = said & {again.causes, *(e.causes for e in again.alternatives)}
print("after one more experiment:", left)
assert ("rounds half up",) in left and ("rounds half away from zero",) not in left

# %% [markdown]
# ## When there is no reason to be found
#
# Stochastic rounding is in no table and follows no rule. A diagnosis that explained it would be worth nothing.

# %%
problem, theirs = plant(faults["stochastic rounding"])
d = diagnose(problem.op, actual=theirs, numerics="onnxruntime", seconds=1.0, **problem.arguments)
print("\n".join(str(d).splitlines()[:6]))
assert not d.explained and all(e.left for e in d.nearest)

# %% [markdown]
# ## How good is the detective?
#
# The same small engine can be told to be wrong in over two hundred ways. `refquant diagnose --bench` tries them all; here are some. Green: the planted
# mistake is what the diagnosis names first; yellow: it is among several that the data cannot tell apart.

# %%
chosen = ["int16 pairs", "bias as int32", "neighbour's scale", "padding with 0", "NHWC read as NCHW", "tail of 16", "output wraps", "stale output scale", "mul: zero points swapped"]
found = [examine(faults[name]) for name in chosen]
plt.figure(figsize=(8, 3))
plt.barh(chosen, [1000 * e.seconds for e in found], color=["#4f9d94" if e.first else "#d9b23f" if e.named else "#b4432f" for e in found])
plt.gca().invert_yaxis()
plt.xlabel("milliseconds until it is explained to the bit")
assert all(e.explained and e.named for e in found)
for e in found:
    print(f"{e.fault.name:26} {e.differing:5} of {e.outputs:5} differ: {'; '.join(e.diagnosis.causes)}")

# %% [markdown]
# ## The rule to take home
#
# A difference has a named cause, or it is a failure. The name is believed only when it computes every bit, when nothing smaller does, and when
# whatever the data cannot tell apart is named beside it.
