"""Compiled kernels on disk: one folder per state of the sources, one file per compiled signature.

    <cache>/                              $REFQUANT_CACHE_DIR, else the user's cache folder, else a private temporary one
        3f9c…/                            hash of sources, versions and processor
            gemm._tiles-81ab….kernel      SHA-256 of the rest, then the pickled machine code

Numba's own cache keeps an index file per function, which two processes can overwrite for one another, and looks only at the
file that a function stands in. Here a file's name is the hash of everything that its content depends on, it appears in one
atomic step, and any failure to read or write means "compile", never an error.
"""

import hashlib
import os
import pickle
import shutil
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path

import llvmlite
import numba
from llvmlite import binding as llvm
from numba.core import config, entrypoints
from numba.core.caching import NullCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import compile_result
from numba.core.runtime import _nrt_python
from numba.core.serialize import dumps

from refquant.kernels.processor import emulated_level

__all__ = ["DiskCache", "cache_folder", "source_key"]

_PACKAGE = Path(__file__).resolve().parent.parent
_SOURCES = ("kernels", "core", "isa")
_KEEP_DAYS = 14


_OPTIONS = (
    "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "CPU_NAME", "CPU_FEATURES", "ENABLE_AVX",
)  # fmt: skip


def source_key(package=_PACKAGE):
    """Return the hash of all sources that kernels depend on, of the compiler's versions and options, and of the processor."""
    options = [getattr(config, name, None) for name in _OPTIONS]
    processor = llvm.get_host_cpu_name(), sorted(llvm.get_host_cpu_features().items()), emulated_level()
    digest = hashlib.sha256(repr((numba.__version__, llvmlite.__version__, sys.version, options, processor)).encode())
    for place, entry in _sources(package):
        digest.update(f"\0{place}\0".encode())
        with open(entry.path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:20]


def _sources(package, folders=_SOURCES):
    """The sources as (place in the package, entry of the folder): every load of a kernel looks at all of them."""
    for folder in folders:
        with os.scandir(package / folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        yield from ((f"{folder}/{entry.name}", entry) for entry in entries if entry.name.endswith(".py"))
        yield from _sources(package, [f"{folder}/{entry.name}" for entry in entries if entry.is_dir() and entry.name != "__pycache__"])


def _stamps(package=_PACKAGE):
    """What changes when a source does: a process whose sources are edited under it must neither read nor write."""
    return [(place, (state := entry.stat()).st_mtime_ns, state.st_size) for place, entry in _sources(package)]


_KEY, _STAMPS = source_key(), _stamps()


def _candidates():
    given = os.environ.get("REFQUANT_CACHE_DIR")
    if given:
        yield Path(given)
    elif sys.platform == "win32":
        yield Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "refquant" / "kernels"
    elif sys.platform == "darwin":
        yield Path.home() / "Library" / "Caches" / "refquant" / "kernels"
    else:
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refquant" / "kernels"
    user = os.getuid() if hasattr(os, "getuid") else "user"
    yield Path(tempfile.gettempdir()) / f"refquant-kernels-{user}"


def _trusted(folder):
    """Whether what is unpickled from `folder` was written by this user or by the administrator."""
    state = folder.stat()
    return not hasattr(os, "getuid") or (state.st_uid in (os.getuid(), 0) and not state.st_mode & 0o002)


@lru_cache(maxsize=None)
def cache_folder():
    """Return the folder for the kernels of these sources, or None where there is none to trust and write.

    A folder that already holds this state of the sources serves even where it is read-only.
    """
    key = _KEY
    for base in _candidates():
        folder = base / key
        try:
            fresh = not folder.is_dir()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (_trusted(base) and _trusted(folder)):
                continue
            if fresh:
                _prune(base)
        except (OSError, RuntimeError):
            continue
        return folder
    return None


def _prune(base):
    """Remove the folders of sources that nobody has compiled for two weeks."""
    oldest = time.time() - _KEEP_DAYS * 86400
    for folder in base.iterdir():
        try:
            if len(folder.name) == 20 and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue


def _place(file):
    """The file of a function: of the package's own the place in it, so that wherever the same sources are installed, their kernels serve."""
    path = Path(file)
    return path.relative_to(_PACKAGE).as_posix() if path.is_relative_to(_PACKAGE) else file


def _identity(value):
    """What tells a value that a kernel closes over from another: of a kernel its code, of an intrinsic its name, else itself."""
    if isinstance(getattr(value, "_cache", None), DiskCache):
        return value._cache._function
    return (type(value).__name__, getattr(value, "_name", None) or getattr(value, "__name__", None) or repr(value))


@lru_cache(maxsize=None)
def _connect_runtime():
    """Tell LLVM where the functions of Numba's runtime are, which machine code from the disk calls.

    It is all that such code needs. What Numba would also bring up, every operator that it can compile, takes longer than the rest of
    a warm start; Numba does it by itself before it compiles.
    """
    for name, address in _nrt_python.c_helpers.items():
        llvm.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


class _LoadedLibrary(JITCodeLibrary):
    """Machine code from the disk. The LLVM code beside it, which takes longer to read, is for callers that are compiled here."""

    _shared = _bitcode = None

    @property
    def _shared_module(self):
        if self._shared is None and self._bitcode is not None:
            self._shared = llvm.parse_bitcode(self._bitcode)
        return self._shared

    @_shared_module.setter
    def _shared_module(self, module):
        self._shared = module


def _load_library(codegen, name, code, bitcode, symbols):
    """Link machine code into this process; what Numba's ``unserialize_library`` does, less reading the LLVM code."""
    library = _LoadedLibrary(codegen, name)
    library._bitcode = bitcode
    library.enable_object_caching()
    library._set_compiled_object(code)
    library._finalize_final_module()
    codegen._engine._defined_symbols.update(symbols)
    return library


def _reduce(cres):
    """What of a compiled kernel is kept: as Numba's ``CompileResult`` gives it, and the symbols that its LLVM code defines.

    Left out are the environments of the functions that the code calls. They hold Python objects for code that talks to the interpreter,
    which a kernel does not, and importing their modules takes long.
    """
    (name, _, code), *parts, _ = cres._reduce()
    module = cres.library._get_module_for_linking()
    symbols = [value.name for values in (module.functions, module.global_variables) for value in values if not value.is_declaration]
    return (name, *code, symbols), parts


def _rebuild(target, library, parts):
    """The kernel that `_reduce` took apart."""
    description, environment, signature, objectmode, lifted, annotation, again, *_ = parts
    for function in again:
        function()
    library = _load_library(target.codegen(), *library)
    return compile_result(
        target_context=target, typing_context=target.typing_context, library=library, fndesc=description, environment=environment,
        entry_point=target.get_executable(library, description, environment), signature=signature, objectmode=objectmode, lifted=lifted,
        type_annotation=annotation, reload_init=again, referenced_envs=[],
    )  # fmt: skip


class DiskCache(NullCache):
    """The cache of one kernel, in the place of Numba's ``FunctionCache``."""

    def __init__(self, function):
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        cells = [_identity(cell.cell_contents) for cell in function.__closure__ or ()]
        self._function = (_place(function.__code__.co_filename), function.__code__.co_code, repr(function.__code__.co_consts), cells)
        self.hits = 0

    @property
    def cache_path(self):
        return str(cache_folder())

    def _path(self, signature, codegen):
        folder = cache_folder()
        if folder is None or _stamps() != _STAMPS:
            raise FileNotFoundError("no cache for these sources")
        key = hashlib.sha256(dumps((self._function, repr(signature), codegen.magic_tuple()))).hexdigest()[:24]
        return folder / f"{self._name.replace('<locals>.', '')}-{key}.kernel"

    def load_overload(self, sig, target_context):
        result = self._load(sig, target_context)
        if result is None:
            entrypoints.init_all()  # which `Kernel` leaves out, for what follows is compiling
        return result

    def _load(self, sig, target_context):
        try:
            content = self._path(sig, target_context.codegen()).read_bytes()
            if hashlib.sha256(content[32:]).digest() != content[:32]:
                return None
            _connect_runtime()
            result = _rebuild(target_context, *pickle.loads(content[32:]))
        except Exception:  # whatever is wrong with the file or the folder, compiling is always possible
            return None
        self.hits += 1
        return result

    def save_overload(self, sig, cres):
        if cres.library.has_dynamic_globals or any(not lifted.can_cache for lifted in cres.lifted):
            return
        try:
            path = self._path(sig, cres.codegen)
            content = dumps(_reduce(cres))
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(content).digest() + content)
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except Exception:  # a full or read-only disk costs time, never a result
            return
