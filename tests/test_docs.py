"""Examples in README and docstrings run, and the README's first screen is what the gate runs."""

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import refquant
from refquant.cli.main import COMMANDS, parser_of
from refquant.errors import RefquantError

ROOT = Path(__file__).resolve().parent.parent


def modules():
    found = []
    for module in pkgutil.walk_packages([str(Path(refquant.__file__).parent)], "refquant."):
        found.append(module.name)
    return found


# Packages that a folder's examples use, where importing the module does not ask for them.
EXAMPLES_NEED = {"refquant.interop.onnx": "onnx", "refquant.interop.from_torch": "torch"} | dict.fromkeys(("refquant.testing.strategies", "refquant.testing.tensor_strategies", "refquant.testing.layer_strategies"), "hypothesis")


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


def stated_commands():
    """Commands that README and notebooks state with arguments, each once."""
    texts = [(ROOT / "README.md").read_text(encoding="utf-8"), *(p.read_text(encoding="utf-8") for p in sorted((ROOT / "notebooks").glob("*.py")))]
    found = re.findall(r"(?:[$|] |`)refquant (\S[^`#|\n]*)", "\n".join(texts))
    return sorted({command.strip() for command in found if command.split()[1:]})


def misunderstood(command):
    """Return what the command's parser says against it, None where it is understood."""
    name, *arguments = shlex.split(command)
    try:
        parser_of({c.name: c for c in COMMANDS}[name])[1].parse(arguments)
    except (RefquantError, KeyError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("command", stated_commands())
def test_stated_commands_are_understood(command):
    assert misunderstood(command) is None


def test_stated_commands_that_do_not_exist_are_found():
    assert len(stated_commands()) > 25
    assert "did you mean --html" in misunderstood("drift digits_resnet --htm x.html") and misunderstood("drif digits_resnet")


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
