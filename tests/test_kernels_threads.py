"""Threads: disjoint parts of all work, errors that arrive, callers that meet."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import refquant as rq
from refquant.kernels.jit import get_num_threads, jit_disabled, parallel_for, set_num_threads

pytestmark = pytest.mark.skipif(jit_disabled(), reason="without a compiler there is one thread")


@pytest.fixture(autouse=True)
def threads_as_before():
    before = get_num_threads()
    yield
    set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 6, 7, 100])
def test_each_part_once(threads, count):
    set_num_threads(threads)
    seen = np.zeros(count, np.int64)

    def work(start, stop, out):
        out[start:stop] += 1

    for _ in range(20):
        parallel_for(work, count, seen)
    assert (seen == 20).all()


def test_results_do_not_depend_on_threads():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (300, 517)).astype(np.uint8), rng.integers(-128, 128, (517, 333)).astype(np.int8)
    results = []
    for threads in (1, 2, 5, 2, 1):
        set_num_threads(threads)
        results += [rq.ops.matmul_integer(a, b) for _ in range(5)]
    assert all(np.array_equal(r, results[0]) for r in results)


@pytest.mark.parametrize("part", [0, 1])
def test_an_error_arrives(part):
    set_num_threads(2)

    def work(start, stop):
        if (start > 0) == part:
            raise ValueError("from a part")

    for _ in range(3):
        with pytest.raises(ValueError, match="from a part"):
            parallel_for(work, 2)
    seen = np.zeros(2)
    parallel_for(lambda start, stop: seen.__setitem__(slice(start, stop), 1), 2)
    assert seen.all()


def test_callers_that_meet():
    """A second caller does not wait for helpers that are taken: it does all its work itself."""
    set_num_threads(2)
    sums = np.zeros((8, 64))

    def call(i):
        for _ in range(50):
            parallel_for(lambda start, stop: sums[i].__setitem__(slice(start, stop), sums[i, start:stop] + 1), 64)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (sums == 50).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_after_a_fork():
    code = """
import os, numpy as np, refquant as rq
from refquant.kernels.jit import parallel_for, set_num_threads
set_num_threads(2)
def work(start, stop, out): out[start:stop] += 1
def check():
    out = np.zeros(10); parallel_for(work, 10, out); assert out.all()
check()
child = os.fork()
check()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=120).returncode == 0
