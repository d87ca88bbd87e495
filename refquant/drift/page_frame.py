"""What all pages share: the frame around their parts, and tables that scroll by themselves where a window is narrow."""

from html import escape

from refquant.drift.page_style import SCRIPT, STYLE

__all__ = ["page_frame", "sortable_table"]


def page_frame(title, parts, style=""):
    """Return a whole page of HTML that needs no other file and no network.

    Parameters
    ----------
    title : str
    parts : list of str
        HTML, one below the other; empty ones are left out.
    style : str
        CSS beside that of every page.
    """
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
    start = f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{STYLE}{style}</style></head>\n<body><main>\n'
    return start + "\n".join(filter(None, parts)) + f"\n</main><script>{SCRIPT}</script></body></html>\n"


def sortable_table(names, rows, kind=""):
    """Return a table whose headings sort it.

    Parameters
    ----------
    names : sequence of str
        The headings.
    rows : iterable of str
        HTML, a ``<tr>`` each; a cell is sorted by its ``data-value`` where it has one.
    kind : str
        A further CSS class.

    Examples
    --------
    >>> sortable_table(["a < b"], ["<tr><td>1</td></tr>"])
    '<div class="scroll"><table class="sortable"><thead><tr><th scope="col">a &lt; b</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table></div>'
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    return f'<div class="scroll"><table class="{f"sortable {kind}".strip()}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
