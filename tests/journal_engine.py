"""An engine for the tests of journals: the oracle, but for one wrong bit here and there, a refusal and an error."""

import os
import signal

import numpy as np

from refquant.verify import Status, oracle
from refquant.verify.journal import Result, run_campaign

OPS, OUTPUTS = ("add", "quantize", "relu"), 600000


class Sloppy:
    """What it does wrong depends on the problem alone."""

    def __init__(self, name):
        self.name = self.profile = name

    def describe(self):
        return {"engine": self.name, "package": "sloppy", "version": "1", "cpu": "any", "features": [], "threads": 1}

    def supports(self, problem):
        first = next(problem.quantized())
        return "int8 is not offered" if first.dtype == "int8" else None

    def run(self, problem):
        y = np.array(oracle(problem, self.profile))
        if y.size % 7 == 0 and problem.op == "quantize":
            raise ValueError("no multiples of seven")
        if problem.op == "add" and y.size > 2000:
            y.flat[-1] ^= 1
        return y


def load(name):
    return Sloppy(name)


def campaign(path, outputs=OUTPUTS, workers=1, executor=None):
    return run_campaign(path, ["onnx"], OPS, load=load, outputs=outputs, workers=workers, executor=executor)


def square(task):
    """A piece of work that needs no engine; one line kills the process that computes it."""
    if task.line == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task.line == "raise":
        raise RuntimeError("on purpose")
    return Result(Status.EXACT, outputs=int(task.line) ** 2)
