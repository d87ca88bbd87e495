"""Where INT8 costs a network accuracy: float against quantized, layer by layer, cause by cause.

>>> from refquant import zoo
>>> from refquant.data import load_split
>>> from refquant.drift import analyse
>>> from refquant.workflow import get_default_qconfig_mapping
>>> x, labels = load_split("digits", "test")
>>> seen, _ = load_split("digits", "calibration")
>>> report = analyse(zoo.load("digits_mobilenet"), get_default_qconfig_mapping("qnnpack"), x[:128], labels[:128], calibration=seen, numerics="onednn")
>>> report.verdict.cause
'weights'
"""

from refquant.drift.analyse import analyse
from refquant.drift.causes import CAUSES
from refquant.drift.compare_paths import compare_paths
from refquant.drift.even_out import even_out
from refquant.drift.measures import Error, sqnr
from refquant.drift.paths_report import PathsReport
from refquant.drift.report import Accuracy, LayerRecord, Report, Step, Verdict

__all__ = ["analyse", "compare_paths", "PathsReport", "even_out", "Report", "LayerRecord", "Accuracy", "Step", "Verdict", "Error", "CAUSES", "sqnr"]
