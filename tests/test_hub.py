"""Networks in folders and on the Hub: written, read again, and refused in one sentence. Nothing here uses a network."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from PIL import Image

import pdnla
from pdnla import PDNLA, UserError
from pdnla.models import describe, register
from pdnla.network import SemanticWarp


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    PDNLA(4).save_pretrained(tmp_path / "net")
    return tmp_path / "net"


def test_a_folder_gives_the_same_network_again(tmp_path: Path) -> None:
    network = PDNLA(6, extra=3)
    network.save_pretrained(tmp_path / "net")
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    assert (config["model"], config["arguments"]) == ("pdnla", {"channel": 6, "extra": 3})
    for loaded in (PDNLA.from_pretrained(tmp_path / "net"), pdnla.load_network(str(tmp_path / "net"))):
        assert type(loaded) is PDNLA
        assert not loaded.training
        assert describe(loaded) == describe(network)
        for name, tensor in network.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)


def test_registered_models_have_the_methods_and_keep_their_class(tmp_path: Path) -> None:
    @register("shared_subclass")
    class Shared(PDNLA):
        def __init__(self, channel: int = 4, gain: float = 1.0) -> None:
            super().__init__(channel)
            self.gain = gain

    Shared(gain=2.0).save_pretrained(tmp_path / "net")
    loaded = PDNLA.from_pretrained(tmp_path / "net")
    assert type(loaded) is Shared
    assert loaded.gain == 2.0
    with pytest.raises(UserError, match=r"net: holds shared_subclass, which is not a SemanticWarp; use pdnla\.load_n"):
        SemanticWarp.from_pretrained(tmp_path / "net")


def test_weights_of_the_package_and_files_are_read_too(folder: Path) -> None:
    assert describe(PDNLA.from_pretrained("pdnla_tiny")).arguments["channel"] == 8
    assert describe(PDNLA.from_pretrained(folder / "model.safetensors")).arguments["channel"] == 4


def test_a_folder_colours(folder: Path, tmp_path: Path) -> None:
    colorizer = pdnla.Colorizer(folder, device="cpu", size=32)
    assert colorizer(Image.new("L", (20, 30), 90), Image.new("RGB", (30, 20), "red")).size == (20, 30)


def test_saving_again_keeps_the_card_and_a_refused_network_changes_nothing(folder: Path) -> None:
    (folder / "README.md").write_text("My card.")
    PDNLA(6).save_pretrained(folder)
    assert (folder / "README.md").read_text() == "My card."
    assert describe(PDNLA.from_pretrained(folder)).arguments["channel"] == 6

    class Unknown(PDNLA):
        pass

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match="Unknown is not a registered model"):
        Unknown(4).save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(UserError, match=r"README\.md: is a file; name a folder"):
        PDNLA(4).save_pretrained(folder / "README.md")


def test_a_folder_that_does_not_fit_together_is_refused(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(config.read_text().replace("4", "6"))
    message = r"config\.json: describes pdnla, channel 6, extra 0 and model\.safetensors holds pdnla, channel 4, "
    with pytest.raises(UserError, match=message):
        PDNLA.from_pretrained(folder)
    config.write_text("[]")
    with pytest.raises(UserError, match=r"config\.json: does not describe a network of pdnla; save"):
        PDNLA.from_pretrained(folder)
    config.unlink()
    assert describe(PDNLA.from_pretrained(folder)).arguments["channel"] == 4
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"net: is a folder without model\.safetensors; name the weights file in it"):
        PDNLA.from_pretrained(folder)


def test_a_repository_is_read_from_the_cache_by_its_name(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "cache" / "models--someone--colours"
    commit = "0" * 40
    (repository / "snapshots").mkdir(parents=True)
    folder.rename(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    options: dict[str, Any] = {"cache_dir": tmp_path / "cache", "local_files_only": True}
    assert describe(PDNLA.from_pretrained("someone/colours", **options)).arguments["channel"] == 4
    with pytest.raises(UserError, match=r"^someone/greys: is no file or folder here, and cannot be downloaded from"):
        PDNLA.from_pretrained("someone/greys", **options)
    with pytest.raises(UserError, match=r"a/b/c: there is no such folder or file; check the path, or name a"):
        PDNLA.from_pretrained("a/b/c", **options)


def test_pushing_uploads_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: dict[str, str] = {}

    def upload(self: object, *, repo_id: str, folder_path: Path, **options: Any) -> str:
        assert repo_id == "someone/colours"
        uploaded.update({path.name: path.read_text(errors="replace") for path in folder_path.iterdir()})
        assert describe(PDNLA.from_pretrained(folder_path)).arguments["channel"] == 4
        return "https://example.org/commit"

    class Created:
        repo_id = "someone/colours"

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda self, **options: Created)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    assert PDNLA(4).push_to_hub("someone/colours") == "https://example.org/commit"
    assert sorted(uploaded) == ["README.md", "config.json", "model.safetensors"]
    assert 'from_pretrained("someone/colours")' in uploaded["README.md"]
    assert "library_name: pdnla" in uploaded["README.md"]

    def refuse(self: object, **options: Any) -> str:
        raise OSError("401 Client Error.\nmore")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(UserError, match=r"colours: cannot be uploaded to the Hub \(401 Client Error\); check the name"):
        PDNLA(4).push_to_hub("someone/colours")


def test_importing_the_package_imports_neither_torch_nor_the_hub() -> None:
    code = "import sys, pdnla; sys.exit(any(m in sys.modules for m in ('torch', 'huggingface_hub')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_commands_take_a_folder_as_weights(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pdnla.cli.colorize import main

    Image.new("L", (20, 30), 90).save(tmp_path / "grey.png")
    Image.new("RGB", (30, 20), "red").save(tmp_path / "red.png")
    arguments = ["grey.png", "red.png", "--weights", "net", "--size", "32", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["pdnla-colorize", *arguments])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert Image.open(tmp_path / "grey_colorized.png").size == (20, 30)
