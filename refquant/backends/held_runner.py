"""An engine of PyTorch held to a lower processor level, in a worker process of its own."""

import os
import subprocess
import sys
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

import refquant
from refquant.backends.held_frames import read_frame, write_frame
from refquant.verify.held import followed, refuse, switches
from refquant.verify.problem import to_plain

__all__ = ["HeldRunner"]


class HeldRunner:
    """A quantized engine of PyTorch whose libraries are held to a processor level by their environment variables.

    The variables are read when the libraries are loaded, so the engine runs in a process of its own, which lives as long as the
    runner and answers case after case.

    Parameters
    ----------
    name : {"onednn", "fbgemm", "x86"}
    level : str
        Of `refquant.isa.cpu.LEVELS`, such as ``"avx2"``.

    Raises
    ------
    ArgumentError
        The engine obeys no such variable, or the level is unknown.
    BackendMissing
        This processor, or the engine, does not reach the level.
    """

    def __init__(self, name, level):
        self.name, self.profile = f"{name}@{level}", followed(name, level)
        self.variables = switches(name, level)
        self._asked = name, level
        self._process = None

    def describe(self):
        """Return the provenance of results, the variables included."""
        return {**self._ask({"ask": "describe"})[0], "engine": self.name, "environment": dict(self.variables)}

    def supports(self, problem):
        """Return None, or why this engine cannot be asked."""
        reason = refuse(problem, *self._asked)
        return reason or self._ask_problem("supports", problem)[0]["reason"]

    def run(self, problem):
        """Return the engine's codes or numbers."""
        return self._ask_problem("run", problem)[1][0]

    def close(self):
        """End the worker; the next question starts another."""
        if self._process is not None:
            self._stop()
            self._process = None

    def _ask_problem(self, what, problem):
        described, arrays = to_plain(problem)
        return self._ask({"ask": what, "problem": described}, arrays)

    def _ask(self, head, arrays=()):
        if self._process is None:
            self._start()
        try:
            write_frame(self._process.stdin, head, arrays)
            answer = read_frame(self._process.stdout)
        except OSError:
            answer = None
        if answer is None:
            self._log.seek(0)
            last = self._log.read().decode(errors="replace").strip().splitlines()[-3:]
            self.close()
            raise RuntimeError(f"the worker of {self.name} ended: {' '.join(last) or 'it said nothing'}")
        if "error" in answer[0]:
            raise RuntimeError(answer[0]["error"])
        return answer

    def _start(self):
        home = str(Path(refquant.__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, **self.variables, "PYTHONPATH": path}
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "refquant.backends.held_worker", self._asked[0]], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log, env=environment,
        )  # fmt: skip
        self._stop = weakref.finalize(self, _end, self._process, self._log)


def _end(process, log):
    """A worker ends where its questions do."""
    with suppress(OSError):
        process.stdin.close()
    process.stdout.close()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    log.close()
