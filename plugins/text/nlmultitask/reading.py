"""Reading English sentences of the stand-in's grammar: which frame, if any, a sentence belongs to."""

from __future__ import annotations

import re
from collections.abc import Sequence

from distk.plugins.text.nlmultitask.grammar import GRAMMAR, Token
from distk.plugins.text.nlmultitask.lexicon import WORDS


def _any(words: Sequence[str]) -> str:
    return "(?:" + "|".join(sorted({re.escape(w) for w in words}, key=len, reverse=True)) + ")"


def _pattern(token: Token) -> str:
    """What a token of English may look like, as a regular expression, with the space before it."""
    words = WORDS
    if token.kind == "word":
        return ("" if token.tag in (".", ",") else " ") + re.escape(token.word)
    if token.kind == "slot":
        letter = token.word[0]
        if letter == "V":
            column = {"": "en", "p": "en", "s": "en3", "g": "eng"}[token.form]
            return " " + _any([getattr(verb, column) for verb in words.V])
        return " " + _any(
            [w.en for w in words.A] if letter == "A" else [" ".join(w.en) for w in getattr(words, letter)]
        )
    adjective, noun = _any([w.en for w in words.A]), _any([w.en for w in words.N])
    place = f"(?: {_any([p.en[0] for p in words.P])} the {noun})?"
    free = token.det in ("the", "a") and not token.word
    det = {"-": "", "a": " an?"}.get(token.det, " " + token.det)
    own = f" {adjective}" if token.word else f"(?: {adjective})?" if free else ""
    return det + own + " " + (_any([w.ens for w in words.N]) if token.plural else noun) + (place if free else "")


_SENTENCES = tuple(re.compile("".join(map(_pattern, frame.en)).removeprefix(" ")) for frame in GRAMMAR)


def parse(line: str) -> int | None:
    """The number of the frame that an English sentence belongs to, None for a sentence that is not of this grammar."""
    plain = line[:1].lower() + line[1:]
    return next((i for i, pattern in enumerate(_SENTENCES) if pattern.fullmatch(plain)), None)
