"""Engines taken for other ones: one command explains every differing bit, and says so where it cannot."""

from functools import lru_cache

import numpy as np
import pytest

from refquant import backends
from refquant.cli import wrong_profiles
from refquant.cli.main import main
from refquant.errors import ArgumentError, BackendMissing
from refquant.verify import oracle
from refquant.verify.mistaken import under_profile

load = lru_cache(backends.load)  # a held engine is a process of its own


def known(engine):
    try:
        return bool(backends.find(engine))
    except ArgumentError:
        return False


#: Pairs that nobody else asks of the live engines, less those with a processor's or a package's name that may be missing.
ASKED = [
    (engine, wrong, op) for engine, wrong, ops in wrong_profiles.WRONG for op in (ops[:1] if "tflite" in engine + wrong else ops[:2])
    if known(engine) and (engine.startswith("tflite") or engine == "xnnpack" or wrong in ("onnx_reference", "qnnpack") or "@" in engine or engine == "openvino")
]  # fmt: skip


@pytest.mark.engine
@pytest.mark.parametrize("engine, wrong, op", ASKED)
def test_every_bit_of_an_engine_under_a_wrong_profile_is_explained(engine, wrong, op):
    try:
        runner = load(engine)
    except BackendMissing as error:
        pytest.skip(str(error))
    row = under_profile(runner, wrong_profiles.on_this_processor(engine, wrong), op, cases=1)
    if not row.outputs:
        pytest.skip(f"this processor has no case that {engine} takes")
    assert row.diagnosed == row.explained == 1 and row.differing and row.cause, row


@pytest.mark.engine
def test_an_engine_under_an_older_version_of_its_profile(capsys):
    """PyTorch adds the zero point before it rounds since release 2.13."""
    if not backends.installed("fbgemm"):
        pytest.skip("engine fbgemm: needs PyTorch")
    assert main("diagnose --wrong-profiles --engine fbgemm --numerics fbgemm+before_2_13 --cases 1".split()) == 0
    assert "adds the zero point before rounding" in capsys.readouterr().out


@pytest.mark.engine
def test_the_command_asks_engines(capsys):
    try:
        backends.load("onnxruntime")
    except BackendMissing as error:
        pytest.skip(str(error))
    assert main("diagnose --wrong-profiles --engine onnxruntime --numerics onnx_reference --op mul --cases 1".split()) == 0
    out = capsys.readouterr().out
    assert "multiplies codes less their zero points" in out and "1 of 1 cases explained to the last bit" in out


class Faulty:
    """onednn's bits, some of them changed as no cause does."""

    name, profile = "faulty", "onednn"

    def supports(self, problem):
        return None

    def run(self, problem):
        bits = oracle(problem, "onednn").copy()
        bits.reshape(-1).view(np.uint8)[::7] ^= np.uint8(0x5A)
        return bits


def test_what_nothing_explains_is_said(capsys, monkeypatch):
    row = under_profile(Faulty(), "fbgemm", "linear", cases=1, seconds=2)
    assert row.diagnosed == 1 and row.explained == 0 and row.unexplained and not row.cause
    monkeypatch.setattr(wrong_profiles, "WRONG", (("faulty", "fbgemm", ("linear",)),))
    monkeypatch.setattr(wrong_profiles, "_versions", lambda: ())
    monkeypatch.setattr(wrong_profiles, "load_runner", lambda name: Faulty())
    assert main("diagnose --wrong-profiles --cases 1 --seconds 2".split()) == 1
    assert "0 of 1 cases explained" in capsys.readouterr().out


def test_an_engine_under_its_own_profile_leaves_nothing_to_explain():
    class Oracle(Faulty):
        def run(self, problem):
            return oracle(problem, "onednn", reference=True)

    row = under_profile(Oracle(), "onednn", "add", cases=1)
    assert (row.differing, row.diagnosed) == (0, 0) and row.outputs > 0


def test_engines_that_are_missing_are_named(capsys, monkeypatch):
    monkeypatch.setattr(wrong_profiles, "WRONG", (("nobody", "fbgemm", ("linear",)),))
    monkeypatch.setattr(wrong_profiles, "_versions", lambda: ())
    assert main("diagnose --wrong-profiles".split()) == 2
    said = capsys.readouterr()
    assert "not asked: engine nobody" in said.out and "nothing is explained" in said.err


def test_a_case_file_or_the_option_must_be_given(capsys):
    assert main(["diagnose"]) == 2
    assert "--wrong-profiles" in capsys.readouterr().err
