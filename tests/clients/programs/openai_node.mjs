// OpenAI's client for JavaScript: chat completions and responses.
import OpenAI from "openai";
import { API, DESCRIPTION, ENDLESS, LONG, PARAMETERS, QUESTION, RESULT, SCHEMA, SUM, TIME, check, getTime, isIdle } from "./task.mjs";

const client = new OpenAI({ baseURL: API, apiKey: "none", maxRetries: 0 });
const user = (content) => [{ role: "user", content }];
const base = { model: "demo", temperature: 0, seed: 1 };
const tool = { type: "function", function: { name: "get_time", description: DESCRIPTION, parameters: PARAMETERS } };

const answer = await client.chat.completions.create({ ...base, messages: user(SUM) });
check("chat", answer.choices[0].message.content.includes(RESULT), answer);

let text = "";
for await (const chunk of await client.chat.completions.create({ ...base, messages: user(SUM), stream: true }))
  text += chunk.choices[0]?.delta?.content ?? "";
check("stream", text.includes(RESULT), text);

const running = client.chat.completions.runTools({
  ...base, messages: user(QUESTION), stream: true,
  tools: [{ type: "function", function: { ...tool.function, function: getTime, parse: JSON.parse } }],
});
check("tools to the end, streamed", (await running.finalContent()).includes(TIME));

const format = { type: "json_schema", json_schema: { name: "sum", schema: SCHEMA, strict: true } };
const structured = await client.chat.completions.create({ ...base, messages: user(SUM), response_format: format, max_tokens: 400 });
check("schema", Number.isInteger(JSON.parse(structured.choices[0].message.content).sum), structured);

try {
  await client.chat.completions.create({ ...base, messages: user("hi"), frobnicate: 1 });
  check("error", false);
} catch (error) {
  check("error", error instanceof OpenAI.BadRequestError && error.message.includes("frobnicate"), error);
}

const cancelled = await client.chat.completions.create({ ...base, messages: user(LONG), stream: true, ...ENDLESS });
for await (const _ of cancelled) break;
check("cancel", await isIdle());
const after = await client.chat.completions.create({ ...base, messages: user(SUM) });
check("chat after a cancel", after.choices[0].message.content.includes(RESULT));

const found = await client.embeddings.create({ model: "demo", input: ["hi", "hello there"] });
check("embeddings", found.data.length === 2 && found.data[0].embedding.every(Number.isFinite), found);

const first = await client.responses.create({ model: "demo", input: QUESTION, temperature: 0, tools: [{ type: "function", strict: false, ...tool.function }] });
const calls = first.output.filter((item) => item.type === "function_call");
check("responses: calls", calls.length, first);
const input = calls.map((call) => ({ type: "function_call_output", call_id: call.call_id, output: getTime(JSON.parse(call.arguments)) }));
const second = client.responses.stream({ model: "demo", input, previous_response_id: first.id, temperature: 0 });
check("responses: tools to the end, streamed", (await second.finalResponse()).output_text.includes(TIME));
