"""Groups that no encoder gives, other priors, and what of a code is scored and walked."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from distk import Code, DataSpec, Latent, LatentSpace, Method, NoConfig, UsageError
from distk.traversal import known_of, strips_of, traverse

SPACE = LatentSpace.of(
    Latent("noise", "continuous", 3, encoded=False, walked=False),
    Latent("c", "continuous", 2, low=-1.0, high=1.0, prior="uniform"),
    Latent("style", "continuous", 2, scored=False),
    Latent("k", "categorical", 4),
)


class Generator(Method):
    """A linear generator of 2x3 pictures, whose codes except the noise can be read off by a transpose."""

    Config: ClassVar[type] = NoConfig
    latents = SPACE

    def __init__(self, config: Any, data: DataSpec) -> None:
        super().__init__(config, data)
        self.weight = nn.Parameter(torch.randn(11, 6, generator=torch.Generator().manual_seed(0)))

    def encode(self, x: Tensor) -> Code:
        flat = x.flatten(1) @ self.weight.T
        return {"c": flat[:, 3:5], "style": flat[:, 5:7], "k": flat[:, 7:].softmax(1)}

    def decode(self, code: Code) -> Tensor:
        code = self.filled(code)
        return (torch.cat([code[group.name] for group in self.latents], 1) @ self.weight).view(-1, 1, 2, 3)


@pytest.fixture
def model() -> Generator:
    return Generator(NoConfig(), DataSpec("image", (1, 2, 3)))


def test_only_what_is_encoded_and_scored_fills_the_table(model: Generator, generator: torch.Generator) -> None:
    code = model.encode(torch.randn(5, 1, 2, 3, generator=generator))
    SPACE.check(code, 5)
    with pytest.raises(ValueError, match="noise"):
        SPACE.check(code, 5, whole=True)
    assert SPACE.columns == ["c1", "c2", "k"]
    assert SPACE.column_kinds == ["continuous", "continuous", "categorical"]
    table = SPACE.flatten(code)
    assert table.shape == (5, 3)
    back = SPACE.unflatten(table)
    assert sorted(back) == ["c", "k"]
    assert torch.equal(back["c"], code["c"])
    assert torch.equal(back["k"].argmax(1), code["k"].argmax(1))
    assert back["k"].shape == (5, 4)
    with pytest.raises(ValueError, match="3 columns"):
        SPACE.unflatten(table[:, :2])


def test_a_table_of_steps_comes_back(generator: torch.Generator) -> None:
    space = LatentSpace.of(Latent("z", "continuous", 2, steps=3), Latent("d", "categorical", 5, steps=2))
    code = {
        "z": torch.randn(4, 3, 2, generator=generator),
        "d": torch.eye(5)[torch.randint(5, (4, 2), generator=generator)],
    }
    back = space.unflatten(space.flatten(code))
    assert all(torch.equal(back[name], code[name]) for name in code)


def test_each_group_is_drawn_from_its_prior(model: Generator, generator: torch.Generator) -> None:
    n = 20_000
    code = model.prior(n, generator)
    SPACE.check(code, n, whole=True)
    # Five standard errors of a mean and of a variance of n draws (uniform on -1..1: variance 1/3, of squares 4/45).
    assert abs(float(code["noise"].var()) - 1) < 5 * (2 / (3 * n)) ** 0.5
    assert float(code["c"].abs().max()) <= 1
    assert abs(float(code["c"].square().mean()) - 1 / 3) < 5 * (4 / 45 / (2 * n)) ** 0.5
    share = code["k"].mean(0)
    assert float((share - 0.25).abs().max()) < 5 * (0.25 * 0.75 / n) ** 0.5


def test_what_is_missing_is_the_same_draw_for_every_item(model: Generator, generator: torch.Generator) -> None:
    code = model.encode(torch.randn(5, 1, 2, 3, generator=generator))
    filled = model.filled(code, seed=3)
    assert torch.equal(filled["noise"], filled["noise"][:1].expand(5, -1))
    assert torch.equal(filled["noise"], model.filled(code, seed=3)["noise"])
    assert not torch.equal(filled["noise"], model.filled(code, seed=4)["noise"])
    assert all(filled[name] is code[name] for name in code)
    whole = model.prior(2, generator)
    assert model.filled(whole) is whole


@pytest.mark.parametrize("from_data", [True, False])
def test_a_walk_moves_what_is_walked_and_nothing_else(
    model: Generator, generator: torch.Generator, from_data: bool
) -> None:
    batch = {"x": torch.randn(1, 1, 2, 3, generator=generator)} if from_data else None
    made = traverse(model, batch, 5, seed=7)
    assert (made.input is None) != from_data
    assert sorted({row.label for row in made.rows}) == ["c1", "c2", "style1", "style2"]
    first = next(row for row in made.rows if row.label == "c1" and row.block == "k=0")
    steps = first.items.flatten(1).diff(dim=0)
    # A linear decoder moves along one row of its weight, by the prior's span over four steps.
    assert torch.allclose(steps, (0.5 * model.weight[3]).expand_as(steps), atol=1e-5)


def test_lines_are_straight_and_classes_change_halfway(generator: torch.Generator) -> None:
    a = {"c": torch.randn(3, 2, generator=generator), "k": torch.eye(4)[[0, 1, 2]]}
    b = {"c": torch.randn(3, 2, generator=generator), "k": torch.eye(4)[[3, 3, 3]]}
    between = SPACE.between(a, b, torch.tensor([0.0, 0.25, 1.0]))
    assert torch.equal(between["c"][:3], a["c"])
    assert torch.allclose(between["c"][3:6], 0.75 * a["c"] + 0.25 * b["c"])
    assert torch.equal(between["c"][6:], b["c"])
    assert between["k"].argmax(1).tolist() == [0, 1, 2, 0, 1, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"kind": "numeric"}, "kinds are continuous, ordinal, categorical"),
        ({"kind": "continuous", "prior": "categorical"}, "normal or uniform or none"),
        ({"kind": "categorical", "prior": "normal"}, "it can be categorical"),
    ],
)
def test_unknown_kinds_and_priors_are_refused(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Latent("z", size=3, **arguments)


def test_a_header_of_before_has_the_defaults() -> None:
    old = {"name": "z", "kind": "continuous", "size": 3, "steps": 0, "low": -2.0, "high": 2.0}
    (group,) = LatentSpace.from_list([old])
    assert group == Latent("z", "continuous", 3)
    assert (group.prior, group.encoded, group.scored, group.walked) == ("normal", True, True, True)
    assert LatentSpace.from_list(SPACE.to_list()) == SPACE


class Quantised(Method):
    """An ordinal group whose three dimensions have values of their own, and one that has no prior."""

    Config: ClassVar[type] = NoConfig
    latents = LatentSpace.of(Latent("q", "ordinal", 3), Latent("free", "continuous", 2, prior="none"))
    book = torch.tensor([[0.0, 1, 5, 6], [10, 20, 30, 40], [-1, -2, -3, -4]])

    def __init__(self, config: Any, data: DataSpec) -> None:
        super().__init__(config, data)
        self.weight = nn.Parameter(torch.eye(6))

    def walk(self, group: Latent, columns: int) -> Tensor | None:
        return self.book.sort(1).values if group.name == "q" else None

    def encode(self, x: Tensor) -> Code:
        flat = x.flatten(1) @ self.weight
        return {"q": flat[:, :3], "free": flat[:, 3:5]}

    def decode(self, code: Code) -> Tensor:
        flat = torch.cat([code["q"], code["free"], torch.zeros(len(code["q"]), 1)], 1)
        return (flat @ self.weight.T).view(-1, 1, 2, 3)


class Items:
    """A thousand items whose fourth and fifth entries lie where the walk of `free` has to go."""

    name, origin, device = "items", "made here", torch.device("cpu")
    spec = DataSpec("image", (1, 2, 3))

    def __init__(self, generator: torch.Generator) -> None:
        self.x = torch.rand(1000, 1, 2, 3, generator=generator) * torch.tensor([1.0, 1, 1, 10, 100, 1]).view(1, 1, 2, 3)

    def rows_of(self, split: str) -> Tensor:
        return torch.arange(1000)

    def rows(self, split: str) -> None:
        return None

    def __len__(self) -> int:
        return 1000

    def items(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": self.x[rows]}


def test_ordinal_groups_take_their_own_values_and_free_ones_the_data_s(generator: torch.Generator) -> None:
    model, data = Quantised(NoConfig(), DataSpec("image", (1, 2, 3))), Items(generator)
    assert model.latents.column_kinds[:3] == ["ordinal"] * 3
    known = known_of(model, data)
    assert known.kl == {}
    batch = data.items(torch.tensor([0]))
    made = traverse(model, batch, 7, known=known, seed=1)
    by_name = {row.label: row for row in made.rows}
    assert [row.label for row in made.rows][:2] == ["free2", "free1"], "what varies most comes first"
    for k in range(3):
        row = by_name[f"q{k + 1}"]
        assert row.values == sorted(model.book[k].tolist())
        assert torch.equal(row.items[:4].flatten(1)[:, k], torch.tensor(row.values))
        assert row.items.shape[0] == 7
        assert not row.items[4:].any(), "nothing behind the last value"
    for k, scale in ((1, 10), (2, 100)):
        low, high = by_name[f"free{k}"].values[0], by_name[f"free{k}"].values[-1]
        # The 5 % and 95 % quantiles of 1000 uniform numbers: within 4 standard errors, 4 sqrt(.05 .95 / 1000).
        assert low / scale == pytest.approx(0.05, abs=0.028)
        assert high / scale == pytest.approx(0.95, abs=0.028)
    strips = strips_of(model, model.encode(data.x[:2]), "q2", 9)
    assert strips.shape[:2] == (2, 4)
    assert strips[0].flatten(1)[:, 1].tolist() == [10, 20, 30, 40]


def test_levels_are_drawn_of_each_dimension_alone_and_nothing_without_a_prior(generator: torch.Generator) -> None:
    model = Quantised(NoConfig(), DataSpec("image", (1, 2, 3)))
    drawn = model._from_prior(model.latents["q"], 4000, generator)
    for k in range(3):
        values, counts = drawn[:, k].unique(return_counts=True)
        assert values.tolist() == sorted(model.book[k].tolist())
        assert stats.chisquare(counts.numpy()).pvalue > 1e-6
    assert not model.drawable
    with pytest.raises(UsageError, match="'free' has no prior"):
        model.prior(2, generator)
    filled = model.filled({"free": torch.zeros(5, 2)}, seed=2)
    assert filled["q"].shape == (5, 3)
    assert torch.equal(filled["q"], filled["q"][:1].expand(5, 3)), "what has a prior is drawn, what has none was given"
