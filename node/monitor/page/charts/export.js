// Charts as files: numbers as CSV, and pictures that say what they show.
import { theme } from './palette.js';

/** @param {{columns: string[], rows: (string|number|null)[][]}} of */
export function csv(of) {
  return [of.columns, ...of.rows].map(r => r.map(cell).join(',')).join('\r\n') + '\r\n';
}

/** A value for a spreadsheet: a text that it would take for a formula gets an apostrophe. @param {string|number|null|undefined} v */
export function cell(v) {
  if (v === null || v === undefined) return '';
  if (typeof v === 'number') return String(v);
  const safe = /^[=+\-@\t\r]/.test(v) && Number.isNaN(Number(v)) ? `'${v}` : v;
  return /[",\r\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
}

/** @param {string} name @param {Blob} blob */
export function save(name, blob) {
  const a = document.createElement('a');
  a.href = URL.createObjectURL(blob);
  a.download = name.replace(/[^\w.-]+/g, '-');
  document.body.append(a);
  a.click();
  a.remove();
  setTimeout(() => URL.revokeObjectURL(a.href), 10_000);
}

/** Words in lines that are not wider than a canvas. @param {{measureText: (s: string) => {width: number}}} c @param {string} text @param {number} width */
export function lines(c, text, width) {
  const out = [''];
  for (const word of text.split(' ')) {
    const longer = out[out.length - 1] ? `${out[out.length - 1]} ${word}` : word;
    if (c.measureText(longer).width <= width || !out[out.length - 1]) out[out.length - 1] = longer;
    else out.push(word);
  }
  return out;
}

/** Saves all canvases of a chart in one picture, with its title above and its sentence below. @param {HTMLElement|null} box @param {string} name @param {string} title @param {string} words */
export function picture(box, name, title, words) {
  const all = /** @type {HTMLCanvasElement[]} */ ([...(box?.querySelectorAll('canvas') ?? [])]);
  if (all.length === 0) return;
  const t = theme(), places = all.map(c => c.getBoundingClientRect());
  const left = Math.min(...places.map(p => p.left)), top = Math.min(...places.map(p => p.top));
  const width = Math.max(...places.map(p => p.right)) - left, height = Math.max(...places.map(p => p.bottom)) - top;
  const ratio = 2, pad = 16, head = 30;
  const canvas = document.createElement('canvas'), c = canvas.getContext('2d');
  if (!c) return;
  c.font = '12px system-ui, sans-serif';
  const below = lines(c, words, width);
  canvas.width = (width + 2 * pad) * ratio;
  canvas.height = (height + head + below.length * 17 + 2 * pad + 6) * ratio;
  c.scale(ratio, ratio);
  c.fillStyle = t.ground;
  c.fillRect(0, 0, canvas.width, canvas.height);
  c.fillStyle = t.text;
  c.font = '600 15px system-ui, sans-serif';
  c.fillText(title, pad, pad + 14);
  all.forEach((from, i) => c.drawImage(from, pad + places[i].left - left, pad + head + places[i].top - top, places[i].width, places[i].height));
  c.font = '12px system-ui, sans-serif';
  c.fillStyle = t.muted;
  below.forEach((line, i) => c.fillText(line, pad, pad + head + height + 18 + i * 17));
  canvas.toBlob(blob => blob && save(name, blob), 'image/png');
}
