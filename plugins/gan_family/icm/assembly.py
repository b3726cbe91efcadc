"""`distk icm drop`, `export` and `add`: take a set of experts apart and put sets together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from distk import checkpoint, console
from distk.commands.arguments import Seed
from distk.commands.shared import OnModel
from distk.config import to_dict
from distk.device import choose_device, initialised, seeded
from distk.errors import UsageError
from distk.options import Without
from distk.plugins.gan_family.icm.commands import Replica, census, make_folder, with_experts
from distk.plugins.gan_family.icm.method import ICM

UNUSED = 0.01
"""An expert that wins a smaller share of the mixture counts as unused."""

On = Annotated[OnModel, Without("out")]
Target = Annotated[
    Path, typer.Option("--out", "-o", help="New run folder, or a .safetensors file; must not exist yet.")
]
Chosen = tuple[ICM, list[int]]
"""Numbers of experts, of the replica that the model shows."""


def drop(
    on: On,
    out: Target,
    expert: Annotated[list[int] | None, typer.Option(help="Number of an expert to drop, repeatable.")] = None,
    unused: Annotated[
        bool, typer.Option("--unused", help="Drop every expert that wins less than 1% of 1,000 test images.")
    ] = False,
    replica: Replica = 0,
    seed: Seed = 0,
) -> None:
    """Write a model without some of its experts; the others keep their order and are numbered anew.

    Example: distk icm drop runs/my-run --unused --out runs/smaller
    """
    model = with_experts(on, replica)
    gone = set(expert or [])
    for number in gone:
        model.expert(number)  # raises for a number that no expert has
    if unused:
        gone |= {e["expert"] for e in census(model, 1000, seed) if e["win_share"] < UNUSED}
    if not gone and not unused:
        raise UsageError("say which experts to drop: --expert N, or --unused.")
    kept = [j for j in range(model.number) if j not in gone]
    if not kept:
        raise UsageError("at least one expert must remain.")
    write(on, out, [(model, kept)], 0, seed, dropped=sorted(gone))


def export(
    on: On, expert: Annotated[int, typer.Option(help="Number of the expert.")], out: Target, replica: Replica = 0
) -> None:
    """Write one expert, with the discriminator, as a model of its own.

    Example: distk icm export runs/my-run --expert 3 --out denoiser.safetensors
    """
    model = with_experts(on, replica)
    model.expert(expert)
    write(on, out, [(model, [expert])], 0, on.header.seed, exported=expert)


def add_(
    on: On,
    out: Target,
    from_: Annotated[
        list[Path] | None, typer.Option("--from", help="Checkpoint whose experts are appended, repeatable.")
    ] = None,
    fresh: Annotated[int, typer.Option(help="So many untrained experts are appended.", min=0, max=4096)] = 0,
    replica: Replica = 0,
    seed: Seed = 0,
) -> None:
    """Write a model with further experts, taken from other checkpoints or fresh.

    `distk resume` then trains on: fresh experts first become the identity while the others rest, then all compete.

    Example: distk icm add runs/my-run --from denoiser.safetensors --fresh 2 --out runs/larger
    """
    model = with_experts(on, replica)
    parts = [(model, list(range(model.number)))]
    for file in from_ or []:
        other = with_experts(OnModel(checkpoint=file, device=on.device), 0)
        if other.experts.shape != model.experts.shape:
            names = ("channels", "width", "depth")
            theirs, ours = (
                ", ".join(f"{k} {v}" for k, v in zip(names, m.experts.shape, strict=True)) for m in (other, model)
            )
            raise UsageError(
                f"the experts of '{file}' have {theirs}, those of '{on.path}' {ours}: they cannot be joined."
            )
        parts.append((other, list(range(other.number))))
    if len(parts) == 1 and not fresh:
        raise UsageError("say what to add: --from CHECKPOINT, or --fresh N.")
    write(on, out, parts, fresh, seed, added=sum(len(chosen) for _, chosen in parts[1:]) + fresh)


def write(on: OnModel, out: Path, parts: list[Chosen], fresh: int, seed: int, **values: Any) -> None:
    """Write a model made of the chosen experts, with the shown replica's discriminator, ready to be trained on.

    parts: the first is of the model that `on` opened. values: what the report says beside.
    """
    target = out if out.suffix == ".safetensors" else out / "checkpoint.safetensors"
    if target.exists():
        raise UsageError(f"--out '{target}' exists already; choose another.")
    make_folder(target.parent)
    made, header = assembled(parts[0][0], parts, fresh, seed), on.header
    header.config, header.latents = to_dict(made.config), made.latents.to_list()
    # Without a fresh expert there is nothing to pre-train, so the count starts where competition does.
    header.step, header.metrics = 0 if fresh else made.config.identity_iters, {}
    checkpoint.save(target, made, header, first_state(header.train, header.step, seed))
    console.note(f"experts: {made.number}; train on with: distk resume {target}")
    on.report([target], experts=made.number, **values, was=str(on.path))


def assembled(model: ICM, parts: list[Chosen], fresh: int, seed: int) -> ICM:
    """A model of one replica: chosen experts (by number, of the replica that each model shows) and `fresh` new ones.

    The critic is that of `model`'s shown replica. Only fresh experts will be pre-trained to the identity.
    """
    count = sum(len(chosen) for _, chosen in parts) + fresh
    config = dataclasses.replace(model.config, experts=count, replicas=1, first_replica=0)
    device = model.pending.device
    with initialised(seed, device):
        made = ICM(config, model.spec).to(device).eval()
    state = made.state_dict()
    state["pending"] = torch.ones_like(made.pending)
    state["pending"][: count - fresh] = 0
    for name, value in model.critic.state_dict().items():
        state[f"critic.{name}"] = value[model.shown : model.shown + 1]
    for name, value in made.experts.state_dict().items():
        old = [other.experts.subset([other.shown * other.number + j for j in chosen]) for other, chosen in parts]
        state[f"experts.{name}"] = torch.cat([*(o.state_dict()[name] for o in old), value[count - fresh :]])
    made.load_state_dict(state)
    return made


def first_state(train: Mapping[str, Any], step: int, seed: int) -> dict[str, Tensor]:
    """The training state with which `distk resume` takes up an assembled model: fresh moments, counted from `step`."""
    generator = seeded(seed, choose_device(str(train.get("device", "auto"))))
    return {
        "step": torch.tensor(step),
        "generator": generator.get_state(),
        "global_rng": torch.Generator().manual_seed(seed).get_state(),
    }
