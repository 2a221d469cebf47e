"""The models: which networks weights files can hold, by name, and how one is made again from what a file says.

A file names its model and the arguments of the model's constructor. The name is looked up here: among the models of
this package, those that :func:`register` was given, and those that installed packages declare as entry points of the
group ``pdnla.models``. Nothing is imported or made because a file names a module or a class.

A model is a :class:`torch.nn.Module` that colours: ``network(target, reference)`` returns a
:class:`~pdnla.network.Colorization`, and ``network.encode_reference(reference)`` what depends on the reference alone
and can be given in its place.

>>> @pdnla.models.register("four_orders")
... class FourOrders(pdnla.PDNLA):
...     def __init__(self, channel: int = 32, orders: int = 4) -> None: ...
"""

import contextlib
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pdnla.backbones import BACKBONES, Backbone, load_backbone
from pdnla.checkpoints import printable
from pdnla.errors import UserError
from pdnla.network import PDNLA, Construction, InformedPDNLA, SemanticPDNLA, SemanticWarp, keeps_construction

ENTRY_POINTS = "pdnla.models"
"""The group of entry points by which an installed package declares its models: ``name = "module:Class"``."""

BACKBONE = "backbone"
"""A constructor's argument of this name is a frozen network of :mod:`pdnla.backbones`; files have its name."""

_SMALL = 1 << 28  # numbers that any network may have
_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_SIZE_BOUND = "its correspondence depends on the pictures' sizes"

Class = TypeVar("Class", bound=type[nn.Module])


class Model(NamedTuple):
    """An entry of the registry.

    Attributes:
        name: what files call it.
        cls: its class.
        unexportable: why it cannot be exported to other runtimes; empty if it can.
    """

    name: str
    cls: type[nn.Module]
    unexportable: str = ""


class Description(NamedTuple):
    """What a file says of the network that its weights are of.

    Attributes:
        model: the model's name.
        arguments: its constructor's, by name, as JSON has them.
        module: where its class is, for people to import; nothing is imported because it is named here.
    """

    model: str
    arguments: dict[str, Any]
    module: str = ""

    def __str__(self) -> str:
        return ", ".join([self.model, *(f"{name} {_shown(value)}" for name, value in self.arguments.items())])


_models: dict[str, Model] = {}


def register(name: str, *, unexportable: str = "") -> Callable[[Class], Class]:
    """Return the decorator that makes a class the model of a name.

    Its constructor's arguments are written to files as JSON: numbers, strings, booleans, None, and lists and mappings
    of such. One called ``backbone`` may be a :class:`~pdnla.backbones.Backbone`.

    Args:
        name: what files call the model.
        unexportable: why it cannot be exported to other runtimes, as the end of a sentence; empty if it can.

    Raises:
        ValueError: another class has the name.
        TypeError: the constructor takes arguments without a name.
    """

    def add(cls: Class) -> Class:
        taken = _models.get(name)
        if taken is not None and _path(taken.cls) != _path(cls):  # a notebook's cell may define its class again
            raise ValueError(f"the model {name} is {_path(taken.cls)} already; register {_path(cls)} by another name")
        keeps_construction(cls)
        _models[name] = Model(name, cls, unexportable)
        return cls

    return add


register("pdnla")(PDNLA)
register("pdnla_semantic", unexportable=_SIZE_BOUND)(SemanticPDNLA)
register("pdnla_informed", unexportable=_SIZE_BOUND)(InformedPDNLA)
register("semantic_warp", unexportable=_SIZE_BOUND)(SemanticWarp)


def find_model(name: str, module: str = "") -> Model:
    """Return the model of a name.

    Args:
        name: what files call it.
        module: where it is said to be, for the error.

    Raises:
        UserError: there is none.
    """
    if name not in _models:
        for point in entry_points(group=ENTRY_POINTS, name=name):
            cls = point.load()
            if name not in _models:  # unless its module did so
                register(name)(cls)
    if name not in _models:
        whose = (
            "the module that registers it" if module in ("", "__main__") else f"{_shown(module)}, which registers it"
        )
        raise UserError(
            f"the model {_shown(name)} is not known here; import {whose}, or install a package that declares it as an"
            f" entry point of {ENTRY_POINTS}"
        )
    return _models[name]


def model_of(network: nn.Module) -> Model:
    """Return the model that a network is of.

    Raises:
        UserError: its class is not registered.
    """
    construction = getattr(network, "construction", None)
    if isinstance(construction, Construction):
        for model in _models.values():
            if _path(model.cls) == _path(construction.made):
                return model
    path = _path(type(network))
    raise UserError(f'{path} is not a registered model; decorate the class with @pdnla.models.register("its_name")')


def describe(network: nn.Module) -> Description:
    """Return what a file is to say of a network.

    Raises:
        UserError: its class is not registered, or it was made with an argument that JSON cannot hold.
    """
    model = model_of(network)
    arguments = {}
    for name, value in network.construction.arguments.items():  # type: ignore[union-attr, operator]
        try:
            arguments[name] = json.loads(json.dumps(_plain(value)))
        except (TypeError, ValueError) as error:
            raise UserError(
                f"the model {model.name} was made with {name}={type(value).__name__}(...), which a file cannot hold;"
                " take a number, a string or a list, and make the object of it in the constructor"
            ) from error
    return Description(model.name, arguments, model.cls.__module__)


def build(description: Description, memory: int | None = None) -> nn.Module:
    """Return a new network of what a file says.

    Args:
        description: the model and its arguments.
        memory: bytes that the file's tensors take; a far larger network is refused before memory is taken for it.

    Raises:
        UserError: there is no such model, or it cannot be made with these arguments.
    """
    cls = find_model(description.model, description.module).cls
    parameters = inspect.signature(cls).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [] if open_ended else sorted(description.arguments.keys() - parameters.keys())
    if unknown:
        raise UserError(f"the model {description.model} takes no {', '.join(map(_shown, unknown))} here; upgrade it")
    arguments = dict(description.arguments)
    if BACKBONE in parameters:
        name = arguments.get(BACKBONE, BACKBONES[0])
        if name not in BACKBONES:
            raise UserError(f"the backbone {_shown(name)} is not known here; use {' or '.join(BACKBONES)}")
        arguments[BACKBONE] = load_backbone(name)
    try:
        with contextlib.nullcontext() if memory is None else _Bounded(max(_SMALL, memory)):
            return cls(**arguments)
    except Exception as error:  # what a constructor raises on a file's arguments is its own affair
        reason = printable(" ".join(str(error).split()), 200)
        raise UserError(
            f"the model cannot be made as {_shown(str(description))}: {reason}; pass other weights"
        ) from error


class _Bounded(TorchFunctionMode):
    """While it is entered, the tensors made have at most so many numbers together: a file may ask for any width."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.left = numbers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS:
            size = kwargs.get("size", args)
            if len(size) and isinstance(size[0], Sequence):
                (size, *_) = size
            self.left -= math.prod(side for side in size if isinstance(side, int))
            if self.left < 0:
                raise MemoryError("its tensors would be far larger than the file's")
        return func(*args, **kwargs)


def read_description(said: object) -> Description:
    """Return what a file says of its network.

    Raises:
        ValueError: it does not say that.
    """
    said = said if isinstance(said, Mapping) else {}
    model, arguments, module = (said.get(field) for field in Description._fields)
    if not isinstance(model, str) or not isinstance(module, str) or not isinstance(arguments, Mapping):
        raise ValueError("no model and arguments")
    if not all(isinstance(name, str) for name in arguments):
        raise ValueError("arguments without names")
    return Description(model, dict(arguments), module)


def differences(found: Description, network: Description) -> str:
    """Return how a file's network differs from the one here, and how to choose the same, as the end of a sentence.

    Only arguments that the file has are compared. The text is empty where nothing differs.
    """
    if found.model != network.model:
        return f"holds {_shown(found.model)} and the model is {network.model}; choose the same with model=..."
    different = {
        name: value
        for name, value in found.arguments.items()
        if name not in network.arguments or network.arguments[name] != value
    }
    if not different:
        return ""
    pairs = (f"{_shown(n)} {_shown(v)} and the model {_shown(network.arguments.get(n))}" for n, v in different.items())
    options = (f"{n if n == BACKBONE else f'model.{n}'}={_shown(v).replace(', ', ',')}" for n, v in different.items())
    return f"has {', '.join(pairs)}; set {' '.join(options)}"


def _plain(value: Any) -> Any:
    """Return a value with containers as JSON has them, whatever their class."""
    if isinstance(value, Backbone):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    return value


def _shown(value: Any) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value))


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
