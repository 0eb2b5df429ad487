"""Who may use the server: Host, Origin, API keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.datastructures import Headers

from mlx_qwen3.errors import ConfigError
from mlx_qwen3.server.auth import Gate, read_api_keys
from mlx_qwen3.server.config import ServerConfig
from mlx_qwen3.server.errors import RequestError


def status(gate: Gate, **headers: str) -> int:
    """What the gate says to a request with these headers."""
    given = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    try:
        gate.check_host(given)
        gate.check_origin(given)
        gate.key_name(given)
    except RequestError as error:
        return error.status
    return 200


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "192.168.1.5", "app.localhost:1",
             "host.docker.internal:8080", "localhost.:8080", "named.example"]
)  # fmt: skip
def test_names_of_this_machine_are_answered(host: str) -> None:
    assert status(Gate(ServerConfig(allowed_hosts=("Named.example",))), host=host) == 200


FOREIGN = ["evil.example:8080", "", "localhost.evil.example", "127.0.0.1.evil.example", "xlocalhost"]
MALFORMED = ["localhost@evil.example", "evil.example/localhost", "localhost:x", "[::1", "evil\\@localhost"]


@pytest.mark.parametrize("host", [*FOREIGN, *MALFORMED])
def test_a_name_that_was_made_to_point_here_is_not(host: str) -> None:
    assert status(Gate(ServerConfig()), host=host) == 403


def test_no_page_but_the_servers_own_may_ask() -> None:
    gate, host = Gate(ServerConfig(allowed_origins=("https://chat.example/",))), "127.0.0.1:8080"
    assert status(gate, host=host, origin="http://127.0.0.1:8080") == 200
    assert status(gate, host=host, origin="https://chat.example") == 200
    others = ("http://evil.example", "null", "http://127.0.0.1:8081", "file://", "http://127.0.0.1:8080.evil")
    for origin in others:
        assert status(gate, host=host, origin=origin) == 403, origin
    # A page without Origin: an image, a script, a link.
    assert status(gate, host=host, sec_fetch_site="cross-site", sec_fetch_mode="no-cors") == 403
    assert status(gate, host=host, sec_fetch_site="cross-site", sec_fetch_mode="navigate") == 200
    assert status(gate, host=host, sec_fetch_site="same-origin") == 200
    assert status(gate, host=host, sec_fetch_site="none") == 200


def test_keys() -> None:
    gate = Gate(ServerConfig(api_keys={"secret-one": "ann", "secret-two": "bob"}))
    host = "127.0.0.1"
    assert status(gate, host=host) == 401
    assert status(gate, host=host, authorization="Bearer secret-on") == 401
    assert status(gate, host=host, authorization="Basic secret-one") == 401
    assert status(gate, host=host, authorization="bearer  secret-one") == 200
    assert gate.key_name(Headers({"x-api-key": "secret-two"})) == "bob"
    assert gate.key_name(Headers({"authorization": "Bearer secret-one"})) == "ann"
    assert status(gate, host=host, x_api_key="\xff") == 401


def test_another_address_needs_keys() -> None:
    for host in ("0.0.0.0", "::", "192.168.0.2", "my-mac.local"):
        with pytest.raises(ConfigError, match="API keys"):
            ServerConfig(host=host)
        assert ServerConfig(host=host, api_keys={"12345678": "me"})
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        assert ServerConfig(host=host).is_local


def test_a_file_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nann: secret-one-key  # hers\n\nlonely-secret\n")
    assert read_api_keys(file) == {"secret-one-key": "ann", "lonely-secret": "key-2"}
    for text, problem in (("short", "line 1"), ("", "no key"), ("a b c d e f g h", "line 1")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=problem):
            read_api_keys(file)
    file.write_bytes(b"\xff\xfe12345678")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_api_keys(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_api_keys(tmp_path / "none")
