"""The decorator, its cache on disk, and the threads: what is kept, what is refused, and that no failure of a disk is seen."""

import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import refquant
from refquant.errors import ArgumentError, RangeError
from refquant.kernels import disk_cache
from refquant.kernels.jit import get_num_threads, jit_disabled, kernel, set_num_threads
from refquant.kernels.processor import cpu_features

PACKAGE = Path(refquant.__file__).resolve().parent

PROGRAM = """
import numpy as np
from refquant.kernels import disk_cache, signature
from refquant.kernels.jit import kernel
from refquant.kernels.scalar import wrap32

@kernel
def helper(x):
    return x + {added}

@kernel
def double(x):
    return wrap32(np.int64(helper(x) * 2))

print(int(double(5)), double._cache.hits, disk_cache.cache_folder())
"""


@pytest.fixture
def package(tmp_path):
    """A copy of the package, which nobody edits while the test runs."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "copy" / "refquant"))


def run(package, cache, *, added=1, **environment):
    """Run the program above in a process of its own; gives (result, hits, folder)."""
    file = package.parent / f"program{added}.py"
    file.write_text(PROGRAM.format(added=added))
    env = {**os.environ, "PYTHONPATH": str(package.parent), "REFQUANT_CACHE_DIR": str(cache), **environment}
    done = subprocess.run([sys.executable, str(file)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result, hits, folder = done.stdout.split(maxsplit=2)
    return int(result), int(hits), folder.strip()


needs_jit = pytest.mark.skipif(jit_disabled(), reason="without a compiler nothing is kept")


@needs_jit
def test_a_second_process_loads_what_the_first_compiled(package, tmp_path):
    assert run(package, tmp_path / "cache")[:2] == (12, 0)
    assert run(package, tmp_path / "cache")[:2] == (12, 1)


@needs_jit
def test_a_copy_of_the_package_loads_what_another_compiled(package, tmp_path):
    """The same sources in another place: a kernel of the package is loaded."""
    code = "import numpy as np; from refquant.kernels import columns; columns.column_sums(np.ones((2, 3), np.int8)); print(columns._sum_columns._cache.hits)"
    hits = []
    for place in (package.parent, Path(shutil.copytree(package, tmp_path / "other" / "refquant")).parent):
        env = {**os.environ, "PYTHONPATH": str(place), "REFQUANT_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        hits.append(int(done.stdout))
    assert hits == [0, 1]


@needs_jit
def test_an_edited_source_is_compiled_anew(package, tmp_path):
    """Also where the edit is in a file that the kernel only calls: here the package's own."""
    first = run(package, tmp_path / "cache")
    assert run(package, tmp_path / "cache") == (12, 1, first[2])
    scalar = package / "kernels" / "scalar.py"
    edited = scalar.read_text().replace("return lambda x: _truncate_to_int32(x)", "return lambda x: _truncate_to_int32(x + 100)")
    assert edited != scalar.read_text()
    scalar.write_text(edited)
    second = run(package, tmp_path / "cache")
    assert second[:2] == (112, 0) and second[2] != first[2]


MIXED = """
import sys
import numpy as np
import refquant as rq

def layer(x, k):
    w = rq.QTensor(np.arange(-128, -128 + 16 * k, dtype=np.int16).astype(np.int8).reshape(16, k), rq.QParams(0.02, 0, "int8"))
    return rq.ops.linear(x, w, np.zeros(16, np.float32), out=rq.QParams(0.1, 3, "uint8"), numerics="x86").values

x = rq.QTensor(np.arange(64, dtype=np.uint8).reshape(2, 32), rq.QParams(0.05, 30, "uint8"))
first = layer(x, 32)
print("numba.np.linalg" in sys.modules, end=" ")
if sys.argv[1:]:
    y = rq.ops.max_pool2d(rq.QTensor(x.values.reshape(1, 1, 8, 8), x.qparams), 2)
    print("numba.np.linalg" in sys.modules, y.values.sum(), end=" ")
print(first.tobytes().hex())
"""


@needs_jit
def test_a_warm_start_brings_up_no_operator_of_numba(tmp_path):
    def process(*arguments):
        env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "REFQUANT_CACHE_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", MIXED, *arguments], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    compiled, cold = process()
    loaded, warm = process()
    assert (compiled, loaded) == ("True", "False") and warm == cold
    before, behind, pooled, mixed = process("compile more")
    assert (before, behind) == ("False", "True") and mixed == cold
    x = np.arange(64).reshape(4, 2, 4, 2)
    assert int(pooled) == x.max((1, 3)).sum()
    *_, pooled_again, mixed = process("compile more")
    assert (pooled_again, mixed) == (pooled, cold)


COUNTED = """
import sys
from llvmlite import binding
from numba.core import entrypoints

read, parse = [], binding.parse_bitcode
binding.parse_bitcode = lambda *given: read.append(given) or parse(*given)

import numpy as np
import refquant as rq
from refquant.kernels import disk_cache

loads, load = [], disk_cache.DiskCache._load
disk_cache.DiskCache._load = lambda *given: loads.append(load(*given)) or loads[-1]
x = rq.QTensor(np.arange(64, dtype=np.uint8).reshape(2, 32), rq.QParams(0.05, 30, "uint8"))
w = rq.QTensor(np.ones((16, 32), np.int8), rq.QParams(0.02, 0, "int8"))
rq.ops.linear(x, w, np.zeros(16, np.float32), out=rq.QParams(0.1, 3, "uint8"), numerics="x86")
print(len(loads), loads.count(None), len(read), "numpy.ma" in sys.modules, entrypoints._already_initialized)
"""


@needs_jit
def test_what_a_warm_start_is_made_of(tmp_path):
    """A few kernels and their machine code: no LLVM code is read, no module brought in for what a kernel never gets, no package looked at."""
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "REFQUANT_CACHE_DIR": str(tmp_path)}

    def process():
        done = subprocess.run([sys.executable, "-c", COUNTED], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    kernels, compiled, *_, extensions = process()
    assert kernels == compiled and extensions == "True"
    kernels, compiled, read, masked, extensions = process()
    assert int(kernels) <= 5 and compiled == read == "0" and masked == extensions == "False"


CALLER = """
import numpy as np
from refquant.kernels.jit import kernel

@kernel
def inner(x):
    return x + 1

@kernel
def outer(x):
    return inner(x) * {factor}

print(inner(5), outer(5), inner._cache.hits, outer._cache.hits)
"""


@needs_jit
def test_a_caller_that_is_compiled_takes_in_what_was_loaded(package, tmp_path):
    """The LLVM code of a kernel from the disk is read for the first caller that is compiled."""
    answers = []
    for factor in (2, 3):
        (tmp_path / "program.py").write_text(CALLER.format(factor=factor))
        env = {**os.environ, "PYTHONPATH": str(package.parent), "REFQUANT_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run([sys.executable, str(tmp_path / "program.py")], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout.split())
    assert answers == [["6", "12", "0", "0"], ["6", "18", "1", "0"]]


@needs_jit
def test_sources_edited_under_a_running_process_are_not_cached(monkeypatch):
    monkeypatch.setattr(disk_cache, "_STAMPS", disk_cache._STAMPS[:-1])

    @kernel
    def triple(x):
        return 3 * x

    assert triple(4) == 12
    folder = disk_cache.cache_folder()
    assert not list(folder.glob("*triple*"))


@needs_jit
@pytest.mark.parametrize("damage", ["truncated", "a bit", "empty"])
def test_a_damaged_file_is_compiled_anew(package, tmp_path, damage):
    folder = Path(run(package, tmp_path / "cache")[2])
    files = list(folder.glob("*.kernel"))
    assert files
    for file in files:
        content = bytearray(file.read_bytes())
        content[100] ^= 1
        file.write_bytes({"truncated": content[:-9], "a bit": content, "empty": b""}[damage])
    assert run(package, tmp_path / "cache")[:2] == (12, 0)
    assert run(package, tmp_path / "cache")[:2] == (12, 1)


@needs_jit
def test_a_folder_that_cannot_be_written(package, tmp_path):
    """A file in its place, which stops the administrator too: the temporary folder takes over, or nothing does."""
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    spare = tmp_path / "spare"
    spare.mkdir()
    result, _, folder = run(package, blocked / "cache", TMPDIR=str(spare))
    assert result == 12 and folder.startswith(str(spare))
    assert run(package, blocked / "cache", TMPDIR=str(spare))[:2] == (12, 1)


@needs_jit
def test_a_folder_of_somebody_else_is_not_trusted(package, tmp_path):
    open_to_all = tmp_path / "cache"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    spare = tmp_path / "spare"
    spare.mkdir()
    result, _, folder = run(package, open_to_all, TMPDIR=str(spare))
    assert result == 12 and folder.startswith(str(spare))


@needs_jit
def test_a_lost_folder_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_cache, "cache_folder", lambda: tmp_path / "gone")

    @kernel
    def square(x):
        return x * x

    assert square(7) == 49
    monkeypatch.setattr(disk_cache, "cache_folder", lambda: None)
    assert square(7.0) == 49.0


@needs_jit
def test_two_processes_at_once(package, tmp_path):
    """Both compile different kernels of the same names into an empty folder; each later finds its own."""
    results = {}

    def work(added):
        results[added] = run(package, tmp_path / "cache", added=added)[:2]

    threads = [threading.Thread(target=work, args=(added,)) for added in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {1: (12, 0), 2: (14, 0), 3: (16, 0)}
    for added in (1, 2, 3):
        assert run(package, tmp_path / "cache", added=added)[:2] == (10 + 2 * added, 1)


def test_old_folders_are_removed(tmp_path):
    old, young, other = (tmp_path / name for name in ("0" * 20, "1" * 20, "something of the user's"))
    for folder in (old, young, other):
        folder.mkdir()
    for folder in (old, other):
        os.utime(folder, (0, 0))
    disk_cache._prune(tmp_path)
    assert not old.exists() and young.exists() and other.exists()


def python(code, **environment):
    """Run code beside the package; gives what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=PACKAGE.parent, timeout=300,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_users_own_numba_is_left_alone():
    code = "import refquant.kernels.jit, numba; print(numba.config.CACHE_DIR, numba.config.NUMBA_NUM_THREADS, numba.config.OPT)"
    assert python(code) == python(code.replace("refquant.kernels.jit, ", ""))


def test_importing_the_package_does_not_import_numba():
    code = "import refquant, sys; print('numba' in sys.modules)"
    assert python(code) == "False"


@pytest.mark.parametrize(
    "n, error", [(0, RangeError), (-3, RangeError), (1.5, ArgumentError), ("2", ArgumentError), (True, ArgumentError)]
)
def test_thread_numbers_that_are_refused(n, error):
    before = get_num_threads()
    with pytest.raises(error, match="set_num_threads: n="):
        set_num_threads(n)
    assert get_num_threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_threads_after_a_fork():
    code = """
    import os, numpy as np
    from refquant.kernels.gemm import gemm_s32
    from refquant.kernels.jit import set_num_threads
    from refquant.kernels.pack import pack_b
    set_num_threads(2)
    a, b = np.ones((700, 300), np.uint8), pack_b(np.ones((300, 300), np.int8))
    gemm_s32(a, b)
    child = os.fork()
    if child == 0:
        os._exit(0 if (gemm_s32(a, b) == 300).all() else 1)
    print(os.waitpid(child, 0)[1])
    """
    assert python(code) == "0"


def test_features_are_numbas():
    code = "from refquant.kernels.processor import cpu_features; print(sorted(cpu_features()))"
    assert python(code, NUMBA_CPU_FEATURES="+sse2,-avx2,+avx") == "['avx', 'sse2']"
    assert python(code, NUMBA_CPU_FEATURES="") == "[]"
    assert "avx" not in python(code, NUMBA_ENABLE_AVX="0")
    assert isinstance(cpu_features(), frozenset)


def test_saturating_convolutions_run_without_the_jit():
    """Windows are copied in words by emitted code, for which plain Python has a copy of its own."""
    code = """
import numpy as np
from refquant.verify import build, oracle
for line in (
    "conv1d/onednn@avx2/n1c3w17-oc5k3/neartie/seed=4/relu/channels_last", "conv2d/onnxruntime@avx2/n1c3h4w5-oc4k3p1/pairs/seed=4/per_channel/intbias",
    "conv3d/fbgemm@avx2/n1c4t3h3w3-oc6k2x3x1s1x2x1g2/pairs/seed=4/per_channel", "conv_transpose1d/onednn@avx2/n1c4w5-oc4k3s2/pairs/seed=4",
    "conv_transpose1d/fbgemm@avx2/n1c4w5-oc4k3s2/pairs/seed=4", "conv2d/onednn@avx512_vbmi/n1c1h4w7-oc4k3/pairs/seed=4", "conv2d/openvino@avx2/n1c6h4w4-oc6k2g2/pairs/seed=4",
):
    problem, profile = build(line), line.split("/")[1]
    assert np.array_equal(oracle(problem, profile), oracle(problem, profile, reference=True)), line
    print(line)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "NUMBA_DISABLE_JIT": "1"})
    assert run.returncode == 0 and len(run.stdout.splitlines()) == 7, run.stderr
