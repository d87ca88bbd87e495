"""How often networks are right, and how often they answer as the float network does."""

import numpy as np

from refquant.drift.measures import ErrorSums
from refquant.drift.report import Accuracy, Step

__all__ = ["Tally", "predictions"]


def predictions(output):
    """Return the class of the greatest score in each row, the first of equals; None where rows are not scores."""
    output = np.asarray(output)
    return output.argmax(1) if output.ndim == 2 and output.shape[1] > 1 else None


class Tally:
    """Collects the answers of the float network and of its variants, batch by batch.

    Examples
    --------
    >>> tally = Tally()
    >>> fp32 = np.float32([[1, 0], [0, 1], [1, 0]])
    >>> tally.add(fp32, np.array([0, 1, 1]), {"INT8": np.float32([[1, 0], [1, 0], [0, 1]])})
    >>> tally.accuracy("INT8")
    Accuracy(images=3, fp32=2, int8=2, changed=2, broken=1, repaired=1)
    """

    def __init__(self):
        self.images, self.fp32, self.labelled = 0, 0, True
        self.sums, self.changed, self.correct, self.broken = {}, {}, {}, {}

    def add(self, reference, labels, outputs):
        """Take in one batch: the float network's output, the labels or None, and the other outputs by name."""
        expected = predictions(reference)
        self.images += len(reference)
        self.labelled = self.labelled and labels is not None and expected is not None
        if self.labelled:
            self.fp32 += int((expected == labels).sum())
        for name, output in outputs.items():
            self.sums.setdefault(name, ErrorSums()).add(reference, output)
            found = predictions(output)
            self._count(self.changed, name, None if expected is None else found != expected)
            self._count(self.correct, name, found == labels if self.labelled else None)
            self._count(self.broken, name, (found != labels) & (expected == labels) if self.labelled else None)

    @staticmethod
    def _count(table, name, mask):
        table[name] = None if mask is None else (table.get(name) or 0) + int(mask.sum())

    def accuracy(self, name):
        """Return the `Accuracy` of a variant."""
        if not self.labelled:
            return Accuracy(images=self.images, changed=self.changed[name])
        broken = self.broken[name]
        repaired = self.correct[name] - self.fp32 + broken
        return Accuracy(images=self.images, fp32=self.fp32, int8=self.correct[name], changed=self.changed[name], broken=broken, repaired=repaired)

    def step(self, name):
        """Return the `Step` of a variant."""
        correct = self.correct[name] if self.labelled else None
        return Step(name=name, correct=correct, changed=self.changed[name], sqnr=self.sums[name].error().sqnr)
