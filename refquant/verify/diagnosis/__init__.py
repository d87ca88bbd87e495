"""Diagnosis: which cause, or which few, turn the oracle's bits into somebody's."""

from refquant.verify.diagnosis.causes import CAUSES
from refquant.verify.diagnosis.diagnose import diagnose
from refquant.verify.diagnosis.result import Diagnosis, Explanation

__all__ = ["CAUSES", "Diagnosis", "Explanation", "diagnose"]
