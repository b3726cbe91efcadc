"""Commands for models that found what they can control: factors, rollout, predict, plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from distk.data import Dataset
    from distk.plugins.rl_control.icf.selective import SelectiveMethod

Checkpoint = Annotated[
    Path | None,
    typer.Argument(metavar="[CHECKPOINT]", help="Checkpoint or run folder; default: the newest run under ./runs."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: beside the checkpoint.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of what is drawn.", min=0)]
STATE = "a row of the environment (7), or its factor values (2,3); default: drawn from the seed"


def opened(checkpoint: Path | None, device: str, branching: bool = True) -> tuple[Path, SelectiveMethod, Dataset]:
    """The checkpoint, its model and the environment that it was trained in.

    Raises UsageError for another kind of method, or where the environment cannot branch and must.
    """
    from distk.console import note
    from distk.errors import UsageError
    from distk.models import open_model
    from distk.plugins.rl_control.icf.selective import SelectiveMethod
    from distk.run import find_checkpoint

    path = find_checkpoint(checkpoint)
    model, header = open_model(path, device)
    if not isinstance(model, SelectiveMethod):
        raise UsageError(f"'{path}' is a model of '{header.method}'; this command is for icf and icf-discrete.")
    note(f"{header.method} at step {header.step:,} from {path}")
    env = model.dataset()
    note(f"data {env.name}: {env.origin}")
    if branching and not env.spec.extra.get("branching", True):
        raise UsageError(f"'{env.name}' runs on the host and cannot be set to a state; use `distk rollout`.")
    return path, model, env


def target(path: Path, out: Path | None, name: str) -> Path:
    """`out`, or `name` beside the checkpoint. Raises UsageError when the folder does not exist."""
    from distk.errors import UsageError

    chosen = out if out is not None else path.with_name(name)
    if not chosen.parent.is_dir():
        raise UsageError(f"--out '{chosen}': the folder '{chosen.parent}' does not exist.")
    return chosen


def finish(files: list[Path], as_json: bool, values: dict[str, Any], lines: list[str]) -> None:
    """Print what was found and which files were written."""
    from distk import console

    if as_json:
        console.emit_json({**values, "files": [str(f) for f in files]})
        return
    for line in [*lines, *map(str, files)]:
        console.out.print(line, markup=False)


def factors(
    checkpoint: Checkpoint = None,
    state: Annotated[str | None, typer.Option("--state", help=f"State whose factors are drawn: {STATE}.")] = None,
    n: Annotated[int, typer.Option("--n", help="Factors to draw.", min=10, max=100_000)] = 1000,
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Draw factors phi of a state: what each one's policy prefers, the changes h' - h, h over all states, PCA of phi.

    Example: distk factors runs/icf --state 2,3 --n 1000
    """
    from distk.device import seeded
    from distk.plugins.rl_control.icf import explore, figures

    path, model, env = opened(checkpoint, device)
    generator = seeded(seed, env.device)
    start = explore.parse_state(env, state, generator)
    found = explore.sample_factors(model, env, start, n, generator)
    picture = target(path, out, "factors.png")
    figures.factors(picture, found)
    lines = [f"state {explore.name_state(env, start)}: action that each of {n} factors prefers"]
    lines += [f"  {name:>12} {share:6.1%}" for name, share in found.preferred.items()]
    values = {"state": explore.name_state(env, start), "preferred": found.preferred}
    if as_json:
        values |= {"phi": found.phi, "probabilities": found.probabilities, "dh": found.dh_here}
    finish([picture], as_json, values, lines)


def rollout(
    checkpoint: Checkpoint = None,
    phi_from: Annotated[
        str, typer.Option("--phi-from", help="random, or a JSON file with noise z: [z1, z2] or several such lists.")
    ] = "random",
    state: Annotated[str | None, typer.Option("--state", help=f"Where to start: {STATE}.")] = None,
    steps: Annotated[int, typer.Option("--steps", help="Actions to take.", min=1, max=1000)] = 5,
    phis: Annotated[int, typer.Option("--phis", help="Factors whose policies are shown.", min=1, max=64)] = 8,
    explore_share: Annotated[float, typer.Option("--explore", help="Share of random actions.", min=0, max=1)] = 0.0,
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Follow one factor's policy: a GIF of the environment, and a heat map of all shown policies at every moment.

    Example: distk rollout runs/icf --phi-from random --steps 5 --seed 3
    """
    from distk import images
    from distk.device import seeded
    from distk.plugins.rl_control.icf import explore, figures

    path, model, env = opened(checkpoint, device, branching=False)
    generator = seeded(seed, env.device)
    z = explore.read_noise(model, phi_from, phis, generator)
    start = None if not env.spec.extra.get("branching", True) else explore.parse_state(env, state, generator)
    found = explore.follow(model, env, start, z, steps, explore_share, generator)
    gif = target(path, out, "rollout.gif").with_suffix(".gif")
    images.save_gif(gif, images.enlarge(found.frames, 192), 0.6)
    heat = gif.with_suffix(".png")
    figures.policies(heat, images.enlarge(found.frames, 96), found.policies, found.actions, model.names)
    taken = [model.names[a] for a in found.actions]
    finish(
        [gif, heat], as_json, {"actions": taken, "z": z, "policies": found.policies}, ["actions: " + " ".join(taken)]
    )


def predict(
    checkpoint: Checkpoint = None,
    n: Annotated[int, typer.Option("--n", help="Predictions to draw.", min=1, max=256)] = 8,
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Decode the predicted effect of a policy, decoder(T(h, phi)) or decoder(h + dh), beside what really happens.

    Rows: before, after, predicted. Example: distk predict runs/icf --n 8
    """
    from distk import images
    from distk.device import seeded
    from distk.plugins.rl_control.icf import explore

    path, model, env = opened(checkpoint, device)
    found = explore.predictions(model, env, n, seeded(seed, env.device))
    picture = target(path, out, "predict.png").with_suffix(".png")
    images.save_png(picture, images.grid(images.enlarge(found.pictures.flatten(0, 1)), n))
    values = {"model": found.kind, "latent_error": found.latent_error, "pixel_mse": found.pixel_mse}
    lines = [
        f"{found.kind}: latent error {found.latent_error:.4f} of the variance of h, "
        f"pixel error {found.pixel_mse:.5f} (no change predicted: {found.baseline:.4f})"
    ]
    finish([picture], as_json, {**values, "latent_error_of_no_change": found.baseline}, lines)


def plan(
    checkpoint: Checkpoint = None,
    start: Annotated[str | None, typer.Option("--start", help=f"First state: {STATE}.")] = None,
    goal: Annotated[str | None, typer.Option("--goal", help=f"Last state: {STATE}.")] = None,
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Find actions from one state to another: h_goal - h_start as a sum of the changes that the factors cause.

    The actions, in whatever order works, are then carried out, and what is left is corrected the same way.
    Example: distk plan runs/icf --start 0,0 --goal 3,4
    """
    from distk import images
    from distk.device import seeded
    from distk.plugins.rl_control.icf import explore

    path, model, env = opened(checkpoint, device)
    generator = seeded(seed, env.device)
    first, last = explore.parse_state(env, start, generator), explore.parse_state(env, goal, generator)
    found = explore.plan(model, env, first, last, generator)
    picture = target(path, out, "plan.png").with_suffix(".png")
    images.save_png(picture, images.grid(images.enlarge(found.frames), len(found.frames)))
    counts = " + ".join(f"{count} {name}" for name, count in found.counts.items()) or "nothing"
    lines = [
        f"{explore.name_state(env, first)} to {explore.name_state(env, last)}: {counts}",
        f"carried out: {' '.join(found.order) or 'nothing'}",
        f"{'reached' if found.reached else 'did not reach'} the goal, after {found.rounds} decomposition(s)",
    ]
    values = {
        "actions": found.counts,
        "order": found.order,
        "reached": found.reached,
        "rounds": found.rounds,
        "residual": found.residual,
    }
    finish([picture], as_json, values, lines)
