"""What a second thread brings."""

import os
from time import perf_counter

import numpy as np

from refquant.backends.bench.case import Bar, Case, Plan, Role, Work
from refquant.backends.bench.engines import set_threads
from refquant.backends.bench.gemm import product_call, ratios
from refquant.backends.bench.layers import dense_layer, torch_call
from refquant.backends.bench.networks import kind_of, network_calls, quantized_network
from refquant.backends.bench.report import seconds_text

__all__ = ["THREADS", "sharing_table"]

_ONE, _TWO = "refquant, 1 thread", "refquant, 2 threads"
_THEIRS_ONE, _THEIRS_TWO = "torch x86, 1 thread", "torch x86, 2 threads"


_SHARED = {}


def _case(name, ours, theirs, settings):
    case = Case(name, clock=perf_counter)
    if settings.shared_steps:
        _SHARED[name] = lambda: settings.shared_steps(_one_step(lambda: ours(2)))
    case.add(_TWO, lambda: lambda: ours(2), Role.SUBJECT, bits=np.array, setup=lambda: set_threads(2))
    case.add(_ONE, lambda: lambda: ours(1), bits=np.array, setup=lambda: set_threads(1))
    case.add(_THEIRS_TWO, theirs, Role.SHOWN, setup=lambda: set_threads(2))
    case.add(_THEIRS_ONE, theirs, Role.SHOWN, setup=lambda: set_threads(1))
    return case


def _square(settings):
    layer = dense_layer(1024, 1024, 1024)
    call = product_call(layer.x.values, np.ascontiguousarray(layer.w.values.T))
    return _case("1024x1024x1024", lambda threads: call(), lambda: torch_call(layer, "x86"), settings)


def _network(settings):
    # One thread in the model that is asked for: its bits must not depend on what runs it.
    ours, theirs = network_calls("resnet50")
    return _case("resnet50", lambda threads: ours(1), theirs, settings)


def _plans():
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [Plan("1024x1024x1024", "", _square), Plan("resnet50", "", _network)] if count > 1 else []


def _notes(results):
    if not results:
        return ["This process may use one processor only: nothing to compare."]
    rows = [r for r in results if r.timed and _THEIRS_ONE in r.samples]
    theirs = [f"{r.name}: torch x86 is {r.ratio_over(_THEIRS_ONE, _THEIRS_TWO):.2f}x as fast on two threads as on one" for r in rows]
    return [_by_processor_time(r.name, _SHARED[r.name]()["call"]) for r in results if r.name in _SHARED] + theirs


def _by_processor_time(name, work):
    return (
        f"{name}: by processor time {work.shared / work.seconds:.1%} of the work is in {work.loops} loops that threads share, so two free processors are at most "
        f"{work.most:.2f}x as fast; two threads take {work.both / work.seconds:.2f} times the processor time of one"
    )


def _where(results, settings):
    lines = []
    for r in results if settings.shared_steps else ():
        lines += _network_table(r.name, settings) if r.name == "resnet50" else sharing_table(r.name, _SHARED[r.name](), {"call": "product"})
    return lines


def _network_table(name, settings):
    network = quantized_network(name)
    model, image = network.int8, network.images[:1]
    model.run(image)
    steps = settings.shared_steps(lambda clock: model.time_steps(image, clock=clock))
    return sharing_table(name, steps, {node.name: kind_of(node) for node in model.nodes})


def _one_step(call):
    def run(clock):
        start = clock()
        call()
        return {"call": clock() - start}

    return run


def sharing_table(name, steps, kinds):
    """Return lines that tell for each kind of layer what threads share of it, and what a second thread costs.

    Parameters
    ----------
    name : str
    steps : dict of str to Shared
    kinds : dict of str to str
    """
    groups = {}
    for step, row in steps.items():
        groups.setdefault(kinds[step], []).append(row)
    rows = sorted(((kind, len(rows), _sum(rows)) for kind, rows in groups.items()), key=lambda row: row[2].shared - row[2].seconds)
    lines = [
        f"{name}: processor time of one thread, what of it is not in loops that two threads share, and how",
        "many times as much two threads take",
        f"  {'kind':<26}{'layers':>7}{'one thread':>12}{'not shared':>12}{'loops':>7}{'two threads':>13}",
    ]
    return lines + [_sharing_line(kind, count, row) for kind, count, row in [*rows, ("all", len(steps), _sum(steps.values()))]]


def _sum(rows):
    rows = list(rows)
    return rows[0]._make(sum(column) for column in zip(*rows))


def _sharing_line(kind, count, row):
    return (
        f"  {kind:<26}{count:>7}{seconds_text(row.seconds):>12}{seconds_text(max(0.0, row.seconds - row.shared)):>12}{row.loops:>7}"
        f"{row.both / row.seconds if row.seconds else 0:>12.2f}x"
    )


THREADS = Work(
    "threads",
    "Two threads over one",
    _plans,
    bars=(Bar("worst ratio", lambda rs: min(ratios(rs), default=None), 1.8),),
    notes=_notes,
    charted=False,
    where=_where,
)
