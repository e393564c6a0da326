// promptfoo: its check of similarity, with its provider for OpenAI's embeddings.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { BASE, KEY, MODEL, NO_MODEL, TEXTS, VECTORS, WRONG_KEY, client, must, refused, step } from "./check.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "promptfoo-"));

/** Run its command, and return the results of one text that is compared with the others. */
function evaluate(key, model) {
  const config = { apiBaseUrl: `${BASE}/v1`, apiKey: key };
  const embedding = { id: `openai:embedding:${model}`, config };
  const tests = TEXTS.slice(1).map((value) => ({ assert: [{ type: "similar", value, threshold: -1 }] }));
  const defaultTest = { options: { provider: { embedding } } };
  const written = JSON.stringify({ providers: ["echo"], prompts: [TEXTS[0]], tests, defaultTest });
  writeFileSync(join(folder, "config.json"), written);
  const command = [join(here, "node_modules/.bin/promptfoo"), "eval", "--no-cache", "--no-write"];
  spawnSync("node", [...command, "-c", "config.json", "-o", "out.json"], {
    cwd: folder,
    env: {
      ...process.env,
      PROMPTFOO_CONFIG_DIR: folder,
      PROMPTFOO_DISABLE_TELEMETRY: "1",
      PROMPTFOO_DISABLE_UPDATE: "1",
      PROMPTFOO_DISABLE_REMOTE_GENERATION: "true",
    },
  });
  const { results } = JSON.parse(readFileSync(join(folder, "out.json"), "utf8"));
  const failed = results.results.find((each) => !each.success);
  if (failed) throw new Error(failed.gradingResult?.reason ?? failed.error);
  return results.results.map((each) => each.score);
}

client("promptfoo");
await step("similar, embeddings of three pairs", () => {
  const scores = evaluate(KEY, MODEL).sort();
  const wanted = VECTORS.slice(1)
    .map((vector) => vector.reduce((sum, number, i) => sum + number * VECTORS[0][i], 0))
    .sort();
  must(wanted.every((score, i) => Math.abs(score - scores[i]) < 1e-3), `${scores} instead of ${wanted}`);
});
await refused("wrong key", ["key"], () => evaluate(WRONG_KEY, MODEL));
await refused("unknown model", [NO_MODEL], () => evaluate(KEY, NO_MODEL));
