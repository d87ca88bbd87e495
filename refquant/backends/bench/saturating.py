"""Products as processors without VNNI compute them, whose pairs saturate, beside the exact ones of the same shapes."""

import numpy as np

import refquant as rq
from refquant.backends.bench.case import Bar, Case, Plan, Role, Work
from refquant.backends.bench.gemm import SHAPES, ratios

__all__ = ["SATURATING"]

_ISA, _PROFILE, _PROVED_ROWS = "avx2", "onednn", 4


def _operands(m, n, k):
    """Codes of the whole range, so that pairs do saturate."""
    rng = np.random.default_rng(m + n + k)
    return rng.integers(0, 256, (m, k), np.uint8), rng.integers(-128, 128, (k, n)).astype(np.int8)


def _product(shape):
    a, b = _operands(*shape)
    packed = rq.ops.pack_weights(b)
    return a, lambda isa, a=a: rq.ops.matmul_integer(a, packed, isa=isa), lambda a: rq.ops.matmul_integer_reference(a, b, isa=_ISA)


def _layer(shape):
    a, b = _operands(*shape)
    qx, out = rq.QParams(0.02, 128, "uint8"), rq.QParams(0.02 * 0.01 * 40 * shape[2] ** 0.5, 120, "uint8")
    w = rq.QTensor(np.ascontiguousarray(b.T), rq.QParams(0.01, 0, "int8"))
    packed, options = rq.ops.pack_weights(w), {"out": out, "numerics": _PROFILE}
    mine = lambda isa, a=a: rq.ops.linear(rq.QTensor(a, qx), packed, isa=isa, **options).values  # noqa: E731
    return a, mine, lambda a: rq.ops.linear_reference(rq.QTensor(a, qx), w, isa=_ISA, **options).values


def _case(kind, shape, settings):
    m, n, k = shape
    a, call, reference = (_product if kind == "gemm" else _layer)(shape)
    case = Case(_name(kind, shape), kind, 2.0 * m * n * k, parts={"one row": lambda: call(_ISA, a[:1])})
    case.add(f"refquant, isa={_ISA}", lambda: lambda: call(_ISA), Role.SUBJECT, bits=np.array)
    case.add("refquant, exact", lambda: lambda: call(None))
    rows = a[:_PROVED_ROWS]
    case.add(
        "the simulation", lambda: lambda: reference(rows), Role.WITNESS, bits=np.array, expected=lambda: np.array(call(_ISA))[:_PROVED_ROWS]
    )  # fmt: skip
    return case


def _name(kind, shape):
    return f"{kind} {'x'.join(map(str, shape))}"


def _plans():
    pairs = [(kind, shape) for kind in ("gemm", "linear") for shape in SHAPES]
    return [Plan(_name(kind, shape), kind, lambda settings, kind=kind, shape=shape: _case(kind, shape, settings)) for kind, shape in pairs]


SATURATING = Work(
    "saturating",
    f"Products whose pairs saturate, isa={_ISA!r}; rival: the exact ones",
    _plans,
    bars=(Bar("worst ratio", lambda rs: min(ratios(rs), default=None), 1 / 3, by_group=True),),
    charted=False,
)
