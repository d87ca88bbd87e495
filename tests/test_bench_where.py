"""What stays below its bar is told of: whatever part of a call is made slow is the part that is named."""

import json

import numpy as np
import pytest

from bench_fakes import MACHINE, Clock, contest, duel, ratios
from refquant.backends.bench import startup, threads
from refquant.backends.bench.case import Bar, Plan, Settings, Work
from refquant.backends.bench.gemm import NUMPY
from refquant.backends.bench.harness import Result, Role
from refquant.backends.bench.run import WORKS, below, run_works
from refquant.cli.bench_parts import own_words, part_table, part_works
from refquant.cli.bench_where import where_time_goes
from refquant.cli.main import main
from refquant.kernels.disk_cache import cache_folder
from refquant.kernels.jit import jit_disabled, kernel, parallel_for
from refquant.kernels.shared_work import Shared, shared_steps

SETTINGS = Settings(turns=5)


def worst(limit, **options):
    return (Bar("worst", lambda rs: min(ratios(rs), default=None), limit, **options),)


def made_of(clock, case, **parts):
    case.parts = {name: clock.worker(name, seconds) for name, seconds in parts.items()}
    return case


def test_the_cases_below_a_bar_are_those_that_are_looked_into():
    clock = Clock()
    cases = [duel(clock, theirs=theirs, name=name, group=name[0]) for name, theirs in (("a1", 2.0), ("a2", 0.5), ("b1", 3.0))]
    rows = lambda bars: [(work.name, [p.name for p in plans]) for work, plans in below(run_works([contest(clock, cases=cases, bars=bars)], SETTINGS, clock=clock))]  # noqa: E731
    assert rows(worst(0.5)) == [] and rows(worst(1.0)) == [("fake", ["a2"])]
    assert rows(worst(2.5, by_group=True)) == [("fake", ["a1", "a2"])]
    assert rows((Bar("seconds", lambda rs: 9.0, 1.0, at_most=True),)) == [("fake", ["a1", "a2", "b1"])]


def test_a_case_whose_bits_differ_is_not_looked_into():
    clock = Clock()
    assert below(run_works([contest(clock, cases=[duel(clock, theirs_bits=np.zeros(3, np.int32))], bars=worst(9.0))], SETTINGS, clock=clock)) == []


@pytest.mark.parametrize("slow", ["call", "reading", "rest"])
def test_the_part_that_was_made_slow_is_named(slow):
    clock, seconds = Clock(), {"call": 1.0, "reading": 2.0, "rest": 3.0}
    seconds[slow] *= 100
    case = made_of(clock, duel(clock, ours=sum(seconds.values())), call=seconds["call"], reading=seconds["reading"])
    other = contest(clock, name="without")
    work = contest(clock, cases=[case])
    ((found, (parts,)),) = part_works([(other, other.plans()), (work, work.plans())], SETTINGS, clock=clock)
    assert found is work and max(parts.parts, key=parts.parts.get) == slow
    assert parts.parts == pytest.approx(seconds) and parts.seconds == pytest.approx(sum(seconds.values()))
    table = part_table([(work, [parts])])
    assert max(map(len, table)) <= 100 and f"{slow} {seconds[slow] / parts.seconds:.0%}" in table[-1]


def test_numpys_figure_is_told_beside_the_peak():
    roles = {"refquant": Role.SUBJECT, "NumPy float64 BLAS": Role.RIVAL, "peak": Role.YARDSTICK}
    samples = {"refquant": [1e-3] * 5, "NumPy float64 BLAS": [4e-3] * 5, "peak": [2e-3] * 5}
    result = Result(name="512", operations=4e8, roles=roles, samples=samples, yardstick=1e9)
    lines = NUMPY.where([result], SETTINGS)
    assert "peak, 500 GOPS" in lines[0] and "400 GOPS, 0.80" in lines[1] and "100 GOPS, 0.20" in lines[1] and "800 GOPS, 1.60" in lines[2]


def test_the_start_is_told_by_its_steps():
    told = {"marks": [["Python itself", 0.01], ["numpy", 0.09], ["numba", 0.3], ["refquant", 0.35]], "kernels": [0.01, 0.03], "call": 0.05}
    parts = startup.start_parts(told, 0.5)
    assert parts == pytest.approx({"Python itself": 0.01, "numpy": 0.08, "numba": 0.21, "refquant": 0.05, "kernels": 0.04, "call": 0.01, "end": 0.1})
    slow = startup.start_parts({**told, "kernels": [4.0], "call": 4.01}, 4.5)
    assert max(slow, key=slow.get) == "kernels"


@pytest.mark.skipif(jit_disabled(), reason="nothing is compiled")
def test_a_process_tells_how_it_started(monkeypatch):
    """A planted fault: work between the kernels shows as the call's."""
    cache = cache_folder().parent
    parts, kernels = startup._start(cache)
    assert kernels >= 3 and all(seconds >= 0 for seconds in parts.values()) and parts["numba"] > 0
    monkeypatch.setattr(startup, "_MARKED", startup._MARKED.replace("numerics=", "other=sum(range(20_000_000)) and None, numerics="))
    slow, same = startup._start(cache)
    assert same <= kernels and max(slow, key=slow.get) == "call"


def test_the_start_is_told_in_words(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(startup, "_children_seconds", clock)
    told = {"marks": [["Python itself", 0.01], ["numpy", 0.09], ["numba", 0.3], ["refquant", 0.35]], "kernels": [0.01, 0.03], "call": 0.05}

    def process(code, cache):
        clock.now += 0.5
        return json.dumps(told)

    monkeypatch.setattr(startup, "_process", process)
    monkeypatch.setattr(startup, "_warm_folder", lambda: type("Folder", (), {"name": "warm"}))
    results = [Result(name=name, roles={}, samples={}) for name in ("import refquant", "first linear, warm cache", "first linear, cold cache")]
    lines = startup.STARTUP.where(results, SETTINGS)
    assert [line for line in lines if line[0] != " "] == ["first linear, warm cache: 500 ms", "first linear, cold cache: 500 ms"] and len(lines) == 16
    words = [line.split() for line in lines]
    assert ["import", "numba", "210", "ms", "42%"] in words and ["2", "kernels", "loaded", "40", "ms", "8%"] in words and words[13][:3] == ["2", "kernels", "compiled"]


@kernel
def _spin(start, stop, rounds, out):
    for i in range(start, stop):
        total = 0.0
        for j in range(rounds):
            total += 1.0 / (j + i + 1)
        out[i] = total


@pytest.mark.skipif(jit_disabled(), reason="without a compiler nothing is shared")
def test_each_step_is_told_apart_by_what_is_shared():
    """A planted fault: a step that does its work beside the loops is the one that is not shared."""
    out = np.zeros(64)
    parallel_for(_spin, 64, 10, out)

    def run(clock):
        times, steps = {}, {"shared": lambda: parallel_for(_spin, 64, 20_000, out), "alone": lambda: sum(range(400_000))}
        for name, step in steps.items():
            start = clock()
            step()
            times[name] = clock() - start
        return times

    steps = shared_steps(run, calls=5)
    assert steps["shared"].shared > 0.9 * steps["shared"].seconds and steps["shared"].loops == 1
    assert steps["alone"].shared == 0 and steps["alone"].loops == 0 and steps["alone"].seconds > 0
    assert steps["shared"].both > 0.8 * steps["shared"].seconds
    lines = threads.sharing_table("n", steps, {"shared": "conv", "alone": "quantize"})
    assert [line.split()[0] for line in lines[3:]] == ["quantize", "conv", "all"] and max(map(len, lines)) <= 98


def test_a_second_thread_that_costs_much_is_told():
    rows = {"a": Shared(1.0, 1.0, 0.5, 2, 3.0), "b": Shared(1.0, 0.25, 0.125, 1, 1.0), "c": Shared(2.0, 2.0, 1.0, 4, 2.0)}
    lines = threads.sharing_table("n", rows, {"a": "spins", "b": "alone", "c": "alone"})[3:]
    assert [line.split()[0] for line in lines] == ["alone", "spins", "all"]
    assert lines[1].endswith("3.00x") and "750 ms" in lines[0] and lines[2].split()[-1] == "1.50x"


def test_every_work_with_a_bar_has_a_profile():
    """Of products and calls by their parts, of networks by their layers, and what only the work knows."""
    silent = {work.name for work in WORKS if work.bars and work.where is Work._field_defaults["where"]}
    assert silent == {"gemm", "linear", "conv", "networks", "elementwise", "observers", "saturating"}


def test_the_command_tells_of_what_is_below_by_itself(monkeypatch, capsys, tmp_path):
    clock = Clock()
    good, bad = (made_of(clock, duel(clock, ours=5.0, theirs=theirs, name=name), call=1.0, reading=3.0) for name, theirs in (("good", 20.0), ("bad", 4.0)))
    works = (contest(clock, name="w", cases=[good, bad], bars=worst(1.0)), contest(clock, name="fine", bars=worst(1.0)))
    monkeypatch.setattr("refquant.backends.bench.run.WORKS", works)
    monkeypatch.setattr("refquant.backends.bench.engines.machine", lambda threads: MACHINE)
    monkeypatch.setattr("refquant.backends.bench.harness.clock_of", lambda case, settings: clock)
    monkeypatch.setattr("refquant.cli.bench_parts.clock_of", lambda case, settings: clock)
    command = ["bench", "--turns", "5", "--json", str(tmp_path / "b.json")]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "0.80  below, told below" in text and "fine: where" not in text
    assert text.splitlines()[-1].split() == ["bad", "5", "s", "call", "20%,", "reading", "60%,", "rest", "20%"]
    plain = json.loads((tmp_path / "b.json").read_text())
    assert [p["name"] for p in plain["parts"]["w"]] == ["bad"] and plain["where"] == {}
    assert main([*command, "--profile"]) == 0
    assert "  good  " in capsys.readouterr().out


def test_works_speak_for_the_cases_that_are_asked():
    clock = Clock()
    work = contest(clock, cases=[duel(clock, name="a"), duel(clock, name="b")], where=lambda results, settings: [r.name for r in results])
    found = run_works([work], SETTINGS, clock=clock)
    assert own_words(found, [(work, [Plan("b", "", None)])], SETTINGS) == [(work, ["b"])]
    where = where_time_goes([(work, [p for p in work.plans() if p.name == "b"])], found, SETTINGS)
    assert where.works == {"fake"} and where.lines() == ["", "fake: where the time goes", "  b"]
