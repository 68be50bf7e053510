// The page: shows what the server sends, and sends what a person does.

import { Controls, SIGNS, whilePressed } from "./controls.js";
import * as draw from "./draw.js";

const BACK = 2; // seconds of a rewind
const SHOWN = 200; // steps in the curves
const $ = (id) => document.getElementById(id);

const points = new Map(); // step -> [step, value, reward, discount, true reward]
let socket, hello, frame, controls;
let hold = new Map(); // variable -> class
let gridCursor = null; // [variable, class] of the keyboard
let episodes = [], sheet = null, thumbnail = null;
let loading = null; // the sheet that was chosen last; one that was chosen before may come later

// Connection

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/play`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") return onText(JSON.parse(data));
    const message = unpack(data);
    if (message.type === "clip") return onClip(message);
    onFrame(message);
    send("seen", { number: message.number });
  };
  socket.onclose = ({ reason }) => {
    document.body.dataset.running = "false";
    notice(`The session has ended${reason ? `: ${reason}` : ""}. `);
    const again = document.createElement("button");
    again.textContent = "connect again";
    again.onclick = () => { notice(""); connect(); };
    $("notice").append(again);
  };
}

function send(type, values = {}) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type, ...values }));
}

/** A JSON header with its length before it, then arrays of bytes. */
function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const message = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = 4 + length;
  message.arrays = Object.fromEntries(message.arrays.map(([name, shape]) => {
    const size = shape.reduce((a, b) => a * b, 1);
    const data = new Uint8Array(buffer, at, size);
    at += size;
    return [name, { data, shape }];
  }));
  return message;
}

function onText(message) {
  if (message.type === "hello") onHello(message);
  else if (message.type === "notice") notice(message.text);
  else if (message.type === "link") onLink(message.link);
}

function notice(text) {
  $("notice").textContent = text;
}

// What stays the same

function onHello(message) {
  hello = message;
  const frames = hello.env_frames.toLocaleString("en");
  $("agent").textContent = `${hello.task}, trained for ${frames} frames`;
  document.title = `Play the dream: ${hello.task}`;
  controls = new Controls(hello.controls, act);
  controls.buildPad($("pad"));
  buildPolicy();
  buildKeys();
  const { discrete, shape } = hello.latent;
  $("latent-hint").textContent = discrete
    ? `${shape[0]} variables × ${shape[1]} classes: click one to hold it`
    : `${shape[0]} Gaussian variables: they cannot be held`;
  $("grid").setAttribute("aria-disabled", String(!discrete));
  for (const id of ["seed", "reset"]) $(id).disabled = Boolean(hello.game_problem);
  if (hello.game_problem) notice(`The game itself cannot be played here: ${hello.game_problem}`);
  loadEpisodes();
  if (location.hash.length > 1) send("follow", { link: location.hash.slice(1) });
}

function act(action) {
  send("act", { action });
  if (action === null || frame === undefined) return;
  if (frame.who !== "you" || frame.replaying) send("who", { who: "you" });
  if (!frame.running && !gameOver()) send("run", { running: true });
}

/** Whether nothing goes on here: a dream does, though the game that it left is over. */
function gameOver() {
  return frame.over && frame.where !== "dream";
}

function buildPolicy() {
  const { discrete, names } = hello.controls;
  $("policy-title").querySelector("small").textContent = discrete ? "press one to do it" : "slide to act";
  $("policy").replaceChildren(...names.map((name, index) => {
    const row = document.createElement(discrete ? "button" : "label");
    const [label, number] = [document.createElement("span"), document.createElement("span")];
    label.textContent = `${name.toLowerCase()} ${keysOf(index)}`;
    number.className = "number";
    row.append(label, number);
    if (discrete) {
      whilePressed(row, (isDown) => (isDown ? controls.hold(index) : controls.release(index)));
      return row;
    }
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: -1, max: 1, step: 0.01, value: 0 });
    slider.setAttribute("aria-label", name);
    slider.oninput = () => controls.slide(index, Number(slider.value));
    slider.addEventListener("pointerup", () => slider.blur());
    number.before(slider);
    return row;
  }));
}

/** The keys of an action, as they stand on a keyboard. */
function keysOf(index) {
  const { discrete, buttons } = hello.controls;
  const keys = discrete ? buttons[index] : [["LEFT", "RIGHT"], ["DOWN", "UP"]][index] ?? [];
  return keys.map((name) => SIGNS[name]).join(" ");
}

function buildKeys() {
  const arrows = controls.used.filter((name) => name !== "FIRE").map((name) => name.toLowerCase());
  const rows = [
    arrows.length && ["arrow keys", arrows.join(", ")],
    controls.used.includes("FIRE") && ["space", "fire"],
    hello.controls.discrete && ["1 to 9", "actions by their place in the list"],
    ["P", "pause, go on"], [".", "one step"], ["Backspace", `back ${BACK} seconds`],
    ["R", "start again"], ["G D B", "game, dream, both"], ["Y O N", "you act, the policy, nobody"],
    ["S", "dream from here"], ["Esc", "release all held classes"],
  ];
  $("key-table").innerHTML = "";
  for (const row of rows.filter(Boolean)) {
    const line = $("key-table").insertRow();
    const key = document.createElement("kbd");
    key.textContent = row[0];
    line.insertCell().append(key);
    line.insertCell().textContent = row[1];
  }
}

// What changes with every frame

function onFrame(message) {
  frame = message;
  hold = new Map(frame.hold);
  for (const step of points.keys()) if (step >= frame.changed) points.delete(step);
  for (const point of frame.points) points.set(point[0], point);
  const { body } = document;
  Object.assign(body.dataset, {
    where: frame.where,
    running: frame.running,
    step: frame.step,
    parted: frame.parting?.parted_after !== null && frame.parting !== null,
  });
  showPictures();
  showFacts();
  showControls();
  showLatent();
  showPolicy();
  draw.curves($("curves"), { points, latest: frame.latest, step: frame.step, shown: SHOWN });
}

function showPictures() {
  const { screen, game, dream } = frame.arrays;
  if (screen) draw.picture($("screen"), screen);
  draw.picture($("model"), dream ?? game);
  $("model-caption").textContent = frame.where === "game" ? "what the model sees" : "the dream";
  let text = "";
  if (gameOver()) text = "game over: R starts again, D dreams on";
  else if (frame.step >= hello.max_steps) text = "this timeline is full: rewind, or start again";
  else if (!frame.running && frame.replaying) text = "a recorded dream";
  else if (!frame.running && frame.step === 0) text = "press an arrow key, or ▶";
  else if (frame.where !== "game" && frame.view.discount < hello.gamma / 2) text = "the model believes that it is over";
  $("overlay").textContent = text;
}

function showFacts() {
  const { parting, view } = frame;
  $("step").textContent = frame.step;
  $("action").textContent = frame.action ? actionName(frame.action) : "–";
  $("score-name").textContent = frame.where === "dream" ? "dreamed return" : "return";
  $("score").textContent = number(frame.score, 1);
  $("value").textContent = number(view.value, 2);
  $("continues").textContent = view.discount === null ? "–"
    : `${Math.round((100 * Math.min(view.discount, hello.gamma)) / hello.gamma)}%`;
  $("parting").hidden = parting === null;
  if (!parting) return;
  $("parting").textContent = parting.parted_after === null
    ? `together for ${parting.steps} steps`
    : `game and dream parted after ${parting.parted_after} steps`;
}

function number(value, digits) {
  return value === null ? "–" : value.toFixed(digits);
}

function actionName(action) {
  const { discrete, names } = hello.controls;
  if (discrete) return names[action.indexOf(Math.max(...action))].toLowerCase();
  return action.map((value) => value.toFixed(2)).join(" ");
}

function showControls() {
  for (const id of ["where", "who"]) {
    for (const button of $(id).querySelectorAll("button")) {
      button.setAttribute("aria-pressed", button.dataset.value === frame[id]);
      if (id === "where") button.disabled = !frame.has_game && button.dataset.value !== "dream";
    }
  }
  $("sync").disabled = !frame.has_game || frame.where === "game";
  $("run").textContent = frame.running ? "❚❚" : "▶";
  $("run").setAttribute("aria-label", frame.running ? "Pause" : "Go on");
  $("timeline").max = frame.latest;
  if (document.activeElement !== $("timeline")) $("timeline").value = frame.step;
  $("back").disabled = frame.step === 0;
  $("speed").value = frame.speed;
  $("speed-value").textContent = `${Math.round(frame.speed)}/s`;
  if (document.activeElement !== $("temperature")) $("temperature").value = frame.temperature;
  $("temperature-value").textContent = frame.temperature.toFixed(1);
  $("temperature").disabled = frame.likely;
  $("likely").checked = frame.likely;
  $("release").disabled = hold.size === 0;
  $("release").textContent = hold.size ? `release all (${hold.size})` : "release all";
}

function showLatent() {
  const { probs, drawn, values } = frame.arrays;
  if (values) draw.values($("grid"), values);
  else draw.grid($("grid"), { probs, drawn, hold, cursor: gridCursor });
}

function showPolicy() {
  const { policy } = frame.view;
  [...$("policy").children].forEach((row, index) => {
    const share = policy[index] ?? 0;
    row.querySelector(".number").textContent = share.toFixed(2);
    if (!hello.controls.discrete) return;
    row.style.setProperty("--share", share);
    row.dataset.taken = frame.action !== null && frame.action[index] > 0.5;
  });
}

// The latent under the hand

function cellAt(event) {
  const box = $("grid").getBoundingClientRect(), [rows, columns] = hello.latent.shape;
  const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
  const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
  return row >= 0 && row < rows && column >= 0 && column < columns ? [row, column] : null;
}

function toggle([variable, cls]) {
  const next = new Map(hold);
  if (next.get(variable) === cls) next.delete(variable);
  else next.set(variable, cls);
  send("hold", { hold: [...next] });
}

function describeCell(cell) {
  if (!cell || !frame?.arrays.probs) return void ($("cell").textContent = "\u00a0");
  const [variable, cls] = cell, columns = hello.latent.shape[1];
  const share = frame.arrays.probs.data[variable * columns + cls] / 255;
  const held = hold.get(variable) === cls ? ", held" : "";
  $("cell").textContent = `variable ${variable}, class ${cls}: ${(100 * share).toFixed(0)}%${held}`;
}

function onGridKey(event) {
  if (!hello?.latent.discrete) return;
  const [rows, columns] = hello.latent.shape;
  const [row, column] = gridCursor ?? [0, 0];
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  if (event.key in moves) {
    const [dy, dx] = moves[event.key];
    gridCursor = gridCursor ? [(row + dy + rows) % rows, (column + dx + columns) % columns] : [0, 0];
  } else if (event.key === "Enter" || event.key === " ") {
    toggle(gridCursor ?? [0, 0]);
  } else {
    return;
  }
  event.preventDefault();
  event.stopPropagation();
  describeCell(gridCursor);
  showLatent();
}

// Where a timeline starts

async function loadEpisodes() {
  episodes = await (await fetch("episodes")).json();
  $("episode").replaceChildren(...episodes.map(({ name, rows }, index) => {
    const kind = name.startsWith("eval") ? "evaluation" : "training";
    return new Option(`${kind}, ${name.split("/")[1].slice(9, 15)}, ${rows - 1} steps`, index);
  }));
  $("episode-label").hidden = $("strip").hidden = episodes.length === 0;
  if (episodes.length) loadSheet();
}

function loadSheet() {
  const { name } = episodes[$("episode").value];
  thumbnail = null;
  const image = new Image();
  loading = image;
  image.onload = () => {
    if (image !== loading) return;
    sheet = image;
    showStrip();
  };
  image.onerror = () => {
    if (image !== loading) return;
    sheet = null;
    notice("This episode is not there any more.");
  };
  image.src = `thumbnails/${name}.png`;
}

function thumbnails() {
  return Math.min(episodes[$("episode").value].rows, 24);
}

function showStrip() {
  if (sheet) draw.strip($("thumbnails"), sheet, thumbnails(), thumbnail);
}

function startAt(index) {
  const { name, rows } = episodes[$("episode").value], count = thumbnails();
  thumbnail = Math.max(0, Math.min(index, count - 1));
  showStrip();
  const row = count > 1 ? Math.round((thumbnail * (rows - 1)) / (count - 1)) : 0;
  send("episode", { episode: name, row });
}

function restart() {
  const { episode, row } = frame.origin;
  if (episode === null) send("reset", { seed: frame.origin.seed });
  else send("episode", { episode, row });
}

// What is kept

function save(format) {
  const steps = Math.min(hello.longest_clip, Math.round($("seconds").value * frame.speed));
  $("kept").textContent = `making a ${format.toUpperCase()}…`;
  send("save", { format, steps });
}

function onClip({ format, frames, arrays }) {
  const type = { gif: "image/gif", mp4: "video/mp4" }[format];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([arrays.file.data], { type }));
  link.download = `dream-${hello.task}.${format}`;
  link.textContent = `${link.download}, ${frames} pictures, ${(arrays.file.data.length / 1e6).toFixed(2)} MB`;
  const before = $("kept").querySelector("a");
  if (before) URL.revokeObjectURL(before.href);
  $("kept").replaceChildren(link);
  link.click();
}

async function onLink(text) {
  const url = `${location.origin}${location.pathname}#${text}`;
  const box = Object.assign(document.createElement("input"), { value: url, readOnly: true });
  box.setAttribute("aria-label", "Link");
  try {
    await navigator.clipboard.writeText(url);
    $("kept").replaceChildren("link copied: ", box);
  } catch {
    $("kept").replaceChildren("copy this link: ", box);
    box.select();
  }
}

// Buttons and keys

const go = {
  run: () => send("run", { running: !frame.running }),
  one: () => send("step"),
  back: () => send("rewind", { to: Math.max(0, frame.step - Math.round(BACK * frame.speed)) }),
  restart,
  sync: () => send("sync"),
  release: () => send("hold", { hold: [] }),
  luck: () => send("luck", { seed: (frame.luck + 1) % 2 ** 31 }),
  reset: () => send("reset", { seed: Math.max(0, Math.floor(Number($("seed").value) || 0)) % 2 ** 31 }),
  gif: () => save("gif"),
  mp4: () => save("mp4"),
  link: () => send("link"),
  help: () => $("keys").showModal(),
  theme: () => setTheme(document.documentElement.dataset.theme === "light" ? "dark" : "light"),
};
const shortcuts = {
  p: go.run, ".": go.one, backspace: go.back, r: go.restart, s: go.sync, escape: go.release,
  g: () => send("where", { where: "game" }),
  d: () => send("where", { where: "dream" }),
  b: () => send("where", { where: "both" }),
  y: () => send("who", { who: "you" }),
  o: () => send("who", { who: "policy" }),
  n: () => send("who", { who: "nobody" }),
};

function listen() {
  for (const [id, action] of Object.entries(go)) {
    $(id).addEventListener("click", (event) => {
      if (id !== "theme" && id !== "help" && !frame) return;
      action();
      // After a click with the pointer the keys are the game's again.
      if (event.detail > 0) $(id).blur();
    });
  }
  for (const id of ["where", "who"]) {
    $(id).addEventListener("click", ({ target, detail }) => {
      if (target.dataset.value) send(id, { [id]: target.dataset.value });
      if (detail > 0) target.blur();
    });
  }
  $("tabs").addEventListener("click", ({ target }) => target.dataset.tab && setTab(target.dataset.tab));
  const sliders = {
    timeline: (value) => send("rewind", { to: value }),
    speed: (value) => send("speed", { speed: value }),
    temperature: (value) => send("temperature", { temperature: value }),
  };
  for (const [id, action] of Object.entries(sliders)) {
    $(id).addEventListener("input", () => action(Number($(id).value)));
    $(id).addEventListener("pointerup", () => $(id).blur());
  }
  $("likely").addEventListener("change", () => {
    send("likely", { likely: $("likely").checked });
    // The focus that the keyboard gave is a visible one; after the pointer the keys are the game's.
    if (!$("likely").matches(":focus-visible")) $("likely").blur();
  });
  $("episode").addEventListener("change", loadSheet);
  $("grid").addEventListener("click", (event) => {
    const cell = hello?.latent.discrete ? cellAt(event) : null;
    if (cell) toggle(cell);
    $("grid").blur();
  });
  $("grid").addEventListener("pointermove", (event) => hello?.latent.discrete && describeCell(cellAt(event)));
  $("grid").addEventListener("pointerleave", () => describeCell(null));
  $("grid").addEventListener("keydown", onGridKey);
  $("grid").addEventListener("blur", () => { gridCursor = null; });
  $("thumbnails").addEventListener("click", (event) => {
    const box = $("thumbnails").getBoundingClientRect();
    startAt(Math.floor(((event.clientX - box.left) / box.width) * thumbnails()));
    $("thumbnails").blur();
  });
  $("thumbnails").addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, Enter: 0 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();
    startAt((thumbnail ?? 0) + moves[event.key]);
  });
  document.addEventListener("keydown", onKeyDown);
  document.addEventListener("keyup", (event) => controls?.keyUp(event));
  window.addEventListener("resize", () => frame && onFrame({ ...frame, points: [], changed: Infinity }));
  window.addEventListener("hashchange", () => location.hash.length > 1 && send("follow", { link: location.hash.slice(1) }));
  setInterval(() => controls && navigator.getGamepads && controls.poll(), 16);
}

function onKeyDown(event) {
  const typing = $("keys").open || event.target.matches("input, select");
  if (!frame || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("button") && [" ", "Enter"].includes(event.key)) return;
  if (controls.keyDown(event)) return event.preventDefault();
  const action = shortcuts[event.key.toLowerCase()];
  if (!action || event.repeat) return;
  event.preventDefault();
  action();
}

function setTab(name) {
  document.body.dataset.tab = name;
  for (const button of $("tabs").children) button.setAttribute("aria-pressed", button.dataset.tab === name);
  if (frame) onFrame({ ...frame, points: [], changed: Infinity });
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // A browser may keep nothing of a page; then the theme lasts as long as the page.
  }
  draw.readTheme();
  if (frame) onFrame({ ...frame, points: [], changed: Infinity });
  showStrip();
}

/** The theme that was chosen before, if the browser has kept one. */
function keptTheme() {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null;
  }
}

const wanted = matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
setTheme(keptTheme() ?? wanted);
setTab("latent");
listen();
connect();
