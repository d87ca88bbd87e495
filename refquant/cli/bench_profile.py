"""Where the time of a product or a convolution goes: what a figure below its bar is made of.

The whole operator is timed beside its parts, in turn. The parts that a call cannot do without are timed by themselves, the output
stage is what remains.

    tiles    the register tiles, with rows and columns in the L1 cache
    waits    what they take longer where operands come from where they lie
    bytes    looking for the highest byte, which decides whether a faster tile is exact
    field    padding and layout of a convolution's input
    call     the operator on one pixel: Python, arguments, launching
    stage    the rest: the output stage, and writing the output
"""

from typing import NamedTuple

import refquant as rq
from refquant.backends.bench.case import Contender
from refquant.backends.bench.gemm import product_call
from refquant.backends.bench.harness import beside, clock_of, measure
from refquant.backends.bench.layers import conv_layer, dense_layer
from refquant.backends.bench.report import seconds_text
from refquant.errors import ArgumentError, RefquantError
from refquant.kernels.bare_tiles import bind_bare_tiles, bind_look, lanes_used
from refquant.kernels.conv import window_product
from refquant.kernels.field import make_field
from refquant.kernels.left import matrix_rows
from refquant.kernels.signature import as_input
from refquant.kernels.tile import rung_named
from refquant.kernels.window import make_geometry

__all__ = ["PARTS", "Profile", "parts_of", "profile_case", "profile_works", "profile_table", "plain_profile"]

PARTS = ("tiles", "waits", "bytes", "field", "stage", "call")


class Profile(NamedTuple):
    """Where the time of one case goes.

    Attributes
    ----------
    name, group : str
    operations : float
    seconds : float
        Of the whole.
    parts : dict of str to float
        Seconds of each of `PARTS`; those of the tiles None where there are none (depthwise convolutions).
    lanes : float or None
        The part of the tiles' multiplications that the product is made of.
    peak : float or None
        Operations a second of the processor's fastest multiplication, at the same time.
    """

    name: str
    group: str
    operations: float
    seconds: float
    parts: dict
    lanes: float
    peak: float

    def of_peak(self, seconds):
        """The share of the peak with which the operations are done in `seconds`; None without tiles or peak."""
        return self.operations / seconds / self.peak if self.peak and seconds else None

    @property
    def shares_of_peak(self):
        """Those of the tiles near, of the tiles far, and of the whole."""
        tiles, waits = self.parts["tiles"], self.parts["waits"]
        return [self.of_peak(tiles), self.of_peak(tiles and tiles + waits), self.of_peak(self.seconds)]


def _operands(layer):
    """What `bind_bare_tiles` takes before `near`, and a call that makes the field."""
    packed = rq.ops.pack_weights(layer.w, groups=layer.geometry.get("groups", 1)).packed
    if layer.op == "linear":
        x = as_input(layer.x.values)
        return (packed.rung, x.reshape(-1), matrix_rows(*x.shape), packed.data, 1, packed.n), None
    g, x, zero = layer.geometry, layer.x.values, int(layer.x.qparams.zero_point)
    stride, padding, dilation = (v if isinstance(v, tuple) else (v, v) for v in (g[name] for name in ("stride", "padding", "dilation")))
    sides = dict(stride=stride, padding=tuple((p, p) for p in padding), dilation=dilation)
    geometry = make_geometry(x.shape, packed.shape, *sides.values())
    field = lambda: make_field(x, geometry, zero)  # noqa: E731
    if packed.shape[1] == 1 and packed.groups > 1:
        return None, field
    codes, left, columns, groups = window_product(x, packed, **sides, x_zero=zero)
    return (packed.rung, codes, left, columns, groups, packed.shape[0] // groups), field


def _smallest(layer):
    """The same operator where there is next to nothing to compute."""
    if layer.op == "linear":
        small = dense_layer(1, 16, 4)
        return product_call(small.x.values, small.w.values.T.copy()) if layer.out is None else _operator(small)
    return _operator(conv_layer((1, 16, 1, 1), (16, 16, 1, 1), None, dict(stride=1, padding=0, dilation=1, groups=1)))


def _operator(layer):
    function, packed = getattr(rq.ops, layer.op), rq.ops.pack_weights(layer.w)
    options = dict(layer.arguments(), w=packed, numerics="x86")
    return lambda: function(**options)


def profile_case(case, settings, clock=None):
    """Time a case and its parts.

    Parameters
    ----------
    case : Case
        With a `layer`.
    settings : Settings
    clock : callable, optional

    Returns
    -------
    Profile
    """
    tiles, field = _operands(case.layer)
    calls = {"whole": case.subject.call, "call": _smallest(case.layer)}
    if tiles is not None:
        if rung_named(tiles[0]) is None:
            raise ArgumentError("bench --profile: this processor, or NUMBA_DISABLE_JIT, leaves the plain loops alone; they have no tiles to look at")
        calls |= {near: bind_bare_tiles(*tiles, near == "near") for near in ("near", "far")}
        if rung_named(tiles[0]).low:
            calls["bytes"] = bind_look(tiles[1], tiles[2], tiles[4])
    if field is not None:
        calls["field"] = field
    contenders = [Contender(name=name, call=call) for name, call in calls.items()]
    if settings.peak:
        contenders.append(Contender(name="peak", call=settings.peak.call))
    samples = measure(contenders, settings.turns, clock or clock_of(case, settings))
    median = beside(samples, "whole")
    peak = settings.peak.operations / median["peak"] if settings.peak else None
    return Profile(case.name, case.group, case.operations, median["whole"], parts_of(median), tiles and lanes_used(tiles[0], tiles[2], tiles[5]), peak)


def parts_of(median):
    """Split the time of the whole, given the seconds of what was timed by itself."""
    parts = {name: median.get(name, 0.0) for name in ("bytes", "field", "call")}
    if "near" in median:
        parts |= {"tiles": median["near"], "waits": max(0.0, median["far"] - median["near"])}
    else:
        parts |= {"tiles": None, "waits": None}
    known = sum(seconds for seconds in parts.values() if seconds)
    return {name: {**parts, "stage": max(0.0, median["whole"] - known)}[name] for name in PARTS}


def profile_works(rows, settings, progress=lambda line: None):
    """Profile the cases that are products or convolutions.

    Parameters
    ----------
    rows : list of (Work, list of Plan)
    settings : Settings
        On one thread.
    progress : callable

    Returns
    -------
    list of (Work, list of Profile)
        Works without such cases are left out.
    """
    if settings.threads != 1:
        raise ArgumentError(f"bench --profile: threads={settings.threads}, but parts are timed on one; leave --threads out")
    found = []
    for work, plans in rows:
        profiles = []
        for plan in plans:
            try:
                case = plan.build(settings)
            except RefquantError:
                continue  # the works' own run has reported it
            if case.layer is None:
                break
            profiles.append(profile_case(case, settings))
            progress(f"profile {work.name}/{plan.name}")
        if profiles:
            found.append((work, profiles))
    return found


def _percent(seconds, profile):
    return "" if seconds is None else f"{100 * seconds / profile.seconds:.0f}%"


def _share(value):
    return "" if value is None else f"{value:.2f}"


def _line(p):
    name = f"  {p.name.removeprefix(p.group).lstrip()}" if p.group else p.name
    parts = "".join(f"{_percent(seconds, p):>6}" for seconds in p.parts.values())
    near, far, whole = map(_share, p.shares_of_peak)
    return f"  {name if len(name) < 31 else name[:29] + '…':<31}{seconds_text(p.seconds):>8} {parts} {near:>5}{far:>5}{whole:>5}{_share(p.lanes):>6}".rstrip()


def profile_table(found):
    """Return the profiles as lines of at most 100 columns."""
    lines = []
    for work, profiles in found:
        lines += ["", f"{work.name}: where the time goes; share of the peak of the tiles near and far, and of the whole"]
        lines.append(f"  {'case':<31}{'time':>8} {''.join(f'{name:>6}' for name in PARTS)} {'near':>5}{'far':>5}{'all':>5}{'lanes':>6}")
        group = ""
        for p in profiles:
            lines += [f"  {p.group}"] if p.group != group else []
            group = p.group
            lines.append(_line(p))
    return [*lines, "", *_LEGEND] if lines else []


_LEGEND = [
    "tiles: register tiles, operands in the L1 cache. waits: what they take longer where operands come",
    "from further away. bytes: looking for bytes so high that a faster tile is not exact. field: padding",
    "and layout. call: the operator on one pixel. stage: the rest, output stage and writing. lanes: the",
    "part of the tiles' multiplications that is not filling up columns to 16 and k to whole words.",
]


def plain_profile(found):
    """Return the profiles as dicts, lists, strings and numbers, by work."""
    return {
        work.name: [
            {**p._asdict(), "shares_of_peak": dict(zip(("near", "far", "whole"), p.shares_of_peak))} for p in profiles
        ]
        for work, profiles in found
    }  # fmt: skip
