// OpenAI's own SDK with its defaults, and its Azure client.
import OpenAI, { AzureOpenAI } from "openai";
import { BASE, KEY, MODEL, NO_MODEL, QUERY, QUERY_VECTOR, TEXTS, VECTORS, WRONG_KEY } from "./check.mjs";
import { client, must, refused, same, step } from "./check.mjs";

const vectors = (answer) => answer.data.map((each) => each.embedding);

client("openai (npm)");
for (const base of [`${BASE}/v1`, BASE]) {
  const sdk = new OpenAI({ baseURL: base, apiKey: KEY });
  await step(`embeds several texts, base URL ${base.slice(BASE.length) || "without /v1"}`, async () => {
    same(vectors(await sdk.embeddings.create({ model: MODEL, input: TEXTS })));
  });
}
const sdk = new OpenAI({ baseURL: `${BASE}/v1`, apiKey: KEY });
await step("embeds one text", async () => {
  const got = await sdk.embeddings.create({ model: MODEL, input: QUERY });
  same(vectors(got), [QUERY_VECTOR]);
  must(got.object === "list" && got.usage.total_tokens > 0, "no list, no usage");
});
await step("embeds as floats", async () => {
  same(vectors(await sdk.embeddings.create({ model: MODEL, input: TEXTS, encoding_format: "float" })));
});
await step("dimensions of the model", async () => {
  same(vectors(await sdk.embeddings.create({ model: MODEL, input: TEXTS, dimensions: 384 })), VECTORS);
});
await refused("dimensions that it does not have", ["400", "384"], () =>
  sdk.embeddings.create({ model: MODEL, input: TEXTS, dimensions: 64 }),
);
await step("lists and shows models", async () => {
  const listed = [];
  for await (const model of sdk.models.list()) listed.push(model.id);
  must(listed.includes((await sdk.models.retrieve(MODEL)).id), listed);
});
await refused("wrong key", ["401", "key"], () =>
  new OpenAI({ baseURL: `${BASE}/v1`, apiKey: WRONG_KEY }).embeddings.create({ model: MODEL, input: QUERY }),
);
await refused("unknown model", ["404", NO_MODEL], () =>
  sdk.embeddings.create({ model: NO_MODEL, input: QUERY }),
);

client("openai AzureOpenAI (npm)");
const azure = new AzureOpenAI({ endpoint: BASE, apiKey: KEY, apiVersion: "2024-10-21" });
for (const model of [MODEL, "sentence-transformers/all-MiniLM-L6-v2"]) {
  await step(`embeds several texts, ${model}`, async () => {
    same(vectors(await azure.embeddings.create({ model, input: TEXTS })));
  });
}
