// The playground: texts compared and documents ranked by this server's own API.
"use strict";

const TEXTS_MAX = 20;
const STARTS = [0.7548776662, 0.569840291];
const SIZE = 360; // of a picture, in its own units
const lines = (id) => element(id).value.split("\n").map((line) => line.trim()).filter(Boolean);
const cut = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

// -- calls -----------------------------------------------------------------------------------------

/** Return the answer to a call and what it cost, in words; throw an Error that says what to do. */
async function call(path, body) {
  const answer = await ask(path, secretIn("key", "a key"), { method: "POST", body, headers: { "Prefer": "wait=60" } });
  const found = await answer.json();
  const balance = answer.headers.get("x-balance");
  const left = balance === "unlimited" ? "the key is unlimited" : `$${balance} left`;
  return [found, `${number(found.usage.total_tokens)} tokens, $${answer.headers.get("x-cost")}, ${left}`];
}

// -- likeness --------------------------------------------------------------------------------------

const dot = (a, b) => a.reduce((sum, value, at) => sum + value * b[at], 0);

/** Return the cosine of each pair of vectors. */
function cosines(vectors) {
  const lengths = vectors.map((vector) => Math.sqrt(dot(vector, vector)) || 1);
  return vectors.map((a, i) => vectors.map((b, j) => dot(a, b) / (lengths[i] * lengths[j])));
}

/**
 * Return each vector's place on the two principal axes, and how much of the variance they hold.
 * The axes come from the products of the centred vectors, of which there are few (power iteration).
 */
function project(vectors) {
  const mean = vectors[0].map((_, at) => vectors.reduce((sum, v) => sum + v[at], 0) / vectors.length);
  const centred = vectors.map((vector) => vector.map((value, at) => value - mean[at]));
  const products = centred.map((a) => centred.map((b) => dot(a, b)));
  const total = products.reduce((sum, row, at) => sum + row[at], 0);
  const axes = [];
  let held = 0;
  for (let axis = 0; axis < 2; axis += 1) {
    let unit = products.map((_, at) => ((at + 1) * STARTS[axis]) % 1 - 0.5); // no symmetry that data may have
    let value = 0;
    for (let step = 0; step < 300; step += 1) {
      const next = products.map((row) => dot(row, unit));
      value = Math.sqrt(dot(next, next));
      if (value < 1e-12) break;
      unit = next.map((each) => each / value);
    }
    if (value < 1e-9) { axes.push(unit.map(() => 0)); continue; }
    held += value;
    axes.push(unit.map((each) => each * Math.sqrt(value)));
    products.forEach((row, i) => row.forEach((_, j) => { row[j] -= value * unit[i] * unit[j]; }));
  }
  return { points: vectors.map((_, at) => [axes[0][at], axes[1][at]]), share: total > 1e-9 ? Math.min(1, held / total) : 1 };
}

function drawMap(texts, table) {
  const margin = 22;
  const side = (SIZE - margin) / texts.length;
  const least = Math.min(...table.flat(), 0.999);
  const drawn = element("map");
  drawn.setAttribute("viewBox", `0 0 ${SIZE} ${SIZE}`);
  drawn.replaceChildren();
  table.forEach((row, i) => {
    const middle = margin + (i + 0.5) * side;
    drawn.append(made("text", { class: "axis", x: margin / 2, y: middle }, String(i + 1)));
    drawn.append(made("text", { class: "axis", x: middle, y: margin / 2 }, String(i + 1)));
    row.forEach((value, j) => {
      const x = margin + j * side;
      const y = margin + i * side;
      // Half of the colour at most: the number on it stays readable in both themes.
      const depth = (0.5 * (value - least)) / (1 - least);
      const cell = made("rect", { class: "cell", x, y, width: side, height: side, "fill-opacity": Math.max(0, depth).toFixed(3) });
      cell.append(made("title", {}, `${i + 1} and ${j + 1}: ${value.toFixed(3)}`));
      drawn.append(cell);
      if (texts.length <= 12) drawn.append(made("text", { x: x + side / 2, y: y + side / 2, "pointer-events": "none" }, value.toFixed(2)));
    });
  });
}

function drawPlane(texts, vectors) {
  const { points, share } = project(vectors);
  const reach = Math.max(...points.flat().map(Math.abs), 1e-9);
  const half = SIZE / 2;
  const drawn = element("plane");
  drawn.setAttribute("viewBox", `0 0 ${SIZE} ${SIZE}`);
  drawn.replaceChildren(made("rect", { class: "frame", x: 0.5, y: 0.5, width: SIZE - 1, height: SIZE - 1 }));
  points.forEach(([x, y], at) => {
    const place = { cx: half + (x / reach) * (half - 16), cy: half - (y / reach) * (half - 16) };
    const group = made("g", {}, made("title", {}, texts[at]));
    group.append(made("circle", { class: "dot", ...place, r: 10 }), made("text", { x: place.cx, y: place.cy }, String(at + 1)));
    drawn.append(group);
  });
  element("share").textContent = `they hold ${Math.round(100 * share)} % of the variance`;
}

function writeNumbers(texts, table) {
  const head = made("tr", {}, made("th", { scope: "col" }, "Text"));
  texts.forEach((_, at) => head.append(made("th", { scope: "col" }, String(at + 1))));
  const body = made("tbody");
  table.forEach((row, at) => {
    const line = made("tr", {}, made("th", { scope: "row" }, `${at + 1}`));
    row.forEach((value) => line.append(made("td", {}, value.toFixed(3))));
    body.append(line);
  });
  element("numbers").replaceChildren(made("thead", {}, head), body);
}

wire("embed", async () => {
  const texts = lines("texts");
  if (texts.length < 2 || texts.length > TEXTS_MAX) throw new Error(`2 to ${TEXTS_MAX} texts, one a line: there are ${texts.length}.`);
  const [found, cost] = await call("/v1/embeddings", { model: element("embed-model").value, input: texts, encoding_format: "float" });
  const vectors = found.data.map((each) => each.embedding);
  const table = cosines(vectors);
  element("likeness").hidden = false;
  drawMap(texts, table);
  drawPlane(texts, vectors);
  writeNumbers(texts, table);
  element("legend").replaceChildren(...texts.map((text) => made("li", {}, cut(text, 300))));
  return `${cost}; ${vectors[0].length} dimensions.`;
});

// -- ranking ---------------------------------------------------------------------------------------

wire("rerank", async () => {
  const documents = lines("documents");
  const query = element("query").value.trim();
  if (!query) throw new Error("Write a query.");
  if (documents.length < 1 || documents.length > TEXTS_MAX) throw new Error(`1 to ${TEXTS_MAX} documents, one a line: there are ${documents.length}.`);
  const [found, cost] = await call("/v1/rerank", { model: element("rerank-model").value, query, documents });
  element("ranking").replaceChildren(...found.results.map(({ index, relevance_score: score }) => made(
    "li", {},
    made("span", { class: "score" }, score.toFixed(4)),
    made("meter", { min: 0, max: 1, value: score, "aria-label": `Score of document ${index + 1}` }),
    cut(documents[index], 300),
  )));
  return `${cost}.`;
});
