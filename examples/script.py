"""A crew in a plain script, without asyncio: every step is printed as it happens, then the answer.

python script.py planets/crew.toml "What is the diameter of the largest planet?"
"""

import sys

from journeyman.runtime import Ended, PlanMade, ReportFiled, Runtime


def work(runtime: Runtime, question: str) -> int:
    """The exit code: 0 where the run ended well."""
    for event in runtime.stream_sync(question):
        if isinstance(event, PlanMade):
            for assignment in event.plan.assignments:
                print(f"{assignment.worker}: {assignment.goal}")
        elif isinstance(event, ReportFiled):
            print(f"  {event.report.assignment.goal} → {event.report.output or event.report.error}")
        elif isinstance(event, Ended):
            print(event.outcome.answer or event.outcome.error)
            return 0 if event.outcome.status == "ok" else 1
    return 1


if __name__ == "__main__":
    crew, question = sys.argv[1:]
    runtime = Runtime.open(crew)
    try:
        sys.exit(work(runtime, question))
    finally:
        runtime.close()
