"""Studies one after the other until the time is over, and what they found, for a machine that is ours for minutes.

    python benchmarks/studies.py --device cuda --out DIR [--minutes 8] [--jobs 3] [--set train.steps=4] [NAME ...]

Names are those of RUNS, of which all run without any but those that end in `-small`, which are for a processor.
DIR/NAME is the study's folder, taken up again by the next call; DIR/study-NAME.csv its results, ready for results/, and
DIR/NAME.html its report. `yelp` and `captions` want the files of these corpora in DISTK_DATA (`yelp/`,
`imagecaption_li/`); one judge is trained for each, before the study. Captions have no test files: the last 500 training
captions of each label are dev here, the published dev files are test. Of both the first model of every variant rewrites
sixty test sentences, DIR/NAME-VARIANT.tsv, a sentence and its rewrite a line.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

RUNS: dict[str, list[str]] = {
    "yelp": ["text-transfer", "--scale", "gpu"],
    "captions": ["text-transfer", "--scale", "gpu"],
    "yelp-small": ["text-transfer", "--scale", "small"],
    "captions-small": ["text-transfer", "--scale", "small"],
    "text-transfer": ["text-transfer"],
    "arae": ["arae", "--seeds", "3"],
    "multitask": ["multitask"],
    "discrete": ["discrete", "--seeds", "3"],
    "icm": ["icm"],
    "counting": ["counting"],
    "burgess": ["burgess"],
    "mmdtraverse": ["mmdtraverse"],
    "attrtransfer": ["attrtransfer", "--seeds", "3"],
    "jade": ["jade"],
    "factorvae": ["factorvae"],
    "dip": ["dip", "--seeds", "5"],
    "fstat": ["fstat"],
}
LIMITS = {
    "yelp": {"min-count": "5", "max-len": "15"},
    "captions": {"min-count": "2", "max-len": "20"},
    "yelp-small": {"vocab-size": "2000", "max-len": "7"},
    "captions-small": {"vocab-size": "2000", "max-len": "15"},
}
"""What is read of a corpus, beside its folder."""
SMALL = "-small"
"""How studies end whose networks, and those of their judge, are for one core."""
RAW = {name: {"encoding": "cp1252", "tokenize": "raw"} for name in ("captions", "captions-small")}
SHOWN = (3, 60, 120)
"""Lines of a test file from which on ten are rewritten."""
SAVING = 120
"""Seconds that a study which was asked to stop has to save."""


def distk(*arguments: str, seconds: float | None = None, log: Path | None = None) -> int:
    """Run a command; at the limit ask it to stop as Ctrl-C would, which saves. Its exit code."""
    with open(log or os.devnull, "w", encoding="utf-8") as file:
        process = subprocess.Popen([sys.executable, "-m", "distk", *arguments], stdout=file, stderr=subprocess.STDOUT)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                return process.wait(SAVING)
            except subprocess.TimeoutExpired:
                process.kill()
                return process.wait()


def corpus(name: str, out: Path) -> Path:
    """The folder of a corpus with train, dev and test."""
    data = Path(os.environ["DISTK_DATA"])
    if name.startswith("yelp"):
        return data / "yelp"
    made, given = out / "captions-files", data / "imagecaption_li"
    made.mkdir(exist_ok=True)
    for label in "01":
        lines = (given / f"sentiment.train.{label}").read_bytes().splitlines(keepends=True)
        (made / f"sentiment.train.{label}").write_bytes(b"".join(lines[:-500]))
        (made / f"sentiment.dev.{label}").write_bytes(b"".join(lines[-500:]))
        shutil.copyfile(given / f"sentiment.dev.{label}", made / f"sentiment.test.{label}")
    return made


def judged(name: str, out: Path, device: str) -> list[str]:
    """Train a corpus's judge; the settings of a study that reads the corpus and asks the judge."""
    folder, judge = corpus(name, out), out / f"{name}.judge.safetensors"
    read = {**LIMITS[name], **RAW.get(name, {})}
    if not judge.exists():
        given = [part for key, value in read.items() for part in ("--set", f"{key}={value}")]
        sizes = (
            ["--lm-hidden", "64", "--lm-epochs", "2"]
            if name.endswith(SMALL)
            else ["--lm-hidden", "256", "--lm-epochs", "4"]
        )
        sizes += ["--device", device, "--out", str(judge)]
        distk("text", "train-evaluator", "--data", "yelp", "--data-dir", str(folder), *given, *sizes)
    settings = {f"data.{key.replace('-', '_')}": value for key, value in read.items()}
    settings |= {"data.dir": str(folder), "options.text.evaluator": str(judge)}
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def rewritten(name: str, out: Path) -> None:
    """Sentences of every variant's first model."""
    folder, lines, labels = corpus(name, out), [], []
    for label in "01":
        text = (folder / f"sentiment.test.{label}").read_text(encoding=RAW.get(name, {}).get("encoding", "utf-8"))
        chosen = [line for at in SHOWN for line in text.split("\n")[at - 1 : at + 9]]
        lines += chosen
        labels += [label] * len(chosen)
    (out / f"{name}.in").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / f"{name}.labels").write_text("\n".join(labels) + "\n", encoding="utf-8")
    tokenize = "--tokenize" if name in RAW else "--no-tokenize"
    for run in sorted((out / name / "runs").glob("*/s0")):
        target = out / f"{name}-{run.parent.name}.out"
        given = ["--input", str(out / f"{name}.in"), "--labels", str(out / f"{name}.labels"), "--to", "flip", tokenize]
        if distk("transfer", str(run), *given, "--device", "cpu", "--output", str(target)) == 0:
            made = target.read_text(encoding="utf-8").split("\n")
            pairs = (f"{line}\t{other}" for line, other in zip(lines, made, strict=False))
            target.with_suffix(".tsv").write_text("\n".join(pairs) + "\n", encoding="utf-8")


def study(name: str, out: Path, device: str, jobs: int, seconds: float, further: Sequence[str]) -> str:
    """Run a study or go on with it; what became of it, in words."""
    began = time.monotonic()
    own = judged(name, out, device) if name in LIMITS else []
    where = ["--device", device, "--jobs", str(jobs), "--out", str(out / name)]
    left = max(1.0, seconds - (time.monotonic() - began))
    code = distk("study", "run", *RUNS[name], *own, *further, *where, seconds=left, log=out / f"{name}.log")
    if (out / name / "results.csv").exists():
        shutil.copyfile(out / name / "results.csv", out / f"study-{name}.csv")
        distk("report", str(out / name), "--device", "cpu", "--out", str(out / f"{name}.html"))
    if name in LIMITS:
        rewritten(name, out)
    return f"{name}: exit {code} after {time.monotonic() - began:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of RUNS")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="a setting of every study, as of `distk study run`")
    given = parser.parse_args()
    if unknown := set(given.names) - set(RUNS):
        parser.error(f"no study of this list: {', '.join(sorted(unknown))}; there are {', '.join(RUNS)}")
    given.out.mkdir(parents=True, exist_ok=True)
    further = [part for one in given.set for part in ("--set", one)]
    until = time.monotonic() + 60 * given.minutes
    for name in given.names or [name for name in RUNS if not name.endswith(SMALL)]:
        if (left := until - time.monotonic()) > 1:
            print(study(name, given.out.resolve(), given.device, given.jobs, left, further), flush=True)
        else:
            print(f"{name}: no time was left", flush=True)


if __name__ == "__main__":
    main()
