"""CIFAR-100 in its binary version (Krizhevsky 2009): a hundred classes in twenty groups.

`cifar-100-binary.tar.gz`, or its folder: `train.bin`, 50,000 records, and `test.bin`, 10,000. A record is the number of
the group, that of the class, and an image (`cifar_binary`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from distk import Dataset, DataSpec, Files, UsageError, option, permuted_split
from distk.console import counted
from distk.plugins.datasets.cifar_binary import Form, find, labels, read
from distk.stored import Stored

FORM = Form(
    title="CIFAR-100",
    archive="cifar-100-binary.tar.gz",
    folder="cifar-100-binary",
    train=("train.bin",),
    test="test.bin",
    labels=2,
    whole=50_000,
    pickles=("cifar-100-python.tar.gz", "cifar-100-python"),
)
_GROUPS = """
aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees
vehicles_1 vehicles_2
"""
_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
GROUPS, CLASSES = tuple(_GROUPS.split()), tuple(_CLASSES.split())
"""Names in the order of their numbers, which is that of the alphabet."""


@dataclass(frozen=True)
class Config:
    """Which of the two labels."""

    labels: Literal["fine", "coarse"] = option("fine", "fine: a hundred classes; coarse: the twenty groups of them")


class Cifar100(Dataset[Config]):
    """Colour photographs 32x32 with labels."""

    counted = True
    reads = FORM.reads

    def __init__(self, config: Config, device: torch.device, files: Files) -> None:
        super().__init__(config, device, files)
        found = find(FORM, files)
        if found is None:
            raise UsageError(
                f"data set 'cifar100' is not drawn: put {FORM.archive} into a folder, add --data-dir FOLDER."
            )
        parts = read(FORM, found)
        cut = len(parts[FORM.train[0]])
        records = np.concatenate([parts[name] for name in FORM.names if name in parts])
        coarse, fine = (labels(FORM, found, records, at, n) for at, n in ((0, len(GROUPS)), (1, len(CLASSES))))
        self.label = torch.from_numpy(fine if config.labels == "fine" else coarse).to(device)
        images = records[:, FORM.labels :].reshape(-1, 3, 32, 32).copy()
        self.images = Stored(images, device, files.where)
        self.stored = (self.images,)
        self.spec = DataSpec("image", (3, 32, 32), classes=CLASSES if config.labels == "fine" else GROUPS)
        part = "" if len(records) == 60_000 else ", a part of the data set"
        self.origin = f"{counted(len(records), 'image')} read from {found}{part}"
        everything = torch.arange(len(records), device=device)
        split = {"train": everything[:cut], "test": everything[cut:]}
        self.parts = split if cut < len(records) else permuted_split(cut, 0.1, 0, device)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """`x` float32 `[n, 3, 32, 32]` in [0, 1], `label` int64 `[n]`."""
        return {"x": self.images[rows].float() / 255, "label": self.label[rows]}
