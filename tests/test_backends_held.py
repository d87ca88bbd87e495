"""Engines held to lower processor levels by their own variables give the oracle's bits, and their workers come and go cleanly."""

import io

import numpy as np
import pytest

from refquant import backends, numerics
from refquant.backends import held_runner
from refquant.backends.held_frames import read_frame, write_frame
from refquant.backends.held_worker import serve
from refquant.errors import ArgumentError, BackendMissing
from refquant.isa import cpu
from refquant.verify import Problem, Runner, Status, build, campaign, held, oracle, try_case
from refquant.verify.case import Case
from refquant.verify.held import followed, profile_here, refuse, switches

ENGINES = ("onednn@sse41", "onednn@avx2", "onednn@avx512_vbmi", "fbgemm@avx2", "fbgemm@avx512", "x86@avx2")
PRODUCTS = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose2d")
LINE = "linear/onednn@avx2/m40k64n48/pairs/seed=1/per_channel"


def report(row):
    return "\n".join(f"refquant verify --engine {row.engine} --case {trial.case}\n{trial.outcome.detail}" for trial in row.failures)


@pytest.mark.engine
@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_a_held_engine_gives_the_oracles_bits(engine):
    for op in PRODUCTS:
        row = campaign(engine, op, outputs=12_000 if op != "conv3d" else 4_000)
        assert not row.failures, report(row)
        assert row.outputs or (op == "conv_transpose2d" and "512" in engine.name), row.reasons
    assert campaign(engine, "add", outputs=1000).status is Status.EXACT
    engine.close()


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["onednn@avx2"], indirect=True)
def test_a_held_engine_is_no_engine_of_today(engine):
    """The comparison is shown to fail: held and free engine differ, and a case line says which is meant."""
    assert isinstance(engine, Runner) and engine.describe()["environment"] == {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    case = Case.parse(LINE)
    assert str(case) == LINE and try_case(engine, case).outcome.status is Status.EXACT
    problem = build(case)
    assert not np.array_equal(engine.run(problem), oracle(problem, "onednn"))
    engine.profile = "onednn"
    assert try_case(engine, case).outcome.status is Status.DIFFERENT


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["fbgemm@avx2"], indirect=True)
def test_a_worker_lives_over_many_questions_and_an_error_does_not_end_it(engine):
    problem = build("linear/fbgemm/m2k8n3/random/seed=0")
    first = engine.run(problem)
    worker = engine._process
    with pytest.raises(RuntimeError, match="KeyError"):
        engine.run(Problem("flatten", {"x": problem["x"]}))
    assert np.array_equal(engine.run(problem), first) and engine._process is worker
    worker.kill()
    worker.wait()
    with pytest.raises(RuntimeError, match="the worker of fbgemm@avx2 ended"):
        engine.run(problem)
    assert np.array_equal(engine.run(problem), first) and engine._process is not worker
    last = engine._process
    engine.close()
    assert last.returncode == 0


def test_only_what_can_be_held_is_found():
    assert backends.find("x86@avx512").arguments == ("x86", "avx512")
    other = "avx512" if profile_here("onnxruntime") != "onnxruntime@avx512" else "avx2"
    with pytest.raises(ArgumentError, match=f"onnxruntime runs as {profile_here('onnxruntime')} .* as onednn, fbgemm, x86 can"):
        backends.find(f"onnxruntime@{other}")
    with pytest.raises(ArgumentError, match="did you mean 'avx2'"):
        backends.find("onednn@avx3")
    with pytest.raises(BackendMissing, match="fbgemm has no kernels for sse41"):
        switches("fbgemm", "sse41")


def test_a_case_that_names_the_level_of_this_processor_is_asked_of_the_engine(monkeypatch):
    monkeypatch.setattr(held, "level_here", lambda: "avx2")
    assert backends.find("openvino@avx2") == backends.find("openvino")
    monkeypatch.setattr(held, "level_here", lambda: None)
    with pytest.raises(ArgumentError, match="openvino runs as openvino on this processor"):
        backends.find("openvino@avx2")


def test_a_level_beyond_the_processor_is_said(monkeypatch):
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"AVX2"}))
    with pytest.raises(BackendMissing, match="this processor has no .*AVX512BW, AVX512F"):
        switches("onednn", "avx512")


def test_what_this_processor_does_better_is_refused(monkeypatch):
    one, many = build("conv2d/onednn/n1c1h7w7-oc3k3/random/seed=0"), build("conv2d/onednn/n1c2h7w7-oc3k3/random/seed=0")
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"AVX512-VBMI"}))
    assert "ask the level avx512_vbmi" in refuse(one, "onednn", "avx512")
    assert refuse(many, "onednn", "avx512") is refuse(one, "onednn", "avx2") is refuse(one, "fbgemm", "avx512") is None


def test_the_held_x86_engine_keeps_its_dispatch():
    problem = build("conv2d/any/n1c6h7w7-oc8k3p1/pairs/seed=0")
    held, real = followed("x86", "avx2"), numerics.get("x86@avx2")
    assert held.name == real.name
    assert np.array_equal(oracle(problem, held), oracle(problem, "onednn@avx2"))
    assert np.array_equal(oracle(problem, real), oracle(problem, "fbgemm@avx2"))


class Echo:
    """A runner without an engine."""

    def describe(self):
        return {"engine": "echo"}

    def supports(self, problem):
        return None if problem.op == "relu" else "relu alone"

    def run(self, problem):
        return problem["x"].values


def test_messages_survive_the_pipe():
    from refquant.verify import to_plain

    problem = build("relu/any/n2c3h4w5/random/seed=0/channels_last")
    described, arrays = to_plain(problem)
    questions, answers = io.BytesIO(), io.BytesIO()
    write_frame(questions, {"ask": "describe"})
    write_frame(questions, {"ask": "run", "problem": described}, arrays)
    write_frame(questions, {"ask": "supports", "problem": described}, arrays)
    write_frame(questions, {"ask": "run", "problem": {"op": "relu"}})
    questions.write(b"abc")
    questions.seek(0)
    serve(Echo(), questions, answers)
    answers.seek(0)
    said = [read_frame(answers) for _ in range(4)]
    assert said[0][0] == {"engine": "echo"} and said[2][0] == {"reason": None}
    assert np.array_equal(said[1][1][0], problem["x"].values) and "ArgumentError" in said[3][0]["error"]
    assert read_frame(answers) is None


def test_no_pickle_is_ever_read():
    stream, body = io.BytesIO(), io.BytesIO()
    np.savez(body, head=np.array([object()], dtype=object))
    stream.write(len(body.getvalue()).to_bytes(8, "little") + body.getvalue())
    stream.seek(0)
    with pytest.raises(ValueError, match="allow_pickle"):
        read_frame(stream)


def test_a_runner_starts_nothing_before_it_is_asked(monkeypatch):
    monkeypatch.setattr(cpu, "features", lambda: frozenset().union(*(row.extensions for row in cpu.LEVELS)))
    monkeypatch.setattr(held_runner.subprocess, "Popen", None)
    assert held_runner.HeldRunner("onednn", "avx2").name == "onednn@avx2"


@pytest.mark.parametrize("shape, refused", [
    ("n1c16h8w8-oc16k3p1", True), ("n1c24h8w8-oc24k3p1s2g3", True), ("n1c16h8w8-oc32k3p1", False), ("n1c16h8w8-oc16k3", False), ("n1c8h8w8-oc8k3p1g8", False),
    ("n1c16h8w8-oc16k5p2", False),
])  # fmt: skip
def test_kernels_that_ignore_the_variable_are_refused(shape, refused):
    problem = build(f"conv2d/fbgemm/{shape}/pairs/seed=1/per_channel")
    assert ("ignore its variable" in (refuse(problem, "fbgemm", "avx2") or "")) is refused
    assert refuse(problem, "onednn", "avx2") is refuse(problem, "x86", "avx2") is None
