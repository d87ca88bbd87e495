"""Streams: there and back, damage of every kind refused, and both ends of the pipe as functions."""

import io
import struct
from itertools import islice

import numpy as np
import pytest

from refquant import numerics
from refquant.errors import ArgumentError
from refquant.numerics.coverage import absence
from refquant.verify import STREAMS, Case, Status, build, case_stream, oracle
from refquant.verify.pipe import cases_to_send, check_size, generate, judge
from refquant.verify.stream import DTYPES, PROBLEMS, RESULTS, Reader, Writer, check_of, fields_of, record_bytes

LINE = "linear/onnx/m5k7n3/random/seed=1/per_channel"


def problems(*lines):
    out = io.BytesIO()
    generate(out, [Case.parse(line) for line in lines])
    return out.getvalue()


def results(stream, answer):
    """What an engine makes of a stream: `answer` gives its bits, or None."""
    out = io.BytesIO()
    writer = Writer(out, RESULTS)
    for record in Reader(io.BytesIO(stream), PROBLEMS):
        y = answer(build(record.line))
        writer.write(record.line, [] if y is None else [("y", y)], record.check)
    writer.end()
    return out.getvalue()


def right(problem):
    return oracle(problem, "onnx")


@pytest.fixture(scope="module")
def good():
    return results(problems(LINE, "relu/onnx/n9/random/seed=4"), right)


@pytest.mark.parametrize("op", STREAMS)
def test_problems_come_out_as_they_went_in(op):
    cases = [case.replace(options=tuple(o for o in case.options if o not in ("channels_last", "mixed", "threads"))) for case in islice(case_stream(op, "onnx", seed=5), 8)]
    stream = problems(*map(str, cases))
    records = list(Reader(io.BytesIO(stream), PROBLEMS))
    assert [record.line for record in records] == [str(case) for case in cases]
    for case, record in zip(cases, records):
        ref = dict(fields_of(build(case)))
        assert list(record.fields) == list(ref) and record.check == check_of(list(ref.items()))
        for name, array in ref.items():
            comp = record.fields[name]
            assert (comp.dtype, comp.shape, comp.tobytes()) == (array.dtype, array.shape, array.tobytes()), name
    assert len(stream) == 16 + 16 + sum(record_bytes(record.line, list(record.fields.items())) for record in records) and len(stream) % 8 == 0


def test_the_layout_is_the_documented_one():
    stream = problems("relu/onnx/n3/random/seed=2")
    assert stream[:16] == b"RQSTREAM" + struct.pack("<II", 1, 1)
    tag, fields, size, length, check = struct.unpack_from("<4sIQII", stream, 16)
    assert (tag, fields, length) == (b"CASE", 3, 26) and len(stream) == 16 + 24 + size + 16
    assert stream[40:66] == b"relu/onnx/n3/random/seed=2" and stream[66:72] == bytes(6)
    name, dtype, ndim, *shape = struct.unpack_from("<24sII5Q", stream, 72)
    assert (name.rstrip(b"\0"), dtype, ndim, shape) == (b"x", DTYPES["uint8"], 1, [3, 0, 0, 0, 0])
    assert stream[-16:] == b"DONE" + struct.pack("<IQ", 0, 1)


def test_right_results_are_exact(good):
    judged = judge(io.BytesIO(good))
    assert judged.check.exact and judged.check.outputs == 24 and judged.failures == [] and judged.bytes > 0


def test_no_results_are_not_exact():
    assert not judge(io.BytesIO(results(problems(), right))).check.exact
    judged = judge(io.BytesIO(results(problems(LINE), lambda problem: None)))
    assert not judged.check.exact and judged.check.rows[0].reasons == {"the engine does not compute it": 1}


def test_every_wrong_bit_is_found():
    stream = problems(LINE)
    for bit in range(15 * 8):
        def flipped(problem):
            y = right(problem).copy()
            y.reshape(-1)[bit // 8] ^= 1 << bit % 8
            return y

        judged = judge(io.BytesIO(results(stream, flipped)), seconds=0)
        assert judged.check.differing == 1 and judged.check.rows[0].status is Status.DIFFERENT


@pytest.mark.parametrize("op", STREAMS)
def test_all_operators_pass_the_pipe(op):
    profile = next(name for name in ("fbgemm", "onnxruntime", "tflite_ref") if not absence(op, name))
    stream = problems(*map(str, cases_to_send([op], profile, cases=12)))
    judged = judge(io.BytesIO(results(stream, lambda problem: oracle(problem, profile, reference=True))))
    assert judged.check.exact, str(judged.check)


def test_a_fault_gets_its_reason():
    away = numerics.get("onnx").replace(rounding="half_away")
    stream = problems(*map(str, cases_to_send(["linear", "add"], "onnx", cases=30)))
    judged = judge(io.BytesIO(results(stream, lambda problem: oracle(problem, away))))
    assert judged.check.diagnosis.causes == ("rounds half away from zero",)
    assert 0 < len(judged.failures) <= 8 and judged.failures[0].profile == "onnx"


def test_cut_off_anywhere(good):
    for size in range(len(good)):
        with pytest.raises(ArgumentError, match="stream of results, record .* ends in the middle of"):
            judge(io.BytesIO(good[:size]))


def test_extra_bytes(good):
    with pytest.raises(ArgumentError, match="bytes follow its end"):
        judge(io.BytesIO(good + b"\n"))


@pytest.mark.parametrize(
    "at, form, value, message",
    [
        (0, "<8s", b"NOSTREAM", "must begin with RQSTREAM but begins with b'NOSTREAM'"),
        (8, "<I", 2, "has version 2 but this refquant reads version 1; use the refquant that wrote it, or a newer one"),
        (12, "<I", 1, "it holds problems; results are expected here"),
        (16, "<4s", b"CASE", "must begin with RSLT or DONE but begins with b'CASE'"),
        (20, "<I", 2, "says 2 fields but is too short"),
        (20, "<I", 1 << 30, "is absurd"),
        (24, "<Q", 1 << 62, "is absurd"),
        (24, "<Q", 1 << 29, "but can have"),
        (24, "<Q", 8, "is absurd"),
        (32, "<I", 1 << 20, "is absurd"),
        (36, "<I", 0, "has check 0x00000000 but the problem"),
        (40, "<4s", b"\xff\xff\xff\xff", "its line is no text"),
        (40, "<4s", b"lina", "did you mean"),
        (40 + 48, "<4s", b"z\0\0\0", "must have the field y alone but has 'z'"),
        (40 + 48 + 24, "<I", 99, "field 'y' has dtype 99; write one of 1 (uint8), 2 (int8)"),
        (40 + 48 + 24, "<I", DTYPES["int8"], r"y has dtype int8 but linear gives uint8 (code 1)"),
        (40 + 48 + 28, "<I", 9, "9 dimensions"),
        (40 + 48 + 28, "<I", 1, r"bytes of the record are left after its 1 fields"),
        (40 + 48 + 32, "<Q", 1 << 60, "dimensions"),
        (40 + 48 + 32, "<2Q", (3, 5), "y has shape (3, 5) but linear gives (5, 3)"),
    ],
)
def test_damage(good, at, form, value, message):
    assert good[88:89] == b"y"
    damaged = bytearray(good)
    struct.pack_into(form, damaged, at, *(value if isinstance(value, tuple) else (value,)))
    with pytest.raises(ArgumentError) as error:
        judge(io.BytesIO(bytes(damaged)))
    assert message in str(error.value) and str(error.value).count(";") >= 1


def test_results_that_are_missing(good):
    number = len(good) - 8
    damaged = bytearray(good)
    struct.pack_into("<Q", damaged, number, 3)
    with pytest.raises(ArgumentError, match="its end says 3 records but 2 came; write a result for each case"):
        judge(io.BytesIO(bytes(damaged)))


def test_noise_is_refused_in_words():
    rng = np.random.default_rng(0)
    for size in (0, 3, 16, 200, 5000):
        for _ in range(20):
            with pytest.raises(ArgumentError):
                judge(io.BytesIO(rng.bytes(size)))


def test_bytes_changed_at_random_never_crash_and_never_pass(good):
    rng = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(good)
        at = int(rng.integers(len(good)))
        damaged[at] ^= int(rng.integers(1, 256))
        try:
            judged = judge(io.BytesIO(bytes(damaged)), seconds=0)
        except ArgumentError:
            continue
        # Zeros that fill a block up mean nothing; all other bytes do.
        assert not judged.check.exact or good[at] == 0, at


def test_lines_that_ask_for_all_memory():
    for line in ("linear/onnx/m999999k999999n9/random/seed=0", "conv2d/onnx/n1c1h1w1-oc1k1p99999/random/seed=0", "add/onnx/n99999c99999/random/seed=0", "conv2d/onnx/n1c99999h9w9-oc99999k3/random/seed=0"):
        with pytest.raises(ArgumentError, match="choose a smaller shape"):
            check_size(Case.parse(line))
        out = io.BytesIO()
        writer = Writer(out, RESULTS)
        writer.write(line, [("y", np.zeros(3, np.uint8))], 0)
        writer.end()
        with pytest.raises(ArgumentError, match="choose a smaller shape"):
            judge(io.BytesIO(out.getvalue()))


def test_shapes_and_strategies_of_ones_own():
    cases = list(cases_to_send(["linear"], "fbgemm", cases=9, shapes=["m2k3n4", "m5k6n7"], strategies=["pairs"]))
    assert {case.outputs for case in cases} == {8, 35} and {case.strategy for case in cases} == {"pairs"}
    with pytest.raises(ArgumentError, match="name one with --op"):
        list(cases_to_send(["linear", "add"], "fbgemm", cases=1, shapes=["m2k3n4"]))
    with pytest.raises(ArgumentError, match="did you mean 'neartie'"):
        list(cases_to_send(["linear"], "fbgemm", cases=1, strategies=["nearties"]))
