// What terminals make of escape sequences: colours, and lines that are written over. It makes texts with classes, never markup.

const ESCAPE = /\x1b(?:\[([0-9;:?]*)([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\|$)|[()*+][\x20-\x7e]|[\x20-\x7e])?|[\r\b\t\x00-\x08\x0b-\x1f\x7f]/g;
const LONGEST = 8192; // characters of a line that are shown

/** @typedef {{fg: string, bg: string, bold: boolean, dim: boolean, italic: boolean, under: boolean, inverse: boolean}} Style */

const PLAIN = Object.freeze({ fg: '', bg: '', bold: false, dim: false, italic: false, under: false, inverse: false });

/** A colour of the 256, as a class for the first 16 and as RGB for the others. @param {number} n */
function colour256(n) {
  if (n < 16) return `c${n}`;
  if (n >= 232) return `rgb(${Array(3).fill(8 + 10 * (n - 232))})`;
  const level = (/** @type {number} */ v) => (v ? 55 + 40 * v : 0);
  return `rgb(${level(Math.floor((n - 16) / 36))},${level(Math.floor((n - 16) / 6) % 6)},${level((n - 16) % 6)})`;
}

/** The style after the numbers of an SGR sequence. @param {Style} style @param {string} numbers @returns {Style} */
function restyle(style, numbers) {
  const all = numbers.split(/[;:]/).map(n => Number(n) || 0);
  let s = { ...style };
  for (let i = 0; i < all.length; i++) {
    const n = all[i];
    if (n === 0) s = { ...PLAIN };
    else if (n === 1) s.bold = true;
    else if (n === 2) s.dim = true;
    else if (n === 3) s.italic = true;
    else if (n === 4) s.under = true;
    else if (n === 7) s.inverse = true;
    else if (n === 22) s.bold = s.dim = false;
    else if (n === 23) s.italic = false;
    else if (n === 24) s.under = false;
    else if (n === 27) s.inverse = false;
    else if (n >= 30 && n <= 37) s.fg = `c${n - 30}`;
    else if (n >= 90 && n <= 97) s.fg = `c${n - 82}`;
    else if (n === 39) s.fg = '';
    else if (n >= 40 && n <= 47) s.bg = `c${n - 40}`;
    else if (n >= 100 && n <= 107) s.bg = `c${n - 92}`;
    else if (n === 49) s.bg = '';
    else if (n === 38 || n === 48) {
      const field = n === 38 ? 'fg' : 'bg';
      if (all[i + 1] === 5) s[field] = colour256(Math.min(255, all[i + 2] ?? 0));
      if (all[i + 1] === 2) s[field] = `rgb(${[2, 3, 4].map(k => Math.min(255, all[i + k] ?? 0))})`;
      i += all[i + 1] === 5 ? 2 : 4;
    }
  }
  return s;
}

/** One line as a terminal holds it while it is being written. */
class Cells {
  constructor() {
    /** @type {string[]} */
    this.chars = [];
    /** @type {Style[]} */
    this.styles = [];
    this.at = 0;
    this.cut = 0;
  }

  /** @param {string} text @param {Style} style */
  write(text, style) {
    for (const c of text) {
      if (this.at >= LONGEST) {
        this.cut++;
        continue;
      }
      while (this.chars.length < this.at) {
        this.chars.push(' ');
        this.styles.push(PLAIN);
      }
      this.chars[this.at] = c;
      this.styles[this.at++] = style;
    }
  }

  erase(from = this.at) {
    this.chars.length = Math.min(this.chars.length, from);
    this.styles.length = this.chars.length;
  }
}

/**
 * A line of output as pieces of one style each. A carriage return goes back to the beginning, as progress bars do; what moves the cursor
 * elsewhere is left out.
 * @param {string} line without its end @param {Style} [style] that the line before has left
 * @returns {{pieces: {text: string, style: Style}[], style: Style, cut: number}}
 */
export function parse(line, style = PLAIN) {
  const cells = new Cells();
  let from = 0;
  for (const m of line.matchAll(ESCAPE)) {
    if (m.index > from) cells.write(line.slice(from, m.index), style);
    from = m.index + m[0].length;
    if (m[2] === 'm') style = restyle(style, m[1]);
    else if (m[2] === 'K') cells.erase(m[1] === '2' || m[1] === '1' ? 0 : cells.at);
    else if (m[2] === 'G') cells.at = Math.max(0, Math.min(LONGEST, (Number(m[1]) || 1) - 1));
    else if (m[0] === '\r') cells.at = 0;
    else if (m[0] === '\b') cells.at = Math.max(0, cells.at - 1);
    else if (m[0] === '\t') cells.write(' '.repeat(8 - (cells.at % 8)), style);
  }
  if (from < line.length) cells.write(line.slice(from), style);
  /** @type {{text: string, style: Style}[]} */
  const pieces = [];
  cells.chars.forEach((c, i) => {
    const last = pieces[pieces.length - 1];
    if (last && last.style === cells.styles[i]) last.text += c;
    else pieces.push({ text: c, style: cells.styles[i] });
  });
  return { pieces, style, cut: cells.cut };
}

/** The text of a line without what terminals make of it. @param {string} line */
export const plain = line => (/[\x00-\x1f\x7f]/.test(line) ? parse(line).pieces.map(p => p.text).join('') : line);

/** Class and style of a piece. @param {Style} s */
export function look(s) {
  const fg = s.inverse ? s.bg || 'inv' : s.fg, bg = s.inverse ? s.fg || 'inv' : s.bg;
  const names = [s.bold && 'b', s.dim && 'dim', s.italic && 'i', s.under && 'u', fg.startsWith('c') && `f${fg}`, bg.startsWith('c') && `b${bg}`, fg === 'inv' && 'finv', bg === 'inv' && 'binv'];
  const style = {};
  if (fg.startsWith('rgb')) style.color = fg;
  if (bg.startsWith('rgb')) style.backgroundColor = bg;
  return { class: names.filter(Boolean).join(' '), style };
}
