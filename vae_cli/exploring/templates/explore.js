const facts = JSON.parse(document.getElementById("facts").textContent);
const $ = id => document.getElementById(id);
const pause = ms => new Promise(done => setTimeout(done, ms));
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
        showProblem("");
      } catch (error) {
        if (error.isBusy) { waiting ??= current; await pause(50); } else showProblem(error.message);
      }
    }
    busy = false;
  };
}

async function once(name, body, show, options) {
  try {
    show(await ask(name, body, options));
    showProblem("");
  } catch (error) {
    showProblem(error.message);
  }
}

function showProblem(problem) {
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

const canBeSent = file => file.size <= 20 * 2 ** 20 || showProblem(`${file.name} is larger than 20 MB: make it smaller`);

function open(file, show = arrive) {
  if (!canBeSent(file)) return;
  const options = {invert: $("invert").checked, ...label()};
  once("encode", file, answer => {
    showPair(answer, `${file.name}${answer.label === null ? "" : `, as label ${labelName(answer.label)}`}`);
    show(answer);
  }, options);
}

const showTest = newest("test", (answer, {number}) => {
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
  $("neighbours").replaceChildren(...answer.neighbours.map(neighbour => {
    const button = document.createElement("button"), picture = document.createElement("img");
    const name = `test image ${neighbour.number}${neighbour.name === null ? "" : `, label ${neighbour.name}`}`;
    Object.assign(picture, {src: neighbour.image, alt: name});
    button.title = `${name}, at distance ${neighbour.distance}`;
    button.append(picture, neighbour.name === null ? `#${neighbour.number}` : neighbour.name);
    button.addEventListener("click", () => showTest({number: neighbour.number}));
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
    if (file) open(file, show); else showProblem("What was dropped is no file: save the image first, and drop the file.");
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

// The command and the code that make the image in view

function write() {
  const z = `[${state.z.join(",")}]`, number = state.label;
  const words = number === null ? "" : ` ${facts.labelWords[number]}`;
  const {seed, temperature} = state.draw ?? {};
  $("command").textContent = facts.command + (state.draw ? ` n=1 seed=${seed}${temperature === 1 ? "" : ` temperature=${temperature}`}` : ` 'z=${z}'`) + `${words} output=image.png`;
  const argument = number === null ? "" : `, label=${JSON.stringify(facts.classNames[number] ?? number)}`;
  const made = state.draw ? `model.sample(1, seed=${seed}${argument}${temperature === 1 ? "" : `, temperature=${temperature}`})` : `model.image(torch.tensor([${z}])${argument})`;
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
document.addEventListener("drop", event => {  // beside these places, where the browser would leave it
  event.preventDefault();
  if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
});
document.addEventListener("paste", event => { if (event.clipboardData.files[0]) open(event.clipboardData.files[0]); });
if (facts.tests) showTest({number: 0}); else move(state.z);
