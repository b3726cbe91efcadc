"""The metrics `verification` and `leakage`: do made pictures of one identity show one identity, and do they differ?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distk import CodeTable, Dataset, DataSpec, Metric, UsageError, option, seeded
from distk.console import counted, progress
from distk.device import initialised
from distk.latents import Code
from distk.meaning import higher, lower, neither
from distk.method import Method, can, eval_mode
from distk.nn import down, fit_classifier
from distk.plugins.gan_family.sdgan import scores
from distk.plugins.gan_family.sdgan.tuples import Identities, identities
from distk.plugins.gan_family.sdgan.verifier import COMMAND, Embed, embedded, load_verifier, train_verifier, unit

BATCH = 500
LEARNT = 0.2
"""Share of a trait's variance that a regressor must explain on real test images before its word counts."""


@dataclass(frozen=True)
class Config:
    """How many pairs, and who judges them."""

    verifier: str = option(
        "",
        f"file of a verifier ({COMMAND}), or checkpoint of an encoder; empty: one is trained on training identities",
        place=True,
    )
    verifier_steps: int = option(600, "steps of that training, 64 images each", min=1, max=1_000_000)
    verifier_width: int = option(32, "channels of its first layer", min=1, max=512)
    pairs: int = option(10_000, "pairs, half of them matched", paper="10,000", min=4, max=1 << 22)
    group: str = option("identity", "the group of the code that is the identity")
    held: int | None = option(
        None, "of a code without that group, so many first dimensions stand for it; default: half", min=1
    )


class Side(NamedTuple):
    """Distances float64 of matched and unmatched pairs, `[n]` each, and how alike their images are."""

    matched: Tensor
    unmatched: Tensor
    alike: Tensor
    alike_unmatched: Tensor


class Verification(Metric[Config]):
    """A verifier's word on pairs of made images, beside its word on real test images (Donahue et al. 2017, Table 1).

    A pair matches where the squared distance of its unit vectors is at most tau, the threshold that is right most often
    on real pairs of the validation identities (`threshold`); tau is the same for all rows. Matched made pairs share the
    identity's code and nothing else, unmatched ones nothing.
    auc, accuracy, far: area under the curve, share of pairs called rightly, share of unmatched pairs called matched.
    id_diversity: 1 - mean MS-SSIM of matched pairs: 0 where the observation's code does nothing, which auc and accuracy
    would reward. all_diversity: the same of all pairs. With `_real`: of real test images. auc_distance_to_real,
    accuracy_distance_to_real: by how much the two differ. Arrays `auc_interval` etc.: 95 % bootstrap over pairs.
    """

    headline = "auc"
    numbers = {
        "auc": higher(0, 1, chance=0.5, source="Donahue et al. 2017, Table 1", form="with our verifier"),
        "accuracy": higher(0, 1, chance=0.5, source="Donahue et al. 2017, Table 1", form="with our verifier"),
        "far": lower(0, 1, source="Donahue et al. 2017, Table 1", what="unmatched pairs called matched"),
        "id_diversity": higher(None, 1, source="Donahue et al. 2017, Table 1", what="1 - MS-SSIM of matched pairs"),
        "all_diversity": higher(None, 1, source="Donahue et al. 2017, Table 1", what="1 - MS-SSIM of all pairs"),
        "*_distance_to_real": lower(0, 1),
        "*_real": neither(None, 1, what="of real test images"),
        "threshold": neither(0, what="squared distance below which a pair matches"),
    }
    needs_model = True
    needs_codes = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for a model that makes no images from codes, and for data without labels."""
        config: Config = self.config
        model, dataset = table.model, table.dataset
        if model is None or dataset is None or not can(model, "decode") or dataset.spec.kind != "image":
            raise UsageError("metric 'verification' scores models that make images from codes.")
        splitter(model, config.group, config.held)  # what it cannot do is told before anything is trained
        valid, test = held_out(dataset)
        embed: Embed
        if config.verifier:
            embed = load_verifier(Path(config.verifier), tuple(dataset.spec.shape), dataset.device)
        else:
            embed = default_verifier(dataset, config.verifier_steps, config.verifier_width)
        half, draw = config.pairs // 2, seeded(seed, dataset.device)
        known = real_side(dataset, valid, half, embed, draw)
        tau = scores.threshold(known.matched, known.unmatched)
        with eval_mode(model):
            made = made_side(model, half, embed, draw, config.group, config.held)
        result = {
            "threshold": tau,
            **told(made, tau, seed),
            **told(real_side(dataset, test, half, embed, draw), tau, seed, "_real"),
        }
        for name in ("auc", "accuracy"):
            result[f"{name}_distance_to_real"] = abs(result[name] - result[f"{name}_real"])
        return result


def told(side: Side, tau: float, seed: int, suffix: str = "") -> dict[str, Any]:
    """The numbers of one row of the table, with their intervals."""
    matched, unmatched = side.matched, side.unmatched
    spans = scores.intervals(matched, unmatched, tau, seed)
    return {
        f"auc{suffix}": scores.area(matched, unmatched),
        f"accuracy{suffix}": scores.accuracy(matched, unmatched, tau),
        f"far{suffix}": scores.false_accepts(unmatched, tau),
        f"id_diversity{suffix}": 1 - float(side.alike.mean()),
        f"all_diversity{suffix}": 1 - float(torch.cat([side.alike, side.alike_unmatched]).mean()),
        **{f"{name}_interval{suffix}": span.numpy() for name, span in spans.items()},
    }


# Pairs


def held_out(dataset: Dataset) -> tuple[Identities, Identities]:
    """Identities for the threshold and for the test: those of `valid` and `test`, or halves of those of `test`.

    Raises UsageError where training and test share identities: a verifier would have seen those that it judges.
    """
    known, test = identities(dataset, "train", 1), identities(dataset, "test")
    if bool(torch.isin(test.label, known.label).any()):
        raise UsageError(
            f"the splits of data set '{dataset.name}' share identities, so a verifier would know those that it judges: "
            "use data split by identity, such as identity-folder, idfaces, reid or puppets."
        )
    if "valid" in dataset.splits:
        valid = identities(dataset, "valid")
    else:
        order = torch.arange(len(test), device=test.label.device)
        valid, test = test.subset(order[::2]), test.subset(order[1::2])
    for name, part in (("validation", valid), ("test", test)):
        if len(part) < 2:
            raise UsageError(
                f"data set '{dataset.name}' has {len(part)} {name} identity, so there are no unmatched pairs to tell "
                "apart: keep back more identities."
            )
    return valid, test


def real_side(dataset: Dataset, known: Identities, n: int, embed: Embed, draw: torch.Generator) -> Side:
    """n matched and n unmatched real pairs."""
    parts: list[list[Tensor]] = [[], []]
    for kind, rows in enumerate((known.tuples(n, 2, draw), known.strangers(n, draw))):
        for part in rows.split(BATCH):
            parts[kind].append(unit(dataset, dataset.batch(part.flatten())["x"]).unflatten(0, (-1, 2)))
    return _side(parts, embed, "real pairs")


def made_side(
    model: Method, n: int, embed: Embed, draw: torch.Generator, group: str = "identity", held: int | None = None
) -> Side:
    """n matched and n unmatched made pairs: matched ones share `group`, or the first `held` dimensions of the code."""
    share, parts = splitter(model, group, held), ([], [])  # type: tuple[Any, tuple[list[Tensor], list[Tensor]]]
    low, high = model.spec.range
    with torch.no_grad():
        for kind in (0, 1):
            for start in range(0, n, BATCH):
                size = min(BATCH, n - start)
                first, second = model.prior(size, draw), model.prior(size, draw)
                pair = [first, share(first, second) if kind == 0 else second]
                x = torch.stack([(model.decode(code) - low) / (high - low) for code in pair], 1)
                parts[kind].append((x * 255).round().clamp(0, 255) / 255)
    return _side(parts, embed, "made pairs")


def splitter(model: Method, group: str, held: int | None) -> Any:
    """A function (code a, code b) -> b with the identity of a.

    Raises UsageError for a code of several groups none of which is called `group`, and for more dimensions than it has.
    """
    groups = list(model.latents)
    if group in [g.name for g in groups]:
        return lambda a, b: {**b, group: a[group]}
    only = groups[0]
    if len(groups) != 1 or only.kind != "continuous" or only.steps:
        raise UsageError(
            f"the code has the groups {', '.join(g.name for g in groups)}, none of them '{group}': name the one that "
            "is the identity (--set group=NAME)."
        )
    keep = held or only.size // 2
    if not 0 < keep < only.size:
        raise UsageError(f"held={keep}: the code has {counted(only.size, 'dimension')}, of which some must stay free.")

    def share(a: Code, b: Code) -> Code:
        return {only.name: torch.cat([a[only.name][:, :keep], b[only.name][:, keep:]], 1)}

    return share


def _side(parts: Any, embed: Embed, what: str) -> Side:
    distances: list[list[Tensor]] = [[], []]
    alike: list[list[Tensor]] = [[], []]
    with progress(what, sum(len(x) for kind in parts for x in kind)) as advance, torch.no_grad():
        for kind in (0, 1):
            for x in parts[kind]:
                vectors = embedded(embed, x.flatten(0, 1)).unflatten(0, (-1, 2))
                distances[kind].append((vectors[:, 0] - vectors[:, 1]).square().sum(1))
                alike[kind].append(scores.ms_ssim(x[:, 0], x[:, 1]))
                advance(len(x))
    return Side(*(torch.cat(values).cpu() for values in (*distances, *alike)))


_trained: dict[tuple[Any, ...], Any] = {}
"""What was trained in this process: verifiers and regressors, by the data that they know."""


def _key(what: str, dataset: Dataset, *settings: int) -> tuple[Any, ...]:
    return (what, dataset.name, dataset.origin, str(dataset.config), dataset.device, *settings)


def default_verifier(dataset: Dataset, steps: int, width: int) -> nn.Module:
    """A verifier of the data's training identities, trained from seed 0 once per process and data set."""
    key = _key("verifier", dataset, steps, width)
    if key not in _trained:
        _trained[key] = train_verifier(dataset, steps, width=width)
    verifier: nn.Module = _trained[key]
    return verifier


# Leakage


@dataclass(frozen=True)
class LeakageConfig:
    """How large the grids are, and who reads the traits."""

    identities: int = option(64, "identity codes", min=2, max=1024)
    observations: int = option(64, "observation codes", min=2, max=1024)
    regressor_steps: int = option(1500, "steps of 64 images that the regressor is trained for", min=1)
    regressor_width: int = option(32, "channels of its first layer", min=1, max=512)


class Leakage(Metric[LeakageConfig]):
    """Which code the traits of made images follow, as a regressor reads them that was trained on real images.

    Made images form a table, a row per identity code and a column per observation code. identity_by_identity: share of
    the variance of a trait of identity that lies between rows, mean over those traits; the other three alike. Traits of
    which the regressor explains less than a fifth on real test images are left out (`reasons`). `r2` and `shares`: of
    every trait, arrays; a code that does nothing has a share of about 1 / columns or 1 / rows.
    """

    headline = "identity_by_identity"
    numbers = {
        "identity_by_identity": higher(0, 1, what="share of variance of traits of identity between identity codes"),
        "identity_by_observation": lower(0, 1),
        "observation_by_identity": lower(0, 1),
        "observation_by_observation": higher(0, 1),
    }
    needs_model = True
    needs_codes = False

    def compute(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        """Raises UsageError for a code without identity and observation, and for data whose traits are not known."""
        config: LeakageConfig = self.config
        model, dataset = table.model, table.dataset  # type: Method | None, Any
        names = [group.name for group in model.latents] if model is not None else []
        if model is None or names != ["identity", "observation"] or not can(model, "decode"):
            raise UsageError("metric 'leakage' scores models whose code is an identity and an observation.")
        if dataset is None or not hasattr(dataset, "traits"):
            raise UsageError("metric 'leakage' needs data that tell the traits behind their images: use idfaces.")
        net, r2 = regressor(dataset, config.regressor_steps, config.regressor_width)
        draw = seeded(seed, dataset.device)
        identity = model.prior(config.identities, draw)["identity"]
        observation = model.prior(config.observations, draw)["observation"]
        values = []
        with torch.no_grad(), eval_mode(model):
            for row in identity:
                code = {"identity": row.expand(config.observations, -1), "observation": observation}
                values.append(torch.cat([net(unit(dataset, x)) for x in model.decode(code).split(BATCH)]))
        by_row, by_column = scores.explained(torch.stack(values))
        traits = [*dataset.identity_names, *dataset.observation_names]
        own = torch.arange(len(traits)) < len(dataset.identity_names)
        seen = r2 >= LEARNT
        reasons = {}
        if not bool(seen.all()):
            unread = [name for name, read in zip(traits, seen.tolist(), strict=True) if not read]
            reasons["traits"] = f"left out, since a regressor cannot read them: {', '.join(unread)}"
        result: dict[str, Any] = {}
        for kind, mask in (("identity", own & seen), ("observation", ~own & seen)):
            for by, share in (("identity", by_row.cpu()), ("observation", by_column.cpu())):
                result[f"{kind}_by_{by}"] = float(share[mask].mean()) if bool(mask.any()) else float("nan")
                if not bool(mask.any()):
                    reasons[f"{kind}_by_{by}"] = f"the regressor reads no trait of {kind}: give it more regressor-steps"
        shares = torch.stack([by_row, by_column], 1).cpu().numpy()
        return {
            **result,
            "traits": traits,
            "r2": r2.numpy(),
            "shares": shares,
            **({"reasons": reasons} if reasons else {}),
        }


class Regressor(nn.Module):
    """Images `[n, c, s, s]` in [0, 1] -> traits in standard deviations, `[n, d]`."""

    def __init__(self, spec: DataSpec, traits: int, width: int) -> None:
        super().__init__()
        channels, height, _ = spec.shape
        halvings = max(1, min(4, (height // 4).bit_length() - 1))
        widths = [channels, *(width << min(i, 2) for i in range(halvings))]
        self.body = nn.Sequential(*down(widths, 3, norm=nn.BatchNorm2d, norm_first=True), nn.Flatten())
        with torch.no_grad():
            flat = self.body.eval()(torch.zeros(1, *spec.shape)).shape[1]
        self.body.train()
        self.read = nn.Sequential(nn.Linear(flat, 8 * width), nn.ReLU(), nn.Linear(8 * width, traits))

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.body(2 * x - 1))


def regressor(dataset: Any, steps: int, width: int) -> tuple[nn.Module, Tensor]:
    """A regressor of the traits, trained once per process and data set, and its R2 of each on real test images."""
    key = _key("regressor", dataset, steps, width)
    if key in _trained:
        found: tuple[nn.Module, Tensor] = _trained[key]
        return found
    draw, train = seeded(0, dataset.device), dataset.rows_of("train")
    known = torch.cat(dataset.traits(train[:: max(1, len(train) // 5000)]), 1)
    mean, std = known.mean(0), known.std(0).clamp_min(1e-6)

    def sample() -> tuple[Tensor, Tensor]:
        rows = train[torch.randint(len(train), (64,), generator=draw, device=dataset.device)]
        return unit(dataset, dataset.batch(rows)["x"]), (torch.cat(dataset.traits(rows), 1) - mean) / std

    with initialised(0, dataset.device):
        net = Regressor(dataset.spec, known.shape[1], width).to(dataset.device)
    fit_classifier(net, sample, steps, 2e-3, "training the regressor", nn.functional.mse_loss)
    rows = dataset.rows_of("test")
    rows = rows[:: max(1, len(rows) // 2000)]
    with torch.no_grad():
        read = torch.cat([net(unit(dataset, dataset.batch(part)["x"])) for part in rows.split(BATCH)])
    truth = (torch.cat(dataset.traits(rows), 1) - mean) / std
    r2 = 1 - (read - truth).square().mean(0) / truth.var(0, unbiased=False).clamp_min(1e-9)
    _trained[key] = net, r2.cpu()
    return net, r2.cpu()
