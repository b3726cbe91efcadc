"""The words of the stand-in corpus in English, German and French, with what their grammar needs to know.

A row is one word; `/` parts the languages. German and French nouns carry their gender (m, f, n); a French noun with a
silent h before which the article is elided is written with a `*`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Noun(NamedTuple):
    """Singular and plural in each language, and the genders of German and French."""

    en: str
    ens: str
    de: str
    des: str
    gender_de: str
    fr: str
    frs: str
    gender_fr: str


class Verb(NamedTuple):
    """A regular transitive verb. en: base, third person, participle. de: infinitive (also the plural), third person.
    fr: infinitive, third person singular and plural, participle, imperative."""

    en: str
    en3: str
    eng: str
    de: str
    de3: str
    fr: str
    fr3: str
    frp: str
    frg: str
    frz: str


class Adjective(NamedTuple):
    """en; the German stem, also its form after a verb; French by gender and number."""

    en: str
    de: str
    fr_m: str
    fr_f: str
    fr_ms: str
    fr_fs: str


class Phrase(NamedTuple):
    """An adverb, a time or a preposition. tags: Penn tags of the English words."""

    en: tuple[str, ...]
    tags: tuple[str, ...]
    de: tuple[str, ...]
    fr: tuple[str, ...]


_NOUNS = """
dog dogs / Hund Hunde m / chien chiens m; cat cats / Katze Katzen f / chat chats m
house houses / Haus Häuser n / maison maisons f; teacher teachers / Lehrer Lehrer m / professeur professeurs m
river rivers / Fluss Flüsse m / rivière rivières f; garden gardens / Garten Gärten m / jardin jardins m
city cities / Stadt Städte f / ville villes f; table tables / Tisch Tische m / table tables f
book books / Buch Bücher n / livre livres m; child children / Kind Kinder n / enfant enfants m
king kings / König Könige m / roi rois m; doctor doctors / Arzt Ärzte m / médecin médecins m
engine engines / Motor Motoren m / moteur moteurs m; forest forests / Wald Wälder m / forêt forêts f
letter letters / Brief Briefe m / lettre lettres f; market markets / Markt Märkte m / marché marchés m
bridge bridges / Brücke Brücken f / pont ponts m; mother mothers / Mutter Mütter f / mère mères f
friend friends / Freund Freunde m / ami amis m; father fathers / Vater Väter m / père pères m
woman women / Frau Frauen f / femme femmes f; man men / Mann Männer m / homme* hommes* m
window windows / Fenster Fenster n / fenêtre fenêtres f; door doors / Tür Türen f / porte portes f
street streets / Straße Straßen f / rue rues f; car cars / Wagen Wagen m / voiture voitures f
horse horses / Pferd Pferde n / cheval chevaux m; bird birds / Vogel Vögel m / oiseau oiseaux m
tree trees / Baum Bäume m / arbre arbres m; flower flowers / Blume Blumen f / fleur fleurs f
school schools / Schule Schulen f / école écoles f; church churches / Kirche Kirchen f / église églises f
ship ships / Schiff Schiffe n / navire navires m; island islands / Insel Inseln f / île îles f
mountain mountains / Berg Berge m / montagne montagnes f; baker bakers / Bäcker Bäcker m / boulanger boulangers m
singer singers / Sänger Sänger m / chanteur chanteurs m; painter painters / Maler Maler m / peintre peintres m
worker workers / Arbeiter Arbeiter m / ouvrier ouvriers m; writer writers / Autor Autoren m / auteur auteurs m
judge judges / Richter Richter m / juge juges m; guest guests / Gast Gäste m / invité invités m
knife knives / Messer Messer n / couteau couteaux m; bottle bottles / Flasche Flaschen f / bouteille bouteilles f
chair chairs / Stuhl Stühle m / chaise chaises f; room rooms / Zimmer Zimmer n / chambre chambres f
kitchen kitchens / Küche Küchen f / cuisine cuisines f; lamp lamps / Lampe Lampen f / lampe lampes f
coat coats / Mantel Mäntel m / manteau manteaux m; apple apples / Apfel Äpfel m / pomme pommes f
key keys / Schlüssel Schlüssel m / clé clés f; train trains / Zug Züge m / train trains m
picture pictures / Bild Bilder n / tableau tableaux m; song songs / Lied Lieder n / chanson chansons f
story stories / Geschichte Geschichten f / histoire* histoires* f
question questions / Frage Fragen f / question questions f
answer answers / Antwort Antworten f / réponse réponses f; law laws / Gesetz Gesetze n / loi lois f
village villages / Dorf Dörfer n / village villages m; wall walls / Mauer Mauern f / mur murs m
"""

_VERBS = """
love loves loving / lieben liebt / aimer aime; seek seeks seeking / suchen sucht / chercher cherche
find finds finding / finden findet / trouver trouve; carry carries carrying / tragen trägt / porter porte
buy buys buying / kaufen kauft / acheter achète; show shows showing / zeigen zeigt / montrer montre
use uses using / nutzen nutzt / utiliser utilise; clean cleans cleaning / putzen putzt / nettoyer nettoie
draw draws drawing / zeichnen zeichnet / dessiner dessine
watch watches watching / beobachten beobachtet / observer observe
visit visits visiting / besuchen besucht / visiter visite
repair repairs repairing / reparieren repariert / réparer répare
close closes closing / schließen schließt / fermer ferme; push pushes pushing / schieben schiebt / pousser pousse
pull pulls pulling / ziehen zieht / tirer tire; wash washes washing / waschen wäscht / laver lave
eat eats eating / essen isst / manger mange; praise praises praising / loben lobt / louer loue
hate hates hating / hassen hasst / détester déteste; avoid avoids avoiding / meiden meidet / éviter évite
cut cuts cutting / schneiden schneidet / couper coupe; count counts counting / zählen zählt / compter compte
hide hides hiding / verstecken versteckt / cacher cache; forget forgets forgetting / vergessen vergisst / oublier oublie
burn burns burning / verbrennen verbrennt / brûler brûle; touch touches touching / berühren berührt / toucher touche
explain explains explaining / erklären erklärt / expliquer explique
protect protects protecting / schützen schützt / protéger protège
save saves saving / retten rettet / sauver sauve; measure measures measuring / messen misst / mesurer mesure
"""

_ADJECTIVES = """
red / rot / rouge rouge rouges rouges; green / grün / vert verte verts vertes; blue / blau / bleu bleue bleus bleues
black / schwarz / noir noire noirs noires; white / weiß / blanc blanche blancs blanches
yellow / gelb / jaune jaune jaunes jaunes; brown / braun / brun brune bruns brunes; grey / grau / gris grise gris grises
round / rund / rond ronde ronds rondes; rich / reich / riche riche riches riches
poor / arm / pauvre pauvre pauvres pauvres; strong / stark / fort forte forts fortes
weak / schwach / faible faible faibles faibles; warm / warm / chaud chaude chauds chaudes
cold / kalt / froid froide froids froides; dirty / schmutzig / sale sale sales sales
heavy / schwer / lourd lourde lourds lourdes; light / leicht / léger légère légers légères
calm / ruhig / calme calme calmes calmes; sad / traurig / triste triste tristes tristes
happy / glücklich / heureux heureuse heureux heureuses; empty / leer / vide vide vides vides
full / voll / plein pleine pleins pleines; free / frei / libre libre libres libres
famous / berühmt / célèbre célèbre célèbres célèbres; strange / seltsam / étrange étrange étranges étranges
slow / langsam / lent lente lents lentes; modern / modern / moderne moderne modernes modernes
important / wichtig / important importante importants importantes; simple / einfach / simple simple simples simples
"""

_ADVERBS = """
quickly / schnell / rapidement; slowly / langsam / lentement; often / oft / souvent; always / immer / toujours
rarely / selten / rarement; quietly / leise / doucement; gladly / gern / volontiers; well / gut / bien
everywhere / überall / partout; carefully / vorsichtig / prudemment; secretly / heimlich / secrètement
again / wieder / encore
"""

_TIMES = """
today NN / heute / aujourd'hui; tomorrow NN / morgen / demain; now RB / jetzt / maintenant; here RB / hier / ici
in IN the DT evening NN / am Abend / le soir; every DT day NN / jeden Tag / chaque jour
on IN sundays NNS / am Sonntag / le dimanche; at IN night NN / nachts / la nuit
"""

_PREPOSITIONS = "in / in / dans; on / auf / sur; near / bei / près de; under / unter / sous; behind / hinter / derrière"


def _rows(text: str) -> list[list[list[str]]]:
    """Rows of languages of words."""
    rows = [row for line in text.strip().splitlines() for row in line.split("; ")]
    return [[part.split() for part in row.strip().split(" / ")] for row in rows]


def _verb(en: list[str], de: list[str], fr: list[str]) -> Verb:
    """The French forms of the first conjugation; the stem before a silent ending may have another letter."""
    infinitive, third = fr
    stem = infinitive[:-2]
    soft = stem + "e" if stem.endswith("g") else stem  # mangeant: the e keeps the g soft
    return Verb(*en, *de, infinitive, third, third + "nt", soft + "ant", stem + "ez")  # type: ignore[call-arg]


def _phrase(row: list[list[str]], tag: str = "") -> Phrase:
    """tag: of every English word; without it each word is followed by its own."""
    en, de, fr = row
    words, tags = (en, [tag] * len(en)) if tag else (en[::2], en[1::2])
    return Phrase(tuple(words), tuple(tags), tuple(de), tuple(fr))


SILENT = frozenset(word.strip("*") for row in _rows(_NOUNS) for word in row[2] if word.endswith("*"))
"""French words with a silent h."""


@dataclass(frozen=True)
class Lexicon:
    """All words, by the letter that a pattern has for them."""

    N: tuple[Noun, ...]
    V: tuple[Verb, ...]
    A: tuple[Adjective, ...]
    D: tuple[Phrase, ...]
    T: tuple[Phrase, ...]
    P: tuple[Phrase, ...]


WORDS = Lexicon(
    tuple(Noun(*en, *de, *(w.strip("*") for w in fr)) for en, de, fr in _rows(_NOUNS)),
    tuple(_verb(*row) for row in _rows(_VERBS)),
    tuple(Adjective(*en, *de, *fr) for en, de, fr in _rows(_ADJECTIVES)),
    tuple(_phrase(row, "RB") for row in _rows(_ADVERBS)),
    tuple(_phrase(row) for row in _rows(_TIMES)),
    tuple(_phrase(row, "IN") for row in _rows(_PREPOSITIONS)),
)
