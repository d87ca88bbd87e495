"""The encoder of BERT-base (Devlin et al., 2018): layers of attention of 12 heads and a feed-forward network, each with a residual and a norm."""

from math import sqrt

__all__ = ["bert_base_layer", "bert_base_encoder"]

_HEADS, _LAYERS, _EPS = 12, 12, 1e-12


def _layer(x):
    b, (_, tokens, width) = x.builder, x.shape
    heads = min(_HEADS, width // 8)
    with b.scope("attention"):
        with b.scope("self"):
            query, key, value = (x.linear(width, name=name).reshape(None, tokens, heads, width // heads) for name in ("query", "key", "value"))
            scores = (query.permute(0, 2, 1, 3) @ key.permute(0, 2, 3, 1)) * (1 / sqrt(width // heads))
            context = scores.softmax(name="softmax") @ value.permute(0, 2, 1, 3)
        y = context.permute(0, 2, 1, 3).reshape(None, tokens, width)
        with b.scope("output"):
            x = (y.linear(width, name="dense") + x).layer_norm(eps=_EPS, name="LayerNorm")
    y = x.linear(4 * width, name="intermediate_dense").gelu(name="intermediate_act")
    with b.scope("output"):
        return (y.linear(width, name="dense") + x).layer_norm(eps=_EPS, name="LayerNorm")


def bert_base_layer(x, w):
    """One encoder layer on (tokens, 768) hidden states: 7,087,872 parameters."""
    return _layer(x)


def bert_base_encoder(x, w):
    """All twelve layers on (tokens, 768) hidden states: 85,054,464 parameters."""
    for i in range(_LAYERS):
        with x.builder.scope("layer"), x.builder.scope(str(i)):
            x = _layer(x)
    return x
