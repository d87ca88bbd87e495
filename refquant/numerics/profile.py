"""`Numerics`: the arithmetic of one engine as a filled-in form."""

from dataclasses import fields, replace

from refquant.core.levels import check_level
from refquant.errors import ArgumentError, UnsupportedError, choose
from refquant.numerics.add_forms import AddForm, FixedAddForm, FoldedAddForm, GemmlowpAddForm
from refquant.numerics.coverage import absence
from refquant.numerics.fixed_forms import CodeFunctionForm, FixedMeanForm, MultiplierForm, FixedUnaryForm
from refquant.numerics.forms import CatForm, DequantizeForm, Form, MaxPoolForm, Pairing, PoolForm, PostForm, ProductForm, QuantizeForm, RealForm, SignedProductForm, TransposedForm, UnaryForm
from refquant.numerics.range_forms import RangeForm, RangeProductForm, RangeSoftmaxForm
from refquant.numerics.record import Record, record
from refquant.numerics.special_forms import BatchNormForm, BilinearForm, BoxPoolForm, CodeBilinearForm, DynamicForm, EmbeddingForm, MeanForm, NormForm, RealsForm, RequantizeForm, RowDynamicForm, ScalarForm, SoftmaxForm, SummedPoolForm

__all__ = ["Numerics", "Dispatch", "section_types"]

_PRODUCT_RULES = ("x86", "x86_held", "depthwise_volume", "onednn_reference", "onednn_volume", "onednn_groups", "onednn_transposed", "symmetric")
_CALL_RULES = ("qnnpack",)


@record
class Dispatch(Form):
    """Two forms and the rule that chooses between them: of products at weight packing, of sums and pools by the call.

    Attributes
    ----------
    rule
        ``x86``: PyTorch's ``should_use_onednn_quant``; ``x86_held``: the same where the libraries, but not PyTorch, are held to a lower
        level by their environment variables; ``depthwise_volume``: QNNPACK's kernel of 27 taps; ``onednn_reference``: oneDNN's kernel for
        what its fast ones do not take; ``onednn_volume`` and ``onednn_groups``: its older kernels for
        depthwise volumes, and for groups in fours; ``onednn_transposed``: what its own kernel of transposed convolutions does not take; ``symmetric``: XNNPACK's delegate, which takes a second factor without a zero point. Of sums and
        pools: ``qnnpack``: what PyTorch gives to QNNPACK. See `refquant.numerics.dispatch`.
    vnni
        Whether the CPU that is modelled has AVX512-VNNI, which ``x86`` asks for; where a processor level is given, ``x86`` asks that.
    yes, no
        The form where the rule holds, and where it does not.
    """

    rule: str
    vnni: bool
    yes: ProductForm
    no: ProductForm

    def __post_init__(self):
        choose("Dispatch", "rule", self.rule, [*_PRODUCT_RULES, *_CALL_RULES])
        if not isinstance(self.vnni, bool):
            raise ArgumentError(f"Dispatch: vnni={self.vnni!r} must be True or False")
        for side in ("yes", "no"):
            if not isinstance(getattr(self, side), Form):
                raise ArgumentError(f"Dispatch: {side}={getattr(self, side)!r} must be a form, such as a ProductForm")

    def replace(self, **changes):
        own = {k: v for k, v in changes.items() if k in ("rule", "vnni", "yes", "no")}
        own.update({k: getattr(self, k).replace(**v) for k, v in own.items() if isinstance(v, dict) and k in ("yes", "no")})
        rest = {k: v for k, v in changes.items() if k not in own}
        for name in rest:
            if not _has(self, name):
                choose("Dispatch", "field", name, [f.name for part in (self, _innermost(self)) for f in fields(part)])
        own.setdefault("yes", self.yes.replace(**rest) if rest else self.yes)
        own.setdefault("no", self.no.replace(**rest) if rest else self.no)
        return replace(self, **own)


@record
class Numerics(Record):
    """How an engine rounds, scales, adds a bias and saturates, for each operator.

    Profiles come from `refquant.numerics.get`; a profile of your own is a changed one, see `replace`.
    A section that is None says that the profile does not describe the operation; `refquant.numerics.coverage` lists what an engine lacks.

    Attributes
    ----------
    name, engine, source : str
        What it is called, which version of what it describes, and where that stands.
    quantize, quantize_channel, quantize_int32 : QuantizeForm
        Per tensor and per channel; the last for per-tensor codes of 32 bits.
    fake_quantize, fake_quantize_channel : QuantizeForm or RangeForm
    dequantize, dequantize_channel : DequantizeForm
    linear, conv : ProductForm or Dispatch
    linear_int8 : ProductForm, SignedProductForm or None
        Of linear layers on int8 activations, where another kernel takes them.
    matmul : ProductForm, Dispatch, RangeProductForm or None
        Of products of two activations, where another kernel takes them than that of linear layers.
    linear_real : RealForm or None
    conv_real : RealForm, Dispatch or None
    conv_transpose : TransposedForm, Dispatch, RangeProductForm or None
    post : PostForm or None
    add : AddForm, FoldedAddForm, FixedAddForm, GemmlowpAddForm, RangeForm or Dispatch
    mul : ProductForm or AddForm
        Of the products of centred codes, or by way of real numbers.
    unary : UnaryForm or None
    max_pool : MaxPoolForm or Dispatch
        May be left out: padding does not count.
    avg_pool, adaptive_avg_pool : PoolForm, Dispatch, RangeForm, RealsForm or None
    cat : CatForm
    dynamic : DynamicForm, RowDynamicForm or None
        This and what follows may be left out where a profile is written down: few engines have it.
    clamp : QuantizeForm, RangeForm or None
        How a limit becomes a code.
    requantize : RequantizeForm, RangeForm or None
        From codes to codes of another scale; None: by way of real numbers.
    scalar : ScalarForm or None
    prelu : ProductForm, MultiplierForm, RealsForm, RangeForm or None
    sub : FixedAddForm, GemmlowpAddForm or None
        The sum with the second multiplier negated.
    squared_difference : MultiplierForm or None
    function : CodeFunctionForm or None
        Of one code: exp, log, roots and absolute values.
    batch_norm : BatchNormForm, RealsForm or None
    layer_norm, group_norm : NormForm or None
    mean : MeanForm, FixedMeanForm, RealsForm, RangeForm or None
    softmax : SoftmaxForm, RangeSoftmaxForm or None
    bilinear : BilinearForm, CodeBilinearForm, RealsForm, RangeForm or None
    avg_pool3d, adaptive_avg_pool3d : BoxPoolForm, SummedPoolForm, RealsForm, RangeForm or None
    embedding : EmbeddingForm or None
    pairing : Pairing
        Whose rule says which products saturate on a processor without VNNI.
    isa : str or None
        The processor level that is modelled, one of `refquant.core.levels.LEVEL_NAMES`; None is the processor that `engine` names.
        It says how products add up, where the x86 engine sends convolutions, and which of `by_level` holds.
    by_level : tuple of (tuple of str, dict)
        Levels on which other kernels run, and what changes there, as `replace` takes it.
    keeps : {"nothing", "output_scale", "post_operation"}
        What packed weights keep of their first use and later ones get, whatever they ask for: ``output_scale`` for as long as the input has
        the same scale, ``post_operation`` for ever.
    """

    name: str
    engine: str
    source: str
    quantize: QuantizeForm
    quantize_channel: QuantizeForm
    quantize_int32: QuantizeForm
    fake_quantize: QuantizeForm
    fake_quantize_channel: QuantizeForm
    dequantize: DequantizeForm
    dequantize_channel: DequantizeForm
    linear: ProductForm
    linear_real: RealForm
    conv: ProductForm
    conv_real: RealForm
    conv_transpose: TransposedForm
    post: PostForm
    add: AddForm
    mul: ProductForm
    unary: UnaryForm
    avg_pool: PoolForm
    adaptive_avg_pool: PoolForm
    cat: CatForm
    max_pool: MaxPoolForm = MaxPoolForm(outside="ignored")
    linear_int8: ProductForm | None = None
    matmul: ProductForm = None
    dynamic: DynamicForm = None
    clamp: QuantizeForm = None
    requantize: RequantizeForm = None
    scalar: ScalarForm = None
    prelu: ProductForm = None
    sub: GemmlowpAddForm = None
    squared_difference: MultiplierForm = None
    function: CodeFunctionForm = None
    batch_norm: BatchNormForm = None
    layer_norm: NormForm = None
    group_norm: NormForm = None
    mean: MeanForm = None
    softmax: SoftmaxForm = None
    bilinear: BilinearForm = None
    avg_pool3d: BoxPoolForm = None
    adaptive_avg_pool3d: BoxPoolForm = None
    embedding: EmbeddingForm = None
    pairing: Pairing = Pairing.by("unknown")
    isa: str | None = None
    by_level: tuple = ()
    keeps: str = "nothing"

    def __post_init__(self):
        check_level(self.isa, f"Numerics[{self.name}]")
        choose(f"Numerics[{self.name}]", "keeps", self.keeps, ["nothing", "output_scale", "post_operation"])
        for section, types in section_types().items():
            value = getattr(self, section)
            if value is not None and not isinstance(value, types):
                names = " or ".join(t.__name__ for t in types)
                raise ArgumentError(f"Numerics[{self.name}]: section {section} must be a {names} or None, not {value!r}")
            if isinstance(value, Dispatch):
                _check_dispatch(value, types, _CALL_RULES if section == "add" or section.endswith("_pool") else _PRODUCT_RULES, f"Numerics[{self.name}]: section {section}")

    def replace(self, **changes):
        """Return a changed profile.

        Parameters
        ----------
        **changes
            ``linear={"rounding": "half_away"}`` changes fields of one section, of one side of a `Dispatch` with ``{"yes": {…}}``, ``linear=None`` takes the operation away,
            ``rounding="half_away"`` changes that field in every section that has it, ``name="mine"`` names the result.

        Raises
        ------
        ArgumentError
            An unknown section, field or value, with the list of what is valid.

        Examples
        --------
        >>> from refquant import numerics
        >>> mine = numerics.get("fbgemm").replace(rounding="half_away")
        >>> mine.linear.rounding, mine.name
        (<Round.HALF_AWAY: 'half_away'>, 'fbgemm*')
        """
        sections = section_types()
        known_fields = {f.name for types in sections.values() for t in types if t is not Dispatch for f in fields(t)}
        new = {"name": self.name if self.name.endswith("*") else self.name + "*"}
        for name, value in changes.items():
            if name in ("name", "engine", "source", "pairing", "isa", "by_level", "keeps"):
                new[name] = value
            elif name in sections:
                new[name] = _changed(self, name, value)
            else:
                choose(f"Numerics[{self.name}].replace", "field", name, [*sections, *sorted(known_fields)])
                for section in sections:
                    form = new.get(section, getattr(self, section))
                    if form is not None and _has(form, name):
                        new[section] = form.replace(**{name: value})
        return replace(self, **new)

    def on(self, isa, place="Numerics"):
        """Return the profile on a processor level; on None or its own, the profile itself.

        Raises
        ------
        ArgumentError
            An unknown level, or another one than the profile is on already.

        Examples
        --------
        >>> from refquant import numerics
        >>> older = numerics.get("onednn").on("avx2")
        >>> older.isa, older.linear_real.multiplier, numerics.get("onednn").linear_real.multiplier
        ('avx2', '(xw)', 'x,w')
        """
        if check_level(isa, place) in (None, self.isa):
            return self
        if self.isa is not None:
            raise ArgumentError(f"{place}: isa={isa!r} but the profile {self.name} is on {self.isa}; leave one of them out")
        changes = {section: change for levels, sections in self.by_level if isa in levels for section, change in sections.items()}
        return self.replace(**changes, isa=isa, name=f"{self.name}@{isa}", by_level=())

    def section(self, name, place):
        """Return the section that the operator `place` reads, or say that the engine lacks that operator or that the profile does not describe it."""
        form = getattr(self, name)
        self.check_offered(place, name)
        if form is None:
            raise UnsupportedError(
                f"{place}[{self.name}]: the profile does not describe how {self.engine} computes this ({name}); choose another profile, or fill the section in: "
                f"numerics.get({self.name!r}).replace({name}=...)"
            )
        return form

    def check_offered(self, op, section=None):
        """Raise an `UnsupportedError` with the reason if the engine has no such operator, or not what a section describes."""
        described = section is None or getattr(self, section) is not None
        own = self.name if described else self.name.rstrip("*")
        reason = absence(op, own) or (None if described else absence(section, own))
        if reason:
            raise UnsupportedError(f"{op}[{self.name}]: {self.engine} has no such operation: {reason}; choose another profile, see refquant.numerics.names()")

    def differences(self, other):
        """Return ``[(section, field, mine, theirs)]`` of all fields in which two profiles differ."""
        rows = []
        for section in section_types():
            if (getattr(self, section) is None) != (getattr(other, section) is None):
                rows.append((section, "offered", *(getattr(profile, section) is not None for profile in (self, other))))
                continue
            mine, theirs = _flat(getattr(self, section)), _flat(getattr(other, section))
            rows += [(section, k, mine.get(k), theirs.get(k)) for k in sorted({*mine, *theirs}) if mine.get(k) != theirs.get(k)]
        mine, theirs = _flat(self.pairing), _flat(other.pairing)
        rows += [("pairing", k, mine[k], theirs[k]) for k in mine if mine[k] != theirs[k]]
        if self.keeps != other.keeps:
            rows.append(("packed weights", "keeps", self.keeps, other.keeps))
        return rows if self.isa == other.isa else [*rows, ("isa", "level", self.isa, other.isa)]


def section_types():
    """Return ``{section: types that may fill it}``."""
    product = (ProductForm, Dispatch, RangeProductForm)
    return {
        "quantize": (QuantizeForm, RangeForm),
        "quantize_channel": (QuantizeForm, RangeForm),
        "quantize_int32": (QuantizeForm,),
        "fake_quantize": (QuantizeForm, RangeForm),
        "fake_quantize_channel": (QuantizeForm, RangeForm),
        "dequantize": (DequantizeForm,),
        "dequantize_channel": (DequantizeForm,),
        "linear": product,
        "linear_int8": (ProductForm, SignedProductForm),
        "matmul": product,
        "linear_real": (RealForm,),
        "conv": product,
        "conv_real": (RealForm, Dispatch),
        "conv_transpose": (TransposedForm, Dispatch, RangeProductForm),
        "post": (PostForm,),
        "add": (AddForm, FoldedAddForm, FixedAddForm, GemmlowpAddForm, RangeForm, Dispatch),
        "mul": (ProductForm, AddForm, RangeForm),
        "unary": (UnaryForm, RangeForm, FixedUnaryForm),
        "max_pool": (MaxPoolForm, Dispatch),
        "avg_pool": (PoolForm, Dispatch, RangeForm, RealsForm),
        "adaptive_avg_pool": (PoolForm, Dispatch, RangeForm, RealsForm),
        "cat": (CatForm, RangeForm),
        "dynamic": (DynamicForm, RowDynamicForm),
        "clamp": (QuantizeForm, RangeForm),
        "requantize": (RequantizeForm, RangeForm),
        "scalar": (ScalarForm,),
        "prelu": (ProductForm, MultiplierForm, RealsForm, RangeForm),
        "sub": (FixedAddForm, GemmlowpAddForm),
        "squared_difference": (MultiplierForm,),
        "function": (CodeFunctionForm,),
        "batch_norm": (BatchNormForm, RealsForm),
        "layer_norm": (NormForm,),
        "group_norm": (NormForm,),
        "mean": (MeanForm, FixedMeanForm, RealsForm, RangeForm),
        "softmax": (SoftmaxForm, RangeSoftmaxForm),
        "bilinear": (BilinearForm, CodeBilinearForm, RealsForm, RangeForm),
        "avg_pool3d": (BoxPoolForm, SummedPoolForm, RealsForm, RangeForm),
        "adaptive_avg_pool3d": (BoxPoolForm, SummedPoolForm, RealsForm, RangeForm),
        "embedding": (EmbeddingForm,),
    }


def _check_dispatch(form, types, rules, place):
    choose(place, "rule", form.rule, rules)
    for side in (form.yes, form.no):
        if not isinstance(side, types):
            raise ArgumentError(f"{place} must choose between {' or '.join(t.__name__ for t in types)}, not {side!r}")
        if isinstance(side, Dispatch):
            _check_dispatch(side, types, rules, place)


def _changed(profile, section, value):
    if isinstance(value, dict):
        return profile.section(section, "replace").replace(**value)
    return value


def _innermost(form):
    return _innermost(form.yes) if isinstance(form, Dispatch) else form


def _has(form, name):
    if isinstance(form, Dispatch):
        return _has(form.yes, name)
    return name in {f.name for f in fields(form)}


def _flat(form):
    if form is None:
        return {"offered": False}
    if isinstance(form, Dispatch):
        rows = {"rule": form.rule, "vnni": form.vnni}
        rows.update({f"yes.{k}": v for k, v in _flat(form.yes).items()})
        rows.update({f"no.{k}": v for k, v in _flat(form.no).items()})
        return rows
    return {f.name: str(getattr(form, f.name)) if not isinstance(getattr(form, f.name), (bool, int)) else getattr(form, f.name) for f in fields(form)}
