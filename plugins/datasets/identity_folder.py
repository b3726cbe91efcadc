"""Pictures sorted by identity: a folder per person, product or character, as for verification and identity GANs.

Two layouts are read. `DIR/<identity>/<any>.png`: identities are split at random. `DIR/train/...`, `DIR/valid/...` and
`DIR/test/...`: the split is given, and below each part there are folders per identity, or files named as by the authors
of SD-GAN (Donahue et al. 2017), `<identity>_<n>_<x>.png`, the identity being everything up to the second last
underscore. Pictures of persons need their consent: distk brings no such data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from distk import Dataset, DataSpec, Files, UsageError, option
from distk.console import counted, warn
from distk.pictures import SUFFIXES, Form
from distk.plugins.datasets.decoded import decoded
from distk.stored import Stored
from distk.tree import Tree, opened

PARTS = ("train", "valid", "test")
FEWEST = 10
"""Identities that can be split three ways."""


@dataclass(frozen=True)
class Config:
    """What the pictures become, and how identities are split."""

    size: int = option(64, "height and width in pixels: a centred square, averaged over areas", min=8, max=1024)
    channels: Literal[1, 3] = option(3, "1 for grey, 3 for colour")
    level: Literal["top", "last"] = option(
        "top", "which folder names the identity: the first below DIR, or the one that holds the picture"
    )
    valid: float = option(0.1, "share of the identities for validation, where no split is given", above=0, max=0.45)
    test: float = option(0.1, "share of the identities for the test, where no split is given", above=0, max=0.45)
    split_seed: int = option(0, "which identities those are", min=0)


class IdentityFolder(Dataset[Config]):
    """Pictures with the number of their identity as label; no identity is in two splits.

    names: of the identities, by label, in sorted order. Identities of a single picture are left out and counted.
    """

    counted = True
    reads = (
        "a folder of pictures per identity, or folders train, valid and test of <identity>_<n>_<x>.png, also in a "
        "zip or tar"
    )

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        if not files.required:
            raise UsageError("data set 'identity-folder' needs the folder of pictures: add --data-dir DIR.")
        root = files.folders[0]
        with opened(root, SUFFIXES) as tree:
            self._read(tree, root, files)

    def _read(self, tree: Tree, root: Path, files: Files) -> None:
        config, device = self.config, self.device
        if not tree.entries:
            raise UsageError(f"'{root}' holds no pictures; it reads {self.reads}.")
        inside = [entry.parts for entry in tree.entries]
        while tree.packed and len({parts[0] for parts in inside}) == 1 and all(len(parts) > 2 for parts in inside):
            inside = [parts[1:] for parts in inside]  # one folder holds everything, as in many archives
        given = {parts[0] for parts in inside} <= set(PARTS) and any(parts[0] == "train" for parts in inside)
        keys = [(p[0] if given else "", identity_of(p[1:] if given else p, config.level, given, root)) for p in inside]
        kept = _usable(keys, root)
        self.names = tuple(sorted({keys[i][1] for i in kept}))
        number = {name: i for i, name in enumerate(self.names)}
        self.label = torch.tensor([number[keys[i][1]] for i in kept], device=device)
        form = Form((config.size, config.size), config.channels, average=True)
        name = f"identity-folder {config.level}"
        images, seen = decoded(name, tree, [tree.entries[i] for i in kept], form)
        self.told = (*tree.left_out(), *seen.told(form))
        self.images = Stored(images, device, files.where)
        self.stored = (self.images,)
        self.spec = DataSpec("image", tuple(images.shape[1:]))
        self.origin = (
            f"{counted(len(kept), 'picture')} of {counted(len(self.names), 'identity', 'identities')} below {root}"
        )
        self.parts = self._given([keys[i] for i in kept], root) if given else self._drawn(root)

    def _given(self, keys: list[tuple[str, str]], root: Path) -> dict[str, Tensor]:
        owners: dict[str, str] = {}
        for part, name in keys:
            if owners.setdefault(name, part) != part:
                raise UsageError(
                    f"identity '{name}' is in '{root / owners[name]}' and in '{root / part}': a split by identity has "
                    "each in one part."
                )
        found = {part: [i for i, key in enumerate(keys) if key[0] == part] for part in PARTS}
        if not found["test"]:
            raise UsageError(f"'{root}' has a folder 'train' but none 'test' with two pictures of an identity or more.")
        return {part: torch.tensor(rows, device=self.device) for part, rows in found.items() if rows}

    def _drawn(self, root: Path) -> dict[str, Tensor]:
        total = len(self.names)
        if total < FEWEST:
            raise UsageError(
                f"'{root}' holds {counted(total, 'identity', 'identities')} of two pictures or more; a split by"
                f" identity needs {FEWEST}."
            )
        return split_by_identity(self.label, total, self.config.valid, self.config.test, self.config.split_seed)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, channels, size, size]` in [0, 1], `label` int64 `[n]`."""
        return {"x": self.images[rows].float() / 255, "label": self.label[rows]}


def split_by_identity(label: Tensor, total: int, valid: float, test: float, seed: int) -> dict[str, Tensor]:
    """Rows of the training, validation and test identities, int64 each; label int64 `[N]` in 0 .. total - 1.

    valid, test: shares of the identities, at least one each. The same seed makes the same split on every device.
    """
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).to(label.device)
    held = [max(1, round(total * share)) for share in (valid, test)]
    part = torch.zeros(total, dtype=torch.long, device=label.device)
    part[order[: held[0]]] = 1
    part[order[held[0] : sum(held)]] = 2
    rows = torch.arange(len(label), device=label.device)
    return {name: rows[part[label] == i] for i, name in enumerate(PARTS)}


def identity_of(inside: Sequence[str], level: str, given: bool, root: Path) -> str:
    """The identity of a picture from its path below DIR (below the part, where the split is given).

    Raises UsageError for a picture that lies in no folder of an identity and whose name does not say it either.
    """
    *folders, name = inside
    if folders:
        return folders[0] if level == "top" else "/".join(folders)
    pieces = Path(name).stem.rsplit("_", 2)
    if given and len(pieces) == 3 and pieces[0]:
        return pieces[0]
    wanted = "<identity>_<n>_<x>.png" if given else "a folder per identity"
    raise UsageError(f"'{name}' in '{root}' does not say whose picture it is: expected {wanted}.")


def _usable(keys: list[tuple[str, str]], root: Path) -> list[int]:
    """Places of the pictures whose identity has at least two."""
    count = Counter(keys)
    few = sorted({name for (_, name), n in ((key, count[key]) for key in keys) if n < 2})
    kept = [i for i, key in enumerate(keys) if count[key] >= 2]
    shown = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
    if not kept:
        raise UsageError(f"every identity below '{root}' has a single picture ({shown}); pairs need two of each.")
    if few:
        warn(f"{counted(len(few), 'identity', 'identities')} of a single picture are left out: {shown}")
    return kept
