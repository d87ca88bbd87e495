"""The generator's power as a table: how many outputs until two profiles, or a planted fault, are told apart."""

import json

from refquant.cli.console import Progress, paint, table
from refquant.core.files import check_writable, write_whole
from refquant.verify.power import BUDGET, SAME_BITS, operators, separate_faults, separate_profiles

__all__ = ["show_power"]

_HEAD = ("operator", "told apart", "of", "kind", "median outputs", "90 %", "most outputs", "the hardest")
_KINDS = {"profiles": "pairs of profiles", "fault": "planted faults"}


def show_power(ops=None, budget=BUDGET, seed=0, path=None):
    """Print after how many outputs default cases tell apart what differs; return the exit status: 1 where something is not within the budget.

    Parameters
    ----------
    ops : list of str, optional
    budget : int
        Outputs.
    seed : int
    path : path, optional
        Where to write every number as JSON.
    """
    if path:
        check_writable(path)
    progress, rows = Progress(), []
    for op in [op for op in operators() if not ops or op in ops]:
        for separate in (separate_profiles, separate_faults):
            progress.show(f"{op}: {'profiles' if separate is separate_profiles else 'planted faults'}")
            rows += separate(op, budget=budget, seed=seed)
    progress.clear()
    groups = {key: [s for s in rows if (s.op, s.kind) == key] for key in dict.fromkeys((s.op, s.kind) for s in rows)}
    print(*table([_HEAD, *(_row(*key, group) for key, group in groups.items())], {1, 2, 4, 5, 6}), sep="\n")
    missed = [s for s in rows if s.outputs is None]
    print()
    for s in missed:
        print(paint(f"not told apart within {budget:,} outputs ({s.cases} cases): {s.op}, {s.what}", "red"))
    verdict = f"{len(rows) - len(missed):,} of {len(rows):,} told apart by the cases that {budget:,} outputs of an operator take"
    print(paint(verdict, "red" if missed else "green"))
    for op, one, others, why in SAME_BITS:
        if not ops or op in ops:
            print(f"{op} of {one} and {', '.join(others)}: two forms, the same bits: {why}")
    if path:
        write_whole(path, (json.dumps({"budget": budget, "seed": seed, "separations": [s._asdict() for s in rows]}, indent=1) + "\n").encode())
    return 1 if missed else 0


def _row(op, kind, group):
    found = sorted((s for s in group if s.outputs is not None), key=lambda s: s.outputs)
    at = lambda share: f"{found[min(int(len(found) * share), len(found) - 1)].outputs:,}" if found else "-"  # noqa: E731
    return (op, f"{len(found):,}", f"{len(group):,}", _KINDS[kind], at(0.5), at(0.9), at(1.0), found[-1].what if found else "")
