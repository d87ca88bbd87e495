"""Fake works and a fake clock for tests of the timing harness."""

import numpy as np

from refquant.backends.bench.case import Case, Plan, Role, Work

BITS = np.arange(12, dtype=np.int32)
MACHINE = {
    "cpu": "A processor with a rather long name (family 1, model 2)", "avx512_vnni": True, "amx_int8": False, "features": [], "threads": 2,
    "processors": 4, "load": 0.1,
    "versions": {"refquant": "0.1.0", "python": "3.11", "numpy": "2.4.6", "numba": "0.68.1", "torch": "2.13.0+cpu", "onnxruntime": None},
}  # fmt: skip


class Clock:
    """Time that passes only while somebody works; remembers who did."""

    def __init__(self):
        self.now, self.calls, self.read = 0.0, [], 0

    def __call__(self):
        self.read += 1
        return self.now

    def worker(self, name, seconds, bits=BITS):
        """Return a call that takes `seconds`: a number, or a function of how often it was called before."""
        count = iter(range(10**9))

        def call():
            self.calls.append(name)
            self.now += seconds(next(count)) if callable(seconds) else seconds
            return bits

        return call


def duel(clock, ours=1.0, theirs=2.0, *, theirs_bits=BITS, name="case", group="", operations=0, warm=True):
    case = Case(name, group, operations, warm=warm)
    case.add("refquant", lambda: clock.worker("refquant", ours), Role.SUBJECT, bits=np.array)
    case.add("rival", lambda: clock.worker("rival", theirs, theirs_bits), bits=np.array)
    return case


def contest(clock, name="fake", cases=None, bars=(), **options):
    cases = cases or [duel(clock)]
    return Work(name, f"Title of {name}", lambda: [Plan(c.name, c.group, lambda settings, c=c: c) for c in cases], bars, **options)


def ratios(results):
    return [r.ratio for r in results]


def wrong():
    bits = BITS.copy()
    bits[7] += 1
    return bits
