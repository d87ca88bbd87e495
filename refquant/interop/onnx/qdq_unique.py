"""Each reader of dequantized numbers gets a dequantizer of its own, as ONNX Runtime writes a model anew before it fuses anything."""

__all__ = ["unique_dequantizers"]


def unique_dequantizers(graph):
    """Copy each DequantizeLinear that has more than one reader, or a reader and an output of the model; return whether there was one.

    No number changes; but units that fuse, and quantizers that move, need dequantizers that nothing else reads.

    Parameters
    ----------
    graph : object
        With ``nodes``, ``readers`` and ``outputs``, as `refquant.interop.onnx.qdq.fuse_qdq` has it; `nodes` changes.

    Source
    ------
    ONNX Runtime 1.32, core/optimizer/qdq_transformer/ensure_unique_dq_for_node_unit.cc.
    """
    shared = {n.outputs[0]: n for n in graph.nodes if n.op == "DequantizeLinear" and len(graph.readers.get(n.outputs[0], ())) + (n.outputs[0] in graph.outputs) > 1}
    taken, nodes = dict.fromkeys(shared, 0), []
    for node in graph.nodes:
        inputs = list(node.inputs)
        for i, value in enumerate(node.inputs):
            if value not in shared:
                continue
            taken[value] += 1
            if taken[value] > 1 or value in graph.outputs:
                made = shared[value]
                inputs[i] = f"{value}/{taken[value]}"
                nodes.append(made._replace(name=f"{made.name}/{taken[value]}", outputs=(inputs[i],)))
        nodes.append(node._replace(inputs=tuple(inputs)))
    graph.nodes = nodes
    graph.index()
    return bool(shared)
