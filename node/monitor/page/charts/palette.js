// Colours of charts. No DOM but the one function that reads the theme.

const VIRIDIS = ['440154', '482475', '414487', '355f8d', '2a788e', '21918c', '22a884', '44bf70', '7ad151', 'bddf26', 'fde725'].map(rgb);
const PUOR = ['7f3b08', 'b35806', 'e08214', 'fdb863', 'fee0b6', 'f7f7f7', 'd8daeb', 'b2abd2', '8073ac', '542788', '2d004b'].map(rgb);

/** @typedef {[number, number, number]} RGB */

/** @param {string} hex @returns {RGB} */
export function rgb(hex) {
  const n = parseInt(hex.replace('#', ''), 16);
  return [n >> 16 & 255, n >> 8 & 255, n & 255];
}

/** @param {RGB} c @param {number} [alpha] */
export const css = (c, alpha = 1) => (alpha >= 1 ? `rgb(${c[0]},${c[1]},${c[2]})` : `rgba(${c[0]},${c[1]},${c[2]},${alpha})`);

/** @param {RGB[]} stops @param {number} t @returns {RGB} */
function between(stops, t) {
  const at = Math.min(Math.max(t, 0), 1) * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2), f = at - i;
  return /** @type {RGB} */ (stops[i].map((v, k) => Math.round(v + (stops[i + 1][k] - v) * f)));
}

/** @param {number} t from 0, dark, to 1, bright */
export const viridis = t => between(VIRIDIS, t);

/** Diverging: 0 is in the middle. @param {number} t from −1 to 1 */
export const puor = t => between(PUOR, (t + 1) / 2);

/**
 * The colour of a rank, from 0, the best, to 1: the better, the further from the ground, so that the best stands out on both.
 * @param {number|null|undefined} rank @param {boolean} dark @returns {RGB}
 */
export function rankColor(rank, dark) {
  if (rank === null || rank === undefined || Number.isNaN(rank)) return [128, 128, 128];
  return viridis(dark ? 1 - 0.92 * rank : 0.96 * rank);
}

/** Text that can be read on a colour. @param {RGB} c */
export const inkOn = c => (luminance(c) > 0.179 ? '#000000' : '#ffffff');

/** @param {RGB} c */
export function luminance(c) {
  const [r, g, b] = c.map(v => {
    const s = v / 255;
    return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Contrast of two colours, from 1 to 21. @param {RGB} a @param {RGB} b */
export function contrast(a, b) {
  const [x, y] = [luminance(a), luminance(b)].sort((m, n) => n - m);
  return (x + 0.05) / (y + 0.05);
}

const LIGHT = {
  dark: false, ground: '#ffffff', panel: '#f5f7f9', border: '#d5dae0', text: '#15191e', muted: '#57606c', accent: '#0b57d0',
  running: '#0b57d0', succeeded: '#1a5e3c', failed: '#c73a0a', cancelled: '#5a396a', pending: '#858b93', faint: '#c4cad2',
};
const DARK = {
  dark: true, ground: '#0f1317', panel: '#171c22', border: '#2b333d', text: '#e6eaef', muted: '#9aa5b3', accent: '#6aa8ff',
  running: '#6aa8ff', succeeded: '#3fe09a', failed: '#ff6a4d', cancelled: '#e2c6f1', pending: '#76808c', faint: '#3d4650',
};

/** @typedef {typeof LIGHT} Theme */

/** The theme that the page has: by its ground, whoever has set it. @returns {Theme} */
export function theme() {
  const parts = getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g)?.map(Number);
  if (!parts || parts.length < 3 || parts[3] === 0) return matchMedia('(prefers-color-scheme: dark)').matches ? DARK : LIGHT;
  return luminance(/** @type {RGB} */ (parts.slice(0, 3))) < 0.2 ? DARK : LIGHT;
}

export const themes = [LIGHT, DARK];

// Wong's colours; the first of all would be the same as running trials.
const PINS = ['#d55e00', '#0072b2', '#009e73', '#cc79a7', '#e69f00'];
const PINS_DARK = ['#ff8a3d', '#56b4e9', '#2fd3a0', '#e79ac6', '#f0e442'];
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5]];

/**
 * Colour, dash and marker of pinned trials: by the index, so that a trial looks the same everywhere and after a reload. Where two of
 * the pinned ones would be the same, the later one takes the next that is free.
 * @param {number[]} pins @param {boolean} dark @returns {Map<number, {color: string, dash: number[], shape: number}>}
 */
export function pinStyles(pins, dark) {
  /** @type {Map<number, {color: string, dash: number[], shape: number}>} */
  const out = new Map();
  const taken = new Set();
  for (const index of pins) {
    let at = index % PINS.length;
    while (taken.has(at) && taken.size < PINS.length) at = (at + 1) % PINS.length;
    taken.add(at);
    out.set(index, { color: (dark ? PINS_DARK : PINS)[at], dash: DASHES[at], shape: at });
  }
  return out;
}
