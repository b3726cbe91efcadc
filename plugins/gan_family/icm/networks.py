"""Many small networks of one shape, trained side by side as one: every parameter has a leading axis over them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk.console import counted, note
from distk.method import OptimizerFactory
from distk.optimizers import light

Fans = Iterator[tuple[Tensor, int]]


def _grouped(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight.flatten(0, 1), bias.flatten(), padding=1, groups=len(weight))


def _gemm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same as one matrix product per network over unfolded patches."""
    n, _, h, w = x.shape
    count, out = bias.shape
    patches = F.unfold(x, 3, padding=1).view(n, count, -1, h * w).permute(1, 2, 0, 3).reshape(count, -1, n * h * w)
    made = torch.baddbmm(bias.unsqueeze(2), weight.flatten(2), patches)
    return made.view(count, out, n, h, w).permute(2, 0, 1, 3, 4).reshape(n, count * out, h, w)


CONVOLUTIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"grouped": _grouped, "gemm": _gemm}
_fastest: dict[tuple, str] = {}


def stacked_conv(x: Tensor, weight: Tensor, bias: Tensor, how: str = "auto") -> Tensor:
    """E convolutions 3x3, zero padding 1, each on its own channels.

    x `[n, E * in, h, w]`, weight `[E, out, in, 3, 3]`, bias `[E, out]` -> `[n, E * out, h, w]`.
    how: "grouped" (one grouped convolution), "gemm" (unfold and batched matrix products), or "auto": grouped on the
    CPU; on CUDA whichever is faster for this shape, measured once per process.
    """
    if how == "auto":
        how = "grouped" if x.device.type != "cuda" or len(weight) == 1 else _measured(x, weight, bias)
    return CONVOLUTIONS[how](x, weight, bias)


def _measured(x: Tensor, weight: Tensor, bias: Tensor) -> str:
    """The faster form on this CUDA device; a form that runs out of memory loses."""
    key = (x.device, x.dtype, tuple(x.shape), tuple(weight.shape), torch.is_autocast_enabled())
    if key in _fastest:
        return _fastest[key]
    if torch.cuda.is_current_stream_capturing():
        return "grouped"
    seconds = {}
    for name, form in CONVOLUTIONS.items():
        try:
            with torch.enable_grad():
                given = [t.detach().clone().requires_grad_() for t in (x, weight, bias)]
                for run in range(6):  # the first one chooses kernels and is not counted
                    if run == 1:
                        torch.cuda.synchronize(x.device)
                        began = time.perf_counter()
                    torch.autograd.grad(form(*given).sum(), given)
                torch.cuda.synchronize(x.device)
            seconds[name] = (time.perf_counter() - began) / 5
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    _fastest[key] = min(seconds, key=seconds.__getitem__) if seconds else "grouped"
    told = ", ".join(f"{name} {value * 1e3:.2f} ms" for name, value in seconds.items())
    note(f"convolution over {counted(len(weight), 'expert')}: {_fastest[key]} ({told})")
    return _fastest[key]


class Experts(nn.Module):
    """E fully convolutional networks: `depth` 3x3 convolutions, batch normalisation and ELU between, sigmoid at the end
    (Table 1). Each has its own batch statistics, taken over the whole batch that all of them read.

    Images `[n, channels, h, w]` -> `[n, E, channels, h, w]` in (0, 1), any h and w.
    """

    def __init__(self, count: int, channels: int, width: int, depth: int, how: str = "auto") -> None:
        super().__init__()
        sizes = [channels, *[width] * (depth - 1), channels]
        pairs = list(itertools.pairwise(sizes))
        self.how = how
        self.shape = (channels, width, depth)
        self.weight = nn.ParameterList(torch.empty(count, o, i, 3, 3) for i, o in pairs)
        self.bias = nn.ParameterList(torch.empty(count, o) for _, o in pairs)
        self.scale = nn.ParameterList(torch.ones(count, width) for _ in pairs[1:])
        self.offset = nn.ParameterList(torch.zeros(count, width) for _ in pairs[1:])
        for layer in range(depth - 1):
            self.register_buffer(f"mean{layer}", torch.zeros(count, width))
            self.register_buffer(f"variance{layer}", torch.ones(count, width))

    def __len__(self) -> int:
        return len(self.bias[0])

    def fans(self) -> Fans:
        """Every parameter that starts random, with its number of inputs."""
        for weight, bias in zip(self.weight, self.bias, strict=True):
            yield weight, weight[0, 0].numel()
            yield bias, weight[0, 0].numel()

    def forward(self, x: Tensor) -> Tensor:
        h = F.conv2d(x, self.weight[0].flatten(0, 1), self.bias[0].flatten(), padding=1)
        for layer, (weight, bias) in enumerate(zip(self.weight[1:], self.bias[1:], strict=True)):
            h = F.batch_norm(
                h,
                getattr(self, f"mean{layer}").view(-1),
                getattr(self, f"variance{layer}").view(-1),
                self.scale[layer].flatten(),
                self.offset[layer].flatten(),
                training=self.training,
                momentum=0.1,
            )
            h = stacked_conv(F.elu(h), weight, bias, self.how)
        return h.sigmoid().unflatten(1, (len(self), -1))

    def subset(self, chosen: list[int]) -> Experts:
        """A copy that holds only the chosen networks, in the given order and in this one's mode."""
        made = Experts(len(chosen), *self.shape, self.how).to(self.bias[0])
        made.load_state_dict({name: value[chosen] for name, value in self.state_dict().items()})
        return made.train(self.training)


class Discriminator(nn.Module):
    """S discriminators of Table 1, each for its own images: `[n, S, c, h, w]` -> logits of "reference" `[n, S]`."""

    WIDTHS = (16, 16, 16, 32, 32, 64, 64)
    POOL_AFTER = (2, 4, 6)

    def __init__(self, count: int, shape: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        channels, height, width = shape
        pairs = list(zip((channels, *self.WIDTHS), self.WIDTHS, strict=False))
        self.weight = nn.ParameterList(torch.empty(count, o, i, 3, 3) for i, o in pairs)
        self.bias = nn.ParameterList(torch.empty(count, o) for _, o in pairs)
        self.head = Dense(count, (self.WIDTHS[-1] * (height // 8) * (width // 8), hidden, 1))

    def fans(self) -> Fans:
        """Every parameter that starts random, with its number of inputs."""
        for weight, bias in zip(self.weight, self.bias, strict=True):
            yield weight, weight[0, 0].numel()
            yield bias, weight[0, 0].numel()
        yield from self.head.fans()

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(1, 2)
        for layer, (weight, bias) in enumerate(zip(self.weight, self.bias, strict=True)):
            h = F.elu(_grouped(h, weight, bias))
            if layer in self.POOL_AFTER:
                h = F.avg_pool2d(h, 2)
        return self.head(h.reshape(h.shape[0], x.shape[1], -1)).squeeze(2)


class Autoencoder(nn.Module):
    """S autoencoders of flattened images with a narrow code; the score is minus the mean squared error.

    Images `[n, S, c, h, w]` -> scores `[n, S]`, at most 0.
    """

    def __init__(self, count: int, shape: tuple[int, ...], hidden: int, code: int) -> None:
        super().__init__()
        pixels = shape[0] * shape[1] * shape[2]
        self.body = Dense(count, (pixels, hidden, code, hidden, pixels))

    def fans(self) -> Fans:
        """Every parameter that starts random, with its number of inputs."""
        return self.body.fans()

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return -(self.body(flat).sigmoid() - flat).pow(2).mean(2)


class Dense(nn.Module):
    """S fully connected networks with ELU between the layers: `[n, S, sizes[0]]` -> `[n, S, sizes[-1]]`."""

    def __init__(self, count: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(sizes))
        self.weight = nn.ParameterList(torch.empty(count, i, o) for i, o in pairs)
        self.bias = nn.ParameterList(torch.empty(count, 1, o) for _, o in pairs)

    def fans(self) -> Fans:
        """Every parameter that starts random, with its number of inputs."""
        for weight, bias in zip(self.weight, self.bias, strict=True):
            yield weight, weight.shape[1]
            yield bias, weight.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        h = x.transpose(0, 1)
        for layer, (weight, bias) in enumerate(zip(self.weight, self.bias, strict=True)):
            h = torch.baddbmm(bias, F.elu(h) if layer else h, weight)
        return h.transpose(0, 1)


@torch.no_grad()
def start(fans: Fans, rows: slice, generator: torch.Generator) -> None:
    """PyTorch's default initialisation, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), of some rows of every parameter, in place.

    Nothing happens to parameters without values (the meta device, on which a checkpoint is sketched).
    """
    for parameter, fan_in in fans:
        if not parameter.is_meta:
            bound = fan_in**-0.5
            parameter[rows].uniform_(-bound, bound, generator=generator)


class ExpertAdam(torch.optim.Optimizer):
    """Adam for stacked networks, parameters `[E, ...]`: each network has its own moments and its own step count.

    A network whose whole gradient is exactly zero, as that of an expert that won nothing, is left as it is: neither its
    parameters nor its moments nor its count change. The formula is that of torch.optim.Adam.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        lr: float | Tensor,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step for the networks that have a gradient."""
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            if not moving:
                continue
            largest = torch.stack([p.grad.flatten(1).abs().amax(1) for p in moving]).amax(0)
            learns = largest != 0  # true for NaN too, so that a broken loss is not hidden
            beta1, beta2 = group["betas"]
            for p in moving:
                state = self.state[p]
                if not state:
                    state["count"] = torch.zeros(len(p), device=p.device)
                    state["exp_avg"] = torch.zeros_like(p)
                    state["exp_avg_sq"] = torch.zeros_like(p)
                mean, square, count = state["exp_avg"], state["exp_avg_sq"], state["count"]
                mask = learns.view(-1, *[1] * (p.dim() - 1))
                count.add_(learns)
                taken = count.clamp_min(1).view_as(mask)
                mean.copy_(torch.where(mask, torch.lerp(mean, p.grad, 1 - beta1), mean))
                square.copy_(torch.where(mask, square * beta2 + p.grad * p.grad * (1 - beta2), square))
                root = (square / (1 - beta2**taken)).sqrt_().add_(group["eps"])
                p.sub_(torch.where(mask, group["lr"] * (mean / (1 - beta1**taken)) / root, torch.zeros_like(p)))


def expert_adam(lr: float) -> OptimizerFactory:
    """Factory of `ExpertAdam`, its learning rate on the device under CUDA."""

    def build(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        device = parameters[0].device
        return light(ExpertAdam, parameters, torch.tensor(lr, device=device) if device.type == "cuda" else lr)

    return build
