"use strict";
const facts = JSON.parse(document.getElementById("facts").textContent);
const $ = id => document.getElementById(id);
const pause = ms => new Promise(done => setTimeout(done, ms));
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7b5bb5", "#e69f00", "#8c564b", "#6b7a89"];
const SLOWLY = 150;  // milliseconds that the hand rests before what is slower follows
const axes = Object.fromEntries(facts.axes.map(axis => [axis.name, axis]));
const dimensions = facts.axes.filter(axis => "dimension" in axis);
const state = {z: [...facts.start], label: facts.labels.length ? 0 : null, image: "", draw: null, test: null, x: null, y: null, points: [], pointLabels: null};
const ends = {a: null, b: null};

// Requests: of each kind one is under way, and the next one has what is newest then

async function ask(name, body, options) {
  const headers = options ? {"Content-Type": "application/octet-stream", "X-Options": JSON.stringify(options)} : {"Content-Type": "application/json"};
  let response;
  try {
    response = await fetch(name, {method: "POST", headers, body: options ? body : JSON.stringify(body)});
  } catch {
    throw Error("vae-explore has ended, or cannot be reached. Start it again, and open the address that it prints.");
  }
  const answer = await response.json().catch(() => ({error: "vae-explore has too many connections. Close other tabs of it."}));
  if (!response.ok) throw Object.assign(Error(answer.error), {isBusy: [409, 429, 503].includes(response.status)});
  return answer;
}

function newest(name, show) {
  let waiting = null, busy = false;
  return async body => {
    waiting = body;
    if (busy) return;
    busy = true;
    while (waiting) {
      const current = waiting;
      waiting = null;
      try {
        show(await ask(name, current), current);
        tell("");
      } catch (error) {
        if (error.isBusy) { waiting ??= current; await pause(50); } else tell(error.message);
      }
    }
    busy = false;
  };
}

async function once(name, body, show, options) {
  try {
    show(await ask(name, body, options));
    tell("");
  } catch (error) {
    tell(error.message);
  }
}

function tell(problem) {
  $("problem").textContent = problem;
  $("problem").hidden = !problem;
}

// The code in view

const round = value => Number(value.toFixed(facts.digits));
const label = () => state.label === null ? {} : {label: state.label};
const labelName = number => facts.classNames[number] ?? String(number);
const short = value => value.toFixed(2).replace("-", "−");
const place = (axis, z) => "dimension" in axis ? z[axis.dimension] : axis.direction.reduce((sum, part, d) => sum + part * (z[d] - axis.origin[d]), 0);

function move(z, draw = null, test = null) {  // to a code; draw and test say where it comes from
  state.z = z.map(round);
  state.draw = draw;
  state.test = test;
  showImage({z: state.z, ...label()});
  follow();
}

function arrive(answer, draw = null, test = null) {  // at a code whose image has come with it
  state.z = answer.z;
  state.draw = draw;
  state.test = test;
  if (answer.label !== undefined && answer.label !== null) choose(answer.label);
  put(answer.image);
  follow();
}

function follow() {
  for (const show of sliders) show();
  paint();
  write();
  rest();
}

const showImage = newest("image", (answer, body) => { if (body.z === state.z) put(answer.image); });  // unless a draw or a file came in between

function put(image) {
  state.image = image;
  $("image").src = image;
  const where = state.y ? [state.x, state.y] : [state.x];
  $("place").textContent = where.map(axis => `${axis.title.split(",")[0]} ${short(place(axis, state.z))}`).join(", ");
  $("image").alt = `The image that the model decodes at ${$("place").textContent}${state.label === null ? "" : `, label ${labelName(state.label)}`}`;
}

let resting;
function rest() {  // what follows once the hand rests
  clearTimeout(resting);
  resting = setTimeout(() => {
    if (facts.tests) showNeighbours({z: state.z});
    $("spoken").textContent = $("image").alt;
  }, SLOWLY);
}

// Labels, draws, the prior's mean

function choose(number) {
  state.label = number;
  const input = document.querySelector(`#labels input[value="${number}"]`);
  if (input) input.checked = true;
  if ($("label")) $("label").value = number;
}

function buildLabels() {
  if (!facts.labels.length) return;
  $("labels").hidden = false;
  if (facts.labels.length > 12) {
    $("labels").innerHTML = '<label>Label <select id="label"></select></label>';
    $("label").append(...facts.labels.map((name, number) => new Option(name, number)));
  } else {
    const set = document.createElement("fieldset");
    set.className = "chips";
    set.innerHTML = "<legend>Label</legend>";
    facts.labels.forEach((name, number) => {
      const chip = document.createElement("label"), input = document.createElement("input");
      Object.assign(input, {type: "radio", name: "label", value: number});
      chip.append(input, name);
      set.append(chip);
    });
    $("labels").append(set);
  }
  choose(0);
  $("labels").addEventListener("change", event => {
    state.label = Number(event.target.value);
    move(state.z);
  });
}

let last = null;
function draw(isNew) {
  if (isNew && last) $("seed").value = Number($("seed").value) + 1;
  last = {seed: Math.max(0, Math.trunc(Number($("seed").value))), temperature: Number($("temperature").value)};
  showDraw({...last, ...label()});
}
const showDraw = newest("draw", (answer, body) => arrive(answer, body));

// The plane

function choosePlane() {
  state.x = axes[$("across").value];
  state.y = dimensions.length > 1 ? axes[$("up").value] : null;
  const names = [state.x, ...state.y ? [state.y] : []].map(axis => axis.title.split(",")[0]);
  $("plane").setAttribute("aria-label", `Plane of ${names.join(" and ")}`);
  if (facts.tests) showPoints({x: state.x.name, y: (state.y ?? state.x).name});
  paint();
}
const showPoints = newest("points", answer => {
  state.points = answer.points;
  state.pointLabels = answer.labels;
  const count = answer.labels ? 1 + Math.max(...answer.labels) : 0;
  $("legend").hidden = !count || count > COLORS.length;
  $("legend").replaceChildren(...count > COLORS.length ? [] : Array.from({length: count}, (_, number) => {
    const entry = document.createElement("span"), dot = document.createElement("i");
    dot.style.background = COLORS[number];
    entry.append(dot, labelName(number));
    return entry;
  }));
  paint();
});

function buildPlane() {
  const kinds = facts.axes.filter(axis => "direction" in axis);
  const start = kinds.length > 1 ? kinds : [...dimensions].slice(0, 2).sort((one, other) => one.dimension - other.dimension);
  for (const id of ["across", "up"]) $(id).append(...facts.axes.map(axis => new Option(axis.title, axis.name)));
  $("across").value = start[0].name;
  if (start[1]) $("up").value = start[1].name;
  $("upward").hidden = dimensions.length < 2;
  $("plane").classList.toggle("line", dimensions.length < 2);
  for (const [id, other] of [["across", "up"], ["up", "across"]]) {
    $(id).addEventListener("change", () => {  // the two stay of one kind, and differ
      const chosen = axes[$(id).value], kept = axes[$(other).value];
      if (chosen === kept || "direction" in chosen !== "direction" in kept) {
        $(other).value = facts.axes.find(axis => axis !== chosen && "direction" in axis === "direction" in chosen).name;
      }
      choosePlane();
    });
  }
  const plane = $("plane");
  plane.addEventListener("pointerdown", event => {
    if (event.button) return;
    plane.setPointerCapture(event.pointerId);
    point(event);
  });
  plane.addEventListener("pointermove", event => { if (plane.hasPointerCapture(event.pointerId)) point(event); });
  plane.addEventListener("keydown", event => {
    const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key];
    if (!steps || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const size = event.shiftKey ? 0.1 : 0.02;
    go(...[state.x, state.y].map((axis, number) => axis && clamp(axis, place(axis, state.z) + steps[number] * size * (axis.high - axis.low))));
  });
  new ResizeObserver(paint).observe(plane);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
}

const clamp = (axis, u) => Math.min(axis.high, Math.max(axis.low, u));

function point(event) {
  const box = $("plane").getBoundingClientRect();
  const u = state.x.low + (event.clientX - box.left) / box.width * (state.x.high - state.x.low);
  const v = state.y && state.y.high - (event.clientY - box.top) / box.height * (state.y.high - state.y.low);
  go(clamp(state.x, u), state.y && clamp(state.y, v));
}

function go(u, v) {  // to a place in the plane; what lies across it stays
  const z = [...state.z];
  for (const [axis, goal] of [[state.x, u], [state.y, v]]) {
    if (!axis) continue;
    const step = goal - place(axis, z);
    if ("dimension" in axis) z[axis.dimension] = goal;
    else axis.direction.forEach((part, d) => { z[d] += step * part; });
  }
  move(z);
}

function paint() {
  if (!state.x) return;
  const box = $("plane").getBoundingClientRect(), scale = devicePixelRatio || 1, canvas = $("canvas");
  const style = getComputedStyle(document.documentElement), color = name => style.getPropertyValue(name).trim();
  canvas.width = Math.round(box.width * scale);
  canvas.height = Math.round(box.height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const across = u => (u - state.x.low) / (state.x.high - state.x.low) * box.width;
  const up = v => state.y ? (state.y.high - v) / (state.y.high - state.y.low) * box.height : box.height / 2;
  const at = z => [across(place(state.x, z)), state.y ? up(place(state.y, z)) : box.height / 2];
  pen.fillStyle = color("--back");
  pen.fillRect(0, 0, box.width, box.height);
  const few = state.pointLabels && Math.max(...state.pointLabels) < COLORS.length;
  const dot = state.points.length > 500 ? 3 : 5;  // pixels
  pen.globalAlpha = 0.55;
  state.points.forEach(([u, v], number) => {
    pen.fillStyle = few ? COLORS[state.pointLabels[number]] : color("--soft");
    pen.fillRect(across(u) - dot / 2, up(v) - dot / 2, dot, dot);
  });
  pen.globalAlpha = 1;
  pen.strokeStyle = color("--edge");
  pen.setLineDash([3, 4]);
  const [left, top] = [across(state.x.start), state.y ? up(state.y.start) : box.height / 2];
  line(pen, [left, 0], [left, box.height]);
  line(pen, [0, top], [box.width, top]);
  pen.setLineDash([]);
  pen.fillStyle = pen.strokeStyle = color("--ink");
  pen.font = "13px system-ui, sans-serif";
  if (ends.a && ends.b) line(pen, at(ends.a.z), at(ends.b.z));
  for (const [name, end] of Object.entries(ends)) {
    if (!end) continue;
    const [x, y] = at(end.z);
    disc(pen, x, y, 9, color("--ink"), color("--page"));
    pen.fillStyle = color("--page");
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.fillText(name.toUpperCase(), x, y + 0.5);
  }
  const [x, y] = at(state.z);
  disc(pen, x, y, 7, color("--blue"), "#fff");
  pen.fillStyle = color("--ink");
  pen.textBaseline = "alphabetic";
  pen.textAlign = "left";
  text(pen, short(state.x.low), 6, box.height - 7, color("--back"));
  pen.textAlign = "right";
  text(pen, `${state.x.title.split(",")[0]}  ${short(state.x.high)}`, box.width - 6, box.height - 7, color("--back"));
  if (state.y) {
    pen.textAlign = "left";
    text(pen, `${short(state.y.high)}  ${state.y.title.split(",")[0]}`, 6, 17, color("--back"));
  }
}

function line(pen, [x, y], [u, v]) {
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(u, v);
  pen.stroke();
}

function disc(pen, x, y, radius, fill, edge) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fillStyle = fill;
  pen.fill();
  pen.lineWidth = 2;
  pen.strokeStyle = edge;
  pen.stroke();
  pen.lineWidth = 1;
}

function text(pen, words, x, y, halo) {
  pen.lineWidth = 4;
  pen.strokeStyle = halo;
  pen.strokeText(words, x, y);
  pen.lineWidth = 1;
  pen.fillText(words, x, y);
}

// Sliders

const sliders = [];

function buildSliders() {
  dimensions.forEach((axis, number) => {
    const row = document.createElement("div"), words = document.createElement("label");
    const range = document.createElement("input"), exact = document.createElement("input");
    row.className = "slider";
    range.id = `slider-${axis.dimension}`;
    words.htmlFor = range.id;
    words.textContent = axis.title;
    Object.assign(range, {type: "range", min: axis.low, max: axis.high, step: "any"});
    Object.assign(exact, {type: "number", step: 0.1, ariaLabel: `z${axis.dimension}`});
    exact.id = `exact-${axis.dimension}`;
    for (const input of [range, exact]) {
      input.addEventListener("input", () => {
        if (input.value === "" || !Number.isFinite(Number(input.value))) return;
        const z = [...state.z];
        z[axis.dimension] = Math.max(-1e6, Math.min(1e6, Number(input.value)));
        move(z);
      });
    }
    range.addEventListener("keydown", event => {  // step "any" leaves the keys without a step
      const step = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1}[event.key];
      if (!step) return;
      event.preventDefault();
      range.value = state.z[axis.dimension] + step * (axis.high - axis.low) / (event.shiftKey ? 10 : 50);
      range.dispatchEvent(new Event("input"));
    });
    row.append(words, range, exact);
    $(number < facts.sliders ? "sliders" : "others").append(row);
    sliders.push(() => {
      if (number >= facts.sliders && !$("more").open) return;
      const value = state.z[axis.dimension];
      if (document.activeElement !== range || Number(range.value) !== value) range.value = value;
      if (document.activeElement !== exact) exact.value = round(value);
    });
  });
  $("more").addEventListener("toggle", () => { for (const show of sliders) show(); });
  const more = dimensions.length - facts.sliders;
  $("more").hidden = more <= 0;
  $("more").firstElementChild.textContent = `${more} more dimension${more === 1 ? "" : "s"}`;
}

// Images of one's own, test images and neighbours

const canBeSent = file => file.size <= 20 * 2 ** 20 || tell(`${file.name} is larger than 20 MB: make it smaller`);

function open(file, show = arrive) {
  if (!canBeSent(file)) return;
  const options = {invert: $("invert").checked, ...label()};
  once("encode", file, answer => {
    showPair(answer, `${file.name}${answer.label === null ? "" : `, as label ${labelName(answer.label)}`}`);
    show(answer);
  }, options);
}

const showTest = newest("test", (answer, {number, end}) => {
  $("number").value = number;
  showPair(answer, `test image ${number}${answer.name === null ? "" : `, label ${answer.name}`}`);
  arrive(answer, null, number);
});

function showPair(answer, name) {
  $("pair").hidden = false;
  $("input").src = answer.input;
  $("input").alt = `${name}, as the model sees it`;
  $("inputname").textContent = name;
  $("rebuilt").src = answer.image;
  $("rebuilt").alt = `Reconstruction of ${name}`;
}

const showNeighbours = newest("neighbours", answer => {
  $("neighbours").replaceChildren(...answer.neighbours.map(found => {
    const button = document.createElement("button"), picture = document.createElement("img");
    const name = `test image ${found.number}${found.name === null ? "" : `, label ${found.name}`}`;
    Object.assign(picture, {src: found.image, alt: name});
    button.title = `${name}, at distance ${found.distance}`;
    button.append(picture, found.name === null ? `#${found.number}` : found.name);
    button.addEventListener("click", () => showTest({number: found.number}));
    return button;
  }));
});

function takeDrops(element, show) {
  let depth = 0;
  const mark = change => { depth = Math.max(0, depth + change); element.classList.toggle("over", depth > 0); };
  element.addEventListener("dragenter", event => { event.preventDefault(); mark(1); });
  element.addEventListener("dragleave", () => mark(-1));
  element.addEventListener("drop", event => {
    mark(-depth);
    const file = event.dataTransfer.files[0];
    event.stopPropagation();
    event.preventDefault();
    if (file) open(file, show); else tell("What was dropped is no file: save the image first, and drop the file.");
  });
}

// Between two images

function keep(name, end) {
  ends[name] = end;
  const picture = document.createElement("img");
  Object.assign(picture, {src: end.image, alt: ""});
  $(name).classList.add("filled");
  $(name).replaceChildren(picture, `Replace ${name.toUpperCase()}`);
  paint();
  if (!ends.a || !ends.b) return;
  $("how").textContent = "";
  $("how").hidden = true;
  $("walk").hidden = false;
  showWalk({first: ends.a.z, second: ends.b.z, steps: facts.steps, ...state.label === null ? {} : {first_label: ends.a.label, second_label: ends.b.label}});
}
const kept = () => ({z: [...state.z], label: state.label, image: state.image, test: state.test});
const showWalk = newest("walk", answer => {
  $("strip").replaceChildren(...answer.images.map((image, number) => {
    const picture = document.createElement("img"), part = Math.round(100 * number / (answer.images.length - 1));
    return Object.assign(picture, {src: image, alt: `${part} percent of the way from A to B`});
  }));
});

function walkTo(t) {
  $("part").textContent = `${Math.round(100 * t)}%`;
  if (state.label !== null) choose((t <= 0.5 ? ends.a : ends.b).label);
  move(ends.a.z.map((value, d) => value + t * (ends.b.z[d] - value)));
}

// The same image elsewhere

function write() {
  const z = `[${state.z.join(",")}]`, number = state.label;
  const words = number === null ? "" : ` ${facts.labelWords[number]}`;
  const {seed, temperature} = state.draw ?? {};
  $("command").textContent = facts.command + (state.draw ? ` n=1 seed=${seed}${temperature === 1 ? "" : ` temperature=${temperature}`}` : ` 'z=${z}'`) + `${words} output=image.png`;
  const given = number === null ? "" : `, label=${JSON.stringify(facts.classNames[number] ?? number)}`;
  const made = state.draw ? `model.sample(1, seed=${seed}${given}${temperature === 1 ? "" : `, temperature=${temperature}`})` : `model.image(torch.tensor([${z}])${given})`;
  $("code").textContent = `import torch\nimport vae_cli\n\nmodel = vae_cli.load(${JSON.stringify(facts.source)})\nimage = ${made}`;
}

async function copy(id, button) {
  const words = button.textContent;
  try {
    await navigator.clipboard.writeText($(id).textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($(id));
    button.textContent = "Selected: press Ctrl-C";
  }
  await pause(1500);
  button.textContent = words;
}

// The page

document.body.classList.toggle("smooth", facts.side > 96);
buildLabels();
buildPlane();
buildSliders();
choosePlane();
$("draw").addEventListener("click", () => draw(true));
$("seed").addEventListener("input", () => draw(false));
$("temperature").addEventListener("input", () => {
  $("heat").textContent = Number($("temperature").value).toFixed(2);
  draw(false);
});
$("center").addEventListener("click", () => move([...facts.start]));
$("file").addEventListener("change", () => {
  if ($("file").files[0]) open($("file").files[0]);
  $("file").value = "";
});
$("number").addEventListener("input", () => { if ($("number").value !== "") showTest({number: Number($("number").value)}); });
$("random").addEventListener("click", () => showTest({number: Math.floor(Math.random() * facts.tests)}));
$("tests").hidden = !facts.tests;
$("number").max = facts.tests - 1;
if (!facts.tests) $("near").textContent = "There are no test images on this machine.";
for (const name of ["a", "b"]) {
  $(name).addEventListener("click", () => keep(name, kept()));
  takeDrops($(name), answer => { arrive(answer); keep(name, kept()); });
}
$("t").addEventListener("input", () => walkTo(Number($("t").value) / 100));
$("copycommand").addEventListener("click", event => copy("command", event.currentTarget));
$("copycode").addEventListener("click", event => copy("code", event.currentTarget));
takeDrops($("drop"), arrive);
document.addEventListener("dragover", event => event.preventDefault());
document.addEventListener("drop", event => {  // elsewhere on the page, where the browser would leave it
  event.preventDefault();
  if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
});
document.addEventListener("paste", event => { if (event.clipboardData.files[0]) open(event.clipboardData.files[0]); });
if (facts.tests) showTest({number: 0}); else move(state.z);
