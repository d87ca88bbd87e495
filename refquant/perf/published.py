"""Published speeds beside the model's, the fit of its constants, and what the fit is worth on figures that it has not seen.

The form of the model, too, was chosen with the table "engines" in view: that FBGEMM pays by the call and by the output, and its depthwise kernels
not by the output. Leaving a network out tests the constants, not that choice; the other tables test both.
"""

import math
from typing import NamedTuple

from refquant.perf.constants import CONSTANTS, FITTED
from refquant.perf.layers import float_layers, int8_layers
from refquant.perf.machines import get_machine
from refquant.perf.roofline import settle
from refquant.perf.simulate import total_time, with_kernels

__all__ = ["Figure", "FIGURES", "Share", "Networks", "predict", "fit", "leave_one_out", "geometric_mean"]


class Share(NamedTuple):
    """A machine and how it was shared: so many instances at once, each on so many cores, one picture at a time."""

    machine: str
    cores: int
    instances: int


class Figure(NamedTuple):
    """One published figure.

    Attributes
    ----------
    table : str
        Where it stands, a key of `TABLES`.
    network : str
        An architecture of `refquant.zoo`; ``"*"`` for the geometric mean of many.
    share : Share
    measure : {"rate", "ratio", "saved"}
        Pictures a second of the whole socket under `under`; time under `over`, divided by that under `under`; seconds a picture of which `under` takes
        less than `over`. What a benchmark's loop does besides cancels out in the last alone.
    over, under : str
        An engine, ``"float32"``, or ``""``.
    value : float
    """

    table: str
    network: str
    share: Share
    measure: str
    over: str
    under: str
    value: float


_LOOP = "its loop also reads and prepares pictures, so ratios are lower than the networks', while the time saved is theirs"

TABLES = {
    "engines": "PyTorch pull request 84329, pictures a second; one picture at a time is assumed, and 299 pixels for inception_v3",
    "cores": "PyTorch 2.0 release notes, geometric mean of 40 and more networks that are not named",
    "blog": "PyTorch blog 'INT8 Quantization for x86 CPU in PyTorch', geometric mean of 69 networks, named in pictures of the post alone; "
    "the last row is the quotient of the two",
    "8380": f"Intel Neural Compressor 2.1, PyTorch 1.13.1 (its engine fbgemm is assumed); {_LOOP}",
    "8480": f"Intel Neural Compressor 2.3, PyTorch 2.0.1 (its engine x86 is assumed); {_LOOP}",
}

_8358, _8380, _8480, _BLOG = Share("xeon-8358", 4, 8), Share("xeon-8380", 4, 8), Share("xeon-8480", 4, 14), Share("xeon-6455b", 4, 8)

# network: fbgemm, x86
_ENGINES = {
    "wide_resnet101_2": (173.5675, 241.815), "resnext101_32x8d": (174.365, 339.8175), "resnet50": (573.155, 1174.14), "vgg19_bn": (260.335, 337.92),
    "vgg19": (257.935, 333.265), "inception_v3": (601.1175, 1309.33), "densenet161": (296.645, 435.5625), "mnasnet1_0": (1216.7, 4057.515),
    "squeezenet1_0": (1220.085, 5153.3875), "alexnet": (2294.91, 2624.6375), "shufflenet_v2_x0_5": (1555.76, 3026.125),
}  # fmt: skip
# network: INT8, float32
_ON_8380 = {
    "resnet18": (812.991, 344.985), "resnet50": (360.161, 161.441), "inception_v3": (446.654, 181.408), "mobilenet_v2": (625.379, 451.249),
}  # fmt: skip
_ON_8480 = {
    "resnet18": (1631.83, 662.13), "resnet50": (1162.83, 330.92), "inception_v3": (968.67, 334.53), "resnext101_32x8d": (558.59, 108.42),
    "efficientnet_b0": (703.73, 656.12), "mobilenet_v2": (1379.34, 729.22), "bert_base_encoder": (407.58, 173.66),
}  # fmt: skip



def _loops(table, share, engine, rows):
    """Return the ratio and the seconds saved of a table of pictures a second."""
    for name, (int8, real) in rows.items():
        yield Figure(table, name, share, "ratio", "float32", engine, int8 / real)
        yield Figure(table, name, share, "saved", "float32", engine, share.instances * (1 / real - 1 / int8))


FIGURES = (
    *(Figure("engines", name, _8358, "rate", "", engine, value) for name, pair in _ENGINES.items() for engine, value in zip(("fbgemm", "x86"), pair)),
    *(Figure("cores", "*", Share("xeon-8358", n, 32 // n), "ratio", "fbgemm", "x86", value) for n, value in ((1, 1.76), (2, 1.80), (4, 2.04), (32, 1.34))),
    Figure("blog", "*", _BLOG, "ratio", "float32", "x86", 2.97),
    Figure("blog", "*", _BLOG, "ratio", "float32", "fbgemm", 1.43),
    Figure("blog", "*", _BLOG, "ratio", "fbgemm", "x86", 2.97 / 1.43),
    *_loops("8380", _8380, "fbgemm", _ON_8380),
    *_loops("8480", _8480, "x86", _ON_8480),
)

#: What float32's share of the peak is fitted to, from the same table: a network that takes so long that reading pictures hardly counts.
FLOAT_FIGURE = Figure("8380", "resnext101_32x8d", _8380, "rate", "", "float32", 60.553)


class Networks:
    """The layers of networks and their kernels, each worked out once.

    Parameters
    ----------
    build : callable
        ``build(name)`` returns a model.
    names : sequence of str
        Whose geometric mean stands for ``"*"``.
    """

    def __init__(self, build, names):
        self._build, self.names = build, tuple(names)
        self._layers, self._pairs = {}, {}

    def pairs(self, name, engine, level):
        """Return [(layer, kernel)] of a network, under an engine in INT8 or in ``"float32"``."""
        if name not in self._layers:
            model = self._build(name)
            self._layers[name] = int8_layers(model), float_layers(model)
        key = name, engine, level
        if key not in self._pairs:
            int8, plain = self._layers[name]
            self._pairs[key] = with_kernels(plain, "x86", level) if engine == "float32" else with_kernels(int8, engine, level)
        return self._pairs[key]

    def seconds(self, name, engine, share, constants):
        """Return the predicted time of one picture."""
        machine = get_machine(share.machine)
        pairs = self.pairs(name, engine, machine.level)
        return total_time(pairs, settle(machine, share.cores, share.instances, [layer for layer, _ in pairs], constants))


def geometric_mean(values):
    """Return ``exp(mean(log(values)))``.

    Examples
    --------
    >>> geometric_mean([1, 4])
    2.0
    """
    values = list(values)
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def predict(figure, networks, constants=CONSTANTS):
    """Return what the model says in a published figure's place."""
    names = networks.names if figure.network == "*" else (figure.network,)
    under = [networks.seconds(name, figure.under, figure.share, constants) for name in names]
    if figure.measure == "rate":
        return figure.share.instances / under[0]
    over = [networks.seconds(name, figure.over, figure.share, constants) for name in names]
    return over[0] - under[0] if figure.measure == "saved" else geometric_mean(a / b for a, b in zip(over, under))


def fit(networks, without=(), start=CONSTANTS):
    """Return constants for which the figures of the table "engines" are met best: least squares of the logarithms, then float32 by its one figure.

    Parameters
    ----------
    networks : Networks
    without : collection of str
        Networks whose figures are left out.
    start : Constants
        Of which those that are not fitted stay.
    """
    from scipy.optimize import brentq, least_squares

    figures = [f for f in FIGURES if f.table == "engines" and f.network not in without]

    def constants(logs):
        return start._replace(**{name: math.exp(value) for name, value in zip(FITTED, logs)})

    def errors(logs):
        return [math.log(predict(f, networks, constants(logs)) / f.value) for f in figures]

    found = constants(least_squares(errors, [math.log(getattr(start, name)) for name in FITTED]).x)
    share = brentq(lambda value: predict(FLOAT_FIGURE, networks, found._replace(fp32=value)) - FLOAT_FIGURE.value, 0.05, 2)
    return found._replace(fp32=share)


def leave_one_out(networks):
    """Return {network: constants that its figures had no part in}; the two VGG-19, which are one network in INT8, are left out together."""
    names = dict.fromkeys(f.network for f in FIGURES if f.table == "engines")
    return {name: fit(networks, {name, f"{name}_bn", name.removesuffix("_bn")}) for name in names}
