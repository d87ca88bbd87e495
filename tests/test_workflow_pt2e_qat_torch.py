"""PT2E's quantization-aware training beside torchao's own: annotations, fake-quantizers, passes, running statistics, codes."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchao")
pytestmark = pytest.mark.engine

import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86  # noqa: E402

from refquant.backends import torch_pt2e_qat  # noqa: E402
from refquant.backends.torch_module import to_torch  # noqa: E402
from refquant.cli.pt2e_qat import compare_qat, compare_with  # noqa: E402
from refquant.graph import Builder  # noqa: E402
from refquant.observers import FakeQuantize  # noqa: E402
from refquant.workflow import X86InductorQuantizer, get_default_x86_inductor_quantization_config, prepare_qat_pt2e  # noqa: E402
from refquant.workflow.pt2e.batch_norm_state import BatchNormState  # noqa: E402


def network():
    """Convolutions with norms: alone, with a function, with a sum and a function; a norm that two values read from, and one behind a sum; a dropout."""
    b = Builder(seed=2)
    x = b.input("x", (None, 3, 8, 8))
    y = x.conv2d(8, 3, padding=1, bias=False).batch_norm(eps=1e-3).relu()
    z = (y.conv2d(8, 1).batch_norm() + y).relu()
    z = z.conv2d(8, 3, padding=1, groups=8).batch_norm().hardswish() + z
    z = z.batch_norm().relu().conv2d(8, 1).relu().max_pool2d(2)
    return b.build(z.conv2d(6, 1).batch_norm().adaptive_avg_pool2d(1).flatten(1).linear(5))


BATCHES = [(np.random.default_rng(seed).standard_normal((4, 3, 8, 8)) * (1 + seed)).astype(np.float32) for seed in range(2)]


def ours():
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config(is_qat=True))
    return prepare_qat_pt2e(network(), quantizer, defects=("fixed_eps",))


@pytest.fixture(scope="module")
def theirs():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch_pt2e_qat.seen_in_training(torch_pt2e_qat.prepared_qat_module(to_torch(network()), BATCHES[0]), BATCHES)
    torch.set_num_threads(before)


def test_a_network_with_every_pattern(theirs):
    found = compare_with(theirs, ours(), BATCHES)
    assert found.verdict == "equal" and found.counts["observers"] == 16 and found.counts["codes"] > 12_000, found


def test_planted_faults_are_found(theirs, monkeypatch):
    def verdict(place, name, fault):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, fault(getattr(place, name)))
            return compare_with(theirs, ours(), BATCHES).verdict

    def one_norm(prepared):
        first = next(iter(prepared.norms.values()))
        first.params["running_mean"] = np.nextafter(first.params["running_mean"], np.float32(9))
        return prepared

    def last_batch_twice(real):
        return lambda self, x: (real(self, x), real(self, x))[1]

    def another_grid(real):
        return lambda self, x: np.nextafter(real(self, x), np.float32(9)) if x.ndim == 2 else real(self, x)

    assert compare_with(theirs, one_norm(ours()), BATCHES).verdict in ("codes", "observers")
    assert verdict(BatchNormState, "__call__", last_batch_twice) in ("codes", "observers")
    assert verdict(FakeQuantize, "_on_grid", another_grid) == "codes"
    assert compare_with(theirs._replace(passes=[*theirs.passes[:-1], theirs.passes[0]]), ours(), BATCHES).verdict == "codes"
    assert compare_with(theirs, ours().eval(), BATCHES).verdict in ("codes", "observers")
    nudged = copy.copy(theirs.statistics)
    name = next(iter(nudged))
    nudged[name] = nudged[name][0], np.nextafter(nudged[name][1], np.float32(9))
    assert compare_with(theirs._replace(statistics=nudged), ours(), BATCHES).verdict == "codes"


def test_the_right_eps_is_not_torchaos(theirs):
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config(is_qat=True))
    assert compare_with(theirs, prepare_qat_pt2e(network(), quantizer), BATCHES).verdict in ("codes", "observers")


@pytest.mark.parametrize("dynamic", [False, True])
def test_default_configuration_has_torchaos_fields(dynamic):
    a, b = get_default_x86_inductor_quantization_config(is_qat=True, is_dynamic=dynamic), x86.get_default_x86_inductor_quantization_config(is_qat=True, is_dynamic=dynamic)
    assert a.is_qat and b.is_qat
    for side in ("input_activation", "output_activation", "weight"):
        mine, spec = getattr(a, side), getattr(b, side)
        assert (mine.quant_min, mine.quant_max, mine.ch_axis, mine.is_dynamic) == (spec.quant_min, spec.quant_max, spec.ch_axis, spec.is_dynamic)
        made = mine.observer()
        held = spec.observer_or_fake_quant_ctr.p.keywords.get("observer")
        assert type(made).__name__ == spec.observer_or_fake_quant_ctr.p.func.__name__
        if held is not None:
            assert type(made.activation_post_process).__name__ == getattr(getattr(held, "p", None), "func", held).__name__


def test_a_rule_that_leaves_a_norm_out_is_refused_by_both():
    b = Builder(seed=0)
    model = b.build(b.input("x", (None, 3, 8, 8)).conv2d(4, 3, name="conv").batch_norm(name="norm").relu())
    mine = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config(is_qat=True)).set_function_type_qconfig("F.conv2d", None)
    theirs = torch_pt2e_qat.default_qat_quantizer().set_function_type_qconfig(torch.nn.functional.conv2d, None)
    assert compare_qat(to_torch(model), model, BATCHES, quantizers=(mine, theirs)).verdict == "both refuse"
