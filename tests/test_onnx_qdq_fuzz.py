"""Random QDQ models beside ONNX Runtime: the same numbers and the same operators on codes, with and without its optimizations."""

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_qdq_fuzz import LEVELS, RandomModel, compare  # noqa: E402
from onnx_qdq_wide import WideModel  # noqa: E402

from refquant.errors import RefquantError  # noqa: E402
from refquant.interop.onnx import qdq  # noqa: E402


def found(seed, level, kind=RandomModel):
    """Return the comparison, or None where a model is none."""
    try:
        return compare(kind(seed), level)
    except RefquantError:
        raise
    except Exception as error:
        assert "ShapeInferenceError" in str(error) or "Reshape" in str(error)


@pytest.mark.parametrize("level", LEVELS)
def test_random_models(level):
    done = [(seed, result) for seed in (*range(20), 183, 202) if (result := found(seed, level))]
    assert not [(seed, r) for seed, r in done if r.differ or level not in ("disabled", "basic") and r.operators]
    assert sum(r.numbers for _, r in done) > 3000 and len(done) > 15


@pytest.mark.parametrize("level", LEVELS)
def test_more_kinds_of_models(level):
    done = [(seed, result) for seed in (1, 8, 11, 24, 33, 38, 58, 75, 76, 203, 210, 229) if (result := found(seed, level, WideModel))]
    assert not [(seed, r) for seed, r in done if r.differ or level not in ("disabled", "basic") and r.operators]
    assert len(done) == 12


@pytest.mark.parametrize("step, seeds", [("without_double_pairs", (12, 16, 24, 202)), ("propagate_pairs", (1, 7)), ("quantize_biases", (7,)), ("unique_dequantizers", (183,)), ("_is_clipped", (0, 8))])
def test_a_step_left_out_is_found(step, seeds, monkeypatch):
    monkeypatch.setattr(qdq, step, lambda *args: None)
    assert any(r.differ or r.operators for seed in seeds if (r := found(seed, "all")))
