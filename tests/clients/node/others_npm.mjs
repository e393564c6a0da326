// LlamaIndex.TS, Ollama's SDK and Hugging Face's.
import { InferenceClient } from "@huggingface/inference";
import { OpenAIEmbedding } from "@llamaindex/openai";
import { Ollama } from "ollama";
import { BASE, KEY, MODEL, NO_MODEL, QUERY, QUERY_VECTOR, TEXTS, WRONG_KEY } from "./check.mjs";
import { client, must, refused, same, step } from "./check.mjs";

client("llamaindex.ts OpenAIEmbedding");
const embedding = new OpenAIEmbedding({ model: MODEL, apiKey: KEY, baseURL: `${BASE}/v1` });
await step("embeds several texts", async () => same(await embedding.getTextEmbeddingsBatch(TEXTS)));
await step("embeds a query", async () => {
  same([await embedding.getQueryEmbedding({ type: "text", text: QUERY })], [QUERY_VECTOR]);
});

client("ollama (npm)");
const ollama = (key) => new Ollama({ host: BASE, headers: { Authorization: `Bearer ${key}` } });
await step("embeds several texts", async () => {
  same((await ollama(KEY).embed({ model: MODEL, input: TEXTS })).embeddings);
});
await step("embeds by the older call", async () => {
  same([(await ollama(KEY).embeddings({ model: MODEL, prompt: QUERY })).embedding], [QUERY_VECTOR]);
});
await step("lists models", async () => must((await ollama(KEY).list()).models.length > 0, "none"));
await refused("wrong key", ["key"], () => ollama(WRONG_KEY).embed({ model: MODEL, input: QUERY }));
await refused("unknown model", [NO_MODEL], () => ollama(KEY).embed({ model: NO_MODEL, input: QUERY }));

client("@huggingface/inference");
const hub = new InferenceClient(KEY, { endpointUrl: `${BASE}/tei/${MODEL}` });
await step("featureExtraction of several texts", async () => {
  same(await hub.featureExtraction({ inputs: TEXTS }));
});
await step("featureExtraction of one text", async () => {
  same(await hub.featureExtraction({ inputs: QUERY }), [QUERY_VECTOR]);
});
await refused("wrong key", ["key"], () =>
  new InferenceClient(WRONG_KEY, { endpointUrl: `${BASE}/tei/${MODEL}` }).featureExtraction({ inputs: QUERY }),
);
