"""Broadcasting of operands, and what an engine's loop over them holds fixed."""

import numpy as np

from refquant.errors import ShapeError

__all__ = ["broadcast_shape", "spread", "scalar_side"]


def broadcast_shape(place, **operands):
    """Return the common shape of named arrays, tensors or shapes, or say that they have none."""
    shapes = {name: getattr(operand, "shape", operand) for name, operand in operands.items()}
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError:
        shapes = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ShapeError(f"{place}: {shapes} do not broadcast; from the last axis on, lengths must be equal or 1") from None


def spread(values, shape):
    """Return an array of that shape that lies contiguous in memory."""
    return np.ascontiguousarray(np.broadcast_to(values, shape)).reshape(shape)


def scalar_side(a, b):
    """Return which operand ONNX Runtime's broadcaster holds fixed along its innermost run: "a", "b" or None.

    That is the operand of length 1 on the last axis on which the two are not both of length 1; before that axis is found,
    the broadcaster looks only at axes that both have.

    Parameters
    ----------
    a, b : tuple of int
        Shapes.

    Examples
    --------
    >>> scalar_side((2, 3), (3,)), scalar_side((2, 3), (2, 1)), scalar_side((), (4,)), scalar_side((1,), (1,))
    (None, 'b', 'a', 'a')
    """
    common = min(len(a), len(b))
    for i in range(1, common + 1):
        if a[-i] != 1 or b[-i] != 1:
            return None if a[-i] == b[-i] else "a" if a[-i] == 1 else "b"
    if not common and (a or b) and (*a, *b)[-1] != 1:
        return "b" if a else "a"
    return "a"
