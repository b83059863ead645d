// The pages. Each is given what is known now, and draws itself; what changes something goes through `act`.

import { get, getIfThere, patch, post, remove } from "./api.js";
import { badge, button, bytes, card, chart, flow, h, milliseconds, number, rate, seconds, table } from "./draw.js";

const LOST = "drop";
/** Whatever the API says, as it says it. */
const settings = (value) => h("code", null, typeof value === "string" ? value : JSON.stringify(value));
const day = (unix) => new Date(unix * 1000).toISOString().slice(0, 10);

export const PAGES = [
  ["overview", "Overview", overview],
  ["routes", "Routes", routes],
  ["upstreams", "Upstreams", upstreams],
  ["limits", "Limits and bans", limits],
  ["cache", "Cache", caches],
  ["certs", "Certificates", certs],
  ["alerts", "Alerts", alerts],
  ["config", "Config", config],
  ["explain", "Explain", explain],
  ["events", "Events", events],
];

function overview({ rates, history, status, stats }) {
  const targets = Object.values(status.upstreams).flatMap((upstream) => upstream.targets);
  const series = (pick) => history.map(pick);
  const figure = (title, value, under, kind) =>
    h("section", { class: "card" }, h("h2", null, title), h("div", { class: `figure ${kind ?? ""}` }, value), h("div", { class: "faint" }, under));
  const up = targets.filter((target) => target.state === "up").length;
  const share = rates.requests > 0 ? (100 * rates.errors) / rates.requests : 0;
  return [
    troubles(status),
    h("div", { class: "grid" },
      figure("Requests", rate(rates.requests), `${number(rates.active)} active, ${number(rates.open)} connections`),
      figure("Server errors", `${share.toFixed(2)} %`, rate(rates.errors), share >= 1 ? "bad" : ""),
      figure("Latency", milliseconds(rates.p50), `p99 ${milliseconds(rates.p99)}`),
      figure("Targets", `${up} of ${targets.length} up`, `${Object.keys(status.upstreams).length} upstreams`, up < targets.length ? "warn" : ""),
      figure("Dropped by the kernel", rate(rates.dropped), status.kernel_summary),
      figure("Process", bytes(stats.process.resident_bytes), `${(100 * rates.cpu).toFixed(0)} % of a CPU, ${number(stats.process.open_fds)} descriptors`)),
    flow({ ...rates, kernel: status.kernel_summary, up, targets: targets.length }),
    h("div", { class: "grid" },
      chart("Requests a second", [["one", "all", series((at) => at.requests)], ["two", "5xx", series((at) => at.errors)]], rate, 1),
      chart("Latency", [["one", "p50", series((at) => at.p50 ?? 0)], ["three", "p99", series((at) => at.p99 ?? 0)]], milliseconds, 1),
      chart("Packets a second", [["one", "passed", series((at) => at.passed)], ["two", "dropped", series((at) => at.dropped)],
        ["three", "forwarded", series((at) => at.forwarded)]], rate, 1)),
    table("Listeners", [
      ["Name", ([name]) => name],
      ["Address", ([, listener]) => h("code", null, listener.bind)],
      ["Connections", ([, listener]) => number(listener.connections), "number"],
      ["Accepted", ([, listener]) => number(listener.accepted), "number"],
      ["Active requests", ([, listener]) => number(listener.active_requests), "number"],
    ], Object.entries(status.listeners)),
  ];
}

/** What is wrong, in words, and what to do: as `gateway status` tells it. */
function troubles(status) {
  const found = status.troubles ?? [];
  if (found.length === 0) return null;
  return card("What is wrong", h("ul", null, found.map(({ level, of, what, cure }) =>
    h("li", { class: level === "fail" ? "bad" : "warn" }, `${of}: ${what}`, cure ? h("p", null, cure) : null))));
}

async function routes({ rates }) {
  const all = await get("/v1/routes");
  const of = (name) => rates.routes.get(name) ?? { requests: 0, errors: 0, total: 0, failed: 0 };
  return table("Routes", [
    ["Name", ([name]) => name],
    ["Takes", ([, route]) => h("code", null, [route.host ?? [], route.path].flat().join(" "))],
    ["Leads to", ([, route]) => settings(route.to ?? route.redirect ?? route.respond ?? route.version ?? "")],
    ["Requests", ([name]) => rate(of(name).requests), "number"],
    ["5xx", ([name]) => rate(of(name).errors), "number"],
    ["p99", ([name]) => milliseconds(of(name).p99), "number"],
    ["In all", ([name]) => number(of(name).total), "number"],
    ["5xx in all", ([name]) => number(of(name).failed), "number"],
  ], Object.entries(all));
}

function upstreams({ status, rates, act }) {
  const change = (kind, name, target, what, said) => () =>
    act(`${name}/${target.addr}: ${said}`, () => patch(`/v1/${kind}/${encodeURIComponent(name)}/targets/${encodeURIComponent(target.addr)}`, what));
  const row = (kind, name) => (target) => {
    const taken = target.overrides?.state;
    return h("span", null,
      taken ? button("back", change(kind, name, target, { state: "up" }, "taken back"), "") : [
        button("drain", change(kind, name, target, { state: "drain" }, "drained"), ""),
        button("down", change(kind, name, target, { state: "down" }, "down"), "danger")]);
  };
  const targets = (kind, name, of, counted) => table(`${name} · ${of.balance ?? of.mode ?? ""}`, [
    ["Target", (target) => h("code", null, target.addr)],
    ["State", (target) => [badge(target.state), target.overrides?.state ? h("div", { class: "faint" }, `by ${target.overrides.state.by}`) : null]],
    ["Weight", (target) => number(target.overrides?.weight?.value ?? target.weight), "number"],
    ["Active", (target) => number(target.active ?? target.connections), "number"],
    ["Rate", (target) => rate(counted(target) ?? 0), "number"],
    ["Check", (target) => h("span", { class: target.healthy === false ? "bad" : "faint" }, target.check ?? "–")],
    ["", row(kind, name), "actions"],
  ], of.targets, "No targets: the name is not resolved yet.");
  const layer7 = Object.entries(status.upstreams).map(([name, upstream]) =>
    targets("upstreams", name, upstream, (target) => rates.targets.get(`${name}/${target.addr}`)));
  const layer4 = Object.entries(status.services).map(([name, service]) =>
    targets("services", name, service, (target) => rates.services.get(`${name}/${target.addr}`)));
  return [layer7, layer4.length > 0 ? h("h2", null, "L4 services") : null, layer4];
}

async function limits({ act }) {
  const [all, bans, sources] = await Promise.all([get("/v1/limits"), get("/v1/bans"), get("/v1/kernel/sources?top=10")]);
  const ban = (event) => {
    event.preventDefault();
    const fields = new FormData(event.target);
    const body = { cidr: fields.get("cidr"), why: fields.get("why") || undefined, for: fields.get("for") || undefined };
    act(`${body.cidr} is banned`, () => post("/v1/bans", body));
  };
  const field = (name, label, more) => h("label", null, label, h("input", { name, ...more }));
  return [
    card("Ban", h("form", { class: "row", onsubmit: ban },
      field("cidr", "Address or prefix", { required: true, placeholder: "192.0.2.0/24" }), field("for", "For", { placeholder: "1h" }),
      field("why", "Why", { placeholder: "scraper" }), h("button", { class: "primary" }, "Ban"))),
    table("Bans", [
      ["Who", (row) => h("code", null, row.cidr)],
      ["Where", (row) => row.where ?? "kernel"],
      ["Why", (row) => row.why],
      ["Left", (row) => (row.left_seconds === null ? "until lifted" : seconds(row.left_seconds))],
      ["", (row) => button("lift", () => act(`${row.cidr} is let in again`, () => remove(`/v1/bans/${row.cidr}`))), "actions"],
    ], bans, "Nobody is banned."),
    table("Busiest sources in the kernel's buckets", [
      ["Source", (row) => h("code", null, row.source)],
      ["Service", (row) => row.service ?? "–"],
      ["Packets left", (row) => number(row.packets_left), "number"],
      ["Connections left", (row) => number(row.new_left), "number"],
      ["Bytes left", (row) => (row.bytes_left === null ? "–" : bytes(row.bytes_left)), "number"],
      ["Dropped", (row) => number(row.dropped), "number"],
      ["Drops a second", (row) => number(row.drops_per_second), "number"],
      ["", (row) => button("ban", () => act(`${row.source} is banned for an hour`, () => post("/v1/bans", { cidr: row.source, for: "1h", why: "dashboard" })), "danger"), "actions"],
    ], sources, "No source has used its bucket."),
    table("Limits of requests", [
      ["Name", ([name]) => name],
      ["Mode", ([, limit]) => limit.settings.mode],
      ["Rate", ([, limit]) => settings(limit.settings.rate ?? limit.settings.max)],
      ["Keys", ([, limit]) => number(limit.keys), "number"],
      ...["allow", "soft", "deny", "ban"].map((decided) => [decided, ([, limit]) => number(limit.decisions[decided]), "number"]),
      ["Routes", ([, limit]) => limit.routes.join(", ")],
    ], Object.entries(all.limits), "No [limit.NAME] is configured."),
    table("Limits in the kernel", [["For", ([name]) => name], ["Settings", ([, value]) => settings(value)]],
      [["every source", all.kernel], ...Object.entries(all.classes), ...Object.entries(all.services)].filter(([, value]) => value !== null)),
  ];
}

async function caches({ act }) {
  const all = await getIfThere("/v1/caches");
  const entries = Object.entries(all ?? {});
  if (entries.length === 0) return card("Cache", h("p", { class: "faint" }, "No [cache.NAME] is configured."));
  return entries.map(([name, cache]) => {
    const purge = (event) => {
      event.preventDefault();
      const fields = new FormData(event.target);
      const kind = fields.get("kind");
      const body = { ...(kind === "all" ? { all: true } : { [kind]: fields.get("what") }), soft: fields.get("soft") === "on" };
      act(`${name}: purged`, () => post(`/v1/caches/${encodeURIComponent(name)}/purge`, body));
    };
    return [
      table(`Cache ${name}`, [
        ["Bytes", () => `${bytes(cache.bytes)} of ${bytes(cache.memory)}`],
        ["Entries", () => number(cache.entries), "number"],
        ["Evicted", () => number(cache.evicted), "number"],
        ...Object.entries(cache.requests).map(([result, count]) => [result, () => number(count), "number"]),
        ["Routes", () => cache.routes.join(", ")],
      ], [cache]),
      card(`Purge ${name}`, h("form", { class: "row", onsubmit: purge },
        h("label", null, "By", h("select", { name: "kind" }, ["key", "prefix", "tag", "all"].map((kind) => h("option", null, kind)))),
        h("label", null, "What", h("input", { name: "what", placeholder: "http://shop.test/items/1" })),
        h("label", null, "Soft: mark stale", h("input", { name: "soft", type: "checkbox" })),
        h("button", { class: "danger" }, "Purge"))),
    ];
  });
}

async function certs({ act }) {
  const all = await get("/v1/certs");
  const left = (cert) => Math.floor((cert.not_after - Date.now() / 1000) / 86400);
  return table("Certificates", [
    ["Name", ([name]) => name],
    ["State", ([, cert]) => badge(cert.state, cert.state === "valid" ? "good" : "bad")],
    ["For", ([, cert]) => cert.names.join(", ")],
    ["Until", ([, cert]) => [day(cert.not_after), " ", badge(`${left(cert)} days`, left(cert) > 21 ? "good" : left(cert) > 7 ? "warn" : "bad")]],
    ["By", ([, cert]) => cert.issuer],
    ["Trouble", ([, cert]) => cert.error ?? "–"],
    ["", ([name, cert]) => name.startsWith("acme:") ? button("renew", () => act(`${name}: a new one is asked for`, () => post(`/v1/certs/${encodeURIComponent(name)}/renew`))) : null, "actions"],
  ], Object.entries(all), "No listener speaks TLS.");
}

async function alerts({ act }) {
  const all = (await getIfThere("/v1/alerts")) ?? [];
  const path = (alert) => `/v1/alerts/${encodeURIComponent(alert.alert)}/silence`;
  const silence = (alert) => alert.silence
    ? button("tell again", () => act(`${alert.alert} is told of again`, () => remove(path(alert))))
    : button("silence for 1h", () => act(`nobody is told of ${alert.alert} for an hour`, () => post(path(alert), { for: "1h", why: "dashboard" })), "");
  return table("Alerts", [
    ["Name", (alert) => alert.alert],
    ["State", (alert) => [badge(alert.state, { firing: "bad", pending: "warn", quiet: "good" }[alert.state]),
      alert.silence ? h("div", { class: "faint" }, `silenced by ${alert.silence.by} until ${new Date(alert.silence.until * 1000).toISOString().slice(0, 16)}Z`) : null]],
    ["Severity", (alert) => alert.severity],
    ["Since", (alert) => alert.since ?? "–"],
    ["What", (alert) => alert.text ?? "nothing measured yet"],
    ["Tells", (alert) => alert.notify.join(" ") || "nobody"],
    ["", silence, "actions"],
  ], all, "No [alert.NAME] is configured.");
}

async function config({ act }) {
  const [toml, diff] = await Promise.all([get("/v1/config/toml"), get("/v1/diff").catch((error) => ({ error }))]);
  const differs = diff.error
    ? h("pre", { class: "bad" }, diff.error.message)
    : diff.changes.length === 0
      ? h("p", { class: "faint" }, "The file says what is in effect.")
      : h("table", null, h("tbody", null, diff.changes.map((change) => h("tr", null, h("td", null, h("code", null, change.path)),
        h("td", { class: "bad" }, settings(change.from ?? "–")), h("td", { class: "good" }, settings(change.to ?? "–")),
        h("td", { class: "warn" }, change.restart ? "needs a restart" : "")))));
  return [
    card("What a reload would change", differs, h("p", null, button("Reload", () => act("reloaded", () => post("/v1/reload")), "primary"))),
    card("In effect", h("pre", null, toml)),
  ];
}

const ask = { request: { method: "GET", url: "http://localhost/", from: "", listener: "" }, packet: { protocol: "tcp", source: "", destination: "" } };
let told = null;

function explain({ status, redraw }) {
  const send = (kind) => async (event) => {
    event.preventDefault();
    ask[kind] = Object.fromEntries(new FormData(event.target));
    const said = Object.fromEntries(Object.entries(ask[kind]).filter(([, value]) => value !== ""));
    told = await post("/v1/explain", { [kind]: said }).catch((error) => ({ error: error.message }));
    redraw();
  };
  const choice = (name, label, options, chosen) => h("label", null, label,
    h("select", { name }, options.map(([value, text]) => h("option", { value, selected: value === chosen }, text))));
  const field = (name, label, value, more) => h("label", null, label, h("input", { name, value, ...more }));
  const words = (list) => list.map((word) => [word, word]);
  return [
    card("What would become of a request", h("form", { class: "row", onsubmit: send("request") },
      choice("method", "Method", words(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]), ask.request.method),
      field("url", "URL", ask.request.url, { type: "url", required: true, size: 44 }),
      field("from", "From", ask.request.from, { placeholder: "192.0.2.1" }),
      choice("listener", "Listener", [["", "the one at the URL's port"], ...words(Object.keys(status.listeners))], ask.request.listener),
      h("button", { class: "primary" }, "Explain the request"))),
    card("What would become of a packet", h("form", { class: "row", onsubmit: send("packet") },
      choice("protocol", "Protocol", words(["tcp", "udp"]), ask.packet.protocol),
      field("source", "Source", ask.packet.source, { required: true, placeholder: "192.0.2.1:4000" }),
      field("destination", "Destination", ask.packet.destination, { required: true, placeholder: "198.51.100.1:443" }),
      h("button", { class: "primary" }, "Explain the packet"))),
    told === null ? null : answer(told),
  ];
}

function answer({ error, outcome, others, ...rest }) {
  if (error) return card("Answer", h("p", { class: "bad" }, error));
  return [
    table(outcome ?? "Answer", [["", ([key]) => key], ["", ([, value]) => settings(value)]],
      Object.entries(rest).filter(([, value]) => value !== null)),
    others ? table("Why not the others", [["Route", (other) => other.route], ["", (other) => other.why]], others, "There are no others.") : null,
  ];
}

function events({ events: all }) {
  return table("Events, the newest first", [
    ["When", (event) => h("span", { class: "mono" }, new Date(1000 * event.ts).toISOString().slice(11, 23))],
    ["What", (event) => badge(event.event, "plain")],
    ["", (event) => settings(Object.fromEntries(Object.entries(event).filter(([key]) => !["ts", "event"].includes(key))))],
  ], all, "Nothing has happened since this page was opened: requests that fail, drops, bans, health, reloads.");
}

export { LOST };
