"""Fully connected layers with requantization, in the arithmetic of each profile."""

import refquant as rq
from refquant import backends
from refquant.backends.bench.case import Bar, Case, Plan, Role, Work
from refquant.backends.bench.gemm import SHAPES, ratios
from refquant.backends.bench.harness import geomean
from refquant.backends.bench.layers import codes_of, dense_layer, torch_call
from refquant.errors import BackendMissing
from refquant.verify import Problem, oracle
from refquant.verify.held import profile_here

__all__ = ["LINEAR"]

_TORCH = ("fbgemm", "onednn", "x86", "qnnpack", "inductor")
_X86 = ("fbgemm", "x86")
_PROVED_ROWS = 32


def _name(profile, shape):
    return f"{profile} {'x'.join(map(str, shape))}"


def _case(profile, shape, settings):
    m, n, k = shape
    layer = dense_layer(m, n, k, integer_bias=profile not in _TORCH)
    packed = rq.ops.pack_weights(layer.w)
    case = Case(_name(profile, shape), profile, 2.0 * m * n * k, layer=layer)
    numerics = profile_here(profile) if profile in _TORCH else profile
    call = lambda: rq.ops.linear(layer.x, packed, layer.bias, out=layer.out, numerics=numerics)  # noqa: E731
    case.add("refquant", lambda: call, Role.SUBJECT, bits=codes_of)
    case.add("torch x86", lambda: torch_call(dense_layer(m, n, k), "x86"), bits=codes_of if profile in _X86 else None)
    if not any(c.bits for c in case.contenders if c.role is not Role.SUBJECT):
        _add_witness(case, profile, layer)
    return case


def _add_witness(case, profile, layer):
    """Let the profile's own engine compute the same layer; where there is none, refquant's NumPy reference does, on the first rows."""
    problem = Problem("linear", layer.arguments())
    try:
        runner = backends.load(profile) if profile in backends.names() else None
    except BackendMissing:
        runner = None
    if runner is not None and runner.supports(problem) is None:
        case.add(f"{profile} itself", lambda: lambda: runner.run(problem), Role.WITNESS, bits=lambda y: y)
        return
    rows = layer._replace(x=rq.QTensor(layer.x.values[:_PROVED_ROWS], layer.x.qparams))
    asked = Problem("linear", rows.arguments())
    case.add(
        "the NumPy reference", lambda: lambda: oracle(asked, profile, reference=True), Role.WITNESS, bits=lambda y: y,
        expected=lambda: rq.ops.linear(**layer.arguments(), numerics=profile).values[:_PROVED_ROWS],
    )  # fmt: skip


def _plans():
    pairs = [(profile, shape) for profile in rq.numerics.names() for shape in SHAPES]
    return [Plan(_name(p, s), p, lambda settings, p=p, s=s: _case(p, s, settings)) for p, s in pairs]


LINEAR = Work(
    "linear",
    "Linear layers with requantization, per profile; rival: PyTorch's x86 engine",
    _plans,
    bars=(Bar("geomean", lambda rs: geomean(ratios(rs)), 1.15, by_group=True),),
    grouped=True,
)
