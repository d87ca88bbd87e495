"""refquant's own model files: bit for bit there and back, the same bytes each time, and everything else refused."""

import json
import pickle
import zipfile

import numpy as np
import pytest
from npz_members import members, npy, write_members

import refquant as rq
from refquant import interop, zoo
from refquant.data import load_split
from refquant.errors import ArgumentError, RefquantError
from refquant.graph import Model, Node
from refquant.workflow import convert_fx, get_default_qconfig_mapping, prepare_fx

X = load_split("digits", "calibration")[0][:20]


def quantized(backend="x86", name="digits_mobilenet"):
    prepared = prepare_fx(zoo.load(name), get_default_qconfig_mapping(backend), (X,))
    prepared(X)
    return convert_fx(prepared)


def same(a, b):
    """Whether two models are alike in everything that a run shows."""
    assert str(a) == str(b) and a.outputs == b.outputs and a.name == b.name and a.real == b.real
    for m, n in zip(a.nodes, b.nodes, strict=True):
        assert (m.name, m.op, m.inputs, m.target, m.path, m.sources, m.attrs.keys(), m.params.keys()) == (n.name, n.op, n.inputs, n.target, n.path, n.sources, n.attrs.keys(), n.params.keys())
        assert repr(m.attrs) == repr(n.attrs) and all(m.attrs[k] == n.attrs[k] for k in m.attrs if k == "out")
    return all(np.array_equal(p, q) and p.dtype == q.dtype for p, q in zip(a.run(X), b.run(X), strict=True))


@pytest.mark.parametrize("model", [zoo.load("digits_resnet"), quantized("x86"), quantized("qnnpack")], ids=["float", "x86", "qnnpack"])
def test_there_and_back(model, tmp_path):
    rq.save(model, tmp_path / "a.npz")
    again = rq.load(tmp_path / "a.npz")
    assert same(model, again) and (again.numerics is None or again.numerics == model.numerics)
    rq.save(again, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_profile_of_ones_own(tmp_path):
    model, get = quantized("fbgemm"), rq.numerics.get
    own = get("fbgemm").replace(rounding="half_away"), get("fbgemm@avx2"), get("onnxruntime").replace(add={"contraction": "fma"}), get("qnnpack").replace(name="mine", add={"rounding": "floor"})
    for profile in own:
        rq.save(model.with_nodes(model.nodes, numerics=profile), tmp_path / "a.npz")
        assert rq.load(tmp_path / "a.npz").numerics == profile
    assert np.array_equal(rq.load(tmp_path / "a.npz")(X)[0], model.run(X, numerics=own[-1])[0])
    with pytest.raises(ArgumentError, match="a file cannot hold"):
        rq.save(model.with_nodes(model.nodes, numerics=get("fbgemm").replace(linear=None)), tmp_path / "b.npz")
    assert not (tmp_path / "b.npz").exists()


def test_values_of_every_kind(tmp_path):
    """Infinities, NaN, subnormals and negative zero keep their bits; one array that stands in two nodes stays one."""
    weight = np.array([[np.nan, -0.0, 1e-42], [np.inf, -np.inf, 3.0]], np.float32)
    nodes = [
        Node("x", "input", attrs={"shape": (None, 3)}), Node("a", "linear", ["x"], params={"weight": weight}, sources=["a", "b"], path="some.path"),
        Node("c", "linear", ["x"], params={"weight": weight, "bias": np.zeros(2, np.float32)}), Node("y", "add", ["a", "c"], {"activation": "relu"}),
    ]  # fmt: skip
    rq.save(Model(nodes, ["y", "a"], name="odd ✓", real="float64"), tmp_path / "a.npz")
    again = rq.load(tmp_path / "a.npz")
    assert again.name == "odd ✓" and again.real == "float64" and again.node("a").sources == ("a", "b") and again.node("a").path == "some.path"
    assert again.node("a").params["weight"].tobytes() == weight.tobytes() and again.node("a").params["weight"] is again.node("c").params["weight"]
    assert len(np.load(tmp_path / "a.npz").files) == 3


def test_what_cannot_be_saved(tmp_path):
    prepared = prepare_fx(zoo.load("digits_resnet"), get_default_qconfig_mapping("x86"), (X,))
    wrong = Model([Node("x", "input", attrs={"shape": (1, 3)}), Node("y", "linear", ["x"], params={"weight": np.zeros((2, 4), np.float32)})], "y")
    for model in (prepared.model, wrong, None):
        with pytest.raises(RefquantError):
            rq.save(model, tmp_path / "a.npz")
    with pytest.raises(RefquantError, match="folder must exist"):
        rq.save(zoo.load("digits_resnet"), tmp_path / "nowhere" / "a.npz")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    rq.save(zoo.load("digits_resnet"), path)
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(RefquantError, match="No space left"):
        rq.save(zoo.load("digits_mobilenet"), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.npz"]


# Everything below changes a small sound file.


def make_sound(path):
    """Write a small quantized model; return the path."""
    rng = np.random.default_rng(0)
    w = rq.QTensor(rng.integers(-128, 128, (4, 3)).astype(np.int8), rq.QParams(np.full(4, 0.5), np.zeros(4, int), "int8", axis=0))
    qp = rq.QParams(0.5, 3, "uint8")
    nodes = [
        Node("x", "input", attrs={"shape": (None, 3)}), Node("q", "quantize", ["x"], {"out": qp}),
        Node("fc", "linear", ["q"], {"out": qp}, {"weight": rq.ops.pack_weights(w), "bias": np.ones(4, np.float32)}), Node("y", "dequantize", ["fc"]),
    ]  # fmt: skip
    rq.save(Model(nodes, "y", numerics="fbgemm"), path)
    return path


@pytest.fixture
def sound(tmp_path):
    return make_sound(tmp_path / "sound.npz")


def rewrite(path, change=lambda text: None, compress=zipfile.ZIP_STORED, **entries):
    """Write the file anew with its text and its entries (None takes one away) changed; return the new path."""
    content = members(path)
    text = json.loads(content["model.json"])
    change(text)
    content["model.json"] = json.dumps(text).encode()
    content.update({name.replace("__", "."): value for name, value in entries.items()})
    out = path.with_name("bad.npz")
    write_members(out, content, compress)
    return out


def fields(index, **changes):
    return lambda text: text["nodes"][index].update(changes)


class Evil:
    def __reduce__(self):
        return exec, ("import sys; sys.modules['pwned'] = sys",)


CHANGED = {
    "version of the future": (lambda t: t.update(version=4), "upgrade refquant"),
    "version of no kind": (lambda t: t.update(version="1"), "of version '1'"),
    "another format": (lambda t: t.update(format="pickle"), "must be a 'refquant model'"),
    "no nodes": (lambda t: t.pop("nodes"), "garbled"),
    "nodes of no kind": (lambda t: t.update(nodes={"x": 1}), "garbled"),
    "unknown operation": (fields(3, op="exec"), "exec"),
    "unknown attribute": (lambda t: t["nodes"][3]["attrs"].update(command="rm"), "command"),
    "unknown parameter": (lambda t: t["nodes"][3]["params"].update(weight={"array": 0}), "parameter"),
    "parameter that is no array": (lambda t: t["nodes"][2]["params"].update(weight="w"), "must be an array"),
    "array of no number": (lambda t: t["nodes"][2]["params"].update(bias={"array": "0"}), "names the array"),
    "array beyond the end": (lambda t: t["nodes"][2]["params"].update(bias={"array": 99}), "names the array 99"),
    "array before the start": (lambda t: t["nodes"][2]["params"].update(bias={"array": -1}), "names the array -1"),
    "value of no kind": (lambda t: t["nodes"][2]["attrs"].update(out={"import": "os"}), "kind of value"),
    "two kinds in one": (lambda t: t["nodes"][2]["attrs"].update(out={"array": 0, "float": "nan"}), "garbled"),
    "no kind": (lambda t: t["nodes"][2]["attrs"].update(out={}), "garbled"),
    "cycle": (fields(2, inputs=["y"]), "cycle"),
    "missing input": (fields(2, inputs=["nothing"]), "nothing"),
    "input that is no name": (fields(2, inputs=[1]), "garbled"),
    "two nodes of one name": (fields(3, name="fc"), "two nodes"),
    "a name that is code": (fields(0, name="__import__('os')"), "identifier"),
    "a name that is no text": (fields(0, name=7), "identifier"),
    "output of no node": (lambda t: t.update(outputs=["z"]), "output"),
    "no outputs": (lambda t: t.update(outputs=[]), "outputs is empty"),
    "unknown profile": (lambda t: t.update(numerics="mine"), "mine"),
    "profile of no sense": (lambda t: t.update(numerics={"base": "fbgemm", "name": "f*", "changes": {"linear": {"rounding": "sideways"}}}), "sideways"),
    "profile with a section too many": (lambda t: t.update(numerics={"base": "fbgemm", "name": "f*", "changes": {"engine": {"rounding": "floor"}}}), "section"),
    "order of no sense": (lambda t: t.update(real="os.system"), "os.system"),
    "scale of zero": (lambda t: t["nodes"][1]["attrs"]["out"]["qparams"].update(scale=0), "positive"),
    "zero point beyond the dtype": (lambda t: t["nodes"][1]["attrs"]["out"]["qparams"].update(zero_point=999), "999"),
    "dtype of no kind": (lambda t: t["nodes"][1]["attrs"]["out"]["qparams"].update(dtype="object"), "object"),
    "a parameter too many": (lambda t: t["nodes"][1]["attrs"]["out"]["qparams"].update(unchecked=True, scale=-1.0), "unchecked|garbled|positive"),
    "shape beyond memory": (fields(0, attrs={"shape": [1 << 60, 3]}), "beyond"),
    "negative shape": (fields(0, attrs={"shape": [-5, 3]}), "shape"),
    "shape of no sense": (fields(0, attrs={"shape": "many"}), "garbled|shape"),
    "too many inputs": (fields(3, inputs=["fc", "q"]), "inputs"),
    "weights that do not fit": (fields(0, attrs={"shape": [None, 4]}), "last axis"),
    "groups of no sense": (lambda t: t["nodes"][2]["params"]["weight"]["packed"].__setitem__(2, "two"), "garbled"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_changed(sound, name):
    change, words = CHANGED[name]
    path = rewrite(sound, change)
    with pytest.raises(RefquantError, match=words) as caught:
        rq.load(path)
    assert str(caught.value).startswith(f"model file {path}")


def test_the_rewriting_itself_is_sound(sound):
    assert np.array_equal(rq.load(rewrite(sound))(np.ones((2, 3), np.float32))[0], rq.load(sound)(np.ones((2, 3), np.float32))[0])


def test_arrays_and_archives(sound, tmp_path):
    pickled = npy(np.array([Evil()], dtype=object), allow_pickle=True)
    huge = npy(np.zeros(1, np.float32)).replace(b"(1,)", b"(9999999999,)"[:4])
    cases = {
        "object|damaged": {"a0__npy": pickled},
        "damaged": {"a0__npy": pickle.dumps(Evil())},
        "says shape|damaged": {"a0__npy": npy(np.zeros(4, np.int8))[:-1]},
        "damaged|says shape ": {"a0__npy": huge[:-1]},
        "has dtype": {"a0__npy": npy(np.array(["text"]))},
        "one of 3 is missing|numbered": {"a0__npy": None},
        "no entry model.json": {"model__json": None},
        "known names": {"evil__py": b"import os"},
        "known names ": {"../../evil__npy": npy([1.0])},
        "JSON": {"model__json": b"{" * 100_000},
        "JSON text": {"model__json": b"[" * 100_000 + b"]" * 100_000},
        "JSON ": {"model__json": b"\xff\xfe"},
        "must be the JSON": {"model__json": b'{"format": "refquant model", "format": "x", "version": 1}'},
        "plain JSON": {"model__json": b'{"format": "refquant model", "version": NaN}'},
        "damaged ": {"model__json": b'{"version": ' + b"9" * 10_000 + b"}"},
    }
    for words, entries in cases.items():
        with pytest.raises(RefquantError, match=words.strip()):
            rq.load(rewrite(sound, **entries))
    with pytest.raises(RefquantError, match="compressed"):
        rq.load(rewrite(sound, compress=zipfile.ZIP_DEFLATED))
    import sys

    assert "pwned" not in sys.modules


def test_bombs(sound):
    """A gigabyte of zeros in a megabyte, and one entry listed many times, are refused before they are unpacked."""
    bomb = rewrite(sound, compress=zipfile.ZIP_DEFLATED, a0__npy=npy(np.zeros(1 << 24, np.float32)))
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(RefquantError, match="stored as they are"):
        rq.load(bomb)


def test_other_files(tmp_path):
    for content in (b"", b"PK", pickle.dumps(Evil()), npy(np.zeros(3)), b"\x00" * 100, b"PK\x05\x06" + b"\0" * 18):
        path = tmp_path / "x.npz"
        path.write_bytes(content)
        with pytest.raises(RefquantError):
            rq.load(path)
    for path in (tmp_path, tmp_path / "missing.npz"):
        with pytest.raises(RefquantError, match="cannot be read"):
            interop.load(path)
