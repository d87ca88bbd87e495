"""Prepared models in refquant's own files: what is loaded goes on where the saved one stood, bit for bit; what makes no sense is refused."""

import json
import zipfile

import numpy as np
import pytest
from npz_members import members
from refquant.data import load_split
from test_native import rewrite

import refquant as rq
from refquant import observers, workflow, zoo
from refquant.errors import RefquantError, UnsupportedError
from refquant.graph import Builder
from refquant.observers.observer_recipe import maker_of, recipe_of
from refquant.observers.observer_state import restore, state_of
from refquant.observers.statistic_range_observer import PRESETS

X = load_split("digits", "calibration")[0].reshape(4, 50, 1, 8, 8)


def fx(name="digits_resnet", backend="x86", table=None):
    return workflow.prepare_fx(zoo.load(name), workflow.get_default_qconfig_mapping(backend), (X[0],), backend_config=workflow.get_backend_config(table) if table else None)


def pt2e(name="digits_resnet"):
    return workflow.prepare_pt2e(zoo.load(name), workflow.X86InductorQuantizer().set_global(workflow.get_default_x86_inductor_quantization_config()))


def converted(prepared):
    return workflow.convert_pt2e(prepared) if isinstance(prepared, workflow.PreparedPT2E) else workflow.convert_fx(prepared)


def file_of(model, path):
    rq.save(model, path)
    return path.read_bytes()


def block(x, b, name, kind):
    """A small block of a class; its node's names begin with its own."""
    with b.scope(name, kind):
        return x.conv2d(4, 3, padding=1, name="conv").relu(name="relu")


def parts():
    """A standalone module in a standalone module, one by class, and one that is left alone."""
    b = Builder(seed=0)
    x = b.input(shape=(None, 1, 8, 8)).conv2d(4, 1, name="first")
    with b.scope("outer", "models.Outer"):
        x = block(x.conv2d(4, 1, name="conv"), b, "inner", "models.Inner")
        x = x.conv2d(4, 1, name="last")
    x = block(block(x, b, "block", "models.Block"), b, "float", "models.Float")
    model = b.build(x.conv2d(2, 1, name="head"))
    value = (np.zeros((1, 4, 8, 8), np.float32),)
    own, config = workflow.PrepareCustomConfig, workflow.PrepareCustomConfig()
    codes = own().set_input_quantized_indexes([0]).set_output_quantized_indexes([0])
    inner = own().set_standalone_module_name("inner", None, value, codes, None).set_non_traceable_module_classes(["Inner"]).set_output_quantized_indexes([0])
    config.set_standalone_module_class("Outer", None, value, inner, None).set_non_traceable_module_classes(["Float"])
    config.set_standalone_module_class("models.Block", workflow.get_default_qconfig_mapping("qnnpack"), value, codes, workflow.get_backend_config("qnnpack"))
    return workflow.prepare_fx(model, workflow.get_default_qconfig_mapping("x86"), (X[0][:2],), config)


PREPARED = {
    "parts in parts": parts,
    "fx x86": fx, "fx qnnpack": lambda: fx("digits_mobilenet", "qnnpack"), "fx onednn, its table": lambda: fx(backend="onednn", table="onednn"), "pt2e": pt2e,
    "pt2e mobilenet": lambda: pt2e("digits_mobilenet"),
    "dynamic": lambda: workflow.prepare_fx(zoo.load("digits_resnet"), workflow.QConfigMapping().set_global(workflow.default_dynamic_qconfig), (X[0],)),
    "qat": lambda: workflow.prepare_qat_fx(zoo.load("digits_mobilenet"), workflow.get_default_qat_qconfig_mapping("x86"), (X[0],)),
    "qat, a layer left out": lambda: workflow.prepare_qat_fx(
        zoo.load("digits_resnet"), workflow.get_default_qat_qconfig_mapping("qnnpack", 0).set_module_name("stem", None), (X[0],), backend_config=workflow.get_backend_config("fbgemm")
    ),
    "own table": lambda: workflow.prepare_fx(
        zoo.load("digits_resnet"), workflow.get_default_qconfig_mapping("fbgemm"), (X[0],), workflow.PrepareCustomConfig().set_output_quantized_indexes([0]),
        workflow.get_backend_config("fbgemm").set_name("mine").set_backend_pattern_config(workflow.BackendPatternConfig("nn.Tanh(nn.Linear)", fused="nni.LinearTanh")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PREPARED)
@pytest.mark.parametrize("before", [0, 2])
def test_a_break_changes_no_bit(name, before, tmp_path):
    """Half calibrated, saved, loaded, calibrated to the end and converted: the very file of the model that was never put away."""
    ref = PREPARED[name]()
    for batch in X[:before]:
        ref(batch)
    first = file_of(ref, tmp_path / "a.npz")
    comp = rq.load(tmp_path / "a.npz")
    assert type(comp) is type(ref) and str(comp) == str(ref) and comp.placement == ref.placement and comp.batches == before
    assert file_of(comp, tmp_path / "b.npz") == first
    for batch in X[before:]:
        ref(batch)
        comp(batch)
    assert file_of(converted(comp), tmp_path / "b.npz") == file_of(converted(ref), tmp_path / "a.npz")
    ref(X[0] * 3)  # an observer that both held would see this
    assert file_of(converted(comp), tmp_path / "b.npz") != file_of(converted(ref), tmp_path / "a.npz") or name == "dynamic"


def test_what_a_mapping_takes_away_after_loading(tmp_path):
    """QConfigs are the same objects to a comparison, so that `convert_fx` with a mapping still knows them."""
    ref = fx()
    ref(X[0])
    file_of(ref, tmp_path / "a.npz")
    comp, mapping = rq.load(tmp_path / "a.npz"), workflow.get_default_qconfig_mapping("x86").set_module_name("fc", None)
    assert comp.qconfigs == ref.qconfigs
    assert file_of(workflow.convert_fx(comp, qconfig_mapping=mapping), tmp_path / "c") == file_of(workflow.convert_fx(ref, qconfig_mapping=mapping), tmp_path / "d")


MAKERS = {
    **{o.__name__: o for o in observers.OBSERVERS if o is not observers.FixedQParamsObserver}, "fixed": observers.FixedQParamsObserver.with_args(scale=0.5, zero_point=3),
    **observers.DEFAULT_FAKE_QUANTS, **{f"statistic {name}": lambda name=name: observers.StatisticRangeObserver.preset(name) for name in PRESETS},
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_every_observer_goes_on_where_it_stood(name):
    rng = np.random.default_rng(len(name))
    batches = [(rng.standard_normal((4, 3, 5)) * (1 + k)).astype(np.float32) for k in range(4)]
    ref = MAKERS[name]()
    for batch in batches[:2]:
        ref(batch)
    comp = maker_of(recipe_of(ref, ""), "")()
    restore(comp, state_of(ref, ""), "")
    for batch in batches[2:]:
        ref(batch)
        comp(batch)
    assert repr(state_of(comp, "")) == repr(state_of(ref, "")) and repr(comp) == repr(ref)
    try:
        qparams = ref.calculate_qparams()
    except UnsupportedError:
        return
    assert repr(comp.calculate_qparams()) == repr(qparams)


class Own(observers.MinMaxObserver):
    """A class that no file knows."""


def test_parts_come_back_as_they_were(tmp_path):
    ref = parts()
    ref(X[0])
    rq.save(ref, tmp_path / "a.npz")
    comp = rq.load(tmp_path / "a.npz")
    (outer, found), (other, again) = comp.apart(), ref.apart()
    assert list(found) == list(again) == ["float", "outer", "block"] and outer.placement == other.placement and comp.model.classes == ref.model.classes
    assert [type(p) for p in found.values()] == [type(p) for p in again.values()] == [type(ref.model), workflow.Prepared, workflow.Prepared]
    assert list(found["outer"].standalone[1]) == ["inner"] and found["outer"].standalone[1]["inner"].batches == 1
    text = json.loads(zipfile.ZipFile(tmp_path / "a.npz").read("model.json"))
    assert text["version"] == 3 and set(text["parts"]) == {"outer", "block", "float"} and set(text["parts"]["outer"]["parts"]) == {"inner"}


def _swap_parts(text):
    text["parts"]["block"], text["parts"]["float"] = text["parts"]["float"], text["parts"]["block"]


def _two_outputs(text):
    text["parts"]["float"]["outputs"] *= 2


PARTS = {
    "a part too few": (lambda text: text["parts"].pop("float"), "must be among the entry 'parts'"),
    "a part too many": (lambda text: text["parts"].update(head=text["parts"]["float"]), "must belong to a node"),
    "a part that is no model": (lambda text: text["parts"].update(float=[1]), "garbled"),
    "two outputs": (_two_outputs, "one output"),
    "observers in a float part": (lambda text: text["parts"]["block"].pop("prepared"), "entry 'prepared' alone"),
    "parts of a float model": (lambda text: text["parts"]["outer"].pop("prepared"), "entry 'prepared' alone"),
    "no float model around": (lambda text: text.pop("prepared"), "entry 'prepared' alone"),
    "attributes of a call": (lambda text: next(n for n in text["nodes"] if n["op"] == "call")["attrs"].update(part=1), "has no attributes"),
    "classes that are no texts": (lambda text: text.update(classes={"outer": 3}), "garbled"),
    "classes of nothing": (lambda text: text.update(classes={"": "x"}), "dotted paths"),
    "version 2": (lambda text: text.update(version=2), "parts with version 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_parts_that_make_no_sense_are_refused(name, tmp_path):
    ref = parts()
    ref(X[0])
    rq.save(ref, tmp_path / "sound.npz")
    change, message = PARTS[name]
    path = rewrite(tmp_path / "sound.npz", change)
    with pytest.raises(RefquantError, match=message) as error:
        rq.load(path)
    assert str(error.value).startswith(f"model file {path}"), error.value


def test_parts_that_changed_places_are_found(tmp_path):
    """Both have the shape of the other, so that the file is sound, but another model."""
    ref = parts()
    ref(X[0])
    rq.save(ref, tmp_path / "sound.npz")
    comp = rq.load(rewrite(tmp_path / "sound.npz", _swap_parts))
    assert comp.placement != ref.placement


def test_what_cannot_be_saved(tmp_path):
    b = Builder(seed=0)
    model = b.build(b.input(shape=(None, 4)).linear(3))
    weight = workflow.get_default_qconfig("x86").weight
    for maker in (Own, observers.MinMaxObserver.with_callable_args(dtype=lambda: "uint8")):
        prepared = workflow.prepare_fx(model, workflow.QConfigMapping().set_global(workflow.QConfig(maker, weight)), (np.zeros((1, 4), np.float32),))
        with pytest.raises(UnsupportedError, match="save: .*(does not come with refquant|calls functions)"):
            rq.save(prepared, tmp_path / "a.npz")
    with pytest.raises(RefquantError, match="save the prepared model that it is part of"):
        rq.save(prepared.model, tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


def make_sound(path):
    """Write a small prepared model with observers of several kinds; return the path."""
    b = Builder(seed=0)
    model = b.build(b.input(shape=(None, 3)).linear(4).relu().linear(2))
    mapping = workflow.get_default_qconfig_mapping("x86").set_module_name("linear", workflow.QConfig(observers.EntropyObserver, workflow.get_default_qconfig("x86").weight))
    prepared = workflow.prepare_fx(model, mapping, (np.zeros((1, 3), np.float32),))
    prepared(np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32))
    rq.save(prepared, path)
    return path


@pytest.fixture
def sound(tmp_path):
    return make_sound(tmp_path / "sound.npz")


def entry(text, *keys):
    """Return what stands under keys in nested tables, as a list that may be changed: ``[key, value]``."""
    found = ["", text["prepared"]]
    for key in keys:
        rows = found[1]["table"] if isinstance(found[1], dict) else found[1]
        found = next(row for row in rows if row[0] == key) if isinstance(key, str) else ["", rows[key]]
    return found


def to(value, *keys):
    def change(text):
        entry(text, *keys)[1] = value

    return change


def observed(text):
    return next(n for n in text["nodes"] if n["op"] == "observe")


CHANGED = {
    "no version 2": (lambda text: text.update(version=1), "come with version 2"),
    "nothing prepared": (lambda text: text.pop("prepared"), "come with version 2"),
    "a newer version": (lambda text: text.update(version=4), "reads up to 3"),
    "parts without version 3": (lambda text: text.update(parts={}), "parts with version 3"),
    "version 3 without parts": (lambda text: text.update(version=3), "parts with version 3"),
    "parts of no node": (lambda text: text.update(version=3, parts={"linear": {**text, "version": 3}}), "must belong to a node|is garbled"),
    "no table": (lambda text: text.update(prepared=[1, 2]), "garbled"),
    "another front": (to("jax", "front"), "front"),
    "batches below 0": (to(-1, "batches"), "must be a count"),
    "batches a text": (to("many", "batches"), "must be a count"),
    "an observer of another module": (to("os.system", "observers", 0, "observer"), "observer='os.system'"),
    "an observer that is a base": (to("ObserverBase", "observers", 0, "observer"), "observer='ObserverBase'"),
    "an unknown argument": (to({"table": [["command", "ls"]]}, "observers", 0, "arguments"), "argument"),
    "bins without end": (to({"table": [["num_bins", 10**12]]}, "observers", 0, "arguments"), "at most 4,194,304"),
    "a dtype that is none": (to({"table": [["dtype", "object"]]}, "observers", 0, "arguments"), "dtype"),
    "an unknown attribute": (to({"table": [["__class__", 1]]}, "observers", 0, "state"), "attribute='__class__'"),
    "a text as state": (to({"table": [["dtype", "float64"]]}, "observers", 0, "state"), "cannot take the place of a str"),
    "a state that is no table": (to([1], "observers", 0, "state"), "must be a table"),
    "a histogram without edges": (to({"table": [["histogram", {"table": [["counts", {"array": 0}], ["edges", None]]}]]}, "observers", 0, "state"), "between edges that rise"),
    "batches of an observer below 0": (to({"table": [["_batches", -5]]}, "observers", 0, "state"), "must not be negative"),
    "no observers": (to([], "observers"), "asks for number 0 of 0"),
    "an observer too many": (lambda text: observed(text)["attrs"].update(observer=99), "asks for number 99"),
    "an observer as an array": (lambda text: observed(text)["attrs"].update(observer={"array": 0}), "asks for number"),
    "a QConfig of a strange node": (to({"table": [["nobody", 0]]}, "qconfig_of"), "each node, and nothing else"),
    "a QConfig too many": (to({"table": [[n, 7] for n in ("x", "linear", "linear_1")]}, "qconfig_of"), "asks for number 7|each node"),
    "a strange observed node": (to(["nobody"], "observed"), "'nobody'"),
    "an unknown backend": (to("tpu", "backend"), "backend='tpu'"),
    "an unknown table": (to("tpu", "backend_config"), "backend_config='tpu'"),
    "a table of nonsense": (to(["mine", [["nn.Linear(", [], "own", None, False]]], "backend_config"), "sound.npz|bad.npz"),
    "a layer that is none": (lambda text: text["prepared"]["table"].append(["layers", {"table": [["linear", [{"array": 0}, None, None, 0.0, None]]]}]), "layer 'linear'"),
    "unknown settings": (to({"table": [["run_command", ["ls"]]]}, "custom"), "key='run_command'"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_what_makes_no_sense_is_refused(sound, name):
    change, message = CHANGED[name]
    path = rewrite(sound, change)
    with pytest.raises(RefquantError, match=message) as error:
        rq.load(path)
    assert str(error.value).startswith(f"model file {path}"), error.value


def test_the_rewriting_itself_is_sound(sound):
    assert file_of(rq.load(rewrite(sound)), sound.with_name("again.npz")) == sound.read_bytes()


def test_the_file_is_readable_by_anything(sound):
    with zipfile.ZipFile(sound) as archive:
        text = json.loads(archive.read("model.json"))
    assert (text["format"], text["version"], entry(text, "front")[1], entry(text, "batches")[1]) == ("refquant model", 2, "fx", 1)
    assert [entry(text, "observers", i, "observer")[1] for i in range(3)] == ["EntropyObserver", "EntropyObserver", "HistogramObserver"]
    assert {name.removesuffix(".npy") for name in members(sound)} == set(np.load(sound).files)
