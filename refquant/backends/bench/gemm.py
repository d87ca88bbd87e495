"""The integer product alone: uint8 times int8 into int32."""

import inspect

import numpy as np

import refquant as rq
from refquant.backends.bench.case import Bar, Case, Plan, Role, Work
from refquant.backends.bench.engines import onnxruntime_call, torch_package
from refquant.backends.bench.harness import geomean
from refquant.backends.bench.layers import codes_of, dense_layer, torch_call
from refquant.verify import Problem
from refquant.verify.held import profile_here

__all__ = ["GEMM", "NUMPY", "SHAPES", "product_call"]

#: (M, N, K): a square, transformer layers, one row, and three convolutions as products.
SHAPES = (
    (1024, 1024, 1024),
    (128, 768, 768),
    (128, 3072, 768),
    (1, 4096, 4096),
    (3136, 64, 64),
    (3136, 64, 576),
    (49, 512, 4608),
)

_ENGINES = ("fbgemm", "onednn", "x86")
_FLOAT64, _TIMES_NUMPY = "NumPy float64 BLAS", 8


def _text(shape):
    return "x".join(map(str, shape))


def product_call(a, b):
    """Return a call of `refquant.ops.matmul_integer` with packed `b`, and with `out` where it takes one."""
    product, packed = rq.ops.matmul_integer, rq.ops.pack_weights(b)
    if "out" not in inspect.signature(product).parameters:
        return lambda: product(a, packed)
    out = product(a, packed)
    return lambda: product(a, packed, out=out)


def _operands(shape):
    layer = dense_layer(*shape)
    return layer, layer.x.values, np.ascontiguousarray(layer.w.values.T)


def _gemm(shape, settings):
    m, n, k = shape
    layer, a, b = _operands(shape)
    case = Case(_text(shape), operations=2.0 * m * n * k, layer=layer._replace(out=None))
    case.add("refquant", lambda: product_call(a, b), Role.SUBJECT, bits=np.array)
    case.add("torch _int_mm", lambda: _int_mm(a, b), bits=lambda y: y.numpy())
    case.add("ORT MatMulInteger", lambda: onnxruntime_call(Problem("matmul_integer", {"a": a, "b": b}), settings.threads), bits=lambda y: y.numpy())
    for engine in _ENGINES:
        mine = lambda engine=engine: rq.ops.linear(layer.x, layer.w, layer.bias, out=layer.out, numerics=profile_here(engine)).values  # noqa: E731
        case.add(f"torch {engine} linear", lambda engine=engine: torch_call(layer, engine), bits=codes_of, expected=mine)
    return case


def _int_mm(a, b):
    torch = torch_package()
    left, right, out = torch.from_numpy(a), torch.from_numpy(b), torch.empty((a.shape[0], b.shape[1]), dtype=torch.int32)
    return lambda: torch._int_mm(left, right, out=out)


def _numpy(shape, settings):
    m, n, k = shape
    layer, a, b = _operands(shape)
    wide = b.astype(np.float64)
    case = Case(_text(shape), operations=2.0 * m * n * k, layer=layer._replace(out=None))
    case.add("refquant", lambda: product_call(a, b), Role.SUBJECT, bits=np.array)
    case.add(_FLOAT64, lambda: lambda: (a.astype(np.float64) @ wide).astype(np.int32), bits=np.array)
    return case


def _beside_the_peak(results, settings):
    """What the bar would take of the processor, where its peak was timed."""
    for r in results:
        if r.share:
            peak, theirs = r.gops / r.share, r.operations / r.seconds(_FLOAT64) / 1e9
            yield f"{r.name}: the measured peak is {r.names(Role.YARDSTICK)[0]}, {peak:.0f} GOPS on registers alone"
            yield f"  refquant {r.gops:.0f} GOPS, {r.share:.2f} of that peak; {_FLOAT64} {theirs:.0f} GOPS, {theirs / peak:.2f} of it"
            yield f"  {_TIMES_NUMPY} times {_FLOAT64} is {_TIMES_NUMPY * theirs:.0f} GOPS, {_TIMES_NUMPY * theirs / peak:.2f} of the peak"


def _square_share(results):
    return next((r.share for r in results if r.name == _text(SHAPES[0])), None)


def ratios(results):
    """Return the ratios of the results that have one."""
    return [r.ratio for r in results if r.ratio is not None]


GEMM = Work(
    "gemm",
    "Product of uint8 and int8 into int32 (the linear rivals also quantize their output)",
    lambda: [Plan(_text(shape), "", lambda settings, shape=shape: _gemm(shape, settings)) for shape in SHAPES],
    bars=(
        Bar("geomean of the ratios", lambda rs: geomean(ratios(rs)), 1.05),
        Bar("worst ratio", lambda rs: min(ratios(rs), default=None), 0.9),
        Bar("share of the peak, 1024x1024x1024", _square_share, 0.95),
    ),
)

NUMPY = Work(
    "numpy",
    "The integer product beside NumPy, which is exact in float64",
    lambda: [Plan("512x512x512", "", lambda settings: _numpy((512, 512, 512), settings))],
    bars=(Bar("ratio", lambda rs: geomean(ratios(rs)), _TIMES_NUMPY),),
    where=lambda results, settings: list(_beside_the_peak(results, settings)),
)
