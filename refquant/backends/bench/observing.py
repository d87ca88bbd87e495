"""Observers that look closer: histogram and ranges per channel, on 3.2 million float32."""

import numpy as np

import refquant as rq
from refquant.backends.bench.case import Bar, Case, Plan, Role, Work
from refquant.backends.bench.engines import torch_package
from refquant.backends.bench.gemm import ratios

__all__ = ["OBSERVING"]

_SHAPE = (16, 64, 56, 56)


def _batches():
    """Two batches, the second of a wider range."""
    rng = np.random.default_rng(11)
    return [rng.normal(0, sigma, _SHAPE).astype(np.float32) for sigma in (1.5, 2.5)]


def _theirs(name, batches, **options):
    """Return PyTorch's observer after some batches, and the last of them as a tensor."""
    torch = torch_package()
    from torch.ao import quantization

    observer = getattr(quantization, name)(**options)
    tensors = [torch.from_numpy(batch) for batch in batches]
    for tensor in tensors:
        observer(tensor)
    return observer, tensors[-1]


def _ours(name, batches, **options):
    observer = getattr(rq.observers, name)(**options)
    for batch in batches:
        observer(batch)
    return observer


def _watching(observer, batch):
    """One update; gives the observer, whose state is what is compared."""
    return lambda: (observer(batch), observer)[1]


def _state(observer):
    return [np.asarray(getattr(observer, name), np.float32) for name in ("histogram", "min_val", "max_val") if hasattr(observer, name)]


def _update(name, options, settings):
    batches = _batches()
    other, small = _ours(name, batches, **options), batches[-1][:1, :, :1, :1].copy()
    case = Case(f"{name} update", repeats=False, parts={"call": lambda: other(small), "reading": batches[-1].max})
    case.add("refquant", lambda: _watching(_ours(name, batches, **options), batches[-1]), Role.SUBJECT, bits=_state)
    case.add("torch", lambda: _watching(*_theirs(name, batches, **options)), bits=_state)
    return case


def _histogram_qparams(settings):
    batches = _batches()
    mine = _ours("HistogramObserver", batches)
    ends = _ours("MinMaxObserver", batches)
    case = Case("HistogramObserver qparams", parts={"parameters of a range": ends.calculate_qparams})
    case.add("refquant", lambda: mine.calculate_qparams, Role.SUBJECT, bits=lambda q: np.float64([q.scale, q.zero_point]))
    case.add("torch", lambda: _theirs("HistogramObserver", batches)[0].calculate_qparams, bits=lambda q: np.float64([v.item() for v in q]))
    return case


def _plan(name, **options):
    return Plan(f"{name} update", "", lambda settings: _update(name, options, settings))


OBSERVING = Work(
    "observers",
    "Histogram and per-channel observers on 16x64x56x56; rival: PyTorch",
    lambda: [
        _plan("HistogramObserver"),
        Plan("HistogramObserver qparams", "", _histogram_qparams),
        _plan("PerChannelMinMaxObserver", ch_axis=1),
    ],
    bars=(Bar("worst ratio", lambda rs: min(ratios(rs), default=None), 3),),
)
