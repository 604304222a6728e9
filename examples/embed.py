"""A crew of one inside an app, on the workspace's running server (`journeyman server start`)."""

import asyncio

from journeyman.runtime import Agent, Crew, Limits, Runtime, tool

PRICES = {"tea": 3.2, "coffee": 4.5, "cake": 5.0}


@tool
def price(item: str) -> str:
    """The price of a drink or a cake."""
    return f"{item} costs {PRICES[item.lower()]} euros"


waiter = Agent(name="waiter", instructions="Answer in JSON.", tools=("price",), tool_first=True, limits=Limits(turns=2))
crew = Crew(name="cafe", orchestrator=None, workers=(waiter,), tools={"price": price})


async def main() -> None:
    async with Runtime.open(crew) as runtime:
        outcome = await runtime.run("What does the coffee cost?")
        print(outcome.status, outcome.answer)


if __name__ == "__main__":
    asyncio.run(main())
