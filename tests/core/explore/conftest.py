"""Small models that are looked into, as they are after a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import distk

TEXT = {"data": "standin-reviews:tiny", "embedding": 8, "style": 4, "content": 8, "filters": 4, "data_sentences": 300}


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory):
    """`folder_of("image")`: the folder of a run of two steps; also `clip`, `text`, `embedding`, `drawn`."""
    made: dict[str, Path] = {}
    small = {"steps": 2, "device": "cpu", "quiet": True}
    kinds = {
        "image": ("cascadevae", {"data": "blobs", "z": 3, "classes": 3, "batch": 8}),
        "clip": ("mocogan", {"dim_content": 3, "dim_motion": 2, "ngf": 4, "ndf": 4, "halvings": 2, "categories": 2,
                             "data_size": 16, "data_clips": 40, "data_test_clips": 20, "batch": 4}),
        "text": ("crossaligned", {**TEXT, "data_held_out": 60, "batch": 16}),
        "embedding": ("fstat", {"data": "puppets", "data_size": 30, "data_poses": 2, "hidden": 16, "k": 4,
                                "classes_per_batch": 6, "samples_per_class": 4, "batch": 24}),
        "pairs": ("ldf", {"data_clips": 40, "data_held_out": 20, "width": 0.05, "top_hidden": 8, "z": 2, "batch": 8}),
    }  # fmt: skip

    def find(kind: str) -> Path:
        if kind not in made:
            method, options = kinds[kind]
            out = tmp_path_factory.mktemp("looked-into") / kind
            with torch.enable_grad():  # a test may ask within no_grad
                made[kind] = distk.train(method, out=out, **small, **options).path
        return made[kind]

    return find
