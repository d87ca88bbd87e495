"""Where the time goes of all that stays below its bar, or of all that was asked for."""

from typing import NamedTuple

from refquant.cli.bench_layers import layer_table, layer_works
from refquant.cli.bench_parts import own_words, part_table, part_works
from refquant.cli.bench_profile import plain_profile, profile_table, profile_works

__all__ = ["Where", "where_time_goes"]


class Where(NamedTuple):
    """Profiles of products and convolutions, parts of other calls, layers of networks, and what works tell themselves."""

    products: list
    parts: list
    layers: list
    words: list

    @property
    def works(self):
        """The names of the works that something is told of."""
        return {work.name for work, _ in (*self.products, *self.parts, *self.words)} | ({"networks"} if self.layers else set())

    def lines(self):
        """All of it as lines of at most 100 columns."""
        words = [line for work, told in self.words for line in ("", f"{work.name}: where the time goes", *(f"  {line}" for line in told))]
        return [*(profile_table(self.products) if self.products else []), *part_table(self.parts), *layer_table(self.layers), *words]

    def plain(self):
        """All of it as dicts, lists, strings and numbers."""
        return {
            "profile": plain_profile(self.products),
            "parts": {work.name: [p._asdict() for p in profiles] for work, profiles in self.parts},
            "layers": {name: [layer._asdict() for layer in rows] for name, rows, _ in self.layers},
            "where": {work.name: told for work, told in self.words},
        }


def where_time_goes(rows, found, settings, progress=lambda line: None):
    """Profile works.

    Parameters
    ----------
    rows : list of (Work, list of Plan)
        From `refquant.backends.bench.run.chosen` or `below`.
    found : list of WorkResult
    settings : Settings
        Parts of products and layers are timed on one thread: with more of them they are left out.
    progress : callable

    Returns
    -------
    Where
    """
    alone = settings.threads == 1
    return Where(
        profile_works(rows, settings, progress) if alone else [], part_works(rows, settings, progress),
        layer_works(rows, settings) if alone else [], own_words(found, rows, settings),
    )  # fmt: skip
