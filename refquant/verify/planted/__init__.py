"""Planted faults: a sloppy engine told to be wrong in known ways, and the bench that shows what the diagnosis makes of it.

The engine is written from the engines' formulas with NumPy alone; it shares no code with the operators or the diagnosis.
"""

from refquant.verify.planted.bench import FAULTS, KINDS, THEMES, Examination, examine, plant, summary, themes_of
from refquant.verify.planted.fault import Fault
from refquant.verify.planted.unknown_faults import UNKNOWN

__all__ = ["Examination", "FAULTS", "Fault", "KINDS", "THEMES", "UNKNOWN", "examine", "plant", "summary", "themes_of"]
