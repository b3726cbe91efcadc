"""Our trainer's step against a hand-written bare PyTorch loop of the same model, alternated in one run.

    python benchmarks/step.py [--device cuda] [--size 64] [--json FILE]

On CUDA both are captured as graphs. The floor is the arithmetic of the step (multiply-adds of convolutions and linear
layers, forward and backward) over the device's measured matrix rate. Rounds alternate A B A B, and the overhead is the
median of the pairwise ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from timing import graphed, seconds
from torch import Tensor, nn

from distk.device import Ranks, choose_device, describe
from distk.method import one_hot
from distk.nn import bernoulli_nll, gaussian_kl
from distk.plugins.vae_family.cascadevae import solver
from distk.settings import resolve
from distk.training.beginning import build
from distk.training.trainer import Trainer


def bare_loop(trainer: Trainer):
    """The step of cascadevae after warm-up, written out as one would without a toolkit."""
    model, dataset = trainer.model, trainer.dataset
    config, generator, n = model.config, trainer.generator, trainer.config.batch
    weights = [p for p in model.parameters() if p.dim() > 1]
    biases = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": weights, "weight_decay": config.weight_l2}, {"params": biases}]
    optimizer = torch.optim.Adam(groups, lr=config.lr, fused=True)
    beta = torch.tensor([config.low] * config.z, device=dataset.device)
    early = dataset.device.type == "cpu"

    def step() -> None:
        x = dataset.batch(torch.randint(len(dataset), (n,), generator=generator, device=dataset.device))["x"]
        mean, std = model.encoder(x)
        z = mean + std * torch.randn(mean.shape, generator=generator, device=x.device)
        with torch.no_grad():
            d = one_hot(solver.assign(model.cost(z, x), config.pair_cost, early_exit=early), config.classes)
        reconstruction = bernoulli_nll(model.decoder(torch.cat([z, d], 1)), x).mean()
        loss = reconstruction + (beta * gaussian_kl(mean, std + 1e-8).mean(0)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def multiply_adds(model: nn.Module, x: Tensor, classes: int) -> float:
    """Multiply-adds of one training step: encoder and decoder forward and backward (3 x), S decodings forward."""
    total = {"encoder": 0, "decoder": 0}

    def hook(part: str):
        def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(layer, nn.Linear):
                total[part] += output.numel() * layer.in_features
            elif isinstance(layer, nn.Conv2d):
                total[part] += output.numel() * layer.in_channels * layer.kernel_size[0] ** 2
            elif isinstance(layer, nn.ConvTranspose2d):
                total[part] += inputs[0].numel() * layer.out_channels * layer.kernel_size[0] ** 2

        return count

    handles = [m.register_forward_hook(hook(p)) for p in total for m in getattr(model, p).modules()]
    with torch.no_grad():
        model.decode(model.encode(x))
        for handle in handles:
            handle.remove()
    # encode decoded every class once and decode one more.
    decoder = total["decoder"] / (classes + 1)
    return 3 * total["encoder"] + 3 * decoder + classes * decoder


def matrix_rate(device: torch.device) -> float:
    """Multiply-adds per second of a float32 matrix product large enough to fill the device."""
    n = 4096 if device.type == "cuda" else 1024
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    torch.mm(a, b)
    return 5 * n**3 / seconds(lambda: torch.mm(a, b), 5, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=32, choices=(32, 64))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    options = {
        "model": {"warmup": 0, "relieve_every": 1},
        "data": {"size": arguments.size},
        "train": {"device": str(device), "log_every": 10**9},
    }
    settings = resolve("cascadevae", preset="demo", options=options)
    ours, other = build(settings, device, Ranks()), build(settings, device, Ranks())
    bare = graphed(bare_loop(other), other)
    seconds(ours.step, 10, device), seconds(bare, 10, device)
    pairs = []
    for _ in range(arguments.rounds):
        pairs.append((seconds(ours.step, arguments.steps, device), seconds(bare, arguments.steps, device)))
    per_step = [[1000 * t / arguments.steps for t in column] for column in zip(*pairs, strict=True)]
    x = other.dataset.batch(torch.arange(64, device=device))["x"]
    work = multiply_adds(other.model, x, 3)
    result = {
        "device": describe(device),
        "torch": torch.__version__,
        "image": arguments.size,
        "ours_ms": statistics.median(per_step[0]),
        "bare_ms": statistics.median(per_step[1]),
        "overhead": statistics.median(a / b for a, b in pairs) - 1,
        "spread": [min(a / b for a, b in pairs) - 1, max(a / b for a, b in pairs) - 1],
        "captured": not ours.eager_because,
        "gmac": work / 1e9,
        "floor_ms": 1000 * work / matrix_rate(device),
        "rounds": arguments.rounds,
        "steps": arguments.steps,
    }
    for key, value in result.items():
        print(f"{key:10} {value:.4g}" if isinstance(value, float) else f"{key:10} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
