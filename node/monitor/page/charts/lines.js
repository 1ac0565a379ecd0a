// The lines behind a chart, with the values that they stand for.
import { short, ticks } from './scale.js';

/**
 * About n lines across a chart, with their values gap pixels to the left of it.
 * @param {CanvasRenderingContext2D} c
 * @param {{y: {lo: number, hi: number, at: (v: number) => number}, left: number, right: number}} l
 * @param {import('./palette.js').Theme} t @param {number} n @param {number} gap
 */
export function valueLines(c, l, t, n, gap) {
  c.lineWidth = 1;
  for (const v of ticks(l.y.lo, l.y.hi, n)) {
    const y = Math.round(l.y.at(v)) + 0.5;
    c.strokeStyle = t.border;
    c.beginPath();
    c.moveTo(l.left, y);
    c.lineTo(l.right, y);
    c.stroke();
    c.fillStyle = t.muted;
    c.textAlign = 'right';
    c.fillText(short(v, 4), l.left - gap, y);
  }
}
