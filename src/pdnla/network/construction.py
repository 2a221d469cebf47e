"""A record of a network's construction, for weights files."""

import functools
import inspect
from typing import Any, NamedTuple, TypeVar, cast

from torch import nn

Class = TypeVar("Class", bound=type[nn.Module])


class Construction(NamedTuple):
    """The construction of a network.

    Attributes:
        made: its class at construction; :func:`pdnla.fast.accelerate` may change it later.
        arguments: the constructor's arguments by name, defaults included.
    """

    made: type[nn.Module]
    arguments: dict[str, Any]


def keeps_construction(cls: Class) -> Class:
    """Record the class and the constructor's arguments of each instance in its attribute ``construction``.

    A subclass must be decorated as well; instances of an undecorated subclass have no ``construction``.

    Raises:
        TypeError: the constructor takes arguments without a name.
    """
    init: Any = cls.__init__
    if "keeps_construction" in vars(init) and "__init__" in vars(cls):
        return cls
    signature = inspect.signature(init)
    own, *parameters = signature.parameters.values()
    for parameter in parameters:
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise TypeError(f"{cls.__qualname__}: its constructor takes {parameter.name} without a name; name it")

    @functools.wraps(init)
    def constructor(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if type(self) is cls:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            arguments = {name: value for name, value in bound.arguments.items() if name != own.name}
            for parameter in parameters:
                if parameter.kind is parameter.VAR_KEYWORD:
                    arguments.update(arguments.pop(parameter.name))
            cast(Any, self).construction = Construction(cls, arguments)

    vars(constructor)["keeps_construction"] = True
    cast(Any, cls).__init__ = constructor
    return cls
