"""Every operator gives the same bits on any number of threads, also where parts are as small as they can be."""

from itertools import islice

import numpy as np
import pytest

from refquant import numerics
from refquant.errors import RefquantError
from refquant.kernels.jit import get_num_threads, jit_disabled, kernel, parallel_for, set_num_threads, shared_by
from refquant.kernels.threads import Helpers
from refquant.ops.support import Support, support
from refquant.verify import compare
from refquant.verify.build import build
from refquant.verify.compare import Status
from refquant.verify.default_cases import STREAMS, case_stream
from refquant.verify.problem import oracle

pytestmark = pytest.mark.skipif(jit_disabled(), reason="without a compiler there is one thread")

_CASES = 6


class Finest(Helpers):
    """Threads that share out whatever can be cut, however little it is."""

    loops = 0

    def run(self, run, parts, count, least, args):
        self.loops += count > 1
        super().run(run, min(get_num_threads(), count), count, 1, args)


@pytest.fixture(scope="module")
def finest():
    before = get_num_threads()
    helpers = Finest()
    with shared_by(helpers):
        yield helpers
    set_num_threads(before)


def on_threads(threads, function):
    set_num_threads(threads)
    return function()


def profiles_of(op):
    """Two profiles with an operator, the farther apart in the table the better."""
    found = [name for name in numerics.names() if "+" not in name and support(op, name)[0] in (Support.SAME, Support.EXACT)]
    return list(dict.fromkeys([found[0], found[-1]]))


@pytest.mark.parametrize("op", STREAMS)
def test_bits_do_not_depend_on_threads(op, finest):
    tried = 0
    for profile in profiles_of(op):
        for case in islice(case_stream(op, profile), _CASES):
            problem = build(case)
            try:
                ref = on_threads(1, lambda: oracle(problem, profile))
            except RefquantError:
                continue
            tried += 1
            for threads in (2, 3, 5):
                comp = on_threads(threads, lambda: oracle(problem, profile))
                assert compare(ref, comp).status is not Status.DIFFERENT, f"{case} on {threads} threads: {compare(ref, comp)}"
    assert tried >= 3


@kernel
def _running_sum(start, stop, x, y):
    """Depends on where a part begins, which no kernel may."""
    total = 0
    for i in range(start, stop):
        total += x[i]
        y[i] = total


def test_a_kernel_that_depends_on_its_part_is_found(finest):
    x = np.arange(1, 10_000)

    def run():
        y = np.zeros_like(x)
        parallel_for(_running_sum, x.size, x, y, grain=1 << 20)
        return y

    before = finest.loops
    ref = on_threads(1, run)
    assert np.array_equal(ref, x.cumsum()) and finest.loops == before + 1
    assert compare(ref, on_threads(2, run)).status is Status.DIFFERENT
