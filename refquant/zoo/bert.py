"""An encoder layer of BERT-base (Devlin et al., 2018): attention of 12 heads, then a feed-forward network, each with a residual and a norm."""

from math import sqrt

__all__ = ["bert_base_layer"]

_HEADS = 12


def _heads(x, tokens):
    return x.reshape(None, tokens, _HEADS, x.shape[-1] // _HEADS)


def bert_base_layer(x):
    """One encoder layer on (tokens, 768) hidden states: 7,087,872 parameters."""
    b, (_, tokens, width) = x.builder, x.shape
    with b.scope("attention"):
        with b.scope("self"):
            query, key, value = (_heads(x.linear(width, name=name), tokens) for name in ("query", "key", "value"))
            scores = (query.permute(0, 2, 1, 3) @ key.permute(0, 2, 3, 1)) * (1 / sqrt(width // _HEADS))
            context = scores.softmax(name="softmax") @ value.permute(0, 2, 1, 3)
        y = context.permute(0, 2, 1, 3).reshape(None, tokens, width)
        with b.scope("output"):
            x = (y.linear(width, name="dense") + x).layer_norm(eps=1e-12, name="LayerNorm")
    y = x.linear(4 * width, name="intermediate_dense").gelu(name="intermediate_act")
    with b.scope("output"):
        return (y.linear(width, name="dense") + x).layer_norm(eps=1e-12, name="LayerNorm")
