// What every client asks the server; see task.py.
export const URL_ = process.argv[2] ?? "http://127.0.0.1:8080";
export const API = `${URL_}/v1`;
export const [SUM, RESULT] = ["what is 47+85?", "132"];
export const [QUESTION, TIME] = ["what time is it in Paris?", "14:05"];
export const DESCRIPTION = "Get the current time in a city";
export const PARAMETERS = {
  type: "object",
  properties: { city: { type: "string", description: "The city" } },
  required: ["city"],
};
export const SCHEMA = {
  type: "object",
  properties: { sum: { type: "integer", minimum: 0, maximum: 999 } },
  required: ["sum"],
  additionalProperties: false,
};
export const LONG = "Say hello in three languages, then once more, and again.";
export const ENDLESS = { min_tokens: 12000 };
export const getTime = ({ city }) => (city.toLowerCase().includes("paris") ? TIME : `unknown city ${city}`);
export async function isIdle(seconds = 20) {
  for (const end = Date.now() + seconds * 1000; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 50)))
    if (!(await (await fetch(`${URL_}/status`)).json()).requests.length) return true;
  return false;
}
export function check(name, passed, shown = "") {
  if (!passed) {
    console.log(`FAILED ${name}: ${JSON.stringify(shown)}`);
    process.exit(1);
  }
  console.log(`ok ${name}`);
}
