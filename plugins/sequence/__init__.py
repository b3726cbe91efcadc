"""Methods for sequences and video. A table of contents: nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distk.console import warn_once
from distk.hookspecs import Register, RegisterCommand, RegisterPaper, hookimpl

if TYPE_CHECKING:
    from distk.run import Run

_AT = "distk.plugins.sequence."


PAPERS = ("dsvae", "indepvideo")
COLLAPSED = 0.5
"""KL of the first frame in nats below which a posterior has collapsed, when a twentieth of the training is over."""


@hookimpl
def distk_register_papers(register: RegisterPaper) -> None:
    for paper in PAPERS:
        register(f"{__name__}.{paper}")


@hookimpl
def distk_register_datasets(register: Register) -> None:
    register(
        "sprites-sim",
        _AT + "data.sprites_sim:SpritesSim",
        "animated characters drawn on the device: 4 attributes of 6 values, 9 motions, every transfer known exactly",
        tags=("video", "factors"),
    )
    register(
        "lpc-sprites",
        _AT + "data.lpc:LpcSprites",
        "the Sprites of Li & Mandt from the user's own Liberated Pixel Cup sheets or npy files",
        paper="Li & Mandt 2018",
        tags=("video", "factors"),
    )
    register(
        "vector-clips",
        _AT + "data.clips:VectorClips",
        "clips of 12 numbers: a static vector plus a rotation; trains in a minute",
        tags=("clips",),
    )


@hookimpl
def distk_register_metrics(register: Register) -> None:
    register(
        "swap-error",
        _AT + "metrics:SwapError",
        "error of decode(static of A, motion of B) against the true clip; swap_gain 1 is perfect",
        paper="DSVAE",
        tags=("clips",),
    )
    register(
        "similarity",
        _AT + "metrics:Similarity",
        "cosine of static and motion codes over pairs with same or different appearance and motion",
        paper="Das & Dandi",
        tags=("clips",),
    )
    register(
        "disagreement",
        _AT + "metrics:Disagreement",
        "what a trained judge sees in clips with one half of the code redrawn; needs a judge",
        paper="Li & Mandt 2018",
        tags=("clips", "judge"),
    )


@hookimpl
def distk_register_commands(register: RegisterCommand) -> None:
    summary = "Write the npy files of Li & Mandt's Sprites from Liberated Pixel Cup spritesheets."
    register("build-lpc", _AT + "data.commands:build_lpc", summary, group="data")


@hookimpl
def distk_run_logged(run: Run, step: int, values: dict[str, float]) -> None:
    """Say it when indepvideo has learnt to ignore its code, which a falling loss does not show."""
    late = run.config["method"] == "indepvideo" and 20 * step >= run.config["train"]["steps"]
    if late and values.get("kl_first", COLLAPSED) < COLLAPSED:
        warn_once(
            f"the first frame's code says less than {COLLAPSED} nats about it (kl_first): the model ignores its code, "
            "and may go on so for long. A smaller --sigma2, or --kl-warmup, makes it look."
        )
