"""Examples in README and docstrings run, and the README's first screen is what the gate runs."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import refquant

ROOT = Path(__file__).resolve().parent.parent


def modules():
    found = []
    for module in pkgutil.walk_packages([str(Path(refquant.__file__).parent)], "refquant."):
        found.append(module.name)
    return found


# Packages that a folder's examples use, where importing the module does not ask for them.
EXAMPLES_NEED = {"refquant.interop.onnx": "onnx", "refquant.interop.from_torch": "torch", "refquant.testing.strategies": "hypothesis"}


@pytest.mark.parametrize("name", modules())
def test_docstrings(name):
    for prefix, package in EXAMPLES_NEED.items():
        if name.startswith(prefix):
            pytest.importorskip(package)
    try:
        module = importlib.import_module(name)
    except ImportError as missing:
        if missing.name and missing.name.partition(".")[0] != "refquant":
            pytest.skip(f"needs {missing.name}")
        raise
    assert doctest.testmod(module).failed == 0


def test_readme():
    assert doctest.testfile(str(ROOT / "README.md"), module_relative=False).failed == 0


def test_readme_has_the_table_of_operators():
    from refquant.ops.support import support_table

    assert support_table() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_wrong_example_is_found():
    runner = doctest.DocTestRunner(verbose=False)
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert runner.run(test, out=lambda text: None).failed == 1


def test_every_public_operator_has_a_docstring():
    for name in refquant.ops.__all__:
        assert (getattr(refquant.ops, name).__doc__ or "") or name == "OPS", name


def test_first_screen_has_two_commands():
    first = (ROOT / "README.md").read_text(encoding="utf-8").split("```bash\n")[1].split("```")[0].strip().splitlines()
    assert len(first) == 2 and "refquant verify" in first[0] and "pytest" in first[1]
