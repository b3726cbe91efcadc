"""Codes of given images: one identity that several of them share and an observation of each, found by descent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distk.console import progress
from distk.device import seeded
from distk.method import eval_mode
from distk.optimizers import light
from distk.plugins.gan_family.sdgan.method import PairGAN
from distk.plugins.gan_family.sdgan.verifier import Embed


@dataclass
class Found:
    """What `invert` found for S subjects and N images.

    identity: `[S, d_I]`. observation: `[N, d_O]`. images: `[N, c, s, s]` in the data's range. error: `[N]`, squared,
    mean over pixels and channels, of these images in [0, 1]. first: `[N]`, the same before the first step.
    """

    identity: Tensor
    observation: Tensor
    images: Tensor
    error: Tensor
    first: Tensor


def invert(
    model: PairGAN,
    x: Tensor,
    owner: Tensor,
    *,
    steps: int = 500,
    restarts: int = 4,
    lr: float = 0.05,
    embed: Embed | None = None,
    weight: float = 0.1,
    seed: int = 0,
) -> Found:
    """Codes in [-1, 1] whose images are closest to x `[N, c, s, s]`, in the data's range; owner int64 `[N]` in 0..S-1.

    Minimises, by Adam over all subjects and restarts in one batch, the squared difference of pixels in [0, 1] (mean
    over an image), plus, with an embedding, weight times the squared distance of the unit vectors; of each subject's
    restarts the one of the smallest sum is kept. Codes that leave [-1, 1] are put back after each step.
    """
    device, low, high = x.device, *model.spec.range
    subjects, n = int(owner.max()) + 1, len(x)
    draw = seeded(seed, device)
    sizes = {group.name: group.size for group in model.latents}

    def start(count: int, size: int) -> Tensor:
        return (2 * torch.rand(restarts, count, size, generator=draw, device=device) - 1).requires_grad_()

    identity, observation = start(subjects, sizes["identity"]), start(n, sizes["observation"])
    target = ((x - low) / (high - low)).expand(restarts, -1, -1, -1, -1)
    with torch.no_grad():
        vectors = embed(target[0]) if embed is not None else None

    def losses() -> tuple[Tensor, Tensor]:
        code = {"identity": identity[:, owner].flatten(0, 1), "observation": observation.flatten(0, 1)}
        made = ((model.images(code) - low) / (high - low)).unflatten(0, (restarts, n))
        total = (made - target).square().mean((2, 3, 4))
        shown = (made.detach().clamp(0, 1) - target).square().mean((2, 3, 4))
        if embed is not None and vectors is not None:
            told = embed(made.flatten(0, 1)).unflatten(0, (restarts, n))
            total = total + weight * (told - vectors).square().sum(2)
        return total, shown

    optimizer = light(torch.optim.Adam, [identity, observation], lr=lr)
    with eval_mode(model), progress("searching codes", steps) as advance:
        for step in range(steps):
            total, shown = losses()
            if step == 0:
                first = shown
            identity.grad, observation.grad = torch.autograd.grad(total.sum(), [identity, observation])
            optimizer.step()
            with torch.no_grad():
                identity.clamp_(-1, 1), observation.clamp_(-1, 1)
            advance(1)
        with torch.no_grad():
            total, shown = losses()
            per_subject = torch.zeros(restarts, subjects, device=device).index_add_(1, owner, total)
            best = per_subject.argmin(0)
            own, places = best[owner], torch.arange(n, device=device)
            chosen = identity[best, torch.arange(subjects, device=device)], observation[own, places]
            images = model.decode({"identity": chosen[0][owner], "observation": chosen[1]})
    return Found(*chosen, images, shown[own, places], first[own, places])
