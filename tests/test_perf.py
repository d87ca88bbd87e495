"""The speed simulator: machines, plans, dispatch rules, the roofline, the fit, and the command."""

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import refquant as rq
from refquant import perf, zoo
from refquant.cli.main import main
from refquant.errors import ArgumentError, RangeError, RefquantError, ShapeError, UnsupportedError
from refquant.graph import Builder
from refquant.graph.work import multiply_adds
from refquant.isa import cpu
from refquant.isa.products import ConvGeometry
from refquant.numerics import dispatch
from refquant.perf.choose_kernel import choose_kernel
from refquant.perf.constants import FITTED
from refquant.perf.layers import Layer
from refquant.perf.published import FIGURES, Networks, fit, predict
from refquant.workflow import convert_fx, get_default_qconfig_mapping, prepare_fx

# The module: in refquant.perf its function has the same name.
chooser = sys.modules["refquant.perf.choose_kernel"]
VNNI, AVX2, AMX = "avx512_vnni", "avx2", "amx_int8"


def conv(ic, oc, kernel=3, groups=1, stride=1, padding=1, transposed=False, dims=2, output_padding=0, zero_points=(0,), per_channel=True):
    """Return the layer of a convolution of ic to oc channels in all, on 14x14 positions."""
    sides = [(n,) * dims for n in (kernel, stride, padding, 1)]
    geometry = ConvGeometry(groups, ic // groups, oc // groups, *sides, 14)
    m, n, k = 14**dims, oc // groups, ic // groups * kernel**dims
    return Layer(
        "c", f"conv{'_transpose' * transposed}{dims}d", "int8", "product", m * n * k * groups, m, n, k, groups, geometry, transposed, (output_padding,) * dims,
        zero_points, per_channel, 14**dims * ic, 14**dims * oc, k * oc,
    )  # fmt: skip


def small(name, **options):
    return zoo.build(name, **{"width": 0.125, "size": 64, **options})


# --- machines


def test_machines_are_consistent():
    assert len(perf.MACHINES) >= 8
    for m in perf.MACHINES:
        assert m.dot == 0 or m.pairs == pytest.approx(m.dot / 3), m.name
        assert m.fp32 in (32, 64) and (m.dot or m.pairs * 3) == pytest.approx(4 * m.fp32), m.name
        assert ("AMX-INT8" in cpu.level(m.level).extensions) == (m.tile > 0)
    assert {m.level for m in perf.MACHINES} >= {"avx2", "avx_vnni", "avx512", "avx512_vnni", "amx_int8"}


@pytest.mark.parametrize(
    "entries, error, message",
    [
        ('{"like": "xeon-8358", "cores": 8}', None, None),
        ('{"like": "xeon-835"}', ArgumentError, "did you mean 'xeon-8358'"),
        ('{"like": "xeon-8358", "core": 8}', ArgumentError, "did you mean 'cores'"),
        ('{"name": "mine", "cores": 8}', ArgumentError, "level, ghz, fp32"),
        ('{"like": "xeon-8358", "cores": 8.5}', RangeError, "must be a whole number"),
        ('{"like": "xeon-8358", "cores": 0}', RangeError, "must be positive"),
        ('{"like": "xeon-8358", "ghz": -1}', RangeError, "ghz=-1"),
        ('{"like": "xeon-8358", "ghz": NaN}', RangeError, "ghz=nan"),
        ('{"like": "xeon-8358", "ghz": "fast"}', RangeError, "ghz='fast'"),
        ('{"like": "xeon-8358", "level": "avx1024"}', ArgumentError, "avx1024"),
        ('{"like": "epyc-7763", "level": "avx512_vnni"}', RangeError, "dot=0 but the machine has it"),
        ('{"like": "xeon-8358", "title": ""}', ArgumentError, "title=''"),
        ('["xeon-8358"]', ArgumentError, "must be an object"),
        ('{"like": ', ArgumentError, "line 1, column 10 is not JSON"),
        ("\xff", RefquantError, "not UTF-8"),
    ],
)
def test_machine_files(tmp_path, entries, error, message):
    path = tmp_path / "mine.json"
    path.write_bytes(entries.encode("latin-1"))
    if error is None:
        machine = perf.get_machine(str(path))
        assert (machine.name, machine.cores, machine.dot) == ("mine", 8, 256)
        return
    with pytest.raises(error, match=message.replace("[", r"\[")):
        perf.get_machine(str(path))


def test_unknown_machines_are_refused_with_the_nearest():
    with pytest.raises(ArgumentError, match="did you mean 'xeon-8358'.*'epyc-7763'"):
        perf.get_machine("xeon8358")
    with pytest.raises(RefquantError, match="No such file"):
        perf.get_machine("/nowhere/mine.json")


# --- plans


@pytest.mark.parametrize("name", zoo.architectures())
def test_products_count_what_the_graph_counts(name):
    model = zoo.build(name, empty=True)
    for batch in (1, 3):
        counted = {layer.name: layer.multiply_adds for layer in perf.float_layers(model, batch) if layer.multiply_adds}
        assert counted == multiply_adds(model, batch)
        assert sum(layer.multiply_adds for layer in perf.int8_layers(model, batch)) == sum(counted.values())


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v3_small", "squeezenet1_1", "efficientnet_b0", "regnet_y_400mf", "bert_base_layer"])
def test_plan_of_a_float_model_is_what_conversion_makes_of_it(name):
    model = small(name, size=8 if name.startswith("bert") else 64)
    shape = tuple(n or 1 for n in model.node(model.inputs[0]).attrs["shape"])
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    prepared = prepare_fx(model, get_default_qconfig_mapping("x86"), example_inputs=(x,))
    prepared(x)
    converted = convert_fx(prepared)

    def plan(of):
        return Counter((layer.op, layer.dtype, layer.multiply_adds) for layer in perf.int8_layers(of))

    assert plan(model) == plan(converted)
    # The prediction is then the same too: that of the float model is that of the quantized one.
    ours, theirs = (perf.simulate(m, cores=2) for m in (model, converted))
    assert ours.seconds == pytest.approx(theirs.seconds) and theirs.quantized and not ours.quantized


def test_models_that_cannot_be_planned_are_refused():
    b = Builder(seed=0)
    with pytest.raises(ArgumentError, match="computes nothing"):
        perf.simulate(b.build(b.input(shape=(None, 3))))
    b = Builder(seed=0)
    with pytest.raises(ShapeError, match="state all sizes"):
        perf.simulate(b.build(b.input(shape=(None, 3, None, 8)).conv2d(4, 3)))
    b = Builder(seed=0)
    with pytest.raises(ShapeError, match="has shape None"):
        perf.simulate(rq.graph.Model([rq.graph.Node("x", "input"), rq.graph.Node("y", "relu", ["x"])], outputs=["y"]))


def test_a_model_of_float_operators_alone_has_no_int8_layer():
    b = Builder(seed=0)
    report = perf.simulate(b.build(b.input(shape=(None, 4, 16)).gelu()))
    assert [r.kernel.engine for r in report.layers] == ["aten"] and report.layers[0].layer.dtype == "float32"
    assert report.seconds == report.totals["float32"] == report.totals["fbgemm"]


# --- which kernel

CASES = [
    # layer, level, engine that x86 takes, path
    (conv(64, 64), VNNI, "onednn", "conv"),
    (conv(64, 64), AMX, "onednn", "conv"),
    (conv(64, 64), AVX2, "fbgemm", "im2col"),
    (conv(64, 64), "avx_vnni", "fbgemm", "im2col"),
    (conv(64, 64), "avx512", "fbgemm", "im2col"),
    (conv(64, 64, 1, padding=0), VNNI, "onednn", "pointwise"),
    (conv(64, 64, 1, padding=0), AVX2, "fbgemm", "pointwise"),
    (conv(64, 64, 1, padding=0, stride=2), AVX2, "fbgemm", "im2col"),
    (conv(100, 100, groups=100), VNNI, "onednn", "depthwise"),
    (conv(101, 101, groups=101), VNNI, "fbgemm", "im2col"),
    (conv(104, 104, groups=104), VNNI, "fbgemm", "depthwise"),
    (conv(104, 104, groups=104, padding=0), VNNI, "fbgemm", "im2col"),
    (conv(104, 208, groups=104), VNNI, "fbgemm", "depthwise"),
    (conv(104, 104, 5, groups=104, padding=2), VNNI, "fbgemm", "depthwise"),
    (conv(256, 256, groups=32), AVX2, "fbgemm", "groupwise"),
    (conv(256, 256, groups=32, stride=2), AVX2, "fbgemm", "groupwise"),
    (conv(256, 256, groups=32, stride=3), AVX2, "fbgemm", "im2col"),
    (conv(1024, 1024, groups=32), AVX2, "fbgemm", "im2col"),
    (conv(64, 64, zero_points=(0, 3)), VNNI, "fbgemm", "im2col"),
    (conv(64, 32, 2, stride=2, padding=0, transposed=True, per_channel=False), VNNI, "onednn", "conv"),
    (conv(64, 32, 2, stride=2, padding=0, transposed=True, per_channel=True), VNNI, "fbgemm", "direct"),
    (conv(64, 32, 3, stride=2, padding=0, transposed=True, per_channel=False, output_padding=1), VNNI, "fbgemm", "im2col"),
    (conv(8, 8, dims=3, groups=8), AVX2, "fbgemm", "depthwise"),
    (conv(16, 16, dims=1), AVX2, "fbgemm", "im2col"),
    (Layer("fc", "linear", "int8", "product", 64, 1, 8, 8), VNNI, "fbgemm", "gemm"),
    (Layer("fc", "linear", "int8", "product", 64, 1, 8, 8), AMX, "fbgemm", "gemm"),
    (Layer("a", "add", "int8", "moving"), VNNI, "aten", "elementwise"),
]  # fmt: skip


def wrong_cases(choose=choose_kernel):
    """Return the cases for which a chooser says otherwise."""
    kernels = [choose(layer, "x86", level) for layer, level, _, _ in CASES]
    return [(case[2:], k.engine, k.path) for case, k in zip(CASES, kernels) if (k.engine, k.path) != case[2:]]


def test_x86_chooses_by_its_rule():
    assert wrong_cases() == []
    for layer, level, engine, _ in CASES:
        assert choose_kernel(layer, "onednn", level).engine in ("onednn", "aten") and choose_kernel(layer, "fbgemm", level).engine in ("fbgemm", "aten")


FAULTS = {
    "99 groups at most": lambda rule, **k: rule(**{**k, "groups": k["groups"] + 1}),
    "101 groups": lambda rule, **k: rule(**{**k, "groups": k["groups"] - 1}),
    "zero points do not matter": lambda rule, **k: rule(**{**k, "zero_points": (0,)}),
    "output padding does not matter": lambda rule, **k: rule(**{**k, "output_padding": ()}),
    "per channel does not matter": lambda rule, **k: rule(**{**k, "per_channel_transposed": False}),
    "VNNI does not matter": lambda rule, **k: rule(**{**k, "vnni": True}),
    "yes and no exchanged": lambda rule, **k: not rule(**k),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_rule_is_found(fault, monkeypatch):
    monkeypatch.setattr(chooser, "uses_onednn", lambda **k: FAULTS[fault](dispatch.uses_onednn, **k))
    assert wrong_cases()


@pytest.mark.parametrize("name", ["takes_groupwise", "takes_pointwise", "takes_fbgemm_depthwise", "takes_fbgemm_direct"])
def test_a_fault_in_a_kernels_own_rule_is_found(name, monkeypatch):
    monkeypatch.setattr(chooser, name, lambda *a: False)
    assert wrong_cases()


def test_reasons_name_every_condition_that_fails():
    layer = conv(202, 202, groups=101, zero_points=(1,), transposed=True, output_padding=1)
    reasons = chooser.why_not_onednn(layer, AVX2, linux=False)
    assert len(reasons) == 6 and "more than 100 groups" in reasons
    assert choose_kernel(conv(64, 64), "x86", VNNI, linux=False).reason.startswith("not oneDNN: the system is not Linux")


def test_avx_vnni_is_not_enough_for_x86_but_for_onednn():
    assert choose_kernel(conv(64, 64), "x86", "avx_vnni").unit == "pairs"
    assert choose_kernel(conv(64, 64), "onednn", "avx_vnni").unit == "dot"


@pytest.mark.parametrize(
    "layer, level, name",
    [
        (conv(6, 6, groups=2), "avx2", "ref:any"),
        (conv(8, 8, groups=2), "avx2", "jit_uni_int8:avx2"),
        (conv(6, 6, groups=2), "avx_vnni", "brg_conv_fwd:avx2_vnni"),
        (conv(8, 8, groups=2), "avx_vnni", "jit_uni_int8:avx2_vnni"),
        (conv(64, 64), "avx_vnni", "brg_conv_fwd:avx2_vnni"),
        (conv(8, 8, dims=3, groups=8), "avx512", "jit_int8:avx512_core"),
        (conv(8, 8, dims=3, groups=8), VNNI, "brg_conv_fwd:avx512_core_vnni"),
        (conv(8, 8, groups=8), AMX, "brdgmm_dw:avx512_core_vnni"),
        (conv(64, 64), AMX, "brg_conv_fwd:avx512_core_amx"),
        (Layer("fc", "linear", "int8", "product", 64, 1, 8, 8), "sse41", "gemm:jit"),
        (Layer("fc", "linear", "int8", "product", 64, 1, 8, 8), "avx_vnni", "brg_matmul:avx2_vnni"),
    ],
)
def test_onednn_takes_the_kernels_of_its_profile_on_each_level(layer, level, name):
    assert choose_kernel(layer, "onednn", level).name == name


def test_engines_and_levels_without_kernels_are_refused():
    with pytest.raises(ArgumentError, match="did you mean 'fbgemm'"):
        choose_kernel(conv(8, 8), "fbgem", VNNI)
    with pytest.raises(UnsupportedError, match="fbgemm has no known INT8 kernels on sse41"):
        choose_kernel(conv(8, 8), "x86", "sse41")


# --- the engines themselves: what oneDNN says that it ran

_ASK = """
import sys, json, torch
torch.set_num_threads(1)
x8 = lambda *shape: torch.quantize_per_tensor(torch.rand(*shape), 0.01, 3, torch.quint8)
for c in json.loads(sys.argv[1]):
    torch.backends.quantized.engine = c["engine"]
    print("CASE", flush=True)
    w = torch.quantize_per_tensor(torch.rand(*c["w"]), 0.01, 0, torch.qint8)
    if c["op"] == "linear":
        packed = torch.ops.quantized.linear_prepack(w, None)
        torch.ops.quantized.linear(x8(7, c["w"][1]), packed, 0.1, 1)
    else:
        packed = torch.ops.quantized.conv2d_prepack(w, None, [c["stride"]] * 2, [c["padding"]] * 2, [1, 1], c["groups"])
        x = x8(1, c["w"][1] * c["groups"], 14, 14).contiguous(memory_format=torch.channels_last)
        torch.ops.quantized.conv2d(x, packed, 0.1, 1)
"""
_ASKED = [
    conv(64, 64), conv(64, 64, 1, padding=0), conv(64, 64, 1, padding=0, stride=2), conv(3, 64, 7, padding=3, stride=2), conv(64, 64, groups=64),
    conv(64, 128, groups=64), conv(64, 64, groups=8), conv(6, 6, groups=2), conv(64, 64, groups=4), conv(101, 101, groups=101), conv(100, 100, groups=100),
    conv(64, 64, 1, padding=0, groups=4), Layer("fc", "linear", "int8", "product", 64, 7, 32, 64),
]  # fmt: skip


def what_ran(engines, layers, switch=None):
    """Return {engine: the implementation that oneDNN reports for each layer, None where it ran nothing}, all in one process."""
    asked = []
    for engine in engines:
        for layer in layers:
            g = layer.geometry
            w = (layer.n, layer.k) if g is None else (g.oc * g.groups, g.ic, *g.kernel)
            more = {} if g is None else {"stride": g.stride[0], "padding": g.padding[0], "groups": g.groups}
            asked.append({"engine": engine, "op": layer.op, "w": w, **more})
    environment = {**os.environ, "ONEDNN_VERBOSE": "1", "OMP_NUM_THREADS": "1", **({"ONEDNN_MAX_CPU_ISA": switch} if switch else {})}
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", _ASK, json.dumps(asked)], capture_output=True, text=True, env=environment, check=True)
    found = []
    for line in run.stdout.splitlines():
        fields = line.split(",")
        if line == "CASE":
            found.append(None)
        elif len(fields) > 6 and fields[3] == "exec" and fields[5] in ("convolution", "matmul"):
            found[-1] = fields[6]
    assert len(found) == len(asked)
    return {engine: found[i * len(layers) : (i + 1) * len(layers)] for i, engine in enumerate(engines)}


def against_the_engine(engine, level, ran, choose=choose_kernel):
    """Return the layers for which another kernel ran than predicted; names of kernels count where they have been seen before."""
    wrong = []
    for layer, name in zip(_ASKED, ran):
        kernel = choose(layer, engine, level)
        same = (name is not None) == (kernel.engine == "onednn")
        if same and name is not None and level in ("sse41", "avx2"):
            same = name == kernel.name
        wrong += [] if same else [(layer.geometry, kernel.name, name)]
    return wrong


@pytest.mark.engine
def test_engines_run_the_kernels_that_are_predicted():
    pytest.importorskip("torch")
    level = cpu.running_level()
    for engine, ran in what_ran(perf.ENGINES, _ASKED).items():
        assert against_the_engine(engine, level, ran) == []
        # What another engine would have run is found out.
        assert against_the_engine(engine, level, [None if name else "jit_uni_int8:avx2" for name in ran])


@pytest.mark.engine
def test_onednn_runs_the_kernels_that_are_predicted_on_sse41():
    pytest.importorskip("torch")
    ran = what_ran(["onednn"], _ASKED, "SSE41")["onednn"]
    assert against_the_engine("onednn", "sse41", ran) == []
    assert against_the_engine("onednn", "avx2", ran)


# --- how fast


def by_hand(layer, kernel, machine, cores, instances, weight_bytes, c=perf.CONSTANTS):
    """A second reading of the roofline for FBGEMM's and oneDNN's matrix kernels on AVX-512 with VNNI."""
    hertz = machine.ghz * 1e9 * cores
    n16, k4 = math.ceil(layer.n / 16) * 16, math.ceil(layer.k / 4) * 4
    if kernel.path == "groupwise":
        n16 = layer.n * math.ceil(layer.n * layer.groups / 16) * 16 / (layer.n * layer.groups)
    blocks = math.ceil(layer.m / 16) * math.ceil(layer.n / 64) * layer.groups
    padded = layer.m * n16 * k4 * layer.groups * (math.ceil(blocks / cores) * cores / blocks)
    compute = 2 * padded / (hertz * 256 * c.multiply)

    def rate(size):
        if size <= cores * machine.l2_kib * 1024:
            return hertz * machine.l2_bytes
        if size <= machine.l3_mib * 1024 * 1024 / instances:
            return hertz * machine.l3_bytes
        return min(cores * machine.core_gbps, 0.9 * machine.dram_gbps / instances) * 1e9

    memory = layer.weight_values / rate(weight_bytes) + (layer.in_values + layer.out_values) / rate(layer.in_values + layer.out_values)
    own = kernel.engine == "fbgemm"
    return max(compute, memory) + own * layer.out_values * c.fbgemm_value / hertz + c.call + own * c.fbgemm_call


def apart(report, constants=perf.CONSTANTS):
    """Return the matrix layers whose time a second reading does not find."""
    weight_bytes = sum(r.layer.weight_values for r in report.layers if r.layer.dtype == "int8")
    rows = [r for r in report.layers if r.layer.kind == "product" and r.kernel.path != "depthwise" and r.layer.dtype == "int8"]
    assert rows
    hand = [by_hand(r.layer, r.kernel, report.machine, report.cores, report.instances, weight_bytes, constants) for r in rows]
    return [r.layer.name for r, seconds in zip(rows, hand) if not math.isclose(r.time.seconds, seconds, rel_tol=1e-12)]


@pytest.mark.parametrize("engine", perf.ENGINES)
@pytest.mark.parametrize("name", ["alexnet", "resnext50_32x4d", "mobilenet_v2"])
def test_roofline_is_what_a_second_reading_finds(name, engine):
    report = perf.simulate(zoo.build(name, empty=True), "xeon-8358", 4, engine, batch=2, instances=8)
    assert apart(report) == []
    assert report.seconds == pytest.approx(sum(r.time.seconds for r in report.layers))
    assert sum(report.shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", ["multiply", "call"])
def test_a_roofline_with_a_wrong_constant_is_found(name):
    wrong = perf.CONSTANTS._replace(**{name: getattr(perf.CONSTANTS, name) * 1.0001})
    assert apart(perf.simulate(zoo.build("resnet18", empty=True), constants=wrong))


def test_a_large_product_reaches_the_share_of_the_peak_and_a_vector_the_memorys_rate():
    b = Builder(empty=True)
    model = b.build(b.input(shape=(None, 4096)).linear(4096))
    machine = perf.get_machine("xeon-8358")
    many, one = (next(r for r in perf.simulate(model, machine, 4, batch=n).layers if r.layer.op == "linear") for n in (8192, 1))
    assert many.time.bound == "compute"
    assert 2 * many.layer.multiply_adds / many.time.compute / 1e9 == pytest.approx(machine.peak("dot", 4) * perf.CONSTANTS.multiply)
    assert one.time.bound == "memory" and one.layer.weight_values / one.time.memory < 1e9 * 4 * machine.ghz * machine.l3_bytes


def test_more_cores_never_make_a_network_slower_nor_more_instances_faster():
    model = zoo.build("resnet18", empty=True)
    times = [perf.simulate(model, "xeon-8358", n).seconds for n in (1, 2, 4, 8, 16, 32)]
    assert times == sorted(times, reverse=True)
    shared = [perf.simulate(model, "xeon-8358", 4, instances=n).seconds for n in (1, 4, 8)]
    assert shared == sorted(shared)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cores": 0}, "cores=0 must be a whole number of at least 1"),
        ({"cores": 33}, "cores=33 but xeon-8358 has 32 cores; use at most 32"),
        ({"cores": 8, "instances": 5}, "cores=8 for each of 5 instances but xeon-8358 has 32 cores; use at most 6 each"),
        ({"cores": 2.0}, "cores=2.0"),
        ({"cores": True}, "cores=True"),
        ({"batch": 0}, "batch=0"),
        ({"instances": -1}, "instances=-1"),
    ],
)
def test_what_a_machine_does_not_have_is_refused(options, message):
    with pytest.raises(RangeError, match=message):
        perf.simulate(zoo.build("squeezenet1_1", empty=True), **options)


def test_grouped_transposed_and_batched_layers_are_timed():
    b = Builder(empty=True)
    x = b.input(shape=(None, 8, 6, 6)).conv_transpose(16, 3, stride=2, output_padding=1).conv2d(32, 3, groups=4)
    model = b.build(x.flatten().linear(7))
    report = perf.simulate(model, batch=5)
    assert [r.layer.m for r in report.layers if r.layer.kind == "product"] == [5 * 36, 5 * 144, 5]
    assert all(r.time.seconds > 0 for r in report.layers)
    assert sum(r.layer.multiply_adds for r in report.layers) == sum(multiply_adds(model, 5).values())


# --- published figures


@pytest.fixture(scope="module")
def networks():
    return Networks(lambda name: zoo.build(name, empty=True), ["resnet50"])


def test_shipped_constants_are_those_that_the_fit_finds(networks):
    found = fit(networks)
    for name in (*FITTED, "fp32"):
        assert getattr(perf.CONSTANTS, name) == pytest.approx(getattr(found, name), rel=0.006), name
    # Other figures give other constants: the fit does look at them.
    other = fit(networks, without={"squeezenet1_0", "shufflenet_v2_x0_5"})
    assert any(getattr(other, name) != pytest.approx(getattr(found, name), rel=0.006) for name in FITTED)


def test_published_engines_are_met_within_stated_errors(networks):
    errors = [math.log(predict(f, networks) / f.value) for f in FIGURES if f.table == "engines"]
    assert math.sqrt(sum(e * e for e in errors) / len(errors)) < math.log(1.22) and max(map(abs, errors)) < math.log(1.5)
    # The prediction does depend on the engine: x86 is faster than fbgemm wherever that is published.
    pairs = {}
    for f in FIGURES:
        if f.table == "engines":
            pairs.setdefault(f.network, []).append(predict(f, networks))
    assert all(x86 > fbgemm for fbgemm, x86 in pairs.values())


# --- the command


def test_command_prints_kernels_reasons_and_totals(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "130")
    assert main(["simulate", "mobilenet_v2", "--machine", "xeon-8358", "--cores", "4", "--top", "6"]) == 0
    out = capsys.readouterr().out
    assert "the 6 slowest of 67 calls under x86" in out and "[1] not oneDNN: more than 100 groups; depthwise" in out and "times as fast as float32" in out
    assert "not measured" in out and max(map(len, out.split("\n\n")[2].splitlines())) <= 130


README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def test_readme_shows_what_the_command_prints(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "130")
    command = "alexnet --machine xeon-8358 --cores 4 --instances 8 --top 6"
    assert main(["simulate", *command.split()]) == 0
    assert f"```text\n$ refquant simulate {command}\n{capsys.readouterr().out}```" in README


def test_readme_holds_what_the_comparison_with_published_speeds_prints(capsys):
    assert main(["simulate", "--published"]) == 0
    tables = {text.split(":")[0]: text for text in capsys.readouterr().out.split("\n\n")[1:]}
    starts = "| x86 over fbgemm on 1, 2, 4", "| x86 over float32 on a Xeon Gold 6455B", "| fbgemm over float32 there", "| x86 over fbgemm there"
    stated = [cell for line in README.splitlines() if line.startswith(starts) for cell in line.split("|")[2].replace(" ", "").split(",")]
    means = [re.search(r"(\S+)  +[+-]\d+ %$", line).group(1) for name in ("cores", "blog") for line in tables[name].splitlines()[2:-1]]
    assert stated == means and len(means) == 7
    for name, start in {"engines": "| pictures a second of 11", "8380": "| fbgemm over float32 on a Xeon 8380", "8480": "| x86 over float32 on a Xeon 8480+"}.items():
        typical, worst = re.search(r"factor of ([\d.]+) .*at worst ([\d.]+)", tables[name]).groups()
        row = next(line for line in README.splitlines() if line.startswith(start))
        assert f"off by a factor of {typical}, at worst {worst}" in row, (name, typical, worst)
        saved = re.search(r"milliseconds saved: off by (\d+) %", tables[name])
        assert saved is None or f"by {saved.group(1)} %" in row
    assert tables["engines"].count("xeon-8358") == 22


def test_command_prints_json(capsys):
    assert main(["simulate", "digits_resnet", "--machine", "core-155h", "--engine", "onednn", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["machine"]["level"] == "avx_vnni" and report["totals"]["onednn"] == pytest.approx(sum(row["time"]["seconds"] for row in report["layers"]))
    assert main(["simulate", "--machines", "--json"]) == 0
    assert [m["name"] for m in json.loads(capsys.readouterr().out)] == list(perf.machine_names())
    assert main(["simulate", "--machines"]) == 0
    assert all(m.title in text for text in [capsys.readouterr().out] for m in perf.MACHINES)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "give one of MODEL, --machines and --published"),
        (["resnet50", "--machines"], "give one of MODEL"),
        (["resnet5"], "did you mean 'resnet50'"),
        (["resnet50", "--machine", "xeon"], "is not known"),
        (["resnet50", "--engine", "qnnpack"], "choose one of 'x86', 'fbgemm', 'onednn'"),
        (["resnet50", "--cores", "64"], "use at most 32"),
        (["resnet50", "--top", "-1"], "must be at least 0"),
        (["digits_resnet", "--size", "9"], "--size and --width go with an architecture"),
        (["nowhere.onnx"], "must be a readable file"),
    ],
)
def test_command_refuses(capsys, arguments, message):
    assert main(["simulate", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_command_sets_predictions_beside_published_speeds(capsys, monkeypatch):
    from refquant.perf import published

    shipped = dict.fromkeys(dict.fromkeys(f.network for f in FIGURES if f.table == "engines"), perf.CONSTANTS)
    monkeypatch.setattr(published, "leave_one_out", lambda networks: shipped)
    monkeypatch.setattr(published, "fit", lambda networks: perf.CONSTANTS)
    monkeypatch.setattr(zoo, "architectures", lambda: ("resnet18", "squeezenet1_1"))
    assert main(["simulate", "--published"]) == 0
    out = capsys.readouterr().out
    assert "geometric mean (2 of refquant zoo)" in out and "2.97" in out and "off by a factor of" in out and "milliseconds saved" in out
    assert main(["simulate", "--published", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["figures"]) == len(FIGURES)
