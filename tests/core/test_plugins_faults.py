"""What is wrong with a plugin is said with its name and distribution, and everything else goes on working."""

from __future__ import annotations

import importlib
import json
import signal
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import typer

from distk import cli, hookspecs
from distk.errors import DistkError, UsageError
from distk.hookspecs import hookimpl
from distk.registry import Registry, registry


def distribution(folder: Path, name: str, version: str, point: str, module: str, code: str) -> None:
    """An installed distribution as pip leaves it: a module and a dist-info folder with an entry point."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[distk]\n{point} = {module}\n")
    (folder / f"{module}.py").write_text("from distk import hookimpl\n" + code)


def method(name: str) -> str:
    return f"@hookimpl\ndef distk_register_methods(register):\n    register('{name}', 'math:pi', 'a summary')\n"


@pytest.fixture
def discovered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`discovered((name, version, point, module, code), ...)`: a registry that has met these distributions."""

    def discover(*distributions: tuple[str, str, str, str, str]) -> Registry:
        for one in distributions:
            distribution(tmp_path, *one)
            monkeypatch.delitem(sys.modules, one[3], raising=False)
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()
        made = Registry()
        made.discover()
        return made

    return discover


FAULTS = {
    "import": ("import no_such_package_at_all\n", "no_such_package_at_all"),
    "syntax": ("def broken(:\n", "SyntaxError"),
    "exit": ("raise SystemExit(3)\n", "SystemExit"),
    "interrupt": ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
    "strange": ("class Strange(BaseException):\n    pass\nraise Strange('x')\n", "Strange: x"),
    "generator": ("raise GeneratorExit\n", "GeneratorExit"),
    "signature": ("@hookimpl\ndef distk_run_logged(run, stepp):\n    pass\n", r"takes (run, step, values)"),
    "unknown": ("@hookimpl\ndef distk_register_methodz(register):\n    pass\n", "distk_register_methodz"),
    "unmarked": ("def distk_register_methods(register):\n    pass\n", "@distk.hookimpl"),
    "contract": (f"DISTK_CONTRACT = {hookspecs.CONTRACT + 1}\n", "update distk"),
    "name": (method("two words"), "two words"),
    "path": (method("fine").replace("math:pi", "math.pi"), "math.pi"),
    "call": (method("fine").replace(", 'a summary'", ""), "summary"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_distribution_is_named_and_the_rest_works(fault: str, discovered) -> None:
    code, message = FAULTS[fault]
    # The first hook is sound, so that what was registered before the fault must be taken back.
    sound = "@hookimpl\ndef distk_register_datasets(register):\n    register('early', 'math:pi', 's')\n"
    found = discovered(
        (f"bad-{fault}", "0.7", "bad", f"bad_{fault}", sound + code),
        ("acme-good", "1.0", "good", f"good_{fault}", method("acme-good")),
    )
    assert message in found.plugins["bad"].error
    line = next(problem for problem in found.problems if "bad" in problem)
    assert f"plugin 'bad' (bad-{fault} 0.7) is not in use" in line
    assert not any(entry.plugin == "bad" for kind in ("method", "dataset") for entry in found.entries(kind))
    assert not any(impl.plugin_name == "bad" for impl in found.manager.hook.distk_register_datasets.get_hookimpls())
    assert found.find("method", "acme-good").distribution == "acme-good"
    assert found.find("method", "cascadevae").distribution == "distk"
    with pytest.raises(UsageError, match="Not loaded: bad"):
        found.find("dataset", "early")


def test_a_clash_with_a_built_in_names_both_and_disabling_one_settles_it(discovered, monkeypatch) -> None:
    foreign = ("acme-taker", "3.1", "taker", "taker_a", method("cascadevae"))
    found = discovered(foreign, ("acme-other", "1", "other", "other_a", method("acme-other")))
    with pytest.raises(DistkError, match=r"plugin 'taker' \(acme-taker 3.1\)") as caught:
        found.find("method", "cascadevae")
    assert "plugin 'vae_family' (distk" in str(caught.value)
    assert found.find("method", "acme-other").plugin == "other"
    # By distribution, spelt as pip allows.
    monkeypatch.setenv("DISTK_DISABLE_PLUGINS", "Acme_Taker nonsense")
    again = Registry()
    again.discover()
    assert again.plugins["taker"].disabled
    assert again.problems == []
    assert again.find("method", "cascadevae").plugin == "vae_family"


def test_two_distributions_with_one_plugin_name_both_work(discovered, monkeypatch) -> None:
    found = discovered(
        ("acme-one", "1", "twin", "twin_a", method("acme-one")), ("acme-two", "1", "twin", "twin_b", method("acme-two"))
    )
    assert {found.find("method", f"acme-{n}").distribution for n in ("one", "two")} == {"acme-one", "acme-two"}
    monkeypatch.setenv("DISTK_DISABLE_PLUGINS", "acme-two")
    again = Registry()
    again.discover()
    assert again.find("method", "acme-one").plugin == "twin"
    assert sorted(p.disabled for p in again.plugins.values() if "twin" in p.name) == [False, True]


def test_disabling_takes_a_familys_names_away(monkeypatch) -> None:
    monkeypatch.setenv("DISTK_DISABLE_PLUGINS", "vae-family,text")
    found = Registry()
    found.discover()
    with pytest.raises(UsageError, match="unknown method 'cascadevae'"):
        found.find("method", "cascadevae")
    assert "DISTK_DISABLE_PLUGINS" in found.absence("vae_family", "distk")
    assert found.absence("metrics", "distk") == ""
    assert "install the distribution 'gone'" in found.absence("vae_family", "gone")


def test_an_object_whose_module_raises_is_reported_with_its_plugin(discovered, tmp_path) -> None:
    (tmp_path / "raises_late.py").write_text("raise ValueError('too late')\n")
    code = method("acme-late").replace("math:pi", "raises_late:Thing")
    found = discovered(("acme-late", "1", "late", "late_a", code))
    with pytest.raises(DistkError, match=r"plugin 'late' \(acme-late 1\) cannot be imported: ValueError: too late"):
        found.find("method", "acme-late").load()


# With the program's own registry


@pytest.fixture
def plugged():
    """`plugged(name, **functions)`: a plugin of these hooks in the running program, gone after the test."""
    names = []

    def plug(name: str, **functions: Any) -> None:
        module = types.ModuleType(f"plugged_{name}")
        for key, function in functions.items():
            setattr(module, key, hookimpl(function))
        sys.modules[module.__name__] = module
        registry().add(name, module.__name__, f"dist-{name}", "1.0")
        assert not registry().plugins[name].error, registry().plugins[name].error
        names.append(name)

    yield plug
    for name in names:
        registry()._forget(registry().plugins.pop(name))


def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *line: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command line."""
    monkeypatch.setattr(sys, "argv", ["distk", *line])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    return stop.value.code or 0, out, " ".join(err.split())


def test_a_command_that_is_taken_is_left_out(plugged, monkeypatch, capsys) -> None:
    def mine() -> None:
        raise AssertionError("a plugin's command took the place of a built-in one")

    def commands(app) -> None:
        app.command("info")(mine)
        app.command("acme-hello")(lambda: print("hello"))

    plugged("taker", distk_register_commands=commands)
    code, out, err = called(monkeypatch, capsys, "acme-hello")
    assert (code, out.strip()) == (0, "hello")
    assert "plugin 'taker' (dist-taker 1.0): its command 'info' is left out: plugin 'commands' (distk" in err
    code, out, _ = called(monkeypatch, capsys, "info", "--help")
    assert code == 0
    assert "checkpoint" in out.lower()


def test_commands_that_cannot_be_built_are_left_out(plugged, monkeypatch, capsys) -> None:
    def strange(value: int | str) -> None:
        """typer takes no union."""

    def commands(app) -> None:
        app.command("acme-strange")(strange)

    def breaks(app) -> None:
        app.command("acme-half")(lambda: None)
        raise ZeroDivisionError("on purpose")

    plugged("strange", distk_register_commands=commands)
    plugged("breaks", distk_register_commands=breaks)
    code, out, err = called(monkeypatch, capsys, "--help")
    assert code == 0
    assert "traverse" in out
    assert "plugin 'strange' (dist-strange 1.0): its commands are left out: AssertionError" in err
    assert "plugin 'breaks' (dist-breaks 1.0): its commands are left out: ZeroDivisionError: on purpose" in err
    code, _, err = called(monkeypatch, capsys, "acme-half")
    assert code == 2, "half of a broken plugin's commands stayed"


# Side by side: what one plugin does to commands is no matter of the others


def words_of(plugins: dict) -> set[str]:
    """What every plugin of the program brings to the command line."""
    return {word for plugin in plugins.values() for word in plugin.provides.get("command", [])}


def test_an_app_cannot_take_a_group_or_a_command_away(plugged, monkeypatch, capsys) -> None:
    before = {place: (c.plugin.name, c.path) for place, c in registry().commands.items()}

    def commands(app) -> None:
        study = typer.Typer(help="studies of somebody else")
        study.command("mine")(lambda: print("mine"))
        app.add_typer(study, name="study")
        app.command("train")(lambda: print("not training"))
        app.command("acme-side")(lambda: print("side"))

    plugged("greedy", distk_register_commands=commands)
    code, out, err = called(monkeypatch, capsys, "acme-side")
    assert (code, out.strip()) == (0, "side")
    for word in ("study", "train"):
        owner = registry().commands[("", word)].plugin
        assert f"plugin 'greedy' (dist-greedy 1.0): its command '{word}' is left out: {owner} has that name" in err
    after = {place: (c.plugin.name, c.path) for place, c in registry().commands.items()}
    assert after == {**before, ("", "acme-side"): ("greedy", "")}
    code, out, _ = called(monkeypatch, capsys, "train", "--help")
    assert "cascadevae" in out


@pytest.mark.parametrize("raises", [False, True])
def test_an_app_that_is_emptied_is_only_the_plugins_own(raises: bool, plugged, monkeypatch, capsys) -> None:
    before = words_of(registry().plugins)

    def commands(app) -> None:
        app.command("acme-gone")(lambda: None)
        app.registered_commands.clear()
        app.registered_groups.clear()
        if raises:
            raise RuntimeError("after clearing")

    plugged("clears", distk_register_commands=commands)
    plugged("beside", distk_register_commands=lambda app: app.command("acme-beside")(lambda: print("beside")) and None)
    code, out, err = called(monkeypatch, capsys, "acme-beside")
    assert (code, out.strip()) == (0, "beside")
    assert ("RuntimeError: after clearing" in err) == raises
    assert words_of(registry().plugins) == before | {"acme-beside"}


def test_two_plugins_that_claim_one_command_are_both_named(plugged, monkeypatch, capsys) -> None:
    def claims(register) -> None:
        register("acme-both", f"{__name__}:said", "says who it is")

    def app_claims(app) -> None:
        app.command("acme-both")(lambda: print("second"))

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__, types.ModuleType(__name__)))
    monkeypatch.setattr(sys.modules[__name__], "said", lambda: print("first"), raising=False)
    plugged("first", distk_register_commands=lambda register: claims(register))
    plugged("second", distk_register_commands=lambda register: claims(register))
    plugged("third", distk_register_commands=lambda app: app_claims(app))
    code, out, err = called(monkeypatch, capsys, "acme-both")
    assert (code, out.strip()) == (0, "first")
    # Another plugin with the same path is another claim all the same: who removes the first one shall know it.
    for late in ("second", "third"):
        line = (
            f"plugin '{late}' (dist-{late} 1.0): its command 'acme-both' is left out: plugin 'first' (dist-first 1.0)"
        )
        shown = called(monkeypatch, capsys, "plugins")[2] if late == "third" else err
        assert line in shown


def test_a_command_by_path_and_one_by_app_run_and_are_listed(plugged, monkeypatch, capsys, tmp_path) -> None:
    (tmp_path / "acme_by_path.py").write_text(
        'def hello(name: str = \'world\') -> None:\n    """Greet."""\n    print(f\'hello {name}\')\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def by_path(register) -> None:
        register("acme", "", "a group")
        register("hello", "acme_by_path:hello", "Greet.", group="acme")

    def by_app(app) -> None:
        group = typer.Typer()
        group.command("deep")(lambda: print("deep"))
        group.command("deeper")(lambda: print("deeper"))
        app.add_typer(group, name="acme-app")

    plugged("path", distk_register_commands=by_path)
    plugged("app", distk_register_commands=by_app, distk_run_logged=lambda run, step, values: None)
    assert called(monkeypatch, capsys, "acme", "hello", "--name", "you")[:2] == (0, "hello you\n")
    assert called(monkeypatch, capsys, "acme-app", "deep")[:2] == (0, "deep\n")
    out = called(monkeypatch, capsys, "plugins", "--json")[1]
    brought = {plugin["name"]: plugin["provides"] for plugin in json.loads(out)["plugins"]}
    assert brought["path"] == {"command": ["acme hello"]}
    assert brought["app"] == {"command": ["acme-app deep", "acme-app deeper"], "logger": ["app"]}
    monkeypatch.setenv("COLUMNS", "80")
    out = called(monkeypatch, capsys, "plugins")[1]
    assert max(map(len, out.splitlines())) <= 80
    said = " ".join(out.split())
    assert "app dist-app 1.0 commands acme-app deep, acme-app deeper loggers app" in said
    assert "cascadevae mcf" in said


def test_a_plugin_that_takes_long_is_named_while_it_does(discovered, monkeypatch, capfd) -> None:
    monkeypatch.setattr("distk.guard.PATIENCE", 0.2)
    discovered(("acme-slow", "1", "slow", "slow_a", "import time\ntime.sleep(0.6)\n" + method("acme-slow")))
    assert "loading plugin 'slow' (acme-slow 1) ..." in capfd.readouterr().err


def test_what_a_plugin_prints_at_import_is_not_a_result(discovered, capsys) -> None:
    found = discovered(("acme-chatty", "1", "chatty", "chatty_a", "print('hello')\n" + method("acme-chatty")))
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "hello\n")
    assert found.find("method", "acme-chatty").plugin == "chatty"


def test_ctrl_c_while_a_plugin_is_loaded_is_the_users(discovered, monkeypatch) -> None:
    """A real one, unlike a KeyboardInterrupt that a module raises: it stops, and names what was being loaded."""
    code = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)\n"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # workers of a parallel run ignore the signal
    try:
        with pytest.raises(DistkError, match=r"stopped by Ctrl-C while plugin 'hung' \(acme-hung 1\)") as caught:
            discovered(("acme-hung", "1", "hung", "hung_a", code))
        assert caught.value.exit_code == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("kind", ["method", "dataset", "metric", "penalty"])
@pytest.mark.parametrize("path", ["os:system", "math:pi", "pathlib:Path", "distk.config:NoConfig"])
def test_what_is_registered_must_be_of_its_kind(discovered, kind, path) -> None:
    hook = {"method": "methods", "dataset": "datasets", "metric": "metrics", "penalty": "penalties"}[kind]
    code = f"@hookimpl\ndef distk_register_{hook}(register):\n    register('mine', '{path}', 's')\n"
    found = discovered(("acme-odd", "1", "odd", "odd_a", code))
    with pytest.raises(DistkError, match=rf"{kind} 'mine' of plugin 'odd' \(acme-odd 1\) is not a subclass of"):
        found.find(kind, "mine").load()


def test_a_command_is_a_function_of_python(discovered) -> None:
    code = "@hookimpl\ndef distk_register_commands(register):\n    register('mine', 'os:getpid', 's')\n"
    found = discovered(("acme-odd", "1", "odd", "odd_b", code))
    with pytest.raises(DistkError, match=r"command 'mine' of plugin 'odd' \(acme-odd 1\) is no function"):
        found.commands[("", "mine")].load()
