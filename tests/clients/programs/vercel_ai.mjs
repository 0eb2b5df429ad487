// Vercel's AI SDK, over chat completions, responses and Anthropic's API.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embedMany, generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import { API, DESCRIPTION, ENDLESS, LONG, PARAMETERS, QUESTION, RESULT, SCHEMA, SUM, TIME, check, getTime, isIdle } from "./task.mjs";

const local = createOpenAICompatible({ name: "local", baseURL: API, apiKey: "none", supportsStructuredOutputs: true });
const models = {
  chat: local("demo"),
  responses: createOpenAI({ baseURL: API, apiKey: "none" }).responses("demo"),
  anthropic: createAnthropic({ baseURL: API, apiKey: "none" })("demo"),
};
const tools = { get_time: tool({ description: DESCRIPTION, inputSchema: jsonSchema(PARAMETERS), execute: async (input) => getTime(input) }) };

for (const [name, model] of Object.entries(models)) {
  const base = { model, maxRetries: 0, maxOutputTokens: 1000 };
  if (name === "anthropic") base.providerOptions = { anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } } };
  const answer = await generateText({ ...base, prompt: SUM });
  check(`${name}: chat`, answer.text.includes(RESULT), answer.text);
  let text = "";
  for await (const piece of streamText({ ...base, prompt: SUM }).textStream) text += piece;
  check(`${name}: stream`, text.includes(RESULT), text);
  const looped = await generateText({ ...base, prompt: QUESTION, tools, stopWhen: stepCountIs(4) });
  check(`${name}: tools to the end`, looped.text.includes(TIME), looped.steps);
  const streamed = streamText({ ...base, prompt: QUESTION, tools, stopWhen: stepCountIs(4) });
  check(`${name}: tools to the end, streamed`, (await streamed.text).includes(TIME), await streamed.steps);
  if (name === "anthropic") continue; // the provider asks for schemas by model name
  const { output } = await generateText({ ...base, prompt: SUM, output: Output.object({ schema: jsonSchema(SCHEMA) }) });
  check(`${name}: schema`, Number.isInteger(output.sum), output);
}
const controller = new AbortController();
const cut = streamText({ model: models.chat, prompt: LONG, providerOptions: { local: ENDLESS }, abortSignal: controller.signal, onError() {}, onAbort() {} });
for await (const _ of cut.textStream) controller.abort();
check("cancel", await isIdle());
check("chat after a cancel", (await generateText({ model: models.chat, prompt: SUM })).text.includes(RESULT));

const found = await embedMany({ model: local.embeddingModel("demo"), values: ["hi", "hello there"] });
check("embeddings", found.embeddings.length === 2, found);

try {
  await generateText({ model: models.chat, maxRetries: 0, prompt: SUM, providerOptions: { local: { frobnicate: 1 } } });
  check("error", false);
} catch (error) {
  check("error", APICallError.isInstance(error) && error.statusCode === 400 && error.message.includes("frobnicate"), error);
}
