// How values are spread, and the best value so far: where things are, what is under the pointer, drawing. No DOM.
import { valueLines } from './lines.js';
import { css, rankColor } from './palette.js';
import { clock, logTicks, place, scale, short, ticks, timeTicks, unplace } from './scale.js';

const LEFT = 46, RIGHT = 10, TOP = 8, BOTTOM = 24;

/** @param {any} data a Histogram of the API @param {any} all the same of all trials @param {{width: number, height: number}} size */
export function layout(data, all, size) {
  const left = LEFT, right = size.width - RIGHT, top = TOP, bottom = size.height - BOTTOM;
  const edges = all.edges.length > 1 ? all.edges : data.edges;
  const most = Math.max(1, ...all.counts, ...(sameEdges(all, data) ? data.counts : []));
  const x = (/** @type {number} */ v) => left + place(edges, v) * (right - left);
  const y = (/** @type {number} */ n) => bottom - (n > 0 ? Math.max(1.5, n / most * (bottom - top)) : 0);
  return { left, right, top, bottom, edges, most, x, y, width: size.width, height: size.height, value: (/** @type {number} */ px) => unplace(edges, (px - left) / (right - left)) };
}

/** @param {any} a @param {any} b */
const sameEdges = (a, b) => a.edges.length === b.edges.length && a.edges[0] === b.edges[0] && a.edges[a.edges.length - 1] === b.edges[b.edges.length - 1];

/** Counts put into the bins of other edges, by their middles. @param {any} data @param {number[]} edges @returns {number[]} */
export function rebin(data, edges) {
  const out = new Array(Math.max(0, edges.length - 1)).fill(0);
  data.counts.forEach((/** @type {number} */ n, /** @type {number} */ i) => {
    const at = Math.floor(place(edges, (data.edges[i] + data.edges[i + 1]) / 2) * out.length);
    if (n) out[Math.min(at, out.length - 1)] += n;
  });
  return out;
}

/** The bin at a place, -1 outside. @param {ReturnType<typeof layout>} l @param {number} x */
export function hit(l, x) {
  const n = l.edges.length - 1;
  const i = Math.floor((x - l.left) / (l.right - l.left) * n);
  return i >= 0 && i < n ? i : -1;
}

/**
 * @param {CanvasRenderingContext2D} c @param {ReturnType<typeof layout>} l @param {any} data @param {any} all
 * @param {import('./palette.js').Theme} t
 */
export function draw(c, l, data, all, t) {
  const n = l.edges.length - 1, wide = (l.right - l.left) / Math.max(1, n);
  c.strokeStyle = t.border;
  c.lineWidth = 1;
  c.font = '12px system-ui, sans-serif';
  c.textBaseline = 'middle';
  c.textAlign = 'right';
  c.fillStyle = t.muted;
  for (const v of ticks(0, l.most, 3).filter(Number.isInteger)) {
    const y = Math.round(l.bottom - v / l.most * (l.bottom - l.top)) + 0.5;
    c.beginPath();
    c.moveTo(l.left, y);
    c.lineTo(l.right, y);
    c.stroke();
    c.fillText(short(v), l.left - 6, y);
  }
  const better = data.goal === 'maximize';
  if (all !== data) {
    c.fillStyle = t.faint;
    all.counts.forEach((/** @type {number} */ k, /** @type {number} */ i) => k && c.fillRect(l.left + i * wide, l.y(k), Math.max(1, wide - 1), l.bottom - l.y(k)));
  }
  const counts = sameEdges(all, data) ? data.counts : rebin(data, l.edges);
  let below = 0;
  const total = Math.max(1, counts.reduce((/** @type {number} */ s, /** @type {number} */ k) => s + k, 0));
  counts.forEach((/** @type {number} */ k, /** @type {number} */ i) => {
    if (!k) return;
    const middle = (below + k / 2) / total;
    below += k;
    c.fillStyle = css(rankColor(better ? 1 - middle : middle, t.dark));
    c.fillRect(l.left + i * wide, l.y(k), Math.max(1, wide - 1), l.bottom - l.y(k));
  });
  c.textAlign = 'center';
  c.textBaseline = 'middle';
  c.fillStyle = t.text;
  const marks = all.log ? logTicks(l.edges[0], l.edges[n], 6) : ticks(l.edges[0], l.edges[n], Math.max(2, Math.floor((l.right - l.left) / 70)));
  for (const v of marks) {
    const x = Math.round(l.x(v)) + 0.5;
    c.strokeStyle = t.muted;
    c.beginPath();
    c.moveTo(x, l.bottom);
    c.lineTo(x, l.bottom + 4);
    c.stroke();
    c.fillText(short(v, 4), Math.min(Math.max(x, l.left + 8), l.right - 12), l.bottom + 14);
  }
  quartiles(c, l, data, t);
}

/** A line over the middle half with the median. @param {CanvasRenderingContext2D} c @param {ReturnType<typeof layout>} l @param {any} data @param {import('./palette.js').Theme} t */
function quartiles(c, l, data, t) {
  const [lo, mid, hi] = [data.quantiles[4], data.quantiles[5], data.quantiles[6]];
  if (lo === null || lo === undefined) return;
  c.strokeStyle = t.text;
  c.lineWidth = 3;
  c.beginPath();
  c.moveTo(l.x(lo), l.bottom + 1.5);
  c.lineTo(l.x(hi), l.bottom + 1.5);
  c.stroke();
  c.fillStyle = t.ground;
  c.lineWidth = 1.5;
  c.beginPath();
  c.arc(l.x(mid), l.bottom + 1.5, 3.5, 0, 7);
  c.fill();
  c.stroke();
}

/** Where the steps of the best so far are. @param {any} data a History of the API @param {{width: number, height: number}} size */
export function historyLayout(data, size) {
  const left = 58, right = size.width - RIGHT, top = 10, bottom = size.height - BOTTOM;
  const lo = Math.min(...data.best), hi = Math.max(...data.best), pad = (hi - lo) * 0.06 || Math.abs(hi) * 0.01 || 1;
  const start = data.time.length ? Math.min(0, data.time[0]) : 0, end = Math.max(data.now ?? 0, data.time[data.time.length - 1] ?? 1);
  const y = scale(lo - pad, hi + pad, bottom, top), x = scale(start, end || 1, left, right);
  const points = data.time.map((/** @type {number} */ t, /** @type {number} */ i) => ({ x: x.at(t), y: y.at(data.best[i]), trial: data.trial[i], i }));
  return { left, right, top, bottom, x, y, points, width: size.width, height: size.height };
}

/** The step under a point, -1 for none. @param {ReturnType<typeof historyLayout>} l @param {number} x */
export function historyHit(l, x) {
  let at = -1;
  l.points.forEach((/** @type {any} */ p, /** @type {number} */ i) => {
    if (p.x <= x + 6) at = i;
  });
  return at;
}

/** @param {CanvasRenderingContext2D} c @param {ReturnType<typeof historyLayout>} l @param {import('./palette.js').Theme} t */
export function drawHistory(c, l, t) {
  c.font = '12px system-ui, sans-serif';
  c.textBaseline = 'middle';
  valueLines(c, l, t, Math.max(2, Math.floor((l.bottom - l.top) / 34)), 6);
  c.textAlign = 'center';
  for (const v of timeTicks(l.x.lo, l.x.hi, Math.max(2, Math.floor((l.right - l.left) / 80)))) {
    c.fillStyle = t.muted;
    c.fillText(clock(v), Math.min(Math.max(l.x.at(v), l.left + 4), l.right - 12), l.bottom + 14);
  }
  if (!l.points.length) return;
  c.strokeStyle = t.accent;
  c.lineWidth = 2;
  c.beginPath();
  l.points.forEach((/** @type {any} */ p, /** @type {number} */ i) => {
    if (i === 0) c.moveTo(p.x, p.y);
    else {
      c.lineTo(p.x, l.points[i - 1].y);
      c.lineTo(p.x, p.y);
    }
  });
  c.lineTo(l.right, l.points[l.points.length - 1].y);
  c.stroke();
  c.fillStyle = t.accent;
  for (const p of l.points) {
    c.beginPath();
    c.arc(p.x, p.y, 3, 0, 7);
    c.fill();
  }
}
