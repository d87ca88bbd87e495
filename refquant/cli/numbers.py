"""Numbers on the command line: a bad one is refused with the rule it breaks."""

import argparse

__all__ = ["count", "whole", "minutes", "positive"]


def count(text):
    """Return a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return value


def whole(text):
    """Return a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 0")
    return int(text)


def positive(kind, what="number above 0"):
    """Return a parser of positive numbers of one kind, `int` or `float`."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < 1e6:
            raise argparse.ArgumentTypeError(f"{text!r} must be a {what}")
        return value

    return parse


#: A positive number of minutes.
minutes = positive(float, "positive number of minutes")
