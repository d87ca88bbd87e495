"""Two transpositions that undo each other go, as ONNX Runtime writes a model anew before it fuses anything."""

__all__ = ["cancel_transposes"]


def cancel_transposes(graph):
    """Drop each two Transposes that undo each other, with nothing or quantizers between that nothing else reads; return whether there were any.

    Pairs of quantizers around them then stand in a row, and join.

    Parameters
    ----------
    graph : object
        With ``nodes``, ``maker``, ``readers``, ``outputs`` and ``constants``, as `refquant.interop.onnx.qdq.fuse_qdq` has it; `nodes` changes.

    Notes
    -----
    ONNX Runtime moves Transposes past further operators to this end, which is not done here.

    Source
    ------
    ONNX Runtime 1.32, core/optimizer/transpose_optimization/onnx_transpose_optimization.cc.
    """
    found = False
    while (pair := next((p for node in graph.nodes if node.op == "Transpose" and (p := _pair(graph, node))), None)) is not None:
        found = True
        first, between, last = pair
        end = between[-1].outputs[0] if between else first.inputs[0]
        start = between[0].name if between else None
        nodes = []
        for node in graph.nodes:
            if node.name in (first.name, last.name):
                continue
            inputs = [end if name == last.outputs[0] else name for name in node.inputs]
            if node.name == start:
                inputs[0] = first.inputs[0]
            nodes.append(node._replace(inputs=tuple(inputs)))
        graph.nodes = nodes
        graph.index()
    return found


def _pair(graph, last):
    """Return (first, quantizers between, last), or None."""
    if last.outputs[0] in graph.outputs or last.domain:
        return None
    between, value = [], last.inputs[0]
    while (maker := graph.maker.get(value)) is not None and len(graph.readers[value]) == 1 and value not in graph.outputs:
        if maker.op == "Transpose" and not maker.domain:
            perm, back = maker.attrs.get("perm"), last.attrs.get("perm")
            undone = perm == back is None or perm and back and len(perm) == len(back) and [perm[i] for i in back] == list(range(len(perm)))
            return (maker, between[::-1], last) if undone else None
        if maker.op not in ("QuantizeLinear", "DequantizeLinear") or any(getattr(graph.constants.get(n), "size", 0) != 1 for n in maker.inputs[1:]):
            return None
        between.append(maker)
        value = maker.inputs[0]
    return None
