"""Constrained output: answers that are JSON for a schema, and calls of the tools that are offered.

`answer_schema.py` reads the caller's schema, `closed_schema.py` closes its objects, `rules.py` writes it as a
grammar, and `matcher.py` follows a grammar token by token with llguidance (extra `grammar`).
`json_completion.py` finds the tokens that complete JSON soonest. `turn_grammar.py` applies the grammar to a
turn: thinking stays free, and so does an answer without a schema. `build.py` makes the grammar of a turn.
"""

from mlx_qwen3.grammar.answer_schema import AnswerSchema
from mlx_qwen3.grammar.build import begun_answer, constrain
from mlx_qwen3.grammar.matcher import is_installed
from mlx_qwen3.grammar.turn_grammar import TurnGrammar

__all__ = ["AnswerSchema", "TurnGrammar", "begun_answer", "constrain", "is_installed"]
