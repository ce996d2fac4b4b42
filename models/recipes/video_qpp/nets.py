"""Small nets that learn from the inputs of a head, many of them averaged into one layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from assay_models.families.qpp.heads import FARTHEST, Net
from recipes.video_qpp.data import Matrix

EPOCHS = 12
ROWS = 256
RATE = 2e-3
DECAY = 1e-2
DROPPED = 0.3


@dataclass(frozen=True, slots=True)
class Shape:
    """Nets of one kind: how many, their hidden units, and the first column that they read."""

    name: str
    seeds: int
    units: int
    first: int


def fit_nets(inputs: Matrix, targets: Matrix, shape: Shape) -> Net:
    """The mean of nets that were each fitted from another seed, as one net.

    Args:
        inputs: (n, columns), not standardised.
        targets: (n, k).
        shape: of the nets.
    """
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0) + 1e-9
    x = np.clip((inputs - mean) / deviation, -FARTHEST, FARTHEST)
    middle, spread = targets.mean(axis=0), targets.std(axis=0)
    rows = torch.from_numpy(x[:, shape.first :]).float()
    wanted = torch.from_numpy((targets - middle) / spread).float()
    nets = [_fit(rows, wanted, shape.units, seed) for seed in range(shape.seeds)]
    unread = np.zeros((shape.first, shape.units))
    outs = [_weights(net, 4).T for net in nets]
    constant = np.mean([_bias(net, 4) for net in nets], axis=0)
    return Net(
        mean=mean,
        deviation=deviation,
        hidden=np.hstack([np.vstack([unread, _weights(net, 1).T]) for net in nets]),
        bias=np.concatenate([_bias(net, 1) for net in nets]),
        out=np.vstack(outs) / len(nets) * spread,
        constant=constant * spread + middle,
    )


def mixed(nets: Sequence[Net], shares: Matrix) -> Net:
    """Nets on the same inputs as one: `shares` (k, nets + 1) of each, and a constant last."""
    constant = shares[:, -1] + sum(
        share * net.constant for share, net in zip(shares.T, nets, strict=False)
    )
    return Net(
        mean=nets[0].mean,
        deviation=nets[0].deviation,
        hidden=np.hstack([net.hidden for net in nets]),
        bias=np.concatenate([net.bias for net in nets]),
        out=np.vstack([net.out * share for share, net in zip(shares.T, nets, strict=False)]),
        constant=constant,
    )


def outputs(net: Net, inputs: Matrix) -> Matrix:
    """Of many rows (n, columns): (n, k)."""
    return np.array([net.outputs(row) for row in inputs])


def _fit(rows: torch.Tensor, wanted: torch.Tensor, units: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Dropout(DROPPED / 2),
        nn.Linear(rows.shape[1], units),
        nn.SiLU(),
        nn.Dropout(DROPPED),
        nn.Linear(units, wanted.shape[1]),
    )
    steps = EPOCHS * (len(rows) // ROWS)
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps + 1)
    for _ in range(EPOCHS):
        order = torch.randperm(len(rows))
        for start in range(0, len(rows) - ROWS + 1, ROWS):
            chosen = order[start : start + ROWS]
            loss = nn.functional.mse_loss(net(rows[chosen]), wanted[chosen])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
    return net.eval()


def _weights(net: nn.Sequential, place: int) -> Matrix:
    weight: torch.Tensor = net.get_parameter(f"{place}.weight")
    return weight.detach().double().numpy()


def _bias(net: nn.Sequential, place: int) -> Matrix:
    bias: torch.Tensor = net.get_parameter(f"{place}.bias")
    return bias.detach().double().numpy()
