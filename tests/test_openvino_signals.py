"""Ctrl-C in a process that has asked OpenVINO: two runners that go in the order in which they came leave a stack for signals."""

import signal
import subprocess
import sys

import pytest

pytest.importorskip("openvino")
pytestmark = [pytest.mark.engine, pytest.mark.skipif(not hasattr(signal, "raise_signal") or sys.platform == "win32", reason="signals of POSIX")]

_TWO_RUNNERS = """
import faulthandler, gc, signal
faulthandler.enable()
from itertools import islice
from refquant.backends import openvino_runner
from refquant.verify import build, case_stream
{fault}
signal.signal(signal.SIGINT, lambda *_: print("handled"))
problem = build(next(case_stream("relu", "openvino")))
runners = [openvino_runner.OpenVinoRunner() for _ in range(2)]
for runner in runners:
    runner.run(problem)
for _ in range(2):
    del runner, runners[0]
    runner = None
    gc.collect()
signal.raise_signal(signal.SIGINT)
"""
_NOT_KEPT = """
from contextlib import nullcontext
openvino_runner.signal_stack_kept = nullcontext
"""


def ended(fault=""):
    return subprocess.run([sys.executable, "-c", _TWO_RUNNERS.format(fault=fault)], capture_output=True, text=True, timeout=300)


def test_a_signal_is_handled():
    process = ended()
    assert (process.returncode, process.stdout) == (0, "handled\n"), process.stderr


def test_it_is_not_where_the_stack_is_not_kept():
    """Otherwise the engine has been mended, and there is nothing left to keep."""
    assert ended(_NOT_KEPT).returncode == -signal.SIGSEGV
