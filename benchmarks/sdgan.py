"""What a step of sdbegan and sddcgan saves by running images together, and gradients from one pass, against apart.

    python benchmarks/sdgan.py [--device cuda] [--size 64] [--width-be 128] [--width-dc 64] [--batch 16] [--json FILE]

Pairs are compared in one run: rounds alternate A B A B, the ratio is the median of the ratios. On a CPU the time
is the process's own, so that others on the machine count less. The floor is the multiply-adds of the networks'
convolutions and linear layers, counted as they run: one for a forward pass, one more for each gradient (inputs,
weights) that the step needs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distk import DataSpec
from distk.config import from_dict
from distk.device import choose_device, describe, initialised
from distk.plugins.gan_family.sdgan.method import SDBEGAN, SDDCGAN


def seconds(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Seconds of a call, mean of `repeats`; on CUDA wall time, the device's queue drained at both ends."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = clock()
    for _ in range(repeats):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (clock() - began) / repeats


def multiply_adds(network: nn.Module, x: Tensor) -> int:
    """Multiply-adds of one forward pass."""
    total = 0

    def count(layer: Any, given: tuple[Tensor, ...], made: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Linear):
            total += made.numel() * layer.in_features
        elif isinstance(layer, nn.ConvTranspose2d):  # every input pixel meets the whole kernel
            total += given[0].numel() * layer.weight[0].numel()
        else:
            total += made.numel() * layer.weight[0].numel()

    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, kinds)]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return total


def compared(ours: Callable[[], Any], other: Callable[[], Any], device: torch.device, args: Any) -> dict[str, float]:
    """Milliseconds of both, and how many times longer the other takes."""
    ours(), other()
    rounds = [(seconds(ours, device, args.repeats), seconds(other, device, args.repeats)) for _ in range(args.rounds)]
    return {
        "ours_ms": 1000 * statistics.median(a for a, _ in rounds),
        "other_ms": 1000 * statistics.median(b for _, b in rounds),
        "ratio": statistics.median(b / a for a, b in rounds),
    }


def began(model: SDBEGAN, x: Tensor, z: Tensor, device: torch.device, args: Any) -> dict[str, Any]:
    """sdbegan: towers, fakes, and both gradients of a step."""
    critic, maker = list(model.discriminator.parameters()), list(model.generator.parameters())
    auto: Any = model.discriminator
    generator = model.generator

    def together() -> None:
        made = generator(z)
        on_real, on_made = model.error(x), model.error(made)
        torch.autograd.grad(on_real - 0.1 * on_made, critic, retain_graph=True)
        torch.autograd.grad(on_made, maker)

    def anew() -> None:
        """Each gradient from a pass of its own, as where the discriminator's fakes are detached."""
        with torch.no_grad():
            made = generator(z)
        torch.autograd.grad(model.error(x) - 0.1 * model.error(made), critic)
        torch.autograd.grad(model.error(generator(z)), maker)

    def stacked() -> None:
        """Real and made in one call: the second gradient then passes the real half, too."""
        made = generator(z)
        both = torch.cat([x, made])
        error = (auto(both) - both).abs().mean((1, 2, 3, 4))
        on_real, on_made = (part.mean() for part in error.chunk(2))
        torch.autograd.grad(on_real - 0.1 * on_made, critic, retain_graph=True)
        torch.autograd.grad(on_made, maker)

    def one_by_one() -> None:
        """The two images of a pair by two passes of the generator."""
        torch.autograd.grad(torch.stack([generator(z[:, i]) for i in (0, 1)], 1).square().mean(), maker)

    with torch.no_grad():
        g, a = multiply_adds(generator, z), multiply_adds(auto, x)
    return {
        "both images of a pair in one pass of the generator": compared(
            lambda: torch.autograd.grad(generator(z).square().mean(), maker), one_by_one, device, args
        ),
        "both towers in one pass of the encoder": compared(
            lambda: auto.encoder(x.flatten(0, 1)), lambda: [auto.encoder(x[:, i]) for i in (0, 1)], device, args
        ),
        "step: both gradients from one pass against a pass for each": compared(together, anew, device, args),
        "step: real and made apart against stacked": compared(together, stacked, device, args),
        # G once with both gradients; real and made once, weights and inputs; made once more, inputs alone.
        "billion multiply-adds of a step": {
            "ours": (3 * g + 7 * a) / 1e9,
            "a pass for each": (4 * g + 8 * a) / 1e9,
            "stacked": (3 * g + 8 * a) / 1e9,
        },
    }


def dcgan(model: SDDCGAN, x: Tensor, z: Tensor, device: torch.device, args: Any) -> dict[str, Any]:
    """sddcgan: towers and fakes of a step."""
    critic, maker = list(model.discriminator.parameters()), list(model.generator.parameters())
    d: Any = model.discriminator
    generator = model.generator

    def apart(pair: Tensor) -> Tensor:
        maps = torch.cat([d.encoder(pair[:, i]) for i in (0, 1)], 1)
        return d.decide(d.compare(maps).flatten(1)).squeeze(1)

    def step(judge: Callable[[Tensor], Tensor], make: Callable[[Tensor], Tensor]) -> None:
        with torch.no_grad():
            made = make(z)
        torch.autograd.grad(judge(made).mean() - judge(x).mean(), critic)
        torch.autograd.grad(judge(make(z)).mean(), maker)

    def one_by_one(codes: Tensor) -> Tensor:
        return torch.stack([generator(codes[:, i]) for i in (0, 1)], 1)

    g, a = multiply_adds(generator, z), multiply_adds(d, x)
    return {
        "step: pairs in one pass against image by image": compared(
            lambda: step(d, generator), lambda: step(apart, one_by_one), device, args
        ),
        "billion multiply-adds of a step": {"ours": (4 * g + 8 * a) / 1e9},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width-be", type=int, default=128)
    parser.add_argument("--width-dc", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    device = choose_device(args.device)
    spec = DataSpec("image", (3, args.size, args.size))
    result: dict[str, Any] = {"device": describe(device), "torch": torch.__version__, **vars(args), "json": None}
    draw = torch.Generator(device).manual_seed(0)
    for cls, width, measure in ((SDDCGAN, args.width_dc, dcgan), (SDBEGAN, args.width_be, began)):
        with initialised(0, device):
            model: Any = cls(from_dict(cls.Config, {"width": width}, "the benchmark"), spec).to(device)
        x = 2 * torch.rand(args.batch, 2, *spec.shape, generator=draw, device=device) - 1
        z = 2 * torch.rand(args.batch, 2, 100, generator=draw, device=device) - 1
        result[cls.__name__] = measure(model, x, z, device, args)
    text = json.dumps(result, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
