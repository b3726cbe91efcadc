"""Relaxed choices: their distribution, their gradient, and a decoder that reads its own words."""

from __future__ import annotations

import torch

from distk.nn import relaxed_decode, relaxed_one_hot


def test_the_largest_weight_is_a_categorical_sample(generator) -> None:
    p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    n = 100_000
    uniform = torch.rand(n, 4, generator=generator, dtype=torch.float64)
    rows = relaxed_one_hot(p.log(), 0.7, uniform)
    torch.testing.assert_close(rows.sum(1), torch.ones(n, dtype=torch.float64))
    share = torch.bincount(rows.argmax(1), minlength=4) / n
    assert bool(((share - p).abs() < 6 * (p * (1 - p) / n).sqrt()).all())


def test_without_noise_it_is_the_tempered_softmax(generator) -> None:
    logits = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64)
    expected = (logits / 0.5).exp() / (logits / 0.5).exp().sum(-1, keepdim=True)
    torch.testing.assert_close(relaxed_one_hot(logits, 0.5), expected)


def test_noise_at_its_ends_is_finite() -> None:
    edge = torch.tensor([[0.0, 1 - 2**-24, 0.5]])
    assert bool(relaxed_one_hot(torch.zeros(1, 3), 0.1, edge).isfinite().all())


def test_straight_through_is_one_hot_forward_and_soft_backward(generator) -> None:
    logits = torch.randn(4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    uniform = torch.rand(4, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    soft, hard = (relaxed_one_hot(logits, 0.8, uniform, hard=flag) for flag in (False, True))
    assert torch.equal(hard, torch.nn.functional.one_hot(soft.argmax(1), 6).double())
    through_soft, through_hard = (torch.autograd.grad((rows * weight).sum(), logits)[0] for rows in (soft, hard))
    torch.testing.assert_close(through_hard, through_soft, rtol=1e-14, atol=0)
    assert float(through_hard.abs().max()) > 0


class Cell(torch.nn.Module):
    """A decoder without gates: the state is a vector that takes in each embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = torch.nn.Linear(3 + 4, 4).double(), torch.nn.Linear(4, 5).double()

    def forward(self, word: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state = self.inner(torch.cat([word, state], 1)).tanh()
        return self.out(state), state


def test_a_hard_decoder_is_greedy_search(generator) -> None:
    cell, table = Cell(), torch.randn(5, 3, generator=generator, dtype=torch.float64)
    state, first = torch.randn(2, 4, generator=generator).double(), table[torch.tensor([0, 0])]
    rows, states = relaxed_decode(cell, state, first, table, 6, temperature=0.5, hard=True)
    assert rows.shape == (2, 6, 5)
    word = first
    for t in range(6):
        logits, state = cell(word, state)
        torch.testing.assert_close(states[t], state)
        assert torch.equal(rows[:, t].argmax(1), logits.argmax(1))
        word = table[logits.argmax(1)]


def test_each_word_has_its_own_noise_and_the_gradient_goes_through_all_words(generator) -> None:
    cell, table = Cell(), torch.randn(5, 3, generator=generator, dtype=torch.float64)
    uniform = torch.rand(2, 4, 5, generator=generator, dtype=torch.float64)
    first = table[torch.tensor([1, 2])]

    def last(state: torch.Tensor) -> torch.Tensor:
        rows, _ = relaxed_decode(cell, state, first, table, 4, temperature=0.5, uniform=uniform)
        return rows[:, -1]

    start = torch.randn(2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(last, (start,))
    rows, _ = relaxed_decode(cell, start, first, table, 4, temperature=0.5, uniform=uniform)
    logits, state = cell(first, start)
    second = relaxed_one_hot(cell(relaxed_one_hot(logits, 0.5, uniform[:, 0]) @ table, state)[0], 0.5, uniform[:, 1])
    torch.testing.assert_close(rows[:, 1], second)
