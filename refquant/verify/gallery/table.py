"""`PUZZLES`: every puzzle once."""

from refquant.errors import ArgumentError, choose
from refquant.verify.gallery.onnxruntime import ONNXRUNTIME
from refquant.verify.gallery.pytorch import PYTORCH
from refquant.verify.gallery.tensorflow import TENSORFLOW

__all__ = ["PUZZLES", "find"]

PUZZLES = (*PYTORCH, *TENSORFLOW, *ONNXRUNTIME)

if len({puzzle.name for puzzle in PUZZLES}) != len(PUZZLES):
    raise ArgumentError("gallery: two puzzles share a name; rename one")


def find(name):
    """Return the puzzle of a name.

    >>> find("pytorch-44939").link
    'https://github.com/pytorch/pytorch/issues/44939'
    """
    return {puzzle.name: puzzle for puzzle in PUZZLES}[choose("gallery", "puzzle", name, [puzzle.name for puzzle in PUZZLES])]
