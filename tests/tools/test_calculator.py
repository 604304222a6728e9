"""The calculator answers arithmetic, refuses everything else, and cannot be made to hang."""

from time import perf_counter

import pytest

from journeyman.tools.calculator import calculator
from journeyman.tools.call import call_tool
from journeyman.traces.errors import ToolError


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 + 3 * 4", "14"),
        ("(8848.86 - 8611) / 2", "118.93"),
        ("-2 ** 2", "-4"),
        ("7 // 2 + 7 % 2", "4"),
        ("max(3, sqrt(16), abs(-5))", "5"),
        ("round(2.567, 1)", "2.6"),
        ("2 ** 0.5", "1.41421356237"),
        ("+".join(["1"] * 200), "200"),
        ("-" * 399 + "1", "-1"),
        ("-(" * 80 + "1" + ")" * 80, "1"),
        ("abs(" * 79 + "-1" + ")" * 79, "1"),
    ],
)
def test_arithmetic_has_its_value(expression: str, value: str) -> None:
    assert calculator.function(expression) == value


@pytest.mark.parametrize("expression", ["__import__('os')", "open('x')", "'a' * 9", "True + 1", "x", "[1][0]", "1 < 2"])
def test_what_is_not_arithmetic_is_refused(expression: str) -> None:
    with pytest.raises(ToolError, match="is not arithmetic"):
        calculator.function(expression)


@pytest.mark.parametrize("expression", ["", "2 +", "1/0", "sqrt(-1)", "(-8) ** 0.5", "round()", "1e308 * 10"])
def test_what_has_no_value_is_a_tool_error_of_one_line(expression: str) -> None:
    with pytest.raises(ToolError) as raised:
        calculator.function(expression)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "expression",
    ["9 ** 9 ** 9", "2 ** -(9 ** 99)", "round(5, -10 ** 299)", "9" * 350, "9" * 500, "-(" * 180 + "1", "(" * 390],
)
def test_an_expression_made_to_hang_is_refused_at_once(expression: str) -> None:
    started = perf_counter()
    with pytest.raises(ToolError):
        calculator.function(expression)
    assert perf_counter() - started < 0.5


async def test_a_model_is_told_what_was_wrong() -> None:
    called = await call_tool(calculator, {"expression": "1/0"})
    assert called.status == "failed"
    assert called.content == "calculator: '1/0' has no value: division by zero"
