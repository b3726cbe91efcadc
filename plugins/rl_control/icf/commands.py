"""`distk icf factors`, `rollout`, `predict` and `plan`: what a model found that it can control."""

from __future__ import annotations

from typing import Annotated

import typer

from distk import console, images
from distk.commands.arguments import Seed
from distk.commands.shared import Look, OnModel, its_data, titled
from distk.console import counted
from distk.data import Dataset
from distk.device import seeded
from distk.errors import UsageError
from distk.look import formed
from distk.plugins.rl_control.icf import explore, figures
from distk.plugins.rl_control.icf.selective import SelectiveMethod
from distk.sheet import Sheet

STATE = "a row of the environment (7), or its factor values (2,3); default: drawn from the seed"


def factors(
    on: OnModel,
    look: Look = Look(),
    state: Annotated[str | None, typer.Option("--state", help=f"State whose factors are drawn: {STATE}.")] = None,
    n: Annotated[int, typer.Option("--n", help="Factors to draw.", min=10, max=100_000)] = 1000,
    seed: Seed = 0,
) -> None:
    """Draw factors phi of a state: what each one's policy prefers, the changes h' - h, h over all states, PCA of phi.

    Example: distk icf factors runs/icf --state 2,3 --n 1000
    """
    model, env = in_environment(on)
    generator = seeded(seed, env.device)
    start = explore.parse_state(env, state, generator)
    drawn = explore.sample_factors(model, env, start, n, generator)
    picture = on.beside("factors.png")
    figures.factors(picture, drawn)
    _tell(on, f"state {explore.name_state(env, start)}: action that each of {counted(n, 'factor')} prefers")
    _tell(on, *(f"  {name:>12} {share:6.1%}" for name, share in drawn.preferred.items()))
    values = {"phi": drawn.phi, "probabilities": drawn.probabilities, "dh": drawn.dh_here}
    on.report([picture], state=explore.name_state(env, start), preferred=drawn.preferred, **values)


def rollout(
    on: OnModel,
    look: Look = Look(),
    phi_from: Annotated[
        str, typer.Option("--phi-from", help="random, or a JSON file with noise z: [z1, z2] or several such lists.")
    ] = "random",
    state: Annotated[str | None, typer.Option("--state", help=f"Where to start: {STATE}.")] = None,
    steps: Annotated[int, typer.Option("--steps", help="Actions to take.", min=1, max=1000)] = 5,
    phis: Annotated[int, typer.Option("--phis", help="Factors whose policies are shown.", min=1, max=64)] = 8,
    explore_share: Annotated[float, typer.Option("--explore", help="Share of random actions.", min=0, max=1)] = 0.0,
    seed: Seed = 0,
) -> None:
    """Follow one factor's policy: a GIF of the environment, and a heat map of all shown policies at every moment.

    Example: distk icf rollout runs/icf --phi-from random --steps 5 --seed 3
    """
    model, env = in_environment(on, branching=False)
    generator = seeded(seed, env.device)
    z = explore.read_noise(model, phi_from, phis, generator)
    start = None if not env.spec.extra.get("branching", True) else explore.parse_state(env, state, generator)
    walk = explore.follow(model, env, start, z, steps, explore_share, generator)
    gif = on.beside("rollout.gif").with_suffix(".gif")
    images.save_gif(gif, images.enlarge(walk.frames, 192), 0.6)
    heat = gif.with_name(formed(gif.with_suffix(".png").name))
    figures.policies(heat, images.enlarge(walk.frames, 96), walk.policies, walk.actions, model.names)
    actions = [model.names[a] for a in walk.actions]
    _tell(on, "actions: " + " ".join(actions))
    on.report([gif, heat], actions=actions, z=z, policies=walk.policies)


def predict(
    on: OnModel,
    look: Look = Look(),
    n: Annotated[int, typer.Option("--n", help="Predictions to draw.", min=1, max=256)] = 8,
    seed: Seed = 0,
) -> None:
    """Decode the predicted effect of a policy, decoder(T(h, phi)) or decoder(h + dh), beside what really happens.

    Rows: before, after, predicted.

    Example: distk icf predict runs/icf --n 8
    """
    model, env = in_environment(on)
    made = explore.predictions(model, env, n, seeded(seed, env.device))
    picture = on.beside("predict.png")
    cells = images.enlarge(made.pictures.flatten(0, 1))
    Sheet(cells, n, rows=["before", "after", "predicted"], title=titled(on.header, made.kind)).write(picture)
    _tell(
        on,
        f"{made.kind}: latent error {made.latent_error:.4f} of the variance of h, "
        f"pixel error {made.pixel_mse:.5f} (no change predicted: {made.baseline:.4f})",
    )
    values = {"model": made.kind, "latent_error": made.latent_error, "pixel_mse": made.pixel_mse}
    on.report([picture], **values, latent_error_of_no_change=made.baseline)


def plan(
    on: OnModel,
    look: Look = Look(),
    start: Annotated[str | None, typer.Option("--start", help=f"First state: {STATE}.")] = None,
    goal: Annotated[str | None, typer.Option("--goal", help=f"Last state: {STATE}.")] = None,
    seed: Seed = 0,
) -> None:
    """Find actions from one state to another: h_goal - h_start as a sum of the changes that the factors cause.

    The actions, in whatever order works, are then carried out, and what is left is corrected the same way.

    Example: distk icf plan runs/icf --start 0,0 --goal 3,4
    """
    model, env = in_environment(on)
    generator = seeded(seed, env.device)
    first, last = explore.parse_state(env, start, generator), explore.parse_state(env, goal, generator)
    planned = explore.plan(model, env, first, last, generator)
    picture = on.beside("plan.png")
    frames = images.enlarge(planned.frames)
    heads = ["start", *planned.order][: len(frames)] if len(planned.order) + 1 >= len(frames) else []
    Sheet(frames, len(frames), heads=heads, title=titled(on.header)).write(picture)
    rounds = counted(planned.rounds, "decomposition")
    counts = " + ".join(f"{count} {name}" for name, count in planned.counts.items()) or "nothing"
    _tell(
        on,
        f"{explore.name_state(env, first)} to {explore.name_state(env, last)}: {counts}",
        f"carried out: {' '.join(planned.order) or 'nothing'}",
        f"{'reached' if planned.reached else 'did not reach'} the goal, after {rounds}",
    )
    values = {"order": planned.order, "reached": planned.reached, "rounds": planned.rounds}
    on.report([picture], actions=planned.counts, **values, residual=planned.residual)


def in_environment(on: OnModel, branching: bool = True) -> tuple[SelectiveMethod, Dataset]:
    """The model that `on` names, and the environment that it was trained in.

    Raises UsageError for another kind of method, or where the environment cannot branch and must.
    """
    model = on.open().of(SelectiveMethod, "icf and icf-discrete")
    env = its_data(model, on.header, None, None)
    if branching and not env.spec.extra.get("branching", True):
        raise UsageError(f"'{env.name}' runs on the host and cannot be set to a state; use `distk icf rollout`.")
    return model, env


def _tell(on: OnModel, *lines: str) -> None:
    """Print lines for people, who did not ask for JSON."""
    for line in lines if not on.json else ():
        console.say(line)
