// Cohere's SDK: its client of version 1 and of version 2.
import { CohereClient, CohereClientV2 } from "cohere-ai";
import { BASE, DOCUMENTS, KEY, MODEL, NO_MODEL, QUERY, QUERY_VECTOR, RERANK_MODEL } from "./check.mjs";
import { TEXTS, WRONG_KEY, client, must, ranked, refused, same, sameBytes, step } from "./check.mjs";

const KINDS = ["int8", "uint8", "binary", "ubinary"];
const pairs = (answer) => answer.results.map((each) => [each.index, each.relevanceScore]);

client("cohere-ai CohereClient (npm)");
const one = new CohereClient({ token: KEY, environment: BASE });
await step("embeds several texts", async () => {
  const got = await one.embed({ texts: TEXTS, model: MODEL, inputType: "search_document" });
  same(got.embeddings);
  must(got.responseType === "embeddings_floats", got.responseType);
});
await step("embedding types", async () => {
  const embeddingTypes = ["float", ...KINDS];
  const got = await one.embed({ texts: TEXTS, model: MODEL, inputType: "clustering", embeddingTypes });
  same(got.embeddings.float);
  for (const kind of KINDS) sameBytes(got.embeddings[kind], kind);
});
await step("reranks, top_n and documents", async () => {
  const got = await one.rerank({
    model: RERANK_MODEL,
    query: QUERY,
    documents: DOCUMENTS.map((text) => ({ text })),
    topN: 3,
    returnDocuments: true,
  });
  ranked(pairs(got), 3);
  must(got.results.every((each) => each.document.text === DOCUMENTS[each.index]), "other documents");
});
await step("tokenize and detokenize", async () => {
  const { tokens } = await one.tokenize({ text: "a man is eating food.", model: MODEL });
  must((await one.detokenize({ tokens, model: MODEL })).text.trim() === "a man is eating food.", tokens);
});
await step("lists models", async () => {
  const { models } = await one.models.list();
  must(models.some((model) => model.name === RERANK_MODEL && model.endpoints.includes("rerank")), models);
});
await refused("wrong key", ["401", "key"], () =>
  new CohereClient({ token: WRONG_KEY, environment: BASE }).embed({ texts: TEXTS, model: MODEL }),
);

client("cohere-ai CohereClientV2 (npm)");
const two = new CohereClientV2({ token: KEY, environment: BASE });
await step("embeds a query", async () => {
  const got = await two.embed({
    texts: [QUERY],
    model: MODEL,
    inputType: "search_query",
    embeddingTypes: ["float"],
  });
  same(got.embeddings.float, [QUERY_VECTOR]);
});
await step("all embedding types in one answer", async () => {
  const embeddingTypes = ["float", "base64", ...KINDS];
  const got = await two.embed({ texts: TEXTS, model: MODEL, inputType: "search_document", embeddingTypes });
  same(got.embeddings.float);
  for (const kind of KINDS) sameBytes(got.embeddings[kind], kind);
  const floats = got.embeddings.base64.map((text) => {
    const bytes = Buffer.from(text, "base64");
    return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
  });
  same(floats);
});
await step("reranks", async () => {
  ranked(pairs(await two.rerank({ model: RERANK_MODEL, query: QUERY, documents: DOCUMENTS, topN: 2 })), 2);
});
await refused("wrong key", ["401", "key"], () =>
  new CohereClientV2({ token: WRONG_KEY, environment: BASE }).rerank({
    model: RERANK_MODEL,
    query: QUERY,
    documents: DOCUMENTS,
  }),
);
await refused("unknown model", ["404", NO_MODEL], () =>
  two.rerank({ model: NO_MODEL, query: QUERY, documents: DOCUMENTS }),
);
