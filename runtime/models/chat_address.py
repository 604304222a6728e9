"""Where a server is asked: the addresses of its endpoints, out of what a user wrote."""

import re

import httpx

from journeyman.traces.errors import ConfigError

PATH = "/chat/completions"

VERSION = re.compile(r"/v\d\w*(?=/|$)")
"""In a server's address; other servers than vLLM have it elsewhere than at the end, or another one than the first."""


class Address:
    """Of a server. It may hold the chat API's path already, and a version beside it, as Azure's; else it gets `/v1`."""

    def __init__(self, base_url: str) -> None:
        """Raises `ConfigError` where `base_url` is no address of a server."""
        try:
            url = httpx.URL(base_url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"{base_url!r} is no URL: {error}") from None
        if url.scheme not in {"http", "https"} or not url.host:
            raise ConfigError(f"{base_url!r} isn't a server's URL: write it as http://host:port")
        path = url.path.rstrip("/").removesuffix(PATH)
        versioned = VERSION.search(path) or "api-version" in url.params
        self.shown = f"{url.scheme}://{url.netloc.decode()}"
        """Without user, password or path: for messages."""
        self.chat = url.copy_with(path=f"{path}{'' if versioned else '/v1'}{PATH}")
        self.tokenize = url.copy_with(path=f"{VERSION.sub('', path)}/tokenize", query=None)
        """vLLM's own endpoint, beside its API and not in a version of it."""
