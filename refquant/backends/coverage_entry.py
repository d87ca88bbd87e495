"""What the tables of an engine's operators are made of: an entry says what refquant has of some of them."""

import sys
from typing import NamedTuple

from refquant.errors import BackendMissing

__all__ = ["Entry", "by_name", "apart", "cells", "print_table"]


class Entry(NamedTuple):
    """What refquant has of some operators.

    Attributes
    ----------
    names : str
        The engine's names, separated by blanks.
    ops : str
        The operators of `refquant.ops` that compute them; empty where there is none.
    text : str
        How, or why not.
    """

    names: str
    ops: str
    text: str = ""


def by_name(coverage):
    """Return {name: entry}."""
    return {name: entry for entry in coverage for name in entry.names.split()}


def apart(theirs, coverage):
    """Return (names of the engine's that the table lacks, names of the table that the engine lacks).

    Examples
    --------
    >>> apart(["add", "mul"], [Entry("add sub", "add")])
    (['mul'], ['sub'])
    """
    theirs, ours = set(theirs), set(by_name(coverage))
    return sorted(theirs - ours), sorted(ours - theirs)


def cells(entries, name):
    """Return the end of a Markdown row: the operators of refquant, and how, or why not."""
    entry = entries.get(name, Entry("", "", "new: not looked at yet"))
    return f"{entry.ops.replace(' ', ', ') or '–'} | {entry.text} |"


def print_table(table):
    """Print what `table` returns, or what is not installed."""
    try:
        print(table())
    except BackendMissing as missing:
        sys.exit(f"refquant: {missing}")
