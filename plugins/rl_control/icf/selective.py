"""What icf and icf-discrete share: gathering experience, both gradient estimators, and the training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distk import Code, DataSpec, Method, Objective, Step, adam
from distk.config import C
from distk.console import counted, note
from distk.plugins.rl_control.data.environments import permitted, starts, table
from distk.plugins.rl_control.icf import selectivity as s
from distk.source import Source

SEQUENCES = 256
"""Most action sequences per state that are enumerated."""
CLIP = 50.0


@dataclass
class Rollout:
    """A step's transitions under every factor. E states, P sequences, n factors.

    h: codes of all frames `[N, K]`. h0, last: first and final codes, `[E, K]` and `[E, P, K]`. phi `[E, n, K]`.
    log_p: log-probability of each sequence under each factor, reward: R_i, both `[E, P, n]`. value: V `[E, n]`.
    entropy: mean over all policies consulted, nats. weights `[E, n]`, valid `[E]`: for reinforce, else None.
    """

    h: Tensor
    h0: Tensor
    last: Tensor
    phi: Tensor
    log_p: Tensor
    reward: Tensor
    value: Tensor
    entropy: Tensor
    weights: Tensor | None = None
    valid: Tensor | None = None


class SelectiveMethod(Method[C]):
    """Encoder, decoder and policies trained by selectivity.

    Subclasses set `encoder`, `decoder`, `policy` (h `[E, P, K]`, h0, phi -> logits `[E, P, n, A]`, values
    `[E, P, n]`), `n` (factors per state) and `noise` (dimensions of z), and define `factors` and `reward`.
    """

    config: Any  # two papers' settings, alike in what is read here
    kinds: ClassVar[tuple[str, ...]] = ("environment",)
    own_commands: ClassVar[Mapping[str, str]] = {"predict": "icf predict"}
    encoder: nn.Module
    decoder: nn.Module
    policy: nn.Module
    n: int
    noise: int

    def __init__(self, config: C, data: DataSpec) -> None:
        super().__init__(config, data)
        if not isinstance(data.extra.get("actions"), int) or data.extra["actions"] < 2:
            raise ValueError("it needs an environment with at least two Discrete actions")
        if len(data.shape) != 3:
            raise ValueError(f"it needs pictures [channels, height, width], not observations of shape {data.shape}")
        self.actions: int = data.extra["actions"]
        self.names: list[str] = list(data.extra.get("action_names") or map(str, range(self.actions)))
        self.estimator = self._estimator(bool(data.extra.get("branching", True)))
        self._live: Tensor | None = None
        if not data.extra.get("branching", True):
            self.capturable = "the environment runs on the host"

    def _estimator(self, branching: bool) -> str:
        wanted, steps = self.config.estimator, self.config.steps_per_policy
        sequences = self.actions**steps
        if wanted == "all-actions" and not branching:
            raise ValueError("this environment cannot be stepped twice from one state; use --estimator reinforce")
        if wanted == "all-actions" and sequences > SEQUENCES:
            raise ValueError(
                f"{counted(self.actions, 'action')} over {counted(steps, 'step')} make"
                f" {counted(sequences, 'sequence')}, more than {SEQUENCES}; use --estimator reinforce"
            )
        if wanted is None:
            return "all-actions" if branching and sequences <= SEQUENCES else "reinforce"
        return wanted

    # To be defined

    def factors(self, h: Tensor, z: Tensor) -> Tensor:
        """States `[E, K]`, noise `[E, n, noise]` -> factors phi `[E, n, K]`."""
        raise NotImplementedError

    def reward(self, h0: Tensor, last: Tensor, phi: Tensor) -> Tensor:
        """R_i for first codes `[E, K]`, final codes `[E, P, K]`, factors -> `[E, P, n]`."""
        raise NotImplementedError

    def watch(self, step: Step, change: Tensor) -> None:
        """Called before `reward` with the changes after one action, `[E, P_1, K]`."""

    # Experience

    def collect(self, source: Source, objective: str = "") -> dict[str, Tensor]:
        """Transitions: all action sequences from each state, or one sequence of one factor's policy."""
        if self.estimator == "all-actions":
            state = starts(source.dataset, source.batch, source.generator, source.rank, source.world)
            return s.branch(source.dataset, state, self.config.steps_per_policy)
        return self._act(source)

    def _start(self, source: Source) -> Tensor:
        env = source.dataset
        if env.spec.extra.get("branching", True):
            return starts(env, source.batch, source.generator, source.rank, source.world)
        if self._live is None or len(self._live) != source.batch:
            note("the environment steps on the host, with a copy per step; the tensor environments are far faster")
            self._live = env.reset(source.batch, source.generator)  # type: ignore[attr-defined]
        return self._live

    @torch.no_grad()
    def _act(self, source: Source) -> dict[str, Tensor]:
        """Each state's behaviour factor is the first of its n; its policy, with exploration, acts.

        The nets act in evaluation mode: the frames of one moment are no batch of their own. The loss knows the true
        probabilities of the behaviour (`log_mu`), so that this costs no bias.
        """
        env, training = source.dataset, self.training
        state = self._start(source)
        z = s.drawn(source, self.n, self.noise, normal=True)
        behaviour = (s.drawn(source)[:, None] * self.n).long().clamp_(max=self.n - 1)
        visited, batch = [state], {"z": z}
        log_mu = torch.zeros(source.batch, self.n, device=env.device)
        valid = torch.ones(source.batch, device=env.device)
        self.eval()
        every = table(env)
        known = self.encoder(every) if every is not None and len(every) <= source.batch else None
        h0 = phi = torch.empty(0)
        for t in range(self.config.steps_per_policy):
            mask = permitted(env, state)
            h = self.encoder(env.render(state)) if known is None else known[state]  # type: ignore[attr-defined]
            if t == 0:
                h0, phi = h, self.factors(h, z)
            log_pi = s.log_policy(self.policy(h[:, None], h0, phi)[0][:, 0], mask[:, None])
            mu = s.explored(log_pi, mask[:, None], self.config.explore)
            mine = mu.gather(1, behaviour[:, :, None].expand(-1, 1, self.actions))[:, 0]
            action = s.choose(mine, s.drawn(source, self.actions))
            log_mu += mu.gather(2, action[:, None, None].expand(-1, self.n, 1))[..., 0].log()
            state = env.step(state, action)  # type: ignore[attr-defined]
            valid = valid * getattr(env, "valid", torch.ones_like(valid))
            visited.append(state)
            batch |= {f"mask{t}": mask[:, None], f"action{t}": action[:, None]}
        self.train(training)
        if self._live is not None:
            self._live = state
        return {**batch, "log_mu": log_mu, "valid": valid, **s.frames_of(env, visited, source.batch)}

    # One step

    def rollout(self, step: Step) -> Rollout:
        """The step's transitions under the current nets, with gradients; computed once per step."""
        if "rollout" not in step.memo:
            step.memo["rollout"] = self._rollout(step)
        return step.memo["rollout"]

    def _rollout(self, step: Step) -> Rollout:
        batch, steps = step.batch, self.config.steps_per_policy
        h = self.encoder(batch["x"])
        h0 = h[batch["node0"][:, 0]]
        z = batch["z"] if "z" in batch else step.randn(len(h0), self.n, self.noise)
        phi = self.factors(h0, z)
        log_p, value, entropy = self.sequences(h, h0, phi, batch)
        self.watch(step, h[batch["node1"]].detach() - h0.detach().unsqueeze(1))
        last = h[batch[f"node{steps}"]]
        made = Rollout(h, h0, last, phi, log_p, self.reward(h0, last, phi), value, entropy)
        if self.estimator == "reinforce":
            log_mu = batch["log_mu"] if self.config.importance == "balance" else None
            made.weights, made.valid = s.importance_weights(log_p[:, 0].detach(), log_mu), batch["valid"]
        return made

    def sequences(self, h: Tensor, h0: Tensor, phi: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability of each action sequence under each factor's policy, V of the first states, mean entropy.

        h: codes of the frames `batch["x"]`; nodes, masks and actions of the batch as in `selectivity.branch`.
        Returns `[E, P, n]`, `[E, n]` and a scalar.
        """
        log_p = h.new_zeros(len(h0), 1, phi.shape[1])
        value, entropies = log_p, []
        for t in range(self.config.steps_per_policy):
            logits, values = self.policy(h[batch[f"node{t}"]], h0, phi)
            log_pi = s.log_policy(logits, batch[f"mask{t}"].unsqueeze(2))
            entropies.append(s.entropy(log_pi).mean())
            value = values if t == 0 else value
            if f"action{t}" in batch:
                chosen = batch[f"action{t}"][:, :, None, None].expand(-1, -1, phi.shape[1], 1)
                log_p = log_p + log_pi.gather(3, chosen)[..., 0]
            else:
                log_p = (log_p.unsqueeze(-1) + log_pi).transpose(2, 3).flatten(1, 2)
        return log_p, value[:, 0], torch.stack(entropies).mean()

    def selectivity(self, step: Step) -> Tensor:
        """-S in nats (icf-discrete: the sum over its K policies), times its coefficient."""
        r = self.rollout(step)
        if r.weights is None or r.valid is None:
            gain = s.exact_objective(r.reward, r.log_p)
            step.log("S", gain)
        else:
            gain = s.reinforce_objective(r.reward[:, 0], r.log_p[:, 0], r.value, r.weights, r.valid)
            step.log("S", (r.weights * r.reward[:, 0]).sum(1).mean())
        step.log("H", r.entropy)
        return -self.config.selectivity * self.scale * gain

    scale: float = 1.0
    """By what S, a mean over factors, is multiplied in the loss."""

    def reconstruction(self, step: Step) -> Tensor:
        """Squared error, mean over pixels and frames. With a weight of 0 only the decoder learns it."""
        if "mse" not in step.memo:
            h = self.rollout(step).h
            shown = self.decoder(h if self.config.reconstruction else h.detach())
            step.memo["mse"] = (shown - step.batch["x"]).pow(2).mean()
        return step.memo["mse"]

    def baseline(self, step: Step) -> Tensor:
        """Squared error of the baseline V, times its coefficient."""
        r = self.rollout(step)
        assert r.weights is not None
        assert r.valid is not None
        return self.config.value * s.baseline_loss(r.value, r.reward[:, 0], r.weights, r.valid)

    def acting(self) -> list[nn.Parameter]:
        """The parameters that selectivity trains."""
        return [*self.encoder.parameters(), *self.policy.parameters()]

    def objectives(self) -> list[Objective]:
        """One stage: all gradients are taken at the same weights and summed, then Adam steps each net once."""
        build, stage = adam(self.config.lr), "step"

        def also(name: str, loss: Callable[[Step], Tensor], net: nn.Module) -> Objective:
            return Objective(name, loss, net.parameters(), None, stage)

        found = [
            Objective("selectivity", self.selectivity, self.acting(), build, stage, clip=CLIP),
            Objective("decoder", self.reconstruction, self.decoder.parameters(), build, stage, clip=CLIP),
        ]
        if self.config.reconstruction:
            weight = self.config.reconstruction
            found.append(also("autoencoder", lambda step: weight * self.reconstruction(step), self.encoder))
        if self.estimator == "reinforce":
            found.append(also("value", self.baseline, self.policy))
        found.append(also("entropy", lambda step: -step.schedule["entropy"] * self.rollout(step).entropy, self.policy))
        return found

    def schedule(self, step: int) -> dict[str, Any]:
        """The entropy weight falls linearly (it is a bonus: the published code's sign made it a penalty)."""
        done = min(step / self.config.entropy_steps, 1.0)
        return {"entropy": self.config.entropy + (self.config.entropy_end - self.config.entropy) * done}

    # The trained model

    def encode(self, x: Tensor) -> Code:
        return {"h": self.encoder(x)}

    def decode(self, code: Code) -> Tensor:
        return self.decoder(code["h"])

    def draw_factors(self, h: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """`n` factors for each state: h `[E, K]` -> phi `[E, n, K]`."""
        z = torch.randn(len(h), n, max(self.noise, 1), generator=generator, device=generator.device)
        return self.factors(h, z[..., : self.noise])

    def policies(self, h: Tensor, h0: Tensor, phi: Tensor, mask: Tensor) -> Tensor:
        """pi(a | h, phi): h and h0 `[E, K]`, phi `[E, n, K]`, mask bool `[E, A]` -> probabilities `[E, n, A]`."""
        return s.log_policy(self.policy(h[:, None], h0, phi)[0][:, 0], mask[:, None]).exp()
