"""Every attribute name, once.

`gen_ai.*` and `error.type` are the OpenTelemetry GenAI conventions at commit 024a4f944a12 of
open-telemetry/semantic-conventions-genai (status: Development). `journeyman.*` is ours: what the conventions lack.
Structured values (messages, token ids, arguments) are JSON text.
"""

# Conventions.
OPERATION = "gen_ai.operation.name"  # invoke_workflow | invoke_agent | plan | chat | execute_tool
PROVIDER = "gen_ai.provider.name"
WORKFLOW_NAME = "gen_ai.workflow.name"
AGENT_NAME = "gen_ai.agent.name"
CONVERSATION_ID = "gen_ai.conversation.id"  # the session that a run belongs to
USER_ID = "user.id"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
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
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOOL_CALL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_CALL_RESULT = "gen_ai.tool.call.result"
ERROR_TYPE = "error.type"

# Ours.
TASK = "journeyman.task"  # on the workflow span: the whole task as JSON
TASK_ID = "journeyman.task.id"
TASK_FAMILY = "journeyman.task.family"
OUTCOME = "journeyman.outcome"  # on the workflow span: the whole outcome as JSON
ASSIGNMENT_ID = "journeyman.assignment.id"
GOAL = "journeyman.goal"
STATUS = "journeyman.status"  # ok | failed | timeout | truncated | skipped | over_budget
OUTPUT = "journeyman.output"  # what an agent handed back, as JSON
PLAN = "journeyman.plan"  # on the plan span: the accepted plan as JSON
ERROR = "journeyman.error"
ADAPTER_DIGEST = "journeyman.adapter.digest"
PROMPT_TOKEN_IDS = "journeyman.prompt_token_ids"
TOKEN_IDS = "journeyman.token_ids"
LOGPROBS = "journeyman.logprobs"
DEMONSTRATION = "journeyman.demonstration"
BASE_DIGEST = "journeyman.base.digest"  # of the base model's folder
PROMPT_DIGEST = "journeyman.prompt.digest"  # of the messages as they were sent
ATTEMPT = "journeyman.attempt"  # 1 for the first try of an assignment
BUDGET = "journeyman.budget"  # what was left of the run's budget, as JSON
ENERGY = "journeyman.energy.joules"  # reading of the machine's counters when the run ended, and as it began
ENERGY_START = "journeyman.energy.start_joules"
ENERGY_SOURCE = "journeyman.energy.source"  # rapl | nvml | rapl+nvml
# On a server's own span under a chat span, normalised from what the server calls them; seconds.
ENGINE_QUEUE = "journeyman.engine.queue_s"
ENGINE_PREFILL = "journeyman.engine.prefill_s"
ENGINE_DECODE = "journeyman.engine.decode_s"
ENGINE_FIRST_TOKEN = "journeyman.engine.first_token_s"
ENGINE_TOTAL = "journeyman.engine.total_s"
TOOL_STATUS = "journeyman.tool.status"  # ok | invalid | failed | timeout
