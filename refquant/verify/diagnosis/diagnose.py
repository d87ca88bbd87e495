"""`diagnose`: why do these bits differ?"""

import numpy as np

from refquant import numerics as profiles
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, ShapeError
from refquant.verify.diagnosis.account import account
from refquant.verify.diagnosis.bench import Bench
from refquant.verify.diagnosis.call import base_call, forms_of
from refquant.verify.diagnosis.causes import SOLVED
from refquant.verify.diagnosis.form_causes import SCHEMES, field_words
from refquant.verify.diagnosis.places import describe_places
from refquant.verify.diagnosis.result import Diagnosis, Explanation
from refquant.verify.diagnosis.search import search
from refquant.verify.problem import Problem

__all__ = ["diagnose"]

_SHOWN_ALTERNATIVES = 12


def diagnose(op, *, actual, numerics="fbgemm", most=3, seconds=20.0, seed=0, **arguments):
    """Say why somebody's output bits differ from the oracle's.

    All profiles, every field of the profile's forms and the causes of `refquant.verify.diagnosis.CAUSES` are tried: single ones, then
    pairs, then triples. The smallest set that computes *every* bit of `actual` wins; others of its size are reported beside it.

    Parameters
    ----------
    op : str
        An operator of `refquant.ops`.
    actual : array_like or QTensor
        The output bits in question: codes, or float32 numbers.
    numerics : str or Numerics
        The profile that the bits were expected to follow.
    most : int
        The largest number of causes in a set.
    seconds : float
        When to stop searching.
    seed : int
        Of the sample of outputs on which hypotheses are sifted; an explanation is always checked on all outputs.
    **arguments
        What the operator was called with, by keyword.

    Returns
    -------
    Diagnosis

    Raises
    ------
    ArgumentError, ShapeError
        Unknown or missing arguments, bits of another dtype or shape than the operator's output.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.arange(64, dtype=np.uint8).reshape(8, 8), rq.QParams(0.5, 3, "uint8"))
    >>> w = rq.QTensor(np.eye(8, dtype=np.int8), rq.QParams(0.25, 0, "int8"))
    >>> out = rq.QParams(0.25, 129, "uint8")
    >>> theirs = rq.ops.linear(x, w, out=out, numerics=rq.numerics.get("onnx").replace(linear={"zero_point": "before"}))
    >>> d = diagnose("linear", actual=theirs, x=x, w=w, out=out, numerics="onnx")
    >>> d.explained, d.causes, d.numerics.linear.zero_point
    (True, ('adds the zero point before rounding',), 'before')
    """
    call, expected, base = base_call(op, arguments, numerics)
    actual = _checked(op, actual, expected)
    bench = Bench(call, base, np.ascontiguousarray(actual), np.ascontiguousarray(expected), seed)
    common = dict(op=op, against=base.name, outputs=int(expected.size), differing=int(bench.differing.size), problem=Problem(op, call.arguments), base=base)
    if not bench.differing.size:
        return Diagnosis(explained=True, numerics=base, profiles=(base.name,), **common)
    common["account"] = account(call, bench)
    found = search(call, base, bench, most=most, seconds=seconds)
    same = tuple(p.name for p in profiles.PROFILES if _computes(call, p, bench))
    ordered = _distinct(sorted(found.explanations, key=lambda h: _rank(h, call, same)))
    explanations = [_explanation(h, base, 0) for h in ordered[: _SHOWN_ALTERNATIVES + 1]]
    nearest = () if explanations else tuple(_explanation(h, base, h.score[0]) for h in found.nearest)
    common.update(
        ruled_out={h.words[0]: h.score[0] for h in found.ruled_out}, silent=tuple(h.words[0] for h in found.silent), profiles=same,
        nearest=nearest, sampled=int(bench.levels["sample"].size), tried=bench.tried, complete=found.complete,
        places=describe_places(bench.shape, bench.differing, bench.expected, bench.actual),
    )  # fmt: skip
    if not explanations:
        return Diagnosis(explained=False, numerics=nearest[0].numerics if nearest else base, **common)
    first = explanations[0]
    return Diagnosis(
        explained=True, numerics=first.numerics, causes=first.causes, names=first.names, transformations=first.transformations,
        means=_meaning(first.hypothesis, call, bench), evidence=_evidence(first.hypothesis, call, bench), alternatives=tuple(explanations[1:]),
        explanation=first, **common,
    )  # fmt: skip


def _checked(op, actual, expected):
    actual = np.asarray(actual.values if isinstance(actual, QTensor) else actual)
    place = f"diagnose[{op}]"
    if actual.shape != expected.shape:
        hint = "; it looks like NHWC, move the channels to axis 1" if actual.ndim > 2 and actual.shape == (expected.shape[0], *expected.shape[2:], expected.shape[1]) else ""
        raise ShapeError(f"{place}: actual has shape {actual.shape} but the operator gives {expected.shape}{hint or '; pass the output of this very call'}")
    if actual.dtype == expected.dtype:
        return actual
    info = np.iinfo(expected.dtype) if expected.dtype.kind in "iu" else None
    if info is None or actual.dtype.kind not in "iu" or (actual.size and (actual.min() < info.min or actual.max() > info.max)):
        raise ArgumentError(f"{place}: actual has dtype {actual.dtype} but the operator gives {expected.dtype}; pass codes of that dtype, not real numbers")
    return actual.astype(expected.dtype)


def _computes(call, profile, bench):
    forms = forms_of(call, profile)
    if forms is None:
        return False
    other = call.but(forms=forms)
    score = bench.score(other, "sample")
    return score is not None and score[0] == 0 and bench.wrong_everywhere(other) == 0


def _is_form(candidate):
    return not candidate.cause.ops


def _rank(hypothesis, call, same):
    """Order explanations: the least surprising causes first, values that a profile with these very bits has before others."""
    known = 0.0
    for c in hypothesis.candidates:
        if _is_form(c) and c.cause.name != "profile" and any(_has_value(call, name, c) for name in same):
            known -= 0.2
    return len(hypothesis.candidates), hypothesis.surprise + known


def _distinct(hypotheses):
    """Drop hypotheses that lead to the same call as an earlier one."""
    kept = []
    for h in hypotheses:
        if not any(_same_causes(h, k) or _same_call(h.call, k.call) or _solved_alike(h, k) for k in kept):
            kept.append(h)
    return kept


def _same_causes(a, b):
    return len(a.candidates) == len(b.candidates) and all(c in b.candidates for c in a.candidates)


def _solved_alike(a, b):
    """Whether two hypotheses differ only in the number that was solved."""
    keys = [[(c.cause.name, None if c.cause.name in SOLVED else c.key) for c in h.candidates] for h in (a, b)]
    return keys[0] == keys[1]


def _same_call(a, b):
    def same(p, q):
        return p.keys() == q.keys() and all(p[k] is q[k] or (isinstance(p[k], (int, str, tuple)) and p[k] == q[k]) for k in p)

    return a.forms == b.forms and same(a.quirks, b.quirks) and same(a.arguments, b.arguments)


def _has_value(call, name, candidate):
    section, _, field = candidate.cause.name.partition(".")
    form = forms_of(call, profiles.get(name))[section]
    value = getattr(form, field, None)
    return str(getattr(value, "value", value)) == candidate.key


def _explanation(hypothesis, base, left):
    names = tuple(c.name for c in hypothesis.candidates)
    whole = len(names) == 1 and names[0].startswith("profile[")
    return Explanation(
        causes=hypothesis.words, names=names, left=left, hypothesis=hypothesis,
        numerics=profiles.get(hypothesis.candidates[0].key) if whole else hypothesis.call.numerics(base),
        transformations=tuple(w for w, c in zip(hypothesis.words, hypothesis.candidates) if not _is_form(c)),
    )  # fmt: skip


def _meaning(hypothesis, call, bench):
    """Return those differences of a whole profile that the data need, in words: one after the other is taken back."""
    if not any(c.cause.name == "profile" for c in hypothesis.candidates):
        return ()
    now = hypothesis.call
    rows = []
    for section, form in now.forms.items():
        before = call.forms[section]
        if type(form) is not type(before):
            rows.append((section, None, form))
            continue
        for field in form.__dataclass_fields__:
            if getattr(form, field) != getattr(before, field):
                back = now.with_field(section, field, getattr(before, field))
                score = bench.score(back, "sample")
                if score is not None and score[0] == 0 and bench.wrong_everywhere(back) == 0:
                    now = back
                else:
                    rows.append((section, field, form))
    return tuple(field_words(form, field, getattr(form, field)) if field else SCHEMES.get(type(form).__name__, f"has a {type(form).__name__}") for _, field, form in rows)


def _evidence(hypothesis, call, bench):
    alone = {}
    for candidate, words in zip(hypothesis.candidates, hypothesis.words):
        changed = candidate.apply(call)
        alone[words] = bench.fixed_by(changed) if changed is not None else 0
    return alone
