"""Record golden vectors from the engines that are installed: ``python -m refquant.backends.record [FOLDER] [--op OP ...] [--missing]``.

Every operator of every engine, a choice of small hard cases each: those that tell the engine from its profile with one field changed.
All engines must be there, and the files are exchanged at once; an operator whose bits differ from the oracle's is left out and named.

Vectors of a processor without AVX512-VNNI are those of ``ENGINE@LEVEL``, in files of their own; the files of other levels stay as they are.
"""

import argparse
import sys
from datetime import date
from itertools import islice
from pathlib import Path

from refquant import backends
from refquant.backends.machine import level_here
from refquant.errors import RefquantError, UnsupportedError
from refquant.numerics import get
from refquant.verify import (
    STREAMS, Status, Vector, build, case_stream, compare, mutants, oracle, read_index, read_vectors, try_problem, vectors_folder, write_vectors,
)  # fmt: skip
from refquant.verify.mutants import sections_of
from refquant.verify.special_streams import SPECIAL_STREAMS
from refquant.version import VERSION

__all__ = ["label", "record", "kept", "main"]

_SEED = 20261123
_TRIED, _TRIED_SPECIAL = 300, 200
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


def _told(op, package, profile):
    """Return what tells an engine's vectors of an operator from another's of the same package: its forms."""
    return (op, package, *(getattr(get(profile), section) for section in sections_of(op)))


def label(name):
    """Return the name of an engine's vectors: its own, with the level of this processor where that is below AVX512-VNNI."""
    level = level_here()
    return name if level is None else f"{name}@{level}"


def record(names=None, *, ops=None, folder=None, report=lambda text: None):
    """Return ``{(op, engine): (provenance, vectors)}`` and the findings: operators that are left out, as the engine's bits are not the oracle's.

    Of operators that few engines have, engines of one package that share their forms are recorded once.

    Parameters
    ----------
    names : sequence of str, optional
        Engines; all unless given.
    ops : sequence of str, optional
        Operators; all unless given.
    folder : path, optional
        Of vectors. Only what these lack is recorded then: other operators of an engine, and forms that no engine of its package has there.
    report : callable, optional

    Raises
    ------
    BackendMissing
        One of the engines is not installed.
    """
    groups, findings = {}, []
    there, told = _recorded(folder) if folder else (set(), set())
    for name in names or backends.names():
        runner = backends.load(name)
        provenance = {**runner.describe(), "command": _COMMAND, "refquant": VERSION, "date": date.today().isoformat()}
        for op in ops or STREAMS:
            forms = _told(op, provenance["package"], runner.profile)
            if (op, name) in there or (forms in told and (folder or op in SPECIAL_STREAMS)):
                continue
            try:
                vectors = _vectors(runner, op)
            except Finding as finding:
                findings.append(f"{op} on {name} is left out: {finding}")
                report(findings[-1])
                continue
            if vectors:
                told.add(forms)
                groups[op, label(name)] = (provenance, vectors)
                report(f"{op} on {label(name)}: {len(vectors)} cases, {sum(v.bits.size for v in vectors)} outputs")
    return groups, findings


def _recorded(folder):
    """Return the operators of engines in a folder of vectors, on whatever level, and what their forms tell."""
    index = read_index(folder)
    there = {(entry["op"], entry["engine"].partition("@")[0]) for entry in index["files"].values()}
    told = {_told(entry["op"], index["engines"][entry["engine"]]["package"], read_vectors(name, folder)[0].profile) for name, entry in index["files"].items()}
    return there, told


def kept(folder, groups, replaced):
    """Return those vectors of a folder that stay beside new ones.

    Parameters
    ----------
    folder : path
    groups : dict
        Of `record`.
    replaced : callable
        Whether vectors of an operator on the level of this processor go.

    Raises
    ------
    RefquantError
        Others of one engine and level are of another version, or of another processor.
    """
    if not (Path(folder) / "index.json").exists():
        return {}
    index = read_index(folder)
    stay = {name: e for name, e in index["files"].items() if e["engine"] != label(e["engine"].partition("@")[0]) or not replaced(e["op"])}
    for engine in {entry["engine"] for entry in stay.values()} & {engine for _, engine in groups}:
        now, then = next(p for (_, e), (p, _) in groups.items() if e == engine), index["engines"][engine]
        if (now["version"], now["cpu"]) != (then["version"], then["cpu"]):
            raise RefquantError(
                f"record: {engine} is {now['version']} on {now['cpu']} but its other vectors are of {then['version']} on {then['cpu']}; record all of it, without --op or --missing"
            )
    return {(entry["op"], entry["engine"]): (index["engines"][entry["engine"]], read_vectors(name, folder)) for name, entry in stay.items()}


def main(argv=None):
    """Record into a folder: the one given, or that of the vectors that come with refquant. Status 1 if anything was left out."""
    parser = argparse.ArgumentParser(prog=_COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default=vectors_folder(), help="where to; the vectors that come with refquant unless given")
    parser.add_argument("--op", action="append", choices=list(STREAMS), help="this operator alone, the others stay as they are; may be repeated")
    parser.add_argument("--missing", action="store_true", help="only what has no vectors yet, on any level; all that are there stay as they are")
    arguments = parser.parse_args(argv)
    folder, ops = arguments.folder, arguments.op or STREAMS
    try:
        groups, findings = record(ops=ops, folder=folder if arguments.missing else None, report=lambda text: print(text, flush=True))
        index = write_vectors({**kept(folder, groups, lambda op: op in ops and not arguments.missing), **groups}, folder)
    except RefquantError as error:
        print(f"refquant: {error}", file=sys.stderr)
        return 2
    print(f"{folder}: {len(index['files'])} files, {len(findings)} operators left out")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
