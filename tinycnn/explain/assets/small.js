// Layers that look at a few cells at a time: pools, activations, normalisation, dropout.

// ---- pools ---------------------------------------------------------------------------------------------------

// The cells [h, w, rank] of the window at (oh, ow); those in the padding are null.
function poolCells(v, oh, ow) {
  const [, H, W] = v.x.shape, [, OH, OW] = v.y.shape, rows = [];
  if (v.layer.kind === "binpool") {
    const bin = (i, size, out) => [Math.floor((i * size) / out), Math.ceil(((i + 1) * size) / out)];
    const [top, bottom] = bin(oh, H, OH), [left, right] = bin(ow, W, OW);
    for (let h = top; h < bottom; h++) rows.push(Array.from({ length: right - left }, (_, j) => [h, left + j]));
    return rows;
  }
  const R = axis(v.layer.geometry, 0), C = axis(v.layer.geometry, 1);
  for (let kh = 0; kh < R.K; kh++) {
    rows.push(Array.from({ length: C.K }, (_, kw) => {
      const h = looksAt(R, oh, kh), w = looksAt(C, ow, kw);
      return h < 0 || w < 0 || h >= H || w >= W ? null : [h, w];
    }));
  }
  return rows;
}

function divisor(v, cells, oh, ow) {
  return v.layer.geometry.divisors ? v.layer.geometry.divisors[oh][ow] : cells.flat().length;
}

// The winner's rank within its window, recorded in the forward.
function winner(v, c, oh, ow) {
  const rank = at(v.winners, c, oh, ow), KW = v.layer.geometry.kernel[1];
  return [Math.floor(rank / KW), rank % KW];
}

function poolOutput(v, oh, ow) {
  const c = v.cx, cells = poolCells(v, oh, ow), inside = cells.flat().filter(Boolean);
  const values = cells.map((row) => row.map((cell) => cell && at(v.x, c, ...cell))), numbers = inside.map((cell) => at(v.x, c, ...cell));
  const marks = { x: inside.map(([h, w]) => [h, w, 1, 1]), y: [[oh, ow, 1, 1]] };
  if (v.layer.kind === "maxpool") {
    const [i, j] = winner(v, c, oh, ow), won = cells[i][j];
    const dy = v.dy ? `<p>On the way back all of dy = ${show(at(v.dy, c, oh, ow))} goes to the winner, nothing to the others.</p>` : "";
    return {
      marks: { ...marks, x: [...marks.x, [...won, 1, 1, true]] },
      html: formula(`y${place(c, oh, ow)} = max over its window; the winner is x${place(c, ...won)}`)
        + agreement("max", Math.max(...numbers), at(v.y, c, oh, ow), 0) + `<div class="grids">${grid(values, `window of x[${c}]`, [i, j])}</div>` + dy,
    };
  }
  const d = divisor(v, cells, oh, ow);
  return {
    marks,
    html: formula(`y${place(c, oh, ow)} = Σ of the window / ${d}`) + agreement(`${show(sumOf(numbers))} / ${d}`, sumOf(numbers) / d, at(v.y, c, oh, ow), absolute(numbers) / d)
      + `<div class="grids">${grid(values, `window of x[${c}]`)}</div>`,
  };
}

function poolInput(v, h, w) {
  if (!v.dy) return nothingCame(v);
  const c = v.cx, [, OH, OW] = v.y.shape, terms = [], marks = [];
  for (let oh = 0; oh < OH; oh++) for (let ow = 0; ow < OW; ow++) {
    const cells = poolCells(v, oh, ow);
    for (let i = 0; i < cells.length; i++) for (let j = 0; j < cells[i].length; j++) {
      const cell = cells[i][j];
      if (!cell || cell[0] !== h || cell[1] !== w) continue;
      const dy = at(v.dy, c, oh, ow);
      let share = 1 / divisor(v, cells, oh, ow);
      if (v.layer.kind === "maxpool") { const [a, b] = winner(v, c, oh, ow); share = a === i && b === j ? 1 : 0; }
      terms.push([`${oh}, ${ow}`, dy, v.layer.kind === "maxpool" ? (share ? "won" : "lost") : share, dy * share]);
      marks.push([oh, ow, 1, 1]);
    }
  }
  const numbers = terms.map((t) => t[3]);
  return {
    back: true, marks: { x: [[h, w, 1, 1]], y: marks },
    html: formula(`dx${place(c, h, w)} = Σ over the windows that see it of dy · its share`)
      + agreement("Σ", sumOf(numbers), v.dx ? at(v.dx, c, h, w) : null, absolute(numbers))
      + list(["oh, ow", "dy", v.layer.kind === "maxpool" ? "this pixel" : "share", "comes back"], terms, "windows that see this pixel"),
  };
}

for (const kind of ["maxpool", "avgpool", "binpool"]) explainers[kind] = { y: poolOutput, dy: poolOutput, x: poolInput, dx: poolInput };

// ---- one cell by itself --------------------------------------------------------------------------------------

const here = (h, w) => ({ x: [[h, w, 1, 1]], y: [[h, w, 1, 1]] });

function activationCell(v, h, w) {
  const c = v.cx, x = at(v.x, c, h, w), y = at(v.y, c, h, w), dy = v.dy && at(v.dy, c, h, w), dx = v.dx && at(v.dx, c, h, w);
  const own = { ReLU: [Math.max(x, 0), x > 0 ? 1 : 0], Tanh: [Math.tanh(x), 1 - Math.tanh(x) ** 2], Sigmoid: [1 / (1 + Math.exp(-x)), Math.exp(-x) / (1 + Math.exp(-x)) ** 2] }[v.layer.type];
  const rows = [["x", x], ["y = f(x)", y], ["dy", dy ?? NaN], ["f′(x)", own ? own[1] : dx / dy], ["dx = dy · f′(x)", dx ?? NaN]];
  const gate = v.layer.type === "ReLU" ? `<p>The gate is ${x > 0 ? "open: x > 0, and the gradient passes unchanged" : "shut: x ≤ 0, and no gradient passes"}.</p>` : "";
  return {
    marks: here(h, w), back: true,
    html: formula(`${escaped(v.layer.text)} at ${place(c, h, w)}`) + gate
      + (own ? agreement("f(x)", own[0], y, 1) + (dx === null ? "" : agreement("dy · f′(x)", dy * own[1], dx, Math.abs(dy))) : "")
      + list(["", ""], rows, "numbers at this cell"),
  };
}

explainers.activation = { x: activationCell, y: activationCell, dx: activationCell, dy: activationCell };

function dropoutCell(v, h, w) {
  const c = v.cx, x = at(v.x, c, h, w), y = at(v.y, c, h, w), p = v.layer.geometry.p;
  const dy = v.dy ? at(v.dy, c, h, w) : NaN, dx = v.dx ? at(v.dx, c, h, w) : NaN;
  const kept = y !== 0 || dx !== 0, factor = kept ? 1 / (1 - p) : 0;
  return {
    marks: here(h, w), back: true,
    html: formula(`y = x·m/(1 − p) with p = ${p}; here m = ${kept ? 1 : 0}`) + agreement("x·m/(1 − p)", x * factor, y, Math.abs(x))
      + (v.dx ? agreement("dy·m/(1 − p)", dy * factor, dx, Math.abs(dy)) : "")
      + `<p>${kept ? "This number was kept, and scaled so that the expected value stays as it is." : "This number was dropped: 0 goes on, and no gradient comes back."}</p>`,
  };
}

explainers.dropout = { x: dropoutCell, y: dropoutCell, dx: dropoutCell, dy: dropoutCell };

// ---- batch normalisation: the gradient's three terms ----------------------------------------------------------

function normCell(v, h, w) {
  const c = v.cx, { size } = layout(v.x.shape), { eps, relu, measured } = v.layer.geometry, M = size;
  const x = v.x.data.subarray(c * size, (c + 1) * size), gamma = v.w ? v.w.data[c] : 1, beta = v.b ? v.b.data[c] : 0;
  let mean = v.mean.data[c], sigma = 1 / v.inv_std.data[c];
  if (measured) {
    mean = sumOf([...x]) / M;
    sigma = Math.sqrt(sumOf([...x].map((a) => (a - mean) ** 2)) / M + eps);
  }
  const value = at(v.x, c, h, w), hat = (value - mean) / sigma, s = v.shortcut ? at(v.shortcut, c, h, w) : 0;
  const before = gamma * hat + beta + s, y = relu ? Math.max(before, 0) : before;
  let html = formula(`x̂ = (x − μ)/σ, &nbsp; y = ${relu ? "max(" : ""}γ·x̂ + β${v.shortcut ? " + s" : ""}${relu ? ", 0)" : ""} &nbsp; at ${place(c, h, w)}`)
    + agreement("y", y, at(v.y, c, h, w), Math.abs(gamma * hat) + Math.abs(beta) + Math.abs(s))
    + list(["x", "μ", "σ", "x̂", "γ", "β", ...(v.shortcut ? ["s"] : [])], [[value, mean, sigma, hat, gamma, beta, ...(v.shortcut ? [s] : [])]], "numbers of this cell");
  if (!v.dy) return { marks: here(h, w), html };
  const dy = v.dy.data.subarray(c * size, (c + 1) * size), out = v.y.data.subarray(c * size, (c + 1) * size);
  let db = 0, dg = 0;
  for (let i = 0; i < M; i++) {
    const g = relu && out[i] <= 0 ? 0 : dy[i];
    db += g; dg += (g * (x[i] - mean)) / sigma;
  }
  const g = relu && at(v.y, c, h, w) <= 0 ? 0 : at(v.dy, c, h, w), a = gamma / sigma;
  const terms = measured ? [a * g, (-a * db) / M, (-a * hat * dg) / M] : [a * g, 0, 0];
  html += `<h3>Back: three ways from x to the loss</h3>`
    + agreement("dx, the sum of the three", sumOf(terms), v.dx ? at(v.dx, c, h, w) : null, absolute(terms))
    + list(["way", "term", ""], [
      ["direct", "γ/σ · g", terms[0]],
      ["through the mean", measured ? "−γ/σ · dβ/M" : "none: μ is a running statistic", terms[1]],
      ["through the variance", measured ? "−γ/σ · x̂ · dγ/M" : "none: σ is a running statistic", terms[2]],
    ], "the three terms")
    + `<p class="soft">g = ${relu ? "dy·[y > 0]" : "dy"} = ${show(g)}; M = ${M} pixels of this image.</p>`
    + (v.db ? agreement("dβ = Σ g", db, v.db.data[c], absolute([...dy])) : "")
    + (v.dw ? agreement("dγ = Σ g·x̂", dg, v.dw.data[c], absolute([...dy])) : "")
    + (v.dshortcut ? agreement("ds, to the shortcut, = g", g, at(v.dshortcut, c, h, w), 0) : "");
  return { marks: here(h, w), back: true, html };
}

explainers.batchnorm = { x: normCell, y: normCell, dx: normCell, dy: normCell };
