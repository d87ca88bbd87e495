"""What commands write with: colours on a terminal alone, tables that fit it, progress on stderr that goes away again."""

import os
import re
import sys
import textwrap

__all__ = ["paint", "table", "fit", "bar", "interruption", "Progress"]

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}


def paint(text, colour, stream=None):
    """Return `text` in a colour if `stream` (stdout) is a terminal that shows colours, else as it is."""
    stream = stream or sys.stdout
    plain = not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else f"\033[{_COLOURS[colour]}m{text}\033[0m"


def table(rows, right=()):
    """Return the lines of a table, two blanks between columns.

    Parameters
    ----------
    rows : list of sequence of str
    right : collection of int
        Columns that are set flush right.

    Examples
    --------
    >>> print(*table([("operator", "outputs"), ("add", "12,000")], right={1}), sep="\\n")
    operator  outputs
    add        12,000
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    cells = (((cell.rjust if i in right else cell.ljust)(width) for i, (cell, width) in enumerate(zip(row, widths))) for row in rows)
    return ["  ".join(row).rstrip() for row in cells]


def fit(text, width):
    """Return a text whose lines fit: prose is wrapped, and what explains an indented entry goes below it. Entries themselves, which are to be copied, stay whole.

    Examples
    --------
    >>> print(fit("examples:\\n  refquant zoo            published networks", 24))
    examples:
      refquant zoo
          published networks
    """
    lines = []
    for line in text.splitlines():
        entry = re.match(r"(  \S.*?)(?:  +(\S.*))?$", line)
        if len(line) <= width:
            lines.append(line)
        elif entry is None:
            lines += textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)
        else:
            lines.append(entry[1])
            lines += textwrap.wrap(entry[2] or "", width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def bar(share, width=24):
    """Return a bar of the part that is done, with its percentage.

    Examples
    --------
    >>> bar(0.5, 8)
    '[####    ]  50 %'
    """
    return f"[{'#' * int(share * width):<{width}}] {100 * share:>3.0f} %"


def interruption(log):
    """Return what a command says that was interrupted, and how it goes on."""
    return "interrupted; " + (f"the same command goes on from {log}" if log else "with --log FILE the same command would go on")


class Progress:
    """One line on stderr that is written over and over, and wiped at the end; silent unless stderr is a terminal."""

    def __init__(self, stream=None):
        self._stream = stream or sys.stderr
        self._width = 0

    def show(self, text):
        """Replace the line."""
        if self._stream.isatty():
            self._stream.write("\r" + text.ljust(self._width))
            self._stream.flush()
            self._width = len(text)

    def clear(self):
        """Wipe the line."""
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0
