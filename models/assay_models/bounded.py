"""BoundedObject, the base class of all objects of a request."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError

MAX_FIELDS = 1024
SEQUENCES = frozenset(("list", "tuple", "set", "frozenset"))
"""The types of Pydantic's schemas that end at the first problem on request."""


def _end_lists_at_first_problem(schema: object) -> None:
    """Change a schema of Pydantic in place. Otherwise a list has a problem for each element."""
    parts: Iterable[object] = ()
    if isinstance(schema, dict):
        if schema.get("type") in SEQUENCES:
            schema["fail_fast"] = True
        parts = schema.values()
    elif isinstance(schema, list | tuple):
        parts = schema
    for part in parts:
        _end_lists_at_first_problem(part)


class BoundedObject(BaseModel):
    """An object whose validation has few problems, however many wrong parts it has.

    Each list in it ends at its first problem; see also `check_fields`.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema of the class, whose lists end at their first problem."""
        schema = handler(source)
        _end_lists_at_first_problem(handler.resolve_ref_schema(schema))
        return schema

    @classmethod
    def check_fields(cls, data: Mapping[str, Any]) -> None:
        """Check that there are at most `MAX_FIELDS`, unless the class ignores unknown ones.

        Raises:
            PydanticCustomError: there are more.
        """
        if len(data) > MAX_FIELDS and cls.model_config.get("extra", "ignore") != "ignore":
            raise PydanticCustomError(
                "too_many_fields",
                "{count} fields, where an object has at most {limit}",
                {"count": len(data), "limit": MAX_FIELDS},
            )
