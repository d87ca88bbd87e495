"""Hypothesis strategies: what they promise comes up, planted faults are found, and what is found is small."""

import subprocess
import sys

import numpy as np
import pytest

from refquant import numerics
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError
from refquant.testing import oracle, strategies

hypothesis = pytest.importorskip("hypothesis")
QUIET = hypothesis.settings(deadline=None, database=None, max_examples=40, suppress_health_check=list(hypothesis.HealthCheck))
SEARCH = hypothesis.settings(QUIET, max_examples=1000, phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink))


def found(strategy, condition, seed=0):
    return hypothesis.find(strategy, condition, settings=SEARCH, random=__import__("random").Random(seed))


def each(strategy, check):
    hypothesis.seed(0)(QUIET(hypothesis.given(strategy)(check)))()


@pytest.mark.parametrize("op", ("linear", "conv2d"))
@pytest.mark.parametrize("effect", strategies.EFFECTS)
def test_layers_are_problems_that_the_oracle_solves(op, effect):
    if (op, effect) == ("conv2d", "wrap"):
        return
    make = strategies.linear_problems if op == "linear" else strategies.conv2d_problems

    def check(problem):
        assert problem.op == op and oracle(problem, "fbgemm").tobytes() == oracle(problem, "fbgemm", reference=True).tobytes()

    each(make(effects=[effect], asymmetric=True, x_dtypes=("uint8", "int8"), w_dtypes=("int8", "uint8"), biases=("none", "float32", "int32")), check)


@pytest.mark.parametrize(
    "op, change",
    [("linear", {"rounding": "half_away"}), ("linear", {"linear": {"zero_point": "before"}}), ("conv2d", {"rounding": "truncate"})],
)
def test_planted_faults_are_found_and_shrink_to_one_output(op, change):
    faulty = numerics.get("onnx").replace(**change)
    make = strategies.linear_problems if op == "linear" else strategies.conv2d_problems

    def differs(problem):
        return oracle(problem, "onnx").tobytes() != oracle(problem, faulty).tobytes()

    # What Hypothesis draws depends on the modules that are loaded, too; seldom its search ends a step early.
    searches = [found(make(effects=("neartie",)), differs, seed) for seed in range(3)]
    small = min(searches, key=lambda problem: problem["x"].size * problem["w"].size)
    assert small["x"].size * small["w"].size <= 4 and small["activation"] is None, small


@pytest.mark.parametrize("change", ({"rounding": "half_away"}, {"linear": {"zero_point": "before"}}))
def test_a_few_hundred_examples_find_a_fault_of_rounding(change):
    """All effects mixed; now and then a hundred examples, which Hypothesis tries by default, dwell on others."""
    faulty, wrong = numerics.get("onnx").replace(**change), []

    def check(problem):
        wrong.append(oracle(problem, "onnx").tobytes() != oracle(problem, faulty).tobytes())

    for seed in range(6):
        if not any(wrong):
            hypothesis.seed(seed)(hypothesis.settings(QUIET, max_examples=100)(hypothesis.given(strategies.linear_problems())(check)))()
    assert any(wrong)


def test_sums_that_leave_int32_come_up():
    wrapped = []

    def check(problem):
        exact = (problem["x"].values.astype(np.int64) - problem["x"].qparams.zero_point) @ problem["w"].values.astype(np.int64).T
        wrapped.append(np.any(np.abs(exact) >= 2**31))

    each(strategies.linear_problems(effects=["wrap"]), check)
    assert sum(wrapped) > 5


def test_saturating_pairs_come_up_and_shrink():
    def saturates(problem):
        x, w = problem["x"].values.astype(int), problem["w"].values.astype(int)
        return x.shape[1] > 1 and any(abs(int(x[0, 0]) * int(row[0]) + int(x[0, 1]) * int(row[1])) > 32767 for row in w)

    small = found(strategies.linear_problems(effects=["pairs"]), saturates)
    assert small["x"].shape == (1, 2) and small["w"].shape == (1, 2)


def test_ties_are_ties():
    scale = found(strategies.near_tie_scales(37, 0.25, 0.125), lambda s: True)
    assert 37 * 0.25 * scale / 0.125 == pytest.approx(0.5, rel=1e-7)
    with pytest.raises(ArgumentError, match="no scale brings to a tie"):
        strategies.near_tie_scales(0, 1.0, 1.0)


@pytest.mark.parametrize("dtype, low, high", (("uint8", 0, 255), ("int8", -128, 127)))
def test_all_zero_points_that_matter(dtype, low, high):
    for zero in (low, high, low + 1, high - 1, (low + high + 1) // 2 + 1):
        assert found(strategies.qparams(dtype), lambda q: q.zero_point == zero).scale == 1.0


def test_parameters_per_channel():
    def check(q):
        assert q.per_channel and len(q.scale) == 5 and q.symmetric and q.axis == 1

    each(strategies.qparams("int8", channels=5, axis=1, symmetric=True), check)


def test_scales_of_every_kind():
    assert found(strategies.scales(), lambda s: float(np.float32(s)) != s) and found(strategies.scales(), lambda s: s < 2.0**-11)

    def check(scale):
        assert 0.3 <= scale <= 0.4

    each(strategies.scales(0.3, 0.4), check)
    with pytest.raises(ArgumentError, match="swap or change them"):
        strategies.scales(2.0, 1.0)


def test_tensors():
    def check(tensor):
        assert isinstance(tensor, QTensor) and tensor.values.dtype == np.int8

    each(strategies.qtensors(dtype="int8"), check)
    assert found(strategies.qtensors((3, 2)), lambda t: t.values.max() == 255).shape == (3, 2)


@pytest.mark.parametrize("op", ("add", "cat", "quantize", "avg_pool2d", "hardswish"))
def test_problems_of_other_operators(op):
    def check(problem):
        assert problem.op == op and oracle(problem, "fbgemm").size

    each(strategies.problems(op, "fbgemm"), check)


@pytest.mark.parametrize("arguments, message", (({"effects": ["neartei"]}, "did you mean 'neartie'"), ({"biases": ["float"]}, "did you mean 'float32'")))
def test_wrong_arguments(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        strategies.linear_problems(**arguments)


def test_hypothesis_is_imported_when_a_strategy_is_made():
    code = (
        "import sys; sys.modules['hypothesis'] = None; from refquant.testing import strategies\n"
        "try: strategies.sizes()\nexcept ImportError as error: print(error)"
    )
    assert "pip install 'refquant[hypothesis]'" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
