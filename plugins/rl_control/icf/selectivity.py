"""The selectivity of a factor, its gradient estimators, and how transitions are gathered for it.

Shapes: E states, n factors per state, P action sequences per state, A actions, K latent dimensions.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from distk.data import Dataset
from distk.plugins.rl_control.data.environments import permitted, table
from distk.source import Source

Kernel = Literal["gauss", "inner"]
FORBIDDEN = -1e9
"""Logit of an action that may not be taken; finite, so that 0 * log 0 has a gradient of 0 instead of nan."""
INNER_EPS = 1e-3


def log_kernel(dh: Tensor, phi: Tensor, kernel: Kernel, sigma: Tensor | float = 1.0) -> Tensor:
    """log A(h', h, phi_i) for changes dh = h' - h `[E, P, K]` and factors `[E, n, K]` -> `[E, P, n]`.

    gauss: -|dh - phi|^2 / (2 sigma^2). inner: log(1e-3 + max(0, <dh, phi>)).
    """
    inner = dh @ phi.transpose(1, 2)
    if kernel == "inner":
        return (inner.clamp_min(0) + INNER_EPS).log()
    squared = dh.pow(2).sum(-1, keepdim=True) - 2 * inner + phi.pow(2).sum(-1)[:, None]
    return -squared / (2 * sigma**2)


def contrast(log_a: Tensor) -> Tensor:
    """R_i = log A_i - log mean_j A_j over the factors of the SAME state (the last dimension); at most log n, nats."""
    return log_a - (log_a.logsumexp(-1, keepdim=True) - math.log(log_a.shape[-1]))


def log_policy(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-softmax over permitted actions. logits `[..., A]`, mask bool, broadcastable."""
    return logits.masked_fill(~mask, FORBIDDEN).log_softmax(-1)


def entropy(log_pi: Tensor) -> Tensor:
    """Entropy of policies `[..., A]` in nats `[...]`."""
    return -(log_pi.exp() * log_pi).sum(-1)


def importance_weights(log_p: Tensor, log_mu: Tensor | None) -> Tensor:
    """Weights of one action sequence for every factor, detached: log-probabilities `[E, n]` -> `[E, n]`.

    log_mu: of the sequence under the behaviour of every factor, `[E, n]`. With it, p_i / sum_j mu_j (the balance
    heuristic): unbiased for the mean over i of E[. | phi_i], whatever the exploration. Without it the weights are
    p_i / sum_j p_j as published: they sum to 1, and are unbiased only without exploration.
    """
    reference = log_p if log_mu is None else log_mu
    return (log_p - reference.logsumexp(-1, keepdim=True)).exp().detach()


def exact_objective(reward: Tensor, log_p: Tensor) -> Tensor:
    """S = mean over states and factors of sum over sequences of p(sequence | phi_i) R_i. Both `[E, P, n]`."""
    return (log_p.exp() * reward).sum(1).mean()


def reinforce_objective(reward: Tensor, log_p: Tensor, value: Tensor, weights: Tensor, valid: Tensor) -> Tensor:
    """A scalar whose gradient estimates that of S: sum_i w_i [R_i + stop(R_i - V_i) log pi_i], mean over states.

    The first term carries the gradient through encoder and factors, the second that through the policy (appendix D).
    All `[E, n]`; valid `[E]` is 0 for transitions that the environment did not make.
    """
    score = (reward - value).detach() * log_p
    return _mean_valid((weights * (reward + score)).sum(1), valid)


def _mean_valid(values: Tensor, valid: Tensor) -> Tensor:
    return (values * valid).sum() / valid.sum().clamp_min(1)


def baseline_loss(value: Tensor, reward: Tensor, weights: Tensor, valid: Tensor) -> Tensor:
    """sum_i w_i (V_i - stop(R_i))^2, mean over states; shapes as in `reinforce_objective`."""
    return _mean_valid((weights * (value - reward.detach()) ** 2).sum(1), valid)


class Whitening(nn.Module):
    """Full whitening of features over the batch: (f - mean) L^-T with L L^T = covariance + 1e-4 I.

    Per-coordinate normalisation lets h collapse to a line; this cannot. In training the statistics of the batch are
    used (with gradients) and tracked with momentum 1/4; in evaluation the tracked ones.
    """

    mean: Tensor
    covariance: Tensor
    seen: Tensor

    def __init__(self, k: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(k))
        self.register_buffer("covariance", torch.eye(k))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, f: Tensor) -> Tensor:
        """Features `[N, K]` -> `[N, K]`, in float32 also under autocast: a covariance in bf16 is soon singular."""
        with torch.autocast(f.device.type, enabled=False):
            return self._whitened(f.float())

    def _whitened(self, f: Tensor) -> Tensor:
        mean, covariance = self.mean, self.covariance
        if self.training:
            mean = f.mean(0)
            covariance = (f - mean).t() @ (f - mean) / len(f)
            with torch.no_grad():
                self.seen.add_(1).clamp_(max=4)  # 1, 1/2, 1/3, 1/4: no bias towards the initial buffers
                self.mean.lerp_(mean, 1 / self.seen)
                self.covariance.lerp_(covariance, 1 / self.seen)
        ridge = 1e-4 * torch.eye(len(mean), device=f.device)
        # cholesky_ex, because plain cholesky reads its error code back to the host.
        factor = torch.linalg.cholesky_ex(covariance + ridge)[0]
        return torch.linalg.solve_triangular(factor, (f - mean).t(), upper=False).t()


# Gathering transitions. A batch holds frames `x` `[N, c, h, w]`, and for t = 0..T `node<t>`: which frame the sequences
# that share their first t actions stand on, `[E, P_t]`; for t < T `mask<t>` `[E, P_t, A]`.


def branch(env: Dataset, state: Tensor, steps: int) -> dict[str, Tensor]:
    """Every sequence of `steps` actions from each of E states: P_t = A^t, sequences in lexical order."""
    e, actions = len(state), env.spec.extra["actions"]
    batch, visited = {}, [state]
    for t in range(steps):
        batch[f"mask{t}"] = permitted(env, state).view(e, -1, actions)
        choices = torch.arange(actions, device=env.device).repeat(len(state))
        state = env.step(state.repeat_interleave(actions, 0), choices)  # type: ignore[attr-defined]
        visited.append(state)
    return {**batch, **frames_of(env, visited, e)}


def frames_of(env: Dataset, visited: list[Tensor], e: int) -> dict[str, Tensor]:
    """`x` and the nodes of visited states: all frames of a small environment once, else one frame per visit."""
    every = table(env)
    if every is not None and len(every) <= sum(len(state) for state in visited):
        return {"x": every, **{f"node{t}": state.view(e, -1) for t, state in enumerate(visited)}}
    batch, start = {"x": torch.cat([env.render(state) for state in visited])}, 0  # type: ignore[attr-defined]
    for t, state in enumerate(visited):
        batch[f"node{t}"] = torch.arange(start, start + len(state), device=env.device).view(e, -1)
        start += len(state)
    return batch


def drawn(source: Source, *shape: int, normal: bool = False) -> Tensor:
    """Uniform or standard normal noise `[batch, *shape]`: over several devices, this rank's rows of one global draw."""
    draw = torch.randn if normal else torch.rand
    full = draw(source.batch * source.world, *shape, generator=source.generator, device=source.generator.device)
    return full[source.rank * source.batch : (source.rank + 1) * source.batch]


def choose(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Draw one action per row of `[..., A]` from uniform noise of that shape; probability 0 is never drawn."""
    race = -uniform.clamp_min(1e-12).log()
    return (probabilities / race.clamp_min(1e-12)).argmax(-1)


def explored(log_pi: Tensor, mask: Tensor, share: float) -> Tensor:
    """(1 - share) pi + share * uniform over permitted actions, probabilities `[..., A]`."""
    uniform = mask.float() / mask.sum(-1, keepdim=True).clamp_min(1)
    return (1 - share) * log_pi.exp() + share * uniform
