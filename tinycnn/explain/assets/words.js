// Pieces of explanations: grids of numbers, lists of terms, and a sum beside what was recorded.

const explainers = {};

// A table of numbers [[…], …]; null stands for padding.  `won` is the place [row, column] of a winner.
function grid(rows, caption, won = null) {
  const most = Math.max(...rows.flat().map((v) => Math.abs(v ?? 0)));
  const cell = (v, i, j) => v === null
    ? '<td class="pad">0</td>'
    : `<td class="${won && won[0] === i && won[1] === j ? "won" : ""}" style="${tint(v, most)}">${show(v)}</td>`;
  const body = rows.map((row, i) => `<tr>${row.map((v, j) => cell(v, i, j)).join("")}</tr>`).join("");
  return `<div><small>${caption}</small><table class="grid">${body}</table></div>`;
}

// What follows a sign goes with it into the next line.
const after = (sign, table) => `<div class="after"><div class="op">${sign}</div>${table}</div>`;

// A list that scrolls: head, then rows of texts and numbers.
function list(head, rows, label) {
  const cells = (row) => row.map((v) => `<td>${typeof v === "number" ? show(v) : v}</td>`).join("");
  return `<div class="rows" tabindex="0" role="region" aria-label="${escaped(label)}"><table class="grid">
    <tr>${head.map((h) => `<th>${h}</th>`).join("")}</tr>${rows.map((row) => `<tr>${cells(row)}</tr>`).join("")}</table></div>`;
}

// The largest of many terms, by size; the sum is over all of them.
const MOST = 60;
function largest(head, terms, label) {
  const order = terms.slice().sort((a, b) => Math.abs(b[b.length - 1]) - Math.abs(a[a.length - 1]));
  const note = terms.length > MOST ? `<p class="soft">The ${MOST} largest of ${thousands(terms.length)} terms; the sum is over all.</p>` : "";
  return note + list(head, order.slice(0, MOST), label);
}

const sumOf = (numbers) => numbers.reduce((a, b) => a + b, 0);

// "Σ = … · recorded …": float32 (or less) was recorded, so they agree up to rounding relative to the terms' size.
function agreement(name, sum, recorded, scale) {
  const value = `<b data-sum="${sum}">${show(sum)}</b>`;
  if (recorded === null || recorded === undefined) return `<p class="sum">${name} = ${value} <span class="soft">(not recorded in this page, worked out here)</span></p>`;
  const off = Math.abs(sum - recorded), allowed = (study.kept === 4 ? 2e-5 : 2e-4) * Math.max(scale, Math.abs(recorded), 1e-30);
  const word = off <= allowed ? '<span class="agrees">✓ agrees</span>' : '<span class="differs">✗ differs</span>';
  return `<p class="sum">${name} = ${value} · recorded <output data-recorded="${recorded}">${show(recorded)}</output> ${word}</p>`;
}

const formula = (text) => `<p class="formula">${text}</p>`;
const absolute = (numbers) => sumOf(numbers.map(Math.abs));
const place = (...i) => `[${i.join(", ")}]`;
