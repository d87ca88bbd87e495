"""What the start costs: whole processes, from start to end."""

import os
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from time import perf_counter

import refquant as rq
from refquant.backends.bench.case import Bar, Case, Plan, Role, Work
from refquant.errors import RefquantError

__all__ = ["STARTUP"]

_IMPORT = "import refquant"
_LINEAR = """
import numpy as np, refquant as rq
x = rq.QTensor(np.arange(64, dtype=np.uint8).reshape(2, 32), rq.QParams(0.05, 30, "uint8"))
w = rq.QTensor(np.ones((16, 32), np.int8), rq.QParams(0.02, 0, "int8"))
rq.ops.linear(x, w, np.zeros(16, np.float32), out=rq.QParams(0.1, 3, "uint8"), numerics="x86")
"""


def _process(code, cache):
    environment = dict(os.environ, REFQUANT_CACHE_DIR=str(cache))
    home = str(Path(rq.__file__).resolve().parent.parent)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [home, environment.get("PYTHONPATH")]))
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if run.returncode:
        raise RefquantError(f"startup: the child process must end well but returned {run.returncode}; run it by hand: {run.stderr.strip()[-400:]}")


@lru_cache(maxsize=None)
def _warm_folder():
    """A cache that holds what the example needs, away from the user's own; removed at exit."""
    folder = tempfile.TemporaryDirectory(prefix="refquant-bench-")
    _process(_LINEAR, folder.name)
    return folder


def _cold():
    with tempfile.TemporaryDirectory(prefix="refquant-bench-") as folder:
        _process(_LINEAR, folder)


def _children_seconds():
    """Processor time of all child processes that have ended; elsewhere than on Unix, the wall's."""
    try:
        from resource import RUSAGE_CHILDREN, getrusage
    except ImportError:
        return perf_counter()
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _case(name, call):
    case = Case(name, warm=False, clock=_children_seconds, most_turns=5)
    case.add("refquant", lambda: call, Role.SUBJECT)
    return case


def _seconds(name):
    return lambda results: next((r.seconds(r.subject) for r in results if r.name == name and r.timed), None)


_LIGHT, _WARM, _COLD = "import refquant", "first linear, warm cache", "first linear, cold cache"

STARTUP = Work(
    "startup",
    "Start of a new process, imports included; processor time",
    lambda: [
        Plan(_LIGHT, "", lambda settings: _case(_LIGHT, lambda: _process(_IMPORT, _warm_folder().name))),
        Plan(_WARM, "", lambda settings: _case(_WARM, lambda: _process(_LINEAR, _warm_folder().name))),
        Plan(_COLD, "", lambda settings: _case(_COLD, _cold)),
    ],
    bars=(
        Bar("seconds, warm cache", _seconds(_WARM), 0.6, at_most=True),
        Bar("seconds, cold cache", _seconds(_COLD), 10, at_most=True),
    ),
    charted=False,
)
