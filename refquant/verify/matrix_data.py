"""The data of products of matrices that no layer holds: stacks of them, transposed ones, addends of every shape; and of choices between tensors."""

import numpy as np

from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.verify.draws import draw_weights, pick
from refquant.verify.elementwise_data import dtype_of, output_of, shape_of, solved_input
from refquant.verify.problem import Problem
from refquant.verify.product_data import build_linear

__all__ = ["build_matmul", "build_gemm", "build_where"]


def _sides(value):
    return () if not value else value if isinstance(value, tuple) else (value,)


def _layer(case, rng, rows, options=()):
    """Return the arguments of a linear layer with so many rows."""
    shape = {"m": rows, "k": case["k"], "n": case["n"]}
    strategy = "random" if case.strategy == "edges" else case.strategy
    return build_linear(case.replace(op="linear", shape=tuple(shape.items()), strategy=strategy, options=(*case.options, *options)), rng).arguments


def _columns(q):
    return QParams(q.scale, q.zero_point, q.dtype, axis=1) if q.per_channel else q


def build_matmul(case, rng):
    """Return the problem of a case of ``matmul``: a stack of matrices, each with its own factor, or all with one."""
    lead = _sides(case["b"])
    made = _layer(case, rng, int(np.prod(lead)) * case["m"])
    a, w = made["x"], made["w"]
    weights = w.values[None] if not lead or case.has("alone") else np.stack([w.values, *(draw_weights(rng, w.shape, w.dtype, case.strategy) for _ in range(int(np.prod(lead)) - 1))])
    b = np.ascontiguousarray(np.swapaxes(weights, -1, -2))
    b = b[0] if not lead or case.has("alone") else b.reshape(*lead, *b.shape[1:])
    p = w.qparams
    p = QParams(p.scale, p.zero_point, p.dtype, axis=b.ndim - 1) if p.per_channel else p
    bias = made["bias"] if case.has("float") else None
    return Problem("matmul", {"a": QTensor(a.values.reshape(*lead, case["m"], case["k"]), a.qparams), "b": QTensor(b, p), "bias": bias, "out": made["out"]})


def build_gemm(case, rng):
    """Return the problem of a case of ``gemm``: transposed or not, with a factor that keeps ties where they are, and an addend that is a number, a row, a column or a matrix."""
    made = _layer(case, rng, case["m"], ("intbias",))
    a, w, bias = made["x"], made["w"], made["bias"]
    alpha = float(np.float32(pick(rng, (1.0, 1.0, 0.5, 4.0, 0.1, 3.7))))
    a = QTensor(a.values, QParams(a.qparams.scale / alpha, a.qparams.zero_point, a.dtype))
    turns = {name: bool(rng.integers(2)) for name in ("transpose_a", "transpose_b")}
    b = w if turns["transpose_b"] else QTensor(np.ascontiguousarray(w.values.T), _columns(w.qparams))
    a = QTensor(np.ascontiguousarray(a.values.T), a.qparams) if turns["transpose_a"] else a
    c = None if bias is None else _addend(rng, np.asarray(bias), case["m"])
    return Problem("gemm", {"a": a, "b": b, "c": c, "alpha": alpha, **turns, "out": made["out"]})


def _addend(rng, row, m):
    """Give an int32 row another shape: as it is, with an axis before, a column, a matrix, one number."""
    kind = int(rng.integers(6))
    if kind < 2:
        return row if kind else row[None]
    if kind == 2:
        return rng.choice(row, (m, 1))
    return rng.choice(row, (m, row.size)) if kind == 3 else rng.choice(row, () if kind == 4 else (1,))


def build_where(case, rng):
    """Return the problem of a case of ``where``; with ``broadcast`` the condition or the second tensor has length one along some axes."""
    shape, dtype = shape_of(case), dtype_of(case)
    out = output_of(case, rng, dtype)
    x, y = (solved_input(case, rng, shape, dtype, out.scale) for _ in "xy")
    condition = rng.random(shape) < 0.5
    if case.has("broadcast"):
        at = tuple(slice(None, 1) if rng.random() < 0.5 else slice(None) for _ in shape)
        if rng.random() < 0.5:
            condition = np.ascontiguousarray(condition[at])
        else:
            y = QTensor(np.ascontiguousarray(y.values[at]), y.qparams)
    if rng.random() < 0.3:
        y = QTensor(y.values, out)
    return Problem("where", {"condition": condition, "x": x, "y": y, "out": out})
