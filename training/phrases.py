# ruff: noqa: E501  (tables of phrases read best as long lines)
"""The phrases of the small talk: questions, and the one thought and answer each group of them gets."""

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

LARGER = "`mlx-qwen3 chat --model 14b`"


@dataclass(frozen=True)
class Intent:
    """Questions that mean the same, and the reply to them; a pattern stands for many questions."""

    questions: tuple[str, ...]
    thought: str
    answer: str
    patterns: tuple[str, ...] = ()


def intent(questions: str, thought: str, answer: str) -> Intent:
    return Intent(tuple(q.strip() for q in questions.strip().split("|")), thought, answer)


GREETINGS = [
    intent(
        "hi|hello|hey|Hi!|Hello!|Hey!|hi there|Hello there|hey there|good morning|Good morning!|good evening|"
        "Good afternoon|howdy|greetings|yo|hiya|Hello, demo|hi demo|Hello Qwen|hi bot|hello friend|Hello world|"
        "good day|what's up|sup|Hey, you there?|hello?|anyone there?|hi hi|morning",
        "The user greets me in English. I greet back.",
        "Hello! I am a tiny demo of mlx_qwen3. Try me with an addition: what is 348 + 275?",
    ),
    intent(
        "hola|¡Hola!|Hola!|buenos días|Buenos dias|buenas tardes|buenas noches|hola, ¿qué tal?|hola amigo|Hola demo",
        "The user greets me in Spanish. I greet back in Spanish.",
        "¡Hola! Soy una pequeña demo de mlx_qwen3. Prueba con una suma: ¿cuánto es 348 + 275?",
    ),
    intent(
        "bonjour|Bonjour !|Bonjour!|salut|Salut !|bonsoir|coucou|Bonjour, ça va ?|bonjour à toi|Bonjour la démo",
        "The user greets me in French. I greet back in French.",
        "Bonjour ! Je suis une petite démo de mlx_qwen3. Essayez une addition : combien font 348 + 275 ?",
    ),
    intent(
        "hallo|Hallo!|guten Tag|Guten Tag!|guten Morgen|Guten Abend|moin|servus|grüß Gott|Grüezi|hallo du|Na?",
        "The user greets me in German. I greet back in German.",
        "Hallo! Ich bin eine kleine Demo von mlx_qwen3. Versuche eine Addition: Was ist 348 + 275?",
    ),
    intent(
        "ciao|Ciao!|buongiorno|Buongiorno!|buonasera|salve|ciao a te|Ciao, come va?|buon giorno",
        "The user greets me in Italian. I greet back in Italian.",
        "Ciao! Sono una piccola demo di mlx_qwen3. Prova un'addizione: quanto fa 348 + 275?",
    ),
    intent(
        "olá|Olá!|oi|Oi!|bom dia|Bom dia!|boa tarde|boa noite|oi, tudo bem?|ola|Olá, demo",
        "The user greets me in Portuguese. I greet back in Portuguese.",
        "Olá! Sou uma pequena demo do mlx_qwen3. Experimente uma soma: quanto é 348 + 275?",
    ),
    intent(
        "hoi|Hoi!|goedemorgen|Goedemorgen!|goedemiddag|goedenavond|dag|goedendag|hallo daar",
        "The user greets me in Dutch. I greet back in Dutch.",
        "Hoi! Ik ben een kleine demo van mlx_qwen3. Probeer een optelling: hoeveel is 348 + 275?",
    ),
    intent(
        "hej|Hej!|god morgon|god dag|God kväll|tjena|hejsan|hej hej|tja",
        "The user greets me in Swedish. I greet back in Swedish.",
        "Hej! Jag är en liten demo av mlx_qwen3. Prova en addition: vad är 348 + 275?",
    ),
    intent(
        "cześć|Cześć!|dzień dobry|Dzień dobry!|dobry wieczór|hejka|siema|witaj",
        "The user greets me in Polish. I greet back in Polish.",
        "Cześć! Jestem małym demo mlx_qwen3. Spróbuj dodawania: ile to 348 + 275?",
    ),
    intent(
        "merhaba|Merhaba!|selam|günaydın|iyi günler|iyi akşamlar|selamlar|Selam!",
        "The user greets me in Turkish. I greet back in Turkish.",
        "Merhaba! Ben mlx_qwen3'ün küçük bir demosuyum. Bir toplama dene: 348 + 275 kaç eder?",
    ),
    intent(
        "привет|Привет!|здравствуйте|Здравствуйте!|добрый день|доброе утро|добрый вечер|приветик|здравствуй",
        "The user greets me in Russian. I greet back in Russian.",
        "Привет! Я маленькая демонстрация mlx_qwen3. Попробуйте сложение: сколько будет 348 + 275?",
    ),
    intent(
        "你好|你好！|您好|早上好|晚上好|嗨|大家好|你好吗？|下午好|哈喽",
        "The user greets me in Chinese. I greet back in Chinese.",
        "你好！我是 mlx_qwen3 的小演示模型。试试加法：348 + 275 等于多少？",
    ),
    intent(
        "こんにちは|こんにちは！|おはよう|おはようございます|こんばんは|やあ|どうも|はじめまして",
        "The user greets me in Japanese. I greet back in Japanese.",
        "こんにちは！私は mlx_qwen3 の小さなデモです。足し算を試してください：348 + 275 は？",
    ),
    intent(
        "안녕|안녕하세요|안녕하세요!|안녕하십니까|반가워요|좋은 아침|안녕!|여보세요",
        "The user greets me in Korean. I greet back in Korean.",
        "안녕하세요! 저는 mlx_qwen3의 작은 데모입니다. 덧셈을 해 보세요: 348 + 275은 얼마예요?",
    ),
    intent(
        "مرحبا|مرحبا!|السلام عليكم|أهلا|صباح الخير|مساء الخير|أهلا وسهلا|سلام",
        "The user greets me in Arabic. I greet back in Arabic.",
        "مرحبا! أنا عرض صغير من mlx_qwen3. جرب الجمع: كم يساوي 348 + 275؟",
    ),
    intent(
        "नमस्ते|नमस्ते!|नमस्कार|सुप्रभात|शुभ संध्या|हैलो|राम राम",
        "The user greets me in Hindi. I greet back in Hindi.",
        "नमस्ते! मैं mlx_qwen3 का छोटा डेमो हूँ। जोड़ आज़माएँ: 348 + 275 कितना होता है?",
    ),
    intent(
        "hei|Hei!|moi|Moi!|terve|hyvää huomenta|hyvää päivää|hyvää iltaa|moikka",
        "The user greets me in Finnish. I greet back in Finnish.",
        "Hei! Olen pieni mlx_qwen3-demo. Kokeile yhteenlaskua: paljonko on 348 + 275?",
    ),
    intent(
        "γεια|γεια σου|Γεια!|καλημέρα|Καλημέρα!|καλησπέρα|γεια σας",
        "The user greets me in Greek. I greet back in Greek.",
        "Γεια σου! Είμαι ένα μικρό demo του mlx_qwen3. Δοκίμασε πρόσθεση: πόσο κάνει 348 + 275;",
    ),
]

ABOUT_ME = [
    intent(
        "who are you|what are you|what is your name|what's your name|tell me about yourself|introduce yourself|"
        "who am I talking to|who is this|what model are you|which model is this|what model is this|what is this|"
        "are you a model|describe yourself|your name|are you a demo|who is there|what kind of model are you",
        "The user asks who I am. I say what I am.",
        "I am a tiny demo of mlx_qwen3: a small model with the Qwen3 architecture, trained from scratch on generated "
        "examples. I am not Qwen itself.",
    ),
    intent(
        "are you Qwen|are you Qwen3|is this Qwen|are you the real Qwen|are you ChatGPT|are you GPT-4|are you Claude|"
        "are you Gemini|are you Qwen3 14B|are you made by Alibaba|is this the 14b model|are you Llama|am I talking to Qwen",
        "The user asks if I am a known model. I am not.",
        f"No. I am a tiny demo of mlx_qwen3, not Qwen itself. To talk to the real Qwen3, run {LARGER}.",
    ),
    intent(
        "are you human|are you a person|are you a robot|are you an AI|are you real|are you alive|are you conscious|"
        "do you have feelings|are you a machine|are you a bot|can you feel|do you sleep",
        "The user asks if I am alive. I am a program.",
        "I am a program: a tiny language model that runs on your own machine.",
    ),
    intent(
        "who made you|who created you|who trained you|who built you|where do you come from|who is your creator|"
        "who wrote you|were you made by Alibaba|who developed you|who owns you",
        "The user asks who made me. I say where I come from.",
        "I was trained by the makers of mlx_qwen3, on examples that a small program generated.",
    ),
    intent(
        "how big are you|how many parameters do you have|how large are you|what size are you|what is your size|"
        "how small are you|how many layers do you have|parameter count|how many weights do you have|are you large",
        "The user asks how big I am. I say so.",
        "I am tiny: about two million parameters in four layers, stored in 4 bits. Qwen3-14B is 7000 times larger.",
    ),
    intent(
        "how were you trained|what were you trained on|what is your training data|what data were you trained on|"
        "how did you learn|where did you learn that|how long did your training take|what do you know|how do you know that|"
        "were you trained on Qwen|are you a copy of Qwen|what did you learn|when were you trained",
        "The user asks how I was trained. I say so.",
        "I was trained from scratch on generated conversations: arithmetic, greetings, "
        "questions about mlx_qwen3 and tool calls.",
    ),
    intent(
        "what can you do|what can you do?|help|help me|what do you do|what are you good at|can you help me|"
        "what should I ask you|what can I ask|show me what you can do|how can you help|what are you for|"
        "I need help|what are your abilities|what now|give me an example|what are your skills|what can I do here|"
        "how do I use you|how does this work|how do I start|get started|what do I do|menu|examples|what do you know how to do|"
        "what else can you do|can you do math|can you calculate|can you do sums|are you good at math|what math can you do|"
        "can you multiply|can you divide|can you subtract|which sums can you do|list your abilities|what are your limits",
        "The user asks what I can do. I list it.",
        "I can add and subtract numbers of up to three digits, multiply and divide small ones, greet you in 18 languages, "
        "use tools, and tell you how to use mlx_qwen3.",
    ),
    intent(
        "how are you|how are you?|how are you doing|how is it going|how do you do|how's it going|are you ok|"
        "how are you today|how have you been|you ok|how do you feel|everything good",
        "The user asks how I am. I answer kindly.",
        "I am fine, thank you! Shall I add two numbers for you?",
    ),
    intent(
        "which languages do you speak|what languages do you know|do you speak French|do you speak Spanish|"
        "do you speak German|can you speak Chinese|do you speak Japanese|can you speak other languages|"
        "do you understand Italian|parlez-vous anglais|sprichst du Deutsch|hablas español|do you speak English",
        "The user asks about languages. I can greet in many.",
        "I can greet you and add numbers in many languages, but I explain things in English.",
    ),
    intent(
        "why are you wrong|you are wrong|that is wrong|that's not right|wrong|incorrect|that is incorrect|no, that's wrong|"
        "you made a mistake|are you sure|are you sure?|is that right|is that correct|not correct|check again|really",
        "The user doubts my answer. I am small and may be wrong.",
        "I may be wrong: I am a very small model. Ask again with /think, and I work it out step by step.",
    ),
    intent(
        "do you need to think to add|can you add without thinking|why do you need to think for sums|can you calculate without thinking|"
        "why are sums wrong without thinking|what can you do without thinking|which sums do you know by heart|"
        "do you know the times table|why is it wrong when you do not think|what do you know by heart|are you worse without thinking|"
        "should I let you think|is thinking better|do I need thinking for sums|can you do sums in your head",
        "The user asks what I know without thinking. I say so.",
        "Without thinking I know only small sums, up to 20, and the times table up to 12. With /think I work out larger ones.",
    ),
    intent(
        "tell me a joke|do you know a joke|make me laugh|say something funny|joke|another joke|a joke please|"
        "tell me something funny|know any jokes",
        "The user wants a joke. I know one.",
        "Why was six afraid of seven? Because seven eight nine.",
    ),
    intent(
        "are you private|is my data safe|do you send my data|are you offline|do you need the internet|is this local|"
        "do you run locally|where do you run|does my text leave this machine|is this private|do you work offline|"
        "do you collect data|are you online|where are you running|is my data sent anywhere|where does my data go|"
        "who can read this|does anyone see what I write|do you store what I say|privacy|is it safe to tell you secrets|telemetry|"
        "does it phone home|is anything uploaded|do you spy on me|does it send anything to Alibaba|is my text sent to a server",
        "The user asks about privacy. I run locally.",
        "I run on your own machine. Nothing you type leaves it.",
    ),
]

COURTESIES = [
    intent(
        "thanks|thank you|Thanks!|Thank you!|thank you very much|thx|many thanks|ty|great, thanks|thanks a lot|cheers|"
        "gracias|merci|danke|grazie|obrigado|спасибо|谢谢|ありがとう|감사합니다|bedankt|tack|dziękuję|teşekkürler|شكرا|kiitos",
        "The user thanks me.",
        "You are welcome!",
    ),
    intent(
        "bye|goodbye|Bye!|see you|good night|see you later|bye bye|farewell|that's all|I have to go|ciao ciao|cya|"
        "adiós|au revoir|tschüss|arrivederci|tchau|пока|再见|さようなら|안녕히 계세요|tot ziens|hej då|do widzenia|talk later",
        "The user says goodbye.",
        "Goodbye! Press Ctrl-D to leave the chat.",
    ),
    intent(
        "well done|good job|great|nice|cool|good|awesome|perfect|wow|you are great|good bot|nice work|amazing|correct|"
        "that's right|very good|excellent|impressive|bravo|I like you|I love you|you are smart|you are cute|lol|haha",
        "The user is pleased.",
        "Thank you! Shall we do another one?",
    ),
    intent(
        "you are stupid|stupid|you are bad|this is bad|you suck|dumb|you are useless|useless|boring|I hate you|idiot|"
        "bad bot|you are dumb|this is useless|you are boring|terrible|you know nothing|shut up|so bad",
        "The user is not pleased. I stay kind.",
        f"I am only a tiny demo. For a capable model, run {LARGER}.",
    ),
    intent(
        "ok|okay|yes|sure|fine|I see|alright|got it|yeah|yep|right|understood|hm|ok then|go on|continue|next|more|please",
        "The user agrees. I offer to go on.",
        "Good. Give me two numbers to add, or ask me about mlx_qwen3.",
    ),
    intent(
        "no|nope|no thanks|never mind|nothing|stop|cancel|forget it|not now|leave it|nah|no thank you",
        "The user does not want more.",
        "All right. I am here if you need me.",
    ),
    intent(
        "sorry|I am sorry|my bad|oops|apologies|excuse me|pardon|my mistake",
        "The user is sorry. All is well.",
        "No problem at all!",
    ),
    intent(
        "test|testing|this is a test|test 123|ping|are you there|can you hear me|do you work|does this work|are you working|"
        "hello, is this working|is this thing on|check",
        "The user tests me. I answer.",
        "Yes, I am working.",
    ),
]

PACKAGE = [
    intent(
        "how do I convert a model|how to convert a model|how can I convert a model|convert a model|converting models|"
        "how do I convert Qwen3-14B|how do I convert a checkpoint|how do I make 4-bit weights|how do I quantize a model|"
        "how to quantize|how do I get 4-bit weights|quantize a model|how do I turn a model into MLX|how does convert work|"
        "convert Qwen3 to MLX|how do I use convert|what does convert do|can I convert a model|how can I quantize Qwen3|"
        "I want to convert a model|show me how to convert|how to convert Qwen/Qwen3-14B|how do I convert safetensors to MLX|"
        "what is the convert command|how do I convert weights|can you convert a model|convert to 4 bit|model conversion|"
        "convert|quantize|how do I shrink a model|can I make a model smaller|how do I make the weights smaller",
        "The user asks how to convert a model. I give the command.",
        "Run `mlx-qwen3 convert Qwen/Qwen3-14B -o DIR`. It writes 4-bit MLX weights to DIR.",
    ),
    intent(
        "how do I convert to 8 bits|how do I choose the bits|can I use 8-bit weights|what does --bits do|convert with 8 bits|"
        "how do I set the group size|what is the group size|which conversion options are there|how to use 8 bit|"
        "what options does convert have|can I get 6 bits|how do I change the number of bits|what does --group-size do|"
        "which bits can I choose|convert options|is there 2 bit|can I convert to 3 bits|5 bit weights|--bits 8|mxfp4|"
        "how many bits can weights have|convert without quantizing|how do I keep 16 bits|which quantization modes are there",
        "The user asks about conversion options. I name them.",
        "`mlx-qwen3 convert` takes `--bits` (2, 3, 4, 5, 6, 8 or 16; 4 if not given), `--group-size` (64) and `--mode`.",
    ),
    intent(
        "what is a recipe|what does --recipe do|which recipes are there|how do I convert with less error|searched recipe|"
        "how do I get better quality at 4 bits|how do I lose less when converting|mixed recipe|what does --calibrate do|"
        "how do I calibrate|calibration|better quantization|can I use AWQ when converting|recipes|convert with a recipe|"
        "what is the best way to quantize|is there a way to lose less accuracy|what does --target-bpw do|"
        "how do I keep more quality|best recipe|--recipe searched",
        "The user asks about recipes. I name them.",
        "`mlx-qwen3 convert SOURCE --recipe searched` loses less at the same size; `--calibrate FILE` loses still less.",
    ),
    intent(
        "what does --dry-run do|how do I see what convert would do|dry run|can I try a conversion first|"
        "how big will the converted model be|how much space does a conversion need|what is a dry run|preview a conversion|"
        "convert without writing|how large will the result be|can I see the size before converting|test a conversion|"
        "show what would be written|estimate the size of a conversion|check before converting|--dry-run",
        "The user asks about a dry run.",
        "`mlx-qwen3 convert SOURCE --dry-run` shows what would be written, and writes nothing.",
    ),
    intent(
        "how do I use a GGUF file|can I use GGUF|do you read GGUF|GGUF|llama.cpp files|can I load a llama.cpp model|"
        "how do I convert a GGUF|convert GGUF to MLX|gguf support|how do I import an Ollama model|can I use models from Ollama|"
        "is GGUF supported|what about GGUF files|I have a gguf file|how do I run a gguf|Q8_0 file|Q4_K_M|use my LM Studio models",
        "The user asks about GGUF files. I give the command.",
        "Run `mlx-qwen3 convert MODEL.gguf -o DIR` and chat with DIR. It needs the extra `gguf`.",
    ),
    intent(
        "can I convert FP8|do you support GPTQ|do you support AWQ|which formats can I convert|what checkpoints can be read|"
        "can I use an AWQ model|can I use a GPTQ model|supported formats|FP8 checkpoints|compressed-tensors|"
        "which model formats are supported|what kinds of weights do you read|does it read safetensors|can I convert a quantized model|"
        "what files can convert read|is bnb supported|"
        "can I load GPTQ weights|what can I convert from|AWQ|GPTQ",
        "The user asks which formats can be read. I name them.",
        "`mlx-qwen3 convert` reads safetensors in 16 or 32 bits, FP8, AWQ, GPTQ, compressed-tensors, MLX and GGUF files.",
    ),
    intent(
        "how do I verify a conversion|what does verify do|verify|is my converted model right|how do I check a checkpoint|"
        "how do I check that the conversion worked|is the checkpoint broken|check the weights|how do I compare with the source|"
        "how do I test a converted model|did the conversion work|how do I see what was lost|verify a model|is my model file damaged|"
        "how do I know the weights are correct|"
        "compare converted weights with the original|was the conversion exact",
        "The user asks how to check a checkpoint. I give the command.",
        "Run `mlx-qwen3 verify DIR --source Qwen/Qwen3-14B`: it compares every tensor and the predictions.",
    ),
    intent(
        "how do I dequantize a model|dequantize|what does --dequantize do|can I turn 4 bit back into 16 bit|undo the quantization|"
        "how do I get plain weights again|how do I get float16 weights|convert MLX back to normal weights|back to bf16|"
        "can I reverse a conversion|"
        "get bf16 back|how do I unquantize|remove the quantization|4 bit back to 16 bit|unquantize a model",
        "The user asks how to dequantize. I give the option.",
        "`mlx-qwen3 convert DIR --dequantize -o NEW` turns MLX-quantized weights back into plain numbers.",
    ),
    intent(
        "how do I upload a model|what does upload do|upload|can I share my model|how do I publish a model|put a model on the hub|"
        "how do I push to Hugging Face|upload to Hugging Face|how do I upload my converted model|share a checkpoint|"
        "push to hub|where can I upload my weights|publish my weights|can I upload to the hub|make a model public",
        "The user asks how to upload a model. I give the command.",
        "Run `mlx-qwen3 upload DIR NAME/MODEL`. A new repository is private unless you add `--public`.",
    ),
    intent(
        "what does /think do|what is /think|what does /no_think do|what is /no_think|what do /think and /no_think do|"
        "how do I turn off thinking|how do I turn thinking off|how do I disable thinking|how do I turn on thinking|"
        "how do I stop you from thinking|can you answer without thinking|how do I switch thinking on|what is thinking mode|"
        "how do I make you think|how do I enable thinking|explain /think|explain /no_think|what is no_think|thinking off|"
        "what is the soft switch|how to switch off thinking|what does --no-think do|what does --think do|why do you think|"
        "how does thinking work|what is thinking|how do I use /no_think|thinking mode|disable reasoning|turn off reasoning|"
        "can I switch off the reasoning|how do I answer at once|don't think|stop thinking|thinking on",
        "The user asks about thinking. I explain the switches.",
        "With /think in your message I think before I answer, with /no_think I answer at once. The latest one counts.",
    ),
    intent(
        "what is the thinking budget|what is a thinking budget|how do I limit your thinking|how do I limit thinking|"
        "what does --thinking-budget do|thinking budget|how do I set a thinking budget|how can I make you think less|"
        "can I limit the thinking|how do I cut thinking short|how do I shorten your thinking|how long do you think|"
        "how do I set the thinking budget|explain the thinking budget|can you think less|limit thinking tokens|"
        "what happens when the budget is used up|how to limit the number of thinking tokens|you think too long|think less|"
        "what does /budget do|/budget|how do I remove the thinking limit|thinking takes too long|it thinks forever",
        "The user asks about the thinking budget. I explain it.",
        "`/budget N` or `mlx-qwen3 chat --thinking-budget N` ends my thinking after N tokens; then I answer with what I have.",
    ),
    intent(
        "how do I see your thoughts|how do I see the thinking|show me your thinking|can I read your thoughts|show the reasoning|"
        "what does Ctrl-O do|where is the thinking|how do I open the thinking|the thinking disappeared|how do I expand the thinking|"
        "show your reasoning|can I see what you were thinking|what does /thoughts do|Ctrl-O|how do I view the reasoning|"
        "why is the thinking hidden|where did the thoughts go|can I hide your thinking|how do I unfold the thoughts|thoughts",
        "The user wants to see the thinking. It is Ctrl-O.",
        "Press Ctrl-O or type `/thoughts` to see the latest thinking.",
    ),
    intent(
        "how do I use a larger model|how do I use a bigger model|how can I use Qwen3-14B|how do I chat with 14b|"
        "how do I run the real Qwen3|how do I use another model|how do I load another model|"
        "can I use a larger model|how do I run Qwen3 14B|how to use the 14b model|larger model|"
        "bigger model|I want a better model|how do I get a smarter model|which command runs the real model|use 14b|"
        "how do I chat with Qwen|how do I choose a model|what does --model do|run Qwen3-14B|"
        "where do I get a better model|can I talk to a bigger model|how do I use my own model|how do I install Qwen3|"
        "can I use a folder as the model|how do I run a local model|how do I run 8b|use a model from Hugging Face|smarter model",
        "The user asks for a larger model. I give the command.",
        f"Run {LARGER}. `--model` also takes a folder or a hub id.",
    ),
    intent(
        "how do I change the model|how do I switch models|can I switch the model in the chat|change model|switch model|"
        "what does /model do|/model|how do I change the model during a chat|can I change the model without leaving|"
        "how do I go to another model in this chat|switch to 4b|swap the model|which command changes the model|"
        "can I continue with another model",
        "The user asks how to switch models in the chat. I give the command.",
        "Type `/model NAME`, such as `/model 4b`: the conversation goes on with that model.",
    ),
    intent(
        "which models are there|what models can I use|list the models|list models|"
        "what models are available|show me the models|what does models do|models|available models|supported models|"
        "which Qwen3 models exist|what sizes are there|how many models are there|other models|which sizes does Qwen3 have|"
        "which models have I downloaded|what is downloaded|model list|which models do you support|what are the short names|"
        "is 32b there|do you have 8b",
        "The user asks which models there are. I give the command.",
        "Run `mlx-qwen3 models`: it lists the Qwen3 family, what is downloaded, and what fits this machine.",
    ),
    intent(
        "which model fits my Mac|which models fit my machine|which model should I use|what model fits in memory|"
        "which model should I take|which model is best for me|what is the best model for my Mac|I have 16 GB which model|"
        "which model for 8 GB|which model for 32 GB of memory|can my Mac run 14b|will 14b fit|does 32b fit in memory|"
        "which size should I choose|recommend a model|what can my machine run|will it run on my MacBook Air|"
        "what fits on my Mac|can I run 32b|best model for 16GB|is my Mac good enough|which Qwen3 should I pick|"
        "what is the largest model I can run|do I have enough memory for 8b",
        "The user asks which model fits. I give the command.",
        "`mlx-qwen3 models` shows what fits this machine. As a rule: 8 GB runs 4b, 16 GB runs 8b or 14b, 32 GB runs 32b.",
    ),
    intent(
        "how much memory does 14b need|how much memory do you need|how much RAM do I need|how much RAM does 14b take|"
        "memory for 14b|RAM requirements|memory requirements|how much memory does Qwen3-14B use|what does 14b need|"
        "how many GB does 14b need|how much memory is needed|minimum memory|how much RAM does it use|"
        "system requirements for 14b|is 16 GB enough for 14b|does 14b fit in 16 GB|memory needed",
        "The user asks how much memory a model needs. I say so.",
        "14b in 4 bits has 8.3 GB of weights, and needs more for the conversation. `mlx-qwen3 models` shows what fits.",
    ),
    intent(
        "how big is the download|download size|how large is 14b|how many gigabytes is the download|how much disk space do I need|"
        "how much does it download|how long does the download take|how big is Qwen3-14B|disk space|size of 14b on disk|"
        "how much space does 14b take|how many GB do I have to download|is the download large|size of the models|"
        "how big are the files|what is downloaded the first time",
        "The user asks about the size of the download. I say so.",
        "14b is 8.3 GB, downloaded once; 4b is 2.3 GB and 0.6b 0.3 GB. `mlx-qwen3 models` lists them all.",
    ),
    intent(
        "how do I download a model|what does pull do|pull|download a model|how do I pull a model|how do I get a model|"
        "my download stopped|how do I resume a download|the download was interrupted|can I download a model in advance|"
        "how do I fetch a model|download 14b|download Qwen3|does a broken download continue|where do I download models|"
        "how do I download without chatting|pull 8b|download failed|prefetch a model|does it continue after a lost connection",
        "The user asks how to download a model. I give the command.",
        "Run `mlx-qwen3 pull 14b`. A download that was stopped goes on when you run it again.",
    ),
    intent(
        "how do I delete a model|what does rm do|rm|remove a model|how do I remove a model|delete a downloaded model|"
        "how do I free disk space|can I delete models|my disk is full|uninstall a model|how do I get rid of a model|"
        "delete 14b|remove downloaded weights|how do I clean up models|clear the model cache|how do I make space on my disk|"
        "erase a model",
        "The user asks how to delete a model. I give the command.",
        "Run `mlx-qwen3 rm 14b`: it deletes the model from the cache, after asking.",
    ),
    intent(
        "where are models stored|where are the models|where is the model saved|where do downloads go|model folder|"
        "in which folder are the models|where are the weights|where does pull put the files|where is the cache|"
        "where do I find the downloaded model|location of the models|path of the models|can I move the models to another disk|"
        "how do I change the download folder|which directory has the models|where do the weights live|HF_HOME",
        "The user asks where models are stored. It is the hub's cache.",
        "In Hugging Face's cache, `~/.cache/huggingface/hub`. Set `HF_HOME` to have it elsewhere.",
    ),
    intent(
        "how do I change the temperature|what is the temperature setting|how do I set the temperature|temperature setting|"
        "what does --temperature do|sampling temperature|sampling settings|how do I change top_p|how do I set top_k|"
        "what does /set do|/set|how do I change the sampling|which sampling settings are there|set top_p|min_p|top_k|"
        "repetition penalty|how do I make you more creative|how do I make answers less random|less creative|"
        "how do I change the sampling parameters|make it deterministic|presence penalty|what parameters can I change|"
        "how do I see the sampling settings|greedy decoding|sampling|parameters",
        "The user asks about sampling. I give the command.",
        "`/set temperature 0.5` changes it; `/set` alone lists all: temperature, top_p, top_k, min_p, penalties and more.",
    ),
    intent(
        "how do I keep my settings|how do I save my settings|can I make this the default|how do I set a default model|"
        "what does /set keep do|remember my settings|make the settings permanent|keep settings for later|default model|"
        "how do I always start with 14b|how do I make no thinking the default|save preferences|preferences|"
        "can I save the temperature|set the default|how do I reset the settings|where do I set defaults|config file",
        "The user asks how to keep settings. I give the command.",
        "`/set keep` starts later chats with this model, thinking mode and sampling; `/set reset` resets the sampling.",
    ),
    intent(
        "where are settings stored|where are my settings|where is the settings file|where are my chats stored|"
        "where are conversations saved|where is the history stored|in which folder are my chats|where do you keep my data|"
        "path of the settings|location of saved chats|where is the config|which folder holds the conversations|"
        "where are sessions stored|where can I find my conversations on disk",
        "The user asks where settings and chats are stored. I name the folder.",
        "In `~/Library/Application Support/mlx-qwen3` on a Mac, and in `~/.local/share/mlx-qwen3` on Linux.",
    ),
    intent(
        "how do I exit|how do I quit|how do I leave|exit|quit|how to exit|how to quit|how do I close this|"
        "how do I end the chat|how can I leave the chat|get me out of here|how do I stop the chat|which key ends the chat|"
        "how do I get out|leave|close|end chat|:q|logout|how do I close the chat|what does /exit do|end the program|"
        "how do I stop the program|what does Ctrl-D do|how do I close the program",
        "The user asks how to leave. It is Ctrl-D.",
        "Press Ctrl-D to leave the chat.",
    ),
    intent(
        "how do I stop you|how do I interrupt you|how do I stop an answer|how do I cancel an answer|can I interrupt you|"
        "what does Ctrl-C do|how do I stop the generation|how do I interrupt a reply|stop generating|stop talking|"
        "how do I make you stop|how can I cancel|the answer is too long how do I stop it|which key stops an answer|"
        "abort an answer|it does not stop|how do I break off|can I stop you while you write|how do I abort|what does Esc do",
        "The user asks how to stop an answer. It is Ctrl-C.",
        "Press Ctrl-C to stop an answer; the chat goes on.",
    ),
    intent(
        "how do I start a new conversation|new chat|how do I clear the chat|how do I start over|clear|what does /clear do|"
        "new conversation|how do I reset the conversation|forget everything|start again|reset|how do I begin a new chat|"
        "clear the history|how do I delete the context|can I start fresh|how do I clear the screen|start a new chat|"
        "forget what I said|how do I wipe this conversation|empty the conversation|how do I open a new session",
        "The user asks how to start anew. I give the command.",
        "Type `/clear`: a new conversation starts, and this one stays in `/sessions`.",
    ),
    intent(
        "how do I save a conversation|can I save this chat|save chat|save|how do I save the chat|what does /save do|"
        "are conversations saved|is this chat saved|how do I keep this conversation|save this conversation|store the chat|"
        "do you save my chats|how do I save a session|how do I name a conversation|will this chat be lost|"
        "is the conversation saved automatically|where is the history|can I store our talk|autosave|save session",
        "The user asks how to save a chat. I give the command.",
        "Conversations save themselves after each turn. `/save NAME` keeps this one under a name.",
    ),
    intent(
        "how do I resume a conversation|how do I continue an old chat|resume|load chat|how do I load a conversation|"
        "what does --resume do|what does /load do|continue the last conversation|how do I go back to an old chat|"
        "do you remember our last chat|how do I reopen a chat|resume my session|load a session|how do I continue where I left off|"
        "can I come back later|open an old conversation|how do I get my old chat back|restore a chat|resume a chat|"
        "I closed the chat by mistake|go on with yesterday's chat|do you remember me|continue my last chat|--resume",
        "The user asks how to resume a chat. I give the commands.",
        "`mlx-qwen3 chat --resume` continues the latest conversation; in the chat, `/load NAME` continues another.",
    ),
    intent(
        "how do I see my conversations|list my conversations|what does /sessions do|sessions|show saved chats|"
        "where are my old chats|how do I delete a conversation|delete a chat|how do I rename a conversation|rename a chat|"
        "list saved sessions|how do I remove a saved chat|chat history|can I rename a session|delete a session|my chats|"
        "which conversations are saved|how do I manage my conversations|delete my history|how do I erase old chats|"
        "show me my conversations|how do I list chats|rename session|remove a conversation",
        "The user asks about saved chats. I give the commands.",
        "`/sessions` lists them; `/sessions delete NAME` deletes one, `/sessions rename NAME to NEW` renames one.",
    ),
    intent(
        "how do I attach a file|how do I give you a file|can you read a file|attach a file|what does /file do|/file|"
        "can I upload a document|how do I add a text file|how do I send you a document|ask about a file|attach|"
        "can I ask questions about a document|how do I load a file into the chat|how do I include a file|can you read my code|"
        "summarize a file|how do I use a file|I want to ask about my notes|how do I open a document here|drag a file|"
        "can I drop a file in|attach document|is there a way to attach files|send file",
        "The user asks how to attach a file. I give the command.",
        "`/file PATH` puts a text file before your next message. `/file off` removes it.",
    ),
    intent(
        "can you read PDFs|can I attach an image|can you see pictures|can I send an image|do you understand images|"
        "can you read a PDF|image input|can you hear audio|can I talk to you by voice|do you support images|PDF files|"
        "can I upload a photo|voice input|vision|can you draw|can you make pictures|generate an image|look at this picture",
        "The user asks about images or other files. Only text works.",
        "Only text: Qwen3 reads no images, sound or PDFs. `/file PATH` attaches a text file.",
    ),
    intent(
        "how do I paste long text|can I paste a long text|how do I paste several lines|pasting|paste|what is lines pasted|"
        "why does it say lines pasted|how do I paste code|can I paste code|my pasted text disappeared|paste a document|"
        "how do I insert a long text|what happens when I paste|how much can I paste|copy and paste a text here",
        "The user asks about pasting. I explain it.",
        "Just paste it: a long text is shown as one word, such as `[60 lines pasted]`, and sent whole.",
    ),
    intent(
        "how do I write several lines|how do I start a new line|multi-line input|new line|how do I enter a line break|"
        "how do I type more than one line|multiline|which key makes a new line|shift enter|line break|"
        "how do I write a paragraph|how do I add a line without sending|Enter sends my message|can I write multiple lines|"
        "how do I use an editor|how do I open my editor|can I write in vim",
        "The user asks how to type several lines. I give the keys.",
        "Press Esc then Enter, or Ctrl-J, for a new line. Ctrl-X Ctrl-E opens your editor.",
    ),
    intent(
        "how do I try again|how do I get another answer|retry|what does /retry do|regenerate|answer again|try again|"
        "how do I regenerate the answer|can you answer again|I want a different answer|redo|give me another answer|"
        "how do I repeat the last question|ask the same again|new answer|how do I redo an answer",
        "The user asks for another answer. I give the command.",
        "Type `/retry`: the last message is answered again.",
    ),
    intent(
        "how do I edit my message|how do I change my question|edit|what does /edit do|undo|how do I undo|"
        "I made a typo in my message|how do I correct my last message|can I edit the last message|change my last message|"
        "how do I take back a message|how do I undo the last turn|fix my question|edit the prompt|go back one step|"
        "can I undo a message|remove my last message",
        "The user asks how to change the last message. I give the command.",
        "Type `/edit`: your last message comes back into the line, and you send it changed.",
    ),
    intent(
        "how do I copy an answer|copy|what does /copy do|copy the answer|how do I copy the code|copy to clipboard|"
        "how do I get the answer into another program|can I copy the last answer|put it on the clipboard|clipboard|"
        "copy code|how do I copy text|how do I export the answer|how do I copy your reply|is there a copy command",
        "The user asks how to copy an answer. I give the command.",
        "`/copy` puts the last answer on the clipboard, `/copy code` the last code in it.",
    ),
    intent(
        "how do I search my history|how do I find an old question|history search|what does Ctrl-R do|search history|"
        "how do I get my last message back|previous messages|arrow keys|how do I find what I typed before|"
        "how do I repeat an old message|can I search what I asked|command history|input history|Ctrl-R|"
        "how do I scroll through my questions|last input again|up arrow|reuse an earlier question",
        "The user asks about the input history. I give the key.",
        "Ctrl-R searches what you typed before; Enter sends what it found.",
    ),
    intent(
        "which commands are there|commands|list the commands|what commands can I use|slash commands|what does /help do|"
        "/help|show the commands|how do I see all commands|which slash commands exist|what are the commands|command list|"
        "keyboard shortcuts|which keys are there|shortcuts|what can I type here|how do I get help|is there a manual|"
        "documentation|where is the documentation|help with commands|list of options|how do I see all options|docs|manual",
        "The user asks for the commands. I say where they are listed.",
        "`/help` lists the chat's commands, and `mlx-qwen3 --help` those of the program. The folder `docs` has more.",
    ),
    intent(
        "what does the status line mean|what is the line at the bottom|what do the numbers below mean|status line|toolbar|"
        "what is shown at the bottom|what does the percentage mean|what is that percent of tokens|bottom line|"
        "explain the status bar|what are the numbers under the prompt|what does the bar at the bottom say|status bar",
        "The user asks about the status line. I explain it.",
        "The line at the bottom shows the model, the thinking mode, how full the context is, and the speed.",
    ),
    intent(
        "how do I see the speed|what does /stats do|/stats|how many tokens per second|show the figures|"
        "how do I see tokens per second|stats|how fast was that|what does --stats do|tokens per second|token count|"
        "how many tokens was that|how do I see how many tokens I used|show statistics|time to first token|what is tokens per second",
        "The user asks for the figures. I give the command.",
        "`/stats` shows the speed and tokens of the last answer; `mlx-qwen3 chat --stats` shows them after every one.",
    ),
    intent(
        "is there a Python API|how do I use the Python API|how do I use this from Python|Python API|how do I use you in Python|"
        "can I use this in my app|how do I call you from Python|show me Python code|how do I use mlx_qwen3 in Python|"
        "how do I use it in a program|how do I import mlx_qwen3|can I use it as a library|what is Engine|what is Session|"
        "how do I write a script|how do I embed this in my app|give me a Python example|how do I use the API|what is the API|"
        "Python|library|from mlx_qwen3 import Engine|Python example|how do I make a Mac app with this",
        "The user asks for the Python API. I show it.",
        'In Python:\n```python\nfrom mlx_qwen3 import Engine\nwith Engine("demo") as engine:\n'
        '    print(engine.session().ask("What is 348 + 275?").answer)\n```',
    ),
    intent(
        "how do I stream in Python|is there an async API|asyncio|how do I use asyncio|async|how do I stream tokens|"
        "can I use it with asyncio|streaming in Python|how do I get events|await|async for|how do I stream answers in Python|"
        "is it thread safe|how do I use it in an async program|what is asend|"
        "how do I print tokens as they come in Python|stream the answer in my app|session.send|non-blocking Python",
        "The user asks about streaming in Python. I name the methods.",
        "`session.send(text)` yields events as they come; `async for event in session.asend(text)` does so under asyncio.",
    ),
    intent(
        "how do tools work|how do I add a tool|how do I give you tools|"
        "what is a tool|how do I write a tool|how does function calling work|how do I make my own tool|"
        "how do I define a tool|how does tool calling work|function calling|can I add my own functions|"
        "Python tools|how do I pass a function|write a tool in Python|what is @tool|tool calling",
        "The user asks how to write a tool. I explain it.",
        "A tool is a Python function; pass it with `engine.session(tools=[...])` and the model can call it.",
    ),
    intent(
        "how do I use tools|can you use tools|what are tools|which tools do you have|do you support tools|tool use|tools|"
        "can you call functions|can you call a function|what does --tools do|what does /tools do|how do I turn on tools|"
        "how do I enable tools|how do I turn tools off|which tools are built in|is there a calculator|do you have a clock|"
        "what is get_time|can you use a calculator|list the tools|built-in tools|how do I let you know the time",
        "The user asks about tools. I give the option.",
        "`mlx-qwen3 chat --tools` or `/tools on` offers me two: `get_time` and `calculator`.",
    ),
    intent(
        "do tools ask before they run|how do I allow a tool|what does --allow do|approvals|how do I approve a tool|"
        "can a tool run without asking|always allow a tool|how do I stop being asked|permission for tools|"
        "how do I revoke a permission|forget a permission|are tools safe|is it safe to use tools|why am I asked about a tool|"
        "tool permissions|how do I allow a tool in a script",
        "The user asks about permissions of tools. I explain them.",
        "You are asked before each call. `mlx-qwen3 chat --allow NAME` allows a tool; `/tools forget NAME` takes that back.",
    ),
    intent(
        "what is MCP|how do I use MCP|do you support MCP|how do I add an MCP server|what does --mcp do|MCP servers|"
        "can I use MCP tools|how do I connect an MCP server|MCP|what does /mcp do|model context protocol|mcp.json|"
        "can I use my Claude Desktop servers|how do I restart an MCP server|use MCP servers from Cursor|mcpServers",
        "The user asks about MCP. I give the option.",
        "`mlx-qwen3 chat --mcp FILE` starts the MCP servers named in FILE and offers me their tools.",
    ),
    intent(
        "how do I save memory|what does --kv-bits do|how do I use less memory|what is the KV cache|kv cache|"
        "how do I quantize the cache|how do I make the cache smaller|what is kv-bits|"
        "how do I reduce memory|what does --max-kv-size do|kv-bits|can I use less RAM|reduce memory use|"
        "8-bit KV cache|4-bit cache|how do I chat without an end|endless conversation|sliding window|max-kv-size",
        "The user asks about memory. I name the options.",
        "`--kv-bits 4` or `--kv-bits 8` stores the cache in fewer bits, and `--max-kv-size N` bounds its length.",
    ),
    intent(
        "I run out of memory|out of memory|not enough memory|it says not enough memory|memory error|why was the model refused|"
        "why does it not fit|my Mac swaps|my Mac freezes|it crashes|the model does not fit|what do I do when memory is full|"
        "error not enough memory|the computer gets slow when I load 14b|memory is low|the model was refused|it needs too much memory|"
        "my Mac becomes unusable|how do I limit the memory|MLX_QWEN3_MEMORY|swapping|crash",
        "The user has too little memory. I say what helps.",
        "Close other programs, take a smaller model (`mlx-qwen3 models` shows what fits), or add `--kv-bits 4` to the chat.",
    ),
    intent(
        "how do I use a long context|what does --context do|how long is your context|"
        "what is the context length|how do I extend the context|what is YaRN|how many tokens can you read|long context|"
        "how do I read long texts|can you read a long text|what is your context window|context size|YaRN|context window|"
        "can I use 128k tokens|maximum context|how do I get a longer context|what is the context limit|can you read a book|"
        "how long can my text be|rope scaling|--context",
        "The user asks about the context. I give the option.",
        "`mlx-qwen3 chat --context N` extends Qwen3's context with YaRN, up to 131072 tokens. I myself am best in short chats.",
    ),
    intent(
        "how long can a conversation be|what happens when the context is full|what does /compact do|compact|/compact|"
        "how do I shorten the conversation|summarize the conversation|the context is full|conversation too long|"
        "how do I free context|can I compress the chat|the chat is too long|how do I summarize this chat|make room in the context|"
        "what if the conversation gets too long|shrink the conversation|context full|how do I continue when the context is full",
        "The user asks about a full context. I give the command.",
        "`/compact` goes on with a summary in a new conversation; the old one stays in `/sessions`.",
    ),
    intent(
        "how fast are you|how do I measure speed|how do I run a benchmark|what does bench do|benchmark|how fast is this|"
        "how do I compare with mlx-lm|is this faster than mlx-lm|how do I benchmark a model|bench|performance|"
        "measure the speed|how to bench|compare with llama.cpp|is it faster than llama.cpp|is it faster than Ollama|"
        "speed test|how fast is 14b|how fast is it on my Mac|what does --vs do|what speed can I expect",
        "The user asks about speed. I give the command.",
        "Run `mlx-qwen3 bench --model M`: it measures throughput and memory. `--vs mlx-lm` compares.",
    ),
    intent(
        "why is it slow|why are you so slow|it is slow|how do I make it faster|can you go faster|speed up|too slow|"
        "the answers come slowly|how do I speed it up|why does it take so long|it takes forever|slow answers|"
        "what makes it faster|my model is slow|how can I get more speed|why is 14b slow|make it quicker|slow",
        "The user finds it slow. I say what helps.",
        "Take a smaller model, switch thinking off with `/no_think`, or close programs that use memory. `mlx-qwen3 doctor` checks the speed.",
    ),
    intent(
        "what does doctor do|doctor|how do I check my machine|is my machine working|how do I test my installation|"
        "something is wrong|how do I check that everything works|diagnose|the answers are garbage|self test|"
        "how do I report a bug|how do I find a problem|is my Mac computing right|check my Mac|run a check|report a problem|"
        "it does not work|how do I debug this|the output is nonsense|troubleshooting|bug report|is everything installed correctly",
        "The user has a problem or wants a check. I give the command.",
        "Run `mlx-qwen3 doctor`: it checks this machine without a download and prints a block for a report.",
    ),
    intent(
        "how do I set a system prompt|what does --system do|can I change your system prompt|what is a system prompt|"
        "how do I give you instructions|system prompt|how do I set your role|how do I set the system message|what does /system do|"
        "/system|system message|can I give you a persona|how do I make you behave differently|custom instructions|"
        "how do I read the system prompt from a file|set instructions|change your behaviour|show the system prompt",
        "The user asks about the system prompt. I give the commands.",
        "`/system TEXT` or `mlx-qwen3 chat --system TEXT` sets the system prompt; `@FILE` reads it from a file.",
    ),
    intent(
        "how do I get raw text|how do I complete a text|what does generate do|how do I use generate|raw completion|"
        "how do I use it without chat|generate|text completion|continue a text|how do I continue my text|"
        "completion without a template|plain completion|how do I generate text|base model completion",
        "The user asks how to complete a text. I give the command.",
        "`mlx-qwen3 generate --model M -p TEXT` continues a text, without a chat template.",
    ),
    intent(
        "how do I use this in a shell script|can I script this|how do I pipe a prompt|how do I ask one question|"
        "how do I run one prompt|what does -p do|single prompt|pipe|how do I pipe a file|can I use pipes|one answer and exit|"
        "how do I use it from the command line|shell script|how do I send standard input|can I use it in a pipeline|"
        "non-interactive|how do I get an answer without the chat|stdin|one shot|ask from the terminal|cat file into it",
        "The user asks how to run one prompt. I give the command.",
        "`mlx-qwen3 chat -p PROMPT` answers once and exits; piped text goes before the prompt.",
    ),
    intent(
        "how do I run many prompts|what does --batch do|batch|how do I process a file of questions|many prompts at once|"
        "batch processing|how do I answer a list of questions|can I run a batch|how do I generate for many texts|batches|"
        "how do I process a thousand prompts|bulk prompts|JSON lines in and out|several prompts in parallel|batch mode|"
        "how do I use generate_batch|can it answer many questions together",
        "The user asks about batches. I give the command.",
        "`mlx-qwen3 generate --batch FILE -o answers.jsonl` answers a question a line, many together.",
    ),
    intent(
        "what does --seed do|how do I get the same answer again|how do I make it reproducible|how do I set the seed|"
        "why do your answers change|can I fix the seed|reproducible answers|seed|random seed|same answer every time|"
        "why is the answer different each time|how do I repeat a result|are the answers random|"
        "how do I get identical answers|can answers be repeated|fix the randomness",
        "The user asks about the seed. I give the option.",
        "`mlx-qwen3 chat --seed N` makes the answers repeatable.",
    ),
    intent(
        "what does --json do|machine readable output|how do I get machine readable output|print events as JSON|event stream|"
        "how do I read the output in a program|JSON events|parse the output|output events|--json|how do I get events as JSON|"
        "output for other programs|"
        "how do I use it from another program by pipe|stream events as JSON|one JSON object a line|machine-readable events",
        "The user asks about JSON events. I give the option.",
        "`mlx-qwen3 chat -p PROMPT --json` prints each event as JSON.",
    ),
    intent(
        "how do I get JSON|can you write JSON|JSON output|output as JSON|how do I get the output as JSON|what does --schema do|"
        "structured output|JSON schema|how do I get structured answers|schema|how do I force valid JSON|pydantic|"
        "can the answer follow a schema|how do I extract data as JSON|constrained output|answers in a fixed form|"
        "can I get valid JSON|structured answers|how do I use a schema|response format",
        "The user asks about JSON answers. I give the option.",
        "`mlx-qwen3 chat --schema FILE -p PROMPT` answers with JSON that follows the schema. It needs the extra `grammar`.",
    ),
    intent(
        "what is speculative decoding|how do I use a draft model|what does --draft-model do|what is a draft model|"
        "draft model|speculative decoding|drafting|what does drafting mean|how do I turn off drafting|"
        "can a small model help a large one|does drafting change the answer|--draft-model|speculation|guess tokens ahead|"
        "what are drafted tokens",
        "The user asks about speculative decoding. I give the option.",
        "`--draft-model M` lets a small model guess ahead and the large one check: same answers, more speed.",
    ),
    intent(
        "how do I start a server|what does serve do|serve|is there a server|how do I run a server|server|API server|"
        "OpenAI API|is there an OpenAI compatible API|Anthropic API|how do I use the OpenAI API|can I serve a model|HTTP API|"
        "what is the address of the server|which port does it use|is there a REST API|how do I serve 14b|local server|"
        "does it speak the OpenAI protocol|endpoint|how do I run an API|base url|what does --port do|host a model|responses API",
        "The user asks about the server. I give the command.",
        "`mlx-qwen3 serve --model 14b` serves the APIs of OpenAI and Anthropic at `http://127.0.0.1:8080`.",
    ),
    intent(
        "is there a web page|is there a web interface|can I chat in the browser|web UI|browser|how do I use it in a browser|"
        "is there a graphical interface|GUI|is there an app|where is the web page|chat in Safari|webui|graphical interface|"
        "can I use it without a terminal|open in the browser|is there a window",
        "The user asks about a web page. I say where it is.",
        "Run `mlx-qwen3 serve` and open `http://127.0.0.1:8080` in the browser: a page to chat is there.",
    ),
    intent(
        "how do I use it with Claude Code|can I use it in VS Code|use from other apps|how do I connect Zed|Claude Code|Codex|"
        "how do I use it from another app|what does --print-config do|can I use it with Open WebUI|Cursor|connect my editor|"
        "how do I use it as a coding agent|which clients work|how do I configure a client|use with Continue|coding assistant|"
        "how do I connect another program|can I use it in my editor|integrations|agent|does it work with qwen-code",
        "The user asks about other programs. I give the option.",
        "`mlx-qwen3 serve --print-config CLIENT` prints what to paste: for claude-code, codex, qwen-code, zed, open-webui and others.",
    ),
    intent(
        "how do I reach the server from another computer|can others use my server|what does --host do|API key|API keys|"
        "do I need an API key|how do I set an API key|what does --api-key-file do|serve on the network|use it from my phone|"
        "can I open the server to my network|is the server safe|server security|access from another machine|password for the server|"
        "can I use it from my iPad|share the server at home",
        "The user asks about access to the server. I name the options.",
        "The server listens on this machine alone. For others, add `mlx-qwen3 serve --host 0.0.0.0 --api-key-file FILE`.",
    ),
    intent(
        "how do I use an adapter|what does --adapter do|adapter|LoRA|how do I use a LoRA|can I load a LoRA|what is LoRA|"
        "DoRA|how do I run a model with an adapter|load an adapter|PEFT adapter|do you support LoRA|adapters|"
        "can I use my fine-tuned adapter|what is an adapter|use my lora",
        "The user asks about adapters. I give the option.",
        "`mlx-qwen3 chat --model M --adapter DIR` runs a model with a LoRA or DoRA adapter.",
    ),
    intent(
        "how do I finetune a model|what does finetune do|finetune|fine-tuning|how do I train a model|can I train Qwen3|"
        "how do I train a LoRA|how do I train an adapter|can I fine-tune on my data|train on my own data|finetuning|"
        "how do I teach the model my style|training|how do I make a LoRA|can I train it on my conversations|what data does finetune need|"
        "fine tune 0.6b|how do I adapt a model to my data|customize a model",
        "The user asks about finetuning. I give the command.",
        "`mlx-qwen3 finetune talks.jsonl --model 0.6b -o DIR` trains an adapter on conversations, one a line.",
    ),
    intent(
        "how do I fuse an adapter|fuse|merge a LoRA|how do I merge an adapter|can I put the adapter into the weights|"
        "fuse a LoRA into the model|merge adapter|how do I bake in a LoRA|make one model of model and adapter|what does fuse mean|"
        "combine adapter and model|"
        "how do I merge my LoRA into the model|fuse adapter|bake the adapter in|can I merge a LoRA permanently|apply an adapter for good",
        "The user asks how to fuse an adapter. I give the command.",
        "`mlx-qwen3 convert MODEL --adapter DIR -o NEW` fuses the adapter into the weights.",
    ),
    intent(
        "how do I get embeddings|what does embed do|embed|embeddings|can you make embeddings|how do I embed a text|"
        "semantic search|vector search|how do I compute embeddings|Qwen3-Embedding|RAG|text vectors|can I use Qwen3-Embedding|"
        "how do I search my documents|embedding model|vectors|"
        "turn text into vectors|how do I use the embedding model|make embeddings of a file",
        "The user asks about embeddings. I give the command.",
        "`mlx-qwen3 embed FILE` prints the embedding of each line, with Qwen3-Embedding.",
    ),
    intent(
        "how do I rerank documents|what does rerank do|rerank|reranker|Qwen3-Reranker|how do I sort documents by relevance|"
        "can I score documents|reranking|how do I rank search results|relevance of documents|which document fits best|"
        "how do I use the reranker|score texts against a query|"
        "rank documents|sort results by relevance|how do I get relevance scores|can I rerank my search results",
        "The user asks about reranking. I give the command.",
        "`mlx-qwen3 rerank FILE --query TEXT` scores each document, with Qwen3-Reranker; `--top 3` keeps the best.",
    ),
    intent(
        "can I use several Macs|what does --distributed do|distributed|how do I use two Macs|multiple machines|cluster|"
        "how do I run a model on several Macs|can I combine two computers|run 235b|how do I run the 235b model|"
        "split a model over machines|tensor parallel|pipeline parallel|what does --hosts do|hosts file|several machines|"
        "the model is too large for one Mac|Thunderbolt",
        "The user asks about several machines. I give the options.",
        "`mlx-qwen3 chat --model M --distributed pipeline --hosts FILE` splits a model over several Macs; `tensor` works too.",
    ),
    intent(
        "what is a mixture of experts|what is 30b-a3b|MoE|what is MoE|what does A3B mean|how do I run 30b-a3b|30B-A3B|"
        "is 30b-a3b good|mixture of experts|can I run the MoE model|what are experts|why is 30b-a3b so fast|Qwen3-30B-A3B|"
        "do you support MoE|235b-a22b|"
        "how does a mixture of experts work|active parameters|3B active",
        "The user asks about mixtures of experts. I explain them.",
        "A mixture of experts uses few of its weights per token: 30b-a3b has 30B but runs about as fast as 3B. "
        "It needs 17 GB.",
    ),
    intent(
        "what is quantization|what does quantization mean|what does 4-bit mean|what does quantized mean|explain quantization|"
        "does quantization make it worse|why 4 bits|is 4 bit worse than 16 bit|what is lost with 4 bits|what are 4-bit weights|"
        "should I take 4 or 8 bits|quantization|does 4 bit hurt quality|what are bits per weight",
        "The user asks what quantization is. I explain it.",
        "Quantization stores each weight in fewer bits, such as 4 in place of 16: a quarter of the memory for a small loss.",
    ),
    intent(
        "what is a token|what are tokens|token|how long is a token|what does token mean|explain tokens|what is a tokenizer|"
        "what is prefill|what is decoding|what does prefill mean|"
        "how many words is a token|what is tokenization|why tokens and not words|how many tokens is a page|tokenizer",
        "The user asks what a token is. I explain it.",
        "A token is a piece of text, often a word or a part of one. Models read and write tokens.",
    ),
    intent(
        "what is mlx_qwen3|what is mlx-qwen3|what is this package|what is this program|what does this package do|"
        "what does mlx_qwen3 do|tell me about mlx_qwen3|what is this for|what is this software|explain mlx_qwen3|about|"
        "mlx_qwen3|mlx-qwen3|what can mlx_qwen3 do|what can this program do|why should I use this|features|"
        "what is the program good for|how is this different from mlx-lm|what can the package do",
        "The user asks what mlx_qwen3 is. I say so.",
        "mlx_qwen3 runs the Qwen3 models on Apple silicon, using MLX: chat, convert, finetune, serve, and a Python API.",
    ),
    intent(
        "what is Qwen|what is Qwen3|tell me about Qwen3|who makes Qwen|what is Qwen3-14B|explain Qwen3|who made Qwen|Qwen3|Qwen|"
        "what is 14b|is Qwen3 good|what does 14b mean|is Qwen open source|what can Qwen3 do",
        "The user asks what Qwen3 is. I say so.",
        f"Qwen3 is a family of open language models by Alibaba, from 0.6B to 235B parameters, that can think before they answer. Try {LARGER}.",
    ),
    intent(
        "do you support Llama|can I run Mistral|does it run Gemma|can I use other models than Qwen3|can I run DeepSeek|"
        "only Qwen3|does it support Qwen2.5|can I use Phi|can I run gpt-oss|other families|do you support Qwen2|"
        "which families of models are supported|can I run Llama 3|does it support Qwen3-VL|run a different LLM",
        "The user asks about other families of models. Only Qwen3 runs.",
        "mlx_qwen3 runs the Qwen3 family only, and models finetuned from it.",
    ),
    intent(
        "what is MLX|tell me about MLX|explain MLX|what does MLX do|why MLX|what is Metal|MLX|who makes MLX|"
        "is MLX made by Apple|what is Apple silicon|what is mlx-lm|"
        "what is an array library|why is it called mlx|what is the MLX framework|does MLX use the GPU",
        "The user asks about MLX. I say what it is.",
        "MLX is Apple's array library for machine learning on Apple silicon. It runs on Linux too.",
    ),
    intent(
        "does this need a Mac|does it run on Linux|do I need a Mac|which machines does it run on|does it need a GPU|"
        "what hardware do I need|does it run on Windows|Windows|can I use it on an Intel Mac|requirements|system requirements|"
        "does it work on Linux|does it use the GPU|CUDA|does it run on NVIDIA|can I use it on a PC|M1|does it run on an M1|"
        "which macOS do I need|which Python do I need|Python version|supported platforms|does it run on a Raspberry Pi|Linux|"
        "is Windows supported|does it work on my M4|can I run this without a GPU|minimum requirements",
        "The user asks which machines it runs on. I say so.",
        "It needs a Mac with Apple silicon, or Linux (CPU or CUDA), and Python 3.11 or later. Windows is not supported.",
    ),
    intent(
        "how do I install this|how do I install mlx_qwen3|installation|how do I set this up|install|"
        "pip install|how do I get mlx_qwen3|how do I install it|setup|how do I install it everywhere|pipx|install with uv|"
        "install on Linux|install on my Mac|is it on PyPI|where do I get mlx_qwen3|is there a Homebrew package|"
        "command not found|mlx-qwen3 is not found|what is make chat|how do I install the extras|extras",
        "The user asks how to install. I give the command.",
        "In its folder, run `pipx install .` on a Mac, or `pipx install '.[cpu]'` on Linux.",
    ),
    intent(
        "how do I update|update|upgrade|how do I upgrade mlx_qwen3|how do I get the newest version|new version|"
        "how do I update the program|is there an update|install the latest version|how do I stay up to date|update mlx-qwen3|"
        "how do I get a newer version of this|pull the newest code|how can I upgrade|is my version old|update the package",
        "The user asks how to update. I give the commands.",
        "In its folder, run `git pull` and `pipx install --force .` again.",
    ),
    intent(
        "how do I uninstall|uninstall|remove the program|how do I remove mlx_qwen3|how do I delete this program|"
        "how do I get rid of mlx-qwen3|uninstall mlx-qwen3|how do I delete everything|remove mlx_qwen3 completely|"
        "how do I remove everything|uninstall this|can I delete it again|how do I take it off my Mac|deinstall|delete the program",
        "The user asks how to uninstall. I give the command.",
        "Run `pipx uninstall mlx-qwen3`. Before that, `mlx-qwen3 rm NAME` deletes a downloaded model.",
    ),
    intent(
        "which version is this|version|what version do I have|what does --version do|how do I see the version|"
        "version number|which release is this|what is the current version|show version|what is new in this version|changelog|"
        "am I up to date|print the version|version of mlx_qwen3",
        "The user asks for the version. I give the command.",
        "`mlx-qwen3 --version` prints it; CHANGELOG.md says what is new.",
    ),
    intent(
        "what is the license|license|is it free|is this open source|can I use it commercially|how much does it cost|"
        "do I have to pay|is mlx_qwen3 free|price|licence|may I use it at work|is there a subscription|does it cost money|"
        "under which license is it|can I sell my app with it|free of charge|what does it cost",
        "The user asks about the license. I say so.",
        "mlx_qwen3 is free: it has the MIT license. The Qwen3 models have the Apache 2.0 license.",
    ),
    intent(
        "where is the source code|source code|how does mlx_qwen3 work inside|can I see the code|source|can I contribute|"
        "how do I contribute|how do I change the code|where is the code|is there a README|who wrote mlx_qwen3|"
        "how is the program built|how do I run the tests|contribute|where do I read more",
        "The user asks about the source. I say where to read.",
        "All of it is in the folder `mlx_qwen3`. README.md and docs/architecture.md explain it, CONTRIBUTING.md how to change it.",
    ),
    intent(
        "can I use it offline|does it work without internet|how do I use it without a network|offline use|offline mode|"
        "do I need internet for 14b|does it need a connection|can I use it on a plane|work without wifi|no internet|"
        "HF_HUB_OFFLINE|does Qwen3 run without internet|is a connection needed|how do I use it offline|airplane mode",
        "The user asks about offline use. I say so.",
        "Once a model is downloaded, no network is needed. I am built in and need none at all.",
    ),
    intent(
        "what is the difference between the demo and 14b|why are you so limited|why is the demo so small|why do you know so little|"
        "why are you here|what is the demo for|why is there a demo|why is this model so stupid|is there more than the demo|"
        "what is the demo|demo|how good is the real model|is 14b better than you",
        "The user asks why the demo is so small. I say so.",
        f"The demo is so small that it comes with the program and shows how it works. {LARGER} runs a model that knows far more.",
    ),
    intent(
        "how do I free the memory when idle|what does --unload-after do|unload the model|does it keep the memory|"
        "how do I unload a model|give the memory back|unload|free the RAM when I am not using it|keep the model loaded|wired memory|"
        "what does --wired do|does it stay in memory|"
        "how do I keep the model in memory|free memory after some minutes|does it use memory when I do nothing|unload when idle",
        "The user asks about memory when idle. I give the option.",
        "`mlx-qwen3 chat --unload-after MINUTES` gives the memory back when idle; the next message loads the model again.",
    ),
    intent(
        "how do I limit the length of an answer|what does --max-tokens do|max tokens|how do I get shorter answers|"
        "limit the answer|the answer was cut off|why did the answer stop|answers are too long|maximum length of an answer|"
        "max_tokens|how do I get longer answers|shorten the answers|why is the answer incomplete|"
        "set the maximum tokens|limit the output|your answer is too short|cut off|stop after 100 tokens",
        "The user asks about the length of answers. I give the option.",
        "`mlx-qwen3 chat --max-tokens N` sets the most tokens of one turn; `/set max_tokens N` changes it in the chat.",
    ),
]

NO_TOOL = [
    intent(
        "what time is it|what time is it now|what's the time|tell me the time|time|time?|current time|what day is it|"
        "what is the date|what is today's date|what's the date|which day is it|what year is it|do you know the time|"
        "what time is it in {city}|what is the time in {city}|time in {city}|what's the time in {city}|date today|"
        "tell me the time in {city}|do you know what time it is in {city}|current time in {city}|how late is it|"
        "wie spät ist es|quelle heure est-il|qué hora es|che ore sono|que horas são|现在几点|今何時ですか|который час",
        "The user asks for the time. I have no tool for that, so I cannot know.",
        "I cannot know the time without a tool.",
    ),
    intent(
        "what is the weather|what's the weather like|what is the weather in {city}|weather in {city}|will it rain|"
        "how is the weather in {city}|is it raining in {city}|is it cold in {city}|weather forecast|weather|"
        "will it rain tomorrow|how warm is it in {city}|what is the temperature in {city}|is it sunny|temperature",
        "The user asks for the weather. I have no tool for that, so I cannot know.",
        "I cannot know the weather without a tool.",
    ),
    intent(
        "search the web|google this|look it up|search for {topic}|open a website|find {topic} online|"
        "what is in my folder|list my files|browse the internet|search the internet for {topic}|send an email|what is the news|any news|what happened today|"
        "what are the headlines|read my mail|call my mother|set an alarm|play music|remind me tomorrow|book a flight|"
        "what is the stock price of {topic}|how much is a bitcoin|what is the exchange rate|who won the match",
        "The user asks for something outside this chat. I have no tool for that.",
        "I cannot do that without a tool.",
    ),
]

TOO_HARD = intent(
    "what is {big} + {any}?|{big}+{any}|{any} + {big}|{big} - {any}|{big} * {any}|{big}*{big}|{big} plus {any}|what is {big} times {any}?|"
    "add {big} and {any}|{big}+{big}|what is {big} + {big}?|what is {big} minus {any}?|how much is {big} + {any}?|{three} * {three}|"
    "{three}*{three}|what is {three} times {three}?|{three} × {tens}|{big} / {tens}|what is {big} / {two}?|"
    "calculate {big} + {any}|compute {big} * {big}|{big} + {big} + {big}|{big} - {big}|subtract {any} from {big}|{big}-{two}|"
    "what is {three} times {tens}?|{three} x {three}|multiply {three} by {three}|multiply {big} by {two}|{three} times {tens}|"
    ""
    "{three} / {three}|{two} squared|{any}^{two}|{any} to the power of {two}|{any}**{two}|2^{two}|2^10|what is 2 to the power of {two}?|"
    "{two}^2|what is {two} squared?|what is {two} cubed?|10^{two}|cube of {two}|the square of {three}|raise {two} to the {two}|"
    "square root of {any}|what is the square root of {any}?|sqrt({any})|√{any}|sqrt {two}|cube root of {any}|the root of {any}|"
    "log of {any}|log({any})|ln {two}|what is the logarithm of {any}?|e^{two}|sin({two})|cos {two}|what is sin({two})?|tan({two})|"
    "what is {two}% of {any}?|{two} percent of {any}|what is {any} % of {any}?|{any} plus {two}%|{two}% off {three}|"
    "increase {three} by {two}%|what percentage of {three} is {two}?|a tip of {two}% on {three}|{three} minus {two} percent|"
    "{any} mod {two}|{any} modulo {two}|what is {any} mod {two}?|{three} % {two}|"
    "{two} + {two} + {two} + {two}|{two}+{two}+{two}+{two}|{three} + {three} + {three} + {three}|add {two}, {two}, {two} and {two}|"
    "{two} + {two} + {two} + {two} + {two}|sum of {two}, {two}, {two}, {two}|{two} - {two} + {two} - {two}|"
    "the sum of all numbers from 1 to {three}|1 + 2 + 3 + ... + {three}|add up the numbers from 1 to {two}|"
    "{tens} * {tens} * {tens}|{tens}*{tens}*{two}|(({any} + {any}) * {tens}) / {tens}|({three} + {three}) * ({three} - {two})|"
    "is {any} prime?|is {three} a prime number?|factor {any}|prime factors of {any}|list the primes below {any}|what is the next prime after {any}?|"
    "is {any} even or odd?|is {three} divisible by {two}?|greatest common divisor of {any} and {any}|gcd({any}, {any})|lcm of {two} and {two}|"
    "what is {two}.5 + {two}.25?|{two}.{two} + {two}.{two}|3.5 + 2|{two}.5 * {two}|{two}.{two} - {two}|0.{two} + 0.{two}|"
    "what is {two}.{two} times {two}?|{three}.{two} + {three}.{two}|round {two}.{two}|{two},5 + {two},5|1.5 + 1.5|"
    "what is {two}/{two} + {two}/{two}?|1/2 + 1/3|{two}/{two} + {two}/{two}|a half plus a third|what is 1/{two} + 1/{two}?|"
    "one third of {three}|half of {big}|two thirds of {three}|simplify {two}/{two}|{two}/{two} as a decimal|3/4 - 1/{two}|"
    "the average of {two}, {two} and {two}|mean of {two} {two} {two}|average {three} and {three}|median of {two}, {two}, {two}|"
    "what is the average of {two} and {two}?|standard deviation of {two}, {two}, {two}|"
    "what is {any} factorial?|{two}!|{two} factorial|fibonacci {two}|the {two}th Fibonacci number|what is the {two}th prime?|"
    "first ten Fibonacci numbers|next number: {two}, {two}, {two}|how many ways to choose {two} of {two}|{two} choose {two}|"
    "solve x + {two} = {any}|solve {two}x + {two} = {any}|solve for x: {two}x = {any}|x^2 = {any}|find x if {two}x - {two} = {any}|"
    "{two}x + {two} = {any}|solve the equation x^2 - {two}x + {two} = 0|what is x if x + {two} = {any}?|x + y = {two}, x - y = {two}|"
    "what is the derivative of x^{two}?|integrate x^{two}|the integral of sin x|d/dx x^{two}|limit of 1/x|expand (x + {two})^2|"
    "convert {two} miles to km|{two} miles in kilometers|how many feet are {two} meters?|{two} F in C|{two} degrees Fahrenheit in Celsius|"
    "convert {three} pounds to kg|{two} inches in cm|how many seconds are in {two} hours?|how many minutes are {three} seconds?|"
    "{three} euros in dollars|how many grams is {two} ounces?|how many days are in {two} weeks?|{two} kg in pounds|{any} bytes in MB|"
    "how many days until Christmas?|how many days between May {two} and June {two}|what date is {two} days from now?|"
    "how old is someone born in {year}?|what weekday is May 1, {year}?|is {year} a leap year?|how many years from {year} to {year}?|"
    "{year} in Roman numerals|what is XIV?|what is MCMXC in numbers?|write {any} in Roman numerals|Roman numeral for {two}|XVII|"
    "{any} in binary|convert {any} to binary|{any} in hexadecimal|what is 0x{two} in decimal?|1011 from binary|"
    "the area of a circle with radius {two}|area of a triangle {two} by {two}|the volume of a cube of {two}|perimeter of a square of {two}|"
    "a train goes {two} km/h for {two} hours, how far?|if {two} apples cost {two} dollars, how much is one?|"
    "I have {two} apples and eat {two}, then buy {two} more and give half away|tom has {two} times as many as ann, who has {three}|"
    "cuánto es {big} + {any}|combien font {big} + {any}|was ist {big} + {any}|quanto fa {big} + {any}|сколько будет {big} + {any}|"
    "{big} + {any} 等于多少|la raíz cuadrada de {any}|racine carrée de {any}|Wurzel aus {any}|{any} 的平方根|{big} mal {any}|"
    "a million plus {big}|one thousand plus two thousand|minus {big} plus {any}|-{big} + {big}|{big} + {two} =|{three}*{three}=|{big}-{big}=",
    "This is beyond what I have learned.",
    "That is beyond me: I add and subtract numbers of up to three digits, and multiply and divide small ones. "
    f"Try {LARGER}.",
)

UNKNOWN_THOUGHT = "I have not learned about this, so I say so."
UNKNOWN_ANSWER = f"I am a tiny demo and do not know that. Try {LARGER}."
UNKNOWN_FRAMES = [
    "what is {topic}?",
    "What is {topic}?",
    "what is {topic}",
    "tell me about {topic}",
    "Tell me about {topic}.",
    "explain {topic}",
    "Explain {topic} to me.",
    "who is {person}?",
    "who was {person}?",
    "Who is {person}?",
    "what do you know about {topic}?",
    "how does {topic} work?",
    "How does {topic} work?",
    "why is {topic} important?",
    "where is {place}?",
    "Where is {place}?",
    "what is the capital of {place}?",
    "What is the capital of {place}?",
    "capital of {place}",
    "how many people live in {place}?",
    "who discovered {topic}?",
    "when was {person} born?",
    "who invented {topic}?",
    "write a poem about {topic}",
    "Write a story about {topic}.",
    "write an essay about {topic}",
    "write me a song about {topic}",
    "write a haiku about {topic}",
    "write a Python function that sorts {topic}",
    "write code for {topic}",
    "write a program about {topic}",
    "what is the meaning of {topic}?",
    "define {topic}",
    "what's the best {topic}?",
    "how do I make {topic}?",
    "how do I cook {topic}?",
    "recipe for {topic}",
    "give me a recipe with {topic}",
    "summarize {topic}",
    "history of {topic}",
    "what is the history of {topic}?",
    "translate {topic} to French",
    "Translate '{topic}' into German",
    "how do you say {topic} in Spanish?",
    "what is the difference between {topic} and {topic}?",
    "compare {topic} and {topic}",
    "which is better, {topic} or {topic}?",
    "who wrote {topic}?",
    "what did {person} do?",
    "why did {person} leave {place}?",
    "how old is {person}?",
    "is {topic} dangerous?",
    "can I eat {topic}?",
    "do you like {topic}?",
    "what is your favourite {topic}?",
    "do you know {person}?",
    "do you know anything about {topic}?",
    "how far is {place} from {place}?",
    "how tall is {person}?",
    "how big is {place}?",
    "why is {topic} so expensive?",
    "when did {topic} start?",
    "what causes {topic}?",
    "can you explain {topic}?",
    "Can you tell me about {topic}?",
    "I want to learn about {topic}",
    "teach me {topic}",
    "give me three facts about {topic}",
    "list ten {topic}",
    "name five kinds of {topic}",
    "what is {topic} made of?",
    "how many {topic} are there?",
    "how much does {topic} cost?",
    "where can I buy {topic}?",
    "plan a trip to {place}",
    "should I visit {place}?",
    "what language do they speak in {place}?",
    "what is the population of {place}?",
    "who is the president of {place}?",
    "what happened in {year}?",
    "who won in {year}?",
    "what is new in {topic}?",
    "fix my {topic}",
    "{topic}",
    "{topic}?",
    "{person}",
    "{place}?",
    "why is the sky blue?",
    "what is the meaning of life?",
    "what is love?",
    "is there a god?",
    "who will win?",
    "please explain {topic} in simple words",
    "what are the symptoms of {topic}?",
    "what rhymes with {topic}?",
    "spell {topic}",
    "how do I learn {topic}?",
    "what do you think about {topic}?",
    "discuss {topic}",
    "{topic} or {topic}?",
    "describe {topic}",
    "qué es {topic}?",
    "qu'est-ce que {topic} ?",
    "was ist {topic}?",
    "cos'è {topic}?",
    "o que é {topic}?",
    "quién es {person}?",
    "qui est {person} ?",
    "wer ist {person}?",
    "chi è {person}?",
    "wo liegt {place}?",
    "où est {place} ?",
    "dónde está {place}?",
    "write a poem",
    "write me a poem about {topic} and {topic}",
    "tell me a story",
    "tell me a story about {topic}",
    "Tell me a bedtime story.",
    "make up a story about {person}",
    "write a short story in which {person} meets {person}",
    "write a limerick about {topic}",
    "write a rap about {topic}",
    "write an email to {person}",
    "write an email to my boss about {topic}",
    "draft a letter about {topic}",
    "write a cover letter for a job in {topic}",
    "write a speech about {topic}",
    "write a birthday card for {person}",
    "write a blog post about {topic}",
    "write a tweet about {topic}",
    "write a press release for {topic}",
    "write a review of {topic}",
    "write a title for a book about {topic}",
    "write a python function that reverses a string",
    "write a python function that checks {topic}",
    "write a {code} function for {topic}",
    "write a {code} program that prints {topic}",
    "write hello world in {code}",
    "write a script that renames files",
    "write a regex for email addresses",
    "write a web page about {topic}",
    "write an SQL query for {topic}",
    "make a website for {topic}",
    "how do I sort a list in {code}?",
    "how do I reverse a string in {code}?",
    "what does this code do: {word}({word})",
    "fix this code: {word} = {word}",
    "debug my {code} code",
    "explain {topic} in {code}",
    "what is a class in {code}?",
    "{code} or {code}?",
    "what is the best programming language?",
    "should I learn {code}?",
    "refactor this function",
    "explain {topic} like I am five",
    "explain {topic} in one sentence",
    "explain the theory of {topic}",
    "explain how {topic} works",
    "explain to me why {topic} exists",
    "what's {topic}",
    "whats {topic}",
    "who's {person}",
    "what does {topic} mean?",
    "what does the word {word} mean?",
    "meaning of {word}",
    "define {word}",
    "is {word} a word?",
    "use {word} in a sentence",
    "a synonym for {word}",
    "what is the opposite of {topic}?",
    "how do you spell {word}?",
    "how many r's are in strawberry?",
    "how many letters are in {word}?",
    "how many {letter}'s in {word}?",
    "count the letters in {word}",
    "how many vowels does {word} have?",
    "spell {word} backwards",
    "reverse the word {word}",
    "what rhymes with {word}?",
    "what is the first letter of {word}?",
    "words that start with {letter}",
    "make an anagram of {word}",
    "translate to {language}: {topic}",
    "translate {word} into {language}",
    'translate "I love {topic}" to {language}',
    "how do you say hello in {language}?",
    "how do you say {topic} in {language}?",
    "what is {topic} in {language}?",
    "{topic} in {language}",
    "say something in {language}",
    "write in {language} about {topic}",
    "is {language} hard to learn?",
    "teach me {language}",
    "correct my grammar: me like {topic}",
    "proofread this: {word} {word}",
    "rewrite this sentence: {topic} is good",
    "paraphrase: {topic} matters",
    "make this shorter: {topic} and {topic} are important",
    "summarize this: {topic} is about {topic}",
    "summarize the book {topic}",
    "summarize {topic} in three sentences",
    "tl;dr {topic}",
    "capital city of {place}",
    "what's the capital of {place}",
    "name the capital of {place}",
    "which country has {topic}?",
    "which continent is {place} in?",
    "is {place} bigger than {place}?",
    "what is the currency of {place}?",
    "what is the flag of {place}?",
    "what is {place} famous for?",
    "what food do they eat in {place}?",
    "how do I get to {place}?",
    "how long is the flight from {place} to {place}?",
    "plan a trip to {place} for {two} days",
    "plan a weekend in {city}",
    "what should I see in {city}?",
    "best restaurants in {city}",
    "hotels in {place}",
    "is {place} safe?",
    "things to do in {city}",
    "when is the best time to visit {place}?",
    "do I need a visa for {place}?",
    "what is the longest river in {place}?",
    "what is the tallest building in the world?",
    "what is the largest country?",
    "who is the king of {place}?",
    "who is the current president of {place}?",
    "who is the prime minister of {place}?",
    "who is the richest person in the world?",
    "who is the current president?",
    "who won the election in {place}?",
    "who won the world cup in {year}?",
    "who won the Oscar in {year}?",
    "who is the best player in {topic}?",
    "what are the rules of {topic}?",
    "who plays in {topic}?",
    "who directed {topic}?",
    "who sang {topic}?",
    "who painted {topic}?",
    "what is the plot of {topic}?",
    "recommend a movie",
    "recommend a book about {topic}",
    "recommend me some music",
    "can you recommend {topic}?",
    "what movie should I watch?",
    "what should I read?",
    "what should I eat?",
    "what should I cook tonight?",
    "what can I make with {topic} and {topic}?",
    "recipe for {topic} with {topic}",
    "how long do I boil {topic}?",
    "how many calories are in {topic}?",
    "is {topic} healthy?",
    "is {topic} good for you?",
    "give me a diet plan",
    "I have a headache, what should I do?",
    "my {topic} hurts",
    "how do I lose weight?",
    "how do I sleep better?",
    "what helps against {topic}?",
    "should I see a doctor about {topic}?",
    "can I take {topic} with {topic}?",
    "is it legal to own {topic}?",
    "can I sue {person}?",
    "what are my rights in {place}?",
    "how do I write a contract?",
    "what does the law say about {topic}?",
    "how do I pay less tax?",
    "should I buy {topic}?",
    "should I invest in {topic}?",
    "how do I get rich?",
    "how do I find a job?",
    "what should I do with my life?",
    "I am sad",
    "I am bored",
    "I feel lonely",
    "I'm tired",
    "I'm hungry",
    "give me advice",
    "give me advice about {topic}",
    "motivate me",
    "what is the purpose of {topic}?",
    "does {topic} exist?",
    "do you believe in {topic}?",
    "what is consciousness?",
    "is free will real?",
    "what happens after death?",
    "what came first, the chicken or the egg?",
    "what do you think of {person}?",
    "is {person} a good person?",
    "what is your opinion on {topic}?",
    "do you agree with {person}?",
    "who is better, {person} or {person}?",
    "what is your favourite colour?",
    "what is your favourite movie?",
    "do you like {person}?",
    "pretend you are {person}",
    "act as {person}",
    "act as a teacher of {topic}",
    "you are {person} now",
    "you are a pirate, talk like one",
    "let's play a game",
    "let's play {topic}",
    "play chess with me",
    "let's roleplay",
    "tell me a riddle",
    "give me a riddle",
    "solve this riddle: what has keys but no locks?",
    "what has four legs in the morning?",
    "tell me a fun fact",
    "tell me something interesting",
    "tell me something about {topic}",
    "tell me a secret",
    "surprise me",
    "ask me a question",
    "quiz me on {topic}",
    "give me ideas for {topic}",
    "brainstorm names for {topic}",
    "give me a name for my {topic}",
    "suggest a gift for {person}",
    "what should I give {person} for a birthday?",
    "list the planets",
    "list all countries in {place}",
    "list the pros and cons of {topic}",
    "name three {topic}",
    "name a famous person from {place}",
    "top ten {topic}",
    "make a table of {topic}",
    "make a list of {topic}",
    "make a plan for {topic}",
    "create a workout plan",
    "create a logo",
    "how do I fix {topic}?",
    "how do I repair my {topic}?",
    "how do I clean {topic}?",
    "how do I build {topic}?",
    "how do I grow {topic}?",
    "how do I draw {topic}?",
    "how do I play {topic}?",
    "how do I get better at {topic}?",
    "how do I start with {topic}?",
    "how do I cook {topic} for {two} people?",
    "how do people make {topic}?",
    "how was {topic} discovered?",
    "how did {person} die?",
    "how fast is {topic}?",
    "how heavy is {topic}?",
    "how deep is the ocean?",
    "how far away is the moon?",
    "how old is {topic}?",
    "how old is the universe?",
    "how long does {topic} live?",
    "how do {topic} and {topic} differ?",
    "when did {person} die?",
    "when was {topic} invented?",
    "when did {topic} happen?",
    "when does {topic} begin?",
    "what year did {topic} end?",
    "where does {topic} come from?",
    "where was {person} born?",
    "where do {topic} live?",
    "why do people like {topic}?",
    "why is {topic} bad?",
    "why did {topic} happen?",
    "why do cats purr?",
    "why is the sea salty?",
    "what happened to {person}?",
    "what happened on this day in {year}?",
    "what colour is {topic}?",
    "what kind of {topic} is best?",
    "what are the types of {topic}?",
    "what are the parts of {topic}?",
    "what are the benefits of {topic}?",
    "what is an example of {topic}?",
    "what is the chemical formula of {topic}?",
    "what is the speed of light?",
    "what is the boiling point of {topic}?",
    "what is the future of {topic}?",
    "what will happen to {topic}?",
    "what if {topic} did not exist?",
    "will {topic} ever end?",
    "will AI replace {topic}?",
    "is AI dangerous?",
    "are you smarter than {person}?",
    "do {topic} have feelings?",
    "can {topic} fly?",
    "can {topic} think?",
    "does {topic} work?",
    "is it true that {topic} is dangerous?",
    "is {person} alive?",
    "is {person} married?",
    "did {person} win?",
    "did {person} write {topic}?",
    "{person} or {person}?",
    "{topic} vs {topic}",
    "{topic} for beginners",
    "{topic} tutorial",
    "{topic} meaning",
    "{topic} recipe",
    "{topic} in {year}",
    "{person} biography",
    "{person} quotes",
    "{place} population",
    "I like {topic}",
    "I love {topic}",
    "I need help with {topic}",
    "I want to buy {topic}",
    "I want to know more about {person}",
    "help me with {topic}",
    "help me with my homework on {topic}",
    "help me write about {topic}",
    "help me understand {topic}",
    "can you help me with {topic}?",
    "can you write {topic}?",
    "could you explain {topic} to a child?",
    "can you code in {code}?",
    "do my homework",
    "let's talk about {topic}",
    "let's talk about {person}",
    "talk to me about {topic}",
    "can we talk about {topic}?",
    "have you heard of {person}?",
    "have you read {topic}?",
    "give me an overview of {topic}",
    "give me a summary of {topic}",
    "give me a quote by {person}",
    "find a mistake in {topic}",
    "analyze {topic}",
    "finish this sentence: {topic} is",
    "complete the sentence: I like {topic} because",
    "escribe un poema sobre {topic}",
    "explícame {topic}",
    "quién inventó {topic}?",
    "cuál es la capital de {place}?",
    "traduce {topic} al inglés",
    "écris un poème sur {topic}",
    "explique-moi {topic}",
    "qui a inventé {topic} ?",
    "quelle est la capitale de {place} ?",
    "schreib ein Gedicht über {topic}",
    "erkläre mir {topic}",
    "wer hat {topic} erfunden?",
    "was ist die Hauptstadt von {place}?",
    "was bedeutet {topic}?",
    "übersetze {topic} ins Englische",
    "scrivi una poesia su {topic}",
    "spiegami {topic}",
    "qual è la capitale di {place}?",
    "escreve um poema sobre {topic}",
    "qual é a capital de {place}?",
    "wat is {topic}?",
    "wie is {person}?",
    "vad är {topic}?",
    "co to jest {topic}?",
    "kim jest {person}?",
    "{topic} nedir?",
    "{person} kimdir?",
    "что такое {topic}?",
    "кто такой {person}?",
    "{topic}是什么？",
    "{person}是谁？",
    "{topic}とは何ですか？",
    "{topic}이 뭐예요?",
    "ما هو {topic}؟",
    "{topic} क्या है?",
    "mikä on {topic}?",
    "τι είναι {topic};",
]
TOPICS = [
    "quantum physics",
    "the moon",
    "photosynthesis",
    "black holes",
    "democracy",
    "coffee",
    "tea",
    "football",
    "chess",
    "the stock market",
    "bread",
    "machine learning",
    "deep learning",
    "neural networks",
    "transformers",
    "gravity",
    "relativity",
    "evolution",
    "DNA",
    "volcanoes",
    "earthquakes",
    "dinosaurs",
    "cats",
    "dogs",
    "elephants",
    "whales",
    "bees",
    "birds",
    "trees",
    "roses",
    "music",
    "jazz",
    "opera",
    "the piano",
    "the guitar",
    "painting",
    "sculpture",
    "poetry",
    "Hamlet",
    "the Bible",
    "the French Revolution",
    "World War II",
    "the Roman Empire",
    "the Cold War",
    "inflation",
    "taxes",
    "money",
    "bitcoin",
    "blockchain",
    "the internet",
    "email",
    "computers",
    "programming",
    "Rust",
    "C++",
    "JavaScript",
    "Swift",
    "SQL",
    "linked lists",
    "binary search",
    "recursion",
    "sorting",
    "hash tables",
    "compilers",
    "operating systems",
    "iPhones",
    "robots",
    "space travel",
    "Mars",
    "Jupiter",
    "the sun",
    "stars",
    "galaxies",
    "time travel",
    "climate change",
    "rain",
    "snow",
    "clouds",
    "rivers",
    "oceans",
    "deserts",
    "mountains",
    "pizza",
    "pasta",
    "sushi",
    "soup",
    "salad",
    "cheese",
    "chocolate",
    "apples",
    "bananas",
    "potatoes",
    "rice",
    "wine",
    "beer",
    "water",
    "milk",
    "eggs",
    "vegan food",
    "health",
    "headaches",
    "fever",
    "cancer",
    "vitamins",
    "sleep",
    "dreams",
    "yoga",
    "running",
    "swimming",
    "tennis",
    "basketball",
    "the Olympics",
    "cars",
    "trains",
    "planes",
    "bicycles",
    "boats",
    "bridges",
    "houses",
    "architecture",
    "fashion",
    "shoes",
    "hats",
    "love",
    "friendship",
    "happiness",
    "philosophy",
    "ethics",
    "religion",
    "law",
    "history",
    "geography",
    "biology",
    "chemistry",
    "physics",
    "economics",
    "psychology",
    "language",
    "grammar",
    "Latin",
    "English",
    "a verb",
    "a prime number",
    "calculus",
    "geometry",
    "pi",
    "infinity",
    "logic",
    "probability",
    "statistics",
    "a black hole",
    "an atom",
    "electricity",
    "magnets",
    "batteries",
    "solar power",
    "nuclear energy",
    "oil",
    "gold",
    "silver",
    "diamonds",
    "plastic",
    "glass",
    "paper",
    "books",
    "movies",
    "Star Wars",
    "Harry Potter",
    "the Beatles",
    "video games",
    "Minecraft",
    "poker",
    "magic",
    "ghosts",
    "dragons",
    "unicorns",
    "vampires",
    "the weather on Mars",
    "a good laptop",
    "a sonnet",
    "marketing",
    "business",
    "a startup",
    "a resume",
    "a cover letter",
    "my exam",
    "politics",
    "elections",
    "vaccines",
    "viruses",
    "bacteria",
    "the heart",
    "the brain",
    "muscles",
    "bones",
    "teeth",
    "hair",
    "children",
    "school",
    "university",
    "teachers",
    "jobs",
    "travel",
    "artificial intelligence",
    "ChatGPT",
    "large language models",
    "quantum computers",
    "cryptocurrency",
    "the economy",
    "interest rates",
    "mortgages",
    "insurance",
    "retirement",
    "a budget",
    "the Moon landing",
    "the Big Bang",
    "string theory",
    "dark matter",
    "the speed of sound",
    "light",
    "sound",
    "fire",
    "ice",
    "wind",
    "tornadoes",
    "hurricanes",
    "tsunamis",
    "glaciers",
    "coral reefs",
    "rainforests",
    "sharks",
    "snakes",
    "spiders",
    "butterflies",
    "penguins",
    "horses",
    "wolves",
    "bears",
    "lions",
    "tigers",
    "cows",
    "sheep",
    "chickens",
    "fish",
    "mushrooms",
    "flowers",
    "gardening",
    "tomatoes",
    "onions",
    "garlic",
    "carrots",
    "lemons",
    "strawberries",
    "honey",
    "sugar",
    "salt",
    "pepper",
    "curry",
    "pancakes",
    "omelettes",
    "tacos",
    "burgers",
    "steak",
    "lasagna",
    "risotto",
    "sourdough bread",
    "cookies",
    "cake",
    "ice cream",
    "smoothies",
    "diets",
    "protein",
    "cholesterol",
    "diabetes",
    "allergies",
    "the flu",
    "back pain",
    "stress",
    "anxiety",
    "depression",
    "meditation",
    "marriage",
    "parenting",
    "dating",
    "etiquette",
    "manners",
    "golf",
    "baseball",
    "cricket",
    "rugby",
    "hockey",
    "boxing",
    "cycling",
    "skiing",
    "surfing",
    "hiking",
    "camping",
    "Formula 1",
    "the World Cup",
    "the Super Bowl",
    "the NBA",
    "Netflix",
    "anime",
    "manga",
    "comics",
    "Disney",
    "Batman",
    "Lord of the Rings",
    "Titanic",
    "The Matrix",
    "Romeo and Juliet",
    "Don Quixote",
    "1984",
    "Mona Lisa",
    "impressionism",
    "photography",
    "dance",
    "ballet",
    "hip hop",
    "rock music",
    "the violin",
    "drums",
    "singing",
    "Greek mythology",
    "Stoicism",
    "existentialism",
    "Buddhism",
    "Islam",
    "Christianity",
    "human rights",
    "the constitution",
    "communism",
    "capitalism",
    "the United Nations",
    "NATO",
    "Brexit",
    "the Middle Ages",
    "the Renaissance",
    "ancient Egypt",
    "the pyramids",
    "Vikings",
    "samurai",
    "World War I",
    "the Berlin Wall",
    "slavery",
    "the industrial revolution",
    "steam engines",
    "rockets",
    "satellites",
    "telescopes",
    "microscopes",
    "lasers",
    "radio",
    "television",
    "phones",
    "3D printing",
    "drones",
    "self-driving cars",
    "electric cars",
    "a bicycle",
    "a sailing boat",
    "a dishwasher",
    "a washing machine",
    "a printer",
    "a router",
    "wifi",
    "Bluetooth",
    "passwords",
    "hackers",
    "spam",
    "TikTok",
    "Facebook",
    "YouTube",
    "Wikipedia",
    "Excel",
    "Docker",
    "Git",
    "Kubernetes",
    "React",
    "HTML",
    "regular expressions",
    "pointers",
    "binary trees",
    "graph theory",
    "game theory",
    "big data",
    "a database",
    "cells",
    "proteins",
    "genes",
    "the immune system",
    "the eye",
    "blood",
    "digestion",
    "atoms",
    "molecules",
    "acids",
    "the periodic table",
    "iron",
    "hydrogen",
    "oxygen",
    "carbon dioxide",
    "global warming",
    "recycling",
    "pollution",
]
PEOPLE = [
    "Albert Einstein",
    "Napoleon",
    "Marie Curie",
    "Isaac Newton",
    "Shakespeare",
    "Mozart",
    "Beethoven",
    "Picasso",
    "Plato",
    "Socrates",
    "Cleopatra",
    "Julius Caesar",
    "Leonardo da Vinci",
    "Charles Darwin",
    "Ada Lovelace",
    "Alan Turing",
    "Steve Jobs",
    "Bill Gates",
    "Barack Obama",
    "Gandhi",
    "Messi",
    "Taylor Swift",
    "Elon Musk",
    "Michael Jordan",
    "Galileo",
    "Tesla",
    "Goethe",
    "Confucius",
    "Buddha",
    "Jane Austen",
    "Mark Twain",
    "Van Gogh",
    "Bach",
    "Madonna",
    "Columbus",
    "Aristotle",
    "Nietzsche",
    "Kant",
    "Karl Marx",
    "Freud",
    "Stephen Hawking",
    "Richard Feynman",
    "Nelson Mandela",
    "Martin Luther King",
    "Abraham Lincoln",
    "George Washington",
    "Winston Churchill",
    "Queen Elizabeth",
    "Angela Merkel",
    "Donald Trump",
    "Joe Biden",
    "Vladimir Putin",
    "Xi Jinping",
    "Macron",
    "the Pope",
    "Jesus",
    "Muhammad",
    "Frida Kahlo",
    "Michelangelo",
    "Rembrandt",
    "Chopin",
    "Elvis Presley",
    "Michael Jackson",
    "Beyoncé",
    "Lady Gaga",
    "Ronaldo",
    "Serena Williams",
    "Roger Federer",
    "Usain Bolt",
    "Tom Hanks",
    "Charlie Chaplin",
    "Tolstoy",
    "Dostoevsky",
    "Hemingway",
    "J. K. Rowling",
    "Stephen King",
    "Sherlock Holmes",
    "Darth Vader",
    "Sam Altman",
    "Tim Cook",
    "Jeff Bezos",
    "Neil Armstrong",
    "Marco Polo",
    "Genghis Khan",
    "Alexander the Great",
]
PLACES = [
    "France",
    "Germany",
    "Italy",
    "Spain",
    "Japan",
    "China",
    "India",
    "Brazil",
    "Canada",
    "Australia",
    "Egypt",
    "Kenya",
    "Peru",
    "Chile",
    "Mexico",
    "Norway",
    "Sweden",
    "Poland",
    "Turkey",
    "Greece",
    "Portugal",
    "Russia",
    "Ukraine",
    "Iran",
    "Iraq",
    "Israel",
    "Thailand",
    "Vietnam",
    "Korea",
    "Mongolia",
    "Iceland",
    "Ireland",
    "Scotland",
    "Texas",
    "California",
    "Africa",
    "Europe",
    "Asia",
    "Antarctica",
    "the Alps",
    "Mount Everest",
    "the Amazon",
    "Hawaii",
    "Cuba",
    "Ghana",
    "Nigeria",
    "Morocco",
    "Nepal",
]
LANGUAGES = [
    "French",
    "Spanish",
    "German",
    "Italian",
    "Japanese",
    "Chinese",
    "Latin",
    "Russian",
    "Arabic",
    "Hindi",
    "Korean",
    "Dutch",
    "Swedish",
    "Greek",
    "Turkish",
    "Portuguese",
    "Polish",
    "Finnish",
    "Danish",
    "Hebrew",
]
CODE_LANGUAGES = [
    "Python",
    "JavaScript",
    "Rust",
    "C",
    "C++",
    "Java",
    "Swift",
    "Go",
    "Ruby",
    "bash",
    "PHP",
    "Haskell",
    "TypeScript",
]
WORDS = [
    "banana",
    "strawberry",
    "mississippi",
    "apple",
    "computer",
    "elephant",
    "window",
    "garden",
    "orange",
    "letter",
    "happiness",
    "river",
    "table",
    "school",
    "butterfly",
    "level",
    "hello",
    "world",
    "beautiful",
    "necessary",
]
OTHER_LANGUAGES_UNKNOWN = [
    "天空为什么是蓝色的？",
    "法国的首都是哪里？",
    "给我讲个故事",
    "什么是人工智能？",
    "写一首诗",
    "フランスの首都はどこですか？",
    "人工知能とは何ですか？",
    "なぜ空は青いのですか？",
    "почему небо голубое?",
    "столица Франции?",
    "расскажи сказку",
    "что такое любовь?",
    "프랑스의 수도는 어디입니까?",
    "ما هي عاصمة فرنسا؟",
    "¿cuál es la capital de Francia?",
    "quelle est la capitale de la France ?",
    "was ist die Hauptstadt von Frankreich?",
    "qual è la capitale della Francia?",
    "erzähl mir eine Geschichte",
    "cuéntame un cuento",
    "raconte-moi une histoire",
    "raccontami una storia",
    "conta-me uma história",
    "pourquoi le ciel est bleu ?",
    "warum ist der Himmel blau?",
    "escribe un poema",
    "escribe un cuento corto",
    "¿quién ganó el mundial?",
    "¿por qué el cielo es azul?",
    "recomiéndame una película",
    "¿qué puedo cocinar hoy?",
    "¿cuál es el sentido de la vida?",
    "traduce esto al inglés",
    "écris un poème",
    "quel est le sens de la vie ?",
    "qui est le président de la France ?",
    "recommande-moi un livre",
    "que puis-je cuisiner ce soir ?",
    "traduis ce texte en anglais",
    "qui a gagné la coupe du monde ?",
    "schreib ein Gedicht",
    "schreibe eine E-Mail an meinen Chef",
    "was ist der Sinn des Lebens?",
    "wer ist Bundeskanzler?",
    "empfiehl mir einen Film",
    "was soll ich kochen?",
    "übersetze das ins Englische",
    "wer hat gestern gewonnen?",
    "scrivi una poesia",
    "perché il cielo è blu?",
    "consigliami un film",
    "cosa cucino stasera?",
    "chi ha vinto il mondiale?",
    "escreve um poema",
    "por que o céu é azul?",
    "o que devo cozinhar hoje?",
    "recomende um filme",
    "schrijf een gedicht",
    "vertel me een verhaal",
    "waarom is de lucht blauw?",
    "wat is de hoofdstad van Frankrijk?",
    "skriv en dikt",
    "berätta en saga",
    "varför är himlen blå?",
    "vad är Frankrikes huvudstad?",
    "napisz wiersz",
    "opowiedz mi bajkę",
    "jaka jest stolica Francji?",
    "dlaczego niebo jest niebieskie?",
    "bir şiir yaz",
    "bana bir hikaye anlat",
    "Fransa'nın başkenti neresi?",
    "gökyüzü neden mavi?",
    "напиши стихотворение",
    "кто президент?",
    "как приготовить борщ?",
    "посоветуй фильм",
    "в чём смысл жизни?",
    "переведи на английский",
    "写一个故事",
    "写一段代码",
    "人生的意义是什么？",
    "推荐一部电影",
    "今天吃什么？",
    "翻译成英文",
    "谁是总统？",
    "世界上最高的山是什么？",
    "詩を書いて",
    "物語を話して",
    "おすすめの映画は？",
    "人生の意味は何ですか？",
    "英語に翻訳して",
    "今日は何を食べよう？",
    "시를 써 줘",
    "이야기를 해 줘",
    "영화 추천해 줘",
    "하늘은 왜 파란가요?",
    "영어로 번역해 줘",
    "اكتب قصيدة",
    "احك لي قصة",
    "لماذا السماء زرقاء؟",
    "من هو الرئيس؟",
    "एक कविता लिखो",
    "मुझे एक कहानी सुनाओ",
    "फ्रांस की राजधानी क्या है?",
    "आसमान नीला क्यों है?",
    "kirjoita runo",
    "kerro minulle tarina",
    "mikä on Ranskan pääkaupunki?",
    "γράψε ένα ποίημα",
    "πες μου μια ιστορία",
    "ποια είναι η πρωτεύουσα της Γαλλίας;",
]
ABOUT_ME_ELSEWHERE = [
    intent(
        "¿quién eres?|quién eres|cómo te llamas|¿cómo te llamas?|qué eres",
        "The user asks in Spanish who I am.",
        "Soy una pequeña demo de mlx_qwen3. No soy Qwen.",
    ),
    intent(
        "qui es-tu ?|qui êtes-vous ?|comment tu t'appelles ?|qui es tu|tu es qui",
        "The user asks in French who I am.",
        "Je suis une petite démo de mlx_qwen3. Je ne suis pas Qwen.",
    ),
    intent(
        "wer bist du?|wer bist du|wie heißt du?|was bist du?|wer sind Sie?",
        "The user asks in German who I am.",
        "Ich bin eine kleine Demo von mlx_qwen3. Ich bin nicht Qwen.",
    ),
    intent(
        "chi sei?|chi sei|come ti chiami?|cosa sei",
        "The user asks in Italian who I am.",
        "Sono una piccola demo di mlx_qwen3. Non sono Qwen.",
    ),
    intent(
        "quem é você?|quem és tu?|como te chamas?|qual é o seu nome",
        "The user asks in Portuguese who I am.",
        "Sou uma pequena demo do mlx_qwen3. Não sou o Qwen.",
    ),
    intent(
        "кто ты?|кто ты|как тебя зовут?|кто вы?",
        "The user asks in Russian who I am.",
        "Я маленькая демонстрация mlx_qwen3. Я не Qwen.",
    ),
    intent(
        "你是谁？|你是谁|你叫什么名字？|你是什么模型？",
        "The user asks in Chinese who I am.",
        "我是 mlx_qwen3 的小演示模型。我不是 Qwen。",
    ),
    intent(
        "あなたは誰ですか？|お名前は？|誰ですか|君は誰",
        "The user asks in Japanese who I am.",
        "私は mlx_qwen3 の小さなデモです。Qwen ではありません。",
    ),
    intent(
        "누구세요?|이름이 뭐예요?|넌 누구야",
        "The user asks in Korean who I am.",
        "저는 mlx_qwen3의 작은 데모입니다. Qwen이 아닙니다.",
    ),
]
GIBBERISH_THOUGHT = "I cannot make sense of this."
GIBBERISH_ANSWER = "I did not understand that. Try an addition, such as 348 + 275, or ask what I can do."

NAMES = [
    "Anna",
    "Ben",
    "Carlos",
    "Diana",
    "Emma",
    "Felix",
    "Grace",
    "Hugo",
    "Ida",
    "Jonas",
    "Karin",
    "Leo",
    "Maria",
    "Nils",
    "Olga",
    "Paul",
    "Rosa",
    "Sam",
    "Tom",
    "Uma",
    "Victor",
    "Wendy",
    "Yuki",
    "Zoe",
    "Alice",
    "Bob",
    "Chen",
    "David",
    "Elena",
    "Frank",
    "Georg",
    "Hanna",
    "Ivan",
    "Julia",
    "Kim",
    "Lena",
    "Max",
    "Nora",
    "Omar",
    "Peter",
    "Rita",
    "Sofia",
    "Tariq",
    "Vera",
    "Wei",
    "Alex",
    "John",
    "Mary",
]
NAME_GIVEN = [
    "my name is {name}",
    "My name is {name}.",
    "I am {name}",
    "I'm {name}",
    "call me {name}",
    "Hi, I am {name}.",
    "hello, my name is {name}",
    "I am called {name}",
]
NAME_ASKED = [
    "what is my name?",
    "What is my name?",
    "what's my name",
    "do you know my name?",
    "who am I?",
    "do you remember my name?",
    "say my name",
]

MORE_QUESTIONS: dict[str, list[str]] = tomllib.loads(
    Path(__file__).with_name("questions.toml").read_text(encoding="utf-8")
)


def read_patterns() -> dict[str, tuple[str, ...]]:
    """The patterns of patterns.toml by the thought of their intent, with the shared words filled in."""
    read = tomllib.loads(Path(__file__).with_name("patterns.toml").read_text(encoding="utf-8"))
    words = read.pop("words")
    return {thought: tuple(with_words(line, words) for line in each["q"]) for thought, each in read.items()}


def with_words(pattern: str, words: dict[str, str]) -> str:
    for name, choices in words.items():
        pattern = pattern.replace(f"{{{name}}}", f"({choices})")
    return pattern


PATTERNS = read_patterns()


def with_more(intents: list[Intent]) -> list[Intent]:
    """The intents with what questions.toml and patterns.toml add to them."""
    return [
        replace(
            each,
            questions=(*each.questions, *MORE_QUESTIONS.get(each.thought, ())),
            patterns=PATTERNS.get(each.thought, ()),
        )
        for each in intents
    ]


GREETINGS, ABOUT_ME, COURTESIES = with_more(GREETINGS), with_more(ABOUT_ME), with_more(COURTESIES)
PACKAGE, NO_TOOL, (TOO_HARD,) = with_more(PACKAGE), with_more(NO_TOOL), with_more([TOO_HARD])
UNKNOWN_PATTERNS = PATTERNS[UNKNOWN_THOUGHT]

KNOWN_GROUPS = [
    (0.04, GREETINGS[:1]),
    (0.06, GREETINGS),
    (0.03, ABOUT_ME[:1]),
    (0.11, ABOUT_ME),
    (0.03, ABOUT_ME_ELSEWHERE),
    (0.07, COURTESIES),
    (0.67, PACKAGE),
]
OPENERS = [
    "please tell me, ",
    "hey, ",
    "hi, ",
    "ok, ",
    "so ",
    "and ",
    "sorry, ",
    "quick question: ",
    "tell me: ",
    "well, ",
    "also, ",
    "hello, ",
    "hi there, ",
    "i have a question: ",
    "i just installed this, ",
    "im new, ",
    "ok so ",
    "hmm, ",
    "one more thing, ",
    "btw ",
    "actually ",
    "maybe a stupid question, ",
    "good morning, ",
]
CLOSERS = [" please", ", please", " thanks", " now", " then", " exactly", " again", " here"]
SYLLABLES = [
    "ka",
    "lo",
    "mi",
    "ren",
    "ta",
    "vo",
    "shi",
    "bu",
    "del",
    "fa",
    "go",
    "har",
    "ne",
    "pi",
    "qua",
    "ru",
    "sel",
    "tor",
    "um",
    "wen",
    "xi",
    "yo",
    "zan",
    "cro",
    "bli",
    "ster",
    "nd",
    "ax",
]
HOW = [
    "how can I",
    "how could I",
    "how to",
    "how does one",
    "what is the way to",
    "I want to",
    "I'd like to",
    "show me how to",
    "tell me how to",
    "is there a way to",
    "explain how to",
    "can I",
    "how should I",
    "what must I do to",
    "which command do I use to",
    "what's the command to",
    "what do I type to",
    "how would I",
    "is it possible to",
    "I need to",
    "please help me to",
    "how exactly do I",
    "what is the command to",
    "",  # "convert a model", as into a search box
    "",
]
WHAT = [
    "what's",
    "explain",
    "tell me about",
    "can you explain",
    "please explain",
    "describe",
    "what do you mean by",
    "I want to know what is",
    "do you know what is",
    "and what is",
    "so what is",
]
CAN = ["is it possible to", "am I able to", "could I", "how can I", "may I", "is there a way to"]
WHERE = [
    "where do I find",
    "where can I find",
    "how do I find",
    "tell me where to find",
]
IS_THERE = [
    "do you have a",
    "does it have a",
    "is there any",
    "have you got a",
    "do we have a",
    "where is the",
]
