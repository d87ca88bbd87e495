"""A hypothesis: one call of an operator, the forms in force, and quirks that no form can say."""

import inspect

import numpy as np

from refquant import numerics as profiles
from refquant import ops
from refquant.core.layout import laid_as
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.errors import ArgumentError, choose
from refquant.numerics.dispatch import resolve, resolve_call
from refquant.numerics.profile import Dispatch, Numerics, section_types
from refquant.ops.pairing import has_vnni
from refquant.verify.problem import answer as answer_of

__all__ = ["PRODUCTS", "CONVOLUTIONS", "FUNCTIONS", "Call", "Memo", "base_call", "forms_of"]

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
FUNCTIONS = ("sigmoid", "tanh", "hardsigmoid", "hardswish", "elu", "leaky_relu", "gelu")
PRODUCTS = ("linear", *CONVOLUTIONS, "matmul_integer")

_OPS = {op.name: op for op in ops.OPS}
_MOST_BYTES = 1 << 28
_THROUGH_REAL = ("avg_pool2d", "adaptive_avg_pool2d", "cat")
# What the roles of an integer product are called where they are not called x and w.
_ROLES = {("matmul_integer", "x"): "a", ("matmul_integer", "w"): "b", ("dequantize", "x"): "q"}


class Memo(dict):
    """What was computed once, until its arrays take too much memory: then all is forgotten, and `epoch` counts up."""

    def __init__(self):
        super().__init__()
        self.bytes = self.epoch = 0

    def once(self, key, source, function):
        """Return ``function(source)``, computed once for each `key` and `source` object."""
        entry = self.get((key, id(source)))
        if entry is None or entry[0] is not source:
            entry = (source, function(source))
            self.bytes += getattr(entry[1], "nbytes", 0)
            if self.bytes > _MOST_BYTES:
                self.clear()
                self.bytes, self.epoch = 0, self.epoch + 1
            self[key, id(source)] = entry
        return entry[1]


class Call:
    """What somebody may have computed.

    Attributes
    ----------
    op : str
    arguments : dict
        Of the operator, all of them.
    forms : dict of str to Form
        The profile's sections that the operator reads.
    quirks : dict
        Deviations that are neither arguments nor forms; each key is read by one step of an evaluator.
    memo : Memo
        Transformed arrays, shared by all calls of a diagnosis so that equal arrays are one object.
    """

    __slots__ = ("op", "arguments", "forms", "quirks", "memo")

    def __init__(self, op, arguments, forms, quirks, memo):
        self.op, self.arguments, self.forms, self.quirks, self.memo = op, arguments, forms, quirks, memo

    def __getitem__(self, name):
        return self.arguments[name]

    def but(self, *, quirks=None, forms=None, **arguments):
        """Return a changed copy."""
        return Call(
            self.op,
            {**self.arguments, **arguments} if arguments else self.arguments,
            {**self.forms, **forms} if forms else self.forms,
            {**self.quirks, **quirks} if quirks else self.quirks,
            self.memo,
        )

    def once(self, key, source, function):
        """Return ``function(source)``, computed once for each `key` and `source` object."""
        return self.memo.once(key, source, function)

    def _name(self, role):
        return _ROLES.get((self.op, role), role)

    def codes(self, role):
        """Return the raw codes in a role; weights always output channels first."""
        override = self.quirks.get(("codes", role))
        if override is not None:
            return override
        value = self.arguments[self._name(role)]
        if self.op != "matmul_integer":
            return value.values
        return self.once("matmul weights", value, lambda b: np.ascontiguousarray(b.T)) if role == "w" else value

    def with_codes(self, role, values):
        """Return a call on other codes: in the arguments where the dtype still holds them, else as a quirk."""
        old = self.arguments[self._name(role)]
        dtype = old.dtype if self.op == "matmul_integer" else old.values.dtype
        if values.dtype != dtype or ("codes", role) in self.quirks:
            return self.but(quirks={("codes", role): values})
        if self.op == "matmul_integer":
            return self.but(**{self._name(role): np.ascontiguousarray(values.T) if role == "w" else values})
        if values.shape == old.values.shape and values.strides != old.values.strides:
            values = self.once(("laid as", old.values.strides), values, lambda v: laid_as(v, old.values))
        return self.but(**{self._name(role): QTensor(values, old.qparams)})

    def qparams(self, role):
        """Return the parameters in a role (``"out"`` included), or None."""
        value = self.arguments.get(self._name(role))
        return getattr(value, "qparams", value)

    def with_qparams(self, role, scale=None, zero_point=None, axis="same"):
        """Return a call with another scale or zero point in a role."""
        old = self.qparams(role)
        name = self._name(role)
        axis = old.axis if axis == "same" else axis
        new = QParams(
            old.scale if scale is None else scale, old.zero_point if zero_point is None else zero_point, old.dtype, axis,
            quant_min=old.qmin, quant_max=old.qmax, unchecked=True,
        )  # fmt: skip
        value = self.arguments[name]
        return self.but(**{name: QTensor(value.values, new) if isinstance(value, QTensor) else new})

    def zero(self, role):
        """Return the zero point in a role."""
        if self.op == "matmul_integer":
            return self.arguments[f"{self._name(role)}_zero_point"]
        return self.qparams(role).zero_point

    def with_zero(self, role, zero_point):
        """Return a call with another zero point in a role."""
        if self.op == "matmul_integer":
            return self.but(**{f"{self._name(role)}_zero_point": zero_point})
        if np.ndim(self.zero(role)) and not np.ndim(zero_point):
            zero_point = np.full(np.shape(self.zero(role)), zero_point)
        return self.with_qparams(role, zero_point=zero_point)

    def numerics(self, base):
        """Return `base` with this call's forms in place of its own."""
        key = ("numerics", base.name, *self.forms.items())
        if key not in self.memo:
            changed = {name: form for name, form in self.forms.items() if form != _resolved(self, base, name)}
            self.memo[key] = base.replace(**changed) if changed else base
        return self.memo[key]

    def with_field(self, section, field, value):
        """Return a call with one field of a form changed."""
        form = self.forms[section]
        key = ("field", form, field, value)
        if key not in self.memo:
            self.memo[key] = form.replace(**{field: value})
        return self.but(forms={section: self.memo[key]})

    @property
    def form(self):
        """The form of the section that is the operator's own, or None."""
        return next(iter(self.forms.values()), None)

    def run(self, base):
        """Return the operator's own answer; only for calls without quirks."""
        return _run(self.op, self.arguments, self.numerics(base))


def _run(op, arguments, numerics):
    if "numerics" in inspect.signature(_OPS[op].fast).parameters:
        arguments = {**arguments, "numerics": numerics}
    return answer_of(op, _OPS[op].fast(**arguments))


class _Witness(Numerics):
    """A profile that notes which of its sections are read."""

    def __getattribute__(self, name):
        if name in section_types():
            object.__getattribute__(self, "__dict__").setdefault("read", []).append(name)
        return object.__getattribute__(self, name)


def _sections_read(op, arguments, profile):
    """Return (sections that the operator reads, its answer)."""
    witness = object.__new__(_Witness)
    witness.__dict__.update(profile.__dict__)
    answer = _run(op, arguments, witness)
    read = dict.fromkeys(witness.__dict__.get("read", ()))
    return tuple(name for name in read if getattr(profile, name) is not None), answer


def _resolved(call, profile, section):
    if section in ("linear", "linear_int8"):
        signed = profile.linear_int8 is not None and call["x"].dtype == "int8"
        section = "linear_int8" if signed else "linear"
    form = getattr(profile, section)
    if not isinstance(form, Dispatch):
        return form
    if section == "add":
        return resolve_call(form, dtype=call["a"].dtype)
    if section.endswith("_pool"):
        return resolve_call(form, dtype=call["x"].dtype, even=_even(call))
    x, w = (call["a"], call["b"]) if section == "matmul" else (call["x"], call["w"])
    return resolve(form, x_shape=x.shape, w_shape=w.shape, groups=call.arguments.get("groups", 1), zero_points=np.atleast_1d(w.qparams.zero_point), vnni=has_vnni(profile.isa))


def _even(call):
    if call.op != "adaptive_avg_pool2d":
        return not call["ceil_mode"]
    return not any(n % o for n, o in zip(call["x"].shape[2:], np.broadcast_to(call["output_size"], 2)))


def forms_of(call, profile):
    """Return the forms of a profile for a call, or None where the profile does not offer the operation."""
    forms = {name: _resolved(call, profile, name) for name in call.forms}
    return None if any(form is None for form in forms.values()) else forms


def base_call(op, arguments, numerics):
    """Return the undisturbed call (arguments completed, packed weights unpacked, the profile's forms looked up), its answer, and the profile."""
    function = _OPS[choose("diagnose", "op", op, _OPS)].fast
    parameters = inspect.signature(function).parameters
    for name in arguments:
        choose(f"diagnose[{op}]", "argument", name, [p for p in parameters if p != "numerics"])
    for p in parameters.values():
        if p.default is p.empty and p.name not in arguments:
            raise ArgumentError(f"diagnose[{op}]: argument {p.name} is missing; give what {op} was called with, by keyword")
    full = {p.name: p.default for p in parameters.values() if p.default is not p.empty and p.name != "numerics"}
    full.update({name: _plain(op, value) for name, value in arguments.items()})
    profile = profiles.get(numerics)
    if op != "matmul_integer":
        profile = profile.on(full.pop("isa", None), f"diagnose[{op}]")
    sections, answer = _sections_read(op, full, profile)
    # Other formulas of a pool or concatenation may pass through real numbers where this profile's does not.
    more = ("quantize", "dequantize") if op in _THROUGH_REAL else ()
    call = Call(op, full, dict.fromkeys((*sections, *more)), {}, Memo())
    return call.but(forms={name: _resolved(call, profile, name) for name in call.forms}), answer, profile


def _plain(op, value):
    if isinstance(value, ops.PackedWeights):
        return QTensor(value.values, value.qparams) if value.qparams is not None else value.values
    if op == "matmul_integer" and not isinstance(value, (str, int, type(None))):
        return np.asarray(value)
    if op in ("quantize", "fake_quantize") and not isinstance(value, QParams):
        return np.asarray(value)
    if op == "cat" and isinstance(value, (list, tuple)):
        return tuple(value)
    return value
