"""Weights files: three kinds told apart by content, nothing executed, errors a person can read."""

import argparse
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pdnla import PDNLA, UserError, load_network, models
from pdnla.backbones import load_backbone
from pdnla.network import InformedPDNLA, SemanticPDNLA, SemanticWarp
from pdnla.weights import read_weights, save_weights


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.fixture
def net() -> PDNLA:
    torch.manual_seed(0)
    return PDNLA(4)


def test_safetensors_round_trip_keeps_every_value_and_says_where_they_came_from(net: PDNLA, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(net, path, "a test")
    loaded = load_network(path)
    assert same(loaded, net)
    assert not loaded.training
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {
            "format": "pdnla",
            "format_version": "2",
            "model": "pdnla",
            "arguments": '{"channel": 4, "extra": 0}',
            "module": "pdnla.network.pdnla",
            "source": "a test",
        }
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_kinds_are_told_apart_by_content_not_by_name(net: PDNLA, published_file: Path, tmp_path: Path) -> None:
    disguised = tmp_path / "w.pt"
    save_weights(net, tmp_path / "w.safetensors", "a test")
    (tmp_path / "w.safetensors").rename(disguised)
    assert same(load_network(disguised), net)
    published = tmp_path / "p.safetensors"
    published.write_bytes(published_file.read_bytes())
    assert load_network(published).channel == 4


@pytest.mark.parametrize("parts", [("network", "ema"), ("network",)])
def test_training_checkpoint_gives_its_average_or_else_its_plain_weights(
    parts: tuple[str, ...], net: PDNLA, tmp_path: Path
) -> None:
    nets = {"network": net, "ema": PDNLA(4)}
    state = {f"{part}.{name}": t for part in parts for name, t in nets[part].state_dict().items()}
    torch.save({"state_dict": state, "global_step": 7, "optimizer_states": []}, tmp_path / "last.ckpt")
    assert same(load_network(tmp_path / "last.ckpt"), nets[parts[-1]])


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("open('exploded', 'w').write('x')",))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_runs_nothing(
    legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"args": Bomb(), "PDNLA_ema": {}}
    if legacy:
        Path("evil.pt").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt"):
        load_network("evil.pt")
    assert not Path("exploded").exists()


def test_published_checkpoint_that_does_not_fit_lists_a_few_names(published: dict[str, Tensor], tmp_path: Path) -> None:
    state = dict(published)
    for name in [n for n in state if n.startswith("gen.NLB.0")]:
        del state[name]
    state["enc1.conv9.weight"] = torch.zeros(1)
    state["ocn.conv0.weight"] = torch.zeros(4, 6, 1, 1)
    torch.save({"args": argparse.Namespace(channel=4), "PDNLA_ema": state}, tmp_path / "p.pt")
    with pytest.raises(UserError) as caught:
        load_network(tmp_path / "p.pt")
    message = str(caught.value)
    assert "28 missing (gen.NLB.0.BNLBlock.g.weight" in message
    assert "and 24 more" in message
    assert "1 unexpected (enc1.conv9.weight)" in message
    assert "1 misshapen (ocn.conv0.weight (4, 6, 1, 1) instead of (4, 6, 3, 3))" in message
    assert "\n" not in message
    assert len(message) < 700


@pytest.mark.parametrize("channel", [5, True, -4, 10**9])
def test_a_published_checkpoint_of_an_impossible_width_gets_one_sentence(
    channel: int, published: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({"args": argparse.Namespace(channel=channel), "PDNLA_ema": published}, tmp_path / "p.pt")
    with pytest.raises(
        UserError, match=r"p\.pt: .*; pass (the authors' checkpoint as published|other weights)"
    ) as refused:
        load_network(tmp_path / "p.pt")
    assert str(refused.value).isprintable()


def test_published_slopes_that_are_not_shared_are_refused(published: dict[str, Tensor], tmp_path: Path) -> None:
    state = {**published, "ocn.ocb3.body.0.body.1.weight": torch.tensor([0.3])}
    torch.save({"args": argparse.Namespace(channel=4), "PDNLA_ema": state}, tmp_path / "p.pt")
    with pytest.raises(UserError, match="PReLU slopes differ"):
        load_network(tmp_path / "p.pt")


@pytest.mark.parametrize("kind", ["safetensors", "published"])
@pytest.mark.parametrize("part", [0, 5, 60, 0.5, 0.99])
def test_truncated_files_give_one_sentence(
    kind: str, part: float, net: PDNLA, published_file: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole.safetensors"
    save_weights(net, whole, "a test")
    content = (whole if kind == "safetensors" else published_file).read_bytes()
    (tmp_path / "cut").write_bytes(content[: part if isinstance(part, int) else int(part * len(content))])
    with pytest.raises(UserError, match="cut: is truncated or not a") as caught:
        load_network(tmp_path / "cut")
    assert "\n" not in str(caught.value)


def test_foreign_files_are_told_from_broken_ones(tmp_path: Path) -> None:
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    torch.save({"model": {}}, tmp_path / "other.pt")
    torch.save({"state_dict": {"net.weight": torch.zeros(1)}}, tmp_path / "other.ckpt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    for name, reason in {
        "other.safetensors": "without PDNLA weights",
        "other.pt": "another program",
        "other.ckpt": "another model",
        "list.pt": "holds a list",
        "image.png": "not a weights file",
        "absent.pt": "no such weights file",
        ".": "is a folder",
    }.items():
        with pytest.raises(UserError, match=reason):
            load_network(tmp_path / name)


def test_a_later_format_is_named(net: PDNLA, tmp_path: Path) -> None:
    metadata = {"format": "pdnla", "format_version": "3", "channel": "4"}
    write_safetensors(net, tmp_path / "w.safetensors", metadata)
    with pytest.raises(UserError, match="format 3, and this pdnla reads 2"):
        load_network(tmp_path / "w.safetensors")


def write_safetensors(net: torch.nn.Module, path: Path, metadata: dict[str, str]) -> None:
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    safetensors.torch.save_file(state, path, metadata)


def test_files_of_version_0_1_load(net: PDNLA, tmp_path: Path) -> None:
    backbone = load_backbone()
    semantic, warp = SemanticPDNLA(backbone, 4), SemanticWarp(backbone)
    for network, model, channel in (
        (net, "pdnla", "4"),
        (semantic, "pdnla_semantic", "4"),
        (warp, "semantic_warp", "0"),
    ):
        about = {"format": "pdnla", "format_version": "1", "model": model, "channel": channel, "source": "version 0.1"}
        write_safetensors(network, tmp_path / f"{model}.safetensors", about)
        loaded = load_network(tmp_path / f"{model}.safetensors")
        assert type(loaded) is type(network)
        assert same(loaded, network)
    informed = InformedPDNLA(backbone, 4, share=1.0, learned=False, prior=False)
    for network in (net, semantic, informed):  # their training checkpoints say nothing of the network
        state = {f"{part}.{n}": t for part in ("network", "ema") for n, t in network.state_dict().items()}
        torch.save({"state_dict": state, "global_step": 7, "optimizer_states": []}, tmp_path / "old.ckpt")
        loaded = load_network(tmp_path / "old.ckpt")
        assert type(loaded) is type(network)
        assert same(loaded, network)


def test_a_file_that_speaks_of_an_enormous_network_is_refused_before_memory_is_taken(
    net: PDNLA, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    for channel in (10**5, 10**9):  # 10^9 numbers in a layer, and more than a tensor can have
        about = {"format": "pdnla", "format_version": "2", "model": "pdnla", "module": "", "source": ""}
        write_safetensors(net, path, {**about, "arguments": json.dumps({"channel": channel})})
        with pytest.raises(UserError, match=r"w\.safetensors: the model cannot be made as pdnla, channel 10+: "):
            load_network(path)


def test_tensors_that_claim_a_size_give_no_room_for_one(published: dict[str, Tensor], tmp_path: Path) -> None:
    claims = {name: torch.zeros(1).expand(10**14) for name in published}
    torch.save({"args": argparse.Namespace(channel=10**5), "PDNLA_ema": claims}, tmp_path / "p.pt")
    with pytest.raises(UserError, match=r"p\.pt: its tensors would be far larger than the file's"):
        load_network(tmp_path / "p.pt")


@pytest.mark.parametrize(
    "said",
    [
        {"channel": "many"},
        {"format_version": "2"},
        {"format_version": "2", "model": "pdnla", "module": "", "arguments": "{"},
        {"format_version": "2", "model": "pdnla", "module": "", "arguments": "[4]"},
        {"format_version": "2", "model": "pdnla", "module": "", "arguments": "[" * 100_000},
    ],
)
def test_metadata_that_say_no_network_get_one_sentence(said: dict[str, str], net: PDNLA, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(net, path, {"format": "pdnla", "format_version": "1", "source": "", **said})
    with pytest.raises(UserError, match=r"w\.safetensors: does not name the network of its weights"):
        load_network(path)


def test_what_a_file_says_does_not_break_the_sentence(net: PDNLA, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    about = {
        "format": "pdnla",
        "format_version": "2",
        "module": "a\nb",
        "arguments": "{}",
        "source": "a\nb" + 999 * "c",
    }
    write_safetensors(net, path, {**about, "model": "mo\ndel" + 999 * "l"})
    with pytest.raises(UserError) as refused:
        load_network(path)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 500
    for name in ("a\nb", ["a"], 7, None):
        write_safetensors(net, path, {**about, "model": "semantic_warp", "arguments": json.dumps({"backbone": name})})
        with pytest.raises(UserError, match=r"the backbone .* is not known here; use efficientnet_lite0") as refused:
            load_network(path)
        assert str(refused.value).isprintable()
    write_safetensors(net, path, {**about, "model": "pdnla", "arguments": '{"channel": 4}'})
    source = read_weights(path).source
    assert source.isprintable()
    assert len(source) == 200


def test_whole_numbers_and_tied_weights_are_kept(tmp_path: Path) -> None:
    @models.register("counting")
    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(2, 2)
            self.second = self.first
            self.register_buffer("count", torch.tensor(70_001))

    network = Counting()
    save_weights(network, tmp_path / "w.safetensors", "a test", half=True)
    loaded = load_network(tmp_path / "w.safetensors")
    assert torch.equal(loaded.count, network.count)
    assert torch.allclose(loaded.second.weight, network.first.weight, rtol=1e-3)


def test_a_small_archive_that_unfolds_into_a_large_one_is_refused(net: PDNLA, tmp_path: Path) -> None:
    torch.save({"state_dict": net.state_dict()}, tmp_path / "plain.ckpt")
    packed = zipfile.ZipFile(tmp_path / "packed.ckpt", "w", zipfile.ZIP_DEFLATED)
    with packed, zipfile.ZipFile(tmp_path / "plain.ckpt") as plain:
        for part in plain.infolist():
            packed.writestr(part.filename, plain.read(part))
    with pytest.raises(UserError, match=r"packed\.ckpt: is a compressed archive"):
        load_network(tmp_path / "packed.ckpt")


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(2).to_sparse(), torch.zeros(2, device="meta"), torch.zeros(2, dtype=torch.complex64), 7, None],
)
def test_state_that_holds_no_plain_tensors_gets_one_sentence(tensor: object, net: PDNLA, tmp_path: Path) -> None:
    state = {f"network.{name}": t for name, t in net.state_dict().items()}
    torch.save({"state_dict": {**state, "network.refiner.stem.weight": tensor}}, tmp_path / "w.ckpt")
    with pytest.raises(UserError, match=r"w\.ckpt: holds (Tensor|int|NoneType) where weights are expected"):
        load_network(tmp_path / "w.ckpt")
