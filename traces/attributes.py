"""Every attribute name, once.

`gen_ai.*`, `error.type` and `user.id` are OpenTelemetry's, of the commit that `conventions.toml` names, which is also
the table of their types. `journeyman.*` is ours: what the conventions lack. Structured values (messages, token ids,
arguments) are JSON text.
"""

# Conventions.
OPERATION = "gen_ai.operation.name"  # invoke_workflow | invoke_agent | plan | execute_tool, or one of INFERENCE
PROVIDER = "gen_ai.provider.name"
WORKFLOW_NAME = "gen_ai.workflow.name"
AGENT_NAME = "gen_ai.agent.name"
AGENT_DESCRIPTION = "gen_ai.agent.description"
CONVERSATION_ID = "gen_ai.conversation.id"  # the session that a run belongs to
USER_ID = "user.id"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"
OUTPUT_TYPE = "gen_ai.output.type"  # what was asked for: json, because a reply is decoded under a schema
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_CHOICES = "gen_ai.request.choice.count"
REQUEST_SEED = "gen_ai.request.seed"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_DESCRIPTION = "gen_ai.tool.description"
TOOL_CALL_ID = "gen_ai.tool.call.id"  # of our runs: the span of the model call that asked for it
TOOL_CALL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_CALL_RESULT = "gen_ai.tool.call.result"
ERROR_TYPE = "error.type"  # the outcome's status, why a model call failed, or the class of the error
EVALUATION_NAME = "gen_ai.evaluation.name"
EVALUATION_VALUE = "gen_ai.evaluation.score.value"
EVALUATION_LABEL = "gen_ai.evaluation.score.label"
EVALUATION_EXPLANATION = "gen_ai.evaluation.explanation"
TOKEN_MODALITY = "gen_ai.token.modality"

INFERENCE = ("chat", "generate_content", "text_completion")
"""Operations that are a model call: a turn of an agent."""

# Ours.
TASK = "journeyman.task"  # on the workflow span: the whole task as JSON
TASK_ID = "journeyman.task.id"
TASK_FAMILY = "journeyman.task.family"
PURPOSE = "journeyman.purpose"  # on the workflow span: a `trace.Purpose`
TASK_SET = "journeyman.task.set"  # beside it: the name of the set that the task is from
TASK_SET_DIGEST = "journeyman.task.set.digest"  # and `trace.digest_tasks` of it
JUDGED = "journeyman.judged"  # beside them: true where a label `accepted` must say that it may be learned from
OUTCOME = "journeyman.outcome"  # on the workflow span: the whole outcome as JSON
ASSIGNMENT_ID = "journeyman.assignment.id"
GOAL = "journeyman.goal"
STATUS = "journeyman.status"  # a `trace.Status`
OUTPUT = "journeyman.output"  # what an agent handed back, as JSON
PLAN = "journeyman.plan"  # on the plan span: the accepted plan as JSON
ERROR = "journeyman.error"
ADAPTER_DIGEST = "journeyman.adapter.digest"
WEIGHTS = "journeyman.weights"  # of a prompt candidate: the policy whose weights the server was asked for
PROMPT_TOKEN_IDS = "journeyman.prompt_token_ids"
TOKEN_IDS = "journeyman.token_ids"
LOGPROBS = "journeyman.logprobs"
DEMONSTRATION = "journeyman.demonstration"
TERMS = "journeyman.terms"  # on a model call: what the terms of the policy's provider say of training on its replies
BASE_DIGEST = "journeyman.base.digest"  # of the base model's folder
PROMPT_DIGEST = "journeyman.prompt.digest"  # SHA-256 of the messages as they were sent
PROMPT_FORM = "journeyman.prompt.form"  # on a plan and a worker's span: `agents.prompt.PromptForm.shown`
ATTEMPT = "journeyman.attempt"  # 1 for the first try of an assignment
RUN_ID = "journeyman.run.id"  # the same on every part of a run that was interrupted and taken up again
UNSENT = "journeyman.request.unsent"  # parameters that the server was not sent, and why, as JSON
POLICY_REASON = "journeyman.policy.reason"  # why this policy was asked: a route, or what the one before it failed of
DECISIONS = "journeyman.decisions"  # of guardrails, permissions and people on what the span did, as JSON
REPLAY_OF = "journeyman.replay.of"  # on every span of a replay: the id of the trace that it repeats
BUDGET = "journeyman.budget"  # what was left of the run's budget, as JSON
ENERGY = "journeyman.energy.joules"  # reading of the machine's counters when the run ended, and as it began
ENERGY_START = "journeyman.energy.start_joules"
ENERGY_SOURCE = "journeyman.energy.source"  # rapl | nvml | rapl+nvml
# On a server's own span under a chat span, normalised from what the server calls them; seconds.
ENGINE_QUEUE = "journeyman.engine.queue_s"
ENGINE_PREFILL = "journeyman.engine.prefill_s"
ENGINE_DECODE = "journeyman.engine.decode_s"
ENGINE_INFERENCE = "journeyman.engine.inference_s"  # prefill and decode
ENGINE_FIRST_TOKEN = "journeyman.engine.first_token_s"
ENGINE_TOTAL = "journeyman.engine.total_s"
ENGINE = frozenset({ENGINE_QUEUE, ENGINE_PREFILL, ENGINE_DECODE, ENGINE_FIRST_TOKEN, ENGINE_TOTAL})
# What OTLP brings that a span of ours has no field for, as JSON.
RESOURCE = "journeyman.otlp.resource"  # attributes of the service that it comes from
EVENTS = "journeyman.otlp.events"
LINKS = "journeyman.otlp.links"
# On the event that tells of a label.
LABEL_SOURCE = "journeyman.label.source"
LABEL_SOURCE_TYPE = "journeyman.label.source_type"
LABEL_VERSION = "journeyman.label.version"
CONTENT = "journeyman.content"  # digest | off: how the texts were left out; absent where they are all there
REDACTED = "journeyman.redacted"  # kinds of what was taken out of the texts, and with it the token ids
TOOL_STATUS = "journeyman.tool.status"  # ok | invalid | failed | timeout

DIGEST_ONLY = "sha256:"
"""Start of what stands in the place of a text of which only the digest was recorded, or not even that is left."""
