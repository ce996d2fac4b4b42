"""Errors of requests that load, promote and unload models.

AssayError
├── InvalidCard           422      ├── ModelIsDefault     409
├── InsufficientMemory    507      ├── ModelIsLast        409
├── ModelExists           409      ├── ModelIsShadowed    409
└── ModelUnloading        409
"""

from assay.errors import AssayError


class InvalidCard(AssayError):
    """The card cannot be used, or another card of the repository cannot be read."""

    code = "invalid_card"
    status = 422
    title = "Card cannot be used"


class InsufficientMemory(AssayError):
    """The model's weights need more memory than is available. Nothing of them was read.

    `detail` says how much is missing.
    """

    code = "insufficient_memory"
    status = 507
    title = "Not enough memory"
    retryable = True


class ModelExists(AssayError):
    """The model is served already, in another role than the request asks for."""

    code = "model_exists"
    status = 409
    title = "Model is served already"


class ModelUnloading(AssayError):
    """The model is being unloaded. It can be loaded again once that is done."""

    code = "model_unloading"
    status = 409
    title = "Model is being unloaded"
    retryable = True


class ModelIsDefault(AssayError):
    """The model cannot be unloaded: its bare name refers to it, and other versions are served."""

    code = "model_is_default"
    status = 409
    title = "Model is the default version"


class ModelIsLast(AssayError):
    """The model cannot be unloaded: the server would have no other model to serve."""

    code = "model_is_last"
    status = 409
    title = "Model is the last one"


class ModelIsShadowed(AssayError):
    """The model cannot be unloaded: another one shadows it."""

    code = "model_is_shadowed"
    status = 409
    title = "Model has a shadow"
