"""Layers of a network by time: every step of the plan once, the model's own result, the table."""

import numpy as np

import refquant as rq
from refquant.backends.bench import networks
from refquant.backends.bench.case import Plan, Settings, Work, Yardstick
from refquant.cli.bench_layers import layer_table, layer_works
from refquant.graph import Builder


def small_network():
    b = Builder(seed=0)
    model = b.build(b.input(shape=(None, 3, 8, 8)).conv2d(4, 3, padding=1, name="a layer with a rather long name").relu().adaptive_avg_pool2d().flatten().linear(5))
    images = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    workflow = rq.workflow
    prepared = workflow.prepare_fx(model, workflow.get_default_qconfig_mapping("fbgemm"), (images,))
    prepared(images)
    return networks.Network(model, workflow.convert_fx(prepared, numerics="fbgemm"), images)


def test_each_step_is_timed_once_and_planned_runs_give_the_same_bits():
    network = small_network()
    image, ticks = network.images[:1], iter(range(100))
    (ref,), times = network.int8(image), network.int8.time_steps(image, clock=lambda: next(ticks))
    assert list(times) == [n.name for n in network.int8.nodes if n.op != "input"] and set(times.values()) == {1}
    hooked = []
    assert np.array_equal(network.int8.run(image, hooks=lambda node, value: hooked.append(node))[0], ref)
    assert np.array_equal(network.int8(image)[0], ref) and len(hooked) == len(times) + 1


def test_layers_have_times_operations_and_a_table(monkeypatch):
    network = small_network()
    monkeypatch.setattr(networks, "quantized_network", lambda name: network)
    other = Work("other", "", lambda: [Plan("no network", "", None)])
    peak = Yardstick("peak", lambda: sum(range(1000)), 1e6)
    found = layer_works([(other, other.plans()), (networks.NETWORKS, [Plan("small", "", None)])], Settings(peak=peak))
    ((name, layers, speed),) = found
    assert name == "small" and speed > 0 and [layer.kind for layer in layers][:2] == ["quantize", "conv2d 3x3"]
    assert layers[1].operations == 2 * 4 * 3 * 9 * 64 and layers[1].shape == (1, 4, 8, 8) and all(layer.seconds > 0 for layer in layers)
    table = layer_table(found)
    assert len(table) == len(layers) + 3 and max(map(len, table)) <= 100 and any("a_layer_with_a_rather" in line and "…" in line for line in table)
