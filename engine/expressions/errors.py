"""What goes wrong with an expression: when it is read, or while it is evaluated."""

from engine.errors import EngineError


class ExpressionError(EngineError):
    """Base of all. `data["position"]` counts characters from 1."""

    code = "EXPRESSION"

    def __init__(self, position: int, message: str) -> None:
        super().__init__(f"at character {position}: {message}", position=position)


class ExpressionSyntaxError(ExpressionError):
    """The text is not an expression, or too long or nested too deep to be one."""

    code = "EXPRESSION_SYNTAX"


class ExpressionTypeError(ExpressionError):
    """An operator or a function was given what it is not defined for."""

    code = "EXPRESSION_TYPE"


class UnknownNameError(ExpressionError):
    code = "EXPRESSION_UNKNOWN_NAME"


class TooManyStepsError(ExpressionError):
    code = "EXPRESSION_TOO_LONG"


class ValueTooLargeError(ExpressionError):
    code = "EXPRESSION_TOO_LARGE"


class DivisionByZeroError(ExpressionError):
    code = "EXPRESSION_DIVISION"
