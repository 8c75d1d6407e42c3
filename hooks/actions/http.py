"""curl as hooks may use it: one request, described anew in our own words, to addresses that were looked at first.

curl gets everything as a configuration on its standard input, so that secrets are in no process list. Redirects are
followed here, one by one, each looked at like the first request.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urljoin

from engine.settings import Settings
from hooks.actions.addresses import (
    Address,
    AddressPolicy,
    Resolve,
    Url,
    permitted_addresses,
    read_url,
    resolve_by_system,
)
from hooks.actions.context import HookContext
from hooks.actions.outcome import ActionOutcome
from hooks.actions.placeholders import PLACEHOLDER, fill, has_placeholder
from hooks.actions.refusal import refused
from hooks.actions.results import failed, outcome_of, readable
from hooks.actions.tables.curl import BODY, HEADER
from hooks.actions.tables.grammar import Parsed
from hooks.sandbox.launch import Sandbox
from hooks.sandbox.spec import Command, Ended, Limits
from hooks.secrets import SecretValues

__all__ = ["HttpAction", "RequestTemplate", "Resolve", "policy_of", "request_template", "resolve_by_system"]

FIELD: Final = "action.args"
HEADERS_FORBIDDEN: Final = frozenset(
    {"host", "connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade", "via"}
)
HEADERS_KEPT_ELSEWHERE: Final = frozenset({"accept", "accept-language"})
"""What goes along when a redirect leads to another host; all others may be meant for the first one only."""

FLAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "-f": ("fail",),
    "--fail": ("fail",),
    "--fail-with-body": ("fail-with-body",),
    "-fsS": ("fail",),
    "-fsSL": ("fail", "location"),
    "-i": ("include",),
    "--include": ("include",),
    "-I": ("head",),
    "--head": ("head",),
    "-L": ("location",),
    "--location": ("location",),
}
JSON_DEPTH_MAX: Final = 50
MARK: Final = "\nHOOK-REQUEST-ENDED "
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
HTTP_ERROR_EXIT: Final = 22


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """A request whose placeholders are not filled in yet."""

    url: str
    method: str
    headers: tuple[tuple[str, str], ...]
    """Names and values."""
    body: str | None
    is_json: bool
    flags: frozenset[str]
    connect_timeout_seconds: float | None = None
    max_time_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Request:
    url: Url
    method: str
    headers: tuple[tuple[str, str], ...]
    body: str | None


def policy_of(settings: Settings) -> "HttpPolicy":
    return HttpPolicy(AddressPolicy.of(settings.hooks_http_allowed), settings.hooks_http_redirects_max)


@dataclass(frozen=True, slots=True)
class HttpPolicy:
    addresses: AddressPolicy
    redirects_max: int


def request_template(parsed: Parsed) -> RequestTemplate:
    """Raises InvalidHookActionError when it is not one plain request."""
    url, method, body, is_json = "", "", None, False
    headers: list[tuple[str, str]] = []
    flags: set[str] = set()
    seconds: dict[str, float] = {}
    for argument in parsed.arguments:
        value = argument.value or ""
        match argument.flag:
            case "":
                url = value
            case "-X" | "--request":
                method = value
            case "-H" | "--header":
                headers.append(_header(value, argument.field))
            case "-A" | "--user-agent":
                headers.append(("User-Agent", value))
            case "-d" | "--data" | "--data-raw" | "--json":
                if body is not None:
                    raise refused("REQUEST_INVALID", argument.field, "a second body", "give one body")
                body, is_json = value, argument.flag == "--json"
            case "-m" | "--max-time" | "--connect-timeout":
                if has_placeholder(value):
                    raise refused("REQUEST_INVALID", argument.field, "a time from the event", "give a fixed time")
                seconds["connect" if argument.flag == "--connect-timeout" else "total"] = float(value)
            case flag:
                flags.update(FLAGS.get(flag, ()))
    method = method or ("HEAD" if "head" in flags else "POST" if body is not None else "GET")
    if "{" in method or (body is not None and method in ("GET", "HEAD")):
        raise refused("REQUEST_INVALID", FIELD, f"{method} with a body, or not fixed", "use a fixed method that fits")
    if body is not None:
        is_json = is_json or _is_json_header(headers)
        _check_body(body, is_json)
    _check_url_template(url)
    return RequestTemplate(
        url, method, tuple(headers), body, is_json, frozenset(flags), seconds.get("connect"), seconds.get("total")
    )


def _header(text: str, field: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator or has_placeholder(name) or HEADER.check(f"{name}:") is not None:
        raise refused("REQUEST_INVALID", field, "is not a header with a fixed name", "write `Name: value`")
    if name.lower() in HEADERS_FORBIDDEN or name.lower().startswith(("proxy-", "sec-")):
        raise refused("REQUEST_INVALID", field, f"{name} may not be set", "leave it to curl")
    return name, value.strip()


def _is_json_header(headers: list[tuple[str, str]]) -> bool:
    return any(name.lower() == "content-type" and "json" in value.lower() for name, value in headers)


def _check_body(body: str, is_json: bool) -> None:
    if body.startswith(("@", "<")):
        raise refused("REQUEST_INVALID", FIELD, "the body would be read from a file", "give the body itself")
    if is_json:
        _check_json(body)


def _check_json(body: str) -> None:
    """JSON whose strings have placeholders: so a value stays within its string."""
    try:
        level = [json.loads(body)]
    except (ValueError, RecursionError) as error:
        raise refused(
            "REQUEST_INVALID", FIELD, "the body is not JSON", 'write placeholders within strings: {"id": "{task_id}"}'
        ) from error
    for _ in range(JSON_DEPTH_MAX):
        level = [item for value in level for item in _parts(value)]
        if not level:
            return
    raise refused("REQUEST_INVALID", FIELD, "the body is nested too deeply", f"nest at most {JSON_DEPTH_MAX} levels")


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _check_url_template(url: str) -> None:
    """The scheme, the host and the port are fixed when the hook is registered."""
    if not url:
        raise refused("URL_INVALID", FIELD, "no URL", "give one URL")
    if any(match[1] for match in PLACEHOLDER.finditer(url)):
        raise refused("SECRET_MISPLACED", FIELD, "a secret in a URL is logged everywhere", "put it into a header")
    read_url(PLACEHOLDER.sub("x", url), FIELD)
    first = PLACEHOLDER.search(url)
    authority_ends = re.search(r"(?<!/)[/?]", url[8:])
    if first is not None and (authority_ends is None or first.start() < 8 + authority_ends.start()):
        raise refused("URL_INVALID", FIELD, "the host is not fixed", "use placeholders behind the host only")


class HttpAction:
    """Carries out one request and its redirects."""

    def __init__(
        self,
        *,
        program: Path,
        sandbox: Sandbox,
        policy: HttpPolicy,
        resolve: Resolve,
        limits: Limits,
        environment: Mapping[str, str],
    ) -> None:
        self._program = program
        self._sandbox = sandbox
        self._policy = policy
        self._resolve = resolve
        self._limits = limits
        self._environment = environment

    async def run(self, template: RequestTemplate, context: HookContext, secrets: SecretValues) -> ActionOutcome:
        """Raises InvalidHookActionError for what may not be reached, SandboxFailedError when nothing could run."""
        started_at = time.monotonic()
        request = _filled(template, context, secrets)
        total = min(self._limits.timeout_seconds, template.max_time_seconds or self._limits.timeout_seconds)
        for _ in range(self._policy.redirects_max + 1):
            left = total - (time.monotonic() - started_at)
            if left <= 0:
                return failed("TIMEOUT", "curl took longer than it may", secrets, started_at, "timeout")
            addresses = await permitted_addresses(request.url, self._policy.addresses, self._resolve, FIELD)
            ended, status, target = await self._request(request, addresses, template, left)
            if "location" not in template.flags or status not in REDIRECTS or not target:
                return _outcome(ended, secrets, started_at)
            request = _redirected(request, status, target)
        return failed("TOO_MANY_REDIRECTS", f"more than {self._policy.redirects_max} redirects", secrets, started_at)

    async def _request(
        self, request: _Request, addresses: list[Address], template: RequestTemplate, seconds: float
    ) -> tuple[Ended, int, str]:
        configuration = curl_configuration(
            request,
            addresses,
            flags=template.flags,
            seconds=seconds,
            connect_seconds=template.connect_timeout_seconds,
            bytes_max=self._limits.output_read_bytes_max,
        )
        ended = await self._sandbox.run(
            Command(
                program=self._program,
                # First, so that no configuration file is read but the one that it is told to read.
                argv=("curl", "--disable", "--config", "-"),
                environment=self._environment,
                work_dir=None,
                limits=replace(self._limits, timeout_seconds=seconds + 1.0),
                network=True,
                stdin=configuration.encode(),
            )
        )
        errors, _, found = readable(ended.stderr).rpartition(MARK)
        status, _, target = found.partition(" ")
        ended = replace(ended, stderr=errors.encode())
        return ended, int(status) if status.isdecimal() else 0, target.strip()


def _outcome(ended: Ended, secrets: SecretValues, started_at: float) -> ActionOutcome:
    body = secrets.redact(readable(ended.stdout), truncated=ended.truncated)
    errors = secrets.redact(readable(ended.stderr)).strip()
    outcome = outcome_of(ended, "curl", body)
    message = f"{outcome.error_message}: {errors[:500]}" if outcome.error_message and errors else outcome.error_message
    duration_ms = round((time.monotonic() - started_at) * 1000)
    code = "HTTP_STATUS" if ended.exit_code == HTTP_ERROR_EXIT else outcome.error_code
    return outcome.model_copy(update={"error_code": code, "error_message": message, "duration_ms": duration_ms})


def _filled(template: RequestTemplate, context: HookContext, secrets: SecretValues) -> _Request:
    def percent(text: str) -> str:
        # A value of dots would be a step upwards in a path.
        return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")

    url = read_url(fill(template.url, context, FIELD, encode=percent), FIELD)
    headers = tuple((name, fill(value, context, FIELD, secrets=secrets.mapping)) for name, value in template.headers)
    body = template.body
    if body is not None:
        if template.is_json:
            body = json.dumps(_fill_json(json.loads(body), context, secrets), ensure_ascii=False)
            if not any(name.lower() == "content-type" for name, _ in headers):
                headers = (*headers, ("Content-Type", "application/json"))
        else:
            body = fill(body, context, FIELD, secrets=secrets.mapping, encode=_encoder(template))
        if (wrong := BODY.check(body)) is not None:
            raise refused("REQUEST_INVALID", FIELD, f"the body {wrong}", "give another body")
    return _Request(url, template.method, headers, body)


def _encoder(template: RequestTemplate) -> Callable[[str], str]:
    """Form fields, which is what curl sends unless another type is named, are percent-encoded."""
    types = [value.lower() for name, value in template.headers if name.lower() == "content-type"]
    is_form = not types or "x-www-form-urlencoded" in types[-1]
    return (lambda text: quote(text, safe="")) if is_form else str


def _fill_json(value: Any, context: HookContext, secrets: SecretValues) -> Any:
    if isinstance(value, str):
        return fill(value, context, FIELD, secrets=secrets.mapping)
    if isinstance(value, list):
        return [_fill_json(item, context, secrets) for item in value]
    if isinstance(value, dict):
        return {key: _fill_json(item, context, secrets) for key, item in value.items()}
    return value


def _redirected(request: _Request, status: int, target: str) -> _Request:
    url = read_url(urljoin(str(request.url), target).partition("#")[0], "redirect")
    if request.url.scheme == "https" and url.scheme == "http":
        raise refused("ADDRESS_FORBIDDEN", "redirect", "leads from https to http", "name the last address itself")
    headers, method, body = request.headers, request.method, request.body
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, body = "GET", None
        headers = tuple(item for item in headers if item[0].lower() != "content-type")
    if url.origin != request.url.origin:
        headers = tuple(item for item in headers if item[0].lower() in HEADERS_KEPT_ELSEWHERE)
        if body is not None:
            raise refused("ADDRESS_FORBIDDEN", "redirect", "leads the body to another host", "name that host itself")
    return _Request(url, method, headers, body)


def curl_configuration(
    request: _Request,
    addresses: list[Address],
    *,
    flags: frozenset[str],
    seconds: float,
    connect_seconds: float | None,
    bytes_max: int,
) -> str:
    """What curl is told. Quoted as its configuration files are."""
    url = request.url
    lines = [
        "silent",
        "show-error",
        "globoff",
        'proto = "=http,https"',
        'proto-redir = "=http,https"',
        "max-redirs = 0",
        'noproxy = "*"',
        f"max-time = {max(seconds, 0.05):.3f}",
        f"connect-timeout = {max(min(connect_seconds or seconds, seconds), 0.05):.3f}",
        f"max-filesize = {bytes_max}",
        f"write-out = {_quoted('%{stderr}' + MARK + '%{http_code} %{redirect_url}')}",
        f"url = {_quoted(str(url))}",
    ]
    if not url.is_address:
        pinned = ",".join(f"[{address}]" if address.version == 6 else str(address) for address in addresses)
        lines.append(f"resolve = {_quoted(f'{url.host}:{url.port}:{pinned}')}")
    lines.append("head" if request.method == "HEAD" else f"request = {_quoted(request.method)}")
    lines += [f"header = {_quoted(f'{name}: {value}' if value else f'{name};')}" for name, value in request.headers]
    if request.body is not None:
        lines.append(f"data-raw = {_quoted(request.body)}")
    lines += sorted(flags & {"fail", "fail-with-body", "include"})
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
