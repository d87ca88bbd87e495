"""Processors as data: how many cores, how wide, how large and how fast their memories are. Nothing here is measured on the running machine."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from refquant.core.levels import check_level
from refquant.errors import ArgumentError, RangeError, RefquantError, choose
from refquant.isa.cpu import level as processor_level

__all__ = ["Machine", "MACHINES", "machine_names", "get_machine", "read_machine"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One processor (socket).

    Peaks are operations a cycle and core, where a multiply-add counts as two: ``fp32`` by FMA, ``pairs`` by the chain vpmaddubsw, vpmaddwd,
    vpaddd, ``dot`` by vpdpbusd, ``tile`` by tdpbusd; 0 where the processor has no such instruction. With two vector ports of V bits,
    ``fp32 = 2 · 2 · V/32``, ``dot = 2 · 2 · V/8`` and ``pairs = dot / 3``, three instructions for one.

    Attributes
    ----------
    name, title : str
    level : str
        A level of `refquant.isa.cpu.LEVELS`, which decides the kernels.
    cores : int
    ghz : float
        Sustained with all cores on vectors: the base clock, unless the vendor publishes more.
    fp32, pairs, dot, tile : float
        Peaks, operations a cycle and core.
    l1_kib, l2_kib : float
        Of one core.
    l3_mib : float
        Of the socket.
    l2_bytes, l3_bytes : float
        What one core reads, bytes a cycle, from its L2 and from the L3.
    dram_gbps : float
        Peak of the socket's memory, GB/s: channels · transfers/s · 8 bytes.
    core_gbps : float
        What one core alone draws from memory, GB/s.
    source : str
        Where the figures are published, and which are assumed.
    """

    name: str
    title: str
    level: str
    cores: int
    ghz: float
    fp32: float
    pairs: float
    dot: float
    tile: float
    l1_kib: float
    l2_kib: float
    l3_mib: float
    l2_bytes: float
    l3_bytes: float
    dram_gbps: float
    core_gbps: float
    source: str

    def __post_init__(self):
        place = f"machine {self.name!r}"
        check_level(self.level, place)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in (str, "str"):
                if not isinstance(value, str) or not value:
                    raise ArgumentError(f"{place}: {field.name}={value!r} must be a text; write one")
            elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise RangeError(f"{place}: {field.name}={value!r} must be a finite number of at least 0; correct it")
            elif value == 0 and field.name not in ("dot", "tile", "l3_mib", "l3_bytes"):
                raise RangeError(f"{place}: {field.name}=0 must be positive; only dot, tile and the L3 may be 0, which means there is none")
        if not isinstance(self.cores, int):
            raise RangeError(f"{place}: cores={self.cores!r} must be a whole number; correct it")
        kind = processor_level(self.level)
        for name, has in (("dot", kind.vnni), ("tile", "AMX-INT8" in kind.extensions), ("l3_bytes", self.l3_mib > 0)):
            if has and not getattr(self, name):
                raise RangeError(f"{place}: {name}=0 but the machine has it (level={self.level!r}, l3_mib={self.l3_mib}); give its rate")

    def peak(self, unit, cores=1):
        """Return the peak in G operations/s of `cores` cores by ``unit``: ``fp32``, ``pairs``, ``dot`` or ``tile``.

        Examples
        --------
        >>> get_machine("xeon-8358").peak("dot", cores=4)
        2662.4
        """
        return cores * self.ghz * getattr(self, unit)


# Vector units as the vendors' optimization manuals give them: peaks of two 512-bit ports, of two 256-bit ports, and of the latter with AVX-512 in two passes.
_WIDE = dict(fp32=64, pairs=256 / 3, dot=256, tile=0, l2_bytes=48, l3_bytes=10)
_AMX = {**_WIDE, "tile": 2048}
_NARROW = dict(fp32=32, pairs=128 / 3, dot=0, tile=0, l2_bytes=32, l3_bytes=10)
_ASSUMED = "assumed: L2 48 (256-bit cores 32) and L3 10 bytes a cycle, and what one core draws from memory"

MACHINES = (
    Machine(
        name="xeon-6455b", title="Intel Xeon Gold 6455B (AWS r7iz.metal-16xl)", level="amx_int8", cores=32, ghz=3.9, **_AMX, l1_kib=48, l2_kib=2048, l3_mib=60,
        dram_gbps=307.2, core_gbps=12, source="AWS: r7iz, 3.9 GHz sustained on all cores, 8 DIMMs; DDR5-4800 and an unreduced AMX clock are assumed; " + _ASSUMED,
    ),
    Machine(
        name="xeon-8480", title="Intel Xeon Platinum 8480+ (Sapphire Rapids)", level="amx_int8", cores=56, ghz=2.0, **_AMX, l1_kib=48, l2_kib=2048, l3_mib=105,
        dram_gbps=307.2, core_gbps=12, source="Intel ARK: base clock, caches, 8 channels of DDR5-4800; " + _ASSUMED,
    ),
    Machine(
        name="xeon-8380", title="Intel Xeon Platinum 8380 (Ice Lake)", level="avx512_vnni", cores=40, ghz=2.3, **_WIDE, l1_kib=48, l2_kib=1280, l3_mib=60,
        dram_gbps=204.8, core_gbps=12, source="Intel ARK: base clock, caches, 8 channels of DDR4-3200; " + _ASSUMED,
    ),
    Machine(
        name="xeon-8358", title="Intel Xeon Platinum 8358 (Ice Lake)", level="avx512_vnni", cores=32, ghz=2.6, **_WIDE, l1_kib=48, l2_kib=1280, l3_mib=48,
        dram_gbps=204.8, core_gbps=12, source="Intel ARK: base clock, caches, 8 channels of DDR4-3200; " + _ASSUMED,
    ),
    Machine(
        name="xeon-8280", title="Intel Xeon Platinum 8280 (Cascade Lake)", level="avx512_vnni", cores=28, ghz=2.7, **_WIDE, l1_kib=32, l2_kib=1024, l3_mib=38.5,
        dram_gbps=140.8, core_gbps=12, source="Intel ARK: base clock, caches, 6 channels of DDR4-2933; " + _ASSUMED,
    ),
    Machine(
        name="xeon-8180", title="Intel Xeon Platinum 8180 (Skylake-SP)", level="avx512", cores=28, ghz=2.5, **{**_WIDE, "dot": 0}, l1_kib=32, l2_kib=1024, l3_mib=38.5,
        dram_gbps=128.0, core_gbps=12, source="Intel ARK: base clock, caches, 6 channels of DDR4-2666; " + _ASSUMED,
    ),
    Machine(
        name="epyc-9654", title="AMD EPYC 9654 (Zen 4)", level="avx512_vnni", cores=96, ghz=3.55, **{**_WIDE, "fp32": 32, "pairs": 128 / 3, "dot": 128}, l1_kib=32,
        l2_kib=1024, l3_mib=384, dram_gbps=460.8, core_gbps=20,
        source="AMD: boost of all cores, caches, 12 channels of DDR5-4800; AVX-512 in two passes over 256-bit units; " + _ASSUMED,
    ),
    Machine(
        name="epyc-9755", title="AMD EPYC 9755 (Zen 5)", level="avx512_vnni", cores=128, ghz=2.7, **_WIDE, l1_kib=48, l2_kib=1024, l3_mib=512, dram_gbps=576.0,
        core_gbps=20, source="AMD: base clock, caches, 12 channels of DDR5-6000; " + _ASSUMED,
    ),
    Machine(
        name="epyc-7763", title="AMD EPYC 7763 (Zen 3)", level="avx2", cores=64, ghz=2.45, **_NARROW, l1_kib=32, l2_kib=512, l3_mib=256, dram_gbps=204.8, core_gbps=20,
        source="AMD: base clock, caches, 8 channels of DDR4-3200; " + _ASSUMED,
    ),
    Machine(
        name="core-155h", title="Intel Core Ultra 7 155H, its performance cores (a laptop with AVX-VNNI)", level="avx_vnni", cores=6, ghz=3.8, **{**_NARROW, "dot": 128},
        l1_kib=48, l2_kib=2048, l3_mib=24, dram_gbps=119.5, core_gbps=30,
        source="Intel ARK: caches, LPDDR5x-7467 of 128 bits; the clock, between base 1.4 and turbo 4.8 GHz, is assumed; " + _ASSUMED,
    ),
)  # fmt: skip

_BY_NAME = {}
for _machine in MACHINES:
    if _machine.name in _BY_NAME:
        raise ArgumentError(f"perf.machines: two machines are named {_machine.name!r}; rename one")
    _BY_NAME[_machine.name] = _machine


def machine_names():
    """Return the names of all machines.

    Examples
    --------
    >>> machine_names()[:2]
    ('xeon-6455b', 'xeon-8480')
    """
    return tuple(_BY_NAME)


def get_machine(machine):
    """Return a machine by name, or from a JSON file where the name ends in ``.json``; a `Machine` passes through.

    Raises
    ------
    ArgumentError
        An unknown name, with the list and the nearest one, or what `read_machine` raises.

    Examples
    --------
    >>> get_machine("xeon-8358").cores
    32
    """
    if isinstance(machine, Machine):
        return machine
    if isinstance(machine, str) and machine.endswith(".json"):
        return read_machine(machine)
    return _BY_NAME[choose("simulate", "machine", machine, _BY_NAME)]


def read_machine(path):
    """Read a machine from a JSON file: an object with the attributes of `Machine`; ``"like"`` names one whose figures hold where none are
    given; the name is the file's unless given.

    Raises
    ------
    ArgumentError
        Unreadable or not JSON, unknown or missing entries.
    RangeError
        A number that is negative or not finite, or cores that are none.
    """
    try:
        with open(path, encoding="utf-8") as file:
            entries = json.load(file)
    except (OSError, UnicodeDecodeError) as error:
        raise RefquantError(f"machine {path}: must be a readable text file, but {getattr(error, 'strerror', None) or 'it is not UTF-8'}; correct the path") from error
    except json.JSONDecodeError as error:
        raise ArgumentError(f"machine {path}: line {error.lineno}, column {error.colno} is not JSON ({error.msg}); correct it") from error
    if not isinstance(entries, dict):
        raise ArgumentError(f"machine {path}: holds a {type(entries).__name__} but must be an object; write {{\"like\": \"xeon-8358\", \"cores\": 8}}")
    base = asdict(_BY_NAME[choose(f"machine {path}", "like", entries.pop("like"), _BY_NAME)]) if "like" in entries else {}
    names = [field.name for field in fields(Machine)]
    stem = Path(path).stem
    entries = {"name": stem, "title": f"{stem}, like {base['title']}" if base else stem, **entries}
    for key in entries:
        choose(f"machine {path}", "entry", key, [*names, "like"])
    missing = [name for name in names if name not in {**base, **entries}]
    if missing:
        raise ArgumentError(f"machine {path}: {', '.join(missing)} missing; give every entry, or \"like\": the name of a machine that is near")
    return Machine(**{**base, **entries})
