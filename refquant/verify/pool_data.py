"""The data of pooling."""


from refquant.core.dtypes import int_type
from refquant.core.layout import to_channels_last
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.verify.draws import draw_codes, draw_scale, draw_zero, pick, solve_scales
from refquant.verify.powers import power_of_two
from refquant.verify.problem import Problem

__all__ = ["build_max_pool2d", "build_avg_pool2d", "build_adaptive_avg_pool2d"]


def _input(case, rng, scale):
    dtype = "int8" if case.has("int8") else "uint8"
    zero = draw_zero(rng, dtype, case.strategy)
    shape = tuple(case[letter] for letter in "nchw")
    if case.strategy == "neartie" and rng.random() < 0.4:
        # Means close to the lowest code, far below the zero point, where a rounded product plus the zero point shows what a fused one hides.
        x = (int_type(dtype).qmin + rng.integers(0, 5, shape)).astype(dtype)
    else:
        x = draw_codes(rng, shape, dtype, zero, "saturate" if case.strategy == "saturate" else "random")
    if case.has("channels_last"):
        x = to_channels_last(x)
    return QTensor(x, QParams(scale, zero, dtype))


def _scales(case, rng):
    """Return (input's parameters' scale, output's parameters or None)."""
    scale = draw_scale(rng)
    if not case.has("rescale"):
        return scale, None
    dtype = "int8" if case.has("int8") else "uint8"
    ratio = pick(rng, (1, 2, 4, 0.5, 0.25, 3, 1.5)) if case.strategy == "neartie" else float(power_of_two(rng.uniform(-1, 2)))
    return scale, QParams(solve_scales(rng, 1 / ratio, scale), draw_zero(rng, int_type(dtype), case.strategy), dtype)


def _window(case):
    return {"kernel_size": case["k"], "stride": case["s"] or None, "padding": case["p"], "ceil_mode": case.has("ceil")}


def build_max_pool2d(case, rng):
    """Return the problem of a case of ``max_pool2d``."""
    return Problem("max_pool2d", {"x": _input(case, rng, draw_scale(rng)), **_window(case), "dilation": case["d"]})


def build_avg_pool2d(case, rng):
    """Return the problem of a case of ``avg_pool2d``."""
    scale, out = _scales(case, rng)
    return Problem(
        "avg_pool2d",
        {
            "x": _input(case, rng, scale), **_window(case), "out": out, "count_include_pad": not case.has("nopad"),
            "divisor_override": pick(rng, (3, 4, 6, 8)) if case.has("divisor") else None,
        },
    )  # fmt: skip


def build_adaptive_avg_pool2d(case, rng):
    """Return the problem of a case of ``adaptive_avg_pool2d``."""
    scale, out = _scales(case, rng)
    return Problem("adaptive_avg_pool2d", {"x": _input(case, rng, scale), "output_size": case["o"], "out": out})
