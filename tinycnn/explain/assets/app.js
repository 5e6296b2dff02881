// The page: what is chosen, the strip of layers, the maps of one layer, and what is said about the cell one points at.

const byId = (id) => document.getElementById(id);
const state = { sample: 0, label: "", layer: 0, cx: 0, cy: 0, o: 0, point: null, pinned: false, maps: [] };
const narrow = matchMedia("(max-width: 900px)"); // as in explain.css: the panel lies below the maps
const LOSS = study.layers.length; // the place after the last layer

const sample = () => study.samples[state.sample];
const pass = () => sample().passes[state.label];
const hasLoss = () => study.loss !== "";

// Everything an explainer needs of a layer: its arrays in the chosen pass, and the chosen channels.
function viewOf(number) {
  const layer = study.layers[number], on = sample().forward[number], back = pass().layers[number];
  if (!layer.shown || !on) return null;
  const { weight, bias } = layer.values, channels = layer.out[0];
  const own = (value) => value && take(value.id, value.shape);
  const gradient = (name, value) => value && take(back.gradients[name], value.shape);
  return {
    layer, cx: state.cx, cy: state.cy, o: state.o,
    x: take(on.x, layer.in), y: take(on.y, layer.out), dx: take(back.dx, layer.in), dy: take(back.dy, layer.out),
    w: own(weight), b: own(bias), dw: gradient("weight", weight), db: gradient("bias", bias),
    shortcut: take(on.shortcut, layer.out), dshortcut: take(back.dshortcut, layer.out),
    winners: take(on.winners, layer.out), mean: take(on.mean, [channels]), inv_std: take(on.inv_std, [channels]),
    waysOn: on.ways.map((way) => ({ ...way, y: take(way.y, [way.channels, ...layer.out.slice(1)]) })),
    waysBack: back.ways.map((way) => ({ ...way, dx: take(way.dx, layer.in) })),
  };
}

// ---- what is chosen --------------------------------------------------------------------------------------------

function drawChoices() {
  const images = study.samples.map((s, i) => `<option value="${i}">${escaped(s.name)}${hasLoss() ? `: ${escaped(study.classes[s.label])}` : ""}</option>`);
  byId("choices").innerHTML = `<canvas id="image" role="img" aria-label="the image"></canvas>
    <label>${hasLoss() ? "image" : "input"} <select id="sample">${images.join("")}</select></label>
    ${hasLoss() ? '<label>class whose loss is sent back <select id="class"></select></label>' : ""}`;
  byId("sample").onchange = (event) => choose(Number(event.target.value), null);
  if (!hasLoss()) byId("way").textContent = "One input goes forward; a gradient drawn at random comes back.";
  if (hasLoss()) byId("class").onchange = (event) => choose(state.sample, event.target.value);
}

function choose(number, label) {
  state.sample = number;
  const known = Object.keys(sample().passes);
  state.label = label ?? String(sample().first);
  byId("sample").value = number;
  paintImage(byId("image"), take(sample().image, sample().shape));
  if (hasLoss()) {
    byId("class").innerHTML = study.classes.map((name, k) => `<option value="${k}" ${known.includes(String(k)) ? "" : "disabled"}>${escaped(name)}${k === sample().label ? " (true)" : ""}</option>`).join("");
    byId("class").value = state.label;
    const best = sample().p.indexOf(Math.max(...sample().p)), percent = (p) => `${(100 * p).toFixed(1)} %`;
    byId("belief").innerHTML = `The network says <strong>${escaped(study.classes[best])}</strong> with ${percent(sample().p[best])};
      of <strong>${escaped(study.classes[state.label])}</strong> it believes ${percent(sample().p[state.label])}, so the loss is <span class="num" id="loss">${show(pass().loss)}</span>.`;
  }
  paintStrip();
  open(state.layer);
  drawDepth();
}

// ---- the strip -------------------------------------------------------------------------------------------------

function drawStrip() {
  const last = (path) => path.slice(path.lastIndexOf(".") + 1), before = (path) => path.slice(0, Math.max(path.lastIndexOf("."), 0));
  const part = ({ path, place }) => { // where it is within the block around it
    const around = `${study.layers[place[0]].path}.`;
    return before(path.startsWith(around) ? path.slice(around.length) : path);
  };
  const entry = (layer, i) => `<li>${layer.place && part(layer) ? `<small class="part">${escaped(part(layer))}</small>` : ""}<button type="button" data-layer="${i}" class="${layer.composite ? "joint" : ""} ${layer.shown ? "" : "absent"}" title="${escaped(`${layer.path}: ${layer.text}`)}">
    <small>${escaped(before(layer.path)) || "&nbsp;"}</small><b>${escaped(layer.type === "Identity" ? "identity" : last(layer.path))}</b><small>${escaped(layer.type)}</small><canvas class="on"></canvas><canvas class="back"></canvas>
    <small>${times(layer.out)}</small><small>${layer.parameters ? `${thousands(layer.parameters)} par.` : "&nbsp;"}</small>
    <small>${layer.macs ? `${brief(layer.macs)} MAC` : "&nbsp;"}</small></button></li>`;
  const loss = `<li><button type="button" data-layer="${LOSS}"><small>&nbsp;</small><b>loss</b><small>cross-entropy</small><canvas class="on"></canvas><canvas class="back"></canvas><small>p − y</small></button></li>`;
  // What is within a block comes before the block itself: its ways one below the other, then the place where they meet.
  const within = (around, way) => study.layers.map((layer, i) => [layer, i]).filter(([{ place }]) => (place ? place[0] === around && place[1] === way : around === null));
  const chain = (entries) => entries.map(([layer, i]) => {
    const ways = [...new Set(study.layers.filter(({ place }) => place && place[0] === i).map(({ place }) => place[1]))].sort((a, b) => a - b);
    const rows = ways.map((way) => `<ol>${chain(within(i, way))}</ol>`).join("");
    return (ways.length ? `<li class="ways">${rows}</li>` : "") + entry(layer, i);
  }).join("");
  byId("strip").innerHTML = chain(within(null, 0)) + (hasLoss() ? loss : "");
  byId("strip").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) open(Number(button.dataset.layer));
  });
  byId("strip").addEventListener("keydown", (event) => {
    const all = [...byId("strip").querySelectorAll("button")], now = all.findIndex((button) => button.getAttribute("aria-current") === "true");
    const to = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const button = all[Math.min(Math.max(to, 0), all.length - 1)];
    open(Number(button.dataset.layer));
    button.focus();
  });
}

const brief = (n) => (n >= 1e6 ? `${(n / 1e6).toFixed(1)} M` : n >= 1e3 ? `${Math.round(n / 1e3)} k` : String(n));

function paintStrip() {
  for (const button of byId("strip").querySelectorAll("button")) {
    const i = Number(button.dataset.layer), [on, back] = button.querySelectorAll("canvas");
    if (i === LOSS) {
      const K = sample().p.length;
      paintFew(on, { data: Float32Array.from(sample().p), shape: [K] }, false);
      paintFew(back, take(pass().dlogits, [K]), true);
      continue;
    }
    const layer = study.layers[i], recorded = layer.shown && sample().forward[i];
    paintFew(on, recorded ? take(sample().forward[i].y, layer.out) : null, false);
    paintFew(back, recorded ? take(pass().layers[i].dy, layer.out) : null, true);
  }
}

// ---- one layer -------------------------------------------------------------------------------------------------

function open(number) {
  const moved = number !== state.layer, first = !byId("strip").querySelector("[aria-current=true]");
  state.layer = number;
  for (const button of byId("strip").querySelectorAll("button")) {
    const current = Number(button.dataset.layer) === number;
    button.setAttribute("aria-current", current);
    button.tabIndex = current ? 0 : -1; // Tab goes on to the maps, not through every layer: arrow keys do that
    if (current && (moved || first)) button.scrollIntoView({ block: "nearest", inline: "center" });
  }
  for (const bar of byId("chart").querySelectorAll("rect")) bar.setAttribute("fill", barColour(Number(bar.dataset.layer)));
  if (moved) Object.assign(state, { cx: 0, cy: 0, o: 0, point: null, pinned: false });
  byId("work").classList.toggle("held", state.pinned);
  byId("maps").replaceChildren();
  state.maps = [];
  byId("source").hidden = number === LOSS;
  byId("hint").hidden = true;
  if (number === LOSS) return openLoss();
  const layer = study.layers[number], v = viewOf(number);
  byId("name").textContent = `${layer.path} · ${layer.text}`;
  const cost = layer.composite ? "a block of the layers before it in the strip" : `${thousands(layer.parameters)} parameters · ${thousands(layer.macs)} multiply-adds`;
  byId("facts").textContent = `${times(layer.in)} → ${times(layer.out)} · ${cost}`;
  drawProof(layer);
  drawBook(layer);
  if (!v) return say({ html: `<p>${layer.shown ? "This pass did not come through this layer." : `The numbers of this layer are not in this page, as there is no room for all of them: <code>--layer ${escaped(layer.path)}</code> puts them in.`}</p>` });
  drawMaps(v);
  const start = state.point ?? { role: "y", h: Math.floor(layout(layer.out).H / 2), w: Math.floor(layout(layer.out).W / 2) };
  point(start.role, start.h, start.w, state.pinned);
}

function openLoss() {
  byId("name").textContent = "loss · softmax cross-entropy";
  byId("facts").textContent = `${sample().p.length} classes; here the way back begins`;
  byId("proof").textContent = "";
  byId("maps").replaceChildren();
  say({ back: true, html: lossTable(sample(), state.label, study.classes) });
}

function drawMaps(v) {
  const weighted = v.layer.kind === "conv" || v.layer.kind === "linear", pad = v.layer.geometry.padding ?? [[0, 0], [0, 0]];
  const none = [[0, 0], [0, 0]];
  byId("maps").className = weighted ? "" : "two";
  const channel = (role) => () => (role.endsWith("x") ? state.cx : role.endsWith("w") ? weightChannel(v) : state.cy);
  const add = (role, array, title, diverging, padding = none) => {
    if (!array) return byId("maps").append(Object.assign(document.createElement("p"), { className: "soft", textContent: role === "dw" ? "dL/dw is not embedded for this pass; point at w, and it is worked out" : `${title}: none by itself, the layer around adds it up in place` }));
    const map = { role, array, title, diverging, pad: padding, back: role.startsWith("d"), channel: channel(role), label: `${role} of ${v.layer.path}: arrow keys move` };
    if (!role.endsWith("w")) map.step = (by) => stepChannel(role, by);
    byId("maps").append(buildMap(map, pointAt));
    state.maps.push(map);
  };
  add("x", v.x, "x, in", false, pad);
  if (weighted) add("w", filterOf(v.w, v), "w", true);
  add("y", v.y, "y, out", false);
  add("dx", v.dx, "dL/dx, passed on", true, pad);
  if (weighted) add("dw", v.dw && filterOf(v.dw, v), "dL/dw", true);
  add("dy", v.dy, "dL/dy, came back", true);
  byId("hint").hidden = false;
  state.maps.forEach(repaint);
}

// The filter of the chosen output, as an array to draw.
function filterOf(w, v) {
  const number = v.layer.kind === "conv" ? state.cy : state.o, shape = w.shape.slice(1), size = shape.reduce((a, b) => a * b, 1);
  return { data: w.data.subarray(number * size, (number + 1) * size), shape };
}

function weightChannel(v) {
  return v.layer.kind === "conv" ? state.cx % v.w.shape[1] : 0;
}

// Another channel.  Where x and y have the same channels they go together; groups keep together too.
function stepChannel(role, by) {
  const v = viewOf(state.layer), { layer } = v, of = role.endsWith("x") ? "cx" : "cy", C = (of === "cx" ? layer.in : layer.out)[0];
  state[of] = (state[of] + by + C) % C;
  if (layer.kind === "conv") {
    const CG = v.w.shape[1], perGroup = v.w.shape[0] / layer.geometry.groups;
    if (of === "cx" && Math.floor(state.cx / CG) !== Math.floor(state.cy / perGroup)) state.cy = Math.floor(state.cx / CG) * perGroup;
    if (of === "cy" && Math.floor(state.cx / CG) !== Math.floor(state.cy / perGroup)) state.cx = Math.floor(state.cy / perGroup) * CG;
  } else if (layer.in[0] === layer.out[0] && layer.in.length === layer.out.length) {
    state.cx = state.cy = state[of];
  }
  refresh();
}

// Filters and channels are painted anew, and the same cell is explained again.
function refresh() {
  const v = viewOf(state.layer);
  for (const map of state.maps) {
    if (map.role === "w") map.array = filterOf(v.w, v);
    if (map.role === "dw") map.array = filterOf(v.dw, v);
    repaint(map);
  }
  if (state.point) point(state.point.role, state.point.h, state.point.w, state.pinned);
}

// ---- pointing --------------------------------------------------------------------------------------------------

function pointAt(map, h, w, pin) {
  if (state.pinned && !pin) return;
  const same = state.point && state.point.role === map.role && state.point.h === h && state.point.w === w;
  if (same && !pin) return;
  point(map.role, h, w, pin && !(same && state.pinned));
  if (!state.pinned || !narrow.matches) return;
  const panel = byId("said").getBoundingClientRect(), top = Math.min(panel.top, innerHeight - panel.height);
  const covered = map.figure.getBoundingClientRect().bottom - top;
  if (covered > 0) scrollBy(0, Math.ceil(covered) + 4); // the map comes out from under the panel
}

function point(role, h, w, pin) {
  const v = viewOf(state.layer), explain = (explainers[v.layer.kind] ?? explainers.other)[role];
  Object.assign(state, { point: { role, h, w }, pinned: pin });
  byId("work").classList.toggle("held", pin); // on a phone the panel then stays in sight
  if (!explain || !v[role]) return;
  const said = explain(v, h, w);
  if (said.o !== undefined && said.o !== state.o) { state.o = said.o; return refresh(); }
  for (const map of state.maps) {
    map.cell = map.role === role ? [h, w] : map.cell;
    const base = map.role.replace("d", ""), marks = said.marks[base] ?? [];
    mark(map, marks, base === role.replace("d", ""));
    const first = base === role.replace("d", "") ? [h, w] : marks.length === 1 ? marks[0] : null;
    map.figure.querySelector(".value").textContent = first && map.role !== undefined ? show(at(map.array, map.channel(), first[0], first[1])) : "";
  }
  say(said);
}

function say(said) {
  byId("said").className = said.back ? "back" : "";
  byId("said").innerHTML = said.html;
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  state.pinned = false;
  byId("work").classList.remove("held");
});

// ---- proof, formula, source ------------------------------------------------------------------------------------

function drawProof(layer) {
  const { check } = layer;
  if (!check) { byId("proof").textContent = ""; return; }
  const parts = (check.tensors ?? []).map((t) => `${escaped(t.name)} ${t.error === null ? "–" : t.error.toExponential(1)}`).join(", ");
  byId("proof").innerHTML = check.why
    ? `<p class="soft">Gradient check: ${escaped(check.why)}.</p>`
    : `<p><span class="${check.ok ? "agrees" : "differs"}">${check.ok ? "✓ gradient check passed" : "✗ gradient check failed"}</span>
      in float64 at this very input: relative error <span class="num" id="error">${check.error === null ? "–" : check.error.toExponential(1)}</span>
      <span class="soft">(${parts}${check.note ? `; ${escaped(check.note)}` : ""}).</span></p>`;
}

function drawBook(layer) {
  const { doc, parts } = study.sources[layer.type];
  const code = parts.map((p) => `<h3>${escaped(p.file)}, line ${p.line}</h3><pre><code>${escaped(p.code)}</code></pre>`).join("");
  byId("book").innerHTML = `<div class="doc">${doc}</div><div class="code" tabindex="0" role="region" aria-label="source">${code}</div>`;
}

// ---- gradients by depth ----------------------------------------------------------------------------------------

const barColour = (i) => `var(--${i === state.layer ? "mark" : "warm"})`;

function drawDepth() {
  const norms = pass().norms, width = 420, height = 190, left = 46, bottom = 24;
  const panels = [["‖dL/dy‖, the gradient that comes to each layer", (n) => n.dy], ["variance of dL/dy", (n) => n.variance], ["‖dL/dw‖, of its parameters", (n) => n.dw]];
  byId("chart").innerHTML = panels.map(([title, get]) => {
    const values = norms.map(get), logs = values.filter((v) => v > 0).map(Math.log10);
    const low = Math.floor(Math.min(...logs)), high = Math.max(Math.ceil(Math.max(...logs)), low + 1);
    const step = (width - left) / Math.max(values.length, 1), y = (v) => 20 + ((high - Math.log10(v)) / (high - low)) * (height - bottom - 20);
    const bars = values.map((v, i) => v > 0 ? `<rect x="${left + i * step + step * 0.15}" y="${y(v)}" width="${step * 0.7}" height="${height - bottom - y(v)}" fill="${barColour(i)}" data-layer="${i}"><title>${escaped(study.layers[i].path)}: ${show(v)}</title></rect>` : "");
    const lines = Array.from({ length: high - low + 1 }, (_, k) => low + k).map((e) => `<line x1="${left}" x2="${width}" y1="${y(10 ** e)}" y2="${y(10 ** e)}" stroke="var(--line)"/><text x="${left - 6}" y="${y(10 ** e) + 4}" text-anchor="end">10${raised(e)}</text>`);
    return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escaped(title)}"><text x="${left}" y="11">${title}</text>${lines.join("")}${bars.join("")}
      <text x="${left}" y="${height - 6}">input</text><text x="${width}" y="${height - 6}" text-anchor="end">${hasLoss() ? "loss" : "output"}</text></svg>`;
  }).join("");
}

// ---- begin -----------------------------------------------------------------------------------------------------

function begin() {
  byId("notes").innerHTML = [...study.notes, `Arrays are embedded as ${study.precision}.`].map((note) => `<p>${escaped(note)}</p>`).join("");
  byId("chart").addEventListener("click", (event) => event.target.dataset.layer && open(Number(event.target.dataset.layer)));
  // A block by itself is what was asked for: it comes before the layers within it.
  state.layer = Math.max(study.layers.findIndex((layer) => layer.shown && (hasLoss() || !layer.place)), 0);
  byId("depth").hidden = study.layers.length < 2;
  drawChoices();
  drawStrip();
  dark.addEventListener("change", () => choose(state.sample, state.label));
  decodeAll().then(async () => {
    choose(0, null);
    if (training) await openTraining();
    document.body.dataset.ready = "yes";
  });
}
