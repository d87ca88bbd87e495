"""The answer of the oracle on a processor without VNNI, where an engine adds neighbouring products in int16, with saturation.

>>> from refquant.core.qparams import QParams
>>> x = QTensor(np.full((1, 2), 255, np.uint8), QParams(1.0, 0, "uint8"))
>>> w = QTensor(np.full((1, 2), 127, np.int8), QParams(1.0, 0, "int8"))
>>> problem = Problem("linear", {"x": x, "w": w, "out": QParams(512.0, 0, "uint8")})
>>> oracle_on(problem, "fbgemm", "avx512_vnni"), oracle_on(problem, "fbgemm", "avx2")
(array([[127]], dtype=uint8), array([[64]], dtype=uint8))
"""

import numpy as np

from refquant import numerics as profiles
from refquant.core.epilogue import apply_epilogue
from refquant.core.qtensor import QTensor
from refquant.errors import UnsupportedError
from refquant.isa.accumulate import accumulate_conv2d, accumulate_linear
from refquant.isa.cpu import level
from refquant.isa.products import ConvGeometry, saturating_product
from refquant.numerics.dispatch import resolve
from refquant.ops.output_stage import check_bias, output_stage
from refquant.verify.problem import Problem, oracle

__all__ = ["ENGINE_OF", "engine_of", "product_of", "profile_on", "accumulators", "finish", "oracle_on"]

#: The engine whose instructions a profile's layers run on. Without VNNI, PyTorch's x86 engine takes FBGEMM for every layer.
ENGINE_OF = {"fbgemm": "fbgemm", "x86": "fbgemm", "onednn": "onednn", "inductor": "onednn", "onnxruntime": "onnxruntime"}


def _pair(value):
    return (int(value), int(value)) if np.ndim(value) == 0 else tuple(int(v) for v in value)


def _sides(problem):
    return {name: _pair(problem.get(name, usual)) for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1))}


def engine_of(numerics):
    """Return the engine of a profile, by the name that it is derived from."""
    name = profiles.get(numerics).name
    for known in sorted(ENGINE_OF, key=len, reverse=True):
        if name.rstrip("*").partition("+")[0] == known:
            return ENGINE_OF[known]
    raise UnsupportedError(f"older_cpu: what {name} computes without VNNI is not described; choose one of {', '.join(ENGINE_OF)}")


def product_of(problem, numerics, name):
    """Return the `Product` of a linear layer or a convolution on a processor level; None where it is exact."""
    x, w = problem["x"], problem["w"]
    if w.dtype != "int8":
        return None
    common = dict(x_dtype=x.dtype, x_zero_point=int(x.qparams.zero_point))
    if problem.op == "linear":
        return saturating_product(engine_of(numerics), "linear", name, **common)
    sides, groups = _sides(problem), int(problem.get("groups", 1))
    (kh, kw), (_, sw), (_, pw), (_, dw) = w.shape[2:], sides["stride"], sides["padding"], sides["dilation"]
    width = (x.shape[3] + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    geometry = ConvGeometry(groups, w.shape[1], w.shape[0] // groups, (kh, kw), sides["stride"], sides["padding"], sides["dilation"], width)
    return saturating_product(engine_of(numerics), "conv2d", name, geometry=geometry, **common)


def accumulators(problem, product):
    """Return the int32 accumulators of a linear layer or a two-dimensional convolution, channels last; without bias."""
    x, w = problem["x"], problem["w"]
    weights = w.values
    zeros = dict(x_zero_point=int(x.qparams.zero_point), w_zero_point=w.qparams.zero_point)
    if problem.op == "linear":
        return accumulate_linear(x.values, weights, product, **zeros)
    acc = accumulate_conv2d(x.values, weights, product, groups=int(problem.get("groups", 1)), **zeros, **_sides(problem))
    return np.moveaxis(acc, 1, -1)


def finish(problem, numerics, name, acc):
    """Apply a profile's output stage to accumulators with channels last; return the codes in the operator's layout."""
    profile = profile_on(numerics, name)
    x, w, out, channels = problem["x"], problem["w"], problem["out"], problem["w"].shape[0]
    place = f"{problem.op}[{profile.name}]"
    form = profile.section("linear" if problem.op == "linear" else "conv", problem.op)
    if problem.op == "conv2d":
        form = resolve(form, x_shape=x.shape, w_shape=w.shape, groups=int(problem.get("groups", 1)), zero_points=np.atleast_1d(w.qparams.zero_point))
    stage = output_stage(form, x.qparams, w.qparams, out, check_bias(problem.get("bias"), channels, place), channels, problem.get("activation"), place)
    y = apply_epilogue(acc, stage, out.storage)
    return y if problem.op == "linear" else np.moveaxis(y, -1, 1)


def profile_on(numerics, name):
    """Return the profile that a processor level follows: without AVX512-VNNI, PyTorch's x86 engine packs every layer for FBGEMM."""
    profile = profiles.get(numerics)
    return profiles.get("fbgemm") if profile.name == "x86" and "AVX512-VNNI" not in level(name).extensions else profile


def oracle_on(problem, numerics, name):
    """Return the oracle's codes for a problem on a processor level.

    Parameters
    ----------
    problem : Problem
        Of any operator; only linear layers and two-dimensional convolutions with codes as outputs depend on the level.
    numerics : str or Numerics
    name : str
        A level of `refquant.isa.cpu.LEVELS`, such as ``"avx2"``.

    Returns
    -------
    ndarray

    Raises
    ------
    UnsupportedError
        Nothing is known of the profile's engine on that level.
    """
    if problem.op not in ("linear", "conv2d") or problem.get("out") is None or "AVX512-VNNI" in level(name).extensions:
        return oracle(problem, numerics)
    product = product_of(problem, numerics, name)
    if product is None:
        return oracle(problem, profile_on(numerics, name))
    return finish(problem, numerics, name, accumulators(problem, product))
