"""The measure of the generator's power: it counts right, and a reduced budget already tells most apart."""

import json

import pytest

from refquant.cli.main import main
from refquant.verify import Case, build, compare, oracle, power
from refquant.verify.planted import FAULTS
from refquant.verify.power import BUDGET, operators, separate_faults, separate_profiles

#: The default budget or a part of it, on operators of each kind.
REDUCED = {"linear": BUDGET // 4, "hardsigmoid": BUDGET, "mul": BUDGET // 2, "add": BUDGET // 2, "quantize": BUDGET, "cat": BUDGET // 4, "max_pool2d": BUDGET // 4}
#: What takes more than the reduced budget.
RARE = ("cat: blocks of 4 channels", "product of reciprocals", "weights' scale by the output's first")


@pytest.mark.parametrize("op", REDUCED)
def test_profiles_and_faults_are_told_apart(op):
    pairs = separate_profiles(op, budget=REDUCED[op]) if op != "cat" else []  # whether all profiles are told apart at all is tested beside this
    found = [*pairs, *separate_faults(op, budget=REDUCED[op])]
    assert [(s.what, s.cases) for s in found if s.outputs is None and s.what not in RARE] == []
    assert len(found) >= sum(f.line.startswith(f"{op}/") and " + " not in f.name for f in FAULTS)


def test_the_line_shows_the_difference_and_no_earlier_one_does():
    for s in separate_profiles("add", budget=8000):
        first, second = s.what.split(" | ")
        case = Case.parse(s.line)
        assert case.profile in (first, second)
        problem = build(case)
        assert not compare(oracle(problem, first), oracle(problem, second), nan_equal=True).exact


def test_equal_computations_are_never_told_apart(monkeypatch):
    """Planted into the measure: two profiles that differ in name alone."""
    from refquant import numerics

    twin = numerics.get("onnx").replace(name="twin")
    monkeypatch.setattr(power, "_pairs", lambda op: [(numerics.get("onnx"), twin)])
    (found,) = separate_profiles("add", budget=12000)
    assert found.outputs is None and found.cases > 1


def test_a_pair_that_is_never_told_apart_gives_status_1(monkeypatch, capsys):
    from refquant import numerics

    twin = numerics.get("onnx").replace(name="twin")
    monkeypatch.setattr(power, "_pairs", lambda op: [(numerics.get("onnx"), twin)])
    assert main(["verify", "--power", "--op", "dequantize", "--outputs", "2000"]) == 1
    assert "not told apart within 2,000 outputs" in capsys.readouterr().out


def test_forms_of_two_classes_differ():
    from refquant import numerics

    rows = power.form_differences(numerics.get("fbgemm"), numerics.get("onnxruntime"), "add")
    assert rows == [("add", "form", "AddForm", "FoldedAddForm")]
    pairs = sum(len(power._pairs(op)) for op in operators())
    assert pairs > 1500


def test_a_fault_that_shows_nowhere_is_reported(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(power, "_shows", lambda fault, problem, profile: False)
    path = tmp_path / "power.json"
    assert main(["verify", "--power", "--op", "adaptive_avg_pool2d", "--outputs", "2000", "--json", str(path)]) == 1
    text = capsys.readouterr().out
    rows = json.loads(path.read_text())["separations"]
    assert "not told apart within 2,000 outputs" in text and sum(r["outputs"] is None for r in rows if r["kind"] == "fault") == 2


def test_every_operator_with_forms_or_faults_is_measured():
    assert {"linear", "conv2d", "add", "mul", "avg_pool2d", "quantize", "cat", "matmul_integer", "max_pool2d"} <= set(operators())
