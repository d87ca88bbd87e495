"""Published puzzles of INT8 inference, solved: the numbers of a thread, the oracle's, the live engine's, and the reason.

>>> from refquant.verify.gallery import find, solve
>>> print(solve(find("tensorflow-102943")).text())  # doctest: +ELLIPSIS
tensorflow-102943: ...
"""

from refquant.verify.gallery.puzzle import Claim, Puzzle, Row, Solution, solve
from refquant.verify.gallery.table import PUZZLES, find

__all__ = ["Claim", "PUZZLES", "Puzzle", "Row", "Solution", "find", "solve"]
