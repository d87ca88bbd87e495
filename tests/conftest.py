"""What all tests share: engines that are missing, and when that is a failure."""

import os

import pytest

#: Packages that engines come in, and that of the cluster that may ask them.
ENGINE_PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "ai_edge_litert", "distributed")
REQUIRED = os.environ.get("REFQUANT_REQUIRE_ENGINES") == "1"
WHY = "REFQUANT_REQUIRE_ENGINES=1, so a missing engine is a failure"


def _fail(report, reason):
    report.outcome = "failed"
    report.longrepr = f"{WHY}: {reason}"


def _is_missing(report):
    """Whether what a test lacks is an engine, and not a processor, which nobody can install."""
    return "this processor has no " not in _reason(report)


def _reason(report):
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn the skip of a test that asks an engine into a failure where engines are required."""
    report = (yield).get_result()
    if REQUIRED and report.skipped and item.get_closest_marker("engine") and not hasattr(report, "wasxfail") and _is_missing(report):
        _fail(report, _reason(report))


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    """The same for a whole file that skips itself because an engine's package cannot be imported."""
    report = (yield).get_result()
    if REQUIRED and report.skipped and any(f"could not import '{name}" in _reason(report) for name in ENGINE_PACKAGES):
        _fail(report, _reason(report))


@pytest.fixture
def engine(request):
    """The runner of the engine whose name is the parameter; skips where it is missing."""
    from refquant import backends
    from refquant.errors import BackendMissing

    try:
        return backends.load(request.param)
    except BackendMissing as error:
        pytest.skip(str(error))
