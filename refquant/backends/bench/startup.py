"""What the start costs: whole processes, from start to end."""

import json
import os
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from statistics import median
from time import perf_counter

import refquant as rq
from refquant.backends.bench.case import Bar, Case, Plan, Role, Work
from refquant.backends.bench.report import seconds_text
from refquant.errors import RefquantError

__all__ = ["STARTUP", "start_parts"]

_IMPORT = "import refquant"
_CALL = """
x = rq.QTensor(np.arange(64, dtype=np.uint8).reshape(2, 32), rq.QParams(0.05, 30, "uint8"))
w = rq.QTensor(np.ones((16, 32), np.int8), rq.QParams(0.02, 0, "int8"))
rq.ops.linear(x, w, np.zeros(16, np.float32), out=rq.QParams(0.1, 3, "uint8"), numerics="x86")
"""
_LINEAR = "import numpy as np, refquant as rq" + _CALL

# Processor seconds of a new process at each of its steps, and those of its kernels: an outer kernel compiles the ones it calls.
_MARKED = """
import time
marks = [("Python itself", time.process_time())]
import numpy as np
marks.append(("numpy", time.process_time()))
import numba
marks.append(("numba", time.process_time()))
import refquant as rq, refquant.ops
marks.append(("refquant", time.process_time()))
from refquant.kernels.jit import Kernel
kernels, inside, compiling = [], [], Kernel.compile

def timed(kernel, signature):
    start = time.process_time()
    inside.append(kernel)
    try:
        return compiling(kernel, signature)
    finally:
        inside.pop()
        if not inside:
            kernels.append(time.process_time() - start)

Kernel.compile = timed
start = time.process_time()
""" + _CALL + """
call = time.process_time() - start
import json
print(json.dumps({"marks": marks, "kernels": kernels, "call": call}))
"""


def _process(code, cache):
    environment = dict(os.environ, REFQUANT_CACHE_DIR=str(cache))
    home = str(Path(rq.__file__).resolve().parent.parent)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [home, environment.get("PYTHONPATH")]))
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if run.returncode:
        raise RefquantError(f"startup: the child process must end well but returned {run.returncode}; run it by hand: {run.stderr.strip()[-400:]}")
    return run.stdout


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


def start_parts(told, total):
    """Return the parts of a process's start in seconds, given what it told of itself and the processor time of all of it.

    Parameters
    ----------
    told : dict
        ``marks``: pairs of a step and the time at its end; ``kernels``: seconds of each that was loaded or compiled; ``call``.
    total : float
    """
    parts, before = {}, 0.0
    for name, now in told["marks"]:
        parts[name], before = now - before, now
    parts["kernels"] = sum(told["kernels"])
    parts["call"] = told["call"] - parts["kernels"]
    parts["end"] = max(0.0, total - sum(parts.values()))
    return parts


def _start(cache):
    """One marked process: its parts, and how many kernels it brought up."""
    start = _children_seconds()
    told = json.loads(_process(_MARKED, cache))
    return start_parts(told, _children_seconds() - start), len(told["kernels"])


def _cold_start():
    with tempfile.TemporaryDirectory(prefix="refquant-bench-") as folder:
        return _start(folder)


def _where(results, settings):
    lines = []
    for r in results:
        if r.name in (_WARM, _COLD):
            runs = [_start(_warm_folder().name) for _ in range(settings.turns)] if r.name == _WARM else [_cold_start()]
            parts = {name: median(run[name] for run, _ in runs) for name in runs[0][0]}
            count, how = runs[0][1], "loaded" if r.name == _WARM else "compiled"
            lines += [f"{r.name}: {seconds_text(sum(parts.values()))}", *_part_lines(parts, f"{count} kernels {how}")]
    return lines


def _part_lines(parts, kernels):
    names = {"Python itself": "Python itself", "kernels": kernels, "call": "the rest of the call", "end": "the end of the process"}
    total = sum(parts.values())
    return [f"  {names.get(name, f'import {name}'):<28}{seconds_text(seconds):>8}{seconds / total:>6.0%}" for name, seconds in parts.items()]


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
    where=_where,
)
