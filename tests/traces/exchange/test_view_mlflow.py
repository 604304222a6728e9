"""A view of kind `mlflow` on a real MLflow server: its own API shows agents, tools, texts, tokens and feedback."""

import json
from time import monotonic, sleep

import pytest
from mlflow import MlflowClient
from mlflow.entities import Feedback, Trace

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.tools.tool import tool
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.exchange.endpoint import EXPERIMENT
from journeyman.traces.exchange.view import View
from journeyman.traces.labels import Label
from journeyman.traces.trace import Task

pytestmark = [pytest.mark.serve, pytest.mark.filterwarnings("ignore")]

PLAN = json.dumps({"assignments": [{"worker": "lookup", "goal": "How many moons does Mars have?"}]})


@tool
def facts(query: str) -> str:
    """Looks facts up."""
    return "Mars has 2 moons."


CREW = Crew(
    name="planets",
    orchestrator=Agent(name="orchestrator", instructions="Plan."),
    workers=(Agent(name="lookup", instructions="Look up.", tools=("facts",), output="values", limits=Limits(turns=2)),),
    tools={"facts": facts},
)


def answers(request: ModelRequest) -> str:
    if request.messages[0].content == "Plan.":
        return PLAN
    return write_answer(["2"]) if len(request.messages) > 2 else write_call("facts", {"query": "Mars"})


def wait_for(client: MlflowClient, trace_id: str, spans: int) -> Trace:
    deadline = monotonic() + 30
    while monotonic() < deadline:
        found = client.search_traces(locations=[_experiment(client)], max_results=50)
        for trace in found:
            if isinstance(trace, Trace) and trace.info.trace_id == f"tr-{trace_id}" and len(trace.data.spans) == spans:
                return trace
        sleep(0.2)
    raise AssertionError(f"the trace with {spans} spans is not on the server")


def _experiment(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return "0" if experiment is None else str(experiment.experiment_id)


async def test_a_run_is_shown_with_agents_tools_texts_and_feedback(mlflow_server: str) -> None:
    view = View(mlflow_server, "mlflow", timeout_s=30.0)
    runtime = Runtime(CREW, model=ScriptedModel(answers), tracer=Tracer(view))
    outcome = await runtime.run(Task(id="moons", prompt="How many moons?", family="planets"))
    said = Label(trace_id=outcome.trace_id, name="thumbs", source="ada", source_type="human", value=True, comment="yes")
    view.label(said)
    view.label(said.model_copy(update={"name": "score", "source": "scorer", "source_type": "code", "value": 0.75}))
    view.close(deadline_s=60.0)
    assert view.lost == 0, view.loss

    client = MlflowClient(tracking_uri=mlflow_server)
    trace = wait_for(client, outcome.trace_id, view.sent - 2)
    types = {(span.name, span.span_type) for span in trace.data.spans}
    assert ("invoke_workflow planets", "CHAIN") in types
    assert ("invoke_agent lookup", "AGENT") in types
    assert ("chat base", "CHAT_MODEL") in types
    assert ("execute_tool facts", "TOOL") in types
    assert trace.info.state == "OK"
    assert "How many moons?" in str(trace.info.request_preview) and "2" in str(trace.info.response_preview)

    tool_span = next(span for span in trace.data.spans if span.span_type == "TOOL")
    assert tool_span.inputs == {"query": "Mars"} and "Mars has 2 moons." in str(tool_span.outputs)
    chats = [span for span in trace.data.spans if span.span_type == "CHAT_MODEL"]
    assert {"role": "user", "content": "How many moons does Mars have?"} in chats[-1].inputs["messages"]
    assert trace.info.token_usage is not None and trace.info.token_usage["output_tokens"] > 0

    feedback = {one.name: one for one in trace.info.assessments if isinstance(one, Feedback)}
    assert (feedback["thumbs"].value, feedback["thumbs"].rationale) == (True, "yes")
    assert (feedback["thumbs"].source.source_type, feedback["thumbs"].source.source_id) == ("HUMAN", "ada")
    assert (feedback["score"].value, feedback["score"].source.source_type) == (0.75, "CODE")


def test_a_server_that_is_no_mlflow_is_said_to_be(free_port: int) -> None:
    view = View(f"http://127.0.0.1:{free_port}", "mlflow", first_pause_s=0.01)
    view.label(Label(trace_id="7" * 32, name="score", source="me", value=1.0))
    view.close()
    assert view.lost == 1
