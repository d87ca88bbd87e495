"""Record golden vectors from the engines that are installed: ``python -m refquant.backends.record [FOLDER] [--op OP ...]``.

Every operator of every engine, a choice of small hard cases each: those that tell the engine from its profile with one field changed.
All engines must be there, and the files are exchanged at once; an operator whose bits differ from the oracle's is left out and named.
"""

import argparse
import sys
from datetime import date
from itertools import islice

from refquant import backends
from refquant.errors import RefquantError, UnsupportedError
from refquant.numerics import get
from refquant.verify import (
    STREAMS, Status, Vector, build, case_stream, compare, mutants, oracle, read_index, read_vectors, try_problem, vectors_folder, write_vectors,
)  # fmt: skip
from refquant.verify.mutants import sections_of
from refquant.verify.special_streams import SPECIAL_STREAMS
from refquant.version import VERSION

__all__ = ["record", "main"]

_SEED = 20261123
_TRIED, _TRIED_SPECIAL = 300, 120
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
    # What the forms of an operator that is made of others say is for the vectors of those to tell.
    tried = _TRIED_SPECIAL if op in SPECIAL_STREAMS else _TRIED
    for case in islice(case_stream(op, runner.profile, seed=_SEED), tried):
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


def _told(op, runner):
    """Return what tells an engine's vectors of an operator that few engines have from another's of the same package: its forms."""
    return (op, runner.describe()["package"], *(getattr(get(runner.profile), section) for section in sections_of(op)))


def record(names=None, *, ops=None, report=lambda text: None):
    """Return ``{(op, engine): (provenance, vectors)}`` and the findings: operators that are left out, as the engine's bits are not the oracle's.

    Of operators that few engines have, engines of one package that share their forms are recorded once.

    Parameters
    ----------
    names : sequence of str, optional
        Engines; all unless given.
    ops : sequence of str, optional
        Operators; all unless given.
    report : callable, optional

    Raises
    ------
    BackendMissing
        One of the engines is not installed.
    """
    groups, findings, told = {}, [], set()
    for name in names or backends.names():
        runner = backends.load(name)
        provenance = {**runner.describe(), "command": _COMMAND, "refquant": VERSION, "date": date.today().isoformat()}
        for op in ops or STREAMS:
            if op in SPECIAL_STREAMS and _told(op, runner) in told:
                continue
            try:
                vectors = _vectors(runner, op)
            except Finding as finding:
                findings.append(f"{op} on {name} is left out: {finding}")
                report(findings[-1])
                continue
            if vectors:
                told.add(_told(op, runner))
                groups[op, name] = (provenance, vectors)
                report(f"{op} on {name}: {len(vectors)} cases, {sum(v.bits.size for v in vectors)} outputs")
    return groups, findings


def _kept(folder, ops, groups):
    """Return the vectors of other operators, if they are of the engines that record now."""
    index = read_index(folder)
    for _, engine in groups:
        now, then = next(p for (_, e), (p, _) in groups.items() if e == engine), index["engines"].get(engine)
        if then and (now["version"], now["cpu"]) != (then["version"], then["cpu"]):
            raise RefquantError(
                f"record: {engine} is {now['version']} on {now['cpu']} but its other vectors are of {then['version']} on {then['cpu']}; record all of it, without --op"
            )
    return {(entry["op"], entry["engine"]): (index["engines"][entry["engine"]], read_vectors(name, folder)) for name, entry in index["files"].items() if entry["op"] not in ops}


def main(argv=None):
    """Record into a folder: the one given, or that of the vectors that come with refquant. Status 1 if anything was left out."""
    parser = argparse.ArgumentParser(prog=_COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default=vectors_folder(), help="where to; the vectors that come with refquant unless given")
    parser.add_argument("--op", action="append", choices=list(STREAMS), help="this operator alone, the others stay as they are; may be repeated")
    arguments = parser.parse_args(argv)
    folder = arguments.folder
    try:
        groups, findings = record(ops=arguments.op, report=lambda text: print(text, flush=True))
        if arguments.op:
            groups = {**_kept(folder, arguments.op, groups), **groups}
        index = write_vectors(groups, folder)
    except RefquantError as error:
        print(f"refquant: {error}", file=sys.stderr)
        return 2
    print(f"{folder}: {len(index['files'])} files, {len(findings)} operators left out")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
