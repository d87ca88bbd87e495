"""The speed simulator: machines, plans, the roofline, the fit, and the command."""

import json
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import refquant as rq
from refquant import perf, zoo
from refquant.cli.main import main
from refquant.errors import ArgumentError, RangeError, RefquantError, ShapeError
from refquant.graph import Builder
from refquant.graph.work import multiply_adds
from refquant.isa import cpu
from refquant.perf.constants import FITTED
from refquant.perf.published import FIGURES, Networks, fit, predict
from refquant.workflow import convert_fx, get_default_qconfig_mapping, prepare_fx


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
        (["resnet50", "--top", "-1"], "a whole number of at least 0"),
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
