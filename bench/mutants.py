"""Mutants of a text: one operator, constant, choice or statement changed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

__all__ = ["Mutant", "mutants"]

COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "+", ast.FloorDiv: "*", ast.Mod: "//", ast.LShift: ">>",
    ast.RShift: "<<", ast.BitAnd: "|", ast.BitOr: "&", ast.BitXor: "|"}
# Of C++ and Verilog: binary ones stand between spaces.
TOKENS = {"==": "!=", "!=": "==", "<=": "<", "<": "<=", ">=": ">", ">": ">=", "+": "-", "-": "+",
          "*": "+", "/": "*", "%": "/", "&&": "||", "||": "&&", "<<": ">>", ">>": "<<", "&": "|",
          "|": "&", "^": "|", "+=": "-=", "-=": "+=", "and": "or", "or": "and", "++": "--",
          "--": "++", "!": "", "true": "false", "false": "true", "1'b0": "1'b1", "1'b1": "1'b0"}
ELSEWHERE = {".cpp": (), ".j2": ("<=", "|")}  # which are no operators there: assignment, filter
WORDS = re.compile(r"""
    (?P<skip> //[^\n]* | /\*.*?\*/ | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\])' | ^[ ]*[#][^\n]*
            | {[#].*?[#]} | `\w+ )
  | (?P<call> (?<=[ ]{2})[a-z][\w.]*\([^;{}]*\);$ )
  | (?P<token> (?<=\s)(?: [=!<>]= | << | >> | && | [|]{2} | [-+]= | [-+*/%<>&|^] | and | or )(?=\s)
            | [+][+] | -- | !(?=[\w(]) | \b(?:true|false)\b | 1'b[01] )
  | (?P<number> (?<![\w.'])\d+(?![\w.']) )""", re.VERBOSE | re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Mutant:
    """`old`, which is at `start` of the text, becomes `new`."""

    line: int
    start: int
    old: str
    new: str

    def of(self, text: str) -> str:
        """The text with the change."""
        return text[:self.start] + self.new + text[self.start + len(self.old):]


def mutants(text: str, suffix: str = ".py") -> list[Mutant]:
    """All mutants of a Python file, of C++ (.cpp) or of a template of Verilog (.j2).

    None of annotations, messages of faults, and documentation.
    """
    return _python(text) if suffix == ".py" else _tokens(text, suffix)


def _python(text: str) -> list[Mutant]:
    lines = [0]
    for line in text.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def at(line: int, column: int) -> int:  # columns are of UTF-8 bytes
        begin = lines[line - 1]
        return begin + len(text[begin:lines[line]].encode()[:column].decode())

    def span(node: Any) -> tuple[int, int]:
        return at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)

    def outer(node: Any) -> tuple[int, int]:
        """With the parentheses around it."""
        first, end = span(node)
        while text[:first].rstrip().endswith("(") and text[end:].lstrip().startswith(")"):
            first, end = text.rindex("(", 0, first), text.index(")", end) + 1
        return first, end

    def swap(node: Any, first: int, end: int, new: str) -> Mutant:
        return Mutant(node.lineno, first, text[first:end], new)

    def between(node: Any, left: Any, right: Any, new: str) -> Mutant:
        """The operator between two operands."""
        first, end = span(left)[1], span(right)[0]
        part = text[first:end]
        core = part.strip(" ()\n\\")
        begin = first + part.index(core)
        return swap(node, begin, begin + len(core), new)

    def changes(node: ast.AST) -> Iterator[Mutant]:
        match node:
            case ast.Compare(left=left, ops=ops, comparators=others):
                for a, op, b in zip([left, *others], ops, others, strict=False):
                    if type(op) in COMPARISONS:
                        yield between(node, a, b, COMPARISONS[type(op)])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                yield between(node, left, right, OPERATORS[type(op)])
            case ast.BoolOp(op=op, values=values):
                for a, b in pairwise(values):
                    yield between(node, a, b, "or" if isinstance(op, ast.And) else "and")
            case ast.UnaryOp(op=ast.Invert() | ast.Not() | ast.USub(), operand=operand):
                yield swap(node, span(node)[0], outer(operand)[0], "")
            case ast.Constant(value=bool(value)):
                yield swap(node, *span(node), str(not value))
            case ast.Constant(value=int(value)):
                yield swap(node, *span(node), str(value + 1))
            case ast.Call(func=ast.Name(id="Mux"), args=[_, a, b]):
                yield swap(node, outer(a)[0], outer(b)[1],
                           f"{text[slice(*outer(b))]}, {text[slice(*outer(a))]}")
            case ast.Expr(value=ast.Call()) | ast.AugAssign():
                yield swap(node, *span(node), "pass")

    def walk(node: ast.AST) -> Iterator[Mutant]:
        yield from changes(node)
        for key, value in ast.iter_fields(node):
            if key in ("annotation", "returns") or isinstance(node, ast.Raise | ast.JoinedStr):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child)

    tree = ast.parse(text)
    found = [mutant for statement in tree.body for mutant in walk(statement)]
    return sorted({mutant for mutant in found if mutant.new != mutant.old},
                  key=lambda mutant: (mutant.start, mutant.new))


def _tokens(text: str, suffix: str) -> list[Mutant]:
    def changes(start: int, end: int) -> Iterator[Mutant]:
        for match in WORDS.finditer(text, start, end):
            word, kind, at = match[0], match.lastgroup, match.start()
            new = {"call": ";", "number": word.isdigit() and str(int(word) + 1),
                   "token": TOKENS.get(word)}.get(str(kind))
            if new is not None and word not in ELSEWHERE[suffix]:
                yield Mutant(text.count("\n", 0, at) + 1, at, word, str(new))
            if kind == "call":  # what is in it
                yield from changes(at + word.index("("), match.end() - 1)

    return list(changes(0, len(text)))
