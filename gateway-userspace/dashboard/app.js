// The frame: login, the pages by the address's fragment, and a question a second.

import { ApiError, get, logIn, logOut, session, whenLoggedOut } from "./api.js";
import { h } from "./draw.js";
import { LOST, PAGES } from "./views.js";

const EVERY = 1000;
const KEPT = 120;
const at = (id) => document.getElementById(id);

const state = { stats: null, status: null, rates: null, history: [], events: [], source: null, timer: null, drawing: false, again: false };

// Rates are differences of counters.

function sum(rows, count) {
  return rows.reduce((all, row) => all + count(row), 0);
}

const failed = (codes) => sum(Object.entries(codes), ([code, count]) => (Number(code) >= 500 ? count : 0));

/** The bound under which `share` of what came between two histograms lies. */
function quantile(bounds, before, after, share) {
  const came = after.map((count, index) => count - (before?.[index] ?? 0));
  const wanted = share * came.reduce((all, count) => all + count, 0);
  if (wanted <= 0) return null;
  let passed = 0;
  for (const [index, count] of came.entries()) {
    if (passed + count >= wanted) {
      const from = index === 0 ? 0 : bounds[index - 1];
      const to = bounds[index] ?? from;
      return (from + ((to - from) * (wanted - passed)) / count) / 1000;
    }
    passed += count;
  }
  return null;
}

function added(histograms) {
  const longest = Math.max(0, ...histograms.map((histogram) => histogram.length));
  return Array.from({ length: longest }, (_, index) => sum(histograms, (histogram) => histogram[index] ?? 0));
}

function byRoute(stats) {
  const all = new Map();
  for (const row of stats.routes) {
    const route = all.get(row.route) ?? { requests: 0, errors: 0, own: 0, buckets: [] };
    route.requests += row.requests;
    route.errors += failed(row.codes);
    route.own += sum(Object.values(row.errors ?? {}), (count) => count);
    route.buckets = added([route.buckets, row.duration?.buckets ?? []]);
    all.set(row.route, route);
  }
  return all;
}

function difference(before, now) {
  const passed = Math.max(0.001, now.uptime - before.uptime);
  const over = (count) => Math.max(0, count(now) - count(before)) / passed;
  const [was, is] = [byRoute(before), byRoute(now)];
  const bounds = now.bounds_us ?? [];
  const routes = new Map([...is].map(([name, route]) => {
    const old = was.get(name) ?? { requests: 0, errors: 0, own: 0, buckets: [] };
    return [name, {
      requests: (route.requests - old.requests) / passed, errors: (route.errors - old.errors) / passed, total: route.requests, failed: route.errors,
      own: (route.own - old.own) / passed, p99: quantile(bounds, old.buckets, route.buckets, 0.99),
    }];
  }));
  const buckets = (map) => added([...map.values()].map((route) => route.buckets));
  const counted = (stats) => new Map(Object.entries(stats.upstreams).flatMap(([name, upstream]) =>
    upstream.targets.map((target) => [`${name}/${target.addr}`, target.requests])));
  const packets = (stats) => new Map(stats.services.map((row) => [`${row.service}/${row.target}`, row.packets]));
  const each = (of) => {
    const old = of(before);
    return new Map([...of(now)].map(([key, count]) => [key, Math.max(0, count - (old.get(key) ?? count)) / passed]));
  };
  const kernel = (wanted) => over((stats) => sum(stats.kernel, (row) => (wanted(row) ? row.packets : 0)));
  const targets = each(counted);
  return {
    routes, targets, services: each(packets),
    requests: sum([...routes.values()], (route) => route.requests), errors: sum([...routes.values()], (route) => route.errors),
    own: sum([...routes.values()], (route) => route.own), upstream: sum([...targets.values()], (count) => count),
    p50: quantile(bounds, buckets(was), buckets(is), 0.5), p99: quantile(bounds, buckets(was), buckets(is), 0.99),
    packets: kernel(() => true), passed: kernel((row) => row.action === "pass"), dropped: kernel((row) => row.action === LOST),
    forwarded: kernel((row) => row.action !== "pass" && row.action !== LOST),
    connections: over((stats) => sum(Object.values(stats.listeners), (listener) => listener.accepted)),
    active: sum(Object.values(now.listeners), (listener) => listener.active_requests),
    open: sum(Object.values(now.listeners), (listener) => listener.connections),
    cpu: over((stats) => stats.process.cpu_seconds),
  };
}

// What is shown.

function say(text, kind) {
  const message = at("message");
  message.textContent = text;
  message.className = kind ?? "";
  message.hidden = text === "";
}

async function act(said, action) {
  try {
    await action();
    say(said, "good");
  } catch (error) {
    say(error.message, "bad");
  }
  await tick();
  await draw(true);
}

const page = () => PAGES.find(([name]) => name === location.hash.slice(1)) ?? PAGES[0];

/** Pages that are typed into, or read, are not drawn again under one's hands. */
const LIVE = new Set(["overview", "routes", "upstreams", "events"]);

async function draw(always) {
  const [name, title, view] = page();
  if (state.rates === null || (!always && !LIVE.has(name))) return;
  if (state.drawing) {
    state.again ||= always;
    return;
  }
  state.drawing = true;
  try {
    const drawn = await view({ ...state, act, redraw: () => draw(true) });
    if (page()[0] !== name) {
      state.again = true;
      return;
    }
    const focused = document.activeElement?.closest("main") ? [...document.querySelectorAll("main button, main input")].indexOf(document.activeElement) : -1;
    at("main").replaceChildren(h("h1", null, title), ...[drawn].flat(Infinity).filter((part) => part));
    if (focused >= 0) document.querySelectorAll("main button, main input")[focused]?.focus();
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 401)) say(error.message, "bad");
  } finally {
    state.drawing = false;
    if (state.again) {
      state.again = false;
      draw(true);
    }
  }
}

function frame() {
  const [name] = page();
  at("nav").replaceChildren(...PAGES.map(([id, title]) => h("a", { href: `#${id}`, "aria-current": id === name ? "page" : null }, title)));
}

async function tick() {
  const [stats, status] = await Promise.all([get("/v1/stats"), get("/v1/status")]);
  if (state.stats !== null && stats.uptime > state.stats.uptime) {
    state.rates = difference(state.stats, stats);
    state.history = [...state.history, state.rates].slice(-KEPT);
  }
  Object.assign(state, { stats, status });
  at("name").textContent = status.name;
  at("state").textContent = status.healthy ? status.state : `${status.state}, something is wrong`;
  at("state").className = `badge ${status.healthy ? "good" : "bad"}`;
  at("version").textContent = `gateway ${status.version}, config ${status.generation}`;
  at("fresh").textContent = `as of ${new Date().toLocaleTimeString()}`;
}

async function loop() {
  try {
    await tick();
    if (at("message").dataset.gone) {
      say("");
      delete at("message").dataset.gone;
    }
    if (!document.hidden) await draw(false);
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) return;
    say(`The gateway does not answer: ${error.message}`, "bad");
    at("message").dataset.gone = "1";
  }
  state.timer = setTimeout(loop, EVERY);
}

function follow() {
  state.source?.close();
  state.source = new EventSource("/v1/events");
  state.source.onmessage = (message) => {
    state.events = [JSON.parse(message.data), ...state.events].slice(0, 200);
  };
}

// Coming and going.

function showLogin() {
  clearTimeout(state.timer);
  state.source?.close();
  at("app").hidden = true;
  at("login").hidden = false;
  at("token").focus();
}

async function showApp() {
  await session();
  at("login").hidden = true;
  at("app").hidden = false;
  frame();
  follow();
  await tick();
  state.timer = setTimeout(loop, EVERY);
}

at("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  at("login-error").textContent = "";
  try {
    await logIn(at("token").value);
    at("token").value = "";
    await showApp();
  } catch (error) {
    at("login-error").textContent = error.message;
  }
});

at("logout").addEventListener("click", async () => {
  await logOut().catch(() => {});
  showLogin();
});

const THEMES = ["auto", "light", "dark"];

function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
  at("theme").title = `Theme: ${name}`;
}

at("theme").addEventListener("click", () => {
  theme(THEMES[(THEMES.indexOf(localStorage.getItem("theme") ?? "auto") + 1) % THEMES.length]);
});

window.addEventListener("hashchange", () => {
  frame();
  say("");
  draw(true);
  at("main").focus();
});

theme(localStorage.getItem("theme") ?? "auto");
whenLoggedOut(showLogin);
showApp().catch(showLogin);
