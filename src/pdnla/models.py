"""The registry of models: the networks that weights files can hold, by name, and their construction from a file.

A file names its model and the arguments of the model's constructor. The name is looked up among the models of this
package, those given to :func:`register`, and those that installed packages declare as entry points of the group
``pdnla.models``. A module or class that a file names is never imported or called for that reason.

A model is a :class:`torch.nn.Module` that colours pictures: ``network(target, reference)`` returns a
:class:`~pdnla.network.Colorization`. ``network.encode_reference(reference)`` returns all that depends only on the
reference, which ``network`` accepts in place of the reference.

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
from types import MappingProxyType
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
"""A constructor argument with this name is a frozen network of :mod:`pdnla.backbones`; files hold its name."""

_SMALL = 1 << 28  # every network may have this many numbers
_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_SIZE_BOUND = "its correspondence depends on the pictures' sizes"

Class = TypeVar("Class", bound=type[nn.Module])


class Model(NamedTuple):
    """An entry of the registry.

    Attributes:
        name: its name in files.
        cls: its class.
        unexportable: why it cannot be exported to other runtimes; empty if it can.
        former: values of arguments in files from before the constructor had them.
    """

    name: str
    cls: type[nn.Module]
    unexportable: str = ""
    former: Mapping[str, Any] = MappingProxyType({})


class Description(NamedTuple):
    """The description of a network in a file.

    Attributes:
        model: the model's name.
        arguments: the constructor's arguments by name, as JSON values.
        module: the module of its class, for the reader of an error; it is never imported.
    """

    model: str
    arguments: dict[str, Any]
    module: str = ""

    def __str__(self) -> str:
        return ", ".join([self.model, *(f"{name} {_shown(value)}" for name, value in self.arguments.items())])


_models: dict[str, Model] = {}


def register(
    name: str, *, unexportable: str = "", former: Mapping[str, Any] = MappingProxyType({})
) -> Callable[[Class], Class]:
    """Return a decorator that registers a class as a model.

    The constructor's arguments are written to files as JSON: numbers, strings, booleans, None, and lists and mappings
    of these. An argument ``backbone`` may be a :class:`~pdnla.backbones.Backbone`.

    Args:
        name: the model's name in files.
        unexportable: why it cannot be exported to other runtimes, as the end of a sentence; empty if it can.
        former: values of the arguments that were added to the constructor after files had been written. They describe
            the networks in those files, so that the constructor's defaults can be others.

    Raises:
        ValueError: another class has the name.
        TypeError: the constructor takes arguments without a name.
    """

    def add(cls: Class) -> Class:
        taken = _models.get(name)
        if taken is not None and _path(taken.cls) != _path(cls):  # a notebook's cell may define the class again
            raise ValueError(
                f"the model {name} is already {_path(taken.cls)}; register {_path(cls)} under another name"
            )
        keeps_construction(cls)
        _share(cls)
        _models[name] = Model(name, cls, unexportable, former)
        return cls

    return add


def _share(cls: type[nn.Module]) -> None:
    """Add ``from_pretrained``, ``save_pretrained`` and ``push_to_hub`` to a model that has none of its own."""

    def shared(name: str) -> Callable[..., Any]:
        def method(owner: Any, *args: Any, **options: Any) -> Any:
            from pdnla import hub  # imports this module

            return getattr(hub, name)(owner, *args, **options)

        method.__name__, method.__qualname__ = name, f"{cls.__qualname__}.{name}"
        method.__doc__ = f"See :func:`pdnla.hub.{name}`."
        return method

    for name in ("from_pretrained", "save_pretrained", "push_to_hub"):
        if not hasattr(cls, name):
            setattr(cls, name, classmethod(shared(name)) if name == "from_pretrained" else shared(name))


register("pdnla")(PDNLA)
register("pdnla_semantic", unexportable=_SIZE_BOUND)(SemanticPDNLA)
register(
    "pdnla_informed",
    unexportable=_SIZE_BOUND,
    former={"share": 1.0, "learned": False, "same_share": None, "prior": False, "expects": False},
)(InformedPDNLA)
register("semantic_warp", unexportable=_SIZE_BOUND)(SemanticWarp)


def find_model(name: str, module: str = "") -> Model:
    """Return the model with a name.

    Args:
        name: its name in files.
        module: the module that a file names, for the error.

    Raises:
        UserError: there is no such model.
    """
    if name not in _models:
        for point in entry_points(group=ENTRY_POINTS, name=name):
            cls = point.load()
            if name not in _models:  # unless its module has registered it
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
    """Return the model of a network.

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
    """Return the description of a network for a file.

    Raises:
        UserError: its class is not registered, or it was made with an argument that JSON cannot hold.
    """
    model = model_of(network)
    arguments = {}
    for name, value in network.construction.arguments.items():  # type: ignore[union-attr, operator]
        try:
            arguments[name] = json.loads(json.dumps(_as_json(value)))
        except (TypeError, ValueError) as error:
            raise UserError(
                f"the model {model.name} was made with {name}={type(value).__name__}(...), which a file cannot hold;"
                " use a number, a string or a list, and create the object in the constructor"
            ) from error
    return Description(model.name, arguments, model.cls.__module__)


def build(description: Description, memory: int | None = None) -> nn.Module:
    """Return a new network from its description.

    Args:
        description: the model and its arguments.
        memory: size of the file's tensors in bytes; a far larger network is refused before it is allocated.

    Raises:
        UserError: there is no such model, or it cannot be made with these arguments.
    """
    model = find_model(description.model, description.module)
    cls = model.cls
    parameters = inspect.signature(cls).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [] if open_ended else sorted(description.arguments.keys() - parameters.keys())
    if unknown:
        raise UserError(f"the model {description.model} takes no {', '.join(map(_shown, unknown))} here; upgrade it")
    arguments = {**model.former, **description.arguments}
    if BACKBONE in parameters:
        name = arguments.get(BACKBONE, BACKBONES[0])
        if name not in BACKBONES:
            raise UserError(f"the backbone {_shown(name)} is not known here; use {' or '.join(BACKBONES)}")
        arguments[BACKBONE] = load_backbone(name)
    try:
        with contextlib.nullcontext() if memory is None else _Bounded(max(_SMALL, memory)):
            return cls(**arguments)
    except Exception as error:  # a constructor may raise anything on a file's arguments
        reason = printable(" ".join(str(error).split()), 200)
        raise UserError(
            f"the model cannot be made as {_shown(str(description))}: {reason}; pass other weights"
        ) from error


class _Bounded(TorchFunctionMode):
    """Limits the number of elements of all tensors made in its context, because a file may name any width."""

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


def read_description(content: object) -> Description:
    """Return the description of a network that a file holds.

    Raises:
        ValueError: it is not a description.
    """
    content = content if isinstance(content, Mapping) else {}
    model, arguments, module = (content.get(field) for field in Description._fields)
    if not isinstance(model, str) or not isinstance(module, str) or not isinstance(arguments, Mapping):
        raise ValueError("no model and arguments")
    if not all(isinstance(name, str) for name in arguments):
        raise ValueError("arguments without names")
    return Description(model, dict(arguments), module)


def differences(stored: Description, network: Description) -> str:
    """Return the differences between a file's network and the present one, and the options that remove them.

    The text is the end of a sentence, and empty if nothing differs. Only arguments that the file holds, or that have
    ``former`` values, are compared.
    """
    if stored.model != network.model:
        return f"holds {_shown(stored.model)} and the model is {network.model}; choose the same with model=..."
    former = _models[network.model].former if network.model in _models else {}
    different = {
        name: value
        for name, value in {**former, **stored.arguments}.items()
        if name not in network.arguments or network.arguments[name] != value
    }
    if not different:
        return ""
    pairs = (f"{_shown(n)} {_shown(v)} and the model {_shown(network.arguments.get(n))}" for n, v in different.items())
    options = (f"{n if n == BACKBONE else f'model.{n}'}={_shown(v).replace(', ', ',')}" for n, v in different.items())
    return f"has {', '.join(pairs)}; set {' '.join(options)}"


def _as_json(value: Any) -> Any:
    """Return a value with lists and mappings of any class as plain lists and dicts."""
    if isinstance(value, Backbone):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_as_json(item) for item in value]
    return value


def _shown(value: Any) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value))


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
