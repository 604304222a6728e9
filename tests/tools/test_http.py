"""The HTTP tool asks the hosts on its list, at addresses that were checked, and nobody else."""

import gzip
import ssl
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import perf_counter, sleep

import pytest

from journeyman.tools.call import CallResult, call_tool
from journeyman.tools.http import Resolver, http
from journeyman.tools.tool import Tool
from journeyman.traces.errors import ConfigError


class _Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        match self.path.split("?")[0].split("/")[1:]:
            case ["redirect", status, *rest]:
                self._answer(int(status), b"", location="/".join(rest).replace("|", "/"))
            case ["status", status]:
                self._answer(int(status), b"why it\nfailed")
            case ["image"]:
                self._answer(200, b"\x89PNG", kind="image/png")
            case ["charset", name]:
                self._answer(200, "é".encode(), kind=f"text/plain; charset={name}")
            case ["big"]:
                self._answer(200, b"x" * 3_000_000)
            case ["zipped"]:
                self._answer(200, gzip.compress(b"unpacked"), encoding="gzip")
            case ["slow"]:
                sleep(1)
                self._answer(200, b"late")
            case _:
                self._answer(200, f"{self.command} {self.path} {self.headers['host']}".encode())

    def do_POST(self) -> None:
        if self.path.startswith("/redirect"):
            self.do_GET()
            return
        body = self.rfile.read(int(self.headers["content-length"]))
        self._answer(200, b"POST " + body + b" " + self.headers["content-type"].encode())

    def _answer(self, status: int, body: bytes, kind: str = "text/plain", **headers: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header({"encoding": "content-encoding"}.get(name, name), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    yield from _served(ThreadingHTTPServer(("127.0.0.1", 0), _Pages))


def _served(server: ThreadingHTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def resolver(**names: str) -> Resolver:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return names[host.replace(".", "_")].split()

    return resolve


async def asked(tool: Tool, url: str, **more: str) -> CallResult:
    return await call_tool(tool, {"url": url, **more})


async def test_a_listed_host_is_read(port: int) -> None:
    web = http([f"http://127.0.0.1:{port}"])
    assert list(web.parameters["properties"]) == ["url"]
    assert f"http://127.0.0.1:{port}" in web.description
    called = await asked(web, f"http://127.0.0.1:{port}/a?b=c#d")
    assert (called.status, called.content) == ("ok", f"GET /a?b=c 127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        (["api.example.com"], "https://example.com/"),
        (["api.example.com"], "https://api.example.com.evil.net/"),
        (["api.example.com"], "http://api.example.com/"),
        (["api.example.com"], "https://api.example.com:8443/"),
        (["*.example.com"], "https://example.com/"),
        (["*.example.com"], "https://badexample.com/"),
        (["api.example.com"], "https://api.example.com@evil.net/"),
        (["api.example.com"], r"https://evil.net\@api.example.com/"),
        (["api.example.com"], "https://2130706433/"),
        (["api.example.com"], "ftp://api.example.com/"),
        (["api.example.com"], "file:///etc/passwd"),
        (["api.example.com"], "/relative"),
        (["api.example.com"], "https://[::1]/"),
    ],
)
async def test_what_is_not_on_the_list_is_not_even_looked_up(hosts: list[str], url: str) -> None:
    called = await asked(http(hosts, resolve=resolver()), url)
    assert called.status == "failed"
    assert "not allowed" in called.content or "is not an address" in called.content


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "::1"),
        *("fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "nonsense"),
        *("64:ff9b:1::a00:1", "::127.0.0.1", "::ffff:0:127.0.0.1", "fec0::1", "5f00::1"),
        "8.8.8.8 10.0.0.1",
    ],
)
async def test_a_name_that_leads_to_a_private_address_is_refused(address: str) -> None:
    web = http(["api.example.com"], resolve=resolver(api_example_com=address))
    called = await asked(web, "https://API.example.com./")
    assert called.status == "failed"
    assert "neither public nor within `private`" in called.content


async def test_a_private_network_may_be_allowed_by_name(port: int) -> None:
    to_us = resolver(intra_net="127.0.0.1", deep_intra_net="127.0.0.1")
    web = http([f"http://*.intra.net:{port}"], private=["127.0.0.0/8"], resolve=to_us)
    assert (await asked(web, f"http://deep.intra.net:{port}/x")).content == f"GET /x deep.intra.net:{port}"
    assert "not allowed" in (await asked(web, f"http://intra.net:{port}/x")).content


async def test_the_connection_goes_to_the_address_that_was_checked(port: int) -> None:
    """A name that answers differently the second time is asked only once."""
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return next(answers)

    web = http([f"http://rebinding.test:{port}"], private=["127.0.0.1/32"], resolve=rebinding)
    assert (await asked(web, f"http://rebinding.test:{port}/")).status == "ok"
    assert "127.0.0.2" in (await asked(web, f"http://rebinding.test:{port}/")).content


async def test_every_redirect_is_checked_like_the_first_address(port: int) -> None:
    here = f"http://127.0.0.1:{port}"
    web = http([here])
    assert (await asked(web, f"{here}/redirect/302/|there")).content == f"GET /there 127.0.0.1:{port}"
    for onward in ("https:||evil.net|x", "http:||127.0.0.1:1|x", "file:|||etc|passwd", "http:||169.254.169.254|"):
        refused = await asked(web, f"{here}/redirect/301/{onward}")
        assert refused.status == "failed" and ("not allowed" in refused.content or "not an address" in refused.content)
    assert "redirected more than 5 times" in (await asked(web, f"{here}/redirect/307/")).content


async def test_posting_must_be_allowed(port: int) -> None:
    here = f"http://127.0.0.1:{port}"
    assert (await asked(http([here]), here, method="POST")).status == "invalid"
    web = http([here], methods=["GET", "POST"])
    assert (await asked(web, here, method="POST", body='{"a": 1}')).content == 'POST {"a": 1} application/json'
    assert (await asked(web, here, method="POST", body="é")).content == "POST é text/plain; charset=utf-8"
    assert (await asked(web, here)).content.startswith("GET /")
    turned = await asked(web, f"{here}/redirect/303/|there", method="POST", body="b")
    assert turned.content.startswith("GET /there")
    assert (await asked(web, here, method="PUT")).status == "invalid"
    only = http([here], methods=["POST"])
    assert (await asked(only, here, body="b")).content.startswith("POST b")
    assert (await asked(only, here, method="GET")).status == "invalid"
    with pytest.raises(ConfigError, match="methods is empty"):
        http([here], methods=[])


async def test_failures_are_told_and_sizes_and_times_limited(port: int) -> None:
    here = f"http://127.0.0.1:{port}"
    web = http([here, "http://127.0.0.1:1"], max_seconds=0.5)
    assert (await asked(web, f"{here}/status/404")).content == f"http: {here}/status/404 answered 404: why it failed"
    assert (await asked(web, f"{here}/image")).content == f"http: {here}/image is image/png, not text"
    assert (await asked(web, f"{here}/zipped")).content == "unpacked"
    assert "cannot be reached" in (await asked(web, "http://127.0.0.1:1/")).content
    for charset, shown in {"latin-1": "Ã©", "none": "é", "punycode": "é", "hex": "é"}.items():
        assert (await asked(web, f"{here}/charset/{charset}")).content == shown
    started = perf_counter()
    assert (await asked(web, f"{here}/slow")).status == "timeout"
    assert perf_counter() - started < 0.9
    big = await http([here], max_bytes=1000).function(f"{here}/big")
    assert big == "x" * 1000 + "\n[cut after 1,000 bytes]"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for secure.test that is its own authority, with its key behind it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "secure.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("secure.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("authority") / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path


@pytest.fixture(scope="module")
def secure_port(authority: Path) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    yield from _served(server)


async def test_a_certificate_must_be_the_name_s_though_the_connection_goes_to_the_address(
    secure_port: int, authority: Path
) -> None:
    both = resolver(secure_test="127.0.0.1", other_test="127.0.0.1")
    hosts = [f"secure.test:{secure_port}", f"other.test:{secure_port}"]
    web = http(hosts, private=["127.0.0.1/32"], certificates=authority, resolve=both)
    assert (await asked(web, f"https://secure.test:{secure_port}/x")).content == f"GET /x secure.test:{secure_port}"
    assert "cannot be reached" in (await asked(web, f"https://other.test:{secure_port}/x")).content
    untrusting = http(hosts, private=["127.0.0.1/32"], resolve=both)
    assert "cannot be reached" in (await asked(untrusting, f"https://secure.test:{secure_port}/x")).content


@pytest.mark.parametrize("host", ["", "https://a.b/path", "ftp://a.b", "a b/c", "*", "u:p@a.b", "a.*.b"])
def test_a_list_with_something_else_than_hosts_is_refused(host: str) -> None:
    with pytest.raises(ConfigError):
        http([host])
    with pytest.raises(ConfigError, match="hosts is empty"):
        http([])
    with pytest.raises(ConfigError, match=r"write a network such as 10\.0\.0\.0/8"):
        http(["a.b"], private=["everything"])


@pytest.mark.parametrize("wrong", ["not there", "no certificate"])
def test_authorities_that_cannot_be_read_are_refused_before_anything_is_asked(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "no certificate").write_text("junk")
    with pytest.raises(ConfigError, match=f"certificates: .*{wrong} cannot be used") as refused:
        http(["a.b"], certificates=tmp_path / wrong)
    assert "\n" not in str(refused.value)
