// The recorded arrays.  A group is a string of base 64: deflated planes of bytes, all first bytes (sign and exponent)
// of its float32 numbers, then all second ones, and so on; see tinycnn/explain/pack.py.

const study = JSON.parse(document.getElementById("data").textContent);
let groups = [];

async function inflated(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

async function decodeGroup(text) {
  const planes = new Uint8Array(await inflated(text));
  const n = planes.length / study.kept, bits = new Uint32Array(n);
  for (let k = 0; k < study.kept; k++) {
    const plane = planes.subarray(k * n, (k + 1) * n), shift = 24 - 8 * k;
    for (let i = 0; i < n; i++) bits[i] |= plane[i] << shift;
  }
  return new Float32Array(bits.buffer);
}

async function decodeAll() {
  groups = await Promise.all(study.groups.map(decodeGroup));
}

// An array with its shape, without the axis of the batch: [C, H, W] or [F].  null where nothing was recorded.
function take(id, shape) {
  if (id === null || id === undefined) return null;
  const [group, first, count] = study.arrays[id];
  return { data: groups[group].subarray(first, first + count), shape };
}

// ---- images of arrays: every array is drawn as channels of rows and columns ------------------------------------

// How an array is laid out: vectors in rows of at most 20 cells.
function layout(shape) {
  if (shape.length === 3) return { C: shape[0], H: shape[1], W: shape[2], size: shape[1] * shape[2] };
  const F = shape.reduce((a, b) => a * b, 1), W = Math.min(F, F > 400 ? 32 : 20);
  return { C: 1, H: Math.ceil(F / W), W, size: F };
}

function at(array, c, h, w) {
  const { H, W, size } = layout(array.shape);
  const i = h * W + w;
  return h < 0 || w < 0 || h >= H || w >= W || i >= size ? 0 : array.data[c * size + i];
}

// ---- numbers in words ------------------------------------------------------------------------------------------

// Five digits, or four where no more were embedded, with a true minus sign.
const DIGITS = study.kept === 4 ? 5 : 4;
function show(v) {
  if (v === null || v === undefined || Number.isNaN(v)) return "–";
  if (v === 0) return "0";
  const a = Math.abs(v);
  const text = a >= 1e5 || a < 1e-4 ? v.toExponential(DIGITS - 2) : Number(v.toPrecision(DIGITS)).toString();
  return text.replaceAll("-", "−").replace("e+", "e");
}

// An exponent: −12 as ⁻¹².
const raised = (e) => [...String(e)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("");

function escaped(text) {
  return String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
}

const times = (shape) => shape.join("×");
const thousands = (n) => n.toLocaleString("en-US");
