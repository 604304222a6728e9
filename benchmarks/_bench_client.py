# mypy: disable-error-code="import-untyped, no-untyped-call, unused-ignore"
"""vLLM's own benchmark client, made to send the requests that a crew sent. Run as a process: importing it takes long.

It reads orders from stdin, `{"url": ..., "requests": PATH, "in_flight": n}` in a line; a line of the file has a
request's `body` and the `tokens` that were generated for it. For each order it writes the client's own account.
"""

import asyncio
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from vllm.benchmarks.datasets.datasets import SampleRequest
from vllm.benchmarks.serve import TaskType, benchmark

REPLAYED = ("response_format", "temperature", "seed", "logprobs", "return_token_ids", "cache_salt")


async def replay(url: str, rows: list[dict[str, Any]], in_flight: int) -> dict[str, Any]:
    requests = [
        SampleRequest(
            prompt="",
            prompt_len=0,
            expected_output_len=row["tokens"],
            request_id=f"replay-{number}",
            chat_messages=row["body"]["messages"],
            request_overrides={key: row["body"][key] for key in REPLAYED if key in row["body"]},
        )
        for number, row in enumerate(rows)
    ]
    model = rows[0]["body"]["model"]
    account: dict[str, Any] = await benchmark(
        task_type=TaskType.GENERATION,
        endpoint_type="openai-chat",
        api_url=f"{url}/v1/chat/completions",
        base_url=url,
        model_id=model,
        model_name=model,
        tokenizer=None,
        input_requests=requests,
        logprobs=None,
        request_rate=float("inf"),
        burstiness=1.0,
        disable_tqdm=True,
        num_warmups=0,
        profile=False,
        selected_percentile_metrics=["e2el"],
        selected_percentiles=[50.0],
        ignore_eos=False,
        goodput_config_dict={},
        max_concurrency=in_flight,
        lora_modules=None,
        extra_headers=None,
        extra_body=None,
    )
    return account


def main() -> None:
    kept = ("duration", "completed", "failed", "total_input_tokens", "total_output_tokens", "output_throughput")
    for line in sys.stdin:
        order = json.loads(line)
        rows = [json.loads(row) for row in Path(order["requests"]).read_text().splitlines()]
        with redirect_stdout(sys.stderr):
            account = asyncio.run(replay(order["url"], rows, order["in_flight"]))
        print(json.dumps({key: account[key] for key in kept}), flush=True)


if __name__ == "__main__":
    main()
