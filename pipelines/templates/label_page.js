"use strict";
// Everything that comes from data reaches the page through textContent and setAttribute only.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const STORE = "canopycube label doctor " + [data.name, data.fingerprint, data.decided].join(" ");
const FORMULA = /^'*[=+\-@\t\r]/;
let current = -1, neuron = null, decisions = {};

// ---------------------------------------------------------------- numbers
const unpack = (text) =>
  new Uint16Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
const packed = { own: unpack(data.series), classes: unpack(data.envelopes) };
/** The values over time of one row, quantile and layer; null where there is none. */
function values(from, row, quantile, layer) {
  const times = data.periods.length, layers = data.layers.length, { low, step } = data.layers[layer];
  return Array.from({ length: times }, (_, time) => {
    const stored = from[((row * 3 + quantile) * times + time) * layers + layer];
    return stored === 65535 ? null : low + step * stored;
  });
}

// ---------------------------------------------------------------- decisions
function load() {
  for (const [index, one] of data.cases.entries()) if (one.earlier) decisions[index] = one.earlier;
  try {
    const stored = new Map(JSON.parse(localStorage.getItem(STORE) || "[]"));
    for (const [index, known] of data.cases.entries()) {
      const one = stored.get(JSON.stringify([known.group, known.given]));
      if (!one || typeof one !== "object") continue;
      const label = typeof one.label === "string" ? one.label : "";
      const note = typeof one.note === "string" ? one.note : "";
      if (one.action === "fix" ? data.classes.some((c) => c.name === label && label !== known.given)
                               : ["accept", "drop", ""].includes(one.action))
        decisions[index] = { action: one.action, label: one.action === "fix" ? label : "", note };
    }
  } catch (error) {
    tell("This browser keeps nothing for this page: download your decisions before you close it.");
  }
}
function keep() {
  const named = Object.entries(decisions).map(([index, made]) =>
    [JSON.stringify([data.cases[index].group, data.cases[index].given]), made]);
  try { localStorage.setItem(STORE, JSON.stringify(named)); }
  catch (error) {
    tell("This browser keeps nothing for this page: download your decisions before you close it.");
  }
}
function tell(text) { at("notice").textContent = text; at("notice").hidden = false; }
function decide(action, label = "") {
  if (current < 0) return;
  const one = data.cases[current];
  if (action === "fix" && (!label || label === one.given)) return;
  decisions[current] = { action, label, note: at("note").value.trim() };
  keep(); mark(current); progress(); show(current);
  if (action) step(1);
}
/** Rows of the file; of a group that earlier decisions fixed, in the words of each of them. */
function rowsOf(index) {
  const one = data.cases[index], made = decisions[index];
  return one.originals.map((original) => {
    let { action, label } = made;
    if (action === "accept" && original !== one.given) { action = "fix"; label = one.given; }
    else if (action === "fix" && label === original) { action = "accept"; label = ""; }
    return [one.group, original, action, label, "", made.note, data.fingerprint];
  });
}
function cell(text) {
  const guarded = FORMULA.test(text) ? "'" + text : text;
  return /[",\r\n]|^\s|\s$/.test(guarded) ? '"' + guarded.replaceAll('"', '""') + '"' : guarded;
}
function table() {
  const made = Object.keys(decisions).filter((index) => decisions[index].action).flatMap((i) => rowsOf(i));
  const said = new Set(data.cases.flatMap((one) =>
    one.originals.map((original) => JSON.stringify([one.group, original, ""]))));
  const others = data.earlier.filter((old) => !said.has(JSON.stringify([old[0], old[1], old[4]])));
  // what an earlier file fixed and this page left alone stays fixed
  const kept = data.earlier.filter((old) => old[4] === "" && data.cases.some((one, index) =>
    one.group === old[0] && one.originals.includes(old[1]) && old[1] !== one.given
    && !(decisions[index] && decisions[index].action)));
  return [data.columns, ...others, ...kept, ...made]
    .map((cells) => cells.map(cell).join(",")).join("\n") + "\n";
}
function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = "decisions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// ---------------------------------------------------------------- list
function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
const rows = data.cases.map((one, index) => {
  const button = element("button", undefined, { type: "button" });
  button.append(element("span", one.score.toFixed(2)), element("span", one.group),
    element("span", "", { class: "state" }), element("small", one.given + " → " + one.suggested));
  button.addEventListener("click", () => show(index));
  const item = element("li");
  item.append(button);
  return item;
});
function mark(index) {
  const made = decisions[index];
  rows[index].querySelector(".state").textContent =
    !made || !made.action ? "" : made.action === "fix" ? "→ " + made.label : made.action;
}
function isShown(index) {
  const one = data.cases[index], made = decisions[index], isDone = Boolean(made && made.action);
  const state = at("of-state").value, name = at("of-class").value;
  return (name === "" || one.given === data.classes[Number(name)].name)
    && (state === "all" || (state === "done") === isDone)
    && (neuron === null || one.neuron === neuron);
}
function filter() {
  rows.forEach((item, index) => { item.hidden = !isShown(index); });
  at("none").hidden = rows.some((item) => !item.hidden);
  if (current < 0 || rows[current].hidden) {
    const first = rows.findIndex((item) => !item.hidden);
    if (first >= 0) show(first); else { current = -1; at("case").hidden = true; som(); }
  }
}
function step(by, wants = () => true) {
  for (let index = current + by; index >= 0 && index < rows.length; index += by)
    if (!rows[index].hidden && wants(index)) { show(index); return; }
}
const counted = (number, word) => number + " " + word + (number === 1 ? "" : "s");
function progress() {
  const done = Object.values(decisions).filter((made) => made.action).length;
  at("progress").textContent = done + " of " + counted(data.cases.length, "label") + " decided"
    + (data.by_map ? " (" + data.by_map + " of them only the map of series would remove)" : "")
    + (data.left_out ? "; " + data.left_out + " less doubtful ones are in label_doctor.csv" : "");
}

// ---------------------------------------------------------------- pictures
function drawn(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
/** Runs of times at which every list has a value. */
function runs(...lists) {
  const found = [];
  lists[0].forEach((_, time) => {
    if (lists.some((list) => list[time] === null)) return;
    const last = found[found.length - 1];
    if (last && last[last.length - 1] === time - 1) last.push(time); else found.push([time]);
  });
  return found;
}
function chart(index) {
  const layer = Number(at("layer").value), one = data.cases[index], wide = 720, high = 320;
  const classes = [["given", one.given_index], ["suggested", one.suggested_index]]
    .map(([kind, number]) => [kind, [0, 1, 2].map((q) => values(packed.classes, number, q, layer))]);
  const own = [0, 1, 2].map((q) => values(packed.own, index, q, layer));
  const all = [...own, ...classes.flatMap(([, lists]) => lists)].flat().filter((v) => v !== null);
  const low = all.length ? Math.min(...all) : 0, top = all.length ? Math.max(...all) : 1;
  const room = (top - low) * 0.06 || 0.5, from = low - room, to = top + room;
  const times = data.periods.length;
  const x = (time) => 58 + (times > 1 ? time / (times - 1) : 0.5) * (wide - 94);
  const y = (value) => 12 + (to - value) / (to - from) * (high - 52);
  const svg = drawn("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img",
    "aria-label": `${data.layers[layer].name} of the group against its given and suggested class` });
  for (let part = 0; part <= 4; part++) {
    const value = from + (to - from) * part / 4;
    svg.append(drawn("line", { class: "grid", x1: 52, x2: wide - 18, y1: y(value), y2: y(value) }),
      drawn("text", { x: 46, y: y(value) + 4, "text-anchor": "end" }, Number(value.toPrecision(3))));
  }
  // of a period its first day; as many as fit beside each other
  const names = data.periods.map((name) => name.split("/")[0]);
  const longest = Math.max(...names.map((name) => name.length));
  const every = Math.max(1, Math.ceil(times * (8 * longest + 10) / (wide - 94)));
  names.forEach((name, time) => {
    if (time % every === 0) svg.append(drawn("text", { class: "time", x: x(time), y: high - 20,
      "text-anchor": "middle" }, name));
  });
  const line = (list, kind) => {
    for (const run of runs(list)) {
      if (run.length > 1) svg.append(drawn("polyline", { class: `line ${kind}-ink`,
        points: run.map((time) => `${x(time)},${y(list[time])}`).join(" ") }));
      if (run.length === 1 || kind === "own") for (const time of run) svg.append(drawn("circle",
        { class: `${kind}-fill`, cx: x(time), cy: y(list[time]), r: kind === "own" ? 4 : 3 }));
    }
  };
  for (const [kind, [lower, , upper]] of classes) for (const run of runs(lower, upper))
    svg.append(drawn("polygon", { class: `area ${kind}-fill`, points:
      [...run.map((time) => `${x(time)},${y(upper[time])}`),
       ...run.slice().reverse().map((time) => `${x(time)},${y(lower[time])}`)].join(" ") }));
  for (const [kind, [, middle]] of classes) line(middle, kind);
  for (const [time] of runs(own[0], own[2]).flat().map((t) => [t])) svg.append(drawn("line",
    { class: "whisker", x1: x(time), x2: x(time), y1: y(own[0][time]), y2: y(own[2][time]) }));
  line(own[1], "own");
  at("chart").replaceChildren(svg);
}
let neurons = [];
function som() {
  const edge = data.som.edge, size = 280 / edge;
  if (!neurons.length) {
    const svg = drawn("svg", { viewBox: "0 0 280 280", role: "group",
      "aria-label": "Self-organising map" });
    neurons = data.som.neurons.map(([number, share], index) => {
      const box = drawn("rect", { class: "neuron", x: index % edge * size, width: size, height: size,
        y: Math.floor(index / edge) * size });
      box.style.fill = number < 0 ? "#ffffff" : data.classes[number].colour;
      box.style.fillOpacity = number < 0 ? 1 : 0.15 + 0.85 * share;
      box.append(drawn("title", {}, number < 0 ? "no group"
        : data.classes[number].name + ", " + Math.round(100 * share) + " %"));
      box.addEventListener("click", () => { neuron = neuron === index ? null : index; filter(); som(); });
      svg.append(box);
      return box;
    });
    for (const one of data.cases) if (one.neuron >= 0) svg.append(drawn("circle", { class: "dot",
      cx: (one.neuron % edge + one.shift[0]) * size, r: Math.max(1.5, size / 9),
      cy: (Math.floor(one.neuron / edge) + one.shift[1]) * size }));
    svg.append(drawn("rect", { class: "ring", id: "ring", width: size, height: size }));
    at("som").replaceChildren(svg);
  }
  neurons.forEach((box, index) => box.classList.toggle("chosen", index === neuron));
  const shown = current < 0 ? -1 : data.cases[current].neuron;
  at("ring").setAttribute("visibility", shown < 0 ? "hidden" : "visible");
  at("ring").setAttribute("x", shown % edge * size);
  at("ring").setAttribute("y", Math.floor(shown / edge) * size);
}

// ---------------------------------------------------------------- the one that is shown
function show(index) {
  if (current >= 0) rows[current].firstChild.removeAttribute("aria-current");
  const one = data.cases[index], made = decisions[index];
  const was = one.originals.filter((original) => original !== one.given);
  if (current !== index) at("fix-to").value = one.suggested_index === one.given_index
    ? "" : String(one.suggested_index);
  current = index;
  rows[index].firstChild.setAttribute("aria-current", "true");
  rows[index].scrollIntoView({ block: "nearest" });
  at("case").hidden = false;
  at("group").textContent = one.group + ": " + one.given + ", looks like " + one.suggested;
  at("facts").replaceChildren(`doubt ${one.score.toFixed(2)} · ${counted(one.samples, "sample")}, `
    + `${Math.round(100 * one.agreement)} % of them look like ${one.suggested} · `
    + `map of series: ${one.verdict}`
    + (was.length ? ` · ${was.join(", ")} before an earlier decision` : ""));
  if (one.lon !== null) {
    const place = one.lat.toFixed(6) + ", " + one.lon.toFixed(6);
    at("facts").append(" · lat, lon ", element("a", place,
      { href: `geo:${one.lat.toFixed(6)},${one.lon.toFixed(6)}` }));
  }
  at("given-name").textContent = one.given;
  at("suggested-name").textContent = one.suggested;
  at("note").value = made ? made.note : "";
  if (made && made.action === "fix")
    at("fix-to").value = String(data.classes.findIndex((c) => c.name === made.label));
  for (const action of ["accept", "fix", "drop"])
    at(action).setAttribute("aria-pressed", String(Boolean(made && made.action === action)));
  chart(index); som();
}
const chosenClass = () => at("fix-to").value === "" ? "" : data.classes[Number(at("fix-to").value)].name;
const next = (list) => { list.selectedIndex = (list.selectedIndex + 1) % list.length; };
const KEYS = {
  a: () => decide("accept"), f: () => decide("fix", chosenClass()), d: () => decide("drop"),
  u: () => decide(""), j: () => step(1), k: () => step(-1), ArrowDown: () => step(1),
  ArrowUp: () => step(-1), c: () => at("fix-to").focus(),
  n: () => step(1, (index) => !(decisions[index] && decisions[index].action)),
  l: () => { next(at("layer")); if (current >= 0) chart(current); },
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") { document.activeElement.blur(); return; }
  if (event.target.closest("input, select") || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
});

// ---------------------------------------------------------------- begin
at("list").append(...rows);
at("of-class").append(element("option", "all", { value: "" }));
at("fix-to").append(element("option", "choose a class", { value: "" }));
data.classes.forEach((one, index) => {
  at("of-class").append(element("option", one.name, { value: index }));
  at("fix-to").append(element("option", one.name, { value: index }));
  const item = element("li"), colour = element("i");
  colour.style.background = one.colour;
  item.append(colour, one.name);
  at("legend").append(item);
});
data.layers.forEach((one, index) => at("layer").append(element("option", one.name, { value: index })));
at("layer").value = String(data.first_layer);
at("layer").addEventListener("change", () => { if (current >= 0) chart(current); });
at("of-class").addEventListener("change", filter);
at("of-state").addEventListener("change", filter);
at("accept").addEventListener("click", () => decide("accept"));
at("fix").addEventListener("click", () => decide("fix", chosenClass()));
at("drop").addEventListener("click", () => decide("drop"));
at("undo").addEventListener("click", () => decide(""));
at("download").addEventListener("click", download);
at("note").addEventListener("change", () => {
  const made = decisions[current];
  if (made) { made.note = at("note").value.trim(); keep(); }
});
load();
rows.forEach((_, index) => mark(index));
progress();
filter();
som();
