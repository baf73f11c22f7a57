// The live page of the stand-in: fetches its state, then follows its events. All text from outside is set as text, never as markup.
"use strict";
(() => {
  // Most series and values kept here, charts and requests shown before one asks for more.
  const MAX_SERIES = 5000, MAX_POINTS = 1500, MAX_REQUESTS = 200, CHARTS = 90, ROWS = innerWidth < 980 ? 5 : 25;
  // Silence after which the connection counts as lost: totals come every second.
  const SILENCE_MS = 7000;
  const RETRY_MS = [300, 600, 1000, 2000, 3000];
  const SVG = "http://www.w3.org/2000/svg";
  const $ = id => document.getElementById(id);

  const series = new Map();       // by account and path
  const groups = new Map();       // of series
  const requests = new Map();     // by connection and place on it, oldest first
  const rows = new Map();         // list items of requests
  const botRows = new Map();
  const rates = [];               // totals of the last seconds
  const visible = new Set();      // series whose card is on the screen
  let accounts = new Map(), totals = null, bots = [], instance = null, leftOut = 0;
  let order = [], orderStale = false, layoutStale = true, listStale = true, noteStale = true;
  let charts = CHARTS, rowsShown = ROWS;
  let windowMs = 300e3, words = [];

  // Time: that of the stand-in.
  let serverMs = Date.now(), serverAt = performance.now();
  const now = () => serverMs + performance.now() - serverAt;
  const setClock = us => { serverMs = us / 1000; serverAt = performance.now(); };

  // ---- Text ----

  const el = (tag, name, text) => {
    const e = document.createElement(tag);
    if (name) e.className = name;
    if (text !== undefined) e.textContent = text;
    return e;
  };
  const svg = (tag, attributes) => {
    const e = document.createElementNS(SVG, tag);
    for (const name in attributes) e.setAttribute(name, attributes[name]);
    return e;
  };
  const put = (e, text) => { if (e.textContent !== text) e.textContent = text; };
  const show = (e, visible) => { if (e.hidden === visible) e.hidden = !visible; };
  const toggle = (e, name, on) => { if (e.classList.contains(name) !== on) e.classList.toggle(name, on); };
  const many = (n, one, more) => `${count(n)} ${n === 1 ? one : more || one + "s"}`;
  const count = n => n < 999500 ? n.toLocaleString("en-US").replaceAll(",", "\u202f") : short(n);
  const trim = s => s.includes(".") ? s.replace(/\.?0+$/, "") : s;

  // With a letter up to 999.9 T, then with a power of ten; never both. What rounds to a thousand of a size is one of the next.
  const short = v => {
    const a = Math.abs(v);
    if (a >= 0.99995e15) return v.toExponential(2).replace("e+", "e");
    for (const [size, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
      if (a / size >= 0.99995) return trim((v / size).toPrecision(a / size < 99.95 ? 3 : 4)) + letter;
    return String(v);
  };

  // A value: four digits that count.
  const number = v => {
    if (Number.isNaN(v)) return "NaN";
    if (!Number.isFinite(v)) return v > 0 ? "∞" : "−∞";
    const a = Math.abs(v);
    let text;
    if (a === 0) text = "0";
    else if (a >= 1e6) text = short(v);
    else if (Number.isInteger(v)) text = String(v);
    else if (a < 1e-6) text = v.toExponential(2);
    else text = trim(v.toFixed(Math.max(0, Math.min(9, 3 - Math.floor(Math.log10(a))))));
    return text.replace("-", "−");
  };

  // A value beside a grid line: not more than the place there takes.
  const tickText = (v, step) => {
    if (v === 0) return "0";
    let text = Math.abs(v) >= 1e4 ? short(Number(v.toPrecision(10))) : v.toFixed(Math.max(0, Math.min(9, -Math.floor(Math.log10(step) + 1e-9))));
    if (text.length > 6) text = v.toExponential(1).replace(".0e", "e").replace("e+", "e");
    return text.replace(/^-/, "−");
  };

  const span = ms => {
    const s = Math.abs(ms) / 1000;
    if (s < 1) return "under 1 s";
    if (s < 60) return `${Math.floor(s)} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    if (s < 172800) return `${Math.floor(s / 3600)} h`;
    return `${count(Math.floor(s / 86400))} d`;
  };
  const age = ms => ms < -1500 ? `in ${span(ms)}` : ms < 1000 ? "now" : `${span(ms)} ago`;
  const two = n => String(n).padStart(2, "0");
  const clock = ms => {
    const d = new Date(ms);
    if (Number.isNaN(d.getTime())) return "no date";
    const time = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
    return Math.abs(now() - ms) < 72e6 ? time : `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${time}`;
  };
  // So many digits that count, but none before the point left out.
  const digits = (v, n) => Math.abs(v) < 10 ** (n - 1) ? v.toPrecision(n) : v.toFixed(0);
  const bytes = n => {
    for (const [size, unit] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]])
      if (n >= size * (size === 1e3 ? 1 : 0.9995)) return `${digits(n / size, 3)} ${unit}`;
    return `${n} B`;
  };
  const took = us => us < 999500 ? `${digits(us / 1000, 2)} ms` : `${(us / 1e6).toFixed(1)} s`;
  const readable = path => path.replaceAll("%2e", ".").replaceAll("%3a", ":");

  // Makes the children of an element be these, moving as few as it can.
  const sync = (parent, children) => {
    let at = parent.firstChild;
    for (const child of children) {
      if (child === at) at = at.nextSibling;
      else parent.insertBefore(child, at);
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  };

  // ---- Series ----

  const groupOf = (account, path) => {
    const parts = path.split(".");
    const entity = parts[0] === "entity" && /^\d+$/.test(parts[1] || "") ? Number(parts[1]) : null;
    const cut = entity !== null && parts.length > 2 ? 2 : parts.length > 2 ? 2 : parts.length > 1 ? 1 : 0;
    const prefix = parts.slice(0, cut).join(".");
    const key = `${account}\n${prefix}`;
    let group = groups.get(key);
    if (!group) {
      group = { key, account, entity, prefix, series: new Set(), el: null };
      groups.set(key, group);
    }
    return [group, readable(parts.slice(cut).join("."))];
  };

  const keyOf = (account, path) => `${account}\n${path}`;

  const seriesOf = (account, path) => {
    const key = keyOf(account, path);
    let s = series.get(key);
    if (s) return s;
    if (series.size >= MAX_SERIES) { noteStale = true; return null; }
    const [group, name] = groupOf(account, path);
    s = { key, account, path, group, name, t: [], v: [], usual: 0, usualStale: true, card: null, stale: true, width: 0, wide: false, at: null };
    series.set(key, s);
    group.series.add(s);
    orderStale = layoutStale = true;
    return s;
  };

  // Where a time is, or would be, in a list that is sorted.
  const place = (times, time) => {
    let low = 0, high = times.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] < time) low = middle + 1; else high = middle;
    }
    return low;
  };

  const add = (s, time, value) => {
    const n = s.t.length;
    if (n === 0 || time > s.t[n - 1]) {
      s.t.push(time);
      s.v.push(value);
    } else {
      const i = place(s.t, time);
      if (s.t[i] === time) s.v[i] = value;
      else { s.t.splice(i, 0, time); s.v.splice(i, 0, value); }
    }
    // Cut in large pieces, because cutting costs what remains.
    if (s.t.length > MAX_POINTS * 1.2) {
      s.t.splice(0, s.t.length - MAX_POINTS);
      s.v.splice(0, s.v.length - MAX_POINTS);
    }
    s.stale = s.usualStale = true;
  };

  // The usual time between two values, ms: the median of the last ones; 0 as long as there are too few.
  const usual = s => {
    if (s.usualStale) {
      s.usualStale = false;
      const steps = [];
      for (let i = Math.max(1, s.t.length - 60); i < s.t.length; i++) steps.push(s.t[i] - s.t[i - 1]);
      steps.sort((a, b) => a - b);
      s.usual = steps.length < 2 ? 0 : steps[steps.length >> 1];
    }
    return s.usual;
  };

  // Delivery takes a moment, so silence is not told at once.
  const isSilent = s => usual(s) > 0 && now() - s.t[s.t.length - 1] > 3 * usual(s) + 2000;

  const entityOf = group => group.entity === null ? undefined : accounts.get(group.account)?.entities.get(group.entity);

  // ---- State and events ----

  const applyState = state => {
    const fresh = instance !== state.instance;
    const before = instance;
    instance = state.instance;
    if (fresh) {
      requests.clear();
      rates.length = 0;
    }
    accounts = new Map(state.accounts.map(a => [a.id, { name: a.name, entities: new Map(a.entities.map(e => [e.id, e])) }]));
    leftOut = state.series_left_out;
    const present = new Set();
    for (const { account, path, values } of state.series) {
      present.add(keyOf(account, path));
      const s = seriesOf(account, path);
      if (!s) continue;
      const t = [], v = [];
      // What is here may reach further back than what a state holds.
      const first = values.length ? values[0][0] / 1000 : Infinity;
      if (!fresh) for (let i = 0; i < s.t.length && s.t[i] < first; i++) { t.push(s.t[i]); v.push(s.v[i]); }
      for (const [time, value] of values) { t.push(time / 1000); v.push(Number(value)); }
      s.t = t;
      s.v = v;
      s.stale = s.usualStale = true;
    }
    if (fresh || leftOut === 0)
      for (const [key, s] of series) if (!present.has(key)) {
        series.delete(key);
        s.group.series.delete(s);
        if (s.card) { seen.unobserve(s.card.el); sized.unobserve(s.card.el); }
        visible.delete(s);
        if (s.group.series.size === 0) groups.delete(s.group.key);
      }
    state.requests.forEach(addRequest);
    applyTotals(state);
    orderStale = layoutStale = listStale = noteStale = true;
    return before !== null && fresh;
  };

  const applyTotals = data => {
    setClock(data.now_us);
    totals = data.totals;
    bots = data.bots;
    rates.push([performance.now(), totals.values, totals.requests]);
    while (rates.length > 2 && rates[0][0] < performance.now() - 15000) rates.shift();
    slowly();
  };

  const addRequest = r => {
    const key = `${r.connection}.${r.nth}`;
    if (requests.has(key)) return;
    requests.set(key, r);
    if (requests.size > MAX_REQUESTS) requests.delete(requests.keys().next().value);
    listStale = true;
  };

  const applyBatch = data => {
    for (const [account, path, time, value] of data.values) {
      const s = seriesOf(account, path);
      if (s) add(s, time / 1000, Number(value));
    }
    data.requests.forEach(addRequest);
    invalidate();
  };

  // ---- Connection ----

  let source = null, waiting = null, lastHeard = 0, lostAt = null, tries = 0, calmUntil = 0, attempt = 0;

  const state = (name, text) => {
    $("link").dataset.state = name;
    put($("link-text"), text);
    toggle(document.body, "lost", name === "lost");
    document.title = name === "lost" ? "(lost) Stand-in" : "Stand-in";
  };

  const lost = () => {
    attempt++;
    source?.close();
    source = null;
    if (lostAt === null) lostAt = Date.now();
    state("lost", "Connection lost");
    slowly();
    setTimeout(connect, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
  };

  const connect = () => {
    const mine = ++attempt;
    const here = () => mine === attempt;
    source = new EventSource("/stand-in/events");
    lastHeard = performance.now();
    const on = (name, act) => source.addEventListener(name, event => {
      if (!here()) return;
      lastHeard = performance.now();
      act(JSON.parse(event.data));
    });
    // What comes while a state is under way is added to it afterwards.
    const ask = async () => {
      if (waiting && waiting.mine === mine) { waiting.again = true; return; }
      waiting = { mine, batches: [], again: false };
      try {
        const answer = await fetch("/stand-in/state", { cache: "no-store" });
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        const fresh = await answer.json();
        if (!here()) return;
        const other = applyState(fresh);
        const { batches, again } = waiting;
        waiting = null;
        batches.forEach(applyBatch);
        live(other);
        if (again) setTimeout(() => here() && ask(), 1000);
      } catch {
        if (here()) { waiting = null; lost(); }
      }
    };
    on("hello", ask);
    on("resync", ask);
    on("totals", data => { if (!waiting) applyTotals(data); });
    on("batch", data => waiting ? waiting.batches.push(data) : applyBatch(data));
    source.onerror = () => { if (here()) lost(); };
  };

  const live = other => {
    tries = 0;
    if (lostAt !== null) {
      const text = `Connection is back after ${span(Date.now() - lostAt)}. `;
      put($("alert"), text + (other ? "The stand-in was started anew: what it had in memory is gone." : "What came meanwhile is shown."));
      $("alert").classList.add("calm");
      show($("alert"), true);
      calmUntil = performance.now() + 8000;
      lostAt = null;
    }
    state("live", "Live");
    invalidate();
  };

  // ---- What changes slowly: totals, bots, ages ----

  const tile = name => {
    let e = document.querySelector(`#totals > [data-name="${name}"]`);
    if (!e) {
      e = el("div");
      e.dataset.name = name;
      e.append(el("dt", "", name), el("dd", "big"), el("dd", "more"));
      $("totals").append(e);
    }
    return e;
  };
  const setTile = (name, big, more, bad) => {
    const e = tile(name);
    put(e.children[1], big);
    put(e.children[2], more);
    toggle(e, "bad", !!bad);
  };

  const slowly = () => {
    if (lostAt !== null) {
      $("alert").classList.remove("calm");
      put($("alert"), `No connection to the stand-in since ${clock(now() - (Date.now() - lostAt))}, ${span(Date.now() - lostAt)}. What is shown is from before. Trying again.`);
      show($("alert"), true);
    } else if (performance.now() > calmUntil) show($("alert"), false);
    if (totals) {
      const [first, last] = [rates[0], rates[rates.length - 1]];
      const seconds = (last[0] - first[0]) / 1000;
      const rate = i => seconds > 1.5 ? (last[i] - first[i]) / seconds : 0;
      const n = x => x >= 99.5 ? count(Math.round(x)) : x.toFixed(1);
      setTile("Values received", count(totals.values), `${n(rate(1))} per s`);
      setTile("Paths", count(totals.paths), `${count(totals.stored)} values stored`);
      setTile("Requests", count(totals.requests), `${n(rate(2))} per s`);
      const kinds = Object.entries(totals.by_status).filter(([status]) => status >= 400).map(([status, n]) => `${status}: ${count(n)}`);
      if (totals.unanswered) kinds.push(`no answer: ${count(totals.unanswered)}`);
      setTile("Failed requests", count(totals.failed), kinds.join(", ") || "none", totals.failed > 0);
      setTile("Connections open", count(totals.open_connections), `${count(totals.connections)} so far`);
      setTile("Received", bytes(totals.body_bytes), "in request bodies");
      show($("rules"), totals.rules > 0);
      put($("rules"), `The stand-in is told to misbehave: ${many(totals.rules, "rule stands", "rules stand")}.`);
      drawBots();
    }
    for (const s of visible) drawAge(s);
    for (const group of groups.values()) if (group.el?.isConnected) drawGroupAge(group);
    if (noteStale) drawNotes();
  };

  const drawBots = () => {
    const shown = bots.slice(0, 100);
    const items = shown.map((bot, i) => {
      const key = bot.id ?? `?${bot.short_name}`;
      let row = botRows.get(key);
      if (!row) {
        row = { el: el("li"), name: el("span", "name"), age: el("span", "age"), kind: el("span"), what: el("span"), failed: el("span", "failed-count") };
        const top = el("div", "row"), under = el("div", "under");
        top.append(row.name, row.age);
        under.append(row.kind, row.what, row.failed);
        row.el.append(top, under);
        botRows.set(key, row);
      }
      put(row.name, bot.id === null ? "Token of no bot" : bot.name);
      const where = bot.account === null ? "systemwide" : accounts.get(bot.account)?.name || `account ${bot.account}`;
      put(row.kind, bot.id === null ? "refused" : `${bot.protocol ?? "custom"}, ${where}`);
      const heard = bot.last_heard_us;
      const since = heard === null ? null : now() - heard / 1000;
      put(row.age, since === null ? "not heard yet" : `heard ${age(since)}`);
      // A bot asks for its work every two minutes at the least.
      toggle(row.el, "heard", since !== null && since < 150e3 && bot.id !== null);
      toggle(row.el, "late", since !== null && (since >= 150e3 || bot.id === null));
      put(row.what, `${many(bot.requests, "request")}, ${many(bot.values, "value")}`);
      put(row.failed, bot.failed ? `${count(bot.failed)} failed` : "");
      return row.el;
    });
    sync($("bots"), items);
    const keys = new Set(shown.map(bot => bot.id ?? `?${bot.short_name}`));
    for (const key of botRows.keys()) if (!keys.has(key)) botRows.delete(key);
    show($("bots-note"), bots.length !== shown.length || bots.length === 0);
    put($("bots-note"), bots.length ? `${shown.length} of ${bots.length} bots are shown.` : "There are no bots.");
  };

  const drawNotes = () => {
    noteStale = false;
    const silent = [], withValues = new Set();
    for (const group of groups.values()) if (group.entity !== null) withValues.add(`${group.account}.${group.entity}`);
    let n = 0;
    for (const [id, account] of accounts) for (const entity of account.entities.values())
      if (entity.protocols.length && !withValues.has(`${id}.${entity.id}`)) {
        n++;
        if (silent.length < 20) silent.push(entity.name);
      }
    show($("silent-note"), n > 0);
    put($("silent-note"), `No values yet from ${many(n, "entity", "entities")} with sensors: ${silent.join(", ")}${n > silent.length ? ` and ${count(n - silent.length)} more` : ""}.`);
  };

  // ---- Requests ----

  const drawRequests = () => {
    listStale = false;
    const failedOnly = $("only-failed").checked;
    const failed = r => r.status === null || r.status >= 400;
    const matching = [...requests.values()].reverse().filter(r => !failedOnly || failed(r));
    const shown = matching.slice(0, rowsShown);
    const kept = new Set();
    sync($("requests"), shown.map(r => {
      const key = `${r.connection}.${r.nth}`;
      kept.add(key);
      let item = rows.get(key);
      if (item) return item;
      item = el("li", failed(r) ? "failed" : "");
      const top = el("div", "row"), target = el("span", "target mono"), under = el("div", "under");
      target.append(el("span", "method", r.method), " ", withoutToken(r.path));
      top.append(target, el("span", "status", r.status === null ? "no answer" : String(r.status)));
      if (failed(r)) top.lastChild.append(el("span", "hidden", " failed"));
      under.append(el("span", "", clock(r.time_us / 1000)), el("span", "", r.bot === null ? "no token" : r.bot === "unknown" ? "unknown token" : r.bot));
      if (r.values || r.bytes) under.append(el("span", "", many(r.values, "value")), el("span", "", bytes(r.bytes)));
      if (r.rule !== null) under.append(el("span", "odd", `misbehaved by rule ${r.rule}`));
      under.append(el("span", "", took(r.took_us)));
      item.append(top, under);
      rows.set(key, item);
      return item;
    }));
    for (const key of rows.keys()) if (!kept.has(key)) rows.delete(key);
    show($("requests-more"), matching.length > shown.length);
    // Until the first state has come, nothing is known.
    const note = totals === null ? "" : shown.length === 0 ? (failedOnly ? "No request failed lately." : "No requests yet.")
      : matching.length === shown.length && requests.size === MAX_REQUESTS ? `The page keeps the last ${MAX_REQUESTS} requests.` : "";
    show($("requests-note"), note !== "");
    put($("requests-note"), note);
  };

  // The bot's name stands below it.
  const withoutToken = path => {
    const [route, query] = path.split(/\?(.*)/s);
    const rest = (query || "").split("&").filter(part => part && !/^b=<.*>$/.test(part)).join("&");
    return rest ? `${route}?${rest}` : route;
  };

  // ---- Values: which cards there are ----

  const sorted = () => {
    if (orderStale) {
      orderStale = false;
      order = [...series.values()];
      const compare = new Intl.Collator("en", { numeric: true }).compare;
      const ranks = new Map([...groups.values()]
        .map(group => [group, entityOf(group)])
        .sort(([a, x], [b, y]) => (x ? 0 : 1) - (y ? 0 : 1) || a.account - b.account || compare(x?.name ?? "", y?.name ?? "") || compare(a.prefix, b.prefix))
        .map(([group], i) => [group, i]));
      order.sort((a, b) => ranks.get(a.group) - ranks.get(b.group) || compare(a.name, b.name));
    }
    return order;
  };

  const matches = s => {
    if (words.length === 0) return true;
    const text = `${entityOf(s.group)?.name ?? ""} ${s.path} ${readable(s.path)} ${accounts.get(s.account)?.name ?? ""}`.toLowerCase();
    return words.every(word => text.includes(word));
  };

  const layout = () => {
    layoutStale = false;
    const matching = sorted().filter(matches);
    const shown = matching.slice(0, charts);
    const sections = new Map();
    for (const s of shown) {
      if (!sections.has(s.group)) sections.set(s.group, []);
      sections.get(s.group).push(card(s).el);
    }
    sync($("values"), [...sections].map(([group, cards]) => {
      if (!group.el) {
        group.el = el("section", "group");
        const top = el("div", "row");
        group.title = el("h3");
        group.age = el("span", "age");
        group.grid = el("div", "grid");
        top.append(group.title, group.age);
        group.el.append(top, group.grid);
      }
      const entity = entityOf(group);
      const where = accounts.size > 1 ? `, ${accounts.get(group.account)?.name ?? `account ${group.account}`}` : "";
      const detail = entity ? `${entity.type} ${group.entity}${where}` : group.entity !== null ? `no such entity${where}` : where.slice(2);
      group.title.replaceChildren(entity ? entity.name : readable(group.prefix) || "Values", " ", el("small", "", detail));
      sync(group.grid, cards);
      drawGroupAge(group);
      return group.el;
    }));
    const note = [];
    if (totals !== null && series.size === 0) note.push(accounts.size ? "No values yet. They appear here as soon as a bot delivers some." : "There are no accounts yet, so there can be no values.");
    else if (series.size > 0 && matching.length === 0) note.push(`Nothing matches the filter among ${many(series.size, "path")}.`);
    else if (shown.length < matching.length) note.push(`${count(shown.length)} of ${count(matching.length)} charts are shown: use the filter to find others.`);
    else if (words.length) note.push(`${many(shown.length, "chart")} of ${many(series.size, "path")}.`);
    const missing = Math.max(leftOut, totals ? totals.paths - series.size : 0);
    if (missing > 0 && series.size >= MAX_SERIES) note.push(`${many(missing, "path")} beyond the first ${count(MAX_SERIES)} are not on this page.`);
    show($("values-note"), note.length > 0);
    put($("values-note"), note.join(" "));
    show($("values-more"), shown.length < matching.length);
    noteStale = true;
  };

  const drawGroupAge = group => {
    let newest = -Infinity, silent = 0;
    for (const s of group.series) {
      if (s.t.length) newest = Math.max(newest, s.t[s.t.length - 1]);
      if (s.t.length && isSilent(s)) silent++;
    }
    put(group.age, newest === -Infinity ? "" : `newest ${age(now() - newest)}${silent ? `, ${silent} of ${group.series.size} silent` : ""}`);
  };

  // ---- Values: one card ----

  const bySeries = new WeakMap();
  const seen = new IntersectionObserver(entries => {
    for (const entry of entries) {
      const s = bySeries.get(entry.target);
      if (entry.isIntersecting) { visible.add(s); s.stale = true; } else visible.delete(s);
    }
    invalidate();
  }, { rootMargin: "150px" });
  const sized = new ResizeObserver(entries => {
    for (const entry of entries) {
      const s = bySeries.get(entry.target);
      s.width = Math.floor(entry.contentRect.width);
      s.stale = true;
    }
    invalidate();
  });

  const card = s => {
    if (s.card) return s.card;
    const c = s.card = { el: el("article", "card"), head: el("button"), last: el("span", "last"), age: el("span", "age"), facts: el("span", "facts"), ticks: "" };
    c.head.type = "button";
    c.head.title = s.path;
    c.head.setAttribute("aria-expanded", "false");
    const under = el("div", "under");
    c.head.append(el("span", "path", s.name), c.last);
    under.append(c.age, c.facts);
    c.svg = svg("svg", { role: "img" });
    c.grid = svg("g", {});
    c.plot = svg("svg", {});
    c.gaps = svg("path", { class: "gaps" });
    c.area = svg("path", { class: "area" });
    c.line = svg("path", { class: "value-line" });
    c.dots = svg("path", { class: "dots" });
    c.odd = svg("path", { class: "odd" });
    c.cursor = svg("line", { class: "cursor", visibility: "hidden" });
    c.plot.append(c.gaps, c.area, c.line, c.dots, c.odd, c.cursor);
    c.svg.append(c.grid, c.plot);
    c.el.append(c.head, under, c.svg);
    c.head.addEventListener("click", () => {
      s.wide = !s.wide;
      c.el.classList.toggle("wide", s.wide);
      c.head.setAttribute("aria-expanded", String(s.wide));
      s.stale = true;
      invalidate();
    });
    const point = i => {
      s.at = i === null ? null : s.t[i];
      s.stale = true;
      invalidate();
      return i;
    };
    c.svg.addEventListener("pointermove", event => {
      if (s.t.length === 0 || !c.toTime) return;
      const time = c.toTime(event.clientX - c.svg.getBoundingClientRect().left);
      const i = place(s.t, time);
      point(i > 0 && (i === s.t.length || time - s.t[i - 1] < s.t[i] - time) ? i - 1 : i);
    });
    c.svg.addEventListener("pointerleave", () => point(null));
    c.head.addEventListener("blur", () => point(null));
    c.head.addEventListener("keydown", event => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || s.t.length === 0) return;
      event.preventDefault();
      const at = s.at === null ? s.t.length : place(s.t, s.at);
      const i = point(Math.max(0, Math.min(s.t.length - 1, at + step)));
      put($("readout"), `${clock(s.t[i])}: ${number(s.v[i])}`);
    });
    c.head.addEventListener("keyup", event => { if (event.key === "Escape") point(null); });
    bySeries.set(c.el, s);
    seen.observe(c.el);
    sized.observe(c.el);
    return c;
  };

  const drawAge = s => {
    const c = s.card;
    const n = s.t.length;
    if (!c || n === 0) return;
    const silent = isSilent(s);
    put(c.age, silent ? `silent for ${span(now() - s.t[n - 1])}` : age(now() - s.t[n - 1]));
    toggle(c.el, "silent", silent);
  };

  // Steps of 1, 2 or 5 times a power of ten.
  const nice = rough => {
    const power = 10 ** Math.floor(Math.log10(rough));
    const digit = rough / power;
    return (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10) * power;
  };
  const TIME_STEPS = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600].map(s => s * 1000);

  const draw = s => {
    s.stale = false;
    const c = s.card, n = s.t.length;
    if (!c || !s.width) return;
    const height = s.wide ? 280 : 96, left = 52, right = 6, top = 7, bottom = 19;
    const width = s.width - left - right, plotHeight = height - top - bottom;
    if (width < 40) return;
    const end = now(), begin = end - windowMs;
    c.toTime = x => begin + (x - left) / width * windowMs;
    const from = place(s.t, begin);
    let to = n;
    while (to > from && s.t[to - 1] > end + windowMs * 0.01) to--;

    let min = Infinity, max = -Infinity, sum = 0, finite = 0;
    for (let i = from; i < to; i++) {
      const v = s.v[i];
      if (!Number.isFinite(v)) continue;
      if (v < min) min = v;
      if (v > max) max = v;
      sum += v;
      finite++;
    }

    // The value axis, with zero on it if that is near.
    let low = finite ? min : 0, high = finite ? max : 1;
    if (low >= 0 && low <= high * 0.5) low = 0;
    if (high <= 0 && high >= low * 0.5) high = 0;
    if (!(high - low > Math.max(Math.abs(low), Math.abs(high)) * 1e-9)) {
      if (low === 0 && high === 0) high = 1;
      else if (low >= 0) low = 0;
      else high = 0;
    }
    const step = nice(Math.min(Number.MAX_VALUE, high / (s.wide ? 5 : 2) - low / (s.wide ? 5 : 2)) || 1);
    low = Math.floor(low / step + 1e-9) * step;
    high = Math.ceil(high / step - 1e-9) * step;
    const y = v => plotHeight - (v / 2 - low / 2) / (high / 2 - low / 2) * plotHeight;
    const x = time => (time - begin) / windowMs * width;

    // The time axis: a label needs its width.
    const timeStep = TIME_STEPS.find(step => windowMs / step * (s.wide ? 76 : 58) <= width) ?? TIME_STEPS[TIME_STEPS.length - 1];
    const ticks = `${s.width} ${s.wide} ${windowMs} ${low} ${high} ${step}`;
    if (c.ticks !== ticks) {
      c.ticks = ticks;
      const parts = [];
      for (let k = 0; k < 12; k++) {
        const v = low + k * step;
        if (!(v <= high + step * 0.01)) break;
        const at = Math.round(top + y(v)) + 0.5;
        parts.push(svg("line", { class: "grid-line", x1: left, x2: left + width, y1: at, y2: at }));
        const label = svg("text", { x: left - 6, y: at + 4, "text-anchor": "end" });
        label.textContent = tickText(Math.abs(v) < step * 1e-6 ? 0 : v, step);
        parts.push(label);
      }
      for (let back = 0; back <= windowMs; back += timeStep) {
        const at = Math.round(left + width - back / windowMs * width) - 0.5;
        parts.push(svg("line", { class: "grid-line", x1: at, x2: at, y1: top, y2: top + plotHeight }));
        if (at < left + 14) continue;
        const label = svg("text", { x: at, y: height - 5, "text-anchor": back ? "middle" : "end" });
        label.textContent = back ? `−${span(back)}` : "now";
        parts.push(label);
      }
      c.grid.replaceChildren(...parts);
      c.svg.setAttribute("viewBox", `0 0 ${s.width} ${height}`);
      for (const [name, value] of [["x", left], ["y", top - 4], ["width", width + 3], ["height", plotHeight + 8], ["viewBox", `0 -4 ${width + 3} ${plotHeight + 8}`]])
        c.plot.setAttribute(name, value);
    }

    // Lines of points without a gap between them; a gap is more than three times the usual step, or a value that is no number.
    const gapMs = usual(s) > 0 ? usual(s) * 3 : Infinity;
    const base = Math.max(0, Math.min(plotHeight, y(low > 0 ? low : high < 0 ? high : 0))).toFixed(1);
    let line = "", area = "", dots = "", gaps = "", odd = "";
    let run = null;
    const finish = () => {
      if (run && run.points > 1) area += `${run.path}V${base}H${run.first}Z`;
      else if (run) dots += `M${run.at}h0`;
      if (run && run.points > 1) line += run.path;
      run = null;
    };
    // Where values came at another pace, that pace counts.
    const isGap = i => {
      const step = s.t[i] - s.t[i - 1];
      if (!(step > gapMs)) return false;
      const around = [];
      for (let k = Math.max(1, i - 4); k <= Math.min(n - 1, i + 4); k++) if (k !== i) around.push(s.t[k] - s.t[k - 1]);
      around.sort((a, b) => a - b);
      return around.length === 0 || step > 3 * around[around.length >> 1];
    };
    const mark = (px, v) => {
      const at = `${px.toFixed(1)} ${y(v).toFixed(1)}`;
      if (run) { run.path += `L${at}`; run.points++; } else run = { path: `M${at}`, first: px.toFixed(1), at, points: 1 };
    };
    const fine = (to - from) > width * 2;
    let column = null;
    const flush = () => {
      if (!column) return;
      const { px, first, low, high, last } = column;
      mark(px, first);
      if (low < first || low < last) mark(px, low);
      if (high > first || high > last) mark(px, high);
      if (last !== first) mark(px, last);
      column = null;
    };
    let previous = null;
    for (let i = Math.max(0, from - 1); i < to; i++) {
      const time = s.t[i], v = s.v[i], px = x(time);
      if (previous !== null && isGap(i)) {
        flush();
        finish();
        gaps += `M${Math.max(0, x(previous)).toFixed(1)} 0H${px.toFixed(1)}V${plotHeight}H${Math.max(0, x(previous)).toFixed(1)}Z`;
      }
      previous = time;
      if (!Number.isFinite(v)) {
        flush();
        finish();
        odd += `M${(px - 3).toFixed(1)} ${plotHeight - 8}l6 6m0 -6l-6 6`;
        continue;
      }
      if (!fine) { mark(px, v); continue; }
      const at = Math.floor(px);
      if (column && column.at !== at) flush();
      if (!column) column = { at, px, first: v, low: v, high: v, last: v };
      else { column.low = Math.min(column.low, v); column.high = Math.max(column.high, v); column.last = v; }
    }
    flush();
    finish();
    if (previous !== null && end - previous > gapMs + 2000 && x(previous) < width)
      gaps += `M${Math.max(0, x(previous)).toFixed(1)} 0H${width}V${plotHeight}H${Math.max(0, x(previous)).toFixed(1)}Z`;
    const last = n ? s.v[n - 1] : NaN;
    if (to === n && n > from && Number.isFinite(last)) dots += `M${x(s.t[n - 1]).toFixed(1)} ${y(last).toFixed(1)}h0`;
    for (const [e, d] of [[c.line, line], [c.area, area], [c.dots, dots], [c.gaps, gaps], [c.odd, odd]]) e.setAttribute("d", d);

    put(c.last, n ? number(last) : "");
    toggle(c.last, "odd", n > 0 && !Number.isFinite(last));
    c.last.title = n ? String(last) : "";
    const at = s.at === null ? n : place(s.t, s.at);
    const pointed = at < n && s.t[at] >= begin;
    c.cursor.setAttribute("visibility", pointed ? "visible" : "hidden");
    if (pointed) for (const [name, value] of [["x1", x(s.t[at])], ["x2", x(s.t[at])], ["y1", 0], ["y2", plotHeight]]) c.cursor.setAttribute(name, value);
    const text = $("window").selectedOptions[0].textContent;
    const facts = finite ? `min ${number(min)}  max ${number(max)}${s.wide ? `  mean ${number(sum / finite)}  ${many(finite, "value")}` : ""}` : to > from ? "no finite values" : `none in ${text}`;
    put(c.facts, pointed ? `${clock(s.t[at])}  ${number(s.v[at])}` : facts);
    const label = `${readable(s.path)}, last ${text}: ${facts.replaceAll("  ", ", ")}, last value ${n ? number(last) : "none"}`;
    if (c.svg.getAttribute("aria-label") !== label) c.svg.setAttribute("aria-label", label);
    drawAge(s);
  };

  // ---- Frames ----

  let framed = false, laidOut = 0, scrolled = 0;
  const invalidate = () => {
    if (!framed) {
      framed = true;
      requestAnimationFrame(frame);
    }
  };
  const frame = () => {
    framed = false;
    const at = performance.now();
    if (layoutStale && at - laidOut > 250) { layout(); drawNotes(); laidOut = at; }
    if (listStale) drawRequests();
    // Charts move by a pixel at a time.
    const moved = at - scrolled >= Math.max(100, Math.min(1000, windowMs / 300));
    if (moved) scrolled = at;
    for (const s of visible) if (s.stale || moved) draw(s);
  };
  setInterval(() => {
    if (source && performance.now() - lastHeard > SILENCE_MS) lost();
    invalidate();
  }, 200);
  setInterval(slowly, 1000);

  // ---- Controls ----

  // Filter and span of time stand in the address, so that a reload or a bookmark keeps them.
  const remember = () => {
    const kept = new URLSearchParams();
    if ($("filter").value) kept.set("filter", $("filter").value);
    if (windowMs !== 300e3) kept.set("window", String(windowMs / 1000));
    history.replaceState(null, "", kept.size ? `#${kept}` : location.pathname);
  };
  const read = () => {
    words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    windowMs = Number($("window").value) * 1000;
    charts = CHARTS;
    layoutStale = true;
    laidOut = 0;
    for (const s of visible) s.stale = true;
    invalidate();
  };
  const recall = () => {
    // Other names are places on the page.
    if (location.hash && !location.hash.includes("=")) return;
    const kept = new URLSearchParams(location.hash.slice(1));
    $("filter").value = kept.get("filter") ?? "";
    $("window").value = kept.get("window") ?? "300";
    if ($("window").selectedIndex < 0) $("window").value = "300";
    read();
  };
  $("filter").addEventListener("input", () => { read(); remember(); });
  $("window").addEventListener("change", () => { read(); remember(); });
  addEventListener("hashchange", recall);
  $("only-failed").addEventListener("change", () => { listStale = true; invalidate(); });
  $("requests-more").addEventListener("click", () => { rowsShown += 50; listStale = true; invalidate(); });
  $("values-more").addEventListener("click", () => { charts += CHARTS; layoutStale = true; laidOut = 0; invalidate(); });
  put($("backend"), `${location.origin}/api`);
  recall();
  connect();
})();
