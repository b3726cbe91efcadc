"""mmdtraverse: code and decoder by hand, the two phases, examples and clouds, what a rewrite is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import distk
from distk import DataSpec, UsageError
from distk.device import Ranks
from distk.method import Step
from distk.plugins.text.common.vocab import BOS, EOS, PAD, UNK, Vocab
from distk.plugins.text.mmdtraverse.examples import draw_examples, topics
from distk.plugins.text.mmdtraverse.method import Config, Examples, MMDTraverse
from distk.plugins.text.mmdtraverse.solver import bandwidth
from distk.settings import resolve
from distk.source import Source
from distk.testing import method_checks
from distk.training.loop import build, resume
from distk.training.trainer import Trainer

SMALL = {"embedding": 5, "filters": 3, "examples": 7, "phase1": 0}
DATA = {"name": "standin-reviews", "variant": "tiny", "sentences": 600, "held_out": 60}


def trainer(seed: int, data: dict[str, Any] | None = None, **model: Any) -> Trainer:
    sections = {"model": {**SMALL, **model}, "data": data or DATA, "train": {"batch": 12, "seed": seed % 1000}}
    sections["train"]["device"] = "cpu"
    return build(resolve("mmdtraverse", options=sections), torch.device("cpu"), Ranks())


def exact(seed: int, **model: Any) -> tuple[MMDTraverse, Step]:
    """A model in float64 with its examples, and a step with a batch."""
    made = trainer(seed, **model)
    made.model.before_step(0, {})
    step = Step(index=made.counter, schedule={}, phase=None, generator=made.generator, log=made.ledger.note)
    step.batch = made.model.collect(Source(made.dataset, 12, made.generator), "joint")
    found = made.model.double()
    assert isinstance(found, MMDTraverse)
    return found, step


# The code


@pytest.mark.parametrize("words", [1, 2, 3, 6])
def test_the_code_is_the_largest_of_each_filter_over_the_words(seed: int, words: int) -> None:
    """By loops: windows of 1 to 4 words, `<eos>` and padding unread; a sentence shorter than a filter ends in zeros."""
    model, _ = exact(seed)
    ids = torch.randint(4, len(model.vocab), (1, words))
    x = F.pad(torch.cat([ids, torch.tensor([[EOS]])], 1), (0, 4))
    read = model.embedding(ids)[0].detach().numpy()
    expected = []
    for k, layer in zip((1, 2, 3, 4), model.windows.convolutions, strict=True):
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()  # type: ignore[union-attr,operator]
        rows = np.concatenate([read, np.zeros((max(0, k - words), read.shape[1]))])
        seen = [
            bias + sum(weight[:, :, j] @ rows[start + j] for j in range(k)) for start in range(max(1, words - k + 1))
        ]
        expected.append(np.maximum(np.max(seen, 0), 0))
    found = model.read_code(x)
    assert found.shape == (1, 12)
    np.testing.assert_allclose(found[0].detach().numpy(), np.concatenate(expected), rtol=0, atol=1e-12)
    torch.testing.assert_close(model.read_code(x[:, : words + 1]), found)  # whatever padding follows
    torch.testing.assert_close(model.read_code(F.pad(x, (0, 9))), found)


def test_the_label_is_read_from_the_code_by_one_layer(seed: int) -> None:
    model, step = exact(seed)
    code = model.encode(step.batch["x"])
    logits = code["code"] @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(code["label"], logits.softmax(1))


# The decoder


def by_hand(model: MMDTraverse, x: Tensor, z: Tensor) -> Tensor:
    """Logits `[n, T, V]` by the equations of a GRU whose first state is z."""
    w, r = model.gru.weight_ih_l0, model.gru.weight_hh_l0
    b, c = model.gru.bias_ih_l0, model.gru.bias_hh_l0
    h, size, found = z, z.shape[1], []
    for t in range(x.shape[1]):
        word = model.embedding(x[:, t - 1] if t else torch.full_like(x[:, 0], BOS))
        if model.config.z_every_step:
            word = torch.cat([word, z], 1)
        i, o = word @ w.T + b, h @ r.T + c
        reset = (i[:, :size] + o[:, :size]).sigmoid()
        keep = (i[:, size : 2 * size] + o[:, size : 2 * size]).sigmoid()
        new = (i[:, 2 * size :] + reset * o[:, 2 * size :]).tanh()
        h = (1 - keep) * new + keep * h
        found.append(h @ model.output.weight.T + model.output.bias)
    return torch.stack(found, 1)


@pytest.mark.parametrize("every", [False, True])
def test_the_generation_loss_is_a_mean_over_words(seed: int, every: bool) -> None:
    model, step = exact(seed, z_every_step=every)
    x = step.batch["x"]
    z = model.read_code(x)
    log_p = by_hand(model, x, z).log_softmax(2)
    total, words = 0.0, 0
    for i in range(len(x)):
        for t in range(x.shape[1]):
            if x[i, t] != PAD:
                total -= log_p[i, t, x[i, t]].item()
                words += 1
    assert model.generation_loss(step, x, z).item() == pytest.approx(total / words, rel=1e-10)


@pytest.mark.parametrize("every", [False, True])
def test_it_writes_the_most_probable_word_each_time(seed: int, every: bool) -> None:
    model, step = exact(seed, z_every_step=every)
    z = 3 * model.read_code(step.batch["x"]).detach()
    out = model.write(z)
    assert out.shape == (12, model.spec.shape[0])
    logits = by_hand(model, out, z)
    logits[..., [PAD, BOS]] = -torch.inf
    going = torch.ones(12, dtype=torch.bool)
    for t in range(out.shape[1] - 1):
        assert torch.equal(out[going, t], logits[going, t].argmax(1))
        going &= out[:, t] != EOS
        assert bool((out[~going, t + 1] == PAD).all())
    assert torch.equal(model.write(z, beam=1), out)
    assert model.write(z, beam=3).shape == out.shape


def test_hidden_words_are_hidden_from_the_decoder_alone(seed: int) -> None:
    model, step = exact(seed, word_dropout=1.0)
    x = step.batch["x"]
    z = model.read_code(x)
    seen: list[Tensor] = []
    states = model.states
    model.states = lambda given, code: (seen.append(given), states(given, code))[1]  # type: ignore[method-assign,func-returns-value]
    loss = model.generation_loss(step, x, z)
    (given,) = seen
    assert bool((given[:, 0] == BOS).all())
    told = given[:, 1:]
    assert bool((told[x[:, :-1] > UNK] == UNK).all())
    assert torch.equal(told[x[:, :-1] <= UNK], x[:, :-1][x[:, :-1] <= UNK])
    logits = model.output(states(given, z))
    assert loss.item() == pytest.approx(F.cross_entropy(logits.flatten(0, 1), x.flatten(), ignore_index=PAD).item())


# The two phases


def gradients(model: MMDTraverse, loss: Tensor) -> set[str]:
    model.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}


WRITING = {"embedding", "windows", "gru", "output"}


def test_the_second_phase_is_the_unweighted_sum(seed: int) -> None:
    model, step = exact(seed)
    kept: dict[str, Tensor] = {}
    step.log = lambda name, value: kept.__setitem__(name, value)  # type: ignore[method-assign]
    x, label = step.batch["x"], step.batch["label"]
    total = model.joint(step)
    z = model.read_code(x)
    read = model.classifier(z).log_softmax(1)
    classification = -sum(read[i, label[i]].item() for i in range(12)) / 12
    assert float(kept["classification"]) == pytest.approx(classification, rel=1e-10)
    assert float(total) == pytest.approx(classification + float(model.generation_loss(step, x, z)), rel=1e-10)
    assert float(kept["accuracy"]) == pytest.approx(float((read.argmax(1) == label).float().mean()))
    assert gradients(model, total) == WRITING | {"classifier"}
    assert gradients(model, model.autoencode(step)) == WRITING
    model.config = Config(**{**SMALL, "generation": 2.0, "classification": 3.0})
    doubled = 3 * classification + 2 * float(model.generation_loss(step, x, z))
    assert float(model.joint(step)) == pytest.approx(doubled, rel=1e-10)


def test_what_a_loss_without_weight_leaves_alone(seed: int) -> None:
    """Without classification the classifier still learns, from codes that it cannot change."""
    model, step = exact(seed)
    model.config = Config(**{**SMALL, "classification": 0.0})
    x, label = step.batch["x"], step.batch["label"]
    whole = model.joint(step)
    alone = model.generation_loss(step, x, model.read_code(x))
    own = [p for name, p in model.named_parameters() if not name.startswith("classifier.")]
    for a, b in zip(
        torch.autograd.grad(whole, own, retain_graph=True),
        torch.autograd.grad(alone, own, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    read = F.cross_entropy(model.classifier(model.read_code(x)), label)
    for a, b in zip(
        torch.autograd.grad(whole, list(model.classifier.parameters())),
        torch.autograd.grad(read, list(model.classifier.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    model.config = Config(**{**SMALL, "generation": 0.0})
    assert gradients(model, model.joint(step)) == {"embedding", "windows", "classifier"}


def written(folder: Path, unlabelled: bool = True) -> dict[str, Any]:
    for split in ("train", "dev", "test"):
        for k, word in enumerate(("bad", "good")):
            (folder / f"{split}.{k}").write_text(f"the food was {word} .\nthe phone is {word}\n" * 40)
    if unlabelled:
        (folder / "unsup.txt").write_text("nobody said a word here\nneither did we at all\n" * 40)
    return {"name": "files", "dir": str(folder)}


def test_the_first_phase_reads_text_without_labels(seed: int, tmp_path: Path) -> None:
    made = trainer(seed, data=written(tmp_path), phase1=2)
    seen: list[tuple[str, set[int]]] = []
    collect = made.model.collect

    def noted(source: Source, objective: str = "") -> dict[str, Tensor]:
        batch = collect(source, objective)
        seen.append((objective, set(batch["label"].tolist())))
        return batch

    made.model.collect = noted  # type: ignore[method-assign]
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    moved: list[set[str]] = []
    for _ in range(4):
        made.step()
        after = {name: p.detach().clone() for name, p in made.model.named_parameters()}
        moved.append({name.split(".")[0] for name in after if not torch.equal(after[name], before[name])})
        before = after
    assert seen == [("autoencode", {-1})] * 2 + [("joint", {0, 1})] * 2
    assert moved == [WRITING] * 2 + [WRITING | {"classifier"}] * 2
    logged = made.drain()
    assert {"autoencode", "joint", "generation", "classification", "accuracy"} <= set(logged)


def test_without_such_text_the_first_phase_reads_the_training_text(seed: int, tmp_path: Path) -> None:
    made = trainer(seed, data=written(tmp_path, unlabelled=False), phase1=5)
    batch = made.model.collect(Source(made.dataset, 12, made.generator), "autoencode")
    assert set(batch["label"].tolist()) <= {0, 1}


@pytest.mark.parametrize("model", [{"phase1": 0}, {"phase1": 0, "word_dropout": 0.3, "z_every_step": True}])
def test_conformance_of_the_second_phase(model: dict[str, Any]) -> None:
    failed = [c for c in method_checks("mmdtraverse", model={**SMALL, **model}, data=DATA) if c.problem]
    assert not failed, failed


# Examples and clouds


def test_examples_are_training_sentences_of_their_label(seed: int) -> None:
    made = trainer(seed)
    data, vocab = made.dataset, made.model.vocab  # type: ignore[union-attr]
    draw = torch.Generator().manual_seed(seed)
    found = draw_examples(data, vocab, 20, (), draw)
    train = data.batch(data.rows_of("train"))
    for k in range(2):
        own = {tuple(row) for row in train["x"][train["label"] == k].tolist()}
        assert all(tuple(row) in own for row in found[k].tolist())
    again = draw_examples(data, vocab, 20, (), torch.Generator().manual_seed(seed))
    assert torch.equal(found, again)
    assert not torch.equal(found, draw_examples(data, vocab, 20, (), draw))


def test_each_filter_word_has_its_share(seed: int) -> None:
    made = trainer(seed)
    data, vocab = made.dataset, made.model.vocab  # type: ignore[union-attr]
    found = draw_examples(data, vocab, 11, ("movie", "phone"), torch.Generator().manual_seed(seed))
    for k in range(2):
        held = topics(found[k], vocab, ("movie", "phone")).tolist()
        assert (held.count(0), held.count(1)) == (6, 5)
        assert held[:4] == [0, 1, 0, 1]
    few = draw_examples(data, vocab, 10_000, ("movie",), None)
    train = data.batch(data.rows_of("train"))
    for k in range(2):
        there = (train["x"] == vocab.ids["movie"]).any(1) & (train["label"] == k)
        rows = few[k][(few[k] != PAD).any(1)]
        assert len(rows) == int(there.sum())  # every one of them, and each once
        assert sorted(rows.tolist()) == sorted(train["x"][there].tolist())


def test_a_sentence_with_both_words_is_drawn_once(seed: int, tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        for k in (0, 1):
            (tmp_path / f"{split}.{k}").write_text("".join(f"the food of w{i}\n" for i in range(12)))
    made = trainer(seed, data={"name": "files", "dir": str(tmp_path)})
    found = draw_examples(made.dataset, made.model.vocab, 12, ("the", "food"), None)  # type: ignore[arg-type]
    assert all(len({tuple(row) for row in found[k].tolist()}) == 12 for k in (0, 1))


def test_too_few_examples_are_refused_by_name(seed: int, tmp_path: Path) -> None:
    data = written(tmp_path)
    made = trainer(seed, data=data)
    vocab: Vocab = made.model.vocab  # type: ignore[assignment]
    with pytest.raises(UsageError, match=r"label '1' has 0 training sentences with 'bad', and a cloud needs 2"):
        draw_examples(made.dataset, vocab, 4, ("bad",), None)
    with pytest.raises(UsageError, match="--filter-words: 'zebra' is no word of the training text"):
        draw_examples(made.dataset, vocab, 4, ("zebra",), None)
    with pytest.raises(UsageError, match="'zebra' is no word of the model's vocabulary"):
        topics(torch.zeros(1, 3, dtype=torch.long), vocab, ("zebra",))


def test_a_sentence_with_both_topics_has_none() -> None:
    vocab = Vocab.build({"movie": 3, "phone": 2, "the": 1})
    movie, phone, the = (vocab.ids[word] for word in ("movie", "phone", "the"))
    ids = torch.tensor([[movie, the, EOS], [the, phone, EOS], [movie, phone, EOS], [the, the, EOS]])
    assert topics(ids, vocab, ("movie", "phone")).tolist() == [0, 1, -1, -1]


def test_clouds_are_drawn_before_the_first_step_and_kept(seed: int) -> None:
    made = trainer(seed)
    assert isinstance(made.model, MMDTraverse)
    assert len(made.model.clouds().label) == 14  # of a model that has not begun, for looking at it
    assert not bool(made.model.examples.any())
    made.step()
    held = made.model.examples.clone()
    assert bool((held != PAD).any(2).all())
    made.step()
    assert torch.equal(made.model.examples, held)
    again = trainer(seed)
    again.step()
    assert torch.equal(again.model.examples, held)  # type: ignore[arg-type]
    other = trainer(seed + 1)
    other.step()
    assert not torch.equal(other.model.examples, held)  # type: ignore[arg-type]
    # Codes are those of the encoder as it is now, not as it was when they were drawn.
    clouds = made.model.clouds()
    torch.testing.assert_close(clouds.code, made.model.read_code(clouds.ids).double())
    assert clouds.label.tolist() == [0] * 7 + [1] * 7
    assert clouds.place.tolist() == [*range(7)] * 2


def test_the_witness_has_the_sets_that_belong_to_a_sentence(seed: int) -> None:
    """Three labels, in float64: own label's cloud without the sentence itself, the wanted label's, nothing else."""
    model, _ = exact(seed)
    ids = torch.tensor([[4, 5, EOS], [5, 6, EOS], [6, 7, EOS], [7, 8, EOS], [8, 9, EOS], [9, 4, EOS], [4, 9, EOS]])
    label = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    place = torch.tensor([0, 1, 2, 0, 1, 0, 1])
    clouds = Examples(ids, label, place, model.read_code(ids).detach())
    x = torch.tensor([[4, 5, EOS], [9, 8, EOS], [6, 7, EOS], [8, 9, EOS]])
    present, to = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 2, 1, 0])
    f = model.witness(x, present, to, clouds)
    expected = [
        [0, 1 / 2, 1 / 2, -1 / 2, -1 / 2, 0, 0],  # is the first example itself
        [1 / 3, 1 / 3, 1 / 3, 0, 0, -1 / 2, -1 / 2],
        [1 / 4, 1 / 4, 0, -1 / 2, -1 / 2, 1 / 4, 1 / 4],  # has the wanted label: from all others, itself left out
        [-1 / 3, -1 / 3, -1 / 3, 1, 0, 0, 0],
    ]
    torch.testing.assert_close(f.weights, torch.tensor(expected, dtype=torch.float64))
    widths = [bandwidth(clouds.code[rows]) for rows in ([0, 1, 2, 3, 4], [0, 1, 2, 5, 6], [*range(7)], [0, 1, 2, 3, 4])]
    torch.testing.assert_close(f.sigma, torch.stack(widths))
    assert model.witness(x, present, to, clouds, sigma=2.5).sigma.tolist() == [2.5] * 4
    few = model.witness(x[1:2], present[1:2], to[1:2], clouds, sizes=(2, 1))
    assert few.weights.tolist() == [[0.5, 0.5, 0, 0, 0, -1, 0]]


def test_lambda_is_a_number_or_a_multiple(seed: int) -> None:
    model, step = exact(seed)
    x, here = step.batch["x"][:2], torch.tensor([0, 1])
    f = model.witness(x, here, 1 - here, model.clouds())
    assert model.cost(f).tolist() == [7e-5] * 2
    assert model.cost(f, 0.25).tolist() == [0.25] * 2
    torch.testing.assert_close(model.cost(f, relative=0.3), 0.15 / f.sigma)
    model.config = Config(**{**SMALL, "lambda_rel": 0.2})
    torch.testing.assert_close(model.cost(f), 0.1 / f.sigma)
    assert model.cost(f, 0.0).tolist() == [0.0] * 2


def test_a_rewrite_is_read_moved_and_written(seed: int) -> None:
    model, step = exact(seed)
    x = step.batch["x"]
    out = model.rewrite_ids(x, None, 1, 1)
    code = model.encode(x)
    clouds = model.clouds()
    for i in range(len(x)):
        here = x[i : i + 1]
        present = code["label"][i : i + 1].argmax(1)
        f = model.witness(here, present, torch.tensor([1]), clouds)
        z, found = model.moved(code["code"][i : i + 1], f, model.cost(f))
        assert float(found.after[0]) < float(found.before[0])
        torch.testing.assert_close(z, code["code"][i : i + 1] + found.u)
        assert torch.equal(model.write(z)[0], out[i])
    told = model.rewrite_ids(x, 1 - code["label"].argmax(1), 1, 1)
    assert told.shape == out.shape
    lines = model.text(x)
    assert model.restore(lines) == model.text(model.write(code["code"]))
    assert model.restore([]) == []


def test_codes_may_be_held_above_zero(seed: int) -> None:
    model, step = exact(seed)
    x = step.batch["x"]
    z, label = model.read_code(x).detach(), torch.zeros(len(x), dtype=torch.long)
    f = model.witness(x, label, 1 - label, model.clouds())
    end, found = model.moved(z, f, model.cost(f, 0.0))
    torch.testing.assert_close(end, z + found.u)
    beyond = found._replace(u=torch.randn_like(z))
    assert float(model.landed(z, beyond).min()) < 0
    free = model.landed(z, beyond)
    model.config = Config(**{**SMALL, "clamp_z": True})
    assert torch.equal(model.landed(z, beyond), free.clamp_min(0))
    assert model.moved(z, f, model.cost(f, 0.0))[0].min() >= 0
    assert model.float().landed(z.float(), found).dtype == torch.float32


# Word vectors


def vector_file(path: Path, vocab: Vocab, width: int, form: str) -> dict[str, np.ndarray]:
    words = [*list(vocab.ids)[:6], "unheard-of"]
    values = {word: np.random.default_rng(i).normal(size=width).astype("<f4") for i, word in enumerate(words)}
    head = f"{len(words)} {width}\n".encode()
    if form == "text":
        lines = [f"{word} {' '.join(map(str, row.tolist()))}\n" for word, row in values.items()]
        path.write_bytes(head + "".join(lines).encode())
    else:
        path.write_bytes(head + b"".join(word.encode() + b" " + row.tobytes() + b"\n" for word, row in values.items()))
    return values


@pytest.mark.parametrize("form", ["text", "binary"])
def test_words_begin_with_their_vectors(seed: int, tmp_path: Path, form: str) -> None:
    vocab: Vocab = trainer(seed).model.vocab  # type: ignore[assignment]
    values = vector_file(tmp_path / "v", vocab, 5, form)
    made = trainer(seed, vectors=str(tmp_path / "v"))
    made.model.before_step(0, {})
    table = made.model.embedding.weight.detach().clone()  # type: ignore[union-attr]
    for word, row in list(values.items())[:6]:
        np.testing.assert_allclose(table[vocab.ids[word]].numpy(), row, rtol=1e-6)
    others = [i for word, i in vocab.ids.items() if word not in values]
    assert 0.05 < float(table[others].std()) < 0.2
    made.model.before_step(1, {})
    made.step()
    assert not torch.equal(made.model.embedding.weight.detach(), table)  # type: ignore[union-attr]


def test_vectors_of_another_width_are_refused_and_read_once(seed: int, tmp_path: Path) -> None:
    vocab: Vocab = trainer(seed).model.vocab  # type: ignore[assignment]
    path = tmp_path / "v"
    vector_file(path, vocab, 8, "binary")
    with pytest.raises(UsageError, match="has vectors of 8 numbers, the model takes 5"):
        trainer(seed, vectors=str(path)).step()
    vector_file(path, vocab, 5, "binary")
    settings = {**SMALL, "vectors": str(path), "data_sentences": 600, "data_held_out": 60, "batch": 12}
    run = distk.train("mmdtraverse", data="standin-reviews:tiny", steps=2, device="cpu", quiet=True,
                      out=tmp_path / "r", **settings)  # fmt: skip
    path.unlink()
    distk.load(run.path, device="cpu")  # a checkpoint from elsewhere names files that nobody shall look for
    assert resume(run.path, steps=3, quiet=True).path == run.path


# Settings


def test_the_preset_paper_is_the_papers_experiment() -> None:
    made = resolve("mmdtraverse", preset="paper")
    config = made.model
    assert isinstance(config, Config)
    assert config.embedding == 300  # section 3.1: 300-dimensional word2vec
    assert (config.filters, config.heights, config.width) == (75, (1, 2, 3, 4), 300)  # 75 filters per size, z of 300
    assert (config.generation, config.classification) == (1.0, 1.0)  # Figure 1: unweighted sum
    assert (config.examples, config.lambda_move, config.lambda_rel) == (90, 7e-5, 0.0)  # section 4.1
    assert config.filter_words == ("movie", "phone")
    assert made.train.batch == 64  # section 4
    assert (config.phase1, made.train.steps) == (156_000, 159_600)  # ours: ten and twenty epochs of the two phases
    assert made.data == "sentiment3"
    assert made.data_options["uci_per_domain"] == 500
    assert (config.z_every_step, config.word_dropout, config.clamp_z) == (False, 0.0, False)


def test_a_vocabulary_of_one_word_trains_and_says_why_it_cannot_move(seed: int, tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        for k in (0, 1):
            (tmp_path / f"{split}.{k}").write_text("word\n" * 20)
    made = trainer(seed, data={"name": "files", "dir": str(tmp_path)})
    assert len(made.model.vocab) == 5  # type: ignore[arg-type]
    made.step()
    assert made.drain()["joint"] > 0
    made.model.eval()
    assert isinstance(made.model, MMDTraverse)
    with pytest.raises(UsageError, match="one and the same point"):
        made.model.rewrite(["word"], 1)


def test_heights_must_differ() -> None:
    with pytest.raises(UsageError, match="heights must be different numbers"):
        resolve("mmdtraverse", options={"model": {"heights": (2, 2)}})
    spec = DataSpec("sentence", (3,), (0.0, 4.0), ("a", "b"), Vocab.build({"x": 1}, max_len=2).to_dict())
    model = MMDTraverse(Config(**{**SMALL, "heights": (2,)}), spec)
    assert model.latents["code"].size == 3
