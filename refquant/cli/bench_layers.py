"""Where the time of a network goes, layer by layer."""

from time import process_time

from refquant.backends.bench.networks import NETWORKS, layer_times
from refquant.backends.bench.report import seconds_text

__all__ = ["layer_works", "layer_table"]


def layer_works(rows, settings):
    """Time the layers of the networks among works that were chosen.

    Parameters
    ----------
    rows : list of (Work, list of Plan)
    settings : Settings

    Returns
    -------
    list of (str, list of Layer, float or None)
        Name, layers, and the processor's operations a second.
    """
    found = []
    for work, plans in rows:
        for plan in plans if work is NETWORKS else ():
            layers = layer_times(plan.name)
            found.append((plan.name, layers, _peak(settings)))
    return found


def _peak(settings, runs=5):
    if not settings.peak:
        return None
    seconds = []
    for _ in range(runs):
        start = process_time()
        settings.peak.call()
        seconds.append(process_time() - start)
    return settings.peak.operations / min(seconds)


def layer_table(found):
    """Return the layers as lines of at most 100 columns."""
    lines = []
    for name, layers, peak in found:
        total = sum(layer.seconds for layer in layers)
        lines += ["", f"{name}: layers on one thread, {seconds_text(total)} together; share of the processor's peak"]
        lines.append(f"  {'layer':<29}{'kind':<26}{'output':<18}{'time':>8}{'':>5}{'GOPS':>6}{'share':>6}")
        lines += [_line(layer, total, peak) for layer in layers]
    return lines


def _line(layer, total, peak):
    speed = layer.operations / layer.seconds if layer.operations and layer.seconds else None
    gops = "" if speed is None else f"{speed / 1e9:.0f}"
    share = "" if speed is None or not peak else f"{speed / peak:.2f}"
    output = "x".join("N" if n is None else str(n) for n in layer.shape)
    part = f"{100 * layer.seconds / total:.0f}%"
    return f"  {_short(layer.name, 29):<29}{_short(layer.kind, 26):<26}{_short(output, 18):<18}{seconds_text(layer.seconds):>8}{part:>5}{gops:>6}{share:>6}".rstrip()


def _short(text, most):
    return text if len(text) < most else text[: most - 2] + "…"
