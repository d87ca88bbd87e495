"""The design's rules, checked on the sources: who may import whom, where rounding lives, how long files and functions are."""

import ast
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "refquant"

MAY_IMPORT = {
    "core": set(),
    "isa": {"core"},
    "numerics": {"core"},
    "kernels": {"core", "isa"},
    "observers": {"core", "numerics", "kernels"},
    "ops": {"core", "isa", "numerics", "kernels"},
    "graph": {"core", "ops"},
    "workflow": {"core", "numerics", "observers", "ops", "graph"},
    "interop": {"core", "numerics", "ops", "graph", "workflow"},
    "verify": {"core", "isa", "numerics", "ops", "graph"},
    "backends": {"core", "numerics", "graph", "verify"},
    "drift": {"core", "numerics", "ops", "graph", "workflow", "verify"},
    "perf": {"core", "isa", "numerics", "graph"},
    "zoo": {"core", "graph", "interop"},
    "testing": {"core", "numerics", "verify"},
}
ALWAYS = {"errors", "version", "data"}
NUMBA_FREE = {"core", "isa", "numerics"}
OPTIONAL = {"torch", "onnx", "onnxruntime", "openvino", "ai_edge_litert", "sklearn", "torchao", "hypothesis"}


parsed = lru_cache(maxsize=None)(ast.parse)


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((a.name, node) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module, node
            yield from ((f"{node.module}.{a.name}", node) for a in node.names)


def violations(home, source):
    """Return what the file in folder `home` imports and may not."""
    tree = parsed(source)
    top = {id(n) for n in tree.body}
    found = set()
    for name, node in imported(tree):
        parts = name.split(".")
        if parts[0] == "refquant" and len(parts) > 1 and (PACKAGE / parts[1]).exists():
            if parts[1] not in MAY_IMPORT.get(home, {parts[1]}) | ALWAYS | {home}:
                found.add(f"refquant.{parts[1]}")
        if parts[0] in ("numba", "llvmlite") and home in NUMBA_FREE and id(node) in top:
            found.add(parts[0])
        if parts[0] in OPTIONAL and id(node) in top and home not in ("backends", "interop"):
            found.add(parts[0])
    return found


@lru_cache(maxsize=None)
def sources(*folders):
    """``{path: text}`` of the Python files in the project's folders."""
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))}


def test_imports_follow_the_table():
    found = {path: violations(path.split("/")[1], text) for path, text in sources("refquant").items()}
    assert len(found) > 400 and {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "home, source, fault",
    [
        ("core", "from refquant.numerics import get", "refquant.numerics"),
        ("kernels", "def f():\n    import refquant.numerics", "refquant.numerics"),
        ("core", "import numba", "numba"),
        ("graph", "import torch", "torch"),
    ],
)
def test_a_forbidden_import_is_found(home, source, fault):
    assert fault in violations(home, source)


def rounds_by_hand(source):
    """Return the calls that round without naming a mode."""
    names = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Attribute) and node.attr in ("rint", "round", "around", "round_"):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("console", "random")):
                names.add(node.attr)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "round":
            names.add("round")
    return names


# The home of all modes; and the widths that RegNet's paper rounds, which are no numerics.
ROUNDING_HOMES = {"refquant/core/rounding.py", "refquant/zoo/regnet.py"}
# Planted faults and second formulas, which are written without what they are held against.
ROUNDS_FOR_ITSELF = "refquant/verify/"


def test_rounding_has_one_home():
    found = {path: rounds_by_hand(text) for path, text in sources("refquant").items() if not path.startswith(ROUNDS_FOR_ITSELF)}
    assert {path for path, names in found.items() if names} == ROUNDING_HOMES


def test_a_stray_rounding_is_found():
    assert rounds_by_hand("import numpy as np\nnp.rint(x)") == {"rint"}


LONGEST_FILE, LONGEST_FUNCTION = 400, 60
# The loops of one compiled kernel, which share what they hold in registers.
LONG_FUNCTIONS = {"refquant/kernels/product.py: _product_kernel", "refquant/kernels/product.py: product"}


def long_functions(path, source):
    """Return the functions of a file that take more lines than a screen has, their docstrings not counted."""
    found = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            if node.end_lineno - node.lineno + 1 - (first.end_lineno - first.lineno + 1 if told else 0) > LONGEST_FUNCTION:
                found.add(f"{path}: {node.name}")
    return found


def test_files_stay_readable():
    lengths = {path: len(text.splitlines()) for path, text in sources("refquant", "tests", ".ci").items()}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_functions_fit_a_screen():
    assert set().union(*(long_functions(path, text) for path, text in sources("refquant", "tests", ".ci").items())) == LONG_FUNCTIONS


def test_a_long_function_is_found():
    lines = ["def f():", '    """Says\n    much."""', *["    x = 1"] * LONGEST_FUNCTION]
    assert long_functions("a.py", "\n".join(lines)) == {"a.py: f"} and not long_functions("a.py", "\n".join(lines[:-1]))


def unused_imports(source):
    """Return the names that a file imports and neither uses nor offers; a line with `noqa` has its reason."""
    lines = source.splitlines()
    bound, used = {}, set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "noqa: F401" not in lines[node.lineno - 1]:
            bound.update({(alias.asname or alias.name).partition(".")[0]: node.lineno for alias in node.names})
        elif isinstance(node, ast.Name):
            used.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            used.add(node.value)
    return {name for name in bound if name not in used}


def test_every_import_is_used():
    found = {path: unused_imports(text) for path, text in sources("refquant", "tests", ".ci").items()}
    assert {path: names for path, names in found.items() if names} == {}


def test_an_unused_import_is_found():
    assert unused_imports("import a, b.c as d\nfrom e import f\n__all__ = ['f']\na.x") == {"d"}


def test_import_is_light():
    code = "import sys, refquant; print([m for m in ('numba', 'matplotlib', 'torch', 'onnx', 'onnxruntime', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_engines_load_on_use():
    code = "import sys, refquant.backends, refquant.interop, refquant.verify, refquant.cli.main; print([m for m in sys.modules if m in ('torch', 'onnx', 'onnxruntime')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_core_isa_and_numerics_work_without_numba():
    code = (
        "import sys; sys.modules['numba'] = None; import numpy as np, refquant as rq;"
        "from refquant.core.affine import quantize_real; import refquant.isa, refquant.numerics;"
        "print(quantize_real(np.float32([2.5]), 1.0, 0, 0, 255, scaling='divide', add='after', rounding='half_even'))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[2]"


def test_public_names_resolve():
    import refquant

    for name in refquant.__all__:
        assert getattr(refquant, name) is not None
