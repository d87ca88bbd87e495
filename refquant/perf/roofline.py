"""`layer_time`: how long a layer takes by a roofline: the slower of arithmetic and memory, what each value costs besides, and the call."""

import math
from typing import NamedTuple

from refquant.isa.cpu import level as processor_level
from refquant.perf.constants import CONSTANTS, Constants
from refquant.perf.machines import Machine

__all__ = ["Setting", "Time", "settle", "layer_time"]

# Operators of ATen that go from codes to real numbers and back for each value; others move codes or compare them.
_BY_REALS = {
    "add", "mul", "add_scalar", "mul_scalar", "batch_norm", "quantize", "dequantize", "requantize", "sigmoid", "tanh", "hardsigmoid", "hardswish", "elu", "celu",
    "leaky_relu", "prelu", "gelu", "layer_norm", "group_norm", "instance_norm", "softmax", "interpolate",
}  # fmt: skip


class Setting(NamedTuple):
    """What layers run on: a machine, a share of it, and how much the weights of the whole network are.

    Attributes
    ----------
    machine : Machine
    cores : int
        Of one instance.
    instances : int
        That run on the socket at once, and share its memory and its L3.
    weight_bytes : int
        Of the whole network: every weight is used again one inference later.
    constants : Constants
    """

    machine: Machine
    cores: int
    instances: int
    weight_bytes: int
    constants: Constants = CONSTANTS

    def bandwidth(self, size):
        """Return (name, bytes/s) of the nearest memory of this instance that holds `size` bytes: L2, L3 or DRAM."""
        m = self.machine
        if size <= self.cores * m.l2_kib * 1024:
            return "L2", 1e9 * self.cores * m.l2_bytes * m.ghz
        if size <= m.l3_mib * 2**20 / self.instances:
            return "L3", 1e9 * self.cores * m.l3_bytes * m.ghz
        return "DRAM", 1e9 * min(self.cores * m.core_gbps, self.constants.dram * m.dram_gbps / self.instances)

    def cycles(self, count):
        """Return the seconds of so many cycles, spread over the cores."""
        return count / (self.cores * self.machine.ghz * 1e9)


class Time(NamedTuple):
    """What one call takes, in seconds, and why.

    Attributes
    ----------
    seconds : float
        ``max(compute, memory) + values + call``.
    compute, memory, values, call : float
        Multiplications; bytes; work for each value beside the multiplications; the framework's part.
    bound : {"compute", "memory", "values", "call"}
        The largest of them.
    level : {"L2", "L3", "DRAM"}
        Where the bytes that take longest come from.
    utilization : float
        Useful multiplications, of all that padded registers, padded tiles and idle cores could do.
    """

    seconds: float
    compute: float
    memory: float
    values: float
    call: float
    bound: str
    level: str
    utilization: float


def settle(machine, cores, instances, layers, constants=CONSTANTS):
    """Return the `Setting` of a network's layers on a part of a machine."""
    return Setting(machine, cores, instances, sum(layer.bytes()[2] for layer in layers), constants)


def layer_time(layer, kernel, setting):
    """Return the `Time` of a layer computed by a kernel.

    ``compute = 2 · multiply-adds / (utilization · share · peak)`` and ``memory = weights / B(all weights) + (in + out) / B(in + out)``, bytes over
    the bandwidth of the nearest memory that holds so many. ``values`` are cycles for each output.

    Parameters
    ----------
    layer : Layer
    kernel : Kernel
    setting : Setting

    Examples
    --------
    >>> from refquant.perf.layers import Layer
    >>> from refquant.perf.choose_kernel import choose_kernel
    >>> from refquant.perf.machines import get_machine
    >>> fc = Layer("fc", "linear", "int8", "product", multiply_adds=4096 * 4096, m=1, n=4096, k=4096, in_values=4096, out_values=4096, weight_values=4096 * 4096)
    >>> machine = get_machine("xeon-8358")
    >>> time = layer_time(fc, choose_kernel(fc, "x86", machine.level), settle(machine, 4, 8, [fc]))
    >>> time.bound, time.level, f"{1e3 * time.memory:.2f} ms"
    ('memory', 'DRAM', '0.73 ms')
    """
    c = setting.constants
    if layer.kind == "view":
        return Time(c.view_call, 0.0, 0.0, 0.0, c.view_call, "call", "L2", 1.0)
    utilization = _utilization(layer, kernel, setting) if layer.multiply_adds else 1.0
    compute = setting.cycles(2 * layer.multiply_adds / (utilization * _rate(kernel, setting))) if layer.multiply_adds else 0.0
    memory, level = _memory(layer, setting)
    values = setting.cycles(_cycles_a_value(layer, kernel, c) * layer.out_values)
    call = c.call + (c.fbgemm_call if kernel.engine == "fbgemm" else 0.0)
    parts = {"compute": compute, "memory": memory, "values": values, "call": call}
    return Time(max(compute, memory) + values + call, compute, memory, values, call, max(parts, key=parts.get), level, utilization)


def _rate(kernel, setting):
    """Operations a cycle and core that a kernel reaches with full registers."""
    c, m = setting.constants, setting.machine
    if kernel.unit == "reference":
        return c.reference
    if kernel.unit == "fp32":
        return m.fp32 * c.fp32
    if kernel.path == "depthwise":
        # FBGEMM's kernels pair taps in 256 bits on every processor; oneDNN's use one of the four bytes that vpdpbusd adds up, as wide as float32.
        return min(m.pairs, 128 / 3) if kernel.engine == "fbgemm" else m.fp32
    return getattr(m, kernel.unit) * c.multiply * (c.tile_share if kernel.unit == "tile" else 1.0)


def _utilization(layer, kernel, setting):
    """N fills lanes of int32, K fours of bytes (tiles: 64), M rows of tiles, and blocks of 16 by 64 outputs the cores."""
    if kernel.unit == "reference":
        return 1.0
    lanes = 16 if "AVX512F" in processor_level(setting.machine.level).extensions else 8
    if kernel.path == "depthwise":
        taps = math.prod(layer.geometry.kernel)
        return (_filled(taps, 4) if kernel.engine == "fbgemm" else 1.0) * _filled(-(-layer.groups // lanes) * layer.m, setting.cores)
    rows, depth = {"tile": (16, 64), "fp32": (1, 1)}.get(kernel.unit, (1, 4))
    # Groupwise kernels put several groups side by side into a register.
    n = layer.n * layer.groups if kernel.path == "groupwise" else layer.n
    blocks = -(-layer.m // 16) * -(-layer.n // 64) * layer.groups
    return _filled(layer.m, rows) * _filled(n, lanes) * _filled(layer.k, depth) * _filled(blocks, setting.cores)


def _filled(size, step):
    return size / (-(-size // step) * step) if size else 1.0


def _memory(layer, setting):
    ins, out, weights = layer.bytes()
    passes = setting.constants.float_passes if layer.dtype == "float32" and layer.geometry is not None else 1
    level, rate = setting.bandwidth(ins + out)
    seconds = (ins + out) / rate
    if weights:
        far, slow = setting.bandwidth(setting.weight_bytes)
        level = far if weights / slow > seconds else level
        seconds += weights / slow
    return passes * seconds, level


def _cycles_a_value(layer, kernel, constants):
    if kernel.engine == "fbgemm":
        # The depthwise kernel sums up one pixel at a time, in a buffer that stays in L1.
        return 0.0 if kernel.path == "depthwise" else constants.fbgemm_value
    return constants.aten_value if layer.dtype == "int8" and layer.op in _BY_REALS else 0.0
