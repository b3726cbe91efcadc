"""Plugins: conflicts, broken ones, unknown names."""

from __future__ import annotations

import sys
import types

import pytest

from distk.errors import DistkError
from distk.hookspecs import hookimpl
from distk.registry import Registry


def plugin(name: str, register_body, **attributes) -> str:
    module = types.ModuleType(name)
    module.distk_register_methods = hookimpl(register_body)
    for key, value in attributes.items():
        setattr(module, key, value)
    sys.modules[name] = module
    return name


def registers(name: str, path: str = "math:pi"):
    def distk_register_methods(register) -> None:
        register(name, path, "a summary", aliases=(f"{name}-alias",))

    return distk_register_methods


def test_names_and_aliases_are_found_with_their_origin() -> None:
    registry = Registry()
    registry.add("one", plugin("fake_one", registers("thing")), "dist-one", "1.2")
    entry = registry.find("method", "thing-alias")
    assert (entry.name, entry.plugin, entry.distribution, entry.version) == ("thing", "one", "dist-one", "1.2")
    assert entry.load_from(entry.path) == __import__("math").pi


def test_a_clash_names_both_distributions_and_spares_the_rest() -> None:
    registry = Registry()
    registry.add("one", plugin("fake_a", registers("same", "math:pi")), "dist-one", "1")
    registry.add("two", plugin("fake_b", registers("same", "math:e")), "dist-two", "2")
    registry.add("three", plugin("fake_c", registers("other")), "dist-three", "3")
    with pytest.raises(DistkError, match=r"dist-one 1.*dist-two 2"):
        registry.find("method", "same")
    assert registry.find("method", "other").distribution == "dist-three"
    assert any("'same'" in line for line in registry.problems)


def raising(register) -> None:
    register("before", "math:pi", "s")
    raise ValueError("broken on purpose")


def wrong_signature(register, surplus) -> None:
    raise AssertionError("never called")


@pytest.mark.parametrize(
    ("body", "attributes", "message"),
    [
        (raising, {}, "broken on purpose"),
        (wrong_signature, {}, "surplus"),
        (registers("x"), {"DISTK_CONTRACT": 99}, "contract 99"),
        (registers("x"), {"distk_register_metods": hookimpl(lambda register: None)}, "distk_register_metods"),
    ],
)
def test_a_broken_plugin_is_named_and_leaves_nothing_behind(body, attributes, message) -> None:
    registry = Registry()
    registry.add("bad", plugin("fake_bad", body, **attributes), "dist-bad", "0.1")
    registry.add("good", plugin("fake_good", registers("fine")), "dist-good", "1")
    assert message in registry.plugins["bad"].error
    assert [entry.name for entry in registry.entries("method")] == ["fine"]
    assert any("dist-bad 0.1" in line for line in registry.problems)


def test_an_import_error_is_reported() -> None:
    registry = Registry()
    registry.add("gone", "no_such_module_anywhere", "dist-gone", "1")
    assert "no_such_module_anywhere" in registry.plugins["gone"].error


def test_an_unknown_name_suggests_the_nearest() -> None:
    registry = Registry()
    registry.add("one", plugin("fake_d", registers("cascadevae")), "d", "1")
    with pytest.raises(DistkError, match="Did you mean 'cascadevae'"):
        registry.find("method", "cascadvae")


def test_a_missing_object_names_its_plugin() -> None:
    registry = Registry()
    registry.add("one", plugin("fake_e", registers("x", "math:no_such")), "dist-e", "1")
    with pytest.raises(DistkError, match="dist-e"):
        registry.find("method", "x").load()


def test_disabled_plugins_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTK_DISABLE_PLUGINS", "vae_family, nonsense")
    registry = Registry()
    registry.discover()
    assert "disabled" in registry.plugins["vae_family"].error
    assert not any(entry.plugin == "vae_family" for entry in registry.entries("method"))
    assert not any("vae_family" in line for line in registry.problems)
