"""Print the networks that refquant knows, or the layers of one."""

import json

from refquant.cli.console import paint, table
from refquant.cli.numbers import count

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  refquant zoo                          every network: parameters, multiply-adds, and where these figures are published
  refquant zoo resnet50                 its layers, their shapes, parameters and multiply-adds
  refquant zoo resnet50 --width 0.25 --size 64
"""


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a network")
    parser.add_argument("--size", type=count, metavar="N", help="height and width of images, or the number of tokens")
    parser.add_argument("--width", type=float, default=1, metavar="F", help="factor of all numbers of channels (default 1)")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments):
    """Print; exit status 1 where a count is not the published one."""
    from refquant.errors import ArgumentError

    if arguments.name is None:
        if arguments.size is not None or arguments.width != 1:
            raise ArgumentError("zoo: --size and --width go with a NAME; name a network")
        return _list(arguments.json)
    return _layers(arguments)


def _list(as_json):
    from refquant import zoo
    from refquant.graph.work import multiply_adds

    rows, wrong = [], 0
    for architecture in zoo.ARCHITECTURES:
        model = zoo.build(architecture.name, empty=True)
        giga = f"{sum(multiply_adds(model).values()) / 1e9:.3f}"
        right = model.parameter_count == architecture.parameters and giga == f"{architecture.giga_multiply_adds:.3f}"
        wrong += not right
        shape = "x".join(str(n) for n in architecture.shape(lambda n: n)[1:])
        rows.append((architecture.name, shape, len(model.nodes), model.parameter_count, float(giga), right, architecture.source, architecture.counted))
    trained = zoo.names()
    if as_json:
        keys = "name", "input", "nodes", "parameters", "giga_multiply_adds", "as_published", "source", "own_count_of_multiply_adds"
        print(json.dumps({"architectures": [dict(zip(keys, row)) for row in rows], "trained": list(trained)}, indent=1))
        return int(wrong > 0)
    sources = list(dict.fromkeys(row[6] for row in rows))
    lines = [("network", "input", "nodes", "parameters", "GMAC", "published", "source")]
    lines += [(*row[:3], f"{row[3]:,}", f"{row[4]:.3f}", _agreement(row[5], row[7]), f"[{sources.index(row[6]) + 1}]") for row in rows]
    print(*table([tuple(str(cell) for cell in line) for line in lines]), sep="\n")
    print("", *(f"[{i + 1}] {source}" for i, source in enumerate(sources)), f"trained and bundled: {', '.join(trained)}", sep="\n")
    return int(wrong > 0)


def _agreement(right, counted):
    """What the table says of the published figures; multiply-adds that nobody published are held against an earlier count alone."""
    if not right:
        return "OTHERWISE"
    return "parameters; GMAC is our own count" if counted else "the same"


def _layers(arguments):
    from refquant import zoo
    from refquant.graph.table import settings_text, shape_text
    from refquant.graph.work import multiply_adds

    if arguments.name in zoo.names():
        model = zoo.load(arguments.name)
    else:
        model = zoo.build(arguments.name, size=arguments.size, width=arguments.width, empty=True)
    shapes, work = model.shapes(), multiply_adds(model)
    rows = []
    for node in model.nodes:
        count = sum(int(node.params[key].size) for key in ("weight", "bias", "value") if key in node.params)
        rows.append((node.path or node.name, node.op, shape_text(shapes[node.name]), settings_text(node), count, work.get(node.name, 0)))
    if arguments.json:
        keys = "path", "op", "shape", "settings", "parameters", "multiply_adds"
        print(json.dumps({"name": model.name, "parameters": model.parameter_count, "layers": [dict(zip(keys, row)) for row in rows]}, indent=1))
        return 0
    print(paint(f"{model.name}: {len(model.nodes)} nodes, {model.parameter_count:,} parameters, {sum(work.values()) / 1e9:.3f} GMAC", "bold"))
    lines = [("layer", "operation", "shape", "settings", "parameters", "MAC")]
    lines += [(*row[:4], *(f"{n:,}" if n else "" for n in row[4:])) for row in rows]
    print(*table(lines), sep="\n")
    return 0
