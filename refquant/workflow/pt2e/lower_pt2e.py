"""`lower_pt2e`: the fusions that TorchInductor applies to a converted model, one by one and to be switched off."""

from refquant.errors import ArgumentError, choose
from refquant.graph.model import Model
from refquant.workflow.pt2e.lowering_graph import LoweringGraph
from refquant.workflow.pt2e.lowering_layers import fuse_layers, pack_layers
from refquant.workflow.pt2e.lowering_values import drop_dropouts, floor_max_pools, lift_quantize, promote_dequantize, values_on_codes

__all__ = ["PASSES", "DEFECTS", "LoweredModel", "lower_pt2e"]

PASSES = (
    "quant_lift_up", "dequant_promotion", "qconv", "qlinear", "qconv_unary", "qconv_binary", "qlinear_unary", "qlinear_binary",
    "qmaxpool2d", "qcat", "qreshape",
)  # fmt: skip
"""All passes, in the order in which they are applied."""

DEFECTS = ("floor_max_pool",)
"""What compiled programs do against the graph that they are made of."""


class LoweredModel(Model):
    """A model with what was fused in it: `fusions`, a tuple of `Fusion`; ``print`` lists them below the nodes."""

    fusions = ()

    def __str__(self):
        return "\n".join([super().__str__(), "fusions:", *(f"  {fusion}" for fusion in self.fusions)])


def lower_pt2e(model, passes=PASSES, *, defects=()):
    """Fuse a converted model as TorchInductor does on x86: layers compute on codes and apply what follows them in one rounding.

    ``qconv`` and ``qlinear`` let layers between a dequantize node and weights per channel read codes; ``_unary`` and ``_binary`` take the
    function, the sum and the quantize node behind them in; ``qmaxpool2d``, ``qcat`` and ``qreshape`` keep codes as codes; ``dequant_promotion``
    gives each reader of a dequantize node one of its own; ``quant_lift_up`` moves quantize nodes before reshapes and permutations.

    Parameters
    ----------
    model : Model
        From `convert_pt2e`.
    passes : sequence of str
        Those of `PASSES` that are to be applied; their order is fixed.
    defects : sequence of str
        Of `DEFECTS`, what TorchInductor does wrongly and the result is to do too. ``floor_max_pool``: a max pool on codes forgets ``ceil_mode``, so that
        3 x 3 with a stride of 2 makes 15 rows of 32 where the graph says 16.

    Returns
    -------
    LoweredModel
        Runs under the same profile.

    Raises
    ------
    ArgumentError
        Something else than a model, an unknown pass or defect.

    Notes
    -----
    A fused layer's codes fill the whole dtype: oneDNN does not know of a reduced range.

    What stays between layers in float32 is what the operators of the graph compute; ``model.run(x, real="inductor")`` adds, divides and takes
    exponentials as the C++ that TorchInductor generates.

    A sum of codes is fused into a convolution only where Inductor may write over the other summand: where nothing else reads it later.

    Source
    ------
    torchao 0.18, quantization/pt2e/inductor_passes/x86.py; PyTorch 2.13, torch/_inductor/fx_passes/quantization.py.

    Examples
    --------
    >>> from refquant import zoo
    >>> from refquant.data import load_split
    >>> from refquant.workflow import X86InductorQuantizer, convert_pt2e, get_default_x86_inductor_quantization_config, prepare_pt2e
    >>> x, _ = load_split("digits", "calibration")
    >>> prepared = prepare_pt2e(zoo.load("digits_resnet"), X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config()))
    >>> _ = prepared(x[:50])
    >>> lowered = lower_pt2e(convert_pt2e(prepared))
    >>> print(*[f for f in lowered.fusions if f.name == "qconv_binary"][:1])
    qconv_binary: block3_conv2 -> add_2 -> block3_relu2 -> block3_relu2_quantize => block3_conv2
    """
    if not isinstance(model, Model):
        raise ArgumentError(f"lower_pt2e: model is a {type(model).__name__} but must be a Model from convert_pt2e")
    for name in passes:
        choose("lower_pt2e", "pass", name, PASSES)
    for name in defects:
        choose("lower_pt2e", "defect", name, DEFECTS)
    graph = LoweringGraph(model)
    drop_dropouts(graph)
    if "quant_lift_up" in passes:
        lift_quantize(graph)
    if "dequant_promotion" in passes:
        promote_dequantize(graph)
    pack_layers(graph, passes)
    fuse_layers(graph, passes)
    values_on_codes(graph, passes)
    if "floor_max_pool" in defects:
        floor_max_pools(graph)
    graph.drop_unread()
    lowered = LoweredModel(graph.nodes.values(), graph.outputs, name=model.name, numerics=model.numerics, real=model.real)
    lowered.fusions = tuple(graph.fusions)
    return lowered
