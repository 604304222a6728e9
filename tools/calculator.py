"""The calculator: arithmetic without `eval`."""

import ast
import math
import operator
from collections.abc import Callable

from journeyman.tools.tool import tool
from journeyman.traces.errors import ToolError

Number = int | float

MAX_LENGTH = 400
"""Characters of an expression, which is hence not nested deeper than Python can follow."""
MAX_DIGITS = 300
"""Digits of a whole number: past it an exponent could hold the process for hours."""

BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
UNARY: dict[type[ast.unaryop], Callable[[Number], Number]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def _round(value: Number, digits: int = 0) -> Number:
    if abs(digits) > MAX_DIGITS:
        raise ToolError(f"a number is rounded to at most {MAX_DIGITS} digits")
    return round(value, digits) if digits else round(value)


FUNCTIONS: dict[str, Callable[..., Number]] = {
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "max": max,
    "min": min,
    "round": _round,
    "sqrt": math.sqrt,
}


@tool
def calculator(expression: str) -> str:
    """Evaluates arithmetic such as "(3 + 4) * 2 ** 0.5"; knows abs, ceil, floor, max, min, round, sqrt."""
    if len(expression) > MAX_LENGTH:
        raise ToolError(f"the expression has {len(expression)} characters; write at most {MAX_LENGTH}")
    try:
        value = _evaluate(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError):
        raise ToolError(f"{expression!r} is not an arithmetic expression; write one such as 2 * (3 + 4)") from None
    except (ArithmeticError, ValueError, TypeError) as error:
        raise ToolError(f"{expression!r} has no value: {error}") from None
    return str(value) if isinstance(value, int) else f"{value:.12g}"


def _evaluate(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in UNARY:
            return UNARY[type(op)](_evaluate(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            return _binary(op, _evaluate(left), _evaluate(right))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return _bounded(FUNCTIONS[name](*(_evaluate(argument) for argument in arguments)))
    raise ToolError(
        f"{ast.unparse(node)!r} is not arithmetic; use numbers, + - * / // % **, and {', '.join(FUNCTIONS)}"
    )


def _binary(op: ast.operator, left: Number, right: Number) -> Number:
    if isinstance(op, ast.Pow) and isinstance(left, int) and abs(left) > 1:
        digits = abs(right) * math.log10(abs(left))
        if digits > MAX_DIGITS:
            raise ToolError(f"the result has more than {MAX_DIGITS} digits")
    return _bounded(BINARY[type(op)](left, right))


def _bounded(value: Number) -> Number:
    if isinstance(value, complex):
        raise ToolError("the result is not a real number")
    if isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
        raise ToolError(f"the result has more than {MAX_DIGITS} digits")
    if isinstance(value, float) and not math.isfinite(value):
        raise ToolError("the result is too large")
    return value
