"""ARAE: the signs, cadences and gradients of algorithm 1 against hand computations, and what it must learn."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import distk
from distk import DistkError, UsageError
from distk.device import Ranks
from distk.plugins.text.arae.method import ARAE
from distk.plugins.text.common.vocab import EOS, PAD
from distk.settings import resolve
from distk.source import Source
from distk.training.beginning import build
from distk.training.trainer import Trainer

SMALL = {"embedding": 12, "hidden": 10, "z": 6, "generator_widths": "16,16", "critic_widths": "16,16"}
DATA = {"name": "standin-reviews", "variant": "tiny", "sentences": 400, "held_out": 60}


def trainer(data: dict[str, Any] | None = None, batch: int = 16, **model: Any) -> Trainer:
    settings = resolve(
        "arae",
        options={
            "model": {**SMALL, **model},
            "data": data or DATA,
            "train": {"batch": batch, "seed": random.randrange(1000), "device": "cpu"},
        },
    )
    return build(settings, torch.device("cpu"), Ranks())


def new_step(made: Trainer) -> Any:
    """A step with a batch, as the trainer makes it."""
    from distk.method import Step

    made._set_schedule(made.model.schedule(0))
    step = Step(index=made.counter, schedule=made._schedule, phase=None, generator=made.generator, log=made.ledger.note)
    step.batch = made.model.collect(Source(made.dataset, made.config.batch, made.generator))
    return step


def objective(made: Trainer, name: str) -> Any:
    return next(o for o in made.objectives if o.name == name)


# Algorithm 1


def test_signs_of_critic_encoder_and_generator() -> None:
    made = trainer(lambda1=1.0, clip_eps=0.05)
    model: ARAE = made.model
    real, fake = 1 + 0.01 * torch.randn(200, 32, 10), -1 + 0.01 * torch.randn(200, 32, 10)
    optimizer = torch.optim.Adam(model.critic.parameters(), 1e-3)
    for i in range(200):
        model.fake = lambda step, n, i=i: fake[i]  # type: ignore[method-assign]
        step = new_step(made)
        step.memo["codes"] = real[i : i + 1]
        optimizer.zero_grad()
        model.critic_loss(step).backward()
        optimizer.step()
        model.clamp()
    before = model.f(real[0]).mean()
    assert before > model.f(fake[0]).mean()
    codes = real[0].clone().requires_grad_()
    model.f(codes).mean().backward()  # critic_adv on phi
    assert model.f(codes - 0.1 * codes.grad).mean() < before
    fakes = fake[0].clone().requires_grad_()
    model.fake = lambda step, n: fakes  # type: ignore[method-assign]
    model.generator_loss(new_step(made)).backward()  # on theta
    assert model.f(fakes - 0.1 * fakes.grad).mean() > model.f(fakes).mean()


def test_weights_and_warm_up_of_the_adversaries() -> None:
    made = trainer(lambda1=3.0, warmup=100, critic="gp", gp_weight=0.7)
    model: ARAE = made.model
    assert [model.schedule(at)["ramp"] for at in (0, 25, 100, 900)] == [0.0, 0.25, 1.0, 1.0]
    assert trainer().model.schedule(0)["ramp"] == 1.0
    step = new_step(made)
    made._set_schedule(model.schedule(25))
    code = torch.randn(6, 10)
    step.memo |= {"code": code, "label": torch.zeros(6).long()}
    assert torch.allclose(model.critic_adv(step), 3.0 * 0.25 * model.f(code).mean())
    real = model.codes(step)[0]
    state = made.generator.get_state()
    loss = model.critic_loss(step)
    made.generator.set_state(state)
    fake = model.fake(step, len(real)).detach()
    penalty = model.gradient_penalty(real, fake, step.rand(len(real), 1))
    assert float(penalty.detach()) > 1e-3
    assert torch.allclose(loss, model.f(fake).mean() - model.f(real).mean() + 0.7 * penalty, atol=1e-5)


def test_critic_is_clipped_after_every_step() -> None:
    made = trainer(lambda1=1.0)
    seen = []
    made.objectives[0].after = _spy(made.model, made.objectives[0].after, seen)
    assert made.objectives[0].name == "critic"
    for _ in range(3):
        made.step()
    assert len(seen) == 15  # five updates a step
    assert max(seen) <= 0.01 + 1e-9


def _spy(model: Any, after: Any, seen: list[float]) -> Any:
    def run() -> None:
        after()
        seen.append(max(float(p.abs().max()) for p in model.critic.parameters()))

    return run


PARTS = {
    "reconstruction": {"encoder", "decoders", "outputs"},
    "critic": {"critic"},
    "code_classifier": {"classifier"},
    "critic_adv": {"encoder"},
    "classifier_adv": {"encoder"},
    "generator": {"generator"},
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam-joint"])
def test_each_objective_changes_its_own_group_and_nothing_else(optimizer: str) -> None:
    made = trainer(lambda1=1.0, lambda2=1.0, ae_optimizer=optimizer)
    names = [o.name for o in made.objectives]
    if optimizer == "sgd":
        assert names == ["reconstruction", "critic", "code_classifier", "critic_adv", "classifier_adv", "generator"]
    else:
        assert names == ["critic", "code_classifier", "reconstruction", "critic_adv", "classifier_adv", "generator"]
    step = new_step(made)
    for stage in made.stages:
        before = {n: p.detach().clone() for n, p in made.model.named_parameters()}
        for _ in range(stage[0].updates):
            made._update(stage, step)
        changed = {n.split(".")[0] for n, p in made.model.named_parameters() if not torch.equal(before[n], p)}
        assert changed == set().union(*(PARTS[o.name] for o in stage))


def test_presets_leave_out_what_they_do_not_train() -> None:
    assert [o.name for o in trainer(lambda1=0.0, lambda2=0.0).objectives] == ["reconstruction"]
    only = [o.name for o in trainer(lambda1=0.0, lambda2=1.0).objectives]
    assert only == ["code_classifier", "reconstruction", "classifier_adv"]
    for name in ("ae", "ae+cls", "lambda-a", "lambda-b", "large", "demo", "paper", "paper-ae", "paper-lambda-b"):
        resolve("arae", preset=name)


def test_joint_step_is_one_adam_step_on_the_clipped_sum() -> None:
    made = trainer(lambda1=2.0, lambda2=3.0, clip_norm=0.1, noise=0.0)
    model: ARAE = made.model
    step = new_step(made)
    stage = next(s for s in made.stages if s[0].name == "reconstruction")
    parameters = list(stage[0].parameters)
    x, label = step.batch["x"], step.batch["label"]
    code = model.encoder(x)
    flipped = torch.nn.functional.cross_entropy(model.label_logits(code), 1 - label)
    total = model.nll(x, code) + 2.0 * model.f(code).mean() + 3.0 * flipped
    wanted = torch.autograd.grad(total, parameters)
    norm = torch.stack([g.norm() for g in wanted]).norm()
    assert norm > 0.1
    before = [p.detach().clone() for p in parameters]
    made._update(stage, step)
    for p, old, g in zip(parameters, before, wanted, strict=True):
        clipped = g * 0.1 / (norm + 1e-6)
        # Adam's first step is lr * g / (|g| + eps)
        assert torch.allclose(p, old - 1e-3 * clipped / (clipped.abs() + 1e-8), atol=2e-5)


def test_reconstruction_is_the_mean_over_the_tokens_of_all_labels() -> None:
    made = trainer()
    model: ARAE = made.model.double()
    batch = made.dataset.sample(10, made.generator)
    x, code = batch["x"], torch.randn(10, 10, dtype=torch.float64)
    total, tokens = 0.0, 0
    for i, row in enumerate(x):
        decoder = model.decoders[int(batch["label"][i])]
        state, last = None, 1
        for token in row[row != PAD]:
            hidden, state = decoder(torch.tensor([[last]]), code[i : i + 1], state)
            total -= float(model.outputs[0](hidden)[0, 0].detach().log_softmax(0)[token])
            tokens, last = tokens + 1, int(token)
    assert float(model.nll(x, code).detach()) == pytest.approx(total / tokens, rel=1e-9)
    own = model.fit(x, code).gather(1, batch["label"][:, None]).sum()
    assert float(own.detach()) == pytest.approx(-total, rel=1e-9)


def test_codes_are_unit_vectors_that_do_not_see_the_padding() -> None:
    model: ARAE = trainer().model
    x = torch.randint(4, len(model.vocab), (20, 10))
    x[:, 9] = EOS
    codes = [model.encoder(torch.nn.functional.pad(x, (0, extra))) for extra in (0, 5, 15)]
    assert torch.allclose(codes[0].norm(dim=1), torch.ones(20), atol=1e-6)
    assert all(torch.allclose(c, codes[0], atol=1e-6) for c in codes)


@pytest.mark.parametrize("n", [3, 64])
def test_gradient_penalty_of_a_linear_critic_is_exact_whatever_the_batch(n: int) -> None:
    model: ARAE = trainer(critic="gp").model
    a = torch.randn(10)
    model.f = lambda c: c @ a  # type: ignore[method-assign]
    penalty = model.gradient_penalty(torch.randn(n, 10), torch.randn(n, 10), torch.rand(n, 1))
    assert float(penalty) == pytest.approx((float(a.norm()) - 1) ** 2, rel=1e-5)


@pytest.mark.parametrize("form", ["flip", "negate", "uniform"])
def test_gradient_against_the_classifier_by_hand(form: str) -> None:
    model: ARAE = trainer(adv_form=form).model
    s = torch.randn(40, 1, requires_grad=True)
    y = torch.randint(2, (40,))
    logits = torch.cat([torch.zeros_like(s), s], 1)
    (gradient,) = torch.autograd.grad(model.confusion(logits, y) * 40, s)
    p = s.detach()[:, 0].sigmoid()
    wanted = {"flip": p - (1 - y), "negate": -(p - y), "uniform": p - 0.5}[form]
    assert torch.allclose(gradient[:, 0], wanted, atol=1e-5)


def test_three_labels_use_the_uniform_form_and_their_own_decoders() -> None:
    data = {"name": "standin-reviews", "variant": "full", "label_from": "topic", "sentences": 900, "held_out": 90}
    made = trainer(data, batch=15, lambda1=1.0, share_output=False, critic_bn=True)
    model: ARAE = made.model
    assert model.labels == 3
    assert len(model.outputs) == 3
    for _ in range(2):
        made.step()
    logits = torch.randn(9, 3)
    assert float(model.confusion(logits, torch.arange(9) % 3)) == pytest.approx(-float(logits.log_softmax(1).mean()))
    model.eval()
    assert len(model.rewrite(["the phone was great ."], 2)) == 1


def test_the_critics_gradient_is_rescaled_on_request() -> None:
    made = trainer(lambda1=50.0, normalize_adv_grad=0.01, clip_eps=0.5)
    model: ARAE = made.model
    step = new_step(made)
    seen: dict[str, Tensor] = {}
    encoder = model.encoder.forward

    def forward(x: Tensor) -> Tensor:
        code = encoder(x)
        if code.requires_grad:
            code.register_hook(lambda g: seen.__setitem__(str(len(seen)), g))
        return code

    model.encoder.forward = forward  # type: ignore[method-assign]
    phi = list(model.encoder.parameters())
    model.reconstruction(step).backward(inputs=phi, retain_graph=True)
    model.critic_adv(step).backward(inputs=phi)
    assert float(seen["1"].norm() / seen["0"].norm()) == pytest.approx(0.01, rel=1e-4)


def test_noise_is_annealed_and_only_in_training() -> None:
    model: ARAE = trainer(noise=0.2, noise_anneal=0.5).model
    assert model.schedule(0)["noise"] == model.schedule(99)["noise"] == 0.2
    assert model.schedule(250)["noise"] == pytest.approx(0.05)


def test_critic_sees_all_lengths_and_a_fresh_batch_each_time() -> None:
    made = trainer(lambda1=1.0, critic_updates=4, classifier_updates=2)
    step = new_step(made)
    assert len(step.batch["fresh"]) == 4 * 16
    codes = made.model.codes(step)
    assert codes.shape == (4, 16, 10)
    assert not codes.requires_grad
    assert [made.model.turn(step, "critic") for _ in range(4)] == [0, 1, 2, 3]
    assert step.batch["fresh"].shape[1] == made.dataset.spec.shape[0]


# A trained model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    options = {**SMALL, "data_sentences": 400, "data_held_out": 60, "batch": 16, "steps": 12, "device": "cpu"}
    return distk.train(
        "arae", data="standin-reviews:tiny", out=tmp_path_factory.mktemp("arae") / "run", quiet=True, **options
    )


def test_lines_go_in_and_as_many_come_out(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model = distk.load(run.path, device="cpu")
    lines = ["the phone was great .", "", "   ", "zyx wvu", " ".join(["the"] * 80), "<eos> <pad> the phone ."]
    out = model.rewrite(lines, 1)
    assert len(out) == len(lines)
    assert out[1] == out[2] == ""
    words = {w for line in out for w in line.split()}
    assert not words & {"<pad>", "<bos>", "<eos>"}
    text = capsys.readouterr().err
    assert "cut" in text
    assert "without any word that the model knows" in text
    alone = [model.rewrite([line], 1)[0] for line in lines]
    assert alone == out  # neither the batch nor the padding matters
    assert model.rewrite(lines, 1, batch=2) == out
    assert len(model.rewrite(lines, 0, beam=3)) == len(lines)
    with pytest.raises(UsageError, match="label"):
        model.rewrite(lines, 5)


def test_codes_decode_and_samples(run: Any) -> None:
    model = distk.load(run.path, device="cpu")
    data = model.dataset()
    x = data.batch(data.rows("test")[:20])["x"]
    with torch.no_grad():
        code = model.encode(x)
        model.latents.check(code, 20)
        assert torch.allclose(code["label"].sum(1), torch.ones(20))
        items = model.decode(code)
        assert items.shape == x.shape
        swapped = {**code, "label": code["label"].flip(1)}
        lines = [model.text(model.decode(swapped))[i] for i in range(20)]
        source = code["label"].argmax(1).tolist()
        by_hand = [
            model.rewrite([line], 1 - s)[0] for line, s in zip(data.lines(data.rows("test")[:20]), source, strict=True)
        ]
        assert lines == by_hand  # transfer is the exchange of the group `label`
        drawn = model.sample(7, torch.Generator().manual_seed(3), label=1)
        again = model.sample(7, torch.Generator().manual_seed(3), label=1)
    assert torch.equal(drawn, again)
    assert drawn.shape == (7, *model.spec.shape)


def test_resuming_is_bit_for_bit(run: Any, tmp_path: Path) -> None:
    from distk.training.loop import resume

    options = {**SMALL, "data_sentences": 400, "data_held_out": 60, "batch": 16, "device": "cpu"}
    first = distk.train("arae", data="standin-reviews:tiny", out=tmp_path / "a", quiet=True, steps=5, **options)
    resume(first.path, steps=12, quiet=True)
    whole = distk.load(run.path, device="cpu").state_dict()
    for name, value in distk.load(first.path, device="cpu").state_dict().items():
        assert torch.equal(value, whole[name]), name


def test_no_generator_no_samples(tmp_path: Path) -> None:
    options = {**SMALL, "data_sentences": 200, "data_held_out": 20, "batch": 8, "steps": 1, "device": "cpu"}
    run = distk.train("arae", data="standin-reviews:tiny", out=tmp_path / "r", quiet=True, lambda1=0.0, **options)
    model = distk.load(run.path, device="cpu")
    with pytest.raises(UsageError, match="generator was not trained"):
        model.sample(3, torch.Generator())


def test_one_label_and_odd_settings_are_refused(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.0").write_text("only one label\n" * 9)
    with pytest.raises(UsageError, match="two labels"):
        trainer({"name": "files", "dir": str(tmp_path)})
    (tmp_path / "train.1").write_text("\n")
    (tmp_path / "dev.1").write_text("a\n")
    (tmp_path / "test.1").write_text("a\n")
    with pytest.raises(UsageError, match="label '1' has no training sentence"):
        trainer({"name": "files", "dir": str(tmp_path)})
    for bad in ({"clip_eps": 0.0}, {"lambda1": -1.0}, {"critic": "other"}, {"hidden": 0}):
        with pytest.raises(UsageError):
            resolve("arae", options={"model": bad})


def test_a_strangers_checkpoint_is_checked(run: Any, tmp_path: Path) -> None:
    import json
    import struct

    raw = run.checkpoint.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    inner = json.loads(header["__metadata__"]["distk"])

    def write(change: Any) -> Path:
        changed = json.loads(json.dumps(inner))
        change(changed["data"]["spec"])
        text = json.dumps({**header, "__metadata__": {"distk": json.dumps(changed)}}).encode()
        (tmp_path / "c.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])
        return tmp_path / "c.safetensors"

    distk.load(write(lambda spec: None), device="cpu")
    for change in (
        lambda spec: spec["extra"].update(vocab=["x"] * 10),
        lambda spec: spec["extra"]["vocab"].append("one-more-than-rows"),
        lambda spec: spec["extra"].pop("vocab"),
        lambda spec: spec["extra"].update(max_len=3),
        lambda spec: spec.update(classes=["only"]),
    ):
        with pytest.raises(DistkError):
            distk.load(write(change), device="cpu")


def test_nothing_in_a_step_reads_back_to_the_host() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Guard(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = str(func)
            assert not any(bad in name for bad in ("_local_scalar_dense", "nonzero", "masked_select")), name
            return func(*args, **(kwargs or {}))

    from distk.device import no_host_reads

    for optimizer in ("adam-joint", "sgd"):
        made = trainer(lambda1=1.0, lambda2=1.0, ae_optimizer=optimizer, critic="gp", normalize_adv_grad=0.01)
        made.step()
        step = new_step(made)
        with no_host_reads(), Guard():
            for o in made.objectives:
                for _ in range(o.updates):
                    o.loss(step).backward(inputs=list(o.parameters), retain_graph=True)
