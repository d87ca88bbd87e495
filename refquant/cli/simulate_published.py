"""``refquant simulate --published``: the speed model beside published speeds, with its errors."""

import json
import math

from refquant.cli.console import Progress, table

__all__ = ["run_published"]


def run_published(as_json):
    """Print published and predicted figures; exit status 0."""
    from refquant import zoo
    from refquant.perf.constants import CONSTANTS, FITTED
    from refquant.perf.published import FIGURES, TABLES, Networks, fit, leave_one_out, predict

    line = Progress()
    line.show("building networks, fitting constants without each network in turn")
    networks = Networks(lambda name: zoo.build(name, empty=True), zoo.architectures())
    fitted, left = fit(networks), leave_one_out(networks)
    rows = []
    for figure in FIGURES:
        blind = left[figure.network] if figure.table == "engines" else CONSTANTS
        rows.append({**figure._asdict(), "share": figure.share._asdict(), "fitted": predict(figure, networks), "predicted": predict(figure, networks, blind)})
    line.clear()
    constants = {name: (getattr(CONSTANTS, name), getattr(fitted, name)) for name in (*FITTED, "fp32")}
    if as_json:
        print(json.dumps({"constants": {k: {"shipped": a, "fitted": b} for k, (a, b) in constants.items()}, "figures": rows, "tables": TABLES}, indent=1))
        return 0
    print("Predicted by constants that the figure had no part in: table 'engines' by those fitted to its other networks, the rest by those shipped.\n")
    for name, source in TABLES.items():
        mine = [row for row in rows if row["table"] == name]
        print(f"{name}: {source}", *table([_HEADING, *(_row(row, zoo) for row in mine)], right=range(3, 6)), _summary(mine), "", sep="\n")
    print("constants, shipped and as fitted just now:", *(f"  {name:13} {a:.4g}  {b:.4g}" for name, (a, b) in constants.items()), sep="\n")
    return 0


_HEADING = ("network", "machine", "what", "published", "predicted", "error")


def _row(row, zoo):
    share, many = row["share"], row["network"] == "*"
    network = f"geometric mean ({len(zoo.architectures())} of refquant zoo)" if many else row["network"]
    place = f"{share['machine']}, {share['instances']} x {share['cores']} cores"
    what, scale, digits = {
        "rate": (f"{row['under']}, a second", 1, 0),
        "ratio": (f"{row['over']} / {row['under']}", 1, 2),
        "saved": (f"{row['over']} - {row['under']}, ms", 1e3, 1),
    }[row["measure"]]
    error = f"{100 * (row['predicted'] / row['value'] - 1):+.0f} %"
    return network, place, what, f"{scale * row['value']:.{digits}f}", f"{scale * row['predicted']:.{digits}f}", error


def _summary(rows):
    """Return how far off a table's rates and ratios are on the whole, and its milliseconds."""
    logs = [math.log(row["predicted"] / row["value"]) for row in rows if row["measure"] != "saved"]
    typical = math.exp(math.sqrt(math.fsum(x * x for x in logs) / len(logs)))
    text = f"off by a factor of {typical:.2f} (root mean square of the logarithms), at worst {math.exp(max(map(abs, logs))):.2f}"
    text += f"; geometric mean of predicted over published {math.exp(math.fsum(logs) / len(logs)):.2f}"
    saved = [row for row in rows if row["measure"] == "saved"]
    if saved:
        wrong = sum(abs(row["predicted"] - row["value"]) for row in saved) / sum(row["value"] for row in saved)
        text += f"; milliseconds saved: off by {100 * wrong:.0f} % of their sum"
    return text
