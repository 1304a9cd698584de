"""The two small languages of a rest source's configuration: JMESPath (https://jmespath.org) and ``{name}`` templates.

Both are checked when the configuration is loaded. Rule not to break: ``Expression.find`` never raises, whatever the
document, and its work is bounded: an expression is short, and what multiplies its input (flattening, joining) is
counted (``tests/connectors/rest/test_mapping.py``).
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from pydantic import BeforeValidator, InstanceOf
from pydantic_core import PydanticCustomError

MAX_CHARS = 1000
MAX_NODES = 200
# Each may multiply what it is given, so that a chain of them grows exponentially.
MAX_GROWING = 6
_GROWING_FUNCTIONS = frozenset({"join", "map", "to_string"})

_PLACEHOLDER = re.compile(r"\{([a-z_][a-z0-9_]*)\}")


class Expression:
    """A compiled JMESPath."""

    def __init__(self, text: str) -> None:
        """Compile a text.

        Raises:
            PydanticCustomError: it is no JMESPath, or asks for too much work.
        """
        self.text = text
        self._compiled = _compile(text)
        _check_work(self._compiled.parsed)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def find(self, document: object) -> Any:
        """Return what stands there, None where there is nothing or a function is given what it does not take."""
        try:
            return self._compiled.search(document)
        except (JMESPathError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
            return None


def _compile(text: str) -> Any:
    if len(text) > MAX_CHARS:
        raise PydanticCustomError("too_long", "must have at most {limit} characters", {"limit": MAX_CHARS})
    try:
        return jmespath.compile(text)
    except (JMESPathError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split("for expression")[0].split()).rstrip(", ")
        raise PydanticCustomError("invalid_expression", "is no JMESPath: {said}", {"said": said[:200]}) from None


def _check_work(tree: Mapping[str, Any]) -> None:
    pending, nodes, growing = [tree], 0, 0
    while pending:
        node = pending.pop()
        nodes += 1
        if node["type"] == "function_expression":
            if node["value"] not in Functions.FUNCTION_TABLE:
                name = {"name": str(node["value"])[:50]}
                raise PydanticCustomError("unknown_function", "calls {name}(), which is no function of JMESPath", name)
            growing += node["value"] in _GROWING_FUNCTIONS
        growing += node["type"] == "flatten"
        pending += [child for child in node["children"] if isinstance(child, dict)]  # a slice has numbers
    if nodes > MAX_NODES or growing > MAX_GROWING:
        raise PydanticCustomError("too_complex", "is too long a JMESPath: split it into several fields")


def _expression(value: object) -> object:
    if isinstance(value, Expression):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("invalid_type", "must be a text with a JMESPath")
    if not value.strip():
        raise PydanticCustomError("missing", "must not be empty")
    return Expression(value)


def _optional_expression(value: object) -> object:
    return None if value is None or value == "" else _expression(value)


Find = Annotated[InstanceOf[Expression], BeforeValidator(_expression)]
# An empty text takes away what a preset says.
OptionalFind = Annotated[InstanceOf[Expression] | None, BeforeValidator(_optional_expression)]


def placeholders(template: str) -> set[str]:
    """Return the names that a template asks for."""
    return set(_PLACEHOLDER.findall(template))


def fill(template: str, values: Mapping[str, str], quote: Callable[[str], str] = str) -> str:
    """Return the template with its values, each quoted; one that is unknown stands for nothing."""
    return _PLACEHOLDER.sub(lambda match: quote(values.get(match[1], "")), template)
