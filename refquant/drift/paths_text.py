"""The text form of a `PathsReport`."""

import textwrap

import numpy as np

from refquant.drift.paths_why import codes_of

__all__ = ["paths_text", "parameters_text", "accuracy_rows", "bridge_rows"]


def parameters_text(seen):
    """Return ``"uint8/128 0.03243 z0"``: dtype, number of codes, scale, zero point."""
    q = seen.qparams
    return f"{q.dtype}/{codes_of(q)} {q.scale:.6g} z{q.zero_point}"


def _lines(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]


def accuracy_rows(report):
    """Return the rows of the table of outputs, the heading first."""
    rows = [("path", "numerics", "output dB", "changed", "right")]
    for a in report.accuracy:
        right = "" if a.correct is None else f"{100 * a.correct / report.images:.2f} %"
        changed = "" if a.changed is None else f"{a.changed}"
        rows.append((a.path, report.engines[a.path], f"{a.sqnr:.1f}", changed, right))
    fp32 = report.accuracy[0].fp32
    if fp32 is not None:
        rows.append(("float", "", "", "0", f"{100 * fp32 / report.images:.2f} %"))
    return rows


def paths_text(report, width=120):
    """Return the report as text."""
    main = list(dict.fromkeys(name for row in report.tensors for name in row.seen))
    main = [name for name in report.titles if name in main]
    out = [f"{report.model}: {len(main)} paths, calibrated on {report.calibration} inputs, judged on {report.images}, tensors on {report.layer_images}", ""]
    out += [f"  {name}: {report.titles[name]}" for name in main] + [f"  {name} refuses: {why}" for name, why in report.refused.items()] + ["", *_lines(accuracy_rows(report)), ""]
    rows = [("tensor", *main, *(f"{name} dB" for name in main))]
    for row in report.tensors:
        cells = [parameters_text(row.seen[name]) if name in row.seen else "–" for name in main]
        rows.append((row.name, *cells, *(f"{row.sqnr[name]:.1f}" if name in row.sqnr else "–" for name in main)))
    out += [*_lines(rows), "", "why they differ"]
    out += _reasons(report.tensors, width)
    out += ["", "weights: codes that differ", *_weights(report, main), *_reasons(report.weights, width)]
    if report.bridges:
        out += ["", "one choice exchanged: tensors with another path's parameters to the bit", *_lines(bridge_rows(report))]
    for name, layers in report.simulation.items():
        out += ["", f"{name}: INT8 beside its fake-quantized float form", *_simulation(layers)]
    return "\n".join(out) + "\n"


def _weights(report, main):
    pairs = [(a, b) for i, a in enumerate(main) for b in main[i + 1 :]]
    rows = [("layer", *(f"{a}, {b}" for a, b in pairs))]
    for row in report.weights:
        counts = (row.differing.get(pair) for pair in pairs)
        rows.append((row.name, *("–" if n is None else f"{n:,}" for n in counts)))
    return _lines(rows)


def _reasons(rows, width):
    """Each reason once, with those that it holds for."""
    holds = {}
    for row in rows:
        for reason in row.why:
            holds.setdefault(reason, []).append(row.name)
    lines = []
    for reason, names in holds.items():
        who = "all" if len(names) == len(rows) > 1 else ", ".join(names) if len(names) < 5 else f"{len(names)} of {len(rows)}"
        lines += textwrap.wrap(f"{reason} ({who})", width, initial_indent="  ", subsequent_indent="      ")
    return lines


def bridge_rows(report):
    """Return the rows of the table of exchanges, the heading first."""
    names, targets = (list(dict.fromkeys(row[i] for row in report.bridges)) for i in (0, 1))
    table = {(name, path): f"{same} of {both}" for name, path, same, both in report.bridges}
    return [("", *targets), *((name, *(table.get((name, path), "") for path in targets)) for name in names)]


def _simulation(layers):
    rows = [("layer", "operation", "outputs", "own differ", "most", "beyond the range", "all differ", "most")]
    rows += [(r.name, r.op, f"{r.outputs:,}", f"{r.own:,}", str(r.own_most), f"{r.beyond:,}", f"{r.differing:,}", str(r.most)) for r in layers]
    total = np.array([(r.outputs, r.own, r.beyond, r.differing) for r in layers]).sum(0)
    return [*_lines(rows), f"in all {total[0]:,} codes: {total[1]:,} differ by the layer's own doing, {total[2]:,} of them lie beyond the calibrated range; {total[3]:,} with all before"]
