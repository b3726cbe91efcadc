"""crossaligned: states, words, losses and gradients against computations by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import distk
from distk import UsageError
from distk.device import Ranks
from distk.method import Step
from distk.plugins.text.common.vocab import BOS, EOS, PAD
from distk.plugins.text.crossaligned.method import CrossAligned
from distk.plugins.text.crossaligned.networks import StateCritic, reversed_words, shuffled
from distk.settings import resolve
from distk.source import Source
from distk.training.beginning import build
from distk.training.trainer import Trainer

SMALL = {"embedding": 7, "style": 4, "content": 6, "filters": 5, "heights": 3, "dropout": 0.0, "shuffle": 0}
DATA = {"name": "standin-reviews", "variant": "tiny", "sentences": 400, "held_out": 60}


def trainer(seed: int, data: dict[str, Any] | None = None, **model: Any) -> Trainer:
    sections = {"model": {**SMALL, **model}, "data": {**DATA, **(data or {})}}
    sections["train"] = {"batch": 16, "seed": seed % 1000, "device": "cpu"}
    return build(resolve("crossaligned", options=sections), torch.device("cpu"), Ranks())


def new_step(made: Trainer) -> Step:
    made._set_schedule(made.model.schedule(0))
    step = Step(index=made.counter, schedule=made._schedule, phase=None, generator=made.generator, log=made.ledger.note)
    step.batch = made.model.collect(Source(made.dataset, made.config.batch, made.generator))
    return step


def exact(seed: int, **model: Any) -> tuple[CrossAligned, Step]:
    """A model in float64 and a step with a batch."""
    made = trainer(seed, **model)
    step = new_step(made)
    model_ = made.model.double()
    assert isinstance(model_, CrossAligned)
    rand = step.rand
    step.rand = lambda *shape: rand(*shape).double()  # type: ignore[method-assign]
    return model_, step


def gru(cell: torch.nn.GRU, x: Tensor, h: Tensor) -> Tensor:
    """One step of a GRU by its equations: x `[E]`, h `[H]`."""
    w, u, b, c = cell.weight_ih_l0, cell.weight_hh_l0, cell.bias_ih_l0, cell.bias_hh_l0
    (ir, iz, ic), (hr, hz, hc) = (w @ x + b).chunk(3), (u @ h + c).chunk(3)
    r, z = torch.sigmoid(ir + hr), torch.sigmoid(iz + hz)
    return (1 - z) * torch.tanh(ic + r * hc) + z * h


# States


def test_content_is_the_state_after_the_words_in_reverse(seed: int) -> None:
    model, step = exact(seed)
    x, y = step.batch["x"], step.batch["label"].double()
    z = model.content(x, y)
    for i in range(4):
        words = [int(w) for w in x[i] if w not in (PAD, EOS)]
        state = torch.cat([model.label_in.weight[:, 0] * y[i] + model.label_in.bias, torch.zeros(6).double()])
        for word in reversed(words):
            state = gru(model.encoder, model.embedding.weight[word], state)
        assert torch.allclose(z[i], state[4:], atol=1e-12)


def test_content_does_not_see_padding_or_neighbours(seed: int) -> None:
    model, step = exact(seed)
    x, y = step.batch["x"], step.batch["label"].double()
    longer = F.pad(x, (0, 5))
    assert torch.allclose(model.content(x, y), model.content(longer, y), atol=1e-12)
    assert torch.allclose(model.content(x[:1], y[:1]), model.content(x, y)[:1], atol=1e-12)


def test_the_label_changes_only_the_style_units_of_the_first_state(seed: int) -> None:
    model, step = exact(seed)
    z = model.content(step.batch["x"], step.batch["label"].double())
    zero, one = model.start(torch.zeros(16).double(), z), model.start(torch.ones(16).double(), z)
    assert torch.equal(zero[:, 4:], z)
    assert torch.equal(one[:, 4:], z)
    assert torch.equal(zero[:, :4], model.label_out.bias.expand(16, -1))
    assert torch.allclose(one[:, :4] - zero[:, :4], model.label_out.weight[:, 0].expand(16, -1), atol=1e-12)


def test_both_sequences_of_states_begin_alike_and_are_as_long(seed: int) -> None:
    """Teacher-forced and free-running states by the equations of the cell, soft words written out."""
    model, step = exact(seed)
    x, y = step.batch["x"], step.batch["label"].double()
    held = model.forward_pass(step)
    real, made = held["real"], held["made"]
    assert real.shape == made.shape == (16, x.shape[1] + 1, 10)
    z = model.content(x, y)
    assert torch.allclose(real[:, 0], model.start(y, z), atol=1e-12)
    assert torch.allclose(made[:, 0], model.start(1 - y, z), atol=1e-12)
    state = real[0, 0]
    for t, word in enumerate([BOS, *x[0, :-1].tolist()]):
        state = gru(model.generator, model.embedding.weight[word], state)
        assert torch.allclose(real[0, t + 1], state, atol=1e-12)
        assert torch.allclose(held["logits"][0, t], model.output(state), atol=1e-12)


def test_soft_words_are_the_softmax_of_logits_and_gumbel_noise(seed: int) -> None:
    model, step = exact(seed, gamma=0.3)
    noise = step.rand(2, 5, len(model.vocab))
    start = model.start(torch.tensor([0.0, 1.0]).double(), torch.randn(2, 6).double())
    made = model.free_running(start, 5, noise)
    state, word = start[0], model.embedding.weight[BOS]
    for t in range(5):
        state = gru(model.generator, word, state)
        assert torch.allclose(made[0, t + 1], state, atol=1e-9)
        gumbel = -torch.log(-torch.log(1 - noise[0, t]))
        word = ((model.output(state) + gumbel) / 0.3).softmax(0) @ model.embedding.weight


def test_at_temperature_zero_the_soft_words_are_those_of_a_greedy_search(seed: int) -> None:
    """Without noise (uniform 1 - 1/e gives the Gumbel value 0)."""
    model, step = exact(seed, gamma=1e-6)
    z, label = torch.randn(8, 6).double(), step.batch["label"][:8]
    words = model.write(z, label)
    noise = torch.full((8, words.shape[1], len(model.vocab)), 1 - 1 / torch.e).double()
    with torch.no_grad():
        made = model.free_running(model.start(label.double(), z), words.shape[1], noise)
        logits = model.output(made[:, 1:])
    for i in range(8):
        ends = int((words[i] == EOS).nonzero()[0])
        said = logits[i].argmax(1)[:ends]
        if ends == words.shape[1] - 1 or bool(((said == PAD) | (said == BOS)).any()):
            continue  # cut at the longest length, or a word that a search may not say
        assert torch.equal(said, words[i, :ends])


# Words


def test_words_are_reversed_within_their_length() -> None:
    x = torch.tensor([[5, 6, 7, EOS, PAD], [8, EOS, PAD, PAD, PAD]])
    assert reversed_words(x, torch.tensor([3, 1])).tolist() == [[7, 6, 5, EOS, PAD], [8, EOS, PAD, PAD, PAD]]


def test_no_word_moves_further_than_it_may_and_ends_stay(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    words = torch.randint(1, 12, (500,), generator=draw)
    place = torch.arange(12)
    x = torch.where(place < words[:, None], place + 4, torch.where(place == words[:, None], EOS, PAD))
    moved = shuffled(x, words, torch.rand(500, 12, generator=draw), 3)
    inside = place < words[:, None]
    assert torch.equal(moved.sort(1).values, x.sort(1).values)
    assert torch.equal(moved[~inside], x[~inside])
    shift = ((moved - 4) - place)[inside].abs()
    assert int(shift.max()) == 3, "with 500 sentences some word moves by three places"


# Discriminators


def test_a_critic_by_hand_and_what_lies_beyond_the_end_tells_nothing(seed: int) -> None:
    torch.manual_seed(seed)
    critic = StateCritic(4, 3, 3, 0.0).double()
    states, size = torch.randn(5, 7, 4).double(), torch.tensor([7, 5, 3, 2, 1])
    score = critic(states, size)
    for i in range(5):
        own = states[i, : size[i]]
        own = F.pad(own, (0, 0, 0, max(0, 3 - len(own))))
        pooled = []
        for k, convolution in enumerate(critic.windows.convolutions, 1):
            last = max(int(size[i]), k) - k
            windows = torch.stack([own[t : t + k] for t in range(last + 1)])  # [windows, k, 4]
            value = torch.einsum("wkc,fck->wf", windows, convolution.weight) + convolution.bias
            pooled.append(F.leaky_relu(value, 0.01).amax(0))
        assert torch.allclose(score[i], critic.score(torch.cat(pooled))[0], atol=1e-12)
    other = states.clone()
    for i in range(5):
        other[i, size[i] :] = 100.0
    assert torch.equal(critic(other, size), score)


def test_each_critic_tells_real_states_of_its_label_from_those_made_for_it(seed: int) -> None:
    model, step = exact(seed)
    loss = model.discriminate(step)
    held, x, y = step.memo, step.batch["x"], step.batch["label"]
    assert y.tolist() == [0, 1] * 8
    size = (x != PAD).sum(1) + 1
    expected = 0.0
    for k in (0, 1):
        real = torch.sigmoid(model.critics[k](held["real"], size)[y == k])
        made = torch.sigmoid(model.critics[k](held["made"], size)[y == 1 - k])
        expected = expected - real.log().mean() - (1 - made).log().mean()
    assert torch.allclose(loss, expected, atol=1e-10)


def test_gradients_go_where_they_belong(seed: int) -> None:
    model, step = exact(seed, gate=100.0)
    model.discriminate(step).backward(retain_graph=True)
    touched = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert touched == {"critics"}
    model.zero_grad(set_to_none=True)
    own = [p for n, p in model.named_parameters() if not n.startswith("critics.")]
    with_both = torch.autograd.grad(model.rebuild(step), own, retain_graph=True)
    step.memo["open"] = torch.zeros(()).double()
    shut = torch.autograd.grad(model.rebuild(step), own, retain_graph=True)
    x, logits = step.batch["x"], step.memo["logits"]
    nll = -logits.log_softmax(2).gather(2, x[..., None])[..., 0].masked_fill(x == PAD, 0).sum(1).mean()
    alone = torch.autograd.grad(nll, own, retain_graph=True, allow_unused=True)
    for closed, expected in zip(shut, alone, strict=True):
        assert torch.allclose(closed, torch.zeros_like(closed) if expected is None else expected, atol=1e-10)
    names = [n for n, _ in model.named_parameters() if not n.startswith("critics.")]
    moved = {n.split(".")[0] for n, a, b in zip(names, with_both, shut, strict=True) if not torch.allclose(a, b)}
    assert {"encoder", "generator", "label_in", "label_out", "embedding"} <= moved
    # The adversary's part by hand: rho times -log D_k of what was made for k.
    size = (x != PAD).sum(1) + 1
    hard = sum(-torch.sigmoid(model.critics[k](step.memo["made"], size)[1 - k :: 2]).log().mean() for k in (0, 1))
    step.memo["open"] = torch.ones(()).double()
    assert torch.allclose(model.rebuild(step), nll + hard, atol=1e-10)


def test_the_saturating_form_is_the_articles(seed: int) -> None:
    model, step = exact(seed, gate=100.0, saturating=True)
    model.discriminate(step)
    size = (step.batch["x"] != PAD).sum(1) + 1
    d = [torch.sigmoid(model.critics[k](step.memo["made"], size)[1 - k :: 2]) for k in (0, 1)]
    alone = model.rebuild(step) - sum((1 - part).log().mean() for part in d)
    step.memo["open"] = torch.zeros(()).double()
    assert torch.allclose(model.rebuild(step), alone, atol=1e-10)


@pytest.mark.parametrize(("gate", "is_open"), [(1e-3, 0.0), (100.0, 1.0)])
def test_the_gate_opens_below_its_threshold(seed: int, gate: float, is_open: float) -> None:
    model, step = exact(seed, gate=gate)
    model.discriminate(step)
    assert float(step.memo["open"]) == is_open


# Setting


def test_the_gate_waits_for_both_critics(seed: int) -> None:
    model, step = exact(seed, gate=100.0)
    told: dict[str, Tensor] = {}
    step._log = told.__setitem__
    with torch.no_grad():
        next(iter(reversed(list(model.critics[0].parameters())))).add_(2.0)  # so that the two losses differ
    model.discriminate(step)
    losses = sorted(float(told[f"d{k}"].detach()) for k in (0, 1))
    assert losses[1] - losses[0] > 1e-3
    object.__setattr__(model.config, "gate", sum(losses) / 2)
    model.discriminate(step)
    assert float(step.memo["open"]) == 0


def test_batches_have_one_length_and_both_labels(seed: int) -> None:
    """Of 1,000 sentences per split every length of the tiny grammar has 32 of each label."""
    made = trainer(seed, {"sentences": 4000})
    assert made.dataset.config.exact_lengths
    widths = set()
    for step in range(40):
        source = Source(made.dataset, 16, made.generator, bucket=made.dataset.bucket(step, seed))
        batch = made.model.collect(source)
        sizes = (batch["x"] != PAD).sum(1)
        assert len(set(sizes.tolist())) == 1
        assert int(sizes[0]) == batch["x"].shape[1]
        assert batch["label"].tolist() == [0, 1] * 8
        widths.add(int(sizes[0]))
    assert len(widths) > 1


def test_the_paper_preset() -> None:
    """Its program's options.py and README; the article's Section 5 names sizes and lambda."""
    found = resolve("crossaligned", preset="paper")
    config, data, train = found.model, found.data_options, found.train
    assert (config.style, config.content, config.embedding) == (200, 500, 100)  # dim_y, dim_z, dim_emb
    assert (config.filters, config.heights) == (128, 5)  # n_filters, filter_sizes 1,2,3,4,5
    assert (config.dropout, config.rho, config.gamma) == (0.5, 1.0, 0.1)  # dropout_keep_prob, rho, gamma_init
    assert (config.lr, config.gate, config.clip_norm, config.shuffle) == (5e-4, 1.2, 30.0, 3)
    assert (found.data, data["min_count"], data["max_len"], data["exact_lengths"]) == ("yelp", 5, 20, True)
    assert train.batch == 128  # 64 of each label
    assert train.steps == pytest.approx(20 * 267_314 / 64, rel=0.001)  # max_epochs 20 of the larger label


def test_other_data_are_refused(seed: int) -> None:
    with pytest.raises(UsageError, match="those of two labels, and these data have 3"):
        trainer(seed, {"label_from": "topic", "variant": "full"})
    with pytest.raises(UsageError, match="leave out --no-balance"):
        trainer(seed, {"balance": False}).step()


def test_a_rewrite_has_a_line_for_a_line_and_the_label_is_read_where_it_is_not_given(seed: int, tmp_path: Any) -> None:
    run = distk.train(
        "crossaligned", data="standin-reviews:tiny", steps=3, batch=16, device="cpu", quiet=True, seed=seed % 1000,
        out=tmp_path / "run", data_sentences=400, data_held_out=60, **SMALL,
    )  # fmt: skip
    model = distk.load(run.path, device="cpu")
    lines = ["the phone was great .", "", "i hate my battery ."]
    made = model.rewrite(lines, 1)
    assert len(made) == 3
    assert made[1] == ""
    guessed = model.label_of([lines[0], lines[2]])
    known = [
        model.rewrite([line], 1, source=[label])[0] for line, label in zip((lines[0], lines[2]), guessed, strict=True)
    ]
    assert known == [made[0], made[2]]
