"""attrtransfer: networks by hand, where each loss's gradient goes, alignment, the end of a sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distk import UsageError
from distk.device import Ranks
from distk.method import Step
from distk.plugins.text.attrtransfer.method import AttrTransfer, Written
from distk.plugins.text.attrtransfer.networks import Memory, Sentence
from distk.plugins.text.common.networks import Windows
from distk.plugins.text.common.vocab import BOS, EOS, PAD, UNK
from distk.settings import resolve
from distk.source import Source
from distk.testing import method_checks
from distk.training.beginning import build
from distk.training.trainer import Trainer

SMALL = {"embedding": 5, "hidden": 6, "filters": 4, "dropout": 0.0, "warmup": 0, "ramp": 0}
DATA = {"name": "standin-reviews", "variant": "tiny", "sentences": 400, "held_out": 60}
PARTS = {"E": ("encoder",), "G": ("decoder",), "C": ("classifier",)}


def trainer(seed: int, data: dict[str, Any] | None = None, **model: Any) -> Trainer:
    sections = {"model": {**SMALL, **model}, "data": {**DATA, **(data or {})}}
    sections["train"] = {"batch": 12, "seed": seed % 1000, "device": "cpu"}
    return build(resolve("attrtransfer", options=sections), torch.device("cpu"), Ranks())


def exact(seed: int, **model: Any) -> tuple[AttrTransfer, Step]:
    """A model in float64 and a step with a batch."""
    made = trainer(seed, **model)
    made._set_schedule(made.model.schedule(0))
    log = made.ledger.note
    step = Step(index=made.counter, schedule=made._schedule, phase="joint", generator=made.generator, log=log)
    step.batch = made.model.collect(Source(made.dataset, 12, made.generator))
    rand = step.rand
    step.rand = lambda *shape: rand(*shape).double()  # type: ignore[method-assign]
    found = made.model.double()
    assert isinstance(found, AttrTransfer)
    return found, step


def touched(model: AttrTransfer, loss: Tensor) -> set[str]:
    """The parts E, G, C (and `embedding`) that a loss gives a gradient to."""
    model.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    named = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    return {key for key, names in PARTS.items() if named & {*names}} | (named & {"embedding"})


# Where the losses reach


def test_each_loss_reaches_its_own_parts(seed: int) -> None:
    model, step = exact(seed)
    x, label = step.batch["x"], step.batch["label"]
    source = model.given(x)
    memory = model.encode_words(source, label)
    losses = model.transfer_losses(step, source, memory)
    assert touched(model, model.nll(x, memory, label)) == {"E", "G", "embedding"}
    assert touched(model, model.class_loss(source, label)) == {"C"}
    assert touched(model, losses["cnt_rec"]) == {"E", "G", "embedding"}
    assert touched(model, losses["back_rec"]) == {"E", "G", "embedding"}
    assert touched(model, losses["class_td"]) == {"E", "G", "C", "embedding"}
    assert touched(model, losses["class_btd"]) == {"E", "G", "C", "embedding"}


def test_a_classifier_that_always_reads_the_wanted_label_teaches_nothing(seed: int) -> None:
    model, step = exact(seed)
    x, label = step.batch["x"], step.batch["label"]
    memory = model.encode_words(model.given(x), label)
    there = model.free_running(step, memory, torch.ones_like(label), (x != PAD).sum(1) + 1)
    own = [p for name, p in model.named_parameters() if name.startswith(("encoder", "decoder"))]

    def slope() -> float:
        loss = model.class_loss(there.sentence, torch.ones_like(label))
        found = torch.autograd.grad(loss, own, retain_graph=True, allow_unused=True)
        return sum(float(g.abs().sum()) for g in found if g is not None)

    assert slope() > 0
    last = [m for m in model.classifier.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        last.bias[1] += 1e4
    assert slope() == 0


def test_the_way_back_reaches_the_first_words(seed: int) -> None:
    """back_rec moves with the logits of the first decode: finite differences through soft words."""
    model, step = exact(seed, soft=True, gumbel=False)
    x, label = step.batch["x"], step.batch["label"]
    memory = model.encode_words(model.given(x), label)
    there = model.free_running(step, memory, 1 - label, (x != PAD).sum(1) + 1)
    logits = there.logits.detach().masked_fill(~there.logits.isfinite(), -60.0).requires_grad_()

    def back(free: Tensor) -> Tensor:
        rows = (free / step.schedule["tau"]).softmax(2)
        going = (1 - rows[:, :, EOS]).cumprod(1)
        alive = torch.cat([torch.ones_like(going[:, :1]), going[:, :-1]], 1)
        sentence = Sentence(rows, alive, there.sentence.size)
        return model.nll(x, model.encode_words(sentence, 1 - label), label)

    (gradient,) = torch.autograd.grad(back(logits), logits)
    along = torch.randn_like(logits)
    step_size = 1e-5
    slope = (back(logits + step_size * along) - back(logits - step_size * along)) / (2 * step_size)
    assert float((gradient * along).sum()) == pytest.approx(float(slope), rel=1e-4, abs=1e-9)
    assert float(gradient.abs().sum()) > 0


def test_each_loss_by_hand_and_through_what_was_written(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values from the written sentences, which are made leaves so that their gradients can be asked for."""
    model, step = exact(seed)
    x, label = step.batch["x"], step.batch["label"]
    kept: list[Written] = []
    write = model.free_running

    def noted(*arguments: Any) -> Written:
        made = write(*arguments)
        words, alive, size = made.sentence
        made.sentence = Sentence(words.detach().requires_grad_(), alive.detach().requires_grad_(), size)
        kept.append(made)
        return made

    monkeypatch.setattr(model, "free_running", noted)
    source = model.given(x)
    losses = model.transfer_losses(step, source, model.encode_words(source, label))
    there, back = (made.sentence for made in kept)
    other = 1 - label
    read = model.classifier(*there).log_softmax(1)
    assert torch.allclose(losses["class_td"], -read.gather(1, other[:, None]).mean(), atol=1e-10)
    read = model.classifier(*back).log_softmax(1)
    assert torch.allclose(losses["class_btd"], -read.gather(1, label[:, None]).mean(), atol=1e-10)
    logits = model.teacher_forced(x, model.encode_words(there, other), label)
    said = logits.log_softmax(2).gather(2, x[..., None])[..., 0].masked_fill(x == PAD, 0)
    assert torch.allclose(losses["back_rec"], -said.sum() / (x != PAD).sum(), atol=1e-10)
    for name, sentence in (("class_td", there), ("back_rec", there), ("class_btd", back)):
        found = torch.autograd.grad(losses[name], list(sentence[:2]), retain_graph=True, allow_unused=True)
        assert all(g is not None and bool(g.any()) for g in found), name


def test_the_classifier_takes_a_share_of_the_gradient(seed: int) -> None:
    model, step = exact(seed)
    x, label = step.batch["x"], step.batch["label"]
    memory = model.encode_words(model.given(x), label)
    there = model.free_running(step, memory, 1 - label, (x != PAD).sum(1) + 1).sentence
    own, others = list(model.classifier.parameters()), list(model.decoder.parameters())
    whole = torch.autograd.grad(model.class_loss(there, label), [*own, *others], retain_graph=True)
    part = torch.autograd.grad(model.class_loss(there, label, 0.25), [*own, *others], retain_graph=True)
    for i, (a, b) in enumerate(zip(whole, part, strict=True)):
        assert torch.allclose(b, a * (0.25 if i < len(own) else 1.0), atol=1e-12)
    frozen = torch.autograd.grad(
        model.class_loss(there, label, 0.0), [*own, *others], retain_graph=True, allow_unused=True
    )
    assert all(g is None or not bool(g.any()) for g in frozen[: len(own)])


def test_the_total_is_the_weighted_sum_and_ramps(seed: int) -> None:
    weights = {"lambda_rec": 0.5, "lambda_cnt": 2.0, "lambda_back": 3.0, "lambda_od": 5.0, "lambda_td": 7.0}
    model, step = exact(seed, **weights, lambda_btd=11.0, gumbel=False)
    step.schedule["ramp"] = torch.tensor(0.25)
    kept: dict[str, Tensor] = {}
    step.log = lambda name, value: kept.__setitem__(name, value)  # type: ignore[method-assign]
    total = model.loss(step)
    factor = {"rec": 0.5, "cnt_rec": 2, "back_rec": 3, "class_od": 5, "class_td": 7 * 0.25, "class_btd": 11 * 0.25}
    kept.pop("dev_accuracy")
    assert set(kept) == set(factor)
    assert float(total) == pytest.approx(sum(factor[name] * float(value) for name, value in kept.items()), rel=1e-10)
    step.phase = "warm-up"
    kept.clear()
    model.loss(step)
    assert set(kept) == {"rec", "class_od", "dev_accuracy"}
    config = model.config
    assert model.schedule(config.warmup)["ramp"] == 1.0  # no ramp: at once
    later = resolve("attrtransfer", options={"model": {"warmup": 10, "ramp": 20}}).model
    model.config = later
    assert [model.schedule(s)["ramp"] for s in (0, 10, 20, 30, 99)] == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert [model.phase(s) for s in (9, 10)] == ["warm-up", "joint"]


# Alignment


def planted(attention: Tensor, logits: Tensor, alive: list[list[int]]) -> Written:
    mark = torch.tensor(alive).double()
    rows = F.one_hot(logits.argmax(2), logits.shape[2]).double()
    return Written(Sentence(rows, mark, mark.sum(1).long()), logits, attention)


def test_nouns_are_looked_for_where_the_attention_is(seed: int) -> None:
    """Source of three words, the second a noun: step 2 attends to it most among those alive, step 3 is dead."""
    model, _ = exact(seed)
    vocab = len(model.vocab)
    logits = torch.randn(1, 4, vocab).double()
    attention = torch.tensor([[[0.9, 0.1, 0.0], [0.5, 0.2, 0.3], [0.1, 0.7, 0.2], [0.0, 1.0, 0.0]]]).double()
    x = torch.tensor([[5, 6, EOS]])
    noun = torch.tensor([[False, True, False]])
    found = model.content_loss(planted(attention, logits, [[1, 1, 1, 0]]), x, noun)
    assert float(found) == pytest.approx(-float(logits[0, 2].log_softmax(0)[6]), rel=1e-12)
    nothing = model.content_loss(planted(attention, logits, [[1, 1, 1, 0]]), x, torch.zeros_like(noun))
    assert float(nothing) == 0.0
    model.config = resolve("attrtransfer", options={"model": {"align": "step"}}).model
    by_step = model.content_loss(planted(attention, logits, [[1, 1, 1, 0]]), x, torch.tensor([[True, True, False]]))
    expected = [(0, 5), (1, 5), (2, 6)]  # each living step and the word that it attends to most
    values = [-float(logits[0, t].log_softmax(0)[w]) for t, w in expected]
    assert float(by_step) == pytest.approx(sum(values) / 3, rel=1e-12)


def test_nouns_that_are_unknown_or_listed_are_left_alone(seed: int) -> None:
    model, _ = exact(seed, noun_stoplist="phone,nowhere")
    assert set(model.left_out.tolist()) == {UNK, model.vocab.ids["phone"]}


def test_the_loss_of_nouns_is_zero_where_all_are_left_alone(seed: int) -> None:
    model, step = exact(seed)
    x, label = step.batch["x"], step.batch["label"]
    source = model.given(x)
    memory = model.encode_words(source, label)
    assert float(model.transfer_losses(step, source, memory)["cnt_rec"].detach()) > 0
    model.left_out = torch.arange(len(model.vocab))
    assert float(model.transfer_losses(step, source, memory)["cnt_rec"].detach()) == 0


def test_the_temperature_falls_from_the_first_to_the_last_step(seed: int) -> None:
    model = trainer(seed, tau_first=1.0, tau_last=0.4).model
    model.run_steps = 100
    assert [model.schedule(at)["tau"] for at in (0, 50, 100)] == pytest.approx([1.0, 0.7, 0.4])


def test_data_without_nouns_are_refused_unless_they_are_not_needed(seed: int, tmp_path: Any) -> None:
    for split in ("train", "dev", "test"):
        for k, word in enumerate(("bad", "good")):
            (tmp_path / f"{split}.{k}").write_text(f"the food was {word} .\n" * 40)
    plain = {"name": "files", "dir": str(tmp_path), "variant": None, "sentences": None, "held_out": None}
    data = {"name": "files", "dir": str(tmp_path), "tagger": "none"}
    assert plain["name"] == data["name"]

    def made(**model: Any) -> Trainer:
        sections = {"model": {**SMALL, **model}, "data": data, "train": {"batch": 8, "device": "cpu"}}
        return build(resolve("attrtransfer", options=sections), torch.device("cpu"), Ranks())

    with pytest.raises(UsageError, match="add --tagger auto, or --lambda-cnt 0"):
        made().step()
    made(lambda_cnt=0.0).step()


def test_the_classifier_is_held_against_sentences_that_nothing_learns(seed: int) -> None:
    made = trainer(seed, dropout=0.7)
    model, dataset = made.model, made.dataset
    assert isinstance(model, AttrTransfer)
    source = Source(dataset, 50, made.generator)
    batch = model.collect(source)
    held = {
        (tuple(x), k)
        for x, k in zip(*(dataset.batch(dataset.parts["dev"])[n].tolist() for n in ("x", "label")), strict=True)
    }
    drawn = zip(batch["dev_x"].tolist(), batch["dev_label"].tolist(), strict=True)
    assert {(tuple(x), k) for x, k in drawn} <= held
    assert len(batch["dev_x"]) == 50
    model.train()
    found = model.dev_accuracy(batch["dev_x"], batch["dev_label"])
    assert model.classifier.drop.training
    assert not found.requires_grad
    model.eval()
    right = [int(model.label_logits(x[None]).argmax()) for x in batch["dev_x"]]
    assert float(found) == pytest.approx(
        sum(a == b for a, b in zip(right, batch["dev_label"].tolist(), strict=True)) / 50
    )
    made.step()
    assert made.sums["dev_accuracy"][-1] == 1
    del dataset.parts["dev"]
    assert "dev_x" not in model.collect(source)


# Networks


def test_encoder_and_attention_by_hand(seed: int) -> None:
    model, step = exact(seed)
    x, label = step.batch["x"], step.batch["label"]
    memory = model.encode_words(model.given(x), label)
    for i in range(3):
        ids = x[i, : int((x[i] != PAD).sum())]
        read = model.embedding(ids)[None]
        ahead = model.encoder.onward(read, model.encoder.labels[0](label[i : i + 1])[None])[0][0]
        back = model.encoder.backward_(read.flip(1), model.encoder.labels[1](label[i : i + 1])[None])[0][0].flip(0)
        own = torch.cat([ahead, back], 1)
        assert torch.allclose(memory.states[i, : len(ids)], own, atol=1e-12)
        assert not bool(memory.states[i, len(ids) :].any())
        assert torch.allclose(memory.summary[i], own.mean(0), atol=1e-12)
        state = model.decoder.start(Memory(*(part[i : i + 1] for part in memory)), label[i : i + 1])
        one = Memory(*(part[i : i + 1] for part in memory))
        logits, (h, context, weights, _) = model.decoder.step(
            model.embedding.weight[BOS][None], state, one, model.banned
        )
        score = torch.stack([own[r] @ (model.decoder.attend.weight @ h[0]) for r in range(len(ids))]).softmax(0)
        assert torch.allclose(weights[0, : len(ids)], score, atol=1e-12)
        assert not bool(weights[0, len(ids) :].any()), "attention over padding"
        assert torch.allclose(context[0], score @ own, atol=1e-12)
        mixed = torch.tanh(model.decoder.mix(torch.cat([h[0], context[0]])))
        expected = model.decoder.output(mixed)
        assert bool((logits[0, [PAD, BOS]] == -torch.inf).all())
        assert torch.allclose(logits[0, 2:], expected[2:], atol=1e-12)


def test_padding_and_neighbours_change_nothing(seed: int) -> None:
    model, step = exact(seed)
    x, label = step.batch["x"], step.batch["label"]
    memory = model.encode_words(model.given(x), label)
    wider = model.encode_words(model.given(F.pad(x, (0, 4))), label)
    assert torch.allclose(wider.states[:, : x.shape[1]], memory.states, atol=1e-12)
    assert torch.allclose(wider.summary, memory.summary, atol=1e-12)
    assert torch.allclose(model.label_logits(F.pad(x, (0, 4))), model.label_logits(x), atol=1e-12)


def test_sampled_words_are_words_and_end_at_the_first_end(seed: int) -> None:
    model, step = exact(seed)
    x, label = step.batch["x"], step.batch["label"]
    limit = (x != PAD).sum(1) + 1
    made = model.free_running(step, model.encode_words(model.given(x), label), 1 - label, limit)
    rows, alive, size = made.sentence
    assert torch.allclose(rows.detach().amax(2), torch.ones_like(rows[:, :, 0]))
    assert torch.allclose(rows.detach().sum(2), torch.ones_like(rows[:, :, 0]))
    words = rows.argmax(2)
    assert not bool(((words == PAD) | (words == BOS)).any())
    for i in range(len(x)):
        ends = (words[i] == EOS).nonzero()[:, 0]
        expected = min(int(ends[0]) + 1 if len(ends) else words.shape[1], int(limit[i]))
        assert int(size[i]) == expected
        assert alive[i].detach().tolist() == pytest.approx([1.0] * expected + [0.0] * (words.shape[1] - expected))
    # The mark of the end has a gradient: more weight on <eos> at the first place kills what follows.
    (gradient,) = torch.autograd.grad(alive[:, 1].sum(), rows)
    assert torch.allclose(gradient[:, 0, EOS], -torch.ones(len(x)).double())


def test_windows_beyond_the_end_do_not_count(seed: int) -> None:
    torch.manual_seed(seed)
    windows = Windows(3, 2, (2, 4), torch.nn.ReLU()).double()
    x, size = torch.randn(4, 6, 3).double(), torch.tensor([6, 4, 3, 1])
    other = x.clone()
    for i in range(4):
        other[i, size[i] :] = 50.0
    assert torch.equal(windows(x, size), windows(other, size))
    alone = windows(x[2:3, :3], size[2:3])
    assert torch.allclose(windows(x, size)[2], alone[0], atol=1e-12)


# Setting


def test_the_joint_phase_keeps_the_rules_of_a_step() -> None:
    small = {**SMALL, "dropout": 0.1}
    failed = [c for c in method_checks("attrtransfer", model=small, data=DATA) if c.problem]
    assert not failed, failed


def test_the_presets() -> None:
    """Melnyk et al. 2017 print no sizes; section 5: Yelp, at most 17 tokens with the two marks; 20 epochs are ours."""
    found = resolve("attrtransfer", preset="paper")
    assert (found.data, found.data_options["max_len"], found.data_options["min_count"]) == ("yelp", 20, 5)
    assert found.data_options["tagger"] == "auto"
    assert not found.data_options["balance"]
    lambdas = [getattr(found.model, f"lambda_{name}") for name in ("rec", "cnt", "back", "od", "td", "btd")]
    assert lambdas == [1.0] * 6
    assert (found.train.batch, found.train.steps) == (64, pytest.approx(20 * 447_000 / 64, rel=0.01))
    assert (found.model.warmup, found.model.ramp) == (14_000, 14_000)
