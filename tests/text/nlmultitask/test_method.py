"""nlmultitask: the nets against loops of cells, the loss against a sum by hand, what each loss may teach."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from distk import DataSpec, DistkError, UsageError
from distk.data import open_dataset
from distk.device import Ranks
from distk.method import Step
from distk.plugins.text.common.vocab import BOS, EOS, PAD, UNK, Vocab
from distk.plugins.text.nlmultitask.method import Config, NlMultitask
from distk.settings import resolve
from distk.source import Source
from distk.training.loop import build
from distk.training.trainer import Trainer

SMALL = {"decoders": "rep,de,fr,pos", "rep": 6, "hidden": 7, "embedding": 5}
DATA = {"name": "standin-trilingual", "variant": "short", "sentences": 300}


def trainer(seed: int, **model: Any) -> Trainer:
    train = {"batch": 9, "seed": seed % 1000, "device": "cpu", "steps": 10}
    sections = {"model": {**SMALL, **model}, "data": DATA, "train": train}
    return build(resolve("nlmultitask", options=sections), torch.device("cpu"), Ranks())


def exact(seed: int, **model: Any) -> tuple[NlMultitask, Step]:
    """A model in float64 and a step with a batch."""
    made = trainer(seed, **model)
    step = Step(index=made.counter, schedule={}, phase=None, generator=made.generator, log=made.ledger.note)
    step.batch = made.model.collect(Source(made.dataset, 9, made.generator))
    found = made.model.double()
    assert isinstance(found, NlMultitask)
    return found, step


def packed(model: NlMultitask, x: Tensor) -> tuple[Tensor, Tensor]:
    """torch's own last states, hidden and cell `[n, H]`, of sentences that are not empty, `<eos>` not read."""
    size = (x != PAD).sum(1) - 1
    read = pack_padded_sequence(model.encoder.symbols(x), size.cpu(), batch_first=True, enforce_sorted=False)
    h, c = model.encoder.lstm(read)[1]
    return h[0], c[0]


def by_cells(lstm: nn.LSTM, rows: Tensor, state: tuple[Tensor, Tensor]) -> Tensor:
    """Hidden states `[T, H]` of one sentence's inputs `[T, E]`, gate by gate."""
    h, c = state
    found = []
    for row in rows:
        gates = lstm.weight_ih_l0 @ row + lstm.bias_ih_l0 + lstm.weight_hh_l0 @ h + lstm.bias_hh_l0
        i, f, g, o = gates.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        found.append(h)
    return torch.stack(found)


# Networks


def test_the_representation_is_the_state_at_the_last_character(seed: int) -> None:
    model, step = exact(seed)
    x = step.batch["x"]
    code = model.encode(x)["code"]
    zero = torch.zeros(7).double()
    for i, row in enumerate(x):
        ids = row[: int((row != PAD).sum()) - 1]
        last = by_cells(model.encoder.lstm, model.encoder.symbols(ids), (zero, zero))[-1]
        expected = torch.tanh(model.representation.weight @ last + model.representation.bias)
        assert torch.allclose(code[i], expected, atol=1e-12)
    assert torch.allclose(model.encoder(x), packed(model, x)[0], atol=1e-12)


def test_the_state_with_its_cell(seed: int) -> None:
    model, step = exact(seed, state="hc")
    x = step.batch["x"]
    assert model.representation.weight.shape == (6, 14)
    assert torch.allclose(model.encoder(x), torch.cat(packed(model, x), 1), atol=1e-12)
    assert torch.allclose(model.encoder(nn.functional.pad(x, (0, 7))), model.encoder(x), atol=1e-12)
    for width in (1, model.vocab.max_len + 1):
        assert torch.equal(model.encoder(model.read([""])[:, :width]), torch.zeros(1, 14).double())
    own = model.encoder.lstm.weight_hh_l0
    (gradient,) = torch.autograd.grad(model.encoder(x).square().sum(), own)
    (expected,) = torch.autograd.grad(sum(part.square().sum() for part in packed(model, x)), own)
    assert torch.allclose(gradient, expected, atol=1e-10)


def test_padding_and_neighbours_change_nothing_and_an_empty_sentence_has_the_first_state(seed: int) -> None:
    model, step = exact(seed)
    x = step.batch["x"]
    code = model.represent(x)
    assert torch.allclose(model.represent(nn.functional.pad(x, (0, 7))), code, atol=1e-12)
    assert torch.allclose(model.represent(x.flip(0)).flip(0), code, atol=1e-12)
    empty = model.read([""])
    assert empty[0].tolist() == [EOS] + [PAD] * model.vocab.max_len
    for width in (1, 2, empty.shape[1]):
        assert torch.equal(model.encoder(empty[:, :width]), torch.zeros(1, 7).double())
    assert torch.allclose(model.codes([""])[0], model.representation.bias.tanh(), atol=1e-12)


def test_a_decoder_begins_from_the_code_and_reads_the_true_symbols(seed: int) -> None:
    model, step = exact(seed)
    code = model.represent(step.batch["x"])
    for name in ("rep", "de", "fr", "pos"):
        decoder, target = model.decoders[name], model.target(step.batch, name)
        logits = decoder(target, code)
        assert logits.shape == (*target.shape, len(model.alphabets[name]))
        for i in (0, 5):
            read = decoder.symbols(torch.cat([torch.tensor([BOS]), target[i, :-1]]))
            h = decoder.hidden.weight @ code[i] + decoder.hidden.bias
            c = decoder.cell.weight @ code[i] + decoder.cell.bias
            expected = decoder.output(by_cells(decoder.lstm, read, (h, c)))
            assert torch.allclose(logits[i], expected, atol=1e-12)


def test_one_hot_symbols_and_a_representation_without_tanh(seed: int) -> None:
    model, step = exact(seed, one_hot=True, rep_act="none")
    x = step.batch["x"]
    rows = model.encoder.symbols(x)
    assert rows.shape == (*x.shape, len(model.vocab))
    assert torch.equal(rows.argmax(2), x)
    assert torch.equal(rows.sum(2), torch.ones_like(rows[..., 0]))
    model = model.float()
    assert torch.allclose(model.represent(x), model.representation(model.encoder(x)))
    assert model.latents["code"].prior == "normal"


def test_what_is_written_is_the_most_probable_symbol_each_time(seed: int) -> None:
    model, step = exact(seed)
    code = model.represent(step.batch["x"])
    for name in ("rep", "pos"):
        with torch.no_grad():  # larger weights, so that something is said
            model.decoders[name].output.weight.mul_(8)
        ids = model.write(code, name)
        width = model.alphabets[name].max_len + 1
        assert ids.shape == (9, width)
        logits = model.decoders[name](ids, code)
        logits[..., [PAD, BOS]] = -math.inf
        best = logits.argmax(2)
        for i in range(9):
            size = int((ids[i] != PAD).sum())
            end = size - 1 if size < width or ids[i, -1] == EOS else size
            assert torch.equal(best[i, :end], ids[i, :end])
            if size < width:
                assert ids[i, size - 1] == EOS == best[i, size - 1]
    assert torch.equal(model.decode(model.encode(step.batch["x"])), model.write(code, "rep"))


# The loss


def naive(model: NlMultitask, name: str, target: Tensor, code: Tensor) -> tuple[float, int]:
    """Sum of -log p over the symbols of a batch, and how many there are, one by one."""
    total, count = 0.0, 0
    probabilities = model.decoders[name](target, code).double().softmax(2)
    for i in range(len(target)):
        for t in range(target.shape[1]):
            if int(target[i, t]) == PAD:
                break
            total -= math.log(float(probabilities[i, t, target[i, t]].detach()))
            count += 1
    return total, count


def test_the_loss_is_the_sum_of_means_over_symbols(seed: int) -> None:
    model, step = exact(seed)
    kept: dict[str, float] = {}
    step.log = lambda name, value: kept.__setitem__(name, float(value.detach()))  # type: ignore[method-assign]
    step.batch["fr"][3] = PAD  # a sentence without French
    code = model.represent(step.batch["x"])
    total = 0.0
    for name in ("rep", "de", "fr", "pos"):
        value, count = naive(model, name, model.target(step.batch, name), code)
        assert count == int((model.target(step.batch, name) != PAD).sum())
        total += value / count
    loss = model.loss(step)
    assert float(loss) == pytest.approx(total, rel=1e-9)
    assert set(kept) == {"rep", "de", "fr", "pos"}
    assert sum(kept.values()) == pytest.approx(total, rel=1e-9)
    assert torch.equal(step.taps["code"], code)


def test_the_loss_teaches_the_whole_model(seed: int) -> None:
    model, step = exact(seed)
    code = model.represent(step.batch["x"])
    parts = [model.nll(name, model.target(step.batch, name), code) for name in model.config.decoders]
    expected = torch.autograd.grad(torch.stack([loss / count for loss, count in parts]).sum(), list(model.parameters()))
    model.loss(step).backward()
    for (name, p), gradient in zip(model.named_parameters(), expected, strict=True):
        assert p.grad is not None, name
        assert torch.allclose(p.grad, gradient, atol=1e-12), name
        assert bool(p.grad.any()), name


def test_a_batch_without_a_translation_costs_nothing(seed: int) -> None:
    model, step = exact(seed)
    whole = float(model.loss(step))
    code = model.represent(step.batch["x"])
    own, count = model.nll("de", step.batch["de"], code)
    step.batch["de"] = torch.zeros_like(step.batch["de"])
    assert float(model.loss(step)) == pytest.approx(whole - float(own / count), rel=1e-9)


def test_uniform_logits_cost_the_logarithm_of_the_alphabet(seed: int) -> None:
    model, step = exact(seed)
    code = model.represent(step.batch["x"])
    for name, alphabet in model.alphabets.items():
        with torch.no_grad():
            model.decoders[name].output.weight.zero_()
            model.decoders[name].output.bias.fill_(random.random())
        total, count = model.nll(name, model.target(step.batch, name), code)
        assert math.exp(float(total / count)) == pytest.approx(len(alphabet), rel=1e-9)


def test_each_task_teaches_the_encoder_and_its_own_decoder(seed: int) -> None:
    model, step = exact(seed)
    for name in model.config.decoders:
        model.zero_grad(set_to_none=True)
        total, _ = model.nll(name, model.target(step.batch, name), model.represent(step.batch["x"]))
        total.backward()
        taught = {n.split(".")[0 if not n.startswith("decoders") else 1] for n, p in model.named_parameters()
                  if p.grad is not None and bool(p.grad.any())}  # fmt: skip
        assert taught == {"encoder", "representation", name}
        start = [model.decoders[name].hidden.weight, model.decoders[name].cell.weight]
        assert all(p.grad is not None and bool(p.grad.any()) for p in start)


def test_shuffled_targets_are_those_of_other_sentences(seed: int) -> None:
    model, step = exact(seed, shuffled="pos")
    code = model.represent(step.batch["x"])
    other = torch.cat([step.batch["pos"][-1:], step.batch["pos"][:-1]])
    total = 0.0
    for name in ("rep", "de", "fr", "pos"):
        value, count = naive(model, name, other if name == "pos" else model.target(step.batch, name), code)
        total += value / count
    assert float(model.loss(step)) == pytest.approx(total, rel=1e-9)


def test_blind_decoders_know_nothing_of_the_sentence(seed: int) -> None:
    model, step = exact(seed, blind=True)
    model.loss(step).backward()
    assert not any(bool(p.grad.any()) for p in model.encoder.parameters() if p.grad is not None)
    code = torch.randn(2, 6).double()
    first, second = model.lines(code)
    assert first == second


def test_the_rate_falls_along_half_a_cosine(seed: int) -> None:
    model, _ = exact(seed, lr=3e-3, lr_last=1e-3)
    model.run_steps = 100
    rates = [model.schedule(s)["lr"] for s in (0, 25, 50, 100, 140)]
    assert rates == pytest.approx([3e-3, 2e-3 + 1e-3 * math.cos(math.pi / 4), 2e-3, 1e-3, 1e-3])
    model.run_steps = 0
    assert model.schedule(7)["lr"] == pytest.approx(3e-3)


# What is asked for, and what the data have


def test_decoders_are_checked() -> None:
    for wrong, message in (
        ({"decoders": ("rep", "it")}, "no decoder 'it'"),
        ({"decoders": ("de",)}, "must name rep"),
        ({"decoders": ("rep", "rep")}, "each one once"),
        ({"decoders": ("rep",), "shuffled": ("pos",)}, "'pos', which decoders does not"),
    ):
        with pytest.raises(ValueError, match=message):
            Config(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no decoder 'it'"):
        resolve("nlmultitask", options={"model": {"decoders": "rep,it"}})


def spec(**columns: Any) -> DataSpec:
    vocab = Vocab.build({"a": 3, "b": 2}, unit="char", max_len=4)
    return DataSpec("sentence", (5,), (0.0, 5.0), (), vocab.to_dict() | ({"columns": columns} if columns else {}))


def test_data_without_what_a_decoder_writes_are_refused() -> None:
    german = Vocab.build({"ä": 1}, unit="char", max_len=3).to_dict()
    made = NlMultitask(Config(("rep", "de"), rep=2, hidden=3, embedding=2), spec(de=german))
    assert len(made.alphabets["de"]) == 5
    with pytest.raises(UsageError, match="'fr' needs a column 'fr', and the data has only de"):
        NlMultitask(Config(("rep", "fr")), spec(de=german))
    with pytest.raises(UsageError, match=r"needs tags, and the data has English alone: .*train.pos.*--tagger auto"):
        NlMultitask(Config(("rep", "pos")), spec())
    with pytest.raises(UsageError, match="'de' needs a column"):  # of classes, not of sentences
        NlMultitask(Config(("rep", "de")), spec(de={"classes": ["a"]}))
    with pytest.raises(DistkError, match="vocabulary"):
        NlMultitask(Config(("rep", "de")), spec(de={**german, "vocab": ["x"]}))
    with pytest.raises(ValueError, match="do not fit"):
        NlMultitask(Config(("rep",)), replace(spec(), shape=(9,)))


def test_sentences_are_read_and_what_is_unknown_is_told(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = exact(seed)
    x = model.read(["The dog", "☃ dog", "d" * 500])
    assert x.shape == (3, model.vocab.max_len + 1)
    assert x[1, 0] == UNK
    assert x[2, -1] == EOS
    told = " ".join(capsys.readouterr().err.split())
    assert f"cut after {model.vocab.max_len} characters: 1 longer sentence" in told
    assert "unknown" not in told  # one of many
    model.read(["☃☃☃ dog"])
    assert "3 of 7 characters are unknown to the model (43%)" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UsageError, match="no decoder 'it'; it has rep, de, fr and pos"):
        model.lines(model.codes(["The dog"]), "it")


def test_the_presets() -> None:
    """Brunner et al. 2018: section 3.4 (512 units, 1024 or 256), Table 1 (which decoders), section 3.3 (Europarl)."""
    table = {
        "REP-1024": (("rep",), 1024),
        "REP-DE-1024": (("rep", "de"), 1024),
        "REP-DE-FR-1024": (("rep", "de", "fr"), 1024),
        "REP-DE-256": (("rep", "de"), 256),
        "REP-DE-POS-256": (("rep", "de", "pos"), 256),
        "paper": (("rep", "de", "pos"), 256),
    }
    for name, (decoders, size) in table.items():
        found = resolve("nlmultitask", preset=name)
        assert (found.model.decoders, found.model.rep, found.model.hidden) == (decoders, size, 512)
        assert found.data == "europarl"
        assert (found.data_options["tagger"] != "none") == ("pos" in decoders)
        assert found.train.steps == pytest.approx(10 * 1_500_000 / found.train.batch, rel=0.01)
    model = NlMultitask(resolve("nlmultitask").model, open_dataset("standin-trilingual", {"sentences": 200}).spec)
    assert [p.shape[0] for n, p in model.named_parameters() if n.endswith("weight_ih_l0")] == [4 * 512] * 4
    assert model.representation.weight.shape == (256, 512)
