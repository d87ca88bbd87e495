# %% [markdown]
# # Bring your own engine, four ways
#
# You have a kernel, a compiler or a simulator that computes INT8 layers, and a claim: *it gives the bits of engine X*. refquant judges the claim without knowing your engine:
#
# 1. a **Python function**, by `refquant.verify.check`;
# 2. a **pytest** marker and fixture, or Hypothesis strategies, in your own test suite;
# 3. a **program in any language**, by pipes: `refquant gen | program | refquant check`;
# 4. **recorded bits** in a file, by `refquant diagnose`.
#
# All of them compare bits, and all of them say *why* bits differ.

# %%
import importlib.util
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import refquant as rq
from refquant.cli.main import main
from refquant.verify import build, check, save_case
from refquant.verify.pipe import cases_to_send, generate, judge

plt.rcParams.update({"figure.figsize": (8, 3), "axes.spines.top": False, "axes.spines.right": False, "font.size": 10})
BLUE, RED = "#2b6cb0", "#c53030"
work = Path(tempfile.mkdtemp())

# %% [markdown]
# ## 1. A Python function
#
# It takes a problem and returns bits. This one follows FBGEMM in NumPy, but for one habit: it rounds by `floor(v + 0.5)`.


# %%
def mine(problem):
    x, w, out = problem["x"], problem["w"], problem["out"]
    acc = (x.values.astype(np.int64) - x.qparams.zero_point) @ (w.values.astype(np.int64) - np.reshape(w.qparams.zero_point, (-1, 1))).T
    if problem["bias"] is not None:
        acc = acc + problem["bias"]
    multiplier = np.float32(x.qparams.scale) * np.asarray(w.qparams.scale, np.float32) / np.float32(out.scale)
    v = np.floor(acc.astype(np.float32) * multiplier + np.float32(0.5))
    low = max(out.qmin, out.zero_point) if problem["activation"] == "relu" else out.qmin
    return np.clip(v + out.zero_point, low, out.qmax).astype(out.storage)


lines = [f"linear/fbgemm/{shape}/neartie/seed={seed}/intbias" for shape in ("m64k31n100", "m33k65n18", "m16k16n64") for seed in range(8)]
result = check(mine, numerics="fbgemm", cases=lines)
print(result)
assert not result.exact and 0 < result.differing < 0.01 * result.outputs
assert "half" in result.diagnosis.causes[0] or "0.5" in result.diagnosis.causes[0]

# %% [markdown]
# A few in a thousand outputs, and each of them lies exactly between two codes. Data drawn at random would hardly ever show it.

# %%
ties, others = [], []
for line in lines:
    problem = build(line)
    wrong = mine(problem) != rq.verify.oracle(problem, "fbgemm")
    x, w, out = problem["x"], problem["w"], problem["out"]
    acc = (x.values.astype(np.int64) - x.qparams.zero_point) @ w.values.astype(np.int64).T + problem["bias"]
    fraction = np.mod(acc * (x.qparams.scale * w.qparams.scale / out.scale), 1)
    ties.extend(fraction[wrong])
    others.extend(fraction[~wrong])
fig, ax = plt.subplots()
ax.hist(others, 101, range=(0, 1), color=BLUE, alpha=0.4, label="bits agree")
ax.hist(ties, 101, range=(0, 1), color=RED, label="bits differ")
ax.set(yscale="log", ylim=(0.5, None), xlabel="where the exact result lies between two codes", ylabel="outputs")
ax.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
fig.tight_layout()
assert len(ties) == result.differing and np.abs(np.array(ties) - 0.5).max() < 1e-5

# %% [markdown]
# The smallest case that is left of it is a test: a file to keep, and a function `engine` in it to call yours anew.

# %%
path = result.shrunk.write(work)
print(result.shrunk, path.read_text(), sep="\n\n")
assert result.shrunk.expected.size == 1

# %% [markdown]
# ## 2. In your own test suite
#
# refquant brings a pytest plugin. The marker repeats the test over default cases, the fixture compares.

# %%
(work / "test_mine.py").write_text('''
import numpy as np, pytest, refquant as rq

@pytest.mark.refquant(op="linear", numerics="onednn", outputs=20_000)
def test_linear(oracle):
    oracle.check(rq.verify.oracle(oracle.problem, "fbgemm"))       # your kernel here; this one computes as another engine does
''')
options = ["-p", "refquant.testing.pytest_plugin", "-p", "no:cacheprovider", "-q", "--no-header", "--refquant-save", "failed"]
run = subprocess.run([sys.executable, "-m", "pytest", *options, "test_mine.py"], cwd=work, capture_output=True, text=True)
print(run.stdout[run.stdout.index("E   ") :][:1500])
assert run.returncode == 1 and "EXPLAINED" in run.stdout and list(work.glob("failed/*.npz"))

# %% [markdown]
# With Hypothesis: whole layers as strategies, which shrink to a single output.

# %%
if importlib.util.find_spec("hypothesis"):
    from hypothesis import find, settings

    from refquant.testing import strategies

    away = rq.numerics.get("onnx").replace(rounding="half_away")
    differ = lambda p: (rq.verify.oracle(p, "onnx") != rq.verify.oracle(p, away)).any()
    small = find(strategies.linear_problems(effects=["neartie"]), differ, settings=settings(deadline=None, database=None, max_examples=1000))
    print(small["x"].values, small["w"].values, small["x"].qparams, small["w"].qparams, small["out"], sep="\n")
    assert small["x"].shape == small["w"].shape == (1, 1)

# %% [markdown]
# ## 3. A program in any language
#
# `refquant gen` writes cases into a pipe, the program writes results, `refquant check` reads them: no linking, no Python in the program. The format is a page long
# (`help(refquant.verify.stream)`); `c_engine/engine.c` beside this notebook reads it in C and computes linear layers and convolutions as FBGEMM does.

# %%
source = next(p for p in (Path("c_engine/engine.c"), Path("notebooks/c_engine/engine.c")) if p.exists())
engine = work / "engine"
compiled = shutil.which("cc") is not None
if compiled:
    subprocess.run(["cc", "-O3", "-march=native", "-ffp-contract=off", "-fwrapv", source, "-lm", "-o", engine], check=True)
    refquant = f"{sys.executable} -m refquant.cli.main"
    pipe = f"{refquant} gen --op linear --op conv2d --numerics fbgemm --cases 60 | {engine} | {refquant} check"
    run = subprocess.run(pipe, shell=True, capture_output=True, text=True)
    print(run.stdout)
    assert run.returncode == 0 and "linear: EXACT" in run.stdout and "conv2d: EXACT" in run.stdout

# %% [markdown]
# The program has faults on demand (`--fault NAME`). Which data show which fault? Each field is the share of outputs that differ; white is none. Wrong terms show anywhere; where a
# tie goes shows in data that lie on ties, and nowhere in random ones.

# %%
FAULTS = ("half-away", "truncate", "zero-before", "bias-after", "no-zero", "pairs", "tail", "neighbour")
KINDS = ("random", "neartie", "offset", "saturate", "pairs", "wrap")
if compiled:
    stream, share = io.BytesIO(), np.zeros((len(FAULTS), len(KINDS)))
    cases = [case for case in cases_to_send(["linear"], "fbgemm", cases=120) if case.outputs < 30_000]
    generate(stream, cases)
    totals = np.array([sum(case.outputs for case in cases if case.strategy == kind) for kind in KINDS])
    reasons = {}
    for i, fault in enumerate(FAULTS):
        run = subprocess.run([engine, "--fault", fault], input=stream.getvalue(), capture_output=True, check=True)
        judged = judge(io.BytesIO(run.stdout), seconds=3)
        reasons[fault] = judged.check.diagnosis.causes
        for trial in judged.check.rows[0].failures:
            share[i, KINDS.index(trial.case.strategy)] += trial.comparison.differing
    share /= totals
    fig, ax = plt.subplots(figsize=(7, 3.6))
    ax.imshow(np.log10(np.maximum(share, 1e-6)), cmap="Blues", vmin=-6, vmax=0, aspect="auto")
    ax.set_xticks(range(len(KINDS)), KINDS)
    ax.set_yticks(range(len(FAULTS)), FAULTS)
    for (i, j), value in np.ndenumerate(share):
        ax.text(j, i, f"{value:.0e}" if 0 < value < 0.01 else f"{value:.0%}" if value else "", ha="center", va="center", color="white" if value > 0.05 else "black")
    fig.tight_layout()
    for fault, causes in reasons.items():
        print(f"{fault:12} {'; '.join(causes)}")
    assert (share.max(1) > 0).all() and not share[[0, 2], KINDS.index("random")].any() and all(reasons.values())

# %% [markdown]
# ## 4. Recorded bits
#
# Where an engine cannot be called at all (a board in another building), its bits travel in a file with the call that they belong to.

# %%
problem = build("linear/onnxruntime/m64k31n100/neartie/seed=8/per_channel/intbias")
theirs = rq.verify.oracle(problem, rq.numerics.get("onnxruntime").replace(rounding="half_up"))
save_case(work / "board.npz", "linear", actual=theirs, numerics="onnxruntime", **problem.arguments)
status = main(["diagnose", str(work / "board.npz")])
assert status == 0

# %%
shutil.rmtree(work)
