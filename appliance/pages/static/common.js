// What pages that call this server share: elements, calls with a key, bars.
// A key is read from its field at each call, and kept nowhere else.
"use strict";

const WAIT_MS = 120000; // a call that loads a large model first
const DRAWINGS = ["svg", "rect", "circle", "line", "text", "title", "g"];
const element = (id) => document.getElementById(id);

/** Return a new element with attributes and children; texts stay texts. */
function made(name, attributes = {}, ...children) {
  const node = DRAWINGS.includes(name)
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** Return the secret in a field; throw an Error that says what to do if there is none. */
function secretIn(id, name) {
  const secret = element(id).value.trim();
  if (!secret) {
    element(id).focus();
    throw new Error(`Paste ${name} first.`);
  }
  if (!/^[\x21-\x7e]+$/.test(secret)) throw new Error(`That is not ${name}: it has letters, digits and marks alone.`);
  return secret;
}

/** Return the answer to a request; throw an Error that says what is wrong. */
async function ask(path, secret, { body, ...options } = {}) {
  const headers = { "Authorization": `Bearer ${secret}`, "Accept": "application/json", ...options.headers };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, {
    signal: AbortSignal.timeout(WAIT_MS),
    ...options,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    credentials: "omit",
  });
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({ error: null }));
  throw new Error(error ? `${error.message} (${error.code})` : `The server answered ${answer.status}.`);
}

/** Return what a person is told of an error. */
function said(error) {
  if (error.name === "TimeoutError") return "No answer came in two minutes.";
  return error instanceof TypeError ? "The server cannot be reached." : error.message;
}

/** Have a form do its work when it is sent, one at a time, and say in its status what came of it. */
function wire(id, work) {
  const form = element(id);
  if (!form) return;
  const button = form.querySelector("button");
  const status = element(`${id}-status`);
  button.disabled = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    status.classList.remove("bad");
    status.textContent = "Waiting for the answer…";
    try {
      status.textContent = await work();
    } catch (error) {
      status.classList.add("bad");
      status.textContent = said(error);
    }
    button.disabled = false;
  });
}

const number = (value) => Number(value).toLocaleString("en");

/** Return an amount of credits, each one US dollar, as pages write it: no exponent, no idle zeros. */
function money(value) {
  if (value === null) return "unlimited";
  const digits = Number(value).toFixed(12).replace(/0+$/, "").replace(/\.$/, "");
  return `$${digits}`;
}

/** Show names and values in a list of definitions. */
function facts(id, pairs) {
  element(id).replaceChildren(...pairs.map(([name, value]) => made("div", {}, made("dt", {}, name), made("dd", {}, value))));
}

/** Fill a table's body; a row is a list of texts and elements, the first of them its head. */
function fillRows(body, rows, empty) {
  const columns = body.parentElement.querySelectorAll("thead th").length;
  const none = made("tr", {}, made("td", { colspan: columns }, empty));
  body.replaceChildren(...(rows.length ? rows.map(([head, ...cells]) => made(
    "tr", {}, made("th", { scope: "row" }, head), ...cells.map((cell) => made("td", {}, cell)),
  )) : [none]));
}

/** Draw a column for each value, with its label as a title; the highest fills the height. */
function drawColumns(drawing, values, labels) {
  const [width, height, gap] = [720, 120, 2];
  const most = Math.max(...values, 0);
  const each = width / Math.max(values.length, 1);
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawing.replaceChildren(...values.map((value, at) => {
    const tall = most ? Math.max(value ? 1 : 0, (value / most) * (height - 2)) : 0;
    const column = made("rect", { class: "column", x: at * each + gap / 2, y: height - tall, width: Math.max(1, each - gap), height: tall });
    column.append(made("title", {}, `${labels[at]}`));
    return column;
  }), made("line", { class: "axis", x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }));
}

/** Offer a text as a file to keep. */
function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = made("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
