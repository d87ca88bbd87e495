"""A user's function as an engine: `runner`, `check`, and the reasons that several failures leave together."""

import subprocess
import sys

import numpy as np
import pytest

from refquant import numerics
from refquant.errors import ArgumentError, UnsupportedError
from refquant.verify import Check, Runner, Status, build, check, load_case, oracle, runner

AWAY = numerics.get("onnx").replace(rounding="half_away")


def away(problem):
    return oracle(problem, AWAY)


def perfect(problem):
    return oracle(problem, "onnx", reference=True)


def test_a_function_is_a_runner():
    mine = runner(away, numerics="onnx", ops="linear")
    assert isinstance(mine, Runner) and (mine.name, mine.profile) == ("away", "onnx")
    assert mine.supports(build("linear/onnx/m1k1n1/random/seed=0")) is None
    assert mine.supports(build("relu/onnx/n5/random/seed=0")) == "away computes linear alone"
    assert mine.describe()["engine"] == "away"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"function": 3, "numerics": "onnx"}, "must be callable"),
        ({"function": away, "numerics": "onxn"}, "did you mean 'onnx'"),
        ({"function": away, "numerics": "onnx", "ops": ["linaer"]}, "did you mean 'linear'"),
    ],
)
def test_wrong_runners(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        runner(**arguments)


@pytest.mark.parametrize("arguments, message", [({"op": "linear"}, "name the profile"), ({"numerics": "onnx"}, "name an operator"), ({"op": "linaer", "numerics": "onnx"}, "did you mean")])
def test_wrong_checks(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        check(perfect, **arguments)


def test_exact_bits():
    seen = []
    result = check(perfect, ("linear", "add"), numerics="onnx", outputs=3000, progress=lambda row: seen.append(row.op))
    assert result.exact and result.outputs > 6000 and result.differing == 0 and result.diagnosis is result.shrunk is None and result.reasons == ()
    assert [row.status for row in result.rows] == [Status.EXACT] * 2 and set(seen) == {"linear", "add"}
    result.assert_exact()
    assert "linear: EXACT" in str(result)


def test_a_difference_gets_its_reason_and_its_smallest_case(tmp_path):
    result = check(away, "linear", numerics="onnx", outputs=20_000)
    assert not result.exact and result.diagnosis.causes == ("rounds half away from zero",)
    # Each failure alone leaves several explanations; together they leave one.
    assert not result.diagnosis.alternatives and len(result.rows[0].failures) > 1 and result.reasons[0].others
    assert result.shrunk.expected.size == 1 and result.shrunk.actual.tobytes() == away(result.shrunk.problem).tobytes()
    with pytest.raises(AssertionError, match="EXPLAINED: rounds half away from zero"):
        result.assert_exact()
    path = result.shrunk.write(tmp_path)
    assert path.name == "test_away_linear.py" and load_case(tmp_path / "away_linear.npz").profile == "onnx"
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)], capture_output=True, text=True)
    assert run.returncode == 1 and "1 of 1 outputs differ" in run.stdout


def test_two_faults_are_two_reasons():
    def mine(problem):
        return oracle(problem, numerics.get("onnx").replace(rounding="truncate" if problem["w"].qparams.per_channel else "ceil"))

    result = check(mine, "linear", numerics="onnx", cases=[f"linear/onnx/m64k31n100/neartie/seed={seed}{option}" for seed in (1, 2, 3) for option in ("", "/per_channel")])
    assert {reason.diagnosis.causes for reason in result.reasons} == {("truncates in place of rounding",), ("rounds up (ceiling)",)}
    assert "why, on" in str(result) and "and, on" in str(result)


def test_lines_in_place_of_default_cases():
    result = check(away, numerics="onnx", cases=["linear/onnx/m129k2n1/neartie/seed=7/asymmetric/intbias", "relu/onnx/n5/random/seed=0"], why=False)
    assert [(row.op, len(row.failures)) for row in result.rows] == [("linear", 1), ("relu", 0)] and result.shrunk is None


def test_against_another_profile_or_a_changed_one():
    assert check(runner(away, numerics="onnx"), "linear", numerics="fbgemm", outputs=3000, why=False).profile == "fbgemm"
    assert check(away, "linear", numerics=AWAY, outputs=20_000).exact


def test_what_an_engine_does_not_compute_and_what_it_raises():
    def odd(problem):
        if problem["x"].values.size % 2:
            raise UnsupportedError("even sizes alone")
        raise RuntimeError("out of luck")

    result = check(odd, "relu", numerics="onnx", outputs=3000)
    assert not result.exact and result.diagnosis is None and "out of luck" in str(result) and "even sizes alone" in str(result)

    def none(problem):
        raise UnsupportedError("not today")

    result = check(none, "relu", numerics="onnx", outputs=3000)
    assert isinstance(result, Check) and not result.exact and "nothing was compared" in str(result)


def test_wrong_shapes_are_reported_and_not_diagnosed():
    result = check(lambda problem: perfect(problem)[..., None], "relu", numerics="onnx", outputs=3000)
    assert not result.exact and result.diagnosis is None and "shape" in str(result)


def test_bits_that_change_from_run_to_run():
    state = iter(range(10**6))

    def moody(problem):
        y = perfect(problem).copy()
        if next(state) == 0 and y.size:
            y.flat[0] ^= 1
        return y

    result = check(moody, "relu", numerics="onnx", outputs=2000)
    assert not result.exact and result.shrunk is None and np.all([row.differing == 1 for row in result.rows])
