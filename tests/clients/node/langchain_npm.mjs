// LangChain.js.
import { CohereEmbeddings, CohereRerank } from "@langchain/cohere";
import { OllamaEmbeddings } from "@langchain/ollama";
import { OpenAIEmbeddings } from "@langchain/openai";
import { CohereClient } from "cohere-ai";
import { BASE, DOCUMENTS, KEY, MODEL, NO_MODEL, QUERY, QUERY_VECTOR, RERANK_MODEL } from "./check.mjs";
import { TEXTS, WRONG_KEY, client, ranked, refused, same, step } from "./check.mjs";

async function embeds(of) {
  await step("embedDocuments", async () => same(await of.embedDocuments(TEXTS)));
  await step("embedQuery", async () => same([await of.embedQuery(QUERY)], [QUERY_VECTOR]));
}

client("@langchain/openai");
const openai = (apiKey, model) =>
  new OpenAIEmbeddings({ model, apiKey, maxRetries: 0, configuration: { baseURL: `${BASE}/v1` } });
await embeds(openai(KEY, MODEL));
await refused("wrong key", ["key"], () => openai(WRONG_KEY, MODEL).embedQuery(QUERY));
await refused("unknown model", [NO_MODEL], () => openai(KEY, NO_MODEL).embedQuery(QUERY));

client("@langchain/cohere");
const cohere = new CohereClient({ token: KEY, environment: BASE });
await embeds(new CohereEmbeddings({ model: MODEL, client: cohere }));
await step("CohereRerank, topN 3", async () => {
  const reranker = new CohereRerank({ model: RERANK_MODEL, client: cohere, topN: 3 });
  const got = await reranker.rerank(DOCUMENTS, QUERY);
  ranked(got.map((each) => [each.index, each.relevanceScore]), 3);
});

client("@langchain/ollama");
const ollama = (key, model) =>
  new OllamaEmbeddings({ model, baseUrl: BASE, headers: { Authorization: `Bearer ${key}` }, maxRetries: 0 });
await embeds(ollama(KEY, MODEL));
await refused("wrong key", ["key"], () => ollama(WRONG_KEY, MODEL).embedQuery(QUERY));
