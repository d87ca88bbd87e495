"""Faults of how PyTorch's loops go over views: each is found by a default case, and by none that is dense."""

from importlib import import_module
from itertools import islice

import numpy as np
import pytest

from refquant.core.qtensor import QTensor
from refquant.ops.tensor_iterator import loop_of
from refquant.verify import Problem, build, case_stream, oracle
from refquant.verify.views import VIEWS

_MODULES = [import_module(f"refquant.ops.{name}") for name in ("add", "unary")]


def one_row(out, *inputs):
    """Vectors reach over the gaps between rows."""
    return loop_of(out, *inputs)._replace(row=out.size)


def always_vectors(out, *inputs):
    """Strides of elements that do not lie side by side are overlooked."""
    return loop_of(out, *inputs)._replace(vectorized=True)


def logical_order(out, *inputs):
    """Elements are gone over as they are counted, not as they lie."""
    return loop_of(out, *inputs)._replace(axes=tuple(range(out.ndim)))


FAULTS = {"one row": one_row, "always vectors": always_vectors, "logical order": logical_order}


def shown(fault, op, cases, monkeypatch):
    """Return the options of the default cases whose bits the fault changes."""
    found = []
    for case in islice(case_stream(op, "fbgemm"), cases):
        problem = build(case)
        expected = oracle(problem, "fbgemm", reference=op == "add")
        with monkeypatch.context() as patch:
            for module in _MODULES:
                patch.setattr(module, "loop_of", fault)
            if not np.array_equal(oracle(problem, "fbgemm", reference=op == "add"), expected):
                found.append(case.options)
    return found


@pytest.mark.parametrize("op, name", [("add", "one row"), ("add", "always vectors"), ("add", "logical order"), ("hardswish", "one row"), ("celu", "one row")])
def test_a_fault_of_the_iteration_is_found(op, name, monkeypatch):
    found = shown(FAULTS[name], op, 110, monkeypatch)
    assert found
    if name == "one row":
        assert all(not set(VIEWS).isdisjoint(options) for options in found)


def test_no_fault_is_none(monkeypatch):
    assert shown(loop_of, "add", 40, monkeypatch) == []


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_has_the_codes_and_other_strides(name):
    line = "add/fbgemm/n3c5h4w6/neartie/seed=3"
    plain, viewed = build(line), build(f"{line}/{name}")
    for role in "ab":
        a, b = (problem[role].values for problem in (plain, viewed))
        assert np.array_equal(a, b) == (name != "expanded" or role == "b") and a.shape == b.shape
        assert (a.strides == b.strides) == (name == "expanded" and role == "b")
    dense = Problem("add", {k: QTensor(np.ascontiguousarray(v.values), v.qparams) if isinstance(v, QTensor) else v for k, v in viewed.arguments.items()})
    assert oracle(viewed, "onnx").tobytes() == oracle(dense, "onnx").tobytes()


def test_engines_without_views_are_not_asked_for_them():
    for profile in ("onnx", "onnxruntime", "openvino", "inductor", "tflite_ref", "tflite_opt", "xnnpack"):
        assert not any(case.has(name) for case in islice(case_stream("add", profile), 60) for name in VIEWS)
    assert sum(case.has(name) for case in islice(case_stream("add", "qnnpack"), 60) for name in VIEWS) > 5
