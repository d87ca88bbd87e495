"""Named variants: reachable by name, different from their base, and their examples run."""

import doctest
from itertools import islice

import numpy as np
import pytest

import refquant as rq
from refquant import numerics
from refquant.errors import ArgumentError
from refquant.numerics import variants
from refquant.numerics.variants import KINDS, Variant
from refquant.verify import Case, build, case_stream, oracle

PLANTED = Variant(
    "half_away", ("onnx", "onnxruntime"), "version", {"linear": {"rounding": "half_away"}}, "A product's ties go away from zero.",
    ">>> str(rq.numerics.get('onnx+half_away').linear.rounding)\n'half_away'\n",
)  # fmt: skip


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setattr(variants, "VARIANTS", (*variants.VARIANTS, PLANTED))
    monkeypatch.setattr(variants, "_MADE", {})


def failures(example):
    test = doctest.DocTestParser().get_doctest(example, {"np": np, "rq": rq}, "example", None, 0)
    assert test.examples, "an example must compute something"
    return doctest.DocTestRunner(verbose=False).run(test, out=lambda text: None).failed


@pytest.mark.parametrize("variant", numerics.VARIANTS, ids=lambda v: v.name)
def test_a_variant_says_what_it_is(variant):
    assert variant.kind in KINDS and variant.bases and variant.explanation.endswith(".")
    for base in variant.bases:
        profile, full = numerics.get(base), f"{base}+{variant.name}"
        assert numerics.get(full).name == full and profile.differences(numerics.get(full))
    assert failures(variant.example) == 0


def test_a_name_gives_its_profile(planted):
    profile = numerics.get("onnx+half_away")
    assert profile is numerics.get("onnx+half_away") and profile.name == "onnx+half_away"
    assert numerics.get("onnx").differences(profile) == [("linear", "rounding", "half_even", "half_away")]
    assert "ties go away" in profile.engine
    assert variants.variants_of("onnxruntime", ["version"])[-1:] == ("onnxruntime+half_away",)
    assert "onnxruntime+half_away" not in variants.variants_of("onnxruntime", ["defect"])
    assert Case.parse("linear/onnx+half_away/m1k1n1/random/seed=0").profile == "onnx+half_away"


def test_an_example_is_run(planted):
    assert failures(PLANTED.example) == 0
    assert failures(PLANTED.example.replace("'half_away'\n", "'half_up'\n")) == 1


def test_an_unknown_variant_is_refused_with_the_nearest(planted):
    with pytest.raises(ArgumentError, match="did you mean 'onnx.half_away'"):
        numerics.get("onnx+half_awy")
    with pytest.raises(ArgumentError, match="choose one of"):
        numerics.get("fbgemm+half_away")


@pytest.mark.engine
@pytest.mark.parametrize("op", ("add", "mul", "avg_pool2d"))
def test_an_unfused_graph_of_onnx_runtime_is_the_variant(op):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from refquant.backends.openvino_models import QDQ_MODELS

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    outputs = fused = 0
    for case in islice(case_stream(op, "onnxruntime", seed=9), 60):
        problem = build(case)
        counted = problem.get("padding") and problem.get("count_include_pad", True)
        if counted or problem.get("divisor_override") is not None or problem.get("ceil_mode"):
            continue  # the model of OpenVINO's runner has no such attributes
        small = QDQ_MODELS[op](problem)
        (bits,) = onnxruntime.InferenceSession(small.model, options, providers=["CPUExecutionProvider"]).run(None, small.feeds)
        np.testing.assert_array_equal(oracle(problem, "onnxruntime+unfused"), small.finish(bits))
        outputs, fused = outputs + bits.size, fused + np.count_nonzero(oracle(problem, "onnxruntime") != bits)
    assert outputs > 100_000 and fused > 100


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["openvino"], indirect=True)
def test_beside_a_quantization_openvino_dequantizes_by_the_variant(engine):
    from refquant.backends.joined_models import join_models

    other = build("relu/openvino/n1c3h4w4/random/seed=0")
    outputs = alone = 0
    for case in islice(case_stream("dequantize", "openvino", seed=9), 40):
        problem = build(case)
        if engine.supports(problem) is not None:
            continue
        joined, feeds = join_models([engine._models[p.op](p) for p in (problem, other)])
        bits = engine.compile(joined, INFERENCE_NUM_THREADS=1, INFERENCE_PRECISION_HINT="f32")(feeds)[0].copy()
        assert bits.tobytes() == np.ascontiguousarray(oracle(problem, "openvino+low_precision")).tobytes(), case
        outputs, alone = outputs + bits.size, alone + np.count_nonzero(oracle(problem, "openvino") != bits)
    assert outputs > 20_000 and alone > 1000
