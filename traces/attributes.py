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
TOOL_STATUS = "journeyman.tool.status"  # ok | invalid | failed | timeout
