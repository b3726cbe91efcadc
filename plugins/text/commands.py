"""`distk text ...`: scoring any system's rewrites, and making the models and files that this needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from distk.console import emit_json, note, table
from distk.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="print JSON on stdout")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
DataName = Annotated[str, typer.Option("--data", help="a corpus of `distk list datasets`, also NAME:VARIANT")]
DataDir = Annotated[Path | None, typer.Option(help="folder of its files")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="a setting of the corpus, as max-len=15; may be repeated")
]
Labels = Annotated[str, typer.Option(help="one label for all sentences, or a file with one per line")]


def _corpus(name: str, folder: Path | None, settings: list[str] | None, device: str) -> Any:
    from distk.data import open_dataset
    from distk.device import choose_device
    from distk.plugins.text.common.corpus import SentenceDataset

    data = open_dataset(name, _options(settings), device=choose_device(device), folder=folder)
    if not isinstance(data, SentenceDataset):
        raise UsageError(f"'{name}' holds {data.spec.kind} data, not labelled sentences.")
    note(data.origin)
    return data


def _options(settings: list[str] | None) -> dict[str, Any]:
    """`name=value` pairs with values as plain Python ones."""
    options: dict[str, Any] = {}
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set '{setting}' is not NAME=VALUE.")
        lowered = value.lower()
        options[name.replace("-", "_")] = lowered == "true" if lowered in ("true", "false") else value
    return options


def _labels(given: str, names: tuple[str, ...], n: int, option: str) -> list[int]:
    from distk.commands.transfer import label_index
    from distk.plugins.text.common.files import read_labels

    if Path(given).is_file():
        return read_labels(Path(given), names)
    return [label_index(given, names, option)] * n


def score(
    source: Annotated[Path, typer.Option(help="file of source sentences, tokens apart by spaces")],
    output: Annotated[Path, typer.Option(help="file of rewritten sentences, one for one")],
    source_labels: Labels,
    target_labels: Labels,
    evaluator: Annotated[Path, typer.Option(help="file of `distk text train-evaluator`")],
    references: Annotated[Path | None, typer.Option(help="file of reference rewrites, one for one")] = None,
    train_output: Annotated[
        Path | None, typer.Option(help="rewrites of the training sentences, for reverse perplexity (50,000 or more)")
    ] = None,
    tagger: Annotated[str, typer.Option(help="auto, perceptron, textblob or builtin")] = "auto",
    tagger_file: Annotated[str, typer.Option(help="file of `distk text train-tagger`")] = "",
    encoding: Annotated[str, typer.Option(help="of the files")] = "utf-8",
    seeds: Annotated[int, typer.Option(min=1, help="language models for reverse perplexity")] = 1,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Score the rewrites of ANY system: transfer accuracy, BLEU, perplexity, content.

    Example: distk text score --source in.txt --output out.txt --source-labels negative --target-labels positive
    --evaluator eval.safetensors
    """
    from distk.device import choose_device
    from distk.plugins.text.common import files, scores, suite
    from distk.plugins.text.common.evaluator import Evaluator
    from distk.plugins.text.common.tagger import open_tagger

    judge = Evaluator.load(evaluator, choose_device(device))
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
    import statistics

    from distk.plugins.text.common import files, suite

    outputs = [judge.vocab.words(line, raw=False) for line in files.read_lines(path, encoding)]
    if len(real) < 2 or not outputs:
        raise UsageError("reverse perplexity needs outputs, and two source sentences or more.")
    found = [suite.reverse(judge, outputs, real[::2], real[1::2], seed) for seed in range(seeds)]
    values = [one["reverse_perplexity"] for one in found]
    spread = {"reverse_perplexity_std": statistics.stdev(values)} if seeds > 1 else {}
    return {**found[0], "reverse_perplexity": statistics.fmean(values), **spread}


def _show(result: dict[str, Any], json: bool) -> None:
    if json:
        emit_json(result)
    else:
        rows = [(k, v) for k, v in result.items() if not isinstance(v, dict)]
        table("", ("score", "value"), [(k, f"{v:.4g}" if isinstance(v, float) else str(v)) for k, v in rows])


def train_evaluator(
    data: DataName,
    output: Annotated[Path, typer.Option("--output", "-o", help="the file to write")],
    data_dir: DataDir = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    lm_hidden: Annotated[int, typer.Option(min=0, help="0: 512, for under 1,000 words 128")] = 0,
    lm_epochs: Annotated[int, typer.Option(min=1)] = 10,
    bits: Annotated[int, typer.Option(min=4, max=26, help="log2 of the classifier's table")] = 20,
    ppl_no_eos: Annotated[bool, typer.Option(help="leave ends of sentences out of the perplexity")] = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train the classifier and the language model that judge rewrites, once, on real text.

    Example: distk text train-evaluator --data yelp --data-dir yelp/ -o eval.safetensors
    """
    from distk.plugins.text.common import evaluator

    corpus = _corpus(data, data_dir, settings, device)
    sizes = evaluator.Sizes(bits, 2, lm_hidden, lm_epochs, not ppl_no_eos)
    made = evaluator.train_evaluator(corpus, sizes, seed)
    made.save(output)
    result = {**made.info, "words": len(made.vocab), "file": str(output)}
    _show(result, json)


def train_tagger(
    conllu: Annotated[list[Path], typer.Option(help="CoNLL-U file; may be repeated")],
    output: Annotated[Path, typer.Option("--output", "-o", help="the file to write")],
    epochs: Annotated[int, typer.Option(min=1, max=100)] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    encoding: Annotated[str, typer.Option(help="of the files")] = "utf-8",
    json: Json = False,
) -> None:
    """Train a part-of-speech tagger on CoNLL-U files, such as UD_English-EWT; measured on every tenth sentence.

    Example: distk text train-tagger --conllu en_ewt-ud-train.conllu -o tagger.safetensors
    """
    from distk.plugins.text.common import files
    from distk.plugins.text.common.tagger import Perceptron, noun_flags

    sentences = [pair for path in conllu for pair in files.read_conllu(path, encoding)]
    held = sentences[9::10]
    trial = Perceptron.train([s for i, s in enumerate(sentences) if i % 10 != 9] or sentences, epochs, seed)
    truth = [flag for _, tags in held for flag in noun_flags(tags)]
    found = [flag for words, _ in held for flag in noun_flags(trial.tags(words))]
    both = sum(a and b for a, b in zip(truth, found, strict=True))
    f1 = 2 * both / max(1, sum(truth) + sum(found))
    Perceptron.train(sentences, epochs, seed).save(output)
    result = {"sentences": len(sentences), "held_out": len(held), "noun_f1_held_out": f1, "file": str(output)}
    _show(result, json)


def make_standin(
    folder: Annotated[Path, typer.Argument(help="where to write train.0, train.1, dev.0, ...")],
    settings: Settings = None,
    json: Json = False,
) -> None:
    """Write the stand-in corpus as files that `--data files` reads; gold rewrites and tags in folders beside them.

    Example: distk text make-standin reviews --set variant=small --set sentences=5000
    """
    from distk.config import from_dict
    from distk.plugins.text.common.datasets import StandinConfig, write_standin

    written = write_standin(folder, from_dict(StandinConfig, _options(settings), "data set 'standin-reviews'"))
    emit_json(written) if json else note(f"wrote {len(written)} files below '{folder}'")


def interpolate(
    checkpoint: Annotated[Path | None, typer.Argument(help="checkpoint or run folder; default: the newest run")] = None,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="sentences on the way, ends included")] = 8,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Walk between two draws of a generator's noise and write each point as a sentence of every label.

    Example: distk text interpolate runs/arae --steps 8 --seed 1
    """
    import torch

    from distk.device import seeded
    from distk.models import open_model
    from distk.run import find_checkpoint

    path = find_checkpoint(checkpoint)
    model, header = open_model(path, device)
    if not hasattr(model, "generate") or not hasattr(model, "write"):
        raise UsageError(f"'{path}' was made by {header.method}, which has no generator of sentences.")
    note(f"checkpoint {path}")
    place = next(model.parameters()).device
    ends = torch.randn(2, model.config.z, generator=seeded(seed, place), device=place)
    share = torch.linspace(0, 1, steps, device=place)[:, None]
    with torch.no_grad():
        code = model.generate((1 - share) * ends[0] + share * ends[1])
        lines = {name: model.text(model.write(code, k)) for k, name in enumerate(model.spec.classes)}
    if json:
        emit_json({"share": share.flatten().tolist(), **lines})
        return
    table(
        "",
        ("share", *lines),
        [(f"{a:.2f}", *row) for a, *row in zip(share.flatten().tolist(), *lines.values(), strict=True)],
    )
