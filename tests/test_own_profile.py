"""A profile of one's own runs through every operator, without a line of the package changed; a wrong field is refused with what is valid."""

from dataclasses import MISSING, fields
from itertools import islice

import pytest

from refquant import numerics
from refquant.errors import ArgumentError, UnsupportedError
from refquant.numerics.forms import form_choices
from refquant.numerics.profile import Dispatch, Numerics, section_types
from refquant.ops.support import Support, support
from refquant.verify import STREAMS, build, case_stream, mutants, oracle
from refquant.verify.mutants import sections_of

BASE = "onnxruntime"
#: What is changed; ties go away from zero where nothing stands here, which they do in TensorFlow Lite already, and a range has no such field.
CHANGES = {**dict.fromkeys(("tflite_ref", "tflite_opt", "xnnpack"), {"rounding": "half_up"}), "openvino": {"contraction": "fma", "shift": "quotient"}}


def own(base):
    """A changed profile under a name of its own."""
    return numerics.get(base).replace(name="mine", engine="an accelerator of mine", source="its manual", **CHANGES.get(base, {"rounding": "half_away"}))


MINE = own(BASE)
FORMS = [
    (profile, section, form)
    for profile in numerics.PROFILES
    for section in section_types()
    for form in [getattr(profile, section)]
    if form is not None and hasattr(form, "replace")
]
BASES = numerics.names()


def answers(op, profile, base=BASE, reference=False, count=24):
    """Return what a profile computes for default cases of another; unsupported ones are left out."""
    out = []
    for case in islice(case_stream(op, base), count):
        if case.strategy == "wrap":
            continue
        try:
            out.append(oracle(build(case), profile, reference=reference))
        except UnsupportedError:
            continue
    return out


def described(op, base=BASE):
    return support(op, base)[0] in (Support.EXACT, Support.SAME)


@pytest.mark.parametrize("base, op", [(base, op) for base in BASES for op in STREAMS if described(op, base)])
def test_a_profile_of_ones_own_runs_through_every_operator(base, op):
    comp, ref = answers(op, own(base), base, count=5), answers(op, base, base, count=5)
    assert len(comp) == len(ref) >= 1
    assert all(c.dtype == r.dtype and c.shape == r.shape for c, r in zip(comp, ref))


@pytest.mark.parametrize("base", BASES)
def test_every_base_has_operators_and_its_changed_field_changes_bits(base):
    assert len(BASES) == 12 and own(base).differences(numerics.get(base))
    ops = [op for op in STREAMS if described(op, base)]
    assert len(ops) > 25 and {"quantize", "linear", "conv2d", "add"} <= set(ops)
    sections = {row[0] for row in own(base).differences(numerics.get(base))}
    changed = (zip(answers(op, own(base), base), answers(op, base, base)) for op in ops if sections & set(sections_of(op)))
    assert any((mine != theirs).any() for pairs in changed for mine, theirs in pairs)


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


def leaves(section, form):
    """Yield the forms of a section that are no choice between two, each with what makes it of the whole."""
    if not isinstance(form, Dispatch):
        yield form, lambda changes: {section: changes}
        return
    for side in ("yes", "no"):
        for leaf, _ in leaves(section, getattr(form, side)):
            yield leaf, lambda changes, side=side, leaf=leaf: {section: {side: leaf.replace(**changes)}}


#: Whatever class stands in whatever section of whatever profile: (profile, section, form, changes of the form as changes of the profile).
PLACES = {
    (section, type(leaf), isinstance(form, Dispatch)): (profile, section, leaf, whole)
    for profile, section, form in reversed(FORMS)
    for leaf, whole in leaves(section, form)
}
every_place = pytest.mark.parametrize("place", PLACES.values(), ids=lambda place: f"{place[0].name}-{place[1]}-{type(place[2]).__name__}")


#: Fields that may be left out: what one engine alone has.
DEFAULTS = {"post": "vectorized"}


def wrong_values(allowed):
    """Return (values that a field does not take, what the error must name)."""
    if isinstance(allowed, tuple):
        names = [str(getattr(value, "value", value)) for value in allowed]
        return (names[0] + "x", 17, None), names
    return {int: ((-1, 2.5, "many", True, None), ["integer"]), bool: ((1, "yes", None), ["True or False"])}[allowed]


@every_place
def test_a_wrong_value_of_every_field_is_refused_with_the_valid_ones(place):
    profile, section, form, whole = place
    for field, allowed in form_choices(type(form)).items():
        values, names = wrong_values(allowed)
        for value in values:
            with pytest.raises(ArgumentError) as error:
                profile.replace(**whole({field: value}))
            assert field in str(error.value) and all(name in str(error.value) for name in names), str(error.value)
        # The same fields with their own value, and with every valid one, are taken.
        for value in allowed if isinstance(allowed, tuple) else (getattr(form, field),):
            assert profile.replace(**whole({field: value}))


@every_place
def test_a_wrong_or_missing_field_of_a_form_is_refused(place):
    profile, section, form, whole = place
    names = [field.name for field in fields(form)]
    for name in names:
        with pytest.raises(ArgumentError) as error:
            profile.replace(**whole({name + "z": 1}))
        assert f"did you mean {name!r}" in str(error.value) and all(other in str(error.value) for other in names)
        if name in DEFAULTS:
            continue
        with pytest.raises(TypeError, match=name) as missing:
            type(form)(**{other: getattr(form, other) for other in names if other != name})
        assert all(other in str(missing.value) for other in names)


@every_place
def test_fields_that_may_be_left_out(place):
    form = place[2]
    assert {field.name: field.default for field in fields(form) if field.default is not MISSING} == {name: value for name, value in DEFAULTS.items() if hasattr(form, name)}


def test_no_section_and_no_class_is_left_out():
    """All sections of some profile, and all classes that may stand in one."""
    assert {section for section, *_ in PLACES} == set(section_types())
    classes = {cls for types in section_types().values() for cls in types if cls is not Dispatch}
    assert {cls for cls in classes if not any(issubclass(there, cls) for _, there, _ in PLACES)} == set()


@pytest.mark.parametrize("field", [field.name for field in fields(Dispatch)])
def test_a_wrong_field_of_a_choice_is_refused(field):
    profile, section, form = next(place for place in FORMS if isinstance(place[2], Dispatch))
    names = {"rule": ("x86", "depthwise_volume"), "vnni": ("True or False",)}.get(field, ("ProductForm",))
    with pytest.raises(ArgumentError) as error:
        profile.replace(**{section: {field: "nonsense"}})
    assert field in str(error.value) and all(name in str(error.value) for name in names)
    with pytest.raises(ArgumentError, match=f"did you mean {field!r}"):
        profile.replace(**{section: {field + "z": 1}})
    with pytest.raises(TypeError, match=field):
        Dispatch(**{name: getattr(form, name) for name in ("rule", "vnni", "yes", "no") if name != field})


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
