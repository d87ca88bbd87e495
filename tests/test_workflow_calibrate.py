"""Calibration: progress, streaming, interruptions, and resuming from a file."""

import os
import signal
import threading
import weakref

import numpy as np
import pytest

from refquant import observers
from refquant.errors import ArgumentError, UnsupportedError
from refquant.graph import Builder
from refquant.workflow import QConfig, QConfigMapping, calibrate, convert_fx, get_default_qconfig, get_default_qconfig_mapping, layer_bits, prepare_fx


def prepared(mapping=None, seed=0):
    b = Builder(seed=seed)
    x = b.input(shape=(None, 3, 8, 8))
    y = x.conv2d(8, 3, padding=1).relu().max_pool2d(2).flatten().linear(5)
    return prepare_fx(b.build(y), mapping or get_default_qconfig_mapping("fbgemm"), (batch(0),))


def batch(k):
    return np.random.default_rng(k).standard_normal((4, 3, 8, 8)).astype(np.float32) * (1 + k % 3)


def parameters(model):
    return [(row.name, row.scale, row.zero_point) for row in layer_bits(convert_fx(model), batch(99))]


def test_progress_is_told_after_every_batch():
    seen, model = [], prepared()
    result = calibrate(model, (batch(k) for k in range(3)), progress=lambda *count: seen.append(count))
    assert seen == [(1, None), (2, None), (3, None)] and result == (3, False) and model.batches == 3
    calibrate(model, [batch(3)], progress=lambda *count: seen.append(count))
    assert seen[-1] == (1, 1) and model.batches == 4


def test_the_line_on_stderr(capsys):
    calibrate(prepared(), [batch(0), (batch(1),)], progress=True)
    assert capsys.readouterr().err.endswith("calibration: 2 of 2 batches, 0 s\n")


def test_memory_does_not_grow_with_the_number_of_batches():
    made, alive = [], []

    def batches():
        for k in range(12):
            fresh = batch(k)
            made.append(weakref.ref(fresh))
            yield fresh
            del fresh

    calibrate(prepared(), batches(), progress=lambda seen, total: alive.append(sum(ref() is not None for ref in made)))
    assert len(made) == 12 and max(alive) <= 2


def interrupted(after, last=None):
    for k in range(20):
        if k == after:
            raise KeyboardInterrupt
        yield batch(k)


def test_an_interruption_leaves_what_was_seen():
    model, whole = prepared(), prepared()
    assert calibrate(model, interrupted(5)) == (5, True)
    calibrate(whole, [batch(k) for k in range(5)])
    assert parameters(model) == parameters(whole)


@pytest.fixture
def ctrl_c():
    """Python's own answer to the signal; a process that was started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_in_the_middle_of_a_batch_ends_it_first(ctrl_c):
    model, whole = prepared(), prepared()

    def hit(node, value):
        if node.name == "conv2d" and model.batches == 2:
            os.kill(os.getpid(), signal.SIGINT)

    assert calibrate(model, (batch(k) for k in range(9)), hooks=hit) == (3, True)
    calibrate(whole, [batch(k) for k in range(3)])
    assert parameters(model) == parameters(whole)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_calibrate_too():
    model, result = prepared(), []
    thread = threading.Thread(target=lambda: result.append(calibrate(model, [batch(0)])))
    thread.start()
    thread.join()
    assert result == [(1, False)]


def mapping_of(activation):
    weight = get_default_qconfig("fbgemm").weight
    return QConfigMapping("fbgemm").set_global(QConfig(activation, weight))


RESUMED = (
    observers.HistogramObserver, observers.MinMaxObserver, observers.MovingAverageMinMaxObserver, observers.EntropyObserver, observers.PercentileObserver,
    observers.LpNormObserver, observers.ClipStdObserver, observers.SqnrObserver, observers.StatisticRangeObserver, observers.EmaQuantileObserver,
)  # fmt: skip


@pytest.mark.parametrize("activation", RESUMED, ids=lambda o: o.__name__)
def test_a_resumed_calibration_ends_like_one_in_one_go(tmp_path, activation):
    path, mapping = tmp_path / "state.npz", mapping_of(activation.with_args(dtype="quint8"))
    whole = prepared(mapping)
    calibrate(whole, [batch(k) for k in range(9)])
    assert calibrate(prepared(mapping), interrupted(4), state=path, every=3) == (4, True)
    resumed = prepared(mapping)
    computed = []
    assert calibrate(resumed, [batch(k) for k in range(9)], state=path, progress=lambda seen, total: computed.append(seen)) == (9, False)
    assert computed == [5, 6, 7, 8, 9]
    assert parameters(resumed) == parameters(whole)
    again = prepared(mapping)
    assert calibrate(again, [batch(k) for k in range(9)], state=path) == (9, False)
    assert parameters(again) == parameters(whole)


def test_the_pt2e_front_resumes_too(tmp_path):
    from refquant.workflow import X86InductorQuantizer, convert_pt2e, get_default_x86_inductor_quantization_config, prepare_pt2e

    b = Builder(seed=0)
    model = b.build(b.input(shape=(None, 3, 8, 8)).conv2d(8, 3, padding=1).relu())
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    whole, resumed = prepare_pt2e(model, quantizer), prepare_pt2e(model, quantizer)
    calibrate(whole, [batch(k) for k in range(4)], state=tmp_path / "state.npz")
    assert calibrate(resumed, [batch(k) for k in range(4)], state=tmp_path / "state.npz") == (4, False)
    a, b = (convert_pt2e(p) for p in (whole, resumed))
    np.testing.assert_array_equal(a(batch(9))[0], b(batch(9))[0])


def test_a_killed_run_loses_no_more_than_since_the_last_write(tmp_path):
    path = tmp_path / "state.npz"

    def killed():
        for k in range(9):
            if k == 7:
                raise OSError("the disk is gone")
            yield batch(k)

    with pytest.raises(OSError):
        calibrate(prepared(), killed(), state=path, every=3)
    computed, model = [], prepared()
    calibrate(model, [batch(k) for k in range(9)], state=path, progress=lambda seen, total: computed.append(seen))
    assert computed == [7, 8, 9]


def test_states_of_others_are_refused(tmp_path):
    path = tmp_path / "state.npz"
    calibrate(prepared(), [batch(0)], state=path)
    with pytest.raises(ArgumentError, match="written for another model or mapping; delete it"):
        calibrate(prepared(seed=1), [batch(0)], state=path)
    with pytest.raises(ArgumentError, match="must hold at most|written for another"):
        calibrate(prepared(mapping_of(observers.MinMaxObserver)), [batch(0)], state=path)
    seen = prepared()
    seen(batch(0))
    with pytest.raises(ArgumentError, match="has seen 1 batches already"):
        calibrate(seen, [batch(0)], state=path)
    for damage in (b"", b"PK\x03\x04", path.read_bytes()[:-40]):
        path.write_bytes(damage)
        with pytest.raises(ArgumentError, match="calibration state"):
            calibrate(prepared(), [batch(0)], state=path)


class Own(observers.MinMaxObserver):
    """Keeps what a file does not hold."""

    def _record(self, x):
        super()._record(x)
        self.seen = {self.min_val}


def test_what_no_file_holds_is_refused(tmp_path):
    with pytest.raises(UnsupportedError, match="seen: is a set, which is no state to write"):
        calibrate(prepared(mapping_of(Own)), [batch(0)], state=tmp_path / "other.npz")


@pytest.mark.parametrize("change, message", [({"every": 0}, "positive int"), ({"prepared": 3}, "prepare the model first")])
def test_wrong_arguments(change, message):
    with pytest.raises(ArgumentError, match=message):
        calibrate(**{"prepared": prepared(), "batches": [], **change})
