// Slices through a trial: one small chart for each axis. Real trials only, nothing between them. No DOM.
import { valueLines } from './lines.js';
import { fit } from './parallel.js';
import { every, scale } from './scale.js';

const LEFT = 48, RIGHT = 10, TOP = 24, BOTTOM = 24;

/** The ends of the value over all slices, so that all charts can be compared. @param {any} data */
export function extent(data) {
  const all = data.axes.flatMap((/** @type {any} */ a) => a.value).concat([data.of]).filter((/** @type {any} */ v) => v !== null);
  if (all.length === 0) return [0, 1];
  const lo = Math.min(...all), hi = Math.max(...all), pad = (hi - lo) * 0.08 || Math.abs(hi) * 0.05 || 1;
  return [lo - pad, hi + pad];
}

/** Where the points of one axis are. @param {any} axis a Slice of the API @param {number[]} ends @param {{width: number, height: number}} size */
export function layout(axis, ends, size) {
  const left = LEFT, right = size.width - RIGHT, top = TOP, bottom = size.height - BOTTOM;
  const y = scale(ends[0], ends[1], bottom, top), n = axis.label.length;
  const xs = axis.label.map((/** @type {string} */ _, /** @type {number} */ i) => left + (i + 0.5) / n * (right - left));
  const points = xs.map((/** @type {number} */ x, /** @type {number} */ i) => ({
    x, y: axis.value[i] === null ? null : y.at(axis.value[i]), state: axis.index[i] < 0 ? 'none' : axis.state[i], trial: axis.index[i], at: i === axis.at,
  }));
  return { left, right, top, bottom, y, points, axis, width: size.width, height: size.height };
}

/** The point under the pointer, -1 for none. @param {ReturnType<typeof layout>} l @param {number} x */
export function hit(l, x) {
  const n = l.points.length, i = Math.floor((x - l.left) / (l.right - l.left) * n);
  return i >= 0 && i < n ? i : -1;
}

/** The next place of an axis that the sweep has, in a direction; the same where there is none. @param {any} axis @param {number} from @param {1|-1} step */
export function walk(axis, from, step) {
  for (let i = from + step; i >= 0 && i < axis.index.length; i += step) if (axis.index[i] >= 0) return i;
  return from;
}

/** @param {CanvasRenderingContext2D} c @param {ReturnType<typeof layout>} l @param {import('./palette.js').Theme} t @param {number} under */
export function draw(c, l, t, under) {
  const { axis } = l;
  c.font = '600 13px system-ui, sans-serif';
  c.textBaseline = 'middle';
  c.textAlign = 'left';
  c.fillStyle = t.text;
  c.fillText(fit(c, axis.key, l.width - 12), 6, 11);
  c.font = '12px system-ui, sans-serif';
  valueLines(c, l, t, 3, 5);
  const step = every(l.points.length, l.right - l.left, 40);
  c.textAlign = 'center';
  l.points.forEach((/** @type {any} */ p, /** @type {number} */ i) => {
    if (i % step && !p.at) return;
    c.fillStyle = p.at ? t.text : t.muted;
    c.font = p.at ? '600 12px system-ui, sans-serif' : '12px system-ui, sans-serif';
    c.fillText(fit(c, axis.label[i], Math.max(38, (l.right - l.left) / l.points.length - 4)), p.x, l.bottom + 13);
  });
  if (axis.scale !== 'category') {
    c.strokeStyle = t.muted;
    c.lineWidth = 1.5;
    c.beginPath();
    let pen = false;
    for (const p of l.points) { // no line goes over what is missing
      if (p.y === null) pen = false;
      else {
        if (pen) c.lineTo(p.x, p.y);
        else c.moveTo(p.x, p.y);
        pen = true;
      }
    }
    c.stroke();
  }
  l.points.forEach((/** @type {any} */ p, /** @type {number} */ i) => mark(c, p, l, t, i === under));
}

/** @param {CanvasRenderingContext2D} c @param {any} p @param {ReturnType<typeof layout>} l @param {import('./palette.js').Theme} t @param {boolean} under */
function mark(c, p, l, t, under) {
  if (p.y !== null) {
    c.fillStyle = p.at ? t.accent : t.dark ? '#c9d3de' : '#3a4450';
    c.beginPath();
    c.arc(p.x, p.y, p.at ? 6 : under ? 5.5 : 4, 0, 7);
    c.fill();
    c.strokeStyle = t.ground;
    c.lineWidth = 1.5;
    c.stroke();
  } else {
    const y = l.bottom - 9;
    c.strokeStyle = p.state === 'failed' ? t.failed : p.state === 'running' ? t.running : t.pending;
    c.lineWidth = 2;
    c.beginPath();
    if (p.state === 'failed') {
      c.moveTo(p.x - 4, y - 4);
      c.lineTo(p.x + 4, y + 4);
      c.moveTo(p.x + 4, y - 4);
      c.lineTo(p.x - 4, y + 4);
    } else if (p.state === 'none') {
      c.lineWidth = 1;
      c.moveTo(p.x - 4, y + 4);
      c.lineTo(p.x + 4, y - 4);
    } else {
      c.setLineDash([2, 2]);
      c.arc(p.x, y, 4, 0, 7);
    }
    c.stroke();
    c.setLineDash([]);
  }
  if (p.at || under) {
    c.strokeStyle = p.at ? t.accent : t.muted;
    c.lineWidth = 1;
    c.setLineDash([3, 3]);
    c.beginPath();
    c.moveTo(p.x, l.top);
    c.lineTo(p.x, l.bottom);
    c.stroke();
    c.setLineDash([]);
  }
}
