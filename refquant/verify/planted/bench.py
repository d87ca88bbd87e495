"""The bench: every planted fault diagnosed, what was found of it and how long that took."""

import time
from typing import NamedTuple

import numpy as np

from refquant.errors import ArgumentError
from refquant.verify.build import build
from refquant.verify.planted.combined_faults import PAIRED, TRIPLES
from refquant.verify.planted.elementwise_faults import OTHERS, POOLING, QUANTIZATION, SUM_AND_PRODUCT
from refquant.verify.planted.fault import Fault
from refquant.verify.planted.product_faults import CONVOLUTION, DEPTHWISE, LINEAR
from refquant.verify.problem import oracle

__all__ = ["KINDS", "FAULTS", "THEMES", "Examination", "themes_of", "names_fault", "plant", "examine", "summary"]

#: The faults of the bench, by what they are planted in.
KINDS = {
    "linear": LINEAR, "conv2d": CONVOLUTION, "depthwise": DEPTHWISE, "add, mul": SUM_AND_PRODUCT, "quantize": QUANTIZATION, "pooling": POOLING, "cat, matmul": OTHERS,
    "pairs": PAIRED, "triples": TRIPLES,
}  # fmt: skip

FAULTS = tuple(fault for faults in KINDS.values() for fault in faults)

if len({fault.name for fault in FAULTS}) != len(FAULTS):
    raise ArgumentError("planted faults: two share a name; rename one")

#: Questions of numerics, and the causes that answer them, by the beginnings or endings of their names.
THEMES = {
    "rounding mode": ("rounding[", "half_added"),
    "zero point before or after rounding": ("zero_point[before]", "zero_point[after]"),
    "reciprocal or division": ("scaling[reciprocal", "multiplier[(xw)*(1/y)]"),
    "float32, float64 or fixed-point multiplier": ("arithmetic[", "fixed_once"),
    "order of the scale product": ("multiplier[",),
    "bias as float or int32": ("bias[int32]", "integer_bias", "late_bias", "coarse_bias"),
    "FMA or not": ("bias[add]", "bias[fma]", "dequantize[fma]", "formula[mul_add]"),
    "saturation of int16 pairs": ("int16_pairs", "exact_sum", "accumulator[fbgemm_depthwise]"),
    "accumulator of 16 or 24 bits": ("narrow_accumulator", "saturating_sum", "float32_sum"),
    "wraps instead of saturating": ("output_wraps",),
    "compensation of zero points or padding": ("compensation", "padding_code", "pool_padding", "padding_counted"),
    "per tensor for per channel": ("per_tensor",),
    "symmetric for affine": ("zero_point_ignored",),
    "transposed or permuted weights": ("weights_transposed", "weights_read_as", "weights_stored_as", "kernel_", "neighbours_weights", "channels_regrouped"),
    "NCHW for NHWC": ("input_order", "output_order", "operand_order"),
    "clamp order and range": ("early_clamp", "narrow_range", "own_limits", "whole_range"),
    "fused or unfused ReLU": ("relu",),
    "a wrong channel's scale": ("neighbours_scale", "wrong_axis"),
    "a tail handled differently": ("tail_of_k", "vector[", "threads["),
    "stale parameter": ("other_",),
}  # fmt: skip

_SEEDS = 60
_FEWEST = 2


class Examination(NamedTuple):
    """How the diagnosis fared with one fault.

    Attributes
    ----------
    fault : Fault
    kind : str
    outputs, differing : int
    explained : bool
        Whether some set of causes computes every bit.
    named : bool
        Whether the planted fault is that set, or one that the diagnosis says these data cannot tell from it.
    first : bool
        Whether it is the set itself.
    seconds : float
    diagnosis : Diagnosis
    """

    fault: Fault
    kind: str
    outputs: int
    differing: int
    explained: bool
    named: bool
    first: bool
    seconds: float
    diagnosis: object


def themes_of(fault):
    """Return the themes that a fault belongs to.

    Examples
    --------
    >>> themes_of(FAULTS[0])
    ('rounding mode',)
    """
    names = fault.causes if " + " in fault.name else fault.causes[:1]
    return tuple(theme for theme, parts in THEMES.items() if any(part in name or (name and name in part) for part in parts for name in names))


def plant(fault, first=0):
    """Return (problem, wrong bits) of the first seed that shows a fault in at least two outputs, and each of several faults apart.

    Parameters
    ----------
    fault : Fault
    first : int
        The first seed.
    """
    for seed in range(first, first + _SEEDS):
        problem = fault.prepare(build(fault.line.replace("seed=0", f"seed={seed}")))
        actual = np.asarray(fault.plant(problem))
        others = [oracle(problem, fault.profile), *(np.asarray(part(problem)) for part in fault.parts)]
        if all(actual.shape == other.shape and np.count_nonzero(_bits(actual) != _bits(other)) >= _FEWEST for other in others):
            return problem, actual
    raise ArgumentError(f"planted fault {fault.name!r}: none of {_SEEDS} seeds shows it; plant it on another case")


def _bits(values):
    return values.view(np.int32) if values.dtype == np.float32 else values


def names_fault(fault, names):
    """Whether the names of one explanation name a fault; of several faults all are asked for, of several names for one fault any."""
    hits = [any(part in name for name in names) for part in fault.causes]
    return all(hits) if " + " in fault.name else any(hits)


def examine(fault, first=0):
    """Plant a fault and diagnose it.

    Parameters
    ----------
    fault : Fault
    first : int
        The first seed of its case.

    Returns
    -------
    Examination
    """
    from refquant.verify.diagnosis import diagnose

    problem, actual = plant(fault, first)
    begin = time.perf_counter()
    d = diagnose(problem.op, actual=actual, numerics=fault.profile, **problem.arguments)
    seconds = time.perf_counter() - begin
    everything = [d.names, *(e.names for e in d.alternatives)]
    kind = next((kind for kind, faults in KINDS.items() if fault in faults), "")
    return Examination(fault, kind, d.outputs, d.differing, d.explained, any(names_fault(fault, n) for n in everything), names_fault(fault, d.names), seconds, d)


def summary(examinations):
    """Return the figures of the bench.

    Parameters
    ----------
    examinations : list of Examination

    Returns
    -------
    dict
        ``planted``, ``explained``, ``named``, ``first``; ``seconds`` with ``median``, ``most`` and ``together``; ``faults``, a list of one dict each.
    """
    seconds = sorted(e.seconds for e in examinations)
    faults = [
        {
            "fault": e.fault.name, "kind": e.kind, "themes": list(themes_of(e.fault)), "case": e.fault.line, "against": e.fault.profile, "outputs": e.outputs,
            "differing": e.differing, "explained": e.explained, "named": e.named, "first": e.first, "alternatives": len(e.diagnosis.alternatives),
            "causes": list(e.diagnosis.causes), "seconds": e.seconds,
        }
        for e in examinations
    ]  # fmt: skip
    return {
        "planted": len(examinations), "explained": sum(e.explained for e in examinations), "named": sum(e.named for e in examinations),
        "first": sum(e.first for e in examinations), "seconds": {"median": seconds[len(seconds) // 2], "most": seconds[-1], "together": sum(seconds)}, "faults": faults,
    }  # fmt: skip
