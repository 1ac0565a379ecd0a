// Heat maps: where the cells are, which one is under the pointer, their colours, and drawing. No DOM.
import { css, inkOn, puor, rankColor, rgb, viridis } from './palette.js';
import { fit } from './parallel.js';
import { every, quantile, short } from './scale.js';

const LEFT = 74, BOTTOM = 44, HEAD = 22, GAP = 18, EDGE = 4;
const SQUARE = 78;

/**
 * Where the maps are: one, or one for each level of a third axis.
 * @param {any} data a Heat of the API @param {number} width
 */
export function layout(data, width) {
  const nx = data.x.levels.length, ny = data.y.levels.length, maps = data.cells.length;
  const least = LEFT + 140;
  const columns = maps === 1 ? 1 : Math.max(1, Math.min(maps, 3, Math.floor((width + GAP) / (least + GAP))));
  const each = (width - GAP * (columns - 1)) / columns;
  const cell = Math.max(6, Math.min(SQUARE * 1.4, (each - LEFT - EDGE) / nx));
  const high = Math.max(ny > 24 ? 9 : 16, Math.min(44, cell, 420 / ny));
  const head = maps > 1 ? HEAD : 8;
  const h = head + high * ny + BOTTOM;
  const facets = data.cells.map((/** @type {any} */ _, /** @type {number} */ k) => ({
    x: LEFT + (k % columns) * (each + GAP), y: Math.floor(k / columns) * h + head, k,
  }));
  const wide = Math.max(width, LEFT + cell * nx + EDGE);
  return { facets, cell, high, nx, ny, width: columns === 1 ? wide : width, height: Math.ceil(maps / columns) * h, left: LEFT, data };
}

/** @typedef {ReturnType<typeof layout>} Layout */

/** The cell under a point; null for none. @param {Layout} l @param {number} x @param {number} y */
export function hit(l, x, y) {
  for (const f of l.facets) {
    const i = Math.floor((x - f.x) / l.cell), j = l.ny - 1 - Math.floor((y - f.y) / l.high);
    if (i >= 0 && i < l.nx && j >= 0 && j < l.ny) return { k: f.k, i, j };
  }
  return null;
}

/** Where a cell is. @param {Layout} l @param {{k: number, i: number, j: number}} at */
export function box(l, { k, i, j }) {
  const f = l.facets[k];
  return { x: f.x + i * l.cell, y: f.y + (l.ny - 1 - j) * l.high, w: l.cell, h: l.high };
}

/** Reports whether an answer has a cell: a newer one may have fewer. @param {any} data @param {{k: number, i: number, j: number}} at */
export const has = (data, { k, i, j }) => data.cells[k]?.value[j]?.[i] !== undefined;

/**
 * The colours of cells. Values are cut at their outermost 2 %, so that a few that have diverged do not flatten the rest.
 * @param {any} data @param {boolean} dark
 */
export function colors(data, dark) {
  /** @type {number[]} */
  const all = data.cells.flatMap((/** @type {any} */ c) => c.value.flat()).filter((/** @type {any} */ v) => v !== null);
  const counts = data.stat === 'count' || data.stat === 'done' || data.stat === 'failed';
  const lo = counts ? 0 : quantile(all, all.length > 50 ? 0.02 : 0);
  const hi = data.stat === 'failed' ? Math.max(0.05, ...all) : quantile(all, all.length > 50 && !counts ? 0.98 : 1);
  const bad = rgb(dark ? '#ff6a4d' : '#c73a0a'), ground = rgb(dark ? '#171c22' : '#ffffff');
  const of = (/** @type {number} */ v) => {
    const t = hi > lo ? Math.min(Math.max((v - lo) / (hi - lo), 0), 1) : 0.5;
    if (data.stat === 'failed') return /** @type {[number, number, number]} */ (ground.map((g, i) => Math.round(g + (bad[i] - g) * Math.sqrt(t))));
    if (counts) return viridis(dark ? 0.1 + 0.9 * t : 1 - 0.9 * t);
    return rankColor(data.goal === 'maximize' ? 1 - t : t, dark);
  };
  return { lo, hi, of };
}

/** @param {CanvasRenderingContext2D} c @param {Layout} l @param {import('./palette.js').Theme} t */
export function draw(c, l, t) {
  const { data } = l, paint = colors(data, t.dark);
  c.textBaseline = 'middle';
  for (const f of l.facets) {
    const cells = data.cells[f.k];
    c.font = '600 13px system-ui, sans-serif';
    c.textAlign = 'left';
    c.fillStyle = t.text;
    if (data.z) c.fillText(fit(c, `${data.z.key} = ${data.z.levels[f.k].label}`, l.nx * l.cell), f.x, f.y - 11);
    for (let j = 0; j < l.ny; j++) {
      for (let i = 0; i < l.nx; i++) {
        const b = box(l, { k: f.k, i, j }), v = cells.value[j][i];
        const gap = l.cell >= 14 && l.high >= 14 ? 1 : 0;
        if (v === null) {
          missing(c, b, t);
          continue;
        }
        const color = paint.of(v);
        c.fillStyle = css(color);
        c.fillRect(b.x, b.y, b.w - gap, b.h - gap);
        if (l.cell >= 34 && l.high >= 15) {
          c.font = '12px system-ui, sans-serif';
          c.fillStyle = inkOn(color);
          c.textAlign = 'center';
          const s = text(data.stat, v, l.cell);
          if (c.measureText(s).width <= l.cell - 3) c.fillText(s, b.x + b.w / 2, b.y + b.h / 2 + 0.5);
        }
      }
    }
    labels(c, l, f, t);
  }
}

/** A value as a cell writes it. @param {string} stat @param {number} v @param {number} width */
function text(stat, v, width) {
  return stat === 'failed' ? `${Math.round(v * 100)}${width < 46 ? '' : ' '}%` : short(v, width >= 48 ? 4 : 3);
}

/** @param {CanvasRenderingContext2D} c @param {{x: number, y: number, w: number, h: number}} b @param {import('./palette.js').Theme} t */
function missing(c, b, t) {
  c.strokeStyle = t.faint;
  c.lineWidth = 1;
  c.strokeRect(b.x + 0.5, b.y + 0.5, b.w - 2, b.h - 2);
  c.beginPath();
  c.moveTo(b.x + 1, b.y + b.h - 2);
  c.lineTo(b.x + b.w - 2, b.y + 1);
  c.stroke();
}

/** @param {CanvasRenderingContext2D} c @param {Layout} l @param {{x: number, y: number}} f @param {import('./palette.js').Theme} t */
function labels(c, l, f, t) {
  const { data } = l;
  c.font = '12px system-ui, sans-serif';
  c.fillStyle = t.text;
  c.textAlign = 'right';
  const down = every(l.ny, l.ny * l.high, 15);
  for (let j = 0; j < l.ny; j += down) c.fillText(fit(c, data.y.levels[j].label, LEFT - 28), f.x - 6, f.y + (l.ny - 0.5 - j) * l.high);
  c.textAlign = 'center';
  const widest = Math.max(...data.x.levels.map((/** @type {any} */ v) => c.measureText(v.label).width));
  const across = every(l.nx, l.nx * l.cell, Math.min(widest, 90) + 8);
  for (let i = 0; i < l.nx; i += across) {
    c.fillText(fit(c, data.x.levels[i].label, Math.max(l.cell * across - 4, 30)), f.x + (i + 0.5) * l.cell, f.y + l.ny * l.high + 11);
  }
  c.fillStyle = t.muted;
  c.font = '600 12px system-ui, sans-serif';
  c.fillText(data.x.key, f.x + l.nx * l.cell / 2, f.y + l.ny * l.high + 28);
  c.save();
  c.translate(f.x - LEFT + 9, f.y + l.ny * l.high / 2);
  c.rotate(-Math.PI / 2);
  c.fillText(fit(c, data.y.key, l.ny * l.high), 0, 0);
  c.restore();
}

/** A strip of the colours with the values at its ends. @param {CanvasRenderingContext2D} c @param {{x: number, y: number, w: number}} at @param {any} data @param {import('./palette.js').Theme} t */
export function legend(c, at, data, t) {
  const paint = colors(data, t.dark);
  for (let i = 0; i < at.w; i++) {
    c.fillStyle = css(paint.of(paint.lo + (paint.hi - paint.lo) * i / at.w));
    c.fillRect(at.x + i, at.y, 1.5, 10);
  }
  c.font = '12px system-ui, sans-serif';
  c.textBaseline = 'middle';
  c.fillStyle = t.muted;
  c.textAlign = 'right';
  c.fillText(data.stat === 'failed' ? '0 %' : short(paint.lo, 4), at.x - 6, at.y + 6);
  c.textAlign = 'left';
  c.fillText(data.stat === 'failed' ? `${Math.round(paint.hi * 100)} %` : short(paint.hi, 4), at.x + at.w + 6, at.y + 6);
}

/**
 * Where the mini maps of all pairs are: below the diagonal the mean rank, above it the interaction.
 * @param {any} data a Matrix of the API @param {number} width
 */
export function matrixLayout(data, width) {
  const n = data.axes.length, left = 70, top = 8, bottom = 22, gap = 6;
  const cell = Math.max(44, Math.min(150, (width - left - gap * n) / n));
  const at = (/** @type {number} */ i) => left + i * (cell + gap);
  const boxes = data.pairs.flatMap((/** @type {any} */ p) => {
    const x = data.axes.findIndex((/** @type {any} */ a) => a.key === p.x), y = data.axes.findIndex((/** @type {any} */ a) => a.key === p.y);
    const [i, j] = x < y ? [x, y] : [y, x];
    return [
      { pair: p, x: at(i), y: at(j) - left + top, cell, kind: 'rank', flip: x > y },
      { pair: p, x: at(j), y: at(i) - left + top, cell, kind: 'interaction', flip: x < y },
    ];
  });
  return { boxes, cell, left, top, at, width: Math.max(width, left + n * (cell + gap)), height: top + n * (cell + gap) + bottom, data };
}

/** The mini map under a point. @param {ReturnType<typeof matrixLayout>} l @param {number} x @param {number} y */
export function matrixHit(l, x, y) {
  return l.boxes.find((/** @type {any} */ b) => x >= b.x && x < b.x + b.cell && y >= b.y && y < b.y + b.cell) ?? null;
}

/** @param {CanvasRenderingContext2D} c @param {ReturnType<typeof matrixLayout>} l @param {import('./palette.js').Theme} t */
export function drawMatrix(c, l, t) {
  const strongest = Math.max(0.05, ...l.data.pairs.flatMap((/** @type {any} */ p) => p.interaction.flat().map((/** @type {any} */ v) => Math.abs(v ?? 0))));
  c.textBaseline = 'middle';
  for (const b of l.boxes) {
    const rows = b.pair[b.kind];
    const high = b.flip ? rows[0]?.length ?? 0 : rows.length, wide = b.flip ? rows.length : rows[0]?.length ?? 0;
    c.fillStyle = t.panel;
    c.fillRect(b.x, b.y, b.cell, b.cell);
    for (let j = 0; j < high; j++) {
      for (let i = 0; i < wide; i++) {
        const v = b.flip ? rows[i][j] : rows[j][i];
        if (v === null) continue;
        c.fillStyle = css(b.kind === 'rank' ? rankColor(v, t.dark) : puor(-v / strongest));
        const x0 = Math.round(b.x + i * b.cell / wide), x1 = Math.round(b.x + (i + 1) * b.cell / wide);
        const y0 = Math.round(b.y + (high - 1 - j) * b.cell / high), y1 = Math.round(b.y + (high - j) * b.cell / high);
        c.fillRect(x0, y0, x1 - x0, y1 - y0);
      }
    }
  }
  l.data.axes.forEach((/** @type {any} */ a, /** @type {number} */ i) => {
    const x = l.at(i) + l.cell / 2, y = l.at(i) - l.left + l.top + l.cell / 2;
    c.font = '600 12px system-ui, sans-serif';
    c.fillStyle = t.text;
    c.textAlign = 'center';
    c.fillText(fit(c, a.key, l.cell - 8), x, y - 8);
    c.font = '12px system-ui, sans-serif';
    c.fillStyle = t.muted;
    const ends = a.levels;
    c.fillText(fit(c, ends.length === 1 ? ends[0].label : `${ends[0].label} … ${ends[ends.length - 1].label}`, l.cell - 6), x, y + 9);
  });
}
