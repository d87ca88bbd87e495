"""`PUZZLES`: every puzzle once, by chapter."""

from refquant.errors import ArgumentError, choose
from refquant.verify.gallery.onnxruntime import ONNXRUNTIME
from refquant.verify.gallery.pytorch import PYTORCH
from refquant.verify.gallery.tensorflow import TENSORFLOW

__all__ = ["CHAPTERS", "PUZZLES", "find"]

#: What each chapter holds.
CHAPTERS = {"puzzles": "published puzzles, solved"}

PUZZLES = (*PYTORCH, *TENSORFLOW, *ONNXRUNTIME)

if len({puzzle.name for puzzle in PUZZLES}) != len(PUZZLES) or any(puzzle.chapter not in CHAPTERS for puzzle in PUZZLES):
    raise ArgumentError("gallery: two puzzles share a name, or one is in no chapter; rename it")


def find(name):
    """Return the puzzle of a name.

    >>> find("pytorch-44939").link
    'https://github.com/pytorch/pytorch/issues/44939'
    """
    return {puzzle.name: puzzle for puzzle in PUZZLES}[choose("gallery", "puzzle", name, [puzzle.name for puzzle in PUZZLES])]
