"""Little pictures as inline SVG: plain strings, colours by CSS class, so that a page's theme reaches them."""

import math
from html import escape

__all__ = ["svg", "rect", "line", "text", "dot", "number", "nice_ticks"]


def number(value):
    """Return a coordinate with two decimals, without trailing zeros.

    Examples
    --------
    >>> number(3.0), number(2.345)
    ('3', '2.35')
    """
    shown = f"{value + 1e-9:.2f}".rstrip("0").rstrip(".")
    return "0" if shown in ("-0", "") else shown


def svg(width, height, parts, label):
    """Return a picture of a given size that shrinks with the page.

    Examples
    --------
    >>> svg(10, 5, [rect(0, 0, 4, 5, "a")], "a box")
    '<svg viewBox="0 0 10 5" width="10" height="5" role="img" aria-label="a box"><rect x="0" y="0" width="4" height="5" class="a"/></svg>'
    """
    box = f'viewBox="0 0 {number(width)} {number(height)}" width="{number(width)}" height="{number(height)}"'
    return f'<svg {box} role="img" aria-label="{escape(label, quote=True)}">{"".join(parts)}</svg>'


def rect(x, y, width, height, kind, title=None, radius=0):
    """Return a rectangle; nothing where it would be empty."""
    if width <= 0 or height <= 0:
        return ""
    corner = f' rx="{number(radius)}"' if radius else ""
    start = f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"{corner} class="{kind}"'
    return start + _titled("rect", title)


def line(x1, y1, x2, y2, kind, title=None):
    """Return a straight line."""
    return f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" class="{kind}"' + _titled("line", title)


def dot(x, y, radius, kind, title=None):
    """Return a disc."""
    return f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" class="{kind}"' + _titled("circle", title)


def text(x, y, content, kind="", anchor="start"):
    """Return a line of text."""
    return f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}" class="{kind}">{escape(str(content))}</text>'


def _titled(tag, title):
    return "/>" if title is None else f"><title>{escape(title)}</title></{tag}>"


def nice_ticks(low, high, count=5):
    """Return round numbers that cover a range.

    Examples
    --------
    >>> nice_ticks(0, 47)
    [0.0, 10.0, 20.0, 30.0, 40.0]
    >>> nice_ticks(-0.3, 0.4, 4)
    [-0.2, 0.0, 0.2, 0.4]
    """
    raw = (high - low) / max(count, 1)
    if not raw > 0 or not math.isfinite(raw):
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]
