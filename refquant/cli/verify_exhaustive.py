"""``refquant verify --exhaustive``: whole domains on live engines, in pieces, on all cores."""

import os
import time

from refquant import backends
from refquant.backends.pieces import sweep_piece
from refquant.cli.console import Progress, bar, interruption, paint
from refquant.errors import ArgumentError, choose
from refquant.numerics.coverage import conditions
from refquant.verify.exhaustive import ONE_KERNEL, QUANTIZE_SETS, REQUANTIZE_SETS, ROUTES, SWEEPS
from refquant.verify.piece_log import PieceLog
from refquant.verify.pieces import work_through

__all__ = ["verify_exhaustive"]

_ROW = "{:<11}  {:<11}  {:<34}  {:>15}  {:>9}  {:>7}  {}"
_SHOWN = 3


def verify_exhaustive(arguments, engines):
    """Run the sweeps and return the exit status: 1 where a bit is unexplained.

    Parameters
    ----------
    arguments : argparse.Namespace
        ``only``, ``sets``, ``minutes``, ``workers``, ``log``.
    engines : list of Engine
    """
    begin = time.monotonic()
    names = [choose("verify --exhaustive", "--only", name, SWEEPS) for name in arguments.only or SWEEPS]
    there = [engine.name for engine in engines if backends.installed(engine.name)]
    if not there:
        raise ArgumentError("verify --exhaustive: asks live engines but none is installed; see refquant verify --list")
    tasks = [task for name in names for task in SWEEPS[name][0](there) if arguments.sets is None or task.get("set", 0) < arguments.sets]
    versions = {name: backends.load(name).describe()["version"] for name in there}
    log = PieceLog(arguments.log, {"what": "exhaustive", "engines": versions})
    done = sum(task["key"] in log.pieces for task in tasks)
    print(f"{len(tasks):,} pieces of {', '.join(names)}" + (f"; {done:,} were done before" if done else ""), flush=True)
    workers = arguments.workers or len(os.sched_getaffinity(0))
    deadline = begin + 60 * arguments.minutes if arguments.minutes else None
    progress, interrupted = Progress(), False
    try:
        for number, piece in enumerate(work_through(tasks, timed_piece, log, workers=workers, deadline=deadline), done + 1):
            left = (time.monotonic() - begin) / max(number - done, 1) * (len(tasks) - number)
            progress.show(f"{bar(number / len(tasks))} {piece['what']} on {piece['engine']}, about {left / 60:.0f} min left")
    except KeyboardInterrupt:
        interrupted = True
    progress.clear()
    status = _print(tasks, log, time.monotonic() - begin)
    if interrupted:
        print(interruption(arguments.log))
    return 130 if interrupted else status


def timed_piece(task):
    """Run one piece and say how long it took."""
    start = time.monotonic()
    return {**sweep_piece(task), "seconds": time.monotonic() - start}


def _detail(task):
    if task["what"] == "quantize":
        return "scale {:.6g}, zero point {}".format(*QUANTIZE_SETS[task["set"]])
    if task["what"] == "requantize":
        s = REQUANTIZE_SETS[task["set"]]
        return f"{ROUTES[task['engine']].op}, multiplier {s.sx * s.sw / s.sy:.7g}"
    return task["op"] + (f" {task['dtype']}" if "dtype" in task else "")


def _print(tasks, log, seconds):
    print(_ROW.format("sweep", "engine", "of", "outputs", "differing", "seconds", "verdict"))
    groups, unexplained, outputs, missing = {}, 0, 0, 0
    for task in tasks:
        groups.setdefault((task["what"], task["engine"], _detail(task)), []).append(log.pieces.get(task["key"]))
    silent = {}
    for (what, engine, detail), pieces in groups.items():
        found = [piece for piece in pieces if piece is not None]
        missing += len(pieces) - len(found)
        reason = next((piece["reason"] for piece in found if piece["reason"]), "")
        if reason or not found:
            silent.setdefault(reason or "no time was left", []).append(f"{what} {detail} on {engine}")
            continue
        unexplained += _print_group(what, engine, detail, pieces, found)
        outputs += sum(piece["outputs"] for piece in found)
    print()
    print(paint(f"{outputs:,} outputs compared in {seconds:.0f} s, {unexplained:,} differ", "red" if unexplained else "green"))
    shared = {engine: [name for name, other in ONE_KERNEL.items() if other == engine] for engine in set(ONE_KERNEL.values())}
    for engine, others in shared.items():
        print(f"quantize of {', '.join(others)} is the kernel of {engine}, swept once")
    for reason, items in silent.items():
        print(f"not compared, {reason}: {len(items)} ({items[0]}{', …' if len(items) > 1 else ''})")
    if missing:
        print(f"{missing:,} pieces are left; the same command with --log goes on")
    if not outputs:
        raise ArgumentError("verify --exhaustive: nothing was compared, so nothing is verified; see refquant verify --list")
    return 1 if unexplained else 0


def _print_group(what, engine, detail, pieces, found):
    """Print one line and return how many outputs differ without an explanation."""
    outputs, differing = (sum(piece[name] for piece in found) for name in ("outputs", "differing"))
    libm = what == "unary" and any(text.startswith("libm") for text in conditions(found[0]["op"], engine))
    verdict = "EXACT" if not differing else "EXPLAINED (libm)" if libm else "DIFFERENT"
    part = "" if len(found) == len(pieces) else f", {len(found)} of {len(pieces)} pieces"
    again = sum(piece.get("again", 0) for piece in found)
    part += f", {again:,} asked again alone" if again else ""
    colour = "green" if not differing else "yellow" if libm else "red"
    print(_ROW.format(what, engine, detail, f"{outputs:,}", f"{differing:,}", f"{sum(p['seconds'] for p in found):.1f}", paint(verdict, colour) + part), flush=True)
    for text in [text for piece in found for text in piece["first"]][:_SHOWN]:
        print(f"    {text}")
    return 0 if libm else differing
