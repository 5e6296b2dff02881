// Layers that look at everything, and places where ways part and meet: linear, loss, residual, concatenation.

// ---- linear --------------------------------------------------------------------------------------------------

function index(array, h, w) {
  const { W, size } = layout(array.shape);
  return Math.min(h * W + w, size - 1);
}

function linearOutput(v, h, w) {
  const o = index(v.y, h, w), F = v.x.shape[0], b = v.b ? v.b.data[o] : 0;
  const terms = Array.from(v.x.data, (x, i) => [`${i}`, x, v.w.data[o * F + i], x * v.w.data[o * F + i]]), products = terms.map((t) => t[3]);
  return {
    o, marks: { y: [[h, w, 1, 1]] },
    html: formula(`y[${o}] = ${v.b ? `b[${o}] + ` : ""}Σ w[${o}, i] · x[i] over ${F} inputs`)
      + agreement(v.b ? `b + Σ = ${show(b)} + ${show(sumOf(products))}` : "Σ", b + sumOf(products), v.y.data[o], absolute(products) + Math.abs(b))
      + largest(["i", "x", `w[${o}, i]`, "product"], terms, "terms of the sum"),
  };
}

function linearInput(v, h, w) {
  if (!v.dy) return nothingCame(v);
  const i = index(v.x, h, w), F = v.x.shape[0];
  const terms = Array.from(v.dy.data, (dy, o) => [`${o}`, dy, v.w.data[o * F + i], dy * v.w.data[o * F + i]]), products = terms.map((t) => t[3]);
  return {
    back: true, marks: { x: [[h, w, 1, 1]], w: [[h, w, 1, 1]] },
    html: formula(`dx[${i}] = Σ dy[o] · w[o, ${i}] over ${terms.length} outputs`)
      + agreement("Σ dy·w", sumOf(products), v.dx ? v.dx.data[i] : null, absolute(products)) + largest(["o", "dy", `w[o, ${i}]`, "product"], terms, "terms of the sum"),
  };
}

function linearWeight(v, h, w) {
  if (!v.dy) return nothingCame(v);
  const i = index(v.x, h, w), o = v.o, F = v.x.shape[0], dy = v.dy.data[o], x = v.x.data[i];
  return {
    back: true, marks: { x: [[h, w, 1, 1]], w: [[h, w, 1, 1]] },
    html: formula(`dw[${o}, ${i}] = dy[${o}] · x[${i}]: of one image, a single product; w = ${show(v.w.data[o * F + i])}`)
      + agreement(`${show(dy)} · ${show(x)}`, dy * x, v.dw ? v.dw.data[o * F + i] : null, Math.abs(dy * x))
      + `<p>The filter shown is that of output ${o}: point at another cell of y for another one.</p>`,
  };
}

function linearGradient(v, h, w) {
  if (!v.dy) return nothingCame(v);
  const o = index(v.dy, h, w);
  return {
    o, back: true, marks: { y: [[h, w, 1, 1]] },
    html: formula(`dy[${o}] = ${show(v.dy.data[o])} goes back to every x[i], times w[${o}, i], and is db[${o}]`)
      + (v.db ? agreement(`db[${o}] = dy[${o}]`, v.dy.data[o], v.db.data[o], 0) : ""),
  };
}

explainers.linear = { y: linearOutput, dy: linearGradient, x: linearInput, dx: linearInput, w: linearWeight, dw: linearWeight };

// ---- the loss: p − y -----------------------------------------------------------------------------------------

function lossTable(sample, label, classes) {
  const pass = sample.passes[label], K = sample.p.length;
  const logits = take(sample.logits, [K]), recorded = take(pass.dlogits, [K]);
  const most = Math.max(...logits.data), raised = Array.from(logits.data, (x) => Math.exp(x - most)), total = sumOf(raised);
  const p = raised.map((e) => e / total);
  const rows = p.map((pk, k) => [escaped(classes[k]), logits.data[k], pk, k === Number(label) ? 1 : 0, pk - (k === Number(label) ? 1 : 0), recorded.data[k]]);
  const head = `<tr>${["class", "logit", "p = softmax", "y", "p − y", "recorded dL/dlogit"].map((t) => `<th>${t}</th>`).join("")}</tr>`;
  const body = rows.map((r, k) => `<tr class="${k === Number(label) ? "now" : ""}" data-class="${k}">${r.map((v) => `<td>${typeof v === "number" ? show(v) : v}</td>`).join("")}</tr>`).join("");
  return formula("L = −log p[y] &nbsp; and &nbsp; dL/dlogit = p − y: what the network believes, minus what is true")
    + agreement(`−log p[${escaped(classes[label])}]`, -Math.log(p[label]), pass.loss, 1)
    + `<div class="rows" tabindex="0" role="region" aria-label="the loss, class by class"><table class="grid">${head}${body}</table></div>`;
}

// ---- where ways meet -----------------------------------------------------------------------------------------

function joinInput(v, h, w) {
  const c = v.cx, parts = v.waysBack.map((way) => [escaped(way.name), way.dx ? at(way.dx, c, h, w) : NaN, way.norm ?? NaN]);
  const numbers = parts.map((p) => p[1]), whole = numbers.every((n) => !Number.isNaN(n));
  return {
    back: true, marks: { x: [[h, w, 1, 1]] },
    html: formula(`dx${place(c, h, w)} = the sum over the ways that x went`)
      + (whole ? agreement("Σ", sumOf(numbers), v.dx ? at(v.dx, c, h, w) : null, absolute(numbers)) : "")
      + list(["way", "its dx here", "‖its dx‖, all cells"], parts, "gradients by way")
      + `<p class="soft">A way that is the identity brings the gradient back as it came, whatever the weights of the other.</p>`,
  };
}

function joinOutput(v, h, w) {
  const c = v.cy, marks = { y: [[h, w, 1, 1]] };
  if (v.layer.geometry.relu) return { marks, html: formula(`y${place(c, h, w)} = relu(norm(main(x)) + shortcut(x)) = ${show(at(v.y, c, h, w))}`) + "<p>The normalisation of this block adds the shortcut and cuts at 0: see its own place in the strip, just before.</p>" + waysTable(v) };
  if (v.layer.kind === "concat") {
    let first = 0;
    for (const way of v.waysOn) {
      if (c < first + way.channels) return { marks, html: formula(`y[${c}] is channel ${c - first} of the branch “${escaped(way.name)}”`) + agreement("its number", at(way.y, c - first, h, w), at(v.y, c, h, w), 0) + waysTable(v) };
      first += way.channels;
    }
  }
  const parts = v.waysOn.map((way) => [escaped(way.name), at(way.y, c, h, w)]), numbers = parts.map((p) => p[1]);
  return { marks, html: formula(`y${place(c, h, w)} = the sum of the ways`) + agreement("Σ", sumOf(numbers), at(v.y, c, h, w), absolute(numbers)) + list(["way", "y"], parts, "ways") };
}

const waysTable = (v) => list(["way", "‖dx‖ that it brings back"], v.waysBack.map((way) => [escaped(way.name), way.norm ?? NaN]), "gradient by way");

for (const kind of ["residual", "concat"]) explainers[kind] = { x: joinInput, dx: joinInput, y: joinOutput, dy: joinOutput };

// ---- everything else: the recorded numbers -------------------------------------------------------------------

function plainCell(role) {
  return (v, h, w) => {
    const array = v[role], c = role.endsWith("x") ? v.cx : v.cy;
    const flat = v.layer.type === "Flatten" && v.x.shape.length === 3;
    const base = role.endsWith("x") ? "x" : "y", marks = { [base]: [[h, w, 1, 1]] };
    if (!flat) return { marks, html: formula(`${role}${place(c, h, w)} = ${show(at(array, c, h, w))}`) };
    const [, H, W] = v.x.shape, wide = layout(v.y.shape).W;
    const i = base === "y" ? index(v.y, h, w) : (c * H + h) * W + w;
    const cell = [Math.floor(i / (H * W)), Math.floor(i / W) % H, i % W];
    return { marks: { y: [[Math.floor(i / wide), i % wide, 1, 1]], x: cell[0] === v.cx ? [[cell[1], cell[2], 1, 1]] : [] },
      html: formula(`y[${i}] is x${place(...cell)}: nothing is computed, and gradients go back to where the numbers came from`)
        + agreement(`x${place(...cell)}`, at(v.x, ...cell), v.y.data[i], 0) + (v.dx && v.dy ? agreement(`dy[${i}]`, v.dy.data[i], at(v.dx, ...cell), 0) : "") };
  };
}

explainers.other = Object.fromEntries(["x", "y", "dx", "dy"].map((role) => [role, plainCell(role)]));
