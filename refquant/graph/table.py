"""The text form of a model: a table of its nodes."""

__all__ = ["model_table", "shape_text", "settings_text"]


def shape_text(shape):
    """Return ``"N×16×8×8"``; empty where the shape is not known.

    Examples
    --------
    >>> shape_text((None, 16, 8, 8))
    'N×16×8×8'
    """
    return "" if shape is None else "×".join("N" if n is None else str(n) for n in shape)


def settings_text(node):
    """Return what sets a node apart: its parameters' shapes and the attributes that differ from the default."""
    from refquant.graph.opset import graph_op

    defaults = graph_op(node.op, "table").attrs
    parts = [_parameter(key, value) for key, value in node.params.items() if key in ("weight", "bias")]
    for key, value in node.attrs.items():
        if key in ("activation", "shape") and node.op != "reshape" or value == defaults[key]:
            continue
        parts.append(_qparams("out", value) if key == "out" else f"{key} {_plain(value)}")
    return ", ".join(parts)


def _parameter(key, value):
    qparams = getattr(value, "qparams", None)
    text = f"{key} {shape_text(value.shape)}"
    return text if qparams is None else f"{text} {qparams.dtype}{' per channel' if qparams.per_channel else ''}"


def _qparams(key, q):
    return f"{key} {q.dtype} scale {q.scale:.6g} zero {q.zero_point}"


def _plain(value):
    return type(value).__name__ if callable(value) else str(value).replace(" ", "")  # an observer, a model, an object of the user's


def model_table(model, extra=None):
    """Return the table of a model.

    Parameters
    ----------
    model : Model
    extra : dict of str to str, optional
        A last column by node name, with its heading under the key "".
    """
    shapes = model.shapes() if all(model.node(i).attrs["shape"] is not None for i in model.inputs) else {}
    heading = ["name", "op", "inputs", "shape", "settings"] + ([extra[""]] if extra else [])
    rows = [heading]
    for node in model.nodes:
        op = node.op + (f"+{node.attrs['activation']}" if node.attrs.get("activation") else "")
        row = [node.name, op, ", ".join(node.inputs), shape_text(shapes.get(node.name)), settings_text(node)]
        rows.append(row + ([extra.get(node.name, "")] if extra else []))
    widths = [max(len(row[i]) for row in rows) for i in range(len(heading))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
    numerics = getattr(model.numerics, "name", model.numerics)
    title = f"{model.name}: {len(model.nodes)} nodes, {model.parameter_count:,} parameters" + (f", numerics {numerics}" if numerics else "")
    return "\n".join([title, lines[0], "-" * max(map(len, lines)), *lines[1:], f"outputs: {', '.join(model.outputs)}", *_class_lines(model)])


def _class_lines(model):
    paths = {}
    for path, kind in model.classes.items():
        paths.setdefault(kind, []).append(path)
    return [f"class {kind}: {', '.join(found)}" for kind, found in paths.items()]
