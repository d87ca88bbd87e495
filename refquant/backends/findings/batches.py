"""Calibration batches of findings: three, the first with the widest range; and a small one."""

import numpy as np

__all__ = ["BATCHES", "SMALL"]

BATCHES = tuple((np.random.Generator(np.random.PCG64(0)).standard_normal((1, 1000)) * scale).astype(np.float32) for scale in (4.0, 1.0, 2.0))
SMALL = np.float32([[-1, -0.5], [-0.25, 0], [0.25, 0.5], [0.75, 1]])
