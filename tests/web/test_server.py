"""The server: who reaches the page, what of it there is, what is refused, and that it asks nothing of others."""

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from processes import piped, start

from pdnla.errors import UserError
from pdnla.inference.editing import Adjustment
from pdnla.web.sessions import Sessions
from pdnla.web.studio import Studio
from pdnla.web.uploads import pictures_in

pytest.importorskip("gradio", reason="the extra pdnla[web] is not installed")
httpx = pytest.importorskip("httpx")

from pdnla.web.page import theme  # noqa: E402
from pdnla.web.server import PORTS, ROOM, Address, build_app, check_address, is_loopback, listen  # noqa: E402


def test_only_this_machine_is_served_without_a_password() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.0.0.5", "localhost", "::1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.2", "example.org", ""))
    check_address(Address())
    check_address(Address("0.0.0.0", password="long enough"))
    with pytest.raises(
        UserError, match=r"--host 0\.0\.0\.0: others can reach it, which takes a password; set PDNLA_WEB"
    ):
        check_address(Address("0.0.0.0"))
    with pytest.raises(UserError, match="--password: must have at least 8 characters"):
        check_address(Address("0.0.0.0", password="short"))


def test_a_port_that_is_taken_is_told_and_the_first_free_one_is_the_default() -> None:
    with listen(Address(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--host 127\.0\.0\.1, port {port}: cannot listen there \(.*\); choose"):
            listen(Address(port=port))
    with listen(Address()) as first, listen(Address()) as second:
        assert first.getsockname()[0] == "127.0.0.1"
        ports = [listening.getsockname()[1] for listening in (first, second)]
        assert ports[0] < ports[1]
        assert set(ports) <= set(PORTS)
    with pytest.raises(UserError, match="ports 7860 to 7959: cannot listen there"):
        listen(Address("192.0.2.1"))  # an address that is nobody's


def test_what_the_page_does_not_need_is_not_there(serving: Any) -> None:
    with httpx.Client(base_url=serving.url) as client:
        response = client.get("/")
        assert response.status_code == 200
        assert "default-src 'self'" in response.headers["content-security-policy"]
        for path in (
            "docs", "openapi.json", "gradio_api/info", "gradio_api/openapi.json", "gradio_api/run/predict",
            "gradio_api/call/album", "gradio_api/proxy=https://example.org/", "gradio_api/process_recording",
            "gradio_api/run-history/buckets", "monitoring", "gradio_api/vibe-edit/", "gradio_api/mcp/",
        ):  # fmt: skip
            assert client.get(path).status_code == 404, path
            assert client.post(path).status_code == 404, path
        assert client.get("/", headers={"host": "elsewhere.example"}).status_code == 400
        assert client.get("/", headers={"host": "[::1]:7860"}).status_code == 200


def test_files_of_this_machine_are_neither_served_nor_taken_for_sent_ones(serving: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    with httpx.Client(base_url=serving.url) as client:
        for path in (secret, f"{serving.folder}/../{tmp_path.name}/secret.png", "/etc/hostname"):
            assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)
        functions = client.get("/config").json()["dependencies"]
        take_target = next(one for one in functions if one["api_name"] == "take_target")
        for path in (str(secret), f"{serving.folder}/../secret.png", "http://127.0.0.1:9/a.png", "secret.png"):
            data = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
            request = {"data": data, "fn_index": take_target["id"], "session_hash": "forged"}
            assert client.post("/gradio_api/queue/join", json=request).status_code == 400, path
        assert client.post("/gradio_api/queue/join", content=b"[" + b" " * 5_000_000 + b"]").status_code == 400
    session = Sessions(serving.studio, tmp_path / "served").get("a")
    with pytest.raises(UserError, match=r"^secret.png: was not sent to this page"):
        session.claim_uploads([str(secret)])
    session.close()
    assert secret.read_bytes() == b"secret"
    assert not any(serving.folder.rglob("secret.png"))


def test_names_of_sent_files_lead_nowhere_and_large_files_are_refused(serving: Any) -> None:
    with httpx.Client(base_url=serving.url) as client:
        response = client.post("/gradio_api/upload", files={"files": ("../../../evil.png", b"picture")})
        (path,) = response.json()
        assert Path(path).is_relative_to(serving.folder)
        assert ".." not in path
        response = client.post("/gradio_api/upload", files={"files": ("large.png", bytes(1_100_000))})
        assert response.status_code == 413
    assert not any(file.stat().st_size > 1_000_000 for file in serving.folder.rglob("*"))


def test_a_full_disk_refuses_what_is_sent(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=ROOM + 100))
    with httpx.Client(base_url=serving.url) as client:
        response = client.post("/gradio_api/upload", files={"files": ("a.png", bytes(1000))})
        assert (response.status_code, response.text) == (507, "there is no room for it")


def test_a_password_stands_before_everything(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.testclient import TestClient

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
    app = build_app(studio, Address("0.0.0.0", password="ünlocked door"), tmp_path)
    with TestClient(app, base_url="http://192.168.1.2:7860") as client:
        assert client.get("/").status_code == 200, "the page that asks for it"
        assert client.get("/config").status_code == 401
        assert client.post("/gradio_api/upload", files={"files": ("a.png", b"a")}).status_code == 401
        for wrong in ("", "unlocked door"):
            assert client.post("/login", data={"username": "x", "password": wrong}).status_code in (400, 422)
        assert client.get("/config").status_code == 401
        assert client.post("/login", data={"username": "x", "password": "ünlocked door"}).status_code == 200
        assert client.get("/config").status_code == 200


def test_each_open_page_has_its_own_pictures_which_go_with_it(studio: Studio, pictures: Path, tmp_path: Path) -> None:
    sessions = Sessions(studio, tmp_path, most=2)
    first, second = sessions.get("a"), sessions.get("b")
    assert sessions.get("a") is first
    sent = tmp_path / "sent.png"
    sent.write_bytes((pictures / "astronaut_grey.png").read_bytes())
    for session in (first, second):  # the same file: what both sent is stored once
        (path,) = session.claim_uploads([str(sent)])
        session.still.take_target(path)
    again = tmp_path / "again.png"
    again.write_bytes(sent.read_bytes())
    sessions.get("a").claim_uploads([str(again)])
    again.unlink()
    again.write_bytes(sent.read_bytes())  # another page sends the same, which Gradio puts in its place
    os.utime(again, ns=(1, 1))
    sessions.close("a")
    assert not first.folder.exists()
    assert not sent.exists()
    assert again.exists(), "it is not this page's any more"
    second.still.take_references([pictures / "mirrored.jpg"])
    second.still.choose_candidates()
    second.still.colour()
    assert second.still.target is not None
    sessions.get("c")
    sessions.get("d")
    assert len(sessions) == 2
    assert second.closed.is_set()
    assert not second.folder.exists(), "the page that was idle for the longest is forgotten"
    sessions.close("unknown")
    large = Sessions(studio, tmp_path, most_pixels=128 * 128)
    for key in ("a", "b"):
        still = large.get(key).still
        still.take_target(pictures / "astronaut_grey.png")
        still.take_references([pictures / "mirrored.jpg"])
        still.choose_candidates()
        still.colour()
    assert large.get("b").still is still
    assert len(large) == 1, "two pictures are more than fits in memory"


def test_work_for_a_page_that_was_closed_ends_quietly_and_leaves_nothing(
    studio: Studio, pictures: Path, tmp_path: Path
) -> None:
    sessions = Sessions(studio, tmp_path)
    with sessions.get("a") as session:
        session.still.take_target(pictures / "astronaut_grey.png")
        session.still.take_references([pictures / "mirrored.jpg"])
        session.still.choose_candidates()
        session.still.colour()
        sessions.close("a")
        assert not session.folder.exists()
        session.still.compare(Adjustment())
    assert not session.folder.exists()


HOLDING = """
import os
import sys
from pathlib import Path

from pdnla.memory import keep_freed_memory
from pdnla.web.sessions import Session
from pdnla.web.studio import Studio


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


keep_freed_memory()
with Session(Studio(None), Path("one"), Path()):
    pictures = [bytes(100_000) for _ in range(3000)]
    above_them = bytes(100_000)
    del pictures
    before = resident()
sys.exit(0 if resident() < before - 250 else 1)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are not changed")
def test_after_a_request_the_memory_of_large_pictures_goes_back_to_the_system(tmp_path: Path) -> None:
    (tmp_path / "holding.py").write_text(HOLDING)
    start(str(tmp_path / "holding.py"), [], tmp_path).finish()


def test_pictures_of_a_folder_are_chosen_by_their_names() -> None:
    names = ["b.JPG", "notes.txt", ".DS_Store", "._b.jpg", "Thumbs.db", "raw.nef", "none", "a.tif"]
    assert pictures_in([f"/sent/{name}" for name in names]) == ["/sent/b.JPG", "/sent/raw.nef", "/sent/a.tif"]
    with pytest.raises(UserError, match="this folder has no pictures; choose another one"):
        pictures_in(["/sent/notes.txt"])


GUARD = """
    import os, shutil, socket, types
    shutil.disk_usage = lambda folder: types.SimpleNamespace(free=1e12)
    connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo
    def tell(place):
        with open(os.environ["ASKED"], "a") as file:
            print(place, file=file)
    def told_connect(self, place):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(place[0]).startswith("127."):
            tell(place)
        return connect(self, place)
    def told_getaddrinfo(host, *args, **options):
        if host not in (None, "127.0.0.1", "localhost", "0.0.0.0"):
            tell(host)
        return getaddrinfo(host, *args, **options)
    socket.socket.connect, socket.getaddrinfo = told_connect, told_getaddrinfo
"""


@pytest.mark.slow
def test_the_command_serves_asks_nothing_of_other_hosts_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(textwrap.dedent(GUARD))
    asked, temporary = tmp_path / "asked", tmp_path / "temporary"
    temporary.mkdir()
    paths = [str(tmp_path / "guard"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "ASKED": str(asked)}
    environment |= {"TMPDIR": str(temporary), "PDNLA_NATIVE": "0"}  # nothing to compile
    command = [sys.executable, "-m", "pdnla.cli.web", "--port", "0", "--no-browser", "--device", "cpu"]
    with piped(command, env=environment, stderr=subprocess.STDOUT, bufsize=1) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "the page is at" in line:
                break
        (url,) = re.findall(r"http://127\.0\.0\.1:\d+/", "".join(lines))
        with httpx.Client(base_url=url) as client:
            assert client.get("/").status_code == 200
            assert client.get("/config").status_code == 200
            response = client.post("/gradio_api/upload", files={"files": ("a.png", b"a")})
            assert Path(response.json()[0]).is_relative_to(temporary)
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in rest
    assert not asked.exists(), asked.read_text()
    assert not list(temporary.glob("pdnla-web-*"))


def contrast(colour: str, other: str) -> float:
    """The ratio of two colours' luminances by WCAG 2, of #rrggbb."""
    channels = (torch.tensor([int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)]) for c in (colour, other))
    linear = (torch.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92) for c in channels)
    first, second = sorted(float(c @ torch.tensor([0.2126, 0.7152, 0.0722])) + 0.05 for c in linear)
    return second / first


@pytest.mark.parametrize("button", ["primary", "cancel"])
@pytest.mark.parametrize("state", ["", "_hover", "_dark", "_hover_dark"])
def test_white_on_a_button_can_be_read(button: str, state: str) -> None:
    look = theme()
    colour = getattr(look, f"button_{button}_background_fill{state}")
    if colour.startswith("*"):
        colour = getattr(look, colour[1:])
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#ffffff", colour) >= 4.5
