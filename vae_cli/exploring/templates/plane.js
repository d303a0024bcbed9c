// The plane: codes of test images, the code in view, and the hand that moves it

const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7b5bb5", "#e69f00", "#8c564b", "#6b7a89"];

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
