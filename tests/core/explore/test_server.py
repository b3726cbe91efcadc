"""The page over HTTP: who may ask, what is answered, and that nothing is read meanwhile."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distk.errors import UsageError
from distk.explore import server as serving
from distk.explore.looking import Explorer
from distk.explore.server import FILES, LARGEST, Server
from distk.models import open_model

pytest.importorskip("starlette", reason="the extra explore is not installed: pip install 'distk[explore]'")
pytest.importorskip("uvicorn", reason="the extra explore is not installed: pip install 'distk[explore]'")

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(folder_of) -> Iterator[Server]:
    model, header = open_model(folder_of("image") / "checkpoint.safetensors", "cpu")
    made = Server(Explorer(model, header))
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    yield made
    made.stop()
    thread.join(10)
    assert not thread.is_alive()
    made.close()


def asked(server: Server, method: str, place: str, body: Any = None, **headers: str) -> tuple[int, bytes, Any]:
    """(status, body, headers) of a request; a place without a slash in front is below the secret."""
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    path = place if place.startswith("/") else f"/{server.secret}/{place}"
    given = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    line.request(method, path, given, {**(JSON if body is not None else {}), **named})
    answer = line.getresponse()
    return answer.status, answer.read(), answer.headers


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.port}/{server.secret}/"
    assert len(server.secret) > 20


def test_the_page_and_its_answers(server: Server) -> None:
    for place in FILES:
        status, body, headers = asked(server, "GET", place)
        assert (status, bool(body)) == (200, True)
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert json.loads(asked(server, "GET", "plan")[1])["method"] == "cascadevae"
    status, body, _ = asked(server, "POST", "show", {"start": {"draw": 1}, "moves": {"z": {"0": 1.0}}})
    assert status == 200
    assert json.loads(body)["made"]["kind"] == "picture"


@pytest.mark.parametrize(
    ("place", "headers", "status"),
    [
        ("/", {}, 404),
        ("/plan", {}, 404),
        ("/wrong-secret/plan", {}, 404),
        ("../plan", {}, 404),
        ("/etc/passwd", {}, 404),
        ("..%2f..%2f..%2fetc/passwd", {}, 404),
        ("page.py", {}, 404),
        ("server.py", {}, 404),
        ("file?path=/etc/passwd", {}, 404),
        ("plan", {"host": "evil.example"}, 400),  # a name of others that resolves to this machine
        ("plan", {"host": "evil.example:80"}, 400),
        ("show", {}, 405),
    ],
)
def test_nothing_else_is_given_out(server: Server, place: str, headers: dict[str, str], status: int) -> None:
    got = asked(server, "GET", place, **headers)
    assert got[0] == status
    assert b"root:" not in got[1]


def test_pages_of_others_cannot_ask(server: Server) -> None:
    wish = {"start": {"draw": 0}}
    assert asked(server, "POST", "show", wish, origin="http://evil.example")[0] == 403
    assert asked(server, "POST", "show", wish, origin="null")[0] == 403
    assert asked(server, "POST", "show", wish, origin=f"https://127.0.0.1:{server.port}")[0] == 403
    assert asked(server, "POST", "show", wish, origin=f"http://127.0.0.1:{server.port}")[0] == 200
    # What a form of another page could send without asking first.
    assert asked(server, "POST", "show", wish, content_type="text/plain")[0] == 415


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "no JSON"),
        (b"[" * 40_000, 400, "no JSON"),
        (b"\xff", 400, "no JSON"),
        (b" " * (LARGEST + 1), 413, "longer than"),
        ({"start": {"draw": 0}, "path": "x"}, 400, "none of"),
        ({"start": {"item": 5}}, 400, "no item 5"),
    ],
)
def test_a_wrong_request_is_a_sentence(server: Server, body: Any, status: int, words: str) -> None:
    got = asked(server, "POST", "show", body)
    assert got[0] == status
    assert words in json.loads(got[1])["error"]
    assert asked(server, "GET", "plan")[0] == 200


def test_a_failing_model_does_not_end_the_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(code: Any) -> Any:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(server.explorer.model, "decode", fail)
    status, body, _ = asked(server, "POST", "show", {"start": {"draw": 77}})
    assert status == 500
    assert "the model failed (RuntimeError): no such kernel" in json.loads(body)["error"]
    assert asked(server, "GET", "plan")[0] == 200


OPENED: list[str] = []
WATCHING: list[bool] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and WATCHING:
        OPENED.append(str(arguments[0]))


def test_no_request_opens_a_file(server: Server) -> None:
    for start in ({"draw": 3}, {"draw": 4}):
        asked(server, "POST", "show", {"start": start, "classes": {"d": 1}})  # what is imported once
    sys.addaudithook(_watch)
    WATCHING.append(True)
    try:
        for start in ({"draw": 5}, {"item": 0}, {"sentence": "/etc/passwd"}):
            asked(server, "POST", "show", {"start": start})
        for place in (*FILES, "plan", "page.py"):
            asked(server, "GET", place)
        held = list(OPENED)
        open(__file__).close()
        assert OPENED[len(held) :] == [__file__], "the watch sees what is opened"
    finally:
        WATCHING.clear()
    assert held == []


def test_it_ends_by_itself_when_nobody_asks(folder_of) -> None:
    model, header = open_model(folder_of("image") / "checkpoint.safetensors", "cpu")
    made = Server(Explorer(model, header), idle=0.3)
    begun = time.monotonic()
    made.serve()
    made.close()
    assert 0.25 < time.monotonic() - begun < 20


def test_a_taken_port_and_a_wrong_address_are_sentences(server: Server) -> None:
    with pytest.raises(UsageError, match=f"port {server.port}.*choose another --port"):
        Server(server.explorer, port=server.port)
    with pytest.raises(UsageError, match=r"--host 'nowhere\.invalid' is no address"):
        Server(server.explorer, host="nowhere.invalid")
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1"):
        Server(server.explorer, host="192.0.2.1")


def test_names_that_a_request_may_use(server: Server) -> None:
    for host, names in (("0.0.0.0", ["*"]), ("127.0.0.1", ["127.0.0.1", "localhost", "127.0.0.1"])):
        made = Server(server.explorer, host=host)
        assert made.hosts() == names
        made.close()


def test_without_the_extra_it_says_what_to_install(distk_command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, out, err = distk_command("explore", "nowhere")
    assert (code, out) == (2, "")
    assert "pip install 'distk[explore]'" in err
    assert serving.needs.__doc__


def test_the_command_until_ctrl_c(folder_of, tmp_path: Path) -> None:
    """A real process: the address as JSON, an answer, and exit code 0 after Ctrl-C."""
    words = [sys.executable, "-m", "distk", "explore", str(folder_of("image")), "--device", "cpu", "--n", "4", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            text += line
        told = json.loads(text)
        assert told["host"] == "127.0.0.1"
        line = http.client.HTTPConnection("127.0.0.1", told["port"], timeout=20)
        line.request("GET", f"/{told['url'].split('/')[3]}/plan")
        assert len(json.loads(line.getresponse().read())["items"]) == 4
        line.close()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out == ""
    assert "Traceback" not in err
    assert err.rstrip().endswith("stopped")


def test_a_model_that_cannot_be_looked_into(folder_of, distk_command) -> None:
    code, out, err = distk_command("explore", folder_of("embedding"), "--device", "cpu")
    assert (code, out) == (2, "")
    assert "no decoder" in err
    assert "distk embed" in err
