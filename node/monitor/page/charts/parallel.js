// Parallel coordinates: where things are, what is under the pointer, and drawing on a canvas. No DOM.
import { css, rankColor } from './palette.js';
import { every, hash, place, short, unplace } from './scale.js';

const TOP = 40, BOTTOM = 14, SIDE = 16, LABELS = 78, HALF = 7;

/**
 * Where the axes are. The value is the last one.
 * @param {any} data a Parallel of the API @param {{width: number, height: number}} size @param {number[]} edges of the value, of all trials
 */
export function layout(data, size, edges = data.edges) {
  const n = data.axes.length + 1;
  const left = SIDE, right = Math.max(left + 40, size.width - LABELS);
  const top = TOP, bottom = size.height - BOTTOM, h = bottom - top;
  const axes = data.axes.map((/** @type {any} */ axis, /** @type {number} */ i) => {
    const levels = axis.levels.length;
    return { key: axis.key, axis, x: Math.round(left + (right - left) * i / Math.max(1, n - 1)), levels, slot: h / levels, value: false };
  });
  axes.push({ key: data.value, axis: null, x: right, levels: Math.max(1, edges.length - 1), slot: h / Math.max(1, edges.length - 1), value: true });
  return { axes, top, bottom, h, edges, width: size.width, height: size.height, room: (right - left) / Math.max(1, n - 1), goal: data.goal };
}

/** @typedef {ReturnType<typeof layout>} Layout */

/** The middle of a level. @param {Layout} l @param {number} a @param {number} level */
export const levelY = (l, a, level) => l.bottom - (level + 0.5) * l.axes[a].slot;

/** Where a value lies on the last axis. @param {Layout} l @param {number} v */
export const valueY = (l, v) => l.bottom - place(l.edges, v) * l.h;

/**
 * The height of each line on each axis. In a level lines lie beside each other, always at the same place.
 * @param {Layout} l @param {any} data
 */
export function lineYs(l, data) {
  const lines = data.lines, last = l.axes.length - 1;
  return lines.trial.map((/** @type {number} */ trial, /** @type {number} */ i) => l.axes.map((a, k) => {
    if (k === last) return lines.value[i] === null ? null : valueY(l, lines.value[i]);
    const spread = Math.min(a.slot * 0.62, 46);
    return levelY(l, k, lines.levels[k][i]) + (hash(trial + k * 7919) - 0.5) * spread;
  }));
}

/** The curve between two axes at a share of its parameter. @param {number} a @param {number} b @param {number} t */
const along = (a, b, t) => {
  const u = 1 - t, near = u * u * u + 3 * u * u * t;
  return a * near + b * (1 - near);
};

/** The line nearest to a point, within some pixels; -1 for none. @param {Layout} l @param {(number|null)[][]} ys @param {number} x @param {number} y */
export function hitLine(l, ys, x, y, within = 9) {
  const k = l.axes.findIndex((a, i) => i + 1 < l.axes.length && x >= a.x - 1 && x <= l.axes[i + 1].x + 1);
  if (k < 0) return -1;
  const x0 = l.axes[k].x, x1 = l.axes[k + 1].x, m = (x0 + x1) / 2;
  let lo = 0, hi = 1;
  for (let i = 0; i < 20; i++) { // x grows with t
    const t = (lo + hi) / 2, u = 1 - t;
    if (x0 * u * u * u + 3 * m * u * t + x1 * t * t * t < x) lo = t;
    else hi = t;
  }
  let best = -1, least = within;
  ys.forEach((line, i) => {
    const a = line[k], b = line[k + 1];
    if (a === null || b === null) return;
    const d = Math.abs(along(a, b, lo) - y);
    if (d < least) [best, least] = [i, d];
  });
  return best;
}

/** The axis under a point, -1 for none; its name is above. @param {Layout} l @param {number} x @param {number} y */
export function hitAxis(l, x, y) {
  const k = l.axes.findIndex(a => Math.abs(x - a.x) <= (y < l.top - 4 ? Math.min(l.room / 2, 60) : 14));
  return k < 0 ? { axis: -1, name: false } : { axis: k, name: y < l.top - 4 };
}

/** The level at a height, kept within the axis. @param {Layout} l @param {number} a @param {number} y */
export function levelAt(l, a, y) {
  return Math.min(Math.max(Math.floor((l.bottom - y) / l.axes[a].slot), 0), l.axes[a].levels - 1);
}

/** The value at a height of the last axis. @param {Layout} l @param {number} y */
export const valueAt = (l, y) => unplace(l.edges, (l.bottom - y) / l.h);

/** From which to which height a range of levels reaches. @param {Layout} l @param {number} a @param {[number, number]} range */
export function brushBox(l, a, [from, to]) {
  const slot = l.axes[a].slot;
  return { x: l.axes[a].x - HALF, w: 2 * HALF, y: l.bottom - (to + 1) * slot, h: (to - from + 1) * slot };
}

/** Where bands begin and end: within a level they are stacked in the order of the other side. @param {Layout} l @param {any} data */
export function bands(l, data) {
  const totals = l.axes.map(a => new Float64Array(Math.max(a.levels, 64)));
  const last = l.axes.length - 1;
  const levelOf = (/** @type {number} */ a, /** @type {number} */ level) => {
    if (a !== last || data.edges === l.edges || data.edges.length < 2) return level;
    return Math.min(Math.floor(place(l.edges, (data.edges[level] + data.edges[level + 1]) / 2) * l.axes[a].levels), l.axes[a].levels - 1);
  };
  data.bands.forEach((/** @type {any} */ b, /** @type {number} */ k) => {
    b.from.forEach((/** @type {number} */ from, /** @type {number} */ i) => {
      totals[k][levelOf(k, from)] += b.n[i];
      if (k + 1 === last) totals[last][levelOf(last, b.to[i])] += b.n[i];
    });
  });
  const most = totals.map(t => Math.max(1, ...t));
  return data.bands.map((/** @type {any} */ b, /** @type {number} */ k) => {
    const pieces = b.from.map((/** @type {number} */ from, /** @type {number} */ i) => (
      { from: levelOf(k, from), to: levelOf(k + 1, b.to[i]), n: b.n[i], rank: b.rank[i], y0: 0, h0: 0, y1: 0, h1: 0 }));
    for (const left of [true, false]) {
      const a = left ? k : k + 1, fill = l.axes[a].slot * 0.82 / most[a];
      const here = (/** @type {any} */ p) => (left ? p.from : p.to), there = (/** @type {any} */ p) => (left ? p.to : p.from);
      /** @type {Map<number, any[]>} */
      const by = new Map();
      for (const p of pieces) by.set(here(p), [...(by.get(here(p)) ?? []), p]);
      for (const [level, list] of by) {
        list.sort((p, q) => there(q) - there(p));
        let y = levelY(l, a, level) - list.reduce((s, p) => s + p.n, 0) * fill / 2;
        for (const p of list) {
          const h = p.n * fill;
          if (left) [p.y0, p.h0] = [y, h];
          else [p.y1, p.h1] = [y, h];
          y += h;
        }
      }
    }
    return pieces.sort((/** @type {any} */ p, /** @type {any} */ q) => (q.rank ?? 1) - (p.rank ?? 1));
  });
}

/** @param {CanvasRenderingContext2D} c @param {Layout} l @param {(number|null)[]} ys */
function trace(c, l, ys) {
  let started = false;
  for (let k = 0; k < ys.length; k++) {
    const y = ys[k], x = l.axes[k].x;
    if (y === null) break;
    if (!started) c.moveTo(x, y);
    else {
      const x0 = l.axes[k - 1].x, m = (x0 + x) / 2;
      c.bezierCurveTo(m, /** @type {number} */ (ys[k - 1]), m, y, x, y);
    }
    started = true;
  }
}

/** @param {CanvasRenderingContext2D} c @param {Layout} l @param {ReturnType<typeof bands>} all @param {(p: any) => string} color */
export function drawBands(c, l, all, color) {
  all.forEach((/** @type {any[]} */ pieces, /** @type {number} */ k) => {
    const x0 = l.axes[k].x, x1 = l.axes[k + 1].x, m = (x0 + x1) / 2;
    for (const p of pieces) {
      const h0 = Math.max(p.h0, 0.7), h1 = Math.max(p.h1, 0.7);
      c.fillStyle = color(p);
      c.beginPath();
      c.moveTo(x0, p.y0);
      c.bezierCurveTo(m, p.y0, m, p.y1, x1, p.y1);
      c.lineTo(x1, p.y1 + h1);
      c.bezierCurveTo(m, p.y1 + h1, m, p.y0 + h0, x0, p.y0 + h0);
      c.fill();
    }
  });
}

/** Lines of equal colour in one path, the worst first. @param {CanvasRenderingContext2D} c @param {Layout} l @param {any} data @param {(number|null)[][]} ys @param {boolean} dark */
export function drawLines(c, l, data, ys, dark) {
  const n = ys.length, alpha = n > 1500 ? 0.28 : n > 400 ? 0.42 : n > 100 ? 0.6 : 0.85;
  for (let i = n - 1; i >= 0; i--) {
    const rank = data.lines.rank[i];
    c.lineWidth = i < 10 ? 1.6 : 1;
    c.strokeStyle = css(rankColor(rank, dark), i < 10 ? 0.95 : alpha);
    c.beginPath();
    trace(c, l, ys[i]);
    c.stroke();
  }
}

/** @param {CanvasRenderingContext2D} c @param {Layout} l @param {(number|null)[]} ys @param {string} color @param {string} halo @param {number[]} dash */
export function drawLine(c, l, ys, color, halo, dash = []) {
  for (const [style, width, pattern] of /** @type {[string, number, number[]][]} */ ([[halo, 5, []], [color, 2.4, dash]])) {
    c.strokeStyle = style;
    c.lineWidth = width;
    c.setLineDash(pattern);
    c.beginPath();
    trace(c, l, ys);
    c.stroke();
  }
  c.setLineDash([]);
  c.fillStyle = color;
  ys.forEach((y, k) => {
    if (y === null) return;
    c.beginPath();
    c.arc(l.axes[k].x, y, 3, 0, 7);
    c.fill();
  });
}

/** Axes with their names and labels. @param {CanvasRenderingContext2D} c @param {Layout} l @param {import('./palette.js').Theme} t */
export function drawAxes(c, l, t) {
  c.lineJoin = 'round';
  l.axes.forEach((a, k) => {
    c.strokeStyle = t.muted;
    c.lineWidth = 1;
    c.beginPath();
    c.moveTo(a.x + 0.5, l.top);
    c.lineTo(a.x + 0.5, l.bottom);
    c.stroke();
    c.textBaseline = 'middle';
    c.font = '600 13px system-ui, sans-serif';
    c.textAlign = k === 0 ? 'left' : 'center';
    const name = fit(c, a.key, k === 0 ? l.room - 12 : a.value ? 2 * LABELS : l.room - 8);
    halo(c, name, k === 0 ? 2 : Math.min(a.x, l.width - c.measureText(name).width / 2 - 2), 12, t.text, t.ground);
    c.font = '12px system-ui, sans-serif';
    c.textAlign = 'left';
    if (a.value) {
      c.textAlign = 'center';
      const goal = l.goal === 'maximize' ? '↑ is better' : '↓ is better';
      halo(c, goal, Math.min(a.x, l.width - c.measureText(goal).width / 2 - 2), 28, t.muted, t.ground);
      c.textAlign = 'left';
      if (l.edges.length < 2) return;
      const n = Math.max(2, Math.floor(l.h / 44));
      for (let i = 0; i <= n; i++) {
        const y = l.bottom - i / n * l.h;
        tick(c, a.x, y, t);
        halo(c, short(unplace(l.edges, i / n), 4), a.x + 8, Math.min(Math.max(y, l.top + 5), l.bottom - 4), t.text, t.ground);
      }
      return;
    }
    const step = every(a.levels, l.h, 15);
    for (let i = 0; i < a.levels; i += step) {
      const y = levelY(l, k, i);
      tick(c, a.x, y, t);
      halo(c, fit(c, a.axis.levels[i].label, l.room - 14), a.x + 8, y, t.text, t.ground);
    }
  });
}

/** @param {CanvasRenderingContext2D} c @param {number} x @param {number} y @param {any} t */
function tick(c, x, y, t) {
  c.strokeStyle = t.muted;
  c.lineWidth = 1;
  c.beginPath();
  c.moveTo(x - 3, Math.round(y) + 0.5);
  c.lineTo(x + 4, Math.round(y) + 0.5);
  c.stroke();
}

/** Text that stays readable on what lies under it. @param {CanvasRenderingContext2D} c @param {string} text @param {number} x @param {number} y @param {string} ink @param {string} ground */
export function halo(c, text, x, y, ink, ground) {
  c.strokeStyle = ground;
  c.lineWidth = 3.5;
  c.globalAlpha = 0.85;
  c.strokeText(text, x, y);
  c.globalAlpha = 1;
  c.fillStyle = ink;
  c.fillText(text, x, y);
}

/** Text cut to a width. @param {{measureText: (s: string) => {width: number}}} c @param {string} text @param {number} width */
export function fit(c, text, width) {
  if (c.measureText(text).width <= width) return text;
  let n = text.length;
  while (n > 1 && c.measureText(`${text.slice(0, n)}…`).width > width) n--;
  return `${text.slice(0, n)}…`;
}
