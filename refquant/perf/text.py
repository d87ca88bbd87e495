"""The text and the plain data of a `Report`."""

from dataclasses import asdict

__all__ = ["report_text", "report_dict", "limits"]

_BOUNDS = {
    "compute": "multiplications", "memory": "bytes from memory", "values": "work for each value beside the multiplications (sums written and read again, requantization)",
    "call": "the cost of calls, which smaller numbers do not lower",
}  # fmt: skip


def limits(report):
    """Return a sentence on what most of the time goes into."""
    shares = sorted(report.shares.items(), key=lambda item: -item[1])
    first = f"{100 * shares[0][1]:.0f} % of the time goes into {_BOUNDS[shares[0][0]]}"
    second = f", {100 * shares[1][1]:.0f} % into {_BOUNDS[shares[1][0]]}" if shares[1][1] >= 0.1 else ""
    return f"{first}{second}."


def report_text(report, width=110, top=None):
    """Return a report's text: totals, a table of layers, the rules behind the kernels, and what limits the network."""
    rows = list(report.layers)
    if top is not None and top < len(rows):
        kept = set(sorted(range(len(rows)), key=lambda i: -rows[i].time.seconds)[:top])
        rows = [row for i, row in enumerate(rows) if i in kept]
    reasons = list(dict.fromkeys(row.kernel.reason for row in rows if row.kernel.engine != "aten"))
    machine = report.machine
    share = f"{report.cores} of {machine.cores} cores" + (f", {report.instances} instances" if report.instances > 1 else "")
    lines = [f"{report.name}, {'as quantized' if report.quantized else 'in INT8'}, batch {report.batch}, on {machine.title}, {share}", ""]
    lines += _totals(report) + [""]
    if rows:
        which = "all" if len(rows) == len(report.layers) else f"the {len(rows)} slowest of"
        lines += [f"{which} {len(report.layers)} calls under {report.engine}:", *_table([_row(row, reasons, report.seconds) for row in rows], width), ""]
    lines += [f"[{i}] {reason}" for i, reason in enumerate(reasons, 1)] + ([""] if reasons else [])
    return "\n".join([*lines, limits(report), "Predicted from shapes, rules and a roofline, not measured; refquant simulate --published says how far off that is.", ""])


def _totals(report):
    float_seconds = report.totals["float32"]
    lines = []
    for name, seconds in report.totals.items():
        ratio = "" if name == "float32" else f"  {float_seconds / seconds:5.2f} times as fast as float32"
        lines.append(f"  {name:8} {1e3 * seconds:9.3f} ms  {report.batch * report.instances / seconds:10.1f} a second{ratio}")
    return lines


def _row(report, reasons, total):
    layer, kernel, time = report
    note = f"[{reasons.index(kernel.reason) + 1}]" if kernel.reason in reasons and kernel.engine != "aten" else ""
    engine = f"{kernel.engine}: {kernel.name}" if layer.kind == "product" else ""
    work = f"{layer.multiply_adds / 1e6:.1f}" if layer.multiply_adds else ""
    bound = f"memory ({time.level})" if time.bound == "memory" else time.bound
    used = f"{100 * time.utilization:.0f} %" if layer.multiply_adds else ""
    return layer.name, _operator(layer), work, engine, note, used, bound, f"{1e3 * time.seconds:.3f}", f"{100 * time.seconds / total:.1f} %"


def _operator(layer):
    """Return an operator with its geometry and what is computed with it: ``conv2d 3x3 s2 g32 +batch_norm+relu``."""
    parts, g = [layer.op], layer.geometry
    if g is not None:
        parts.append("x".join(map(str, g.kernel)))
        parts += [f"{sign}{max(values)}" for sign, values in (("s", g.stride), ("d", g.dilation), ("g", (g.groups,))) if max(values) > 1]
    return " ".join(parts + (["+" + "+".join(layer.merged)] if layer.merged else []))


def _table(rows, width):
    heading = ("layer", "operator", "MMAC", "kernel", "rule", "filled", "bound by", "ms", "share")
    right = {2, 5, 7, 8}
    rows = [heading, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heading))]
    spare = width - sum(widths) - 2 * (len(widths) - 1)
    for column in (1, 0):
        cut = min(max(-spare, 0), max(widths[column] - 16, 0))
        widths[column] -= cut
        spare += cut
    fitted = [[_cut(cell, size) for cell, size in zip(row, widths)] for row in rows]
    return ["  ".join(cell.rjust(n) if i in right else cell.ljust(n) for i, (cell, n) in enumerate(zip(row, widths))).rstrip() for row in fitted]


def _cut(text, size):
    return text if len(text) <= size else text[: size - 1] + "…"


def report_dict(report):
    """Return a report as plain data."""
    layers = []
    for layer, kernel, time in report.layers:
        layers.append({
            "name": layer.name, "op": layer.op, "merged": list(layer.merged), "dtype": layer.dtype, "multiply_adds": layer.multiply_adds,
            "kernel": kernel._asdict(), "time": time._asdict(),
        })  # fmt: skip
    return {
        "name": report.name, "quantized": report.quantized, "machine": asdict(report.machine), "cores": report.cores, "instances": report.instances,
        "batch": report.batch, "engine": report.engine, "totals": dict(report.totals), "speedup": report.speedup, "shares": report.shares,
        "limits": limits(report), "layers": layers,
    }  # fmt: skip
