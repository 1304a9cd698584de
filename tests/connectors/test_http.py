"""How platforms are spoken to, over real sockets: what is capped, retried, followed and told."""

import base64
import email.utils
import gzip
import itertools
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from headway.connectors import http
from headway.connectors.errors import SourceError, StoppedError
from headway.connectors.http import Http
from headway.core import clock
from tests.connectors.example.source import ExampleSource
from tests.connectors.judging import Elsewhere
from tests.connectors.platform import Asked, FakePlatform, Reply

TOKEN = "tok-zqmarkerqz-1"


class Server(FakePlatform):
    """Answers an object to everything, or what is scripted; ``pauses`` has what its caller waited between tries."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def answer(self, asked: Asked) -> Reply:
        return Reply(document={"path": asked.path})

    def is_listing(self, asked: Asked) -> bool:  # noqa: ARG002
        return False


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run a server; pauses between tries are noted, not waited for."""
    with Server() as made:
        monkeypatch.setattr(Http, "_sleep", lambda _, seconds: made.pauses.append(seconds))
        yield made


def source(url: str, **more: Any) -> ExampleSource:
    return ExampleSource(name="shop", platform="example", client="acme", url=url, **more)


Connect = Callable[..., Http]


@pytest.fixture
def connect(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Return a maker of connections to the server with a token."""
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    made: list[Http] = []

    def connect(*, stop: threading.Event | None = None, url: str = "", **more: Any) -> Http:
        options = {key: more.pop(key) for key in ("authorize", "renews_on") if key in more}
        made.append(Http(source(url or server.url, **{"token_env": "SHOP_TOKEN", **more}), stop=stop, **options))
        return made[-1]

    yield connect
    for one in made:
        one.close()


def refused(action: Callable[[], object], code: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        action()
    assert caught.value.code == code, caught.value.detail
    assert TOKEN not in caught.value.detail
    assert len(caught.value.detail) < 1000
    return caught.value


# What is sent.


def test_answer_is_parsed_and_the_request_says_who_we_are(server: Server, connect: Connect) -> None:
    answer = connect().get("/api/runs", {"a": "x y+z", "b": [1, 2]})
    assert (answer.status, answer.data, answer.next_url) == (200, {"path": "/api/runs"}, None)
    (asked,) = server.asked
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["User-Agent"].startswith("headway/")
    assert asked.queries == {"a": ["x y+z"], "b": ["1", "2"]}


def test_post_sends_json_and_may_go_without_credentials(server: Server, connect: Connect) -> None:
    connection = connect()
    connection.post("/api/login", {"user": "größe"}, authorized=False)
    assert server.asked[0].json == {"user": "größe"}
    assert "Authorization" not in server.asked[0].headers
    connection.post("/api/filter", {})
    assert server.asked[1].json == {}
    assert server.asked[1].headers["Authorization"] == f"Bearer {TOKEN}"
    assert connection.requests == 2


def test_url_may_have_a_path_of_its_own(server: Server, connect: Connect) -> None:
    connect(url=f"{server.url}/gitlab/").get("/api/v4")
    assert server.asked[0].path == "/gitlab/api/v4"


@pytest.mark.parametrize(("user", "password"), [("me", "pass:word"), ("größe", "x"), ("日本", None)])
def test_user_and_password_are_sent_as_basic(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch, user: str, password: str | None
) -> None:
    if password:
        monkeypatch.setenv("SHOP_PASSWORD", password)
    connect(username=user, password_env="SHOP_PASSWORD" if password else None, token_env=None).get("/")
    scheme, _, packed = server.asked[0].headers["Authorization"].partition(" ")
    assert (scheme, base64.b64decode(packed).decode()) == ("Basic", f"{user}:{password or ''}")


def test_netrc_is_never_used(server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password theirs\ndefault login me password theirs\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    connect(token_env=None).get("/")
    connect().get("/")
    assert [asked.headers.get("Authorization") for asked in server.asked] == [None, f"Bearer {TOKEN}"]


def test_proxies_of_the_environment_are_not_for_this_machine(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Elsewhere() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        connect().get("/api")
        connect(url=server.url.replace("127.0.0.1", "localhost")).get("/api")
        assert proxy.asked == []
        # a host that is not this machine is reached as the environment says
        connect(url="http://runs.example.test", token_env=None).get("/api")
        assert [asked.headers["Host"] for asked in proxy.asked] == ["runs.example.test"]


# What is taken.


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the most bytes of an answer."""
    monkeypatch.setattr(http, "ANSWER_BYTES", 300_000)
    return 300_000


def test_answer_up_to_the_cap_is_taken_and_one_beyond_is_not(server: Server, connect: Connect, small: int) -> None:
    server.trouble.append(Reply(body=b'"' + b"x" * (small - 2) + b'"'))
    assert len(connect().get("/").data) == small - 2
    server.trouble.append(Reply(body=b'"' + b"x" * (small - 1) + b'"'))
    refused(lambda: connect().get("/"), "answer_too_large")
    assert len(server.asked) == 2


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("status", "layers"), [(200, 1), (200, 2), (302, 1), (500, 1)])
def test_small_answer_that_unpacks_to_a_huge_one_is_not_taken(
    server: Server, connect: Connect, status: int, layers: int
) -> None:
    body = b'"' + b"\0" * 40_000_000
    for _ in range(layers):
        body = gzip.compress(body, 9)
    assert len(body) < 300_000
    headers = {"Content-Encoding": ", ".join(["gzip"] * layers), "Location": "/"}
    server.trouble.append(Reply(status, body=body, headers=headers))
    refused(lambda: connect().get("/"), "answer_too_large")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)], ids=["gzip", "deflate"]
)
def test_packed_answer_is_unpacked(
    server: Server, connect: Connect, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    document = {"runs": ["x" * 50] * 5000}
    server.trouble.append(Reply(body=pack(json.dumps(document).encode()), headers={"Content-Encoding": encoding}))
    assert connect().get("/").data == document


def test_answer_that_drips_is_given_up_at_the_deadline(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.3)
    server.trouble.extend([Reply(body=b" " * 2000, drip=True)] * http.TRIES)  # 100 seconds each
    begun = time.monotonic()
    refused(lambda: connect().get("/"), "timeout")
    assert time.monotonic() - begun < 30
    assert len(server.asked) == http.TRIES


def test_answer_that_stops_halfway_is_a_timeout(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "READ_SECONDS", 0.02)  # less than between two bytes of a drip
    server.trouble.extend([Reply(body=b" " * 20, drip=True)] * http.TRIES)
    refused(lambda: connect().get("/"), "timeout")


def test_silence_is_a_timeout(server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_SECONDS", 0.05)
    server.trouble.extend([Reply(delay_seconds=0.2)] * http.TRIES)
    refused(lambda: connect().get("/"), "timeout")
    assert len(server.asked) == http.TRIES


@pytest.mark.parametrize("bytes_sent", [0, 5])
def test_connection_that_is_closed_halfway_is_tried_again(server: Server, connect: Connect, bytes_sent: int) -> None:
    server.trouble.extend([Reply(document={"runs": []}, hang_up=bytes_sent)] * 2)
    assert connect().get("/x").data == {"path": "/x"}
    server.trouble.extend([Reply(document={"runs": []}, hang_up=bytes_sent)] * http.TRIES)
    refused(lambda: connect().get("/x"), "unreachable")


def test_nobody_there_is_unreachable(server: Server, connect: Connect) -> None:
    with Elsewhere() as closed:
        url = closed.url
    error = refused(lambda: connect(url=url).get("/api"), "unreachable")
    assert f"GET {url}/api: cannot be reached" in error.detail
    assert len(server.pauses) == http.TRIES - 1


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"", None),
        (b" \n", None),
        (b"null", None),
        (b"[1, 2.5]", [1, 2.5]),
        (b"\xef\xbb\xbf{}", {}),
        (b'"\\u0000\\ud800"', "\0\ud800"),
        (b"[NaN, Infinity, -Infinity, 1e999, -1e999]", [None] * 5),
        (b"1" * 4000, int("1" * 4000)),
    ],
)
def test_odd_json_is_read_for_what_it_is(server: Server, connect: Connect, body: bytes, data: Any) -> None:
    server.trouble.append(Reply(body=body))
    assert connect().get("/").data == data


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "a web page"),
        (b"  <!doctype html>", "a web page"),
        (b"{", "something else"),
        (b"{} {}", "something else"),
        (b"1" * 5000, "something else"),
        (b"[" * 200_000, "something else"),
        (b'{"a":' * 200_000, "something else"),
        (b'"\xff"', "something else"),
        (b"PK\x03\x04\x00", "something else"),
    ],
    ids=["html", "doctype", "cut", "two", "huge-int", "deep-list", "deep-object", "latin-1", "zip"],
)
def test_what_is_no_json_is_told(server: Server, connect: Connect, body: bytes, said: str) -> None:
    server.trouble.append(Reply(body=body))
    error = refused(lambda: connect().get("/api"), "not_json")
    assert f"answers {said} where JSON is expected; check url" in error.detail
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [404, 410])
def test_missing_thing_is_an_answer_where_it_may_be_missing(server: Server, connect: Connect, status: int) -> None:
    server.trouble.extend([Reply(status, {"x": 1})] * 2)
    answer = connect().get("/", missing_ok=True)
    assert (answer.status, answer.data) == (status, None)
    refused(lambda: connect().get("/"), "not_found")


def test_unchanged_thing_is_an_answer(server: Server, connect: Connect) -> None:
    server.trouble.append(Reply(304, headers={"ETag": '"1"'}))
    answer = connect().get("/", headers={"If-None-Match": '"1"'})
    assert (answer.status, answer.data, answer.headers["etag"]) == (304, None, '"1"')
    assert server.asked[0].headers["If-None-Match"] == '"1"'


# Tries.


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_with_growing_pauses(server: Server, connect: Connect, status: int) -> None:
    server.trouble.extend([Reply(status)] * 3)
    assert connect().get("/x").data == {"path": "/x"}
    assert len(server.asked) == http.TRIES
    assert len(server.pauses) == 3
    assert all(0 <= pause <= http.LONGEST_PAUSE_SECONDS for pause in server.pauses)
    server.trouble.extend([Reply(status)] * 9)
    refused(lambda: connect().get("/"), "rate_limited" if status == 429 else "server_error")
    assert len(server.trouble) == 9 - http.TRIES


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "refused"), (403, "forbidden"), (405, "refused"), (422, "refused"), (501, "refused"), (404, "not_found")],
)
def test_what_does_not_pass_is_asked_once(server: Server, connect: Connect, status: int, code: str) -> None:
    server.trouble.append(Reply(status, {"detail": "no such filter"}))
    error = refused(lambda: connect().get("/api"), code)
    assert str(status) in error.detail
    assert len(server.asked) == 1
    assert server.pauses == []


def date_in(seconds: float) -> str:
    return email.utils.format_datetime(clock.now() + timedelta(seconds=seconds), usegmt=True)


def reset_in(seconds: float) -> str:
    return str(int(clock.now().timestamp() + seconds))


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "7"}, 7, 7),
        ({"Retry-After": " 0 "}, 0, 0),
        ({"Retry-After": lambda: date_in(20)}, 10, 20),
        ({"Retry-After": lambda: date_in(-500)}, 0, 0),
        ({"X-RateLimit-Reset": lambda: reset_in(20)}, 10, 20),
        ({"X-RateLimit-Reset": lambda: reset_in(-20)}, 0, 0),
        ({"RateLimit-Reset": "9"}, 9, 9),
        ({"Retry-After": "3", "X-RateLimit-Reset": "9"}, 3, 3),
    ],
)
def test_short_wait_that_is_asked_for_is_kept(
    server: Server, connect: Connect, headers: dict[str, Any], least: float, most: float
) -> None:
    sent = {name: value if isinstance(value, str) else value() for name, value in headers.items()}
    server.trouble.append(Reply(429, headers=sent))
    connect().get("/")
    (pause,) = server.pauses
    assert least <= pause <= most


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "3600"}, 3600, 3600),
        ({"Retry-After": lambda: date_in(600)}, 500, 600),
        ({"Retry-After": "9" * 12}, 86_400, 86_400),
        ({"Retry-After": "9" * 400}, 86_400, 86_400),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, 86_400, 86_400),
        ({"X-RateLimit-Reset": lambda: reset_in(600)}, 500, 600),
        ({"X-RateLimit-Reset": "9" * 12}, 86_400, 86_400),
    ],
)
def test_long_wait_is_told_at_once_and_fits_a_schedule(
    server: Server, connect: Connect, status: int, headers: dict[str, Any], least: float, most: float
) -> None:
    sent = {name: value if isinstance(value, str) else value() for name, value in headers.items()}
    server.trouble.append(Reply(status, headers=sent))
    error = refused(lambda: connect().get("/"), "rate_limited" if status == 429 else "server_error")
    assert error.retry_after_seconds is not None
    assert least <= error.retry_after_seconds <= most
    assert server.pauses == []


@pytest.mark.parametrize(
    "said", ["soon", "-5", "1.5", "", "Mon, 99 Foo 2026", "Mon, 01 Jan 2024 00:00:00 -0000", "1 Jan 2024 +" + "9" * 30]
)
def test_wait_that_cannot_be_read_is_none(server: Server, connect: Connect, said: str) -> None:
    server.trouble.append(Reply(429, headers={"Retry-After": said}))
    connect().get("/")
    (pause,) = server.pauses
    assert 0 <= pause <= http.LONGEST_PAUSE_SECONDS


@pytest.mark.parametrize("headers", [{"X-RateLimit-Remaining": "0"}, {"Retry-After": "1"}])
def test_forbidden_may_mean_too_many_requests(server: Server, connect: Connect, headers: dict[str, str]) -> None:
    server.trouble.append(Reply(403, headers=headers))
    assert connect(renews_on=frozenset({401, 403})).get("/x").data == {"path": "/x"}
    assert len(server.asked) == 2
    server.trouble.append(Reply(403, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset_in(900)}))
    assert (refused(lambda: connect().get("/"), "rate_limited").retry_after_seconds or 0) > 800


def test_stop_ends_the_tries_at_once(connect: Connect, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real pauses
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    stop = threading.Event()
    server.trouble.extend([Reply(503, headers={"Retry-After": "25"})] * 4)
    threading.Timer(0.2, stop.set).start()
    connection = connect(stop=stop)
    begun = time.monotonic()
    with pytest.raises(StoppedError):
        connection.get("/")
    assert time.monotonic() - begun < 20
    assert len(server.asked) == 1
    with pytest.raises(StoppedError):
        connection.get("/")
    assert len(server.asked) == 1


# Credentials.


def test_credentials_are_asked_for_once_and_renewed_once_when_refused(server: Server, connect: Connect) -> None:
    tokens = itertools.count(1)
    connection = connect(authorize=lambda: {"Authorization": f"Bearer {TOKEN}-{next(tokens)}"})
    connection.get("/a")
    connection.get("/b")
    server.trouble.append(Reply(401))
    connection.get("/c")
    assert [asked.headers["Authorization"][-1] for asked in server.asked] == ["1", "1", "1", "2"]
    server.trouble.extend([Reply(401)] * 9)
    refused(lambda: connection.get("/d"), "unauthorized")
    assert len(server.trouble) == 7


def test_rotated_file_is_read_anew(server: Server, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first-token")
    connection = connect(token_env=None, token_file=tmp_path / "token")
    connection.get("/")
    (tmp_path / "token").write_text("second-token")
    server.trouble.append(Reply(401, {"error": "first-token is old"}))
    connection.get("/")
    assert [a.headers["Authorization"] for a in server.asked] == ["Bearer first-token"] * 2 + ["Bearer second-token"]


def test_only_the_statuses_that_say_so_renew(server: Server, connect: Connect) -> None:
    server.trouble.append(Reply(403))
    refused(lambda: connect().get("/"), "forbidden")
    assert len(server.asked) == 1
    server.trouble.append(Reply(403))
    connect(renews_on=frozenset({401, 403})).get("/")
    assert len(server.asked) == 3


def test_nothing_is_renewed_where_there_is_no_credential(server: Server, connect: Connect) -> None:
    server.trouble.append(Reply(401))
    refused(lambda: connect(token_env=None).get("/"), "unauthorized")
    assert len(server.asked) == 1


PASSWORD = 'pass "word"/%zqmarker'


@pytest.mark.parametrize("status", [400, 401, 403, 422, 500, 302])
@pytest.mark.parametrize("way", ["plain", "json", "quoted", "basic", "after-blanks"])
def test_credential_that_the_server_repeats_is_not_told(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch, status: int, way: str
) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", PASSWORD)
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    said = {
        "plain": f"no such thing: {PASSWORD}",
        "json": json.dumps({"sent": PASSWORD}),
        "quoted": "pass%20%22word%22%2F%25zqmarker",
        "basic": f"Authorization: Basic {basic}",
        "after-blanks": " " * (8 * http.EXCERPT_CHARS - 10) + TOKEN,
    }[way]
    headers = {"Location": f"http://me:{PASSWORD}@elsewhere.test/{TOKEN}"} if status == 302 else {}
    server.trouble.extend([Reply(status, body=said.encode(), headers=headers)] * 8)
    connection = connect() if way == "after-blanks" else connect(username="me", password_env="SHOP_PASSWORD")
    with pytest.raises(SourceError) as caught:
        connection.get("/")
    for secret in (PASSWORD, "zqmarker", basic, TOKEN[:9]):
        assert secret not in caught.value.detail


def test_password_of_a_login_without_credentials_is_not_told(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", PASSWORD)
    server.trouble.append(Reply(422, {"input": {"password": PASSWORD}, "detail": PASSWORD}))
    connection = connect(username="me", password_env="SHOP_PASSWORD")
    error = refused(lambda: connection.post("/login", {"password": PASSWORD}, authorized=False), "refused")
    assert "zqmarker" not in error.detail


def test_excerpt_of_an_error_is_short_and_of_a_web_page_there_is_none(server: Server, connect: Connect) -> None:
    server.trouble.extend([Reply(400, {"detail": "x" * 5000}), Reply(400, body=b"<html>secret page</html>")])
    assert len(refused(lambda: connect().get("/"), "refused").detail) < 400
    assert "page" not in refused(lambda: connect().get("/"), "refused").detail


def test_query_is_not_told(server: Server, connect: Connect) -> None:
    server.trouble.append(Reply(404))
    assert "zq" not in refused(lambda: connect().get("/api?zq=1", {"zq2": "x"}), "not_found").detail


# What is followed.


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_redirect_is_not_followed(server: Server, connect: Connect, status: int) -> None:
    with Elsewhere() as elsewhere:
        for target in (elsewhere.url, "/login", "//[", f"{elsewhere.url}/{'x' * 5000}", "http://" + "h" * 5000, ""):
            server.trouble.append(Reply(status, headers={"Location": target}))
            refused(lambda: connect().get("/"), "redirected")
        server.trouble.append(Reply(status, headers={"Location": elsewhere.url}))
        refused(lambda: connect().post("/", {"a": 1}), "redirected")
        assert elsewhere.asked == []
    assert len(server.asked) == 7


@pytest.mark.parametrize(
    "link",
    [
        "http://{evil}/",
        "//{evil}/",
        "///{evil}/",
        "http:///{evil}/",
        "http://{good}@{evil}/",
        "http://me:{good}@{evil}/",
        "http://{good}\\@{evil}/",
        "http://{evil}\\@{good}/",
        "http:\\\\{evil}\\",
        "\\\\{evil}/",
        "http:{evil}/",
        "https://{good}/",
        "HTTPS://{good}/",
        "ftp://{good}/",
        "file:///etc/passwd",
        "http://127.0.0.1:1/",
        "http://127.0.0.1/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://localhost{port}/",
        "http://127.0.0.2{port}/",
        "http://127.1{port}/",
        "http://[::1]{port}/",
        "http://[/",
        "http://127.0.0.1.{evil}/",
        "@{evil}/",
        ".{evil}/",
        ":1/",
        " http://{evil}/",
        "\thttp://{evil}/",
        "ht\ntp://{evil}/",
        "\x00//{evil}/",
        "api/runs",
        "mailto:me",
    ],
)
def test_link_to_elsewhere_is_not_followed(server: Server, connect: Connect, link: str) -> None:
    with Elsewhere() as elsewhere:
        good, evil = server.url[7:], elsewhere.url[7:]
        target = link.format(good=good, evil=evil, port=server.url[16:])
        refused(lambda: connect().get(target), "foreign_link")
        assert elsewhere.asked == []
    assert server.asked == []


@pytest.mark.parametrize("link", ["{url}/api?page=2", "HTTP://127.0.0.1{port}/api?page=2", "/api?page=2"])
def test_link_that_stays_is_followed_with_the_credential(server: Server, connect: Connect, link: str) -> None:
    connect().get(link.format(url=server.url, port=server.url[16:]))
    (asked,) = server.asked
    assert (asked.path, asked.query) == ("/api", {"page": "2"})
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"


def test_default_port_and_none_are_the_same() -> None:
    for url, link in (
        ("https://h", "https://h:443/a"),
        ("https://h:443", "HTTPS://H/a"),
        ("http://h:80", "http://h/a"),
    ):
        assert Http(source(url))._url(link) == link
    with pytest.raises(SourceError):
        Http(source("https://h"))._url("https://h:80/a")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('<{url}/b?page=2>; rel="next"', "{url}/b?page=2"),
        ('<{url}/b?page=1>; rel="prev", <{url}/b?page=3>; rel="next", <{url}/b?page=9>; rel="last"', "{url}/b?page=3"),
        ('</b?page=2>; rel="next"', "{url}/b?page=2"),
        ('<?page=2>; rel="next"', "{url}/x/a?page=2"),
        ('<b>; rel="next"', "{url}/x/b"),
        ('<@evil/>; rel="next"', "{url}/x/@evil/"),
        ('<{url}/b?page=2>; rel="last"', None),
        ("", None),
        ("nonsense", None),
        ('<>; rel="next"', "{url}/x/a"),
    ],
)
def test_next_link_is_found_in_the_header(server: Server, connect: Connect, header: str, expected: str | None) -> None:
    server.trouble.append(Reply(document=[], headers={"Link": header.format(url=server.url)}))
    connection = connect()
    answer = connection.get("/x/a")
    assert answer.next_url == (expected and expected.format(url=server.url))
    if answer.next_url is not None:
        connection.get(answer.next_url)


@pytest.mark.parametrize("target", ["//[", "http://[/", "http://evil.test/", "//evil.test", "https://evil.test"])
def test_next_link_that_leads_elsewhere_is_refused_when_it_is_followed(
    server: Server, connect: Connect, target: str
) -> None:
    server.trouble.append(Reply(document=[], headers={"Link": f'<{target}>; rel="next"'}))
    connection = connect()
    answer = connection.get("/")
    assert answer.next_url is not None
    refused(lambda: connection.get(answer.next_url or ""), "foreign_link")
    assert len(server.asked) == 1


# Clocks.


@pytest.mark.parametrize(
    ("date", "least", "most"),
    [
        (lambda: date_in(-600), 590, 620),
        (lambda: date_in(600), 0, 0),
        (lambda: date_in(0), 0, 0),
        (lambda: "yesterday", 0, 0),
        (lambda: "1 Jan 2024 00:00:00 +" + "9" * 30, 0, 0),
        (lambda: "Mon, 01 Jan 2024 00:00:00 -0000", 0, 0),
    ],
)
def test_lag_of_the_clock_is_seen(
    server: Server,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    date: Callable[[], str],
    least: float,
    most: float,
) -> None:
    monkeypatch.setattr("tests.connectors.platform._Handler.date_time_string", lambda *_: date())
    connection = connect()
    connection.get("/")
    assert least <= connection.clock_lag.total_seconds() <= most
