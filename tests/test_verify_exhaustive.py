"""Sweeps of whole domains: their parts cover the domain, engines agree on samples of each, and a planted fault is found."""

from fractions import Fraction

import numpy as np
import pytest

from refquant import backends
from refquant.backends import pieces as engine_pieces
from refquant.cli.verify_exhaustive import _detail
from refquant.verify.exhaustive import ONE_KERNEL, QUANTIZE_SETS, REQUANTIZE_SETS, ROUTES, SWEEPS, pair_sweep, requantize_sweep
from refquant.verify.exhaustive.quantize_sweep import quantize_piece, quantize_tasks
from refquant.verify.exhaustive.requantize_formulas import BY_FRACTIONS, BY_NUMPY, float32
from refquant.verify.exhaustive.requantize_sweep import edge_accumulators, requantize_piece, requantize_tasks
from test_cli import Perfect, call, engine_is, one_line  # noqa: F401 (engine_is is a fixture)


class Wrong(Perfect):
    """An engine that misses one output of every call."""

    def run(self, problem):
        y = super().run(problem).copy()
        y.flat[-1] ^= 1
        return y


def test_sets_are_hard():
    assert len(QUANTIZE_SETS) >= 8 and len(REQUANTIZE_SETS) >= 4
    assert sum(np.frexp(s.scale)[0] != 0.5 for s in QUANTIZE_SETS) >= 6 and sum(s.zero_point % 2 for s in QUANTIZE_SETS) >= 5


def test_each_set_has_a_line_of_its_own():
    for what, sets in {"quantize": QUANTIZE_SETS, "requantize": REQUANTIZE_SETS}.items():
        assert len({_detail({"what": what, "engine": "fbgemm", "set": number}) for number in range(len(sets))}) == len(sets)


def test_pieces_of_quantize_cover_every_pattern_once():
    tasks = [t for t in quantize_tasks(["x86", "fbgemm", "qnnpack"]) if t["set"] == 0]
    assert {t["engine"] for t in tasks} == {"fbgemm"} and sorted(t["part"] << 26 for t in tasks) == list(range(0, 2**32, 1 << 26))


@pytest.mark.parametrize("engine", ROUTES)
def test_pieces_of_requantization_cover_every_accumulator_once(engine):
    step, reach = requantize_sweep._grid(ROUTES[engine])
    parts = [t for t in requantize_tasks([engine]) if t["set"] == 0]
    hi = np.arange(-reach, reach)
    cut = np.concatenate([hi[len(hi) * t["part"] // t["of"] : len(hi) * (t["part"] + 1) // t["of"]] for t in parts])
    assert np.array_equal(cut, hi)
    least = 2**31 if ROUTES[engine].bias != "none" else 2**25 - step
    assert -reach * step <= -least and reach * step >= least


@pytest.mark.parametrize("engine", ROUTES)
@pytest.mark.parametrize("number", range(len(REQUANTIZE_SETS)))
def test_kernel_numpy_and_fractions_agree(engine, number):
    parts = next(t["of"] for t in requantize_tasks([engine]))
    for part in (0, parts // 2):
        piece = requantize_piece(None, {"engine": engine, "set": number, "part": part, "of": parts}, steps=4)
        assert piece["differing"] == 0, piece["first"]
        assert part or piece["edges"] >= 30


@pytest.mark.parametrize("engine", ROUTES)
def test_numpy_and_fractions_are_written_apart_and_agree(engine):
    for number, chosen in enumerate(REQUANTIZE_SETS):
        acc = edge_accumulators(engine, number)[::7]
        arguments = chosen.sx, chosen.sw, chosen.sy, chosen.zero_point, 0, 255
        ref = [BY_FRACTIONS[engine](int(a), *arguments) for a in acc]
        assert BY_NUMPY[engine](acc.astype(np.int32), *arguments).astype(int).tolist() == ref


def test_a_wrong_formula_is_found(monkeypatch):
    task = {"engine": "onnxruntime", "set": 0, "part": 32, "of": 64}
    monkeypatch.setitem(BY_NUMPY, "onnxruntime", BY_NUMPY["tflite_opt"])
    piece = requantize_piece(None, task, steps=2)
    assert piece["differing"] and "the kernel gave" in piece["first"][0]
    monkeypatch.undo()
    monkeypatch.setitem(BY_FRACTIONS, "onnxruntime", BY_FRACTIONS["tflite_opt"])
    assert requantize_piece(None, {**task, "part": 0}, steps=1)["differing"]


def test_float32_of_a_fraction():
    rng = np.random.default_rng(0)
    for x in [*rng.standard_normal(50).tolist(), 1e-45, 1e-40, 3e38, -7.0, 0.0]:
        assert float(float32(Fraction(x))) == np.float32(x)


@pytest.mark.parametrize(
    "what, task",
    [
        ("quantize", {"set": 0, "part": 16}),
        ("unary", {"op": "leaky_relu"}),
        ("pairs", {"op": "add", "dtype": "uint8"}),
    ],
)
def test_a_fault_in_an_engine_is_found(what, task):
    options = {"quantize": {"size": 4096}, "unary": {"sets": 2}, "pairs": {}}[what]
    piece = SWEEPS[what][1](Wrong(), {"what": what, "engine": "fbgemm", **task}, **options)
    assert 0 < piece["differing"] < piece["outputs"] and piece["first"]
    assert SWEEPS[what][1](Perfect(), {"what": what, "engine": "fbgemm", **task}, **options)["differing"] == 0


def test_a_fault_of_an_engine_in_requantization_is_found():
    class WrongOrt(Wrong):
        name = profile = "onnxruntime"

    piece = requantize_piece(WrongOrt(), {"engine": "onnxruntime", "set": 1, "part": 32, "of": 64}, steps=2)
    assert piece["differing"] == 1 and "the engine gave" in piece["first"][0] and piece["engine_outputs"] * 2 == piece["outputs"]


def test_all_pairs_are_there():
    problem = pair_sweep.pair_problem("add", "int8", 5)
    assert len(set(zip(problem["a"].values.tolist(), problem["b"].values.tolist()))) == 65536


@pytest.mark.engine
@pytest.mark.parametrize("engine", [e for e in backends.names() if e not in ONE_KERNEL], indirect=True)
def test_the_engine_quantizes_samples_of_every_range(engine):
    for number in range(len(QUANTIZE_SETS)):
        for part in (1, 7, 15, 16, 21, 31, 33, 47, 48, 63):
            piece = quantize_piece(engine, {"engine": engine.name, "set": number, "part": part}, size=1 << 13)
            assert piece["differing"] == 0, piece["first"]
            assert piece["outputs"] or piece["reason"]


@pytest.mark.engine
@pytest.mark.parametrize("engine", [e for e in backends.names() if e in ROUTES], indirect=True)
def test_the_engine_requantizes_samples_of_every_range(engine):
    parts = next(t["of"] for t in requantize_tasks([engine.name]))
    for number in range(len(REQUANTIZE_SETS)):
        for part in (0, parts // 2, parts - 1):
            piece = requantize_piece(engine, {"engine": engine.name, "set": number, "part": part, "of": parts}, steps=2)
            assert piece["differing"] == 0 and piece["engine_outputs"], piece["first"]


@pytest.mark.engine
@pytest.mark.parametrize("engine", backends.names(), indirect=True)
def test_the_engine_agrees_on_all_pairs(engine):
    pieces = [pair_sweep.pair_piece(engine, {"op": op, "dtype": dtype}) for op in ("add", "mul") for dtype in ("uint8", "int8")]
    assert sum(piece["differing"] for piece in pieces) == 0, [piece["first"] for piece in pieces]


@pytest.fixture
def fake(engine_is, monkeypatch):  # noqa: F811
    def install(runner):
        engine_is(runner)
        monkeypatch.setattr(type(runner), "describe", lambda self: {"version": "1"})
        monkeypatch.setattr(engine_pieces, "_runner", lambda name: runner)

    return install


def test_the_command(capsys, fake, tmp_path):
    fake(Perfect())
    log = str(tmp_path / "sweep.jsonl")
    arguments = ("verify", "--exhaustive", "--only", "pairs", "--workers", "1", "--log", log)
    status, out, err = call(capsys, *arguments)
    assert status == 0 and not err and "4,194,304 outputs compared" in out and "0 differ" in out
    status, out, _ = call(capsys, *arguments)
    assert status == 0 and "4 were done before" in out
    fake(Wrong())
    status, out, _ = call(capsys, *arguments[:-2])
    assert status == 1 and "DIFFERENT" in out and "the engine gave" in out


def test_wrong_usage(capsys, fake):
    status, _, err = call(capsys, "verify", "--exhaustive", "--only", "quantise")
    assert status == 2 and one_line(err) and "did you mean 'quantize'" in err
    status, _, err = call(capsys, "verify", "--only", "quantize")
    assert status == 2 and one_line(err) and "belongs to --exhaustive" in err
