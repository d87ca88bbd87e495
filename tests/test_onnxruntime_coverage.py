"""Every quantized operator of ONNX Runtime is classified: computed by refquant, or with the reason why not."""

import pytest

from refquant import ops
from refquant.backends.onnxruntime_coverage import COVERAGE, coverage_table, quantized_operators, unclassified


def test_the_table_names_operators_of_refquant():
    names = [name for entry in COVERAGE for name in entry.names.split()]
    assert len(set(names)) == len(names)
    for entry in COVERAGE:
        assert entry.ops or entry.text, entry.names
        assert set(entry.ops.split()) <= set(ops.__all__), entry.names


@pytest.mark.engine
def test_no_operator_is_unclassified():
    pytest.importorskip("onnxruntime")
    assert unclassified() == ([], [])


@pytest.mark.engine
def test_an_unclassified_operator_is_found():
    pytest.importorskip("onnxruntime")
    assert unclassified(tuple(entry for entry in COVERAGE if "ms.QGemm" not in entry.names))[0] == ["ms.QGemm"]
    assert unclassified((*COVERAGE, COVERAGE[0]._replace(names="no_such_operator")))[1] == ["no_such_operator"]


@pytest.mark.engine
def test_what_has_no_kernel_says_so():
    pytest.importorskip("onnxruntime")
    rows = coverage_table().splitlines()
    assert len(rows) == 2 + len(quantized_operators()) and not any("not looked at" in row for row in rows)
    absent = [operator.name for operator in quantized_operators() if not operator.on_cpu]
    entries = {name: entry for entry in COVERAGE for name in entry.names.split()}
    assert "ms.QLinearReduceMean" in absent
    assert all("no CPU kernel" in entries[name].text for name in absent)
    assert not any("no CPU kernel" in entries[operator.name].text for operator in quantized_operators() if operator.on_cpu)
