"""Output that must have a form: an answer that is JSON for a schema, calls of the tools that are there.

`schema.py` reads what the caller wants, `rules.py` writes it down as a grammar, `matcher.py` follows a
grammar token by token through llguidance (extra `grammar`), `endings.py` leads it to its end, and
`turn_grammar.py` knows where in a turn the grammar holds: thinking stays free, and so does an answer that no
schema was given for. `binding.py` puts them together for a turn.
"""

from mlx_qwen3.grammar.answer_schema import AnswerSchema
from mlx_qwen3.grammar.build import constrain
from mlx_qwen3.grammar.matcher import is_installed
from mlx_qwen3.grammar.turn_grammar import TurnGrammar

__all__ = ["AnswerSchema", "TurnGrammar", "constrain", "is_installed"]
