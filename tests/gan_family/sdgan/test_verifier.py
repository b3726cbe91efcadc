"""The verifier: its loss, its augmentation, what it learns, its file; and the search for codes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

import distk
from distk import Dataset, DataSpec, DistkError, Files, UsageError, open_dataset, seeded
from distk.config import from_dict
from distk.device import initialised
from distk.plugins.gan_family.sdgan import scores
from distk.plugins.gan_family.sdgan.inversion import invert
from distk.plugins.gan_family.sdgan.method import SDBEGAN, SDDCGAN
from distk.plugins.gan_family.sdgan.metrics import held_out, real_side
from distk.plugins.gan_family.sdgan.verifier import (
    FILE,
    Verifier,
    VerifierInfo,
    cosine_loss,
    embedded,
    jittered,
    load_verifier,
    train_verifier,
    unit,
)

CPU = torch.device("cpu")
SPEC = DataSpec("image", (3, 16, 16))


def test_the_loss_is_a_softmax_over_cosines_with_a_margin(generator: torch.Generator) -> None:
    cosines, target = 2 * torch.rand(5, 4, generator=generator).double() - 1, torch.tensor([0, 3, 1, 1, 2])
    expected = 0.0
    for row, right in zip(cosines.tolist(), target.tolist(), strict=True):
        logits = torch.tensor([30 * (c - 0.2 * (i == right)) for i, c in enumerate(row)], dtype=torch.float64)
        expected -= float(logits[right] - logits.exp().sum().log()) / 5
    assert float(cosine_loss(cosines, target)) == pytest.approx(expected, abs=1e-6)


def test_vectors_have_unit_length_and_follow_the_image(generator: torch.Generator) -> None:
    net = Verifier(VerifierInfo((3, 20, 20), 4, 6)).eval()
    x = torch.rand(7, 3, 20, 20, generator=generator)
    vectors = net(x)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(7), atol=1e-6)
    h = 2 * x - 1
    for i in range(0, 12, 3):
        conv, norm = net.features[i], net.features[i + 1]
        h = torch.nn.functional.conv2d(h, conv.weight, conv.bias, 2, 1)
        h = h / (1 + norm.eps) ** 0.5  # as it starts: mean 0, variance 1
        h = h.clamp_min(0)
    h = net.project(h.mean((2, 3)))
    assert torch.allclose(vectors, h / h.norm(dim=1, keepdim=True), atol=1e-5)
    assert torch.allclose(embedded(lambda part: 3 * net(part), x, 2), vectors.double(), atol=1e-6)
    with pytest.raises(ValueError, match="8x8"):
        Verifier(VerifierInfo((3, 4, 4)))


def test_jittering_moves_mirrors_and_recolours_within_bounds(seed: int) -> None:
    ramp = torch.arange(32.0)
    x = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), torch.full((32, 32), 16.0)]) / 64 + 0.25
    many = x.expand(400, 3, 32, 32)
    moved = jittered(many, torch.Generator().manual_seed(seed), False)
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    mirrored = jittered(many, torch.Generator().manual_seed(seed), True)
    slope = (moved[:, 0, 16, 20] - moved[:, 0, 16, 12]) * 64 / 8  # light * contrast * colour of each image
    assert bool((slope > 0.8**3 * 2 / 3 - 1e-3).all() & (slope < 1.2**3 + 1e-3).all())
    turned = (mirrored[:, 0, 16, 20] < mirrored[:, 0, 16, 12]).double().mean()
    assert float(turned) == pytest.approx(0.5, abs=0.13)
    # A step to the side shifts the whole picture: rows keep their order, and at most two pixels fall off.
    assert bool((moved[:, 1].diff(dim=1) >= -1e-6).all())
    assert bool(((moved[:, 1, :, 5].diff(dim=1) < 1e-6).sum(1) <= 2).all())


class Bright(Dataset):
    """Data whose range is not [0, 1]."""

    def __init__(self) -> None:
        super().__init__(None, CPU, Files("bright", None, ""))
        self.spec = DataSpec("image", (1, 8, 8), (-1.0, 3.0))


def test_images_are_rounded_as_in_files() -> None:
    x = torch.tensor([-1.0, 3.0, 1.0, -1.0 + 4 * 0.4 / 255, 5.0])
    assert torch.equal(unit(Bright(), x), torch.tensor([0, 255, 128, 0, 255]) / 255)


def test_it_learns_to_tell_new_identities_apart() -> None:
    data = open_dataset("idfaces", {"size": 16, "identities": 400})
    trained = train_verifier(data, 400, batch=32, width=8, size=32, lr=3e-3, seed=1)
    assert not trained.training
    with initialised(1, CPU):
        untrained = Verifier(VerifierInfo((3, 16, 16), 8, 32)).eval()
    test = held_out(data)[1]
    areas = []
    for embed in (trained, untrained):  # measured, seeds 0 to 3: 0.71 to 0.78, and 0.58 to 0.64
        side = real_side(data, test, 1000, embed, seeded(0, CPU))
        areas.append(scores.area(side.matched, side.unmatched))
    assert areas[0] > areas[1] + 0.05
    again = [train_verifier(data, 3, batch=8, width=4) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(again[0].parameters(), again[1].parameters(), strict=True))


# Its file


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    with initialised(3, CPU):
        verifier = Verifier(VerifierInfo((3, 16, 16), 4, 8, 48, "idfaces")).eval()
    FILE.save(verifier, tmp_path / "v.safetensors")
    return tmp_path / "v.safetensors"


def test_a_file_gives_the_same_verifier(saved: Path, generator: torch.Generator) -> None:
    read = load_verifier(saved, (3, 16, 16), CPU)
    assert read.info == VerifierInfo((3, 16, 16), 4, 8, 48, "idfaces")
    x = torch.rand(3, 3, 16, 16, generator=generator)
    with initialised(3, CPU):
        assert torch.equal(read(x), Verifier(read.info).eval()(x))
    with pytest.raises(UsageError, match=r"reads images of shape \(3, 16, 16\)"):
        load_verifier(saved, (3, 32, 32), CPU)


def rewritten(path: Path, **change: Any) -> None:
    tensors = load_file(path)
    with path.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    values = json.loads(header["__metadata__"]["distk-verifier"])
    path.write_bytes(save(tensors, metadata={"distk-verifier": json.dumps({**values, **change})}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [3, 16]}, "does not describe"),
        ({"shape": [3, 4, 4]}, "does not describe"),
        ({"width": 10**9}, "does not describe"),
        ({"width": 0}, "does not describe"),
        ({"width": 5}, "do not fit"),
        ({"size": "many"}, "damaged"),
        ({"shape": None}, "damaged"),
    ],
)
def test_headers_that_lie_are_refused(saved: Path, change: dict[str, Any], message: str) -> None:
    rewritten(saved, **change)
    with pytest.raises(DistkError, match=message):
        load_verifier(saved, (3, 16, 16), CPU)


def test_other_files_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        load_verifier(tmp_path / "none.safetensors", (3, 16, 16), CPU)
    whole = saved.read_bytes()
    for content, message in ((whole[:300], "truncated"), (b"", "truncated"), (save({"a": torch.zeros(2)}), "holds no")):
        saved.write_bytes(content)
        with pytest.raises(DistkError, match=message):
            load_verifier(saved, (3, 16, 16), CPU)
    poisoned = dict(Verifier(VerifierInfo((3, 16, 16), 4, 8)).state_dict())
    poisoned["project.bias"] = torch.full((8,), float("nan"))
    saved.write_bytes(whole)
    rewritten(saved)
    text = {"distk-verifier": json.dumps({"shape": [3, 16, 16], "width": 4, "size": 8, "identities": 2, "data": ""})}
    saved.write_bytes(save({name: value.contiguous() for name, value in poisoned.items()}, metadata=text))
    with pytest.raises(DistkError, match="not finite"):
        load_verifier(saved, (3, 16, 16), CPU)


# Codes of images


def generator_of(cls: Any, seed: int) -> Any:
    with initialised(seed, CPU):
        model = cls(from_dict(cls.Config, {"width": 8, "identity": 3, "observation": 2}, "the test"), SPEC).eval()
    for p in model.generator.parameters():
        if p.dim() > 1:
            p.data.mul_(4 if cls is SDDCGAN else 1.5)
    return model


@pytest.mark.parametrize("cls", [SDDCGAN, SDBEGAN])
def test_codes_of_made_images_are_found_again(cls: Any, seed: int) -> None:
    model = generator_of(cls, seed)
    draw = seeded(seed, CPU)
    identity, observation = model.prior(2, draw)["identity"], model.prior(5, draw)["observation"]
    owner = torch.tensor([0, 0, 0, 1, 1])
    with torch.no_grad():
        x = model.decode({"identity": identity[owner], "observation": observation})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = invert(model, x, owner, steps=200, restarts=6, lr=0.1, seed=seed)
    assert found.identity.shape == (2, 3)
    assert found.observation.shape == (5, 2)
    assert float(found.error.mean()) < 0.25 * float(found.first.mean())
    with torch.no_grad():
        again = model.decode({"identity": found.identity[owner], "observation": found.observation})
    assert torch.equal(again, found.images)
    assert torch.allclose((again - x).square().mean((1, 2, 3)), found.error, atol=1e-5)
    far = invert(model, x, owner, steps=1, restarts=2, lr=5.0, seed=seed)
    assert float(far.identity.abs().max()) == float(far.observation.abs().max()) == 1  # put back from far outside
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_one_step_is_adams_on_pixels_and_features(seed: int) -> None:
    model = generator_of(SDBEGAN, seed)
    net = Verifier(VerifierInfo((3, 16, 16), 4, 6)).eval()
    x, owner = torch.rand(3, 3, 16, 16, generator=seeded(seed, CPU)), torch.tensor([0, 1, 0])
    found = invert(model, x, owner, steps=1, restarts=1, lr=0.01, embed=net, weight=70.0, seed=seed)
    draw = seeded(seed, CPU)
    identity, observation = (2 * torch.rand(1, n, d, generator=draw)[0] - 1 for n, d in ((2, 3), (3, 2)))
    identity.requires_grad_(), observation.requires_grad_()
    made: Tensor = (model.generator(torch.cat([identity[owner], observation], 1)) + 1) / 2
    loss = sum(
        ((made[i] - x[i]) ** 2).mean() + 70 * ((net(made[i : i + 1]) - net(x[i : i + 1])) ** 2).sum() for i in range(3)
    )
    for value, slope in zip((identity, observation), torch.autograd.grad(loss, [identity, observation]), strict=True):
        expected = (value - 0.01 * slope / (slope.abs() + 1e-8)).clamp(-1, 1)
        assert torch.allclose(found.identity if value is identity else found.observation, expected, atol=1e-4)


def test_the_best_restart_of_each_subject_is_kept(seed: int) -> None:
    model = generator_of(SDBEGAN, seed)
    x, owner = torch.rand(4, 3, 16, 16, generator=seeded(seed, CPU)), torch.tensor([0, 0, 1, 1])
    several = invert(model, x, owner, steps=2, restarts=5, seed=seed).error.view(2, 2).sum(1)
    # The draws of five restarts are those of five subjects' worth of rows, so each can be run alone by its codes.
    draw = seeded(seed, CPU)
    identity, observation = (2 * torch.rand(5, n, d, generator=draw) - 1 for n, d in ((2, 3), (4, 2)))
    alone, shown = [], []
    for r in range(5):
        codes = [identity[r].clone().requires_grad_(), observation[r].clone().requires_grad_()]
        adam = torch.optim.Adam(codes, lr=0.05)
        for step in range(3):
            made = (model.generator(torch.cat([codes[0][owner], codes[1]], 1)) + 1) / 2
            error = (made - x).square().mean((1, 2, 3))
            codes[0].grad, codes[1].grad = torch.autograd.grad(error.sum(), codes)
            if step < 2:
                adam.step()
                for code in codes:
                    code.data.clamp_(-1, 1)
        alone.append(error.detach().view(2, 2).sum(1))
        shown.append((made.detach().clamp(0, 1) - x).square().mean((1, 2, 3)).view(2, 2).sum(1))
    best = torch.stack(alone).argmin(0)
    assert torch.allclose(several, torch.stack(shown)[best, torch.arange(2)], atol=1e-4)


def test_the_codes_of_a_trained_encoder_verify(tmp_path: Path, generator: torch.Generator) -> None:
    data = {"data": "idfaces", "size": 16, "identities": 30, "observations": 4}
    kept = distk.train(
        "betavae", out=tmp_path / "vae", steps=1, batch=4, z=3, arch="mlp", device="cpu", quiet=True, **data
    )
    model = distk.load(kept.checkpoint)
    x = torch.rand(5, 3, 16, 16, generator=generator)
    with torch.no_grad():
        low, high = model.spec.range
        expected = model.encode(x * (high - low) + low)["z"]
        for path in (tmp_path / "vae", kept.checkpoint):
            seen = load_verifier(Path(path), (3, 16, 16), CPU)(x)
            assert torch.allclose(seen, expected / expected.norm(dim=1, keepdim=True), atol=1e-6)
    told = distk.evaluate(model, ["verification"], verifier=str(kept.checkpoint), pairs=40)["metrics"]["verification"]
    assert 0 <= told["auc_real"] <= 1
    with pytest.raises(UsageError, match=r"does not encode images \[3, 32, 32\] into numbers"):
        load_verifier(tmp_path / "vae", (3, 32, 32), CPU)
    drawn = distk.train(
        "dcgan", preset="demo", out=tmp_path / "gan", steps=1, batch=4, width=4, z=4, device="cpu", quiet=True
    )
    with pytest.raises(UsageError, match="is no verifier of them"):
        load_verifier(drawn.checkpoint, (3, 16, 16), CPU)
