"""How the networks of `refquant.data` are trained. Needs torch."""

import numpy as np
import torch
from torch import nn

from . import NETWORKS, architectures_torch, glyphs
from .warp import random_affines, warp

#: Epochs, images per epoch (None: all there are) and peak learning rate of each network.
RECIPES = {
    "digits_resnet": {"epochs": 60, "per_epoch": None, "peak_rate": 4e-3},
    "digits_mobilenet": {"epochs": 120, "per_epoch": None, "peak_rate": 8e-3},
    "glyphs_net": {"epochs": 24, "per_epoch": 16384, "peak_rate": 4e-3},
}

#: How `spread_channels` is applied after training: which share of the channels, and where: (BatchNorms, the depthwise
#: convolution after them). Two BatchNorms stand for a residual block with a convolution as shortcut, whose sum scales
#: as both terms do. A quarter spoils weight scales per tensor only; a half costs narrow activation grids accuracy too.
SPREAD = {
    "digits_mobilenet": (1 / 4, (
        (("stem.bn",), "block1.depthwise.conv"),
        (("block1.pointwise.bn",), "block2.depthwise.conv"),
        (("block2.pointwise.bn",), "block3.depthwise.conv"),
        (("block3.pointwise.bn",), "block4.depthwise.conv"),
        (("block4.pointwise.bn",), "block5.depthwise.conv"),
    )),
    "glyphs_net": (1 / 2, (
        (("stem.bn",), "down.depthwise.conv"),
        (("block2.bn2", "block2.shortcut.bn"), "block3.depthwise.conv"),
        (("block4.bn2", "block4.shortcut.bn"), "block5.depthwise.conv"),
        (("block6.expand.bn",), "block6.depthwise.conv"),
    )),
}

BATCH = 64
SEED = 7


def train_network(name, *, epochs=None, arrays=None, report=lambda done, total, text: None):
    """Train one network from its seed.

    Parameters
    ----------
    name : str
        A key of `refquant.data.NETWORKS`.
    epochs : int, optional
        Instead of the recipe's number.
    arrays : dict of str to numpy.ndarray
        The data set's arrays, as `refquant.data.load_arrays` returns them.
    report : callable
        Called as ``report(done, total, text)`` after each batch.

    Returns
    -------
    torch.nn.Module
        In eval mode.
    """
    recipe = RECIPES[name]
    epochs = recipe["epochs"] if epochs is None else epochs
    if NETWORKS[name] == "digits":
        def epoch_data(epoch):
            return distorted_digits(arrays["train_images"], arrays["train_labels"], seed=SEED + epoch)
    else:
        def epoch_data(epoch):
            images, labels = glyphs.make_glyphs(recipe["per_epoch"], seed=glyphs.TRAIN_SEED + epoch)
            return images.astype(np.float32) / np.float32(255), labels

    torch.manual_seed(SEED)
    module = architectures_torch.ARCHITECTURES[name]()
    fit(module, epoch_data, epochs, recipe["peak_rate"], report)
    if name in SPREAD:
        spread_channels(module, *SPREAD[name])
    return module.eval()


def fit(module, epoch_data, epochs, peak_rate, report):
    """AdamW, one cycle of the learning rate, cross-entropy; trains the module in place."""
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=peak_rate, weight_decay=0.02)
    rng = np.random.default_rng(SEED)
    schedule = None
    for epoch in range(epochs):
        x, labels = (torch.from_numpy(array) for array in epoch_data(epoch))
        batches = len(x) // BATCH
        if schedule is None:
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=epochs * batches)
        order = torch.from_numpy(rng.permutation(len(x))[:batches * BATCH].reshape(batches, BATCH))
        for step, rows in enumerate(order):
            loss = nn.functional.cross_entropy(module(x[rows]), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            report(epoch * batches + step + 1, epochs * batches, f"loss {loss.item():.3f}")


def distorted_digits(images, labels, seed):
    """The training digits, each turned, stretched and shifted a little; float32 in [0, 1]."""
    rng = np.random.default_rng(seed)
    matrices, shifts = random_affines(rng, len(images), rotation=12, shear=0.15, scale=0.12, shift=0.8)
    distorted = warp(images[:, 0], np.arange(len(images)), matrices, shifts, images.shape[-1])
    return distorted[:, None] / np.float32(16), labels


def spread_channels(module, share, places, seed=SEED):
    """Give the channels of a network very different weight ranges without changing the function it computes.

    Between a BatchNorm-ReLU and the depthwise convolution after it, a channel is multiplied by k on the way out and
    divided by k on the way in. ReLU commutes with a positive k, and k is a power of two, so every output keeps its bits.

    The chosen channels get a k of 1/64 to 1/8, the others keep k = 1: one weight scale for a whole tensor then fails,
    while activations, which have one scale in any case, lose precision in the chosen channels only. A k spread evenly
    over 1/64 to 64 would cost the activations all accuracy as well, whatever the weights' scales are.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place.
    share : float
        Share of the channels that are chosen.
    places : sequence of (sequence of str, str)
        Names of BatchNorms, and of the one depthwise convolution that reads the ReLU of what they add up to.
    seed : int
    """
    rng = np.random.default_rng(seed)
    for producers, consumer in places:
        conv = module.get_submodule(consumer)
        chosen = rng.permutation(conv.in_channels) < conv.in_channels * share
        exponents = np.where(chosen, rng.integers(-6, -2, conv.in_channels), 0)
        k = torch.from_numpy(np.exp2(exponents).astype(np.float32))
        with torch.no_grad():
            for producer in producers:
                module.get_submodule(producer).weight.mul_(k)
                module.get_submodule(producer).bias.mul_(k)
            conv.weight.div_(k[:, None, None, None])
