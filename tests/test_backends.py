"""The table of engines, and what happens where one is missing; no engine is asked."""

import builtins
import subprocess
import sys
from pathlib import Path

import pytest

from refquant import backends, numerics
from refquant.errors import ArgumentError, BackendMissing
from refquant.verify import Runner

ROOT = Path(__file__).resolve().parent.parent


def test_every_engine_has_a_profile():
    assert set(backends.names()) <= set(numerics.names())


def test_a_typing_mistake_gets_a_suggestion():
    with pytest.raises(ArgumentError, match="did you mean 'fbgemm'"):
        backends.find("fbgem")


@pytest.mark.parametrize("name", backends.names())
def test_a_missing_package_is_said_with_its_command(name, monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda package: None)
    assert not backends.installed(name)
    with pytest.raises(BackendMissing, match=r"is not installed; pip install 'refquant\["):
        backends.load(name)


@pytest.mark.parametrize("name, package", [("x86", "torch"), ("onnxruntime", "onnxruntime")])
def test_a_package_that_does_not_import_is_said_too(name, package, monkeypatch):
    real = builtins.__import__

    def broken(module, *arguments, **keywords):
        if module.partition(".")[0] == package:
            raise ImportError("a shared library is missing")
        return real(module, *arguments, **keywords)

    monkeypatch.setattr(backends, "find_spec", lambda package: object())
    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(BackendMissing, match="a shared library is missing.*pip install"):
        backends.load(name)


SKIPPING = """
import pytest

@pytest.mark.engine
def test_asks():
    pytest.skip("engine missing")

def test_other():
    pytest.skip("for another reason")
"""
WHOLE_FILE = "import pytest\ntorch = pytest.importorskip('torch_that_is_missing')\n"


@pytest.mark.parametrize("required, status", [("1", 1), ("0", 0), (None, 0)])
@pytest.mark.parametrize("source, failed, skipped", [(SKIPPING, 1, 1), (WHOLE_FILE, 1, 0)])
def test_a_skip_is_a_failure_where_engines_are_required(tmp_path, monkeypatch, source, failed, skipped, required, status):
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    engine: asks\n")
    (tmp_path / "test_some.py").write_text(source)
    monkeypatch.delenv("REFQUANT_REQUIRE_ENGINES", raising=False)
    if required is not None:
        monkeypatch.setenv("REFQUANT_REQUIRE_ENGINES", required)
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-rA", str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    if status:
        assert run.returncode != 0 and "a missing engine is a failure" in run.stdout
        assert f"{failed} failed" in run.stdout or f"{failed} error" in run.stdout
        assert not skipped or f"{skipped} skipped" in run.stdout
    else:
        assert "skipped" in run.stdout and "failed" not in run.stdout and "error" not in run.stdout


def test_a_runner_is_recognised():
    class Whole:
        name = profile = "x"
        describe = supports = run = lambda self, *arguments: None

    class Half:
        name = "x"

    assert isinstance(Whole(), Runner) and not isinstance(Half(), Runner)
