"""Live engines give the oracle's bits on adversarial cases, and are driven without side effects."""

import numpy as np
import pytest

from refquant import QParams, QTensor, backends
from refquant.verify import PROVENANCE, STREAMS, Problem, Runner, Status, build, campaign, compare, oracle, read_index, read_vectors, try_case

pytestmark = pytest.mark.engine
ENGINES = backends.names()
MILLION = ("linear", "conv2d")


def report(row):
    return "\n".join(f"refquant verify --case {trial.case} --engine {row.engine}\n{trial.outcome.detail}" for trial in row.failures)


def skip_without_the_processor(reasons):
    """Leave out what the runner refuses because the profile describes kernels that do not run on this processor."""
    lacking = [reason for reason in reasons if "which this one lacks" in reason or "do not run here" in reason]
    if lacking:
        pytest.skip(f"this processor has no such kernels: {lacking[0]}")


def the_same_on_this_level(engine, vector):
    """Whether the bits of a recorded call do not depend on the level of this processor, where vectors are of another."""
    if engine.profile == vector.profile:
        return True
    return compare(oracle(vector.problem, engine.profile), oracle(vector.problem, vector.profile), nan_equal=True).exact


@pytest.mark.parametrize("engine, op", [(engine, op) for engine in ENGINES for op in STREAMS], indirect=["engine"])
def test_the_engine_gives_the_oracles_bits(engine, op):
    outputs = 1_000_000 if op in MILLION else 100_000
    row = campaign(engine, op, outputs=outputs)
    assert not row.failures, report(row)
    if row.status is Status.UNSUPPORTED:
        skip_without_the_processor(row.reasons)
        assert (op, engine.name) not in {(entry["op"], entry["engine"]) for entry in read_index()["files"].values()}
    else:
        assert row.outputs >= outputs


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_the_engine_still_gives_the_recorded_bits(engine):
    if engine.describe()["version"] != read_index()["engines"][engine.name]["version"]:
        pytest.skip("recorded from another version")
    for name, entry in read_index()["files"].items():
        if entry["engine"].partition("@")[0] == engine.name:
            for vector in read_vectors(name):
                if engine.supports(vector.problem) is None and the_same_on_this_level(engine, vector):
                    assert compare(engine.run(vector.problem), vector.bits).exact, vector.case


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_the_engine_is_a_runner_with_a_provenance(engine):
    assert isinstance(engine, Runner)
    description = engine.describe()
    assert set(PROVENANCE) <= description.keys() and description["engine"] == engine.name and description["threads"] == 1


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_a_wrong_profile_is_found(engine):
    """The comparison with a live engine is shown to fail: every engine is held against the profile of another."""
    other = {"fbgemm": "onednn", "x86": "onednn", "onednn": "fbgemm", "qnnpack": "fbgemm", "inductor": "onednn", "onnxruntime": "tflite_ref", "tflite_ref": "xnnpack"}

    class Impostor:
        name, profile = engine.name, other.get(engine.name, "tflite_ref")
        describe, supports, run = engine.describe, engine.supports, engine.run

    row = campaign(Impostor(), "conv2d", outputs=60_000)
    skip_without_the_processor(row.reasons)
    assert row.status is Status.DIFFERENT and 0 < row.differing < row.outputs / 2
    line = str(row.failures[0].case)
    assert try_case(Impostor(), line).outcome.status is Status.DIFFERENT


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_what_is_not_supported_has_a_reason(engine):
    x = QTensor(np.zeros((1, 4), np.uint8), QParams(1.0, 0, "uint8"))
    reason = engine.supports(Problem("flatten", {"x": x}))
    assert isinstance(reason, str) and reason
    rows = {op: campaign(engine, op, outputs=1) for op in STREAMS}
    supported = [op for op, row in rows.items() if row.outputs]
    skip_without_the_processor(rows["conv2d"].reasons)
    assert {"quantize", "dequantize", "linear", "conv2d", "add"} <= set(supported)


def test_torch_keeps_its_settings():
    torch = pytest.importorskip("torch")
    before = torch.backends.quantized.engine, torch.get_num_threads()
    for name in ("qnnpack", "onednn"):
        backends.load(name).run(build(f"linear/{name}/m2k8n3/random/seed=0"))
        assert (torch.backends.quantized.engine, torch.get_num_threads()) == before


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_the_problem_is_left_as_it_was(engine):
    int8 = "/int8" if engine.name.startswith(("tflite", "xnn")) else ""
    for text in ("conv2d/{}/n1c8h6w6-oc8k3p1/neartie/seed=1{}/nobias/channels_last", "add/{}/n2c5h4w4/neartie/seed=1{}"):
        line = text.format(engine.profile, int8)
        problem, untouched = build(line), build(line)
        if (reason := engine.supports(problem)) is not None:
            skip_without_the_processor([reason])
        assert engine.supports(problem) is None
        engine.run(problem)
        assert compare(oracle(problem, engine.profile), oracle(untouched, engine.profile)).exact
