"""A planted fault is only a fault where the rest is right: the sloppy engine without faults is the oracle."""

from itertools import islice

import pytest

from refquant.verify import STREAMS, build, case_stream
from refquant.verify.planted.bench import KINDS
from refquant.verify.planted.right_engines import RIGHT, covers

LINES = {
    ("linear", "onnxruntime"): "linear/any/m13k20n16/neartie/seed=5/per_channel/intbias",
    ("linear", "fbgemm"): "linear/any/m13k20n16/neartie/seed=5/per_channel",
    ("linear", "onnx"): "linear/any/m13k20n16/neartie/seed=5/asymmetric/intbias",
    ("conv2d", "onnxruntime"): "conv2d/any/n2c6h7w7-oc9k3p1g3/neartie/seed=1/per_channel/intbias",
    ("conv2d", "fbgemm"): "conv2d/any/n2c16h7w7-oc16k3p1g16/pairs/seed=1/per_channel",
    ("matmul_integer", "onnxruntime"): "matmul_integer/any/m5k31n9/pairs/seed=0/asymmetric",
    ("matmul_integer", "onnx"): "matmul_integer/any/m5k31n9/pairs/seed=0/asymmetric",
    ("add", "onnx"): "add/any/n4097/neartie/seed=2",
    ("add", "fbgemm"): "add/any/n4097/neartie/seed=2",
    ("mul", "onnxruntime"): "mul/any/n4097/neartie/seed=2",
    ("quantize", "onnx"): "quantize/any/n4097/edges/seed=2",
    ("fake_quantize", "onnx"): "fake_quantize/any/n4097/random/seed=2/narrow",
    ("dequantize", "onnx"): "dequantize/any/n4097/random/seed=2",
    ("avg_pool2d", "onnx"): "avg_pool2d/any/n2c5h8w8-k3s2p1/neartie/seed=2",
    ("adaptive_avg_pool2d", "onnx"): "adaptive_avg_pool2d/any/n2c5h8w8/neartie/seed=2",
    ("max_pool2d", "onnx"): "max_pool2d/any/n2c5h8w8-k3s2p1/random/seed=2",
    ("cat", "onnx"): "cat/any/n2h5w5-c3x8/neartie/seed=2/relu",
    ("cat", "fbgemm"): "cat/any/n2h5w5-c13x8/neartie/seed=2/channels_last",
}


@pytest.mark.parametrize("op, profile", RIGHT)
def test_without_faults_it_is_the_oracle(op, profile):
    assert covers(build(LINES[op, profile]), profile)


@pytest.mark.parametrize("op, profile", RIGHT)
def test_it_covers_default_cases(op, profile):
    cases = [c for c in islice(case_stream(op, profile), len(STREAMS[op].small)) if c.strategy != "wrap"]
    small = [case for case in cases if case.op not in ("linear", "conv2d", "matmul_integer") or case["n"] * dict(case.shape).get("oc", 1) < 4000]
    assert any(covers(build(case), profile) for case in small)


def test_every_fault_but_one_can_be_tried_on_default_cases():
    faults = [f for kind, group in KINDS.items() if kind not in ("pairs", "triples") for f in group]
    assert [f.name for f in faults if (f.line.partition("/")[0], f.profile) not in RIGHT] == ["pool: the contiguous path"]
