"""The design's rules, checked on the sources: who may import whom, where rounding lives, how long files are."""

import ast
import subprocess
import sys
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
    tree = ast.parse(source)
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


def sources():
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_table(path):
    relative = path.relative_to(PACKAGE)
    assert violations(relative.parts[0], path.read_text()) == set()


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
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in ("rint", "round", "around", "round_"):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("console", "random")):
                names.add(node.attr)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "round":
            names.add("round")
    return names


ROUNDING_HOMES = {"core/rounding.py"}


@pytest.mark.parametrize("path", [p for p in sources() if p.relative_to(PACKAGE).parts[0] in ("core", "numerics", "ops", "observers", "workflow")], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rounding_has_one_home(path):
    if str(path.relative_to(PACKAGE)) not in ROUNDING_HOMES:
        assert rounds_by_hand(path.read_text()) == set()


def test_a_stray_rounding_is_found():
    assert rounds_by_hand("import numpy as np\nnp.rint(x)") == {"rint"}


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 450


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
