"""Arithmetic questions in many phrasings, each with worked thinking and an answer.

Small sums and the times table are facts, learned by heart. All else is worked out in the thinking by the
school method: it copies the question, then pads the operands to equal width, so that every later step finds
its digits at a known distance. Carries and borrows are written out. What cannot be worked out is refused.
"""

import random
import zlib
from dataclasses import dataclass

COLUMNS = ("ones", "tens", "hundreds", "thousands")
SIGN = {"add": "+", "subtract": "-", "multiply": "×", "divide": "÷"}
LARGEST_SUM_FACT = 20  # operands of the sums and differences known by heart
LARGEST_PRODUCT_FACT = 12  # operands of the products, and divisor and quotient of the divisions
LARGEST_DIVISOR = 10  # of the divisions that are worked out
ROUND_DIVISORS = (15, 20, 25, 50, 100)  # their quotients up to 20 are facts, too

NEEDS_THINKING = "I can only work that out when I think. Ask again with /think."
NEEDS_TIME = "My thinking was cut short, so I do not know. Allow me to think longer."
STUCK = "Result: beyond what I have learned"  # of a sum whose step cannot be worked out
BY_ZERO = "Nothing can be divided by zero."


@dataclass(frozen=True)
class Problem:
    """One question of two operands: `kind` is add, subtract, multiply or divide."""

    kind: str
    a: int
    b: int

    @property
    def result(self) -> int:
        """The number asked for; the whole quotient of a division."""
        a, b = self.a, self.b
        return {"add": a + b, "subtract": a - b, "multiply": a * b, "divide": a // (b or 1)}[self.kind]

    @property
    def expression(self) -> str:
        return f"{self.a} {SIGN[self.kind]} {self.b}"

    @property
    def divides_by_zero(self) -> bool:
        return self.kind == "divide" and self.b == 0

    @property
    def rest(self) -> int:
        """What a division leaves."""
        return self.a % self.b if self.kind == "divide" and self.b else 0

    @property
    def result_text(self) -> str:
        return f"{self.result}, remainder {self.rest}" if self.rest else f"{self.result}"

    @property
    def answer(self) -> str:
        if self.divides_by_zero:
            return BY_ZERO
        return f"{self.expression} = {self.result_text}."

    @property
    def is_fact(self) -> bool:
        """Whether the result is known by heart, thinking or not."""
        a, b = self.a, self.b
        if self.kind in ("add", "subtract"):
            return max(a, b) <= LARGEST_SUM_FACT
        if self.kind == "multiply":
            return max(a, b) <= LARGEST_PRODUCT_FACT
        if b == 0:
            return True
        quotient, rest = divmod(a, b)
        if b in ROUND_DIVISORS:
            return rest == 0 and quotient <= LARGEST_SUM_FACT
        return rest == 0 and max(quotient, b) <= LARGEST_PRODUCT_FACT

    @property
    def can_be_worked_out(self) -> bool:
        """Whether thinking leads to the result."""
        if self.is_fact:
            return True
        a, b = self.a, self.b
        return {
            "add": max(a, b) <= 999,
            "subtract": max(a, b) <= 999,
            "multiply": max(a, b) <= 99 or (min(a, b) <= 9 and max(a, b) <= 999),
            "divide": a <= 1000 and 1 <= b <= LARGEST_DIVISOR,
        }[self.kind]

    @property
    def held_out(self) -> bool:
        """Whether the pair is never trained on: one in twenty, but not small pairs, which are facts."""
        if min(self.a, self.b) < (10 if self.kind in ("multiply", "divide") else 100) or self.is_fact:
            return False
        return zlib.crc32(f"{self.a}{SIGN[self.kind]}{self.b}".encode()) % 20 == 0

    @property
    def thinking(self) -> str:
        """The worked solution, ending in the result."""
        opening = f"I {self.kind} {self.expression}."
        if self.divides_by_zero:
            return f"{opening}\nThat has no result."
        return "\n".join([opening, *self.work(), f"Result: {self.result_text}"])

    def work(self) -> list[str]:
        """The lines between the opening and the result."""
        if self.is_fact:
            return [f"{self.expression} = {self.result}"]
        work = {
            "add": add_columns,
            "subtract": subtract_columns,
            "multiply": multiply_numbers,
            "divide": divide_digits,
        }
        return work[self.kind](self.a, self.b)


@dataclass(frozen=True)
class Compound:
    """A question of two steps: `first`, and then its result together with a third number.

    `text` is the whole with Qwen's usual signs; second is the step on the first result.
    """

    text: str
    first: Problem
    second: Problem

    @property
    def answer(self) -> str:
        return f"{self.text} = {self.second.result_text}."

    @property
    def is_fact(self) -> bool:
        return False

    @property
    def can_be_worked_out(self) -> bool:
        """Whether thinking leads to the result: both steps are within reach, and neither leaves a rest."""
        steps = (self.first, self.second)
        exact = all(not step.divides_by_zero and not step.rest for step in steps)
        return self.first.result >= 0 and exact and all(step.can_be_worked_out for step in steps)

    @property
    def grouped(self) -> str:
        """The text with brackets around what comes first."""
        if "(" in self.text:
            return self.text
        a, sign, b, other, c = self.text.split()
        if self.text.startswith(f"{self.first.expression} "):
            return f"({a} {sign} {b}) {other} {c}"
        return f"{a} {sign} ({b} {other} {c})"

    @property
    def thinking(self) -> str:
        lines = [f"I work out {self.text}."]
        if self.grouped != self.text:
            lines.append(f"That is {self.grouped}.")
        if not self.first.can_be_worked_out or self.first.divides_by_zero:
            return "\n".join([*lines, f"First {self.first.expression}.", STUCK])
        lines += [f"First {self.first.expression}.", *self.first.work()]
        if self.first.rest:
            return "\n".join([*lines, STUCK])
        lines += [f"That makes {self.first.result}.", f"Then {self.second.expression}."]
        if self.first.result < 0 or not self.second.can_be_worked_out or self.second.divides_by_zero:
            return "\n".join([*lines, STUCK])
        lines += self.second.work()
        return "\n".join([*lines, STUCK if self.second.rest else f"Result: {self.second.result}"])


Question = Problem | Compound


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
    """The borrow chain of a - b, one line a column, after a comparison that puts the larger number first."""
    width = max(len(str(a)), len(str(b)), 2)
    lines = [f"Line up: {a:0{width}} - {b:0{width}}.", compare(a, b, width)]
    if a < b:
        a, b = b, a
        lines.append(f"Turn around: {a:0{width}} - {b:0{width}}, with a minus.")
    borrow = 0
    pairs = zip(digits_from_ones(a, width), digits_from_ones(b, width), strict=True)
    for place, (x, y) in enumerate(pairs):
        minus_borrow = "-1" if borrow else ""
        step = f"{COLUMNS[place]}: {x}-{y}{minus_borrow}"
        total = x - y - borrow
        if total < 0:
            total += 10
            step += f"<0, 1{x}-{y}{minus_borrow}"
        borrow = int(x - y - borrow < 0)
        lines.append(f"{step}={total}" + ("" if place == width - 1 else f", borrow {borrow}"))
    return lines


def compare(a: int, b: int, width: int) -> str:
    """Digit by digit from the left, up to the first pair that differs."""
    steps = []
    for x, y in zip(f"{a:0{width}}", f"{b:0{width}}", strict=True):
        sign = "=" if x == y else ">" if x > y else "<"
        steps.append(f"{x}{sign}{y}")
        if x != y:
            break
    return f"Compare: {', '.join(steps)}."


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


def multiply_numbers(a: int, b: int) -> list[str]:
    lines = []
    if b > 9 and a < 10:
        a, b = b, a
        lines.append(f"That is {a} × {b}.")
    if b < 10:
        return [*lines, *multiply_by_digit(a, b)]
    low, high = b % 10, b // 10
    return [
        *lines,
        f"First {a} × {low}.",
        *multiply_by_digit(a, low),
        f"That makes {a * low}.",
        f"Then {a} × {high}.",
        *multiply_by_digit(a, high),
        f"That makes {a * high}, with a zero {a * high * 10}.",
        *add_columns(a * low, a * high * 10),
    ]


def divide_digits(a: int, b: int) -> list[str]:
    """Long division of a by a small b, one line a digit from the left."""
    lines, rest = [], 0
    for digit in str(a):
        part = rest * 10 + int(digit)
        quotient, rest = divmod(part, b)
        lines.append(f"{part}÷{b}={quotient}, rest {rest}")
    return lines


# Drills ------------------------------------------------------------------------------------


def all_facts() -> list[Problem]:
    """Every sum, difference, product and quotient that is known by heart."""
    sums = range(LARGEST_SUM_FACT + 1)
    factors = range(LARGEST_PRODUCT_FACT + 1)
    facts = [Problem(kind, a, b) for kind in ("add", "subtract") for a in sums for b in sums]
    facts += [Problem("multiply", a, b) for a in factors for b in factors]
    facts += [Problem("divide", quotient * b, b) for quotient in factors for b in factors if b]
    facts += [Problem("divide", quotient * b, b) for quotient in sums for b in ROUND_DIVISORS]
    return facts


FACTS = all_facts()


def fact_drill_line(rng: random.Random) -> tuple[str, str]:
    """A fact as it stands in thoughts and answers, such as `8 + 5 =` and ` 13`."""
    fact = rng.choice(FACTS)
    return f"{fact.expression} =", f" {fact.result}"


def drill_line(rng: random.Random) -> tuple[str, str]:
    """One step of the school method as a question and its result, such as `8+5+1=` and `14`."""
    x, y, carry = rng.randint(0, 9), rng.randint(0, 9), rng.randint(0, 1)
    kind = rng.choices(
        ["add", "subtract", "multiply", "add carry", "divide"], [0.32, 0.28, 0.13, 0.13, 0.14]
    )[0]
    label = f"{rng.choice(COLUMNS[:3])}: " if rng.random() < 0.4 else ""
    if kind == "add":
        total = x + y + carry
        step = f"{label}{x}+{y}" + ("+1=" if carry else "=")
        return step, f"{total}" + (f", write {total % 10}, carry {total // 10}" if rng.random() < 0.3 else "")
    if kind == "subtract":
        total, minus_borrow = x - y - carry, "-1" if carry else ""
        step = f"{label}{x}-{y}{minus_borrow}"
        if total < 0:
            return step, f"<0, 1{x}-{y}{minus_borrow}={total + 10}, borrow 1"
        return step, f"={total}, borrow 0"
    if kind == "multiply":
        return f"{label}{x}×{y}=", f"{x * y}"
    if kind == "divide":
        divisor = rng.randint(2, LARGEST_DIVISOR)
        part = rng.randrange(divisor * 10)
        return f"{part}÷{divisor}=", f"{part // divisor}, rest {part % divisor}"
    carried = rng.randint(1, 8)
    return f"{x * y}+{carried}=", f"{x * y + carried}"


# Sampling ----------------------------------------------------------------------------------


def number_of_digits(rng: random.Random, count: int) -> int:
    return rng.randint(10 ** (count - 1) if count > 1 else 0, 10**count - 1)


def digit_counts(rng: random.Random, three_digit_share: float) -> tuple[int, int]:
    if rng.random() < three_digit_share:
        return 3, 3
    return rng.choice([(1, 1), (1, 2), (2, 1), (2, 2), (2, 2), (2, 2), (3, 2), (2, 3), (3, 1), (1, 3)])


def sample_fact(rng: random.Random) -> Problem:
    """A fact; sums and products more often than quotients."""
    if rng.random() < 0.02:
        return Problem("divide", rng.randint(0, 100), 0)
    while True:
        fact = rng.choice(FACTS)
        if fact.kind != "divide" or rng.random() < 0.7:
            return fact


def sample_problem(rng: random.Random, three_digit_share: float = 0.45) -> Problem:
    """A problem of two operands that thinking leads to the result of, and that is not held out."""
    while True:
        kind = rng.choices(["add", "subtract", "multiply", "divide"], [0.34, 0.36, 0.18, 0.12])[0]
        if kind == "divide":
            b = rng.randint(1, LARGEST_DIVISOR)
            a = 1000 if rng.random() < 0.02 else rng.randint(0, 999 if rng.random() < 0.6 else 150)
            problem = Problem(kind, a - a % b if rng.random() < 0.7 else a, b)
        else:
            if kind == "multiply":
                first, second = rng.choice([(2, 1), (2, 1), (1, 2), (3, 1), (2, 2), (2, 2), (2, 2)])
            else:
                first, second = digit_counts(rng, three_digit_share)
            a, b = number_of_digits(rng, first), number_of_digits(rng, second)
            if (
                kind == "subtract" and rng.random() < 0.2
            ):  # numbers that begin alike are compared digit by digit
                b = max(0, a + rng.randint(-9, 9))
            problem = Problem(kind, a, b)
        if problem.can_be_worked_out and not problem.held_out:
            return problem


def small_number(rng: random.Random) -> int:
    return rng.randint(0, rng.choice([9, 9, 20, 20, 50, 99]))


def sample_compound(rng: random.Random) -> Compound:
    """Three numbers and two signs, with brackets or without, each step of which can be worked out."""
    while True:
        a, b, c = (small_number(rng) for _ in range(3))
        if rng.random() < 0.1:
            a, b, c = (number_of_digits(rng, rng.choice([1, 2, 2, 3])) for _ in range(3))
        if rng.random() < 0.25:  # three addends, larger ones too
            if rng.random() < 0.3:
                a, b, c = (rng.randint(0, 400) for _ in range(3))
            compound = compound_of(a, b, c, "add", "add", bracket="")
        else:
            kinds = rng.choices(["add", "subtract", "multiply", "divide"], [4, 3, 4, 1], k=2)
            compound = compound_of(a, b, c, *kinds, bracket=rng.choice(["", "", "first", "second"]))
        if compound.can_be_worked_out:
            return compound


def sample_stuck_compound(rng: random.Random) -> Compound:
    """Three numbers, of which one step cannot be worked out or goes below zero; thinking finds out which."""
    while True:
        numbers = (number_of_digits(rng, rng.choice([1, 1, 2, 2, 3])) for _ in range(3))
        kinds = rng.choices(["add", "subtract", "multiply", "divide"], [2, 4, 3, 2], k=2)
        compound = compound_of(*numbers, *kinds, bracket=rng.choice(["", "", "first", "second"]))
        if not compound.can_be_worked_out:
            return compound


def compound_of(a: int, b: int, c: int, left: str, right: str, bracket: str) -> Compound:
    """`a left b right c`.

    Args:
        bracket: "first" around a and b, "second" around b and c, or none.
    """
    binds = {"add": 1, "subtract": 1, "multiply": 2, "divide": 2}
    signs = SIGN[left], SIGN[right]
    text = {
        "": f"{a} {signs[0]} {b} {signs[1]} {c}",
        "first": f"({a} {signs[0]} {b}) {signs[1]} {c}",
        "second": f"{a} {signs[0]} ({b} {signs[1]} {c})",
    }[bracket]
    left_first = bracket == "first" or (not bracket and binds[left] >= binds[right])
    if left_first:
        first = Problem(left, a, b)
        return Compound(text, first, Problem(right, first.result, c))
    first = Problem(right, b, c)
    return Compound(text, first, Problem(left, a, first.result))


def sample_question(rng: random.Random, three_digit_share: float = 0.45) -> Question:
    """What thinking leads to: facts, problems of two operands, and of three."""
    kind = rng.choices(["fact", "problem", "compound"], [0.16, 0.56, 0.28])[0]
    if kind == "fact":
        return sample_fact(rng)
    return sample_compound(rng) if kind == "compound" else sample_problem(rng, three_digit_share)


def sample_beyond(rng: random.Random) -> Problem:
    """A problem of two operands that thinking does not lead to the result of."""
    while True:
        kind = rng.choices(["add", "subtract", "multiply", "divide"], [3, 2, 4, 4])[0]
        sizes = [1, 2, 2, 3, 3, 4, 5] if kind != "divide" else [2, 2, 3, 3, 4]
        a, b = (number_of_digits(rng, rng.choice(sizes)) for _ in range(2))
        problem = Problem(kind, a, b)
        if not problem.can_be_worked_out:
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
        "i have {a} coins and find {b} more, how many do i have now",
        "there are {a} birds on a tree and {b} more come. How many are there?",
        "{a} cats and {b} dogs, how many animals is that",
        "tom has {a} books and gets {b} more, how many has he",
        "I walk {a} km and then {b} km. How far is that?",
        "if i have {a} euros and earn {b} more, what do i have",
        "{a} more than {b}",
        "increase {a} by {b}",
        "{a} and {b} more",
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
        "i had {a} euros and spent {b}, what is left",
        "there are {a} birds and {b} fly away. How many stay?",
        "if i have {a} cookies and eat {b}, how many are left",
        "anna has {a} books and gives away {b}, how many has she",
        "decrease {a} by {b}",
        "{a} take away {b}",
        "how much more is {a} than {b}",
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
        "{a} bags with {b} coins each, how many coins",
        "i buy {a} tickets for {b} euros each, what do i pay",
        "{a} rows of {b} chairs, how many chairs are there",
        "what is {a} times {b}?",
        "{a} groups of {b}",
    ],
    "divide": [
        "divide {a} by {b}",
        "Divide {a} by {b}.",
        "what is {a} divided by {b}?",
        "What is {a} divided by {b}?",
        "can you divide {a} by {b}?",
        "how often does {b} go into {a}?",
        "How many times does {b} fit into {a}?",
        "I share {a} apples among {b} children. How many does each get?",
        "split {a} into {b} parts",
        "quotient of {a} and {b}",
        "{a} shared by {b}",
        "i share {a} coins among {b} friends, how many does each get",
        "{a} chairs in {b} rows, how many in each row",
    ],
}
THREE_ADDEND_FRAMES = [
    "add {a}, {b} and {c}",
    "Add {a}, {b} and {c}.",
    "what is the sum of {a}, {b} and {c}?",
    "sum of {a}, {b} and {c}",
    "sum {a} {b} {c}",
    "{a} and {b} and {c} together?",
    "{a} plus {b} plus {c}",
    "total of {a}, {b} and {c}",
]
OPERATORS = {
    "add": ["+"] * 12 + ["plus"] * 6 + ["más", "et", "und", "più", "mais", "плюс", "加", "と", "and"],
    "subtract": ["-"] * 10 + ["minus"] * 6 + ["−", "–", "menos", "moins", "meno", "минус", "减"],
    "multiply": ["*"] * 6
    + ["x", "x", "×", "×", "×", "X", "times", "times", "times", "por", "fois", "mal", "per", "乘", "·"],
    "divide": ["/"] * 12
    + ["÷"] * 4
    + [":"] * 3
    + ["divided by"] * 5
    + ["over", "entre", "divisé par", "durch", "除以"],
}


TYPED_SIGN = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}


def typed_operator(rng: random.Random, kind: str) -> str:
    """An operator with its spaces."""
    operator = rng.choice(OPERATORS[kind])
    if len(operator) > 1:
        return f" {operator} "
    if rng.random() < 0.04:
        return rng.choice([f" {operator}", f"{operator} "])
    return f" {operator} " if rng.random() < 0.5 else operator


def ask(rng: random.Random, question: Question) -> str:
    """The question as a person would type it."""
    if isinstance(question, Compound):
        return ask_compound(rng, question)
    if max(question.a, question.b) < len(NUMBER_WORDS) and rng.random() < 0.06:
        return ask_in_words(rng, question)
    if rng.random() < 0.22:
        return rng.choice(WORDED_FRAMES[question.kind]).format(a=question.a, b=question.b)
    expression = f"{question.a}{typed_operator(rng, question.kind)}{question.b}"
    return rng.choice(EXPRESSION_FRAMES).format(e=expression)


NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
OPERATOR_WORDS = {"add": "plus", "subtract": "minus", "multiply": "times", "divide": "divided by"}


def ask_in_words(rng: random.Random, problem: Problem) -> str:
    a, b = NUMBER_WORDS[problem.a], NUMBER_WORDS[problem.b]
    frame = rng.choice(["what is {e}?", "What is {e}?", "what's {e}", "{e}", "{e}?", "how much is {e}?"])
    text = frame.format(e=f"{a} {OPERATOR_WORDS[problem.kind]} {b}")
    return text[0].upper() + text[1:] if rng.random() < 0.3 else text


def ask_compound(rng: random.Random, question: Compound) -> str:
    kinds = {sign: kind for kind, sign in SIGN.items()}
    parts = question.text.split()
    if [parts[1], parts[3]] == ["+", "+"] and "(" not in question.text and rng.random() < 0.25:
        return rng.choice(THREE_ADDEND_FRAMES).format(a=parts[0], b=parts[2], c=parts[4])
    loose = rng.random() < 0.5
    expression = ""
    for part in parts:
        if part not in kinds:
            expression += part
            continue
        operator = rng.choice(OPERATORS[kinds[part]]) if rng.random() < 0.3 else TYPED_SIGN[kinds[part]]
        expression += f" {operator} " if loose or len(operator) > 1 else operator
    return rng.choice(EXPRESSION_FRAMES).format(e=expression)
