"""Print what a profile says, or how two differ."""

import textwrap
from dataclasses import fields

from refquant import numerics
from refquant.cli.console import paint, table
from refquant.numerics.profile import Dispatch, section_types

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  refquant profiles                     every profile, and the engine that it describes; and named variants
  refquant profiles onednn              every field of one, its named variants, and where it is not one formula, with an example each
  refquant profiles --ways              where engines are not one formula: tails, threads, memory formats, levels, kernels
  refquant profiles fbgemm onednn       where two differ
"""


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="none, one or two profiles")
    parser.add_argument("--ways", action="store_true", help="every place where an engine is not one formula, with numbers")


def run(arguments):
    """Print; exit status 0."""
    from refquant.errors import ArgumentError

    profiles = [numerics.get(name) for name in arguments.names]
    if arguments.ways:
        if profiles:
            raise ArgumentError(f"profiles: --ways shows all engines, but {profiles[0].name} was named too; leave one of them out")
        print(*(line for way in numerics.WAYS for line in _way(way)), sep="\n")
        return 0
    if len(profiles) > 2:
        raise ArgumentError(f"profiles: {len(profiles)} names were given but two are compared at most; leave {profiles[2].name} out")
    print(*[_overview, _one, _two][len(profiles)](*profiles), sep="\n")
    return 0


def _overview():
    rows = [(profile.name, profile.engine) for profile in numerics.PROFILES]
    rows += [(f"{base}+{variant.name}", f"{variant.kind}: {variant.explanation}") for variant in numerics.VARIANTS for base in variant.bases]
    return table(rows)


def _text(value):
    return str(getattr(value, "value", value))


def _form(form):
    """Yield (field, value) of a form, of both sides of a dispatch."""
    for field in fields(form):
        value = getattr(form, field.name)
        if isinstance(form, Dispatch) and field.name in ("yes", "no"):
            yield from ((f"{field.name}.{name}", text) for name, text in _form(value))
        else:
            yield field.name, _text(value)


def _one(profile):
    yield paint(profile.name, "bold")
    yield f"  engine  {profile.engine}"
    yield f"  source  {profile.source}"
    yield ""
    rows = [("section", "field", "value")]
    for section in section_types():
        form = getattr(profile, section)
        lines = [("", "not offered")] if form is None else list(_form(form))
        rows += [(section if not i else "", *line) for i, line in enumerate(lines)]
    yield from table(rows)
    yield from (line for way in numerics.ways_of(profile.name) for line in _way(way))
    yield from _variants(profile.name)


def _way(way):
    """Yield a place where a profile is not one formula, with its example."""
    yield ""
    yield f"{paint(way.name, 'bold')}: {way.explanation} ({', '.join(way.profiles)})"
    yield from _indented(way.example)


def _indented(example):
    return (f"  {line}" for line in textwrap.dedent(example).strip().splitlines())


def _variants(name):
    """Yield the variants of a profile, or the variant that it is, each with its example."""
    for base, variant in ((base, variant) for variant in numerics.VARIANTS for base in variant.bases):
        full = f"{base}+{variant.name}"
        if name in (base, full):
            yield ""
            yield f"{paint(full, 'bold')}  {variant.kind}: {variant.explanation}"
            yield from _indented(variant.example)


def _two(mine, theirs):
    differences = mine.differences(theirs)
    if not differences:
        yield f"{mine.name} and {theirs.name} do not differ."
        return
    rows, last = [("section", "field", mine.name, theirs.name)], None
    for section, field, a, b in differences:
        rows.append((section if section != last else "", field, *("-" if v is None else str(v) for v in (a, b))))
        last = section
    yield from table(rows)
