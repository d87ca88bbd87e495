"""Where an engine is not one formula: every such place of every profile has an example, which runs, and whose calls the engine itself computes so."""

import doctest
from types import SimpleNamespace

import numpy as np
import pytest

import refquant as rq
from refquant import backends, numerics
from refquant.core.qtensor import QTensor
from refquant.numerics import WAYS, ways_of
from refquant.numerics.profile import Dispatch, section_types
from refquant.verify import Problem, oracle
from test_cli import call

#: The names of an operator's arguments, as far as examples give them by position.
NAMES = {"add": "ab", "mul": "ab", "matmul": "ab", "quantize": ("x", "qparams"), "fake_quantize": ("x", "qparams"), "dequantize": ("q",), "linear": "xw", "linear_dynamic": "xw"}
NAMES |= {op: ("x", "kernel_size") for op in ("avg_pool2d", "avg_pool3d")} | {"adaptive_avg_pool2d": ("x", "output_size"), "cat": ("tensors",), "mean": ("x", "dim")}
NAMES |= {op: "xw" for op in ("conv2d", "conv3d", "conv_transpose2d")} | {"layer_norm": ("x", "normalized_shape", "weight", "bias")}


def run(example, name=None, package=rq):
    test = doctest.DocTestParser().get_doctest(example, {"np": np, "rq": package}, name or "example", None, 0)
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


class Asked:
    """Stands for refquant in an example: its operators ask the engine too, and count what differs."""

    def __init__(self, runners):
        self.runners, self.outputs, self.differing, self.names = runners, 0, 0, set()
        self.QParams, self.QTensor = rq.QParams, QTensor
        operators = {op: self._operator(op) for op in (*rq.ops.__all__, "quantize", "dequantize", "fake_quantize")}
        self.ops = SimpleNamespace(**operators)
        self.quantize, self.dequantize, self.fake_quantize = (operators[op] for op in ("quantize", "dequantize", "fake_quantize"))

    def _operator(self, op):
        def call(*given, numerics="fbgemm", isa=None, **arguments):
            result = getattr(rq.ops, op)(*given, numerics=numerics, **({"isa": isa} if isa else {}), **arguments)
            base = numerics.partition("@")[0]
            if base in self.runners and not isa:
                self._ask(self.runners[base], Problem(op, {**dict(zip(NAMES.get(op, ("x",)), given)), **arguments}))
            return result

        return call

    def _ask(self, runner, problem):
        if runner.supports(problem) is None:
            theirs, ours = np.asarray(runner.run(problem)), oracle(problem, runner.profile)
            self.outputs, self.differing = self.outputs + ours.size, self.differing + int((theirs != ours)[(theirs == theirs) | (ours == ours)].sum())
            self.names.add(runner.name)


#: What no runner is given: processor levels and pairs are asked in tests/test_isa_engines.py.
ELSEWHERE = ("saturating pairs",)


@pytest.mark.engine
@pytest.mark.parametrize("way", [way for way in WAYS if way.name not in ELSEWHERE], ids=lambda way: way.name)
def test_the_engines_compute_the_calls_of_an_example_so(way):
    wanted = [name for name in backends.names() if "@" not in name and f'"{name}"' in way.example]
    for module in {"torch", "onnxruntime", "ai_edge_litert"} if any(name in way.profiles for name in wanted) else ():
        pytest.importorskip(module)
    asked = Asked({name: backends.load(name) for name in wanted})
    run(way.example, package=asked)
    assert asked.outputs and asked.differing == 0, (way.name, asked.outputs, asked.differing)


def test_an_engine_that_computes_otherwise_is_found():
    class OneCode:
        name = profile = "fbgemm"
        supports = lambda self, problem: None  # noqa: E731

        def run(self, problem):
            bits = oracle(problem, "fbgemm").copy()
            bits.flat[-1] ^= 1
            return bits

    asked = Asked({"fbgemm": OneCode()})
    run(WAYS[0].example, package=asked)
    assert asked.differing == 1


def test_the_command_prints_them(capsys):
    status, out, _ = call(capsys, "profiles", "qnnpack")
    assert status == 0 and all(f"{way.name}:" in out for way in ways_of("qnnpack")) and "[0, 0]" in out
    status, out, _ = call(capsys, "profiles", "--ways")
    assert status == 0 and all(way.name in out for way in WAYS)
    status, _, err = call(capsys, "profiles", "fbgemm", "--ways")
    assert status == 2 and "--ways" in err
