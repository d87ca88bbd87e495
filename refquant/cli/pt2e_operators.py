"""Single float32 operators, compiled by TorchInductor, beside the oracle's under the order of its generated C++."""

from typing import Callable, NamedTuple

import numpy as np

from refquant.core.layout import to_channels_last
from refquant.core.qparams import QParams
from refquant.ops import dequantize, quantize, real

__all__ = ["Operator", "OPERATORS", "inputs_of", "run_ours"]

_ORDER = {"order": "inductor"}


class Operator(NamedTuple):
    """An operator as both sides call it.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Of each input; four numbers are an image, which lies channels last.
    theirs : callable
        ``theirs(torch)`` returns a function of tensors.
    ours : callable
        A function of arrays.
    inputs : int
    """

    name: str
    shape: tuple
    theirs: Callable
    ours: Callable
    inputs: int = 1


_LINE, _IMAGE = (10_003,), (19, 12, 6, 7)
_CODES = QParams(0.0371, 131, "uint8")


def _f(name, *arguments, **settings):
    return lambda torch: lambda *x: getattr(torch.nn.functional, name)(*x, *arguments, **settings)


def _t(name, *arguments, **settings):
    return lambda torch: lambda *x: getattr(torch, name)(*x, *arguments, **settings)


def _o(name, *arguments, order=True, **settings):
    return lambda *x: getattr(real, name)(*x, *arguments, **settings, **(_ORDER if order else {}))


def _batch_norm(torch):
    parameters = tuple(map(torch.from_numpy, _NORM))
    return lambda x: torch.nn.functional.batch_norm(x, *parameters, eps=1e-5)


_NORM = tuple(np.random.Generator(np.random.PCG64(7)).uniform(low, 2, 12).astype(np.float32) for low in (-2, 0.1, -2, -2))


def _quantized(torch):
    decomposed = torch.ops.quantized_decomposed
    return lambda x: decomposed.quantize_per_tensor(x, _CODES.scale, _CODES.zero_point, 0, 255, torch.uint8)


def _sum_of_codes(torch):
    to_codes, decomposed = _quantized(torch), torch.ops.quantized_decomposed
    to_real = lambda x: decomposed.dequantize_per_tensor(to_codes(x), _CODES.scale, _CODES.zero_point, 0, 255, torch.uint8)  # noqa: E731
    return lambda a, b: to_codes(torch.relu(to_real(a) + to_real(b)))


def _our_codes(x):
    return quantize(x, _CODES, numerics="inductor").values


def _our_sum_of_codes(a, b):
    to_real = lambda x: dequantize(quantize(x, _CODES, numerics="inductor"), numerics="inductor")  # noqa: E731
    return _our_codes(real.add(to_real(a), to_real(b), "relu"))


# fmt: off
OPERATORS = (
    Operator("quantize", _LINE, _quantized, _our_codes),
    Operator("sum of codes", _LINE, _sum_of_codes, _our_sum_of_codes, 2),
    Operator("relu", _LINE, _t("relu"), _o("relu", order=False)),
    Operator("relu6", _LINE, _f("relu6"), _o("relu6", order=False)),
    Operator("hardtanh", _LINE, _f("hardtanh", -0.5, 0.75), _o("hardtanh", -0.5, 0.75, order=False)),
    Operator("clamp", _LINE, _t("clamp", -1.5, 2.25), _o("clamp", -1.5, 2.25, order=False)),
    Operator("hardswish", _LINE, _f("hardswish"), _o("hardswish", order=False)),
    Operator("hardsigmoid", _LINE, _f("hardsigmoid"), _o("hardsigmoid", order=False)),
    Operator("leaky_relu", _LINE, _f("leaky_relu", 0.1), _o("leaky_relu", 0.1, order=False)),
    Operator("sigmoid", _LINE, _t("sigmoid"), _o("sigmoid")),
    Operator("silu", _LINE, _f("silu"), _o("silu")),
    Operator("elu", _LINE, _f("elu", 0.75), _o("elu", 0.75)),
    Operator("gelu", _LINE, _f("gelu"), _o("gelu")),
    Operator("add", _LINE, _t("add"), _o("add", order=False), 2),
    Operator("sub", _LINE, _t("sub"), _o("sub", order=False), 2),
    Operator("mul", _LINE, _t("mul"), _o("mul", order=False), 2),
    Operator("div", _LINE, _t("div"), _o("div", order=False), 2),
    Operator("prelu", _LINE, lambda torch: lambda x: torch.nn.functional.prelu(x, torch.full((1,), 0.3)), lambda x: real.prelu(x, np.float32([0.3]))),
    Operator("cat", _IMAGE, lambda torch: lambda a, b: torch.cat([a, b], 1), lambda a, b: real.cat([a, b]), 2),
    Operator("batch_norm", _IMAGE, _batch_norm, lambda x: real.batch_norm(x, *_NORM, eps=1e-5, **_ORDER)),
    Operator("max_pool2d", _IMAGE, _f("max_pool2d", 3, 2, 1), _o("max_pool2d", 3, 2, 1, order=False)),
    Operator("avg_pool2d 3x3", _IMAGE, _f("avg_pool2d", 3, 1, 1), _o("avg_pool2d", 3, 1, 1)),
    Operator("avg_pool2d without padding", _IMAGE, _f("avg_pool2d", 3, 2, 1, count_include_pad=False), _o("avg_pool2d", 3, 2, 1, count_include_pad=False)),
    Operator("avg_pool2d 6x6", _IMAGE, _f("avg_pool2d", 6), _o("avg_pool2d", 6)),
    Operator("adaptive_avg_pool2d 1", _IMAGE, _f("adaptive_avg_pool2d", 1), _o("adaptive_avg_pool2d", 1)),
    Operator("adaptive_avg_pool2d 3x7", _IMAGE, _f("adaptive_avg_pool2d", (3, 7)), _o("adaptive_avg_pool2d", (3, 7))),
    Operator("adaptive_avg_pool2d 4x5", _IMAGE, _f("adaptive_avg_pool2d", (4, 5)), _o("adaptive_avg_pool2d", (4, 5))),
    Operator("mean of 4,900 pixels", (4, 37, 70, 70), _t("mean", (2, 3)), _o("mean", (2, 3))),
    Operator("mean of 16,384 pixels", (1, 41, 128, 128), _t("mean", (2, 3)), _o("mean", (2, 3))),
    Operator("mean of one channel", (200, 1, 9, 9), _t("mean", (2, 3)), _o("mean", (2, 3))),
    Operator("mean of channels", _IMAGE, _t("mean", 1), _o("mean", 1)),
    Operator("mean of rows", (300, 203), _t("mean", -1), _o("mean", -1)),
    Operator("mean of short rows", (500, 7), _t("mean", -1), _o("mean", -1)),
    Operator("mean of columns", (103, 307), _t("mean", 0), _o("mean", 0)),
    Operator("softmax of rows", (50, 103), _t("softmax", -1), _o("softmax", -1)),
    Operator("softmax of channels", _IMAGE, _t("softmax", 1), _o("softmax", 1)),
)
# fmt: on


def inputs_of(operator, seed):
    """Return an operator's inputs: numbers of every size, of functions special ones and ties as well."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return tuple(_numbers(rng, operator.shape) for _ in range(operator.inputs))


def _numbers(rng, shape):
    x = (rng.standard_normal(shape) * 2.0 ** rng.integers(-3, 4, shape)).astype(np.float32)
    if len(shape) > 1:
        return to_channels_last(x) if len(shape) == 4 else x
    scale, near = np.float32(_CODES.scale), slice(0, 4000)
    ties = (rng.integers(-140, 140, 4000) + 0.5).astype(np.float32) * scale
    x[near] = np.nextafter(ties, np.float32(np.inf) * rng.choice([-1, 1], 4000).astype(np.float32))
    x[near][::3] = ties[::3]
    x[4000:6000] = rng.uniform(-110, 110, 2000)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.2e-38, 3.4e38, -3.4e38, 3.0, -3.0, 6.0, -87.33655, 88.72284, -104.0, 100.0]
    x[6000 : 6000 + len(special)] = special
    x[-len(special) :] = special
    return x


def run_ours(operator, inputs):
    """Return the oracle's result."""
    with np.errstate(all="ignore"):
        return np.asarray(operator.ours(*inputs))
