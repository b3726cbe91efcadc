"""mocogan and vgan: losses, codes and networks against computations that share no code with them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distk import DataSpec, Source, Step, UsageError, open_dataset, seeded
from distk.device import Ranks, initialised
from distk.plugins.sequence.mocogan.method import Config, MoCoGAN, Seeded, taken
from distk.plugins.sequence.mocogan.networks import Critic, SceneGenerator, as_volume, image_critic, video_critic
from distk.plugins.sequence.mocogan.vgan import VGAN
from distk.plugins.sequence.mocogan.vgan import Config as VGANConfig
from distk.settings import resolve
from distk.training.loop import build

SPEC = DataSpec("video", (16, 3, 16, 16), classes=("up", "left"))
SMALL = {"dim_content": 5, "dim_motion": 4, "dim_noise": 3, "ngf": 8, "ndf": 6, "halvings": 2}


def model_of(seed: int, spec: DataSpec = SPEC, **values: Any) -> MoCoGAN:
    with initialised(seed, torch.device("cpu")):
        return MoCoGAN(Config(**{**SMALL, **values}), spec)


def step_of(seed: int, **batch: Tensor) -> Step:
    made = Step(
        index=torch.zeros((), dtype=torch.long),
        schedule={},
        phase=None,
        generator=torch.Generator().manual_seed(seed),
        log=lambda name, value: None,
    )
    made.batch = batch
    return made


def softplus(x: Tensor) -> Tensor:
    return (1 + x.double().exp()).log()


class Recorded(nn.Module):
    """A critic of given logits that keeps what it was shown, in order."""

    def __init__(self, *logits: Tensor) -> None:
        super().__init__()
        self.logits, self.seen = list(logits), []

    def forward(self, x: Tensor, randn: Any = None) -> Tensor:
        self.seen.append(x)
        return self.logits[len(self.seen) - 1].expand(len(x), *self.logits[len(self.seen) - 1].shape[1:])


# Codes


def test_the_motion_path_is_the_gru_equations_step_by_step_in_float64(seed: int) -> None:
    model = model_of(seed, dim_motion=10, dim_noise=7)
    made = model.paths(5, 12, Seeded(torch.Generator().manual_seed(seed)))
    draw = torch.Generator().manual_seed(seed)
    h, noise = torch.randn(5, 10, generator=draw).double(), torch.randn(5, 12, 7, generator=draw).double()
    w_in, w_h, b_in, b_h = (p.detach().double() for p in model.path.parameters())
    for k in range(12):
        r_in, z_in, n_in = (noise[:, k] @ w_in.T + b_in).chunk(3, 1)
        r_h, z_h, n_h = (h @ w_h.T + b_h).chunk(3, 1)
        r, z = torch.sigmoid(r_in + r_h), torch.sigmoid(z_in + z_h)
        h = (1 - z) * torch.tanh(n_in + r * n_h) + z * h
        assert torch.allclose(made[:, k].double(), h, atol=1e-6)


def test_paths_start_from_a_drawn_state(seed: int) -> None:
    first = model_of(seed).paths(4000, 1, Seeded(torch.Generator().manual_seed(seed)))[:, 0]
    model = model_of(seed)
    noise = torch.randn(4000, 1, 3, generator=torch.Generator().manual_seed(seed + 1))
    from_zero = model.path(noise)[0][:, 0]
    assert bool((first.std(0) > 1.2 * from_zero.std(0)).all())


def test_frames_of_one_pass_are_those_of_single_codes_and_content_is_the_clips(seed: int) -> None:
    model = model_of(seed, categories=3).eval()
    code = model.prior(4, torch.Generator().manual_seed(seed))
    model.latents.check(code, 4, whole=True)
    with torch.no_grad():
        made = model.render(code)
        assert made.shape == (4, 16, 3, 16, 16)
        for i in range(4):
            for k in (0, 7, 15):
                z = torch.cat([code["content"][i], code["category"][i], code["motion"][i, k]])
                assert torch.allclose(model.generator(z[None])[0], made[i, k], atol=1e-5)
        assert torch.allclose(model.decode(code), (made + 1) / 2, atol=1e-6)


def test_codes_come_from_their_priors(seed: int) -> None:
    code = model_of(seed, categories=4).prior(8000, torch.Generator().manual_seed(seed), 3)
    assert code["motion"].shape == (8000, 3, 4)
    assert float(code["content"].mean().abs()) < 6 / math.sqrt(40_000)
    assert abs(float(code["content"].var()) - 1) < 6 * math.sqrt(2 / 40_000)
    assert bool((code["category"].sum(1) == 1).all())
    assert bool((code["category"].sum(0) - 2000).abs().max() < 6 * math.sqrt(1500))


def test_a_made_frame_is_of_any_moment_and_a_window_is_consecutive(seed: int) -> None:
    model = model_of(seed, length=20).eval()
    draw = Seeded(torch.Generator().manual_seed(seed))
    code = model.codes(3000, 20, draw)
    clock = {**code, "motion": torch.arange(20.0).view(1, 20, 1).expand(3000, 20, 4)}
    shown: list[Tensor] = []
    model.render = lambda code: shown.append(code["motion"]) or torch.zeros(len(code["motion"]), 1)  # type: ignore
    model.window(clock, draw)
    assert shown[0].shape == (3000, 16, 4)
    assert torch.equal(shown[0][:, :, 0] - shown[0][:, :1, 0], torch.arange(16.0).expand(3000, 16))
    starts = shown[0][:, 0, 0].long().bincount(minlength=5)
    assert len(starts) == 5
    assert bool(((starts - 600).abs() < 6 * math.sqrt(480)).all())
    model.codes = lambda n, frames, draw: clock  # type: ignore[method-assign]
    model.render = lambda code: shown.append(code["motion"]) or torch.zeros(3000, 1, 1)  # type: ignore
    model.fake_frames(3000, draw)
    moments = shown[1][:, 0, 0].long().bincount(minlength=20)
    assert shown[1].shape == (3000, 1, 4)
    assert bool(((moments - 150).abs() < 6 * math.sqrt(150)).all())


# Losses


def test_losses_are_two_log_two_where_the_critics_say_nothing(seed: int) -> None:
    model = model_of(seed)
    for critic in (model.image_critic, model.video_critic):
        assert critic is not None
        nn.init.zeros_(critic.head.weight)
    x = torch.rand(6, 16, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    step = step_of(seed, x=x[:, 0])
    log4 = 2 * math.log(2)
    assert float(model.d_image(step).detach()) == pytest.approx(log4, abs=1e-6)
    step.batch = {"x": x}
    assert float(model.d_video(step).detach()) == pytest.approx(log4, abs=1e-6)
    step.batch = {}
    assert float(model.gen(step).detach()) == pytest.approx(log4, abs=1e-6)


@pytest.mark.parametrize("labels", [False, True])
def test_losses_against_a_computation_in_float64(labels: bool, seed: int) -> None:
    model = model_of(seed, categories=2, use_labels=labels, category_weight=0.7, instance_noise=0.0)
    draw = torch.Generator().manual_seed(seed)

    def logits(*shape: int) -> Tensor:
        return 3 * torch.randn(shape, generator=draw)

    frames, clips = torch.rand(5, 3, 16, 16, generator=draw), torch.rand(4, 16, 3, 16, 16, generator=draw)
    label = torch.randint(2, (4,), generator=draw)
    real, made = logits(5, 1, 4, 4), logits(5, 1, 4, 4)
    critic = model.image_critic = Recorded(real, made)  # type: ignore[assignment]
    step = step_of(seed, x=frames)
    expected = softplus(-real).mean() + softplus(made).mean()
    assert float(model.d_image(step).detach()) == pytest.approx(float(expected), rel=1e-5)
    assert torch.allclose(critic.seen[0], 2 * frames - 1)
    assert critic.seen[1].shape == frames.shape
    assert not critic.seen[1].requires_grad

    real, made = logits(4, 3, 1, 1, 1), logits(4, 3, 1, 1, 1)
    kept: list[Tensor] = []
    codes = model.codes
    model.codes = lambda *a: kept.append(c := codes(*a)) or c  # type: ignore[method-assign, func-returns-value]
    critic = model.video_critic = Recorded(real, made)  # type: ignore[assignment]
    step.batch = {"x": clips, "label": label}
    expected = softplus(-real[:, 0]).mean() + softplus(made[:, 0]).mean()
    rows = torch.arange(4)
    if labels:
        expected += -real[:, 1:].double().flatten(1).log_softmax(1)[rows, label].mean()
    value = model.d_video(step)
    named = kept[0]["category"].argmax(1)
    if not labels:
        expected += 0.7 * -made[:, 1:].double().flatten(1).log_softmax(1)[rows, named].mean()
    assert float(value.detach()) == pytest.approx(float(expected), rel=1e-5)
    assert torch.allclose(critic.seen[0], (2 * clips - 1).transpose(1, 2))
    assert critic.seen[1].shape == critic.seen[0].shape

    of_frames, of_clips = logits(5, 1, 4, 4), logits(4, 3, 1, 1, 1)
    model.image_critic, model.video_critic = Recorded(of_frames), Recorded(of_clips)  # type: ignore[assignment]
    kept.clear()
    step.batch = {}
    value = model.gen(step)
    named = kept[-1]["category"].argmax(1)
    expected = softplus(-of_frames).mean() + softplus(-of_clips[:, 0]).mean()
    expected += 0.7 * -of_clips[:, 1:].double().flatten(1).log_softmax(1)[rows, named].mean()
    assert float(value.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_each_update_makes_frames_and_clips_afresh(seed: int) -> None:
    model = model_of(seed)
    seen: list[Tensor] = []
    render = model.render
    model.render = lambda code: seen.append(code["content"]) or render(code)  # type: ignore[method-assign, func-returns-value]
    x = torch.rand(4, 16, 3, 16, 16)
    step = step_of(seed, x=x[:, 0])
    model.d_image(step)
    step.batch = {"x": x}
    model.d_video(step)
    model.gen(step)
    assert len(seen) == 4
    assert len({tuple(c.flatten().tolist()) for c in seen}) == 4


def test_gradients_stay_where_they_belong(seed: int) -> None:
    model = model_of(seed, categories=2)
    x = torch.rand(4, 16, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    step = step_of(seed, x=x[:, 0])
    makers = [*model.generator.parameters(), *model.path.parameters()]

    def reached(loss: Tensor, parameters: list[nn.Parameter]) -> bool:
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return any(g is not None and bool((g != 0).any()) for g in found)

    for loss, critic in ((model.d_image, model.image_critic), (model.d_video, model.video_critic)):
        step.batch = {"x": x[:, 0] if loss == model.d_image else x}
        value = loss(step)
        assert critic is not None
        assert reached(value, list(critic.parameters()))
        assert not reached(value, makers)
    for keep in ("image", "video", "both"):
        step = step_of(seed)
        step.memo = {"images": 4, "clips": 4}
        held = model.image_critic, model.video_critic
        model.image_critic = held[0] if keep != "video" else None
        model.video_critic = held[1] if keep != "image" else None
        assert reached(model.gen(step), list(model.path.parameters()))
        model.image_critic, model.video_critic = held


def test_only_the_critic_of_clips_sees_the_order_of_frames(seed: int) -> None:
    model = model_of(seed, instance_noise=0.0).eval()
    code = model.prior(3, torch.Generator().manual_seed(seed))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(seed))
    while torch.equal(order, torch.arange(16)):
        order = order.roll(1)
    mixed = taken(code, order.expand(3, -1))
    draw = Seeded(torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = model.render(code), model.render(mixed)
        frames_a, frames_b = (model.judge_frames(v.flatten(0, 1), draw).unflatten(0, (3, 16)) for v in (a, b))
        assert torch.allclose(frames_a[:, order], frames_b, atol=1e-5)
        assert torch.allclose(frames_a.mean(1), frames_b.mean(1), atol=1e-5)
        assert not torch.allclose(model.judge_clips(a, draw)[0], model.judge_clips(b, draw)[0], atol=1e-6)


def test_real_and_made_items_go_through_batch_norm_apart(seed: int) -> None:
    model = model_of(seed)
    critic = model.image_critic
    assert critic is not None
    sizes: list[int] = []
    critic.register_forward_hook(lambda module, arguments, result: sizes.append(len(arguments[0])))
    model.d_image(step_of(seed, x=torch.rand(7, 3, 16, 16)))
    assert sizes == [7, 7]


def test_instance_noise_is_before_each_convolution_but_a_head_and_has_its_deviation(seed: int) -> None:
    drawn: list[tuple[int, ...]] = []
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        drawn.append(shape)
        return torch.randn(shape, generator=generator)

    x = torch.zeros(2, 3, 64, 64)
    critic = image_critic("image", 3, 64, 4, 4, 0.3)
    critic(x, randn)
    assert [s[1:] for s in drawn] == [(3, 64, 64), (4, 32, 32), (8, 16, 16), (16, 8, 8)]
    drawn.clear()
    image_critic("patch", 3, 64, 4, 4, 0.3)(x, randn)
    assert [s[1:] for s in drawn] == [(3, 64, 64), (4, 32, 32), (8, 16, 16), (16, 8, 8)]
    drawn.clear()
    clips = torch.zeros(2, 3, 16, 16, 16)
    video_critic("video", 3, 16, 16, 4, 2, 0, 0.3)(clips, randn)
    video_critic("patch", 3, 16, 16, 4, 2, 0, 0.3)(clips, randn)
    assert [s[1:] for s in drawn] == 2 * [(3, 16, 16, 16), (4, 13, 8, 8)]
    drawn.clear()
    image_critic("patch", 3, 64, 4, 4, 0.0)(x, randn)
    image_critic("patch", 3, 64, 4, 4, 0.3)(x, None)
    assert not drawn
    noisy = critic._noisy(torch.zeros(50, 3, 64, 64), randn)
    assert abs(float(noisy.std()) / 0.3 - 1) < 6 / math.sqrt(2 * noisy.numel())


# Networks: the published shapes


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("side", "kernel"), [(64, 4), (96, 6)])
def test_networks_have_the_published_layers(side: int, kernel: int) -> None:
    with torch.device("meta"):
        model = MoCoGAN(Config(categories=6), DataSpec("video", (16, 3, side, side)))
    convolutions = [m for m in model.generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.padding[0]) for m in convolutions] == [
        (66, 512, kernel, 1, 0), (512, 256, 4, 2, 1), (256, 128, 4, 2, 1), (128, 64, 4, 2, 1), (64, 3, 4, 2, 1)
    ]  # fmt: skip
    assert all(m.bias is None for m in model.modules() if hasattr(m, "kernel_size"))
    assert isinstance(model.generator.layers[-1], nn.Tanh)
    assert model.path.hidden_size == 10
    assert model.path.num_layers == 1
    image, video = model.image_critic, model.video_critic
    assert image is not None
    assert video is not None
    frames, clips = (torch.empty(2, 3, *rest, device="meta") for rest in ((side, side), (16, side, side)))
    assert image(frames).shape == (2, 1, side // 16, side // 16)
    assert video(clips).shape == (2, 7, 1, 1, 1)
    assert video_critic("patch", 3, 16, side, 64, 4, 0, 0).to("meta")(clips).shape == (2, 1, 4, side // 16, side // 16)
    assert image_critic("image", 3, side, 64, 4, 0).to("meta")(frames).shape == (2, 1, 1, 1)
    widths = [(m.in_channels, m.out_channels) for m in video.modules() if isinstance(m, nn.Conv3d)]
    assert widths == [(3, 64), (64, 128), (128, 256), (256, 512), (512, 7)]
    assert [m.num_features for m in video.modules() if isinstance(m, nn.BatchNorm3d)] == [128, 256, 512]
    assert [m.num_features for m in image.modules() if isinstance(m, nn.BatchNorm2d)] == [128, 256]
    assert all(m.negative_slope == 0.2 for m in model.modules() if isinstance(m, nn.LeakyReLU))
    if side == 64:
        assert parameters(image) == 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256) + 2 * (128 + 256)


def test_vgan_has_the_published_layers_and_its_mask_joins_the_streams(seed: int) -> None:
    with torch.device("meta"):
        model = VGAN(VGANConfig(), DataSpec("video", (32, 3, 64, 64)))
    stream = [m for m in model.generator.foreground.modules() if isinstance(m, nn.ConvTranspose3d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size) for m in stream] == [
        (100, 512, (2, 4, 4)), (512, 256, (4, 4, 4)), (256, 128, (4, 4, 4)), (128, 64, (4, 4, 4)), (64, 4, (4, 4, 4))
    ]  # fmt: skip
    head = model.critic.head
    assert isinstance(head, nn.Conv3d)
    assert head.kernel_size == (2, 4, 4)
    with initialised(seed, torch.device("cpu")):
        small = SceneGenerator(5, 3, 8, 16, 4, 2).eval()
    z = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        clips, mask = small(z)
        raw = small.foreground(z[:, :, None, None, None]).double()
        still = small.background(z).double()
    assert clips.shape == (3, 8, 3, 16, 16)
    assert mask.shape == (3, 8, 1, 16, 16)
    m = 1 / (1 + (-raw[:, 3:]).exp())
    expected = m * raw[:, :3].tanh() + (1 - m) * still[:, :, None]
    assert torch.allclose(clips.double(), expected.transpose(1, 2), atol=1e-5)


def test_vgans_losses_against_a_computation_in_float64(seed: int) -> None:
    with initialised(seed, torch.device("cpu")):
        model = VGAN(VGANConfig(z=5, ngf=4, ndf=4, halvings=2, mask_weight=0.4), SPEC)
    draw = torch.Generator().manual_seed(seed)
    real, made = 3 * torch.randn(4, 1, 1, 1, 1, generator=draw), 3 * torch.randn(4, 1, 1, 1, 1, generator=draw)
    x = torch.rand(4, 16, 3, 16, 16, generator=draw)
    model.critic = Recorded(real, made)  # type: ignore[assignment]
    step = step_of(seed, x=x)
    loss = model.d_video(step)
    assert float(loss.detach()) == pytest.approx(float(softplus(-real).mean() + softplus(made).mean()), rel=1e-5)
    assert torch.allclose(model.critic.seen[0], (2 * x - 1).transpose(1, 2))
    assert model.critic.seen[1].shape == model.critic.seen[0].shape
    assert not model.critic.seen[1].requires_grad
    model.critic = Recorded(made)  # type: ignore[assignment]
    masks: list[Tensor] = []
    model.generator.register_forward_hook(lambda module, arguments, result: masks.append(result[1]))
    value = float(model.gen(step).detach())
    expected = softplus(-made).mean() + 0.4 * masks[0].double().mean()
    assert value == pytest.approx(float(expected), rel=1e-5)


# Settings


@pytest.mark.parametrize(
    ("values", "shape", "said"),
    [
        ({"halvings": 4}, (12, 3, 64, 64), "at least 13 frames with --halvings 4, not 12"),
        ({"halvings": 4, "video_disc": "patch"}, (12, 3, 64, 64), "at least 13 frames"),
        ({"halvings": 4}, (16, 3, 72, 72), "must be a multiple of 16"),
        ({}, (16, 3, 16, 32), "frames must be square"),
        ({"length": 12}, (16, 3, 16, 16), "--length 12 is less than the 16 frames"),
        ({"categories": 3, "use_labels": True}, (16, 3, 16, 16), "3 categories, but the data have 2 classes: up, left"),
    ],
)
def test_data_that_do_not_fit_are_refused(values: dict[str, Any], shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MoCoGAN(Config(**{**SMALL, **values}), DataSpec("video", shape, classes=("up", "left")))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"image_disc": "none", "video_disc": "none"}, "nothing teaches the generator"),
        ({"categories": 2, "video_disc": "none"}, "names the 2 categories"),
        ({"categories": 2, "video_disc": "patch"}, "names the 2 categories"),
        ({"categories": 1}, "one category says nothing"),
        ({"use_labels": True}, "say how many by --categories"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        resolve("mocogan", options={"model": values})


def test_thirteen_frames_are_enough_and_another_length_of_vgan_is_refused() -> None:
    with torch.device("meta"):
        model = MoCoGAN(Config(), DataSpec("video", (13, 3, 64, 64)))
        assert model.video_critic is not None
        assert model.video_critic.head.kernel_size == (1, 4, 4)
        with pytest.raises(ValueError, match="multiple of 16, not 20"):
            VGAN(VGANConfig(), DataSpec("video", (20, 3, 64, 64)))


def test_the_presets_are_the_papers() -> None:
    paper = resolve("mocogan", preset="paper")
    assert (paper.model.image_disc, paper.model.video_disc) == ("image", "video")
    assert (paper.train.steps, paper.train.batch) == (100_000, 32)
    default = resolve("mocogan")
    c = default.model
    assert (c.dim_content, c.dim_motion, c.dim_noise, c.ngf, c.ndf) == (50, 10, 10, 64, 64)
    assert (c.image_disc, c.video_disc, c.lr, c.weight_decay) == ("patch", "video", 2e-4, 1e-5)
    data = open_dataset(paper.data, {**paper.data_options, "clips": 8, "test_clips": 2})
    assert data.spec.shape == (16, 3, 64, 64)
    assert paper.data_options["clips"] == 4000
    assert data.config.every == 2
    with torch.device("meta"):
        model = MoCoGAN(c, data.spec)
    for objective in model.objectives():
        assert objective.optimizer is not None
        settings = objective.optimizer([nn.Parameter(torch.zeros(2))]).param_groups[0]
        assert (settings["lr"], settings["betas"], settings["weight_decay"]) == (2e-4, (0.5, 0.999), 1e-5)
    assert [o.name for o in model.objectives()] == ["d_image", "d_video", "gen"]
    assert resolve("vgan", preset="paper").train.batch == 64
    assert resolve("mocogan", options={"data": {"name": "clips", "dir": "."}}).data_options["every"] == 2


@pytest.mark.parametrize("without", ["image_disc", "video_disc"])
def test_a_critic_that_is_left_out_is_not_built_and_the_rest_trains(without: str) -> None:
    settings = resolve(
        "mocogan",
        options={
            "model": {**SMALL, without: "none", "image_batch": 5},
            "data": {"size": 16, "clips": 20, "test_clips": 4},
            "train": {"batch": 4, "device": "cpu", "steps": 2},
        },
    )
    trainer = build(settings, torch.device("cpu"), Ranks())
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.step()
    names = {o.name for o in trainer.objectives}
    assert names == {"gen", "d_video" if without == "image_disc" else "d_image"}
    assert not any(name.startswith(without.replace("disc", "critic")) for name in before)
    assert all(not torch.equal(before[n], p) for n, p in trainer.model.named_parameters() if p.dim() > 1)


def test_real_frames_come_from_all_positions_of_all_clips_and_clips_are_windows(seed: int) -> None:
    data = open_dataset("shape-motion", {"size": 16, "clips": 6, "test_clips": 3})
    model = model_of(seed, image_batch=9)
    source = Source(data, 4, seeded(seed, data.device))
    assert model.collect(source, "d_image")["x"].shape == (9, 3, 16, 16)
    assert model.collect(source, "d_video")["x"].shape == (4, 16, 3, 16, 16)
    assert model.collect(source, "gen") == {}
    sprites = open_dataset("sprites-sim", {"size": 16})
    frames = model.collect(Source(sprites, 4, seeded(seed, data.device)), "d_image")["x"]
    assert frames.shape == (9, 3, 16, 16)


def test_under_bf16_pixels_logits_and_losses_are_float32(seed: int) -> None:
    model = model_of(seed)
    x = torch.rand(4, 16, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    with torch.autocast("cpu", torch.bfloat16):
        clips = model.render(model.codes(4, 16, Seeded(torch.Generator().manual_seed(seed))))
        assert clips.dtype == torch.float32
        critic = model.video_critic
        assert isinstance(critic, Critic)
        assert critic(as_volume(x)).dtype == torch.float32
        step = step_of(seed, x=x)
        assert model.d_video(step).dtype == torch.float32
