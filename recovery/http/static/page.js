// Keeps the page as the server sees it: pieces come by server-sent events and replace what has the
// same id. Without this script the page is complete and loads itself again every ten seconds.
"use strict";

const byId = (id) => document.getElementById(id);
const live = byId("live"), told = byId("told"), filters = byId("filters");
let offset = Number(document.body.dataset.now) - Date.now();
let place = document.body.dataset.place;
let pause = 1000;
let isLacking = false;

// --- pieces -----------------------------------------------------------------------------------

function parsed(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

// What has the same id and the same version stays as it is: open, focused, half typed.
function keep(old, fresh) {
  for (const next of fresh.querySelectorAll("[data-v]")) {
    const held = byId(next.id);
    if (held && old.contains(held) && held.dataset.v === next.dataset.v) next.replaceWith(held);
  }
}

function put(key, html) {
  const old = byId(key);
  // The page was opened while nothing could be seen.
  if (!old) { isLacking ||= key.startsWith("t:"); return; }
  const fresh = parsed(html);
  if (old.tagName === "TR") {
    old.replaceWith(fresh);
  } else {
    const focused = document.activeElement && old.contains(document.activeElement) && document.activeElement.closest("[id]")?.id;
    keep(old, fresh);
    old.replaceChildren(fresh);
    if (focused && !old.contains(document.activeElement)) byId(focused)?.querySelector("button, summary, input, a")?.focus();
  }
}

function receive(message) {
  const said = JSON.parse(message.data);
  offset = said.now - Date.now();
  for (const [key, html] of said.pieces) put(key, html);
  if (isLacking) { location.reload(); return; }
  place = message.lastEventId || place;
  filter();
  tick();
}

// --- the connection ---------------------------------------------------------------------------

function say(state, text) {
  if (live.className === state) return;
  live.className = state;
  live.querySelector(".said").textContent = text;
}

function connect() {
  const events = new EventSource(`/events?since=${encodeURIComponent(place)}`);
  events.onopen = () => { pause = 1000; say("on", "live"); };
  events.addEventListener("pieces", receive);
  events.onerror = () => {
    say("gone", "reconnecting");
    if (events.readyState !== EventSource.CLOSED) return;
    // The server refused: full, restarted, or the session is over.
    setTimeout(connect, pause);
    pause = Math.min(pause * 2, 15000);
  };
}

// --- time -------------------------------------------------------------------------------------

const two = (n) => String(n).padStart(2, "0");

function spoken(seconds) {
  const s = Math.max(Math.round(seconds), 0);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${two(Math.floor(s % 3600 / 60))} min`;
  return `${Math.floor(s / 86400)} d ${two(Math.floor(s % 86400 / 3600))} h`;
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function tick() {
  const now = Date.now() + offset;
  for (const t of document.querySelectorAll("time[data-until]")) set(t, spoken((t.dataset.until - now) / 1000));
  for (const t of document.querySelectorAll("time[data-since]")) set(t, `for ${spoken((now - t.dataset.since) / 1000)}`);
  for (const t of document.querySelectorAll("time[data-ago]")) set(t, `${spoken((now - t.dataset.ago) / 1000)} ago`);
  for (const t of document.querySelectorAll("time[data-clock]:not([title])")) {
    const at = new Date(Number(t.dataset.clock));
    const isToday = at.toDateString() === new Date().toDateString();
    t.title = at.toISOString();
    set(t, isToday ? at.toLocaleTimeString([], { hour12: false }) : at.toLocaleDateString([], { month: "short", day: "numeric" }));
  }
}

// --- filters ----------------------------------------------------------------------------------

const UNWELL = new Set(["person", "repairing", "down", "cooling"]);

function filter() {
  const { q, c, s } = Object.fromEntries(new FormData(filters));
  const wanted = q.trim().toLowerCase();
  const fits = (name, component) => (!c || c === component) && (!wanted || name.toLowerCase().includes(wanted));
  let shown = 0, all = 0;
  for (const group of document.querySelectorAll("#targets tbody")) {
    let some = 0;
    for (const row of group.querySelectorAll("tr[data-s]")) {
      const word = row.dataset.s;
      const is = fits(row.id.slice(2), row.id.slice(2).split("/")[0]) && (!s || s === word || (s === "unwell" && UNWELL.has(word)));
      if (row.hidden === is) row.hidden = !is;
      all += 1;
      some += is;
    }
    group.hidden = !some;
    shown += some;
  }
  for (const entry of document.querySelectorAll("#timeline .r")) entry.hidden = !fits(entry.dataset.q, entry.dataset.c);
  set(byId("count"), shown === all ? "" : `${shown} of ${all}`);
  document.title = `${byId("attention").childElementCount ? "⚠ " : ""}recovery`;
}

function remember() {
  const query = new URLSearchParams([...new FormData(filters)].filter(([, value]) => value));
  history.replaceState(null, "", query.size ? `?${query}` : "/");
  filter();
}

// --- deciding and looking closer --------------------------------------------------------------

async function decide(form, decision) {
  const said = new URLSearchParams({ decision, reason: form.elements.reason.value });
  for (const button of form.querySelectorAll("button")) button.disabled = true;
  const answer = await fetch(form.action, { method: "POST", body: said, headers: { accept: "application/json" } }).catch(() => null);
  if (answer?.ok) {
    form.replaceWith(Object.assign(document.createElement("p"), { textContent: decision === "approve" ? "Approved." : "Denied." }));
    told.textContent = decision === "approve" ? "Approved" : "Denied";
    return;
  }
  const problem = answer ? (await answer.json().catch(() => ({}))).message : "the server cannot be reached";
  let line = form.nextElementSibling;
  if (!line?.classList.contains("problem")) {
    line = Object.assign(document.createElement("p"), { className: "problem" });
    line.setAttribute("role", "alert");
    form.after(line);
  }
  line.textContent = `Not done: ${problem ?? answer.status}`;
  for (const button of form.querySelectorAll("button")) button.disabled = false;
}

document.addEventListener("submit", (event) => {
  if (event.target === filters) event.preventDefault();
  if (!event.target.classList.contains("decide")) return;
  event.preventDefault();
  decide(event.target, event.submitter?.value ?? "approve");
});

document.addEventListener("toggle", async (event) => {
  const details = event.target, from = details.dataset.load;
  if (!details.open || !from) return;
  delete details.dataset.load;
  details.dataset.loaded = "";
  const answer = await fetch(`${from}?part=1`).catch(() => null);
  const place = details.querySelector(".more");
  if (answer?.ok) place.replaceChildren(parsed(await answer.text()));
  else set(place, answer?.status === 404 ? "Its record is older than a week; the audit entry is all that is left." : "This cannot be read now.");
}, true);

filters.addEventListener("input", remember);
for (const [name, value] of new URLSearchParams(location.search)) if (filters.elements[name]) filters.elements[name].value = value;
filter();
tick();
setInterval(tick, 1000);
connect();
