"""Problems that OpenVINO is asked as branches of one model: fused, computed and counted as each in a model of its own."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from refquant import QParams, QTensor
from refquant.backends import openvino_runner
from refquant.errors import ArgumentError
from refquant.numerics.coverage import absence
from refquant.verify import Problem, oracle
from refquant.verify.libm_sweep import softmax_problems
from refquant.verify.problem_sweep import BLOCK, problem_sweep
from refquant.verify.unary_sweep import UNARY_OPERATORS, unary_problems

ASKED = [op for op in UNARY_OPERATORS if not absence(op, "openvino")]

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("engine", ["openvino"], indirect=True)]


def problems(engine, op, count=16):
    source = softmax_problems() if op == "softmax" else unary_problems(op, seed=3)
    return list(islice((problem for problem in source if engine.supports(problem) is None), count))


def nodes(compiled):
    """What the plugin executes: each node's kind, primitive and number of fused layers."""
    about = (node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops())
    text = lambda info, name: info[name].astype(str)  # noqa: E731
    return Counter((text(info, "layerType"), text(info, "primitiveType"), text(info, "originalLayersNames").count(",")) for info in about)


@pytest.mark.parametrize("op", [*ASKED, "softmax"])
def test_a_branch_is_fused_and_computed_as_a_model_of_its_own(engine, op):
    asked = problems(engine, op)
    together = engine.together(asked)
    assert nodes(together.compiled) == sum((nodes(engine._compiled(problem)[1]) for problem in asked), Counter())
    for problem in asked:
        comp, ref = together.run(problem), engine.run(problem)
        assert comp.dtype == ref.dtype and comp.shape == ref.shape and comp.tobytes() == ref.tobytes()


def test_the_comparison_of_graphs_can_fail(engine):
    """A function that is left out, or computed by another node, is seen."""
    one, other = (nodes(engine._compiled(problems(engine, op, 1)[0])[1]) for op in ("sigmoid", "softmax"))
    assert one != other and one != nodes(engine._compiled(problems(engine, "requantize", 1)[0])[1])


def test_other_operators_change_what_a_branch_gives(engine):
    """Beside a FakeQuantize, DequantizeLinear is computed otherwise than alone, so problems of one operator alone are asked together."""
    asked = [*problems(engine, "dequantize", 3), *problems(engine, "relu", 1)]
    with pytest.raises(ArgumentError, match="problems of one operator.*dequantize, relu"):
        engine.together(asked)


def test_a_problem_that_was_not_among_them_is_asked_alone(engine):
    together, stranger = engine.together(problems(engine, "tanh", 2)), problems(engine, "tanh", 3)[2]
    np.testing.assert_array_equal(together.run(stranger), oracle(stranger, engine.profile))


def test_where_the_joined_model_fails_each_is_asked_alone(engine, monkeypatch):
    asked = problems(engine, "elu", 4)
    whole = engine.compile

    def refuses(model, **options):
        if len(model) > 2000:
            raise RuntimeError("too many branches")
        return whole(model, **options)

    monkeypatch.setattr(engine, "compile", refuses)
    row = problem_sweep(engine, "elu", asked, "elu {}")
    assert (row.cases, row.differing, row.failures) == (4, 0, [])


@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK])
def test_a_code_that_differs_is_found_whichever_branch_it_is(engine, monkeypatch, at):
    asked, run = problems(engine, "elu", BLOCK + 1), openvino_runner._Together.run
    wrong = lambda problem, y: y ^ np.uint8(problem is asked[at]).astype(y.dtype)  # noqa: E731
    alone = type(engine).run
    monkeypatch.setattr(type(engine), "run", lambda self, problem: wrong(problem, alone(self, problem)))
    monkeypatch.setattr(openvino_runner._Together, "run", lambda self, problem: wrong(problem, run(self, problem)))
    row = problem_sweep(engine, "elu", asked, "elu {}")
    assert row.cases == BLOCK + 1 and [trial.case for trial in row.failures] == [f"elu {at}"] and row.differing == asked[at]["x"].values.size


def test_nothing_to_ask(engine):
    assert engine.together([]).compiled is None and problem_sweep(engine, "elu", [], "elu {}").outputs == 0


def test_a_problem_whose_kernel_was_taken_from_another_branch_is_asked_again_alone(engine):
    """Two dequantizations of one hash: the second gets the kernel of the first. Alone, both are right."""
    codes = np.arange(-128, 128).astype(np.int8)
    asked = [Problem("dequantize", {"q": QTensor(codes, QParams(1 / 16, zero, "int8"))}) for zero in (-20, 85)]
    together = engine.together(asked)
    if np.array_equal(together.run(asked[1]), engine.run(asked[1])):
        pytest.skip("this processor has no such collision")
    np.testing.assert_array_equal(together.run(asked[1]), together.run(asked[0]))
    row = problem_sweep(engine, "dequantize", asked, "dequantize {}")
    assert (row.again, row.cases, row.differing) == (1, 2, 0)
