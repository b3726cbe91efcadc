"""Methods for sentences. A table of contents: nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distk.hookspecs import Register, RegisterCommand, RegisterPaper, hookimpl

if TYPE_CHECKING:
    from distk.run import Run

_AT = "distk.plugins.text."


PAPERS = ("arae", "attrtransfer", "crossaligned", "mmdtraverse", "nlmultitask")


@hookimpl
def distk_register_papers(register: RegisterPaper) -> None:
    for paper in PAPERS:
        register(f"{__name__}.{paper}")


@hookimpl
def distk_register_datasets(register: Register) -> None:
    at = _AT + "common.datasets:"
    register(
        "standin-reviews",
        at + "StandinReviews",
        "reviews from a grammar, with tags and gold rewrites: tiny, small or full",
        tags=("sentence", "labels"),
    )
    register(
        "yelp", at + "Yelp", "Yelp review sentences, both file layouts", paper="Shen et al. 2017", tags=("sentence",)
    )
    register("rtpolarity", at + "RtPolarity", "film review sentences", paper="Pang & Lee 2005", tags=("sentence",))
    register("uci", at + "Uci", "Amazon, IMDb and Yelp sentences", paper="Kotzias et al. 2015", tags=("sentence",))
    register(
        "finegrained",
        at + "Finegrained",
        "product review sentences, up to five labels",
        paper="Täckström & McDonald 2011",
        tags=("sentence",),
    )
    register(
        "files",
        _AT + "common.own_files:UserFiles",
        "your own sentences: train.0 train.1 ..., or train.txt + train.labels",
        tags=("sentence",),
    )
    register(
        "text-table",
        _AT + "common.table:TextTable",
        "your own sentences in a CSV, TSV or Parquet file: --data text-table --data-dir FILE --text-column NAME",
        tags=("sentence", "labels"),
    )
    register(
        "amazonft",
        _AT + "common.amazon:AmazonReviews",
        "short sentences of Amazon reviews, from files in the format of fastText",
        paper="Melnyk et al. 2017",
        tags=("sentence",),
    )
    register("aclimdb", at + "AclImdb", "sentences of film reviews", paper="Maas et al. 2011", tags=("sentence",))
    register(
        "imdb-sentences", _AT + "common.mixed:ImdbSentences", "short sentences of film reviews", tags=("sentence",)
    )
    register(
        "sentiment3",
        _AT + "common.mixed:Sentiment3",
        "rtpolarity, uci and finegrained under one vocabulary, with unlabelled text",
        paper="Larsson et al. 2017",
        tags=("sentence",),
    )
    register(
        "parallel",
        _AT + "common.parallel:Parallel",
        "your own sentences without labels, alone or with translations and tags: train.en train.de train.pos",
        tags=("sentence", "columns"),
    )
    register(
        "multi30k",
        _AT + "common.parallel:Multi30k",
        "captions in English, German and French",
        paper="Elliott et al. 2016",
        tags=("sentence", "columns"),
    )
    register(
        "ud",
        _AT + "common.parallel:Trees",
        "Universal Dependencies: sentences with tags, in one language or several",
        tags=("sentence", "columns"),
    )
    register("yahoo", at + "Yahoo", "questions or answers by topic", paper="Zhang et al. 2015", tags=("sentence",))


@hookimpl
def distk_register_metrics(register: Register) -> None:
    register(
        "text",
        _AT + "common.metric:TextMetric",
        "rewritten sentences: label, BLEU, perplexity both ways, content",
        paper="Zhao et al. 2017; Melnyk et al. 2017",
        tags=("text",),
    )
    register(
        "transfer",
        _AT + "common.metric:TransferMetric",
        "label and content of rewritten dev sentences, quick: for --eval-every and --keep best:transfer",
        tags=("text",),
    )


@hookimpl
def distk_register_commands(register: RegisterCommand) -> None:
    at = _AT + "commands:"
    register("text", "", "Sentences: rewrite and score them, train evaluators and taggers.")
    register("rewrite", _AT + "rewrite:rewrite", "Rewrite sentences with another label.", group="text")
    register("score", at + "score", "Score rewritten sentences: label, content, fluency.", group="text")
    register("train-evaluator", at + "train_evaluator", "Train what judges rewrites.", group="text")
    register("train-tagger", at + "train_tagger", "Train a tagger of nouns.", group="text")
    register("make-standin", at + "make_standin", "Write the stand-in reviews as files.", group="text")
    register("interpolate", at + "interpolate", "Sentences on the way between two.", group="text")


@hookimpl
def distk_run_logged(run: Run, step: int, values: dict[str, float]) -> None:
    """Say so when an adversary pushes the codes harder than the reconstruction does: content is then never learnt."""
    if values.get("adversary_ratio", 0.0) > 1 and run.config.get("method") == "arae":
        from distk.console import warn_once

        warn_once(
            f"step {step}: the critic's gradient on the codes is {values['adversary_ratio']:.1f} times the "
            "reconstruction's: lower --lambda1 or --clip-eps, or set --normalize-adv-grad 0.01"
        )
