"""Every ``quantized::`` operator of PyTorch is classified: computed by refquant, or with the reason why not."""

import pytest

from refquant import ops
from refquant.backends.torch_coverage import COVERAGE, coverage_table, schemas, unclassified


def test_the_table_names_operators_of_refquant():
    names = [name for entry in COVERAGE for name in entry.names.split()]
    assert len(set(names)) == len(names)
    for entry in COVERAGE:
        assert entry.ops or entry.text, entry.names
        assert set(entry.ops.split()) <= set(ops.__all__), entry.names


@pytest.mark.engine
def test_no_operator_is_unclassified():
    pytest.importorskip("torch")
    assert unclassified() == ([], [])


@pytest.mark.engine
def test_an_unclassified_operator_is_found():
    pytest.importorskip("torch")
    assert "prelu" in unclassified(tuple(entry for entry in COVERAGE if entry.names != "prelu"))[0]
    assert unclassified((*COVERAGE, COVERAGE[0]._replace(names="no_such_operator")))[1] == ["no_such_operator"]


@pytest.mark.engine
def test_each_schema_has_a_row():
    pytest.importorskip("torch")
    rows = coverage_table().splitlines()
    assert len(rows) == 2 + len(schemas()) and not any("not looked at" in row for row in rows)
