"""The timing harness, on fake works and a fake clock: no test depends on how fast anything is."""

import gc
import hashlib
import os
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from bench_fakes import BITS, MACHINE, Clock, contest, duel, ratios, wrong

from refquant.backends.bench.case import Bar, Case, Plan, Role, Settings, Work, Yardstick
from refquant.backends.bench.harness import clock_of, geomean, measure, prove, run_case
from refquant.backends.bench.report import text_report
from refquant.backends.bench.run import chosen, judge, run_works
from refquant.backends.bench.waiting import Waiting
from refquant.cli.main import main
from refquant.errors import ArgumentError, BackendMissing, RangeError
from refquant.verify import Status


def test_contenders_take_turns_and_the_order_moves_on():
    clock = Clock()
    measure(duel(clock, 1, 1).contenders, 5, clock, warm=False)
    assert clock.calls == ["refquant", "rival", "rival", "refquant"] * 2 + ["refquant", "rival"]


def test_each_turn_warms_up_untimed():
    clock = Clock()
    # One call that warms up and two that find the number of repetitions; then in every turn an untimed one, here slow, and a timed one.
    samples = measure([duel(clock, lambda i: 9.0 if i >= 3 and i % 2 else 1.0).contenders[0]], 5, clock)
    assert samples == {"refquant": [1.0] * 5} and len(clock.calls) == 3 + 5 * 2


def test_short_calls_are_repeated_until_the_clock_can_tell():
    clock = Clock()
    samples = measure(duel(clock, 2.0**-14, 1.0).contenders, 5, clock)
    assert samples["refquant"] == [2.0**-14] * 5 and samples["rival"] == [1.0] * 5
    assert clock.calls.count("refquant") > 5 * 5 * 30 and clock.calls.count("rival") == 3 + 5 * 2


def test_a_turn_counts_its_least_batch():
    clock = Clock()
    # 10 ms: five batches of one call; each turn is six calls, and one of them is disturbed.
    samples = measure([duel(clock, lambda i: 0.01 if i < 3 or (i - 3) % 6 != 3 else 5.0).contenders[0]], 5, clock)
    assert samples["refquant"] == pytest.approx([0.01] * 5)


def test_medians_and_ratios_are_taken_over_turns():
    clock = Clock()
    turns = {"refquant": [1, 16, 4, 8, 2], "rival": [30, 12, 4, 4, 12]}
    case = duel(clock, lambda i: turns["refquant"][i], lambda i: turns["rival"][i], warm=False)
    case.contenders = [replace(c, bits=None) for c in case.contenders]
    result = run_case(case, Settings(turns=5), clock)
    assert result.samples == turns
    assert result.seconds("refquant") == 4 and result.seconds("rival") == 12 and result.best == "rival"
    # By turn: 30, 0.75, 1, 0.5, 6. Their median is not the ratio of the medians, which is 3.
    assert result.ratio == 1


def test_a_slow_phase_slows_both_sides_and_leaves_the_ratio():
    clock = Clock()

    def phase(seconds):
        def cost(count):
            # A proof and three calls before the turns, two calls in each.
            return seconds * (10.0 if 4 <= count < 10 else 1.0)

        return cost

    result = run_case(duel(clock, phase(1.0), phase(3.0)), Settings(turns=6), clock)
    assert result.samples == {"refquant": [10.0] * 3 + [1.0] * 3, "rival": [30.0] * 3 + [3.0] * 3}
    assert result.ratio == 3


def test_the_best_rival_makes_the_ratio_and_others_are_only_shown():
    clock = Clock()
    case = duel(clock, 1.0, 2.0)
    case.add("faster rival", lambda: clock.worker("faster", 1.5), bits=np.array)
    case.add("no rival", lambda: clock.worker("shown", 0.1), Role.SHOWN)
    result = run_case(case, Settings(turns=5), clock)
    assert (result.best, result.ratio) == ("faster rival", 1.5)
    assert result.ratio_over("no rival") == pytest.approx(0.1)


def test_gops_and_the_share_of_the_peak():
    clock = Clock()
    peak = Yardstick("peak", clock.worker("peak", 0.5), 4e9)
    result = run_case(duel(clock, 1.0, operations=6e9), Settings(turns=5, peak=peak), clock)
    assert result.gops == pytest.approx(6) and result.share == pytest.approx(6 / 8)
    assert result.best == "rival"
    assert run_case(duel(clock, 1.0), Settings(turns=5, peak=peak), clock).share is None


def test_the_share_of_a_copy_is_a_share_of_time():
    clock = Clock()
    case = duel(clock, 4.0)
    case.add("copy", lambda: clock.worker("copy", 1.0), Role.YARDSTICK)
    assert run_case(case, Settings(turns=5), clock).share == pytest.approx(0.25)


def test_a_planted_wrong_bit_is_reported_and_never_timed():
    clock = Clock()
    result = run_case(duel(clock, theirs_bits=wrong()), Settings(turns=5), clock)
    assert result.status is Status.DIFFERENT and not result.timed and result.ratio is None and result.gops is None
    assert "1 of 12 outputs differ" in result.detail and "rival" in result.detail
    assert clock.calls == ["refquant", "rival"] and clock.read == 0


@pytest.mark.parametrize("bits", [BITS.astype(np.int64), BITS.reshape(3, 4), [BITS, BITS]], ids=["dtype", "shape", "count"])
def test_other_forms_of_a_wrong_result_are_found(bits):
    case = duel(Clock(), theirs_bits=bits)
    case.contenders = [replace(c, bits=lambda y: y) for c in case.contenders]
    assert prove(case)[0] is Status.DIFFERENT


def test_a_wrong_layer_among_right_ones_is_found():
    case = duel(Clock())
    first, second = case.contenders
    case.contenders = [replace(first, bits=lambda y: [y, y, y]), replace(second, bits=lambda y: [y, wrong(), y])]
    status, detail = prove(case)
    assert status is Status.DIFFERENT and "array 2 of 3" in detail


def test_bits_that_could_not_have_shown_a_difference_prove_nothing():
    clock = Clock()
    case = Case("flat")
    case.add("refquant", lambda: clock.worker("refquant", 1, np.zeros(9)), Role.SUBJECT, bits=np.array)
    case.add("rival", lambda: clock.worker("rival", 1, np.zeros(9)), bits=np.array)
    result = run_case(case, Settings(turns=5), clock)
    assert result.status is Status.UNTRUSTED and not result.timed


def test_a_subject_whose_later_calls_give_other_bits_is_found():
    """Such as one that rearranges its weights for the second call, and wrongly."""
    clock, calls = Clock(), []
    case = duel(clock)
    first, second = case.contenders
    case.contenders = [replace(first, call=lambda: calls.append(first.call()) or (wrong() if len(calls) > 2 else BITS)), second]
    result = run_case(case, Settings(turns=5), clock)
    assert result.status is Status.DIFFERENT and not result.timed and "behind those that were timed" in result.detail


def test_a_result_that_shares_memory_is_compared_as_it_was():
    out = np.arange(4)
    case = Case("aliased")
    case.add("refquant", lambda: lambda: np.copyto(out, [1, 2, 3, 4]) or out, Role.SUBJECT, bits=lambda y: y)
    case.add("rival", lambda: lambda: np.copyto(out, [1, 2, 3, 5]) or out, bits=lambda y: y)
    assert prove(case)[0] is Status.DIFFERENT


def test_a_witness_is_compared_and_not_timed():
    clock = Clock()
    case = duel(clock)
    case.add("witness", lambda: clock.worker("witness", 1, BITS), Role.WITNESS, bits=np.array)
    result = run_case(case, Settings(turns=5), clock)
    assert result.timed and "witness" not in result.samples and clock.calls.count("witness") == 1
    case.add("false witness", lambda: clock.worker("witness", 1, wrong()), Role.WITNESS, bits=np.array)
    assert run_case(case, Settings(turns=5), clock).status is Status.DIFFERENT


def test_bits_of_another_computation_have_their_own_expectation():
    clock = Clock()
    case = duel(clock)
    case.add("rounder", lambda: clock.worker("rounder", 1, BITS + 1), bits=np.array, expected=lambda: BITS + 1)
    assert prove(case)[0] is Status.EXACT
    case.add("wrong rounder", lambda: clock.worker("rounder", 1, BITS + 2), bits=np.array, expected=lambda: BITS + 1)
    assert prove(case)[0] is Status.DIFFERENT


def test_an_absent_engine_is_named_and_skipped():
    def absent():
        raise BackendMissing("engine x: not installed; pip install x")

    clock = Clock()
    case = Case("alone")
    case.add("refquant", lambda: clock.worker("refquant", 1), Role.SUBJECT, bits=np.array)
    case.add("x", absent)
    found = run_works([contest(clock, cases=[case], bars=(Bar("ratio", lambda rs: geomean(r.ratio for r in rs if r.ratio), 1),))], Settings(turns=5), clock=clock)
    assert found[0].results[0].ratio is None and found[0].verdicts[0].reached is None
    text = text_report(found, MACHINE)
    assert "Skipped: engine x: not installed" in text and "not judged" in text


def test_setups_run_before_each_turn():
    clock, seen = Clock(), []
    case = Case("threads", warm=False)
    case.add("two", lambda: clock.worker("two", 1), Role.SUBJECT, setup=lambda: seen.append(2))
    case.add("one", lambda: clock.worker("one", 2), setup=lambda: seen.append(1))
    run_case(case, Settings(turns=5), clock)
    assert sorted(seen) == [1] * 5 + [2] * 5 and seen[:4] == [2, 1, 1, 2]


def test_other_processes_count_on_several_threads_only():
    case = duel(Clock())
    assert clock_of(case, Settings(threads=1)) is time.process_time and clock_of(case, Settings(threads=2)) is time.perf_counter
    case.clock = time.perf_counter
    assert clock_of(case, Settings(threads=1)) is time.perf_counter


def test_waiting_for_a_processor_is_a_reason_not_to_judge():
    clock = Clock()
    times = iter([(1.0, 10.0), (1.02, 11.0), (1.5, 12.0)])
    waited, now = zip(*times)
    waited, now = iter(waited), iter(now)
    waiting = Waiting(waited=lambda: next(waited), clock=lambda: next(now), load=lambda: 7.4)
    assert waiting.reason() == ""
    assert waiting.reason() == f"threads that were ready waited for a processor 25% of the time; load 7 on {os.cpu_count()} processors"
    silent = dict(waited=lambda: None, clock=clock)
    assert Waiting(**silent, load=lambda: 1e6).reason().startswith("more processes want to run") and not Waiting(**silent, load=lambda: 0.1).reason()
    assert not Waiting(**silent, load=lambda: None).reason()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells how long threads wait")
def test_the_waiting_of_this_process_is_seen():
    """More threads than processors, all of which want to work without the interpreter's lock."""
    waiting, content = Waiting(), bytes(1 << 20)
    threads = [threading.Thread(target=lambda: [hashlib.sha256(content).digest() for _ in range(60)]) for _ in range(4 * os.cpu_count())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "waited for a processor" in waiting.reason()


def test_what_was_disturbed_is_not_judged():
    bar = Bar("ratio", lambda rs: geomean(r.ratio for r in rs if r.ratio), 1)
    clock = Clock()
    work = contest(clock, bars=(bar,))
    row = run_works([work], Settings(turns=5), clock=clock)[0]
    assert row.verdicts[0].reached is not None and not row.results[0].disturbed
    result = replace(row.results[0], disturbed="another process runs")
    assert judge(work, [result])[0].reached is None
    text = text_report([row._replace(results=[result], verdicts=judge(work, [result]))], MACHINE)
    assert "not judged, for another process runs" in text


def test_few_turns_are_refused_and_garbage_collection_is_put_back():
    with pytest.raises(RangeError, match="turns=4"):
        run_works([contest(Clock())], Settings(turns=4))
    clock, seen = Clock(), []
    case = Case("c")
    case.add("refquant", lambda: lambda: seen.append(gc.isenabled()) or clock.worker("refquant", 1)(), Role.SUBJECT)
    measure(case.contenders, 5, clock)
    assert gc.isenabled() and not any(seen)


def test_nothing_is_timed_on_a_processor_that_is_written_out(monkeypatch, capsys):
    monkeypatch.setattr("refquant.kernels.processor.emulated_level", lambda: "avx512_vnni")
    assert main(["bench", "--filter", "numpy"]) == 2 and "REFQUANT_EMULATE=avx512_vnni" in capsys.readouterr().err


def test_long_cases_take_fewer_turns():
    clock = Clock()
    case = duel(clock)
    case.most_turns = 5
    assert len(run_case(case, Settings(turns=9), clock).samples["refquant"]) == 5


def test_bars_judge_works_and_groups():
    clock = Clock()
    cases = [duel(clock, 1.0, t, name=f"{g} {t}", group=g) for g, t in (("a", 2.0), ("a", 8.0), ("b", 0.5))]
    bars = (
        Bar("geomean", lambda rs: geomean(ratios(rs)), 1.5, by_group=True),
        Bar("worst ratio", lambda rs: min(ratios(rs)), 0.5),
        Bar("seconds", lambda rs: max(r.seconds(r.subject) for r in rs), 0.5, at_most=True),
    )
    found = run_works([contest(clock, cases=cases, bars=bars)], Settings(turns=5), clock=clock)[0]
    assert [(v.label, v.group, v.figure, v.reached) for v in found.verdicts] == [
        ("geomean", "a", pytest.approx(4), True), ("geomean", "b", pytest.approx(0.5), False), ("worst ratio", "", pytest.approx(0.5), True),
        ("seconds", "", pytest.approx(1), False),
    ]  # fmt: skip


def test_a_difference_reaches_no_bar():
    clock = Clock()
    cases = [duel(clock, name="good"), duel(clock, name="bad", theirs_bits=wrong())]
    found = run_works([contest(clock, cases=cases, bars=(Bar("worst", lambda rs: min(ratios(rs)), 0.1),))], Settings(turns=5), clock=clock)[0]
    assert found.verdicts[0].reached is False and [r.name for r in found.failed] == ["bad"]


def test_a_case_that_cannot_run_costs_no_other_its_figures():
    def broken(settings):
        raise ArgumentError("startup: the child process must end well")

    clock = Clock()
    work = Work("w", "title", lambda: [Plan("broken", "", broken), Plan("case", "", lambda settings: duel(clock))], (Bar("ratio", lambda rs: min(ratios(rs)), 1),))
    found = run_works([work], Settings(turns=5), clock=clock)[0]
    assert [r.timed for r in found.results] == [False, True] and found.verdicts[0].reached is False
    assert "broken: UNSUPPORTED, not timed\n    startup: the child process must end well" in text_report([found], MACHINE)


def test_filters_choose_works_and_cases():
    clock, lines = Clock(), []
    works = [contest(clock, "gemm", [duel(clock, name="fbgemm square"), duel(clock, name="row")]), contest(clock, "linear", [duel(clock, name="fbgemm row")])]
    names = lambda rows: [f"{work.name}/{plan.name}" for work, plans in rows for plan in plans]  # noqa: E731
    assert names(chosen(works, "GEMM")) == ["gemm/fbgemm square", "gemm/row"]
    assert names(chosen(works, "row")) == ["gemm/row", "linear/fbgemm row"]
    assert names(chosen(works)) == ["gemm/fbgemm square", "gemm/row", "linear/fbgemm row"]
    assert names(chosen(works, ["linear", "square"])) == ["gemm/fbgemm square", "linear/fbgemm row"]
    assert names(chosen(works, ["row", "gemm"])) == ["gemm/fbgemm square", "gemm/row", "linear/fbgemm row"]
    for texts in ("nothing like it", ["row", "nothing like it"]):
        with pytest.raises(ArgumentError, match="'nothing like it' is in no .*works are gemm, linear"):
            chosen(works, texts)
    found = run_works(works, Settings(turns=5), text="row", progress=lines.append, clock=clock)
    assert [line.split(":")[0] for line in lines] == ["[1/2] gemm/row", "[2/2] linear/fbgemm row"] and "ratio 2.00" in lines[0]
    assert [row.verdicts for row in found] == [[], []]
