"""Show which range each calibrator finds on one distribution, and what that costs."""

import numpy as np

from refquant.cli.console import table
from refquant.cli.numbers import count, whole
from refquant.errors import ArgumentError, choose

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  refquant calibrators                          all of them on a normal distribution with a few outliers
  refquant calibrators --distribution relu      on another one
  refquant calibrators --data x.npy --bits 4    on your own numbers, for 4 bits
"""

DISTRIBUTIONS = {
    "outliers": lambda rng, n: np.append(rng.standard_normal(n - 20), rng.uniform(15, 20, 20)),
    "normal": lambda rng, n: rng.standard_normal(n),
    "laplace": lambda rng, n: rng.laplace(size=n),
    "relu": lambda rng, n: np.maximum(rng.standard_normal(n), 0),
    "uniform": lambda rng, n: rng.uniform(-1, 1, n),
}


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument("--distribution", default="outliers", metavar="NAME", help=f"{', '.join(DISTRIBUTIONS)} (outliers)")
    parser.add_argument("--data", metavar="FILE.npy", help="numbers of your own instead")
    parser.add_argument("--size", type=count, metavar="N", default=20_000, help="how many numbers are drawn (20000)")
    parser.add_argument("--bits", type=int, default=8, choices=range(2, 9), metavar="2 … 8", help="of the codes (8)")
    parser.add_argument("--seed", type=whole, default=0, metavar="S", help="of the numbers that are drawn (0)")


def run(arguments):
    """Print a table, the least error first; exit status 0."""
    x = _numbers(arguments)
    top = 2**arguments.bits - 1
    rows = sorted((_row(name, make(top), x) for name, make in _calibrators().items()), key=lambda row: row[-1])
    print(f"{x.size:,} numbers from {x.min():.4g} to {x.max():.4g}, {arguments.bits} bits")
    print(*table([("calibrator", "from", "to", "cut off", "mean squared error"), *(_cells(row) for row in rows)]), sep="\n")
    return 0


def _numbers(arguments):
    if arguments.data is None:
        if arguments.size < 1000:
            raise ArgumentError(f"calibrators: --size {arguments.size} is too few to tell calibrators apart; draw 1000 or more")
        draw = DISTRIBUTIONS[choose("calibrators", "--distribution", arguments.distribution, DISTRIBUTIONS)]
        return draw(np.random.default_rng(arguments.seed), arguments.size).astype(np.float32)
    try:
        x = np.load(arguments.data, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArgumentError(f"calibrators: --data {arguments.data}: {getattr(error, 'strerror', None) or error}; give a .npy file of real numbers") from None
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "fiu" or not x.size:
        raise ArgumentError(f"calibrators: --data {arguments.data}: must hold an array of real numbers; save it with numpy.save")
    return x.astype(np.float32).reshape(-1)


def _calibrators():
    """Return what is compared: name to a function of the largest code."""
    from refquant import observers as o

    codes = lambda cls, **more: lambda top: cls(quant_min=0, quant_max=top, **more)  # noqa: E731
    return {
        "minimum and maximum": codes(o.MinMaxObserver),
        "histogram (PyTorch)": codes(o.HistogramObserver),
        "entropy (ONNX Runtime)": lambda top: o.EntropyObserver(2048, (top + 1) // 2, quant_min=0, quant_max=top),
        "percentile 99.999 (ONNX Runtime)": codes(o.PercentileObserver),
        "percentile 99.9 (ONNX Runtime)": codes(o.PercentileObserver, percentile=99.9),
        "KL divergence (TensorRT)": lambda top: o.KlDivergenceObserver(levels=(top + 1) // 2, quant_min=0, quant_max=top),
        "KL divergence (PPQ)": codes(o.PpqKlObserver),
        "mean squared error (PPQ)": codes(o.PpqMseObserver),
        "mean squared error (MQBench)": codes(o.LpNormObserver),
        "EMA quantile (MQBench, as meant)": codes(o.EmaQuantileObserver, threshold=0.999, accumulate=True),
        "mean ± 2.6 deviations (MQBench, as meant)": codes(o.ClipStdObserver, clip=True),
        "signal to noise (AIMET)": codes(o.SqnrObserver),
        "mean of quantiles (NNCF)": lambda top: o.StatisticRangeObserver.preset("MEAN_QUANTILE", quant_min=0, quant_max=top),
    }


def _row(name, observer, x):
    from refquant import ops

    observer(x)
    q = observer.calculate_qparams()
    low, high = (q.scale * (code - q.zero_point) for code in (q.qmin, q.qmax))
    back = ops.fake_quantize(x, q, numerics="fbgemm")
    half = q.scale / 2
    return name, low, high, float(np.mean((x < low - half) | (x > high + half))), float(np.mean((back.astype(np.float64) - x) ** 2))


def _cells(row):
    name, low, high, cut, error = row
    return name, f"{low:.4g}", f"{high:.4g}", f"{cut:.3%}", f"{error:.3g}"
