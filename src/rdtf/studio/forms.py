"""Settings from the options of the command line, which describe each of them once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import Field as Limits
from pydantic import TypeAdapter, ValidationError


@dataclass(frozen=True)
class Field:
    """A setting as its option describes it.

    Attributes:
        name: of the setting. flag: of the option. kind: type of its value. text: what it is.
        default: in words. low, high: limits.
    """

    name: str
    flag: str
    kind: type
    text: str
    default: str
    low: float | None
    high: float | None

    def value(self, given: Any) -> Any:
        """What was given as a value of the setting; None stands for the default.

        Raises:
            ValueError: it is of another kind, or beyond the limits.
        """
        if given is None or given == "" or (self.kind is bool and not given):
            return None
        kind: Any = Annotated[self.kind, Limits(ge=self.low, le=self.high)]
        try:
            return TypeAdapter(kind).validate_python(given)
        except ValidationError as error:
            raise ValueError(f"{self.flag}: {str(given)[:50]!r}: {error.errors()[0]['msg']}") from None


def fields_of(options: Mapping[str, Any], names: Sequence[str]) -> list[Field]:
    """Fields for some of the command line's options, in this order."""
    fields = []
    for name in names:
        union, about = get_args(options[name])
        kind = next(part for part in get_args(union) if part is not type(None))
        decls = [about.default, *(about.param_decls or ())]  # typer takes the first name for a default
        flags = [str(flag).partition("/")[0] for flag in decls if str(flag).startswith("--")]
        flag = (flags[0] if flags else name).removeprefix("--").replace("_", "-")
        default = about.show_default if isinstance(about.show_default, str) else ""
        fields.append(Field(name, flag, kind, about.help, default, about.min, about.max))
    return fields


def values_of(fields: Sequence[Field], given: Sequence[Any]) -> dict[str, Any]:
    """The settings that were given, by their names."""
    values = {field.name: field.value(value) for field, value in zip(fields, given, strict=True)}
    return {name: value for name, value in values.items() if value is not None}


def named_values(fields: Sequence[Field], given: Mapping[str, Any]) -> dict[str, Any]:
    """:func:`values_of` for some of the settings, by their names.

    Raises:
        ValueError: there is no setting of a name.
    """
    known = {field.name: field for field in fields}
    if unknown := sorted(given.keys() - known.keys()):
        raise ValueError(f"there is no setting {unknown[0]!r}; there are {', '.join(known)}")
    return values_of([known[name] for name in given], list(given.values()))
