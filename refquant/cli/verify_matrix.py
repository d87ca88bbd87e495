"""``refquant verify --matrix``: every operator of every engine that the table calls exact, on fresh data."""

import os
import secrets
import time

from refquant import backends
from refquant.cli.console import Progress, bar, interruption, paint
from refquant.errors import ArgumentError
from refquant.verify.compare import Status
from refquant.verify.piece_log import PieceLog
from refquant.verify.matrix import CHUNK, cells, tasks
from refquant.verify.pieces import work_through

__all__ = ["verify_matrix"]

_ROW = "{:<19}  {:<11}  {:>13}  {:>9}  {:>8}  {}"
_SHOWN, _FEW = 3, 12
_COLOUR = {Status.EXACT: "green", Status.DIFFERENT: "red", Status.UNSUPPORTED: "dim", Status.EXPLAINED: "yellow"}


def verify_matrix(arguments, engines, ops):
    """Run the matrix and return the exit status: 1 where a bit is unexplained.

    Parameters
    ----------
    arguments : argparse.Namespace
        ``outputs``, ``total``, ``minutes``, ``seed``, ``workers``, ``log``, ``reasons``.
    engines : list of Engine
    ops : list of str
    """
    begin = time.monotonic()
    there = [engine.name for engine in engines if backends.installed(engine.name)]
    if not there:
        raise ArgumentError("verify --matrix: asks live engines but none is installed; see refquant verify --list")
    outputs, workers = arguments.outputs or CHUNK, arguments.workers or len(os.sched_getaffinity(0))
    versions = {name: backends.load(name).describe()["version"] for name in there}
    log = PieceLog(arguments.log, {"what": "matrix of drawn cases" if arguments.drawn else "matrix", "engines": versions, "seed": arguments.seed}, fresh={"seed": secrets.randbelow(2**31)})
    table = cells(there, ops)
    known = {(cell.engine, cell.op): cell for cell in table}
    for piece in log.pieces.values():
        if (piece["engine"], piece["op"]) in known:
            known[piece["engine"], piece["op"]].resume(piece)
    seed = log.header["seed"]
    asked = f"{outputs:,} outputs each" + (f", {arguments.total:,} in all" if arguments.total else "")
    print(f"seed {seed}; {len(table)} cells on {len(there)} engines, {asked}{_goes_on(log)}", flush=True)
    deadline = begin + 60 * arguments.minutes if arguments.minutes else None
    pieces = tasks(table, outputs=outputs, seed=seed, done=log.pieces, deadline=deadline, workers=workers, total=arguments.total or 0, drawn=bool(arguments.drawn))
    from refquant.backends.pieces import matrix_piece

    progress, interrupted = Progress(), False
    try:
        for piece in work_through(pieces, matrix_piece, log, workers=workers, deadline=deadline):
            known[piece["engine"], piece["op"]].take(piece)
            progress.show(_line(table, outputs, arguments.total or 0, begin, deadline))
    except KeyboardInterrupt:
        interrupted = True
    progress.clear()
    status = _print(arguments, table, outputs, time.monotonic() - begin)
    if interrupted:
        print(interruption(arguments.log))
    return 130 if interrupted else status


def _goes_on(log):
    return f"; goes on after {len(log.pieces)} pieces" if log.pieces else ""


def _line(table, outputs, total, begin, deadline):
    asked = [cell for cell in table if not cell.refused]
    compared = sum(cell.outputs for cell in table)
    share = sum(min(cell.outputs / outputs, 1) for cell in asked) / max(len(asked), 1)
    share = min(share, compared / max(total, 1)) if total else share
    if deadline is not None:
        share = max(share, min((time.monotonic() - begin) / (deadline - begin), 1))
    return f"{bar(share)} {compared:,} outputs, {sum(cell.differing for cell in table):,} differ"


def _print(arguments, table, least, seconds):
    print(_ROW.format("operator", "engine", "outputs", "differing", "seconds", "verdict"))
    for cell in table:
        if cell.status is Status.UNSUPPORTED and not arguments.reasons:
            continue
        verdict = paint(f"{cell.status}" + (f" (libm: {cell.explained})" if cell.explained else ""), _COLOUR[cell.status])
        print(_ROW.format(cell.op, cell.engine, f"{cell.outputs:,}", f"{cell.differing:,}", f"{cell.seconds:.1f}", verdict))
        for name, number in cell.variants.items():
            print(f"    {number:,} of these outputs are those of {name}; see refquant profiles {name}")
        for failure in cell.failures[:_SHOWN]:
            print(f"    refquant verify --case {failure['case']} --engine {cell.engine}")
            print("      " + failure["detail"].replace("\n", "\n      "))
        if len(cell.failures) > _SHOWN:
            print(f"    and {len(cell.failures) - _SHOWN} more cases")
    return _totals(arguments, table, least, seconds)


def _totals(arguments, table, least, seconds):
    outputs, differing, explained = (sum(getattr(cell, name) for cell in table) for name in ("outputs", "differing", "explained"))
    asked = [cell for cell in table if cell.outputs]
    print()
    colour = "red" if differing or any(cell.failures for cell in table) else "green"
    libm = f", {explained:,} by the last bit of libm" if explained else ""
    print(paint(f"{outputs:,} outputs of {len(asked)} cells compared in {seconds:.0f} s, {differing:,} differ{libm}", colour))
    data = {}
    for cell in table:
        for kind, number in cell.data.items():
            data[kind] = data.get(kind, 0) + number
    print("data: " + ", ".join(f"{kind} {number:,}" for kind, number in sorted(data.items(), key=lambda item: -item[1])))
    if not asked:
        raise ArgumentError("verify --matrix: nothing was compared, so nothing is verified; see --reasons and refquant verify --list")
    few = [cell for cell in table if cell.outputs < least and not cell.refused]
    names = ", ".join(f"{cell.op} on {cell.engine} ({cell.outputs:,})" for cell in few[:_FEW])
    print(f"cells below {least:,} outputs: " + (f"{len(few)}, {names}{', …' if len(few) > _FEW else ''}" if few else "none"))
    slow = sorted(asked, key=lambda cell: -cell.seconds)[:_SHOWN]
    print("slowest: " + ", ".join(f"{cell.op} on {cell.engine} {cell.seconds:.0f} s" for cell in slow))
    silent = [f"{cell.op} on {cell.engine}" for cell in table if cell.refused]
    if silent:
        print(f"not asked of the engine itself ({len(silent)}): {', '.join(silent)}")
    if arguments.reasons:
        _reasons(table)
    return 1 if any(cell.failures for cell in table) else 0


def _reasons(table):
    total = {}
    for cell in table:
        for reason, number in cell.reasons.items():
            total[reason] = total.get(reason, 0) + number
    print("cases that do not count:")
    for reason, number in sorted(total.items(), key=lambda item: -item[1]):
        print(f"  {number:>6,}  {reason}")
