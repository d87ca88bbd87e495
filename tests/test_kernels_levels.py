"""The tests of kernels once more at levels of processors that this one may lack: what is not a product, whose rungs `test_verify_kernels` sweeps."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from refquant.kernels.jit import jit_disabled
from refquant.kernels.processor import VARIABLE, cpu_features, host_features

HERE = Path(__file__).parent
# On 512 bits with vpdpbusd and without; on neither 512 bits nor their halves.
LEVELS = {
    "avx512_vnni": ("test_kernels_conv.py::test_depthwise[48]", "test_kernels_conv.py::test_pairs_of_taps_in_registers[72]", "test_kernels_sum.py", "test_kernels_stage.py::test_straight_lines"),
    "avx512": ("test_kernels_conv.py::test_depthwise[48]",),
    "sse41": ("test_kernels_conv.py::test_depthwise[3]", "test_kernels_pool.py", "test_kernels_stage.py::test_small_near_ties"),
}
pytestmark = pytest.mark.skipif(jit_disabled() or VARIABLE in os.environ, reason="levels are of compiled kernels, one at a time")


def python(*arguments, level):
    environment = {**os.environ, VARIABLE: level, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=HERE)


@pytest.mark.parametrize("level", LEVELS)
def test_kernels_at_a_level(level):
    done = python("-m", "pytest", "-p", "no:cacheprovider", *LEVELS[level], level=level)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= len(LEVELS[level])


def test_a_level_is_what_kernels_see():
    code = "from refquant.kernels.tile import RUNGS, choose_rung; print(choose_rung().name, choose_rung(exact=False), *(r.name for r in RUNGS if r.runs_here))"
    expected = {
        "amx_int8": "avx512vnni pairs512 avx512vnni avx512bw avxvnni avx2 portable pairs512 pairs256",
        "avx512": "avx512bw pairs512 avx512bw avx2 portable pairs512 pairs256",
        "avx_vnni": "avxvnni pairs256 avxvnni avx2 portable pairs256",
        "sse41": "portable None portable",
    }
    code = code.replace("choose_rung(exact=False)", "getattr(choose_rung(exact=False), 'name', None)")
    for level, text in expected.items():
        assert python("-c", code, level=level).stdout.strip() == text
    refused = python("-c", "import refquant.kernels.jit", level="avx513")
    assert refused.returncode == 1 and "REFQUANT_EMULATE='avx513'" in refused.stderr


def test_nothing_is_emulated_unless_asked():
    assert cpu_features() == host_features()


def test_each_level_has_a_cache_of_its_own():
    keys = {python("-c", "from refquant.kernels.disk_cache import source_key; print(source_key())", level=level).stdout for level in ("", "avx2", "sse41", "avx512")}
    assert len(keys) == 4 and all(len(key) == 21 for key in keys)
