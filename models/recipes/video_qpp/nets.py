"""Small nets that are trained on the inputs of a head, many of them averaged into one layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from assay_models.families.qpp.heads import MAX_DEVIATIONS, Net
from recipes.video_qpp.data import Matrix

EPOCHS = 12
BATCH_ROWS = 256
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-2
DROPOUT = 0.3


@dataclass(frozen=True, slots=True)
class NetShape:
    """A kind of net: the number of seeds, the hidden units, and the first column that is read."""

    name: str
    seeds: int
    units: int
    first_column: int


def fit_nets(inputs: Matrix, targets: Matrix, shape: NetShape) -> Net:
    """Fit nets, each from another seed, and return their mean as one net.

    Args:
        inputs: (n, columns), not standardised.
        targets: (n, k).
        shape: of the nets.
    """
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0) + 1e-9
    x = np.clip((inputs - mean) / deviation, -MAX_DEVIATIONS, MAX_DEVIATIONS)
    target_mean, target_deviation = targets.mean(axis=0), targets.std(axis=0)
    rows = torch.from_numpy(x[:, shape.first_column :]).float()
    expected = torch.from_numpy((targets - target_mean) / target_deviation).float()
    nets = [_fit(rows, expected, shape.units, seed) for seed in range(shape.seeds)]
    unread = np.zeros((shape.first_column, shape.units))
    outs = [_weights(net, 4).T for net in nets]
    constant = np.mean([_bias(net, 4) for net in nets], axis=0)
    return Net(
        mean=mean,
        deviation=deviation,
        hidden=np.hstack([np.vstack([unread, _weights(net, 1).T]) for net in nets]),
        bias=np.concatenate([_bias(net, 1) for net in nets]),
        out=np.vstack(outs) / len(nets) * target_deviation,
        constant=constant * target_deviation + target_mean,
    )


def blend_nets(nets: Sequence[Net], weights: Matrix) -> Net:
    """Blend nets on the same inputs into one: `weights` (k, nets + 1) of each, a constant last."""
    constant = weights[:, -1] + sum(
        weight * net.constant for weight, net in zip(weights.T, nets, strict=False)
    )
    return Net(
        mean=nets[0].mean,
        deviation=nets[0].deviation,
        hidden=np.hstack([net.hidden for net in nets]),
        bias=np.concatenate([net.bias for net in nets]),
        out=np.vstack([net.out * weight for weight, net in zip(weights.T, nets, strict=False)]),
        constant=constant,
    )


def net_outputs(net: Net, inputs: Matrix) -> Matrix:
    """Return the outputs for many rows (n, columns): (n, k)."""
    return np.array([net.outputs(row) for row in inputs])


def _fit(rows: torch.Tensor, expected: torch.Tensor, units: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Dropout(DROPOUT / 2),
        nn.Linear(rows.shape[1], units),
        nn.SiLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(units, expected.shape[1]),
    )
    steps = EPOCHS * (len(rows) // BATCH_ROWS)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1)
    for _ in range(EPOCHS):
        order = torch.randperm(len(rows))
        for start in range(0, len(rows) - BATCH_ROWS + 1, BATCH_ROWS):
            batch = order[start : start + BATCH_ROWS]
            loss = nn.functional.mse_loss(net(rows[batch]), expected[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return net.eval()


def _weights(net: nn.Sequential, layer: int) -> Matrix:
    weight: torch.Tensor = net.get_parameter(f"{layer}.weight")
    return weight.detach().double().numpy()


def _bias(net: nn.Sequential, layer: int) -> Matrix:
    bias: torch.Tensor = net.get_parameter(f"{layer}.bias")
    return bias.detach().double().numpy()
