"""Record golden vectors from the engines that are installed: ``python -m refquant.backends.record [FOLDER]``.

Every operator of every engine, a choice of small hard cases each: those that tell the engine from its profile with one field changed.
All engines must be there, and the files are exchanged at once; an operator whose bits differ from the oracle's is left out and named.
"""

import sys
from datetime import date
from itertools import islice

from refquant import backends
from refquant.errors import RefquantError, UnsupportedError
from refquant.verify import STREAMS, Status, Vector, build, case_stream, compare, mutants, oracle, try_problem, vectors_folder, write_vectors
from refquant.version import VERSION

__all__ = ["record", "main"]

_SEED = 20261123
_TRIED = 300
_OUTPUTS = 800
_BYTES = 3500
_LEAST_OUTPUTS, _LEAST_CASES = 500, 4
_COMMAND = "python -m refquant.backends.record"


class Finding(Exception):
    """An engine's bits are not the oracle's, so they are no golden vectors yet."""


def _weight(problem):
    """Return the bytes of a problem's arrays."""
    total = 0
    for value in problem.arguments.values():
        for item in value if isinstance(value, tuple) else (value,):
            total += getattr(getattr(item, "values", item), "nbytes", 0)
    return total


def _vectors(runner, op):
    """Collect small cases that tell the engine from a mutant of its profile which no earlier case told; and a few more."""
    vectors, outputs, alive = [], 0, list(mutants(runner.profile, op))
    for case in islice(case_stream(op, runner.profile, seed=_SEED), _TRIED):
        enough = outputs >= _LEAST_OUTPUTS and len(vectors) >= _LEAST_CASES
        if not alive and enough:
            break
        problem = build(case)
        if _weight(problem) > _BYTES or runner.supports(problem):
            continue
        trial = try_problem(runner, problem, case)
        if trial.outcome.status is Status.DIFFERENT:
            raise Finding(f"{case} differs from the oracle\n{trial.outcome.detail}")
        if trial.outcome.status is not Status.EXACT or trial.comparison.outputs > _OUTPUTS:
            continue
        bits = runner.run(problem)
        missed = [mutant for mutant in alive if _agrees(problem, mutant, bits)]
        if len(missed) < len(alive) or not enough:
            vectors.append(Vector(str(case), runner.profile, problem, bits))
            outputs, alive = outputs + bits.size, missed
    return vectors


def _agrees(problem, mutant, bits):
    try:
        return compare(oracle(problem, mutant.profile), bits).exact
    except UnsupportedError:
        return True


def record(names=None, *, report=lambda text: None):
    """Return ``{(op, engine): (provenance, vectors)}`` and the findings: operators that are left out, as the engine's bits are not the oracle's.

    Raises
    ------
    BackendMissing
        One of the engines is not installed.
    """
    groups, findings = {}, []
    for name in names or backends.names():
        runner = backends.load(name)
        provenance = {**runner.describe(), "command": _COMMAND, "refquant": VERSION, "date": date.today().isoformat()}
        for op in STREAMS:
            try:
                vectors = _vectors(runner, op)
            except Finding as finding:
                findings.append(f"{op} on {name} is left out: {finding}")
                report(findings[-1])
                continue
            if vectors:
                groups[op, name] = (provenance, vectors)
                report(f"{op} on {name}: {len(vectors)} cases, {sum(v.bits.size for v in vectors)} outputs")
    return groups, findings


def main(argv=None):
    """Record into a folder: the one given, or that of the vectors that come with refquant. Status 1 if anything was left out."""
    arguments = sys.argv[1:] if argv is None else argv
    folder = arguments[0] if arguments else vectors_folder()
    try:
        groups, findings = record(report=lambda text: print(text, flush=True))
        index = write_vectors(groups, folder)
    except RefquantError as error:
        print(f"refquant: {error}", file=sys.stderr)
        return 2
    print(f"{folder}: {len(index['files'])} files, {len(findings)} operators left out")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
