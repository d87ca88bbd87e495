"""The bench of planted faults as a table."""

import json

from refquant.cli.console import Progress, paint, table
from refquant.core.files import check_writable, write_whole
from refquant.errors import ArgumentError
from refquant.verify.planted import KINDS, THEMES, UNKNOWN, examine, summary, themes_of

__all__ = ["bench", "PROMISED"]

#: What the bench must reach: the share explained to the bit, seconds at the median, seconds at most; and nothing may be explained that has no cause.
PROMISED = {"explained": 0.95, "median": 3.0, "most": 30.0}

_HEAD = ("", "planted", "explained", "named", "first", "median s", "most s")


def bench(text=None, path=None):
    """Diagnose planted faults and print what was found of them; return the exit status.

    Parameters
    ----------
    text : str, optional
        Part of a name or kind.
    path : path, optional
        Where to write all figures as JSON.
    """
    if path:
        check_writable(path)
    chosen = [f for kind, faults in KINDS.items() for f in faults if text is None or text in f.name or text in kind]
    unknown = [f for f in UNKNOWN if text is None or text in f.name or text in "unknown"]
    if not chosen and not unknown:
        raise ArgumentError(f"diagnose --bench: no fault's name or kind holds {text!r}; kinds are {', '.join(KINDS)}, unknown")
    progress, done, strange = Progress(), [], []
    for number, fault in enumerate([*chosen, *unknown], 1):
        progress.show(f"{number} of {len(chosen) + len(unknown)}: {fault.name}")
        (strange if fault in unknown else done).append(examine(fault))
    progress.clear()
    figures = summary(done) if done else {"planted": 0, "faults": []}
    figures["unknown"] = {"planted": len(strange), "explained": [e.fault.name for e in strange if e.explained]}
    _print(done, strange)
    _print_misses(done, strange)
    if path:
        write_whole(path, (json.dumps(figures, indent=1) + "\n").encode())
    kept = _kept(figures) if done else []
    for promise, held in kept:
        print(paint(f"{'kept' if held else 'missed'}: {promise}", "green" if held else "red"))
    false = bool(figures["unknown"]["explained"])
    return 1 if false or not all(held for _, held in kept) else 0


def _kept(figures):
    seconds, planted = figures["seconds"], figures["planted"]
    share = figures["explained"] / planted
    return [
        (f"{figures['explained']} of {planted} explained to the bit ({100 * share:.1f} %, at least {100 * PROMISED['explained']:.0f} %)", share >= PROMISED["explained"]),
        (f"the median diagnosis takes {seconds['median']:.2f} s (less than {PROMISED['median']:.0f} s)", seconds["median"] < PROMISED["median"]),
        (f"the longest takes {seconds['most']:.2f} s (less than {PROMISED['most']:.0f} s)", seconds["most"] < PROMISED["most"]),
    ]


def _row(name, examinations):
    seconds = sorted(e.seconds for e in examinations)
    counts = (len(examinations), sum(e.explained for e in examinations), sum(e.named for e in examinations), sum(e.first for e in examinations))
    return (name, *(f"{n:,}" for n in counts), f"{seconds[len(seconds) // 2]:.2f}", f"{seconds[-1]:.2f}")


def _print(done, strange):
    right = set(range(1, len(_HEAD)))
    if done:
        kinds = [_row(kind, mine) for kind in KINDS if (mine := [e for e in done if e.kind == kind])]
        print(*table([("planted in", *_HEAD[1:]), *kinds, _row("all", done)], right), sep="\n")
        themes = [_row(theme, mine) for theme in THEMES if (mine := [e for e in done if theme in themes_of(e.fault)])]
        if themes:
            print("", *table([("cause", *_HEAD[1:]), *themes], right), sep="\n")
    if strange:
        print(f"\n{len(strange)} faults that no cause of the table is: {sum(e.explained for e in strange)} explained (must be 0)")
    print("\nexplained: some causes compute every bit; named: the planted one is among those that these data cannot tell apart; first: it is the one named first\n")


def _print_misses(done, strange):
    for what, missed in (
        ("not explained", [e for e in done if not e.explained]), ("explained otherwise", [e for e in done if e.explained and not e.named]),
        ("explained though it has no cause", [e for e in strange if e.explained]),
    ):  # fmt: skip
        for e in missed:
            print(paint(f"{what}: {e.fault.name}", "red"))
            print("  " + str(e.diagnosis).replace("\n", "\n  "))
