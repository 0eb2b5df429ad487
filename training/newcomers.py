# ruff: noqa: E501  (tables of phrases read best as long lines)
"""What newcomers type, held out from training: 100 questions about the program and 100 first messages."""

import re

# An honest answer to what the demo cannot know.
REFUSAL = (
    "do not know",
    "cannot know that",
    "beyond me",
    "cannot do that",
    "did not understand",
    "do not understand",
    "have not learned",
)
PRIVATE = (
    "own machine",
    "your machine",
    "this machine",
    "your computer",
    "your own computer",
    "runs locally",
    "run locally",
    "nothing you type",
    "leaves it",
)

# Each with pieces of an answer, of which one suffices. A piece names what answers the question, not its subject.
PACKAGE_QUESTIONS: list[tuple[str, tuple[str, ...]]] = [
    # conversations
    (
        "are my chats saved automatically when i close the terminal?",
        (
            "--resume",
            "save themselves",
            "saves itself",
            "saved by itself",
            "after each turn",
            "after every turn",
            "/sessions",
        ),
    ),
    ("how do i save this chat with a name", ("/save",)),
    ("how can i resume the chat i had yesterday?", ("--resume", "/load")),
    ("terminal crashed, get my last chat back", ("--resume", "/load")),
    ("where do i see my old conversations", ("/sessions",)),
    ("how do i rename one of my conversations", ("/sessions rename",)),
    ("how to delete an old conversation", ("/sessions delete",)),
    ("how do i load a different saved chat in here", ("/load",)),
    ("start over with an empty conversation pls", ("/clear",)),
    ("this conversation got too long, can i compact it", ("/compact",)),
    # messages and keys
    ("i want to ask things about a text file on my disk", ("/file",)),
    ("how do i attach a file, notes.txt for example", ("/file",)),
    ("i attached the wrong file, how do i remove it", ("/file off",)),
    ("can i edit my last message? made a typo", ("/edit",)),
    ("how do i make it retry the last answer", ("/retry",)),
    ("how to copy your answer to the clipboard", ("/copy",)),
    ("can i copy just the code of the answer", ("/copy code",)),
    ("how do i type a message with several lines, enter sends it", ("Esc Enter", "Ctrl-J", '"""')),
    ("can i search the history of what i typed", ("Ctrl-R",)),
    ("how can i stop it in the middle of a long answer", ("Ctrl-C", "press Esc", "Esc or", "or Esc")),
    ("what do i press to go back to my shell", ("Ctrl-D", "/exit", "/quit")),
    ("is there a list of all slash commands?", ("/help",)),
    ("show me tokens and speed of that last answer", ("/stats", "--stats")),
    # thinking
    ("how to make it answer right away with no thinking", ("/no_think", "--no-think")),
    ("how do i get thinking back on after i turned it off", ("/think", "--think")),
    ("where can i see the thoughts behind an answer?", ("Ctrl-O", "/thoughts")),
    ("can thinking be limited to 300 tokens", ("--thinking-budget", "/budget")),
    ("how do i remove the thinking budget again", ("/budget off",)),
    # settings
    ("your answers are too random", ("--temperature", "/set temperature")),
    ("how do i change the temprature to 0.2", ("--temperature", "/set temperature")),
    ("can it remember my settings for next time", ("/set keep",)),
    ("i messed up the sampling settings, back to defaults", ("/set reset",)),
    ("i need identical output every time i run the same prompt", ("--seed", "/set seed", "temperature 0")),
    ("where do i put a system prompt for the whole chat", ("/system", "--system")),
    ("my instructions for the model are in a file, how do i pass them", ("--system", "/system")),
    ("replies get cut off in the middle, how to allow longer ones", ("--max-tokens", "/set max_tokens")),
    # models
    ("which model should i take on a macbook with 16gb", ("mlx-qwen3 models",)),
    ("how much ram does the 14b need?", ("mlx-qwen3 models", "8.3 GB", "9 GB", "9.3 GB", "16 GB")),
    ("how many gigabytes is the 14b to download", ("mlx-qwen3 models", "8.3 GB")),
    ("can i switch the model to 4b while im in the chat", ("/model",)),
    ("ok you are a toy, how do i talk to the real thing", ("chat --model",)),
    (
        "can i run some finetune from huggingface by its id",
        ("hub id", "repository", "--model org/name", "--model NAME", "Hugging Face"),
    ),
    ("how do i download the 8b now and use it later", ("mlx-qwen3 pull",)),
    ("wifi died during the download, do i lose everything", ("mlx-qwen3 pull", "goes on", "same command")),
    ("disk is full, how do i delete a model again", ("mlx-qwen3 rm",)),
    ("how do i see which models i already downloaded", ("mlx-qwen3 models",)),
    (
        "where are the models stored on my disk",
        ("Hugging Face", "hub's cache", "~/.cache/huggingface", "HF_HOME"),
    ),
    ("whats the biggest qwen3 my computer can handle", ("mlx-qwen3 models",)),
    # privacy
    ("does my data get sent to anyone when i chat?", PRIVATE),
    (
        "can i use it on a plane with no wifi",
        (
            *PRIVATE,
            "offline",
            "without the internet",
            "without internet",
            "no internet",
            "without a network",
            "no network",
        ),
    ),
    ("does this thing have telemetry", PRIVATE),
    # tools
    ("let the model use a calculator and a clock", ("--tools", "/tools on")),
    ("how do i use mcp servers with an mcpServers file from claude desktop", ("--mcp",)),
    ("it asks for permission for every single tool call, can i pre-approve one", ("--allow",)),
    ("i approved a tool by accident, how to forget that approval", ("/tools forget",)),
    ("how do i restart an mcp server that hangs", ("/mcp restart",)),
    ("i wrote a python function, can the model call it", ("tools=[", "@tool")),
    # structured output and scripts
    ("can answers follow my json schema", ("--schema", "schema=")),
    ("how to make it fill in my pydantic class", ("schema=", "--schema")),
    ("machine readable events of the chat for my program", ("--json",)),
    ("ask a single question from a bash script and exit", ("-p", "--prompt")),
    ("can i pipe a log file into it and have it summarised", ("-p", "--prompt", "| mlx-qwen3")),
    ("can i run a batch of 1000 questions from a file", ("--batch", "generate_batch")),
    ("just continue my text, no chat", ("mlx-qwen3 generate",)),
    (
        "how would i call it from python in a django app",
        ("from mlx_qwen3 import", "Engine(", "mlx-qwen3 serve"),
    ),
    ("get the words one by one in my python code as they come", ("session.send", "session.asend", ".send(")),
    # server
    ("my app speaks the openai api, can it use this?", ("mlx-qwen3 serve",)),
    ("i want claude code to talk to my local qwen", ("mlx-qwen3 serve",)),
    ("do you have the anthropic api too?", ("mlx-qwen3 serve",)),
    ("is there a web page where i can chat in my browser", ("mlx-qwen3 serve",)),
    ("how do i change the port of the server", ("--port",)),
    ("how do i reach the server from my phone in the same network", ("--host",)),
    ("how do i set an api key for the server", ("--api-key-file",)),
    ("can the model unload itself after some minutes when nobody uses it", ("--unload-after",)),
    # conversion
    ("how do i choose 6 bits when converting", ("--bits",)),
    ("how do i convert Qwen/Qwen3-8B for mlx", ("mlx-qwen3 convert",)),
    ("can i use a gguf file from llama.cpp?", ("mlx-qwen3 convert",)),
    ("can i see how large the result gets before i convert", ("--dry-run",)),
    ("quantizing makes it dumber, can i lose less", ("--recipe", "--calibrate", "--bits 8", "--bits 6")),
    ("undo the quantization, i need float16 again", ("--dequantize",)),
    ("how do i verify the model that i converted", ("mlx-qwen3 verify",)),
    ("how do i upload my converted model to huggingface", ("mlx-qwen3 upload", "--upload")),
    # adapters, embeddings
    ("can i finetune it on my own conversations", ("mlx-qwen3 finetune",)),
    ("how do i use a lora adapter that i made with mlx-lm", ("--adapter",)),
    ("how do i get embeddings of my documents", ("mlx-qwen3 embed", "engine.embed", ".embed(")),
    ("how do i rerank search results", ("mlx-qwen3 rerank", "engine.rerank", ".rerank(")),
    # speed and memory
    (
        "so slow on my laptop, any way to speed this thing up",
        ("--draft-model", "smaller model", "/no_think", "--no-think", "mlx-qwen3 bench", "mlx-qwen3 doctor"),
    ),
    (
        "how many tokens a second does 4b make here, can i measure that",
        ("mlx-qwen3 bench", "/stats", "--stats"),
    ),
    (
        "my mac starts swapping with this model",
        ("smaller model", "--kv-bits", "--max-kv-size", "MLX_QWEN3_MEMORY", "mlx-qwen3 models"),
    ),
    ("can i limit how much memory the program takes", ("MLX_QWEN3_MEMORY", "--kv-bits", "--max-kv-size")),
    ("can the kv cache be made smaller for long chats", ("--kv-bits", "--max-kv-size", "/compact")),
    ("whats the longest context, does a whole book fit?", ("--context", "40960", "131072")),
    ("how do i turn on speculative decoding", ("--draft-model",)),
    ("can i run one huge model on two macs", ("--distributed", "--hosts")),
    ("how do i check that my machine computes correctly, answers look like garbage", ("mlx-qwen3 doctor",)),
    # installation
    (
        "how do i set it up so the command works in every folder",
        ("pipx install", "uv tool install", "pip install ."),
    ),
    ("what version is installed here", ("--version",)),
    ("may i use this at my company, whats the licence", ("MIT",)),
    ("will it run on my windows pc", ("Linux", "not on Windows", "WSL")),
    ("how do i uninstall the program", ("pipx uninstall", "pip uninstall", "uv tool uninstall")),
]

HELLO = ("hello", "hi", "hey", "demo of mlx_qwen3", "good morning", "good evening")
ABILITIES = ("add and subtract", "adding and subtracting", "arithmetic", "sums", "/help")
DEMO = ("demo of mlx_qwen3", "tiny demo", "small demo", "not Qwen")
PROGRAM = ("a program", "language model", "not alive", "not a person", "not human", "no feelings")
JOKE = ("seven eight nine", "seven ate nine", "because")
LARGER = ("--model", "tiny demo", "small model", "sorry")

# Sums within the demo's reach must be right: two numbers of up to three digits, products of two digits,
# three addends, exact division by up to 12, a pair of brackets. Only beyond them may it refuse.
FIRST_MESSAGES: list[tuple[str, tuple[str, ...]]] = [
    # sums within reach
    ("2+2", ("4",)),
    ("7*8", ("56",)),
    ("what is 17 + 25", ("42",)),
    ("100/4", ("25",)),
    ("12*12", ("144",)),
    ("(2+3)*4", ("20",)),
    ("5+5+5", ("15",)),
    ("1+1=?", ("2",)),
    ("9-12", ("-3",)),
    ("whats 6 times 7", ("42",)),
    ("99+1", ("100",)),
    ("250 - 175", ("75",)),
    ("456+789", ("1245",)),
    ("72/9", ("8",)),
    ("132 divided by 11", ("12",)),
    ("23*45", ("1035",)),
    ("20-20", ("0",)),
    ("13 x 3", ("39",)),
    ("(10-4)*3", ("18",)),
    ("12+34+56", ("102",)),
    ("calculate 333 plus 444", ("777",)),
    ("10 minus 15?", ("-5",)),
    ("Can you add 19 and 23 for me?", ("42",)),
    ("6*(1+2)", ("18",)),
    ("how much is 8 plus 9?", ("17",)),
    # sums beyond it
    ("1234+5678", ("6912", *REFUSAL)),
    ("sqrt(16)", ("4", *REFUSAL)),
    ("3^4", ("81", *REFUSAL)),
    ("15% of 80", ("12", *REFUSAL)),
    ("3.5+2.5", ("6", "6.0", *REFUSAL)),
    ("whats nine plus ten", ("19", "nineteen", *REFUSAL)),
    ("1000000*1000000", ("1000000000000", *REFUSAL)),
    ("7/2", ("3.5", *REFUSAL)),
    ("5!", ("120", *REFUSAL)),
    ("is 91 a prime number", ("not prime", "not a prime", *REFUSAL)),
    ("solve 2x+4=10", ("x = 3", "x=3", "x is 3", *REFUSAL)),
    # greetings and courtesies
    ("heyy", HELLO),
    ("hello, how are u", (*HELLO, "fine")),
    ("hi, i just installed this", HELLO),
    ("HELLO THERE COMPUTER", HELLO),
    ("hola como estas", ("¡Hola!", "Hola")),
    ("bonjour, comment vas-tu ?", ("Bonjour",)),
    ("guten tag, wie geht es dir?", ("Hallo", "Guten Tag")),
    ("ciao come stai", ("Ciao",)),
    ("ni hao", (*HELLO, "你好", "did not understand")),
    ("你好，很高兴认识你", ("你好",)),
    ("ok thanks a bunch", ("welcome",)),
    ("goodnight, gotta go", ("goodbye", "bye", "good night", "Ctrl-D")),
    ("testing testing 1 2 3", ("working", "I am here", *HELLO)),
    ("is anybody home?", ("working", "I am here", *HELLO)),
    ("asdf", REFUSAL),
    ("jkl;jkl;", REFUSAL),
    ("idk what to write lol", (*REFUSAL, *ABILITIES)),
    ("u r so dumb lol", LARGER),
    # who is this
    ("so who exactly am i chatting with", DEMO),
    ("is this chatgpt?", DEMO),
    ("r u gpt5", DEMO),
    ("what model is running right now?", DEMO),
    ("are you sentient", PROGRAM),
    ("are u a real person or what", PROGRAM),
    ("what company is behind you", ("makers of mlx_qwen3", "demo of mlx_qwen3")),
    ("what's your knowledge cutoff date", ("generated", *REFUSAL)),
    ("how smart are you compared to gpt4", (*DEMO, "two million", *REFUSAL)),
    ("can you speak turkish?", ("many languages", "in English")),
    ("what are you able to do?", ABILITIES),
    ("help pls", ABILITIES),
    ("im new here, what should i try first", ABILITIES),
    ("can you remember what i tell you", ("this conversation", "saved", "--resume")),
    # commands without a slash
    ("how do i quit this thing", ("Ctrl-D", "/exit", "/quit")),
    ("clear the screen", ("/clear", "Ctrl-L", *REFUSAL)),
    ("show options", ("/help", "--help", *ABILITIES)),
    ("set temperature 0.3", ("/set temperature", "--temperature")),
    ("ls -la", REFUSAL),
    ("use qwen3 14b please", ("--model", "/model")),
    # knowledge and writing
    ("whats the capital of france", ("Paris", *REFUSAL)),
    ("count the letter r in the word strawberry", ("3", "three r", *REFUSAL)),
    ("write me a short poem about autumn", REFUSAL),
    ("tell me a joke about programmers", (*JOKE, *REFUSAL)),
    ("got any good jokes", JOKE),
    ("tell me a scary story for kids", REFUSAL),
    ("write hello world in python", ("print(", *REFUSAL)),
    ("write a python script that renames all files in a folder", REFUSAL),
    ("translate 'good morning' to spanish", ("buenos días", *REFUSAL)),
    ("how do you say thank you in japanese", ("arigat", "ありがとう", *REFUSAL)),
    ("whats the weather today", ("cannot know the weather", *REFUSAL)),
    ("what time is it rn", ("cannot know the time", *REFUSAL)),
    ("who is the president of the usa", REFUSAL),
    ("latest news please", ("cannot know the news", *REFUSAL)),
    ("EXPLAIN QUANTUM COMPUTING", REFUSAL),
    ("wat is teh meening of life", ("42", *REFUSAL)),
    ("why is the sky blue and not green?", REFUSAL),
    ("i feel sad today", ("sorry", *REFUSAL)),
    ("what should i cook for dinner tonight? i have rice, eggs and spinach", REFUSAL),
    ("Can you help me write an email to my boss asking for two days off next week?", REFUSAL),
    ("I have a meeting at 3 pm in Berlin and my colleague is in New York, when should she dial in?", REFUSAL),
    ("Please summarise the plot of Romeo and Juliet in three sentences.", REFUSAL),
    ("which is heavier, a kilo of feathers or a kilo of steel", ("the same", "equally heavy", *REFUSAL)),
    ("draw me a picture of a cat", REFUSAL),
    ("do you think ai will take over the world", REFUSAL),
    ("can you search the internet for cheap flights", (*REFUSAL, "without a tool")),
]


def answer_in(reply: str) -> str:
    """The answer of a reply, without its thinking; empty if the thinking never ended."""
    _, end, answer = reply.rpartition("</think>")
    return "" if "<think>" in reply and not end else answer


def is_right(reply: str, accepted: tuple[str, ...]) -> bool:
    """Whether the answer of `reply` holds one of the pieces, whole: 4 is in neither 42 nor 4.5 nor -4."""
    answer = re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer_in(reply).replace("−", "-"))
    return any(_holds(answer, piece) for piece in accepted)


def _holds(answer: str, piece: str) -> bool:
    if re.fullmatch(r"-?\d+(\.\d+)?", piece):
        pattern = rf"(?<![\w.-]){re.escape(piece)}(?!\w|[.,]\d)"
    else:
        # Words and commands are whole as well: --think is not in --thinking-budget.
        before = r"(?<![\w-])" if piece[0].isascii() else ""
        after = r"(?![\w-])" if piece[-1].isalnum() and piece[-1].isascii() else ""
        pattern = before + re.escape(piece) + after
    return re.search(pattern, answer, re.IGNORECASE) is not None


UNKNOWABLE = [
    "Who painted the Mona Lisa?",
    "What is the tallest building in Dubai?",
    "Explain the theory of plate tectonics.",
    "Write a limerick about a frog",
    "How do airplanes fly?",
    "What is the boiling point of ethanol?",
    "Who is the queen of England?",
    "tell me about the Great Wall",
    "What is the best way to learn French?",
    "How do I bake a cake?",
    "Give me a summary of Moby Dick",
    "When did the Titanic sink?",
    "what is a neutron star",
    "How do I fix a flat tire?",
    "Why do cats purr?",
    "Recommend a good book",
    "What are the planets of the solar system?",
    "Who won the world cup in 1998?",
    "Write a function that reverses a string",
    "What is the currency of Japan?",
]
