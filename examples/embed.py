"""A crew inside an app, told step by step: needs a running server (`journeyman server start`)."""

import asyncio
from pathlib import Path

from journeyman.runtime import Agent, Crew, Ended, Limits, PlanMade, ReportFiled, Runtime, tool

PRICES = {"tea": 3.2, "coffee": 4.5, "cake": 5.0}


@tool
def price(drink: str) -> str:
    """The price of a drink or a cake."""
    return f"{drink} costs {PRICES[drink.lower()]} euros"


crew = Crew(
    name="cafe",
    orchestrator=None,
    workers=(
        Agent(name="waiter", instructions="Answer in JSON.", tools=("price",), tool_first=True, limits=Limits(turns=2)),
    ),
    tools={"price": price},
)


async def main(workspace: Path | None = None) -> None:
    async with Runtime.open(crew, workspace=workspace) as runtime:
        async for event in runtime.stream("What does the coffee cost?"):
            match event:
                case PlanMade():
                    print("plan:", [assignment.goal for assignment in event.plan.assignments])
                case ReportFiled():
                    print(f"{event.report.assignment.worker}: {event.report.status} {event.report.output}")
                case Ended():
                    print("answer:", event.outcome.answer)


if __name__ == "__main__":
    asyncio.run(main())
