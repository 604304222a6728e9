"""`journeyman traces receive`: what another program sends is in the workspace's record, as its policy allows."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from journeyman.traces.capture.log import SpanRecord, read_spans
from journeyman.traces.exchange.otlp import to_otlp

JOURNEYMAN = str(Path(sys.executable).with_name("journeyman"))


def test_spans_come_in_until_it_is_told_to_end(tmp_path: Path) -> None:
    sent = SpanRecord(
        trace_id=f"{7:032x}",
        span_id=f"{1:016x}",
        parent_id=None,
        name="checkout",
        kind="server",
        start_ns=1,
        end_ns=2,
        status="ok",
        attributes={"note": "key sk-abcdefghijklmnopqrstuvwx0123456789ABCDEFGHIJKLMN", "items": 3},
    )
    place = tmp_path / ".journeyman"
    command = [JOURNEYMAN, "traces", "receive", "--port", "0", "-C", str(place), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stdout is not None
        said = process.stderr.readline()
        address = said.split()[3]
        headers = {"Content-Type": "application/x-protobuf"}
        body = to_otlp([sent]).SerializeToString()
        assert httpx.post(address, content=body, headers=headers, trust_env=False).status_code == 200
        assert httpx.post(address, content=b"\xff", headers=headers, trust_env=False).status_code == 400
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.stdout.read()) == {"spans": 1, "refused_spans": 0, "refused_requests": 1}
    assert process.returncode == 0
    (found,) = read_spans(place / "spans")
    assert (found.name, found.attributes["items"]) == ("checkout", 3)
    assert "sk-abc" not in str(found.attributes["note"])
