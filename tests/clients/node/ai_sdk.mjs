// Vercel's AI SDK: its providers for OpenAI-compatible servers, Cohere and Voyage.
import { createCohere } from "@ai-sdk/cohere";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, embedMany, rerank } from "ai";
import { createVoyage } from "voyage-ai-provider";
import { BASE, DOCUMENTS, KEY, MODEL, NO_MODEL, QUERY, QUERY_VECTOR, RERANK_MODEL } from "./check.mjs";
import { TEXTS, WRONG_KEY, client, must, ranked, refused, same, step } from "./check.mjs";

const pairs = (answer) => answer.ranking.map((each) => [each.originalIndex, each.score]);

async function embeds(of) {
  await step("embedMany", async () => {
    const got = await embedMany({ model: of(KEY, MODEL), values: TEXTS });
    same(got.embeddings);
    must(got.usage.tokens > 0, "no usage");
  });
  await step("embed", async () => {
    same([(await embed({ model: of(KEY, MODEL), value: QUERY })).embedding], [QUERY_VECTOR]);
  });
  await refused("wrong key", ["key"], () =>
    embed({ model: of(WRONG_KEY, MODEL), value: QUERY, maxRetries: 0 }),
  );
  await refused("unknown model", [NO_MODEL], () =>
    embed({ model: of(KEY, NO_MODEL), value: QUERY, maxRetries: 0 }),
  );
}

async function reranks(model) {
  await step("rerank, topN 3", async () => {
    ranked(pairs(await rerank({ model, query: QUERY, documents: DOCUMENTS, topN: 3 })), 3);
  });
}

client("AI SDK openai-compatible");
await embeds((apiKey, model) =>
  createOpenAICompatible({ name: "gigarouter", baseURL: `${BASE}/v1`, apiKey }).embeddingModel(model),
);
client("AI SDK cohere");
const cohere = (apiKey) => createCohere({ baseURL: `${BASE}/v2`, apiKey });
await embeds((apiKey, model) => cohere(apiKey).embedding(model));
await reranks(cohere(KEY).reranking(RERANK_MODEL));
client("AI SDK voyage-ai-provider");
const voyage = (apiKey) => createVoyage({ baseURL: `${BASE}/v1`, apiKey });
await embeds((apiKey, model) => voyage(apiKey).embeddingModel(model));
await reranks(voyage(KEY).reranking(RERANK_MODEL));
