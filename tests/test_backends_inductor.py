"""PT2E's operators as an engine: parameters chosen by it, codes of 32 bits, what it refuses; and that a wrong profile is found."""

import numpy as np
import pytest

from refquant import QParams, QTensor, ops
from refquant.numerics import get
from refquant.observers.qparams_from_range import qparams_from_range, quant_limits
from refquant.verify import Problem, Status, build, campaign, case_stream, compare, oracle, try_case


def test_codes_of_32_bits_are_sums_in_float32():
    """2**24 + 1 is no float32: the zero point is added to a rounded number, and taken from a rounded code."""
    p = QParams(1.0, 1, "int32")
    assert ops.quantize(np.float32([2**24]), p, numerics="inductor").values.tolist() == [2**24]
    assert ops.quantize(np.float32([2**24]), p, numerics=get("inductor").replace(zero_point="after")).values.tolist() == [2**24 + 1]
    top = ops.quantize(np.float32([3e9, -3e9, np.nan]), p, numerics="inductor").values
    assert top.tolist() == [-(2**31)] * 3
    q = QTensor(np.array([2**24 + 1], np.int32), p)
    assert ops.dequantize(q, numerics="inductor").tolist() == [2**24 - 1]
    assert ops.dequantize(q, numerics="fbgemm").tolist() == [2**24]


@pytest.mark.engine
@pytest.mark.parametrize("engine", ("inductor",), indirect=True)
@pytest.mark.parametrize("field, value", [("multiplier", "(xw)*(1/y)"), ("bias", "before")])
def test_a_wrong_field_is_found(engine, field, value):
    class Impostor:
        name, profile = engine.name, get(engine.profile).replace(linear={field: value}, name=engine.profile)
        describe, supports, run = engine.describe, engine.supports, engine.run

    assert campaign(Impostor(), "linear", outputs=120_000).status is Status.DIFFERENT


@pytest.mark.engine
@pytest.mark.parametrize("engine", ("inductor",), indirect=True)
def test_what_it_refuses_has_a_reason(engine):
    reasons = {
        "conv_transpose2d/inductor/n1c3h5w6-oc5k3s2/random/seed=0": "in float",
        "linear/inductor/m2k3n4/random/seed=0/asymmetric": "zero point 0",
        "conv2d/inductor/n1c3h5w6-oc5k3/random/seed=0/int8": "uint8 activations",
        "conv3d/inductor/n1c3t4h5w6-oc5k3/random/seed=0/relu": "no post operations",
    }
    for line, reason in reasons.items():
        outcome = try_case(engine, line).outcome
        assert outcome.status is Status.UNSUPPORTED and reason in outcome.detail, line


@pytest.mark.engine
@pytest.mark.parametrize("engine", ("inductor",), indirect=True)
def test_threads_and_read_only_strided_inputs_change_nothing(engine):
    problem = build("conv2d/inductor/n2c16h14w14-oc32k3p1/neartie/seed=3/per_channel")
    x = problem["x"]
    values = np.asfortranarray(x.values)
    values.setflags(write=False)
    turned = Problem("conv2d", {**problem.arguments, "x": QTensor(values, x.qparams)})
    assert compare(engine.run(turned), oracle(problem, engine.profile)).exact


@pytest.mark.engine
@pytest.mark.parametrize("engine", ("inductor",), indirect=True)
def test_chosen_parameters_are_those_of_the_observers(engine):
    torch = pytest.importorskip("torch")
    decomposed = torch.ops.quantized_decomposed
    rng = np.random.Generator(np.random.PCG64(0))
    eps = 2.0**-12
    for _ in range(200):
        x = (rng.normal(rng.normal(), 1, 30) * np.exp(rng.normal() * 4)).astype(np.float32)
        asked = [("choose_qparams", "per_tensor_affine", *limits) for limits in (("uint8", 0, 255), ("int8", -128, 127), ("uint8", 0, 127))]
        for name, scheme, dtype, low, high in (*asked, ("choose_qparams_symmetric", "per_tensor_symmetric", "int8", -128, 127)):
            scale, zero = getattr(decomposed, name).tensor(torch.from_numpy(x), low, high, eps, getattr(torch, dtype))
            ref = qparams_from_range(x.min(), x.max(), quant_limits(dtype, low, high), scheme, eps)
            assert (np.float32(scale.item()), zero.item()) == (np.float32(ref.scale), ref.zero_point), (name, dtype, low, high)


def test_the_stream_asks_for_codes_of_32_bits():
    stream = case_stream("dequantize", "inductor")
    assert any(case.has("int32") and case.has("per_channel") for case, _ in zip(stream, range(30)))


@pytest.mark.engine
@pytest.mark.parametrize("engine", ("inductor",), indirect=True)
@pytest.mark.parametrize("op", ["quantize_dynamic", "linear_dynamic"])
def test_parameters_chosen_at_run_time(engine, op):
    class Impostor:
        name, profile = engine.name, get(engine.profile).replace(dynamic={"parameters": "aten"}, name=engine.profile)
        describe, supports, run = engine.describe, engine.supports, engine.run

    assert campaign(engine, op, outputs=50_000).status is Status.EXACT
    assert campaign(Impostor(), op, outputs=50_000).status is Status.DIFFERENT
    assert "narrower" in try_case(engine, f"{op}/inductor/{'n2c3' if op == 'quantize_dynamic' else 'm2k3n4'}/random/seed=0/narrow").outcome.detail
