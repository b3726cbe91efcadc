"""Generic commands whose work a method may have done by a command of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from distk.checkpoint import read_header
from distk.commandline import loaded
from distk.errors import UsageError, nearest
from distk.options import Command
from distk.registry import registry
from distk.run import find_checkpoint


class OwnCommand(Command):
    """Hands what was typed to the command that the checkpoint's method names for this one, if it names one
    (`Method.own_commands`)."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        helps = bool({"--help", "-h"} & set(args))
        valued = {flag for p in self.params if not getattr(p, "is_flag", False) for flag in p.opts}
        given = named_checkpoint(args, valued)
        if given is None and helps:
            return super().make_context(info_name, args, parent, **extra)
        path = find_checkpoint(given)
        method = read_header(path).method
        words = registry().find("method", method).load().own_commands.get(self.name or "", "")
        group, _, name = words.rpartition(" ")
        command = loaded(registry().commands[(group, name)]) if words else self
        flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        known = {flag for flag in flags if flag.startswith("--")}
        for flag in [] if helps else typed_flags(args):
            if flag not in known:
                runs = f"for this checkpoint `distk {self.name}` is `distk {words}`, which" if words else f"'{path}'"
                has = "has no" if words else f"was made by {method}, for which `distk {self.name}` has no"
                raise UsageError(f"{runs} {has} {flag}.{nearest(flag, known)}")
        if command is self:
            return super().make_context(info_name, args, parent, **extra)
        return command.make_context(info_name, args, parent, **extra)


def named_checkpoint(args: list[str], valued: set[str]) -> Path | None:
    """The checkpoint among arguments of a command whose options are not all known yet; None where there is none.

    valued: options whose value the next argument is. A path is a checkpoint, there or not; after an unknown option only
    a folder or a .safetensors file.
    """
    for before, arg in zip(["", *args], args, strict=False):
        if arg.startswith("-") or before in valued:
            continue
        certain = not before.startswith("-") or "=" in before
        looks = os.sep in arg and not any(map(str.isspace, arg))
        if arg.endswith(".safetensors") or (looks or os.path.exists(arg) if certain else os.path.isdir(arg)):
            return Path(arg)
    return None


def typed_flags(args: list[str]) -> list[str]:
    """The long options among arguments, without their values, up to `--`."""
    end = args.index("--") if "--" in args else len(args)
    return [arg.partition("=")[0] for arg in args[:end] if arg.startswith("--")]
