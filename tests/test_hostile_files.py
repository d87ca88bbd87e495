"""Hundreds of damaged and hostile files, read by a process under guard: each is refused with a clear message, or is still a sound model."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

import hostile_files  # noqa: E402
import test_onnx_damage  # noqa: E402

HOME = Path(hostile_files.__file__)
RANDOM = ("flip-", "flips-", "splice-", "cut-")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "files"
    names = hostile_files.generate(folder)
    (folder.parent / "sound.onnx").write_bytes(test_onnx_damage.healthy().SerializeToString())
    secret = folder.parent / "secret.bin"
    before = secret.read_bytes(), secret.stat().st_mtime_ns, sorted(p.name for p in folder.parent.iterdir())
    done = subprocess.run([sys.executable, str(HOME), str(folder)], capture_output=True, text=True, timeout=120, cwd=HOME.parent.parent)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0 and len(rows) == len(names), f"the reader died after {rows[-1]['name'] if rows else 'nothing'}: {done.stderr[-2000:]}"
    assert before == (secret.read_bytes(), secret.stat().st_mtime_ns, sorted(p.name for p in folder.parent.iterdir()))
    return rows


def test_nothing_but_clear_errors_escapes(outcomes):
    escaped = [row for row in outcomes if row["outcome"] == "escaped"]
    assert not escaped, escaped[:5]


def test_nothing_outside_is_touched_and_nothing_is_executed(outcomes):
    assert not [row for row in outcomes if row["touched"] or row["pwned"]]


def test_what_is_damaged_by_intent_is_refused(outcomes):
    soft = [row["name"] for row in outcomes if row["outcome"] == "read" and not row["name"].startswith(RANDOM)]
    assert not soft


def test_most_random_damage_is_refused_and_in_our_own_files_all_that_matters(outcomes):
    """ONNX has no checksums: flipped weights are weights. In our own format a file that is still read holds the very same model."""
    count = Counter((row["outcome"], row["name"].rpartition(".")[2]) for row in outcomes if row["name"].startswith(RANDOM))
    for ending in (".npz", ".prepared"):
        assert len({row["said"] for row in outcomes if row["outcome"] == "read" and row["name"].endswith(ending)}) == 1
    assert count["refused", "npz"] >= 70 and count["refused", "prepared"] >= 50 and count["refused", "onnx"] >= 40 and count["refused", "data"] >= 14, count


def test_messages_are_clear(outcomes):
    refused = [row for row in outcomes if row["outcome"] == "refused"]
    assert len(refused) >= 330, Counter(row["outcome"] for row in outcomes)
    for row in refused:
        assert len(row["said"]) > 30 and "object at 0x" not in row["said"], row


def test_the_guard_itself_works(tmp_path):
    """A reader that leaves the folder, unpickles or hangs is found."""
    code = """
import sys; sys.path.insert(0, {tests!r})
import hostile_files, pickle, os
from pathlib import Path
folder = Path({folder!r}); seen = hostile_files.watch(folder)
open(os.path.join({folder!r}, "..", "outside.txt")).read()
pickle.loads(pickle.dumps(hostile_files.Evil()))
print(len(seen), "pwned" in sys.modules)
"""
    (tmp_path / "in").mkdir()
    (tmp_path / "outside.txt").write_text("x")
    done = subprocess.run([sys.executable, "-c", code.format(tests=str(HOME.parent), folder=str(tmp_path / "in"))], capture_output=True, text=True, cwd=HOME.parent.parent)
    assert done.stdout.split() == ["2", "True"], done.stdout + done.stderr


def test_generation_repeats():
    first, second = ([(n, hash(c)) for n, c in hostile_files.data_files(3)] for _ in range(2))
    assert first == second and np.unique([h for _, h in first]).size > 15
