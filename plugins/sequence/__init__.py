"""Methods for sequences and video. A table of contents: nothing here imports torch."""

from distk.hookspecs import Register, RegisterCommand, RegisterPaper, hookimpl

_AT = "distk.plugins.sequence."


PAPERS = ("dsvae", "mocogan")


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
