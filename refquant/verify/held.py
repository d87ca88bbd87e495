"""Engines held to a lower processor level by their own environment variables, spelled ``onednn@avx2``: which profile they follow.

PyTorch's oneDNN obeys ``ONEDNN_MAX_CPU_ISA``, its FBGEMM ``FBGEMM_ENABLE_INSTRUCTIONS``; both are read once, when the library is loaded.
PyTorch itself obeys neither, so the x86 engine goes on sending convolutions to oneDNN where the processor has VNNI.
"""

import numpy as np

from refquant import numerics
from refquant.errors import BackendMissing, choose
from refquant.isa import cpu
from refquant.numerics.onednn_transposed import LEVELS, Transposed, reads_unwritten

__all__ = ["HELD", "profile_here", "level_here", "switches", "followed", "refuse", "refuse_gaps"]

#: Engines that can be held, and the libraries in them that obey a variable.
HELD = {"onednn": ("onednn",), "fbgemm": ("fbgemm",), "x86": ("onednn", "fbgemm")}
_VARIABLES = {"onednn": "ONEDNN_MAX_CPU_ISA", "fbgemm": "FBGEMM_ENABLE_INSTRUCTIONS"}
# Operators whose kernels in PyTorch take more channels at a step with AVX512.
_ATEN = ("avg_pool2d", "avg_pool3d", "softmax")
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


def profile_here(profile):
    """Return the name of a profile as its engine computes on this processor.

    Profiles are written for AVX512-VNNI. Without it an engine may scale in another order, and pairs of products may saturate.

    Examples
    --------
    >>> profile_here("tflite_ref"), profile_here("fbgemm").partition("@")[0]
    ('tflite_ref', 'fbgemm')
    """
    level = level_here()
    rules = {getattr(numerics.get(profile).pairing, name) for name in ("linear", "conv", "conv_otherwise")}
    if level is None or (rules <= {"exact", "unknown"} and not numerics.get(profile).by_level):
        return profile
    return f"{profile}@{level}"


def level_here():
    """Return the level of this processor where it is below AVX512-VNNI, for which profiles are written; else None."""
    level = cpu.running_level()
    return None if level is None or "AVX512-VNNI" in cpu.level(level).extensions else level


def switches(engine, level):
    """Return the environment variables that hold an engine to a level.

    Raises
    ------
    ArgumentError
        An engine that obeys none, or an unknown level, with the list of those there are.
    BackendMissing
        The engine does not run on that level, or this processor is below it.

    Examples
    --------
    >>> switches("x86", "avx2")
    {'ONEDNN_MAX_CPU_ISA': 'AVX2', 'FBGEMM_ENABLE_INSTRUCTIONS': 'AVX2'}
    """
    place = f"engine {engine}@{level}"
    choose(place, "engine", engine, HELD)
    row = cpu.level(choose(place, "level", level, [known.name for known in cpu.LEVELS]))
    values = {_VARIABLES[library]: getattr(row, library) for library in HELD[engine]}
    if None in values.values():
        raise BackendMissing(f"{place}: {engine} has no kernels for {level}; choose another level")
    lacking = sorted(row.extensions - cpu.features())
    if lacking:
        raise BackendMissing(f"{place}: this processor has no {', '.join(lacking)}; choose a level that it reaches")
    return values


def followed(engine, level):
    """Return the profile that a held engine follows.

    Examples
    --------
    >>> followed("onednn", "avx2").name, followed("x86", "avx2").isa
    ('onednn@avx2', 'avx2')
    """
    profile = numerics.get(f"{engine}@{level}")
    if engine != "x86" or "AVX512-VNNI" not in cpu.features():
        return profile
    older = numerics.get(f"onednn@{level}")
    changes = {name: {"rule": "x86_held", "yes": getattr(older, name)} for name in ("conv", "conv_transpose")}
    return profile.replace(**changes, name=profile.name)


def refuse(problem, engine, level):
    """Return why a held engine cannot be asked a problem as if it ran on a processor of that level, or None."""
    wide = "AVX512F" in cpu.features()
    if problem.op in _ATEN and wide and "AVX512F" not in cpu.level(level).extensions:
        return "PyTorch's own kernels obey neither variable, and are those of this processor"
    if engine == "onednn" or (engine == "x86" and "AVX512-VNNI" in cpu.features()):
        reason = refuse_gaps(problem, level)
        if reason:
            return reason
    if problem.op not in _CONVOLUTIONS:
        return None
    channels = problem["w"].shape[1]
    if engine == "fbgemm" and _groupwise(problem):
        return "FBGEMM's kernels for 3 x 3 convolutions of 2, 4, 8 or 16 channels onto as many, in one group or several, ignore its variable"
    if "onednn" in HELD[engine] and level == "avx512" and channels == 1 and "AVX512-VBMI" in cpu.features():
        return "this processor has AVX512-VBMI, which oneDNN uses for convolutions of one channel: ask the level avx512_vbmi"
    return None


def refuse_gaps(problem, level):
    """Return why oneDNN on a level cannot be asked for a transposed convolution whose outputs it takes in part from memory that nobody wrote, or None."""
    if not problem.op.startswith("conv_transpose") or level not in LEVELS:
        return None
    x, w = problem["x"], problem["w"]
    stride, padding, dilation, more = (_sides(problem.get(name, usual), w.ndim - 2) for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0)))
    out = tuple((n - 1) * s + d * (k - 1) + 1 + m - 2 * p for n, s, d, k, m, p in zip(x.shape[2:], stride, dilation, w.shape[2:], more, padding))
    if reads_unwritten(Transposed.of(x.shape, w.shape, problem.get("groups", 1), stride, padding, dilation, out), level, x.qparams.zero_point):
        return "oneDNN adds what lies behind a buffer to outputs in gaps of the input: a zero point, and strides beyond the kernel by two or more"
    return None


def _sides(value, dims):
    return tuple(np.broadcast_to(value, dims).tolist())


def _groupwise(problem):
    """Whether FBGEMM may take a convolution for one of its groupwise kernels, which look at the processor itself; depthwise ones are others."""
    w, groups = problem["w"].shape, problem.get("groups", 1)
    sides = {name: set(np.atleast_1d(problem.get(name, usual)).tolist()) for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1))}
    alike = w[1] == w[0] // groups and w[1] in (2, 4, 8, 16)
    return alike and w[2:] == (3, 3) and sides["padding"] == {1} and sides["stride"] <= {1, 2} and sides["dilation"] == {1}
