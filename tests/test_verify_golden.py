"""Golden vectors: the oracle gives the recorded bits, and damaged, missing or half-written vectors are noticed."""

import json
import shutil

import numpy as np
import pytest

from refquant import backends, numerics
from refquant.errors import RefquantError
from refquant.verify import PROVENANCE, STREAMS, Status, build, check_vectors, golden, read_index, read_vectors, to_plain, vectors_folder, write_vectors
from refquant.verify.matrix import cells
from refquant.verify.mutants import sections_of
from refquant.verify.special_streams import SPECIAL_STREAMS

INDEX = read_index()
# Where an engine has no call of its own: integers that are the same everywhere, tables that PyTorch alone packs, and what its runner cannot ask.
WITHOUT_VECTORS = {
    "conv_transpose3d": "qnnpack",
    "matmul_integer": "fbgemm onednn x86 qnnpack inductor tflite_ref tflite_opt xnnpack openvino",
    "conv_integer": "fbgemm onednn x86 qnnpack inductor tflite_ref tflite_opt xnnpack openvino",
    "max_pool3d": "tflite_ref tflite_opt xnnpack",
    "quantize_embedding": "onnxruntime tflite_ref tflite_opt xnnpack openvino",
}  # fmt: skip


@pytest.mark.parametrize("name", INDEX["files"])
def test_the_oracle_gives_the_recorded_bits(name):
    row = check_vectors(name)
    assert row.status is Status.EXACT and not row.failures, "\n".join(f"{t.case}\n{t.outcome.detail}" for t in row.failures)
    assert row.outputs == INDEX["files"][name]["outputs"] >= 500


@pytest.mark.parametrize("name", INDEX["files"])
def test_the_reference_gives_them_too(name):
    assert check_vectors(name, reference=True).status is Status.EXACT


def test_every_engine_has_every_operator():
    recorded = {(entry["op"], entry["engine"]) for entry in INDEX["files"].values()}
    assert {name.partition("@")[0] for name in INDEX["engines"]} == set(backends.names())
    functions = {"sigmoid", "tanh", "hardsigmoid", "hardswish", "elu", "leaky_relu", "gelu"}
    transposed = {f"conv_transpose{dims}d" for dims in (1, 2, 3)}
    without = dict.fromkeys(("fbgemm", "onednn", "x86"), {"matmul_integer"})
    without |= {"qnnpack": functions - {"elu"} | {"matmul_integer", "conv_transpose3d"}, "onnxruntime": functions - {"sigmoid", "leaky_relu"} | transposed}
    without["inductor"] = functions | transposed | {"matmul_integer", "avg_pool2d", "adaptive_avg_pool2d"}
    usual = set(STREAMS) - set(SPECIAL_STREAMS)
    for engine, missing in without.items():
        assert {op for op in usual if (op, engine) not in recorded} == missing, engine
    assert set(SPECIAL_STREAMS) <= {op for op, _ in recorded}
    assert {("conv2d", "xnnpack"), ("add", "tflite_ref"), ("avg_pool2d", "tflite_opt")} <= recorded


def test_every_cell_of_the_table_is_recorded_or_has_the_forms_of_one_that_is():
    packages = {name.partition("@")[0]: source["package"] for name, source in INDEX["engines"].items()}
    forms = lambda op, engine: (op, packages[engine], *(getattr(numerics.get(engine), section) for section in sections_of(op)))  # noqa: E731
    recorded = {forms(entry["op"], entry["engine"].partition("@")[0]) for entry in INDEX["files"].values()}
    lacking = {(cell.op, cell.engine) for cell in cells(backends.names()) if forms(cell.op, cell.engine) not in recorded}
    assert lacking == {(op, engine) for op, engines in WITHOUT_VECTORS.items() for engine in engines.split()}


def test_provenance_is_complete():
    for engine, source in INDEX["engines"].items():
        assert {*PROVENANCE, "command", "date", "refquant"} <= source.keys()
        assert source["engine"] == engine.partition("@")[0] and source["version"] and source["features"]


def test_recorded_lines_build_the_recorded_problems():
    near = 0
    for name in INDEX["files"]:
        for vector in read_vectors(name):
            if vector.case.startswith("near "):
                assert build(vector.case.removeprefix("near ")).op == vector.problem.op
                near += 1
                continue
            (plain, ref), (again, comp) = to_plain(vector.problem), to_plain(build(vector.case))
            assert plain == again and all(a.tobytes() == b.tobytes() for a, b in zip(ref, comp)), vector.case
    assert near < sum(entry["cases"] for entry in INDEX["files"].values()) / 10


def test_they_stay_small():
    assert sum(path.stat().st_size for path in vectors_folder().iterdir()) < 3_500_000


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(vectors_folder(), tmp_path / "vectors")


NAME = "linear-fbgemm.npz"


def test_a_flipped_bit_in_a_file_is_noticed(copied):
    content = bytearray((copied / NAME).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / NAME).write_bytes(content)
    with pytest.raises(RefquantError, match="must have SHA-256 .* record anew"):
        check_vectors(NAME, copied)


@pytest.mark.parametrize("damage", ("", "{", "[]", '{"format": 2, "files": {}, "engines": {}}', '{"format": 1, "files": {"a": {}}, "engines": {}}', "\x00\xff"))
def test_a_damaged_index_is_noticed(copied, damage):
    (copied / "index.json").write_bytes(damage.encode("latin1"))
    with pytest.raises(RefquantError, match="must be an index.*record anew"):
        read_index(copied)


def test_missing_files_are_noticed(copied):
    (copied / NAME).unlink()
    with pytest.raises(RefquantError, match="must be a readable file"):
        check_vectors(NAME, copied)
    with pytest.raises(RefquantError, match="must be a readable file"):
        read_index(copied / "nowhere")
    with pytest.raises(RefquantError, match="did you mean"):
        read_vectors("linear-fbgem.npz", copied)


def test_a_wrong_recorded_bit_fails(tmp_path):
    """The check is shown to fail: one code of one vector is off by one, and the files are whole."""
    vectors = [vector for vector in read_vectors(NAME) if vector.bits.dtype == np.uint8]
    bits = vectors[1].bits.copy()
    bits.flat[3] ^= 1
    wrong = vectors[1]._replace(bits=bits)
    write_vectors({("linear", "fbgemm"): (INDEX["engines"]["fbgemm"], [vectors[0], wrong])}, tmp_path / "vectors")
    row = check_vectors(NAME, tmp_path / "vectors")
    assert row.status is Status.DIFFERENT and row.differing == 1
    assert [trial.case for trial in row.failures] == [wrong.case]


def groups():
    return {("linear", "fbgemm"): (INDEX["engines"]["fbgemm"], read_vectors(NAME)[:2])}


def test_what_is_written_is_what_was_given(tmp_path):
    index = write_vectors(groups(), tmp_path / "v")
    assert index == json.loads((tmp_path / "v" / "index.json").read_text())
    for ref, comp in zip(groups()["linear", "fbgemm"][1], read_vectors(NAME, tmp_path / "v")):
        assert comp.case == ref.case and np.array_equal(comp.bits, ref.bits)
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


@pytest.mark.parametrize("step", ("pack", "_swap"))
@pytest.mark.parametrize("before", (True, False))
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, step, before):
    folder = tmp_path / "v"
    if before:
        write_vectors(groups(), folder)
    state = {path.name: path.read_bytes() for path in folder.glob("*")}

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(golden, step, fail)
    with pytest.raises(OSError):
        write_vectors({**groups(), ("add", "fbgemm"): (INDEX["engines"]["fbgemm"], read_vectors("add-fbgemm.npz"))}, folder)
    assert {path.name: path.read_bytes() for path in folder.glob("*")} == state
    assert [path.name for path in tmp_path.iterdir()] == (["v"] if before else [])


def test_a_failed_exchange_is_undone(tmp_path, monkeypatch):
    folder = tmp_path / "v"
    write_vectors(groups(), folder)
    rename, calls = golden.os.rename, []

    def second_fails(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError("interrupted")
        rename(source, target)

    monkeypatch.setattr(golden.os, "rename", second_fails)
    with pytest.raises(OSError):
        write_vectors(groups(), folder)
    assert check_vectors(NAME, folder).status is Status.EXACT
    assert [path.name for path in tmp_path.iterdir()] == ["v"]
