"""The types of fields that hold any value of JSON.

A body was parsed from JSON, so its values are valid but for those that `InvalidValue` marks. One
pass of the encoder finds whether there is such a mark, in a tenth of the time that Pydantic takes
to visit and copy each value.
"""

from typing import Annotated, Any

import orjson
from pydantic import JsonValue, ValidatorFunctionWrapHandler, WrapValidator


def _pass_json(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, list | dict) and _is_json(value) else handler(value)


def _pass_list(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, list) and _is_json(value) else handler(value)


def _pass_object(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, dict) and _is_json(value) else handler(value)


def _pass_objects(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    is_objects = isinstance(value, list) and all(type(part) is dict for part in value)
    return value if is_objects and _is_json(value) else handler(value)


def _is_json(value: object) -> bool:
    """Return whether a value holds no mark, and is not nested too deeply."""
    try:
        orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    except TypeError:
        return False
    return True


Json = Annotated[JsonValue, WrapValidator(_pass_json)]
JsonList = Annotated[list[JsonValue], WrapValidator(_pass_list)]
JsonObject = Annotated[dict[str, JsonValue], WrapValidator(_pass_object)]
JsonObjects = Annotated[list[dict[str, JsonValue]], WrapValidator(_pass_objects)]
