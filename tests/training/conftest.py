"""A server that plays vLLM, and a crew with tasks for it."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from journeyman.agents.worker import write_answer
from journeyman.runtime.adapters.adapter import read_probe

TASKS = 24
FLAGS = ("ailing", "forgets", "dull")
KEY = "Think of a word."
"""Instructions that make the base model know every answer; a worked example does, too."""
CREW = """
name = "echo"

[workers.worker]
instructions = "Answer."
"""


class Peer(BaseHTTPRequestHandler):
    """vLLM with an adapter that knows the answers, worker@1, and one that knows none, worker@2. The base knows half.

    It is also the endpoint of another model, which knows everything.
    """

    loaded: dict[str, str]
    chats: list[str]
    ailing: bool
    """Whether the base model's requests are refused."""
    forgets: bool
    """Whether it drops its adapters once they are proved."""
    dull: bool
    """Whether what learns at present never knows anything."""

    def do_GET(self) -> None:
        cards = [{"id": name, "root": root, "parent": "base"} for name, root in self.loaded.items()]
        self._answer({"data": [{"id": "base", "root": "model", "parent": None}, *cards]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        match self.path:
            case "/v1/load_lora_adapter":
                self.loaded[body["lora_name"]] = body["lora_path"]
                self._answer("Success")
            case "/v1/unload_lora_adapter":
                del self.loaded[body["lora_name"]]
                self._answer("Success")
            case "/v1/completions":
                learned = read_probe(Path(self.loaded[body["model"]])).adapter_logprobs
                logprobs = {"token_logprobs": [learned[len(body["prompt"]) - 1]]}
                choice = {"token_ids": body["allowed_token_ids"], "logprobs": logprobs}
                self._answer({"model": body["model"], "choices": [choice]})
            case "/v1/chat/completions":
                self.chats.append(body["model"])
                if self.ailing and body["model"] == "base":
                    self.send_error(400)
                    return
                if self.forgets and "@" in body["model"]:
                    self.send_error(404)
                    return
                # A model takes its time; with an instant one the gate's rule on seconds would weigh noise.
                time.sleep(0.1)
                seed = body.get("seed", 0) if body["temperature"] else 0
                self._answer(self._chat(body["model"], body["messages"], seed))

    def _chat(self, policy: str, messages: list[dict[str, Any]], seed: int) -> dict[str, Any]:
        if not messages[-1]["content"].isdigit():
            return self._reply(policy, f"```\n{KEY}\n```")  # It is asked for better instructions.
        number = int(messages[-1]["content"])
        known = {"base": number % 2 == 0, "worker@1": True, "worker@2": False, "org/large": True}
        # What learns at present knows it now and then, where it is sampled.
        knows = not self.dull and (number + seed) % 2 == 0 if "." in policy else known[policy]
        if policy != "worker@2" and (KEY in messages[0]["content"] or len(messages) > 2):
            knows = True
        return self._reply(policy, write_answer(f"word{number}" if knows else "no idea"))

    def _reply(self, policy: str, text: str) -> dict[str, Any]:
        choice = {
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
            "token_ids": [1, 2],
            "logprobs": {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -0.5}]},
        }
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        return {"id": "1", "model": policy, "choices": [choice], "usage": usage, "prompt_token_ids": [1, 2, 3, 4, 5]}

    def _answer(self, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def peer() -> type[Peer]:
    return type("PeerOfOneTest", (Peer,), {"loaded": {}, "chats": [], **dict.fromkeys(FLAGS, False)})


@pytest.fixture
def url(peer: type[Peer]) -> Iterator[str]:
    listener = ThreadingHTTPServer(("127.0.0.1", 0), peer)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{listener.server_address[1]}"
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Options that name a crew and its tasks."""
    (tmp_path / "crew.toml").write_text(CREW)
    rows = [{"id": f"q{number}", "prompt": str(number), "reference": f"word{number}"} for number in range(TASKS)]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--crew", str(tmp_path / "crew.toml"), "--tasks", str(tmp_path / "tasks.jsonl")]
