"""A profile of one's own runs through every operator, without a line of the package changed; a wrong field is refused with what is valid."""

from dataclasses import MISSING, fields
from itertools import islice

import pytest

from refquant import numerics
from refquant.errors import ArgumentError, UnsupportedError
from refquant.numerics.forms import form_choices
from refquant.numerics.profile import Numerics, section_types
from refquant.ops.support import Support, support
from refquant.verify import STREAMS, build, case_stream, mutants, oracle

BASE = "onnxruntime"
MINE = numerics.get(BASE).replace(name="mine", rounding="half_away", engine="an accelerator of mine", source="its manual")
FORMS = [
    (profile, section, form)
    for profile in numerics.PROFILES
    for section in section_types()
    for form in [getattr(profile, section)]
    if form is not None and hasattr(form, "replace")
]
#: One form of each class, with the profile and the section that it stands in.
CLASSES = {type(form): (profile, section, form) for profile, section, form in reversed(FORMS)}


def answers(op, profile, base=BASE, reference=False):
    """Return what a profile computes for default cases of another; unsupported ones are left out."""
    out = []
    for case in islice(case_stream(op, base), 24):
        if case.strategy == "wrap":
            continue
        try:
            out.append(oracle(build(case), profile, reference=reference))
        except UnsupportedError:
            continue
    return out


def described(op):
    return support(op, BASE)[0] in (Support.EXACT, Support.SAME)


@pytest.mark.parametrize("op", [op for op in STREAMS if described(op)])
def test_a_profile_of_ones_own_runs_through_every_operator(op):
    comp, ref = answers(op, MINE), answers(op, BASE)
    assert len(comp) == len(ref) >= 1
    assert all(c.dtype == r.dtype and c.shape == r.shape for c, r in zip(comp, ref))


@pytest.mark.parametrize("op", [op for op in ("quantize", "linear", "conv1d", "conv2d", "add", "mul", "avg_pool2d", "cat") if described(op)])
def test_and_the_changed_field_changes_bits_in_kernel_and_reference_alike(op):
    comp, ref = answers(op, MINE), answers(op, MINE, reference=True)
    assert all((c == r).all() for c, r in zip(comp, ref))
    changed = [(c != r).any() for c, r in zip(comp, answers(op, BASE))]
    assert any(changed) or op in ("conv1d", "cat"), "rounding half away must move a tie"


@pytest.mark.parametrize("op", [op for op in STREAMS if described(op)])
def test_every_changed_field_is_computed(op):
    """No combination of an operator and a field ends in an error of another kind than a refusal."""
    for mutant in mutants(BASE, op):
        case = next(c for c in case_stream(op, BASE) if c.strategy != "wrap")
        try:
            assert oracle(build(case), mutant.profile) is not None
        except (UnsupportedError, ArgumentError):
            pass


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_wrong_value_of_every_field_is_refused_with_the_valid_ones(cls):
    profile, section, form = CLASSES[cls]
    for field, allowed in form_choices(cls).items():
        if isinstance(allowed, tuple):
            names = [str(getattr(value, "value", value)) for value in allowed]
            wrong = (names[0] + "x", 17, None)
        else:
            wrong = {int: (-1, 2.5, "many", True), bool: (1, "yes", None)}.get(allowed, ("nonsense", 3))
            names = {int: ["integer"], bool: ["True or False"]}.get(allowed, [])
        for value in wrong:
            with pytest.raises(ArgumentError) as error:
                profile.replace(**{section: {field: value}})
            assert field in str(error.value) and all(name in str(error.value) for name in names), str(error.value)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_wrong_or_missing_field_of_a_form_is_refused(cls):
    profile, section, form = CLASSES[cls]
    names = [field.name for field in fields(form)]
    with pytest.raises(ArgumentError) as error:
        profile.replace(**{section: {names[0] + "z": 1}})
    assert f"did you mean {names[0]!r}" in str(error.value) and all(name in str(error.value) for name in names)
    with pytest.raises(TypeError, match=names[0]):  # Python's own message names the field
        cls(**{name: getattr(form, name) for name in names[1:]})


@pytest.mark.parametrize("section", section_types())
def test_a_section_of_a_wrong_kind_is_refused_with_the_right_ones(section):
    allowed = section_types()[section]
    with pytest.raises(ArgumentError) as error:
        numerics.get(BASE).replace(**{section: "half_away"})
    assert section in str(error.value) and all(cls.__name__ in str(error.value) for cls in allowed)


def test_an_incomplete_profile_is_refused():
    whole = numerics.get(BASE)
    given = {field.name: getattr(whole, field.name) for field in fields(Numerics)}
    for name in [field.name for field in fields(Numerics) if field.default is MISSING]:
        with pytest.raises(TypeError, match=name):
            Numerics(**{key: value for key, value in given.items() if key != name})


def test_an_unknown_section_or_field_is_refused_with_all_of_them():
    with pytest.raises(ArgumentError, match="did you mean 'rounding'.*'quantize'"):
        numerics.get(BASE).replace(roundin="half_away")


def test_a_section_that_was_taken_away_says_how_to_fill_it_in():
    without = numerics.get(BASE).replace(add=None)
    with pytest.raises(UnsupportedError, match=r"does not describe.*replace\(add="):
        answers_one = oracle(build("add/onnxruntime/n8/random/seed=0"), without)
        assert answers_one is None
