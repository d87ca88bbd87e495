"""Record golden vectors from the engines that are installed: ``python -m refquant.backends.record [FOLDER]``.

Every operator of every engine, a fixed choice of small hard cases each. All are recorded, or nothing is written.
"""

import sys
from datetime import date

from refquant import backends
from refquant.errors import RefquantError
from refquant.verify import STREAMS, Status, Vector, build, case_stream, try_problem, vectors_folder, write_vectors

__all__ = ["record", "main"]

_SEED = 20261123
_OUTPUTS = 1500
_BYTES = 9000
_COMMAND = "python -m refquant.backends.record"


def _weight(problem):
    """Return the bytes of a problem's arrays."""
    total = 0
    for value in problem.arguments.values():
        for item in value if isinstance(value, tuple) else (value,):
            total += getattr(getattr(item, "values", item), "nbytes", 0)
    return total


def _vectors(runner, op, profile):
    """Collect small cases until they have enough outputs or bytes; one that the oracle misses is refused."""
    vectors, outputs, weight, tried = [], 0, 0, 0
    for case in case_stream(op, profile, seed=_SEED):
        tried += 1
        if outputs >= _OUTPUTS or weight >= _BYTES or tried > 60:
            return vectors
        problem = build(case)
        if _weight(problem) > _BYTES // 2:
            continue
        trial = try_problem(runner, problem, case)
        if trial.outcome.status is Status.DIFFERENT:
            raise RefquantError(f"record: {case} differs from the oracle, so it is a finding and no golden vector; repair the profile first\n{trial.outcome.detail}")
        if trial.outcome.status is Status.EXACT:
            vectors.append(Vector(str(case), profile, problem, runner.run(problem)))
            outputs, weight = outputs + vectors[-1].bits.size, weight + _weight(problem)
    return vectors


def record(names=None, *, report=lambda text: None):
    """Return ``{(op, engine): (provenance, vectors)}`` of the installed engines.

    Raises
    ------
    BackendMissing
        One of the engines is not installed.
    """
    groups = {}
    for name in names or backends.names():
        runner = backends.load(name)
        provenance = {**runner.describe(), "command": _COMMAND, "date": date.today().isoformat()}
        for op in STREAMS:
            vectors = _vectors(runner, op, runner.profile)
            if vectors:
                groups[op, name] = (provenance, vectors)
                report(f"{op} on {name}: {len(vectors)} cases, {sum(v.bits.size for v in vectors)} outputs")
    return groups


def main(argv=None):
    """Record into a folder: the one given, or that of the vectors that come with refquant."""
    arguments = sys.argv[1:] if argv is None else argv
    folder = arguments[0] if arguments else vectors_folder()
    try:
        files = write_vectors(record(report=print), folder)
    except RefquantError as error:
        print(f"refquant: {error}", file=sys.stderr)
        return 2
    print(f"{folder}: {len(files)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
