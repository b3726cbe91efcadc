"""What an `Explorer` answers, held against the model itself. Every registered method's page is one of the checks that
tests/core/test_conformance.py runs."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from distk.errors import NotServed, UsageError
from distk.explore.looking import Explorer, unfit
from distk.explore.wish import Start, Wish
from distk.method import Method
from distk.models import open_model
from distk.traversal import known_of


def pixels(shown: dict[str, Any]) -> torch.Tensor:
    """A picture that is shown -> its grey bytes `[h, w]`."""
    picture = Image.open(io.BytesIO(base64.b64decode(shown["data"].partition(",")[2]))).convert("L")
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(picture.height, picture.width)


def as_pixels(x: torch.Tensor) -> torch.Tensor:
    """Grey images `[1, 1, h, w]` in [0, 1] -> bytes `[h, w]`."""
    return (x[0, 0].clamp(0, 1) * 255).round().to(torch.uint8)


def looked(path: Path, n: int = 3) -> tuple[Explorer, Method, dict[str, torch.Tensor]]:
    """An explorer of a run with the first n items of its data, its model, and the items."""
    model, header = open_model(path / "checkpoint.safetensors", "cpu")
    dataset = model.dataset()
    items = dataset.items(torch.arange(n))
    return Explorer(model, header, items, list(range(n)), known_of(model, dataset, 50)), model, items


@torch.no_grad()
def test_a_moved_latent_a_class_and_a_swap_are_what_the_model_decodes(folder_of, seed: int) -> None:
    explorer, model, items = looked(folder_of("image"))
    generator = torch.Generator().manual_seed(seed)
    code = model.encode(items["x"][1:2])
    start = explorer.show(Wish(Start(item=1)))
    assert torch.equal(pixels(start["start"]["source"]), as_pixels(items["x"][1:2]))
    assert torch.equal(pixels(start["made"]), as_pixels(model.decode(code)))
    assert start["values"]["z"] == pytest.approx(code["z"][0].tolist(), abs=1e-6)

    value = float(torch.randn(1, generator=generator))
    z = code["z"].clone()
    z[0, 2] = value
    moved = explorer.show(Wish(Start(item=1), moves={"z": {2: value}}))
    assert torch.equal(pixels(moved["made"]), as_pixels(model.decode({**code, "z": z})))
    assert moved["values"]["z"][2] == pytest.approx(value)

    one = torch.tensor([[0.0, 0.0, 1.0]])
    classed = explorer.show(Wish(Start(item=1), classes={"d": 2}))
    assert classed["classes"]["d"] == 2
    assert torch.equal(pixels(classed["made"]), as_pixels(model.decode({**code, "d": one})))

    other = model.encode(items["x"][2:3])
    swapped = explorer.show(Wish(Start(item=1), Start(item=2), swapped=("z",)))
    assert torch.equal(pixels(swapped["made"]), as_pixels(model.decode({**code, "z": other["z"]})))
    way = explorer.show(Wish(Start(item=1), Start(item=2), share=0.25))
    between = {"z": 0.75 * code["z"] + 0.25 * other["z"], "d": code["d"]}
    assert (pixels(way["made"]).int() - as_pixels(model.decode(between)).int()).abs().max() <= 1


def test_a_large_move_changes_the_picture(folder_of) -> None:
    explorer, _, _ = looked(folder_of("image"))
    plain = pixels(explorer.show(Wish(Start(item=0)))["made"])
    far = pixels(explorer.show(Wish(Start(item=0), moves={"z": {0: 500.0}}))["made"])
    assert not torch.equal(plain, far)


def test_the_plan_names_everything_that_can_be_moved(folder_of) -> None:
    explorer, _, _ = looked(folder_of("image"))
    plan = json.loads(json.dumps(explorer.plan(), allow_nan=False))
    assert sorted(slider["name"] for slider in plan["sliders"]) == ["z1", "z2", "z3"]
    informs = [slider["kl"] for slider in plan["sliders"]]
    assert informs == sorted(informs, reverse=True)
    assert plan["classes"] == [{"group": "d", "names": ["0", "1", "2"]}]
    assert plan["swaps"] == ["z", "d"]
    assert [item["row"] for item in plan["items"]] == [0, 1, 2]
    assert plan["first"] == {"item": 0}
    assert not plan["reads"]


def test_a_clip_is_a_film_with_its_frames_beside_it(folder_of) -> None:
    model, header = open_model(folder_of("clip") / "checkpoint.safetensors", "cpu")
    explorer = Explorer(model, header)
    plan = explorer.plan()
    assert plan["first"] == {"draw": 0}
    assert [c["group"] for c in plan["classes"]] == ["category"]
    shifted = [s for s in plan["sliders"] if s["shifted"]]
    made = explorer.show(Wish(Start(draw=4), moves={shifted[0]["group"]: {shifted[0]["place"]: 1.0}}))["made"]
    film = Image.open(io.BytesIO(base64.b64decode(made["data"].partition(",")[2])))
    assert made["kind"] == "clip"
    assert film.format == "GIF"
    assert (film.n_frames, film.size) == (made["frames"], (made["width"], made["height"]))
    assert made["strip"].startswith("data:image/png;base64,")


def test_sentences_are_read_moved_and_rewritten(folder_of) -> None:
    explorer, model, items = looked(folder_of("text"))
    plan = explorer.plan()
    assert plan["reads"]
    assert plan["labels"] == ["negative", "positive"]
    assert plan["sliders"] == []
    assert any("distk interpolate" in note for note in plan["notes"])
    line = model.text(items["x"])[0]
    assert explorer.show(Wish(Start(sentence=line)))["start"]["source"] == {"kind": "text", "text": line}
    typed, held = (explorer.show(Wish(start))["made"] for start in (Start(sentence=line), Start(item=0)))
    assert typed == held
    assert explorer.rewrite(line, 1)["text"] == model.rewrite([line], 1)[0]
    with pytest.raises(UsageError, match="no label 2"):
        explorer.rewrite(line, 2)


def test_what_is_made_of_a_group_that_was_changed_is_not_moved_beside_it(folder_of) -> None:
    explorer, _, _ = looked(folder_of("pairs"))
    draws = Wish(Start(draw=0), Start(draw=1), swapped=("top",))
    told = explorer.show(draws)
    assert told["made"] == explorer.show(Wish(Start(draw=1)))["made"]
    assert "piece0" not in told["values"]
    with pytest.raises(UsageError, match="made of a group that was changed"):
        explorer.show(Wish(Start(draw=0), Start(draw=1), ("top",), moves={"piece0": {0: 1.0}}))
    with pytest.raises(UsageError, match="not encoded to 'top'"):
        explorer.show(Wish(Start(item=0), Start(item=1), ("top",)))


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish(Start(item=3)), "no item 3; 3 were read"),
        (Wish(Start(sentence="a")), "reads no sentences"),
        (Wish(Start(item=0), moves={"y": {0: 1.0}}), "unknown latent group 'y'"),
        (Wish(Start(item=0), moves={"z": {3: 1.0}}), "dimensions 0 to 2, not 3"),
        (Wish(Start(item=0), moves={"d": {0: 1.0}}), "classes and no numbers"),
        (Wish(Start(item=0), classes={"d": 3}), "classes 0 to 2, not 3"),
        (Wish(Start(item=0), classes={"z": 0}), "'z' has no classes"),
        (Wish(Start(item=0), swapped=("z",)), "no second code"),
        (Wish(Start(item=0), Start(item=1), swapped=("y",)), "unknown latent group 'y'"),
    ],
)
def test_what_a_model_does_not_have_is_a_sentence(folder_of, wish: Wish, words: str) -> None:
    explorer, _, _ = looked(folder_of("image"))
    with pytest.raises(UsageError) as refused:
        explorer.show(wish)
    assert words in str(refused.value)


def test_a_method_without_a_decoder_says_what_to_use(folder_of) -> None:
    model, header = open_model(folder_of("embedding") / "checkpoint.safetensors", "cpu")
    assert "no decoder" in unfit(model, header)
    with pytest.raises(NotServed, match="use `distk embed`"):
        Explorer(model, header)


def test_vectors_are_numbers(in_folder) -> None:
    import distk

    run = distk.train("covreg-linear", steps=2, batch=20, device="cpu", quiet=True, out="run", data="dimred")
    explorer, _, items = looked(run.path)
    made = explorer.show(Wish(Start(item=0)))["start"]["source"]
    assert made["kind"] == "numbers"
    assert made["rows"][0] == pytest.approx(items["x"][0].tolist())
    assert made["low"] <= min(made["rows"][0])
    assert made["high"] >= max(made["rows"][0])
