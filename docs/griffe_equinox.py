"""The constructors of Equinox modules, which are made when the class is and so stand in no source file."""

import importlib
import inspect
from typing import Any

import equinox as eqx
import griffe


class EquinoxConstructors(griffe.Extension):
    """Give every final Equinox module that writes no `__init__` the one that it has."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Add the constructor, with the fields' annotations and defaults."""
        if cls.name.startswith(("_", "Abstract")) or "__init__" in cls.members:
            return
        actual = getattr(importlib.import_module(cls.module.path), cls.name, None)
        if not (inspect.isclass(actual) and issubclass(actual, eqx.Module)):
            return
        parameters = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
        for name, parameter in inspect.signature(actual).parameters.items():
            field = cls.members.get(name)
            parameters.append(
                griffe.Parameter(
                    name,
                    annotation=field.annotation if isinstance(field, griffe.Attribute) else None,
                    kind=griffe.ParameterKind.positional_or_keyword,
                    default=None if parameter.default is parameter.empty else _written(actual, name, parameter.default),
                )
            )
        cls.set_member(
            "__init__", griffe.Function("__init__", parameters=griffe.Parameters(*parameters), returns="None")
        )


def _written(module: type[eqx.Module], name: str, default: Any) -> str:
    """A default as it is written in a call."""
    factory = module.__dataclass_fields__[name].default_factory
    return f"{factory.__name__}()" if inspect.isclass(factory) else repr(default)
