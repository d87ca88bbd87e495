"""Threads: disjoint parts of all work, errors that arrive, callers that meet."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import refquant as rq
from refquant.kernels.jit import get_num_threads, jit_disabled, kernel, parallel_for, set_num_threads

pytestmark = pytest.mark.skipif(jit_disabled(), reason="without a compiler there is one thread")


@pytest.fixture(autouse=True)
def threads_as_before():
    before = get_num_threads()
    yield
    set_num_threads(before)


@kernel
def add_one(start, stop, out):
    for i in range(start, stop):
        out[i] += 1


@kernel
def write_squares(start, stop, x, pair, out):
    """Takes more than arrays, and a buffer of its own."""
    scale, rows = pair
    buffer = np.empty(x.shape[1], np.int64)
    for i in range(start, stop):
        for j in range(x.shape[1]):
            buffer[j] = np.int64(x[i, j]) * x[i, j]
        out[i] = scale * buffer.sum() + rows[i]


@kernel
def find_no_memory(start, stop, limit):
    for i in range(start, stop):
        if i >= limit:
            raise MemoryError("none")


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 6, 7, 100])
@pytest.mark.parametrize("grain", [1, 3, 1000])
def test_each_part_once(threads, count, grain):
    set_num_threads(threads)
    seen = np.zeros(count, np.int64)
    for _ in range(20):
        parallel_for(add_one, count, seen, grain=grain)
    assert (seen == 20).all()


def test_arguments_and_buffers():
    rng = np.random.default_rng(0)
    x, rows = rng.integers(-100, 100, (999, 7)).astype(np.int8)[::-1], rng.integers(0, 9, 999)
    ref = 3 * (x.astype(np.int64) ** 2).sum(1) + rows
    for threads in (1, 2, 3, 5):
        set_num_threads(threads)
        for _ in range(20):
            comp = np.zeros(999, np.int64)
            parallel_for(write_squares, 999, x, (3, rows), comp)
            assert np.array_equal(comp, ref)


def test_helpers_that_slept_wake_up():
    set_num_threads(3)
    seen = np.zeros(64, np.int64)
    for _ in range(3):
        parallel_for(add_one, 64, seen)
        time.sleep(0.02)
    assert (seen == 3).all()


def test_results_do_not_depend_on_threads():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (300, 517)).astype(np.uint8), rng.integers(-128, 128, (517, 333)).astype(np.int8)
    results = []
    for threads in (1, 2, 5, 2, 1):
        set_num_threads(threads)
        results += [rq.ops.matmul_integer(a, b) for _ in range(5)]
    assert all(np.array_equal(r, results[0]) for r in results)


@pytest.mark.parametrize("limit", [0, 90])
def test_an_error_arrives(limit):
    """Wherever it comes up; and the threads go on."""
    for threads in (1, 2, 3):
        set_num_threads(threads)
        for _ in range(3):
            with pytest.raises(MemoryError, match="free some"):
                parallel_for(find_no_memory, 100, limit)
        seen = np.zeros(100, np.int64)
        parallel_for(add_one, 100, seen)
        assert (seen == 1).all()


def test_callers_that_meet():
    """A second caller does not wait for helpers that are taken: it does all its work itself."""
    set_num_threads(2)
    sums = np.zeros((8, 64), np.int64)

    def call(i):
        for _ in range(50):
            parallel_for(add_one, 64, sums[i])

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
from refquant.kernels.jit import kernel, parallel_for, set_num_threads
set_num_threads(2)
@kernel
def add_one(start, stop, out):
    for i in range(start, stop):
        out[i] += 1
def check():
    out = np.zeros(10, np.int64)
    for _ in range(20): parallel_for(add_one, 10, out)
    assert (out == 20).all()
check()
child = os.fork()
check()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=120).returncode == 0
