"""Write the generated reference pages: `python docs/generate.py`. A test keeps them true."""

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry

from assay import errors
from assay.app import create_app
from assay.metrics import Metrics
from assay.settings import Settings, variable_name

HERE = Path(__file__).parent / "reference"
NOTE = "<!-- Written by `make docs`; do not edit. -->\n"


def main(folder: Path) -> None:
    """Write every page into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """The pages by file name."""
    api = create_app(Settings(models=("reference",))).openapi()
    return {
        "openapi.json": json.dumps(api, indent=2, sort_keys=True) + "\n",
        "settings.md": "\n".join(settings_page()) + "\n",
        "errors.md": "\n".join(errors_page()) + "\n",
        "metrics.md": "\n".join(metrics_page()) + "\n",
        "endpoints.md": "\n".join(endpoints_page(api["paths"])) + "\n",
    }


def settings_page() -> Iterator[str]:
    """Every environment variable."""
    yield NOTE + "# Settings\n"
    yield "Environment variables, read once at start. An unknown or unparsable one is an error.\n"
    yield "| variable | default | meaning |\n| --- | --- | --- |"
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, ()) else f"`{field.default}`"
        yield f"| `{variable_name(name)}` | {default} | {field.description} |"


def errors_page() -> Iterator[str]:
    """Every error of a request."""
    yield NOTE + "# Errors\n"
    yield "Problem details (RFC 9457). `retryable`: the same request may succeed later.\n"
    yield "| code | status | retryable | when |\n| --- | --- | --- | --- |"
    for _, error in inspect.getmembers(errors, inspect.isclass):
        if issubclass(error, errors.AssayError) and error.__module__ == errors.__name__:
            when = " ".join((inspect.getdoc(error) or "").split())
            retryable = "yes" if error.retryable else "no"
            yield f"| `{error.code}` | {error.status} | {retryable} | {when} |"


def metrics_page() -> Iterator[str]:
    """Every Prometheus series."""
    registry = CollectorRegistry()
    Metrics(registry)
    yield NOTE + "# Metrics\n"
    yield "| series | kind | meaning |\n| --- | --- | --- |"
    for family in registry.collect():
        suffix = "_total" if family.type == "counter" else ""
        yield f"| `{family.name}{suffix}` | {family.type} | {family.documentation} |"


def endpoints_page(paths: dict[str, dict[str, dict[str, str]]]) -> Iterator[str]:
    """Every route."""
    yield NOTE + "# Endpoints\n"
    yield "The shapes are in [openapi.json](openapi.json) and, of a running server, at `/docs`.\n"
    yield "| route | what it does |\n| --- | --- |"
    for path, methods in sorted(paths.items()):
        for method, operation in sorted(methods.items()):
            what = " ".join(operation["description"].split())
            yield f"| `{method.upper()} {path}` | {what} |"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
