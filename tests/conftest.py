"""What all tests share: engines that are missing, and when that is a failure."""

import os
import sys

import pytest
from engine_files import PACKAGES, asks

#: Packages that engines come in, and that of the cluster that may ask them.
ENGINE_PACKAGES = tuple(name for name in PACKAGES if name not in ("hypothesis", "torchao"))
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


class Lookout:
    """A finder that finds nothing: it notes which engines' packages are looked for, which happens wherever they are not loaded."""

    def __init__(self):
        self.seen = set()

    def find_spec(self, name, path=None, target=None):
        package = name.partition(".")[0]
        if package in PACKAGES and package not in sys.modules:
            self.seen.add(package)

    def taken(self):
        """Return what was noted, and forget it."""
        seen, self.seen = self.seen, set()
        return seen


LOOKOUT = Lookout()
sys.meta_path.insert(0, LOOKOUT)


def unsaid(path, looked_for):
    """Return what is wrong where a test of a file that says nothing of engines has looked for some, else None."""
    if looked_for and not asks(path):
        return f"asks for {', '.join(sorted(looked_for))}, and its file does not say so; mark it `engine`, for else it is never run beside an engine (tests/engine_files.py)"
    return None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn the skip of a test that asks an engine into a failure where engines are required, and a question for one that nobody announced, too."""
    report = (yield).get_result()
    wrong = unsaid(item.path, LOOKOUT.taken())
    if wrong and report.passed:
        report.outcome, report.longrepr = "failed", wrong
    if REQUIRED and report.skipped and item.get_closest_marker("engine") and not hasattr(report, "wasxfail") and _is_missing(report):
        _fail(report, _reason(report))


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    """The same for a whole file that skips itself because an engine's package cannot be imported, and for what it asks for as it is imported."""
    report = (yield).get_result()
    looked_for = LOOKOUT.taken()
    wrong = unsaid(collector.path, looked_for) if isinstance(collector, pytest.Module) else None
    if wrong and report.passed:
        report.outcome, report.longrepr = "failed", wrong
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
