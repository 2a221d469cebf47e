"""Sharing of networks in folders and on the Hugging Face Hub, with huggingface_hub's PyTorchModelHubMixin.

A folder holds ``model.safetensors``, a weights file (:mod:`pdnla.weights`); ``config.json``, the model's name and
arguments; and ``README.md``, a model card. Each registered model has the first three functions as methods:

>>> network = pdnla.PDNLA.from_pretrained("folder")   # or "owner/name", a repository on the Hub
>>> network.save_pretrained("folder")
>>> network.push_to_hub("owner/name")
"""

import json
import logging
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from torch import nn

from pdnla.checkpoints import printable
from pdnla.errors import UserError
from pdnla.files import replacing
from pdnla.models import Description, describe
from pdnla.pretrained import BUNDLED, MODEL
from pdnla.weights import CONFIG, FORMAT, FORMAT_VERSION, load_network, save_weights

if TYPE_CHECKING:
    from huggingface_hub import PyTorchModelHubMixin
    from typing_extensions import Self

    from pdnla import network

    class PDNLA(network.PDNLA):
        """The network with the methods that :func:`pdnla.models.register` adds, for type checkers."""

        @classmethod
        def from_pretrained(cls, name: str | Path, **options: Any) -> Self:
            """See :func:`pdnla.hub.from_pretrained`."""

        def save_pretrained(self, folder: str | Path) -> None:
            """See :func:`pdnla.hub.save_pretrained`."""

        def push_to_hub(self, repo_id: str, **options: Any) -> str:
            """See :func:`pdnla.hub.push_to_hub`."""


_CARD = "README.md"
_TEMPLATE = """---
{{ card_data }}
---

# A network of pdnla

This network colours a grey photograph with the colours of a reference photograph
([Wang et al., IEEE TIP 2023](https://doi.org/10.1109/TIP.2023.3293777)).

```python
import pdnla

network = pdnla.PDNLA.from_pretrained("{{ repo_id | default("this folder", true) }}")
colorizer = pdnla.Colorizer(network)
```

Describe here the photographs that it was trained on, its measures, its limits and its licence.
"""

Network = TypeVar("Network", bound=nn.Module)


def from_pretrained(cls: type[Network], name: str | Path, **options: Any) -> Network:
    """Return the network of ``name`` in eval mode, of the class ``cls`` or a subclass.

    Args:
        cls: the expected class.
        name: a folder of :func:`save_pretrained`, any weights file of :func:`pdnla.weights.load_network`, the name of
            weights in the package, or the name of a repository on the Hub, ``owner/name``.
        **options: of the Hub: ``revision``, ``token``, ``cache_dir``, ``force_download``, ``local_files_only``.

    Raises:
        UserError: the network cannot be downloaded or read, or is of another class.
    """
    if str(name) in BUNDLED or Path(name).exists():
        network = load_network(name)
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        raise UserError(
            f"{name}: there is no such folder or file; check the path, or name a repository of the Hub as owner/name"
        )
    else:
        try:
            network = cast(Any, _repository().from_pretrained(str(name), **options)).network
        except UserError:
            raise
        except (OSError, ValueError) as error:  # the library's errors are of these kinds
            logging.getLogger(__name__).debug("%s", name, exc_info=True)
            raise UserError(
                f"{name}: is no file or folder here, and cannot be downloaded from the Hub ({_reason(error)}); check"
                " the name and the connection, and log in for a private one (hf auth login)"
            ) from error
    if not isinstance(network, cls):
        held = describe(network).model
        raise UserError(f"{name}: holds {held}, which is not a {cls.__name__}; use pdnla.load_network or its class")
    return network


def save_pretrained(network: nn.Module, folder: str | Path) -> None:
    """Write ``network`` into a folder: ``model.safetensors``, ``config.json``, and ``README.md`` if there is none.

    Raises:
        UserError: see :func:`pdnla.weights.save_weights`.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder")
    # The library removes an existing config.json before it saves, so it saves elsewhere.
    with tempfile.TemporaryDirectory() as scratch:
        _repository()(network).save_pretrained(scratch)
        for name in (MODEL, CONFIG, _CARD):
            if name != _CARD or not (folder / name).exists():
                with replacing(folder / name) as temporary:
                    temporary.write_bytes((Path(scratch) / name).read_bytes())


def push_to_hub(network: nn.Module, repo_id: str, **options: Any) -> str:
    """Upload ``network`` to a repository on the Hub, which is created if necessary, and return the commit's URL.

    Args:
        network: the network.
        repo_id: the repository, ``owner/name``.
        **options: see :meth:`huggingface_hub.ModelHubMixin.push_to_hub`, for example ``private`` and ``token``.

    Raises:
        UserError: see :func:`pdnla.weights.save_weights`; or the upload failed.
    """
    options["model_card_kwargs"] = {"repo_id": repo_id, **(options.get("model_card_kwargs") or {})}
    try:
        return str(_repository()(network).push_to_hub(repo_id, **options))
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(
            f"{repo_id}: cannot be uploaded to the Hub ({_reason(error)}); check the name and the connection, and log"
            " in with a token that may write (hf auth login)"
        ) from error


def _reason(error: Exception) -> str:
    first = next(iter(str(error).splitlines()), "").strip().removesuffix(".")
    return printable(first, 200) or type(error).__name__


def _configuration(description: Description) -> dict[str, Any]:
    return {"format": FORMAT, "format_version": FORMAT_VERSION, **description._asdict()}


def _repository() -> "type[PyTorchModelHubMixin]":
    """Return the class that connects a network to huggingface_hub, which is imported here because it takes a while."""
    from huggingface_hub import PyTorchModelHubMixin, snapshot_download

    class Repository(
        PyTorchModelHubMixin,
        library_name="pdnla",
        paper_url="https://doi.org/10.1109/TIP.2023.3293777",
        pipeline_tag="image-to-image",
        tags=["colorization", "exemplar-based-colorization"],
        model_card_template=_TEMPLATE,
    ):
        """A network in a folder or on the Hub."""

        def __init__(self, network: nn.Module) -> None:
            self.network = network

        def _save_pretrained(self, save_directory: Path) -> None:
            save_weights(self.network, save_directory / MODEL, "save_pretrained")
            config = json.dumps(_configuration(describe(self.network)), indent=2)
            (save_directory / CONFIG).write_text(config, encoding="utf-8")

        @classmethod
        def _from_pretrained(cls, *, model_id: str, **options: Any) -> "Repository":
            kept = ("revision", "cache_dir", "force_download", "local_files_only", "token")
            options = {name: options[name] for name in kept}
            return cls(load_network(snapshot_download(model_id, allow_patterns=[MODEL, CONFIG], **options)))

    return Repository
