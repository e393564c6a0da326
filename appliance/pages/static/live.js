// What the server does now, from its stream of events. The stream is read by fetch, because a
// browser's own EventSource cannot send a token.
"use strict";

const PAUSES_MS = [1000, 2000, 5000, 15000];
let watching = null;

/** Yield each event of a stream as its name and data; see the HTML standard, "server-sent events". */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done: isOver } = await reader.read();
    if (isOver) return;
    rest += value;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = block.split(/\r?\n/).map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]);
      const name = fields.find(([field]) => field === "event")?.[1] ?? "message";
      yield [name, fields.filter(([field]) => field === "data").map(([, data]) => data).join("\n")];
    }
  }
}

const rate = (value) => Number(value).toLocaleString("en", { maximumFractionDigits: 1 });

function showNow(stats) {
  facts("now", [
    ["Calls a second", rate(stats.calls_per_s)],
    ["Tokens a second", rate(stats.tokens_per_s)],
    ["Documents a second", rate(stats.documents_per_s)],
    ["Refused a second", rate(stats.errors_per_s)],
    ["In flight", number(stats.in_flight)],
    ["Tokens that wait", number(stats.waiting_tokens)],
    ["Workers that compute", `${stats.workers_busy} of ${stats.workers}`],
    ["Median and p95 of a call", stats.stages.total ? `${rate(stats.stages.total.p50)} and ${rate(stats.stages.total.p95)} ms` : "no calls"],
    ["Charged today", `$${stats.spent_today}`],
    ["Up for", `${number(Math.floor(stats.uptime_s / 60))} minutes`],
  ]);
  const calls = stats.history.map((point) => point.calls);
  drawColumns(element("history"), calls, calls.map((value, at) => `${calls.length - at} s ago: ${rate(value)}`));
}

/** Show what the stream says until the page is left; a stream that ends is asked for again. */
async function watch() {
  watching?.abort();
  const mine = watching = new AbortController();
  for (let tries = 0; !mine.signal.aborted; tries += 1) {
    try {
      const answer = await ask(`${PREFIX}/events?every=1&span=60`, token(), { headers: { "Accept": "text/event-stream" }, signal: mine.signal });
      element("now-status").textContent = "";
      for await (const [name, data] of events(answer.body)) {
        if (name === "stats") {
          showNow(JSON.parse(data));
          tries = 0;
        }
      }
    } catch (error) {
      if (mine.signal.aborted) return;
      element("now-status").textContent = `${said(error)} It is asked again.`;
    }
    await new Promise((wake) => { setTimeout(wake, PAUSES_MS[Math.min(tries, PAUSES_MS.length - 1)]); });
  }
}
