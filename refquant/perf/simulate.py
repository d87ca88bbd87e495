"""`simulate`: which kernels a network's layers run by on a machine, and how long they take by a roofline. Nothing is run or timed."""

from dataclasses import dataclass
from typing import NamedTuple

from refquant.errors import RangeError, UnsupportedError
from refquant.perf.choose_kernel import ENGINES, Kernel, choose_kernel
from refquant.perf.constants import CONSTANTS
from refquant.perf.layers import Layer, float_layers, int8_layers
from refquant.perf.machines import Machine, get_machine
from refquant.perf.roofline import Time, layer_time, settle

__all__ = ["LayerReport", "Report", "simulate", "with_kernels", "total_time"]


class LayerReport(NamedTuple):
    """One call: the layer, the kernel that computes it and its time."""

    layer: Layer
    kernel: Kernel
    time: Time


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `simulate` finds.

    Attributes
    ----------
    name : str
        Of the model.
    machine : Machine
    cores, instances, batch : int
    engine : str
    layers : tuple of LayerReport
        Under `engine`, in order.
    totals : dict of str to float
        Seconds of one inference under each engine that runs there, and in ``"float32"``.
    quantized : bool
        Whether the model was quantized already.
    """

    name: str
    machine: Machine
    cores: int
    instances: int
    batch: int
    engine: str
    layers: tuple
    totals: dict
    quantized: bool

    @property
    def seconds(self):
        """Of one inference of the batch under `engine`."""
        return self.totals[self.engine]

    @property
    def speedup(self):
        """How many times longer float32 takes."""
        return self.totals["float32"] / self.seconds

    @property
    def shares(self):
        """``{part: share of the time}`` of ``compute``, ``memory``, ``values`` and ``call``; where compute and memory overlap, the longer counts."""
        parts = dict.fromkeys(("compute", "memory", "values", "call"), 0.0)
        for _, _, time in self.layers:
            longer = "compute" if time.compute >= time.memory else "memory"
            parts[longer] += max(time.compute, time.memory)
            parts["values"] += time.values
            parts["call"] += time.call
        return {name: seconds / self.seconds for name, seconds in parts.items()}

    def to_text(self, width=110, top=None):
        """Return the report as text, with all layers or the `top` slowest."""
        from refquant.perf.text import report_text

        return report_text(self, width, top)

    def to_dict(self):
        """Return all numbers as plain data, for JSON."""
        from refquant.perf.text import report_dict

        return report_dict(self)


def simulate(model, machine="xeon-8358", cores=4, engine="x86", batch=1, *, instances=1, constants=CONSTANTS):
    """Predict which kernels compute a model's layers on a machine, and how fast.

    A prediction from shapes, dispatch rules and a roofline: nothing is run. It is right by some tens of percent, see
    ``refquant simulate --published``. For the accuracy of a quantized model see `refquant.workflow.simulate` and ``refquant drift``.

    Parameters
    ----------
    model : Model
        A float one, taken as ``convert_fx`` would convert it with the default mapping, or a quantized one as it is. Input shapes are stated.
    machine : str or Machine
        One of `machine_names`, or a JSON file.
    cores : int
        That one instance uses.
    engine : {"x86", "fbgemm", "onednn"}
        PyTorch's quantized engine.
    batch : int
    instances : int
        That run on the socket at once, each on `cores` cores, and share memory and L3.
    constants : Constants

    Returns
    -------
    Report

    Raises
    ------
    ArgumentError
        An unknown machine or engine, or a model without layers.
    RangeError
        Cores, instances or a batch that the machine does not have.
    ShapeError
        Inputs without stated shapes.
    UnsupportedError
        An engine that does not run on such a processor.

    Examples
    --------
    >>> from refquant import zoo
    >>> report = simulate(zoo.build("mobilenet_v2", empty=True), machine="xeon-8358", cores=4)
    >>> sorted({r.kernel.engine for r in report.layers if r.layer.geometry and r.layer.groups <= 100})
    ['onednn']
    >>> sorted({r.kernel.engine for r in report.layers if r.layer.geometry and r.layer.groups > 100})
    ['fbgemm']
    """
    machine = get_machine(machine)
    _check(machine, cores, instances, batch)
    int8, plain = int8_layers(model, batch), float_layers(model, batch)
    setting = settle(machine, cores, instances, int8, constants)
    layers = tuple(LayerReport(layer, kernel, layer_time(layer, kernel, setting)) for layer, kernel in with_kernels(int8, engine, machine.level))
    totals = {engine: sum(report.time.seconds for report in layers)}
    for other in ENGINES:
        try:
            totals.setdefault(other, total_time(with_kernels(int8, other, machine.level), setting))
        except UnsupportedError:
            continue
    totals["float32"] = total_time(with_kernels(plain, engine, machine.level), settle(machine, cores, instances, plain, constants))
    return Report(
        name=model.name, machine=machine, cores=cores, instances=instances, batch=batch, engine=engine, layers=layers, totals=totals, quantized=model.quantized
    )


def with_kernels(layers, engine, level):
    """Return [(layer, kernel)] under an engine on a processor level."""
    return [(layer, choose_kernel(layer, engine, level)) for layer in layers]


def total_time(pairs, setting):
    """Return the seconds of all layers, each with its kernel."""
    return sum(layer_time(layer, kernel, setting).seconds for layer, kernel in pairs)


def _check(machine, cores, instances, batch):
    for name, value in (("cores", cores), ("instances", instances), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RangeError(f"simulate: {name}={value!r} must be a whole number of at least 1; correct it")
    if cores * instances > machine.cores:
        each = f" for each of {instances} instances" if instances > 1 else ""
        raise RangeError(f"simulate: cores={cores}{each} but {machine.name} has {machine.cores} cores; use at most {max(machine.cores // instances, 1)} each")
