// Convolution: who met whom, forward, backward and for the weights.

// The numbers of the window along one axis (0: rows, 1: columns).
function axis(g, k) {
  return { K: g.kernel[k], S: g.stride[k], P: g.padding[k][0], D: g.dilation[k] };
}

// Where tap k of the window at position o looks, and at which position a pixel is seen by tap k (null: at none).
const looksAt = ({ S, P, D }, o, k) => S * o + D * k - P;
function seenFrom({ S, P, D }, pixel, k, count) {
  const o = (pixel + P - D * k) / S;
  return Number.isInteger(o) && o >= 0 && o < count ? o : null;
}

const weight = (v, o, c, kh, kw) => {
  const [, CG, KH, KW] = v.w.shape;
  return v.w.data[((o * CG + c) * KH + kh) * KW + kw];
};

function convSizes(v) {
  const g = v.layer.geometry, [OC, CG, KH, KW] = v.w.shape, rows = axis(g, 0), columns = axis(g, 1);
  return { g, OC, CG, KH, KW, rows, columns, perGroup: OC / g.groups, OH: v.y.shape[1], OW: v.y.shape[2] };
}

function windowMarks(v, oh, ow) {
  const { KH, KW, rows, columns } = convSizes(v), marks = [];
  for (let kh = 0; kh < KH; kh++) for (let kw = 0; kw < KW; kw++) marks.push([looksAt(rows, oh, kh), looksAt(columns, ow, kw), 1, 1]);
  const solid = rows.D === 1 && columns.D === 1;
  return solid ? [[...marks[0].slice(0, 2), KH, KW]] : marks;
}

// An output cell: its patch, the row of im2col, the filter, the dot product.
function convOutput(v, oh, ow) {
  const { CG, KH, KW, rows, columns, perGroup } = convSizes(v), o = v.cy, first = Math.floor(o / perGroup) * CG;
  const b = v.b ? v.b.data[o] : 0, terms = [];
  const [H, W] = v.x.shape.slice(1);
  const pixel = (c, kh, kw) => {
    const h = looksAt(rows, oh, kh), w = looksAt(columns, ow, kw);
    return h < 0 || w < 0 || h >= H || w >= W ? null : at(v.x, c, h, w);
  };
  const byChannel = Array(CG).fill(0);
  for (let kh = 0; kh < KH; kh++) for (let kw = 0; kw < KW; kw++) for (let c = 0; c < CG; c++) {
    const x = pixel(first + c, kh, kw), product = (x ?? 0) * weight(v, o, c, kh, kw);
    byChannel[c] += product;
    terms.push([terms.length, `${kh}, ${kw}, ${first + c}`, x ?? "0 (padding)", weight(v, o, c, kh, kw), product]);
  }
  const span = (f) => Array.from({ length: KH }, (_, kh) => Array.from({ length: KW }, (_, kw) => f(kh, kw)));
  const c = v.cx - first, products = terms.map((t) => t[4]);
  const channels = CG > 1 ? `<h3>The sum, channel by channel</h3>${list(["c", "Σ w·x"], byChannel.map((s, k) => [String(first + k), s]), "sums by channel")}` : "";
  return {
    marks: { x: windowMarks(v, oh, ow), y: [[oh, ow, 1, 1]] },
    html: formula(`y${place(o, oh, ow)} = ${v.b ? `b[${o}] + ` : ""}Σ w[${o}, c, kh, kw] · x[c, ${rows.S}·${oh} + ${rows.D}·kh − ${rows.P}, ${columns.S}·${ow} + ${columns.D}·kw − ${columns.P}]`)
      + agreement(v.b ? `b + Σ = ${show(b)} + ${show(sumOf(products))}` : "Σ", b + sumOf(products), at(v.y, o, oh, ow), absolute(products) + Math.abs(b))
      + `<div class="grids">${grid(span((kh, kw) => pixel(v.cx, kh, kw)), `patch of x[${v.cx}]`)}
        ${after("·", grid(span((kh, kw) => weight(v, o, c, kh, kw)), `filter w[${o}, ${c}]`))}
        ${after("=", grid(span((kh, kw) => (pixel(v.cx, kh, kw) ?? 0) * weight(v, o, c, kh, kw)), "products"))}</div>`
      + channels
      + `<h3>The row of im2col, ${terms.length} numbers, times the filter as a column</h3>`
      + list(["k", "kh, kw, c", "cols[m, k]", "w", "product"], terms, "row of im2col"),
  };
}

// An input cell: which output gradients reach it, through which weights, and col2im's sum.
function convInput(v, h, w) {
  const { CG, KH, KW, OH, OW, rows, columns, perGroup } = convSizes(v), c = v.cx, group = Math.floor(c / CG);
  if (!v.dy) return nothingCame(v);
  const terms = [], marks = [], used = [], size = { total: 0 };
  for (let kh = 0; kh < KH; kh++) for (let kw = 0; kw < KW; kw++) {
    const oh = seenFrom(rows, h, kh, OH), ow = seenFrom(columns, w, kw, OW);
    if (oh === null || ow === null) continue;
    let dcols = 0;
    for (let o = group * perGroup; o < (group + 1) * perGroup; o++) {
      const product = at(v.dy, o, oh, ow) * weight(v, o, c - group * CG, kh, kw);
      dcols += product; size.total += Math.abs(product);
    }
    const dy = at(v.dy, v.cy, oh, ow), one = weight(v, v.cy, c - group * CG, kh, kw);
    terms.push([`${oh}, ${ow}`, `${kh}, ${kw}`, dy, one, dy * one, dcols]);
    marks.push([oh, ow, 1, 1]); used.push([kh, kw, 1, 1]);
  }
  const dcols = terms.map((t) => t[5]);
  const seen = terms.length === 0 ? "<p>No window sees this pixel: the stride steps over it, so its gradient is 0.</p>" : "";
  return {
    back: true, marks: { x: [[h, w, 1, 1]], y: marks, w: used },
    html: formula(`dx${place(c, h, w)} = Σ over the ${terms.length} windows that see it of dcols = Σ<sub>o</sub> dy[o, oh, ow] · w[o, ${c - group * CG}, kh, kw]`)
      + agreement("col2im's Σ dcols", sumOf(dcols), v.dx ? at(v.dx, c, h, w) : null, size.total) + seen
      + `<p class="soft">dy, w and their product are those of filter ${v.cy}; dcols is the sum over all ${perGroup} filters.</p>`
      + list(["oh, ow", "kh, kw", "dy", "w", "dy·w", "dcols"], terms, "gradients that reach this pixel"),
  };
}

// An output gradient: what it sends back to each pixel of its patch.
function convGradient(v, oh, ow) {
  const { KH, KW, CG, perGroup } = convSizes(v), o = v.cy, c = v.cx - Math.floor(o / perGroup) * CG;
  if (!v.dy) return nothingCame(v);
  const dy = at(v.dy, o, oh, ow);
  const span = (f) => Array.from({ length: KH }, (_, kh) => Array.from({ length: KW }, (_, kw) => f(kh, kw)));
  return {
    back: true, marks: { x: windowMarks(v, oh, ow), y: [[oh, ow, 1, 1]] },
    html: formula(`dy${place(o, oh, ow)} = ${show(dy)} goes back to each pixel of its patch, times the weight it came through`)
      + `<div class="grids"><div class="num">${show(dy)}</div>
        ${after("·", grid(span((kh, kw) => weight(v, o, c, kh, kw)), `filter w[${o}, ${c}]`))}
        ${after("=", grid(span((kh, kw) => dy * weight(v, o, c, kh, kw)), `its share of dx[${v.cx}]`))}</div>`,
  };
}

// A weight: the sum over all positions that is its gradient.
function convWeight(v, kh, kw) {
  const { g, CG, KH, KW, OH, OW, rows, columns, perGroup } = convSizes(v), o = v.cy;
  if (!v.dy) return nothingCame(v);
  if (g.connected && !g.connected[o][v.cx]) return { marks: { w: [[kh, kw, 1, 1]] }, html: formula(`w${place(o, v.cx, kh, kw)} is not there: output ${o} does not see channel ${v.cx}`) + "<p>It counts as 0, and stays so: nothing is learnt for it.</p>" };
  const c = v.cx - Math.floor(o / perGroup) * CG, terms = [], byRow = Array(OH).fill(0);
  const [H, W] = v.x.shape.slice(1);
  for (let oh = 0; oh < OH; oh++) for (let ow = 0; ow < OW; ow++) {
    const h = looksAt(rows, oh, kh), w = looksAt(columns, ow, kw), inside = h >= 0 && w >= 0 && h < H && w < W;
    const dy = at(v.dy, o, oh, ow), x = inside ? at(v.x, v.cx, h, w) : 0;
    byRow[oh] += dy * x;
    terms.push([`${oh}, ${ow}`, inside ? `${h}, ${w}` : "padding", dy, x, dy * x]);
  }
  const products = terms.map((t) => t[4]);
  const recorded = v.dw ? v.dw.data[((o * CG + c) * KH + kh) * KW + kw] : null;
  const seen = [looksAt(rows, 0, kh), looksAt(columns, 0, kw), rows.S * (OH - 1) + 1, columns.S * (OW - 1) + 1];
  return {
    back: true, marks: { x: [seen], y: [[0, 0, OH, OW]], w: [[kh, kw, 1, 1]] },
    html: formula(`dw${place(o, c, kh, kw)} = Σ dy[${o}, oh, ow] · x[${v.cx}, …] over all ${OH}·${OW} positions; w = ${show(weight(v, o, c, kh, kw))}`)
      + agreement("Σ dy·x", sumOf(products), recorded, absolute(products))
      + `<h3>Row by row of the output</h3>${list(["oh", "Σ over ow"], byRow.map((s, i) => [String(i), s]), "sums by row")}`
      + `<h3>Term by term</h3>${largest(["oh, ow", "h, w", "dy", "x", "dy·x"], terms, "terms of the weight's gradient")}`,
  };
}

const nothingCame = () => ({ marks: {}, html: "<p>No gradient came to this layer by itself: the layer around it adds it up in place.</p>" });

explainers.conv = { y: convOutput, x: convInput, dx: convInput, dy: convGradient, w: convWeight, dw: convWeight };
