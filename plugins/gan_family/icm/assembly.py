"""`distk experts drop|export|add`: take a set of experts apart and put sets together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distk.commands.arguments import Checkpoint, Device, Json, Seed
from distk.errors import UsageError
from distk.plugins.gan_family.icm.commands import Replica, census, make_folder, opened

if TYPE_CHECKING:
    from torch import Tensor

    from distk.checkpoint import Header
    from distk.plugins.gan_family.icm.method import ICM

UNUSED = 0.01
"""An expert that wins a smaller share of the mixture counts as unused."""

Target = Annotated[
    Path, typer.Option("--out", "-o", help="New run folder, or a .safetensors file; must not exist yet.")
]


def drop(
    out: Target,
    checkpoint: Checkpoint = None,
    expert: Annotated[list[int] | None, typer.Option(help="Number of an expert to drop, repeatable.")] = None,
    unused: Annotated[
        bool, typer.Option("--unused", help="Drop every expert that wins less than 1% of 1,000 test images.")
    ] = False,
    replica: Replica = 0,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Write a model without some of its experts; the others keep their order and are numbered anew.

    Example: distk experts drop runs/my-run --unused --out runs/smaller
    """
    path, model, header = opened(checkpoint, device, replica)
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
    write(out, model, header, [(model, kept)], 0, seed, json, dropped=sorted(gone), was=str(path))


def export(
    expert: Annotated[int, typer.Option(help="Number of the expert.")],
    out: Target,
    checkpoint: Checkpoint = None,
    replica: Replica = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Write one expert, with the discriminator, as a model of its own.

    Example: distk experts export runs/my-run --expert 3 --out denoiser.safetensors
    """
    path, model, header = opened(checkpoint, device, replica)
    model.expert(expert)
    write(out, model, header, [(model, [expert])], 0, header.seed, json, exported=expert, was=str(path))


def add_(
    out: Target,
    checkpoint: Checkpoint = None,
    from_: Annotated[
        list[Path] | None, typer.Option("--from", help="Checkpoint whose experts are appended, repeatable.")
    ] = None,
    fresh: Annotated[int, typer.Option(help="So many untrained experts are appended.", min=0, max=4096)] = 0,
    replica: Replica = 0,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Write a model with further experts, taken from other checkpoints or fresh.

    `distk resume` then trains on: fresh experts first become the identity while the others rest, then all compete.

    Example: distk experts add runs/my-run --from denoiser.safetensors --fresh 2 --out runs/larger
    """
    path, model, header = opened(checkpoint, device, replica)
    parts = [(model, list(range(model.number)))]
    for file in from_ or []:
        other = opened(file, device, 0)[1]
        if other.experts.shape != model.experts.shape:
            names = ("channels", "width", "depth")
            theirs, ours = (
                ", ".join(f"{k} {v}" for k, v in zip(names, m.experts.shape, strict=True)) for m in (other, model)
            )
            raise UsageError(f"the experts of '{file}' have {theirs}, those of '{path}' {ours}: they cannot be joined.")
        parts.append((other, list(range(other.number))))
    if len(parts) == 1 and not fresh:
        raise UsageError("say what to add: --from CHECKPOINT, or --fresh N.")
    write(out, model, header, parts, fresh, seed, json, added=sum(len(c) for _, c in parts[1:]) + fresh, was=str(path))


def write(
    out: Path,
    model: ICM,
    header: Header,
    parts: list[tuple[ICM, list[int]]],
    fresh: int,
    seed: int,
    json: bool,
    **told: Any,
) -> None:
    """Write a model made of the chosen experts, with the shown replica's discriminator, ready to be trained on."""
    from distk import checkpoint, console
    from distk.commands import shared
    from distk.config import to_dict

    target = out if out.suffix == ".safetensors" else out / "checkpoint.safetensors"
    if target.exists():
        raise UsageError(f"--out '{target}' exists already; choose another.")
    make_folder(target.parent)
    made = assembled(model, parts, fresh, seed)
    header.config, header.latents = to_dict(made.config), made.latents.to_list()
    # Without a fresh expert there is nothing to pre-train, so the count starts where competition does.
    header.step, header.metrics = 0 if fresh else made.config.identity_iters, {}
    checkpoint.save(target, made, header, first_state(header.train, header.step, seed))
    console.note(f"experts: {made.number}; train on with: distk resume {target}")
    shared.report([target], json, experts=made.number, **told)


def assembled(model: ICM, parts: list[tuple[ICM, list[int]]], fresh: int, seed: int) -> ICM:
    """A model of one replica: chosen experts (by number, of the replica that each model shows) and `fresh` new ones.

    The critic is that of `model`'s shown replica. Only fresh experts will be pre-trained to the identity.
    """
    import torch

    from distk.device import initialised
    from distk.plugins.gan_family.icm.method import ICM

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
    import torch

    from distk.device import choose_device, seeded

    generator = seeded(seed, choose_device(str(train.get("device", "auto"))))
    return {
        "step": torch.tensor(step),
        "generator": generator.get_state(),
        "global_rng": torch.Generator().manual_seed(seed).get_state(),
    }
