"""The tables of patterns beside PyTorch's own, line by line."""

import importlib
import operator

import pytest

from refquant.errors import ArgumentError
from refquant.graph.match import parse_pattern
from refquant.workflow.backend_config import BY_TENSORS, NOT_OBSERVED, OWN, SHARE, BackendConfig, BackendPatternConfig
from refquant.workflow.backend_patterns import BACKEND_CONFIGS, get_backend_config


def theirs(name):
    """PyTorch's table in refquant's words: {pattern: (observation, fused or not, dtypes)}, layers of training left out."""
    torch = pytest.importorskip("torch")
    importlib.import_module("torch.ao.quantization.quantize_fx")  # which loads what the tables need
    make = getattr(importlib.import_module(f"torch.ao.quantization.backend_config.{name}"), f"get_{name}_backend_config")
    rows = {}
    for pattern, config in make()._pattern_complex_format_to_config.items():
        text = pattern_text(pattern, torch)
        if text is not None:
            rows[text] = observation(config), config.fuser_method is not None, tuple(dtypes(c, torch) for c in config.dtype_configs)
    return rows


def pattern_text(part, torch):
    if isinstance(part, tuple):
        inner = [pattern_text(p, torch) for p in part]
        return None if None in inner else f"{inner[0]}({', '.join(inner[1:])})"
    if isinstance(part, str):
        return f".{part}"
    name, module = part.__name__, getattr(part, "__module__", None) or ""
    if name == "MatchAllNode":
        return "*"
    if isinstance(part, type):
        if ".qat" in module or name.startswith(("ConvBn", "LinearBn")):
            return None
        return ("nni." if "intrinsic" in module else "nn.") + name
    if module == "_operator":
        return f"operator.{name}"
    # A function that PyTorch offers under both names has the shorter one in models.
    return f"F.{name}" if getattr(torch.nn.functional, name, None) is part else f"torch.{name}"


def observation(config):
    kinds = importlib.import_module("torch.ao.quantization.backend_config").ObservationType
    if config._num_tensor_args_to_observation_type:
        return BY_TENSORS
    return {
        kinds.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT: OWN,
        kinds.OUTPUT_SHARE_OBSERVER_WITH_INPUT: SHARE,
        kinds.INPUT_OUTPUT_NOT_OBSERVED: NOT_OBSERVED,
    }[config.observation_type]


def dtypes(c, torch):
    def constraints(d):
        return (plain(d.dtype), d.quant_min_lower_bound, d.quant_max_upper_bound, d.scale_min_lower_bound, d.scale_exact_match, d.zero_point_exact_match)

    def plain(dtype):
        name = str(dtype).removeprefix("torch.")
        return None if dtype is None else {"quint8": "uint8", "qint8": "int8", "quint4x2": "uint4"}.get(name, name)

    parts = (c.input_dtype_with_constraints, c.output_dtype_with_constraints, c.weight_dtype_with_constraints)
    return (*map(constraints, parts), plain(c.bias_dtype), bool(c.is_dynamic))


@pytest.mark.parametrize("name", BACKEND_CONFIGS)
def test_every_line_is_torchs(name):
    expected = theirs(name)
    ours = {c.pattern: (c.observation, bool(c.fused), tuple((tuple(d.input), tuple(d.output), tuple(d.weight), d.bias, d.is_dynamic) for d in c.dtype_configs)) for c in get_backend_config(name).configs}
    assert ours == expected
    assert len(ours) > 150


@pytest.mark.parametrize("name", BACKEND_CONFIGS)
def test_patterns_are_tried_in_torchs_order(name):
    """Among equally large ones the first of the table wins."""
    order = {}
    for text in theirs(name):
        order.setdefault(parse_pattern(text).size, []).append(text)
    ours = {}
    for c in get_backend_config(name).configs:
        ours.setdefault(parse_pattern(c.pattern).size, []).append(c.pattern)
    for size, texts in order.items():
        fused = set(texts) & {c.pattern for c in get_backend_config(name).fusions}
        assert [t for t in ours[size] if t in fused] == [t for t in texts if t in fused]


def test_functions_of_the_table_are_what_their_names_say():
    torch = pytest.importorskip("torch")
    importlib.import_module("torch.ao.nn.intrinsic")
    places = {"F": torch.nn.functional, "torch": torch, "operator": operator, "nn": torch.nn, "nni": torch.ao.nn.intrinsic}
    for config in get_backend_config("onednn").configs:
        for target in parse_pattern(config.pattern).targets:
            place, _, name = target.rpartition(".")
            assert target == "*" or not place or hasattr(places[place], name), target


def test_a_table_prints_and_can_be_changed():
    table = get_backend_config("onednn")
    text = str(table)
    assert "nn.ReLU(operator.add(*, nn.Conv2d))" in text and "nni.ConvAddReLU2d" in text and "fixed 0.0078125, 128" in text
    less = BackendConfig("less", [c for c in table.configs if c.observation == OWN])
    assert less.find("nn.MaxPool2d") is None and table.find("nn.MaxPool2d").observation == SHARE
    more = less.set_backend_pattern_config(BackendPatternConfig("nn.MaxPool2d", (), OWN)).set_name("more")
    assert more.name == "more" and more.configs[-1].pattern == "nn.MaxPool2d" and less != more
    assert table.fused_parts("nni.ConvAddReLU2d") == ("nn.Conv2d", "nn.ReLU") and table.fused_parts("nn.Conv2d") == ()


@pytest.mark.parametrize(
    "config, message",
    [
        ("nn.ReLU", "lines must be BackendPatternConfig"),
        (BackendPatternConfig("nn.ReLU(nn.Conv2d"), r"a '\)' is missing"),
        (BackendPatternConfig("nn.ReLU nn.Conv2d"), "stands behind its end"),
        (BackendPatternConfig("(nn.ReLU)"), "is no operation"),
        (BackendPatternConfig("nn.ReLU", observation="both"), "observation"),
        (BackendPatternConfig("nn.ReLU", ("uint8",)), "must be a tuple of DTypeConfig"),
    ],
)
def test_wrong_lines_are_refused(config, message):
    with pytest.raises(ArgumentError, match=message):
        BackendConfig("own", [config])
