"""Methods for sentences. A table of contents: nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from distk.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from distk.run import Run

_AT = "distk.plugins.text."


@hookimpl
def distk_register_methods(register: Register) -> None:
    register(
        "arae",
        _AT + "arae:ARAE",
        "rewrites sentences: an adversary removes the label from the code, one decoder per label puts another in",
        paper="Zhao et al. 2017",
        tags=("text", "adversarial", "labels"),
        aliases=("arae-transfer",),
    )


@hookimpl
def distk_register_datasets(register: Register) -> None:
    at = _AT + "common.datasets:"
    register(
        "standin-reviews",
        at + "StandinReviews",
        "reviews from a grammar, with tags and gold rewrites: tiny, small or full",
        tags=("sentence", "labels"),
    )
    register("yelp", at + "Yelp", "Yelp review sentences, both file layouts", paper="Shen et al. 2017", tags=("sentence",))
    register("rtpolarity", at + "RtPolarity", "film review sentences", paper="Pang & Lee 2005", tags=("sentence",))
    register("uci", at + "Uci", "Amazon, IMDb and Yelp sentences", paper="Kotzias et al. 2015", tags=("sentence",))
    register(
        "finegrained",
        at + "Finegrained",
        "product review sentences, up to five labels",
        paper="Täckström & McDonald 2011",
        tags=("sentence",),
    )
    register("files", at + "UserFiles", "your own sentences: train.0 train.1 ..., or train.txt + train.labels", tags=("sentence",))
    register("aclimdb", at + "AclImdb", "sentences of film reviews", paper="Maas et al. 2011", tags=("sentence",))
    register("yahoo", at + "Yahoo", "questions or answers by topic", paper="Zhang et al. 2015", tags=("sentence",))
