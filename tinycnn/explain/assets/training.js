// How it was learnt: a slider over the recorded steps of a training, see tinycnn/explain/training.py.

const training = study.training;
const moment = { t: 0, image: 0, timer: null };

const epochsAt = (step) => step / training.steps_per_epoch;
const along = (step) => Math.log(1 + step) / (Math.log(1 + training.steps[training.steps.length - 1]) || 1); // or 1: step 0 is all there is

// ---- the slider and the loss -----------------------------------------------------------------------------------

const LOSSES = [["batch", "soft", "of the batch just learnt from"], ["image", "accent", "of the image below"], ["validation", "good", "of all validation images, by epoch"]];

function drawSlider() {
  const images = training.names.map((name, i) => `<option value="${i}">${escaped(name)}: ${escaped(training.classes[training.labels[i]] ?? training.labels[i])}</option>`);
  const key = LOSSES.filter(([what]) => what !== "validation" || training.validation.length).map(([, color, words]) => `<span><i style="background:var(--${color})"></i>${words}</span>`);
  byId("slider").innerHTML = `<div class="controls"><button type="button" id="play" aria-pressed="false">▶ play</button>
      <input type="range" id="step" min="0" max="${training.steps.length - 1}" value="0" aria-label="recorded step of the training: arrow keys move">
      <output id="when"></output><label>image <select id="watched">${images.join("")}</select></label></div>
    <div id="loss-curve"></div><p class="key">Loss: ${key.join(" ")}</p>`;
  byId("step").oninput = (event) => { stopPlaying(); showMoment(Number(event.target.value)); };
  byId("watched").onchange = (event) => { moment.image = Number(event.target.value); drawLoss(); showMoment(moment.t); };
  byId("play").onclick = () => (moment.timer ? stopPlaying() : play());
  byId("loss-curve").onclick = (event) => {
    const box = event.currentTarget.firstElementChild.getBoundingClientRect(), at = ((event.clientX - box.left) / box.width) * CURVE.width;
    const distances = training.steps.map((s) => Math.abs(CURVE.x(s) - at));
    stopPlaying();
    showMoment(distances.indexOf(Math.min(...distances)));
  };
}

const CURVE = { width: 860, height: 190, left: 40, right: 12, top: 10, bottom: 22, x: (step) => CURVE.left + along(step) * (CURVE.width - CURVE.left - CURVE.right) };

function drawLoss() {
  CURVE.width = Math.max(340, Math.min(860, byId("loss-curve").clientWidth)); // numbers stay legible on a phone
  const { width, height, left, right, top, bottom, x } = CURVE, last = training.steps[training.steps.length - 1];
  const curves = {
    batch: training.steps.map((s, t) => [s, training.batch_loss[t]]),
    image: training.steps.map((s, t) => [s, training.loss[t][moment.image]]),
    validation: training.validation.filter(([s]) => s <= last),
  };
  const points = Object.values(curves).flat().filter(([, v]) => v !== null), most = Math.max(...points.map(([, v]) => v), 1e-9);
  const unit = 10 ** Math.floor(Math.log10(most)), tick = [unit / 2, unit, 2 * unit].find((u) => most / u <= 5) ?? 5 * unit;
  const y = (v) => top + (1 - v / most) * (height - top - bottom);
  const lines = Array.from({ length: Math.floor(most / tick + 1e-9) + 1 }, (_, i) => i * tick).map((v) => `<line x1="${left}" x2="${width - right}" y1="${y(v)}" y2="${y(v)}" stroke="var(--line)"/><text x="${left - 6}" y="${y(v) + 4}" text-anchor="end">${Number(v.toPrecision(2))}</text>`);
  const paths = LOSSES.map(([what, color]) => {
    const known = curves[what].filter(([, v]) => v !== null), d = known.map(([s, v], i) => `${i ? "L" : "M"}${x(s).toFixed(1)} ${y(v).toFixed(1)}`).join("");
    const dots = what === "validation" ? "" : known.map(([s, v]) => `<circle cx="${x(s).toFixed(1)}" cy="${y(v).toFixed(1)}" r="2.2" fill="var(--${color})"/>`).join("");
    return `<path d="${d}" fill="none" stroke="var(--${color})" stroke-width="1.6"/>${dots}`;
  });
  const marks = [0, 1, 10, 100, 1000, 10000, 100000].filter((s) => s <= last).map((s) => `<text x="${x(s)}" y="${height - 6}" text-anchor="middle">${thousands(s)}</text>`);
  byId("loss-curve").innerHTML = `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="loss by step"><g>${lines.join("")}</g>${paths.join("")}${marks.join("")}
    <text x="${width - right}" y="${height - 6}" text-anchor="end">step</text><line id="marker" y1="${top}" y2="${height - bottom}" stroke="var(--mark)" stroke-width="2"/></svg>`;
}

function play() {
  const next = () => (moment.t + 1 < training.steps.length ? showMoment(moment.t + 1) : stopPlaying());
  if (moment.t + 1 === training.steps.length) showMoment(0);
  moment.timer = setInterval(next, 350);
  byId("play").textContent = "❚❚ stop";
  byId("play").setAttribute("aria-pressed", "true");
}

function stopPlaying() {
  clearInterval(moment.timer);
  moment.timer = null;
  byId("play").textContent = "▶ play";
  byId("play").setAttribute("aria-pressed", "false");
}

// ---- what there was to see -------------------------------------------------------------------------------------

// One picture at a recorded step: numbers of −127 … 127, and how far each of them reaches of the largest of all steps.
function pictureAt(picture, t) {
  const size = picture.shape.reduce((a, b) => a * b, 1);
  const span = Math.max(...picture.scale) * 127;
  return { data: picture.data.subarray(t * size, (t + 1) * size), scale: picture.scale[t], span };
}

// Tiles in rows of so many, a line between them; tile(i) gives the numbers [H·W], or three of them for a picture in colour.
function paintTiles(canvas, count, columns, H, W, tile, factor) {
  const rows = Math.ceil(count / columns), width = columns * (W + 1) - 1, height = rows * (H + 1) - 1, colours = palette();
  canvas.width = width; canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let i = 0; i < count; i++) {
    const numbers = tile(i), left = (i % columns) * (W + 1), top = Math.floor(i / columns) * (H + 1);
    for (let h = 0; h < H; h++) for (let w = 0; w < W; w++) {
      const k = h * W + w, to = (top + h) * width + left + w;
      put(image, to, numbers.length === 3
        ? numbers.map((channel) => 127.5 + 127.5 * Math.max(-1, Math.min(1, channel[k] * factor)))
        : colour(numbers[0][k] * factor, [-1, 1], true, colours));
    }
  }
  context.putImageData(image, 0, 0);
}

function paintFilters(canvas, picture, t) {
  const [OC, C, KH, KW] = picture.shape, { data, scale, span } = pictureAt(picture, t), size = KH * KW;
  const channel = (o, c) => data.subarray((o * C + c) * size, (o * C + c + 1) * size), factor = span ? scale / span : 0;
  if (C === 1 || C === 3) return paintTiles(canvas, OC, Math.min(OC, 8), KH, KW, (o) => Array.from({ length: C }, (_, c) => channel(o, c)), factor);
  return paintTiles(canvas, OC * C, OC, KH, KW, (i) => [channel(i % OC, Math.floor(i / OC))], factor); // a column for each filter
}

function paintMaps(canvas, picture, t, n) {
  const [, C, H, W] = picture.shape, { data, scale, span } = pictureAt(picture, t), size = H * W;
  paintTiles(canvas, C, Math.min(C, 8), H, W, (c) => [data.subarray((n * C + c) * size, (n * C + c + 1) * size)], span ? scale / span : 0);
}

function drawThen() {
  const figure = (picture, i) => {
    const [kind, path] = [picture.name.slice(0, picture.name.indexOf("/")), picture.name.slice(picture.name.indexOf("/") + 1)];
    const [a, b, c, d] = picture.shape;
    const words = kind === "filters" ? `w of ${path}: ${a} filters, ${b}×${c}×${d}` : `what ${path} makes of the image: ${b} maps, ${c}×${d}`;
    return `<figure class="${kind}"><figcaption>${escaped(words)}</figcaption><canvas data-picture="${i}" role="img" aria-label="${escaped(words)}"></canvas></figure>`;
  };
  byId("then").innerHTML = `<div class="belief"><canvas id="watched-image" role="img" aria-label="the image"></canvas><div><h3>What it believes</h3><div id="bars"></div></div>
      <div><h3>‖dL/dw‖ of the batch, by layer</h3><div id="gradients"></div></div></div>
    <div class="pictures">${training.pictures.map(figure).join("")}</div>
    <p class="soft">Filters and maps: orange above 0, blue below, on one scale for all steps; filters with three channels as colours, grey for 0.${training.left_out ? ` ${training.left_out} recorded steps are left out, as there is no room for all.` : ""}</p>`;
}

const SHOWN = 10; // classes

function drawBars(t) {
  const last = training.p[training.p.length - 1][moment.image], p = training.p[t][moment.image], label = training.labels[moment.image];
  let classes = p.map((_, k) => k);
  if (p.length > SHOWN) {
    classes = classes.sort((a, b) => (b === label) - (a === label) || last[b] - last[a]).slice(0, SHOWN);
  }
  byId("bars").innerHTML = classes.map((k) => `<div class="bar ${k === label ? "now" : ""}"><span>${escaped(training.classes[k] ?? k)}</span><i><b style="width:${(100 * p[k]).toFixed(2)}%"></b></i><output data-class="${k}">${p[k] === null ? "–" : `${(100 * p[k]).toFixed(1)} %`}</output></div>`).join("");
}

function drawGradients(t) {
  const all = training.gradients.flat().filter((v) => v > 0);
  if (!all.length) { byId("gradients").textContent = "None was recorded."; return; }
  const low = Math.floor(Math.log10(Math.min(...all))), high = Math.max(Math.ceil(Math.log10(Math.max(...all))), low + 1);
  const width = 420, height = 190, left = 46, bottom = 20, values = training.gradients[t], step = (width - left) / values.length;
  const y = (v) => 6 + ((high - Math.log10(v)) / (high - low)) * (height - bottom - 6);
  const lines = Array.from({ length: high - low + 1 }, (_, k) => low + k).map((e) => `<line x1="${left}" x2="${width}" y1="${y(10 ** e)}" y2="${y(10 ** e)}" stroke="var(--line)"/><text x="${left - 6}" y="${y(10 ** e) + 4}" text-anchor="end">10${raised(e)}</text>`);
  const bars = values.map((v, i) => (v > 0 ? `<rect x="${left + i * step + step * 0.15}" y="${y(v)}" width="${step * 0.7}" height="${height - bottom - y(v)}" fill="var(--warm)" data-norm="${v}"><title>${escaped(training.layers[i])}: ${show(v)}</title></rect>` : ""));
  const none = values.some((v) => v !== null) ? "" : `<text x="${(left + width) / 2}" y="${height / 2}" text-anchor="middle">before the first batch there is none</text>`;
  byId("gradients").innerHTML = `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="length of the gradient by layer">${lines.join("")}${bars.join("")}${none}
    <text x="${left}" y="${height - 4}">input</text><text x="${width}" y="${height - 4}" text-anchor="end">loss</text></svg>`;
}

function showMoment(t) {
  moment.t = t;
  const step = training.steps[t], epoch = epochsAt(step), words = `step ${thousands(step)}, epoch ${epoch < 10 ? epoch.toFixed(1) : Math.round(epoch)}`;
  byId("step").value = t;
  byId("step").setAttribute("aria-valuetext", words);
  byId("when").innerHTML = `<b>${words}</b> · loss of the image <span class="num" id="loss-then">${show(training.loss[t][moment.image])}</span>${training.batch_loss[t] === null ? "" : `, of the batch <span class="num" id="batch-loss">${show(training.batch_loss[t])}</span>`}`;
  for (const end of ["x1", "x2"]) byId("marker").setAttribute(end, CURVE.x(step));
  for (const canvas of byId("then").querySelectorAll("[data-picture]")) {
    const picture = training.pictures[canvas.dataset.picture];
    if (picture.name.startsWith("filters/")) paintFilters(canvas, picture, t);
    else paintMaps(canvas, picture, t, moment.image);
  }
  const { shape, data } = training.x, size = shape.reduce((a, b) => a * b, 1);
  paintImage(byId("watched-image"), { data: Float32Array.from(data.subarray(moment.image * size, (moment.image + 1) * size)), shape });
  drawBars(t);
  drawGradients(t);
}

async function openTraining() {
  let first = 0;
  const all = new Int8Array(await inflated(training.bytes));
  for (const picture of training.pictures) {
    const size = training.steps.length * picture.shape.reduce((a, b) => a * b, 1);
    picture.data = all.subarray(first, first += size);
  }
  training.x.data = new Int8Array(await inflated(training.x.bytes));
  byId("training").hidden = false;
  drawSlider();
  drawThen();
  drawLoss();
  showMoment(training.steps.length - 1);
  dark.addEventListener("change", () => showMoment(moment.t));
}
