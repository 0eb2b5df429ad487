// Anthropic's client for JavaScript.
import Anthropic from "@anthropic-ai/sdk";
import { DESCRIPTION, LONG, PARAMETERS, QUESTION, RESULT, SCHEMA, SUM, TIME, URL_, check, getTime, isIdle } from "./task.mjs";

const client = new Anthropic({ baseURL: URL_, apiKey: "none", maxRetries: 0 });
const base = { model: "demo", max_tokens: 1000, seed: 1, thinking: { type: "enabled", budget_tokens: 1024 } };
const user = (content) => ({ role: "user", content });
const textOf = (message) => message.content.filter((block) => block.type === "text").map((block) => block.text).join("");

const answer = await client.messages.create({ ...base, messages: [user(SUM)] });
check("chat", textOf(answer).includes(RESULT), answer);
check("thinking", answer.content[0].type === "thinking" && answer.content[0].signature, answer);

const tools = [{ name: "get_time", description: DESCRIPTION, input_schema: PARAMETERS }];
const message = await client.messages.stream({ ...base, messages: [user(QUESTION)], tools }).finalMessage();
check("calls, streamed", message.stop_reason === "tool_use", message);
const results = message.content.filter((block) => block.type === "tool_use")
  .map((block) => ({ type: "tool_result", tool_use_id: block.id, content: getTime(block.input) }));
const messages = [user(QUESTION), { role: "assistant", content: message.content }, user(results)];
const end = await client.messages.stream({ ...base, messages, tools }).finalMessage();
check("tools to the end, streamed", textOf(end).includes(TIME), end);
check("cached tokens", end.usage.cache_read_input_tokens > 0, end);

const format = { type: "json_schema", schema: SCHEMA };
const structured = await client.messages.create({ ...base, thinking: undefined, messages: [user(SUM)], output_config: { format } });
check("schema", Number.isInteger(JSON.parse(textOf(structured)).sum), structured);

try {
  await client.messages.create({ ...base, messages: [user("hi")], frobnicate: 1 });
  check("error", false);
} catch (error) {
  check("error", error instanceof Anthropic.BadRequestError && error.message.includes("frobnicate"), error);
}

const cancelled = client.messages.stream({ ...base, messages: [user(LONG)] });
for await (const _ of cancelled) break;
cancelled.abort();
check("cancel", await isIdle());
check("chat after a cancel", textOf(await client.messages.create({ ...base, messages: [user(SUM)] })).includes(RESULT));
