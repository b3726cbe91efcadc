"""`distk grasping make-data`, `check-labels`, `reconstruct` and `plan`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from torch import Tensor

from distk import console
from distk.commands.arguments import Device, Json, Seed
from distk.commands.shared import Look, OnRows, titled
from distk.config import from_dict
from distk.console import counted, note
from distk.data import Dataset
from distk.device import choose_device, seeded
from distk.errors import UsageError
from distk.files import write_atomic
from distk.look import formed
from distk.method import eval_mode
from distk.plugins.rl_control.grasping import figures, generator, gripper, meshes, shards
from distk.plugins.rl_control.grasping.bodies import CATEGORIES, Shapes, bodies
from distk.plugins.rl_control.grasping.data import Config, Grasps
from distk.plugins.rl_control.grasping.engines import engine
from distk.plugins.rl_control.grasping.method import Grasping, Scene, turned_grid
from distk.plugins.rl_control.grasping.metrics import points_of, shape_scores
from distk.plugins.rl_control.grasping.planning import Search, Settings, Starts, planned, search, starts
from distk.plugins.rl_control.grasping.single import one_scene, seed_pose

METHODS = "grasping and graspcnn"
Samples = Annotated[
    int,
    typer.Option(
        "--samples",
        help="Distances along each side of a mesh's grid; walls thinner than its spacing blur.",
        min=16,
        max=192,
    ),
]
Labels = Annotated[
    Literal["quasistatic", "mujoco"],
    typer.Option(
        "--labels", help="What says whether a grasp holds: a rule on the device, or physics (distk[physics])."
    ),
]


def make_data(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write, new or empty.")],
    objects: Annotated[int, typer.Option("--objects", help="Objects, shared out among the categories.", min=2)] = 101,
    grasps: Annotated[int, typer.Option("--grasps", help="Grasps of each object, half successes.", min=2)] = 1500,
    demos: Annotated[int, typer.Option("--demos", help="Grasps that hold, near which they are drawn.", min=1)] = 15,
    categories: Annotated[str, typer.Option("--categories", help="Some of them, with commas between.")] = "",
    labels: Labels = "quasistatic",
    folder: Annotated[
        Path | None, typer.Option("--meshes", help="Objects from CATEGORY/NAME.obj of this folder (distk[mesh]).")
    ] = None,
    scale: Annotated[
        float, typer.Option("--scale", help="Metres of a unit of the meshes; 0.001 for mm.", min=1e-6)
    ] = 1.0,
    up: Annotated[meshes.Up, typer.Option("--up", help="Axis of the meshes that points up.")] = "z",
    surface: Annotated[
        Literal["refuse", "shell"], typer.Option("--open", help="Meshes that are not closed: refuse, or a shell.")
    ] = "refuse",
    wall: Annotated[float, typer.Option("--wall", help="Thickness of that shell, metres.", min=1e-4, max=0.05)] = 0.004,
    samples: Samples = meshes.Reading.samples,
    scenes: Annotated[int, typer.Option("--scenes", help="Placings of each object.", min=1)] = 8,
    azimuths: Annotated[int, typer.Option("--azimuths", help="Views of each elevation.", min=1)] = 4,
    size: Annotated[int, typer.Option("--size", help="Rows and columns of the pictures.", min=16, max=1024)] = 128,
    voxels: Annotated[int, typer.Option("--voxels", help="Voxels along each side.", min=4, max=128)] = 32,
    noise: Annotated[bool, typer.Option("--noise", help="Noise of 1 mm + 0.5 per cent on the depth.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Make objects, pictures of them and grasps of them, as a folder that --data grasps --data-dir reads.

    Example: distk grasping make-data --out grasps/ --objects 14 --grasps 64 --demos 4 --scenes 2 --size 64
    """
    target, tries = choose_device(device), engine(labels)
    kept = grasps // demos
    if kept < 2:
        raise UsageError(f"--grasps {grasps} are less than two for each of --demos {demos}.")
    shards.vacant(out)
    if folder is not None:
        reading = meshes.Reading(scale, up, surface, wall, samples, convex=labels == "mujoco")
        shapes, names, kinds = from_meshes(folder, reading)
    else:
        shapes, names, kinds = crockery(objects, tuple(part for part in categories.split(",") if part), seed)
    shapes = shapes.to(target)
    plan = generator.Plan(
        scenes, azimuths, size, voxels, demos, kept, Config.elevations, Config.train_elevations, noise, seed
    )
    made = generator.make(shapes, names, kinds, plan, target, tries, labels)
    files = shards.write(out, made)
    count = len(made.grasps["outcome"])
    told = {"grasps": count, "successes": int(made.grasps["outcome"].sum()), "objects": len(names), "labels": labels}
    if json:
        console.emit_json({"files": [str(f) for f in files], **told})
    else:
        note(
            f"{counted(count, 'grasp')} of {counted(len(names), 'object')}, labels by {labels}: --data grasps"
            f" --data-dir {out}"
        )
        console.say(out)


def from_meshes(folder: Path, reading: meshes.Reading) -> tuple[Shapes, list[str], list[str]]:
    """Objects of a folder of meshes, their names and their categories. Raises UsageError for names that occur twice."""
    paths = meshes.found(folder)
    names = [path.stem for path, _ in paths]
    if len(set(names)) < len(names):
        raise UsageError(f"two meshes in '{folder}' are called '{max(names, key=names.count)}'; names must differ.")
    return meshes.grids([path for path, _ in paths], reading), names, [kind for _, kind in paths]


def crockery(objects: int, categories: tuple[str, ...], seed: int) -> tuple[Shapes, list[str], list[str]]:
    """Objects that are made here, their names and their categories."""
    values = {"objects": objects, "categories": categories or CATEGORIES, "data_seed": seed}
    kinds = from_dict(Config, values, "grasping make-data").names()
    return bodies(kinds, seed), [f"{kind}-{kinds[:i].count(kind):03d}" for i, kind in enumerate(kinds)], kinds


def check_labels(
    grasps: Annotated[int, typer.Option("--grasps", help="Grasps that both engines try.", min=7)] = 400,
    folder: Annotated[
        Path | None, typer.Option("--meshes", help="Of the closed meshes of this folder instead (distk[mesh]).")
    ] = None,
    scale: Annotated[
        float, typer.Option("--scale", help="Metres of a unit of the meshes; 0.001 for mm.", min=1e-6)
    ] = 1.0,
    up: Annotated[meshes.Up, typer.Option("--up", help="Axis of the meshes that points up.")] = "z",
    samples: Samples = meshes.Reading.samples,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Try the same grasps by the quasi-static rule and by MuJoCo (distk[physics]): how often do they agree?

    Example: distk grasping check-labels --grasps 28
    """
    device = torch.device("cpu")
    physics = engine("mujoco")
    rows, total = [], []
    if folder is not None:
        every, names, _ = from_meshes(folder, meshes.Reading(scale, up, samples=samples, convex=True))
        objects = [(name, every.only(index)) for index, name in enumerate(names)]
    else:
        objects = [(name, bodies([name], seed + index)) for index, name in enumerate(CATEGORIES)]
    each = -(-grasps // len(objects))
    for index, (name, shapes) in enumerate(objects):
        draw = torch.Generator().manual_seed(seed + index)
        held = generator.demonstrations(shapes, 0, min(5, each), draw, device, gripper.holds, name)
        poses = generator.near_poses(held, -(-each // len(held)), draw).flatten(0, 1)[:each]
        which = torch.zeros(len(poses), dtype=torch.long)
        both = torch.stack([gripper.holds(shapes, which, poses), physics(shapes, which, poses)])
        total.append(both)
        rows.append(agreement(name, both))
    rows.append(agreement("all", torch.cat(total, 1)))
    if json:
        console.emit_json({"agreement": rows})
    else:
        console.table(f"{counted(len(total) * each, 'grasp')}", tuple(rows[0]), [tuple(row.values()) for row in rows])


def agreement(name: str, both: Tensor) -> dict[str, Any]:
    """Shares of grasps by what both engines say, bool `[2, n]`: the rule first, physics second."""
    rule, physics = both.bool()
    share = lambda rows: round(float(rows.double().mean()), 4)  # noqa: E731
    return {
        "category": name,
        "agree": share(rule == physics),
        "only the rule": share(rule & ~physics),
        "only physics": share(~rule & physics),
    }


def reconstruct(
    on: OnRows,
    look: Look = Look(),
    n: Annotated[int, typer.Option("--n", "-n", help="Views.", min=1, max=200)] = 6,
) -> None:
    """Draw what views give: depth, silhouette, the grid from three sides, and what is between the fingers of a grasp.

    Writes the grids as npz beside the picture.

    Example: distk grasping reconstruct runs/my-run --n 4
    """
    model, dataset = opened(on, "reconstruct")
    if not model.config.shape:
        raise UsageError("the baseline has no shape to draw.")
    rows = on.rows(dataset, n)
    with torch.no_grad(), eval_mode(model):
        batch = dataset.batch(rows)
        scene = model.look(batch["x"], batch["T_wc"])
        scores = {k: float(v.double().mean()) for k, v in shape_scores(model, scene, batch).items()}
        panels = drawn(model, scene, batch)
    picture = on.beside("reconstruct.png")
    figures.shapes(picture, panels, model.far, titled(on.header))
    files = [picture, picture.with_suffix(".npz")]
    assert scene.grid is not None
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, occupancy=scene.grid.cpu().numpy().astype(np.float32), row=rows.cpu().numpy(),
        turn=scene.turn.cpu().numpy(), centre=np.array(model.cube.centre), side=np.array(model.cube.side),
    )  # fmt: skip
    write_atomic(files[1], buffer.getvalue())
    on.report(files, **scores)


def drawn(model: Grasping, scene: Scene, batch: dict[str, Tensor]) -> list[dict[str, np.ndarray]]:
    """The panels of `reconstruct`, a dict for each view."""
    depth, mask = model.seen_from(scene, batch)
    pose = batch["pose"][:, -1:]
    local = model.fingers(scene, pose)[0]
    assert scene.grid is not None
    true = turned_grid(batch["occupancy"], scene.turn, model.cube) if "occupancy" in batch else None
    found = []
    for i in range(len(depth)):
        near = torch.where(batch["depth"][i] > 0, batch["depth"][i], model.far)
        row = {
            "view": batch["x"][i, :3].permute(1, 2, 0),
            "depth seen": torch.where(batch["mask"][i], near, model.far),
            "depth of the grid": depth[i],
            "mask seen": batch["mask"][i].float(),
            "silhouette of the grid": mask[i],
            "grid, ahead": scene.grid[i].amax(1).flip(0),
            "grid, aside": scene.grid[i].amax(2).flip(0),
            "grid, above": scene.grid[i].amax(0).flip(0),
            "depth between fingers": local[i, 0],
        }
        if true is not None:
            own = Scene(scene.state[i : i + 1], scene.turn[i : i + 1], None, true[i : i + 1])
            row["depth there, true grid"] = model.fingers(own, pose[i : i + 1])[0][0, 0]
        found.append({name: value.float().cpu().numpy() for name, value in row.items()})
    return found


def plan(
    on: OnRows,
    look: Look = Look(),
    demos: Annotated[int, typer.Option("--demos", help="Demonstrations that are drawn.", min=1)] = 20,
    repeats: Annotated[int, typer.Option("--repeats", help="Starts near each of them.", min=1, max=1000)] = 8,
    steps: Annotated[int, typer.Option("--steps", help="Steps of each search.", min=1, max=1000)] = 20,
    directions: Annotated[int, typer.Option("--directions", help="Directions tried in a step.", min=1)] = 10,
    planner: Annotated[
        Literal["directions", "cem"], typer.Option("--planner", help="Best of random directions, or a fitted normal.")
    ] = "directions",
    shift: Annotated[float, typer.Option("--shift", help="Metres of a step.", min=0, max=0.2)] = 0.01,
    turn: Annotated[float, typer.Option("--turn", help="Degrees of a step.", min=0, max=180)] = 10.0,
    keep: Annotated[bool, typer.Option("--greedy-keep", help="Stay where no direction scores higher.")] = False,
    labels: Annotated[
        Literal["quasistatic", "mujoco"] | None,
        typer.Option("--labels", help="What tries the grasps; default: what labelled the data."),
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw searches: red fails, green holds.")] = False,
    rgbd: Annotated[
        Path | None, typer.Option("--rgbd", help="One scene of yours: npz with rgb, depth, K and T_wc.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--seed-pose", help="JSON with the 4x4 gripper-to-world pose to start from.")
    ] = None,
) -> None:
    """From grasps that fail to such as the model says hold: each step is the best of random directions, then tried.

    Writes poses, scores and outcomes of all steps as JSON.

    Example: distk grasping plan runs/my-run --demos 3 --repeats 2 --steps 4 --plot
    """
    model, dataset = opened(on, "plan")
    settings = Settings(planner, steps, directions, shift, turn, keep)
    draw = seeded(on.seed, dataset.device)
    if (rgbd is None) != (start is None):
        raise UsageError("a scene of yours needs both --rgbd and --seed-pose.")
    with eval_mode(model):
        if rgbd is not None and start is not None:
            views = one_scene(rgbd, model)
            pose = seed_pose(start).to(dataset.device).unsqueeze(0)
            views = {name: value.to(dataset.device) for name, value in views.items()}
            which = torch.zeros(1, dtype=torch.long, device=dataset.device)
            begin = None
            found = search(model, views, which, pose, settings, draw, None, points_of(model))
        else:
            if labels not in (None, dataset.labels):
                dataset.label(torch.zeros(0, dtype=torch.long), torch.zeros(0, 4, 4), labels)
            begin = starts(dataset, dataset.rows_of(on.split), demos, repeats, draw)
            views = dataset.viewed(begin.row)
            found = planned(model, dataset, begin, settings, draw, points_of(model))
    target = on.beside("plans.json").with_suffix(".json")
    write_atomic(target, (json.dumps(told(dataset, begin, found), indent=1) + "\n").encode())
    files = [target]
    if plot:
        files.append(target.with_name(formed(target.with_suffix(".png").name)))
        figures.strip(files[-1], *pictured(views, found), titled(on.header, "red fails, green holds"))
    table = summary(dataset, begin, found)
    if not on.json and begin is not None:
        heads = ("category", "searches", "found a grasp", "mean steps")
        console.table(
            f"{counted(len(found.scores), 'search', 'searches')}",
            heads,
            [(n, *row.values()) for n, row in table.items()],
        )
    on.report(files, plans=table)


def told(dataset: Grasps, begin: Starts | None, found: Search) -> list[dict[str, Any]]:
    """Every search as plain values: where it began, and pose, logit and outcome of each step up to its success."""
    plans = []
    for i in range(len(found.scores)):
        outcomes = None if found.outcomes is None else found.outcomes[i].tolist()
        last = len(found.scores[i]) if outcomes is None or True not in outcomes else outcomes.index(True) + 1
        where: dict[str, Any] = {}
        if begin is not None:
            scene = int(dataset.scene[begin.row[i]])
            thing = dataset.meta["objects"][int(dataset.object_of[scene])]
            where = {"object": thing["name"], "category": thing["category"], "scene": scene,
                     "row": int(begin.row[i]), "demo": int(begin.demo[i])}  # fmt: skip
        plans.append(
            {
                **where,
                "steps": [
                    {
                        "pose": found.poses[i, t].tolist(),
                        "score": float(found.scores[i, t]),
                        "outcome": None if outcomes is None else bool(outcomes[t]),
                    }
                    for t in range(last)
                ],
            }
        )
    return plans


def summary(dataset: Grasps, begin: Starts | None, found: Search) -> dict[str, dict[str, Any]]:
    """By category and in all: searches, the share that found a grasp, and after how many steps on average."""
    if begin is None or found.outcomes is None:
        return {}
    success = found.success
    steps = found.outcomes.long().argmax(1).double()
    rows = {name: begin.category == number for number, name in enumerate(dataset.spec.classes)}
    rows["all"] = torch.ones_like(success)
    return {
        name: {
            "searches": int(own.sum()),
            "success": round(float(success[own].double().mean()), 4),
            "steps": round(float(steps[own & success].mean()), 2) if bool((own & success).any()) else None,
        }
        for name, own in rows.items()
        if bool(own.any())
    }


def pictured(views: dict[str, Tensor], found: Search) -> tuple[list[list[Tensor]], list[str]]:
    """Begin, middle and end of the first six searches, and a label for each."""
    rows, labels = [], []
    for i in range(min(6, len(found.scores))):
        outcomes = found.outcomes[i].tolist() if found.outcomes is not None else [False] * len(found.scores[i])
        last = outcomes.index(True) if True in outcomes else len(outcomes) - 1
        times = [0, last // 2, last]
        colours = [figures.GREEN if outcomes[t] else figures.RED for t in times]
        if found.outcomes is None:
            colours = [figures.WHITE] * 3
        rows.append(
            [
                figures.with_gripper(views["x"][i, :3], views["K"][i], views["T_wc"][i], found.poses[i, t], colour)
                for t, colour in zip(times, colours, strict=True)
            ]
        )
        labels.append(f"steps 0, {last // 2}, {last}")
    return rows, labels


def opened(on: OnRows, command: str) -> tuple[Grasping, Grasps]:
    """The model and its data. Raises NotServed for other methods, UsageError for other data."""
    model = on.open().of(Grasping, METHODS)
    dataset: Dataset = on.dataset()
    if not isinstance(dataset, Grasps):
        raise UsageError(f"`distk grasping {command}` reads data set grasps, not '{dataset.name}'.")
    return model, dataset
