"""Where an engine is not one formula: every such place of every profile has an example, which runs."""

import doctest

import numpy as np
import pytest

import refquant as rq
from refquant import numerics
from refquant.numerics import WAYS, ways_of
from refquant.numerics.profile import Dispatch, section_types
from test_cli import call


def run(example, package=rq):
    test = doctest.DocTestParser().get_doctest(example, {"np": np, "rq": package}, "example", None, 0)
    assert any(e.want for e in test.examples), "an example must show numbers"
    return doctest.DocTestRunner(verbose=False).run(test, out=lambda text: None).failed


def several(form):
    """Whether a form computes in more than one way."""
    field = lambda name: getattr(form, name, None)  # noqa: E731
    kinds = ("tail" in name for name in vars(form))
    return isinstance(form, Dispatch) or bool(
        (field("vector") and any(kinds)) or field("grain") or field("accumulator") not in (None, "exact") or field("lone") == "swapped"
        or ("contiguous" in vars(form) and "channels_last" in vars(form) and form.contiguous not in (form.channels_last, "copy")) or "inner" in vars(form)
    )  # fmt: skip


def places(profile):
    """Return the sections of a profile that are not one formula, by its forms alone."""
    found = {section for section in section_types() if getattr(profile, section) is not None and several(getattr(profile, section))}
    found |= {f"{name}_channel" for name in ("quantize", "dequantize", "fake_quantize") if profile.name != "tflite_opt" and getattr(profile, name) != getattr(profile, f"{name}_channel")}
    found |= {"linear_int8"} if profile.linear_int8 else set()
    found |= {"by_level"} if profile.by_level else set()
    return found | ({"pairing"} if profile.pairing.linear not in ("exact", "unknown") else set())


@pytest.mark.parametrize("profile", numerics.PROFILES, ids=lambda p: p.name)
def test_every_place_of_a_profile_has_an_example(profile):
    shown = {section for way in ways_of(profile.name) for section in way.sections}
    assert sorted(places(profile) - shown) == []


def test_places_are_found():
    """Planted: a profile that gets a tail, another memory format, a rule, has a place more."""
    plain = numerics.get("onnx")
    assert places(plain) == set()
    other = numerics.get("fbgemm")
    for section in ("add", "avg_pool", "conv", "mean", "layer_norm"):
        assert places(plain.replace(**{section: getattr(other, section)})) == {section}
    assert "conv" in places(plain.replace(conv=numerics.get("x86").conv))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_the_example_runs_and_shows_two_ways(way):
    assert set(way.profiles) <= set(numerics.names()) and way.explanation.endswith(".")
    assert run(way.example) == 0


def test_an_example_that_says_something_else_is_found():
    way = next(way for way in WAYS if way.name == "thread count")
    assert run(way.example.replace("64", "65")) == 1


def test_the_command_prints_them(capsys):
    status, out, _ = call(capsys, "profiles", "qnnpack")
    assert status == 0 and all(f"{way.name}:" in out for way in ways_of("qnnpack")) and "[0, 0]" in out
    status, out, _ = call(capsys, "profiles", "--ways")
    assert status == 0 and all(way.name in out for way in WAYS)
    status, _, err = call(capsys, "profiles", "fbgemm", "--ways")
    assert status == 2 and "--ways" in err
