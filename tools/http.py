"""HTTP: requests to the hosts on a list, and to no others.

What it protects from: a model, or a page that it has read, can't send it elsewhere. The scheme, host and port of the
first address and of every redirect must be on the list. A name on the list that leads to a private address (this
machine, its network, a cloud's metadata service) is refused unless that network is allowed too, and the connection
goes to the very address that was checked, so a name that changes its answer between check and use gains nothing.
Sizes, times and redirects are limited; no proxy, cookie or credential of the environment is used.

What it does not: the model may write anything into the path, query and body of a request to a host on the list, and
so hand it whatever the model has seen. What comes back is text from outside: treat it as data, never as orders.
"""

import asyncio
import codecs
import ipaddress
import json
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from journeyman.tools.tool import Count, Seconds, Tool
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError, ToolError

if TYPE_CHECKING:
    import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_REDIRECTS = 5
PORTS = {"https": 443, "http": 80}
TEXT = ("text/", "application/json", "application/xml", "application/javascript", "application/x-ndjson")
HOST = re.compile(r"[\w.:-]+", re.ASCII)
NAT64 = ipaddress.ip_network("64:ff9b::/96")
INNER = tuple(map(ipaddress.ip_network, ("64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96", "fec0::/10", "5f00::/16")))
"""Networks of one's own that Python calls public: other forms of addresses of version 4, and those of sites."""
NO_CHARSETS = {"punycode", "idna", "unicode-escape", "raw-unicode-escape"}
REDIRECTS = {301, 302, 303, 307, 308}


async def look_up(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, as the system knows them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def http(
    hosts: Sequence[str],
    *,
    methods: Sequence[Literal["GET", "POST"]] = ("GET",),
    private: Sequence[str] = (),
    max_bytes: Count = 1_000_000,
    max_seconds: Seconds = 20.0,
    certificates: Path | None = None,
    resolve: Resolver = look_up,
    name: str = "http",
) -> Tool:
    """A tool `name(url: str) -> str` that returns text; one that only posts is `name(url, body)`, one that does both
    `name(url, method, body)`.

    A status of 400 and above, an answer that is no text, and what was refused are a `ToolError`.

    - `hosts`: who may be asked: `api.example.com` (https), `*.example.com` (every name below, not itself), with a port
      `api.example.com:8443`, or with a scheme `http://localhost:8080`.
    - `methods`: what may be sent.
    - `private`: networks that names may lead to though they are not public, `10.0.0.0/8`; an address that is itself an
      entry of `hosts` needs none.
    - `max_bytes`: of a longer answer the first so many are returned.
    - `max_seconds`: for a request, its redirects included.
    - `certificates`: a file of authorities to trust instead of the usual ones.
    """
    web = _Web([_entry(host) for host in hosts], [_network(one) for one in private], max_bytes, certificates, resolve)
    reach = f"Allowed hosts: {', '.join(hosts)}."

    async def get(url: str) -> str:
        return await web.text("GET", url, None)

    async def post(url: str, body: str | None = None) -> str:
        return await web.text("POST", url, body)

    async def request(url: str, method: Literal["GET", "POST"] = "GET", body: str | None = None) -> str:
        return await web.text(method, url, body)

    if not methods:
        raise ConfigError('methods is empty; name some, such as "GET"')
    if "POST" in methods:
        # Where there are both, permissions can still tell them apart, by the argument `method`.
        told = f"Sends an HTTP request. {reach}"
        send = request if "GET" in methods else post
        return Tool(send, name=name, description=told, timeout_s=max_seconds, writes=True)
    return Tool(get, name=name, description=f"Reads a web address. {reach}", timeout_s=max_seconds)


class _Entry(Record):
    scheme: str
    host: str
    """A name or an address; with a dot in front, every name below it."""
    port: int

    def admits(self, scheme: str, host: str, port: int) -> bool:
        at_home = host.endswith(self.host) if self.host.startswith(".") else host == self.host
        return at_home and (scheme, port) == (self.scheme, self.port)


class _Web:
    def __init__(
        self,
        entries: list[_Entry],
        private: list[Network],
        max_bytes: int,
        certificates: Path | None,
        resolve: Resolver,
    ) -> None:
        if not entries:
            raise ConfigError('hosts is empty; name those that may be asked, such as "api.example.com"')
        self._entries = entries
        self._private = private
        self._max_bytes = max_bytes
        self._authorities = None if certificates is None else _authorities(certificates)
        self._resolve = resolve

    async def text(self, method: str, url: str, body: str | None) -> str:
        import httpx

        target = _parsed(url)
        async with httpx.AsyncClient(verify=self._trust, trust_env=False, timeout=None) as client:
            for _ in range(MAX_REDIRECTS + 1):
                response = await self._send(client, method, target, body)
                try:
                    onward = response.headers.get("location")
                    if response.status_code not in REDIRECTS or onward is None:
                        return await self._read(response, target)
                finally:
                    await response.aclose()
                target = _parsed(str(target.join(onward)))
                if response.status_code not in {307, 308}:
                    method, body = "GET", None
        raise ToolError(f"{url} was redirected more than {MAX_REDIRECTS} times")

    async def _send(
        self, client: "httpx.AsyncClient", method: str, target: "httpx.URL", body: str | None
    ) -> "httpx.Response":
        import httpx

        port = target.port or PORTS.get(target.scheme, 0)
        headers = {"Host": target.netloc.decode(), "Accept-Encoding": "gzip", "User-Agent": "journeyman"}
        if body is not None:
            headers["Content-Type"] = "application/json" if _is_json(body) else "text/plain; charset=utf-8"
        problem: Exception | None = None
        for address in await self._addresses(target, port):
            request = client.build_request(
                method,
                target.copy_with(host=address),
                content=None if body is None else body.encode(),
                headers=headers,
                # The certificate must be the name's, though the connection goes to the address.
                extensions={"sni_hostname": _host(target)},
            )
            try:
                return await client.send(request, stream=True)
            except httpx.ConnectError as error:
                problem = error
            except httpx.HTTPError as error:
                raise ToolError(f"{target} did not answer: {error or type(error).__name__}") from None
        raise ToolError(f"{target} cannot be reached: {problem or 'its name leads nowhere'}")

    async def _addresses(self, target: "httpx.URL", port: int) -> list[str]:
        """Where a request may connect to; raises `ToolError` where the list does not allow it."""
        host = _host(target)
        if not any(entry.admits(target.scheme, host, port) for entry in self._entries):
            listed = ", ".join(_shown(entry) for entry in self._entries)
            raise ToolError(f"{target.scheme}://{host}:{port} is not allowed; allowed are: {listed}")
        if _address(host) is not None:
            return [host]  # An address on the list was meant.
        try:
            found = list(dict.fromkeys(await self._resolve(host, port)))
        except OSError as error:
            raise ToolError(f"{host} has no address: {error.strerror or error}") from None
        for address in found:
            if not self._reachable(address):
                raise ToolError(f"{host} leads to {address}, which is neither public nor within `private`")
        return found

    def _reachable(self, text: str) -> bool:
        address = _address(text)
        if address is None:
            return False
        within = any(address.version == network.version and address in network for network in self._private)
        inner = any(address.version == network.version and address in network for network in INNER)
        return within or (address.is_global and not address.is_multicast and not inner)

    async def _read(self, response: "httpx.Response", target: "httpx.URL") -> str:
        import httpx

        kind = response.headers.get("content-type", "text/plain").lower().partition(";")[0].strip()
        readable = kind.startswith(TEXT) or kind.endswith(("+json", "+xml"))
        if response.headers.get("content-encoding", "identity").lower() not in {"identity", "gzip"}:
            raise ToolError(f"{target} answered in an encoding that was not asked for")
        content = b""
        try:
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > self._max_bytes:
                    break
        except httpx.HTTPError as error:
            raise ToolError(f"{target} broke off: {error or type(error).__name__}") from None
        text = _decoded(content[: self._max_bytes], response.charset_encoding) if readable else ""
        if response.status_code >= 400:
            raise ToolError(f"{target} answered {response.status_code}: {' '.join(text.split())[:500]}")
        if not readable:
            raise ToolError(f"{target} is {kind}, not text")
        return text if len(content) <= self._max_bytes else f"{text}\n[cut after {self._max_bytes:,} bytes]"

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        import httpx

        return self._authorities or httpx.create_ssl_context(trust_env=False)


def _authorities(certificates: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(certificates))
    except OSError as error:  # An `SSLError` is one, too.
        raise ConfigError(f"certificates: {certificates} cannot be used: {error.strerror or error}") from None


def _entry(text: str) -> _Entry:
    scheme, _, rest = text.rpartition("://")
    parsed = _parsed(f"{scheme or 'https'}://{rest.removeprefix('*.')}", ConfigError)
    if parsed.raw_path != b"/" or not HOST.fullmatch(_host(parsed)):
        raise ConfigError(
            f'hosts: {text!r} is not a host; write "api.example.com", "*.example.com" or "http://host:80"'
        )
    below = "." if rest.startswith("*.") else ""
    return _Entry(scheme=parsed.scheme, host=below + _host(parsed), port=parsed.port or PORTS[parsed.scheme])


def _shown(entry: _Entry) -> str:
    port = "" if entry.port == PORTS[entry.scheme] else f":{entry.port}"
    return f"{entry.scheme}://{'*' if entry.host.startswith('.') else ''}{entry.host}{port}"


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(f"private: {error}; write a network such as 10.0.0.0/8") from None


def _parsed(url: str, kind: type[ConfigError] | type[ToolError] = ToolError) -> "httpx.URL":
    import httpx

    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise kind(f"{url!r} is not an address: {error}") from None
    if parsed.scheme not in PORTS or not parsed.host:
        raise kind(f"{url!r} is not an address; write one such as https://host/path")
    if parsed.userinfo:
        raise kind(f"{parsed.host}: an address with a user name or password is not allowed")
    return parsed.copy_with(fragment=None)


def _host(target: "httpx.URL") -> str:
    """In the form that the name service and certificates use."""
    return target.raw_host.decode().rstrip(".").lower().strip("[]")


def _address(text: str) -> Address | None:
    """The address that is meant: one of version 4 may come wrapped in one of version 6."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address in NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _decoded(content: bytes, charset: str | None) -> str:
    """Whatever is no encoding of text, or takes minutes to decode a megabyte, is read as UTF-8."""
    try:
        known = codecs.lookup(charset or "utf-8").name not in NO_CHARSETS
        return content.decode(charset if charset and known else "utf-8", errors="replace")
    except (LookupError, UnicodeError):
        return content.decode(errors="replace")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
