"""The `[options]` of a card about its checkpoint; nothing here needs torch."""

import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from assay_models.card import ModelCard
from assay_models.families.classifier.outputs import ProblemType


class SurprisalOptions(BaseModel):
    """`[options.surprisal]` of a card.

    The mean excess surprisal of the answer's tokens, times `weight`, is subtracted from the logit.
    The answer is what follows the last `opening` in the row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(allow_inf_nan=False)
    opening: str = Field(min_length=1)


class ClassifierOptions(BaseModel):
    """The `[options]` of a card about its checkpoint; a family adds fields of its own.

    `adapter`: a folder beside the card with a PEFT adapter. `changed`: a safetensors file beside
    the card whose tensors take the places of the checkpoint's, by name. `unused`: beginnings of the
    names of tensors that the checkpoint may hold beyond the model. `gguf_file`: the weights' file
    in the weights folder, where it is a GGUF. `num_hidden_layers`: only the lower layers.
    `num_labels`, `labels` and `problem_type`: the head's outputs, where the checkpoint's config
    does not say.
    `chat_template`: a Jinja file beside the card that takes the place of the checkpoint's own.
    `date`: the day that a template writes which asks for the present one.
    `pooling`: which token a decoder's score is read at, the one that Transformers would read in the
    sequence alone (the last that is not the padding token, which matters only where padding is EOS
    and the text ends with it), or always the `last`. `rendering`: what the chat template must make
    of the user's message `q` and the assistant's `a`; a checkpoint whose template makes something
    else is refused. `surprisal`: what is subtracted from a decoder's logit for its own predictions
    (see `SurprisalOptions`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str | None = None
    changed: str | None = None
    unused: tuple[str, ...] = ()
    gguf_file: str | None = None
    num_hidden_layers: int | None = Field(default=None, ge=1)
    num_labels: int | None = Field(default=None, ge=1)
    labels: tuple[str, ...] | None = None
    problem_type: ProblemType | None = None
    chat_template: str | None = None
    date: datetime.date | None = None
    pooling: Literal["transformers", "last"] = "transformers"
    rendering: str | None = None
    surprisal: SurprisalOptions | None = None


def read_options(card: ModelCard) -> ClassifierOptions:
    """Read the options of a card that concern its checkpoint, and leave a family's own aside.

    Raises:
        CardError: the value of one is invalid.
    """
    known = card.options.keys() & ClassifierOptions.model_fields.keys()
    own = {name: card.options[name] for name in known}
    return card.model_copy(update={"options": own}).options_as(ClassifierOptions)
