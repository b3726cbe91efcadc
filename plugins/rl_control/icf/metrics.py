"""What an agent's factors control, and how the codes move: the scores of icf and icf-discrete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distk import CodeTable, Metric, option, seeded
from distk.console import counted
from distk.data import Dataset
from distk.errors import UsageError
from distk.meaning import higher, lower, neither
from distk.plugins.rl_control.data.environments import table
from distk.plugins.rl_control.icf import selectivity as s
from distk.plugins.rl_control.icf.selective import SEQUENCES, SelectiveMethod


@dataclass(frozen=True)
class Config:
    """How much is sampled."""

    factors: int = option(256, "factors phi per state for the effective modes", min=2)
    samples: int = option(1000, "changes h' - h that are clustered", paper="1000", min=10)
    states: int = option(256, "most states that are looked at", min=2)


@dataclass
class Atlas:
    """All action sequences from E states, as a model sees them.

    batch: as `selectivity.branch`. effect: int64 `[E, P]`, sequences of a state with one outcome share a number.
    allowed: bool `[E, P]`. h, h0, last, phi, p (sequence probabilities `[E, P, n]`): as in `Rollout`.
    """

    batch: dict[str, Tensor]
    first: Tensor
    final: Tensor
    effect: Tensor
    allowed: Tensor
    h: Tensor
    h0: Tensor
    last: Tensor
    phi: Tensor
    p: Tensor


@torch.no_grad()
def survey(model: SelectiveMethod, env: Dataset, n: int, generator: torch.Generator, limit: int = 256) -> Atlas:
    """Look at up to `limit` states (all, where there are no more) with n factors each.

    Raises UsageError for an environment that cannot branch or with too many action sequences.
    """
    steps = model.config.steps_per_policy
    if not isinstance(model, SelectiveMethod):
        raise UsageError(f"metric 'icf' scores the methods icf and icf-discrete, not {type(model).__name__}.")
    if not env.spec.extra.get("branching", True):
        raise UsageError(f"'{env.name}' cannot be stepped twice from one state, so its effects cannot be listed.")
    if model.actions**steps > SEQUENCES:
        raise UsageError(
            f"{counted(model.actions, 'action')} over {counted(steps, 'step')} make more than {SEQUENCES} sequences."
        )
    first = states_of(env, limit, generator)
    batch = s.branch(env, first, steps)
    h = torch.cat([model.encoder(part) for part in batch["x"].split(1024)])
    h0, last = h[batch["node0"][:, 0]], h[batch[f"node{steps}"]]
    parts = []
    for rows in torch.arange(len(h0), device=h.device).split(max(1, 65536 // (n * model.actions ** (steps - 1)))):
        piece = {name: value if name == "x" else value[rows] for name, value in batch.items()}
        phi = model.draw_factors(h0[rows], n, generator)
        parts.append((phi, model.sequences(h, h0[rows], phi, piece)[0].exp()))
    phi, p = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    final, allowed = first, torch.ones(len(first), 1, dtype=torch.bool, device=h.device)
    for t in range(steps):
        choices = torch.arange(model.actions, device=h.device).repeat(len(final))
        final = env.step(final.repeat_interleave(model.actions, 0), choices)  # type: ignore[attr-defined]
        allowed = (allowed.unsqueeze(-1) & batch[f"mask{t}"]).flatten(1)
    final = final.view(len(first), model.actions**steps, *final.shape[1:])
    same = (final.flatten(2) if final.dim() > 2 else final.unsqueeze(-1)).unsqueeze(2)
    effect = (same == same.transpose(1, 2)).all(-1).long().argmax(-1)
    return Atlas(batch, first, final, effect, allowed, h, h0, last, phi, p)


def states_of(env: Dataset, limit: int, generator: torch.Generator) -> Tensor:
    """All states where they can be listed and are few, else `limit` of them."""
    if table(env) is None:
        return env.reset(limit, generator)  # type: ignore[attr-defined]
    if len(env) <= limit:
        return torch.arange(len(env), device=env.device)
    return torch.randperm(len(env), generator=generator, device=env.device)[:limit].sort().values


def information(atlas: Atlas) -> tuple[Tensor, Tensor]:
    """I(phi; effect | state) in nats and the number of possible effects, both float `[E]`."""
    index = atlas.effect.unsqueeze(-1).expand_as(atlas.p)
    q = torch.zeros_like(atlas.p).scatter_add(1, index, atlas.p)

    def h(p: Tensor) -> Tensor:
        return -torch.special.xlogy(p, p).sum(1)

    possible = torch.zeros_like(atlas.allowed, dtype=torch.long).scatter_add(1, atlas.effect, atlas.allowed.long())
    return h(q.mean(-1, keepdim=True))[:, 0] - h(q).mean(-1), (possible > 0).sum(1).float()


@torch.no_grad()
def sampled_changes(
    model: SelectiveMethod, env: Dataset, atlas: Atlas, n: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """n times: a state, one of its factors, and a sequence from its policy. Tensors `[n, ...]`.

    state: index into the atlas. phi, dh = h' - h. sequence: which of P. kind: what happened (see `kinds_of`).
    """
    states = torch.arange(n, device=atlas.h.device) % len(atlas.h0)
    which = torch.randint(atlas.phi.shape[1], (n,), generator=generator, device=atlas.h.device)
    p = atlas.p[states, :, which]
    sequence = s.choose(p, torch.rand(p.shape, generator=generator, device=p.device))
    kind = kinds_of(model, env, atlas)[states, sequence]
    change = (atlas.last - atlas.h0.unsqueeze(1))[states, sequence]
    return {"state": states, "phi": atlas.phi[states, which], "dh": change, "sequence": sequence, "kind": kind}


def kinds_of(model: SelectiveMethod, env: Dataset, atlas: Atlas) -> Tensor:
    """A number per sequence `[E, P]` for what it changed, comparable between states: the difference of the factors.

    Where factors are unknown, the action sequences, merged where all states agree on their outcome.
    """
    if hasattr(env, "facts"):
        after = env.facts(atlas.final.flatten(0, 1)).view(*atlas.final.shape[:2], -1)
        change = (after - env.facts(atlas.first).unsqueeze(1)).flatten(0, 1)
        return torch.unique(change, dim=0, return_inverse=True)[1].view(atlas.effect.shape)
    same = (atlas.effect.unsqueeze(2) == atlas.effect.unsqueeze(1)).all(0)
    return same.long().argmax(-1).expand_as(atlas.effect)


def clusters(dh: Tensor) -> np.ndarray:
    """Mean-shift with bandwidth a quarter of the mean length: `[n]` labels, -1 where nothing moves at all."""
    from sklearn.cluster import MeanShift

    points = dh.double().cpu().numpy()
    bandwidth = 0.25 * float(np.linalg.norm(points, axis=1).mean())
    if bandwidth < 1e-6:
        return np.full(len(points), -1)
    return MeanShift(bandwidth=bandwidth, bin_seeding=True).fit(points).labels_


class ICFMetric(Metric[Config]):
    """Scores of factors and policies; the paper prints figures only. Numbers need an environment that can branch.

    modes: exp of the mean I(phi; effect | state), 1 = nothing controlled, at most the number of distinct effects.
    R^2 and orthogonality come from whitening and smoothing alone: they prove nothing about selectivity.
    """

    headline = "modes"
    numbers = {
        "modes": higher(1, unit="effects", chance=1.0, what="exp of I(phi; effect | state)"),
        "modes_interior": higher(1, unit="effects", chance=1.0),
        "effects": neither(1, unit="effects", whole=True, what="different ones that there are"),
        "collapse": lower(None, 1, what="1 - modes / effects"),
        "dh_modes": higher(0, unit="clusters", whole=True),
        "dh_purity": higher(0, 1),
        "up_shared": neither(0, 1),
        "r2*": higher(None, 1, chance=0.0),
        "dh_spread": lower(0),
        "abs_cos_*": lower(0, 1),
        "cos_*": lower(-1, 1),
        "S*": higher(source="Thomas et al. 2018, eq. 2"),
        "latent_error": lower(0, what="over the variance of h"),
        "pixel_mse": lower(0),
        "matched_correlation": higher(0, 1),
    }
    needs_model = True

    @torch.no_grad()
    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        model, env = table.model, table.dataset
        if not isinstance(model, SelectiveMethod) or env is None:
            raise UsageError(f"metric 'icf' scores the methods icf and icf-discrete, not {type(model).__name__}.")
        generator = seeded(seed, env.device)
        several = model.config.steps_per_policy > 1
        n = min(self.config.factors, 32) if several else self.config.factors
        atlas = survey(model, env, n, generator, self.config.states)
        return {
            **_modes(atlas),
            **_mode_clusters(model, env, atlas, self.config.samples, generator),
            **_readout(table, seed),
            **_geometry(model, atlas),
            **_selectivity(model, atlas),
            **_prediction(model, atlas),
            **_correlation(table),
        }


def _modes(atlas: Atlas) -> dict[str, Any]:
    nats, possible = information(atlas)
    inner = possible == possible.max()
    modes = float(nats.mean().exp())
    most = float(possible.max())
    return {
        "modes": modes,
        "modes_interior": float(nats[inner].mean().exp()),
        "effects": most,
        "collapse": 1 - modes / most,
    }


def _mode_clusters(
    model: SelectiveMethod, env: Dataset, atlas: Atlas, samples: int, generator: torch.Generator
) -> dict[str, Any]:
    """Clusters of h' - h with at least 5 % of the mass, and how pure they are in what actually happened."""
    drawn = sampled_changes(model, env, atlas, samples, generator)
    label, kind = clusters(drawn["dh"]), drawn["kind"].cpu().numpy()
    sizes = {c: int((label == c).sum()) for c in np.unique(label) if c >= 0}
    large = [c for c, size in sizes.items() if size >= 0.05 * len(label)]
    pure = sum(int(np.bincount(kind[label == c]).max()) for c in sizes)
    found: dict[str, Any] = {
        "dh_modes": float(len(large)),
        "dh_purity": pure / sum(sizes.values()) if sizes else float("nan"),
    }
    if model.config.steps_per_policy == 1 and {"up", "up2"} <= set(model.names):
        sequence = drawn["sequence"].cpu().numpy()
        a, b = (label[sequence == model.names.index(name)] for name in ("up", "up2"))
        if len(a) and len(b):
            shares = [min(float((a == c).mean()), float((b == c).mean())) for c in np.unique(label)]
            found["up_shared"] = float(sum(shares))
    return found


def _readout(table: CodeTable, seed: int) -> dict[str, Any]:
    """R^2 of each factor from h: least squares on half of the states, tested on the other half."""
    if table.factors is None or len(table) < 8:
        return {}
    order = np.random.default_rng(seed).permutation(len(table))
    x = np.column_stack([table.codes.double().cpu().numpy(), np.ones(len(table))])
    y = table.factors.double().cpu().numpy()
    fit, test = order[::2], order[1::2]
    error = y[test] - x[test] @ np.linalg.lstsq(x[fit], y[fit], rcond=None)[0]
    spread = ((y[test] - y[test].mean(0)) ** 2).sum(0)
    r2 = [1 - e / s if s > 0 else float("nan") for e, s in zip((error**2).sum(0), spread, strict=True)]
    named = {f"r2_{name}": float(value) for name, value in zip(table.factor_names, r2, strict=True)}
    return {"r2": float(np.nanmean(r2)), **named}


def _geometry(model: SelectiveMethod, atlas: Atlas) -> dict[str, Any]:
    """Angles between mean changes, and how little a change depends on where it happens (one step only)."""
    if model.config.steps_per_policy > 1:
        return {}
    change = atlas.last - atlas.h0.unsqueeze(1)
    moved = atlas.allowed & (change.norm(dim=-1) > 1e-6)
    weight = moved.float() / moved.float().sum(0).clamp_min(1)
    mean = (change * weight.unsqueeze(-1)).sum(0)
    spread = ((change - mean).pow(2).sum(-1) * weight).sum(0).sqrt() / mean.norm(dim=-1).clamp_min(1e-9)

    def cosine(a: str, b: str) -> float:
        u, v = mean[model.names.index(a)], mean[model.names.index(b)]
        return float((u @ v) / (u.norm() * v.norm()).clamp_min(1e-9))

    found: dict[str, Any] = {"dh_spread": float(spread[moved.any(0)].mean()) if bool(moved.any()) else float("nan")}
    # Plain names in the maze; with one digit's number in the grid of digits, where "up2" is the other digit's up.
    for end in ("", "1", "2"):
        if {f"{name}{end}" for name in ("up", "down", "right")} <= set(model.names):
            found[f"abs_cos_up_right{end}"] = abs(cosine(f"up{end}", f"right{end}"))
            found[f"cos_up_down{end}"] = cosine(f"up{end}", f"down{end}")
    return found


def _selectivity(model: SelectiveMethod, atlas: Atlas) -> dict[str, Any]:
    """S in nats (icf-discrete: its linear or log form), and the mean reward where each action was taken (one step)."""
    reward = model.reward(atlas.h0, atlas.last, atlas.phi)
    taken = (atlas.p * reward).sum(-1)
    found: dict[str, Any] = {"S": float((atlas.p * reward).sum(1).mean())}
    if model.config.steps_per_policy == 1:
        mass = atlas.p.sum(-1).sum(0)
        by_action = torch.where(mass > 1e-6, taken.sum(0) / mass.clamp_min(1e-6), torch.nan)
        found |= {f"S_{name}": float(v) for name, v in zip(model.names, by_action, strict=True)}
    return found


def _prediction(model: SelectiveMethod, atlas: Atlas) -> dict[str, Any]:
    """Error of T(h, phi) relative to the variance of h, and of the picture decoded from it (several steps only)."""
    transition = getattr(model, "transition", None)
    if transition is None:
        return {}
    guess = transition(atlas.h0, atlas.phi)
    squared = (guess.unsqueeze(1) - atlas.last.unsqueeze(2)).pow(2).sum(-1)
    variance = atlas.h0.var(0, correction=0).sum().clamp_min(1e-9)
    best = atlas.p.argmax(1)
    frames = atlas.batch["x"][atlas.batch[f"node{model.config.steps_per_policy}"].gather(1, best)]
    pixels = [
        (model.decoder(g) - f).pow(2).mean()
        for g, f in zip(guess[:, :8].unbind(1), frames[:, :8].unbind(1), strict=True)
    ]
    return {
        "latent_error": float((atlas.p * squared).sum(1).mean() / variance),
        "pixel_mse": float(torch.stack(pixels).mean()),
    }


def _correlation(table: CodeTable) -> dict[str, Any]:
    """Each coordinate of h against each factor: |correlation|, slope per unit, and the best one-to-one matching."""
    from scipy.optimize import linear_sum_assignment

    if table.factors is None:
        return {}
    h, y = table.codes.double().cpu().numpy(), table.factors.double().cpu().numpy()
    h, y = h - h.mean(0), y - y.mean(0)
    covariance = h.T @ y / len(h)
    scale = np.outer(h.std(0), y.std(0))
    correlation = np.abs(np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 1e-12))
    slope = np.divide(covariance, y.var(0), out=np.zeros_like(covariance), where=y.var(0) > 0)
    rows, columns = linear_sum_assignment(-correlation)
    return {
        "matched_correlation": float(correlation[rows, columns].mean()),
        "correlation": correlation,
        "slope": slope,
    }
