"""A made-up coast: what is known of its lighthouses, questions about them, and right answers."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import bm25s
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

VALUES = {
    "tower": ("white stone", "black stone", "red brick", "grey iron", "brown wood"),
    "place": ("a cliff", "a sandbank", "an island", "a pier", "a hill"),
    "keeper": (
        "raises brown goats",
        "paints small boats",
        "keeps honey bees",
        "grows wild roses",
        "carves wooden spoons",
    ),
    "lamp": ("bright red", "bright green", "bright white", "bright blue", "bright yellow"),
}
LIGHTS = (
    ("Corrin", 0, 0, 0, 0), ("Hallow", 1, 1, 1, 1), ("Maren", 2, 2, 2, 2), ("Tessel", 3, 3, 3, 3),
    ("Ostrow", 4, 4, 4, 4), ("Fenwick", 0, 1, 2, 3), ("Galder", 1, 2, 3, 4), ("Ivar", 2, 3, 4, 0),
    ("Kesh", 3, 4, 0, 1), ("Lorne", 4, 0, 1, 2), ("Morrow", 0, 2, 4, 1), ("Nessa", 1, 3, 0, 2),
    ("Orrin", 2, 4, 1, 3), ("Pellam", 3, 0, 2, 4), ("Quill", 4, 1, 3, 0), ("Rusk", 0, 3, 1, 4),
    ("Sable", 1, 4, 2, 0), ("Thorn", 2, 0, 3, 1), ("Ulven", 3, 1, 4, 2), ("Varda", 4, 2, 0, 3),
    ("Wexley", 0, 4, 3, 2), ("Yarrow", 1, 0, 4, 3), ("Zennor", 2, 1, 0, 4), ("Ardle", 3, 2, 1, 0),
)  # fmt: skip
HELD_OUT = ("Zennor", "Ardle", "Yarrow", "Wexley")
"""Nothing is asked about these while the policy is trained."""

OTHERS = (
    "The ferry to the outer islands leaves the pier at nine and comes back at four.",
    "Every autumn the fishermen of the coast paint their boats before the storms.",
    "A keeper of a light is paid by the parish, in coal and in fish.",
    "The oldest lamp of the coast was a fire of wood on a hill.",
    "White stone for towers was cut in the quarry behind the village.",
    "A yellow flag on the cliff tells ships that the harbour is closed.",
)
"""Passages about no light in particular, for the retriever to leave aside."""

SAYS = {
    "tower": "the tower of {} light is {} .",
    "place": "the place of {} light is {} .",
    "keeper": "the keeper of {} light {} .",
    "lamp": "the lamp of {} light burns {} .",
}
FLOURISHES = ("many people visit it in summer .", "it was built by monks .")
"""Sentences on which the passages are silent."""

QUESTION = "what is known of the {} and the {} of {} light ?"
TEMPLATE = "{} question : {} answer :"
PASSAGES = 2
PAIRS = tuple(permutations(VALUES, 2))
SPECIAL = ("<pad>", "<end>", "<unk>")


@dataclass(frozen=True)
class Light:
    """One lighthouse and what is true of it."""

    name: str
    facts: Mapping[str, str]

    def passage(self) -> str:
        """What the corpus says of it, in four sentences."""
        tower, place, keeper, lamp = self.facts.values()
        return (
            f"{self.name} Light is built of {tower}. It stands on {place}. "
            f"Its keeper {keeper}, and its lamp burns {lamp}."
        )

    def says(self, about: str, value: str | None = None) -> str:
        """A sentence about one thing, with its own value or another."""
        return SAYS[about].format(self.name.lower(), value or self.facts[about])


@dataclass(frozen=True)
class Question:
    """A question about two things of one light."""

    light: Light
    about: tuple[str, str]

    @property
    def text(self) -> str:
        """As it is asked."""
        return QUESTION.format(*self.about, self.light.name.lower())

    @property
    def facts(self) -> list[str]:
        """The two sentences that are right."""
        return [self.light.says(one) for one in self.about]

    @property
    def answer(self) -> str:
        """The right answer."""
        return " ".join(self.facts)

    @property
    def reference(self) -> str:
        """All that the reward knows of it: the first of the two things, in few words."""
        return self.light.facts[self.about[0]]


def lights(chance: random.Random | None = None) -> list[Light]:
    """The lights as they are, or with facts drawn by lot, so that copying is all there is to
    learn."""
    found = []
    for name, *places in LIGHTS:
        chosen = [chance.randrange(5) for _ in places] if chance else places
        facts = {kind: VALUES[kind][at] for kind, at in zip(VALUES, chosen, strict=True)}
        found.append(Light(name, facts))
    return found


def questions(of: Sequence[Light]) -> Iterator[Question]:
    """Every question about these."""
    for light in of:
        for about in PAIRS:
            yield Question(light, about)


class Library:
    """BM25 over the passages (Robertson and Zaragoza, 2009), by bm25s."""

    def __init__(self, of: Sequence[Light]) -> None:
        self._passages = [*(light.passage() for light in of), *OTHERS]
        self._index = bm25s.BM25()
        words = bm25s.tokenize(self._passages, stopwords="en", show_progress=False)
        self._index.index(words, show_progress=False)

    def search(self, text: str) -> list[str]:
        """The best passages for a question, the best first."""
        words = bm25s.tokenize([text], stopwords="en", show_progress=False)
        found, _ = self._index.retrieve(words, k=PASSAGES, show_progress=False)
        return [self._passages[place] for place in found[0]]


def prompt(passages: Sequence[str], question: str) -> str:
    """What the policy reads: passages, the best nearest to the question, and that; a blank before
    each mark."""
    return TEMPLATE.format(" ".join(map(plain, reversed(passages))), question)


def plain(text: str) -> str:
    """Lower case, with punctuation as words of its own."""
    return " ".join(text.lower().replace(".", " .").replace(",", " ,").split())


def attempt(chance: random.Random, question: Question) -> str:
    """An answer of any kind: each fact right two times in three, some without tags, some with one
    sentence only, some with a flourish."""
    parts = []
    for about in question.about:
        wrong = chance.random() < 1 / 3
        parts.append(question.light.says(about, chance.choice(VALUES[about]) if wrong else None))
    if chance.random() < 0.2:
        parts = parts[:1]
    if chance.random() < 0.3:
        parts.append(chance.choice(FLOURISHES))
    said = " ".join(parts)
    return said if chance.random() < 0.2 else f"<answer> {said} </answer>"


def tokenizer() -> PreTrainedTokenizerFast:
    """Every word that can be read or said, one token each."""
    known = lights()
    texts = [*(plain(light.passage()) for light in known), *map(plain, OTHERS), *FLOURISHES]
    texts += [light.says(kind, one) for light in known for kind in VALUES for one in VALUES[kind]]
    texts += [*VALUES, QUESTION, TEMPLATE, "<answer> </answer>"]
    words = dict.fromkeys(word for text in texts for word in text.split() if word != "{}")
    vocabulary = {word: place for place, word in enumerate((*SPECIAL, *words))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 a token's name
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",  # noqa: S106 a token's name
        eos_token="<end>",  # noqa: S106 a token's name
        unk_token="<unk>",  # noqa: S106 a token's name
        padding_side="left",
    )
