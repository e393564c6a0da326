// The operator's page: keys, models and use, by the API that the command line and the console have.
"use strict";

const PREFIX = "/admin/v1";
const POLL_MS = 1000;
const token = () => secretIn("token", "the token");
const read = async (path) => (await ask(PREFIX + path, token())).json();
const send = async (path, body, method = "POST") => (await ask(PREFIX + path, token(), { method, body })).json();
const done = (state) => ["done", "failed", "cancelled"].includes(state);

/** Return a button that does something, and says in a status what came of it. */
function does(label, work, about) {
  const button = made("button", { type: "button", class: "small-button", "aria-label": `${label} ${about}` }, label);
  button.addEventListener("click", work);
  return button;
}

// -- dialogs -------------------------------------------------------------------------------------

let chosen = null; // the key that an open dialog is about
let order = ""; // the name of what it orders: sent twice, it adds credit once

function open(id, key) {
  chosen = key;
  order = crypto.getRandomValues(new Uint32Array(4)).join("-");
  element(id).querySelector("form")?.reset();
  const status = element(id).querySelector(".result");
  if (status) status.textContent = "";
  if (key && id !== "secret") element(`${id}-title`).textContent = `${TITLES[id]}: ${key.name}`;
  element(id).showModal();
}

const TITLES = { topup: "Top up", rotate: "A new credential for", revoke: "Revoke", limit: "Limits of" };

for (const button of document.querySelectorAll("[data-opens]")) button.addEventListener("click", () => open(button.dataset.opens, null));
for (const button of document.querySelectorAll("[data-closes]")) button.addEventListener("click", () => element(button.dataset.closes).close());
element("secret").addEventListener("close", () => { element("secret-text").textContent = ""; });

/** Have a dialog's form make a change; the dialog closes when it is made, and stays if it is not. */
function changes(id, work) {
  wire(`${id}-form`, async () => {
    const shown = await work();
    element(id).close();
    await showKeys();
    if (shown?.key) {
      element("secret-text").textContent = shown.key;
      element("secret").showModal();
    }
    return "";
  });
}

const textOf = (id) => element(id).value.trim() || null;
const countOf = (id) => (textOf(id) === null ? null : Number(textOf(id)));
const limitsOf = (prefix) => ({
  daily_budget: textOf(`${prefix}-budget`),
  rpm: countOf(`${prefix}-rpm`),
  tpm: countOf(`${prefix}-tpm`),
  concurrency: countOf(`${prefix}-concurrency`),
});

changes("mint", () => send("/keys", { name: textOf("mint-name"), credit: textOf("mint-credit"), expires: textOf("mint-expires"), ...limitsOf("mint"), idempotency_key: order }));
changes("topup", () => send(`/keys/${chosen.id}/topup`, { credit: textOf("topup-credit"), idempotency_key: order }));
changes("rotate", () => send(`/keys/${chosen.id}/rotate`, { overlap: element("overlap").value }));
changes("revoke", () => send(`/keys/${chosen.id}/revoke`, {}));
changes("limit", () => send(`/keys/${chosen.id}/limits`, limitsOf("limit")));

function openLimits(key) {
  open("limit", key);
  for (const [field, value] of [["budget", key.daily_budget], ["rpm", key.rpm], ["tpm", key.tpm], ["concurrency", key.concurrency]]) {
    element(`limit-${field}`).value = value === null ? "" : field === "budget" ? money(value).slice(1) : value;
  }
}

// -- keys ----------------------------------------------------------------------------------------

function stateOf(key) {
  if (key.forgotten) return "forgotten";
  if (key.revoked) return "revoked";
  if (key.expires && Date.parse(key.expires) <= Date.now()) return "expired";
  return key.credit !== null && Number(key.credit) <= 0 ? "empty" : "live";
}

function limitsText(key) {
  const found = [
    key.daily_budget === null ? "" : `${money(key.daily_budget)} a day`,
    key.rpm === null ? "" : `${number(key.rpm)} requests/min`,
    key.tpm === null ? "" : `${number(key.tpm)} tokens/min`,
    key.concurrency === null ? "" : `${number(key.concurrency)} at once`,
    key.models === null ? "" : `${key.models.length} models`,
    key.expires === null ? "" : `until ${key.expires.slice(0, 10)}`,
  ];
  return found.filter(Boolean).join(", ") || "none";
}

function keyRow(key) {
  const buttons = made("span", { class: "buttons" });
  if (["live", "empty"].includes(stateOf(key))) {
    if (key.credit !== null) buttons.append(does("Top up", () => open("topup", key), key.name));
    buttons.append(
      does("Limits", () => openLimits(key), key.name),
      does("New credential", () => open("rotate", key), key.name),
      does("Revoke", () => open("revoke", key), key.name),
    );
  }
  const used = key.last_used ? key.last_used.slice(0, 16).replace("T", " ") : "never";
  return [key.name, key.hint, money(key.credit), money(key.spent_today), limitsText(key), used, stateOf(key), buttons];
}

async function showKeys() {
  const { data } = await read("/keys");
  const shown = element("revoked").checked ? data : data.filter((key) => !["revoked", "forgotten"].includes(stateOf(key)));
  fillRows(element("keys"), shown.map(keyRow), "No keys yet: mint one.");
}

// -- models --------------------------------------------------------------------------------------

const megabytes = (bytes) => `${number(Math.round(bytes / 1e6))} MB`;

function modelRow(model, download) {
  const run = (work, word) => async () => {
    const status = element("models-status");
    status.textContent = `${word} ${model.id}…`;
    try {
      await work();
      status.textContent = "";
      await showModels();
    } catch (error) {
      status.textContent = said(error);
    }
  };
  const isComing = download && !done(download.state);
  let state = model.loaded ? "loaded" : model.available ? "here" : model.missing ? "not here" : `not usable: ${model.reason ?? ""}`;
  const buttons = made("span", { class: "buttons" });
  if (isComing) {
    const share = download.bytes_total ? download.bytes / download.bytes_total : 0;
    state = made("span", {}, `${download.state} `, made("meter", { min: 0, max: 1, value: share, "aria-label": `Download of ${model.id}` }), ` ${megabytes(download.bytes)}`);
    buttons.append(does("Cancel", run(() => send(`/downloads/${download.id}`, undefined, "DELETE"), "Cancelling"), model.id));
  } else if (model.missing) {
    buttons.append(does("Pull", run(() => send("/downloads", { id: model.id }), "Asking for"), model.id));
    if (download?.state === "failed") state = `failed: ${download.error}`;
  } else if (model.loaded) {
    buttons.append(does("Unload", run(() => send("/engines/unload", { id: model.id }), "Unloading"), model.id));
  } else if (model.available) {
    buttons.append(does("Load", run(() => send("/engines/load", { id: model.id }), "Loading"), model.id));
  }
  return [model.id, model.task, model.size_bytes ? megabytes(model.size_bytes) : "", state, buttons];
}

let polling = null;

async function showModels() {
  const [{ data }, downloads] = await Promise.all([read("/models"), read("/downloads")]);
  const latest = new Map(downloads.data.map((each) => [each.model, each]));
  const shown = element("absent").checked ? data : data.filter((each) => !each.missing || (latest.has(each.id) && !done(latest.get(each.id).state)));
  fillRows(element("models"), shown.map((each) => modelRow(each, latest.get(each.id))), "No models.");
  clearTimeout(polling);
  if (downloads.data.some((each) => !done(each.state))) polling = setTimeout(() => showModels().catch(() => {}), POLL_MS);
}

for (const [id, show] of [["revoked", showKeys], ["absent", showModels]]) {
  element(id).addEventListener("change", () => show().catch((error) => { element("admin-status").textContent = said(error); }));
}

// -- use -----------------------------------------------------------------------------------------

const usePath = () => `/usage?by=${element("by").value}&since=${element("since").value}`;

async function showUse() {
  const report = await read(usePath());
  const row = (each) => [each.name ? `${each.name} (${each.group})` : each.group, number(each.calls), number(each.tokens), number(each.documents), money(each.credits), money(each.refunded)];
  element("use-group").textContent = element("by").selectedOptions[0].textContent;
  fillRows(element("rows"), [...report.data.map(row), ...(report.data.length ? [row(report.total)] : [])], "No calls.");
}

wire("use", async () => {
  await showUse();
  return "";
});

element("table").addEventListener("click", async () => {
  try {
    const answer = await ask(PREFIX + usePath(), token(), { headers: { "Accept": "text/csv" } });
    download("usage.csv", await answer.text(), "text/csv");
  } catch (error) {
    element("use-status").textContent = said(error);
  }
});

// -- the whole page ------------------------------------------------------------------------------

wire("admin", async () => {
  element("shown").hidden = true;
  await showKeys();
  await Promise.all([showModels(), showUse()]);
  element("shown").hidden = false;
  watch();
  return "";
});
