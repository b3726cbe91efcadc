"""Losses of two players, and penalties on a critic's gradient. Scores are high where the critic says "real"."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def call_real(score: Tensor) -> Tensor:
    """-log sigmoid(score) of each element, nats, same shape: small where the score says "real".

    Its mean is the discriminator's loss on real items and the generator's non-saturating loss on made ones.
    """
    return F.softplus(-score)


def call_fake(score: Tensor) -> Tensor:
    """-log(1 - sigmoid(score)) of each element, nats, same shape: small where the score says "made"."""
    return F.softplus(score)


class Game(NamedTuple):
    """What both players minimise, each of one score and element by element.

    real: the critic's loss on real items. fake: the critic's on made ones. fool: the generator's on made ones.
    """

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    fool: Callable[[Tensor], Tensor]


def _from_one(scores: Tensor) -> Tensor:
    return (scores - 1).square()


def _below_one(scores: Tensor) -> Tensor:
    return F.relu(1 - scores)


def _above_minus_one(scores: Tensor) -> Tensor:
    return F.relu(1 + scores)


def _itself(scores: Tensor) -> Tensor:
    return scores


# Functions with names, so that a model that holds a game can be pickled.
GAMES: dict[str, Game] = {
    # Goodfellow et al. 2014, the generator's loss in its non-saturating form; scores are logits
    "logistic": Game(call_real, call_fake, call_real),
    # Mao et al. 2017, targets 1 and 0
    "least-squares": Game(_from_one, torch.square, _from_one),
    # Lim & Ye 2017
    "hinge": Game(_below_one, _above_minus_one, torch.neg),
    # Arjovsky et al. 2017; the critic must be kept Lipschitz, by clamping or by `gradient_penalty`
    "wasserstein": Game(torch.neg, _itself, torch.neg),
}
"""Adversarial losses by name."""


def interpolated(real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """share * real + (1 - share) * fake of each row, `[n, ...]`, detached and ready for a gradient.

    share: `[n]`, one number in [0, 1) per row, the same for all of its elements.
    """
    weight = share.view(-1, *[1] * (real.dim() - 1))
    return (weight * real + (1 - weight) * fake).detach().requires_grad_()


def squared_slope(score: Tensor, *inputs: Tensor) -> Tensor:
    """Squared norm of each row's gradient of its score, over all entries of all inputs, `[n]`.

    score: `[n, ...]`, row i computed from row i of the inputs alone (no batch statistics); several scores of a row are
    summed. inputs: tensors `[n, ...]` of any rank that require a gradient. The result can be differentiated again.
    Half its mean at real items is the penalty R1 (Mescheder et al. 2018).
    """
    # The sum over rows, not their mean, so that each row's gradient is its own and not a share of it.
    gradients = torch.autograd.grad(score.sum(), inputs, create_graph=True)
    return torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)


def gradient_penalty(score: Tensor, *inputs: Tensor, target: float = 1.0, one_sided: bool = False) -> Tensor:
    """(|gradient| - target)^2 of each row, `[n]` (Gulrajani et al. 2017); score and inputs as in `squared_slope`.

    one_sided: only gradients longer than the target are penalised.
    """
    # The root's own slope is infinite at zero.
    excess = (squared_slope(score, *inputs) + 1e-12).sqrt() - target
    return (excess.clamp_min(0) if one_sided else excess).square()


def roth_penalty(score: Tensor, *inputs: Tensor, real: bool) -> Tensor:
    """(1 - D)^2 |gradient|^2 of each real row and D^2 |gradient|^2 of each made one, D = sigmoid(score), `[n]`.

    The regulariser of Roth et al. 2017 is gamma / 2 times the mean over real rows plus the mean over made ones. The
    gradient is that of the logit; the weights are differentiated, too. score: logits `[n]` or `[n, 1]`.
    """
    wrong = torch.sigmoid(-score if real else score)
    return wrong.reshape(len(score)).square() * squared_slope(score, *inputs)
