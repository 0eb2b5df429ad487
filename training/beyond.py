"""Sums of forms that the demo has not learned, and so refuses.

Decimals, powers, roots, percentages, fractions, a minus before a number, four and more numbers, numbers that
are too large, divisions that cannot be worked out, functions.
"""

import random

from training.arithmetic import (
    EXPRESSION_FRAMES,
    OPERATORS,
    TYPED_SIGN,
    Problem,
    number_of_digits,
    typed_operator,
)

KINDS = ("add", "subtract", "multiply", "divide")


def number(rng: random.Random) -> int:
    """Small ones above all, as people type them."""
    return number_of_digits(rng, rng.choices([1, 2, 3], [5, 4, 1])[0])


def decimal(rng: random.Random) -> str:
    point = "," if rng.random() < 0.12 else "."
    whole = "0" if rng.random() < 0.2 else "" if rng.random() < 0.06 else f"{number(rng)}"
    digits = rng.choice(["5", "5", "25", "75", "50", "0", str(rng.randint(1, 9)), str(rng.randint(1, 99))])
    return f"{whole}{point}{digits}"


def some_operator(rng: random.Random, plain: float = 0.7) -> str:
    """An operator with its spaces, mostly as a sign."""
    kind = rng.choices(KINDS, [5, 3, 4, 2])[0]
    if rng.random() < plain:
        sign = TYPED_SIGN[kind]
        return f" {sign} " if rng.random() < 0.4 else sign
    return typed_operator(rng, kind)


def decimals(rng: random.Random) -> str:
    numbers = [decimal(rng), decimal(rng) if rng.random() < 0.5 else f"{number(rng)}"]
    rng.shuffle(numbers)
    text = some_operator(rng).join(numbers)
    return text + some_operator(rng) + decimal(rng) if rng.random() < 0.12 else text


def negative(rng: random.Random) -> str:
    """A minus before a number, and not between two."""
    minus = rng.choices(["-", "−", "minus ", "negative "], [12, 1, 3, 2])[0]
    first, second = f"{minus}{number(rng)}", f"{number(rng)}"
    roll = rng.random()
    if roll < 0.55:
        text = f"{first}{some_operator(rng)}{second}"
    elif roll < 0.7:
        text = f"({first}){some_operator(rng)}{second}"
    elif roll < 0.85:
        text = f"{second}{some_operator(rng)}({first})"
    else:
        text = f"{second} {rng.choice('+-*')} {first}"
    return text + some_operator(rng) + f"{number(rng)}" if rng.random() < 0.15 else text


def power(rng: random.Random) -> str:
    base = f"{number(rng)}"
    exponent = rng.choice([2, 2, 2, 3, 3, 4, 5, 6, 8, 10, 0, number(rng)])
    forms = [f"{base}^{exponent}"] * 4 + [f"{base}**{exponent}", f"{base} ^ {exponent}", f"{base}²"]
    forms += [f"{base} ** {exponent}", f"{base}³", f"{base} squared", f"{base} cubed", f"square {base}"]
    forms += [
        f"{base} to the power of {exponent}",
        f"{base} to the {exponent}th",
        f"{base} raised to {exponent}",
    ]
    return rng.choice(forms)


def root(rng: random.Random) -> str:
    inside = rng.choice([number(rng), rng.randint(1, 20) ** 2, 2, 16, 81, 144])
    forms = [f"sqrt({inside})", f"sqrt {inside}", f"sqrt{inside}", f"√{inside}", f"square root of {inside}"]
    forms += [f"the square root of {inside}", f"root of {inside}", f"cube root of {inside}"]
    return rng.choice(forms)


def percentage(rng: random.Random) -> str:
    share = rng.choice([5, 10, 15, 20, 25, 30, 40, 50, 75, 100, number(rng)])
    whole = rng.choice([10, 20, 40, 50, 60, 80, 100, 120, 200, 250, 500, 1000, number(rng)])
    forms = [f"{share}% of {whole}"] * 3 + [f"{share} % of {whole}", f"{share} percent of {whole}"]
    forms += [f"{whole} + {share}%", f"{whole} - {share}%", f"{whole} minus {share} percent"]
    forms += [f"{whole}*{share}%", f"{share}% off {whole}", f"{share}%"]
    return rng.choice(forms)


def fraction(rng: random.Random) -> str:
    def one() -> str:
        return f"{rng.randint(1, 9)}/{rng.randint(2, 12)}"

    space = rng.choice(["", " "])
    words = ["half of", "a half of", "a third of", "a quarter of", "two thirds of", "three quarters of"]
    if rng.random() < 0.3:
        return f"{rng.choice(words)} {number(rng)}"
    if rng.random() < 0.2:
        return f"{one()} of {number(rng)}"
    return f"{one()}{space}{rng.choice('++-*')}{space}{one()}"


def many_numbers(rng: random.Random) -> str:
    """Four to six numbers."""
    count = rng.choices([4, 5, 6], [6, 3, 1])[0]
    numbers = [f"{number(rng)}" for _ in range(count)]
    roll = rng.random()
    if roll < 0.12:
        joined = rng.choice([", ", " "]).join(numbers[:-1]) + f" and {numbers[-1]}"
        return rng.choice(["add ", "the sum of ", "sum of ", "total of ", ""]) + joined
    if roll < 0.6:
        kind = rng.choices(["add", "subtract", "multiply"], [5, 1, 2])[0]
        sign = TYPED_SIGN[kind] if rng.random() < 0.7 else rng.choice(OPERATORS[kind])
        sign = f" {sign} " if len(sign) > 1 or rng.random() < 0.5 else sign
        return sign.join(numbers)
    text = numbers[0]
    loose = rng.random() < 0.5
    for each in numbers[1:]:
        sign = rng.choice("++--**/")
        text += f" {sign} {each}" if loose else sign + each
    return text


def brackets(rng: random.Random) -> str:
    """Four numbers with brackets."""
    a, b, c, d = (number(rng) for _ in range(4))
    x, y, z = (rng.choice("++--**/") for _ in range(3))
    forms = [f"({a}{x}{b}){y}({c}{z}{d})"] * 2 + [f"{a}{x}({b}{y}{c}){z}{d}", f"(({a}{x}{b}){y}{c}){z}{d}"]
    forms += [f"({a}{x}{b}{y}{c}){z}{d}", f"{a}{x}({b}{y}{c}{z}{d})", f"({a} {x} {b}) {y} ({c} {z} {d})"]
    return rng.choice(forms)


def large(rng: random.Random) -> str:
    """A number of four digits and more."""
    first = 1 + number_of_digits(rng, rng.choice([4, 4, 4, 5, 5, 6, 7]))
    if rng.random() < 0.3:
        first = rng.choice([1500, 2000, 5000, 10000, 1000000, 2500, 1234, 12345, 9999, 2024, 1990])
    numbers = [first, number_of_digits(rng, rng.randint(1, 6)) or 7]
    rng.shuffle(numbers)
    style = "{:,}" if rng.random() < 0.15 else "{}"
    return some_operator(rng, 0.6).join(style.format(each) for each in numbers)


def two_numbers(rng: random.Random) -> str:
    """Up to three digits, but the method does not lead to the result."""
    while True:
        kind = rng.choice(["multiply", "divide"])
        a, b = number_of_digits(rng, rng.choice([2, 3, 3])), number_of_digits(rng, rng.choice([2, 2, 3]))
        if not Problem(kind, a, b).can_be_worked_out:
            return f"{a}{typed_operator(rng, kind)}{b}"


def of_a_number(rng: random.Random) -> str:
    """Functions and constants."""
    a, b = number(rng), number(rng)
    forms = [f"{a}!", f"{a} factorial", f"{a} mod {b}", f"{a} % {b}", f"log {a}", f"log({a})", f"ln({a})"]
    forms += [f"sin({a})", f"cos {a}", f"tan({a})", f"pi * {a}", f"{a} times pi", f"pi times {a}", f"{a}*pi"]
    forms += ["pi", f"e^{a}", f"abs(-{a})", f"|-{a}|", f"{a}e3", f"1e{a} + 1", f"π*{a}", f"{a} choose {b}"]
    forms += [f"gcd({a}, {b})", f"max({a}, {b})", f"{a}x + {b}x", f"x + {a}", f"{a}x = {b}", f"2*pi*{a}"]
    return rng.choice(forms)


FORMS = {
    decimals: 12,
    negative: 10,
    power: 7,
    root: 5,
    percentage: 7,
    fraction: 7,
    many_numbers: 12,
    brackets: 8,
    large: 12,
    two_numbers: 9,
    of_a_number: 5,
}


def beyond_question(rng: random.Random) -> str:
    """One of the forms, asked as a person would."""
    text = rng.choices(list(FORMS), list(FORMS.values()))[0](rng)
    return rng.choice(EXPRESSION_FRAMES).format(e=text)
