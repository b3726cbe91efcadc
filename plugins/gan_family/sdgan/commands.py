"""`distk sdgan ...`: tables of identities and observations, codes of given images, and the verifier."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from distk import Code, Dataset, DistkError, UsageError, console, open_dataset, seeded
from distk.commands.arguments import DataDir, Device, Json, Seed
from distk.commands.shared import Look, OnData, OnModel, present, titled
from distk.console import counted
from distk.device import choose_device
from distk.errors import NotServed
from distk.files import write_atomic
from distk.pictures import SUFFIXES, Form, Seen, read_frames
from distk.plugins.gan_family.sdgan import scores
from distk.plugins.gan_family.sdgan.inversion import Found, invert
from distk.plugins.gan_family.sdgan.method import PairGAN
from distk.plugins.gan_family.sdgan.metrics import held_out, real_side
from distk.plugins.gan_family.sdgan.tuples import identities
from distk.plugins.gan_family.sdgan.verifier import FILE, load_verifier, steps_for, train_verifier

LARGEST_CODES = 1 << 26
"""Bytes of a file of codes that are read."""


def with_identity(on: OnModel) -> PairGAN[Any]:
    """The opened model, whose code must have an identity. Raises NotServed for one that has none."""
    on.open()
    model = on.of(PairGAN, "models of sddcgan and sdbegan")
    if not model.identity:
        raise NotServed(
            f"'{on.path}' is a model of '{on.header.method}', whose code does not tell identity from observation: "
            f"train sd{on.header.method}, or draw from this one with `distk sample`."
        )
    return model


def grid(
    on: OnModel,
    look: Look = Look(),
    rows: Annotated[int, typer.Option(help="Identities, one per row.", min=1, max=100)] = 4,
    columns: Annotated[int, typer.Option(help="Observations, one per column.", min=1, max=100)] = 4,
    seed: Seed = 0,
) -> None:
    """Draw some identities, one per row, each in the same observations, one per column.

    Example: distk sdgan grid runs/my-run --rows 4 --columns 6
    """
    model = with_identity(on)
    draw = seeded(seed, next(model.parameters()).device)
    with torch.no_grad():
        identity, observation = model.prior(rows, draw)["identity"], model.prior(columns, draw)["observation"]
        made = model.decode(crossed(identity, observation))
    names, heads = [f"identity {i + 1}" for i in range(rows)], [f"{j + 1}" for j in range(columns)]
    title = titled(on.header, "a column per observation")
    files = present(model, made, on.shown("identities"), columns, rows=names, heads=heads, title=title)
    on.report(files, rows=rows, columns=columns)


def crossed(identity: Tensor, observation: Tensor) -> Code:
    """Every identity `[r, d_I]` with every observation `[c, d_O]`: a code of r * c items, identity after identity."""
    return {
        "identity": identity.repeat_interleave(len(observation), 0),
        "observation": observation.repeat(len(identity), 1),
    }


def interpolate(
    on: OnModel,
    look: Look = Look(),
    size: Annotated[int, typer.Option(help="Steps on the way, ends included.", min=2, max=50)] = 8,
    corners: Annotated[
        Path | None, typer.Option(help="Codes of the two ends, as `distk sdgan invert` writes them; default: drawn.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Draw the way from one code to another: the identity moves down, the observation to the right.

    A second picture is its diagonal, where both move at once, as in any other GAN.

    Example: distk sdgan interpolate runs/my-run --size 6
    """
    model = with_identity(on)
    device = next(model.parameters()).device
    ends = model.prior(2, seeded(seed, device)) if corners is None else read_corners(corners, model)
    share = torch.linspace(0, 1, size, device=device)[:, None]
    with torch.no_grad():
        identity, observation = (torch.lerp(e[:1].to(device), e[1:2].to(device), share) for e in ends.values())
        made = model.decode(crossed(identity, observation))
    target = on.target("way.png")
    diagonal = target.with_name(f"{target.stem}-diagonal{target.suffix}")
    shares = [f"{at:.2g}" for at in share[:, 0].tolist()]
    title = titled(on.header, "identity moves down, observation to the right")
    files = present(model, made, target, size, rows=shares, heads=shares, title=title)
    files += present(model, made[:: size + 1], diagonal, size, heads=shares, title=titled(on.header, "both move"))
    on.report(files, size=size)


def read_corners(path: Path, model: PairGAN[Any]) -> Code:
    """`identity` and `observation` of a file of codes, float32, at least two rows of the first or of the second.

    A file with one identity and several observations, of one subject, keeps the identity at both ends; of several
    subjects the ends are the first pictures of the first two, as `owner` tells them apart.
    Raises UsageError or DistkError for any other file.
    """
    if not path.is_file() or path.stat().st_size > LARGEST_CODES:
        raise UsageError(f"--corners '{path}' is no file of codes; `distk sdgan invert` writes one.")
    try:
        tensors = from_bytes(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise DistkError(f"'{path}' is truncated or not a safetensors file ({error}).") from error
    code: Code = {}
    for group in model.latents:
        value = tensors.get(group.name)
        if value is None or value.dim() != 2 or value.shape[1] != group.size or not len(value):
            raise UsageError(f"--corners '{path}' holds no '{group.name}' of {counted(group.size, 'number')} a row.")
        if not value.is_floating_point() or not bool(value.isfinite().all()):
            raise UsageError(f"--corners '{path}': '{group.name}' holds what are no finite numbers.")
        code[group.name] = value.float()
    if max(map(len, code.values())) < 2:
        raise UsageError(f"--corners '{path}' holds one code; two are needed, the ends of the way.")
    owner = tensors.get("owner")
    if owner is not None and len(code["identity"]) > 1:
        # Of several subjects, each end is a picture of its own subject: the first picture of the first two.
        second = (owner == 1).nonzero().flatten()
        if owner.shape != (len(code["observation"]),) or owner[0] != 0 or not len(second):
            raise UsageError(f"--corners '{path}': 'owner' does not say whose pictures the observations are.")
        code["observation"] = code["observation"][[0, int(second[0])]]
    return {name: value[:2] if len(value) > 1 else value.expand(2, -1) for name, value in code.items()}


def invert_(
    on: OnData,
    look: Look = Look(),
    pictures: Annotated[
        list[Path] | None,
        typer.Option("--images", help="A picture of the subject, or a folder, which is a subject; repeat for more."),
    ] = None,
    subjects: Annotated[int, typer.Option(help="Without --images: test identities of the data.", min=1, max=500)] = 4,
    each: Annotated[int, typer.Option(help="Images of each of them.", min=1, max=100)] = 4,
    steps: Annotated[int, typer.Option(help="Steps of Adam.", min=1, max=100_000)] = 500,
    restarts: Annotated[int, typer.Option(help="Starts of each subject, side by side.", min=1, max=256)] = 4,
    lr: Annotated[float, typer.Option(help="Learning rate.", min=1e-6, max=10)] = 0.05,
    verifier: Annotated[Path | None, typer.Option(help="Also compare what this verifier sees.")] = None,
    weight: Annotated[float, typer.Option(help="Weight of that.", min=0)] = 0.1,
    seed: Seed = 0,
) -> None:
    """Find the codes of images: one identity that all images of a subject share, an observation of each.

    Draws each image above what the generator makes of its code, and writes the codes beside the picture.

    Example: distk sdgan invert runs/my-run --subjects 2 --each 3 --steps 20
    """
    model = with_identity(on)
    device = next(model.parameters()).device
    if pictures:
        if on.data is not None or on.data_dir is not None:
            raise UsageError("give --images or --data, not both.")
        x, owner, names = read_subjects(pictures, model)
        x, owner = x.to(device), owner.to(device)
    else:
        x, owner, names = drawn_subjects(on.dataset(), subjects, each, seed)
    embed = None if verifier is None else load_verifier(verifier, tuple(model.spec.shape), device)
    found = invert(model, x, owner, steps=steps, restarts=restarts, lr=lr, embed=embed, weight=weight, seed=seed)
    files = written(model, on, x, owner, found)
    told = [
        {"subject": name, "images": int((owner == i).sum()), "error": float(found.error[owner == i].mean())}
        for i, name in enumerate(names)
    ]
    if not on.json:
        console.table("", ("subject", "images", "error"), [(t["subject"], t["images"], t["error"]) for t in told])
    on.report(files, subjects=told, error=float(found.error.mean()), error_at_start=float(found.first.mean()))


def written(model: PairGAN[Any], on: OnModel, x: Tensor, owner: Tensor, found: Found) -> list[Path]:
    """The picture, a row of given images above a row of found ones per subject, and the codes."""
    counts = torch.bincount(owner).tolist()
    wide = max(counts)
    low = model.spec.range[0]
    cells: list[Tensor] = []
    for i in range(len(counts)):
        for row in (x[owner == i], found.images[owner == i]):
            cells += [row, x.new_full((wide - len(row), *x.shape[1:]), low)]
    target = on.target("inverted.png")
    rows = [f"{i + 1} {what}" for i in range(len(counts)) for what in ("given", "found")]
    files = present(model, torch.cat(cells), target, wide, rows=rows, title=titled(on.header))
    codes = target.with_suffix(".safetensors")
    tensors = {"identity": found.identity, "observation": found.observation, "owner": owner}
    write_atomic(codes, to_bytes({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))
    return [*files, codes]


def drawn_subjects(dataset: Dataset, subjects: int, each: int, seed: int) -> tuple[Tensor, Tensor, list[str]]:
    """Images of some test identities, `each` of everyone: images, owner int64 `[N]`, names."""
    known = identities(dataset, "test", each)
    if len(known) < subjects:
        raise UsageError(
            f"--subjects {subjects}: data set '{dataset.name}' has"
            f" {counted(len(known), 'test identity', 'test identities')} of {counted(each, 'image')}."
        )
    draw = torch.Generator().manual_seed(seed)
    which = torch.randperm(len(known), generator=draw)[:subjects].to(dataset.device)
    rows = known.of(which, each, seeded(seed, dataset.device))
    owner = torch.arange(subjects, device=dataset.device).repeat_interleave(each)
    return dataset.batch(rows.flatten())["x"], owner, [str(label) for label in known.label[which].tolist()]


def read_subjects(paths: list[Path], model: PairGAN[Any]) -> tuple[Tensor, Tensor, list[str]]:
    """Pictures as the model's images `[N, c, s, s]`, owner int64 `[N]`, names: folders are one subject each, single
    pictures together one. Raises UsageError for what is no picture and no folder of pictures."""
    groups: dict[Path | None, list[Path]] = {}  # by folder, so that two folders of one name are two subjects
    for path in paths:
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside or not inside[0].is_file():
            raise UsageError(f"--images '{path}' is no picture and no folder with pictures.")
        groups.setdefault(path if path.is_dir() else None, []).extend(inside)
    channels, size, _ = model.spec.shape
    low, high = model.spec.range
    form = Form((size, size), channels, average=True)  # as `identity-folder` has them
    read = [[next(read_frames(file, str(file), form, Seen())) for file in files] for files in groups.values()]
    x = torch.cat([torch.stack([torch.from_numpy(array.copy()) for array in part]) for part in read]).float() / 255
    owner = torch.cat([torch.full((len(part),), i) for i, part in enumerate(read)])
    short = Counter(path.name for path in groups if path)
    names = ["pictures" if path is None else str(path) if short[path.name] > 1 else path.name for path in groups]
    return x * (high - low) + low, owner, names


def verifier_train(
    out: Annotated[Path, typer.Option("--out", "-o", help="The verifier's file.")] = Path("verifier.safetensors"),
    data: Annotated[str, typer.Option("--data", help="Data set of images with identities.")] = "idfaces",
    data_dir: DataDir = None,
    size: Annotated[
        int | None, typer.Option("--size", help="Side of the images, where the data has it.", min=8)
    ] = None,
    epochs: Annotated[float, typer.Option(help="How often every image is seen.", min=0.001, max=1000)] = 20.0,
    steps: Annotated[int | None, typer.Option(help="Instead: steps.", min=1)] = None,
    batch: Annotated[int, typer.Option(help="Images per step.", min=2)] = 64,
    width: Annotated[int, typer.Option(help="Channels of the first convolution.", min=1, max=512)] = 64,
    lr: Annotated[float, typer.Option(help="Largest learning rate of Adam.", min=1e-6, max=1)] = 1e-3,
    flip: Annotated[bool, typer.Option("--flip/--no-flip", help="Mirror images; not where sides matter.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train a verifier on the training identities, and measure it on pairs of the test identities.

    Example: distk sdgan verifier-train --data idfaces --size 16 --out verifier.safetensors
    """
    if not out.parent.is_dir():
        raise UsageError(f"--out '{out}': the folder '{out.parent}' does not exist.")
    if out.is_dir():  # told before the training, which takes hours at full size
        raise UsageError(f"--out '{out}' is a folder; name the verifier's file.")
    options = {} if size is None else {"size": size}
    dataset = open_dataset(data, options, device=choose_device(device), folder=str(data_dir) if data_dir else None)
    console.note(f"data {dataset.name}: {dataset.origin}")
    valid, test = held_out(dataset)
    wanted = steps or steps_for(identities(dataset, "train"), epochs, batch)
    try:
        made = train_verifier(dataset, wanted, batch=batch, width=width, lr=lr, flip=flip, seed=seed)
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    FILE.save(made, out)
    draw = seeded(seed, dataset.device)
    known, new = (real_side(dataset, part, 1000, made, draw) for part in (valid, test))
    tau = scores.threshold(known.matched, known.unmatched)
    told = {
        "auc": scores.area(new.matched, new.unmatched),
        "accuracy": scores.accuracy(new.matched, new.unmatched, tau),
        "threshold": tau,
        "identities": made.info.identities,
        "steps": wanted,
    }
    if json:
        console.emit_json({"file": str(out), **told})
    else:
        console.table("", ("on test identities", "value"), list(told.items()))
        console.say(out)
