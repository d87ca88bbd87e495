"""The bundled data sets and networks: whole, plain, split cleanly, made deterministically, and guarded against damage."""

import json
import os
import shutil

import numpy as np
import pytest

from refquant import data
from refquant.errors import ArgumentError, BackendMissing, RefquantError

NAMES = [*data.DATASETS, *data.NETWORKS]
FOLDER = data.path("digits").parent


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the bundled files that a test may damage."""
    for file in [*FOLDER.glob("*.npz"), FOLDER / "checksums.json"]:
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(data, "_FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_every_file_loads_as_plain_arrays(name):
    arrays = data.load_arrays(name)
    assert arrays
    for key, array in arrays.items():
        expected = (np.float32,) if name in data.NETWORKS else (np.uint8, np.int64)
        assert array.dtype in expected, key
        assert array.size > 0, key
        assert np.isfinite(array).all(), key


def test_checksums_and_readme_name_every_file():
    checksums = json.loads((FOLDER / "checksums.json").read_text())
    assert sorted(checksums) == sorted(file.name for file in FOLDER.glob("*.npz")) == sorted(f"{n}.npz" for n in NAMES)
    readme = (FOLDER / "README.md").read_text()
    for file, digest in checksums.items():
        assert f"| `{file}` | {os.path.getsize(FOLDER / file):,} | `{digest}` |" in readme


def test_the_folder_is_small():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 10e6


def test_digits_are_split_disjointly_and_completely():
    arrays = data.load_arrays("digits")
    indices = np.concatenate([arrays[f"{split}_indices"] for split in data.SPLITS])
    assert np.array_equal(np.sort(indices), np.arange(1797))
    for split in data.SPLITS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        assert images.shape == (len(labels), 1, 8, 8)
        assert images.max() == 16
        shares = np.bincount(labels, minlength=10) / len(labels)
        whole = np.bincount(np.concatenate([arrays[f"{s}_labels"] for s in data.SPLITS]), minlength=10) / 1797
        assert (abs(shares - whole) * len(labels) < 1.5).all(), "not stratified"


def test_digits_are_scikit_learns():
    source = pytest.importorskip("sklearn.datasets").load_digits()
    arrays = data.load_arrays("digits")
    for split in data.SPLITS:
        indices = arrays[f"{split}_indices"]
        assert np.array_equal(arrays[f"{split}_images"][:, 0], source.images[indices])
        assert np.array_equal(arrays[f"{split}_labels"], source.target[indices])


@pytest.mark.parametrize("name", NAMES)
def test_load_split_scales_to_the_unit_interval(name):
    dataset = data.NETWORKS.get(name, name)
    arrays = data.load_arrays(dataset)
    x, labels = data.load_split(name, "test")
    assert x.dtype == np.float32 and x.min() == 0 and x.max() == 1
    assert np.array_equal((x.astype(np.float64) * data.DATASETS[dataset]).astype(np.float32), arrays["test_images"])
    assert np.array_equal(labels, arrays["test_labels"])


@pytest.fixture
def glyphs():
    from refquant.data import glyphs

    try:
        glyphs._masters()
    except BackendMissing as missing:
        pytest.skip(str(missing))
    return glyphs


def test_glyphs_repeat_with_the_seed(glyphs):
    ref, ref_labels = glyphs.make_glyphs(300, seed=5)
    comp, comp_labels = glyphs.make_glyphs(300, seed=5)
    assert ref.dtype == np.uint8 and ref.shape == (300, 1, 32, 32)
    assert np.array_equal(ref, comp) and np.array_equal(ref_labels, comp_labels)
    other, _ = glyphs.make_glyphs(300, seed=6)
    assert not np.array_equal(ref, other)


def test_glyphs_hold_every_class(glyphs):
    arrays = data.load_arrays("glyphs")
    for split in ("calibration", "test"):
        assert np.array_equal(np.unique(arrays[f"{split}_labels"]), np.arange(len(glyphs.CLASSES)))
    _, labels = glyphs.make_glyphs(glyphs.TEST_SIZE, glyphs.TEST_SEED)
    assert np.array_equal(labels, arrays["test_labels"])


def test_every_font_has_every_character(glyphs):
    """A character that a font lacks would be drawn as the same empty box as the next one it lacks."""
    masters = glyphs._masters().reshape(len(glyphs.FONTS), len(glyphs.CLASSES), -1)
    for file, drawn in zip(glyphs.FONTS, masters):
        assert len(np.unique(drawn, axis=0)) == len(glyphs.CLASSES), file


def test_warp_with_the_identity_copies():
    from refquant.data.warp import warp

    images = np.random.default_rng(0).integers(0, 255, (3, 8, 8)).astype(np.uint8)
    comp = warp(images, np.array([2, 0]), np.tile(np.eye(2), (2, 1, 1)), np.zeros((2, 2)), 8)
    assert np.array_equal(comp, images[[2, 0]])
    shifted = warp(images, np.array([1]), np.eye(2)[None], np.array([[0.0, 3.0]]), 8)
    assert np.array_equal(shifted[0, :, :5], images[1, :, 3:])
    assert not shifted[0, :, 5:].any()


def test_planted_corruption_is_reported(copied):
    file = copied / "digits_resnet.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(RefquantError, match=r"digits_resnet\.npz must have SHA-256 [0-9a-f]{64} .* but has .*reinstall"):
        data.load_arrays("digits_resnet")
    data.load_arrays("digits")


def test_planted_truncation_is_reported(copied):
    file = copied / "digits.npz"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RefquantError, match="digits.npz must have SHA-256"):
        data.load_split("digits", "test")


@pytest.mark.parametrize("name", ["digits_mobilenet.npz", "checksums.json"])
def test_a_missing_file_is_reported(copied, name):
    (copied / name).unlink()
    with pytest.raises(RefquantError, match=f"{name} must be a readable file .*make_data"):
        data.load_arrays("digits_mobilenet")


def test_a_file_nobody_listed_is_reported(copied):
    (copied / "checksums.json").write_text("{}")
    with pytest.raises(RefquantError, match="digits.npz must have SHA-256 None"):
        data.load_arrays("digits")


def test_damaged_checksums_are_reported(copied):
    (copied / "checksums.json").write_text("{")
    with pytest.raises(RefquantError, match="checksums.json must be JSON"):
        data.load_arrays("digits")


def test_unknown_names_are_refused():
    with pytest.raises(ArgumentError, match="did you mean 'digits_resnet'"):
        data.path("digits_resnt")
    with pytest.raises(ArgumentError, match="data.load_split"):
        data.load_split("mnist", "test")
    with pytest.raises(ArgumentError, match=r"load_split\[glyphs\].*'train'.*'calibration', 'test'"):
        data.load_split("glyphs_net", "train")


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    from refquant.data import make_data

    file = tmp_path / "digits.npz"
    make_data.write_arrays(file, {"a": np.arange(3)})
    ref = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        make_data.write_arrays(file, {"a": np.arange(4)})
    assert file.read_bytes() == ref
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checksums.json", "digits.npz"]


def test_the_command_refuses_nonsense(capsys):
    from refquant.data import make_data

    for arguments in (["digit"], ["--epochs", "0"], ["--nonsense"]):
        with pytest.raises(SystemExit) as stopped:
            make_data.main(arguments)
        assert stopped.value.code == 2
    assert "WHAT must be among digits" in capsys.readouterr().err


def test_the_command_names_missing_packages(monkeypatch, capsys):
    from refquant.data import make_data

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert make_data.main(["digits"]) == 2
    assert "pip install torch scikit-learn" in capsys.readouterr().err


def test_the_command_reports_what_it_cannot_read_or_write(copied, tmp_path, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from refquant.data import make_data

    (copied / "digits_resnet.npz").unlink()
    assert make_data.main(["--measure", "digits_resnet"]) == 1
    assert "digits_resnet.npz must be a readable file" in capsys.readouterr().err
    blocked = tmp_path / "a file"
    blocked.touch()
    assert make_data.main(["--out", str(blocked), "digits"]) == 1
    assert "a file" in capsys.readouterr().err


def test_the_command_makes_the_bundled_digits(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from refquant.data import make_data

    assert make_data.main(["--out", str(tmp_path), "digits"]) == 0
    ref = data.load_arrays("digits")
    with np.load(tmp_path / "digits.npz") as comp:
        assert sorted(comp.files) == sorted(ref)
        assert all(np.array_equal(comp[key], ref[key]) for key in ref)


@pytest.mark.parametrize("name, least", [("digits_resnet", 0.98), ("digits_mobilenet", 0.98), ("glyphs_net", 0.98)])
def test_networks_classify_and_can_be_traced(name, least):
    torch = pytest.importorskip("torch")
    from refquant.data import architectures_torch, measure

    module = architectures_torch.load(name)
    x, labels = data.load_split(name, "test")
    assert measure.accuracy(module, x, labels) >= least

    traced = torch.fx.symbolic_trace(module)
    inputs = torch.from_numpy(x[:4])
    with torch.no_grad():
        assert torch.equal(traced(inputs), module(inputs))
    ref, comp = data.load_arrays(name), architectures_torch.get_arrays(module)
    assert sorted(ref) == sorted(comp)
    assert all(np.array_equal(ref[key], comp[key]) for key in ref)


@pytest.mark.parametrize("name", ["digits_mobilenet", "glyphs_net"])
def test_one_weight_scale_a_tensor_costs_accuracy(name):
    pytest.importorskip("torch")
    from refquant.data import architectures_torch, measure

    module = architectures_torch.load(name)
    x, labels = data.load_split(name, "test")
    exact = measure.accuracy(module, x, labels)
    per_channel = measure.accuracy(measure.quantize_weights(module, per_channel=True), x, labels)
    per_tensor = measure.accuracy(measure.quantize_weights(module, per_channel=False), x, labels)
    assert per_channel > exact - 0.01
    assert per_tensor < exact - 0.02


@pytest.mark.parametrize("name", ["digits_mobilenet", "glyphs_net"])
def test_spreading_channels_keeps_every_bit(name):
    torch = pytest.importorskip("torch")
    from refquant.data import architectures_torch, train

    module, spread = architectures_torch.load(name), architectures_torch.load(name)
    share, places = train.SPREAD[name]
    train.spread_channels(spread, share, places, seed=99)
    x = torch.from_numpy(data.load_split(name, "calibration")[0][:50])
    with torch.no_grad():
        assert torch.equal(module(x), spread(x))
    consumer = places[0][1]
    assert not torch.equal(module.get_submodule(consumer).weight, spread.get_submodule(consumer).weight)
