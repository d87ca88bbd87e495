"""An analytic simulator of INT8 speed: machines as data, the engines' dispatch rules, a roofline. It times nothing.

>>> from refquant import perf, zoo
>>> report = perf.simulate(zoo.build("resnet50", empty=True), machine="xeon-8358", cores=4)
>>> report.layers[1].kernel.name, report.layers[-2].kernel.engine
('brg_conv_fwd:avx512_core_vnni', 'fbgemm')
"""

from refquant.perf.choose_kernel import ENGINES, Kernel, choose_kernel
from refquant.perf.constants import CONSTANTS, Constants
from refquant.perf.layers import Layer, float_layers, int8_layers
from refquant.perf.machines import MACHINES, Machine, get_machine, machine_names, read_machine
from refquant.perf.roofline import Time, layer_time, settle
from refquant.perf.simulate import LayerReport, Report, simulate

__all__ = [
    "simulate", "Report", "LayerReport", "Machine", "MACHINES", "machine_names", "get_machine", "read_machine", "ENGINES", "Kernel", "choose_kernel", "Layer",
    "int8_layers", "float_layers", "Time", "layer_time", "settle", "Constants", "CONSTANTS",
]  # fmt: skip
