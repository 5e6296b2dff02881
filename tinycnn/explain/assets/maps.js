// Drawing maps on canvas, and pointing at their cells.

const dark = matchMedia("(prefers-color-scheme: dark)");

// Activations: from paper to ink.  Gradients and weights: two colours, the paper's where they are zero.
function palette() {
  return dark.matches
    ? { low: [24, 27, 31], high: [232, 236, 240], zero: [30, 33, 37], minus: [74, 150, 235], plus: [240, 130, 60], pad: [52, 56, 62] }
    : { low: [250, 249, 245], high: [28, 38, 56], zero: [252, 251, 248], minus: [27, 92, 170], plus: [200, 82, 20], pad: [226, 223, 214] };
}

const mix = (a, b, t) => a.map((v, i) => Math.round(v + (b[i] - v) * t));

function range(data, diverging) {
  let low = Infinity, high = -Infinity;
  for (const v of data) { if (v < low) low = v; if (v > high) high = v; }
  if (!diverging) return [low, high];
  const most = Math.max(Math.abs(low), Math.abs(high));
  return [-most, most];
}

function colour(v, [low, high], diverging, colours) {
  if (diverging) {
    const t = high ? Math.min(Math.abs(v) / high, 1) : 0;
    return mix(colours.zero, v < 0 ? colours.minus : colours.plus, Math.sqrt(t));
  }
  return mix(colours.low, colours.high, high > low ? (v - low) / (high - low) : 0);
}

// The background of a number in a table, faint enough to read on.
function tint(v, most) {
  const t = most ? Math.round(45 * Math.sqrt(Math.min(Math.abs(v) / most, 1))) : 0;
  return `background:color-mix(in srgb, var(--${v < 0 ? "accent" : "warm"}) ${t}%, transparent)`;
}

function put(image, i, [r, g, b]) {
  image.data[4 * i] = r; image.data[4 * i + 1] = g; image.data[4 * i + 2] = b; image.data[4 * i + 3] = 255;
}

// Paint one channel, with its padding around it: pad = [[top, bottom], [left, right]].
function paint(canvas, array, c, diverging, pad = [[0, 0], [0, 0]]) {
  const { H, W, size } = layout(array.shape);
  const [[top, bottom], [left, right]] = pad;
  const width = W + left + right, height = H + top + bottom, colours = palette();
  canvas.width = width; canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  const channel = array.data.subarray(c * size, (c + 1) * size), span = range(channel, diverging);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const h = y - top, w = x - left, i = h * W + w;
      const inside = h >= 0 && w >= 0 && h < H && w < W && i < size;
      put(image, y * width + x, inside ? colour(channel[i], span, diverging, colours) : colours.pad);
    }
  }
  context.putImageData(image, 0, 0);
}

// A thumbnail: up to four channels, two by two.
function paintFew(canvas, array, diverging) {
  if (!array) { canvas.width = canvas.height = 1; return; }
  const { C, H, W, size } = layout(array.shape), few = C >= 4 ? 2 : 1, colours = palette();
  canvas.width = few * W; canvas.height = few * H;
  const context = canvas.getContext("2d"), image = context.createImageData(few * W, few * H);
  const span = range(array.data.subarray(0, few * few * size), diverging);
  for (let c = 0; c < few * few; c++) {
    for (let i = 0; i < size; i++) {
      const y = Math.floor(c / few) * H + Math.floor(i / W), x = (c % few) * W + (i % W);
      put(image, y * few * W + x, colour(array.data[c * size + i], span, diverging, colours));
    }
  }
  context.putImageData(image, 0, 0);
}

// An image as it went in: in colour where it has three channels.
function paintImage(canvas, array) {
  const { C, H, W, size } = layout(array.shape);
  if (C !== 3) return paint(canvas, array, 0, false);
  canvas.width = W; canvas.height = H;
  const context = canvas.getContext("2d"), image = context.createImageData(W, H), [low, high] = range(array.data, false);
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = (255 * (array.data[c * size + i] - low)) / (high - low || 1);
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// A map on the page: title, stepper through channels, canvas, marks.  `map` has
//   role      which array it is: x, y, dx, dy, w, dw (tests and explainers know it by that)
//   array, channel(), step(by), diverging, pad, title, back
function buildMap(map, onPoint) {
  const figure = document.createElement("figure");
  figure.className = `map ${map.back ? "back" : ""} ${map.role.includes("w") ? "middle" : ""}`;
  figure.dataset.role = map.role;
  figure.innerHTML = `<figcaption><b>${map.title}</b><span class="value"></span></figcaption>
    <div class="stage" tabindex="0" role="img" aria-label="${escaped(map.label)}"><canvas></canvas>
    <svg preserveAspectRatio="none"></svg></div><div class="stepper"></div>`;
  const stage = figure.querySelector(".stage"), { H, W } = layout(map.array.shape);
  const [[top, bottom], [left, right]] = map.pad;
  figure.querySelector("svg").setAttribute("viewBox", `${-left} ${-top} ${W + left + right} ${H + top + bottom}`);
  figure.querySelector("canvas").style.aspectRatio = `${W + left + right} / ${H + top + bottom}`;
  const cellOf = (event) => {
    const box = stage.getBoundingClientRect();
    const w = Math.floor(((event.clientX - box.left) / box.width) * (W + left + right)) - left;
    const h = Math.floor(((event.clientY - box.top) / box.height) * (H + top + bottom)) - top;
    return [Math.min(Math.max(h, 0), H - 1), Math.min(Math.max(w, 0), W - 1)];
  };
  stage.addEventListener("pointermove", (event) => onPoint(map, ...cellOf(event), false));
  stage.addEventListener("click", (event) => onPoint(map, ...cellOf(event), true));
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault(); event.stopPropagation();
    const [h, w] = map.cell ?? [0, 0];
    onPoint(map, Math.min(Math.max(h + step[0], 0), H - 1), Math.min(Math.max(w + step[1], 0), W - 1), true);
  });
  map.figure = figure;
  return figure;
}

function repaint(map) {
  const { C } = layout(map.array.shape);
  paint(map.figure.querySelector("canvas"), map.array, map.channel(), map.diverging, map.pad);
  const stepper = map.figure.querySelector(".stepper");
  if (!map.step || C < 2) { stepper.textContent = map.under ?? ""; return; }
  stepper.innerHTML = `<button type="button" aria-label="previous channel">‹</button>
    channel ${map.channel()} of 0…${C - 1} <button type="button" aria-label="next channel">›</button>`;
  const [back, on] = stepper.querySelectorAll("button");
  back.onclick = () => map.step(-1);
  on.onclick = () => map.step(1);
}

// Outline cells: rectangles [h, w, height, width]; the first is where one points if `here`, or stands out as `true` says.
function mark(map, rectangles, here = false) {
  map.figure.querySelector("svg").innerHTML = rectangles
    .map(([h, w, height, width, strong], i) => `<rect ${strong || (here && !i) ? 'class="here"' : ""} x="${w}" y="${h}" width="${width}" height="${height}"/>`)
    .join("");
}
