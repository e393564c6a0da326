// What every client's script says and checks: steps, and values that must be the plain answers'.
// Reads BASE, KEY, MODEL and RERANK_MODEL. Prints one JSON line for each step that was tried.
export const { BASE, KEY, MODEL, RERANK_MODEL } = process.env;
export const WRONG_KEY = "gr-" + "0".repeat(38);
export const NO_MODEL = "no-such-model";
export const TEXTS = [
  "A man is eating food.",
  "The sky is blue today.",
  "Zürich liegt an der Limmat: 東京 does not.",
  "To reset your password, open Settings and choose Security.",
];
export const QUERY = "How do I reset my password?";
export const DOCUMENTS = [
  "Invoices are sent on the first of every month.",
  "Our office is closed on public holidays.",
  "Password reset: open Settings, choose Security, then Reset password.",
  "A password has at least twelve characters.",
  "The canteen serves lunch until two.",
];
let current = "?";

/** Say which row of the table the next steps belong to. */
export function client(name) {
  current = name;
}

function say(step, why) {
  console.log("\n" + JSON.stringify({ client: current, step, why }));
}

function told(error) {
  const body = error?.responseBody ?? error?.body ?? error?.error ?? "";
  return `${error?.name}: ${error?.message} ${typeof body === "string" ? body : JSON.stringify(body)}`;
}

/** Try one thing; the next ones are tried however it ends. */
export async function step(name, action) {
  try {
    await action();
    say(name, null);
  } catch (error) {
    say(name, told(error).replace(/\s+/g, " ").slice(0, 400));
  }
}

/** Try what must fail: with an error in which the server's words can be read. */
export async function refused(name, words, action) {
  await step(name, async () => {
    let answer;
    try {
      answer = await action();
    } catch (error) {
      const shown = told(error).toLowerCase();
      const missing = words.filter((word) => !shown.includes(word.toLowerCase()));
      if (missing.length) throw new Error(`does not say ${missing}: ${shown.slice(0, 200)}`);
      return;
    }
    throw new Error(`was answered: ${JSON.stringify(answer)?.slice(0, 100)}`);
  });
}

export function must(holds, message) {
  if (!holds) throw new Error(message);
}

/** Ask the server without any client. */
export async function plain(path, body) {
  const answer = await fetch(BASE + path, {
    method: "POST",
    headers: { authorization: `Bearer ${KEY}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return answer.json();
}

async function embedPlainly(texts) {
  const answer = await plain("/v1/embeddings", { model: MODEL, input: texts });
  return answer.data.map((item) => item.embedding);
}

export const VECTORS = await embedPlainly(TEXTS);
export const [QUERY_VECTOR] = await embedPlainly([QUERY]);
const answer = await plain("/v1/rerank", { model: RERANK_MODEL, query: QUERY, documents: DOCUMENTS });
export const RANKED = answer.results.map((each) => [each.index, each.relevance_score]);

function cosine(one, other) {
  let [product, length, otherLength] = [0, 0, 0];
  for (let i = 0; i < other.length; i++) {
    product += one[i] * other[i];
    length += one[i] ** 2;
    otherLength += other[i] ** 2;
  }
  return product / Math.sqrt(length * otherLength);
}

/** Require the vectors of the plain answer, in their order. */
export function same(got, expected = VECTORS) {
  must(got?.length === expected.length, `${got?.length} vectors instead of ${expected.length}`);
  expected.forEach((vector, row) => {
    must(got[row]?.length === vector.length, `${got[row]?.length} numbers instead of ${vector.length}`);
    must(cosine(got[row], vector) >= 0.999, `cosine ${cosine(got[row], vector)}`);
    const furthest = Math.max(...vector.map((number, i) => Math.abs(number - got[row][i])));
    must(furthest <= 1e-3, `numbers differ by ${furthest}`);
  });
}

/** Require int8, uint8, binary or ubinary of the vectors. */
export function sameBytes(got, kind, expected = VECTORS) {
  must(got?.length === expected.length, `${got?.length} vectors instead of ${expected.length}`);
  expected.forEach((vector, row) => {
    const numbers = Array.from(got[row]);
    must(numbers.every(Number.isInteger), `${kind} has other than whole numbers`);
    if (kind.endsWith("binary")) {
      const bits = Array.from({ length: vector.length / 8 }, (_, byte) =>
        vector.slice(8 * byte, 8 * byte + 8).reduce((sum, number) => 2 * sum + (number > 0 ? 1 : 0), 0),
      );
      const wanted = kind === "binary" ? bits.map((byte) => byte - 128) : bits;
      must(JSON.stringify(numbers) === JSON.stringify(wanted), `other bits of ${kind}`);
    } else {
      const centred = numbers.map((number) => number - (kind === "uint8" ? 128 : 0));
      must(centred.length === vector.length, `${centred.length} numbers instead of ${vector.length}`);
      must(cosine(centred, vector) >= 0.99, `${kind}: cosine ${cosine(centred, vector)}`);
    }
  });
}

/** Require the plain answer's indices and scores, best first. */
export function ranked(pairs, topN = RANKED.length) {
  const wanted = RANKED.slice(0, topN);
  must(
    JSON.stringify(pairs.map(([index]) => index)) === JSON.stringify(wanted.map(([index]) => index)),
    `order ${JSON.stringify(pairs)}`,
  );
  wanted.forEach(([, score], row) => {
    must(Math.abs(pairs[row][1] - score) <= 1e-3, `scores ${JSON.stringify(pairs)}`);
  });
}
