"""`distk dyncontent plan`, `predict` and `map`, for models of dyncontent and rce."""

from __future__ import annotations

import io
from typing import Annotated, Literal

import numpy as np
import torch
import typer

from distk import console, images
from distk.commands.arguments import Seed
from distk.commands.shared import Look, OnModel, OnRows, titled
from distk.console import counted
from distk.data import Dataset
from distk.device import seeded
from distk.errors import UsageError
from distk.files import write_atomic
from distk.nn import bernoulli_nll
from distk.plugins.rl_control.dyncontent import figures
from distk.plugins.rl_control.dyncontent.data import SETS, Planar, checked_place, integer_states
from distk.plugins.rl_control.dyncontent.method import LocallyLinear
from distk.plugins.rl_control.dyncontent.metrics import GOALS, codes_of, starts_and_goals
from distk.plugins.rl_control.dyncontent.planning import HORIZON, WINDOW, Drive, Settings, drive
from distk.sheet import Sheet

Which = Literal["x", "y", "both"]
METHODS = "dyncontent and rce"


def plan(
    on: OnModel,
    look: Look = Look(),
    which: Annotated[Which | None, typer.Option("--on", help="The set whose pictures are seen; default: all.")] = None,
    runs: Annotated[int, typer.Option("--runs", help="Plans, all steered as one batch.", min=1, max=100_000)] = 20,
    horizon: Annotated[int, typer.Option("--horizon", help="Moves of each.", min=1, max=1000)] = HORIZON,
    window: Annotated[int, typer.Option("--window", help="Moves that are planned ahead.", min=1, max=200)] = WINDOW,
    iterations: Annotated[int, typer.Option("--iterations", help="Of iLQR before each move.", min=1, max=100)] = 4,
    start: Annotated[str | None, typer.Option("--start", help="row,column; default: drawn from [3,7] x [3,7].")] = None,
    goal: Annotated[str | None, typer.Option("--goal", help="row,column; default: 37,37.")] = None,
    goals: Annotated[
        Literal["opposite", "all"], typer.Option("--goals", help="One corner, or three in turn.")
    ] = "opposite",
    state_cost: Annotated[float, typer.Option("--state-cost", help="Q = this times I, on the code.")] = 10.0,
    action_cost: Annotated[float, typer.Option("--action-cost", help="R = this times I, on actions in [-1, 1].")] = 1.0,
    open_loop: Annotated[bool, typer.Option("--open-loop", help="Carry out one plan of the whole horizon.")] = False,
    gif: Annotated[bool, typer.Option("--gif", help="Also write a GIF of the first run.")] = False,
    seed: Seed = 0,
) -> None:
    """Steer from a start to a goal that are seen as pictures: iLQR in the latent space, carried out in the true world.

    Writes the ways as a picture, and states, actions, costs and successes as npz beside it.

    Example: distk dyncontent plan runs/my-run --on both --runs 4 --horizon 12
    """
    model, world = in_planar(on, "plan")
    settings = Settings(window, iterations, state_cost, action_cost)
    drives: dict[str, Drive] = {}
    for name in chosen(model, which):
        generator = seeded(seed, world.device)
        first, last = starts_and_goals(runs, GOALS[goals], SETS.index(name), generator)
        for text, states, option in ((start, first, "--start"), (goal, last, "--goal")):
            if text is not None:
                states[:, :2] = checked_place(place_of(text, option).to(world.device), option)
        drives[name] = drive(
            model, world, first, last, horizon, settings, generator,
            noise=world.config.noise, replan=not open_loop, keep_frames=gif,
        )  # fmt: skip
    picture = on.beside("plan.png")
    figures.paths(picture, world, drives)
    files = [picture, picture.with_suffix(".npz")]
    held = {
        f"{key}_{name}": value.cpu().numpy()
        for name, run in drives.items()
        for key, value in (
            ("states", run.states), ("actions", run.actions), ("cost", run.cost), ("success", run.success)
        )
    }  # fmt: skip
    buffer = io.BytesIO()
    np.savez(buffer, **held)  # type: ignore[arg-type]
    write_atomic(files[1], buffer.getvalue())
    if gif:
        files.append(picture.with_suffix(".gif"))
        figures.film(files[-1], drives)
    table = {name: summary(run) for name, run in drives.items()}
    if not on.json:
        heads = ("set", "arrive", "cost", "sd of cost", "share of time at the goal", "pixels away at the end")
        console.table(
            f"{counted(runs, 'plan')} of {counted(horizon, 'move')}",
            heads,
            [(n, *row.values()) for n, row in table.items()],
        )
    on.report(files, plans=table)


def summary(run: Drive) -> dict[str, float]:
    """What came of some plans: shares, costs in the paper's sense, and pixels."""
    return {
        "success": float(run.success.float().mean()),
        "cost": float(run.cost.mean()),
        "cost_sd": float(run.cost.std(correction=0)),
        "goal_fraction": float(run.goal_fraction.mean()),
        "away": float(run.away[:, -1].mean()),
    }


def predict(
    on: OnRows,
    look: Look = Look(),
    steps: Annotated[int, typer.Option("--steps", help="Actions that are foretold in a row.", min=1, max=100)] = 4,
    n: Annotated[int, typer.Option("--n", "-n", help="Items; the first eight are drawn.", min=1, max=100_000)] = 64,
) -> None:
    """Foretell frames under random actions by the transition alone, and draw them below what does happen.

    Two rows per item: what happens, and below it the first frame decoded and what was foretold from it. The error of
    each step is -log p of the true frame, in nats, beside that of foretelling that nothing changes.

    Example: distk dyncontent predict runs/my-run --steps 3 --n 6
    """
    model, dataset = opened(on, "predict")
    if not getattr(dataset, "can_step", False):
        raise UsageError(
            f"'{dataset.name}' is recorded, so nobody knows what other actions would have done; --data planar."
        )
    rows = on.rows(dataset, n)
    with torch.no_grad():
        state, generator = dataset.state(rows), seeded(on.seed, dataset.device)  # type: ignore[attr-defined]
        seen = [dataset.render(state)]  # type: ignore[attr-defined]
        codes = [model.encode(seen[0])]
        for _ in range(steps):
            u = model.actions.sample(len(rows), generator)
            state = dataset.step(state, u)  # type: ignore[attr-defined]
            seen.append(dataset.render(state))  # type: ignore[attr-defined]
            codes.append(model.foretell(codes[-1], u))
        errors, still = (
            [
                float(bernoulli_nll(model.logits(c).flatten(1), x.flatten(1)).mean())
                for c, x in zip(cs, seen, strict=True)
            ]
            for cs in (codes, [codes[0]] * len(seen))
        )
        made = [model.decode(code) for code in codes]
        pairs = torch.stack([torch.stack(seen, 1), torch.stack(made, 1)], 1)[:8]  # [items, 2, steps + 1, *shape]
    picture = on.beside("predict.png")
    names = [f"{row} {what}" for row in rows.tolist()[: len(pairs)] for what in ("happens", "foretold")]
    above = [counted(k, "action") for k in range(steps + 1)]
    cells = images.enlarge(pairs.flatten(0, 2))
    Sheet(cells, steps + 1, rows=names, heads=above, title=titled(on.header)).write(picture)
    if not on.json:
        told = ("actions", "nats", "nats if nothing changed")
        console.table(
            f"{counted(len(rows), 'item')}", told, [(i, *row) for i, row in enumerate(zip(errors, still, strict=True))]
        )
    on.report([picture], errors=errors, errors_of_no_change=still)


def latent_map(on: OnModel, look: Look = Look()) -> None:
    """Draw the plane's states and, in the same colours, their codes from pictures of each set.

    Example: distk dyncontent map runs/my-run
    """
    model, world = in_planar(on, "map")
    with torch.no_grad():
        place = integer_states(world.device)
        codes = {name: codes_of(model, world, place, SETS.index(name))["dynamics"] for name in chosen(model, None)}
    picture = on.beside("map.png")
    figures.latent_map(picture, place, codes)
    on.report([picture], states=len(place))


def opened(on: OnModel, command: str) -> tuple[LocallyLinear, Dataset]:
    """The model and its data. Raises NotServed, naming who does it, for a method without a transition."""
    model = on.open().of(LocallyLinear, METHODS)
    return model, on.dataset() if isinstance(on, OnRows) else model.dataset()


def in_planar(on: OnModel, command: str) -> tuple[LocallyLinear, Planar]:
    """The model, and the planar world that it was trained in. Raises UsageError for other data."""
    model, world = opened(on, command)
    if not isinstance(world, Planar):
        raise UsageError(
            f"`distk dyncontent {command}` acts in the planar world; this model was trained on '{world.name}'."
        )
    return model, world


def chosen(model: LocallyLinear, which: Which | None) -> tuple[str, ...]:
    """The sets that are looked at: as asked, or those that the model was trained on."""
    if which is None:
        return SETS if model.two_sets else SETS[:1]
    return SETS if which == "both" else (which,)


def place_of(text: str, option: str) -> torch.Tensor:
    """`row,column` -> float32 `[2]`. Raises UsageError for anything else."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 2 or not all(np.isfinite(values)):
        raise UsageError(f"{option} '{text}' is not row,column, such as 5,5.")
    return torch.tensor(values)
