"""Weights files: three kinds told apart by content, nothing executed, errors a person can read."""

import argparse
import pickle
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pdnla import PDNLA, UserError, load_network
from pdnla.weights import save_weights


def same(a: PDNLA, b: PDNLA) -> bool:
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
            "format_version": "1",
            "model": "pdnla",
            "channel": "4",
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
    metadata = {"format": "pdnla", "format_version": "2", "channel": "4"}
    safetensors.torch.save_file(
        {n: t.contiguous() for n, t in net.state_dict().items()}, tmp_path / "w.safetensors", metadata
    )
    with pytest.raises(UserError, match="format 2, and this pdnla reads 1"):
        load_network(tmp_path / "w.safetensors")
