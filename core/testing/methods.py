"""Conformance of methods and penalties."""

from __future__ import annotations

import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distk import checkpoint
from distk.config import from_dict, to_dict, to_toml
from distk.console import counted
from distk.device import Ranks, no_host_reads, seeded, set_precision
from distk.errors import DistkError, UsageError
from distk.latents import LatentSpace
from distk.method import Method, Objective, Step, can
from distk.metric import encode_table
from distk.settings import Settings, method_words, resolve
from distk.source import Source
from distk.testing.data import (
    Check,
    demand,
    documented,
    loaded,
    named_apart,
    run,
    same,
)
from distk.testing.pages import check_page
from distk.testing.reads import NoHostReads, scalars_read, unwatched
from distk.training.beginning import build
from distk.training.trainer import Trainer
from distk.traversal import traverse

# Methods


def method_checks(name: str, steps: int = 3, batch: int = 8, **options: Mapping[str, Any]) -> list[Check]:
    """All checks of a method, on its preset `demo` if it has one. options: sections as for `settings.resolve`."""
    try:
        cls = loaded("method", name, Method)
    except DistkError as error:
        return [Check("it can be imported", str(error))]
    if (apart := named_apart(cls.Config, method_words())).problem:
        return [apart]
    sections = {section: dict(options.get(section, {})) for section in ("model", "data", "train")}
    sections["train"] = {
        "batch": batch,
        "device": "cpu",
        "steps": 0 if cls.closed_form else 2 * steps,
        "eval": (),
        "keep": "",
        "log": (),
        **sections["train"],
    }
    settings = resolve(name, preset="demo" if "demo" in cls.presets else None, options=sections)
    probe = _Probe(settings, 0 if cls.closed_form else steps)
    trained = {
        "a step changes exactly its objective's parameters": probe.touches,
        "the losses hand over the layers that the method declares": probe.taps,
        "the step reads nothing back to the host": probe.host_reads,
        "a step in bf16 gives finite losses": probe.bf16,
        "the smallest batch is trained on, a smaller one refused": probe.smallest,
        "two ranks together draw the batch of one": probe.ranks,
        "schedule keeps its keys and shapes": probe.schedule,
    }
    checks = run(
        {
            "every option is documented": lambda: documented(cls.Config),
            "settings survive TOML and the header": lambda: _round_trip(settings),
            **({} if cls.closed_form else trained),
            "the same seed gives the same result": probe.same_seed,
            "resuming equals never having stopped": probe.resume,
            "a checkpoint gives the same model": probe.round_trip,
            "encode and decode agree with the latent space": probe.shapes,
            "a table of codes runs each network once": probe.one_pass,
            "every latent can be walked": probe.walks,
            "its page can be made, or it says why not": lambda: check_page(probe.trainer()),
            "what it foretells has the shape that was asked for": probe.foretells,
        }
    )
    return [apart, *checks]


def check_method(name: str, steps: int = 3, batch: int = 8, **options: Mapping[str, Any]) -> None:
    """`method_checks`, raising AssertionError that names every check that failed."""
    demand(method_checks(name, steps, batch, **options), f"method '{name}'")


def _round_trip(settings: Settings) -> None:
    plain = to_dict(settings.model)
    read = tomllib.loads(to_toml({"model": plain}))["model"]
    assert from_dict(type(settings.model), read, "TOML") == settings.model, "the settings differ after TOML"


def _calls(model: Method, work: Callable[[], object]) -> Counter[str]:
    """How often each layer of a model runs in `work`."""
    counts: Counter[str] = Counter()
    layers = [(name, module) for name, module in model.named_modules() if not any(module.children())]

    def counting(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            counts.update([name])
            return forward(*arguments, **named)

        return call

    for name, module in layers:
        module.__dict__["forward"] = counting(name, module.forward)
    try:
        with torch.no_grad():
            work()
    finally:
        for _, module in layers:
            module.__dict__.pop("forward", None)
    return counts


class _Watching(Trainer):
    """A trainer that reports which parameters each stage changes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.touched: dict[str, set[str]] = {}
        self.handed: set[str] = set()

    def _update(self, stage: list[Objective], step: Step) -> None:
        tap = step.tap

        def noted(layer: str, activations: Tensor) -> None:
            self.handed.add(layer)
            tap(layer, activations)

        step.tap = noted  # type: ignore[method-assign]
        before = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        super()._update(stage, step)
        changed = {n for n, p in self.model.named_parameters() if not torch.equal(p.detach(), before[n])}
        self.touched.setdefault("+".join(o.name for o in stage), set()).update(changed)


class _Probe:
    def __init__(self, settings: Settings, steps: int) -> None:
        self.settings, self.steps = settings, steps

    def trainer(self, kind: type[Trainer] = Trainer) -> Trainer:
        """A fresh run, before its first step."""
        made = self.bare(kind)
        made.initialise()
        return made

    def bare(self, kind: type[Trainer] = Trainer) -> Trainer:
        """A trainer as one that is taken up again has it, before its state is loaded."""
        made = build(self.settings, torch.device("cpu"), Ranks())
        return made if kind is Trainer else kind(made.model, made.dataset, made.config)

    def touches(self) -> None:
        trainer = self.trainer(_Watching)
        assert isinstance(trainer, _Watching)
        for _ in range(self.steps):
            trainer.step()
        named = {id(p): n for n, p in trainer.model.named_parameters()}
        averaged = {n for n, p in trainer.model.named_parameters() if not p.requires_grad}  # what `after` moves
        assert trainer.touched, "no objective was active in the first steps"
        for stage in trainer.stages:
            for taken, changed in trainer.touched.items():
                if not set(taken.split("+")) <= {o.name for o in stage}:
                    continue
                own = {named.get(id(p)) for o in stage for p in o.parameters}
                assert None not in own, f"'{taken}' trains parameters that the model does not hold"
                surplus = sorted(changed - own - averaged)
                assert not surplus, f"'{taken}' changed {', '.join(surplus)}"
                assert changed, f"'{taken}' changed no parameter"

    def taps(self) -> None:
        trainer = self.trainer(_Watching)
        assert isinstance(trainer, _Watching)
        for _ in range(self.steps):
            trainer.step()
        surplus, declared = sorted(trainer.handed - set(trainer.model.taps)), set(trainer.model.taps)
        assert not surplus, f"step.tap is called for {', '.join(surplus)}, which `taps` does not declare"
        if all(o.active(0) for o in trainer.objectives):
            lacking = sorted(declared - trainer.handed)
            assert not lacking, f"`taps` declares {', '.join(lacking)}, for which no loss calls step.tap"

    def host_reads(self) -> None:
        trainer = self.trainer()
        for optimizer in trainer.optimizers.values():
            unwatched(optimizer)
        trainer.step()  # allocates what is made once
        trainer.model.before_step(trainer.index, trainer.optimizers)
        trainer._set_schedule(trainer.model.schedule(trainer.index))
        active = tuple(o.name for o in trainer.objectives if o.active(trainer.index))
        key = (trainer.model.phase(trainer.index), active, trainer.dataset.bucket(trainer.index, 0))
        if trainer.model.capturable is True:
            with no_host_reads(), NoHostReads():
                trainer._step(key)
            for optimizer in trainer.optimizers.values():  # torch's own on a CPU read their step counters
                optimizer.step = lambda *given, **named: None  # type: ignore[assignment]
            with no_host_reads():
                read = scalars_read(lambda: trainer._step(key))
            assert not read, (
                f"the step reads {counted(read, 'number')} back to the host within operations of torch, as the"
                " gradients of `cumprod` and `prod` do where a factor may be zero: multiply one by one"
            )

    def same_seed(self) -> None:
        first, second = self._after(self.steps), self._after(self.steps)
        same(first, second, "two runs of one seed")

    def _after(self, steps: int) -> dict[str, Tensor]:
        trainer = self.trainer()
        for _ in range(steps):
            trainer.step()
        return _everything(trainer)

    def resume(self) -> None:
        straight = self._after(2 * self.steps)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "c.safetensors"
            trainer = self.trainer()
            for _ in range(self.steps):
                trainer.step()
            self._save(trainer, path)
            torch.manual_seed(999)  # what another process's global generator would be
            again = self.bare()
            again.model.load_state_dict(checkpoint.load(path)[0].state_dict())
            again.load_state(checkpoint.load_training(path))
        for _ in range(self.steps):
            again.step()
        same(straight, _everything(again), "the resumed and the uninterrupted run")

    def _save(self, trainer: Trainer, path: Path) -> None:
        data: dict[str, Any] = {
            "name": self.settings.data,
            "options": {},
            "folder": None,
            "origin": trainer.dataset.origin,
        }
        header = checkpoint.header_for(trainer.model, self.settings.entry, data, trainer.index, 0, {})
        checkpoint.save(path, trainer.model, header, trainer.state())

    def round_trip(self) -> None:
        trainer = self.trainer()
        for _ in range(min(1, self.steps)):
            trainer.step()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "c.safetensors"
            self._save(trainer, path)
            loaded, header = checkpoint.load(path)
        assert LatentSpace.from_list(header.latents) == trainer.model.latents, "the latent space changed"
        assert loaded.config == trainer.model.config, "the settings changed"
        model = trainer.model.eval()
        same(model.state_dict(), loaded.state_dict(), "the model before and after")
        if can(model, "encode"):
            x = trainer.dataset.sample(4, seeded(0, trainer.device))["x"]
            with torch.no_grad():
                same(model.encode(x), loaded.encode(x), "codes before and after")

    def shapes(self) -> None:
        trainer = self.trainer()
        model, dataset = trainer.model.eval(), trainer.dataset
        n = 4
        with torch.no_grad():
            if can(model, "encode"):
                x = dataset.sample(n, seeded(0, trainer.device))["x"]
                code = model.encode(x)
                model.latents.check(code, n)
                assert model.latents.flatten(code).shape == (n, len(model.latents.columns)), (
                    "flatten and columns differ"
                )
                if can(model, "decode"):
                    assert model.decode(code).shape[0] == n, "decode changes the number of items"
                if can(model, "posterior"):
                    for name, (mean, std) in model.posterior(x).items():
                        assert mean.shape == std.shape == (n, *model.latents[name].shape), f"posterior of '{name}'"
                        assert bool((std >= 0).all()), f"posterior of '{name}' has a negative standard deviation"
            if can(model, "sample") and model.drawable:
                first = model.sample(n, seeded(1, trainer.device))
                assert len(first) == n, "sample(n) returns another number of items"
                assert torch.equal(first, model.sample(n, seeded(1, trainer.device))), "sample ignores its generator"

    def one_pass(self) -> None:
        """No layer runs more often for codes with their deviations than for the dearer one of both alone."""
        trainer = self.trainer()
        model, dataset = trainer.model.eval(), trainer.dataset
        if not (can(model, "encode") and can(model, "posterior")):
            return
        batch = dataset.items(dataset.rows_of("all")[:4])
        alone = [_calls(model, lambda: model.encode_batch(batch)), _calls(model, lambda: model.posterior_batch(batch))]
        both = _calls(model, lambda: encode_table(model, dataset, rows=4))
        again = [name for name, n in both.items() if n > max(calls.get(name, 0) for calls in alone)]
        assert not again, f"layers that run twice for the same batch: {', '.join(again[:5])}"

    def walks(self) -> None:
        """A traversal from an item and from a draw: each row has items, none of them NaN."""
        trainer = self.trainer()
        model, columns = trainer.model.eval(), 3
        if not can(model, "decode"):
            return
        starts: list[Mapping[str, Tensor] | None] = []
        if can(model, "encode"):
            starts.append(trainer.dataset.items(trainer.dataset.rows_of("test")[:1]))
        if model.drawable and model.instead.get("sample") is None and can(model, "prior"):
            starts.append(None)
        for start in starts:
            made = traverse(model, start, columns, seed=3)
            walked = sum(g.walked for g in model.latents)
            assert made.rows or not walked, "a traversal has no rows"
            for row in made.rows:
                assert len(row.items) == columns, f"row '{row.label}' has {counted(len(row.items), 'item')}"
                assert not bool(row.items.float().isnan().any()), f"row '{row.label}' holds NaN"

    def bf16(self) -> None:
        probe = _Probe(replace(self.settings, train=replace(self.settings.train, precision="bf16")), 2)
        try:
            trainer = probe.trainer()
            for _ in range(2):
                trainer.step()
            trainer.check_health()
        finally:
            set_precision(self.settings.train.precision)

    def smallest(self) -> None:
        """A batch of `least_batch` items gives finite losses; one of fewer is refused before a run folder is made."""
        train, least = self.settings.train, 1
        try:
            trainer = _Probe(replace(self.settings, train=replace(train, batch=least)), 1).bare()
        except UsageError:  # by `least_batch`, or by a penalty
            least = max(2, self.bare().model.least_batch)
            trainer = _Probe(replace(self.settings, train=replace(train, batch=least)), 1).bare()
        try:
            trainer.initialise()
            trainer.step()
            trainer.check_health()
        except (DistkError, ValueError, RuntimeError) as error:
            raise AssertionError(f"--batch {least} is accepted and then fails ({error}): set `least_batch`") from error

    def ranks(self) -> None:
        """Each rank draws its rows of one batch: together they are what one process draws from the same generator."""
        trainer = self.trainer()
        model, dataset, n = trainer.model, trainer.dataset, 4
        if model.training_state() or dataset.spec.kind == "environment":  # what acting lays out is the method's own
            return
        wanted = dict.fromkeys(["", *(o.name for o in trainer.objectives if o.fresh_batch)])
        bucket = dataset.bucket(0, 0)

        def drawn(objective: str, rank: int, world: int) -> dict[str, Tensor]:
            share = 2 * n // world
            source = Source(dataset, share, seeded(5, trainer.device), rank=rank, world=world, bucket=bucket)
            return model.collect(source, objective) if trainer._per_objective else model.collect(source)

        for objective in wanted:
            whole = drawn(objective, 0, 1)
            try:
                first, second = drawn(objective, 0, 2), drawn(objective, 1, 2)
            except UsageError:  # it refuses to be shared
                return
            for key, value in whole.items():
                if isinstance(value, Tensor) and value.dim():
                    agree = _items(first[key]) + _items(second[key])
                    assert sorted(agree) == sorted(_items(value)), (
                        f"the two ranks' '{key}' together are not what one process draws: "
                        "draw with `source.sample` or `source.draw`"
                    )

    def foretells(self) -> None:
        """Predictions, plans and clips of another length: as many as asked for, and the same from the same seed."""
        trainer = self.trainer()
        model, dataset, n, steps = trainer.model.eval(), trainer.dataset, 2, 3

        def twice(what: str, draw: Callable[[torch.Generator], Tensor], shape: tuple[int, ...]) -> None:
            first, again = draw(seeded(1, trainer.device)), draw(seeded(1, trainer.device))
            assert first.shape[: len(shape)] == shape, f"{what} has the shape {tuple(first.shape)}, not {shape} and on"
            assert torch.equal(first, again), f"{what} ignores its generator"

        with torch.no_grad():
            x = dataset.sample(n, seeded(0, trainer.device))["x"]
            clips = len(dataset.spec.shape) in (2, 4)
            if can(model, "predict"):
                known, item = (x[:, : x.shape[1] // 2], x.shape[2:]) if clips else (x.unsqueeze(1), x.shape[1:])
                twice("predict", lambda draw: model.predict(known, steps, draw), (n, steps, *item))
            if can(model, "plan"):
                twice("plan", lambda draw: model.plan(x, x.flip(0), steps, draw), (n, steps))
            if model.any_length:
                frames = dataset.spec.shape[0] + 2
                twice("sample(frames=...)", lambda draw: model.sample(n, draw, frames=frames), (n, frames))

    def schedule(self) -> None:
        model = self.trainer().model
        first = model.schedule(0)
        for step in (1, 10, 1000, self.settings.train.steps):
            later = model.schedule(step)
            assert set(later) == set(first), f"schedule({step}) has other keys than schedule(0)"
            for key, value in later.items():
                same = torch.as_tensor(value).shape == torch.as_tensor(first[key]).shape
                assert same, f"schedule({step})['{key}'] has another shape than at step 0"
            hash(model.phase(step))


def _items(batch: Tensor) -> list[bytes]:
    """Each item of a batch, to be compared in any order: ranks may order theirs by time, or by state."""
    return [item.contiguous().numpy().tobytes() for item in batch.detach().cpu()]


def _everything(trainer: Trainer) -> dict[str, Tensor]:
    return {**{f"model/{k}": v for k, v in trainer.model.state_dict().items()}, **trainer.state()}
