"""The processor that an engine runs on, for the provenance of its results."""

import platform
from functools import lru_cache
from pathlib import Path

from refquant.verify.held import level_here, profile_here

__all__ = ["cpu_model", "cpu_features", "has_vnni", "level_here", "profile_here"]

#: Features that decide which INT8 kernels an engine takes, as Linux spells them.
_TELLING = ("avx2", "fma", "avx_vnni", "avx_vnni_int8", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")


@lru_cache(maxsize=None)
def _cpuinfo():
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_model():
    """Return the processor's name, or its architecture where the system does not tell."""
    info = _cpuinfo()
    family = ", ".join(f"{key.split()[-1]} {info[key]}" for key in ("cpu family", "model") if key in info)
    name = info.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({family})" if family else name


def cpu_features():
    """Return those features of the processor that decide which INT8 kernels run; empty where the system does not tell."""
    info = _cpuinfo()
    flags = (info.get("flags") or info.get("Features") or "").split()
    return tuple(name for name in _TELLING if name in flags)


def has_vnni():
    """Whether the processor has AVX512-VNNI; None where the system does not tell."""
    features = cpu_features()
    return "avx512_vnni" in features if features else None
