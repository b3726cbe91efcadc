"""Every check and paper-scale run that needs a CUDA GPU, in parts of under ten minutes, with figures as JSON.

    python benchmarks/gpu.py PART --out DIR [--minutes 8] [--seeds 0:1]

Parts: `checks` (the tests marked cuda), `step` (cascadevae's step against a bare loop and its floor), `precision`
(every method's captured step against a captured bare loop, in fp32, channels last, tf32 and bf16), `compile` (the same
through torch's compiler), `scores` (what a precision costs in score), `solver` (cascadevae's inner problem), `graphs`
(memory of captured graphs), `metrics` (scores of a full dSprites table), `costs` (time and memory of every score on two
tables), `encoding` (rows a second), `drawing` (items a second of every data set that draws), `memory` (of ldf, by the
number of frames), `text`, `games`, `control` (steps, clips, plans), `grasps` (searches, scenes and labels a second),
`kills` (every method killed and taken up again), `field` (whole data sets), `moves` (of codes of sentences), `recipes`
(studies of text on real corpora, and of the others at their small scale), a name of METHODS: its preset `paper` on its
default data, or what stands in for them, stopped in good time and taken up again by the next call with the same --out,
scored at the end; `study-NAME` with a name of STUDIES: `distk study run NAME` at its scale for a GPU, which goes on
alike, and its pictures.

Each part writes its figures as they come, so that a call that is ended loses none. A run that is ended is told so as
Ctrl-C would tell it, has five minutes for its last save, and keeps its last checkpoint if that is not enough.
Installing where there is no registry: pip install --no-index --no-deps --no-build-isolation -e .
"""

from __future__ import annotations

import argparse
import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from distk.registry import registry

METHODS: dict[str, list[str]] = {
    "cascadevae": ["factorvae", "clsacc", "reconstruction"],
    "cascadevae-c": ["factorvae", "reconstruction"],
    "vae": ["factorvae", "vae-bound"],
    "betavae": ["factorvae", "vae-bound"],
    "annealedvae": ["factorvae", "vae-bound"],
    "betatcvae": ["factorvae", "vae-bound", "mig"],
    "factorvae": ["factorvae", "tc", "reconstruction"],
    "dipvae": ["betavae", "factorvae", "reconstruction"],
    "jointvae": ["factorvae", "clsacc", "reconstruction"],
    "aae-s": ["factorvae", "prior-mmd"],
    "mvae": ["mvae-elbo", "object-count", "slot-factors", "entity-exchange"],
    "mvae-baseline": ["mvae-elbo"],
    "jade": ["error", "content-style-variance"],
    "jade-single": ["error"],
    "jade-paired": ["error"],
    "fstat": ["recall", "best-dimension-auc"],
    "icm": ["icm"],
    "sddcgan": ["verification", "leakage"],
    "sdbegan": ["verification", "leakage"],
    "dcgan": ["verification"],
    "began": ["verification"],
    "ldf": ["video-validity"],
    "joint-gan": ["video-validity"],
    "infogan": ["infogan", "dci-gap"],
    "infogan-mnist": ["infogan"],
    "dsvae": ["swap-error", "similarity"],
    "indepvideo": ["elbo", "cross-mi", "specificity"],
    "mocogan": ["acd", "motion-class"],
    "vgan": ["acd"],
    "arae": ["text"],
    "dyncontent": ["planar-table", "latent-map"],
    "rce": ["planar-table"],
    "grasping": ["grasp-accuracy", "grasp-shape"],
    "graspcnn": ["grasp-accuracy"],
    "attrtransfer": ["text"],
    "crossaligned": ["text"],
    "mmdtraverse": ["mmd", "text"],
    "nlmultitask": ["perplexity", "syntax-clustering", "sentence-interpolation", "sentence-arithmetic"],
    "icf": ["icf"],
    "icf-discrete": ["icf"],
    "aae": ["prior-mmd"],
    "dipvae-ii": ["betavae", "factorvae", "reconstruction"],
    "histloss": ["recall", "best-dimension-auc"],
    "triplet": ["recall", "best-dimension-auc"],
    "bindev": ["recall", "best-dimension-auc"],
    "peychev-conv": ["change-one-factor"],
    "peychev-fc": ["change-one-factor"],
    "factorgen": ["capacity-order"],
    "covreg-conv": [],
    "covreg-linear": [],
    "covreg-xor": [],
}
STUDIES: dict[str, dict[str, list[list[str]]]] = {
    "teapots": {
        "infogan": [
            ["infogan", "hinton", "--predictor", "rf"],
            ["traverse", "--span=-1:1", "--columns", "9"],
            ["sample", "-n", "64"],
        ]
    },
    "sdgan": {
        label: [["sdgan", "grid", "--rows", "6", "--columns", "8"], ["sdgan", "interpolate", "--size", "6"]]
        for label in ("SD-DCGAN", "SD-BEGAN")
    },
    "ldf-race": {},
    "ldf-clips": {
        "ldf": [["sample"], ["reconstruct"], ["ldf", "shortcut"], ["ldf", "pieces"]],
        "joint-gan": [["sample"]],
    },
    "ldf-clock": {},
    "mocogan": {
        "mocogan": [["mocogan", "grid", "--rows", "5", "--columns", "5"], ["sample", "--n", "9", "--frames", "48"]],
        "vgan": [["sample", "--n", "9"]],
    },
    "grasping": {},
    "independence": {
        "moving-mnist-factored-latents=2": [["indepvideo", "independent"], ["indepvideo", "correlation"], ["predict"]]
    },
}
"""Studies with a scale for some minutes of a GPU -> by a variant's folder, the pictures drawn of its first seed."""


class Ended(Exception):
    """This program was told to end: what runs is told so, too, and what it leaves is read."""


def ended(signum: int, frame: Any) -> None:
    signal.signal(signum, signal.SIG_DFL)  # a second one ends at once
    raise Ended


SAVING = 300
"""Seconds that a command that was asked to stop has for its last step and its save."""
HERE = Path(__file__).resolve().parent


def call(*arguments: str, seconds: float | None = None) -> tuple[int, str]:
    """Run a command; at the limit ask it to stop as Ctrl-C would, which saves a training run. (exit code, stdout)"""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        said, _ = process.communicate(timeout=seconds)
    except (subprocess.TimeoutExpired, Ended):
        process.send_signal(signal.SIGINT)
        try:
            said, _ = process.communicate(timeout=SAVING)
        except subprocess.TimeoutExpired:  # the last checkpoint counts
            process.kill()
            said, _ = process.communicate()
    return process.returncode, said


def checks(out: Path, minutes: float) -> dict[str, Any]:
    arguments = ["-m", "pytest", "-m", "cuda", "-q", "-p", "no:cacheprovider", str(HERE.parent / "tests")]
    code, said = call(*arguments, seconds=60 * minutes)
    print(said)
    return {"exit": code, "summary": said.strip().splitlines()[-1:]}


PARTS: dict[str, list[str]] = {
    "step": ["step.py", "--device", "cuda", "--size", "64", "--steps", "200", "--json"],
    "precision": ["precision.py", "--device", "cuda", "--workers", "8", "--json"],
    "compile": [
        "precision.py",
        "--device",
        "cuda",
        "--workers",
        "8",
        "--columns",
        "fp32,compile",
        "--kernels",
        "--json",
    ],
    "scores": ["precision_scores.py", "--device", "cuda", "--json"],
    "solver": ["solver.py", "--device", "cuda", "--json"],
    "graphs": ["graphs.py", "--json"],
    "metrics": ["metrics.py", "--device", "cuda", "--gbt", "--out"],
    "costs": ["scores.py", "cost", "--device", "cuda", "--limit", "60", "--out"],
    "encoding": ["encoding.py", "--device", "cuda", "--rows", "100000", "--json"],
    "drawing": ["drawing.py", "--device", "cuda", "--json"],
    "text": ["text.py", "--device", "cuda", "--batch", "128", "--json"],
    "games": ["games.py", "--device", "cuda", "--frames", "--json"],
    "control": ["control.py", "--device", "cuda", "--preset", "paper", "--json"],
    "grasps": [
        *("grasping.py", "--device", "cuda", "--searches", "1,10,100,1000", "--objects", "28", "--labels", "100000"),
        *("--repeat", "100", "--json"),
    ],
    "moves": ["moves.py", "--device", "cuda", "--rows", "64,512,4096", "--json"],
    "kills": ["soaks.py", "--device", "cuda", "--kills", "3", "--minutes", "8", "--json"],
    "field": ["field.py", "--share", "1", "--devices", "cpu", "cuda", "--json"],
}
"""Parts that are programs of their own: their arguments, of which the last takes a file."""


def program(part: str, out: Path, minutes: float) -> dict[str, Any]:
    """Run a part, and read what it wrote until it ended or was ended."""
    path = out / f"{part}-figures.json"
    path.unlink(missing_ok=True)
    name, *arguments = PARTS[part]
    code, _ = call(str(HERE / name), *arguments, str(path), seconds=60 * minutes)
    return {"exit": code, **(json.loads(path.read_text()) if path.exists() else {})}


def memory(out: Path, minutes: float) -> dict[str, Any]:
    """What a step of ldf's levels and of the joint GAN takes, by the number of frames."""
    said = call(
        "-m", "distk", "ldf", "memory", "--device", "cuda", "--out", str(out / "memory"), "--json", seconds=60 * minutes
    )[1]
    return json.loads(said)


def recipes(out: Path, minutes: float) -> dict[str, Any]:
    """The studies of text on real corpora, and recipes at their small scale, one after the other."""
    arguments = ["--device", "cuda", "--out", str(out / "recipes"), "--minutes", str(minutes)]
    code, said = call(str(HERE / "studies.py"), *arguments, seconds=60 * minutes)
    return {"exit": code, "said": said.splitlines()}


def study(name: str, out: Path, seconds: float) -> dict[str, Any]:
    """Start or continue a study at its scale for a GPU, several processes side by side, and draw what came of it."""
    folder = out / f"study-{name}"
    how = [
        "--scale",
        "gpu",
        "--device",
        "cuda",
        "--jobs",
        "4",
        "--out",
        str(folder),
    ]
    code, _ = call("-m", "distk", "study", "run", name, *how, seconds=seconds)
    said = call("-m", "distk", "study", "report", str(folder), "--json")[1]
    drawn = []
    for variant, commands in STUDIES[name].items():
        run = folder / "runs" / variant / "s0"
        for words in commands if (run / "checkpoint.safetensors").exists() else []:
            verb = [word for word in words[:2] if not word.startswith("-")]
            picture = folder / f"{variant}-{'-'.join(verb)}.png"
            call("-m", "distk", *verb, str(run), *words[len(verb) :], "--out", str(picture))
            drawn.append(str(picture))
    return {"exit": code, "finished": code == 0, "report": json.loads(said) if said.strip() else None, "drawn": drawn}


def train(method: str, seed: int, out: Path, seconds: float) -> dict[str, Any]:
    """Start or continue one paper-scale run, and score what there is."""
    folder = out / f"{method}-s{seed}"
    began = time.monotonic()
    if (folder / "checkpoint.safetensors").exists():
        code, _ = call("-m", "distk", "resume", str(folder), "--json", seconds=seconds)
    else:
        arguments = [
            *(["--preset", "paper"] if "paper" in registry().find("method", method).load().presets else []),
            "--stand-in",
            "--seed",
            str(seed),
            "--device",
            "cuda",
            "--out",
            str(folder),
            "--json",
        ]
        code, _ = call("-m", "distk", "train", method, *arguments, seconds=seconds)
    result: dict[str, Any] = {"exit": code, "seconds": round(time.monotonic() - began, 1), "finished": code == 0}
    for name in ("checkpoint", "best"):
        path = folder / f"{name}.safetensors"
        if path.exists() and METHODS[method]:
            asked = [part for metric in METHODS[method] for part in ("--metric", metric)]
            protocol = ["--protocol", "cascadevae"] if method in ("cascadevae", "cascadevae-c", "jointvae") else []
            said = call("-m", "distk", "eval", str(path), *asked, *protocol, "--device", "cuda", "--json")[1]
            result[name] = json.loads(said) if said.strip() else None
    log = folder / "log.jsonl"
    if log.exists():
        result["last"] = json.loads(log.read_text().splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    studies = {f"study-{name}": name for name in STUDIES}
    parser.add_argument("part", choices=["checks", "memory", "recipes", *PARTS, *studies, *METHODS])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seeds", default="0:1")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, ended)
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu.py needs a CUDA device")
    about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    path, result = arguments.out / f"{arguments.part}.json", {}
    if arguments.part in METHODS:
        first, last = map(int, arguments.seeds.split(":"))
        share = 60 * arguments.minutes / (last - first)
        for seed in range(first, last):
            result[f"seed {seed}"] = train(arguments.part, seed, arguments.out, share)
            path.write_text(json.dumps({**about, **result}, indent=2) + "\n")
    elif arguments.part in studies:
        result = study(studies[arguments.part], arguments.out, 60 * arguments.minutes)
    else:
        own = {"checks": checks, "memory": memory, "recipes": recipes}
        of = own.get(arguments.part) or functools.partial(program, arguments.part)
        result = of(arguments.out, arguments.minutes)
    path.write_text(json.dumps({**about, **result}, indent=2) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
