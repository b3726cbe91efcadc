"""The stand-in's grammar by hand-written sentences and rules of agreement; Europarl joined on English."""

from __future__ import annotations

import gzip
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import distk
from distk import DistkError, UsageError
from distk.plugins.text.common.vocab import split_words
from distk.plugins.text.nlmultitask import grammar
from distk.plugins.text.nlmultitask.data import TEST, join, kept_words, split_of
from distk.plugins.text.nlmultitask.grammar import GRAMMAR, Filled, fill
from distk.plugins.text.nlmultitask.lexicon import WORDS
from distk.plugins.text.nlmultitask.reading import parse
from distk.testing import check_dataset


@pytest.fixture(autouse=True)
def seeded(seed: int) -> None:
    random.seed(seed)


def some(n: int, expand: float = 0.4) -> list[Filled]:
    return [fill(random.choice(GRAMMAR), random.Random(random.random()), expand=expand) for _ in range(n)]


# The grammar

BY_HAND = {
    "No man ever loves.": ("Kein Mann liebt jemals.", "Aucun homme n'aime jamais."),
    "Are schools grey?": ("Sind Schulen grau?", "Les écoles sont-elles grises ?"),
    "The table has an apple.": ("Der Tisch hat einen Apfel.", "La table a une pomme."),
    "The children of story often avoid the important law, but some women still eat their school.": (
        "Die Kinder von Geschichte meiden oft das wichtige Gesetz, aber einige Frauen essen noch ihre Schule.",
        "Les enfants d'histoire évitent souvent la loi importante, mais quelques femmes mangent encore leur école.",
    ),
    "In the house of a rich tree, the mother will buy the knife of hiding the answer.": (
        "Im Haus von einem reichen Baum wird die Mutter das Messer kaufen, die Antwort zu verstecken.",
        "Dans la maison d'un arbre riche, la mère va acheter le couteau de cacher la réponse.",
    ),
    "Birds use the cold kitchen of chairs eating on the bridge.": (
        "Vögel nutzen die kalte Küche von Stühlen, die auf der Brücke essen.",
        "Des oiseaux utilisent la cuisine froide de chaises mangeant sur le pont.",
    ),
    "In the city of letter, doctors would rather draw without key than avoid any sad kings.": (
        "In der Stadt von Brief würden Ärzte lieber ohne Schlüssel zeichnen als traurige Könige meiden.",
        "Dans la ville de lettre, des médecins préféreraient dessiner sans clé plutôt que d'éviter des rois tristes.",
    ),
    "Count the light lamp!": ("Zählen Sie die leichte Lampe!", "Comptez la lampe légère !"),
    "There is a white horse in the forest.": (
        "Es gibt ein weißes Pferd im Wald.",
        "Il y a un cheval blanc dans la forêt.",
    ),
    "The guest that forgets the church is weak.": (
        "Der Gast, der die Kirche vergisst, ist schwach.",
        "L'invité qui oublie l'église est faible.",
    ),
    "Does the woman burn the car?": ("Verbrennt die Frau den Wagen?", "La femme brûle-t-elle la voiture ?"),
    "At night the friend hates a green window.": (
        "Nachts hasst der Freund ein grünes Fenster.",
        "La nuit, l'ami déteste une fenêtre verte.",
    ),
    "The flowers are always blue.": ("Die Blumen sind immer blau.", "Les fleurs sont toujours bleues."),
    "My school protects your island.": ("Meine Schule schützt deine Insel.", "Mon école protège ton île."),
}


def words_in(line: str, frame: grammar.Frame) -> dict[str, Any]:
    """The lexicon's rows of a sentence without expansions, by the places of its frame."""
    tokens = [t for t in frame.en if t.kind != "word"]
    names = [name for t in tokens for name in (t.word, t.noun) if name]
    forms = {form: (letter, row) for letter in "NVADT" for row in getattr(WORDS, letter)
             for form in ((" ".join(row.en),) if letter in "DT" else row[:2] if letter == "N" else row[:3]
                          if letter == "V" else row[:1])}  # fmt: skip
    plain = re.sub(r"[.,!?]", " ", line[0].lower() + line[1:])
    longest = sorted(forms, key=len, reverse=True)
    found = [m[0] for m in re.finditer(r"\b(" + "|".join(map(re.escape, longest)) + r")\b", plain)]
    wanted = [name[0] for name in names]
    rows = [forms[form] for form in found]
    assert [letter for letter, _ in rows] == wanted, (line, rows)
    return dict(zip(names, [row for _, row in rows], strict=True))


@pytest.mark.parametrize(("english", "others"), BY_HAND.items())
def test_sentences_written_by_hand(english: str, others: tuple[str, str]) -> None:
    number = parse(english)
    assert number is not None
    made = Filled(GRAMMAR[number], words_in(english, GRAMMAR[number]))
    assert made.english()[0] == english
    assert (made.german(), made.french()) == others


def test_a_place_and_an_adjective_beside_the_pattern() -> None:
    def row(letter: str, english: str) -> Any:
        return next(row for row in getattr(WORDS, letter) if row.en in (english, (english,)))

    words = {"N1": row("N", "judge"), "N2": row("N", "flower"), "A1": row("A", "slow")}
    near = Filled(GRAMMAR[17], words, "N1", None, row("P", "near"), row("N", "market"))
    assert near.english()[0] == "The judge near the market is as slow as the flower."
    assert near.german() == "Der Richter beim Markt ist so langsam wie die Blume."
    assert near.french() == "Le juge près du marché est aussi lent que la fleur."
    empty = Filled(GRAMMAR[17], words, "N2", row("A", "empty"))
    assert empty.english() == (
        "The judge is as slow as the empty flower.",
        ["DT", "NN", "VBZ", "RB", "JJ", "IN", "DT", "JJ", "NN", "."],
    )
    assert empty.german() == "Der Richter ist so langsam wie die leere Blume."
    assert empty.french() == "Le juge est aussi lent que la fleur vide."


def test_every_word_has_a_tag_and_verbs_agree_with_their_subjects() -> None:
    first_is_subject = {0, 1, 2, 3, 4, 5, 9, 11, 12, 15, 16, 17, 18, 22, 23}
    for made in some(500):
        line, tags = made.english()
        words = split_words(line, raw=True)
        assert len(words) == len(tags), line
        assert parse(line) == made.frame.number, line
        for word, tag in zip(words, tags, strict=True):
            assert (tag in (".", ",")) == (word in (".", ",", "!", "?"))
        if made.frame.number in first_is_subject:
            noun = next(tag for tag in tags if tag in ("NN", "NNS"))
            verb = next(tag for tag in tags if tag in ("VBZ", "VBP"))
            assert (noun, verb) in (("NN", "VBZ"), ("NNS", "VBP")), line
        for i, word in enumerate(words[:-1]):
            if word in ("a", "an"):
                assert (words[i + 1][0] in "aeiou") == (word == "an"), line


GERMAN = {
    "der": {("m", "n"), ("f", "d")}, "die": {("f", "n"), ("f", "a"), ("p", "n"), ("p", "a")},
    "das": {("n", "n"), ("n", "a")}, "den": {("m", "a"), ("p", "d")}, "dem": {("m", "d"), ("n", "d")},
    "im": {("m", "d"), ("n", "d")}, "vom": {("m", "d"), ("n", "d")}, "beim": {("m", "d"), ("n", "d")},
    "ein": {("m", "n"), ("n", "n"), ("n", "a")}, "eine": {("f", "n"), ("f", "a")}, "einen": {("m", "a")},
    "einem": {("m", "d"), ("n", "d")}, "einer": {("f", "d")}, "kein": {("m", "n"), ("n", "n")}, "keine": {("f", "n")},
    "mein": {("m", "n"), ("n", "n")}, "meine": {("f", "n")}, "dein": {("n", "a")}, "deine": {("f", "a")},
    "deinen": {("m", "a")}, "einige": {("p", "n")},
}  # fmt: skip
"""Determiner -> gender (p: plural) and case that it may stand for."""
ENDINGS = {  # of an adjective behind a determiner: a grammar's table, by gender and case
    "weak": {"mn": "e", "fn": "e", "nn": "e", "fa": "e", "na": "e"},
    "mixed": {"mn": "er", "fn": "e", "nn": "es", "fa": "e", "na": "es"},
}


def test_german_articles_and_adjectives_agree() -> None:
    nouns = {noun.de: noun.gender_de for noun in WORDS.N} | {}
    plurals = {noun.des for noun in WORDS.N} | {noun.des + "n" for noun in WORDS.N if noun.des[-1] not in "ns"}
    stems = {adjective.de for adjective in WORDS.A}
    seen = 0
    for made in some(700):
        words = re.findall(r"\w+", made.german())
        for i, word in enumerate(words):
            det = word.lower()
            if det not in GERMAN or i + 1 == len(words):
                continue
            adjective = next((w for w in words[i + 1 : i + 2] if any(w.startswith(s) for s in stems)), "")
            at = i + 1 + bool(adjective)
            if at >= len(words) or (words[at] not in nouns and words[at] not in plurals):
                continue  # a relative pronoun
            noun, kinds = words[at], GERMAN[det]
            genders = ({nouns[noun]} if noun in nouns else set()) | ({"p"} if noun in plurals else set())
            fitting = {kind for kind in kinds if kind[0] in genders}
            assert fitting, made.german()
            if adjective:
                kind = "mixed" if det.startswith(("ein", "kein", "mein", "dein")) else "weak"
                ending = {ENDINGS[kind].get(gender + case, "en") for gender, case in fitting}
                assert any(adjective == stem + e for stem in stems for e in ending), made.german()
            seen += 1
    assert seen > 500


def test_french_articles_and_adjectives_agree() -> None:
    gender = {noun.fr: noun.gender_fr for noun in WORDS.N}
    plural = {noun.frs: noun.gender_fr for noun in WORDS.N}
    wanted = {"le": "m", "du": "m", "un": "m", "aucun": "m", "la": "f", "une": "f", "aucune": "f", "ma": "f", "ta": "f"}
    forms = {("m", 0): "fr_m", ("f", 0): "fr_f", ("m", 1): "fr_ms", ("f", 1): "fr_fs"}
    adjectives = {form: adjective for adjective in WORDS.A for form in adjective[2:]}
    vowel = re.compile(r"(?i)\b(le|la|de|ne|que) (?:[aàâeéèêiîoôuûyœ]|hom|hist)")
    seen = 0
    for made in some(700):
        line = made.french()
        assert not vowel.search(line.replace("il y a", "")), line
        assert not re.search(r"\b(de le|de les)\b", line), line
        words = re.findall(r"[\w-]+", line.replace("'", " ").lower())
        for i, word in enumerate(words):
            noun = words[i + 1] if i + 1 < len(words) else ""
            if word in wanted and noun in gender and noun not in ("soir", "nuit", "dimanche"):
                assert wanted[word] == gender[noun], line
                seen += 1
            many = word in plural and word not in gender
            if (word in gender or many) and noun in adjectives and made.frame.number != 9:
                kind = (plural if many else gender)[word], int(many)
                assert getattr(adjectives[noun], forms[kind]) == noun, line
    assert seen > 500


def test_what_is_no_sentence_of_the_grammar_is_not_read() -> None:
    assert parse("The dog is red.") == 0
    assert parse("The old dog in the house is red.") is None  # old is no word of it
    for line in ("", "The dog is red", "Dog the is red.", "The dog is redd.", "the dog is red. the dog is red."):
        assert parse(line) is None
    assert len({row.en for row in WORDS.N}) == 60
    assert [len(getattr(WORDS, letter)) for letter in "NVAD"] == [60, 30, 30, 12]
    assert len(GRAMMAR) == 24


# The stand-in as data


def lines_of(data: distk.Dataset, split: str, column: str = "x") -> list[str]:
    return ["".join(words) if column != "pos" else " ".join(words) for words in data.written(data.rows(split), column)]  # type: ignore[attr-defined]


def test_the_stand_in_is_the_same_each_time_and_no_sentence_lies_in_two_splits() -> None:
    data = distk.dataset("standin-trilingual", device="cpu", sentences=3000)
    again = distk.dataset("standin-trilingual", device="cpu", sentences=3000)
    other = distk.dataset("standin-trilingual", device="cpu", sentences=3000, corpus_seed=1)
    held = {split: lines_of(data, split) for split in ("train", "dev", "test")}
    assert held == {split: lines_of(again, split) for split in ("train", "dev", "test")}
    assert held["train"] != lines_of(other, "train")
    assert all(split_of(line) == split for split, lines in held.items() for line in lines)
    share = len(held["test"]) / len(data)
    assert abs(share - TEST) < 5 * (TEST * (1 - TEST) / 3000) ** 0.5
    for split in held:
        tags = lines_of(data, split, "pos")
        assert [len(t.split()) for t in tags] == [len(split_words(line, raw=True)) for line in held[split]]
        assert all(re.search("[äöüß]|der|die|das|ein|[A-Z]", line) for line in lines_of(data, split, "de"))
    assert set(data.batch(torch.arange(2))) == {"x", "de", "fr", "pos"}
    frames = Counter(parse(line) for line in held["train"])
    assert set(frames) == set(range(24))


def test_words_held_out_of_a_frame_are_only_in_its_other_sentences() -> None:
    data = distk.dataset("standin-trilingual", device="cpu", sentences=1500, hold_out_words=True)
    banned = {i: {row.en for row in WORDS.N} - {row.en for row in kept_words(i, "N")} for i in range(len(GRAMMAR))}
    assert all(len(words) == 15 for words in banned.values())
    assert len({frozenset(words) for words in banned.values()}) > 20, "each frame has words of its own"

    def bad(line: str) -> bool:
        return bool(banned[parse(line)] & set(re.findall(r"\w+", line.lower())))  # type: ignore[index]

    assert not any(bad(line) for line in lines_of(data, "train"))
    assert sum(bad(line) for line in lines_of(data, "test")) > 20
    frames = Counter(parse(line) for line in lines_of(data, "train"))
    assert max(frames.values()) < 3 * min(frames.values()), "long frames are as many as short ones"


def test_languages_and_a_share_of_the_training_sentences() -> None:
    data = distk.dataset("standin-trilingual", device="cpu", sentences=600, languages="de,en", train_fraction=0.5)
    whole = distk.dataset("standin-trilingual", device="cpu", sentences=600, languages="de,en")
    assert set(data.columns) == {"en", "pos"}  # type: ignore[attr-defined]
    assert len(data.rows("train")) == round(len(whole.rows("train")) / 2)  # type: ignore[arg-type]
    assert set(lines_of(data, "train")) < set(lines_of(whole, "train"))
    assert lines_of(data, "test") == lines_of(whole, "test")
    with pytest.raises(UsageError, match="has the languages en, de and fr"):
        distk.dataset("standin-trilingual", device="cpu", languages="en,it")
    check_dataset("standin-trilingual", sentences=300, variant="short")


# Europarl


def europarl(folder: Path, zipped: bool = False) -> Path:
    """Two pairs of files with repeated sentences: `Yes.` twice in both, `No.` twice in one and once in the other."""
    pairs = {
        "de": [("Hello.", "Hallo."), ("Yes.", "Ja eins."), ("", "Leer."), ("No.", "Nein eins."), ("Only.", "So."),
               ("Yes.", "Ja zwei."), ("No.", "Nein zwei."), ("Last.", "")],
        "fr": [("Yes.", "Oui un."), ("No.", "Non."), ("Hello.", "Bonjour."), ("Yes.", "Oui deux."), ("Last.", "Fin.")],
    }  # fmt: skip
    for name, rows in pairs.items():
        for side, lines in (("en", [a for a, _ in rows]), (name, [b for _, b in rows])):
            path = folder / f"europarl-v7.{name}-en.{side}"
            text = "".join(line + "\n" for line in lines).encode()
            if zipped:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(text))
            else:
                path.write_bytes(text)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_europarl_is_joined_on_its_english(tmp_path: Path, zipped: bool) -> None:
    data = distk.dataset("europarl", device="cpu", data_dir=europarl(tmp_path, zipped), paper_split=True)
    rows = torch.arange(len(data))
    columns = (data.written(rows, name) for name in ("x", "de", "fr"))  # type: ignore[attr-defined]
    found = [tuple(map("".join, row)) for row in zip(*columns, strict=True)]
    assert found == [
        ("Hello.", "Hallo.", "Bonjour."),
        ("Yes.", "Ja eins.", "Oui un."),
        ("Yes.", "Ja zwei.", "Oui deux."),
    ]
    two = distk.dataset(
        "europarl", device="cpu", data_dir=tmp_path, paper_split=True, languages="en,fr", tagger="builtin"
    )
    assert len(two.rows("train")) + len(two.rows("test")) == 5  # type: ignore[arg-type]
    assert set(two.columns) == {"fr", "pos"}  # type: ignore[attr-defined]


def test_a_join_takes_every_occurrence_once(seed: int) -> None:
    words = ["a", "b", "c", "d"]
    first, second = ([random.choice(words) for _ in range(30)] for _ in range(2))
    pairs = {"de": (first, [f"d{i}" for i in range(30)]), "fr": (second, [f"f{i}" for i in range(30)])}
    pairs["de"][0].extend("xyx")
    pairs["fr"][0].extend("xxy")
    pairs["de"][1].extend(["dx1", "dy", "dx2"])
    pairs["fr"][1].extend(["fx1", "fx2", "fy"])
    found = join(pairs)
    shared = {w for w in {*words, "x", "y"} if pairs["de"][0].count(w) == pairs["fr"][0].count(w)}
    expected = []
    for word, german in zip(*pairs["de"], strict=True):
        if word in shared:
            turn = sum(w == word for w, _, _ in expected)
            french = [f for w, f in zip(*pairs["fr"], strict=True) if w == word][turn]
            expected.append((word, german, french))
    assert list(zip(found["en"], found["de"], found["fr"], strict=True)) == expected
    assert {"x", "y"} <= shared


def test_equal_sentences_lie_in_one_split(tmp_path: Path) -> None:
    lines = [f"Sentence {i % 400}." for i in range(2000)]
    for name, rows in (("en", lines), ("de", [f"Satz {i}." for i in range(2000)])):
        (tmp_path / f"europarl-v7.de-en.{name}").write_text("".join(line + "\n" for line in rows))
    data = distk.dataset("europarl", device="cpu", data_dir=tmp_path, languages="en,de")
    held = [set(lines_of(data, split)) for split in ("train", "dev", "test")]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    assert sum(map(len, held)) == 400
    order = distk.dataset("europarl", device="cpu", data_dir=tmp_path, languages="en,de", paper_split=True)
    last = 2000 - round(2000 * 15 / 17)
    assert lines_of(order, "test") == lines[-last:]


def test_wrong_files_of_europarl_are_refused(tmp_path: Path) -> None:
    def opened(**settings: Any) -> distk.Dataset:
        return distk.dataset("europarl", device="cpu", data_dir=tmp_path, **settings)

    with pytest.raises(UsageError, match="joins languages on English"):
        opened(languages="de,fr")
    europarl(tmp_path)
    english = tmp_path / "europarl-v7.fr-en.en"
    whole = english.read_bytes()
    english.write_bytes(whole + b"One more.\n")
    with pytest.raises(UsageError, match=r"fr-en.en' has 6 lines and '.*fr-en.fr' 5"):
        opened()
    english.write_bytes(whole.replace(b"Yes", b"\xe9s"))
    with pytest.raises(DistkError, match=r"fr-en.en' is not utf-8: line 1, byte offset 0; .*--encoding latin-1"):
        opened()
    english.unlink()
    with pytest.raises(UsageError, match=r"found no '.*europarl-v7.fr-en.en'"):
        opened()
    english.write_text("".join(f"{i}\n" for i in range(5)))
    with pytest.raises(UsageError, match="stands in every pair"):
        opened()


def test_tags_of_other_lines_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [made.english() for made in some(400)]
    for shift in (0, 1):
        tags = [" ".join(pairs[(i + shift) % 400][1]) for i in range(400)]
        (tmp_path / "train.en").write_text("".join(line + "\n" for line, _ in pairs))
        (tmp_path / "train.pos").write_text("".join(line + "\n" for line in tags))
        capsys.readouterr()
        distk.dataset("parallel", device="cpu", data_dir=tmp_path, max_len=130)
        told = " ".join(capsys.readouterr().err.split())
        assert ("do these files belong together?" in told) == bool(shift), told
