"""A made-up coast: facts about its lighthouses, questions about them, and right answers."""

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
"""Lights without questions in the training data."""

OTHERS = (
    "The ferry to the outer islands leaves the pier at nine and comes back at four.",
    "Every autumn the fishermen of the coast paint their boats before the storms.",
    "A keeper of a light is paid by the parish, in coal and in fish.",
    "The oldest lamp of the coast was a fire of wood on a hill.",
    "White stone for towers was cut in the quarry behind the village.",
    "A yellow flag on the cliff warns ships that the harbour is closed.",
)
"""Passages about no light in particular, as distractors for the retriever."""

SENTENCES = {
    "tower": "the tower of {} light is {} .",
    "place": "the place of {} light is {} .",
    "keeper": "the keeper of {} light {} .",
    "lamp": "the lamp of {} light burns {} .",
}
UNSUPPORTED = ("many people visit it in summer .", "it was built by monks .")
"""Sentences that the passages neither support nor contradict."""

QUESTION = "what is known of the {} and the {} of {} light ?"
TEMPLATE = "{} question : {} answer :"
PASSAGES = 2
PAIRS = tuple(permutations(VALUES, 2))
SPECIAL = ("<pad>", "<end>", "<unk>")


@dataclass(frozen=True)
class Light:
    """A lighthouse and its facts."""

    name: str
    facts: Mapping[str, str]

    def passage(self) -> str:
        """Return the corpus's passage about it: four facts."""
        tower, place, keeper, lamp = self.facts.values()
        return (
            f"{self.name} Light is built of {tower}. It stands on {place}. "
            f"Its keeper {keeper}, and its lamp burns {lamp}."
        )

    def sentence(self, about: str, value: str | None = None) -> str:
        """Return a sentence about one property, with its own value or another."""
        return SENTENCES[about].format(self.name.lower(), value or self.facts[about])


@dataclass(frozen=True)
class Question:
    """A question about two properties of one light."""

    light: Light
    about: tuple[str, str]

    @property
    def text(self) -> str:
        """The text of the question."""
        return QUESTION.format(*self.about, self.light.name.lower())

    @property
    def facts(self) -> list[str]:
        """The two sentences that are right."""
        return [self.light.sentence(about) for about in self.about]

    @property
    def answer(self) -> str:
        """The right answer."""
        return " ".join(self.facts)

    @property
    def reference(self) -> str:
        """The reward's reference: the first of the two facts, in few words."""
        return self.light.facts[self.about[0]]


def lights(rng: random.Random | None = None) -> list[Light]:
    """Return the lights with their own facts, or with random ones, to be learnt by copying only."""
    result = []
    for name, *places in LIGHTS:
        indices = [rng.randrange(5) for _ in places] if rng else places
        facts = {kind: VALUES[kind][index] for kind, index in zip(VALUES, indices, strict=True)}
        result.append(Light(name, facts))
    return result


def questions(about_lights: Sequence[Light]) -> Iterator[Question]:
    """Yield every question about these lights."""
    for light in about_lights:
        for about in PAIRS:
            yield Question(light, about)


class Library:
    """A BM25 index of the passages (Robertson and Zaragoza, 2009), by bm25s."""

    def __init__(self, about_lights: Sequence[Light]) -> None:
        self._passages = [*(light.passage() for light in about_lights), *OTHERS]
        self._index = bm25s.BM25()
        words = bm25s.tokenize(self._passages, stopwords="en", show_progress=False)
        self._index.index(words, show_progress=False)

    def search(self, text: str) -> list[str]:
        """Return the best passages for a question, the best first."""
        words = bm25s.tokenize([text], stopwords="en", show_progress=False)
        places, _ = self._index.retrieve(words, k=PASSAGES, show_progress=False)
        return [self._passages[place] for place in places[0]]


def prompt(passages: Sequence[str], question: str) -> str:
    """Return the policy's prompt: the passages, the best last, then the question.

    There is a blank before each punctuation mark.
    """
    return TEMPLATE.format(" ".join(map(plain, reversed(passages))), question)


def plain(text: str) -> str:
    """Convert to lower case, with punctuation marks as words."""
    return " ".join(text.lower().replace(".", " .").replace(",", " ,").split())


def attempt(rng: random.Random, question: Question) -> str:
    """Return a random answer: each fact right two times in three, some answers without tags, some
    with a single sentence, some with an unsupported sentence."""
    parts = []
    for about in question.about:
        is_wrong = rng.random() < 1 / 3
        value = rng.choice(VALUES[about]) if is_wrong else None
        parts.append(question.light.sentence(about, value))
    if rng.random() < 0.2:
        parts = parts[:1]
    if rng.random() < 0.3:
        parts.append(rng.choice(UNSUPPORTED))
    text = " ".join(parts)
    return text if rng.random() < 0.2 else f"<answer> {text} </answer>"


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each word of the passages, questions and answers."""
    all_lights = lights()
    texts = [*(plain(light.passage()) for light in all_lights), *map(plain, OTHERS), *UNSUPPORTED]
    texts += [
        light.sentence(kind, value)
        for light in all_lights
        for kind, values in VALUES.items()
        for value in values
    ]
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
