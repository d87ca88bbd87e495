"""The works themselves: each proves equal bits beside the real engines. Nothing is timed here."""

import os

import numpy as np
import pytest

from refquant import numerics, zoo
from refquant.backends.bench.case import Role, Settings
from refquant.backends.bench.conv import CONV, _operations, distinct_convolutions
from refquant.backends.bench.elementwise import ELEMENTWISE
from refquant.backends.bench.engines import limited_threads, machine
from refquant.backends.bench.gemm import GEMM, NUMPY
from refquant.backends.bench.harness import prove, run_case
from refquant.backends.bench.linear import LINEAR
from refquant.backends.bench.observing import OBSERVING
from refquant.backends.bench.report import machine_line
from refquant.backends.bench.saturating import SATURATING
from refquant.backends.bench.startup import STARTUP
from refquant.backends.bench.threads import THREADS
from refquant.cli.bench import peak
from refquant.graph.work import multiply_adds
from refquant.kernels.jit import get_num_threads, jit_disabled, kernel, parallel_for
from refquant.kernels.processor import host_features
from refquant.kernels.shared_work import shared_steps
from refquant.verify import Status

SOME_CONVOLUTIONS = (
    "resnet50 3x224x224 7x7/2 -> 64 relu",
    "resnet50 512x7x7 3x3 -> 512 relu",
    "resnet50 1024x14x14 1x1/2 -> 2048",
    "mobilenet_v2 144x56x56 3x3/2 depthwise relu",
    "mobilenet_v2 160x7x7 1x1 -> 960 relu",
)


def plans():
    for work, chosen in (
        (GEMM, ["3136x64x64", "49x512x4608"]), (NUMPY, ["512x512x512"]), (SATURATING, ["gemm 128x768x768", "linear 128x768x768"]),
        (LINEAR, [f"{name} 128x768x768" for name in numerics.names()]),
        (CONV, SOME_CONVOLUTIONS), (ELEMENTWISE, None), (OBSERVING, None), (THREADS, ["1024x1024x1024"]),
    ):  # fmt: skip
        for plan in work.plans():
            if chosen is None or plan.name in chosen:
                yield pytest.param(plan, id=f"{work.name}/{plan.name}")


@pytest.mark.parametrize("plan", list(plans()))
def test_bits_agree_before_anything_is_timed(plan):
    with limited_threads(1):
        case = plan.build(Settings())
        assert [c.role for c in case.contenders].count(Role.SUBJECT) == 1 and case.name == plan.name and case.group == plan.group
        assert case.layer or case.parts or case.contenders[0].name == "refquant, 2 threads"
        status, detail = prove(case)
    assert status is Status.EXACT, detail
    if os.environ.get("REFQUANT_REQUIRE_ENGINES") == "1":
        assert not case.skipped


@pytest.mark.parametrize("kind", ["gemm", "linear"])
def test_what_saturates_is_not_the_exact_product(kind):
    case = next(plan for plan in SATURATING.plans() if plan.name == f"{kind} 49x512x4608").build(Settings())
    mine, exact = (np.array(c.call()) for c in case.contenders[:2])
    assert (mine != exact).mean() > 0.5 and len(np.unique(mine)) > 100


@pytest.mark.parametrize("profile", numerics.names())
def test_every_profile_has_something_that_proves_it(profile):
    plan = next(p for p in LINEAR.plans() if p.name == f"{profile} 3136x64x64")
    compared = [c.name for c in plan.build(Settings()).contenders if c.bits is not None and c.role is not Role.SUBJECT]
    assert compared


@pytest.mark.parametrize("network, count", [("resnet50", 23), ("mobilenet_v2", 30)])
def test_layers_are_those_of_the_network(network, count):
    model = zoo.build(network)
    rows = distinct_convolutions(model)
    assert len(rows) == count and sum(row[4] for row in rows) == 1
    shapes, adds = model.shapes(), multiply_adds(model)
    for node in model.nodes:
        if node.op == "conv2d":
            x = (1, *shapes[node.inputs[0]][1:])
            mine = [r for r in rows if r[0] == x and r[1] == node.params["weight"].shape and r[3]["stride"] == node.attrs["stride"]]
            assert mine and {_operations(r) for r in mine} == {2.0 * adds[node.name]}


def test_relus_are_found_behind_norms():
    rows = {(r[0][1:], r[1][0], r[3]["stride"]): r[2] for r in distinct_convolutions(zoo.build("mobilenet_v2"))}
    assert rows[(96, 56, 56), 24, 1] is None and rows[(24, 56, 56), 144, 1] == "relu"


def test_threads_are_put_back():
    before = get_num_threads()
    with limited_threads(before + 1):
        assert get_num_threads() == before + 1
    assert get_num_threads() == before


def test_the_machine_is_told():
    text = machine_line(machine(1))
    assert "1 thread;" in text and "numpy " in text and "AVX512-VNNI" in text


def test_the_peak_counts_what_it_computes():
    yardstick = peak(1)
    if jit_disabled() or not {"avx512vnni", "avxvnni", "avx2"} & host_features():
        assert yardstick is None
        return
    yardstick.call()
    assert yardstick.operations == peak(2).operations / 2


def test_a_child_process_that_fails_is_reported(monkeypatch):
    from refquant.backends.bench import startup
    from refquant.errors import RefquantError

    assert [p.name for p in STARTUP.plans()] == ["import refquant", "first linear, warm cache", "first linear, cold cache"]
    with pytest.raises(RefquantError, match="returned 3"):
        startup._process("import sys; sys.exit(3)", "unused")


@kernel
def _count_up(start, stop, rounds, out):
    for i in range(start, stop):
        for _ in range(rounds):
            out[i] = 3 * out[i] + 1


@pytest.mark.skipif(jit_disabled(), reason="without a compiler there is one thread")
@pytest.mark.parametrize("count, grain, loops, least, most", [(2, 1, 1, 1.5, 2.0), (3, 1, 1, 1.2, 1.5), (2, 2, 0, 1.0, 1.0)])
def test_what_threads_share_is_seen_by_processor_time(count, grain, loops, least, most):
    """Three units on two threads are two thirds of the time; what is too little to share counts as not shared."""
    out = np.zeros(count, np.int64)

    def run(clock):
        start = clock()
        parallel_for(_count_up, count, 3_000_000, out, grain=grain)
        return {"loop": clock() - start}

    work = shared_steps(run, calls=5)["loop"]
    assert work.loops == loops and least <= work.most <= most
    assert loops == 0 or work.shared > 0.9 * work.seconds


@pytest.mark.engine
def test_observers_that_go_on_counting_are_timed():
    """Their state behind the timed calls is another one, which is no fault."""
    pytest.importorskip("torch")
    for plan in OBSERVING.plans():
        result = run_case(plan.build(Settings()), Settings())
        assert result.timed, result.detail
