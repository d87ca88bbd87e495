"""Functions of one code on all 256 codes, as pieces of the exhaustive run; the sweep itself is `refquant.verify.unary_sweep`."""

from refquant.verify.exhaustive.piece import begin_piece
from refquant.numerics.coverage import absence
from refquant.verify.unary_sweep import SWEEP_SETS, UNARY_OPERATORS, unary_sweep

__all__ = ["unary_tasks", "unary_piece"]


def unary_tasks(engines):
    """Yield one piece for each engine and function: the sweep that the table of operators counts."""
    for engine in engines:
        for op in (op for op in UNARY_OPERATORS if not absence(op, engine)):
            yield {"key": f"unary/{engine}/{op}", "what": "unary", "engine": engine, "op": op}


def unary_piece(runner, task, *, sets=SWEEP_SETS):
    """Compare one piece."""
    row = unary_sweep(runner, task["op"], sets=sets)
    piece = {**begin_piece(task), "outputs": row.outputs, "differing": row.differing}
    piece["first"] = [f"{trial.case}: {trial.outcome.detail.splitlines()[-1].strip()}" for trial in row.failures[:3]]
    if row.again:
        piece["again"] = row.again
    return piece if row.outputs else {**piece, "reason": next(iter(row.reasons), "nothing to compare")}
