"""Findings: each shows on the live engine, the oracle gives its bits, and neither is what one would expect."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from refquant import QParams, QTensor, backends, numerics, observers, ops
from refquant.backends.findings import FINDINGS, Event, find, reproduce
from refquant.backends.findings.batches import BATCHES, SMALL
from refquant.backends.findings.events import CUT_RANGE, FIRST_SCALE, SECOND_SCALE
from refquant.core.mlas_blocks import block_product
from refquant.errors import BackendMissing, RefquantError
from test_cli import call, one_line


def test_there_are_many_of_every_engine():
    assert len(FINDINGS) >= 25 and {finding.engine for finding in FINDINGS} == {name for name in backends.names() if "@" not in name}
    assert sum(finding.defect for finding in FINDINGS) >= 2


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.name)
def test_a_finding_is_written_out_and_surprises(finding):
    assert len(finding.title) <= 110 and not finding.title.endswith(".") and len(finding.text) > 60 and finding.text.endswith(".")
    assert numerics.get(finding.profile).name.startswith(finding.engine)
    found = reproduce(finding)
    assert found.surprises and found.shown.live is None and found.shown.oracle.size <= 40000
    assert len(list(found.lines())) >= 2


@pytest.mark.parametrize("finding", [finding for finding in FINDINGS if finding.defect and not isinstance(finding, Event)], ids=lambda finding: finding.name)
def test_of_a_defect_the_profile_itself_is_right(finding):
    found = reproduce(finding)
    assert np.array_equal(found.expected, finding.expect(finding.problem())) and numerics.get(finding.engine).name in finding.profile


@pytest.mark.engine
@pytest.mark.parametrize("finding, engine", [pytest.param(f, f.engine, id=f.name) for f in FINDINGS], indirect=["engine"])
def test_the_engine_does_it(finding, engine):
    try:
        found = reproduce(finding, engine)
    except BackendMissing as error:
        pytest.skip(f"this processor has no such kernel: {error}")
    assert found.shows, "\n".join(found.lines())


def test_the_numbers_of_events_are_those_of_operators():
    a, b = QTensor(np.uint8([[2, 4]]), QParams(0.5, 0, "uint8")), QTensor(np.int8([[2], [3]]), QParams(0.25, 0, "int8"))
    assert ops.gemm(a, b, np.int32([100]), out=QParams(1.0, 0, "uint8"), numerics="onnxruntime").values.tolist() == [find("a-bias-loses-its-scale").oracle()]
    codes = np.zeros((1, 1, 32), np.uint8)
    codes[0, 0, :2] = 128, 129
    y = block_product(np.float32([[1, 0.003]]), codes, np.float32([[1]]), np.uint8([[128]]), bits=8)
    assert y.tolist() == [find("weights-alone-make-codes-of-activations").oracle()]


def test_the_numbers_of_events_are_those_of_observers():
    scales = []
    for factor in (1, 10):
        observer = observers.HistogramObserver(dtype="uint8", reduce_range=True)
        observer(SMALL * np.float32(factor))
        scales.append(float(observer.calculate_qparams().scale))
    assert scales == [FIRST_SCALE, SECOND_SCALE]
    for bins, expected in ((2048, CUT_RANGE), (128, [float(BATCHES[0].min()), float(BATCHES[0].max())])):
        observer = observers.EntropyObserver(bins, 128)
        for batch in BATCHES:
            observer(batch)
        assert [float(observer.min_val), float(observer.max_val)] == expected


@pytest.mark.engine
def test_an_event_that_comes_out_otherwise_or_fails_is_found():
    pytest.importorskip("ai_edge_litert")
    event = find("a-reused-module-has-one-scale")
    other = dataclasses.replace(event, live="batches:BATCHES.__len__")
    with pytest.raises(RefquantError, match="must run but ended with"):
        reproduce(other, True)
    assert not reproduce(dataclasses.replace(find("softmax-ends-the-process"), oracle=lambda: [512], expect=lambda: [-6], live="litert_events:softmax_of_many"), True).shows


def test_an_engine_that_does_something_else_is_found():
    class Mended:
        name = profile = "fbgemm"
        supports = lambda self, problem: None  # noqa: E731
        run = lambda self, problem: np.array([1, 3, 3], np.uint8)  # noqa: E731

    assert not reproduce(find("zero-point-before-rounding"), Mended()).shows


def test_a_runner_that_refuses_is_said():
    class Elsewhere:
        name = profile = "fbgemm"
        supports = lambda self, problem: "another machine"  # noqa: E731

    with pytest.raises(BackendMissing, match="another machine"):
        reproduce(find("zero-point-before-rounding"), Elsewhere())


def test_the_command(capsys, monkeypatch):
    monkeypatch.setattr(backends, "installed", lambda name: False)
    status, out, err = call(capsys, "findings")
    assert status == 0 and not err and all(finding.name in out for finding in FINDINGS) and f"{len(FINDINGS)} findings, 0 shown" in out
    status, out, _ = call(capsys, "findings", "rows-that-overlap")
    assert status == 0 and "fbgemm+overlapping_transpose" in out and "expected 8" in out and "defect" in out
    status, out, _ = call(capsys, "findings", "--engine", "onnxruntime")
    assert status == 0 and "QLinearAdd" in out and "FBGEMM's depthwise" not in out


def test_wrong_usage(capsys):
    status, _, err = call(capsys, "findings", "rows-that-overlp")
    assert status == 2 and one_line(err) and "did you mean 'rows-that-overlap'" in err
    status, _, err = call(capsys, "findings", "rows-that-overlap", "--engine", "x86")
    assert status == 2 and one_line(err) and "is about fbgemm" in err


def test_a_finding_that_no_longer_shows_gives_status_1(capsys, monkeypatch):
    class Mended:
        name = profile = "fbgemm"
        supports = lambda self, problem: None  # noqa: E731
        run = lambda self, problem: np.array([1, 3, 3], np.uint8)  # noqa: E731

    monkeypatch.setattr(backends, "installed", lambda name: True)
    monkeypatch.setattr(backends, "load", lambda name: Mended())
    status, out, _ = call(capsys, "findings", "zero-point-before-rounding")
    assert status == 1 and "DIFFERENT" in out


def test_the_readme_counts_them():
    text = Path(__file__).parent.parent.joinpath("README.md").read_text()
    assert f"`refquant findings` lists {len(FINDINGS)} such things" in text
