"""The smallest run of every method, and `distk` called in this process: what tests over everything registered share."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from distk import cli

DISTK = "distk"
ORDINARY = "--batch 8"
TINY_EMBEDDING = (
    "--data puppets --size 30 --poses 2 --hidden 16 --k 4 --classes-per-batch 6 --samples-per-class 4 --batch 24"
)
TINY_CLIPS = "--size 16 --arch das-dandi --channels 4 --frame-dim 8 --hidden 8 --f-dim 4 --z-dim 2 --batch 4"
TINY_PAIRS = "--width 0.125 --hidden 16 --horizon 6 --secondary-size 200 --test 60 --val-per-class 10 --batch 16"
TINY_FACES = "--size 16 --identities 30 --width 4 --batch 4"
TINY_SHAPES = "--size 16 --clips 40 --test-clips 20 --ngf 4 --ndf 4 --halvings 2 --batch 4"
TINY_PLANE = "--hidden 16 --transition-hidden 8 --batch 8 --count 60 --second 40 --held-out 20"
TINY_TEAPOTS = "--data teapots --items 600 --poses 150 --size 16 --gap paper"
TINY_GRASPS = (
    "--objects 4 --categories cup,mug --scenes 2 --size 32 --voxels 8 --demos 2 --kept 8 --per-view 4 --units 16 "
    "--width 0.125 --local-size 8 --local-samples 6 --samples 12 --batch 2"
)
TINY: dict[str, str] = {
    **dict.fromkeys(("fstat", "triplet", "histloss", "bindev"), TINY_EMBEDDING),
    **dict.fromkeys(("jade", "jade-paired", "jade-single"), TINY_PAIRS),
    **dict.fromkeys(("mvae", "mvae-baseline"), "--size 16 --fixed 60 --test 80 --batch 4"),
    **dict.fromkeys(("sddcgan", "sdbegan", "dcgan", "began"), TINY_FACES),
    "betavae": f"--data blobs {ORDINARY}",
    "cascadevae": f"--data blobs --classes 3 {ORDINARY}",
    "dsvae": TINY_CLIPS,
    "indepvideo": "--data bouncing-squares --channels 2 --features 4 --latent-dim 2 --trans-hidden 8 --batch 4",
    "arae": "--data standin-reviews:tiny --embedding 12 --hidden 10 --z 6 --sentences 300 --held-out 60 --batch 16",
    "attrtransfer": "--data standin-reviews:tiny --embedding 8 --hidden 8 --filters 4 --sentences 300 --held-out 60 "
    "--batch 16",
    "crossaligned": "--data standin-reviews:tiny --embedding 8 --style 4 --content 8 --filters 4 --sentences 300 "
    "--held-out 60 --batch 16",
    "mmdtraverse": "--data standin-reviews:tiny --embedding 8 --filters 4 --phase1 1 --examples 10 --sentences 300 "
    "--held-out 60 --batch 16",
    "nlmultitask": "--data standin-trilingual:short --embedding 6 --hidden 8 --rep 6 --sentences 300 --batch 16",
    "icm": "--width 4 --hidden 16 --identity-iters 4 --experts 4 --batch 8",
    **dict.fromkeys(("ldf", "joint-gan"), "--clips 40 --held-out 20 --width 0.05 --top-hidden 8 --z 2 --batch 8"),
    "infogan": f"{TINY_TEAPOTS} --dim 2 --noise 2 --batch 8",
    "infogan-mnist": "--data digits28 --size 16 --margin 2 --dim 4 --hidden 16 --q-hidden 8 --batch 8",
    "pca": f"{TINY_TEAPOTS} --steps 0",
    **dict.fromkeys(("mocogan", "vgan"), TINY_SHAPES),
    **dict.fromkeys(("dyncontent", "rce"), TINY_PLANE),
    **dict.fromkeys(("grasping", "graspcnn"), TINY_GRASPS),
    "icf": "--data maze --encoder mlp --grid 5 --size 15 --batch 15 --factors 8",
    "icf-discrete": "--data maze --encoder mlp --grid 5 --size 15 --batch 15 --k 3",
}
"""Method -> settings of its smallest run, beside --steps; others take ORDINARY."""

FAULTS = re.compile(r"unexpected \w+|Traceback|\b(?!Distk|Usage)\w*(?:Error|Exception): ")
"""What stands in a message that is no sentence of ours."""


def called(program: Any, words: list[str]) -> tuple[int, str, str]:
    """`distk WORDS` in this process: exit code, stdout, stderr."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", [DISTK, *words]),
        mock.patch.object(cli, "build", return_value=program),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return code, out.getvalue(), err.getvalue()


def tiny(method: str) -> str:
    """Settings of the smallest run of a method."""
    return TINY.get(method, ORDINARY)


class Runs:
    """The tiny runs of this session, each trained when it is first asked for."""

    def __init__(self, program: Any, folder: Path) -> None:
        self.program, self.folder = program, folder
        self.told: dict[str, tuple[int, str, str]] = {}

    def of(self, method: str) -> Path:
        """The run folder of a method."""
        path = self.folder / method
        if method not in self.told:
            steps = 12 if torch.cuda.is_available() else 2  # on CUDA enough of them for a captured one
            line = f"train {method} --steps {steps} --log-every 1 {tiny(method)} --seed 1 --out {path}"
            self.told[method] = called(self.program, line.split())
        code, out, err = self.told[method]
        assert code == 0, out + err
        return path
