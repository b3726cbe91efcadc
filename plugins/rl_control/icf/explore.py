"""Looking into a trained model: its factors at a state, rollouts, predictions and plans."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distk.console import counted
from distk.data import Dataset
from distk.errors import DistkError, UsageError
from distk.plugins.rl_control.data.environments import permitted
from distk.plugins.rl_control.icf import metrics
from distk.plugins.rl_control.icf import selectivity as s
from distk.plugins.rl_control.icf.selective import SelectiveMethod

LONGEST_PLAN = 64
Z_FILE_LIMIT = 1 << 20


def parse_state(env: Dataset, text: str | None, generator: torch.Generator) -> Tensor:
    """One state `[1, ...]` from a row, factor values `2,3`, or drawn at random.

    Raises UsageError for text that names no state of this environment.
    """
    if text is None:
        return metrics.states_of(env, len(env), generator)[
            torch.randint(len(env), (1,), generator=generator, device=env.device)
        ]
    names = getattr(env, "factor_names", ())
    usage = f"write a row from 0 to {len(env) - 1}, or {counted(len(names), 'value')}: {', '.join(names)}"
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"'{text}' is no state; {usage}.") from None
    row = values[0]
    if len(values) > 1 or len(names) == 1:
        if len(values) != len(names):
            raise UsageError(f"'{text}' has {counted(len(values), 'value')}; {usage}.")
        wanted = torch.tensor(values, device=env.device)
        rows = (env.factors(torch.arange(len(env), device=env.device)) == wanted).all(1)  # type: ignore[attr-defined]
        if not bool(rows.any()):
            raise UsageError(f"the environment has no state {text} (a block, or outside the grid); {usage}.")
        row = int(rows.long().argmax())
    if not 0 <= row < len(env):
        raise UsageError(f"row {row} does not exist; {usage}.")
    rows = torch.tensor([row], device=env.device)
    return rows if getattr(env, "frames", None) is not None else env.examples[rows]  # type: ignore[attr-defined]


def name_state(env: Dataset, state: Tensor) -> str:
    """A state's factor values, as `row 2, column 3`."""
    if not hasattr(env, "facts"):
        return "drawn"
    values = env.facts(state)[0].tolist()
    return ", ".join(f"{name} {value}" for name, value in zip(env.factor_names, values, strict=True))  # type: ignore[attr-defined]


@dataclass
class FactorSample:
    """n factors of one state: phi `[n, K]`, first-action probabilities `[n, A]`, dh_here `[n, K]` from that state.

    dh `[m, K]` and dh_action `[m]` come from all states; h `[S, K]` and facts `[S, F]` are the states themselves.
    """

    phi: Tensor
    probabilities: Tensor
    preferred: dict[str, float]
    dh_here: Tensor
    dh: Tensor
    dh_action: Tensor
    h: Tensor
    facts: Tensor | None
    fact_names: tuple[str, ...]
    names: list[str]


@torch.no_grad()
def sample_factors(
    model: SelectiveMethod, env: Dataset, state: Tensor, n: int, generator: torch.Generator
) -> FactorSample:
    """Factors of `state`, and n changes h' - h of factors drawn over all states (Figure 2)."""
    h = model.encoder(env.render(state))  # type: ignore[attr-defined]
    phi = model.draw_factors(h, n, generator)
    p = model.policies(h, h, phi, permitted(env, state))[0]
    best = p.argmax(-1)
    preferred = {name: float((best == a).float().mean()) for a, name in enumerate(model.names)}
    action = s.choose(p, torch.rand(p.shape, generator=generator, device=p.device))
    after = env.step(state.repeat_interleave(len(action), 0), action)  # type: ignore[attr-defined]
    codes = torch.cat([model.encoder(env.render(part)) for part in after.split(1024)])  # type: ignore[attr-defined]
    states = metrics.states_of(env, 256, generator)
    atlas = metrics.survey(model, env, 64, generator)
    drawn = metrics.sampled_changes(model, env, atlas, n, generator)
    every = model.encoder(env.render(states))  # type: ignore[attr-defined]
    first = drawn["sequence"] // model.actions ** (model.config.steps_per_policy - 1)
    facts = env.facts(states) if hasattr(env, "facts") else None
    names = getattr(env, "factor_names", ())
    return FactorSample(phi[0], p, preferred, codes - h, drawn["dh"], first, every, facts, names, model.names)


def read_noise(model: SelectiveMethod, source: str, n: int, generator: torch.Generator) -> Tensor:
    """Noise z `[n, m]`: `random`, or from a JSON file with one list of m numbers or several.

    Raises UsageError for a file of another form. For icf-discrete, whose factors are its K policies, `[K, 0]`.
    """
    if model.noise == 0:
        if source != "random":
            raise UsageError("icf-discrete has no noise z: its factors are its policies; leave out --phi-from.")
        return torch.zeros(model.n, 0, device=generator.device)
    if source == "random":
        return torch.randn(n, model.noise, generator=generator, device=generator.device)
    path = Path(source)
    form = f"expected [z1, ..., z{model.noise}] or a list of such lists"
    try:
        if path.stat().st_size > Z_FILE_LIMIT:
            raise UsageError(f"'{path}' is larger than {Z_FILE_LIMIT} bytes; {form}.")
        values = json.loads(path.read_text(encoding="utf-8"))
        z = torch.tensor(values, dtype=torch.float32, device=generator.device)
    except OSError as error:
        raise DistkError(f"--phi-from '{path}' cannot be read: {error.strerror or error}.") from error
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise UsageError(f"'{path}' holds no noise; {form}.") from error
    z = z.unsqueeze(0) if z.dim() == 1 else z
    if z.dim() != 2 or z.shape[1] != model.noise or len(z) == 0 or not bool(z.isfinite().all()):
        raise UsageError(f"'{path}' holds numbers of shape {tuple(z.shape)}; {form}.")
    return z


@dataclass
class Following:
    """frames `[T + 1, c, h, w]`, policies `[T, n, A]` (the first is the one followed), actions [T]."""

    frames: Tensor
    policies: Tensor
    actions: list[int]


@torch.no_grad()
def follow(
    model: SelectiveMethod,
    env: Any,
    state: Tensor | None,
    z: Tensor,
    steps: int,
    explore: float,
    generator: torch.Generator,
) -> Following:
    """Act for `steps` by the policy of the first factor; a new factor only after `steps_per_policy` of the model."""
    state = env.reset(1, generator) if state is None else state
    frames, policies, actions = [env.render(state)], [], []
    h0 = phi = torch.empty(0)
    for t in range(steps):
        h = model.encoder(env.render(state))
        if t % model.config.steps_per_policy == 0:
            h0, phi = h, model.factors(h, z.unsqueeze(0))
        mask = permitted(env, state)
        p = model.policies(h, h0, phi, mask)[0]
        policies.append(p)
        acting = s.explored(p[0].log(), mask[0], explore)
        action = s.choose(acting, torch.rand(acting.shape, generator=generator, device=acting.device))
        actions.append(int(action))
        state = env.step(state, action.view(1))
        frames.append(env.render(state))
    return Following(torch.cat(frames), torch.stack(policies), actions)


@torch.no_grad()
def modes(
    model: SelectiveMethod, env: Dataset, generator: torch.Generator
) -> tuple[Tensor, list[tuple[int, ...]], metrics.Atlas]:
    """The changes that the factors cause: clusters of h' - h with at least 5 % of the mass, one per kind of effect.

    Returns their means `[modes, K]`, the most frequent action sequence of each, and the atlas that they come from.
    Raises DistkError for a model whose factors change nothing.
    """
    atlas = metrics.survey(model, env, 64, generator)
    drawn = metrics.sampled_changes(model, env, atlas, 2000, generator)
    sequence, kind = drawn["sequence"].tolist(), drawn["kind"]
    moved = drawn["dh"].norm(dim=1) > 1e-6
    found, acts = [], []
    for value in kind.unique().tolist():
        mine = (kind == value) & moved
        if int(mine.sum()) >= 0.05 * len(kind):
            found.append(drawn["dh"][mine].median(0).values)
            most = Counter(sequence[i] for i in mine.nonzero()[:, 0].tolist()).most_common(1)[0][0]
            digits = []
            for _ in range(model.config.steps_per_policy):
                most, digit = divmod(most, model.actions)
                digits.append(digit)
            acts.append(tuple(reversed(digits)))
    if not found:
        raise DistkError("the factors of this model change nothing (collapsed), so there is nothing to plan with.")
    return torch.stack(found), acts, atlas


@dataclass
class Predictions:
    """pictures `[3, n, c, h, w]`: before, after, predicted; errors over them, `baseline` for predicting no change."""

    pictures: Tensor
    kind: str
    latent_error: float
    pixel_mse: float
    baseline: float


@torch.no_grad()
def predictions(model: SelectiveMethod, env: Dataset, n: int, generator: torch.Generator) -> Predictions:
    """Predicted and true codes for n drawn states: T(h, phi) over several steps, else h plus the change of a mode."""
    transition = getattr(model, "transition", None)
    steps = model.config.steps_per_policy
    vectors, acts, atlas = modes(model, env, generator)
    states = torch.randint(len(atlas.h0), (n,), generator=generator, device=atlas.h.device)
    if transition is not None:
        which = torch.randint(atlas.phi.shape[1], (n,), generator=generator, device=atlas.h.device)
        p = atlas.p[states, :, which]
        sequence = s.choose(p, torch.rand(p.shape, generator=generator, device=p.device))
        guess = transition(atlas.h0[states], atlas.phi[states, which][:, None])[:, 0]
    else:
        codes = torch.tensor([_number(a, model.actions) for a in acts], device=states.device)
        # Modes that this state's walls do not stop: the prediction knows no walls.
        real = atlas.allowed[states][:, codes] & (atlas.last[states][:, codes] != atlas.h0[states, None]).any(-1)
        which = s.choose(real + 1e-6, torch.rand(real.shape, generator=generator, device=real.device))
        sequence, guess = codes[which], atlas.h0[states] + vectors[which]
    truth = atlas.last[states, sequence]
    x = atlas.batch["x"]
    before = x[atlas.batch["node0"][states, 0]]
    after = x[atlas.batch[f"node{steps}"][states, sequence]]
    shown = model.decoder(guess)
    variance = atlas.h0.var(0, correction=0).sum().clamp_min(1e-9)

    def error(code: Tensor) -> float:
        return float((code - truth).pow(2).sum(1).mean() / variance)

    name = f"decoder(T(h, phi)), {counted(steps, 'step')}" if transition is not None else "decoder(h + dh)"
    pixel = float((shown - after).pow(2).mean())
    return Predictions(torch.stack([before, after, shown]), name, error(guess), pixel, error(atlas.h0[states]))


def _number(sequence: tuple[int, ...], actions: int) -> int:
    total = 0
    for action in sequence:
        total = total * actions + action
    return total


@dataclass
class Plan:
    """counts: actions of the decomposition; order: as carried out, corrections included; rounds: decompositions made.

    frames: the states passed, then the goal. residual: |h_goal - h_start - sum of changes| of the first one.
    """

    counts: dict[str, int]
    order: list[str]
    reached: bool
    rounds: int
    residual: float
    frames: Tensor


def decompose(difference: Tensor, vectors: Tensor) -> tuple[list[int], float]:
    """Greedy: as long as one of the `vectors` `[modes, K]` shortens the rest of `difference` `[K]`, take the best."""
    chosen: list[int] = []
    while len(chosen) < LONGEST_PLAN:
        left = (difference - vectors).norm(dim=1)
        if float(left.min()) >= float(difference.norm()) - 1e-6:
            break
        chosen.append(int(left.argmin()))
        difference = difference - vectors[chosen[-1]]
    return chosen, float(difference.norm())


@torch.no_grad()
def plan(
    model: SelectiveMethod, env: Any, first: Tensor, goal: Tensor, generator: torch.Generator, rounds: int = 8
) -> Plan:
    """Decompose h_goal - h_start into mode vectors (B.2), carry the actions out, and correct what is left.

    The changes are means over all states, so that the sum can miss by a step; then the rest is decomposed again.
    """
    vectors, acts, _ = modes(model, env, generator)
    h_goal = model.encoder(env.render(goal))
    state, frames, order, made = first, [env.render(first)], [], 0
    counts: Counter[str] = Counter()
    residual = 0.0
    while made < rounds and not torch.equal(state, goal):
        chosen, left = decompose((h_goal - model.encoder(env.render(state)))[0], vectors)
        if made == 0:
            counts, residual = Counter(_words(model, acts[i]) for i in chosen), left
        made += 1
        todo = [acts[i] for i in chosen]
        moved = False
        while todo and not torch.equal(state, goal):
            # Of the remaining ones, the one that leads nearest to the goal now: walls can ask for another order.
            options = [(*_after(model, env, state, sequence, h_goal), sequence) for sequence in sorted(set(todo))]
            after, stuck, _, sequence = min(options, key=lambda option: option[1:3])
            if stuck:
                break
            state, moved = after, True
            todo.remove(sequence)
            order.append(_words(model, sequence))
            frames.append(env.render(state))
        if not moved:
            break
    frames.append(env.render(goal))
    return Plan(dict(counts), order, torch.equal(state, goal), made, residual, torch.cat(frames))


def _words(model: SelectiveMethod, sequence: tuple[int, ...]) -> str:
    return " ".join(model.names[a] for a in sequence)


def _after(
    model: SelectiveMethod, env: Any, state: Tensor, sequence: tuple[int, ...], h_goal: Tensor
) -> tuple[Tensor, bool, float]:
    """The state after a sequence, whether nothing changed, and how far its code is from the goal's."""
    after = state
    for action in sequence:
        after = env.step(after, torch.tensor([action], device=env.device))
    return after, torch.equal(after, state), float((model.encoder(env.render(after)) - h_goal).norm())
