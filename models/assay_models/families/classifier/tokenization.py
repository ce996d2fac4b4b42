"""From texts and conversations to token ids, as the checkpoint's own tokenizer writes them."""

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from jinja2 import TemplateError
from tokenizers import Tokenizer

from assay_models.base import Input, ItemError, Truncation
from assay_models.card import CardError
from assay_models.families.classifier.control_tokens import ControlTokens, ForgedToken, Thoughts
from assay_models.items import Message

SpecialTokens = Literal["literal", "parse"]
"""What a special token written inside a text is: its letters, or the token itself."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sequence, ready for the forward pass; `truncated` counts the tokens that were cut.

    Ids are C integers, as many bytes as they need. `kin` is equal for sequences that begin alike.
    """

    ids: "array[int]"
    type_ids: "array[int] | None" = None
    truncated: int = 0
    prefix_key: bytes = b""

    @property
    def flags(self) -> tuple[str, ...]:
        """`truncated`, if anything was cut."""
        return ("truncated",) if self.truncated else ()

    @property
    def details(self) -> dict[str, Any]:
        """How many tokens were cut, if any were."""
        return {"truncated_tokens": self.truncated} if self.truncated else {}

    def input(self) -> Input:
        """The row of a forward pass: keys are equal exactly where ids and type ids are."""
        kinds = b"" if self.type_ids is None else self.type_ids.tobytes()
        key = len(self.ids).to_bytes(4, "big") + self.ids.tobytes() + kinds
        return Input(key, len(self.ids), self, self.prefix_key)


class Tokens(NamedTuple):
    """Where each token of a text lies in it, in characters, and how many are unknown."""

    places: Sequence[tuple[int, int]]
    unknown: int


@dataclass(frozen=True, slots=True, repr=False)
class Renderer:
    """A checkpoint's tokenizer, safe to use from many threads: nothing is set after `of`.

    `opening` is what the tokenizer puts before a text (BOS, or `[CLS]`); `closing` are the ids
    with which its chat template ends a conversation; `vocabulary` is the number of embeddings.
    `with_kin` marks sequences that begin alike.
    """

    tokenizer: Any
    max_tokens: int
    vocabulary: int
    with_type_ids: bool
    chat_template: str | None = None
    with_kin: bool = False
    opening: str = ""
    closing: tuple[int, ...] = ()
    control: ControlTokens | None = None
    _backends: Mapping[SpecialTokens, Tokenizer] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        max_tokens: int,
        vocabulary: int,
        with_type_ids: bool,
        chat_template: str | None,
    ) -> "Renderer":
        """Take over a tokenizer: the lengths and the padding in its own files are switched off.

        Raises:
            CardError: it has no words, is not one of the `tokenizers` library, or names no
                default among its templates.
        """
        fast = getattr(tokenizer, "is_fast", False)
        if not fast or tokenizer.vocab_size <= len(tokenizer.all_special_tokens):
            # Without its files Transformers makes up a tokenizer of nothing but special tokens.
            raise CardError(f"no tokenizer.json at {tokenizer.name_or_path!r}, or an empty one")
        backends = _backends(tokenizer)
        template = chat_template or _own_template(tokenizer)
        known = cls(tokenizer, max_tokens, vocabulary, with_type_ids, template, _backends=backends)
        if template:
            known = replace(known, control=ControlTokens.of(tokenizer, template))
        return replace(known, opening=_opening(backends["parse"]), closing=known._closing())

    def text(
        self,
        text: str,
        text_pair: str | None,
        truncation: Truncation,
        special_tokens: SpecialTokens = "literal",
    ) -> Encoded:
        """A text or a pair, with the special tokens that the tokenizer puts around them.

        A text that already starts with what the tokenizer puts first does not get it twice, and
        a pair has no second BOS between its texts. An empty `text_pair` counts as none, as it
        does in Transformers. Of a pair that is too long, the longer text is cut first.

        Raises:
            ItemError: the text is too long for the model, or holds nothing to score.
        """
        if self.opening:
            text = text.removeprefix(self.opening)
        _refuse_half_characters(text, text_pair or "")
        encoding = self._backends[special_tokens].encode(text, text_pair or None)
        ids, sides = encoding.ids, encoding.sequence_ids
        types = encoding.type_ids if self.with_type_ids else None
        positions = self._without_inner_bos(ids, sides) if text_pair else range(len(ids))
        if not positions:
            raise ItemError("invalid_item", "there is nothing to score: the text has no tokens")
        over = self._over(len(positions), truncation)
        kept = self._kept(positions, sides, over, truncation) if over else positions
        return self._encoded(ids, types, kept, over, self._kin(text) if text_pair else b"")

    @property
    def room(self) -> int:
        """How many tokens both texts of a pair may have together."""
        special: int = self._backends["literal"].num_special_tokens_to_add(is_pair=True)
        return self.max_tokens - special

    def tokens(self, text: str) -> Tokens:
        """The tokens of a text alone, without any that the tokenizer puts around it.

        Raises:
            ItemError: the text is not valid Unicode.
        """
        _refuse_half_characters(text)
        encoding = self._backends["literal"].encode(text, add_special_tokens=False)
        unknown = encoding.ids.count(self.tokenizer.unk_token_id) if encoding.ids else 0
        return Tokens(encoding.offsets, unknown)

    def chat(
        self, messages: Sequence[Message], truncation: Truncation, thoughts: Thoughts = "tokens"
    ) -> Encoded:
        """A conversation, by the chat template alone: it writes the BOS and nobody adds a second.

        Special tokens inside the messages are encoded as their letters, in the text around them.
        Control tokens that are not special (`<think>`) stay what they are, and the template may
        act on them; with `thoughts` as `letters` they are letters too, and the template does not
        see them. What is cut comes from between the BOS and the template's closing tokens.

        Raises:
            ItemError: the template refuses the conversation, or it is too long for the model.
        """
        texts = (text for message in messages for text in (message.role, message.content))
        _refuse_half_characters(*texts)
        ids = self._chat_ids([message.model_dump() for message in messages], thoughts)
        over = self._over(len(ids), truncation)
        head = 1 if ids[0] == self.tokenizer.bos_token_id else 0
        tail = len(self.closing) if ids[-len(self.closing) :] == list(self.closing) else 0
        body = range(head, len(ids) - tail)
        if over > len(body):
            raise _too_long(len(ids), self.max_tokens)
        kept = [*range(head), *cut(body, over, truncation), *range(len(ids) - tail, len(ids))]
        types = [0] * len(ids) if self.with_type_ids else None
        asked = (part for turn in messages[:-1] for part in (turn.role, turn.content))
        return self._encoded(ids, types, kept, over, self._kin(*asked))

    def _encoded(
        self,
        ids: Sequence[int],
        types: Sequence[int] | None,
        kept: Sequence[int],
        over: int,
        prefix_key: bytes,
    ) -> Encoded:
        kept_ids = array("i", [ids[position] for position in kept])
        if max(kept_ids) >= self.vocabulary:
            raise ItemError(
                "invalid_item", "the text holds a token that the checkpoint has no embedding for"
            )
        kept_types = None if types is None else array("i", [types[position] for position in kept])
        return Encoded(kept_ids, kept_types, over, prefix_key)

    def _kin(self, *beginning: str) -> bytes:
        if not self.with_kin:
            return b""
        digest = hashlib.blake2b(digest_size=16)
        for part in beginning:
            digest.update(part.encode() + b"\0")
        return digest.digest()

    def _chat_ids(self, messages: list[dict[str, Any]], thoughts: Thoughts = "tokens") -> list[int]:
        if self.control is None:
            raise ItemError("invalid_item", "the checkpoint has no chat template: give `text`")
        try:
            ids = self.control.encode(messages, thoughts, self._rendered)
        except (TemplateError, TypeError):
            raise ItemError(
                "invalid_item",
                "the chat template refuses this conversation: look at the roles and their order",
            ) from None
        except ForgedToken:
            raise ItemError(
                "invalid_item", "a control token in the text cannot be told from the template's"
            ) from None
        if not ids:
            raise ItemError("invalid_item", "the chat template made nothing of this conversation")
        return ids

    def rendering(self, question: str, answer: str) -> str:
        """What the chat template makes of one question and its answer, as text.

        Raises:
            ItemError: there is no template, or it refuses such a conversation.
        """
        if self.control is None:
            raise ItemError("invalid_item", "the checkpoint has no chat template")
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        try:
            return self._rendered(turns)
        except (TemplateError, TypeError):
            raise ItemError("invalid_item", "the chat template refuses this conversation") from None

    def _rendered(self, messages: list[dict[str, Any]]) -> str:
        rendered: str = self.tokenizer.apply_chat_template(
            messages, chat_template=self.chat_template, tokenize=False
        )
        return rendered

    def _closing(self) -> tuple[int, ...]:
        question = {"role": "user", "content": "one"}
        try:
            ids, others = (
                self._chat_ids([question, {"role": "assistant", "content": answer}])
                for answer in ("two", "3 4")
            )
        except ItemError:
            return ()
        shared = 0
        while shared < min(len(ids), len(others)) and ids[-1 - shared] == others[-1 - shared]:
            shared += 1
        return tuple(ids[len(ids) - shared :])

    def _without_inner_bos(self, ids: Sequence[int], sides: Sequence[int | None]) -> list[int]:
        # Decoders' tokenizers put a second BOS between the two texts of a pair.
        bos = self.tokenizer.bos_token_id
        return [
            position
            for position, side in enumerate(sides)
            if position == 0 or side is not None or ids[position] != bos
        ]

    def _kept(
        self,
        positions: Sequence[int],
        sides: Sequence[int | None],
        over: int,
        truncation: Truncation,
    ) -> list[int]:
        special, first, second = (
            [position for position in positions if sides[position] == which]
            for which in (None, 0, 1)
        )
        if over > len(first) + len(second):
            raise _too_long(len(positions), self.max_tokens)
        from_first, from_second = shares_of_cut(len(first), len(second), over)
        cut_first = cut(first, from_first, truncation)
        return sorted([*special, *cut_first, *cut(second, from_second, truncation)])

    def _over(self, tokens: int, truncation: Truncation) -> int:
        over = tokens - self.max_tokens
        if over > 0 and truncation == "error":
            raise _too_long(tokens, self.max_tokens)
        return max(0, over)


def cut(positions: Sequence[int], over: int, truncation: Truncation) -> Sequence[int]:
    """`positions` without `over` of them, taken from the left, the right or the middle."""
    kept = len(positions) - over
    if truncation == "left":
        return positions[over:]
    if truncation == "middle":
        return [*positions[: (kept + 1) // 2], *positions[len(positions) - kept // 2 :]]
    return positions[:kept]


def shares_of_cut(first: int, second: int, over: int) -> tuple[int, int]:
    """How many of `over` tokens each of two texts loses: the longer one first, then both alike."""
    from_longer = min(over, abs(first - second))
    half, odd = divmod(over - from_longer, 2)
    if first >= second:
        return from_longer + half + odd, half
    return half + odd, from_longer + half


def _refuse_half_characters(*texts: str) -> None:
    # JSON can write half of a surrogate pair; no tokenizer can read it.
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        raise ItemError("invalid_item", "the text is not valid Unicode") from None


def _too_long(tokens: int, limit: int) -> ItemError:
    detail = f"{tokens} tokens, the model takes {limit}: shorten it, or set options.truncation"
    return ItemError("input_too_long", detail)


def _own_template(tokenizer: Any) -> str | None:
    if not tokenizer.chat_template:
        return None
    try:
        return str(tokenizer.get_chat_template())
    except ValueError:
        raise CardError(
            f"{tokenizer.name_or_path!r} has several chat templates and no default: "
            "name one in options.chat_template"
        ) from None


def _backends(tokenizer: Any) -> dict[SpecialTokens, Tokenizer]:
    # A backend that is never set again can be shared by threads; one that is, cannot.
    tokenizer.model_max_length = 1 << 62
    tokenizer.split_special_tokens = False
    parse: Tokenizer = tokenizer.backend_tokenizer
    parse.no_truncation()
    parse.no_padding()
    parse.encode_special_tokens = False
    literal = Tokenizer.from_str(parse.to_str())
    literal.encode_special_tokens = True
    return {"parse": parse, "literal": literal}


def _opening(backend: Tokenizer) -> str:
    encoding = backend.encode("a")
    opening = []
    for token, side in zip(encoding.tokens, encoding.sequence_ids, strict=True):
        if side is not None:
            break
        opening.append(token)
    return "".join(opening)
