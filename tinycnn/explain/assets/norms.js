// Layers that normalise each image by itself, those in which channels compete, and dense blocks.

// ---- group, instance and layer normalisation --------------------------------------------------------------------

// The numbers that share a mean and a variance with number i, one piece of the array: [first, count].
function sharers(v, i) {
  const { shared } = v.layer.geometry;
  return [Math.floor(i / shared) * shared, shared];
}

// Which γ and β number i has: one for each channel, or one for each feature.
const gainOf = (v, i) => (v.layer.geometry.by === "channel" ? Math.floor(i / layout(v.x.shape).size) : i % v.layer.geometry.shared);

function ownNormCell(v, h, w) {
  const { size, W } = layout(v.x.shape), c = v.cx, i = Math.min(c * size + h * W + w, v.x.data.length - 1), [first, M] = sharers(v, i);
  const { eps, running, names } = v.layer.geometry, x = v.x.data, gamma = (k) => (v.w ? v.w.data[gainOf(v, k)] : 1), beta = v.b ? v.b.data[gainOf(v, i)] : 0;
  let mean = 0, variance = 0;
  if (running) [mean, variance] = [running[0][c], running[1][c]];
  else {
    for (let k = first; k < first + M; k++) mean += x[k] / M;
    for (let k = first; k < first + M; k++) variance += (x[k] - mean) ** 2 / M;
  }
  const sigma = Math.sqrt(variance + eps), hat = (k) => (x[k] - mean) / sigma, y = gamma(i) * hat(i) + beta;
  const marks = { x: here(h, w).x, y: here(h, w).y };
  let html = formula(`x̂ = (x − μ)/σ, &nbsp; y = γ·x̂ + β &nbsp; at ${place(c, h, w)}; μ and σ ${running ? "are running statistics" : `of the M = ${thousands(M)} numbers of ${names}`}`)
    + agreement("y", y, v.y.data[i], Math.abs(gamma(i) * hat(i)) + Math.abs(beta))
    + list(["x", "μ", "σ", "x̂", "γ", "β"], [[x[i], mean, sigma, hat(i), gamma(i), beta]], "numbers of this cell");
  if (!v.dy) return { marks, html };
  const dy = v.dy.data;
  let sum = 0, dot = 0;
  for (let k = first; k < first + M; k++) { const g = gamma(k) * dy[k]; sum += g; dot += g * hat(k); }
  const terms = running ? [(gamma(i) * dy[i]) / sigma, 0, 0] : [(gamma(i) * dy[i]) / sigma, -sum / M / sigma, (-hat(i) * dot) / M / sigma];
  let db = 0, dg = 0, scale = 0;
  for (let k = 0; k < x.length; k++) if (gainOf(v, k) === gainOf(v, i)) {
    const [a, n] = sharers(v, k), near = a === first && n === M; // another piece has a mean and a deviation of its own
    if (near) { db += dy[k]; dg += dy[k] * hat(k); scale += Math.abs(dy[k]) * (1 + Math.abs(hat(k))); } else dg = NaN;
  }
  html += "<h3>Back: three ways from x to the loss</h3>"
    + agreement("dx, the sum of the three", sumOf(terms), v.dx ? v.dx.data[i] : null, absolute(terms))
    + list(["way", "term", ""], [
      ["direct", "γ·dy/σ", terms[0]],
      ["through the mean", running ? "none: μ is a running statistic" : "−mean(γ·dy)/σ", terms[1]],
      ["through the variance", running ? "none: σ is a running statistic" : "−x̂·mean(γ·dy·x̂)/σ", terms[2]],
    ], "the three terms")
    + `<p class="soft">The means are over the same M numbers as μ and σ; γ may differ among them, so it stands within.</p>`;
  if (!Number.isNaN(dg)) html += (v.db ? agreement("dβ = Σ dy", db, v.db.data[gainOf(v, i)], scale) : "") + (v.dw ? agreement("dγ = Σ dy·x̂", dg, v.dw.data[gainOf(v, i)], scale) : "");
  return { marks, back: true, html };
}

explainers.ownnorm = { x: ownNormCell, y: ownNormCell, dx: ownNormCell, dy: ownNormCell };

// ---- local response normalisation -------------------------------------------------------------------------------

function responseCell(v, h, w) {
  const c = v.cx, { before, after, alpha, beta, k } = v.layer.geometry, C = v.x.shape[0];
  const around = (j, back, on) => Array.from({ length: C }, (_, n) => n).filter((n) => n >= j - back && n <= j + on);
  const s = (j) => k + alpha * sumOf(around(j, before, after).map((n) => at(v.x, n, h, w) ** 2));
  const x = at(v.x, c, h, w), y = x * s(c) ** -beta;
  let html = formula(`s[c] = k + α Σ x[j]² over channels ${around(c, before, after)[0]} … ${around(c, before, after).at(-1)}, &nbsp; y[c] = x[c]·s[c]^(−β) &nbsp; at ${place(c, h, w)}; α = ${show(alpha)}, β = ${show(beta)}, k = ${show(k)}`)
    + agreement("x·s^(−β)", y, at(v.y, c, h, w), Math.abs(y))
    + list(["j", "x[j]", "α·x[j]²"], around(c, before, after).map((j) => [String(j), at(v.x, j, h, w), alpha * at(v.x, j, h, w) ** 2]), "neighbouring channels");
  if (!v.dy) return { marks: here(h, w), html };
  const direct = at(v.dy, c, h, w) * s(c) ** -beta;
  const rows = around(c, after, before).map((j) => [String(j), at(v.dy, j, h, w), at(v.x, j, h, w), s(j), -2 * alpha * beta * x * at(v.dy, j, h, w) * at(v.x, j, h, w) * s(j) ** (-beta - 1)]);
  const terms = [direct, ...rows.map((r) => r[4])];
  html += "<h3>Back: as a factor of its own output, and through the sums it is in</h3>"
    + agreement("dx", sumOf(terms), v.dx ? at(v.dx, c, h, w) : null, absolute(terms))
    + list(["way", "dy[j]", "x[j]", "s[j]", "comes back"], [["direct: dy·s^(−β)", at(v.dy, c, h, w), x, s(c), direct], ...rows.map(([j, ...rest]) => [`through s[${j}]`, ...rest])], "terms of dx")
    + '<p class="soft">Through s[j] comes −2αβ · x[c] · dy[j] · x[j] · s[j]^(−β−1).</p>';
  return { marks: here(h, w), back: true, html };
}

explainers.lrn = { x: responseCell, y: responseCell, dx: responseCell, dy: responseCell };

// ---- dense blocks: every layer reads all channels there are and writes new ones behind them -----------------------

// Which layer wrote channel c of y: [its number or −1 for the input, the channel's number there].
function writer(v, c) {
  const before = v.x.shape[0];
  if (c < before) return [-1, c];
  const growth = v.waysOn[0].channels;
  return [Math.floor((c - before) / growth), (c - before) % growth];
}

function denseOutput(v, h, w) {
  const c = v.cy, [i, own] = writer(v, c), marks = { y: [[h, w, 1, 1]], x: i < 0 && own === v.cx ? [[h, w, 1, 1]] : [] };
  const readers = v.waysOn.slice(i + 1).map((way) => escaped(way.name));
  return { marks, html: formula(i < 0 ? `y[${c}] is x[${own}], passed on as it is` : `y[${c}] is channel ${own} of what ${escaped(v.waysOn[i].name)} found out`)
    + agreement("its number", i < 0 ? at(v.x, own, h, w) : at(v.waysOn[i].y, own, h, w), at(v.y, c, h, w), 0)
    + (v.dy ? `<p>dy${place(c, h, w)} = ${show(at(v.dy, c, h, w))} came back to it from outside; to that ${readers.length ? `the ${readers.length} layers that read it (${readers.join(", ")}) add what each of them sends back` : "nothing is added, as no layer of the block reads it"}.</p>` : "") };
}

function denseInput(v, h, w) {
  if (!v.dy || !v.dx) return nothingCame(v);
  const c = v.cx, direct = at(v.dy, c, h, w), all = at(v.dx, c, h, w);
  return { back: true, marks: { x: [[h, w, 1, 1]], y: v.cy === c ? [[h, w, 1, 1]] : [] },
    html: formula(`dx${place(c, h, w)} = dy${place(c, h, w)} + what the ${v.waysOn.length} layers send back, all of which read x`)
      + list(["way", "gradient"], [["passed on as it is: dy", direct], ["through the layers, added up in place", all - direct], ["dx", all]], "ways through the block") };
}

explainers.dense = { x: denseInput, dx: denseInput, y: denseOutput, dy: denseOutput };
