"""The calls that examples of ways make, asked of the engines themselves."""

from inspect import signature
from types import SimpleNamespace

import numpy as np
import pytest

import refquant as rq
from refquant import backends
from refquant.core.qtensor import QTensor
from refquant.numerics import WAYS
from refquant.verify import Problem, oracle
from test_ways import run


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
                bound = signature(getattr(rq.ops, op)).bind(*given, **arguments)
                bound.apply_defaults()
                self._ask(self.runners[base], Problem(op, {name: value for name, value in bound.arguments.items() if name not in ("numerics", "isa")}))
            return result

        return call

    def _ask(self, runner, problem):
        if runner.supports(problem) is None:
            theirs, ours = np.asarray(runner.run(problem)), oracle(problem, runner.profile)
            self.outputs, self.differing = self.outputs + ours.size, self.differing + int((theirs != ours)[(theirs == theirs) | (ours == ours)].sum())
            self.names.add(runner.name)


#: What no runner is given: processor levels are asked in tests/test_isa_engines.py and tests/test_post_operations_torch.py.
ELSEWHERE = ("saturating pairs", "functions of the reference kernel", "sums of int8 activations")


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
