"""``refquant verify --exhaustive`` that is killed in the middle goes on where it stopped: nothing is lost, nothing is compared twice, a line that was cut off does no harm."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest

OPS, DTYPES, OUTPUTS = ("add", "mul"), ("uint8", "int8"), 16 * 65536
KEYS = {f"pairs/onnxruntime/{op}/{dtype}" for op in OPS for dtype in DTYPES}

pytestmark = pytest.mark.engine


def begin(log):
    command = "import sys; from refquant.cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = ("verify", "--exhaustive", "--only", "pairs", "--engine", "onnxruntime", "--workers", "1", "--log", log)
    return subprocess.Popen([sys.executable, "-c", command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines(log):
    """The whole lines of a log, the first of them its header."""
    return log.read_bytes().split(b"\n")[:-1] if log.exists() else []


def killed(log, pieces):
    """Run until so many pieces are in the log, and kill."""
    process = begin(log)
    end = time.monotonic() + 300
    while len(lines(log)) < pieces + 1:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return lines(log)


def test_killed_runs_add_up_to_one(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    log = tmp_path / "sweep.jsonl"
    nothing = killed(log, 0)
    assert len(nothing) < 5, "kill sooner: all was done"
    first = killed(log, 1)
    assert 2 <= len(first) < 5 and first[: len(nothing)] == nothing
    # The kill came while a line was written.
    with open(log, "ab") as file:
        file.write(first[-1][: len(first[-1]) // 2])
    second = killed(log, len(first))
    assert second[: len(first)] == first and len(second) > len(first)
    process = begin(log)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    done = int(re.search(r"; (\d+) were done before", out)[1])
    assert done == len(second) - 1, "what was whole in the log, and that alone, counts as done"
    whole = lines(log)
    assert whole[: len(second)] == second and log.read_bytes().endswith(b"\n")
    header, *pieces = map(json.loads, whole)
    assert header["what"] == "exhaustive" and [piece["key"] for piece in pieces].count(pieces[0]["key"]) == 1
    assert len(pieces) == len(KEYS) and {piece["key"] for piece in pieces} == KEYS
    assert all((piece["outputs"], piece["differing"]) == (OUTPUTS, 0) for piece in pieces)
    assert f"{len(KEYS) * OUTPUTS:,} outputs compared" in out and ", 0 differ" in out


def test_a_loss_or_a_repetition_would_be_seen(tmp_path):
    """A line that is taken out is computed again; one that is there twice is one piece."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    log = tmp_path / "sweep.jsonl"
    out, err = begin(log).communicate(timeout=300)
    whole = lines(log)
    assert len(whole) == 5, err
    log.write_bytes(b"\n".join([whole[0], whole[1], *whole[1:4]]) + b"\n")
    again, err = begin(log).communicate(timeout=300)
    assert "; 3 were done before" in again and f"{len(KEYS) * OUTPUTS:,} outputs compared" in again, err
    left = [json.loads(line) for line in lines(log)[1:]]
    assert len(left) == 5 and {piece["key"] for piece in left} == KEYS
    assert {**left[-1], "seconds": 0} == {**json.loads(whole[4]), "seconds": 0}
