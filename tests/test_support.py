"""The table of operators: each of its signs says what asking for the operator does, and the counts in its notes are those of a sweep."""

import itertools
import re

import pytest

from refquant import backends, numerics, ops
from refquant.errors import ArgumentError, UnsupportedError
from refquant.numerics import coverage
from refquant.numerics.forms import UnaryForm
from refquant.numerics.profile import section_types
from refquant.ops.support import Support, support, support_table
from refquant.verify import STREAMS, build, case_stream, oracle
from refquant.verify.libm_sweep import libm_sweep
from refquant.verify.unary_sweep import UNARY_OPERATORS, unary_sweep

NAMES = tuple(op.name for op in ops.OPS)
CELLS = [(op, profile) for op in NAMES if op in STREAMS for profile in numerics.names()]


@pytest.mark.parametrize("note", (*coverage.NOT_OFFERED, *coverage.CONDITIONS), ids=lambda note: f"{note.ops}-{note.profiles}")
def test_a_note_names_what_exists(note):
    assert set(note.ops.split()) <= {*NAMES, *section_types()} and set(note.profiles.split()) <= set(numerics.names())
    assert note.text and not note.text.endswith(".")


def test_no_cell_is_absent_twice_or_under_a_condition():
    absent = [(op, profile) for note in coverage.NOT_OFFERED for op in note.ops.split() for profile in note.profiles.split()]
    assert len(set(absent)) == len(absent)
    assert not [cell for cell in absent if coverage.conditions(*cell)]


def test_conditions_belong_to_cells_that_are_described():
    named = {(op, profile) for note in coverage.CONDITIONS for op in note.ops.split() for profile in note.profiles.split()}
    assert [cell for cell in sorted(named) if support(*cell)[0] not in (Support.EXACT, Support.SAME)] == []


@pytest.mark.parametrize("op, profile", CELLS)
def test_asking_does_what_the_sign_says(op, profile):
    sign, texts = support(op, profile)
    cases = itertools.islice(case_stream(op, "tflite_ref" if profile in ("tflite_ref", "tflite_opt", "xnnpack") else profile), 12)
    problems = [build(case) for case in cases if case.strategy != "wrap"]
    if sign in (Support.EXACT, Support.SAME):
        assert any(_answers(problem, profile) for problem in problems)
        return
    said = texts[0] if sign is Support.ABSENT else "does not describe"
    for problem in problems:
        with pytest.raises(UnsupportedError, match="has no such operation" if sign is Support.ABSENT else said) as error:
            oracle(problem, profile)
        assert said in str(error.value)


def _answers(problem, profile):
    try:
        return oracle(problem, profile) is not None
    except UnsupportedError:
        return False


def test_an_absent_operator_stays_absent_in_a_variant_and_can_be_filled_in_by_a_profile_of_ones_own():
    assert coverage.absence("conv3d", "xnnpack+anything") == coverage.absence("conv3d", "xnnpack")
    mine = numerics.get("xnnpack").replace(unary=UnaryForm(style="lookup", vector=0, grain=0), quantize={"overflow": "saturate"})
    problem = build("hardsigmoid/xnnpack/n64/random/seed=0/int8/rescale")
    with pytest.raises(UnsupportedError):
        oracle(problem, "xnnpack")
    assert oracle(problem, mine).shape == (64,)


def test_a_section_that_is_left_out_for_good_says_why():
    without = [(p, s) for p in numerics.PROFILES for s in section_types() if getattr(p, s) is None and coverage.absence(s, p.name)]
    assert {s for _, s in without} >= {"conv_real", "linear_real", "quantize_int32"}
    for profile, section in without:
        with pytest.raises(UnsupportedError, match="no such operation") as error:
            profile.section(section, "an operator")
        assert coverage.absence(section, profile.name) in str(error.value)


def test_support_of_an_unknown_operator():
    with pytest.raises(ArgumentError, match="did you mean 'conv2d'"):
        support("conv2", "fbgemm")


def test_every_note_of_the_table_is_referred_to():
    table, _, notes = support_table().partition("\n\n")
    for number in range(1, notes.count("\n") + 2):
        if f"\n{number}. " in "\n" + notes:
            assert str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")) in table


@pytest.mark.engine
@pytest.mark.parametrize("op, engine", [key for key in coverage.LIBM_COUNTS if (key[1] == "fbgemm" and key[0] != "celu") or key in (("sigmoid", "onnxruntime"), ("sigmoid", "xnnpack"))], indirect=["engine"])
def test_the_counts_of_the_notes_are_those_of_a_sweep(op, engine):
    row = libm_sweep(engine, op)
    assert (row.differing, row.outputs) == coverage.LIBM_COUNTS[op, engine.name]


@pytest.mark.engine
@pytest.mark.parametrize("op, engine", list(coverage.LIBM_COUNTS), indirect=["engine"])
def test_a_part_of_the_sweep_differs_in_no_more(op, engine):
    row = libm_sweep(engine, op, sets=20)
    assert row.outputs > 500 and row.differing <= coverage.LIBM_COUNTS[op, engine.name][0]
    assert all(set(trial.comparison.histogram) <= {-1, 1} for trial in row.failures)


def test_a_sweep_of_post_operations_finds_a_code_that_differs():
    class OneCode:
        name = profile = "inductor"
        supports = lambda self, problem: None  # noqa: E731

        def run(self, problem):
            bits = oracle(problem, "inductor").copy()
            bits.flat[-1] ^= 1
            return bits

    for op in ("linear gelu", "conv2d swish", "softmax"):
        assert libm_sweep(OneCode(), op, sets=3).differing == 3
    with pytest.raises(ArgumentError, match="post-operation"):
        libm_sweep(OneCode(), "linear relu")


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["fbgemm"], indirect=True)
@pytest.mark.parametrize("op", [op for op in UNARY_OPERATORS if (op, "fbgemm") not in coverage.LIBM_COUNTS and not coverage.absence(op, "fbgemm")])
def test_other_functions_are_exact_on_every_code(op, engine):
    row = unary_sweep(engine, op, sets=1000)
    assert row.outputs > 300_000 and row.differing == 0


def test_a_sweep_finds_a_code_that_differs():
    class OneCode:
        name, profile = "wrong", "fbgemm"
        supports = lambda self, problem: None  # noqa: E731

        def run(self, problem):
            bits = oracle(problem, "fbgemm").copy()
            bits[-1] ^= 1
            return bits

    row = unary_sweep(OneCode(), "leaky_relu", sets=2)
    assert row.differing == 4 and "code sweep of leaky_relu" in row.failures[0].case


def test_every_engine_of_a_count_exists():
    assert {engine for _, engine in coverage.LIBM_COUNTS} <= {*backends.names(), "onnx_reference"}


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["fbgemm"], indirect=True)
def test_the_command_that_counts_tells_another_count(engine, capsys, monkeypatch):
    from refquant.backends.libm_counts import main

    assert main(["--op", "gelu", "--engine", "fbgemm", "--sets", "20"]) == 0
    assert "0 of 6,144 outputs differ" in capsys.readouterr().out
    monkeypatch.setitem(coverage.LIBM_SETS, "fbgemm", 2)
    assert main(["--op", "gelu", "--engine", "fbgemm"]) == 1
    assert "recorded: 0 of 1,228,800" in capsys.readouterr().out


def test_a_note_of_libm_states_a_count():
    """Wherever the C library decides a bit, the note says in how many outputs of a sweep."""
    named = [note for note in coverage.CONDITIONS if "libm" in note.text]
    assert len(named) > 8
    assert [note.text for note in named if not re.search(r"\d of [\d,]+", note.text)] == []
