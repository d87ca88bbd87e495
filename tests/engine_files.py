"""Which files of tests ask for an engine. What asks for none is tested as well on a machine that has none: the gate runs it there alone.

``python tests/engine_files.py`` prints the files that ask, one a line. A file asks by what it imports, wherever in it: an engine's package,
`refquant.backends`, or a module that starts processes, whose work nobody sees; by ``pytest.importorskip``; or by the marker ``engine``. On a
machine without engines `conftest` fails what asks for one in a file that does not say so.
"""

import ast
import os
from functools import lru_cache
from pathlib import Path

__all__ = ["PACKAGES", "asks", "files"]

#: Packages of engines, and others that a machine without engines lacks.
PACKAGES = ("torch", "torchao", "onnx", "onnxruntime", "openvino", "ai_edge_litert", "distributed", "hypothesis")
_PROCESSES = ("subprocess", "multiprocessing")
_ADAPTERS = ("refquant.backends", "refquant.interop.onnx", "refquant.interop.from_torch")
_FOLDER = Path(__file__).resolve().parent


@lru_cache(maxsize=None)
def asks(path):
    """Whether a file of tests, or a file beside it that it imports, says that it asks for an engine."""
    return _asks(ast.parse(path.read_text(encoding="utf-8")), {path})


def _asks(tree, seen):
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("importorskip", "engine"):
            return True
        for name in _imported(node):
            beside = _FOLDER / f"{name}.py"
            if name.partition(".")[0] in (*PACKAGES, *_PROCESSES) or any(f"{name}.".startswith(f"{adapter}.") for adapter in _ADAPTERS):
                return True
            if beside.exists() and beside not in seen:
                seen.add(beside)
                if _asks(ast.parse(beside.read_text(encoding="utf-8")), seen):
                    return True
    return False


def _imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def files():
    """Return the files that ask, in order."""
    return [path for path in sorted(_FOLDER.rglob("test_*.py")) if asks(path)]


if __name__ == "__main__":
    print(*(os.path.relpath(path) for path in files()), sep="\n")
