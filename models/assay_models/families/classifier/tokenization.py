"""From texts and conversations to token ids, as the checkpoint's own tokenizer writes them."""

import hashlib
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

from tokenizers import Tokenizer

from assay_models.base import ItemError, Truncation
from assay_models.families.classifier.control_tokens import (
    RENDERING_ERRORS,
    ControlTokens,
    ForgedToken,
)
from assay_models.families.classifier.load_errors import CheckpointFault
from assay_models.families.classifier.token_sequence import TokenSequence
from assay_models.families.classifier.truncation import (
    MAX_CHARACTERS,
    pieces,
    shorten,
    split_excess,
    too_long,
    truncate,
)
from assay_models.items import Message
from assay_models.preemption import preemption_point

SpecialTokens = Literal["literal", "parse"]
"""How a special token written inside a text is encoded: as its letters, or as the token itself."""


class TextTokens(NamedTuple):
    """The place of each token in its text, in characters, and the number of unknown tokens."""

    offsets: Sequence[tuple[int, int]]
    unknown: int


@dataclass(frozen=True, slots=True, repr=False)
class PromptFormatter:
    """A checkpoint's tokenizer: it applies the chat template, escapes control tokens, tokenizes and
    truncates.

    It is safe to use from many threads: nothing is set after `from_tokenizer`. `vocabulary_size` is
    the number of embeddings. `text_prefix` is what the tokenizer puts before a text (BOS, or
    `[CLS]`); `chat_suffix` are the ids with which its chat template ends a conversation.
    `has_prefix_keys` says whether sequences that begin alike are marked.
    """

    tokenizer: Any
    max_tokens: int
    _: KW_ONLY
    vocabulary_size: int
    has_type_ids: bool
    chat_template: str | None = None
    has_prefix_keys: bool = False
    text_prefix: str = ""
    chat_suffix: tuple[int, ...] = ()
    control_tokens: ControlTokens | None = None
    _backends: Mapping[SpecialTokens, Tokenizer] = field(default_factory=dict)

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: Any,
        max_tokens: int,
        *,
        vocabulary_size: int,
        has_type_ids: bool,
        chat_template: str | None,
    ) -> "PromptFormatter":
        """Take over a tokenizer: the lengths and the padding in its own files are switched off.

        Raises:
            CheckpointFault: it has no words, or is not one of the `tokenizers` library.
        """
        fast = getattr(tokenizer, "is_fast", False)
        if not fast or tokenizer.vocab_size <= len(tokenizer.all_special_tokens):
            # Without its files Transformers makes up a tokenizer of nothing but special tokens.
            raise CheckpointFault("there is no tokenizer.json, or it holds no words")
        backends = _backends(tokenizer)
        formatter = cls(
            tokenizer,
            max_tokens,
            vocabulary_size=vocabulary_size,
            has_type_ids=has_type_ids,
            chat_template=chat_template,
            text_prefix=_text_prefix(backends["parse"]),
            control_tokens=_control_tokens(tokenizer, chat_template),
            _backends=backends,
        )
        return replace(formatter, chat_suffix=formatter._chat_suffix())

    @property
    def fingerprint_parts(self) -> dict[str, object]:
        """The tokenizer and the template, as parts of a model's fingerprint."""
        backend: str = self.tokenizer.backend_tokenizer.to_str()
        return {
            "tokenizer": hashlib.sha256(backend.encode()).hexdigest(),
            "template": self.chat_template,
        }

    @property
    def max_pair_tokens(self) -> int:
        """The number of tokens that both texts of a pair may have together."""
        special: int = self._backends["literal"].num_special_tokens_to_add(is_pair=True)
        return self.max_tokens - special

    def tokenize(self, text: str, max_tokens: float = math.inf) -> TextTokens:
        """Tokenize a text alone, without the tokens that the tokenizer puts around it.

        Args:
            text: the text; a long one is tokenized in pieces.
            max_tokens: the rest of the text is left out after so many tokens.

        Raises:
            ItemError: the text is not valid Unicode.
        """
        _refuse_lone_surrogates(text)
        preemption_point()
        offsets, unknown = list[tuple[int, int]](), 0
        for start, piece in pieces(text):
            encoding = self._backends["literal"].encode(piece, add_special_tokens=False)
            unknown += encoding.ids.count(self.tokenizer.unk_token_id)
            own = encoding.offsets
            offsets += [(start + first, start + last) for first, last in own] if start else own
            if len(offsets) >= max_tokens:
                break
        return TextTokens(offsets, unknown)

    def encode_text(
        self,
        text: str,
        text_pair: str | None,
        truncation: Truncation,
        special_tokens: SpecialTokens = "literal",
    ) -> TokenSequence:
        """Encode a text or a pair, with the special tokens that the tokenizer puts around them.

        A text that already starts with what the tokenizer puts first does not get it twice, and
        a pair has no second BOS between its texts. An empty `text_pair` counts as none, as it
        does in Transformers. Of a pair that is too long, the longer text is cut first.

        Raises:
            ItemError: the text is too long for the model, or holds nothing to score.
        """
        if self.text_prefix:
            text = text.removeprefix(self.text_prefix)
        _refuse_lone_surrogates(text, text_pair or "")
        prefix_key = self._prefix_key(text) if text_pair else b""
        backend = self._backends[special_tokens]
        first, second = (
            shorten(part, backend, max_tokens=self.max_tokens, truncation=truncation)
            for part in (text, text_pair or "")
        )
        encoding = backend.encode(first.text, second.text or None)
        ids, sides = encoding.ids, encoding.sequence_ids
        type_ids = encoding.type_ids if self.has_type_ids else None
        positions = self._without_inner_bos(ids, sides) if text_pair else range(len(ids))
        if not positions:
            raise ItemError("invalid_item", "there is nothing to score: the text has no tokens")
        excess = self._excess(len(positions) + first.dropped + second.dropped, truncation)
        kept: Sequence[int] = positions
        if excess:
            dropped = (first.dropped, second.dropped)
            kept = self._truncated(positions, sides, excess, truncation, dropped)
        return self._sequence(ids, type_ids, kept=kept, truncated=excess, prefix_key=prefix_key)

    def encode_chat(
        self,
        messages: Sequence[Message],
        truncation: Truncation,
        *,
        escape_control_tokens: bool = False,
    ) -> TokenSequence:
        """Encode a conversation by the chat template alone; the template writes the only BOS.

        Special tokens inside the messages are encoded as their letters, in the text around them.
        Control tokens that are not special (`<think>`) stay tokens, and the template may act on
        them. With `escape_control_tokens` they are encoded as their letters too, and the template
        does not see them. What is cut comes from between the BOS and the template's closing tokens.

        Raises:
            ItemError: the template refuses the conversation, or it is too long for the model.
        """
        _refuse_lone_surrogates(*(text for message in messages for text in message.texts()))
        fields = [message.template_fields() for message in messages]
        ids, dropped = self._chat_ids(fields, truncation, escape_control_tokens)
        excess = self._excess(len(ids) + dropped, truncation)
        kept = self._truncated_chat(ids, excess - dropped, truncation)
        type_ids = [0] * len(ids) if self.has_type_ids else None
        prompt = (text for message in messages[:-1] for text in message.texts())
        prefix_key = self._prefix_key(*prompt)
        return self._sequence(ids, type_ids, kept=kept, truncated=excess, prefix_key=prefix_key)

    def reads_as(self, text: str, text_pair: str | None, sequence: TokenSequence) -> bool:
        """Return whether the checkpoint's tokenizer makes this very sequence of a text or a pair,
        where it parses special tokens in it and truncates nothing."""
        if len(text) + len(text_pair or "") > MAX_CHARACTERS:
            return False
        preemption_point()
        encoding = self._backends["parse"].encode(text, text_pair)
        kinds = sequence.type_ids
        return encoding.ids == sequence.ids.tolist() and (
            kinds is None or encoding.type_ids == kinds.tolist()
        )

    def render(self, messages: Sequence[Message]) -> str:
        """Return the text that the chat template makes of a conversation that it accepts."""
        return self._render([message.template_fields() for message in messages])

    def render_chat(self, question: str, answer: str) -> str:
        """Return the text that the chat template makes of one question and its answer.

        Raises:
            ItemError: there is no template, or it refuses such a conversation.
        """
        if self.control_tokens is None:
            raise ItemError("invalid_item", "the checkpoint has no chat template")
        user = {"role": "user", "content": question}
        try:
            return self._render([user, {"role": "assistant", "content": answer}])
        except RENDERING_ERRORS:
            raise ItemError("invalid_item", "the chat template refuses this conversation") from None

    def _sequence(
        self,
        ids: Sequence[int],
        type_ids: Sequence[int] | None,
        *,
        kept: Sequence[int],
        truncated: int,
        prefix_key: bytes,
    ) -> TokenSequence:
        kept_ids = array("i", [ids[position] for position in kept])
        if max(kept_ids) >= self.vocabulary_size:
            raise ItemError(
                "invalid_item", "the text holds a token that the checkpoint has no embedding for"
            )
        kept_type_ids = None
        if type_ids is not None:
            kept_type_ids = array("i", [type_ids[position] for position in kept])
        return TokenSequence(kept_ids, kept_type_ids, truncated, prefix_key)

    def _prefix_key(self, *beginning: str) -> bytes:
        if not self.has_prefix_keys:
            return b""
        digest = hashlib.blake2b(digest_size=16)
        for part in beginning:
            digest.update(part.encode() + b"\0")
        return digest.digest()

    def _chat_ids(
        self,
        messages: list[dict[str, Any]],
        truncation: Truncation,
        escape_control_tokens: bool = False,
    ) -> tuple[list[int], int]:
        """Return the ids of a conversation, and the number of those left out of its middle."""
        if self.control_tokens is None:
            raise ItemError("invalid_item", "the checkpoint has no chat template: give `text`")
        try:
            ids, dropped = self.control_tokens.encode(
                messages,
                self._render,
                partial(shorten, max_tokens=self.max_tokens, truncation=truncation),
                escape_control_tokens=escape_control_tokens,
            )
        except RENDERING_ERRORS:
            raise ItemError(
                "invalid_item",
                "the chat template refuses this conversation: look at the roles and their order",
            ) from None
        except ForgedToken:
            raise ItemError(
                "invalid_item",
                "a control token in the text cannot be distinguished from the template's",
            ) from None
        if not ids:
            raise ItemError("invalid_item", "the chat template made nothing of this conversation")
        return ids, dropped

    def _render(self, messages: list[dict[str, Any]]) -> str:
        rendered: str = self.tokenizer.apply_chat_template(
            messages, chat_template=self.chat_template, tokenize=False
        )
        return rendered

    def _chat_suffix(self) -> tuple[int, ...]:
        question = {"role": "user", "content": "one"}
        try:
            ids, others = (
                self._chat_ids([question, {"role": "assistant", "content": answer}], "error")[0]
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

    def _truncated(
        self,
        positions: Sequence[int],
        sides: Sequence[int | None],
        excess: int,
        truncation: Truncation,
        dropped: tuple[int, int],
    ) -> list[int]:
        """Return the positions that are kept; `dropped` tokens of each text have no position."""
        special, first, second = (
            [position for position in positions if sides[position] == side] for side in (None, 0, 1)
        )
        lengths = (len(first) + dropped[0], len(second) + dropped[1])
        if excess > sum(lengths):
            raise too_long(len(special) + sum(lengths), self.max_tokens)
        from_first, from_second = split_excess(*lengths, excess)
        kept_first = truncate(first, from_first - dropped[0], truncation)
        kept_second = truncate(second, from_second - dropped[1], truncation)
        return sorted([*special, *kept_first, *kept_second])

    def _truncated_chat(self, ids: Sequence[int], excess: int, truncation: Truncation) -> list[int]:
        head = 1 if ids[0] == self.tokenizer.bos_token_id else 0
        tail = len(self.chat_suffix)
        if list(ids[-tail:]) != list(self.chat_suffix):
            tail = 0
        body = range(head, len(ids) - tail)
        if excess > len(body):
            raise too_long(len(ids), self.max_tokens)
        return [
            *range(head),
            *truncate(body, excess, truncation),
            *range(len(ids) - tail, len(ids)),
        ]

    def _excess(self, tokens: int, truncation: Truncation) -> int:
        excess = tokens - self.max_tokens
        if excess > 0 and truncation == "error":
            raise too_long(tokens, self.max_tokens)
        return max(0, excess)


def _refuse_lone_surrogates(*texts: str) -> None:
    # JSON can write half of a surrogate pair; no tokenizer can read it.
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        raise ItemError("invalid_item", "the text is not valid Unicode") from None


def _control_tokens(tokenizer: Any, template: str | None) -> ControlTokens | None:
    return ControlTokens.from_tokenizer(tokenizer, template) if template else None


def _backends(tokenizer: Any) -> dict[SpecialTokens, Tokenizer]:
    # A backend that is never set again can be shared by threads; one that is set cannot.
    tokenizer.model_max_length = 1 << 62
    tokenizer.split_special_tokens = False
    parse: Tokenizer = tokenizer.backend_tokenizer
    parse.no_truncation()
    parse.no_padding()
    parse.encode_special_tokens = False
    literal = Tokenizer.from_str(parse.to_str())
    literal.encode_special_tokens = True
    return {"parse": parse, "literal": literal}


def _text_prefix(backend: Tokenizer) -> str:
    encoding = backend.encode("a")
    prefix = []
    for token, side in zip(encoding.tokens, encoding.sequence_ids, strict=True):
        if side is not None:
            break
        prefix.append(token)
    return "".join(prefix)
