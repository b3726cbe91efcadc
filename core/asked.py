"""Which scores are asked for, as texts: `dci`, or `factorvae:protocol=cascadevae,ignore=shape,split=test`.

The same words wherever a score is named: `distk eval --metric`, `--eval` and `--keep` of training, `eval` and `keep` in
a file of settings or a recipe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from distk.config import from_dict, hints
from distk.errors import DistkError, UsageError, nearest
from distk.registry import registry

OWN = ("split", "label")
"""What a text may set beside the metric's own settings."""
LABEL = re.compile(r"[\w .+=,:()\[\]\"-]{1,120}")


@dataclass(frozen=True)
class Asked:
    """One score. metric: its registered name. settings: those that its text gives. split: the rows to score, None:
    those of whoever asks. label: what the result is called."""

    metric: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    label: str = ""

    @property
    def text(self) -> str:
        """The score as a text, which `asked` reads back."""
        given = {**self.settings, **({"split": self.split} if self.split else {})}
        return f"{self.metric}:{','.join(f'{k}={_shown(v)}' for k, v in given.items())}" if given else self.metric


def from_settings(metric: str, settings: Mapping[str, Any]) -> Asked:
    """A score from settings that may have a `split` and a `label` among them."""
    own = {k: v for k, v in settings.items() if k not in OWN}
    return Asked(metric, own, settings.get("split"), settings.get("label", ""))


def asked(texts: Iterable[str | Asked], split: str | None = None) -> list[Asked]:
    """The scores that these texts name; `all` is every registered metric. Each has a label of its own.

    A text may name several, divided by commas; a setting's list may have commas, too (`ignore=shape,scale`), unless a
    member is the name of a metric. A setting's name may be shortened while it is clear (`ignore` for `ignore_factors`).
    A metric that is asked for once is labelled by its name, unless `label=` says otherwise, and one that is asked for
    several times by its whole text. split: of those that name none.
    Raises UsageError for an unknown metric or setting, and for two scores of one label.
    """
    texts = list(texts)
    found = [one for one in texts if isinstance(one, Asked)]
    for head, values in _parts(text for text in texts if isinstance(text, str)):
        if head == "all" and not values:
            found += [Asked(entry.name, split=split) for entry in registry().entries("metric")]
            continue
        name = registry().find("metric", head).name
        settings = {_full(name, key): _value(value) for key, value in values.items() if key not in OWN}
        _check(name, settings)
        found.append(Asked(name, settings, values.get("split", split), values.get("label", "")))
    return _labelled(found)


def _labelled(found: list[Asked]) -> list[Asked]:
    different: list[Asked] = []
    for one in found:
        if one not in different:
            different.append(one)
    metrics = [one.metric for one in different if not one.label]
    labelled = [
        replace(one, label=one.label or (one.metric if metrics.count(one.metric) == 1 else one.text))
        for one in different
    ]
    for one in labelled:
        if not LABEL.fullmatch(one.label):
            raise UsageError(f"a score cannot be labelled '{one.label}': use letters, digits, spaces and . + = - ( ).")
    if twice := [one.label for one in labelled if [o.label for o in labelled].count(one.label) > 1]:
        raise UsageError(f"two scores are labelled '{twice[0]}': give each its own, as METRIC:KEY=VALUE,label=NAME.")
    return labelled


def _parts(texts: Iterable[str]) -> list[tuple[str, dict[str, str]]]:
    """(metric, settings as texts) of each score, in order."""
    known = {name for entry in registry().entries("metric") for name in (entry.name, *entry.aliases)} | {"all"}
    found: list[tuple[str, dict[str, str]]] = []
    key = ""
    joined = ",".join(texts)
    for part in joined.split(",") if joined else ():
        head, colon, rest = (piece.strip() for piece in part.partition(":"))
        settings = found[-1][1] if found else {}
        inside = key and settings[key].startswith("[") and not settings[key].endswith("]")
        begins = head in known or (colon and "=" not in head) or not (key or "=" in part)
        if not found or (begins and not inside):
            found.append((head, {}))
            settings, key, part = found[-1][1], "", rest
        name, equals, value = part.partition("=")
        if equals and not inside:
            key = name.strip()
            settings[key] = value.strip()
        elif key:
            settings[key] += f",{part.strip()}"
        elif part.strip():
            raise UsageError(f"score '{head}:{part}' is not understood; write METRIC or METRIC:KEY=VALUE,KEY=VALUE.")
    return found


def _full(metric: str, key: str) -> str:
    """The whole name of a metric's setting. Raises UsageError where none, or several, begin like this."""
    try:
        known = list(hints(registry().find("metric", metric).load().Config))
    except DistkError:  # it cannot be imported, and will be a row with its reason
        return key
    key = key.replace("-", "_")
    fitting = [key] if key in known else [name for name in known if name.startswith(key)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(f"'{key}' may be {' or '.join(fitting)} of metric '{metric}': write the whole name.")
    raise UsageError(f"metric '{metric}' has no setting '{key}'.{nearest(key, [*known, *OWN])}")


def _check(metric: str, settings: Mapping[str, Any]) -> None:
    """Raise UsageError for a value that the metric does not take."""
    if settings:
        from_dict(registry().find("metric", metric).load().Config, settings, f"metric '{metric}'")


def _value(text: str) -> Any:
    """A list, a truth value or nothing as JSON writes it; what any other text is, the setting's type says."""
    try:
        return json.loads(text) if text.startswith("[") or text in ("true", "false", "null") else text
    except ValueError:
        return text


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, (str, int, float)) for v in value):
        return ",".join(map(str, value))
    return json.dumps(value)
