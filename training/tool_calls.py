# ruff: noqa: E501  (tables of phrases read best as long lines)
"""Conversations with tools: offered schemas, questions, calls, results, and the answers that use them."""

import json
import random
from dataclasses import dataclass

from training.small_talk import made_up_word

ZONES = {
    "Asia/Tokyo": "Tokyo Osaka Kyoto", "Europe/Paris": "Paris Lyon Marseille", "Europe/London": "London Manchester",
    "America/New_York": "New York|Boston|Miami", "Europe/Berlin": "Berlin Hamburg Munich Cologne",
    "Europe/Rome": "Rome Milan Naples", "Europe/Madrid": "Madrid Barcelona", "Asia/Shanghai": "Beijing Shanghai",
    "Australia/Sydney": "Sydney", "America/Los_Angeles": "Los Angeles|San Francisco|Seattle", "Asia/Kolkata": "Delhi Mumbai",
    "Europe/Moscow": "Moscow", "Africa/Cairo": "Cairo", "America/Sao_Paulo": "São Paulo|Rio de Janeiro",
    "Asia/Seoul": "Seoul", "Europe/Zurich": "Zurich Bern Geneva", "Europe/Vienna": "Vienna", "Europe/Oslo": "Oslo",
    "Europe/Stockholm": "Stockholm", "Europe/Helsinki": "Helsinki", "Europe/Lisbon": "Lisbon", "Europe/Athens": "Athens",
    "Europe/Istanbul": "Istanbul", "America/Chicago": "Chicago", "America/Toronto": "Toronto", "Asia/Singapore": "Singapore",
    "Asia/Dubai": "Dubai", "Africa/Nairobi": "Nairobi", "America/Mexico_City": "Mexico City|", "Europe/Dublin": "Dublin",
    "Europe/Amsterdam": "Amsterdam", "Europe/Warsaw": "Warsaw", "Europe/Prague": "Prague", "Asia/Bangkok": "Bangkok",
    "Asia/Hong_Kong": "Hong Kong|", "America/Denver": "Denver", "Europe/Copenhagen": "Copenhagen", "Africa/Lagos": "Lagos",
    "Europe/Brussels": "Brussels", "Pacific/Auckland": "Auckland", "America/Lima": "Lima", "Asia/Jakarta": "Jakarta",
}  # fmt: skip
CITY_ZONE = {
    city: zone
    for zone, cities in ZONES.items()
    for city in (cities.split("|") if "|" in cities else cities.split())
    if city
}
CITIES = list(CITY_ZONE)
MORE_CITIES = [
    "Kabul",
    "Tunis",
    "Havana",
    "Bogota",
    "Quito",
    "Hanoi",
    "Manila",
    "Riga",
    "Tallinn",
    "Vilnius",
    "Kyiv",
    "Minsk",
    "Sofia",
    "Belgrade",
    "Zagreb",
    "Budapest",
    "Bucharest",
    "Porto",
    "Seville",
    "Turin",
    "Venice",
    "Florence",
    "Nice",
    "Bordeaux",
    "Leipzig",
    "Dresden",
    "Bonn",
    "Basel",
    "Graz",
    "Houston",
    "Dallas",
    "Atlanta",
    "Detroit",
    "Phoenix",
    "Portland",
    "Montreal",
    "Vancouver",
    "Perth",
    "Melbourne",
    "Brisbane",
    "Karachi",
    "Lahore",
    "Dhaka",
    "Tehran",
    "Baghdad",
    "Riyadh",
    "Doha",
    "Accra",
    "Dakar",
    "Algiers",
    "Reykjavik",
]
ALL_CITIES = CITIES + MORE_CITIES


@dataclass(frozen=True)
class ToolExchange:
    """A question that needs a tool, with the calls, their results, and the answer."""

    question: str
    thought: str
    calls: list[dict]
    results: list[str]
    second_thought: str
    answer: str


def schema(name: str, description: str, parameters: dict[str, str], required: list[str]) -> dict:
    properties = {key: {"type": "string", "description": text} for key, text in parameters.items()}
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {"type": "object", "properties": properties, "required": required},
        },
    }


def vary(rng: random.Random, tool: dict) -> dict:
    """The same tool as other programs describe it: no parameter text, no `required`, a title, another order."""
    function = tool["function"]
    parameters = function["parameters"]
    if rng.random() < 0.35:
        for entry in parameters["properties"].values():
            entry.pop("description")
    if not parameters["required"] or rng.random() < 0.1:
        parameters.pop("required")
    if rng.random() < 0.1:
        function["parameters"] = dict(reversed(parameters.items()))
    if rng.random() < 0.1:
        parameters["additionalProperties"] = False
    return tool


def time_tool(rng: random.Random) -> tuple[dict, str | None]:
    """A get_time schema, and its parameter's name (None when it takes nothing)."""
    description = rng.choice(
        [
            "Get the current time",
            "Get the current time in a city",
            "The current time",
            "Current time in a city.",
            "Tell the time.",
            "Returns the current time",
            "Get the time for a place",
            "Return the current local time.",
            "What time it is in a city.",
            "Get the current time in a timezone",
            "Return the time of day.",
            "Time now in a given place",
        ]
    )
    parameter = rng.choices(["city", "timezone", "place", "location", None], [0.45, 0.35, 0.06, 0.06, 0.08])[
        0
    ]
    if parameter is None:
        return vary(rng, schema("get_time", description, {}, [])), None
    texts = {
        "city": "The city|City name|Name of the city|the city, e.g. Paris|A city, such as Tokyo.|City to look up",
        "timezone": "The timezone|IANA timezone|Timezone name, e.g. Europe/Paris|IANA name, e.g. Asia/Tokyo|Time zone",
        "place": "The place|Where",
        "location": "The location|City or place",
    }
    text = rng.choice(texts[parameter].split("|"))
    return vary(rng, schema("get_time", description, {parameter: text}, [parameter])), parameter


def calculator_tool(rng: random.Random) -> dict:
    description = rng.choice(
        [
            "Evaluate an arithmetic expression",
            "Calculate",
            "A calculator",
            "Evaluates a mathematical expression.",
            "Compute the value of an expression",
            "Does arithmetic.",
            "Calculate the result of an expression",
            "Work out an arithmetic expression such as 2 + 3.",
            "Evaluate a math expression and return the result.",
            "Simple calculator",
        ]
    )
    text = rng.choice(
        [
            "The expression",
            "Expression to evaluate",
            "The expression, e.g. 2 + 2",
            "An arithmetic expression",
            "Math expression",
        ]
    )
    return vary(rng, schema("calculator", description, {"expression": text}, ["expression"]))


def other_tool(rng: random.Random) -> dict:
    """A tool that is offered but not needed."""
    name, description, parameter = rng.choice(
        [
            ("read_file", "Read a text file", "path"),
            ("search", "Search the web", "query"),
            ("send_mail", "Send a mail", "text"),
            ("list_files", "List the files of a folder", "folder"),
            ("translate", "Translate a text", "text"),
            ("play_music", "Play a song", "title"),
            ("add_note", "Write a note", "note"),
        ]
    )
    return vary(rng, schema(name, description, {parameter: f"The {parameter}"}, [parameter]))


def weather_tool(rng: random.Random) -> dict:
    description = rng.choice(["Get the weather", "Get the current weather in a city", "Weather in a city"])
    return vary(rng, schema("get_weather", description, {"city": "The city"}, ["city"]))


TIME_QUESTIONS = [
    "what time is it in {c}?",
    "What time is it in {c}?",
    "what time is it in {c}",
    "what's the time in {c}?",
    "time in {c}",
    "time in {c}?",
    "What is the time in {c}?",
    "What is the current time in {c}?",
    "tell me the time in {c}",
    "Tell me what time it is in {c}.",
    "current time in {c}",
    "how late is it in {c}?",
    "Do you know the time in {c}?",
    "Can you tell me the time in {c}?",
    "{c} time",
    "what time is it now in {c}?",
    "and in {c}?",
    "And in {c}?",
    "and {c}?",
    "What about {c}?",
    "Please get the time in {c}.",
    "get the time in {c}",
    "use get_time for {c}",
    "Which time is it in {c}",
    "I need the time in {c}",
    "What time do they have in {c}?",
    "is it late in {c}?",
    "¿qué hora es en {c}?",
    "quelle heure est-il à {c} ?",
    "wie spät ist es in {c}?",
    "che ore sono a {c}?",
    "que horas são em {c}?",
    "hello, what time is it in {c}?",
    "Check the time in {c}, please",
    "What's the local time in {c}?",
    "what time is it right now in {c}",
]
TIME_HERE = [
    "what time is it?",
    "What time is it?",
    "what's the time?",
    "tell me the time",
    "time?",
    "what time is it now?",
    "current time",
    "do you know the time?",
    "What is the time?",
    "time please",
    "what time is it",
    "get the time",
    "how late is it?",
    "wie spät ist es?",
    "quelle heure est-il ?",
    "¿qué hora es?",
]
CALCULATOR_QUESTIONS = [
    "what is {e}?",
    "What is {e}?",
    "what is {e}",
    "{e}",
    "{e}",
    "{e}?",
    "{e} = ?",
    "compute {e}",
    "Compute {e}.",
    "calculate {e}",
    "Calculate {e}",
    "how much is {e}?",
    "How much is {e}?",
    "please compute {e}",
    "use the calculator: {e}",
    "Use the calculator for {e}",
    "evaluate {e}",
    "what's {e}?",
    "work out {e}",
    "solve {e}",
    "tell me {e}",
    "Can you calculate {e}?",
    "I need {e}",
    "and {e}?",
    "what does {e} make?",
    "cuánto es {e}?",
    "combien font {e} ?",
    "was ist {e}?",
    "quanto fa {e}?",
    "calculate {e} with the calculator",
    "What is the result of {e}?",
]
WEATHER_QUESTIONS = [
    "what is the weather in {c}?",
    "What's the weather like in {c}?",
    "weather in {c}",
    "how is the weather in {c}?",
    "is it raining in {c}?",
    "Weather in {c}?",
    "tell me the weather in {c}",
    "is it cold in {c}?",
]
DENIALS = [
    "denied",
    "The user denied this call.",
    "The user did not allow this tool call.",
    "Permission denied.",
    "Error: denied by the user",
    "Tool call denied by user",
    "Refused by the user.",
    "The user declined to run this tool.",
    "declined",
    "Error: the user refused",
    "The user refused to run this tool.",
    "Not allowed by the user.",
    "cancelled by the user",
    "This call was not approved.",
]
ERRORS = [
    "Error: unknown city",
    "Error: timeout",
    "Error: no such timezone",
    "ValueError: bad input",
    "Error: not found",
    "Error: no connection",
    "error: service unavailable",
    "Error: invalid expression",
    "ZeroDivisionError: division by zero",
    "Error: tool failed",
    "TypeError: missing argument",
    '{"error": "not found"}',
    '{"error": "unknown"}',
    "KeyError: missing",
    "Error: the tool took too long",
]
DENIED_THOUGHT = "The tool was not allowed."
DENIED_ANSWER = "You did not allow the tool, so I cannot tell."
ERROR_THOUGHT = "The tool failed."
ERROR_ANSWER = "The tool failed, so I cannot tell."


def clock(rng: random.Random) -> str:
    hour, minute = rng.randrange(24), rng.randrange(60)
    style = rng.random()
    if style < 0.7:
        return f"{hour:02d}:{minute:02d}"
    if style < 0.85:
        return f"{hour:02d}:{minute:02d}:{rng.randrange(60):02d}"
    return f"{hour % 12 or 12}:{minute:02d} {'AM' if hour < 12 else 'PM'}"


def time_result(rng: random.Random, time: str, place: str) -> str:
    date = f"20{rng.randint(20, 35)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    return rng.choice(
        [time] * 5
        + [
            f"{time} in {place}",
            f"It is {time}.",
            f"It is {time} in {place}.",
            f"{date} {time}",
            f"{date} {time}",
        ]
        + [
            json.dumps({"time": time}),
            json.dumps({"city": place, "time": time}),
            f"{date}T{time}",
            f"The time is {time}.",
        ]
        + [
            json.dumps({"result": time}),
            json.dumps({"time": time, "place": place}),
            f"{place}: {time}",
            f'"{time}"',
        ]
    )


def any_city(rng: random.Random, made_up_share: float = 0.3) -> str:
    if rng.random() < made_up_share:
        return made_up_word(rng).capitalize()
    return rng.choice(ALL_CITIES)


def spoil(rng: random.Random, results: list[str]) -> tuple[list[str], str, str] | None:
    """Sometimes a call is denied or fails: the results, thought and answer of that case."""
    roll = rng.random()
    if roll < 0.08:
        return [rng.choice(DENIALS)] * len(results), DENIED_THOUGHT, DENIED_ANSWER
    if roll < 0.16:
        return [rng.choice(ERRORS)] * len(results), ERROR_THOUGHT, ERROR_ANSWER
    return None


def finish(
    rng: random.Random, question: str, thought: str, calls: list, results: list, answer: str
) -> ToolExchange:
    second_thought = "The tool answered." if len(calls) == 1 else "The tools answered."
    spoiled = spoil(rng, results)
    if spoiled:
        results, second_thought, answer = spoiled
    return ToolExchange(question, thought, calls, results, second_thought, answer)


def ask_time(rng: random.Random, parameter: str | None) -> ToolExchange:
    """A question about the time, answered with get_time."""
    time = clock(rng)
    if parameter is None:
        question = rng.choice(TIME_HERE)
        call = {"name": "get_time", "arguments": {}}
        return finish(rng, question, "The user wants the time. I call get_time.", [call],
                      [time_result(rng, time, "here")], f"It is {time}.")  # fmt: skip
    if parameter == "timezone":
        city = rng.choice(CITIES)
        value = CITY_ZONE[city]
        if rng.random() < 0.1:
            city = value
    else:
        city = value = any_city(rng)
    question = rng.choice(TIME_QUESTIONS).format(c=city if rng.random() < 0.93 else city.lower())
    calls, results = [{"name": "get_time", "arguments": {parameter: value}}], [time_result(rng, time, value)]
    thought = f"The user wants the time in {city}. I call get_time."
    answer = f"It is {time} in {city}."
    if rng.random() < 0.08:
        second = rng.choice(CITIES)
        other = clock(rng)
        question = rng.choice(
            [f"what time is it in {city} and {second}?", f"time in {city} and in {second}?"]
        )
        thought = f"The user wants the time in {city} and {second}. I call get_time twice."
        second_value = CITY_ZONE[second] if parameter == "timezone" else second
        calls.append({"name": "get_time", "arguments": {parameter: second_value}})
        results.append(time_result(rng, other, second_value))
        answer = f"It is {time} in {city} and {other} in {second}."
    return finish(rng, question, thought, calls, results, answer)


def ask_place(rng: random.Random) -> tuple[str, str, str]:
    """The time is asked without a place, and the tool needs one."""
    return rng.choice(TIME_HERE), "The tool needs a place. I ask for it.", "In which city?"


def expression(rng: random.Random) -> tuple[str, str]:
    """An expression as a person types it, and as the calculator takes it."""
    first, second = (rng.randint(0, 10 ** rng.choice([1, 2, 2, 3, 3, 4, 5, 6])) for _ in range(2))
    operator = rng.choice("++++---***///")
    words = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
    tight = rng.random() < 0.5
    typed_operator = operator
    if rng.random() < 0.25:
        typed_operator = words[operator]
    elif rng.random() < 0.15:
        typed_operator = {"+": "+", "-": "-", "*": rng.choice(["x", "×"]), "/": "÷"}[operator]
    left, right = str(first), str(second)
    if rng.random() < 0.1:
        left, right = f"{first / 10}", f"{second / 100}"
    gap = "" if tight and len(typed_operator) == 1 else " "
    typed, clean = f"{left}{gap}{typed_operator}{gap}{right}", f"{left} {operator} {right}"
    if rng.random() < 0.15:
        third, operator = str(rng.randint(1, 999)), rng.choice("+-*")
        typed, clean = f"{typed}{gap}{operator}{gap}{third}", f"{clean} {operator} {third}"
        if rng.random() < 0.4:
            pieces = clean.split()
            clean = f"({' '.join(pieces[:3])}) {' '.join(pieces[3:])}"
            typed = clean if gap else clean.replace(" ", "")
    return typed, clean


def calculated(clean: str) -> str:
    try:
        value = eval(clean)  # only our own digits and operators
    except ZeroDivisionError:
        return "Error: division by zero"
    return str(round(value, 6)) if len(str(value)) > 12 else str(value)


def ask_calculator(rng: random.Random) -> ToolExchange:
    """An arithmetic question, answered with the calculator."""
    typed, clean = expression(rng)
    question = rng.choice(CALCULATOR_QUESTIONS).format(e=typed)
    value = calculated(clean)
    calls = [{"name": "calculator", "arguments": {"expression": clean}}]
    thought = f"The user wants {clean}. I call the calculator."
    if value.startswith("Error"):
        return ToolExchange(question, thought, calls, [value], ERROR_THOUGHT, ERROR_ANSWER)
    result = rng.choice(
        [value] * 5
        + [f"{clean} = {value}", json.dumps({"result": value}), f"Result: {value}", f'{{"result": {value}}}']
    )
    return finish(rng, question, thought, calls, [result], f"{clean} = {value}.")


def ask_weather(rng: random.Random) -> ToolExchange:
    """A question about the weather, answered with get_weather."""
    city = any_city(rng)
    sky, degrees = (
        rng.choice(["sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "clear"]),
        rng.randint(-15, 39),
    )
    result = rng.choice(
        [
            f"{sky}, {degrees} °C",
            json.dumps({"sky": sky, "temperature": degrees}),
            f"{degrees} degrees, {sky}",
        ]
    )
    return finish(rng, rng.choice(WEATHER_QUESTIONS).format(c=city), f"The user wants the weather in {city}. I call get_weather.",
                  [{"name": "get_weather", "arguments": {"city": city}}], [result],
                  f"In {city} it is {sky}, {degrees} degrees.")  # fmt: skip


@dataclass(frozen=True)
class Toolbox:
    """The tools offered in one conversation, and how the time tool takes its place."""

    tools: list[dict]
    time_parameter: str | None

    def has(self, name: str) -> bool:
        return any(tool["function"]["name"] == name for tool in self.tools)


def sample_toolbox(rng: random.Random) -> Toolbox:
    """One or two of the tools the demo knows, sometimes with one it does not need."""
    names = rng.choice(
        [["get_time"]] * 4
        + [["calculator"]] * 3
        + [["get_time", "calculator"]] * 5
        + [["get_weather"], ["get_weather", "get_time"]]
    )
    time, parameter = time_tool(rng)
    made = {"get_time": time, "calculator": calculator_tool(rng), "get_weather": weather_tool(rng)}
    tools = [made[name] for name in names]
    if rng.random() < 0.1:
        tools.append(other_tool(rng))
    rng.shuffle(tools)
    return Toolbox(tools, parameter)


def sample_tool_exchange(rng: random.Random, toolbox: Toolbox) -> ToolExchange:
    """A question that one of the offered tools answers."""
    askers = {
        "get_time": lambda: ask_time(rng, toolbox.time_parameter),
        "calculator": lambda: ask_calculator(rng),
        "get_weather": lambda: ask_weather(rng),
    }
    return rng.choice([ask for name, ask in askers.items() if toolbox.has(name)])()
