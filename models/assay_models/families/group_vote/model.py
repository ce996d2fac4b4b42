"""Votes: the share of a group's answers that equal an item's own, a reward without labels.

The vote of *Two is better than one* (arXiv 2605.22620). It rises while accuracy dies, once every
answer is the same: watch majority share and entropy, and a held-out split with labels.
"""

import asyncio
import json
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from assay_models.answers import canonical
from assay_models.answers.canonical import AnswerType, Form, Query, Unreadable, read_answer
from assay_models.answers.extraction import AnswerPlace, extract_answer
from assay_models.answers.packages import require_mathematics, versions
from assay_models.answers.pool import MathForms
from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Raws, Score
from assay_models.card import ModelCard
from assay_models.families.group_vote.clusters import NONE, Denominator, Vote, clusters_of
from assay_models.items import GroupVoteItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, fingerprint_of
from assay_models.workers.pool import WorkerUnavailable

VERSION = 1
BYTES_PER_TOKEN = 4
GROUP_SIZE = "group_size"
MAX_GROUP = 4_096

Kind = AnswerType | Literal["signature"]
Reading = Form | Query | None


class GroupVoteOptions(BaseModel):
    """`[options]` of a card of this family.

    `extraction` is the place of the answer in a response. `denominator`: the size that a share is
    of, the whole `group`, or the answers that could be read (`parseable`), of which there must be
    at least `min_parseable`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    extraction: AnswerPlace = "auto"
    denominator: Denominator = "group"
    min_parseable: int = Field(default=3, ge=2, le=MAX_GROUP)


@dataclass(frozen=True, slots=True)
class _Group:
    """A prepared group: the answers of its items, and its vote where no worker has to read."""

    answers: tuple[str | None, ...]
    size: int
    clusters: tuple[int, ...] | None = None
    is_partial: bool = False


@dataclass(frozen=True, slots=True)
class GroupVoteModel:
    """A vote over canonical answers, or over signatures.

    Raw is the number of the cluster of each answer, -1 for one that could not be read. The score is
    the channel `vote`, the share of the item's cluster. Tokens are the bytes of all answers, four
    to one.
    """

    fingerprint: str
    options: GroupVoteOptions
    max_tokens: int
    forms: MathForms
    packages: Mapping[str, str | None]
    runs: ClassVar[Literal["remote"]] = "remote"
    sees: ClassVar[Literal["group"]] = "group"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "GroupVoteModel":
        """Read the card's options; no worker starts before the first text that needs it.

        Raises:
            CardError: an option is unknown or out of its range.
        """
        options, found = card.options_as(GroupVoteOptions), versions()
        parts = {
            "family": card.family,
            "version": VERSION,
            "forms": canonical.VERSION,
            **found,
            "extraction": options.extraction,
        }
        return cls(fingerprint_of(parts), options, card.limits.max_tokens, MathForms(), found)

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """Extract the answers of a group, and form its clusters unless a worker has to read one.

        Raises:
            ItemError: `group_too_small`, `mixed_group`, `mathematics_unavailable` or
                `input_too_long`.
        """
        votes = [item for item in items if isinstance(item, GroupVoteItem)]
        kind = _kind(votes)
        answers = tuple(_answer(item, self.options.extraction) for item in votes)
        peers = votes[0].peers if len(votes) == 1 else ()
        readings = [
            *(_reading(item, text, kind) for item, text in zip(votes, answers, strict=True)),
            *(_read(text, kind) for text in peers),
        ]
        size, is_partial = _size(len(readings), dict(options.numbers).get(GROUP_SIZE))
        if not any(isinstance(reading, Query) for reading in readings):
            clusters = clusters_of(readings)
            return Prepared((), _Group(answers, size, clusters, is_partial))
        require_mathematics(self.packages)
        return Prepared((self._input(readings),), _Group(answers, size, None, is_partial))

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of all tokens: nothing is padded."""
        return sum(row.tokens for row in inputs)

    def predict(self, inputs: Sequence[Input]) -> Awaitable[Raws]:
        """Form the clusters of each group; each text is read once."""
        return self._raws(inputs)

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Return the share of each item's cluster.

        Raises:
            ItemError: `too_few_answers`, where the share is of those that could be read.
        """
        group = prepared.state
        clusters = group.clusters if group.clusters is not None else tuple(map(int, raws[0]))
        vote, denominator = Vote(clusters, group.size), self.options.denominator
        if denominator == "parseable" and vote.parseable < self.options.min_parseable:
            raise ItemError(
                "too_few_answers",
                f"{vote.parseable} of the group's answers could be read, the card asks for "
                f"{self.options.min_parseable}",
            )
        places = range(len(group.answers))
        return [self._score(index, group.answers[index], group, vote) for index in places]

    def _score(self, index: int, answer: str | None, group: _Group, vote: Vote) -> Score:
        share = vote.share(index, self.options.denominator)
        is_read = vote.clusters[index] != NONE
        flags = (
            *(() if is_read else ("unparsed_answer" if answer else "no_answer",)),
            *(("partial_group",) if group.is_partial else ()),
        )
        details = {
            "parsed_answer": answer,
            "cluster": vote.clusters[index] if is_read else None,
            "answers": group.size,
            "answers_read": vote.parseable,
            "clusters": len(vote.sizes),
            "majority_share": vote.majority_share,
            "vote_entropy": vote.entropy,
        }
        raw = None if group.clusters is not None else share
        return Score(share, raw, channels={"vote": share}, flags=flags, details=details)

    def _input(self, readings: Sequence[Reading]) -> Input:
        key = json.dumps(list(map(repr, readings))).encode()
        tokens = -(-len(key) // BYTES_PER_TOKEN)
        if tokens > self.max_tokens:
            raise ItemError("input_too_long", f"{tokens} tokens, the limit is {self.max_tokens}")
        return Input(key, tokens, tuple(readings))

    async def _raws(self, inputs: Sequence[Input]) -> list[Raw | ItemError]:
        return await asyncio.gather(*(self._raw(row.payload) for row in inputs))

    async def _raw(self, readings: Sequence[Reading]) -> Raw | ItemError:
        try:
            forms = await asyncio.gather(*map(self._form, readings))
        except WorkerUnavailable as error:
            return ItemError("grader_unavailable", str(error))
        return tuple(map(float, clusters_of(forms)))

    async def _form(self, reading: Reading) -> Form | None:
        if not isinstance(reading, Query):
            return reading
        try:
            return await self.forms.form(reading)
        except Unreadable:
            return None


def _kind(items: Sequence[GroupVoteItem]) -> Kind:
    """Return what the items of a group are compared by.

    Raises:
        ItemError: they differ, or peers are beside other items.
    """
    kinds: set[Kind] = {
        item.answer_type if item.signature is None else "signature" for item in items
    }
    if len(kinds) > 1:
        raise ItemError(
            "mixed_group",
            "the items of a group differ in `answer_type`, or only some have a `signature`",
        )
    if len(items) > 1 and any(item.peers for item in items):
        raise ItemError("mixed_group", "`peers` are for a group of a single item")
    (kind,) = kinds
    return kind


def _answer(item: GroupVoteItem, place: AnswerPlace) -> str | None:
    if item.signature is not None:
        return item.signature
    return item.answer if item.answer is not None else extract_answer(item.response or "", place)


def _reading(item: GroupVoteItem, answer: str | None, kind: Kind) -> Reading:
    return None if answer is None else _read(answer, kind)


def _read(answer: str, kind: Kind) -> Reading:
    if kind == "signature":
        return Form(answer)
    try:
        return read_answer(answer, kind)
    except Unreadable:
        return None


def _size(answers: int, wanted: float | None) -> tuple[int, bool]:
    """Return the size of the group, and whether some of its answers are missing.

    Raises:
        ItemError: there is nothing to vote with.
    """
    if wanted is not None and wanted != int(wanted):
        raise ItemError("invalid_item", "options.group_size must be a whole number")
    size = max(answers, int(wanted or 0))
    if answers < 2:
        raise ItemError(
            "group_too_small",
            "a vote needs other answers: send all items of a prompt in one request with the same "
            "`group`, or the other answers as `peers`",
        )
    return size, answers < size
