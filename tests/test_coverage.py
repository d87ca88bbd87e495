"""Every quantized operator of PyTorch, ONNX Runtime, LiteRT and OpenVINO is classified: computed by refquant, or with the reason why not."""

from types import SimpleNamespace

import pytest

from refquant import ops
from refquant.backends import litert_coverage, onnxruntime_coverage, openvino_coverage, torch_coverage

TABLES = (
    SimpleNamespace(package="torch", module=torch_coverage, theirs=torch_coverage.schemas, one="prelu"),
    SimpleNamespace(package="onnxruntime", module=onnxruntime_coverage, theirs=onnxruntime_coverage.quantized_operators, one="ms.QGemm"),
    SimpleNamespace(package="ai_edge_litert", module=litert_coverage, theirs=litert_coverage.kernels, one="SUB"),
    SimpleNamespace(package="openvino", module=openvino_coverage, theirs=openvino_coverage.transformations, one="RecurrentCell"),
)
of_each = pytest.mark.parametrize("table", TABLES, ids=lambda t: t.package)


@of_each
def test_the_table_names_operators_of_refquant(table):
    names = [name for entry in table.module.COVERAGE for name in entry.names.split()]
    assert len(set(names)) == len(names)
    for entry in table.module.COVERAGE:
        assert entry.ops or entry.text, entry.names
        assert set(entry.ops.split()) <= set(ops.__all__), entry.names


@pytest.mark.engine
@of_each
def test_no_operator_is_unclassified(table):
    pytest.importorskip(table.package)
    assert table.module.unclassified() == ([], [])


@pytest.mark.engine
@of_each
def test_an_unclassified_operator_is_found(table):
    pytest.importorskip(table.package)
    entries, unclassified = table.module.COVERAGE, table.module.unclassified
    assert table.one in unclassified(tuple(entry for entry in entries if table.one not in entry.names.split()))[0]
    assert unclassified((*entries, entries[0]._replace(names="no_such_operator")))[1] == ["no_such_operator"]


@pytest.mark.engine
@of_each
def test_each_operator_has_a_row(table):
    pytest.importorskip(table.package)
    rows = table.module.coverage_table().splitlines()
    assert len(rows) == 2 + len(table.theirs()) and not any("not looked at" in row for row in rows)


@pytest.mark.engine
def test_what_has_no_kernel_says_so():
    pytest.importorskip("onnxruntime")
    operators = onnxruntime_coverage.quantized_operators()
    entries = {name: entry for entry in onnxruntime_coverage.COVERAGE for name in entry.names.split()}
    assert "ms.QLinearReduceMean" in [operator.name for operator in operators if not operator.on_cpu]
    assert all(("no CPU kernel" in entries[operator.name].text) != operator.on_cpu for operator in operators)


@pytest.mark.engine
def test_each_operator_has_an_executor_or_a_reason():
    pytest.importorskip("onnxruntime")
    table = pytest.importorskip("refquant.interop.onnx.table")
    entries = {name: entry for entry in onnxruntime_coverage.COVERAGE for name in entry.names.split()}
    for operator in onnxruntime_coverage.quantized_operators():
        domain = onnxruntime_coverage.MICROSOFT if operator.name.startswith("ms.") else ""
        executor = table.find_executor(operator.name.removeprefix("ms."), domain, table.NEWEST[domain])
        entry = entries[operator.name]
        assert (executor is not None) == bool(entry.ops or "interop.from_onnx runs it" in entry.text), operator.name
