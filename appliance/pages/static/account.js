// The account: what a key has and used, by the API that programs have, too.
"use strict";

const DAY_MS = 86400000;
const secret = () => secretIn("key", "a key");
const read = async (path) => (await ask(path, secret())).json();

// -- balance and limits --------------------------------------------------------------------------

const perMinute = (value, of) => (value === null ? "any number" : `${number(value)} ${of} a minute`);

function showFacts(account) {
  const { limits } = account;
  const spent = money(account.spent_today);
  facts("facts", [
    ["Key", `${account.name}, ${account.key}`],
    ["Balance", money(account.balance)],
    ["Spent today", account.daily_budget === null ? spent : `${spent} of ${money(account.daily_budget)}`],
    ["Requests", perMinute(limits.requests_per_minute, "requests")],
    ["Tokens", perMinute(limits.tokens_per_minute, "tokens")],
    ["Calls at once", limits.concurrency === null ? "any number" : number(limits.concurrency)],
    ["Models", limits.models === null ? "all" : limits.models.join(", ")],
    ["Expires", account.expires ?? "never"],
  ]);
}

// -- use -----------------------------------------------------------------------------------------

const cells = (row) => [row.group, number(row.calls), number(row.tokens), number(row.documents), money(row.credits)];

/** Return every day since the first, those without use too, oldest first. */
function everyDay(report) {
  const known = new Map(report.data.map((row) => [row.group, row]));
  const last = Date.now();
  const first = Math.max(Date.parse(report.since), last - 365 * DAY_MS);
  const days = [];
  for (let at = first; at <= last; at += DAY_MS) {
    const group = new Date(at).toISOString().slice(0, 10);
    days.push(known.get(group) ?? { group, calls: 0, tokens: 0, documents: 0, credits: 0 });
  }
  return days;
}

/** Return a row's cells with a bar for its share of the cost. */
function shared(row, total) {
  const part = Number(total.credits) ? Number(row.credits) / Number(total.credits) : 0;
  const bar = made("meter", { min: 0, max: 1, value: part, "aria-label": `Share of the cost of ${row.group}` });
  const [cost, ...others] = cells(row).reverse();
  return [...others.reverse(), made("span", {}, bar, cost)];
}

async function showUse() {
  const since = element("since").value;
  const [byDay, byModel, byTier] = await Promise.all(["day", "model", "tier"].map((by) => read(`/account/usage?by=${by}&since=${since}`)));
  const days = everyDay(byDay);
  drawColumns(element("days"), days.map((row) => Number(row.credits)), days.map((row) => `${row.group}: ${money(row.credits)}, ${number(row.calls)} calls`));
  const { total } = byDay;
  element("days-note").textContent = `${money(total.credits)} in all, ${number(total.calls)} calls`;
  fillRows(element("by-day"), byDay.data.map(cells).reverse(), "No calls.");
  fillRows(element("by-model"), byModel.data.map((row) => shared(row, total)), "No calls.");
  fillRows(element("by-tier"), byTier.data.map((row) => shared(row, total)), "No calls.");
}

wire("use", async () => {
  await showUse();
  return "";
});

element("table").addEventListener("click", async () => {
  const status = element("use-status");
  try {
    const answer = await ask(`/account/usage?by=day&since=${element("since").value}`, secret(), { headers: { "Accept": "text/csv" } });
    download("usage.csv", await answer.text(), "text/csv");
    status.textContent = "";
  } catch (error) {
    status.textContent = said(error);
  }
});

// -- calls ---------------------------------------------------------------------------------------

let listed = [];
let next = null;

function callRow(call) {
  const cost = call.refunded ? `${money(call.cost)}, given back` : money(call.cost);
  return [call.at.slice(0, 19).replace("T", " "), call.model, call.tier, `${number(call.units)} ${call.unit}`, cost, call.request_id ?? ""];
}

async function showCalls() {
  const page = await read(next === null ? "/account/calls?limit=20" : `/account/calls?limit=100&before=${next}`);
  listed = [...listed, ...page.data];
  next = page.next;
  fillRows(element("calls"), listed.map(callRow), "No calls.");
  element("more").hidden = next === null;
}

element("more").addEventListener("click", async () => {
  const status = element("more-status");
  try {
    await showCalls();
    status.textContent = `${number(listed.length)} calls are listed.`;
  } catch (error) {
    status.textContent = said(error);
  }
});

// -- the whole page ------------------------------------------------------------------------------

async function show() {
  const account = await read("/account");
  listed = [];
  next = null;
  await Promise.all([showUse(), showCalls()]);
  showFacts(account);
  element("use").querySelector("button").disabled = false;
  element("shown").hidden = false;
}

wire("account", async () => {
  element("new-key").hidden = true;
  element("shown").hidden = true;
  await show();
  return "";
});

wire("rotate", async () => {
  const answer = await ask("/account/rotate", secret(), { method: "POST", body: { overlap: element("overlap").value } });
  const made = await answer.json();
  element("key").value = made.key;
  element("new-key-text").textContent = made.key;
  element("new-key").hidden = false;
  element("sure").checked = false;
  return `The old key works until ${made.replaced_until}.`;
});
