// What ran when: a lane for each place on a node, a bar for each trial; under it what ended in each span of time. No DOM.
import { fit } from './parallel.js';
import { clock, scale, short, timeTicks } from './scale.js';

const LEFT = 96, RIGHT = 12, HEAD = 22, RATE = 74, GAP = 26;

/** @param {any} data a Timeline of the API @param {number} width @param {[number, number]|null} zoom seconds */
export function layout(data, width, zoom) {
  const [from, to] = zoom ?? [data.from ?? 0, Math.max(data.to ?? 1, (data.from ?? 0) + 1e-3)];
  const x = scale(from, to, LEFT, width - RIGHT);
  /** @type {{node: string, lanes: number, y: number, h: number}[]} */
  const nodes = [];
  const rows = [];
  let y = HEAD;
  if (data.bars) {
    const lanes = new Map();
    data.bars.node.forEach((/** @type {string} */ n, /** @type {number} */ i) => lanes.set(n, Math.max(lanes.get(n) ?? 0, data.bars.lane[i] + 1)));
    const total = [...lanes.values()].reduce((s, n) => s + n, 0);
    const h = total > 60 ? 5 : total > 24 ? 9 : 16;
    for (const [node, n] of lanes) {
      nodes.push({ node, lanes: n, y, h });
      y += n * h + 8;
    }
    const at = new Map(nodes.map(n => [n.node, n]));
    data.bars.trial.forEach((/** @type {number} */ trial, /** @type {number} */ i) => {
      const n = at.get(data.bars.node[i]), s = data.bars.start[i], e = data.bars.end[i];
      if (!n || s === null || e === null || e < from || s > to) return;
      rows.push({ i, trial, x: Math.max(x.at(s), LEFT), x1: Math.min(x.at(e), width - RIGHT), y: n.y + data.bars.lane[i] * h, h: h - (h > 6 ? 2 : 1), state: data.bars.state[i] });
    });
  } else {
    const h = (data.lanes?.length ?? 0) > 40 ? 8 : 18;
    for (const lane of data.lanes ?? []) {
      nodes.push({ node: lane.node, lanes: 1, y, h });
      y += h + 3;
    }
  }
  const rate = { top: y + GAP, bottom: y + GAP + RATE };
  return { x, nodes, rows, rate, width, height: rate.bottom + 26, from, to, left: LEFT, right: width - RIGHT, data };
}

/** The bar under a point. @param {ReturnType<typeof layout>} l @param {number} x @param {number} y */
export function hit(l, x, y) {
  /** @type {any} */
  let best = null;
  for (const r of l.rows) {
    if (y >= r.y && y < r.y + r.h + 1 && x >= r.x - 2 && x <= r.x1 + 2 && (!best || Math.abs((r.x + r.x1) / 2 - x) < Math.abs((best.x + best.x1) / 2 - x))) best = r;
  }
  return best;
}

/** @param {CanvasRenderingContext2D} c @param {ReturnType<typeof layout>} l @param {import('./palette.js').Theme} t */
export function draw(c, l, t) {
  c.font = '12px system-ui, sans-serif';
  c.textBaseline = 'middle';
  const marks = timeTicks(l.from, l.to, Math.max(2, Math.floor((l.right - l.left) / 90)));
  c.lineWidth = 1;
  for (const v of marks) {
    const x = Math.round(l.x.at(v)) + 0.5;
    c.strokeStyle = t.border;
    c.beginPath();
    c.moveTo(x, HEAD - 4);
    c.lineTo(x, l.rate.bottom);
    c.stroke();
    c.fillStyle = t.muted;
    c.textAlign = 'center';
    c.fillText(clock(v), Math.min(Math.max(x, l.left + 8), l.right - 14), 9);
  }
  for (const n of l.nodes) {
    c.fillStyle = t.text;
    c.textAlign = 'right';
    c.fillText(fit(c, n.node, LEFT - 14), LEFT - 8, n.y + n.lanes * n.h / 2);
  }
  for (const r of l.rows) bar(c, r, t);
  l.data.lanes?.forEach((/** @type {any} */ lane, /** @type {number} */ k) => busy(c, l, lane, l.nodes[k], t));
  rates(c, l, t);
}

/** @param {CanvasRenderingContext2D} c @param {any} r @param {import('./palette.js').Theme} t */
function bar(c, r, t) {
  const w = Math.max(1, r.x1 - r.x - (r.x1 - r.x > 4 ? 1 : 0));
  c.fillStyle = /** @type {any} */ (t)[r.state] ?? t.pending;
  c.globalAlpha = r.state === 'succeeded' ? 0.82 : 1;
  c.fillRect(r.x, r.y, w, r.h);
  c.globalAlpha = 1;
  if (r.h < 8 || w < 4) return;
  c.strokeStyle = t.ground;
  c.lineWidth = 1.3;
  c.save();
  c.beginPath();
  c.rect(r.x, r.y, w, r.h);
  c.clip();
  c.beginPath();
  if (r.state === 'failed') { // a cross, so that colour is not alone
    const m = r.x + Math.min(w / 2, 7), y = r.y + r.h / 2;
    c.moveTo(m - 3, y - 3);
    c.lineTo(m + 3, y + 3);
    c.moveTo(m + 3, y - 3);
    c.lineTo(m - 3, y + 3);
  } else if (r.state === 'cancelled') {
    for (let x = r.x - r.h; x < r.x + w; x += 5) {
      c.moveTo(x, r.y + r.h);
      c.lineTo(x + r.h, r.y);
    }
  } else if (r.state === 'running') {
    c.moveTo(r.x + w - 2, r.y);
    c.lineTo(r.x + w - 2, r.y + r.h);
  }
  c.stroke();
  c.restore();
}

/** How much of a node was in use. @param {CanvasRenderingContext2D} c @param {ReturnType<typeof layout>} l @param {any} lane @param {any} at @param {import('./palette.js').Theme} t */
function busy(c, l, lane, at, t) {
  const edges = l.data.edges, most = Math.max(1e-9, ...l.data.lanes.flatMap((/** @type {any} */ v) => v.busy.map((/** @type {any} */ b) => b ?? 0)));
  c.fillStyle = t.accent;
  lane.busy.forEach((/** @type {number|null} */ v, /** @type {number} */ i) => {
    const x0 = Math.max(l.x.at(edges[i]), l.left), x1 = Math.min(l.x.at(edges[i + 1]), l.right);
    if (!v || x1 <= x0) return;
    const h = Math.max(1, v / most * at.h);
    c.fillRect(x0, at.y + at.h - h, Math.max(1, x1 - x0), h);
  });
  c.strokeStyle = t.border;
  c.beginPath();
  c.moveTo(l.left, at.y + at.h + 0.5);
  c.lineTo(l.right, at.y + at.h + 0.5);
  c.stroke();
}

/** @param {CanvasRenderingContext2D} c @param {ReturnType<typeof layout>} l @param {import('./palette.js').Theme} t */
function rates(c, l, t) {
  const { edges, rate } = l.data, states = /** @type {['succeeded', 'failed', 'cancelled']} */ (['succeeded', 'failed', 'cancelled']);
  const n = edges.length - 1;
  if (n < 1) return;
  const sums = Array.from({ length: n }, (_, i) => states.reduce((s, k) => s + (rate[k][i] ?? 0), 0));
  const most = Math.max(1, ...sums), h = l.rate.bottom - l.rate.top, seconds = edges[1] - edges[0];
  c.fillStyle = t.muted;
  c.textAlign = 'left';
  c.fillText(`ended in each ${clock(Number(seconds.toPrecision(2)))}`, l.left, l.rate.top - 12);
  c.textAlign = 'right';
  c.fillText(short(most), l.left - 8, l.rate.top + 4);
  c.fillText('0', l.left - 8, l.rate.bottom - 2);
  for (let i = 0; i < n; i++) {
    const x0 = Math.max(l.x.at(edges[i]), l.left), x1 = Math.min(l.x.at(edges[i + 1]), l.right);
    if (x1 <= x0) continue;
    let y = l.rate.bottom;
    for (const k of states) {
      const v = (rate[k][i] ?? 0) / most * h;
      c.fillStyle = t[k];
      c.fillRect(x0, y - v, Math.max(1, x1 - x0 - 1), v);
      y -= v;
    }
  }
  c.strokeStyle = t.muted;
  c.beginPath();
  c.moveTo(l.left, l.rate.bottom + 0.5);
  c.lineTo(l.right, l.rate.bottom + 0.5);
  c.stroke();
}
