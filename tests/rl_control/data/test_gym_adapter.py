"""The Gymnasium adapter, on a small environment of our own with pictures as observations."""

import numpy as np
import pytest
import torch

import distk
from distk import UsageError, open_dataset, seeded
from distk.transitions import Actions

gymnasium = pytest.importorskip("gymnasium", reason="Gymnasium is not installed: pip install 'distk[gym]'")

CPU = torch.device("cpu")


class Corridor(gymnasium.Env):
    """Five cells; an episode ends at the right end. The observation shows the place as brightness."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None, actions=None):
        self.render_mode = render_mode
        self.action_space = actions or gymnasium.spaces.Discrete(2)
        self.observation_space = gymnasium.spaces.Box(0, 255, (10, 10, 3), np.uint8)

    def _see(self):
        return np.full((10, 10, 3), 50 * self.place, np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(3))
        return self._see(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        right = int(np.asarray(action).reshape(-1)[-1])
        self.place = min(max(self.place + 2 * right - 1, 0), 4)
        return self._see(), 0.0, self.place == 4, False, {}

    def render(self):
        return self._see()


@pytest.fixture(autouse=True)
def registered():
    made = {
        "DistkCorridor-v0": {},
        "DistkPair-v0": {"actions": gymnasium.spaces.MultiDiscrete([3, 2])},
        "DistkBox-v0": {"actions": gymnasium.spaces.Box(-1, 2, (2, 1))},
        "DistkFree-v0": {"actions": gymnasium.spaces.Box(-np.inf, np.inf, (1,))},
    }
    for name, arguments in made.items():
        gymnasium.register(name, entry_point=Corridor, kwargs=arguments)
    yield
    for name in made:
        gymnasium.registry.pop(name)


def test_transitions_after_an_episodes_end_are_masked(seed):
    env = open_dataset("gym:DistkCorridor-v0", {"vectorization": "sync", "size": 8})
    state = env.reset(4, seeded(seed, CPU))
    assert state.shape == (4, 3, 8, 8)
    place = (state[:, 0, 0, 0] * 255 / 50).round().long()
    ended, masked = torch.zeros(4, dtype=torch.bool), 0
    generator = seeded(seed, CPU)
    for _ in range(60):
        action = torch.randint(2, (4,), generator=generator)
        state = env.step(state, action)
        now = (state[:, 0, 0, 0] * 255 / 50).round().long()
        expected = (place + 2 * action - 1).clamp(0, 4)
        for i in range(4):
            assert bool(env.valid[i]) == (not ended[i])
            if env.valid[i]:
                assert now[i] == expected[i]
            else:
                assert now[i] < 3
                masked += 1
        place, ended = now, (now == 4) & env.valid.bool()
    assert masked > 0


def test_same_seed_same_episode_and_joint_actions(seed):
    env = open_dataset("gym:DistkPair-v0", {"vectorization": "sync", "size": 8})
    assert env.spec.extra["actions"] == 6
    assert env.spec.extra["action_names"] == ["0,0", "0,1", "1,0", "1,1", "2,0", "2,1"]
    runs = []
    for _ in range(2):
        state = env.reset(3, seeded(seed, CPU))
        for action in range(6):
            state = env.step(state, torch.full((3,), action))
        runs.append(state)
    assert torch.equal(*runs)


def test_continuous_actions(seed):
    env = open_dataset("gym:DistkBox-v0", {"vectorization": "sync", "size": 8})
    assert env.actions == Actions.of(env.spec) == Actions(("u1", "u2"), (-1.0, -1.0), (2.0, 2.0))
    state = env.reset(4, seeded(seed, CPU))
    place = (state[:, 0, 0, 0] * 255 / 50).round().long()
    after = env.step(
        state, torch.tensor([[0.0, 1.5], [9.0, 1.0], [0.0, 0.5], [0.0, 0.0]])
    )  # beyond the bounds: clipped
    now = (after[:, 0, 0, 0] * 255 / 50).round().long()
    assert now.tolist() == (place + torch.tensor([1, 1, -1, -1])).clamp(0, 4).tolist()
    assert env.batch(torch.arange(9))["x"].shape == (9, 3, 8, 8)


def test_training_and_the_messages(tmp_path, capsys):
    options = {"data": "gym:DistkCorridor-v0", "data_size": 16, "vectorization": "sync", "encoder": "mlp", "factors": 8}
    run = distk.train("icf", steps=5, batch=4, device="cpu", out=tmp_path / "run", **options)
    assert "host" in capsys.readouterr().err
    assert run.log[-1]["value"] > 0
    model = distk.load(run.checkpoint)
    data = model.dataset()
    assert data.batch(torch.arange(9))["x"].shape == (9, 3, 16, 16)
    assert (
        "cannot be stepped twice" in distk.evaluate(model, ["icf"], rows=8, on_error="row")["metrics"]["icf"]["error"]
    )
    with pytest.raises(UsageError, match="--estimator reinforce"):
        distk.train("icf", steps=1, device="cpu", out=tmp_path / "x", estimator="all-actions", **options)
    with pytest.raises(UsageError, match="two Discrete actions"):
        distk.train("icf", steps=1, device="cpu", out=tmp_path / "y", data="gym:DistkBox-v0")
    with pytest.raises(UsageError, match=r"'DistkFree-v0' are Box.*finite low below a finite high"):
        open_dataset("gym:DistkFree-v0")
    with pytest.raises(UsageError, match="cannot make 'DistkNothing-v0'"):
        open_dataset("gym:DistkNothing-v0")
    with pytest.raises(UsageError, match="--data gym:ID"):
        open_dataset("gym")


@pytest.mark.parametrize("mode", ["SAME_STEP", "DISABLED"])
def test_other_autoreset_modes(mode, seed):
    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    env = open_dataset("gym:DistkCorridor-v0", {"vectorization": "sync", "size": 8})
    env._envs = SyncVectorEnv([Corridor] * 3, autoreset_mode=AutoresetMode[mode])
    env._mode = mode
    state = env.reset(3, seeded(seed, CPU))
    place = (state[:, 0, 0, 0] * 255 / 50).round().long()
    for _ in range(6):
        state = env.step(state, torch.ones(3).long())
        now = (state[:, 0, 0, 0] * 255 / 50).round().long()
        for i in range(3):
            assert bool(env.valid[i]) == (place[i] < 3)
            assert now[i] == place[i] + 1 if env.valid[i] else now[i] < 3
        place = now
