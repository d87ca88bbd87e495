"""Published networks through every path: a quick subset of ``refquant verify --networks``, and what a fault looks like."""

import numpy as np
import pytest
from test_onnx_models import shared

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from refquant.backends.onnx_light import light_networks  # noqa: E402
from refquant.cli import verify_networks  # noqa: E402
from refquant.cli.main import main  # noqa: E402

pytestmark = pytest.mark.engine


def assert_exact(trials, most_real):
    for trial in trials:
        assert trial.exact and trial.real <= 1e-4 and trial.values > 1_000_000 and trial.behind_real <= most_real, trial
    return {trial.path for trial in trials}


def test_squeezenet_by_every_path_in_both_forms():
    trials = list(verify_networks.try_network(light_networks()["light_squeezenet"], forms=("qdq",)))
    assert assert_exact(trials, 0) == {"FX", "PT2E", "ORT"}
    trials = list(verify_networks.try_network(light_networks()["light_squeezenet"], paths=("FX",), forms=("qoperator",)))
    assert assert_exact(trials, 0) == {"FX"}


def test_a_trained_detector():
    trials = list(verify_networks.try_network(shared("face-rfb-320.onnx"), paths=("FX", "ORT")))
    assert assert_exact(trials, 0) == {"FX", "ORT"} and not any(trial.other for trial in trials)


def test_a_fault_is_seen(monkeypatch, capsys):
    """One weight of the file is changed behind the oracle's back."""
    from refquant.interop import to_onnx

    def faulty(model, path, *, format=None):
        export = to_onnx(model, path, format=format)
        proto = onnx.load(path)
        tensor = next(t for t in proto.graph.initializer if t.name.endswith("_weight"))
        codes = onnx.numpy_helper.to_array(tensor).copy()
        codes.reshape(-1)[5] ^= 64
        tensor.CopyFrom(onnx.numpy_helper.from_array(codes, tensor.name))
        onnx.save(proto, path)
        return export

    monkeypatch.setattr("refquant.interop.to_onnx", faulty)
    (trial,) = verify_networks.try_network(light_networks()["light_squeezenet"], paths=("FX",))
    assert not trial.exact and trial.other and np.isfinite(trial.real)


def test_the_command(capsys, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    assert main(["verify", "--networks", str(tmp_path / "bad.onnx")]) == 1
    assert "refused" in capsys.readouterr().out
    assert main(["verify", "--networks", str(tmp_path / "bad.onnx"), str(tmp_path / "gone.onnx")]) == 2
    out, err = capsys.readouterr()
    assert not out and "gone.onnx must be a readable file" in err
