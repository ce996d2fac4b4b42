"""Generator of the reference pages: `make docs`. A test fails where a page is stale."""

import inspect
import json
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from prometheus_client import CollectorRegistry

from assay import errors
from assay.api.scopes import SCOPE_OF
from assay.app import create_app
from assay.lifecycle import errors as lifecycle_errors
from assay.metrics import Metrics
from assay.settings import Settings, variable_name
from assay_models.repository import ModelRepository, embedded_root

REFERENCE = Path(__file__).parent / "reference"
README = Path(__file__).parents[1] / "README.md"
OPENING, CLOSING = "<!-- models: written by `make docs` -->", "<!-- /models -->"
NOTE = "<!-- Written by `make docs`; do not edit. -->\n"
NEVER_SENT = frozenset((errors.SettingsError,))
"""Errors at start: the process exits, and no request gets them."""
MEANINGS = {"internal_error": "The server failed unexpectedly. Its log has the traceback."}
"""Meanings of codes whose class is a base class."""
VARIABLE = {"items_failed": ("422, 500 or 503", "with 503")}
"""Status and retryability of codes that are sent with several statuses."""
FRAMEWORK = {
    HTTPStatus.BAD_REQUEST: "The body could not be read.",
    HTTPStatus.NOT_FOUND: "There is no such route or file. `/docs` lists the routes.",
    HTTPStatus.METHOD_NOT_ALLOWED: "The route exists, but not with this method. `Allow` names the "
    "methods.",
}
"""Meanings of errors that the framework raises. The code is the status's phrase."""


def main() -> None:
    """Write every page, and the table of models into the README."""
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")
    README.write_text(with_models(README.read_text(encoding="utf-8")), encoding="utf-8")


def with_models(readme: str) -> str:
    """Return the README with a fresh table of models between its two marks."""
    before, _, rest = readme.partition(OPENING)
    _, _, after = rest.partition(CLOSING)
    return f"{before}{OPENING}\n{chr(10).join(models_table())}\n{CLOSING}{after}"


def models_table() -> Iterator[str]:
    """Yield the lines of a table of the embedded models with their headline figures."""
    yield "| model | what it scores | held-out data | measured (95 % interval) | baselines |"
    yield "| --- | --- | --- | --- | --- |"
    for card in ModelRepository([embedded_root()]).cards():
        if not card.embedded:
            continue
        name, title = f"`{card.id}`", card.title
        for row in (row for row in card.quality if row.headline):
            figure = f"**{row.value:.3f}** [{row.low:.3f}, {row.high:.3f}], n = {row.n:,}"
            baselines = ", ".join(
                f"{baseline.name} {baseline.value:.3f}" for baseline in row.baselines
            )
            yield f"| {name} | {title} | {row.dataset}: {row.metric} | {figure} | {baselines} |"
            name, title = "", ""


def pages() -> dict[str, str]:
    """Return the text of each generated page, by file name."""
    api = create_app(Settings(models=("reference",))).openapi()
    return {
        "openapi.json": json.dumps(api, indent=2, sort_keys=True) + "\n",
        "settings.md": "\n".join(settings_page()) + "\n",
        "errors.md": "\n".join(errors_page()) + "\n",
        "metrics.md": "\n".join(metrics_page()) + "\n",
        "endpoints.md": "\n".join(endpoints_page(api["paths"])) + "\n",
    }


def settings_page() -> Iterator[str]:
    """Yield the page of environment variables."""
    yield NOTE + "# Settings\n"
    yield "Environment variables, read once at start. An unknown or unparsable one is an error.\n"
    yield "| variable | default | meaning |\n| --- | --- | --- |"
    for name, field in Settings.model_fields.items():
        value = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        default = "" if value in (None, "") else f"`{value}`"
        yield f"| `{variable_name(name)}` | {default} | {field.description} |"


def errors_page() -> Iterator[str]:
    """Yield the page of the errors of a request."""
    yield NOTE + "# Errors\n"
    yield (
        "Problem details (RFC 9457). `retryable`: the same request may succeed later. Errors of\n"
        "single items are [listed separately](item-errors.md).\n"
    )
    yield "| code | status | retryable | when |\n| --- | --- | --- | --- |"
    for code, (status, retryable, when) in sorted({**own_errors(), **framework_errors()}.items()):
        yield f"| `{code}` | {status} | {retryable} | {when} |"


def own_errors() -> dict[str, tuple[str, str, str]]:
    """Return status, retryability and meaning of each error of a request, by code."""
    rows = {}
    classes = [*vars(errors).values(), *vars(lifecycle_errors).values()]
    for error in filter(inspect.isclass, classes):
        if not issubclass(error, errors.AssayError) or error in NEVER_SENT:
            continue
        when = MEANINGS.get(error.code) or " ".join((inspect.getdoc(error) or "").split())
        status, retryable = str(error.status), "yes" if error.retryable else "no"
        rows[error.code] = (*VARIABLE.get(error.code, (status, retryable)), when)
    return rows


def framework_errors() -> dict[str, tuple[str, str, str]]:
    """Return the same of the errors that the framework raises."""
    return {
        status.phrase.lower().replace(" ", "_"): (str(status.value), "no", when)
        for status, when in FRAMEWORK.items()
    }


def metrics_page() -> Iterator[str]:
    """Yield the page of Prometheus series."""
    registry = CollectorRegistry()
    Metrics(registry)
    yield NOTE + "# Metrics\n"
    yield "Prometheus series at `GET /metrics`.\n"
    yield "| series | kind | meaning |\n| --- | --- | --- |"
    for family in registry.collect():
        suffix = "_total" if family.type == "counter" else ""
        yield f"| `{family.name}{suffix}` | {family.type} | {family.documentation} |"


def endpoints_page(paths: dict[str, dict[str, dict[str, str]]]) -> Iterator[str]:
    """Yield the page of routes.

    Args:
        paths: of the OpenAPI document.
    """
    yield NOTE + "# Endpoints\n"
    yield "The schemas are in [openapi.json](openapi.json) and, of a running server, at `/docs`.\n"
    yield "| routes | scope of the key | purpose |\n| --- | --- | --- |"
    routes: dict[tuple[str, str], list[str]] = {}
    for path, methods in sorted(paths.items()):
        for method, operation in sorted(methods.items()):
            purpose = " ".join(operation["description"].split())
            route = f"{method.upper()} {path}"
            scope = SCOPE_OF[route]
            key = (purpose, f"`{scope}`" if scope else "")
            routes.setdefault(key, []).append(f"`{route}`")
    for (purpose, scope), names in routes.items():
        yield f"| {'<br>'.join(names)} | {scope} | {purpose} |"


if __name__ == "__main__":
    main()
