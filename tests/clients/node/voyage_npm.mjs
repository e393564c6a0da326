// Voyage AI's SDK.
import { VoyageAIClient } from "voyageai";
import { BASE, DOCUMENTS, KEY, MODEL, NO_MODEL, QUERY, QUERY_VECTOR, RERANK_MODEL } from "./check.mjs";
import { TEXTS, WRONG_KEY, client, ranked, refused, same, sameBytes, step } from "./check.mjs";

client("voyageai (npm)");
const vectors = (answer) => answer.data.map((each) => each.embedding);
const vo = new VoyageAIClient({ apiKey: KEY, environment: `${BASE}/v1` });
await step("embeds several texts", async () => {
  same(vectors(await vo.embed({ input: TEXTS, model: MODEL, inputType: "document" })));
});
await step("embeds one text", async () => {
  same(vectors(await vo.embed({ input: QUERY, model: MODEL, inputType: "query" })), [QUERY_VECTOR]);
});
for (const outputDtype of ["int8", "ubinary"]) {
  await step(`output_dtype ${outputDtype}`, async () => {
    sameBytes(vectors(await vo.embed({ input: TEXTS, model: MODEL, outputDtype })), outputDtype);
  });
}
await step("reranks, top_k 3", async () => {
  const got = await vo.rerank({ query: QUERY, documents: DOCUMENTS, model: RERANK_MODEL, topK: 3 });
  ranked(got.data.map((each) => [each.index, each.relevanceScore]), 3);
});
await refused("wrong key", ["401", "key"], () =>
  new VoyageAIClient({ apiKey: WRONG_KEY, environment: `${BASE}/v1` }).embed({ input: TEXTS, model: MODEL }),
);
await refused("unknown model", ["404", NO_MODEL], () => vo.embed({ input: TEXTS, model: NO_MODEL }));
