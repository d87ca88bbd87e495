"""A PyTorch module for tests: layers, and a function that is its forward."""

from torch import nn

__all__ = ["ForwardModule"]


class ForwardModule(nn.Module):
    """A module whose forward is a function of its layers."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)
