"""Which names an expression uses, for checks before anything runs."""

from engine.expressions import nodes
from engine.expressions.nodes import Expression, Node


def names_of(expression: Expression) -> frozenset[tuple[str, str | None]]:
    """Each name that is not a function's own parameter, with the first field taken of it.

    The field is None where the name is used as a whole or its field is computed: it may be any then.
    """
    found: set[tuple[str, str | None]] = set()
    pending: list[tuple[Node, frozenset[str]]] = [(expression.root, frozenset())]
    while pending:
        node, bound = pending.pop()
        match node:
            case nodes.Name(name=name) if name not in bound:
                found.add((name, None))
                continue
            case nodes.Path(base=nodes.Name(name=name), steps=steps) if name not in bound:
                found.add((name, _field(steps[0])))
                pending.extend((step, bound) for step in steps)
                continue
            case nodes.Lambda(parameter=parameter):
                bound |= {parameter}
        pending.extend((child, bound) for child in nodes.children(node))
    return frozenset(found)


def _field(step: Node) -> str | None:
    return step.value if isinstance(step, nodes.Literal) and isinstance(step.value, str) else None
