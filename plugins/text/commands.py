"""`distk text ...`: scoring any system's rewrites, and making the models and files that this needs."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from distk.commands.arguments import Device, Json, Seed
from distk.commands.shared import OnModel
from distk.config import assignments, from_dict
from distk.console import counted, emit_json, note, table
from distk.data import open_dataset
from distk.device import choose_device, seeded
from distk.errors import UsageError
from distk.options import Bundle, Without
from distk.plugins.text.common import evaluator as evaluators
from distk.plugins.text.common import files, scores, suite
from distk.plugins.text.common.conllu import read_conllu
from distk.plugins.text.common.corpus import SentenceDataset
from distk.plugins.text.common.datasets import StandinConfig, write_standin
from distk.plugins.text.common.tagger import Perceptron, noun_flags, open_tagger

Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of the corpus, as max-len=15; may be repeated.")
]
Labels = Annotated[str, typer.Option(help="One label for all sentences, or a file with one per line.")]
Output = Annotated[Path, typer.Option("--out", "--output", "-o", help="The file to write.")]
Encoding = Annotated[str, typer.Option(help="Of the files.")]


@dataclass(kw_only=True)
class Corpus(Bundle):
    """The options that choose a corpus; it has no default."""

    data: Annotated[str, typer.Option("--data", help="A corpus of `distk list datasets`, also NAME:VARIANT.")]
    data_dir: Annotated[Path | None, typer.Option(help="Folder of its files.")] = None
    settings: Settings = None
    device: Device = "auto"

    def open(self) -> SentenceDataset:
        """The corpus. Raises UsageError for data that are not labelled sentences."""
        settings = _settings(self.settings)
        data = open_dataset(self.data, settings, device=choose_device(self.device), folder=self.data_dir)
        if not isinstance(data, SentenceDataset):
            raise UsageError(f"'{self.data}' holds {data.spec.kind} data, not labelled sentences.")
        note(data.origin)
        return data


def _settings(pairs: list[str] | None) -> dict[str, Any]:
    return assignments(pairs or [], "data").get("data", {})


def _labels(given: str, names: tuple[str, ...], n: int, option: str) -> list[int]:
    if Path(given).is_file():
        return files.read_labels(Path(given), names)
    return [files.label_index(given, names, option)] * n


def score(
    source: Annotated[Path, typer.Option(help="File of source sentences, tokens apart by spaces.")],
    output: Annotated[Path, typer.Option(help="File of rewritten sentences, one for one.")],
    source_labels: Labels,
    target_labels: Labels,
    evaluator: Annotated[Path, typer.Option(help="File of `distk text train-evaluator`.")],
    references: Annotated[Path | None, typer.Option(help="File of reference rewrites, one for one.")] = None,
    train_output: Annotated[
        Path | None, typer.Option(help="Rewrites of the training sentences, for reverse perplexity (50,000 or more).")
    ] = None,
    tagger: Annotated[str, typer.Option(help="auto, perceptron, textblob or builtin.")] = "auto",
    tagger_file: Annotated[str, typer.Option(help="File of `distk text train-tagger`.")] = "",
    encoding: Encoding = "utf-8",
    seeds: Annotated[int, typer.Option(min=1, help="Language models for reverse perplexity.")] = 1,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Score the rewrites of ANY system: transfer accuracy, BLEU, perplexity, content.

    Example: distk text score --source in.txt --output out.txt --source-labels negative --target-labels positive
    --evaluator eval.safetensors
    """
    judge = evaluators.Evaluator.load(evaluator, choose_device(device))
    lists = {"--source": source, "--output": output, "--references": references}
    words = {
        name: [judge.vocab.words(line, raw=False) for line in files.read_lines(path, encoding)]
        for name, path in lists.items()
        if path is not None
    }
    n = len(words["--source"])
    labels = {
        "--source-labels": _labels(source_labels, judge.classes, n, "--source-labels"),
        "--target-labels": _labels(target_labels, judge.classes, n, "--target-labels"),
    }
    scores.same_length({**words, **labels})
    if not n:
        raise UsageError(f"'{source}' is empty.")
    nouns = open_tagger(tagger, tagger_file)
    rewrites = suite.Rewrites(
        words["--source"],
        words["--output"],
        labels["--source-labels"],
        labels["--target-labels"],
        suite.tag_nouns(words["--source"], nouns),
        nouns.name,
        words.get("--references"),
    )
    result = suite.judge(rewrites, judge)
    if train_output is not None:
        result |= _reverse(judge, train_output, words["--source"], encoding, seeds)
    result["evaluator"] = judge.info
    _show(result, json)


def _reverse(judge: Any, path: Path, real: list[list[str]], encoding: str, seeds: int) -> dict[str, Any]:
    """Reverse perplexity; the real text is the source file, half of it for stopping and half for the figure."""
    outputs = [judge.vocab.words(line, raw=False) for line in files.read_lines(path, encoding)]
    if len(real) < 2 or not outputs:
        raise UsageError("reverse perplexity needs outputs, and two source sentences or more.")
    measured = [suite.reverse(judge, outputs, real[::2], real[1::2], seed) for seed in range(seeds)]
    values = [one["reverse_perplexity"] for one in measured]
    spread = {"reverse_perplexity_std": statistics.stdev(values)} if seeds > 1 else {}
    return {**measured[0], "reverse_perplexity": statistics.fmean(values), **spread}


def _show(result: dict[str, Any], json: bool) -> None:
    if json:
        emit_json(result)
    else:
        rows = [(k, v) for k, v in result.items() if not isinstance(v, dict)]
        table("", ("score", "value"), [(k, f"{v:.4g}" if isinstance(v, float) else str(v)) for k, v in rows])


def train_evaluator(
    corpus: Corpus,
    out: Output,
    seed: Seed = 0,
    lm_hidden: Annotated[int, typer.Option(min=0, help="0: 512, for under 1,000 words 128")] = 0,
    lm_epochs: Annotated[int, typer.Option(min=1)] = 10,
    bits: Annotated[int, typer.Option(min=4, max=26, help="log2 of the classifier's table.")] = 20,
    ppl_no_eos: Annotated[bool, typer.Option(help="Leave ends of sentences out of the perplexity.")] = False,
    json: Json = False,
) -> None:
    """Train the classifier and the language model that judge rewrites, once, on real text.

    Example: distk text train-evaluator --data yelp --data-dir yelp/ -o eval.safetensors
    """
    sizes = evaluators.Sizes(bits, 2, lm_hidden, lm_epochs, not ppl_no_eos)
    judge = evaluators.train_evaluator(corpus.open(), sizes, seed)
    judge.save(out)
    _show({**judge.info, "words": len(judge.vocab), "file": str(out)}, json)


def train_tagger(
    conllu: Annotated[list[Path], typer.Option(help="CoNLL-U file; may be repeated")],
    out: Output,
    epochs: Annotated[int, typer.Option(min=1, max=100)] = 5,
    seed: Seed = 0,
    encoding: Encoding = "utf-8",
    json: Json = False,
) -> None:
    """Train a part-of-speech tagger on CoNLL-U files, such as UD_English-EWT; measured on every tenth sentence.

    Example: distk text train-tagger --conllu en_ewt-ud-train.conllu -o tagger.safetensors
    """
    sentences = [pair for path in conllu for pair in read_conllu(path, encoding)]
    held = sentences[9::10]
    trial = Perceptron.train([s for i, s in enumerate(sentences) if i % 10 != 9] or sentences, epochs, seed)
    truth = [flag for _, tags in held for flag in noun_flags(tags)]
    tagged = [flag for words, _ in held for flag in noun_flags(trial.tags(words))]
    both = sum(a and b for a, b in zip(truth, tagged, strict=True))
    f1 = 2 * both / max(1, sum(truth) + sum(tagged))
    Perceptron.train(sentences, epochs, seed).save(out)
    result = {"sentences": len(sentences), "held_out": len(held), "noun_f1_held_out": f1, "file": str(out)}
    _show(result, json)


def make_standin(
    folder: Annotated[Path, typer.Argument(help="where to write train.0, train.1, dev.0, ...")],
    settings: Settings = None,
    json: Json = False,
) -> None:
    """Write the stand-in corpus as files that `--data files` reads; gold rewrites and tags in folders beside them.

    Example: distk text make-standin reviews --set variant=small --set sentences=5000
    """
    written = write_standin(folder, from_dict(StandinConfig, _settings(settings), "data set 'standin-reviews'"))
    emit_json(written) if json else note(f"wrote {counted(len(written), 'file')} below '{folder}'")


def interpolate(
    on: Annotated[OnModel, Without("out")],
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Sentences on the way, ends included.")] = 8,
    seed: Seed = 0,
) -> None:
    """Walk between two draws of a generator's noise and write each point as a sentence of every label.

    Example: distk text interpolate runs/arae --steps 8 --seed 1
    """
    model: Any = on.open().model
    if not hasattr(model, "generate") or not hasattr(model, "write"):
        raise UsageError(f"'{on.path}' was made by {on.header.method}, which has no generator of sentences.")
    place = model.device
    ends = torch.randn(2, model.config.z, generator=seeded(seed, place), device=place)
    share = torch.linspace(0, 1, steps, device=place)[:, None]
    with torch.no_grad():
        code = model.generate((1 - share) * ends[0] + share * ends[1])
        lines = {name: model.text(model.write(code, k)) for k, name in enumerate(model.spec.classes)}
    if on.json:
        emit_json({"share": share.flatten().tolist(), **lines})
        return
    table(
        "",
        ("share", *lines),
        [(f"{a:.2f}", *row) for a, *row in zip(share.flatten().tolist(), *lines.values(), strict=True)],
    )
