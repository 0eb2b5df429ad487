"""Arithmetic questions in many phrasings, each with worked thinking and an answer.

The thinking is the school method. It copies the question, then pads the operands to equal width, so that
every later step finds its digits at a known distance. Carries and borrows are written out.
"""

import random
import zlib
from dataclasses import dataclass

COLUMNS = ("ones", "tens", "hundreds", "thousands")
SIGN = {"add": "+", "subtract": "-", "multiply": "×"}


@dataclass(frozen=True)
class Problem:
    """One question: `kind` is add, subtract or multiply."""

    kind: str
    a: int
    b: int

    @property
    def result(self) -> int:
        return {"add": self.a + self.b, "subtract": self.a - self.b, "multiply": self.a * self.b}[self.kind]

    @property
    def expression(self) -> str:
        return f"{self.a} {SIGN[self.kind]} {self.b}"

    @property
    def answer(self) -> str:
        return f"{self.expression} = {self.result}."

    @property
    def held_out(self) -> bool:
        """Whether the pair is never trained on: one in twenty, but not small pairs, which are facts."""
        if min(self.a, self.b) < (10 if self.kind == "multiply" else 100):
            return False
        return zlib.crc32(f"{self.a}{SIGN[self.kind]}{self.b}".encode()) % 20 == 0


def digits_from_ones(number: int, width: int) -> list[int]:
    return [number // 10**place % 10 for place in range(width)]


def add_columns(a: int, b: int) -> list[str]:
    """The carry chain of a + b, one line a column."""
    width = max(len(str(a)), len(str(b)), 2)
    lines = [f"Line up: {a:0{width}} + {b:0{width}}."]
    carry = 0
    pairs = zip(digits_from_ones(a, width), digits_from_ones(b, width), strict=True)
    for place, (x, y) in enumerate(pairs):
        total = x + y + carry
        step = f"{COLUMNS[place]}: {x}+{y}" + ("+1" if carry else "") + f"={total}, write "
        last = place == width - 1
        lines.append(step + (f"{total}" if last else f"{total % 10}, carry {total // 10}"))
        carry = total // 10
    return lines


def subtract_columns(a: int, b: int) -> list[str]:
    """The borrow chain of a - b for a >= b, one line a column."""
    width = max(len(str(a)), 2)
    lines = [f"Line up: {a:0{width}} - {b:0{width}}."]
    borrow = 0
    pairs = zip(digits_from_ones(a, width), digits_from_ones(b, width), strict=True)
    for place, (x, y) in enumerate(pairs):
        borrows = x - y - borrow < 0
        upper = x + 10 * borrows
        step = f"{COLUMNS[place]}: {upper}-{y}" + ("-1" if borrow else "") + f"={upper - y - borrow}"
        borrow = int(borrows)
        lines.append(step + ("" if place == width - 1 else f", borrow {borrow}"))
    return lines


def multiply_by_digit(a: int, digit: int) -> list[str]:
    """a times one digit, column by column."""
    lines, carry = [], 0
    figures = digits_from_ones(a, len(str(a)))
    for place, x in enumerate(figures):
        step = f"{COLUMNS[place]}: {x}×{digit}={x * digit}"
        total = x * digit + carry
        if carry:
            step += f", {x * digit}+{carry}={total}"
        last = place == len(figures) - 1
        lines.append(step + (f", write {total}" if last else f", write {total % 10}, carry {total // 10}"))
        carry = total // 10
    return lines


def think_add(a: int, b: int) -> list[str]:
    if max(a, b) < 10:
        return [f"I add {a} + {b}."]
    return [f"I add {a} + {b}.", *add_columns(a, b)]


def think_subtract(a: int, b: int) -> list[str]:
    opening = f"I subtract {a} - {b}."
    if max(a, b) < 10:
        return [opening]
    if a < b:
        return [f"{opening} {b} is larger, so the result is negative.", *subtract_columns(b, a)]
    return [opening, *subtract_columns(a, b)]


def think_multiply(a: int, b: int) -> list[str]:
    opening = f"I multiply {a} × {b}."
    if max(a, b) < 10:
        return [opening]
    if b > 9 and a < 10:
        a, b = b, a
        opening += f" That is {a} × {b}."
    if b < 10:
        return [opening, *multiply_by_digit(a, b)]
    low, high = b % 10, b // 10
    return [
        opening,
        f"First {a} × {low}.",
        *multiply_by_digit(a, low),
        f"That makes {a * low}.",
        f"Then {a} × {high}.",
        *multiply_by_digit(a, high),
        f"That makes {a * high}, with a zero {a * high * 10}.",
        *add_columns(a * low, a * high * 10),
    ]


def thinking(problem: Problem) -> str:
    """The worked solution, ending in the result."""
    work = {"add": think_add, "subtract": think_subtract, "multiply": think_multiply}[problem.kind]
    return "\n".join([*work(problem.a, problem.b), f"Result: {problem.result}"])


def drill_line(rng: random.Random) -> tuple[str, str]:
    """One step of the school method as a question and its result, such as `8+5+1=` and `14`."""
    x, y, carry = rng.randint(0, 9), rng.randint(0, 9), rng.randint(0, 1)
    kind = rng.choices(["add", "subtract", "multiply", "add carry"], [0.5, 0.2, 0.15, 0.15])[0]
    label = f"{rng.choice(COLUMNS[:3])}: " if rng.random() < 0.4 else ""
    if kind == "add":
        total = x + y + carry
        step = f"{label}{x}+{y}" + ("+1=" if carry else "=")
        return step, f"{total}" + (f", write {total % 10}, carry {total // 10}" if rng.random() < 0.3 else "")
    if kind == "subtract":
        upper = x + 10 * (x - y - carry < 0)
        return f"{label}{upper}-{y}" + ("-1=" if carry else "="), f"{upper - y - carry}"
    if kind == "multiply":
        return f"{label}{x}×{y}=", f"{x * y}"
    carried = rng.randint(1, 8)
    return f"{x * y}+{carried}=", f"{x * y + carried}"


def number_of_digits(rng: random.Random, count: int) -> int:
    return rng.randint(10 ** (count - 1) if count > 1 else 0, 10**count - 1)


def digit_counts(rng: random.Random, three_digit_share: float) -> tuple[int, int]:
    if rng.random() < three_digit_share:
        return 3, 3
    return rng.choice([(1, 1), (1, 2), (2, 1), (2, 2), (2, 2), (2, 2), (3, 2), (2, 3), (3, 1), (1, 3)])


def sample_easy_problem(rng: random.Random) -> Problem:
    """A problem that needs no thinking: mostly of one digit, otherwise of two, rarely more."""
    if rng.random() < 0.15:
        return sample_problem(rng)
    kind = rng.choices(["add", "subtract", "multiply"], [0.5, 0.25, 0.25])[0]
    most = 9 if kind == "multiply" or rng.random() < 0.55 else 99
    a, b = rng.randint(0, most), rng.randint(0, most)
    if kind == "subtract" and a < b and rng.random() < 0.7:
        a, b = b, a
    return Problem(kind, a, b)


def sample_problem(rng: random.Random, three_digit_share: float = 0.55) -> Problem:
    """A problem that is not held out: mostly additions."""
    while True:
        kind = rng.choices(["add", "subtract", "multiply"], [0.46, 0.34, 0.20])[0]
        if kind == "multiply":
            first, second = rng.choice([(1, 1), (2, 1), (2, 1), (1, 2), (3, 1), (2, 2), (2, 2)])
        else:
            first, second = digit_counts(rng, three_digit_share)
        a, b = number_of_digits(rng, first), number_of_digits(rng, second)
        if kind == "subtract" and a < b and rng.random() < 0.4:
            a, b = b, a
        problem = Problem(kind, a, b)
        if not problem.held_out:
            return problem


# {e} is replaced by the expression, {a} and {b} by the operands.
EXPRESSION_FRAMES = (
    ["{e}"] * 8
    + ["{e}?", "{e} =", "{e} = ?", "{e}=", "{e}=?", "= {e}?", "{e} ?", "{e}."]
    + [
        "what is {e}?",
        "What is {e}?",
        "what is {e}",
        "What is {e}",
        "what's {e}?",
        "What's {e}?",
        "whats {e}",
    ]
    + ["what is the result of {e}?", "What does {e} equal?", "what does {e} make?", "what is {e} equal to?"]
    + ["how much is {e}?", "How much is {e}?", "how much is {e}", "how much does {e} make?", "How much {e}?"]
    + ["compute {e}", "Compute {e}.", "calculate {e}", "Calculate {e}.", "please calculate {e}", "Calc {e}"]
    + [
        "solve {e}",
        "Solve {e}",
        "Solve: {e}",
        "evaluate {e}",
        "Work out {e}",
        "work out {e} please",
        "do {e}",
    ]
    + ["can you compute {e}?", "Can you work out {e} for me?", "Could you tell me what {e} is?"]
    + ["tell me {e}", "Tell me what {e} is.", "I need {e}", "give me {e}", "Give me the result of {e}."]
    + ["and {e}?", "And {e}?", "now {e}", "Now {e}", "and what is {e}?", "Now what is {e}?", "ok, {e}?"]
    + ["what about {e}?", "How about {e}?", "next: {e}", "try {e}", "Try {e}.", "quick: {e}", "math: {e}"]
    + ["Hi, what is {e}?", "hello, what is {e}?", "Hey! {e}?", "please: {e}", "{e} please", "{e}, please"]
    + ["Do you know {e}?", "do you know what {e} is?", "Is it true that you know {e}?", "my homework: {e}"]
    + ["cuánto es {e}?", "¿Cuánto es {e}?", "¿Cuánto son {e}?", "calcula {e}", "combien font {e} ?"]
    + [
        "Combien font {e} ?",
        "combien fait {e}?",
        "calcule {e}",
        "was ist {e}?",
        "Was ist {e}?",
        "Wieviel ist {e}?",
    ]
    + [
        "wie viel ist {e}?",
        "Berechne {e}",
        "quanto fa {e}?",
        "Quanto fa {e}?",
        "quanto é {e}?",
        "Quanto é {e}?",
    ]
    + [
        "hoeveel is {e}?",
        "vad är {e}?",
        "ile to {e}?",
        "сколько будет {e}?",
        "Сколько будет {e}?",
        "{e} kaç eder?",
    ]
    + [
        "{e}等于多少?",
        "{e}等于多少？",
        "{e} 是多少？",
        "计算 {e}",
        "{e}は?",
        "{e}はいくつですか?",
        "{e}은 얼마예요?",
    ]
    + ["كم يساوي {e}؟", "{e} कितना होता है?", "paljonko on {e}?", "πόσο κάνει {e};"]
)
WORDED_FRAMES = {
    "add": [
        "add {a} and {b}",
        "Add {a} and {b}.",
        "add {a} to {b}",
        "Add {a} to {b}",
        "sum of {a} and {b}",
        "what is the sum of {a} and {b}?",
        "What is the sum of {a} and {b}?",
        "sum {a} and {b}",
        "please add {a} and {b}",
        "can you add {a} and {b}?",
        "Can you add {a} and {b} for me?",
        "{a} and {b} together?",
        "add up {a} and {b}",
        "What do you get if you add {a} and {b}?",
        "What do {a} and {b} make?",
        "total of {a} and {b}",
        "Sum: {a}, {b}",
        "I have {a} apples and get {b} more. How many do I have?",
        "{a} plus {b}",
        "{a} plus {b}?",
        "add {a}, {b}",
    ],
    "subtract": [
        "subtract {b} from {a}",
        "Subtract {b} from {a}.",
        "take {b} from {a}",
        "take {b} away from {a}",
        "what is the difference between {a} and {b}?",
        "difference of {a} and {b}",
        "What is {a} take away {b}?",
        "can you subtract {b} from {a}?",
        "I have {a} apples and eat {b}. How many are left?",
        "{a} less {b}",
    ],
    "multiply": [
        "multiply {a} by {b}",
        "Multiply {a} by {b}.",
        "multiply {a} and {b}",
        "product of {a} and {b}",
        "what is the product of {a} and {b}?",
        "What is {a} multiplied by {b}?",
        "can you multiply {a} by {b}?",
        "I have {a} boxes with {b} apples each. How many apples?",
        "Multiply {a} with {b}",
        "{a} by {b}?",
    ],
}
OPERATORS = {
    "add": ["+"] * 12 + ["plus"] * 6 + ["más", "et", "und", "più", "mais", "плюс", "加", "と", "and"],
    "subtract": ["-"] * 10 + ["minus"] * 6 + ["−", "–", "menos", "moins", "meno", "минус", "减"],
    "multiply": ["*"] * 6
    + ["x", "x", "×", "×", "×", "X", "times", "times", "times", "por", "fois", "mal", "per", "乘", "·"],
}


def ask(rng: random.Random, problem: Problem) -> str:
    """The problem as a person would type it."""
    if rng.random() < 0.22:
        return rng.choice(WORDED_FRAMES[problem.kind]).format(a=problem.a, b=problem.b)
    operator = rng.choice(OPERATORS[problem.kind])
    is_word = len(operator) > 1
    gap = " " if is_word or rng.random() < 0.5 else ""
    expression = f"{problem.a}{gap}{operator}{gap}{problem.b}"
    if not is_word and rng.random() < 0.04:
        expression = rng.choice([f"{problem.a} {operator}{problem.b}", f"{problem.a}{operator} {problem.b}"])
    return rng.choice(EXPRESSION_FRAMES).format(e=expression)
