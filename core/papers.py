"""A paper's table of contents: what its folder holds, by name, without importing any of it.

    # my_plugin/mypaper/__init__.py
    \"\"\"Mine: what it is in a few words (A. Author, 2026).\"\"\"
    from distk.papers import Paper

    paper = Paper(__name__, cite="Author 2026", tags=("vae",))
    paper.method("mine", "method:Mine", "what it does, in one line")
    paper.command("count", "commands:count", "what it prints")      # distk mypaper count

A family is a plugin whose hook `distk_register_papers` names its papers' packages. Keep torch out of these modules.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

KINDS = ("method", "dataset", "metric", "penalty", "study", "engine")
"""What has a name in the registry; each kind has a hook of its own. A paper brings all but engines."""


@dataclass(frozen=True)
class Row:
    """One line of a paper's table. path: "package.module:name", absolute. was: words that led there before.

    runner, judge: paths of a study's functions, or empty.
    """

    kind: str
    name: str
    path: str
    summary: str
    cite: str = ""
    tags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    was: str = ""
    runner: str = ""
    judge: str = ""


class Paper:
    """A paper in a package of its own.

    package: pass `__name__`; paths are relative to it, and its last part, with dashes for underscores, names the group
        of the paper's commands.
    cite: short citation. tags: of each of its methods, beside their own.
    """

    def __init__(self, package: str, *, cite: str = "", tags: tuple[str, ...] = ()) -> None:
        self.package, self.cite, self.tags = package, cite, tags
        self.name = package.rpartition(".")[2].replace("_", "-")
        self.rows: list[Row] = []

    @property
    def title(self) -> str:
        """The first line of the package's docstring, without its full stop."""
        text = (getattr(sys.modules.get(self.package), "__doc__", None) or "").strip()
        return text.partition("\n")[0].rstrip(".") or self.cite

    def named(self, kind: str) -> list[Row]:
        """The rows of one kind, in the order of the table."""
        return [row for row in self.rows if row.kind == kind]

    def method(
        self,
        name: str,
        path: str,
        summary: str,
        *,
        cite: str | None = None,
        tags: tuple[str, ...] = (),
        aliases: tuple[str, ...] = (),
    ) -> None:
        """A subclass of `distk.Method`. path: "module:Class" in this package. cite: another source than the paper."""
        self._add("method", name, path, summary, self.cite if cite is None else cite, (*self.tags, *tags), aliases)

    def dataset(self, name: str, path: str, summary: str, *, cite: str = "", tags: tuple[str, ...] = ()) -> None:
        """A subclass of `distk.Dataset`."""
        self._add("dataset", name, path, summary, cite, tags)

    def metric(
        self,
        name: str,
        path: str,
        summary: str,
        *,
        cite: str | None = None,
        tags: tuple[str, ...] = (),
        aliases: tuple[str, ...] = (),
    ) -> None:
        """A subclass of `distk.Metric`."""
        self._add("metric", name, path, summary, self.cite if cite is None else cite, tags, aliases)

    def penalty(
        self, name: str, path: str, summary: str, *, cite: str | None = None, aliases: tuple[str, ...] = ()
    ) -> None:
        """A subclass of `distk.Penalty`."""
        self._add("penalty", name, path, summary, self.cite if cite is None else cite, (), aliases)

    def command(self, name: str, path: str, summary: str, *, was: str = "") -> None:
        """`distk PAPER NAME`. path: a function with typer's annotations, or a `typer.Typer` app.

        was: the words by which it was called before, which then answer with the new ones.
        """
        self._add("command", name, path, summary, was=was)

    def study(
        self, name: str, path: str, summary: str, *, cite: str | None = None, runner: str = "", judge: str = ""
    ) -> None:
        """A recipe: `distk study run NAME`. path: a file below this package, as "studies/table1.toml".

        runner, judge: "module:function" in this package, as `distk_register_studies` describes them.
        """
        row = Row("study", name, f"{self.package}:{path}", summary, self.cite if cite is None else cite)
        runner, judge = (f"{self.package}.{value}" if value else "" for value in (runner, judge))
        self.rows.append(replace(row, runner=runner, judge=judge))

    def _add(
        self,
        kind: str,
        name: str,
        path: str,
        summary: str,
        cite: str = "",
        tags: tuple[str, ...] = (),
        aliases: tuple[str, ...] = (),
        was: str = "",
    ) -> None:
        self.rows.append(Row(kind, name, f"{self.package}.{path}", summary, cite, tags, aliases, was))
