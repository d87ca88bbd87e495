"""Files that ask for an engine are told from those that do not, and what asks without a word is found."""

import ast
import sys

import pytest
from conftest import Lookout, unsaid
from engine_files import PACKAGES, _asks, files


@pytest.mark.parametrize("source", [
    "import torch", "def f():\n    from onnx import helper", "from refquant import backends", "from refquant.backends.machine import profile_here", "import subprocess",
    "t = pytest.importorskip('torch')", "@pytest.mark.engine\ndef test(): pass", "from static_quantization import MODELS",
])  # fmt: skip
def test_a_file_that_asks_is_known(source):
    assert _asks(ast.parse(source), set())


@pytest.mark.parametrize("source", ["import numpy", "from refquant.interop import from_onnx", "from op_problems import problem", "x = 'import torch'"])
def test_a_file_that_does_not_ask_is_known(source):
    assert not _asks(ast.parse(source), set())


def test_both_kinds_are_there():
    names = {path.name for path in files()}
    assert {"test_backends_engines.py", "test_openvino.py", "test_onnx_runtime.py"} <= names and not {"test_affine.py", "test_planted_faults.py"} & names


def test_what_asks_without_a_word_is_found(tmp_path, monkeypatch):
    lookout, silent = Lookout(), tmp_path / "test_silent.py"
    silent.write_text("from refquant.cli.main import main")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert lookout.find_spec("numpy") is lookout.find_spec("torch.nn") is None and lookout.taken() == {"torch"} and lookout.taken() == set()
    monkeypatch.setitem(sys.modules, "torch", sys)
    assert lookout.find_spec("torch.nn") is None and lookout.taken() == set()
    assert "asks for torch" in unsaid(silent, {"torch"}) and unsaid(silent, set()) is None
    silent.with_name("test_loud.py").write_text("import torch")
    assert unsaid(silent.with_name("test_loud.py"), {"torch"}) is None and "torch" in PACKAGES
