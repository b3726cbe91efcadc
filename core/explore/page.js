// The page of `distk explore`: what was moved is kept here, and every answer is made from all of it.
"use strict";

const FEW = 12; // sliders and thumbnails of long lists that are shown at first
const at = (id) => document.getElementById(id);
const state = { start: null, other: null, swapped: new Set(), share: 0, moves: {}, classes: {} };
let plan = null;
let asking = false;
let again = false;

function make(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...inside);
  return made;
}

function drawn(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// Rows of numbers: one as bars, several as lines over time.
function plot(shown) {
  const width = 240, height = 120;
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img" });
  const span = shown.high - shown.low || 1;
  const y = (value) => height - ((value - shown.low) / span) * height;
  svg.setAttribute("aria-label", `numbers from ${shown.low.toPrecision(3)} to ${shown.high.toPrecision(3)}`);
  svg.append(drawn("line", { x1: 0, x2: width, y1: y(0), y2: y(0), class: "zero" }));
  if (shown.rows.length === 1) {
    const each = width / shown.rows[0].length;
    shown.rows[0].forEach((value, i) => {
      if (value === null) return;
      const top = Math.min(y(value), y(0));
      svg.append(drawn("rect", { x: i * each, y: top, width: Math.max(0.5, each * 0.85), height: Math.abs(y(value) - y(0)), class: "bar" }));
    });
  } else {
    for (const row of shown.rows) {
      const points = row.map((value, i) => (value === null ? "" : `${(i / Math.max(1, row.length - 1)) * width},${y(value)}`));
      svg.append(drawn("polyline", { points: points.join(" "), class: "line" }));
    }
  }
  return svg;
}

function view(shown, words) {
  if (shown.kind === "text") return [make("p", { class: "text" }, shown.text || "(an empty sentence)")];
  if (shown.kind === "numbers") return [plot(shown)];
  const small = shown.height < 128 ? "small" : false;
  const pictures = [make("img", { src: shown.data, alt: words, width: shown.width, height: shown.height, class: small })];
  if (shown.strip) pictures.push(make("img", { src: shown.strip, alt: `${words}: frames beside each other`, class: `strip${small ? " small" : ""}` }));
  return pictures;
}

function put(id, shown, words) {
  at(id).hidden = !shown;
  if (!shown) return;
  at(id).querySelector(".view").replaceChildren(...view(shown, words));
}

function say(text, bad = false) {
  at("state").textContent = text;
  at("state").classList.toggle("bad", bad);
}

async function post(where, what) {
  const answer = await fetch(where, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(what) });
  const told = await answer.json();
  if (told.error) throw new Error(told.error);
  return told;
}

function wish() {
  return {
    start: state.start, other: state.other, swapped: state.other ? [...state.swapped] : [],
    share: state.other ? state.share : 0, moves: state.moves, classes: state.classes,
  };
}

// While an answer is on its way only the newest wish is remembered.
async function ask() {
  if (!state.start || state.start.sentence === "") return;
  if (asking) { again = true; return; }
  asking = true;
  try {
    do {
      again = false;
      const told = await post("show", wish());
      if (!again) show(told);
    } while (again);
    say("");
  } catch (error) {
    say(error instanceof TypeError ? "distk explore does not answer: was it stopped?" : error.message, true);
  } finally {
    asking = false;
  }
  if (again) ask();
}

function show(told) {
  put("made", told.made, "what the model makes of the moved code");
  put("source", told.start.source, "the item");
  put("decoded", told.start.decoded, "what the model makes of the start");
  put("other", told.other && (told.other.source || told.other.decoded), "the second one");
  at("begun").textContent = told.start.source ? "decoded" : "the draw";
  for (const row of document.querySelectorAll("#rows .slider")) {
    const { group, place } = row.dataset;
    const value = told.values[group] && told.values[group][place];
    const input = row.querySelector("input");
    const moved = state.moves[group] !== undefined && state.moves[group][place] !== undefined;
    row.classList.toggle("moved", moved);
    row.querySelector("button").disabled = !moved;
    input.disabled = told.values[group] === undefined;
    if (!moved && value !== undefined) set(input, value);
  }
  for (const button of document.querySelectorAll("#classes button[data-k]")) {
    const held = told.classes[button.dataset.group];
    button.setAttribute("aria-pressed", String(held === Number(button.dataset.k)));
  }
}

// Put a slider where a code stands; where that is beyond its ends, they give way.
function set(input, value) {
  const levels = input.levels;
  if (levels) {
    const near = levels.map((level) => Math.abs(level - value));
    input.value = near.indexOf(Math.min(...near));
  } else {
    input.min = Math.min(input.least, value);
    input.max = Math.max(input.most, value);
    input.value = value;
  }
  input.parentElement.querySelector("output").textContent = (levels ? levels[input.value] : value).toFixed(2);
}

function slider(told) {
  const word = told.kl === null ? "" : `KL ${told.kl.toFixed(2)}`;
  const name = make("span", { class: "name" }, told.name, make("small", {}, told.shifted ? "added to the path" : word));
  const levels = told.values.length ? told.values : null;
  const ends = levels ? { min: 0, max: levels.length - 1, step: 1 } : { min: told.low, max: told.high, step: "any" };
  const input = make("input", { type: "range", ...ends, "aria-label": told.name });
  const back = make("button", { type: "button", title: `${told.name} back`, "aria-label": `${told.name} back`, disabled: true }, "\u21ba");
  Object.assign(input, { levels, least: told.low, most: told.high });
  const row = make("div", { class: "slider", "data-group": told.group, "data-place": told.place }, name, input, make("output", {}), back);
  input.addEventListener("input", () => {
    const value = levels ? levels[input.value] : Number(input.value);
    (state.moves[told.group] ??= {})[told.place] = value;
    row.querySelector("output").textContent = value.toFixed(2);
    ask();
  });
  back.addEventListener("click", () => {
    delete state.moves[told.group][told.place];
    if (!Object.keys(state.moves[told.group]).length) delete state.moves[told.group];
    ask();
  });
  return row;
}

function forget() {
  state.moves = {};
  state.classes = {};
}

// What a code begins at: an item, a draw or a sentence; `which` is "start" or "other".
function chooser(place, which) {
  const words = which === "start" ? "start" : "second";
  const chosen = (value, button) => {
    state[which] = value;
    if (which === "start") forget();
    for (const each of place.querySelectorAll("[aria-pressed]")) each.setAttribute("aria-pressed", String(each === button));
    at("way").hidden = state.other === null;
    offer();
    ask();
  };
  if (plan.items.length) {
    const lines = plan.items[0].kind === "text";
    const thumbs = make("div", { class: lines ? "thumbs lines" : "thumbs" });
    plan.items.forEach((item, i) => {
      const pressed = String(which === "start" && i === 0);
      const title = `row ${item.row} of the data`;
      const button = make("button", { type: "button", title, "aria-label": `${words}: ${title}`, "aria-pressed": pressed });
      button.append(...(lines ? [item.text] : [...view(item, title), make("small", {}, String(item.row))]));
      button.addEventListener("click", () => chosen({ item: i }, button));
      thumbs.append(button);
    });
    place.append(thumbs);
  }
  if (plan.reads) {
    const field = make("textarea", { rows: 1, maxlength: 2000, "aria-label": `${words}: a sentence`, placeholder: "write a sentence" });
    const form = make("form", {}, field, make("button", { type: "submit" }, "Read"));
    const send = (event) => { event.preventDefault(); if (field.value.trim()) chosen({ sentence: field.value }, null); };
    form.addEventListener("submit", send);
    field.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey) send(event); });
    place.append(form);
  }
  const buttons = make("div", { class: "buttons" });
  if (plan.draws) {
    let seed = which === "start" ? 0 : 1;
    const pressed = String(which === "start" && !plan.items.length);
    const button = make("button", { type: "button", "aria-pressed": pressed, "aria-label": `${words}: a draw` }, "Draw one");
    button.addEventListener("click", () => { chosen({ draw: seed }, button); button.textContent = `Draw another (seed ${seed})`; seed += 1; });
    buttons.append(button);
  }
  if (which === "other") {
    const button = make("button", { type: "button" }, "None");
    button.addEventListener("click", () => chosen(null, null));
    buttons.append(button);
  }
  place.append(buttons);
}

// Groups that both codes have: an item has no noise that it could give.
function offer() {
  const draws = state.start && state.start.draw !== undefined && state.other && state.other.draw !== undefined;
  let open = 0;
  for (const button of document.querySelectorAll("#swaps button")) {
    button.hidden = !(draws || plan.encoded.includes(button.dataset.group));
    if (button.hidden) { state.swapped.delete(button.dataset.group); button.setAttribute("aria-pressed", "false"); }
    open += button.hidden ? 0 : 1;
  }
  at("swaps").hidden = state.other === null || !open;
}

function classes(told) {
  const block = make("div", {}, make("h2", {}, told.group));
  const buttons = make("div", { class: "buttons" });
  told.names.forEach((name, k) => {
    const button = make("button", { type: "button", "data-group": told.group, "data-k": k, "aria-pressed": "false" }, name);
    button.addEventListener("click", () => { state.classes[told.group] = k; ask(); });
    buttons.append(button);
  });
  buttons.append(make("button", { type: "button", title: "as it was", onclick: () => { delete state.classes[told.group]; ask(); } }, "\u21ba"));
  block.append(buttons);
  return block;
}

function labels() {
  at("labels").hidden = !plan.labels.length;
  plan.labels.forEach((name, k) => {
    const button = make("button", { type: "button" }, name);
    button.addEventListener("click", async () => {
      const start = state.start;
      const sentence = start.sentence || (start.item !== undefined ? plan.items[start.item].text : at("decoded").querySelector(".view").textContent);
      try {
        at("rewritten").textContent = (await post("rewrite", { sentence, to: k })).text || "(an empty sentence)";
        say("");
      } catch (error) {
        say(error.message, true);
      }
    });
    at("label-buttons").append(button);
  });
}

async function begin() {
  plan = await (await fetch("plan")).json();
  const title = `${plan.method}${plan.data ? ` on ${plan.data}` : ""}`;
  document.title = `${title} \u2013 distk explore`;
  at("title").textContent = title;
  at("about").textContent = `step ${plan.step.toLocaleString("en")}, ${plan.kind} data`;
  document.body.classList.toggle("texts", plan.kind === "sentence");
  chooser(at("start"), "start");
  chooser(at("other-start"), "other");
  at("classes").append(...plan.classes.map(classes));
  at("sliders").hidden = !plan.sliders.length;
  at("rows").append(...plan.sliders.map(slider));
  [...at("rows").children].forEach((row, i) => { row.hidden = i >= FEW; });
  at("more").hidden = plan.sliders.length <= FEW;
  at("more").textContent = `Show all ${plan.sliders.length}`;
  at("more").addEventListener("click", () => { for (const row of at("rows").children) row.hidden = false; at("more").hidden = true; });
  at("back").addEventListener("click", () => { forget(); ask(); });
  for (const group of plan.swaps) {
    const button = make("button", { type: "button", "data-group": group, "aria-pressed": "false" }, group);
    button.addEventListener("click", () => {
      const now = !state.swapped.has(group);
      if (now) state.swapped.add(group); else state.swapped.delete(group);
      button.setAttribute("aria-pressed", String(now));
      ask();
    });
    at("swaps").querySelector(".buttons").append(button);
  }
  at("share").addEventListener("input", (event) => {
    state.share = Number(event.target.value);
    event.target.parentElement.querySelector("output").textContent = state.share.toFixed(2);
    ask();
  });
  labels();
  at("notes").append(...plan.notes.map((note) => make("p", {}, note)));
  state.start = plan.first;
  await ask();
  document.body.dataset.ready = "yes";
}

begin().catch((error) => say(error.message, true));
