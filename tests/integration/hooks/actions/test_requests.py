"""curl against servers that attack who asks them. Real curl, real servers on loopback, names resolved by the test."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest

from tests.integration.hooks.actions.conftest import Bench

Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """Answers each path as the test says, and remembers what it was asked."""

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(
                (int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length")), 0
            )
            body = (await reader.readexactly(length)).decode()
            self.requests.append(head + body)
            path = head.split(" ")[1].split("?")[0]
            await self.answers.get(path, answer("fine"))(path, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def answer(body: str, status: str = "200 OK", *headers: str) -> Answer:
    async def write(path: str, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", body]
        writer.write("\r\n".join(lines).encode())

    return write


def redirect(target: str, status: str = "302 Found") -> Answer:
    return answer("", status, f"Location: {target}")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    yield made
    listening.close()
    await listening.wait_closed()


@pytest.fixture
async def inner() -> AsyncIterator[Server]:
    """What no hook may reach: a server of the machine that nobody listed."""
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    yield made
    listening.close()
    await listening.wait_closed()
    assert made.requests == []


@pytest.fixture
def client(bench: Bench, server: Server) -> Bench:
    """Its operator listed the name of the server, and nothing else."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    bench.resolve = resolve
    bench.settings = {"hooks_http_allowed": (f"api.example:{server.port}",)}
    return bench


@pytest.mark.parametrize("setting", ["auto", "off"])
async def test_a_request_is_sent_as_described_and_values_stay_in_their_places(
    setting: str, client: Bench, server: Server
) -> None:
    client.setting = setting  # type: ignore[assignment]
    client.secrets = {"ORCHESTRATOR_HOOK_SECRET_DEFAULT__API_KEY": 'tok"en\\s3cret'}
    outcome = await client.run(
        "curl",
        "-fsS",
        "-H",
        "Authorization: Bearer {secret:api-key}",
        "--json",
        '{"text": "{task_id}", "count": 3, "tags": ["{role}", "{"]}',
        f"http://api.example:{server.port}/a/{{task_id}}?x={{role}}",
        task_id='a"},"b":{',
        role="x&y=../z",
    )
    assert (outcome.status, outcome.output) == ("completed", "fine"), outcome
    head, _, body = server.requests[0].partition("\r\n\r\n")
    assert head.startswith("POST /a/a%22%7D%2C%22b%22%3A%7B?x=x%26y%3D..%2Fz HTTP/")
    assert 'Authorization: Bearer tok"en\\s3cret' in head
    assert "Content-Type: application/json" in head
    assert f"Host: api.example:{server.port}" in head
    assert json.loads(body) == {"text": 'a"},"b":{', "count": 3, "tags": ["x&y=../z", "{"]}


async def test_a_form_is_encoded_and_other_text_is_not(client: Bench, server: Server) -> None:
    url = f"http://api.example:{server.port}/"
    await client.run("curl", "-d", "text={role}&fixed=a+b", url, role="a&b=c")
    await client.run("curl", "-d", "text {role}", "-H", "Content-Type: text/plain", "-X", "PUT", url, role="a&b=c")
    assert server.requests[0].endswith("\r\n\r\ntext=a%26b%3Dc&fixed=a+b")
    assert server.requests[1].startswith("PUT ")
    assert server.requests[1].endswith("\r\n\r\ntext a&b=c")


async def test_an_echoed_secret_is_not_in_the_outcome(client: Bench, server: Server) -> None:
    async def echo(path: str, writer: asyncio.StreamWriter) -> None:
        head = server.requests[-1]
        writer.write(f"HTTP/1.1 500 Oops\r\nContent-Length: {len(head)}\r\nConnection: close\r\n\r\n{head}".encode())

    server.answers["/"] = echo
    client.secrets = {"ORCHESTRATOR_HOOK_SECRET_DEFAULT__KEY": "s3cret-value"}
    url = f"http://api.example:{server.port}/"
    for flag in ("-sS", "--fail-with-body"):
        outcome = await client.run("curl", flag, "-A", "agent", "-H", "X-Key: {secret:key}", url)
        assert "X-Key: [secret:key]" in outcome.output
        assert "s3cret-value" not in outcome.model_dump_json()
    assert (outcome.status, outcome.error_code) == ("failed", "HTTP_STATUS")
    assert "X-Key: s3cret-value" in server.requests[0]


FORBIDDEN_TARGETS = {
    "loopback": "http://127.0.0.1:{inner}/",
    "loopback by the name's other port": "http://api.example:{inner}/",
    "loopback by its decimal form": "http://2130706433:{inner}/",
    "loopback by its hexadecimal form": "http://0x7f000001:{inner}/",
    "loopback by its octal form": "http://0177.0.0.1:{inner}/",
    "loopback by its short form": "http://127.1:{inner}/",
    "loopback over IPv6": "http://[::1]:{inner}/",
    "loopback mapped to IPv6": "http://[::ffff:127.0.0.1]:{inner}/",
    "loopback by a name": "http://localhost:{inner}/",
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "private network": "http://10.0.0.1/",
    "relative to a scheme": "//127.0.0.1:{inner}/",
    "file": "file:///etc/passwd",
    "gopher": "gopher://127.0.0.1:{inner}/_x",
    "dict": "dict://127.0.0.1:{inner}/x",
    "ftp": "ftp://127.0.0.1:{inner}/",
    "a user's name": "http://api.example@127.0.0.1:{inner}/",
    "backslash": "http://api.example\\@127.0.0.1:{inner}/",
    "space": "http://127.0.0.1 :{inner}/",
    "tab": "http://127.0.0.1\t:{inner}/",
    "fragment": "http://127.0.0.1:{inner}#@api.example/",
}


@pytest.mark.parametrize("title", FORBIDDEN_TARGETS)
@pytest.mark.parametrize("status", ["301 Moved", "307 Again"])
async def test_redirects_to_what_may_not_be_reached_are_refused(
    title: str, status: str, client: Bench, server: Server, inner: Server
) -> None:
    server.answers["/"] = redirect(FORBIDDEN_TARGETS[title].replace("{inner}", str(inner.port)), status)
    outcome = await client.run("curl", "-L", f"http://api.example:{server.port}/")
    assert outcome.status == "failed"
    assert outcome.refused, outcome
    assert outcome.error_code in ("ADDRESS_FORBIDDEN", "ADDRESS_INVALID", "URL_INVALID")
    assert len(server.requests) == 1


async def test_redirects_are_followed_only_when_asked_for_and_only_so_often(client: Bench, server: Server) -> None:
    url = f"http://api.example:{server.port}"
    server.answers |= {"/a": redirect("/b"), "/b": redirect(f"{url}/c", "308 Moved"), "/loop": redirect("/loop")}
    assert (await client.run("curl", "-sS", f"{url}/a")).status == "completed"
    assert len(server.requests) == 1
    outcome = await client.run("curl", "-L", f"{url}/a")
    assert (outcome.status, outcome.output, len(server.requests)) == ("completed", "fine", 4)
    outcome = await client.run("curl", "-L", f"{url}/loop")
    assert (outcome.error_code, len(server.requests)) == ("TOO_MANY_REDIRECTS", 10)


@pytest.mark.parametrize(
    ("status", "method"), [("301 M", "GET"), ("303 S", "GET"), ("307 T", "POST"), ("308 P", "POST")]
)
async def test_a_redirect_changes_the_method_as_browsers_do(
    status: str, method: str, client: Bench, server: Server
) -> None:
    server.answers["/a"] = redirect("/b", status)
    await client.run("curl", "-L", "-d", "x=1", f"http://api.example:{server.port}/a")
    assert server.requests[1].startswith(f"{method} /b ")
    assert server.requests[1].endswith("x=1") is (method == "POST")


async def test_headers_and_bodies_do_not_follow_a_redirect_to_another_host(
    client: Bench, server: Server, inner: Server
) -> None:
    client.settings = {"hooks_http_allowed": (f"api.example:{server.port}", "other.example")}
    url, other = f"http://api.example:{server.port}", f"http://other.example:{server.port}"
    client.secrets = {"ORCHESTRATOR_HOOK_SECRET_DEFAULT__KEY": "s3cret-value"}
    server.answers["/a"] = redirect(f"{other}/b", "307 T")
    headers = ["-H", "Authorization: {secret:key}", "-H", "X-Key: {secret:key}", "-H", "Accept: text/html"]
    assert (await client.run("curl", "-L", *headers, f"{url}/a")).status == "completed"
    assert "s3cret-value" in server.requests[0]
    assert "s3cret-value" not in server.requests[1]
    assert "Accept: text/html" in server.requests[1]
    for status in ("302 Found", "307 T"):
        server.answers["/a"] = redirect(f"{other}/b", status)
        outcome = await client.run("curl", "-L", "-X", "PUT", "-d", "x=1", f"{url}/a")
        assert (outcome.error_code, outcome.refused) == ("ADDRESS_FORBIDDEN", True)


async def test_a_name_whose_answer_changes_is_asked_once(client: Bench, server: Server, inner: Server) -> None:
    """The first answer may be reached, the second may not: what was looked at is what is connected to."""
    asked = []

    async def changing(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    client.resolve = changing
    client.settings = {"hooks_http_allowed": ("127.0.0.1",)}
    outcome = await client.run("curl", "-sS", f"http://rebinding.example:{server.port}/")
    assert (outcome.status, asked) == ("completed", ["rebinding.example"])
    server.answers["/"] = redirect("/again")
    asked.clear()
    outcome = await client.run("curl", "-L", f"http://rebinding.example:{server.port}/")
    assert (outcome.error_code, outcome.refused) == ("ADDRESS_FORBIDDEN", True)


async def test_a_server_on_another_address_is_not_reached_by_the_name(client: Bench, server: Server) -> None:
    """curl is told the addresses, and does not ask for itself."""

    async def elsewhere(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.77"]

    client.resolve = elsewhere
    client.settings = {"hooks_http_allowed": ("localhost",)}
    outcome = await client.run("curl", "-sS", f"http://localhost:{server.port}/")
    assert outcome.error_code == "EXIT_STATUS"
    assert server.requests == []


async def test_an_endless_answer_is_cut(client: Bench, server: Server) -> None:
    async def endless(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    server.answers["/"] = endless
    client.settings |= {"hooks_output_bytes_max": 2048, "hooks_output_read_bytes_max": 1024 * 1024}
    outcome = await client.run("curl", "-sS", f"http://api.example:{server.port}/")
    assert outcome.status == "failed"
    assert outcome.output_truncated
    assert len(outcome.output) == 2048


async def test_a_silent_server_is_left_in_time(client: Bench, server: Server) -> None:
    async def silent(path: str, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    server.answers["/"] = silent
    began = time.monotonic()
    for arguments in (["-m", "0.5"], []):
        outcome = await client.run("curl", *arguments, f"http://api.example:{server.port}/", timeout_seconds=1.5)
        assert outcome.status in ("failed", "timeout")
    assert time.monotonic() - began < 15


async def test_configuration_and_proxies_of_others_are_not_used(
    client: Bench, server: Server, inner: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.write(".curlrc", f'proxy = "http://127.0.0.1:{inner.port}"\noutput = "{client.outside}/pwned"\n')
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{inner.port}")
    for name in ("HOME", "CURL_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(client.work_dir))
    for client.setting in ("auto", "off"):
        outcome = await client.run("curl", "-sS", f"http://api.example:{server.port}/")
        assert (outcome.status, outcome.output) == ("completed", "fine"), outcome


async def test_curl_is_told_secrets_where_no_process_list_shows_them(client: Bench, server: Server) -> None:
    seen: list[str] = []

    async def look(path: str, writer: asyncio.StreamWriter) -> None:
        process = await asyncio.create_subprocess_exec("ps", "axww", "-o", "args", stdout=asyncio.subprocess.PIPE)
        seen.append((await process.communicate())[0].decode())
        await answer("fine")(path, writer)

    server.answers["/"] = look
    client.secrets = {"ORCHESTRATOR_HOOK_SECRET_DEFAULT__KEY": "s3cret-value"}
    await client.run("curl", "-H", "X-Key: {secret:key}", f"http://api.example:{server.port}/")
    assert "curl --disable --config -" in seen[0]
    assert "s3cret-value" not in seen[0]


async def test_head_and_headers_can_be_asked_for(client: Bench, server: Server) -> None:
    url = f"http://api.example:{server.port}/"
    assert "HTTP/1.1 200 OK" in (await client.run("curl", "-I", url)).output
    outcome = await client.run("curl", "-i", "-H", "X-Empty:", "--connect-timeout", "2", url)
    assert outcome.output.startswith("HTTP/1.1 200 OK")
    assert server.requests[0].startswith("HEAD / ")


async def test_a_path_of_dots_does_not_lead_upwards(client: Bench, server: Server) -> None:
    await client.run("curl", f"http://api.example:{server.port}/hooks/{{role}}/x", role="..")
    assert server.requests[0].startswith("GET /hooks/%2E%2E/x ") or server.requests == []
